"""Multiple imputation where totals are opened: draws of coefficients, and the fits of all imputations put together.

A regression of an incomplete variable on all others is not taken at its estimate but at a draw from what its sums
leave open: of a number first the residual variance, RSS / chi-squared, then coefficients about the estimate; of a
0/1 variable or a category coefficients from the normal law about it. Chance comes from the public seed, so that a
coordinator that was killed says the same again.
Sources: Rubin 1987, "Multiple Imputation", chapters 3 and 5; Barnard and Rubin 1999 for degrees of freedom; van
Buuren and Groothuis-Oudshoorn 2011 for chained equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_256
from typing import Final

import numpy as np
from scipy.special import ndtri
from scipy.stats import chi2, t

from flute.algorithms.contract import Opened
from flute.algorithms.design import Mask
from flute.algorithms.newton import VANISHED, newton_sums
from flute.data.variables import Array
from flute.defaults.models.around_models import IMPUTE_RIDGE
from flute.models.imputation.rows import uniforms
from flute.models.regression.gaussian import read_sums

_DRAW: Final = b"flute/imputed-regression/draw/v1"
_LONGEST_STEP: Final = 20.0
"""Log odds over a half range in one Newton step: a variable that another decides runs away no faster."""
_SMALLEST: Final = 1e-12
"""Squared half ranges: a residual variance below it is rounding."""


def chance(seed: int, *where: int, size: int) -> Array:
    """[size] uniform numbers of this place."""
    key = _DRAW + b"".join(part.to_bytes(8, "little") for part in (seed, *where))
    return uniforms(shake_256(key).digest(8 * size))


def number_draw(opened: Opened, columns: int, u: Array) -> Array:
    """[columns + 1] coefficients, then the deviation of residuals. u: [columns + 1]."""
    sums = read_sums(opened, columns)
    active = np.diag(sums.squares) >= VANISHED
    covariance, b = _inverse(sums.squares, sums.n, active), np.zeros(columns)
    b[active] = (covariance @ sums.cross)[active]
    degrees = max(sums.n - float(active.sum()), 1.0)
    residual = max(float(sums.outcome - 2 * b @ sums.cross + b @ sums.squares @ b), _SMALLEST)
    deviation = float(np.sqrt(residual / chi2.ppf(u[0], degrees)))
    return np.append(b + deviation * _rooted(covariance) @ ndtri(u[1:]), deviation)


def one_step(opened: Opened, columns: int) -> tuple[Array, Array]:
    """Coefficients [columns] after one Newton step from where the sums were asked, and their covariance."""
    sums = newton_sums(opened, columns)
    covariance = _inverse(sums.hessian, max(sums.n, 1.0) / 4, np.diag(sums.hessian) >= VANISHED)
    step = covariance @ sums.gradient
    step *= min(1.0, _LONGEST_STEP / max(float(np.abs(step).max(initial=0.0)), _LONGEST_STEP))
    return sums.at + step, covariance


def newton_draw(b: Array, covariance: Array, u: Array) -> Array:
    """[columns + 1] coefficients, then 0. u: [columns]."""
    return np.append(b + _rooted(covariance) @ ndtri(u), 0.0)


def _inverse(squares: Array, n: float, active: Mask) -> Array:
    """Of the columns that somebody has; 0 elsewhere."""
    found = np.zeros_like(squares)
    within = np.ix_(active, active)
    found[within] = np.linalg.inv(squares[within] + IMPUTE_RIDGE * max(n, 1.0) * np.eye(int(active.sum())))
    return found


def _rooted(covariance: Array) -> Array:
    """R with R R' = covariance."""
    scales, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(scales, 0.0)))


@dataclass(frozen=True, slots=True)
class Pooled:
    """Rubin's rules, [p] each. within, between: variances of one imputation's estimate, and of estimates among them.
    degrees: of Student's t. missing: the part of what is to be known that was missing."""

    estimate: Array
    error: Array
    within: Array
    between: Array
    degrees: Array
    missing: Array

    def half(self) -> Array:
        """[p] half of a 95 % interval."""
        return np.asarray(t.ppf(0.975, self.degrees) * self.error)

    def p(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2 * t.sf(np.abs(self.estimate / self.error), self.degrees))


def pooled(estimates: Sequence[Array], variances: Sequence[Array], complete: float) -> Pooled:
    """complete: degrees of freedom that the fit would have had without missing values."""
    count, table = len(estimates), np.array(estimates)
    within, between = np.mean(variances, axis=0), table.var(axis=0, ddof=1)
    extra = (1 + 1 / count) * between
    total = within + extra
    ratio = np.divide(extra, within, out=np.zeros_like(extra), where=within > 0)
    part = np.divide(extra, total, out=np.zeros_like(extra), where=total > 0)
    among = (count - 1) / np.maximum(part, 1e-9) ** 2
    left = max(complete, 1.0)
    observed = (left + 1) / (left + 3) * left * (1 - part)
    degrees = 1 / (1 / among + 1 / np.maximum(observed, 1e-9))
    missing = (ratio + 2 / (degrees + 3)) / (ratio + 1)
    return Pooled(table.mean(axis=0), np.sqrt(total), within, between, degrees, np.where(between > 0, missing, 0.0))
