"""Private boosting, one predictor at a time: log odds = start + one curve per predictor over its bins.

Step 0 opens patients with and without the outcome per bin of every predictor. Later steps visit one predictor after
the other, `cycles` times, and open per bin the sum of (y - p) / max(p, 1 - p), p the risk by the curves so far: never
more than 1 for a patient, however sure the model is. The weight depends on predictors alone, so the sums are 0 on
average where p is right. A visit costs a norm of 1; a histogram of all predictors costs the root of their number.

Curves are a Gaussian process over the bins (smooth for ordered predictors, free for levels); every opened sum moves
them by what it tells, its noise and the chance in who was a patient weighed against what was known before.
Sources: visits, Nori et al. 2021, "Accuracy, interpretability, and differential privacy via explainable boosting";
filter, Kalman 1960; weights, Kuensch, Stefanski and Carroll 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import Opened, StepShape
from flute.algorithms.design import Mask
from flute.data.variables import Array
from flute.defaults.models.trees import LARGEST_MARGIN
from flute.models.features import Feature, Indices, cuts_for, people_by_code, public_units, threshold
from flute.models.trees.histograms import level_rows

_COUNTS_WEIGHT: Final = 0.5
"""Part of the question's budget for step 0. AUC on breast cancer (569 patients, 30 predictors) at epsilon .5 with
.3: .032 less; on the pilot the same to .001. So for all constants here: the pilot hardly feels them, small cohorts
with many predictors do."""
_CYCLE_GROWTH: Final = 1.5
"""Budget of a cycle over that of the one before. AUC the same to .003 at 1."""
_SLOPE_SD: Final = 0.2
"""Log odds per unit of the public scale. At 1: .1 less AUC on breast cancer at epsilon .5, .001 more on the pilot."""
_BEND_SD: Final = 0.4
_BEND_REACH: Final = 1.0
"""Log odds by which a curve may leave its straight line, and over how much of the public scale it comes back. At .2:
.03 less on breast cancer at epsilon .5, .001 more on the pilot."""
_LEVEL_SD: Final = 0.7
"""Log odds of a level, or of a 0/1 value."""
_MANY: Final = 8
"""Predictors beyond which each may do less, so that all together may do as much; 4 and 16 give the same to .01."""
_CONFOUNDED: Final = 0.3
"""Part of the prior that is unknown again after step 0, which takes each predictor alone. At .1 and .6 the same to
.005."""
_MOVED: Final = 0.05
"""The same after a visit, since other curves move on. The same to .001 at 0."""
_LEAST_SPREAD: Final = 0.05
"""Of min(p, 1 - p): noise may suggest less."""
_FAR: Final = 3.0
"""Log odds at the start, beyond which there is no farther."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What is known: log odds at the start; per predictor the curve and the covariance of its error."""

    start: float
    means: tuple[Array, ...]
    covariances: tuple[Array, ...]

    def flat(self) -> list[float]:
        return [self.start, *(float(v) for mean in self.means for v in mean)]


def outline(features: Sequence[Feature], cycles: int) -> tuple[StepShape, ...]:
    sizes = [f.codes for f in features]
    first = StepShape("counts", 2 * sum(sizes), float(np.sqrt(len(features))), _COUNTS_WEIGHT, 1.0)
    parts = _CYCLE_GROWTH ** np.arange(cycles)
    weights = (1 - _COUNTS_WEIGHT) * parts / parts.sum() / len(features)
    visits = [
        StepShape(f"cycle-{c}-{f.name}", f.codes, 1.0, float(weights[c]), 1.0)
        for c in range(cycles)
        for f in features
    ]
    return (first, *visits)


def asked_size(features: Sequence[Feature], step: int) -> int:
    return 0 if step == 0 else 1 + sum(f.codes for f in features)


def step_rows(
    features: tuple[Feature, ...], step: int, asked: Array, found: Indices, chosen: Mask, cases: Mask
) -> Array:
    """Per-patient rows of a step, [n, its size]: of norm root of the number of predictors, then of at most 1."""
    if step == 0:
        classes = np.column_stack([chosen & ~cases, cases]).astype(np.float64)
        return level_rows(np.zeros(len(found), dtype=np.int64), 1, found, cuts_for(features), classes)
    k = (step - 1) % len(features)
    fitted = expit(margins(features, asked, found))
    residual = (cases - fitted) / np.maximum(fitted, 1 - fitted) * chosen
    return np.asarray((found[:, [k]] == np.arange(features[k].codes)) * residual[:, None])


def margins(features: Sequence[Feature], parameters: Array, found: Indices) -> Array:
    """[n] log odds, within LARGEST_MARGIN whatever finite numbers were sent."""
    curves = np.clip(parameters, -LARGEST_MARGIN, LARGEST_MARGIN)
    starts = np.cumsum([1, *(f.codes for f in features)])[:-1]
    total = curves[0] + curves[starts + found].sum(axis=1)
    return np.asarray(np.clip(total, -LARGEST_MARGIN, LARGEST_MARGIN))


def reached(features: Sequence[Feature], history: Sequence[Opened]) -> Curves:
    """What the opened sums tell; `history`: at least step 0."""
    curves, people = alone(features, history[0])
    means, covariances = list(curves.means), list(curves.covariances)
    for step, visit in enumerate(history[1:]):
        k = step % len(features)
        share = expit(curves.start + means[k])
        curvature = people[k] * np.maximum(np.minimum(share, 1 - share), _LEAST_SPREAD)
        mean, covariance = _told(means[k], covariances[k], visit.total, curvature, visit.sigma)
        means[k], covariances[k] = mean, covariance + _MOVED * _prior(features[k], len(features))
    return Curves(curves.start, tuple(means), tuple(covariances))


def alone(features: Sequence[Feature], histogram: Opened) -> tuple[Curves, tuple[Array, ...]]:
    """Curves by what step 0 tells of each predictor by itself; and how many patients its bins seem to have."""
    opened, sigma = _counts(features, histogram), histogram.sigma
    n, start = _whole(opened)
    fitted = float(expit(start))
    scale, noise = max(fitted, 1 - fitted), sigma * float(np.hypot(fitted, 1 - fitted))
    means, covariances, people = [], [], []
    for feature, count in zip(features, opened, strict=True):
        prior = _prior(feature, len(features))
        there = people_by_code(feature, count.sum(axis=1), n, sigma)
        sums = (count[:, 1] - fitted * count.sum(axis=1)) / scale
        mean, covariance = _told(np.zeros(len(there)), prior, sums, there * min(fitted, 1 - fitted), noise / scale)
        means.append(mean)
        covariances.append(covariance + _CONFOUNDED * prior)
        people.append(there)
    return Curves(start, tuple(means), tuple(covariances)), tuple(people)


def _told(mean: Array, covariance: Array, sums: Array, curvature: Array, noise: float) -> tuple[Array, Array]:
    """Mean and covariance after sums = curvature (truth - mean) + noise; who was a patient adds `curvature` to its
    variance."""
    across = covariance * curvature
    gain = across @ np.linalg.inv(curvature[:, None] * across + np.diag(curvature + noise**2 + 1e-6))
    return mean + gain @ sums, covariance - gain @ (curvature[:, None] * covariance)


def _whole(counts: Sequence[Array]) -> tuple[float, float]:
    """Patients, at least 1, and log odds of the outcome; the mean of what all predictors' histograms say."""
    without, cases = np.maximum(np.mean([c.sum(axis=0) for c in counts], axis=0), 0.5)
    return float(without + cases), float(np.clip(np.log(cases / without), -_FAR, _FAR))


def _counts(features: Sequence[Feature], opened: Opened) -> list[Array]:
    """Per predictor [codes, 2] patients without and with the outcome, as opened."""
    ends = np.cumsum([2 * f.codes for f in features])[:-1]
    return [part.reshape(-1, 2) for part in np.split(opened.total, ends)]


def _prior(feature: Feature, predictors: int) -> Array:
    """[codes, codes] covariance of a curve before anything is known: the more predictors, the less each may do."""
    part = min(1.0, _MANY / predictors)
    free = np.eye(feature.codes) * _LEVEL_SD**2
    if feature.used.variable.kind == "number":
        at = public_units(feature)
        bend = np.exp(-(np.subtract.outer(at, at) ** 2) / (2 * _BEND_REACH**2))
        free[feature.indicate :, feature.indicate :] = _SLOPE_SD**2 * np.outer(at, at) + _BEND_SD**2 * bend
    return np.asarray(part * free)


def result(features: Sequence[Feature], curves: Curves, history: Sequence[Opened]) -> dict[str, Any]:
    counts = _counts(features, history[0])
    n = float(np.mean([c.sum() for c in counts]))
    widths = [float(np.sqrt(2 * f.codes)) for f in features]
    return {
        "n": max(0, round(n)),
        "n_noise_se": history[0].sigma * float(np.linalg.norm(widths)) / len(features),
        "start": curves.start,
        "curves": {
            f.name: _curve(f, mean, covariance)
            for f, mean, covariance in zip(features, curves.means, curves.covariances, strict=True)
        },
        "importances": _importances(features, curves, counts),
        "parameters": curves.flat(),
    }


def _curve(feature: Feature, mean: Array, covariance: Array) -> dict[str, Any]:
    v = feature.used.variable
    shown: dict[str, Any] = {
        "log_odds": [float(x) for x in mean],
        "se": [float(x) for x in np.sqrt(np.maximum(np.diag(covariance), 0.0))],
    }
    if v.kind == "number":
        shown["edges"] = [threshold(feature, edge) for edge in range(feature.codes - feature.indicate + 1)]
    else:
        shown["levels"] = list(v.levels) if v.kind == "category" else ["0", "1"]
    if feature.indicate:
        shown["missing"] = "first" if feature.ordered else "last"
    return shown


def _importances(features: Sequence[Feature], curves: Curves, counts: Sequence[Array]) -> dict[str, float]:
    """Mean absolute log odds of a curve around its own mean, over the opened counts, as parts of their sum."""
    found = []
    for mean, count in zip(curves.means, counts, strict=True):
        n = np.maximum(count.sum(axis=1), 0.0) + 1e-9
        found.append(float(np.average(np.abs(mean - np.average(mean, weights=n)), weights=n)))
    whole = sum(found)
    return {f.name: v / whole if whole > 0 else 0.0 for f, v in zip(features, found, strict=True)}
