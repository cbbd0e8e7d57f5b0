"""SIMULATED patients, drawn from nothing but a study's declared variables: no record is read for an attack.

Numbers are uniform over their declared range (over its logarithm where the study takes it), levels and outcomes are
coins, every pixel is uniform. Where a model has to be of use (`learnable`), the outcome follows from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from flute.algorithms.contract import Setting, StudyVariable
from flute.algorithms.design import bounds, values
from flute.attacks.chance import Chance
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.attacks import FIELD_TOLERANCE
from flute.errors import MisuseError

_EFFECT = 1.6
"""Deviation of the log odds between learnable patients: an AUC of about .8."""
_SPREAD = 0.12
"""Deviation of a learnable patient's number, of the range: ordinary patients are not at its ends."""


def simulated(
    setting: Setting,
    names: Sequence[str],
    count: int,
    chance: Chance,
    fixed: Mapping[str, NDArray[Any]] | None = None,
) -> Dataset:
    """`count` patients with the variables `names`. fixed: columns [count], images [count, *shape], to take as they
    are."""
    columns = {}
    for name in names:
        given = (fixed or {}).get(name)
        columns[name] = _drawn(setting.variables[name], count, chance) if given is None else given
    return _dataset(setting, names, columns, chance)


def learnable(
    setting: Setting, names: Sequence[str], outcome: str, effects: Array, count: int, chance: Chance
) -> Dataset:
    """Patients whose outcome follows from the others of `names`, by `effects` [one per variable], numbers in the
    middle of their range: cohorts drawn with the same effects have the same truth."""
    columns, odds = {}, np.zeros(count)
    predictors = [n for n in names if n != outcome]
    if len(effects) != len(predictors):
        raise MisuseError("A learnable cohort needs one effect per predictor.")
    for name, effect in zip(predictors, effects.tolist(), strict=True):
        used = setting.variables[name]
        if used.variable.kind == "number":
            place = np.clip(0.5 + _SPREAD * chance.normal(count), 0.0, 1.0)
            columns[name], standard = _at(used, place), (place - 0.5) / _SPREAD
        else:
            columns[name] = _drawn(used, count, chance)
            top = max(1, len(used.variable.levels) - 1)
            standard = 2 * columns[name] / top - 1
        odds += effect * standard
    scale = _EFFECT / max(float(np.linalg.norm(effects)), 1e-9)
    columns[outcome] = (logit(chance.uniform(count)) < scale * odds).astype(np.float64)
    return _dataset(setting, names, columns, chance)


def effects_of(setting: Setting, names: Sequence[str], chance: Chance) -> Array:
    """Effects for `learnable`, one per variable of `names`, of either sign and none near 0."""
    return np.where(chance.coins(len(names)), 1.0, -1.0) * (0.5 + chance.uniform(len(names)))


def together(parts: Sequence[Dataset], setting: Setting) -> Dataset:
    """One table of several, in order. Raises: MisuseError: a pseudonym stands in two of them."""
    names = [n for n in setting.variables if all(n in fields_of(p, setting) for p in parts)]
    columns = {n: np.concatenate([p.column(n) for p in parts]) for n in names}
    pseudonyms = np.concatenate([p.pseudonyms for p in parts])
    images = {n: np.concatenate([p.images(n) for p in parts]) for n in names if is_image(setting, n)}
    return Dataset(pseudonyms, columns, [setting.variables[n].variable for n in names], images)


def replaced(data: Dataset, setting: Setting, changed: Mapping[str, Array]) -> Dataset:
    """The same patients with other values in the columns of `changed`; their images stay."""
    names = fields_of(data, setting)
    columns = {n: changed.get(n, data.column(n)) for n in names}
    images = {n: data.images(n) for n in names if is_image(setting, n)}
    return Dataset(data.pseudonyms, columns, [setting.variables[n].variable for n in names], images)


def is_image(setting: Setting, name: str) -> bool:
    return setting.variables[name].variable.kind == "image"


def fields_of(data: Dataset, setting: Setting) -> tuple[str, ...]:
    """The study's variables that this table has."""
    found = []
    for name in setting.variables:
        try:
            data.column(name)
        except MisuseError:
            continue
        found.append(name)
    return tuple(found)


def _drawn(used: StudyVariable, count: int, chance: Chance) -> Array:
    """[count], of an image [count, *shape]."""
    v = used.variable
    if v.kind == "image":
        return v.low + (v.high - v.low) * chance.uniform(count, *(v.shape or ()))
    if v.kind == "number":
        return _at(used, chance.uniform(count))
    return chance.integers(2 if v.kind == "binary" else len(v.levels), count).astype(np.float64)


def _at(used: StudyVariable, place: Array) -> Array:
    """Values at that part of the declared range, 0 its low end."""
    low, high = bounds(used)
    found = low + (high - low) * place
    found = np.exp(found) if used.log else found
    return np.clip(found, used.variable.low, used.variable.high)


def _dataset(setting: Setting, names: Sequence[str], values: Mapping[str, NDArray[Any]], chance: Chance) -> Dataset:
    """values: columns, and of every image the images themselves, which everybody then has."""
    count = len(values[names[0]])
    images = {n: values[n].astype(np.float32) for n in names if is_image(setting, n)}
    columns = {n: np.ones(count) if n in images else values[n] for n in names}
    serial = chance.bytes(8).hex()
    pseudonyms = np.array([f"SIMULATED-{serial}-{i}" for i in range(count)], dtype=np.str_)
    return Dataset(pseudonyms, columns, [setting.variables[n].variable for n in names], images)


# --- what counts as recovered ----------------------------------------------------------------------


def recovered(found: Mapping[str, float], patient: Dataset, setting: Setting) -> dict[str, bool]:
    """For each field of `found`, is it the patient's? A number may be FIELD_TOLERANCE of its range away (of the
    logarithm's where the study takes it). patient: one row."""
    hits = {}
    for name, guess in found.items():
        used = setting.variables[name]
        truth = float(values(used, patient)[0])
        low, high = bounds(used)
        reach = FIELD_TOLERANCE * (high - low) if used.variable.kind == "number" else 0.0
        hits[name] = bool(np.isfinite(guess) and abs(guess - truth) <= reach)
    return hits


def by_guess(used: StudyVariable) -> float:
    """How often the best guess is right about a simulated patient of whom nothing was seen; of an image, about a
    pixel."""
    v = used.variable
    return 2 * FIELD_TOLERANCE if v.kind in ("number", "image") else 1 / max(2, len(v.levels))
