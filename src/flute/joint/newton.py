"""The Newton steps of `regression` on shares.

What bounds each number that is truncated, whatever hubs put in: predictors by their bits, coefficients by a clamp at
each step, fitted probabilities and weights by the shape of `sigmoid`, the inverse of the Hessian by a series of
fixed length.
"""

from __future__ import annotations

from math import ceil, log2
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.errors import MisuseError
from flute.joint.arithmetic import clamp
from flute.joint.sigmoid import REACH_BITS, activation_bits, centred_logistic
from flute.mpc.field import Elements, Prime
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step
from flute.mpc.truncation import product

ROW_FRACTION: Final = 12
"""Predictors are rounded to 2^-12 of their spread: finer than any of them is measured."""
ROW_BITS: Final = 15
ROW_LIMIT: Final = 1 << (ROW_BITS - ROW_FRACTION)
"""8 spreads from the centre."""
COEFFICIENT_FRACTION: Final = 32
COEFFICIENT_LIMIT: Final = 4
"""Largest coefficient for one spread: an odds ratio of 55. A fit that goes further has not settled."""
SOLVE_FRACTION: Final = 28
"""Fraction bits of matrices that are inverted and of steps."""
INVERSE_SQUARINGS: Final = 16
"""The preconditioner takes 2^16 terms of its series: enough for directions with a variance of 0.05."""
STEP_SQUARINGS: Final = 6
"""A step takes 64 terms: 1e-6 of it is left where weights fell to a fifth of 1/4, 1 % where to a fifteenth."""
STEP_BITS: Final = 52
"""Magnitude of a coefficient with a step added, COEFFICIENT_FRACTION included."""
SETTLED_STEP_BITS: Final = 12
"""A last step is short below 2^-12: LEFT_OUT of it, 3e-5, may be missing."""
LEFT_OUT: Final = 1 / 8
"""Largest sum of what the two series leave out in all directions; more means predictors that nearly depend on each
other, or outcomes that are nearly certain: steps are then short far from the maximum too."""
FAR: Final = 17.0
"""Largest linear predictor of any row at which `sigmoid` still errs by less than 2e-5."""
MIN_CROSS_BITS: Final = 6
"""Fraction bits that products of predictors need at least: they only say how steep the way is, not where it ends."""
_FAR_FRACTION: Final = 20
_JUDGED_BITS: Final = 58


class Fit:
    """State of one fit. x: [n, q] with the intercept's column of 1, ROW_FRACTION bits; y: [n] of 0 and 1."""

    def __init__(self, party: Party, x: Shares, y: Shares) -> None:
        """Raises: MisuseError: more rows than there is room to sum."""
        self.coefficients = x[:1].reshape(-1, 1) * 0
        self._x, self._y = x, y
        self._rows, self._columns = x.shape
        self._row_bits = max((self._rows - 1).bit_length(), 1)
        self._upper = np.triu_indices(self._columns)
        self._bits = activation_bits(party)
        self._cross_bits = party.value_bits - 1 - 2 * self._bits - 4 - self._row_bits
        if self._cross_bits < MIN_CROSS_BITS:
            raise MisuseError(f"{self._rows} rows are too many for a hidden model of so many hubs.")

    def prepare(self, party: Party) -> Step[None]:
        """Products of predictors; the preconditioner (X'X / 4n)^-1, n rounded up to a power of two; the first step.

        The series of the inverse is in 1 - A / 2^s, with 2^s at least the trace of A for predictors at their limits.
        At coefficients 0 every probability is 1/2, and the preconditioner is the inverse Hessian.
        """
        i, j = self._upper
        crossed = yield from party.mul(self._x[:, i], self._x[:, j])
        half = (self._y * 2 - 1).reshape(1, -1)
        gradient = (yield from party.dot(half, self._x)).reshape(-1, 1)
        trace_bits = ceil(log2((1 + ROW_LIMIT**2 * (self._columns - 1)) / 4))
        point = 2 * ROW_FRACTION + 2 + self._row_bits + trace_bits
        scaled = yield from party.truncate(crossed.sum(0), point - SOLVE_FRACTION)
        self._crossed = yield from party.truncate(crossed, 2 * ROW_FRACTION - self._cross_bits)
        identity = self._identity(party)
        inverse, rest = yield from self._series(party, identity - self._square(scaled), identity, INVERSE_SQUARINGS)
        self._inverse_rest = _trace(rest)
        self._inverse = yield from party.truncate(inverse, trace_bits)
        step = yield from party.dot_truncate(self._inverse, gradient, ROW_FRACTION + 1 + self._row_bits)
        yield from self._move(party, step)

    def step(self, party: Party) -> Step[None]:
        """One more Newton step; keeps what `settled` reads."""
        unit = ROW_FRACTION + COEFFICIENT_FRACTION + REACH_BITS - self._bits
        self._reach = (yield from party.dot_truncate(self._x, self.coefficients, unit))[:, 0]
        centred = yield from centred_logistic(party, self._reach)
        weight = (1 << (2 * self._bits - 2)) - (yield from party.mul(centred, centred))
        residual = self._y * (1 << self._bits) - (1 << (self._bits - 1)) - centred
        sums = yield from self._sums(party, weight, residual)
        both = concatenate(
            [self._square(sums[0, : -self._columns]), sums[0, -self._columns :].reshape(-1, 1)], axis=1
        )
        conditioned = yield from party.dot_truncate(self._inverse, both, SOLVE_FRACTION)
        error = self._identity(party) - conditioned[:, : self._columns]
        step, rest = yield from self._series(party, error, conditioned[:, self._columns :], STEP_SQUARINGS)
        self._step_rest = _trace(rest)
        yield from self._move(party, step)

    def _sums(self, party: Party, weight: Shares, residual: Shares) -> Step[Shares]:
        """[1, upper triangle of the Hessian | gradient], over n rounded up, SOLVE_FRACTION bits."""
        level = self._bits + self._cross_bits - ROW_FRACTION
        left = concatenate([weight.reshape(1, -1), residual.reshape(1, -1) * (1 << level)])
        right = concatenate([self._crossed, self._x], axis=1)
        cut = 2 * self._bits + self._cross_bits + self._row_bits - SOLVE_FRACTION
        size = self._upper[0].size

        def two_products(prime: Prime, a: Elements, b: Elements) -> Elements:
            return np.concatenate([prime.matmul(a[:1], b[:, :size]), prime.matmul(a[1:], b[:, size:])], axis=1)

        return (yield from product(party, left, right, cut, None, two_products))

    def _move(self, party: Party, step: Shares) -> Step[None]:
        before = self.coefficients
        moved = (before + step * (1 << (COEFFICIENT_FRACTION - SOLVE_FRACTION)))[:, 0]
        inside, self._clamped = yield from clamp(party, moved, COEFFICIENT_LIMIT << COEFFICIENT_FRACTION, STEP_BITS)
        self.coefficients = inside.reshape(-1, 1)
        self._moved = self.coefficients - before

    def _series(self, party: Party, error: Shares, start: Shares, squarings: int) -> Step[tuple[Shares, Shares]]:
        """(1 + E)(1 + E^2)...(1 + E^2^(squarings - 1)) start, and E^2^squarings, which says what is left out."""
        total = start
        for _ in range(squarings):
            grown = yield from party.dot_truncate(error, concatenate([error, total], axis=1), SOLVE_FRACTION)
            error, total = grown[:, : self._columns], total + grown[:, self._columns :]
        return total, error

    def settled(self, party: Party) -> Step[Shares]:
        """[1] shared 1 where the last step was short and whole, no coefficient was clamped and no row lay beyond FAR.

        Rows are judged together: sum of (x'b / 32)^8 <= (FAR / 32)^8.
        """
        power = yield from party.mul_truncate(self._reach, self._reach, 2 * self._bits - 6 - _FAR_FRACTION)
        power = yield from party.mul_truncate(power, power, _FAR_FRACTION)
        far = yield from party.truncate((yield from party.mul(power, power)).sum(0).reshape(1), _FAR_FRACTION)
        moved = yield from party.dot_truncate(self._moved.T, self._moved, COEFFICIENT_FRACTION)
        judged = concatenate(
            [
                far - round((FAR / 32) ** 8 * 2**_FAR_FRACTION),
                moved[0] - (1 << (COEFFICIENT_FRACTION - 2 * SETTLED_STEP_BITS)),
                self._clamped.sum(0).reshape(1) - 1,
                self._inverse_rest + self._step_rest - round(LEFT_OUT * 2**SOLVE_FRACTION),
            ]
        )
        passed = yield from party.less_than_zero(judged, _JUDGED_BITS)
        pair = yield from party.mul(passed[:2], passed[2:])
        return (yield from party.mul(pair[:1], pair[1:]))

    def _square(self, upper: Shares) -> Shares:
        """The symmetric matrix whose upper triangle is given row by row."""
        place = np.zeros((self._columns, self._columns), dtype=np.int64)
        place[self._upper] = np.arange(self._upper[0].size)
        return upper[np.maximum(place, place.T)]

    def _identity(self, party: Party) -> Shares:
        unit: NDArray[Any] = np.eye(self._columns, dtype=np.int64) << SOLVE_FRACTION
        return party.constant(unit)


def _trace(square: Shares) -> Shares:
    """[1] the sum of the diagonal."""
    place = np.arange(square.shape[0])
    return square[place, place].sum(0).reshape(1)
