"""Rows of three hubs and the pooled answers that shared computations have to give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]


def part(values: NDArray, place: int, hubs: int = 3) -> NDArray:
    """The hub's own rows of a pooled array."""
    return np.array_split(values, hubs)[place - 1]


def rows_of(total: int, hubs: int = 3) -> tuple[int, ...]:
    return tuple(len(piece) for piece in np.array_split(np.zeros(total), hubs))


def patients(total: int, predictors: int, *, seed: int, intercept: float = -1.0) -> tuple[Array, NDArray[np.int64]]:
    """Correlated predictors on the public scale, and outcomes of a logistic model."""
    draw = np.random.default_rng(seed)
    mixing = np.eye(predictors) + 0.3 * draw.standard_normal((predictors, predictors))
    x = np.clip(draw.standard_normal((total, predictors)) @ mixing, -7.9, 7.9)
    eta = intercept + x @ (0.7 * draw.standard_normal(predictors))
    return x, (draw.random(total) < expit(eta)).astype(np.int64)


def newton(x: Array, y: NDArray[np.int64], steps: int = 6) -> Array:
    """Plain Newton from 0, intercept first."""
    design = np.c_[np.ones(len(x)), x]
    beta = np.zeros(design.shape[1])
    for _ in range(steps):
        fitted = expit(design @ beta)
        hessian = design.T @ (design * (fitted * (1 - fitted))[:, None])
        beta = beta + np.linalg.solve(hessian, design.T @ (y - fitted))
    return beta


def log_rank(table: NDArray[np.int64]) -> tuple[float, float]:
    """O - E and V of a pooled life table [2 groups, event or not, time], term by term."""
    difference = variance = 0.0
    for t in range(table.shape[2]):
        risk, all_risk = table[0, :, t:].sum(), table[:, :, t:].sum()
        died = table[:, 0, t].sum()
        if all_risk == 0:
            continue
        share = risk / all_risk
        difference += table[0, 0, t] - died * share
        if all_risk > 1:
            variance += died * share * (1 - share) * (all_risk - died) / (all_risk - 1)
    return difference, variance
