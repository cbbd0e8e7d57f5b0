"""Generalised linear models: numbers (gaussian), 0/1 (binomial), counts (poisson), positive numbers (gamma).

Exact: maximum likelihood, by one opening (gaussian, `gaussian`), by Newton's method (binomial, as
logistic-regression) or Fisher scoring (poisson and gamma with a logarithmic link, `families`). Private: gaussian from
noised second moments, binomial as logistic-regression; the others are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Ask,
    Finished,
    LogisticRegression,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    Spec,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import (
    bounds,
    check_design,
    check_variable,
    design_for,
    included,
    known,
    matrix,
    present,
    raw_scaling,
    unit_scaling,
    values,
)
from flute.algorithms.linear import LinearScorer, LogisticRegressionAlgorithm, read_parameters
from flute.algorithms.private_rows import private_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.models.regression import families, gaussian
from flute.models.regression.families import Bounds, bounds_of, first_rows, later_rows, log_outline, next_log
from flute.models.regression.glm_results import binomial_result, gaussian_result, log_result, private_result

_BINOMIAL: Final = LogisticRegressionAlgorithm()


class GeneralisedLinearModel(Spec, frozen=True, tag="glm"):
    """A linear model of a number, a generalised one of a 0/1 variable, a count or a positive number.

    exposure: of a count, the number that its mean is proportional to (time under observation), or empty."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    family: Literal["gaussian", "binomial", "poisson", "gamma"] = "gaussian"
    exposure: Annotated[str, Meta(max_length=64)] = ""


class GeneralisedLinearModelAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "glm"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Coefficients of a linear or generalised linear model with their standard errors, the number of patients "
            "behind it, and in exact mode its deviances, dispersion and log-likelihood."
        ),
        bounded_by=(
            "Private: a patient's row is shrunk to a norm that follows from the predictors' kinds alone, the outcome "
            "is cut off at three of its public spreads. Exact: every number of a patient's row is at most 1, but no "
            "norm bounds what exact sums tell."
        ),
        leaked_otherwise=(
            "Private: nothing. Exact: products of all columns, and the gradient and information of every step, are "
            "opened to the coordinator; pooled counts of any two categories, and sums of the outcome over them, can "
            "be worked out. The floor is held against single categories at each hub."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: GeneralisedLinearModel, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        if spec.exposure and spec.family != "poisson":
            raise StudyFileError("exposure: only counts have one; write 'family: poisson' or leave it out.")
        if spec.family == "binomial":
            _BINOMIAL.check(_logistic(spec), setting)
            return
        _check_outcome(spec, setting)
        if spec.outcome in spec.predictors:
            raise StudyFileError(f"predictors: {spec.outcome!r} is the outcome itself; leave it out.")
        check_design(spec.predictors, setting)
        if setting.mode == "private":
            _check_private(spec, setting)

    def fields(self, spec: GeneralisedLinearModel, setting: Setting) -> tuple[str, ...]:
        others = [spec.exposure] if spec.exposure and spec.exposure not in spec.predictors else []
        return (spec.outcome, *spec.predictors, *others)

    def outline(self, spec: GeneralisedLinearModel, setting: Setting) -> tuple[StepShape, ...]:
        if spec.family == "binomial":
            return _BINOMIAL.outline(_logistic(spec), setting)
        design = design_for(spec.predictors, setting)
        if spec.family != "gaussian":
            return log_outline(design.size)
        return (gaussian.private_shape(design) if setting.mode == "private" else gaussian.exact_shape(design.size),)

    def update(
        self, spec: GeneralisedLinearModel, setting: Setting, step: int, parameters: Array, data: Dataset
    ) -> Array:
        """See the contract. Step 0 of all but the binomial takes no parameters; a later one the coefficients."""
        if spec.family == "binomial":
            return _BINOMIAL.update(_logistic(spec), setting, step, parameters, data)
        design, steps = design_for(spec.predictors, setting), len(self.outline(spec, setting))
        asked = read_parameters(parameters, design.size if step else 0, step, steps)
        chosen, used = self._chosen(spec, setting, data), known(spec.outcome, setting)
        if setting.mode == "private":
            centre, spread = gaussian.outcome_scale(used)
            x = matrix(design, private_scaling(design), data)
            return gaussian.private_rows(design, x, (values(used, data) - centre) / spread, chosen)
        x = np.clip(matrix(design, unit_scaling(design), data), -1.0, 1.0)  # 1 + 1e-16 is beyond magnitude
        if spec.family == "gaussian":
            low, high = bounds(used)
            return gaussian.exact_rows(x, (2 * values(used, data) - low - high) / (high - low), chosen)
        y, exposure, limits = values(used, data), self._exposure(spec, setting, data), _bounds(spec, setting)
        if step == 0:
            return first_rows(spec.family, limits, x, y, exposure, chosen)
        return later_rows(spec.family, limits, x, y, exposure, chosen, asked)

    def _chosen(self, spec: GeneralisedLinearModel, setting: Setting, data: Dataset) -> NDArray[np.bool_]:
        chosen = included(spec.predictors, spec.outcome, setting, data)
        return chosen & present((spec.exposure,), setting, data) if spec.exposure else chosen

    def _exposure(self, spec: GeneralisedLinearModel, setting: Setting, data: Dataset) -> Array:
        """[n] as measured, 1 where the question names none."""
        if not spec.exposure:
            return np.ones(len(data))
        return values(StudyVariable(known(spec.exposure, setting).variable), data)

    def cells(self, spec: GeneralisedLinearModel, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients in and out of every 0/1 column."""
        if spec.family == "binomial":
            return _BINOMIAL.cells(_logistic(spec), setting, data)
        design, chosen = design_for(spec.predictors, setting), self._chosen(spec, setting, data)
        x = matrix(design, raw_scaling(design), data)[chosen]
        flags = [i for i, c in enumerate(design.columns) if c.kind in ("binary", "level", "missing")]
        ones = x[:, flags].sum(axis=0).astype(np.int64)
        return np.concatenate([[int(chosen.sum())], ones, int(chosen.sum()) - ones]).astype(np.int64)

    def next(
        self,
        spec: GeneralisedLinearModel,
        setting: Setting,
        history: Sequence[Opened],
        inputs: Mapping[str, dict[str, Any]],
    ) -> Ask | Finished:
        design = design_for(spec.predictors, setting)
        if spec.family == "binomial":
            reached = _BINOMIAL.next(_logistic(spec), setting, history, inputs)
            return reached if isinstance(reached, Ask) else Finished(binomial_result(reached.result, history))
        if not history:
            return Ask(())
        used = known(spec.outcome, setting)
        if spec.family == "gaussian" and setting.mode == "private":
            return Finished(private_result(spec, design, used, gaussian.private_fit(design, history[0])))
        if spec.family == "gaussian":
            return Finished(gaussian_result(spec, design, used, gaussian.exact_fit(design, history[0])))
        limits = _bounds(spec, setting)
        found = next_log(design, limits, history)
        if isinstance(found, families.LogFit):
            return Finished(log_result(spec, design, limits, found))
        return Ask(found)


class BinomialScorer(LinearScorer):
    """Risks of a binomial model; any other is refused."""

    def outcome(self, spec: Any) -> str:
        """Raises: StudyFileError: the model predicts no 0/1 variable."""
        if spec.family != "binomial":
            raise StudyFileError(
                f"models: a model of {spec.outcome!r} with 'family: {spec.family}' predicts no risk; evaluate scores "
                "models with 'family: binomial'."
            )
        return super().outcome(spec)


def _logistic(spec: GeneralisedLinearModel) -> LogisticRegression:
    return LogisticRegression(spec.outcome, spec.predictors)


def _bounds(spec: GeneralisedLinearModel, setting: Setting) -> Bounds:
    exposure = known(spec.exposure, setting).variable.high if spec.exposure else 1.0
    family: Literal["poisson", "gamma"] = "poisson" if spec.family == "poisson" else "gamma"
    return bounds_of(family, known(spec.outcome, setting).variable, exposure)


def _check_outcome(spec: GeneralisedLinearModel, setting: Setting) -> None:
    used = known(spec.outcome, setting)
    check_variable(used)
    v = used.variable
    if v.kind != "number":
        raise StudyFileError(
            f"outcome: {spec.outcome!r} must be a number; declare 'kind: number', or ask for binomial."
        )
    if spec.family != "gaussian" and used.log:
        raise StudyFileError(
            f"{v.name} has 'log: true', and {spec.family} takes the logarithm of its mean; leave it out."
        )
    if spec.family == "poisson" and not (v.low >= 0 < v.high):
        raise StudyFileError(f"{v.name}: counts are not below 0; write a range that starts at 0.")
    if spec.family == "gamma" and v.low <= 0:
        raise StudyFileError(f"{v.name}: gamma is for numbers above 0; write a low end above 0.")
    if spec.exposure:
        _check_exposure(spec, setting)


def _check_exposure(spec: GeneralisedLinearModel, setting: Setting) -> None:
    used = known(spec.exposure, setting)
    check_variable(used)
    if used.variable.kind != "number" or used.variable.low <= 0:
        raise StudyFileError(f"exposure: {spec.exposure!r} must be a number whose range starts above 0.")
    if spec.exposure == spec.outcome:
        raise StudyFileError(f"exposure: {spec.exposure!r} is the outcome itself; name another variable.")


def _check_private(spec: GeneralisedLinearModel, setting: Setting) -> None:
    if spec.family != "gaussian":
        raise StudyFileError(
            f"family: {spec.family} has no private fit here: its sums have no useful bound under noise. Ask for "
            "gaussian (of a logarithm, say), for binomial, or in an exact study."
        )
    pooled = [n for n in (spec.outcome, *spec.predictors) if known(n, setting).scale == "pooled"]
    if pooled:
        raise StudyFileError(
            f"{pooled[0]} has 'scale: pooled', whose mean and deviation would cost budget of their own; in a private "
            "study write 'scale: reference' with a public centre and spread."
        )
