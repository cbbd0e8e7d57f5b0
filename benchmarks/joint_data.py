"""Data that every engine of multiparty computation is measured on: the same rows for ours, SPU and MPyC.

Needs numpy alone and draws by `default_rng`, so that it makes the same rows in every engine's own environment;
`fingerprint` says whether it did. All of it is invented.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HUBS, ROWS, PREDICTORS = 3, 1000, 7
GROUPS = 4
GRID_STEP, GRID_SIZE = 0.1, 1000
"""The measured value lies on 0.1, 0.2 ... 100.0: as a laboratory prints it."""
EDGE = 7.5
"""Predictors are cut at so many spreads from the centre, half a spread inside the scale of `flute.joint`."""


@dataclass(frozen=True, slots=True)
class HubRows:
    """predictors: float64 [n, p], in spreads from a public centre. outcome: int64 [n] of 0 and 1. measured: int64
    [n], a place 0 .. GRID_SIZE - 1 on `grid()`. group: int64 [n], 0 .. GROUPS - 1; it goes with the outcome."""

    predictors: NDArray[np.float64]
    outcome: NDArray[np.int64]
    measured: NDArray[np.int64]
    group: NDArray[np.int64]

    def table(self) -> NDArray[np.int64]:
        """Rows by outcome and group, [2, GROUPS]."""
        return np.bincount(self.outcome * GROUPS + self.group, minlength=2 * GROUPS).reshape(2, GROUPS)


def joint_rows(
    *, hubs: int = HUBS, rows: int = ROWS, predictors: int = PREDICTORS, seed: int = 20_260
) -> tuple[HubRows, ...]:
    """One cohort, spread over hubs that differ: each has its own mean of every predictor."""
    chance = np.random.default_rng(seed)
    slopes = np.linspace(-0.8, 1.0, predictors)
    mixing = np.eye(predictors) + 0.3 * chance.standard_normal((predictors, predictors))
    mixing /= np.linalg.norm(mixing, axis=0)
    return tuple(_hub(chance, rows, mixing, slopes) for _ in range(hubs))


def _hub(chance: np.random.Generator, rows: int, mixing: NDArray[np.float64], slopes: NDArray[np.float64]) -> HubRows:
    shift = 0.25 * chance.standard_normal(len(slopes))
    x = np.clip(chance.standard_normal((rows, len(slopes))) @ mixing + shift, -EDGE, EDGE)
    reach = x @ slopes - 0.4
    outcome = (chance.random(rows) < 1 / (1 + np.exp(-reach))).astype(np.int64)
    lognormal = np.exp(2.0 + 0.35 * reach + 0.5 * chance.standard_normal(rows))
    measured = np.clip(np.rint(lognormal / GRID_STEP) - 1, 0, GRID_SIZE - 1).astype(np.int64)
    group = np.clip(np.rint(1.5 + 0.8 * chance.standard_normal(rows) + 0.4 * outcome), 0, GROUPS - 1)
    return HubRows(x, outcome, measured, group.astype(np.int64))


def grid() -> NDArray[np.float64]:
    return GRID_STEP * np.arange(1, GRID_SIZE + 1)


def with_intercept(predictors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([np.ones(len(predictors)), predictors])


def plain_fit(cohort: Sequence[HubRows], iterations: int = 6) -> NDArray[np.float64]:
    """Newton's coefficients from 0 over all rows in clear, intercept first, [1 + p]."""
    x = with_intercept(np.concatenate([hub.predictors for hub in cohort]))
    y = np.concatenate([hub.outcome for hub in cohort])
    coefficients = np.zeros(x.shape[1])
    for _ in range(iterations):
        fitted = 1 / (1 + np.exp(-x @ coefficients))
        weighted = x * (fitted * (1 - fitted))[:, None]
        coefficients += np.linalg.solve(weighted.T @ x, x.T @ (y - fitted))
    return coefficients


def plain_median(cohort: Sequence[HubRows]) -> int:
    """The place on the grid of the lower median of all measured values."""
    pooled = np.sort(np.concatenate([hub.measured for hub in cohort]))
    return int(pooled[(len(pooled) - 1) // 2])


def plain_chi_squared(cohort: Sequence[HubRows]) -> float:
    """Pearson's statistic of the pooled table, without correction."""
    table = sum((hub.table() for hub in cohort), np.zeros((2, GROUPS), np.int64)).astype(float)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def fingerprint(cohort: Sequence[HubRows]) -> str:
    """Tells two data sets apart, also across versions of numpy."""
    told = hashlib.sha256()
    for hub in cohort:
        for part in (np.rint(hub.predictors * 2**30).astype(np.int64), hub.outcome, hub.measured, hub.group):
            told.update(np.ascontiguousarray(part, "<i8").tobytes())
    return told.hexdigest()[:16]
