"""Linear regression from one vector of sums: exact on public ranges, private from noised second moments.

Exact. Rows over columns on [-1, 1] and the outcome v on [-1, 1] of its own range:
    [n, v^2, v x (p), upper triangle of x x'].
The residual sum of squares is a difference, so it loses the digits by which the residuals are smaller than the range:
1e-7 of it at a spread of 1/3,000 of the range, 3e-3 at 1/300,000.

Private. z are the columns of `private_rows` with their intercept, v = (y - centre) / spread cut to +-LONGEST, made
as long as z: u = v R / LONGEST, R the norm of an ordinary z. A patient counts with s = min(1, R / |z|); s says
nothing of y, so weighting costs precision and moves no coefficient. Opened is [the upper triangle of w w',
off-diagonals times sqrt 2 | a constant], w = s (z, u): the first part's norm is |w|^2 <= 2 R^2, the constant a
quarter of that; its sum is how many patients there are. With the noise's deviation sigma on a diagonal, M^ = M + E
and m^ = m + e hold E b - e of covariance S = sigma^2 / 2 (I (1 + |b|^2) + b b'). Coefficients are the mean of the
normal posterior of b given m^ - M^ b ~ N(0, S), b ~ N(0, PRIOR_SD^2): where noise is small that is the least
squares fit, where it drowns a direction the prior holds it. Chance in who was a patient is carried through the same
map, as if weights were 1: a little too much.
Sources: least squares; errors in variables, Fuller 1987, section 1.2; noised second moments, Dwork, Talwar, Thakurta
and Zhang 2014; a prior over noised moments, Bernstein and Sheldon 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from flute.algorithms.contract import Opened, StepShape, StudyVariable
from flute.algorithms.design import Design, Mask, bounds
from flute.algorithms.newton import VANISHED, Fit, first_dependent, pooled_scaling, symmetric
from flute.algorithms.private_rows import coding, intercept, row_radius
from flute.data.variables import Array
from flute.defaults.models.linear_models import EXACT_DIGITS

LONGEST: Final = 3.0
"""Spreads of the outcome beyond which a private fit counts it as no farther: 0.3 % of a normal one's are."""
_COUNTED: Final = 0.25
"""The constant, over the bound of |w|^2: it makes all noise 3 % larger."""
_PRIOR_SD: Final = 2.0
"""Of a coefficient over z: spreads of the outcome per spread of a predictor. A correlation is at most 1."""
_ROUNDS: Final = 3
"""Of S, which needs b, and b, which needs S."""


def exact_shape(columns: int) -> StepShape:
    size = 2 + columns + columns * (columns + 1) // 2
    return StepShape("moments", size, float(np.sqrt(size)), 1.0, 1.0)


def exact_rows(x: Array, v: Array, included: Mask) -> Array:
    """[n, 2 + p + p (p + 1) / 2]. v: [n] on [-1, 1], read only where included."""
    i, j = np.triu_indices(x.shape[1])
    v = np.where(included, v, 0.0)
    rows = np.column_stack([np.ones(len(x)), v**2, v[:, None] * x, x[:, i] * x[:, j]])
    return np.asarray(np.clip(rows, -1.0, 1.0) * included[:, None])


@dataclass(frozen=True, slots=True)
class GaussianFit:
    """`fit`: over unit ranges and the outcome's, its covariance at variance 1 of the residuals. `residual`, `total`:
    sums of squares about the fit and about the mean, in the outcome's unit ranges."""

    fit: Fit
    residual: float
    total: float


@dataclass(frozen=True, slots=True)
class ExactSums:
    """`exact_rows`, opened: n, sum of v^2, of v x [p], of x x' [p, p]."""

    n: float
    outcome: float
    cross: Array
    squares: Array


def read_sums(opened: Opened, p: int) -> ExactSums:
    total = opened.total
    return ExactSums(float(np.round(total[0])), float(total[1]), total[2 : 2 + p], symmetric(total[2 + p :], p))


def exact_fit(design: Design, opened: Opened) -> GaussianFit:
    p, sums = design.size, read_sums(opened, design.size)
    n, squares, cross = sums.n, sums.squares, sums.cross
    active = np.diag(squares) >= VANISHED
    pooled = pooled_scaling(design, n, squares)
    absent = tuple(np.array(design.names)[~active].tolist())

    def ended(
        ending: str, column: str, b: Array, covariance: Array | None, residual: float, total: float
    ) -> GaussianFit:
        return GaussianFit(Fit(ending, column, b, covariance, n, 0.0, 1, absent, pooled), residual, total)

    nothing = np.zeros(p)
    if n < 1:
        return ended("no-data", "", nothing, None, 0.0, 0.0)
    if (dependent := first_dependent(squares, active)) >= 0:
        return ended("collinear", design.names[dependent], nothing, None, 0.0, 0.0)
    if n < active.sum():
        return ended("not-converged", "", nothing, None, 0.0, 0.0)
    within, b, inverse = np.ix_(active, active), nothing.copy(), np.zeros((p, p))
    inverse[within] = np.linalg.inv(squares[within])
    b[active] = np.linalg.solve(squares[within], cross[active])
    left = float(sums.outcome - 2 * b @ cross + b @ squares @ b)
    residual = left if left > EXACT_DIGITS * sums.outcome else 0.0
    return ended("converged", "", b, inverse, residual, max(float(sums.outcome - cross[0] ** 2 / n), 0.0))


# --- private ---------------------------------------------------------------------------------------


def outcome_scale(used: StudyVariable) -> tuple[float, float]:
    """Public centre and spread of v: the study's reference, or middle and quarter of the range."""
    low, high = bounds(used)
    return (used.centre, used.spread) if used.scale == "reference" else ((low + high) / 2, (high - low) / 4)


def private_shape(design: Design) -> StepShape:
    size = design.size + 1
    norm = float(np.hypot(_squares(design), _constant(design)))
    return StepShape("moments", size * (size + 1) // 2 + 1, norm, 1.0, norm)


def _radius(design: Design) -> float:
    return float(np.hypot(intercept(design), row_radius(design)))


def _squares(design: Design) -> float:
    """Bound of |w|^2."""
    return 2 * _radius(design) ** 2


def _constant(design: Design) -> float:
    return _COUNTED * _squares(design)


def private_rows(design: Design, x: Array, v: Array, included: Mask) -> Array:
    """[n, (p + 1)(p + 2) / 2 + 1], none longer than the shape's norm. x: [n, p] by `private_scaling`; v: [n]."""
    z, radius = x @ coding(design), _radius(design)
    cut = np.clip(np.where(included, v, 0.0), -LONGEST, LONGEST)
    w = np.column_stack([z, radius / LONGEST * cut])
    w *= (radius / np.maximum(np.linalg.norm(z, axis=1), radius))[:, None]
    i, j = np.triu_indices(w.shape[1])
    squares = w[:, i] * w[:, j] * np.where(i == j, 1.0, np.sqrt(2))
    return np.hstack([squares, np.full((len(w), 1), _constant(design))]) * included[:, None]


@dataclass(frozen=True, slots=True)
class PrivateGaussian:
    """Coefficients over x by `private_scaling`, in spreads of the outcome. `noise`, `sampling`: covariances of what
    noise, and what chance in who was a patient, leave. `deviation`: of residuals. `informed`: from 0 to 1, the part
    of the coefficients that is no prior."""

    coefficients: Array
    noise: Array
    sampling: Array
    deviation: float
    n: float
    n_noise: float
    informed: float


def private_fit(design: Design, opened: Opened) -> PrivateGaussian:
    p, constant = design.size, _constant(design)
    whole = _whole(design, opened)
    moments, cross, sigma = whole[:p, :p], whole[:p, p], opened.sigma
    weighed = float(moments[0, 0]) / intercept(design) ** 2
    unit = _radius(design) / LONGEST  # u is v in this unit
    b = np.zeros(p)
    for _ in range(_ROUNDS):
        trust = moments @ np.linalg.inv(_covered(b, sigma))
        spread = np.linalg.inv(trust @ moments + np.eye(p) / (unit * _PRIOR_SD) ** 2)
        b = spread @ trust @ cross
    line = np.append(-b, 1.0)
    size = float(line @ line)
    left = max(float(line @ whole @ line), sigma * size)
    variance = left / max(weighed - p, 1.0)
    gain = spread @ trust
    sampling = variance * gain @ _lifted(moments, sigma) @ gain.T
    code = coding(design) / unit
    return PrivateGaussian(
        code @ b, code @ spread @ code.T, code @ sampling @ code.T, float(np.sqrt(variance)) / unit,
        float(opened.total[-1]) / constant, sigma / constant, float(np.trace(gain @ moments)) / p,
    )  # fmt: skip


def private_moments(design: Design, opened: Opened) -> Array:
    """[p, p] mean of z z' over patients, by their weights, positive."""
    moments = _whole(design, opened)[:-1, :-1]
    return _lifted(moments, opened.sigma) * intercept(design) ** 2 / max(float(moments[0, 0]), intercept(design) ** 2)


def _whole(design: Design, opened: Opened) -> Array:
    """[p + 1, p + 1] sum of w w'."""
    i, j = np.triu_indices(design.size + 1)
    return symmetric(opened.total[:-1] / np.where(i == j, 1.0, np.sqrt(2)), design.size + 1)


def _covered(b: Array, sigma: float) -> Array:
    """S of the module's head, and what fixed point leaves where there is no noise."""
    size = max(sigma**2 / 2, 1e-20)
    return np.asarray(size * (np.eye(len(b)) * (1 + float(b @ b)) + np.outer(b, b)))


def _lifted(moments: Array, sigma: float) -> Array:
    """Positive: eigenvalues that noise may have made are no less than its own size."""
    values, vectors = np.linalg.eigh(moments)
    return np.asarray((vectors * np.maximum(values, sigma)) @ vectors.T)
