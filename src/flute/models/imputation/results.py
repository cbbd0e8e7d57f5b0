"""What a regression over imputed values tells: each imputation's fit on one scale, then Rubin's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flute.algorithms.contract import Opened, Setting
from flute.algorithms.design import Scaling, bounds, raw_scaling, study_scaling, transfer, unit_scaling
from flute.algorithms.linear import model_table, or_none
from flute.algorithms.newton import Fit
from flute.data.variables import Array
from flute.models.imputation.draws import Pooled, pooled
from flute.models.imputation.rows import Layout
from flute.models.regression import gaussian

_SAID: Final = {
    "converged": "Every imputation's fit converged; intervals count in what was missing.",
    "collinear": "Column {column} is a combination of earlier columns (or never varies); leave it out.",
    "separation-suspected": (
        "The outcome is (almost) decided by {column}: maximum likelihood has no finite answer there. Merge levels or "
        "leave the predictor out."
    ),
    "not-converged": "The agreed steps, or the patients, did not suffice; do not use these coefficients.",
    "no-data": "No patient had the values that this model needs.",
}


@dataclass(frozen=True, slots=True)
class _One:
    """One imputation over unit ranges, in the outcome's own unit. covariance: None unless converged."""

    ending: str
    column: str
    coefficients: Array
    covariance: Array | None
    pooled: Scaling
    absent: tuple[str, ...]


def told(layout: Layout, setting: Setting, history: Sequence[Opened], fits: Sequence[Fit | None]) -> dict[str, Any]:
    spec, design = layout.spec, layout.design
    ones = [_one(layout, history, fit, m) for m, fit in enumerate(fits)]
    n = float(np.round(history[0].total[0]))
    scales = [one.pooled for one in ones]
    scaling = study_scaling(
        design, np.mean([s.centres for s in scales], axis=0), np.mean([s.spreads for s in scales], axis=0)
    )
    absent = ones[0].absent
    there = np.array([name not in absent for name in design.names])
    left = n - float(there.sum())
    found = {
        name: _together(ones, transfer(design, unit_scaling(design), scale), left)
        for name, scale in (("study", scaling), ("raw", raw_scaling(design)))
    }
    worst = next((one for one in ones if one.ending != "converged"), ones[0])
    seen = [round(float(own[0])) for own in moments(layout, history[0].total)]
    return {
        **model_table(
            spec, design, scaling, _estimate(ones, found["study"], design, scaling), _raw(ones, found, design)
        ),
        **_tested(spec.family, found["study"], there),
        "raw_standard_errors": None if found["raw"] is None else or_none(np.where(there, found["raw"].error, np.nan)),
        "noise_standard_errors": None,
        "family": spec.family,
        "n": int(n),
        "n_noise_se": 0.0,
        "imputed": {target.name: int(n - k) for target, k in zip(layout.targets, seen, strict=True)},
        "imputations": spec.imputations,
        "sweeps": spec.sweeps,
        "ending": worst.ending,
        "ending_column": worst.column,
        "ending_text": _SAID[worst.ending].format(column=worst.column),
        "not_estimated": list(absent),
    }


def moments(layout: Layout, total: Array) -> list[Array]:
    """The first opened sums of every target: those who have it, then sums over its columns."""
    ends = np.cumsum([target.sums for target in layout.targets])
    return np.split(total[1:], ends[:-1])


def _one(layout: Layout, history: Sequence[Opened], fit: Fit | None, m: int) -> _One:
    if layout.spec.family == "gaussian":
        return _linear(layout, history[-1], m)
    if fit is None:
        unit = unit_scaling(layout.design)
        return _One("not-converged", "", np.zeros(layout.columns), None, unit, ())
    return _One(fit.ending, fit.column, fit.coefficients, fit.covariance, fit.pooled, fit.absent)


def _linear(layout: Layout, opened: Opened, m: int) -> _One:
    size = layout.block(layout.stages[-1])
    total = opened.total[m * size : (m + 1) * size]
    found = gaussian.exact_fit(layout.design, Opened((), total, 0.0))
    fit, (low, high) = found.fit, bounds(layout.outcome)
    half, left = (high - low) / 2, fit.n - (layout.columns - len(fit.absent))
    moved = half * fit.coefficients
    moved[0] += (low + high) / 2
    if fit.covariance is None or left <= 0:
        ending = "not-converged" if fit.ending == "converged" else fit.ending
        return _One(ending, fit.column, moved, None, fit.pooled, fit.absent)
    covariance = half**2 * found.residual / left * fit.covariance
    return _One("converged", "", moved, covariance, fit.pooled, fit.absent)


def _together(ones: Sequence[_One], carry: Array, complete: float) -> Pooled | None:
    """Rubin's rules over `carry` times the coefficients; None unless all fits converged."""
    covariances = [one.covariance for one in ones if one.covariance is not None]
    if len(covariances) < len(ones):
        return None
    variances = [np.maximum(np.diag(carry @ c @ carry.T), 0.0) for c in covariances]
    return pooled([carry @ one.coefficients for one in ones], variances, complete)


def _estimate(ones: Sequence[_One], found: Pooled | None, design: Any, scaling: Scaling) -> Array:
    if found is not None:
        return found.estimate
    return np.asarray(
        transfer(design, unit_scaling(design), scaling) @ np.mean([o.coefficients for o in ones], axis=0)
    )


def _raw(ones: Sequence[_One], found: dict[str, Pooled | None], design: Any) -> Array:
    return _estimate(ones, found["raw"], design, raw_scaling(design))


def _tested(family: str, found: Pooled | None, there: Array) -> dict[str, Any]:
    names = (
        "standard_errors",
        "within_variance",
        "between_variance",
        "degrees_of_freedom",
        "missing_information",
        "p",
    )
    if found is None:
        return {**dict.fromkeys(names), "low": None, "high": None, "odds_ratios": None}
    low, high = found.estimate - found.half(), found.estimate + found.half()
    shown = (found.error, found.within, found.between, found.degrees, found.missing, found.p(), low, high)
    table: dict[str, Any] = {
        name: or_none(np.where(there, v, np.nan)) for name, v in zip((*names, "low", "high"), shown, strict=True)
    }
    with np.errstate(over="ignore"):
        odds = [or_none(np.where(there, np.exp(v), np.nan)) for v in (found.estimate, low, high)]
    ratios = [{"value": v, "low": a, "high": b} for v, a, b in zip(*odds, strict=True)]
    return {**table, "odds_ratios": ratios if family == "binomial" else None}
