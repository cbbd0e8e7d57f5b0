"""Private logistic regression where totals are opened: from noised sums to coefficients. No patient's row in it.

Step 0 gives second moments of z (`private_rows`) and the gradient at 0. A start follows from them by maximising the
likelihood that a normal linear predictor with those moments would have. Every later step is a Newton step: the sum
of w (y - p) A z, the curvature by which it is divided taken from a made-up population with the opened moments
(`private_population`). A whitens z by the opened moments, so that the noise, alike in all directions of A z, hits
all directions of the predictors alike.

Estimates are combined as a Kalman filter does: what is known so far, covariance V, and a Newton step, covariance
J^-1 J'^-1 sigma^2, each in proportion to what it tells. So no part of the budget is lost on early steps. V also
carries what approximations may have left; without that the filter would trust its start too much.
The last estimate is shrunk by a normal prior of _PRIOR_SD: a level that nobody has would otherwise come out with a
large coefficient of pure noise.

Constants: "loss" is the mean loss of AUC against the exact fit, relative to the value chosen, geometric mean over
seven data sets (the simulated pilot on seeds 1 to 40 in three versions, statsmodels' fair and anes96, 13 columns with
8 % of outcomes, 4 columns with heavy tails), each at a budget at which some AUC is lost. All optima are flat.
Sources: Kalman 1960; Wigner's semicircle for the noise of a symmetric matrix; docs/explanation/private-regression.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import Opened
from flute.algorithms.design import Design
from flute.algorithms.newton import logits
from flute.algorithms.private_population import ROWS, made_up_rows
from flute.algorithms.private_rows import coding, intercept, moment_factors, private_outline
from flute.data.variables import Array

_RIDGE: Final = 0.75
"""Added to the opened moments, in sigma sqrt(p); their noise alone has eigenvalues of 2 sigma sqrt(p) on both sides.
Loss 1.01 at .5, 1.02 at 1; calibration slopes of the pilot .99, 1.00 (at .75), 1.01."""
_SATURATION: Final = 0.6
"""Norm of A z, over that of an ordinary patient, beyond which a patient with odds far from even is weighted down.
Loss 1.02 at .5, 1.04 at .7, 1.16 at .9."""
_INTERCEPT_PART: Final = 0.5
"""Of the intercept in A z; ranking needs none, calibration little. Loss 1.01 at .3 and at .8."""
_START_ERROR: Final = 0.12
"""Of the start, per direction, beside its noise; in deviations of the linear predictor. Loss 1.00 at .09, 1.01 at
.18."""
_STEP_ERROR: Final = 0.3
"""What a step may leave, per direction, of its own mean length. Loss 1.00 at .2, 1.01 at .4."""
_PRIOR_SD: Final = 1.0
"""Log odds per unit of z: per deviation of a number, per half of the way between a binary's values. Loss 1.03 at .5,
1.01 at 2."""
_INTERCEPT_PRIOR_SD: Final = 5.0
"""Log odds; hardly a prior at all."""
_LEAST_WEIGHT: Final = 0.03
"""Of p (1 - p): a linear predictor with a deviation of 13. Noise alone may suggest less; errors stay finite."""
_LEAST_SPREAD: Final = 1e-6
"""Of one made-up row's p (1 - p), so that curvatures can be inverted however far noise has thrown a start."""
_MODEL_ITERATIONS: Final = 60
"""Of a bounded descent over p numbers, no data in it; 60 are past convergence."""
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()


@dataclass(frozen=True, slots=True)
class Moments:
    """Opened step 0, made usable.

    `matrix` [p, p] positive definite estimate of the mean of z z'; `mean`, `covariance` as it says; `people`: n as it
    says, above 0. `gradient` [p]: sum of (y - 1/2) z. `kept` [p, p]: part of `matrix` that is no ridge, by directions
    (matrix^-1 times the opened moments). `n`, `n_noise`: patients as opened, and the deviation of its noise. `noise`,
    `gradient_noise`: deviation of the noise on an off-diagonal of the sum of z z', and on `gradient`.
    """

    matrix: Array
    mean: Array
    covariance: Array
    people: float
    gradient: Array
    kept: Array
    n: float
    n_noise: float
    noise: float
    gradient_noise: float


def opened_moments(design: Design, opened: Opened) -> Moments:
    """Step 0 with its negative and smallest eigenvalues lifted to what the noise's own size allows."""
    p, constant = design.size, intercept(design)
    factors, ends = moment_factors(p), p * (p + 1) // 2
    noisy = np.zeros((p, p))
    noisy[np.triu_indices(p)] = opened.total[:ends] / factors
    noisy += np.triu(noisy, 1).T
    noise = opened.sigma / (np.sqrt(2) / 4)
    ridge = _RIDGE * noise * np.sqrt(p)
    eigenvalues, vectors = np.linalg.eigh(noisy)
    lifted = np.maximum(eigenvalues + ridge, ridge / 2) if ridge > 0 else np.maximum(eigenvalues, 1e-9)
    matrix = (vectors * lifted) @ vectors.T
    people = float(matrix[0, 0]) / constant**2
    mean = matrix[0] / (people * constant)
    return Moments(
        matrix=matrix / people,
        mean=mean,
        covariance=matrix / people - np.outer(mean, mean),
        people=people,
        gradient=opened.total[ends:],
        kept=(vectors * (np.maximum(eigenvalues, 0.0) / lifted)) @ vectors.T,
        n=float(noisy[0, 0]) / constant**2,
        n_noise=opened.sigma / factors[0] / constant**2,
        noise=noise,
        gradient_noise=opened.sigma,
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """Coefficients over z. `covariance`: what the filter weighs them by, their noise and what approximations may have
    left. `errors`: the same, and what the ridge keeps steps from correcting where hardly any patients differ; that is
    what a result states. Weighing by it would trust noise more in those directions than it deserves."""

    coefficients: Array
    covariance: Array
    errors: Array


def starting_estimate(moments: Moments) -> Estimate:
    """The maximum of the likelihood that normal rows with these moments would have, under the prior.

    E[(p - 1/2) z] = mean E[p - 1/2] + covariance b E[p (1 - p)] (Stein's lemma); descent with the bound matrix / 4
    (Boehning and Lindsay 1988). The prior's penalty is the noise's variance over _PRIOR_SD^2: without it, products
    that no patients could have would send coefficients to infinity.
    """
    bound = moments.people * moments.matrix / 4
    noise = moments.gradient_noise**2 + (0.2 * moments.noise) ** 2
    penalty = noise / _PRIOR_SD**2 * np.linalg.inv(bound)
    b = np.zeros(len(moments.mean))
    for _ in range(_MODEL_ITERATIONS):
        fitted, weight = _normal_predictor(moments, b)
        expected = moments.mean * (fitted - 0.5) + moments.covariance @ b * weight
        b = b + np.linalg.solve(bound + penalty, moments.gradient - moments.people * expected - penalty @ b)
    weight = max(_normal_predictor(moments, b)[1], _LEAST_WEIGHT)
    inverse = np.linalg.inv(moments.matrix)
    variance = moments.gradient_noise**2 + (weight * moments.noise) ** 2 * float(b @ b)
    noised = variance / (weight * moments.people) ** 2 * inverse @ inverse
    covariance = noised + _START_ERROR**2 * float(b @ moments.covariance @ b) * inverse
    return Estimate(b, covariance, covariance)


def _normal_predictor(moments: Moments, coefficients: Array) -> tuple[float, float]:
    """Means of p and of p (1 - p) under a normal linear predictor with these moments."""
    spread = np.sqrt(max(float(coefficients @ moments.covariance @ coefficients), 0.0))
    fitted = expit(float(moments.mean @ coefficients) + spread * _NODES)
    return float(_NODE_WEIGHTS @ fitted), float(_NODE_WEIGHTS @ (fitted * (1 - fitted)))


def directions(moments: Moments) -> Array:
    """A [p, p]: z made uncorrelated, of equal variance, its intercept small; scaled to _SATURATION."""
    p, constant = len(moments.mean), float(np.sqrt(moments.matrix[0, 0]))
    values, vectors = np.linalg.eigh(moments.covariance[1:, 1:])
    values = np.maximum(values, 1e-6 * max(float(values[-1]), 1e-300))
    white = (vectors / np.sqrt(values)) @ vectors.T
    found = np.zeros((p, p))
    found[0, 0] = _INTERCEPT_PART / constant
    found[1:, 1:] = white
    found[1:, 0] = -white @ moments.mean[1:] / constant
    return np.asarray(found / (_SATURATION * np.sqrt(p - 1 + _INTERCEPT_PART**2)))


def improved(estimate: Estimate, opened: Opened, moments: Moments, rows: Array, a: Array) -> Estimate:
    """One Newton step on the total of a gradient step, combined with what was known before it."""
    jacobian = moments.people * _curvature(rows, a, estimate.coefficients)
    inverse = np.linalg.inv(jacobian)
    noise = opened.sigma**2 * inverse @ inverse.T
    gain = estimate.covariance @ np.linalg.inv(estimate.covariance + noise)
    step = gain @ inverse @ opened.total
    length = float(step @ moments.matrix @ step) / len(step)
    added = gain @ noise @ gain.T + _STEP_ERROR**2 * length * np.linalg.inv(moments.matrix)
    left, truly_left = np.eye(len(step)) - gain, np.eye(len(step)) - gain @ moments.kept
    return Estimate(
        estimate.coefficients + step,
        left @ estimate.covariance @ left.T + added,
        truly_left @ estimate.errors @ truly_left.T + added,
    )


def _curvature(rows: Array, a: Array, coefficients: Array) -> Array:
    """[p, p] mean of w p (1 - p) A z z' over `rows`: how `gradient_rows` add up as coefficients move."""
    moved, weight, spread = _weighted(rows, a, coefficients)
    return np.asarray((moved * (weight * spread)[:, None]).T @ rows / ROWS)


def _weighted(rows: Array, a: Array, coefficients: Array) -> tuple[Array, Array, Array]:
    """A z and w of every row, as `gradient_rows` has them, and p (1 - p), not below _LEAST_SPREAD."""
    moved, fitted = rows @ a.T, expit(logits(rows, coefficients))
    weight = 1 / np.maximum(1.0, np.linalg.norm(moved, axis=1) * np.maximum(fitted, 1 - fitted))
    return moved, weight, np.maximum(fitted * (1 - fitted), _LEAST_SPREAD)


def _weighting_error(estimate: Estimate, moments: Moments, rows: Array, a: Array) -> Array:
    """Covariance of what w alone moves coefficients from the unweighted fit of the same patients: the variance that
    chance gives the weighted estimate, less what it gives the other, which is the efficient one."""
    moved, weight, spread = _weighted(rows, a, estimate.coefficients)
    inverse = np.linalg.inv(_curvature(rows, a, estimate.coefficients))
    weighted = inverse @ ((moved * (weight**2 * spread)[:, None]).T @ moved / ROWS) @ inverse.T
    plain = np.linalg.inv((rows * spread[:, None]).T @ rows / ROWS)
    return np.asarray((weighted - plain) / moments.people)


@dataclass(frozen=True, slots=True)
class PrivateFit:
    """Coefficients over x (`private_scaling`), the covariance of their errors against the exact fit of the same
    patients (noise, unfinished steps, weights), and n with its noise deviation.

    `informed`: mean over directions of the part of the second moments that is no ridge, from 0 to 1. Noise without a
    patient shows .23 of 11 columns, the pilot's three hubs at epsilon 1 .86.
    """

    coefficients: Array
    noise_covariance: Array
    informed: float
    n: float
    n_noise: float


def next_private(design: Design, history: Sequence[Opened]) -> Array | PrivateFit:
    """The parameters to ask with next (b [p] over z, then A [p, p] row by row), or the fit after the last step.

    `history`: at least step 0.
    """
    moments = opened_moments(design, history[0])
    estimate, a = starting_estimate(moments), directions(moments)
    rows = made_up_rows(design, moments.matrix) if len(history) > 1 else np.empty((0, design.size))
    for opened in history[1:]:
        estimate = improved(estimate, opened, moments, rows, a)
    if len(history) < len(private_outline(design)):
        return np.concatenate([estimate.coefficients, a.ravel()])
    code, weak = coding(design), _weakening(design, estimate)
    errors = code @ weak @ (estimate.errors + _weighting_error(estimate, moments, rows, a)) @ weak.T @ code.T
    informed = float(np.trace(moments.kept)) / design.size
    return PrivateFit(code @ weak @ estimate.coefficients, errors, informed, moments.n, moments.n_noise)


def _weakening(design: Design, estimate: Estimate) -> Array:
    """[p, p] what the prior multiplies the coefficients with."""
    prior = np.full(design.size, _PRIOR_SD**2)
    prior[0] = (_INTERCEPT_PRIOR_SD / intercept(design)) ** 2
    return np.asarray(np.diag(prior) @ np.linalg.inv(np.diag(prior) + estimate.covariance))
