"""Made-up patients for previews: as a study file describes them, and nobody.

A number has a bell over its public centre and spread (middle and quarter of its range, where a file gives none), cut
to the range; levels are equally frequent; a 0/1 variable is 1 for the assumed part. An outcome of a model follows its
predictors, all of them alike, as strongly as the assumed area under the ROC curve says. Nothing is missing.
Points are `even_points`: no chance, the same patients from the same study file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import expit, ndtr, ndtri
from scipy.stats import rankdata

from flute.algorithms.contract import Setting, StudyVariable
from flute.algorithms.design import bounds
from flute.algorithms.even_points import even_points
from flute.data.dataset import Dataset
from flute.data.variables import Array

_BISECTIONS: Final = 40
_STEEPEST: Final = 12.0
"""Log odds per deviation of the predictors together: an area of more than .99 at any rate."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a preview supposes of records that it does not see; public guesses, never counted.

    patients: at every hub, all of them with every value. rate: part of them with a 0/1 variable at 1. auc: how well
    a model's predictors tell who has its outcome. Errors of counts depend on none of them, errors of means and shares
    on `patients` alone, quantiles on where values lie, coefficients and scores on all.
    """

    patients: int = 1_000
    rate: float = 0.2
    auc: float = 0.75


def made_up_patients(setting: Setting, assumed: Assumed, count: int, *, skip: int = 0) -> Dataset:
    """`count` patients with every variable of the study but images; skip: others than the first so many."""
    used = [u for u in setting.variables.values() if u.variable.kind != "image"]
    points = even_points(count, len(used), skip=skip)
    columns = {u.variable.name: _column(u, points[:, k], assumed) for k, u in enumerate(used)}
    for outcome, predictors in _models(setting).items():
        at = [u.variable.name for u in used].index(outcome)
        columns[outcome] = _outcomes([setting.variables[p] for p in predictors], columns, points[:, at], assumed)
    return Dataset(np.array([f"made-up-{k}" for k in range(count)]), columns, [u.variable for u in used])


def _column(used: StudyVariable, points: Array, assumed: Assumed) -> Array:
    v = used.variable
    if v.kind == "category":
        return np.floor(points * len(v.levels))
    if v.kind == "binary":
        return (points < assumed.rate).astype(np.float64)
    low, high = bounds(used)
    centre, spread = _bell(used)
    ends = ndtr((np.array([low, high]) - centre) / spread)
    inside = np.clip(centre + spread * ndtri(ends[0] + (ends[1] - ends[0]) * points), low, high)
    return np.asarray(np.clip(np.exp(inside) if used.log else inside, v.low, v.high))


def _bell(used: StudyVariable) -> tuple[float, float]:
    """Centre and spread, after the logarithm if there is one."""
    low, high = bounds(used)
    if used.scale == "reference":
        return used.centre, used.spread
    return (low + high) / 2, (high - low) / 4


def _models(setting: Setting) -> dict[str, tuple[str, ...]]:
    """0/1 outcomes of the study's models, and their predictors in the first question that asks for them."""
    found: dict[str, tuple[str, ...]] = {}
    for spec, _ in setting.questions.values():
        outcome: Any = getattr(spec, "outcome", "")
        predictors: Any = getattr(spec, "predictors", ())
        there = outcome in setting.variables and all(p in setting.variables for p in predictors)
        if there and predictors and setting.variables[outcome].variable.kind == "binary":
            found.setdefault(outcome, tuple(p for p in predictors if p != outcome))
    return found


def _outcomes(
    predictors: list[StudyVariable], columns: Mapping[str, Array], points: Array, assumed: Assumed
) -> Array:
    """[n] 0 or 1: as frequent as assumed, and told by the predictors as well as assumed."""
    score = np.zeros(len(points))
    for used in predictors:
        raw = columns[used.variable.name]
        values = np.log(raw) if used.log else raw
        score += (values - values.mean()) / max(float(values.std()), 1e-12)
    score /= max(float(score.std()), 1e-12)
    low, high = 0.0, _STEEPEST
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        reached = _area(score, _risks(score, middle, assumed.rate)) >= max(assumed.auc, 0.5)
        low, high = (low, middle) if reached else (middle, high)
    return (points < _risks(score, high, assumed.rate)).astype(np.float64)


def _risks(score: Array, slope: float, rate: float) -> Array:
    """[n] of which the mean is `rate`."""
    low, high = -60.0, 60.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(expit(middle + slope * score).mean()) < rate else (low, middle)
    return np.asarray(expit(high + slope * score))


def _area(score: Array, risks: Array) -> float:
    """Expected area under the ROC curve of the score, where each patient has the outcome by chance."""
    order = np.argsort(rankdata(score), kind="stable")
    cases, controls = risks[order], 1 - risks[order]
    below = np.cumsum(controls) - controls / 2
    return float(cases @ below / (cases.sum() * controls.sum()))
