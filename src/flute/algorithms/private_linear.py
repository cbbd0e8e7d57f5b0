"""Private logistic regression: one noised moment vector, then noised gradient steps, their number fixed.

Columns are z = (1, w x'): numbers x' by the study's reference scale times _NUMBER_WEIGHT, the rest 0/1. What a
patient contributes is bounded through z~ = (1, w x' shrunk to norm r): every sum has z~ as a factor, so that
rows keep |z~|^2 <= R^2 = 1 + r^2 whatever the data, while fitted probabilities use z itself; the estimating
equations E[(y - p(z)) z~] = 0 stay true at the model's own coefficients (Mallows weights, Kuensch, Stefanski
and Carroll 1989), so shrinking costs precision, not calibration.

Step 0 opens  [w_H * upper triangle of z~ z~' / 4 with off-diagonals times sqrt 2, (y - 1/2) z~]
with norm at most sqrt((w_H R^2 / 4)^2 + R^2 / 4). Coefficients follow from it by maximising the likelihood
that a normal linear predictor with those moments would have (only post-processing).
Steps 1..k open the gradient sum (y - p(z)) z~, clipped to _GRADIENT_CLIP * R, and move by
damping * (mean weight * moments + ridge)^-1 times it: the moments bound the Hessian (Boehning and Lindsay 1988),
the mean of p (1 - p) under the normal predictor makes the bound tight on average. The ridge is the largest
eigenvalue that the noise of the moments is expected to have (Wigner's semicircle, sigma sqrt(p / 2) each side).

The last estimate is shrunk towards 0 where noise outweighs it (normal prior of _PRIOR_SD): a level that nobody
has would otherwise come out with a large coefficient of pure noise.

Constants: chosen on the simulated pilot (11 columns, 2,600 complete patients, noise as three hubs add it, 12
cohorts with 3 draws each). "Loss" below is the loss of AUC against the exact fit at epsilon 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import Opened, StepShape
from flute.algorithms.design import Design, Mask, Scaling, bounds
from flute.algorithms.newton import logits
from flute.data.variables import Array

_NUMBER_WEIGHT: Final = 0.6
"""Loss .0032 at .6, .0038 at .3, .0041 at 1 (spreads of one deviation)."""
_NORM_PER_PREDICTOR: Final = 0.35
"""r^2 per predictor, the norm of an ordinary patient. Loss .0034 at .25, .0032 at .35, .0037 at .5, .0059 at .8."""
_GRADIENT_CLIP: Final = 0.8
"""Of R. Loss .0021 at .55, .0027 at .7, .0032 at .8, but calibration slope .92, .97, .99: where the most surprising
patients count less, predictions become too extreme."""
_HESSIAN_WEIGHT: Final = 2.0
"""w_H. Loss .0051 at .5, .0033 at 1, .0032 at 2, .0034 at 3."""
_STEP_WEIGHTS: Final = (0.40, 0.15, 0.45)
"""Parts of the question's budget: moments, first and second gradient. What the last gradient's noise does, stays."""
_DAMPING: Final = (1.0, 0.8)
"""The last step averages a little of the step before it in."""
_PRIOR_SD: Final = 3.0
"""Log odds per unit of z. With 19 columns, some hardly ever set: loss .0092 at 1.5, .0081 at 3, .0105 without."""
_LEAST_WEIGHT: Final = 0.05
"""Of p (1 - p): a linear predictor with a deviation of 7.5. Noise alone may suggest less; steps stay finite."""
_MODEL_ITERATIONS: Final = 60
"""Of a bounded descent over p numbers, no data in it; 60 are past convergence."""
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()


def private_scaling(design: Design) -> Scaling:
    """Public scale of z: the study's reference, or middle and quarter of the range where it gives none."""
    centres, spreads = [], []
    for used in design.numbers:
        low, high = bounds(used)
        given = used.scale == "reference"
        centres.append(used.centre if given else (low + high) / 2)
        spreads.append((used.spread if given else (high - low) / 4) / _NUMBER_WEIGHT)
    return Scaling(np.array(centres), np.array(spreads), np.array(centres))


def row_radius(design: Design) -> float:
    """r: bound of the norm of z~ without its intercept."""
    return float(np.sqrt(_NORM_PER_PREDICTOR * len(design.predictors)))


def _row_norm(design: Design) -> float:
    return float(np.hypot(1.0, row_radius(design)))


def private_outline(design: Design) -> tuple[StepShape, ...]:
    """Shapes of step 0 and the gradient steps. Norms are proved in the module's head."""
    p, norm = design.size, _row_norm(design)
    moments = float(np.hypot(_HESSIAN_WEIGHT * norm**2 / 4, norm / 2))
    first = StepShape("moments", p + p * (p + 1) // 2, moments, _STEP_WEIGHTS[0], moments)
    clip = _GRADIENT_CLIP * norm
    later = [StepShape(f"gradient-{k}", p, clip, weight, clip) for k, weight in enumerate(_STEP_WEIGHTS[1:], start=1)]
    return (first, *later)


def _shrunk(z: Array, radius: float) -> Array:
    """z~: all but the intercept column shrunk to norm at most `radius`, direction kept."""
    norms = np.linalg.norm(z[:, 1:], axis=1)
    shrunk = z * np.minimum(1.0, radius / np.maximum(norms, radius))[:, None]
    shrunk[:, 0] = 1.0
    return np.asarray(shrunk)


def moment_rows(design: Design, z: Array, outcome: Array, included: Mask) -> Array:
    """Per-patient rows of step 0, [n, p + p (p + 1) / 2]: weighted moments, then the gradient at 0."""
    short = _shrunk(z, row_radius(design))
    i, j = np.triu_indices(design.size)
    factor = _HESSIAN_WEIGHT / 4 * np.where(i == j, 1.0, np.sqrt(2))
    gradient = ((outcome == 1) - 0.5)[:, None] * short
    return np.hstack([short[:, i] * short[:, j] * factor, gradient]) * included[:, None]


def gradient_rows(design: Design, z: Array, outcome: Array, included: Mask, coefficients: Array) -> Array:
    """Per-patient rows of a later step, [n, p], before the hub clips them."""
    residual = (outcome == 1) - expit(logits(z, coefficients))
    return np.asarray(residual[:, None] * _shrunk(z, row_radius(design)) * included[:, None])


@dataclass(frozen=True, slots=True)
class Moments:
    """Opened step 0, made usable: `matrix` [p, p] positive definite estimate of the sum of z~ z~', ridge
        included; `products` [p] of the sum of y z~; `kept` [p, p] the part of `matrix` that is not ridge, matrix^-1
    times the estimate without it; `n` and its noise deviation."""

    matrix: Array
    products: Array
    kept: Array
    n: float
    n_noise: float
    gradient_noise: float


def opened_moments(design: Design, opened: Opened) -> Moments:
    """Undo the weights, then lift the spectrum above what noise alone would make of it."""
    p = design.size
    i, j = np.triu_indices(p)
    upper = opened.total[: len(i)] / (_HESSIAN_WEIGHT / 4 * np.where(i == j, 1.0, np.sqrt(2)))
    noise = opened.sigma * 4 / _HESSIAN_WEIGHT
    noisy = np.zeros((p, p))
    noisy[i, j] = upper
    noisy += np.triu(noisy, 1).T
    ridge = noise * np.sqrt(p / 2)
    eigenvalues, vectors = np.linalg.eigh(noisy)
    lifted = np.maximum(eigenvalues + ridge, ridge / 2) if ridge > 0 else np.maximum(eigenvalues, 1e-9)
    matrix = (vectors * lifted) @ vectors.T
    kept = (vectors * (np.maximum(eigenvalues, 0.0) / lifted)) @ vectors.T
    gradient = opened.total[len(i) :]
    return Moments(matrix, gradient + matrix[0] / 2, kept, float(noisy[0, 0]), noise, opened.sigma)


def _normal_predictor(matrix: Array, coefficients: Array) -> tuple[Array, Array, Array]:
    """Mean row, covariance times coefficients, and the fitted probabilities at the quadrature nodes, if rows
    were normal with the given moments."""
    mean = matrix[0] / matrix[0, 0]
    covariance = matrix / matrix[0, 0] - np.outer(mean, mean)
    along = covariance @ coefficients
    spread = np.sqrt(max(float(coefficients @ along), 0.0))
    return mean, along, expit(float(mean @ coefficients) + spread * _NODES)


def mean_weight(matrix: Array, coefficients: Array) -> float:
    """Mean of p (1 - p) under a normal linear predictor, not below _LEAST_WEIGHT."""
    fitted = _normal_predictor(matrix, coefficients)[2]
    return max(float(_NODE_WEIGHTS @ (fitted * (1 - fitted))), _LEAST_WEIGHT)


def starting_coefficients(moments: Moments) -> Array:
    """[p] maximum of the likelihood that normal rows with these moments would have, under the prior.

    E[p z] = mean E[p] + covariance b E[p (1 - p)] (Stein's lemma); descent with the bound matrix / 4. Noise of
    variance s^2 in `products` makes the prior's penalty s^2 / _PRIOR_SD^2 (matrix / 4)^-1: without it, products
    that no patients could have would send coefficients to infinity.
    """
    bound = moments.matrix / 4
    penalty = (moments.gradient_noise / _PRIOR_SD) ** 2 * np.linalg.inv(bound)
    b = np.zeros(len(moments.products))
    for _ in range(_MODEL_ITERATIONS):
        mean, along, fitted = _normal_predictor(moments.matrix, b)
        weight = float(_NODE_WEIGHTS @ (fitted * (1 - fitted)))
        expected = moments.matrix[0, 0] * (mean * float(_NODE_WEIGHTS @ fitted) + along * weight)
        b = b + np.linalg.solve(bound + penalty, moments.products - expected - penalty @ b)
    return b


@dataclass(frozen=True, slots=True)
class PrivateFit:
    """Coefficients over z, the covariance that the noise alone gives them, and n with its noise deviation.

    `informed`: share of the directions of the design in which patients outweigh the ridge, from 0 to 1; noise
    without a patient shows .21 of 9 columns, the pilot's three hubs at epsilon 1 .83.
    """

    coefficients: Array
    noise_covariance: Array
    informed: float
    n: float
    n_noise: float


def next_private(design: Design, history: Sequence[Opened]) -> Array | PrivateFit:
    """The coefficients to ask at next, or the fit after the last step. `history`: at least step 0.

    The noise's covariance is carried along: a step takes `damping * kept` of the earlier error away and adds
    the noise of its own gradient. In a direction that hardly any patient varies in, nothing is taken away.
    """
    moments = opened_moments(design, history[0])
    b = starting_coefficients(moments)
    inverse = np.linalg.inv(mean_weight(moments.matrix, b) * moments.matrix)
    covariance = moments.gradient_noise**2 * inverse @ inverse
    for opened, damping in zip(history[1:], _DAMPING, strict=False):
        inverse = np.linalg.inv(mean_weight(moments.matrix, b) * moments.matrix)
        b = b + damping * inverse @ opened.total
        left = np.eye(design.size) - damping * moments.kept
        covariance = left @ covariance @ left.T + (damping * opened.sigma) ** 2 * inverse @ inverse
    if len(history) <= len(_DAMPING):
        return b
    weak = _PRIOR_SD**2 * np.linalg.inv(_PRIOR_SD**2 * np.eye(design.size) + covariance)
    informed = float(np.trace(moments.kept)) / design.size
    return PrivateFit(weak @ b, weak @ covariance @ weak.T, informed, moments.n, moments.n_noise)
