"""Private support vector machines: noised products, then noised gradients over whitened columns.

Columns z have a public norm R: linear ones are written as private regression writes them (`private_rows.coding`),
random features have a norm of at most the square root of 2.
Step 0 opens [upper triangle of z z' / R^2, off-diagonals times sqrt 2; s z / R]: norm sqrt 2. That gives the
least-squares machine, the squared hinge's own first Newton step. Later steps open s min(r, 2) / 2 u, u = A z cut to
norm 1, r = max(0, 1 - s f): never longer than 1. A whitens z by the opened products. Estimates are combined as a
Kalman filter does.
Sources: as `algorithms.private_linear`, whose constants are taken over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from flute.algorithms.contract import Opened, StepShape
from flute.algorithms.design import Design
from flute.algorithms.newton import logits
from flute.algorithms.private_rows import coding, intercept, row_radius
from flute.data.variables import Array
from flute.models.machines.kernel import Kernel

_WEIGHTS: Final = (0.4, 0.2, 0.4)
"""Parts of the question's budget: products, then two gradients."""
_INTERCEPT: Final = 0.5
"""Beside random features, whose norm is about 1."""
_RIDGE: Final = 0.75
"""Added to the opened products, in sigma sqrt(p); as in private regression."""
_REACH: Final = 0.6
"""Norm of A z for an ordinary patient; beyond 1 it is cut."""
_CUT: Final = 2.0
"""Slack beyond which a patient counts as no worse: twice as far as one with f = 0."""
_ACTIVE: Final = 0.6
"""Part of patients within the margin, where the gradient bends; it only sets the length of steps that the next opened
gradient corrects."""
_START_ERROR: Final = 0.15
_STEP_ERROR: Final = 0.3
_LARGEST: Final = 1e9
"""Of an entry of A: products stay finite whatever was sent."""


def outline(p: int) -> tuple[StepShape, ...]:
    first = StepShape("products", p * (p + 1) // 2 + p, float(np.sqrt(2)), _WEIGHTS[0], 1.0)
    later = [StepShape(f"gradient-{k}", p, 1.0, weight, 1.0) for k, weight in enumerate(_WEIGHTS[1:], start=1)]
    return (first, *later)


def coded(kernel: Kernel, design: Design, x: Array) -> Array:
    """z / R [n, p], no row longer than 1."""
    if kernel.features:
        z = np.column_stack([_INTERCEPT * x[:, 0], x[:, 1:]])
        return np.asarray(z / np.hypot(_INTERCEPT, np.sqrt(2)))
    z, radius = x @ coding(design), row_radius(design)
    norms = np.linalg.norm(z[:, 1:], axis=1)
    z[:, 1:] *= np.minimum(1.0, radius / np.maximum(norms, radius))[:, None]
    return np.asarray(z / np.hypot(intercept(design), radius))


def decoded(kernel: Kernel, design: Design, coefficients: Array) -> Array:
    """Coefficients over the kernel's own columns."""
    if kernel.features:
        over = coefficients / np.hypot(_INTERCEPT, np.sqrt(2))
        return np.concatenate([[_INTERCEPT * over[0]], over[1:]])
    return np.asarray(coding(design) @ coefficients / np.hypot(intercept(design), row_radius(design)))


def rows(z: Array, sign: Array, asked: Array) -> Array:
    """Per-patient rows; `asked` is empty at first, then w [p] and A [p, p] row by row."""
    p = z.shape[1]
    if not len(asked):
        i, j = np.triu_indices(p)
        factors = np.where(i == j, 1.0, np.sqrt(2))
        return np.hstack([z[:, i] * z[:, j] * factors * (sign != 0)[:, None], z * sign[:, None]])
    moved = z @ np.clip(asked[p:].reshape(p, p), -_LARGEST, _LARGEST).T
    moved /= np.maximum(1.0, np.linalg.norm(moved, axis=1))[:, None]
    slack = np.clip(1 - sign * logits(z, asked[:p]), 0.0, _CUT) / _CUT
    return np.asarray((sign * slack)[:, None] * moved)


@dataclass(frozen=True, slots=True)
class Fit:
    """asked: coefficients [p] over z and directions [p, p], flat. n, n_noise: patients, and the noise in it."""

    coefficients: Array
    asked: list[float]
    n: float
    n_noise: float


def constant(kernel: Kernel, design: Design) -> float:
    """What stands in the first column of z / R for every patient."""
    if kernel.features:
        return _INTERCEPT / float(np.hypot(_INTERCEPT, np.sqrt(2)))
    return intercept(design) / float(np.hypot(intercept(design), row_radius(design)))


def reached(history: Sequence[Opened], p: int, first: float) -> Fit:
    """What the opened sums tell; `history`: at least step 0. first: what stands in z's first column."""
    products, noise = _usable(history[0], p)
    n = float(history[0].total[0]) / first**2
    people = max(n, 1.0)
    signed = history[0].total[p * (p + 1) // 2 :]
    inverse = np.linalg.inv(products)
    w = inverse @ signed
    mean_square, whole = float(w @ products @ w) / people / p, people * inverse
    noised = history[0].sigma ** 2 + noise**2 * float(w @ w)
    covariance = noised * inverse @ inverse + _START_ERROR**2 * mean_square * whole
    a = _directions(products / people)
    for opened in history[1:]:
        jacobian = np.linalg.inv(_ACTIVE / _CUT * a @ products)
        spread = opened.sigma**2 * jacobian @ jacobian.T
        gain = covariance @ np.linalg.inv(covariance + spread)
        step = gain @ jacobian @ opened.total
        w = w + step
        left = np.eye(p) - gain
        length = float(step @ products @ step) / people / p
        covariance = left @ covariance @ left.T + gain @ spread @ gain.T + _STEP_ERROR**2 * length * whole
    asked = [*(float(v) for v in w), *(float(v) for v in a.ravel())]
    return Fit(w, asked, n, history[0].sigma / first**2)


def _usable(opened: Opened, p: int) -> tuple[Array, float]:
    """Sum of z z' with its smallest eigenvalues lifted to what the noise allows; the noise of an off-diagonal."""
    i, j = np.triu_indices(p)
    noisy = np.zeros((p, p))
    noisy[i, j] = opened.total[: len(i)] / np.where(i == j, 1.0, np.sqrt(2))
    noisy += np.triu(noisy, 1).T
    noise = opened.sigma / np.sqrt(2)
    ridge = _RIDGE * noise * np.sqrt(p)
    values, vectors = np.linalg.eigh(noisy)
    least = max(ridge / 2, 1e-9)
    return (vectors * np.maximum(values + ridge, least)) @ vectors.T, float(noise)


def _directions(mean_products: Array) -> Array:
    """A [p, p]: z made uncorrelated and of equal variance, of norm _REACH for an ordinary patient."""
    values, vectors = np.linalg.eigh(mean_products)
    values = np.maximum(values, 1e-6 * max(float(values[-1]), 1e-300))
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T * (_REACH / np.sqrt(len(values))))
