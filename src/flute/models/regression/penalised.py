"""Regression with a ridge, a lasso or both, for one strength of penalty or a grid of them: logistic and linear.

What is minimised, n patients, b over the study's own scales, the intercept b_0 free of penalty:
    -log-likelihood / n (binomial) or sum of squares / 2 n (gaussian)
        + strength sum over j > 0 of ((1 - l1_ratio) b_j^2 / 2 + l1_ratio |b_j|).
Columns of 0 and 1 are penalised as they are, numbers as their 'scale' says.

Exact. Gaussian: one opening answers every strength (`gaussian`). Binomial: proximal Newton steps, each of which opens
gradient and Hessian as logistic-regression does; the quadratic they make, and the penalty, are minimised afterwards
(`penalty`). A strength begins where the one before it, a larger one, ended. Of several strengths the one with the
least information criterion is the model; all are told.
Private: the noised fit of logistic-regression or glm, and the penalty added afterwards with the curvature that the
opened sums imply, which costs no budget.
Sources: Zou and Hastie 2005 (elastic net); Lee, Sun and Saunders 2014 (proximal Newton); Zou, Hastie and Tibshirani
2007 (degrees of freedom).
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
)
from flute.algorithms.design import design_for
from flute.algorithms.linear import LogisticRegressionAlgorithm
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import IRLS_MAX_STEPS
from flute.defaults.models.linear_models import MAX_PENALTIES, PENALTY_STEPS
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.models.regression.glm import BinomialScorer, GeneralisedLinearModel, GeneralisedLinearModelAlgorithm
from flute.models.regression.penalised_path import Path, gaussian_path, next_binomial, next_private_path
from flute.models.regression.penalised_results import told

_LOGISTIC: Final = LogisticRegressionAlgorithm()
_LINEAR: Final = GeneralisedLinearModelAlgorithm()


class PenalisedRegression(Spec, frozen=True, tag="penalised-regression"):
    """A regression whose coefficients are held small (ridge) or many of them at 0 (lasso).

    l1_ratio: 0 is ridge alone, 1 lasso alone. choose_by: the criterion that picks among several strengths."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    strengths: Annotated[
        tuple[Annotated[float, Meta(gt=0, le=1e6)], ...], Meta(min_length=1, max_length=MAX_PENALTIES)
    ]
    l1_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.0
    family: Literal["binomial", "gaussian"] = "binomial"
    choose_by: Literal["aic", "bic"] = "bic"


class PenalisedRegressionAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "penalised-regression"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Coefficients for every strength of penalty, the number of patients behind them, and in exact mode how "
            "well each fits."
        ),
        bounded_by=(
            "As logistic-regression (binomial) and glm (gaussian), of which it takes the sums: private rows are "
            "shrunk to a public norm; every number of an exact row is at most 1."
        ),
        leaked_otherwise=(
            "Private: nothing; the penalty is added to what was opened. Exact: the gradient and Hessian of every "
            "step, or the products of all columns, are opened to the coordinator. A penalty hides nothing."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: PenalisedRegression, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        if any(a <= b for a, b in zip(spec.strengths, spec.strengths[1:], strict=False)):
            raise StudyFileError("strengths: write the largest first, each once; a fit begins where the last ended.")
        if setting.mode == "private" and len(spec.strengths) > 1:
            raise StudyFileError("strengths: under noise they cannot be compared; write one.")
        if spec.family == "binomial":
            _LOGISTIC.check(_logistic(spec), setting)
        else:
            _LINEAR.check(_linear(spec), setting)

    def fields(self, spec: PenalisedRegression, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: PenalisedRegression, setting: Setting) -> tuple[StepShape, ...]:
        if spec.family == "gaussian":
            return _LINEAR.outline(_linear(spec), setting)
        if setting.mode == "private":
            return _LOGISTIC.outline(_logistic(spec), setting)
        one, steps = _LOGISTIC.outline(_logistic(spec), setting)[0], most_steps(spec)
        return tuple(
            StepShape(f"newton-{k}", one.size, one.clip_norm, 1 / steps, one.magnitude) for k in range(steps)
        )

    def update(
        self, spec: PenalisedRegression, setting: Setting, step: int, parameters: Array, data: Dataset
    ) -> Array:
        """See the contract: rows of logistic-regression or glm; an exact logistic step takes the coefficients."""
        if spec.family == "gaussian":
            return _LINEAR.update(_linear(spec), setting, step, parameters, data)
        if setting.mode == "private" or not 0 <= step < most_steps(spec):
            return _LOGISTIC.update(_logistic(spec), setting, step, parameters, data)
        return _LOGISTIC.update(_logistic(spec), setting, 0, parameters, data)  # all its exact steps are alike

    def cells(self, spec: PenalisedRegression, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        if spec.family == "gaussian":
            return _LINEAR.cells(_linear(spec), setting, data)
        return _LOGISTIC.cells(_logistic(spec), setting, data)

    def next(
        self,
        spec: PenalisedRegression,
        setting: Setting,
        history: Sequence[Opened],
        inputs: Mapping[str, dict[str, Any]],
    ) -> Ask | Finished:
        design = design_for(spec.predictors, setting)
        found: Array | Path
        if not history:
            return Ask(np.zeros(design.size if (spec.family, setting.mode) == ("binomial", "exact") else 0))
        if setting.mode == "private":
            found = next_private_path(spec, design, setting, history)
        elif spec.family == "gaussian":
            found = gaussian_path(spec, design, setting, history[0])
        else:
            found = next_binomial(spec, design, history, most_steps(spec))
        return Finished(told(spec, design, found)) if isinstance(found, Path) else Ask(found)


class PenalisedScorer(BinomialScorer):
    """Of the model that the criterion picked."""


def most_steps(spec: PenalisedRegression) -> int:
    return IRLS_MAX_STEPS + PENALTY_STEPS * (len(spec.strengths) - 1)


def _logistic(spec: PenalisedRegression) -> LogisticRegression:
    return LogisticRegression(spec.outcome, spec.predictors)


def _linear(spec: PenalisedRegression) -> GeneralisedLinearModel:
    return GeneralisedLinearModel(spec.outcome, spec.predictors)
