"""Logistic regression: exact by Newton's method (`newton`), private by noised steps (`private_rows` at the hubs,
`private_linear` where totals are opened)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc, expit

from flute.algorithms.contract import (
    Ask,
    Finished,
    LogisticRegression,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    StepShape,
)
from flute.algorithms.design import (
    Design,
    Scaling,
    check_design,
    design_for,
    included,
    known,
    matrix,
    raw_scaling,
    study_scaling,
    terms,
    transfer,
    unit_scaling,
)
from flute.algorithms.newton import Fit, logits, newton_rows, next_newton, vector_size
from flute.algorithms.private_linear import PrivateFit, next_private
from flute.algorithms.private_rows import gradient_rows, moment_rows, private_outline, private_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import IRLS_MAX_STEPS
from flute.errors import MisuseError, StudyFileError
from flute.messages.numbers import read_only

Z_95: Final = 1.959963984540054
"""Half-width of a 95 % normal interval, in standard errors."""
LEAST_INFORMED: Final = 0.5
"""Below it a private fit is called noise-dominated: at .49 of a simulated pilot's 11 columns AUC lost .023, at .62
.009, at .75 .003."""
_SAID: Final = {
    "converged": "The fit converged.",
    "collinear": "Column {column} is a combination of earlier columns (or never varies); leave it out.",
    "separation-suspected": (
        "The outcome is (almost) decided by {column}: maximum likelihood has no finite answer there. "
        "Merge levels or leave the predictor out; the coefficients shown are where the steps were stopped."
    ),
    "not-converged": "The steps that were agreed did not suffice; do not use these coefficients.",
    "no-data": "No patient had the values that this model needs.",
    "fixed-steps": (
        "The agreed noised steps were taken. The noise errors say how far noise and the few steps left each "
        "coefficient from the exact fit, estimated from the released sums; chance in who was a patient comes on top."
    ),
    "noise-dominated": (
        "The noise outweighs what these patients tell; do not use these coefficients. Give the question a larger "
        "share of the budget, fewer predictors or more hubs."
    ),
}


class LogisticRegressionAlgorithm:
    """Maximum likelihood without penalty (exact), or noised moments and gradient steps (private)."""

    name: ClassVar[str] = "logistic-regression"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Coefficients of a logistic regression and the number of patients behind it. In exact mode also "
            "standard errors and the log-likelihood; in private mode the deviation that noise gave each "
            "coefficient."
        ),
        bounded_by=(
            "Private: a patient's row is shrunk to a norm that follows from the predictors' kinds alone, so the "
            "first sums move by at most a fixed norm; gradient rows are weighted down to norm 1. Exact: every "
            "number of a patient's row is at most 1, but no norm bounds what exact sums tell."
        ),
        leaked_otherwise=(
            "Private: nothing; the number of steps is fixed beforehand and every opened vector is charged. "
            "Exact: the gradient and Hessian of every step are opened to the coordinator, and from them pooled "
            "counts of any two categories, or a category and the outcome, can be worked out; the floor is held "
            "against the outcome and single categories at each hub."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: LogisticRegression, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        if known(spec.outcome, setting).variable.kind != "binary":
            raise StudyFileError(f"outcome: {spec.outcome!r} must be a binary variable; declare 'kind: binary'.")
        if spec.outcome in spec.predictors:
            raise StudyFileError(f"predictors: {spec.outcome!r} is the outcome itself; leave it out.")
        check_design(spec.predictors, setting)
        pooled = [n for n in spec.predictors if known(n, setting).scale == "pooled"]
        if setting.mode == "private" and pooled:
            raise StudyFileError(
                f"{pooled[0]} has 'scale: pooled', whose mean and deviation would cost budget of their own; in a "
                "private study write 'scale: reference' with a public centre and spread."
            )

    def fields(self, spec: LogisticRegression, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: LogisticRegression, setting: Setting) -> tuple[StepShape, ...]:
        design = design_for(spec.predictors, setting)
        if setting.mode == "private":
            return private_outline(design)
        p = design.size
        bound = float(np.sqrt(2 + p + p * (p + 1) / 32))  # |gradient| <= 1 and |Hessian| <= 1/4 per entry
        return tuple(
            StepShape(f"newton-{k}", vector_size(p), bound, 1 / IRLS_MAX_STEPS, 1.0) for k in range(IRLS_MAX_STEPS)
        )

    def update(
        self, spec: LogisticRegression, setting: Setting, step: int, parameters: Array, data: Dataset
    ) -> Array:
        """See the contract. An exact step takes p coefficients; in private mode step 0 takes no parameters, a later
        one p coefficients and p directions of p entries."""
        design = design_for(spec.predictors, setting)
        private, p = setting.mode == "private", design.size
        size = p if not private else 0 if step == 0 else p + p * p
        asked = read_parameters(parameters, size, step, len(self.outline(spec, setting)))
        chosen = included(spec.predictors, spec.outcome, setting, data)
        outcome = data.column(spec.outcome)
        if not private:
            x = np.clip(matrix(design, unit_scaling(design), data), -1.0, 1.0)  # 1 + 1e-16 is beyond magnitude
            return newton_rows(x, outcome, chosen, asked)
        x = matrix(design, private_scaling(design), data)
        if step == 0:
            return moment_rows(design, x, outcome, chosen)
        return gradient_rows(design, x, outcome, chosen, asked)

    def cells(self, spec: LogisticRegression, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome, and in and out of every 0/1 column."""
        design = design_for(spec.predictors, setting)
        chosen = included(spec.predictors, spec.outcome, setting, data)
        x = matrix(design, raw_scaling(design), data)[chosen]
        flags = [x[:, i] for i, c in enumerate(design.columns) if c.kind in ("binary", "level", "missing")]
        flags.append(data.column(spec.outcome)[chosen])
        ones = np.array([int(np.sum(flag)) for flag in flags], dtype=np.int64)
        return np.concatenate([ones, int(chosen.sum()) - ones])

    def next(
        self,
        spec: LogisticRegression,
        setting: Setting,
        history: Sequence[Opened],
        inputs: Mapping[str, dict[str, Any]],
    ) -> Ask | Finished:
        design = design_for(spec.predictors, setting)
        private = setting.mode == "private"
        if not history:
            return Ask(()) if private else Ask(np.zeros(design.size))
        reached = next_private(design, history) if private else next_newton(design, history)
        if isinstance(reached, Fit):
            return Finished(_exact_result(spec, design, reached))
        if isinstance(reached, PrivateFit):
            return Finished(_private_result(spec, design, reached, len(history)))
        return Ask(reached)


class LinearScorer:
    """Risks by raw coefficients, the first the intercept: of every model whose result has `raw_coefficients`."""

    def outcome(self, spec: Any) -> str:
        return str(spec.outcome)

    def predictors(self, spec: Any) -> tuple[str, ...]:
        return tuple(spec.predictors)

    def size(self, spec: Any, setting: Setting) -> int:
        return design_for(spec.predictors, setting).size

    def parameters(self, spec: Any, setting: Setting, result: Mapping[str, Any]) -> Sequence[float]:
        found = result.get("raw_coefficients") or ()
        return [float("nan") if v is None else float(v) for v in found]

    def risks(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        design = design_for(spec.predictors, setting)
        risks: Array = expit(logits(matrix(design, raw_scaling(design), data), parameters))
        return risks


def read_parameters(parameters: Sequence[float] | Array, size: int, step: int, steps: int) -> Array:
    """float64 [size], not to be changed. Raises: MisuseError: no such step, another length, or not finite."""
    if not 0 <= step < steps:
        raise MisuseError(f"This question has {steps} steps; there is no step {step}.")
    read = read_only(parameters)
    if read.shape != (size,) or not np.isfinite(read).all():
        raise MisuseError(f"Step {step} takes {size} finite parameters.")
    return read


def _exact_result(spec: LogisticRegression, design: Design, fit: Fit) -> dict[str, Any]:
    unit = unit_scaling(design)
    scaling = study_scaling(design, fit.pooled.centres, fit.pooled.spreads)
    over_study, over_raw = transfer(design, unit, scaling), transfer(design, scaling, raw_scaling(design))
    # a column that nobody has gets no effect on the study's scale, whatever its zero was on the unit range
    there = np.array([name not in fit.absent for name in design.names])
    coefficients = np.where(there, over_study @ fit.coefficients, 0.0)
    errors = raw_errors = None
    if fit.covariance is not None:
        covariance = over_study @ fit.covariance @ over_study.T * np.outer(there, there)
        errors = np.sqrt(np.diag(covariance))
        raw_errors = or_none(np.where(there, deviations(over_raw, covariance), np.nan))
    return {
        **model_table(spec, design, scaling, coefficients, over_raw @ coefficients),
        **wald_table(coefficients, errors),
        "raw_standard_errors": raw_errors,
        "noise_standard_errors": None,
        "n": int(fit.n),
        "n_noise_se": 0.0,
        "log_likelihood": fit.log_likelihood,
        "iterations": fit.iterations,
        "informed": None,
        "ending": fit.ending,
        "ending_column": fit.column,
        "ending_text": _SAID[fit.ending].format(column=fit.column),
        "not_estimated": list(fit.absent),
    }


def _private_result(spec: LogisticRegression, design: Design, fit: PrivateFit, steps: int) -> dict[str, Any]:
    private = private_scaling(design)
    scaling = study_scaling(design, private.centres, private.spreads)
    over_study, over_raw = transfer(design, private, scaling), transfer(design, private, raw_scaling(design))
    coefficients = over_study @ fit.coefficients
    ending = "fixed-steps" if fit.informed >= LEAST_INFORMED else "noise-dominated"
    return {
        **model_table(spec, design, scaling, coefficients, over_raw @ fit.coefficients),
        **wald_table(coefficients, None),
        "raw_standard_errors": None,
        "noise_standard_errors": plain_numbers(deviations(over_study, fit.noise_covariance)),
        "n": max(0, round(fit.n)),
        "n_noise_se": float(fit.n_noise),
        "log_likelihood": None,
        "iterations": steps,
        "informed": fit.informed,
        "ending": ending,
        "ending_column": "",
        "ending_text": _SAID[ending],
        "not_estimated": [],
    }


def model_table(spec: Any, design: Design, scaling: Scaling, coefficients: Array, raw: Array) -> dict[str, Any]:
    """What every model over a design says of itself. spec: has `outcome` and `predictors`; coefficients: [p] over the
    study's scale; raw: [p] over `raw_scaling`."""
    scales = zip(design.numbers, scaling.centres.tolist(), scaling.spreads.tolist(), strict=True)
    return {
        "outcome": spec.outcome,
        "predictors": list(spec.predictors),
        "columns": list(design.names),
        "terms": terms(design),
        "coefficients": plain_numbers(coefficients),
        "raw_coefficients": plain_numbers(raw),
        "standardisation": {v.variable.name: {"centre": c, "spread": s} for v, c, s in scales},
        "fills": {v.variable.name: v.centre for v in design.numbers},
    }


def wald_table(coefficients: Array, errors: Array | None) -> dict[str, Any]:
    """Wald statistics; None for a column that was not estimated, and throughout without standard errors."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        odds = np.exp(coefficients)
        if errors is None:
            table = [{"value": v, "low": None, "high": None} for v in or_none(odds)]
            return {"standard_errors": None, "z": None, "p": None, "odds_ratios": table}
        known_errors = np.where(errors > 0, errors, np.nan)
        z = coefficients / known_errors
        low, high = np.exp(coefficients - Z_95 * known_errors), np.exp(coefficients + Z_95 * known_errors)
    rows = zip(or_none(odds), or_none(low), or_none(high), strict=True)
    return {
        "standard_errors": or_none(known_errors),
        "z": or_none(z),
        "p": or_none(erfc(np.abs(z) / np.sqrt(2))),
        "odds_ratios": [{"value": v, "low": a, "high": b} for v, a, b in rows],
    }


def deviations(carry: Array, covariance: Array) -> Array:
    """[q] standard deviations of `carry` [q, p] times a vector of this covariance."""
    return np.asarray(np.sqrt(np.maximum(np.diag(carry @ covariance @ carry.T), 0.0)))


def plain_numbers(values: Array) -> list[float]:
    return [float(v) for v in values]


def or_none(values: Array) -> list[float | None]:
    """None for what is no finite number."""
    return [float(v) if np.isfinite(v) else None for v in values]
