"""The elastic net on a quadratic: minimise b' H b / 2 - c' b + sum of w_j (ridge b_j^2 / 2 + lasso |b_j|).

Coordinate descent finds which coefficients are not 0; given those and their signs the solution is that of linear
equations, and is taken once it meets the conditions of a minimum. No record is in it.
Sources: Friedman, Hastie and Tibshirani 2010 (descent); Karush, Kuhn and Tucker's conditions, Boyd and Vandenberghe
2004, section 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from flute.algorithms.design import Mask
from flute.data.variables import Array
from flute.defaults.models.linear_models import PENALTY_SWEEPS

_POLISH_EVERY: Final = 10
_LOOSE: Final = 1e-9
"""By which a condition of a minimum may be missed, of the largest gradient at 0."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """ridge, lasso: in the quadratic's own unit. weights: [p] 0 or 1, 0 where nothing is penalised (an intercept)."""

    ridge: float
    lasso: float
    weights: Array

    def of(self, coefficients: Array) -> float:
        b = np.abs(coefficients)
        return float(self.weights @ (self.ridge * b**2 / 2 + self.lasso * b))


def minimum(hessian: Array, linear: Array, penalty: Penalty, start: Array) -> Array:
    """[p] the minimiser; 0 for a column whose row of H is 0. hessian: [p, p], not negative; linear: [p] c."""
    curved = hessian + np.diag(penalty.ridge * penalty.weights)
    there = np.diag(curved) > 0
    b = np.where(there, start, 0.0)
    if penalty.lasso == 0:
        return _solved(curved, linear, there)
    loose = _LOOSE * max(float(np.abs(linear).max(initial=0.0)), penalty.lasso)
    for sweep in range(PENALTY_SWEEPS):
        before = b.copy()
        for j in np.flatnonzero(there):
            left = linear[j] - curved[j] @ b + curved[j, j] * b[j]
            bound = penalty.lasso * penalty.weights[j]
            b[j] = np.sign(left) * max(abs(left) - bound, 0.0) / curved[j, j]
        if sweep % _POLISH_EVERY == 0 and (found := _polished(curved, linear, penalty, b, loose)) is not None:
            return found
        if np.array_equal(before, b):
            break
    return b


def _solved(curved: Array, linear: Array, there: Mask) -> Array:
    b = np.zeros(len(linear))
    b[there] = np.linalg.lstsq(curved[np.ix_(there, there)], linear[there], rcond=None)[0]
    return b


def _polished(curved: Array, linear: Array, penalty: Penalty, b: Array, loose: float) -> Array | None:
    """The exact minimiser with the signs of b, if there is one."""
    bound = penalty.lasso * penalty.weights
    signs = np.sign(b)
    chosen = (b != 0) | ((penalty.weights == 0) & (np.diag(curved) > 0))
    found = _solved(curved, linear - bound * signs, chosen)
    slope = linear - curved @ found
    kept = np.where(bound > 0, np.sign(found) == signs, True)
    met = np.where(chosen, np.abs(slope - bound * signs) <= loose, np.abs(slope) <= bound + loose)
    return found if bool(np.all(kept & met)) else None
