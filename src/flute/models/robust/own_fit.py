"""One hub's own logistic regression, under a normal prior: what it votes with. It always ends, after the same steps.

Minimises -sum of log-likelihoods + sum of b^2 / (2 s^2), which has one finite minimum whatever the records are.
Sources: Newton's method with a search along each step, Boyd and Vandenberghe 2004, section 9.5; the prior, Gelman,
Jakulin, Pittau and Su 2008.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from flute.algorithms.newton import logits
from flute.data.variables import Array
from flute.defaults.models.linear_models import ROBUST_HALVINGS, ROBUST_NEWTON_STEPS


@dataclass(frozen=True, slots=True)
class OwnFit:
    """coefficients, errors: float64 [p]; errors are the deviations that the curvature at the end implies."""

    coefficients: Array
    errors: Array


def own_fit(x: Array, y: Array, prior: Array) -> OwnFit:
    """x: [n, p] bounded rows. y: [n] 0 or 1. prior: [p] deviations of the normal prior, above 0.

    Takes ROBUST_NEWTON_STEPS steps of ROBUST_HALVINGS lengths whatever the values are."""
    weight = 1 / prior**2
    b = np.zeros(x.shape[1])
    lengths = 2.0 ** -np.arange(ROBUST_HALVINGS)
    for _ in range(ROBUST_NEWTON_STEPS):
        step = np.linalg.solve(_curvature(x, b, weight), x.T @ (y - expit(logits(x, b))) - weight * b)
        tried = b + lengths[:, None] * step
        b = tried[int(np.argmin(_losses(x, y, tried, weight)))]
    return OwnFit(b, np.sqrt(np.diag(np.linalg.inv(_curvature(x, b, weight)))))


def _curvature(x: Array, b: Array, weight: Array) -> Array:
    fitted = expit(logits(x, b))
    return np.asarray((x * (fitted * (1 - fitted))[:, None]).T @ x + np.diag(weight))


def _losses(x: Array, y: Array, tried: Array, weight: Array) -> Array:
    """[k] of coefficients [k, p]."""
    eta = logits(x, tried.T)
    lost = np.logaddexp(0.0, np.where((y == 1)[:, None], -eta, eta)).sum(axis=0)
    return np.asarray(lost + tried**2 @ weight / 2)
