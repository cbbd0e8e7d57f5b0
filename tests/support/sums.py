"""A federation in one process: sums updates over hubs as a plan would, without masks, hubs or keys.

Exact: every row is rounded to 40 fraction bits before it is summed. Private: rows are clipped, and Gaussian
noise is added to the total from a seeded generator (the real discrete noise is tested in its own room).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flute.algorithms.contract import Ask, Finished, Opened, Scope, Setting, Spec, StepShape, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import FIXED_POINT_BITS
from flute.questions.registry import algorithm_for
from flute.study.contribution import given_by

PILOT_NOISE = 1.5
"""Variance of the whole noise over the one charged: three hubs of which two are counted on."""


@dataclass(frozen=True)
class Privacy:
    """The budget (rho) of one question, and how much more variance the total carries than is charged."""

    rho: float
    chance: np.random.Generator
    excess: float = PILOT_NOISE


def dataset(columns: Mapping[str, Sequence[float] | Array], variables: Sequence[StudyVariable]) -> Dataset:
    """Columns as they are, nothing cleaned: strange values reach the algorithm."""
    arrays = {v.variable.name: np.asarray(columns[v.variable.name], dtype=np.float64) for v in variables}
    n = len(next(iter(arrays.values())))
    return Dataset(np.array([f"p{i}" for i in range(n)]), arrays, [v.variable for v in variables])


def setting(
    variables: Sequence[StudyVariable],
    questions: Mapping[str, tuple[Spec, Scope]] | None = None,
    **changed: Any,
) -> Setting:
    given: dict[str, Any] = {"missing": "drop", "mode": "exact", "hubs": ("a", "b", "c")} | changed
    return Setting(variables={v.variable.name: v for v in variables}, questions=questions or {}, **given)


def run(
    spec: Spec,
    agreed: Setting,
    hubs: Sequence[Dataset],
    *,
    privacy: Privacy | None = None,
    inputs: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The result, after at most as many steps as the outline has."""
    algorithm = algorithm_for(spec)
    algorithm.check(spec, agreed)
    outline = algorithm.outline(spec, agreed)
    history: list[Opened] = []
    while True:
        reached = algorithm.next(spec, agreed, tuple(history), inputs or {})
        if isinstance(reached, Finished):
            return reached.result
        history.append(_open(spec, agreed, hubs, outline[len(history)], len(history), reached, privacy))


def _open(
    spec: Spec,
    agreed: Setting,
    hubs: Sequence[Dataset],
    shape: StepShape,
    step: int,
    ask: Ask,
    privacy: Privacy | None,
) -> Opened:
    algorithm = algorithm_for(spec)
    updates = [_rows(given_by(algorithm, spec, agreed, step, ask.parameters, d)(), len(d), shape) for d in hubs]
    if privacy is None:
        grid = 2.0**FIXED_POINT_BITS
        total = np.sum([np.round(update * grid).sum(axis=0) for update in updates], axis=0) / grid
        return Opened(ask.parameters, total, 0.0)
    total = np.sum([clipped(update, shape.clip_norm).sum(axis=0) for update in updates], axis=0)
    sigma = float(shape.clip_norm / np.sqrt(2 * privacy.rho * shape.weight / privacy.excess))
    return Opened(ask.parameters, total + sigma * privacy.chance.standard_normal(shape.size), sigma)


def _rows(given: Array | Iterator[Array], patients: int, shape: StepShape) -> Array:
    """What is added up: a row per patient, or one row that is a hub's total; a hub would see no fault in it."""
    update = given if isinstance(given, np.ndarray) else np.concatenate([np.zeros((0, shape.size)), *given])
    total = update.ndim == 1
    assert update.shape == ((shape.size,) if total else (patients, shape.size))
    assert update.dtype == np.float64
    assert np.isfinite(update).all()
    assert not total or np.all(np.abs(update) <= patients * shape.magnitude * (1 + 1e-12))
    return update[None, :] if total else update


def clipped(update: Array, norm: float) -> Array:
    lengths = np.linalg.norm(update, axis=1)
    return update * (norm / np.maximum(lengths, norm))[:, None]


def spread(columns: Mapping[str, Array], owner: Array, variables: Sequence[StudyVariable]) -> list[Dataset]:
    """One dataset per hub; `owner` is the hub number, from 0, of each row. A hub may be empty."""
    return [
        dataset({k: v[owner == hub] for k, v in columns.items()}, variables)
        for hub in range(int(owner.max(initial=0)) + 1)
    ]
