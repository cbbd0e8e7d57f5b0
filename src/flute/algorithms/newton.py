"""Exact logistic regression by Newton's method on sums (iteratively reweighted least squares).

Rows are written over columns on their public range, [-1, 1], so every coordinate of one patient is at most 1
and fixed point loses nothing; coefficients are carried over to the study's scale afterwards, which changes
no fit (`design.transfer`). The first step stands at coefficients 0, where the Hessian is X'X / 4: the pooled
means and deviations that scale "pooled" asks for are read from it, and no extra numbers are opened for them.

Step vector: [n, log-likelihood / cap, gradient (p), upper triangle of the Hessian row by row].

Endings: "converged"; "collinear" (a column is a combination of earlier ones); "separation-suspected" (a
coefficient runs away, or fitted probabilities are 0 and 1); "not-converged"; "no-data". All of them come
after at most IRLS_MAX_STEPS openings.

Source: Fisher scoring for generalised linear models, McCullagh and Nelder 1989, section 2.5; separation:
Albert and Anderson 1984.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import Opened
from flute.algorithms.design import Design, Mask, Scaling, transfer, unit_scaling
from flute.data.variables import Array
from flute.defaults import IRLS_MAX_STEPS, IRLS_TOLERANCE, LOG_LIKELIHOOD_CAP, SEPARATION_LIMIT

LARGEST_LOGIT: Final = 700.0
"""exp of it is still a number."""
_DEPENDENT: Final = 1e-10
"""Part of a column's sum of squares that earlier columns leave; fixed point shows 1e-13 of nothing."""
_VANISHED: Final = 1e-9
"""A Hessian diagonal, in patients, below which fixed point sees only rounding."""
_PERFECT: Final = 1e-6
"""Mean log-likelihood (nats, negated) at which every fitted probability is as good as 0 or 1."""
_ROUNDING_STEP: Final = 1e-7
"""Newton steps this small that stop shrinking are fixed-point rounding: the fit stands."""
_RUNAWAY: Final = 10.0
"""With no steps left, a standardised coefficient beyond this that still grows means separation."""


def vector_size(columns: int) -> int:
    return 2 + columns + columns * (columns + 1) // 2


def logits(x: Array, coefficients: Array) -> Array:
    """[n] linear predictor, finite whatever finite coefficients were sent."""
    with np.errstate(over="ignore", invalid="ignore"):
        eta = x @ coefficients
    return np.asarray(np.clip(np.nan_to_num(eta, nan=0.0), -LARGEST_LOGIT, LARGEST_LOGIT))


def newton_rows(x: Array, outcome: Array, included: Mask, coefficients: Array) -> Array:
    """Per-patient rows [n, vector_size(p)] at `coefficients` [p]; zero where not included.

    x: [n, p] over unit-range columns. outcome: [n], read only where included. |coordinate| <= 1.
    """
    eta = logits(x, coefficients)
    y = outcome == 1
    fitted = expit(eta)
    likelihood = np.maximum(-np.logaddexp(0.0, np.where(y, -eta, eta)), -LOG_LIKELIHOOD_CAP)
    i, j = np.triu_indices(x.shape[1])
    weight = fitted * (1 - fitted)
    rows = np.empty((len(x), vector_size(x.shape[1])))
    rows[:, 0] = 1.0
    rows[:, 1] = likelihood / LOG_LIKELIHOOD_CAP
    rows[:, 2 : 2 + x.shape[1]] = (y - fitted)[:, None] * x
    rows[:, 2 + x.shape[1] :] = weight[:, None] * x[:, i] * x[:, j]
    return rows * included[:, None]


@dataclass(frozen=True, slots=True)
class Sums:
    """One opened step, taken apart. `at`: the coefficients it was asked at."""

    at: Array
    n: float
    log_likelihood: float
    gradient: Array
    hessian: Array


def _sums(opened: Opened, p: int) -> Sums:
    hessian = np.zeros((p, p))
    hessian[np.triu_indices(p)] = opened.total[2 + p :]
    hessian += np.triu(hessian, 1).T
    return Sums(
        np.array(opened.parameters, dtype=np.float64),
        float(np.round(opened.total[0])),
        float(opened.total[1]) * LOG_LIKELIHOOD_CAP,
        opened.total[2 : 2 + p],
        hessian,
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """Where the iterations ended, over unit-range columns. `covariance` is None unless converged.

    `column`: the column that the ending is about, empty where none is. `absent`: columns that are 0 for
    every patient; they are left out and their coefficient is 0.
    """

    ending: str
    column: str
    coefficients: Array
    covariance: Array | None
    n: float
    log_likelihood: float
    iterations: int
    absent: tuple[str, ...]
    pooled: Scaling


@dataclass(slots=True)
class _Walk:
    """Replays the opened steps: which were accepted, and what follows from the last."""

    design: Design
    path: list[Sums]
    accepted: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        for k in range(1, len(self.path)):
            best = self.path[self.accepted[-1]]
            if self.path[k].log_likelihood >= best.log_likelihood - 1e-8 * (1 + abs(best.log_likelihood)):
                self.accepted.append(k)

    @property
    def here(self) -> Sums:
        return self.path[self.accepted[-1]]

    @property
    def fell(self) -> bool:
        """The likelihood fell at the last step asked for."""
        return self.accepted[-1] != len(self.path) - 1


def next_newton(design: Design, history: Sequence[Opened]) -> Array | Fit:
    """The coefficients to ask at next, or the end. `history`: at least the step at coefficients 0."""
    walk = _Walk(design, [_sums(opened, design.size) for opened in history])
    start = walk.path[0]
    active = np.diag(start.hessian) >= _VANISHED
    pooled = pooled_scaling(design, start)
    judge = transfer(design, unit_scaling(design), pooled)

    def end(ending: str, column: str = "", coefficients: Array | None = None, covariance: Array | None = None) -> Fit:
        at = walk.here.at if coefficients is None else coefficients
        absent = tuple(np.array(design.names)[~active].tolist())
        return Fit(ending, column, at, covariance, start.n, walk.here.log_likelihood, len(history), absent, pooled)

    if start.n < 1:
        return end("no-data")
    if abs(start.gradient[0]) > start.n / 2 - 0.5:
        return end("separation-suspected", "intercept")  # everybody has the same outcome
    if (dependent := first_dependent(start.hessian, active)) >= 0:
        return end("collinear", design.names[dependent])
    return _judged(walk, active, judge, end)


def _judged(walk: _Walk, active: Mask, judge: Array, end: Callable[..., Fit]) -> Array | Fit:
    """Steps 1 separation 2 halving 3 convergence 4 patience, each on what was opened so far."""
    here, spent = walk.here, len(walk.path) >= IRLS_MAX_STEPS
    size = np.abs(judge @ here.at)
    worst = walk.design.names[int(np.argmax(np.where(active, size, 0)))]
    perfect = -here.log_likelihood < _PERFECT * here.n
    if perfect or size[active].max() > SEPARATION_LIMIT or first_dependent(here.hessian, active) >= 0:
        return end("separation-suspected", worst)
    if walk.fell:
        gap = (walk.path[-1].at - here.at) / 2
        if np.abs(judge @ gap).max() <= _ROUNDING_STEP:
            return end("converged", "", here.at, _covariance(here.hessian, active))
        return end("not-converged") if spent else here.at + gap
    step = _step(here, active)
    change, before = float(np.abs(judge @ step).max()), _last_change(walk, judge)
    if change <= IRLS_TOLERANCE or (change <= _ROUNDING_STEP and change >= before / 2):
        return end("converged", "", here.at + step, _covariance(here.hessian, active))
    if spent:
        runaway = size[active].max() > _RUNAWAY and change > 0.1
        return end("separation-suspected", worst) if runaway else end("not-converged")
    return here.at + step


def _last_change(walk: _Walk, judge: Array) -> float:
    if len(walk.accepted) < 2:
        return float("inf")
    earlier = walk.path[walk.accepted[-2]].at
    return float(np.abs(judge @ (walk.here.at - earlier)).max())


def _step(sums: Sums, active: Mask) -> Array:
    step = np.zeros(len(active))
    step[active] = np.linalg.solve(sums.hessian[np.ix_(active, active)], sums.gradient[active])
    return step


def _covariance(hessian: Array, active: Mask) -> Array:
    covariance = np.zeros_like(hessian)
    covariance[np.ix_(active, active)] = np.linalg.inv(hessian[np.ix_(active, active)])
    return covariance


def first_dependent(hessian: Array, active: Mask) -> int:
    """The first active column that earlier ones explain (to _DEPENDENT), or has vanished; -1 if none.

    Cholesky factorisation column by column: what is left of a column's own square is its pivot.
    """
    rows: list[Array] = []
    for j in np.flatnonzero(active):
        cross = np.array([row[j] for row in rows])
        pivot = hessian[j, j] - float(cross @ cross)
        if hessian[j, j] < _VANISHED or pivot < _DEPENDENT * hessian[j, j]:
            return int(j)
        earlier = np.array(rows).reshape(-1, len(hessian))
        rows.append((hessian[j] - cross @ earlier) / np.sqrt(pivot))
    return -1


def pooled_scaling(design: Design, start: Sums) -> Scaling:
    """Pooled mean and deviation (n - 1) of every number over the patients who have it, from X'X / 4.

    A number without any spread keeps half its public range as its spread; it ends as "collinear".
    """
    unit = unit_scaling(design)
    centres, spreads = unit.centres.copy(), unit.spreads.copy()
    for i, used in enumerate(design.numbers):
        at, flag = design.position(used.variable.name, "number"), design.position(used.variable.name, "missing")
        there = start.n - (4 * start.hessian[0, flag] if flag >= 0 else 0.0)
        if there < 2:
            continue
        mean = 4 * start.hessian[0, at] / there
        variance = (4 * start.hessian[at, at] - there * mean**2) / (there - 1)
        centres[i] += unit.spreads[i] * mean
        spreads[i] *= float(np.sqrt(variance)) if variance > _DEPENDENT else 1.0
    return Scaling(centres, spreads, centres)
