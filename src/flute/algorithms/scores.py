"""What histograms of predicted risk say about a model: all post-processing, no chance, no data.

Two kinds of uncertainty are kept apart and added: sampling (DeLong, Wald), and noise, whose variance is known
exactly for every linear combination of the counts; ratios by the delta method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import expit, logit

from flute.algorithms.prefix import Counts, quantile
from flute.data.variables import Array

Z_95: Final = 1.959963984540054
THRESHOLDS: Final = tuple(round(0.05 * k, 2) for k in range(1, 11))
"""Risks at which one might act. They are bin edges, so that nothing is interpolated there."""
_LOGIT_REACH: Final = 5.0
"""Risks beyond .7 % and 99.3 % share the outermost bins."""
_GROUPS: Final = 10
_MAX_RECALIBRATION: Final = 50


def risk_edges(bins: int) -> Array:
    """[bins + 1] public edges from 0 to 1, equal in the log odds, the nearest ones moved onto THRESHOLDS."""
    edges: Array = expit(np.linspace(-_LOGIT_REACH, _LOGIT_REACH, bins + 1))
    edges[0], edges[-1] = 0.0, 1.0
    taken: set[int] = {0, bins}
    for threshold in THRESHOLDS:
        nearest = int(np.argmin(np.abs(logit(edges[1:-1]) - logit(threshold)))) + 1
        if nearest not in taken and edges[nearest - 1] < threshold < edges[nearest + 1]:
            edges[nearest] = threshold
            taken.add(nearest)
    return edges


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both histograms of one model."""

    cases: Counts
    controls: Counts

    @property
    def n(self) -> float:
        return self.cases.total + self.controls.total

    def noise_sd(self, case_weights: Array, control_weights: Array) -> float:
        """Of sum(case_weights * case counts) + sum(control_weights * control counts)."""
        return float(np.hypot(self.cases.noise_sd(case_weights), self.controls.noise_sd(control_weights)))

    def ratio_noise_sd(self, case_weights: Array, control_weights: Array, value: float) -> float:
        """Of such a sum over the number of patients, standing at `value`."""
        return self.noise_sd(case_weights - value, control_weights - value) / self.n


def model_scores(cases: Counts, controls: Counts, sums: Array, edges: Array, sigma: float) -> dict[str, Any]:
    """All scores of one model. `sums`: opened [sum of risk - 1/2, sum of squared error - 1/2].

    Without a patient in either class only the counts are given, the rest is None.
    """
    pair = _Pair(cases, controls)
    shown: dict[str, Any] = {
        "n": {"value": pair.n, "noise_se": pair.noise_sd(np.ones(len(cases.raw)), np.ones(len(cases.raw)))},
        "events": {"value": cases.total, "noise_se": cases.noise_sd(np.ones(len(cases.raw)))},
    }
    if min(cases.total, controls.total) < 1:
        return shown | dict.fromkeys(("auc", "brier", "calibration", "roc", "thresholds", "net_benefit"))
    return shown | {
        "auc": _auc(pair),
        "brier": _mean_of(pair, float(sums[1]), sigma),
        "calibration": _calibration(pair, float(sums[0]), edges, sigma),
        "roc": _roc(pair, edges),
        "thresholds": [_at_threshold(pair, edges, t) for t in THRESHOLDS],
        "net_benefit": [_net_benefit(pair, edges, t) for t in THRESHOLDS],
    }


def _mean_of(pair: _Pair, centred_sum: float, sigma: float) -> dict[str, Any]:
    """Mean of what was opened minus 1/2 per patient."""
    part = centred_sum / pair.n
    ones = np.ones(len(pair.cases.raw))
    noise = float(np.hypot(sigma, part * pair.noise_sd(ones, ones))) / pair.n
    return {"value": float(np.clip(0.5 + part, 0.0, 1.0)), "noise_se": noise}


def _auc(pair: _Pair) -> dict[str, Any]:
    """Area under the ROC curve, ties within a bin counted half.

    Point: unbiased counts. Sampling: DeLong, DeLong, Clarke-Pearson 1988 over the bins. Noise: linearised, plus
    the product of both noises.
    """
    n1, n0 = pair.cases.total, pair.controls.total
    case_place, control_place = _placements(pair.cases.raw, pair.controls.raw, n1, n0)
    value = float(np.clip(pair.cases.raw @ case_place / n1, 0.0, 1.0))
    noise = pair.noise_sd((case_place - value) / n1, (control_place - value) / n0)
    smooth1, smooth0 = pair.cases.consistent, pair.controls.consistent
    place1, place0 = _placements(smooth1, smooth0, n1, n0)
    centre = float(smooth1 @ place1 / n1)
    spread1 = float(smooth1 @ (place1 - centre) ** 2) / n1
    spread0 = float(smooth0 @ (place0 - centre) ** 2) / n0
    sampling = float(np.sqrt(spread1 / max(n1 - 1, 1) + spread0 / max(n0 - 1, 1)))
    total = float(np.hypot(sampling, noise))
    return {
        "value": value,
        "low": max(value - Z_95 * total, 0.0),
        "high": min(value + Z_95 * total, 1.0),
        "se": total,
        "sampling_se": sampling,
        "noise_se": noise,
    }


def _placements(cases: Array, controls: Array, n1: float, n0: float) -> tuple[Array, Array]:
    """[bins] each: share of controls below a case in that bin, share of cases above a control, ties half."""
    below = (np.cumsum(controls) - controls / 2) / n0
    above = (np.sum(cases) - np.cumsum(cases) + cases / 2) / n1
    return below, above


def _tails(counts: Counts) -> Array:
    """[bins + 1] patients at or above each edge."""
    return np.concatenate([[counts.total], np.maximum(counts.total - np.cumsum(counts.consistent), 0.0)])


def _roc(pair: _Pair, edges: Array) -> list[dict[str, float]]:
    sensitivity = _tails(pair.cases) / pair.cases.total
    specificity = 1 - _tails(pair.controls) / pair.controls.total
    return [
        {"risk": float(t), "sensitivity": float(a), "specificity": float(b)}
        for t, a, b in zip(edges, sensitivity, specificity, strict=True)
    ]


def _above(edges: Array, threshold: float) -> Array:
    """[bins] part of each bin at or above the threshold: 0 or 1, in between only where it is no edge."""
    return np.clip((edges[1:] - threshold) / np.diff(edges), 0.0, 1.0)


def proportion(hits: float, n: float, noise_sd: float) -> dict[str, float | None]:
    """hits / n with a 95 % interval after Agresti and Coull 1998, widened by the noise in the proportion."""
    if n < 1:
        return {"value": None, "low": None, "high": None, "noise_se": noise_sd}
    drawn = (hits + 2) / (n + 4)
    half = Z_95 * float(np.hypot(np.sqrt(drawn * (1 - drawn) / (n + 4)), noise_sd))
    value = float(np.clip(hits / n, 0.0, 1.0))
    return {
        "value": value,
        "low": max(min(drawn - half, value), 0.0),
        "high": min(max(drawn + half, value), 1.0),
        "noise_se": noise_sd,
    }


def _at_threshold(pair: _Pair, edges: Array, threshold: float) -> dict[str, Any]:
    above = _above(edges, threshold)
    n1, n0 = pair.cases.total, pair.controls.total
    hits, right = float(pair.cases.consistent @ above), float(pair.controls.consistent @ (1 - above))
    return {
        "threshold": threshold,
        "sensitivity": proportion(hits, n1, pair.cases.noise_sd((above - hits / n1) / n1)),
        "specificity": proportion(right, n0, pair.controls.noise_sd((1 - above - right / n0) / n0)),
    }


def _net_benefit(pair: _Pair, edges: Array, threshold: float) -> dict[str, float]:
    """Vickers and Elkin 2006: true positives minus false ones at the odds of the threshold, per patient."""
    above, odds = _above(edges, threshold), threshold / (1 - threshold)
    gained = float(pair.cases.consistent @ above) - odds * float(pair.controls.consistent @ above)
    value = gained / pair.n
    return {
        "threshold": threshold,
        "model": value,
        "treat_all": (pair.cases.total - odds * pair.controls.total) / pair.n,
        "treat_none": 0.0,
        "noise_se": pair.ratio_noise_sd(above, -odds * above, value),
    }


def _calibration(pair: _Pair, risk_sum: float, edges: Array, sigma: float) -> dict[str, Any]:
    ones = np.ones(len(pair.cases.raw))
    observed = pair.cases.total / pair.n
    middles = _bin_risks(edges)
    return {
        "mean_predicted": _mean_of(pair, risk_sum, sigma),
        "mean_observed": proportion(pair.cases.total, pair.n, pair.ratio_noise_sd(ones, 0 * ones, observed)),
        "in_the_large": _recalibrated(pair, middles, slope=False),
        "slope": _recalibrated(pair, middles, slope=True),
        "groups": _groups(pair, middles),
    }


def _bin_risks(edges: Array) -> Array:
    """One risk per bin: the middle on the log odds, on the risk itself for the two outermost bins."""
    middles = (edges[1:] + edges[:-1]) / 2
    inner = (logit(edges[1:-2]) + logit(edges[2:-1])) / 2
    middles[1:-1] = expit(inner)
    return np.asarray(middles)


def _recalibrated(pair: _Pair, middles: Array, *, slope: bool) -> dict[str, float | None]:
    """Logistic recalibration on the binned risk: the intercept with slope 1, or the slope of a free fit.

    Newton's method on one or two coefficients; None where it does not settle (hardly any patient, or a model
    that separates the classes). Source: Cox 1958; van Calster et al. 2019 for the names.
    """
    score = logit(middles)
    x = np.column_stack([np.ones_like(score), score])[:, : 2 if slope else 1]
    offset = np.zeros_like(score) if slope else score
    n, b = pair.cases.consistent + pair.controls.consistent, np.zeros(x.shape[1])
    for _ in range(_MAX_RECALIBRATION):
        p = expit(offset + x @ b)
        hessian = x.T @ (x * (n * p * (1 - p))[:, None])
        if np.linalg.cond(hessian) > 1e12:
            break
        step = np.linalg.solve(hessian, x.T @ (pair.cases.consistent - n * p))
        b = b + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            return _recalibration_shown(pair, x, p, hessian, b)
    return {"value": None, "low": None, "high": None, "se": None, "noise_se": None}


def _recalibration_shown(pair: _Pair, x: Array, p: Array, hessian: Array, b: Array) -> dict[str, float | None]:
    inverse = np.linalg.inv(hessian)
    influence = x @ inverse[-1]  # of one patient with residual 1, on the last coefficient
    noise = pair.noise_sd(influence * (1 - p), -influence * p)
    total = float(np.hypot(np.sqrt(inverse[-1, -1]), noise))
    value = float(b[-1])
    return {
        "value": value,
        "low": value - Z_95 * total,
        "high": value + Z_95 * total,
        "se": total,
        "noise_se": noise,
    }


def _groups(pair: _Pair, middles: Array) -> list[dict[str, Any]]:
    """Tenths of the patients by predicted risk, bins kept whole."""
    n = pair.cases.consistent + pair.controls.consistent
    middle_rank = (np.cumsum(n) - n / 2) / pair.n
    group = np.clip(np.floor(middle_rank * _GROUPS), 0, _GROUPS - 1)
    shown = []
    for k in range(_GROUPS):
        member = ((group == k) & (n > 0)).astype(np.float64)
        size, events = float(n @ member), float(pair.cases.consistent @ member)
        if size < 1:
            continue
        rate = events / size
        noise = pair.noise_sd(member * (1 - rate) / size, -member * rate / size)
        predicted = float(n @ (member * middles)) / size
        shown.append({"n": size, "predicted": predicted, "observed": proportion(events, size, noise)})
    return shown


def level_scores(
    opened: Array, levels: Sequence[str], references: Sequence[str], sigma: float, *, private: bool
) -> list[dict[str, Any]]:
    """Observed and predicted risk per level from [with outcome | without | risk - 1/2 per model], each [levels]."""
    table = opened.reshape(2 + len(references), len(levels))
    counts = np.maximum(table[:2] if private else np.round(table[:2]), 0.0)
    shown = []
    for k, level in enumerate(levels):
        events, n = float(counts[0, k]), float(counts[:, k].sum())
        rate = events / n if n >= 1 else 0.0
        noise = sigma * float(np.hypot(1 - rate, rate)) / max(n, 1.0)
        predicted = {
            reference: {
                "value": float(np.clip(0.5 + table[2 + m, k] / n, 0.0, 1.0)) if n >= 1 else None,
                "noise_se": sigma * float(np.hypot(1, np.sqrt(2) * table[2 + m, k] / max(n, 1.0))) / max(n, 1.0),
            }
            for m, reference in enumerate(references)
        }
        shown.append(
            {
                "level": level,
                "n": {"value": n, "noise_se": sigma * float(np.sqrt(2))},
                "events": {"value": events, "noise_se": sigma},
                "observed": proportion(events, n, noise),
                "predicted": predicted,
            }
        )
    return shown


def quantiles_of(counts: Counts, edges: Array, percents: Sequence[int]) -> dict[str, dict[str, float | None]]:
    """By percent, interpolated in their bins. Interval: where the curve of counts reaches as many patients more or
    fewer as chance (binomial) and noise together may move them."""
    n, cumulative = counts.total, np.cumsum(counts.consistent)
    found: dict[str, dict[str, float | None]] = {}
    for percent in percents:
        q = percent / 100
        shown: dict[str, float | None] = quantile(counts, edges, q) | {"low": None, "high": None}
        if n >= 1:
            noise = counts.noise_sd(np.where(cumulative < q * n, 1.0, 0.0) - q)
            half = Z_95 * float(np.hypot(np.sqrt(n * q * (1 - q)), noise)) / n
            ends = (quantile(counts, edges, float(np.clip(q + s * half, 0.0, 1.0)))["value"] for s in (-1, 1))
            shown["low"], shown["high"] = ends
        found[str(percent)] = shown
    return found
