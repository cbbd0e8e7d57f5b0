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

from collections.abc import Sequence
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
VANISHED: Final = 1e-9
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


def symmetric(upper: Array, p: int) -> Array:
    """[p, p] from its upper triangle, row by row."""
    whole = np.zeros((p, p))
    whole[np.triu_indices(p)] = upper
    return np.asarray(whole + np.triu(whole, 1).T)


def newton_sums(opened: Opened, p: int) -> Sums:
    """A step of `newton_rows`, opened."""
    return Sums(
        opened.parameters,
        float(np.round(opened.total[0])),
        float(opened.total[1]) * LOG_LIKELIHOOD_CAP,
        opened.total[2 : 2 + p],
        symmetric(opened.total[2 + p :], p),
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
class Walk:
    """Replays the opened steps: which were accepted, and what follows from the last.

    `path`: the steps, at least one; a larger log_likelihood is better, only its differences count. `active` [p]:
    columns that somebody has. `perfect`: mean log-likelihood, negated, below which nothing is left to fit. `slack`:
    how far rounding alone may let the log-likelihood fall.
    """

    design: Design
    path: Sequence[Sums]
    active: Mask
    pooled: Scaling
    perfect: float = _PERFECT
    slack: float = 0.0
    accepted: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        for k in range(1, len(self.path)):
            best = self.path[self.accepted[-1]]
            least = best.log_likelihood - 1e-8 * (1 + abs(best.log_likelihood)) - self.slack
            if self.path[k].log_likelihood >= least:
                self.accepted.append(k)

    @property
    def here(self) -> Sums:
        return self.path[self.accepted[-1]]

    @property
    def fell(self) -> bool:
        """The likelihood fell at the last step asked for."""
        return self.accepted[-1] != len(self.path) - 1

    @property
    def judge(self) -> Array:
        """[p, p] to coefficients over pooled scales, by which steps are measured."""
        return transfer(self.design, unit_scaling(self.design), self.pooled)

    def end(
        self, ending: str, column: str = "", coefficients: Array | None = None, covariance: Array | None = None
    ) -> Fit:
        at = self.here.at if coefficients is None else coefficients
        absent = tuple(np.array(self.design.names)[~self.active].tolist())
        return Fit(
            ending, column, at, covariance, self.path[0].n, self.here.log_likelihood, len(self.path), absent,
            self.pooled,
        )  # fmt: skip

    def next(self) -> Array | Fit:
        """The coefficients to ask at next, or the end: 1 separation 2 halving 3 convergence 4 patience, each on what
        was opened so far."""
        here, judge, spent = self.here, self.judge, len(self.path) >= IRLS_MAX_STEPS
        size = np.abs(judge @ here.at)
        worst = self.design.names[int(np.argmax(np.where(self.active, size, 0)))]
        done = -here.log_likelihood < self.perfect * here.n
        if done or self._largest(size) > SEPARATION_LIMIT or first_dependent(here.hessian, self.active) >= 0:
            return self.end("separation-suspected", worst)
        if self.fell:
            gap = (self.path[-1].at - here.at) / 2
            if np.abs(judge @ gap).max() <= _ROUNDING_STEP:
                return self.end("converged", "", here.at, _covariance(here.hessian, self.active))
            return self.end("not-converged") if spent else here.at + gap
        step = _step(here, self.active)
        change, before = float(np.abs(judge @ step).max()), _last_change(self, judge)
        if change <= IRLS_TOLERANCE or (change <= _ROUNDING_STEP and change >= before / 2):
            return self.end("converged", "", here.at + step, _covariance(here.hessian, self.active))
        if spent:
            runaway = self._largest(size) > _RUNAWAY and change > 0.1
            return self.end("separation-suspected", worst) if runaway else self.end("not-converged")
        return here.at + step

    def _largest(self, size: Array) -> float:
        return float(size[self.active].max(initial=0.0))


def next_newton(design: Design, history: Sequence[Opened]) -> Array | Fit:
    """The coefficients to ask at next, or the end. `history`: at least the step at coefficients 0."""
    path = [newton_sums(opened, design.size) for opened in history]
    start = path[0]
    active = np.diag(start.hessian) >= VANISHED
    walk = Walk(design, path, active, pooled_scaling(design, start.n, 4 * start.hessian))
    if start.n < 1:
        return walk.end("no-data")
    if abs(start.gradient[0]) > start.n / 2 - 0.5:
        return walk.end("separation-suspected", "intercept")  # everybody has the same outcome
    if (dependent := first_dependent(start.hessian, active)) >= 0:
        return walk.end("collinear", design.names[dependent])
    return walk.next()


def _last_change(walk: Walk, judge: Array) -> float:
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
        if hessian[j, j] < VANISHED or pivot < _DEPENDENT * hessian[j, j]:
            return int(j)
        earlier = np.array(rows).reshape(-1, len(hessian))
        rows.append((hessian[j] - cross @ earlier) / np.sqrt(pivot))
    return -1


def pooled_scaling(design: Design, n: float, squares: Array) -> Scaling:
    """Pooled mean and deviation (n - 1) of every number over the patients who have it, from X'X over unit ranges.

    A number without any spread keeps half its public range as its spread; it ends as "collinear".
    """
    unit = unit_scaling(design)
    centres, spreads = unit.centres.copy(), unit.spreads.copy()
    for i, used in enumerate(design.numbers):
        at, flag = design.position(used.variable.name, "number"), design.position(used.variable.name, "missing")
        there = n - (squares[0, flag] if flag >= 0 else 0.0)
        if there < 2:
            continue
        mean = squares[0, at] / there
        variance = (squares[at, at] - there * mean**2) / (there - 1)
        centres[i] += unit.spreads[i] * mean
        spreads[i] *= float(np.sqrt(variance)) if variance > _DEPENDENT else 1.0
    return Scaling(centres, spreads, centres)
