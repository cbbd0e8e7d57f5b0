"""Support vector machines in their primal form: the squared hinge loss of a linear function of public columns.

    |w|^2 / 2 + cost * sum max(0, 1 - s f)^2,  f = x w, s = -1 or 1; the intercept is a column like the others.

Exact: the sums of x x' and s x give an upper bound of the curvature and the first point; then gradients are opened
one after the other, and a quasi-Newton method that starts from that bound moves on. A step that does not descend is
taken again by the bound alone, which always does. Private: `private_svm`.
No patient is a support vector that anybody is told of: a model is one number per column.
Sources: Chapelle 2007, "Training a support vector machine in the primal"; bound: Boehning and Lindsay 1988; updates:
Broyden, Fletcher, Goldfarb, Shanno 1970 (Nocedal and Wright 2006, section 6.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.special import expit

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.design import Design, check_design, design_for, matrix, raw_scaling
from flute.algorithms.linear import read_parameters
from flute.algorithms.newton import logits
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.models.trees import MAX_DECISION, SVM_STEPS, SVM_TOLERANCE
from flute.messages.limits import Name
from flute.models.features import cases_among, check_features
from flute.models.machines import private_svm
from flute.models.machines.kernel import Kernel, columns, reach, size
from flute.models.trees.tree import model_numbers, require_short

_LINK: Final = 2.0
"""Risk = 1 / (1 + exp(-2 f)): at even odds it rises as (1 + f) / 2 does, which squared hinge estimates, and it keeps
the order of patients where that would be cut off at 0 and 1."""
_ROUNDING: Final = 1e-6
"""Of an opened loss, in units of one patient's: fixed point's 1e-12 times MAX_DECISION^2, of ten thousand patients. A
loss that rises by less has not risen; gradients are told far more exactly."""


class SupportVectors(Spec, frozen=True, tag="svm"):
    """kernel rbf: exp(-gamma |x - x'|^2) over the columns' public scale, by `features` random features from `seed`;
    gamma 0: one over the number of columns."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    kernel: Literal["linear", "rbf"] = "linear"
    cost: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    gamma: Annotated[float, Meta(ge=0, le=1e3)] = 0.0
    features: Annotated[int, Meta(ge=4, le=128)] = 64
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0


class SvmAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "svm"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "One coefficient per column of a support vector machine and the number of patients behind it. Columns "
            "are the predictors, or random waves over them that follow from a public seed; no patient is one of them."
        ),
        bounded_by=(
            "Private: a patient's columns are shrunk to a norm that follows from public facts, so the first sums "
            "move by at most a fixed norm; later rows are cut at norm 1. Exact: every number of a patient's row is "
            "at most 1, but no norm bounds what exact sums tell."
        ),
        leaked_otherwise=(
            "Private: nothing; the number of steps is fixed beforehand and every opened vector is charged. Exact: "
            "sums of products of any two columns, and from them pooled counts of any two categories; gradients and "
            "losses at every step."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: SupportVectors, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        check_features(spec.outcome, spec.predictors, setting)
        check_design(spec.predictors, setting)
        require_short(self.outline(spec, setting))

    def fields(self, spec: SupportVectors, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: SupportVectors, setting: Setting) -> tuple[StepShape, ...]:
        design = design_for(spec.predictors, setting)
        p = size(_kernel(spec), design)
        if setting.mode == "private":
            return private_svm.outline(p)
        weight = 1 / (1 + SVM_STEPS)
        first = StepShape("products", p * (p + 1) // 2 + p, float(p), weight, 1.0)
        later = [StepShape(f"gradient-{k}", p + 1, float(np.sqrt(p + 1)), weight, 1.0) for k in range(SVM_STEPS)]
        return (first, *later)

    def update(self, spec: SupportVectors, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. `parameters`: none at first, then p coefficients; in private mode p directions of p
        entries besides."""
        kernel, design = _kernel(spec), design_for(spec.predictors, setting)
        p, private = size(kernel, design), setting.mode == "private"
        asked = read_parameters(
            parameters, 0 if step == 0 else p + private * p * p, step, len(self.outline(spec, setting))
        )
        chosen, cases = cases_among(spec.outcome, spec.predictors, setting, data)
        sign = np.where(cases, 1.0, -1.0) * chosen
        x = columns(kernel, spec.predictors, setting, data)
        if private:
            return private_svm.rows(private_svm.coded(kernel, design, x), sign, asked)
        x = np.clip(x / reach(kernel, design), -1.0, 1.0)
        if step == 0:
            i, j = np.triu_indices(p)
            return np.hstack([x[:, i] * x[:, j] * chosen[:, None], x * sign[:, None]])
        return _gradient_rows(x, sign, asked)

    def cells(self, spec: SupportVectors, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome, and in and out of every 0/1 column."""
        design = design_for(spec.predictors, setting)
        chosen, cases = cases_among(spec.outcome, spec.predictors, setting, data)
        x = matrix(design, raw_scaling(design), data)[chosen]
        flags = [x[:, i] for i, c in enumerate(design.columns) if c.kind in ("binary", "level", "missing")]
        ones = np.array([int(np.sum(flag)) for flag in (*flags, cases)], dtype=np.int64)
        return np.concatenate([ones, int(chosen.sum()) - ones])

    def next(
        self, spec: SupportVectors, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        kernel, design = _kernel(spec), design_for(spec.predictors, setting)
        if setting.mode == "private":
            fit = private_svm.reached(history, size(kernel, design), private_svm.constant(kernel, design))
            if len(history) < len(self.outline(spec, setting)):
                return Ask(fit.asked)
            w = private_svm.decoded(kernel, design, fit.coefficients)
            return Finished(_result(spec, design, w, "fixed-steps", fit.n, fit.n_noise))
        scale = reach(kernel, design)
        products = _products(history[0], size(kernel, design))
        asked, converged = _next_point(spec.cost, scale, products, history[1:])
        if not converged and len(history) < len(self.outline(spec, setting)):
            return Ask(asked)
        ending = "converged" if converged else "not-converged"
        return Finished(_result(spec, design, asked / scale, ending, round(products.matrix[0, 0] * scale**2), 0.0))


class SvmScorer:
    """Risks by a logistic link of the decision value."""

    def outcome(self, spec: Any) -> str:
        return str(spec.outcome)

    def predictors(self, spec: Any) -> tuple[str, ...]:
        return tuple(spec.predictors)

    def size(self, spec: Any, setting: Setting) -> int:
        return size(_kernel(spec), design_for(spec.predictors, setting))

    def parameters(self, spec: Any, setting: Setting, result: Mapping[str, Any]) -> Sequence[float]:
        return model_numbers(result)

    def decisions(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        """[n] f: above 0 where the outcome is likelier than not."""
        return logits(columns(_kernel(spec), spec.predictors, setting, data), parameters)

    def risks(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        return np.asarray(expit(_LINK * self.decisions(spec, setting, parameters, data)))


def _kernel(spec: SupportVectors) -> Kernel:
    return Kernel(spec.features if spec.kernel == "rbf" else 0, spec.gamma, spec.seed)


def _gradient_rows(x: Array, sign: Array, w: Array) -> Array:
    """[n, p + 1]: s r x / MAX_DECISION and r^2 / MAX_DECISION^2, r = max(0, 1 - s f), at most MAX_DECISION."""
    slack = np.clip(1 - sign * logits(x, w), 0.0, MAX_DECISION) * (sign != 0) / MAX_DECISION
    return np.column_stack([(sign * slack)[:, None] * x, slack**2])


@dataclass(frozen=True, slots=True)
class _Products:
    """Step 0: `matrix` [p, p] sum of x x', `signed` [p] sum of s x."""

    matrix: Array
    signed: Array


def _products(opened: Opened, p: int) -> _Products:
    matrix_sums = np.zeros((p, p))
    matrix_sums[np.triu_indices(p)] = opened.total[: p * (p + 1) // 2]
    return _Products(matrix_sums + np.triu(matrix_sums, 1).T, opened.total[p * (p + 1) // 2 :])


@dataclass(frozen=True, slots=True)
class _Point:
    """One evaluated point."""

    w: Array
    value: float
    gradient: Array


def _next_point(cost: float, scale: float, products: _Products, opened: Sequence[Opened]) -> tuple[Array, bool]:
    """Where to look next, or the solution; over columns divided by `scale`."""
    ridge = 1 / scale**2
    bound = ridge * np.eye(len(products.signed)) + 2 * cost * products.matrix
    safe = np.asarray(np.linalg.inv(bound), dtype=np.float64)
    if not opened:
        return safe @ (2 * cost * products.signed), False
    points = [_evaluated(cost, ridge, one) for one in opened]
    inverse = safe
    for before, after in pairwise(points):
        inverse = _updated(inverse, after.w - before.w, after.gradient - before.gradient)
    best = min(points, key=lambda point: point.value)
    rounding = _ROUNDING * cost + 1e-9 * best.value
    onward = points[-1].value <= best.value + rounding
    at = points[-1] if onward else best
    step = (inverse if onward else safe) @ at.gradient
    settled = float(np.abs(step).sum()) < SVM_TOLERANCE
    return (at.w if settled else at.w - step), settled


def _evaluated(cost: float, ridge: float, opened: Opened) -> _Point:
    w = opened.parameters
    sums, loss = MAX_DECISION * opened.total[:-1], MAX_DECISION**2 * float(opened.total[-1])
    return _Point(w, ridge / 2 * float(w @ w) + cost * loss, ridge * w - 2 * cost * sums)


def _updated(inverse: Array, moved: Array, change: Array) -> Array:
    """The inverse curvature after a step, where the loss bent as a convex function does."""
    along = float(moved @ change)
    if along <= 1e-12 * float(np.linalg.norm(moved) * np.linalg.norm(change)):
        return inverse
    left = np.eye(len(moved)) - np.outer(moved, change) / along
    return np.asarray(left @ inverse @ left.T + np.outer(moved, moved) / along)


def _result(spec: SupportVectors, design: Design, w: Array, ending: str, n: float, noise: float) -> dict[str, Any]:
    waves = [f"wave {k}" for k in range(1, len(w))]
    return {
        "outcome": spec.outcome,
        "predictors": list(spec.predictors),
        "kernel": spec.kernel,
        "columns": list(design.names) if spec.kernel == "linear" else ["intercept", *waves],
        "coefficients": [float(v) for v in w],
        "n": max(0, round(n)),
        "n_noise_se": noise,
        "ending": ending,
        "parameters": [float(v) for v in w],
    }
