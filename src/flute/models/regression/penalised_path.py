"""From opened sums to penalised coefficients, strength by strength; `penalised` says what is minimised.

Everything is carried over to the study's scales first: with T from the scale the sums are on, b' = T b, the quadratic
has gradient T^-T g and Hessian T^-T H T^-1, so that the penalty is on the coefficients that are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import Opened, Setting
from flute.algorithms.design import Design, Scaling, bounds, known, study_scaling, transfer, unit_scaling
from flute.algorithms.newton import VANISHED, Sums, logits, newton_sums, pooled_scaling
from flute.algorithms.private_linear import PrivateFit, next_private, opened_moments
from flute.algorithms.private_population import ROWS, made_up_rows
from flute.algorithms.private_rows import coding, private_scaling
from flute.data.variables import Array
from flute.defaults import IRLS_TOLERANCE
from flute.models.regression import gaussian
from flute.models.regression.penalty import Penalty, minimum

_ROUNDING_STEP: Final = 1e-7
"""Steps this small that stop shrinking are fixed-point rounding: the fit stands."""


@dataclass(frozen=True, slots=True)
class Point:
    """One strength. coefficients: [p] over the study's scales. deviance: None in private mode. freedom: degrees of it
    that the fit has, the intercept among them."""

    strength: float
    coefficients: Array
    deviance: float | None
    freedom: float


@dataclass(frozen=True, slots=True)
class Path:
    """points: of the strengths that were reached, largest first. n_noise: deviation of the noise on n, 0 if exact.
    absent: columns that nobody has; their coefficient is 0."""

    points: tuple[Point, ...]
    scaling: Scaling
    n: float
    n_noise: float
    ending: str
    absent: tuple[str, ...] = ()
    informed: float | None = None


@dataclass(frozen=True, slots=True)
class _Carried:
    """A quadratic over the study's scales: minimise b' H b / 2 - c' b."""

    hessian: Array
    linear: Array

    def at(self, penalty: Penalty, start: Array) -> Array:
        return minimum(self.hessian, self.linear, penalty, start)

    def freedom(self, penalty: Penalty, b: Array) -> float:
        """Trace of H (H + ridge)^-1 over the columns that are not 0."""
        chosen = np.flatnonzero(b)
        within = self.hessian[np.ix_(chosen, chosen)]
        return float(np.trace(np.linalg.pinv(within + np.diag(penalty.ridge * penalty.weights[chosen])) @ within))


def _carried(design: Design, old: Scaling, new: Scaling, hessian: Array, gradient: Array, at: Array) -> _Carried:
    """gradient: of what is maximised, at coefficients `at` over `old`."""
    back = np.linalg.inv(transfer(design, old, new))
    moved = back.T @ hessian @ back
    return _Carried(moved, back.T @ gradient + moved @ (transfer(design, old, new) @ at))


def _penalty(spec: Any, design: Design, strength: float, n: float) -> Penalty:
    weights = np.ones(design.size)
    weights[0] = 0.0
    return Penalty(n * strength * (1 - spec.l1_ratio), n * strength * spec.l1_ratio, weights)


# --- exact, gaussian -------------------------------------------------------------------------------


def gaussian_path(spec: Any, design: Design, setting: Setting, opened: Opened) -> Path:
    """All strengths from one opening, in the outcome's own unit about the middle of its range."""
    sums = gaussian.read_sums(opened, design.size)
    low, high = bounds(known(spec.outcome, setting))
    half = (high - low) / 2
    pooled = pooled_scaling(design, sums.n, sums.squares)
    scaling = study_scaling(design, pooled.centres, pooled.spreads)
    absent = _absent(design, sums.squares)
    if sums.n < 1:
        return Path((), scaling, 0.0, 0.0, "no-data", absent)
    nothing = np.zeros(design.size)
    quadratic = _carried(design, unit_scaling(design), scaling, sums.squares, half * sums.cross, nothing)
    points, b = [], nothing
    for strength in spec.strengths:
        penalty = _penalty(spec, design, strength, sums.n)
        b = quadratic.at(penalty, b)
        left = half**2 * sums.outcome - 2 * b @ quadratic.linear + b @ quadratic.hessian @ b
        shown = b.copy()
        shown[0] += (low + high) / 2
        points.append(Point(strength, shown, max(float(left), 0.0), quadratic.freedom(penalty, b)))
    return Path(tuple(points), scaling, sums.n, 0.0, "converged", absent)


# --- exact, binomial -------------------------------------------------------------------------------


def next_binomial(spec: Any, design: Design, history: Sequence[Opened], most: int) -> Array | Path:
    """The coefficients to ask at next, over unit ranges, or the end. `history`: at least the step at 0."""
    steps = [newton_sums(opened, design.size) for opened in history]
    start = steps[0]
    pooled = pooled_scaling(design, start.n, 4 * start.hessian)
    walk = _Walk(spec, design, study_scaling(design, pooled.centres, pooled.spreads), start)
    if start.n < 1:
        return walk.end("no-data")
    if abs(start.gradient[0]) > start.n / 2 - 0.5:
        return walk.end("one-outcome")
    for step in steps[1:]:
        walk.take(step)
        if walk.done:
            return walk.end("converged")
    if walk.done:
        return walk.end("converged")
    return walk.end("not-converged") if len(steps) >= most else walk.asked


class _Walk:
    """Replays the opened steps: `here` is the best point so far, `asked` what follows from it."""

    def __init__(self, spec: Any, design: Design, scaling: Scaling, start: Sums) -> None:
        self._spec, self._design, self._scaling, self._start = spec, design, scaling, start
        self._over = transfer(design, unit_scaling(design), scaling)
        self._back = np.linalg.inv(self._over)
        self._here, self._before = start, np.inf
        self._points: list[Point] = []
        if start.n >= 1:
            self._aim()

    @property
    def asked(self) -> Array:
        return self._asked

    @property
    def done(self) -> bool:
        return len(self._points) == len(self._spec.strengths)

    @property
    def _penalty(self) -> Penalty:
        return _penalty(self._spec, self._design, self._spec.strengths[len(self._points)], self._start.n)

    def _lost(self, sums: Sums) -> float:
        return self._penalty.of(self._over @ sums.at) - sums.log_likelihood

    def take(self, step: Sums) -> None:
        """An opened step: accepted, or the way to it is halved."""
        best = self._lost(self._here)
        if self._lost(step) > best + 1e-8 * (1 + abs(best)):
            gap = (step.at - self._here.at) / 2
            if float(np.abs(self._over @ gap).max()) <= _ROUNDING_STEP:
                self._reached(self._over @ self._here.at)
            else:
                self._asked = self._here.at + gap
            return
        self._here = step
        self._aim()

    def _aim(self) -> None:
        """The minimum of the quadratic here; if it is here, the next strength's."""
        here = self._over @ self._here.at
        aim = self._quadratic().at(self._penalty, here)
        change = float(np.abs(aim - here).max())
        if change <= IRLS_TOLERANCE or (change <= _ROUNDING_STEP and change >= self._before / 2):
            self._reached(aim)
            return
        self._before = change
        self._asked = self._back @ aim

    def _reached(self, b: Array) -> None:
        freedom = self._quadratic().freedom(self._penalty, b)
        strength = self._spec.strengths[len(self._points)]
        self._points.append(Point(strength, b, -2 * self._here.log_likelihood, freedom))
        self._before = np.inf
        if not self.done:
            self._aim()

    def _quadratic(self) -> _Carried:
        sums = self._here
        return _carried(self._design, unit_scaling(self._design), self._scaling, sums.hessian, sums.gradient, sums.at)

    def end(self, ending: str) -> Path:
        absent = _absent(self._design, self._start.hessian)
        return Path(tuple(self._points), self._scaling, self._start.n, 0.0, ending, absent)


def _absent(design: Design, squares: Array) -> tuple[str, ...]:
    return tuple(name for name, own in zip(design.names, np.diag(squares), strict=True) if own < VANISHED)


# --- private ---------------------------------------------------------------------------------------


def next_private_path(spec: Any, design: Design, setting: Setting, history: Sequence[Opened]) -> Array | Path:
    """What to ask next, or the noised fit b^, held by the penalty with the curvature H that the opened sums imply:
    minimises (b - b^)' H (b - b^) / 2 and the penalty."""
    scale = private_scaling(design)
    scaling = study_scaling(design, scale.centres, scale.spreads)
    if spec.family == "gaussian":
        b, curvature, n, n_noise, informed, centre = _noised_linear(spec, design, setting, history[0])
    else:
        fit = next_private(design, history)
        if not isinstance(fit, PrivateFit):
            return fit
        b, curvature, n, n_noise, informed = _noised_logistic(design, fit, history)
        centre = 0.0
    people = max(n, 1.0)
    quadratic = _carried(design, scale, scaling, people * curvature, np.zeros(design.size), b)
    points, found = [], np.zeros(design.size)
    for strength in spec.strengths:
        penalty = _penalty(spec, design, strength, people)
        found = quadratic.at(penalty, found)
        shown = found.copy()
        shown[0] += centre
        points.append(Point(strength, shown, None, quadratic.freedom(penalty, found)))
    return Path(tuple(points), scaling, n, n_noise, "noised", informed=informed)


def _noised_logistic(
    design: Design, fit: PrivateFit, history: Sequence[Opened]
) -> tuple[Array, Array, float, float, float]:
    """Coefficients over x, mean curvature over x, n, its noise, and how much the moments tell."""
    back = np.linalg.inv(coding(design))
    rows = made_up_rows(design, opened_moments(design, history[0]).matrix)
    fitted = expit(logits(rows, back @ fit.coefficients))
    over_z = (rows * (fitted * (1 - fitted))[:, None]).T @ rows / ROWS
    return fit.coefficients, back.T @ over_z @ back, fit.n, fit.n_noise, fit.informed


def _noised_linear(
    spec: Any, design: Design, setting: Setting, opened: Opened
) -> tuple[Array, Array, float, float, float, float]:
    """As `_noised_logistic`, in the outcome's unit about its centre; then that centre."""
    fit = gaussian.private_fit(design, opened)
    centre, spread = gaussian.outcome_scale(known(spec.outcome, setting))
    back = np.linalg.inv(coding(design))
    over_z = gaussian.private_moments(design, opened)
    return spread * fit.coefficients, back.T @ over_z @ back, fit.n, fit.n_noise, fit.informed, centre
