"""Generalised linear models with a logarithmic link, by Fisher scoring on sums: counts (poisson) and positive numbers
(gamma).

Columns are on their public range, [-1, 1] (`algorithms.newton`). Step 0 opens, at no parameters,
    [n, y / top, exposure / its top, saturated, upper triangle of X'X],
from which scales, the first coefficients (everybody at the common rate) and combinations of columns follow. Every
later step opens, at coefficients b,
    [deviance / (2 bound), Pearson / bound, cut off, gradient (p), upper triangle of the Fisher information],
with mu = exposure exp(x b); no number of a patient is above 1, whatever b was sent. To that end a fitted mean is cut
off, and a step counts whom that happened to: at the end of a sound fit nobody.

saturated: what the log-likelihood has besides half the deviance: y log y - y - log y! (poisson), log y (gamma).
Sources: McCullagh and Nelder 1989, sections 2.3 (deviances), 2.5 (Fisher scoring), chapter 8 (gamma).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.special import gammaln, xlogy

from flute.algorithms.contract import Opened, StepShape
from flute.algorithms.design import Design, Mask
from flute.algorithms.newton import (
    VANISHED,
    Fit,
    Sums,
    Walk,
    first_dependent,
    logits,
    pooled_scaling,
    symmetric,
)
from flute.data.variables import Array, Variable
from flute.defaults import FIXED_POINT_BITS, IRLS_MAX_STEPS
from flute.defaults.models.linear_models import LOWEST_LOG, MEAN_CAP, RATIO_CAP

_FIRST: Final = 4
"""Numbers of step 0 before X'X."""
_LATER: Final = 3
"""Numbers of a later step before the gradient."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Public bounds of one patient's numbers, from declared ranges alone: what they are divided by."""

    top: float
    exposure: float
    saturated: float
    deviance: float
    pearson: float
    slope: float
    lowest: float
    """Of the logarithm of a mean; `highest` likewise."""
    highest: float


def bounds_of(family: Literal["poisson", "gamma"], outcome: Variable, exposure: float) -> Bounds:
    """exposure: the largest."""
    low, high = outcome.low, outcome.high
    if family == "poisson":
        most = MEAN_CAP * high
        lowest, highest = float(np.log(high)) - LOWEST_LOG, float(np.log(most))
        saturated = max(1.0, float(np.log(2 * np.pi * max(high, 1.0))) / 2 + 0.1)
        deviance = high * (LOWEST_LOG + 1) + most
        return Bounds(high, exposure, saturated, deviance, RATIO_CAP * high + most, most, lowest, highest)
    lowest, highest = float(np.log(low / RATIO_CAP)), float(np.log(high * RATIO_CAP))
    deviance = max(RATIO_CAP, highest - float(np.log(low)))
    saturated = max(abs(float(np.log(low))), abs(float(np.log(high))), 1.0)
    return Bounds(high, exposure, saturated, deviance, RATIO_CAP**2, RATIO_CAP, lowest, highest)


def log_outline(columns: int) -> tuple[StepShape, ...]:
    """Step 0 and as many steps as may be taken."""
    triangle = columns * (columns + 1) // 2
    first, later = _FIRST + triangle, _LATER + columns + triangle
    weight = 1 / (1 + IRLS_MAX_STEPS)
    shapes = [StepShape("moments", first, float(np.sqrt(first)), weight, 1.0)]
    shapes += [
        StepShape(f"scoring-{k}", later, float(np.sqrt(later)), weight, 1.0) for k in range(1, IRLS_MAX_STEPS + 1)
    ]
    return tuple(shapes)


def first_rows(
    family: Literal["poisson", "gamma"], bounds: Bounds, x: Array, y: Array, exposure: Array, included: Mask
) -> Array:
    """Per-patient rows of step 0, [n, 4 + p (p + 1) / 2]. y, exposure: read only where included."""
    i, j = np.triu_indices(x.shape[1])
    y, exposure = np.where(included, y, bounds.top), np.where(included, exposure, bounds.exposure)
    told = xlogy(y, y) - y - gammaln(y + 1) if family == "poisson" else np.log(y)
    rows = np.empty((len(x), _FIRST + len(i)))
    rows[:, 0] = 1.0
    rows[:, 1] = y / bounds.top
    rows[:, 2] = exposure / bounds.exposure
    rows[:, 3] = told / bounds.saturated
    rows[:, _FIRST:] = x[:, i] * x[:, j]
    return np.asarray(np.clip(rows, -1.0, 1.0) * included[:, None])


def later_rows(
    family: Literal["poisson", "gamma"],
    bounds: Bounds,
    x: Array,
    y: Array,
    exposure: Array,
    included: Mask,
    coefficients: Array,
) -> Array:
    """Per-patient rows of a later step, [n, 3 + p + p (p + 1) / 2], at coefficients [p], any finite numbers."""
    p = x.shape[1]
    i, j = np.triu_indices(p)
    y, exposure = np.where(included, y, bounds.top), np.where(included, exposure, bounds.exposure)
    asked = logits(x, coefficients) + np.log(exposure)
    eta = np.clip(asked, bounds.lowest, bounds.highest)
    mean = np.exp(eta)
    floor = np.maximum(mean, y / RATIO_CAP)
    cut = (eta != asked) | (floor != mean)
    rows = np.empty((len(x), _LATER + p + len(i)))
    if family == "poisson":
        rows[:, 0] = (xlogy(y, y) - y * eta - y + mean) / bounds.deviance
        rows[:, 1] = (y - floor) ** 2 / floor / bounds.pearson
        slope, weight = (y - mean) / bounds.slope, mean / bounds.slope
    else:
        ratio = y / floor
        rows[:, 0] = (ratio - 1 - np.log(ratio)) / bounds.deviance
        rows[:, 1] = (ratio - 1) ** 2 / bounds.pearson
        slope, weight = (ratio - 1) / bounds.slope, np.full(len(x), 1 / bounds.slope)
    rows[:, 2] = cut
    rows[:, _LATER : _LATER + p] = slope[:, None] * x
    rows[:, _LATER + p :] = weight[:, None] * x[:, i] * x[:, j]
    return np.asarray(np.clip(rows, -1.0, 1.0) * included[:, None])


@dataclass(frozen=True, slots=True)
class LogFit:
    """`fit`: over unit ranges, its covariance at dispersion 1, its log_likelihood minus half the deviance. `cut`:
    patients whose mean was cut off at the last step. `saturated`: see the module's head."""

    fit: Fit
    deviance: float
    null_deviance: float
    pearson: float
    cut: int
    saturated: float


def next_log(design: Design, bounds: Bounds, history: Sequence[Opened]) -> Array | LogFit:
    """The coefficients to ask at next, or the end. `history`: at least step 0."""
    p, first = design.size, history[0].total
    n, squares = float(np.round(first[0])), symmetric(first[_FIRST:], p)
    active = np.diag(squares) >= VANISHED
    pooled = pooled_scaling(design, n, squares)
    steps = [opened.total for opened in history[1:]]
    path = [_sums(bounds, n, opened, p) for opened in history[1:]]
    start = Sums(np.zeros(p), n, 0.0, np.zeros(p), squares)
    slack = 4 * bounds.deviance * 2.0**-FIXED_POINT_BITS * float(np.sqrt(max(n, 1.0)))
    walk = Walk(design, path or [start], active, pooled, perfect=-np.inf, slack=slack)

    def ended(fit: Fit) -> LogFit:
        at = steps[walk.accepted[-1]] if steps else np.full(_LATER, np.nan)
        null = float(steps[0][0]) if steps else np.nan
        return LogFit(
            fit,
            2 * bounds.deviance * float(at[0]),
            2 * bounds.deviance * null,
            bounds.pearson * float(at[1]),
            0 if np.isnan(at[2]) else round(float(at[2])),
            bounds.saturated * float(first[3]),
        )

    if n < 1:
        return ended(walk.end("no-data"))
    if first[1] < VANISHED:
        return ended(walk.end("separation-suspected", "intercept"))  # nobody had a single event
    if (dependent := first_dependent(squares, active)) >= 0:
        return ended(walk.end("collinear", design.names[dependent]))
    if not path:
        common = bounds.top * float(first[1]) / (bounds.exposure * float(first[2]))
        return np.concatenate([[np.log(common)], np.zeros(p - 1)])
    reached = walk.next()
    return ended(reached) if isinstance(reached, Fit) else reached


def _sums(bounds: Bounds, n: float, opened: Opened, p: int) -> Sums:
    """Gradient and information stay divided by `bounds.slope`: no step changes, and digits are told from rounding."""
    total = opened.total
    return Sums(
        opened.parameters,
        n,
        -bounds.deviance * float(total[0]),
        total[_LATER : _LATER + p],
        symmetric(total[_LATER + p :], p),
    )
