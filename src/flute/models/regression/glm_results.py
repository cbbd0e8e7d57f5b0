"""What a generalised linear model tells, as statisticians' programs do: coefficients, errors, deviances, AIC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy.special import gammaln
from scipy.stats import norm, t

from flute.algorithms.contract import Opened, StudyVariable
from flute.algorithms.design import Design, Scaling, bounds, raw_scaling, study_scaling, transfer, unit_scaling
from flute.algorithms.linear import deviations, model_table, or_none
from flute.algorithms.newton import Fit
from flute.algorithms.private_rows import private_scaling
from flute.data.variables import Array
from flute.models.regression.families import Bounds, LogFit
from flute.models.regression.gaussian import GaussianFit, PrivateGaussian, outcome_scale

LEAST_INFORMED: Final = 0.9
"""Below it the prior speaks in a tenth of the directions or more, and a private fit is called noise-dominated."""
_SAID: Final = {
    "converged": "The fit converged.",
    "collinear": "Column {column} is a combination of earlier columns (or never varies); leave it out.",
    "separation-suspected": (
        "The outcome is (almost) decided by {column}: maximum likelihood has no finite answer there. Merge levels or "
        "leave the predictor out; the coefficients shown are where the steps were stopped."
    ),
    "not-converged": "The agreed steps, or the patients, did not suffice; do not use these coefficients.",
    "no-data": "No patient had the values that this model needs.",
    "out-of-range": (
        "{cut} patients' fitted means lie far outside the outcome's declared range and were cut off; do not use "
        "these coefficients. Declare a wider range or leave a predictor out."
    ),
    "noised": (
        "One vector of noised sums was opened. Intervals hold chance in who was a patient and noise, told apart as "
        "sampling and noise errors."
    ),
    "noise-dominated": (
        "The noise outweighs what these patients tell; do not use these coefficients. Give the question a larger "
        "share of the budget, fewer predictors or more hubs."
    ),
}


def binomial_result(result: dict[str, Any], history: Sequence[Opened]) -> dict[str, Any]:
    """What logistic-regression tells, and the deviances that follow from it."""
    if result["log_likelihood"] is None or result["ending"] == "no-data":
        return {**result, "family": "binomial", "link": "logit"}
    deviance, columns = -2 * float(result["log_likelihood"]), len(result["columns"]) - len(result["not_estimated"])
    share = 0.5 + float(history[0].total[2]) / result["n"]  # the first gradient is sum(y - 1/2)
    null = -2 * result["n"] * float(_entropy(share))
    return {
        **result,
        "family": "binomial",
        "link": "logit",
        "deviance": deviance,
        "null_deviance": null,
        "dispersion": 1.0,
        "aic": deviance + 2 * columns,
        "df_residual": result["n"] - columns,
    }


def _entropy(share: float) -> float:
    return sum(s * float(np.log(s)) for s in (share, 1 - share) if s > 0)


def gaussian_result(spec: Any, design: Design, used: StudyVariable, found: GaussianFit) -> dict[str, Any]:
    low, high = bounds(used)
    half, fit = (high - low) / 2, found.fit
    columns = design.size - len(fit.absent)
    left = fit.n - columns
    sound = fit.ending == "converged"
    dispersion = half**2 * found.residual / left if sound and left > 0 else None
    moved = np.zeros(design.size)
    moved[0] = (low + high) / 2
    fit_table = _table(spec, design, fit, half * fit.coefficients + moved, 1.0, dispersion, left, "t")
    residual, total = half**2 * found.residual, half**2 * found.total
    likelihood = None
    if sound and residual > 0:
        likelihood = -fit.n / 2 * (float(np.log(2 * np.pi * residual / fit.n)) + 1)
    return {
        **fit_table,
        "family": "gaussian",
        "link": "identity",
        "deviance": residual if sound else None,
        "null_deviance": total if sound else None,
        "r_squared": 1 - residual / total if sound and total > 0 else None,
        "pearson": residual if sound else None,
        "log_likelihood": likelihood,
        "aic": None if likelihood is None else 2 * columns - 2 * likelihood,
    }


def log_result(spec: Any, design: Design, limits: Bounds, found: LogFit) -> dict[str, Any]:
    fit = found.fit
    if fit.ending in ("converged", "not-converged") and found.cut:
        fit = _renamed(fit, "out-of-range")
    columns = design.size - len(fit.absent)
    left = fit.n - columns
    sound = fit.ending == "converged"
    spread = found.pearson / left if sound and left > 0 else None
    dispersion = (1.0 if spec.family == "poisson" else spread) if sound else None
    scale = 1 / limits.slope  # the information was divided by it
    table = _table(spec, design, fit, fit.coefficients, scale, dispersion, left, "z", cut=found.cut)
    likelihood = _log_likelihood(spec.family, found, dispersion) if sound and dispersion else None
    ratios = [None if v is None or name in fit.absent else float(np.exp(min(v, 700.0)))
              for v, name in zip(table["coefficients"], design.names, strict=True)]  # fmt: skip
    return {
        **table,
        "family": spec.family,
        "link": "log",
        "ratios": ratios,
        "deviance": found.deviance if sound else None,
        "null_deviance": found.null_deviance if sound else None,
        "pearson": found.pearson if sound else None,
        "log_likelihood": likelihood,
        "aic": None if likelihood is None else 2 * columns - 2 * likelihood,
    }


def _log_likelihood(family: str, found: LogFit, dispersion: float) -> float:
    """At the fit; of gamma at the shape 1 / dispersion."""
    if family == "poisson":
        return found.saturated - found.deviance / 2
    shape, n = 1 / dispersion, found.fit.n
    return float(shape * (-found.deviance / 2 - n) + n * (shape * np.log(shape) - gammaln(shape)) - found.saturated)


def private_result(spec: Any, design: Design, used: StudyVariable, found: PrivateGaussian) -> dict[str, Any]:
    centre, spread = outcome_scale(used)
    scale = private_scaling(design)
    scaling = study_scaling(design, scale.centres, scale.spreads)
    carried, raw = transfer(design, scale, scaling), transfer(design, scale, raw_scaling(design))
    coefficients = spread * found.coefficients
    coefficients[0] += centre
    noise, sampling = (spread * deviations(carried, c) for c in (found.noise, found.sampling))
    errors = np.hypot(noise, sampling)
    b = carried @ coefficients
    ending = "noised" if found.informed >= LEAST_INFORMED else "noise-dominated"
    return {
        **model_table(spec, design, scaling, b, raw @ coefficients),
        **_tested(b, errors, None),
        "noise_standard_errors": or_none(noise),
        "sampling_standard_errors": or_none(sampling),
        "raw_standard_errors": or_none(
            np.hypot(*(spread * deviations(raw, c) for c in (found.noise, found.sampling)))
        ),
        "n": max(0, round(found.n)),
        "n_noise_se": found.n_noise,
        "dispersion": (spread * found.deviation) ** 2,
        "informed": found.informed,
        "family": "gaussian",
        "link": "identity",
        "statistic": "z",
        "ending": ending,
        "ending_text": _SAID[ending],
        "ending_column": "",
        "not_estimated": [],
    }


# --- what all of them have ------------------------------------------------------------------------------


def _table(
    spec: Any, design: Design, fit: Fit, coefficients: Array, scale: float, dispersion: float | None, left: float,
    statistic: str, cut: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """coefficients: [p] over unit ranges, in the outcome's unit. scale: of the covariance. left: degrees."""
    unit = unit_scaling(design)
    scaling = study_scaling(design, fit.pooled.centres, fit.pooled.spreads)
    carry, raw = transfer(design, unit, scaling), transfer(design, unit, raw_scaling(design))
    there = np.array([name not in fit.absent for name in design.names])
    b = np.where(there, carry @ coefficients, 0.0)
    errors = raw_errors = None
    if fit.covariance is not None and dispersion is not None:
        covariance = scale * dispersion * fit.covariance
        errors = np.where(there, deviations(carry, covariance), np.nan)
        raw_errors = or_none(np.where(there, deviations(raw, covariance), np.nan))
    return {
        **model_table(spec, design, scaling, b, _raw(design, scaling, b)),
        **_tested(b, errors, left if statistic == "t" else None),
        "raw_standard_errors": raw_errors,
        "noise_standard_errors": None,
        "n": int(fit.n),
        "n_noise_se": 0.0,
        "df_residual": max(0, int(left)),
        "dispersion": dispersion,
        "iterations": fit.iterations,
        "statistic": statistic,
        "ending": fit.ending,
        "ending_column": fit.column,
        "ending_text": _SAID[fit.ending].format(column=fit.column, cut=cut),
        "not_estimated": list(fit.absent),
    }


def _raw(design: Design, scaling: Scaling, coefficients: Array) -> Array:
    return np.asarray(transfer(design, scaling, raw_scaling(design)) @ coefficients)


def _tested(coefficients: Array, errors: Array | None, degrees: float | None) -> dict[str, Any]:
    """Wald tests and 95 % intervals: of Student's t with so many degrees of freedom, else normal."""
    if errors is None:
        return {"standard_errors": None, "test_statistics": None, "p": None, "low": None, "high": None}
    known = np.where(errors > 0, errors, np.nan)
    law = norm if degrees is None else t(max(degrees, 1.0))
    ratio = coefficients / known
    half = float(law.ppf(0.975)) * known
    return {
        "standard_errors": or_none(known),
        "test_statistics": or_none(ratio),
        "p": or_none(2 * law.sf(np.abs(ratio))),
        "low": or_none(coefficients - half),
        "high": or_none(coefficients + half),
    }


def _renamed(fit: Fit, ending: str) -> Fit:
    return Fit(ending, "", fit.coefficients, None, fit.n, fit.log_likelihood, fit.iterations, fit.absent, fit.pooled)
