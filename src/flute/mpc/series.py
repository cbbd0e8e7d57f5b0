"""Functions on an interval as Chebyshev series of shared numbers.

T_{a+b} = 2·T_a·T_b - T_{|a-b|} keeps every number in [-1, 1], so that rounding errors stay small. A series to degree
d is split into blocks, sum over i of T_i(T_m(u))·B_i(u) with B_i below degree m: about 2·sqrt(2d) products in at most
ceil(log2 d) + 3 layers, each of one product round after two of verification.

Source: Clenshaw 1955 for the series; Paterson, Stockmeyer 1973 for the split, here in Chebyshev's basis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil, log2, sqrt

import numpy as np
from numpy.polynomial import chebyshev

from flute.mpc.fixed import Fixed, Reals, encode, stack
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step

_FINE = 160
"""Degree of the interpolation that is then cut off."""


@dataclass(frozen=True, slots=True)
class Series:
    """A smooth function on [low, high], to within 2^-bits."""

    function: Callable[[Reals], Reals]
    low: float
    high: float
    bits: int

    @property
    def middle(self) -> float:
        return (self.high + self.low) / 2

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


@cache
def coefficients(series: Series) -> Reals:
    """Chebyshev coefficients, cut off where the rest adds up to less than 2^-bits."""
    nodes = chebyshev.chebpts1(_FINE + 1)
    found = chebyshev.chebfit(nodes, series.function(series.middle + series.half * nodes), _FINE)
    rest = np.cumsum(np.abs(found[::-1]))[::-1]
    return np.asarray(found[rest >= 2.0**-series.bits], np.float64)


def blocks(series: Reals) -> Reals:
    """[block, degree within]: sum c_k T_k(u) = sum_i T_i(T_m(u)) · sum_j block[i, j] T_j(u)."""
    width = 2 ** max(1, ceil(log2(sqrt(2 * len(series)))))
    count = -(-len(series) // width)
    flat = np.zeros(count * width)
    flat[: len(series)] = series
    for start in range((count - 1) * width, 0, -width):
        for j in range(1, width):
            flat[start - j] -= flat[start + j]
            flat[start + j] *= 2
    return flat.reshape(count, width)


def evaluate(x: Fixed, series: Series) -> Step[Fixed]:
    """The series at x, low <= x <= high, in x's format; x of at most (value_bits - 4)/2 fraction bits.

    Error: 2^-bits and about 2·d units of rounding, d the degree; usually below sqrt(d)."""
    unit = (x - series.middle) * round(1 / series.half) if (1 / series.half).is_integer() else None
    if unit is None:
        unit = yield from (x - series.middle).scale(1 / series.half)
    weights = blocks(coefficients(series))
    count, width = weights.shape
    small = yield from _polynomials(unit, width)
    fine = [_weighted(small, row) for row in weights]
    if count == 1:
        return x.of((yield from x.party.truncate(fine[0], x.fraction)))
    base, *inner = yield from _square_and_round(small[width // 2], fine)
    large = yield from _polynomials(base * 2 - 1.0, count)
    left = stack([part.broadcast_to(*x.shape) for part in large[1:]], axis=-1).reshape(*x.shape, 1, count - 1)
    right = stack(inner[1:], axis=-1).reshape(*x.shape, count - 1, 1)
    rest = yield from left.dot(right)
    return inner[0] + rest.reshape(*x.shape)


def _polynomials(u: Fixed, count: int) -> Step[list[Fixed]]:
    """T_0(u) to T_{count-1}(u), twice as many in each layer."""
    one = u.of(u.shares * 0 + 2**u.fraction)
    found = [one, u]
    while len(found) < count:
        top = len(found) - 1
        lower = range(1, min(top, count - 1 - top) + 1)
        left = stack([found[top] for _ in lower])
        products = yield from left.mul(stack([found[i] for i in lower]))
        found += [products[i - 1] * 2 - found[top - i] for i in lower]
    return found[:count]


def _weighted(polynomials: list[Fixed], weights: Reals) -> Shares:
    """The weighted sum, with twice the fraction bits."""
    whole = encode(weights, polynomials[0].fraction)
    total = polynomials[0].shares * int(whole[0])
    for polynomial, weight in zip(polynomials[1:], whole[1:], strict=True):
        total = total + polynomial.shares * int(weight)
    return total


def _square_and_round(base: Fixed, fine: list[Shares]) -> Step[list[Fixed]]:
    """base² and the sums in base's format, in one layer: a sum is rounded as its product with 1."""
    one = base.party.constant(np.ones(base.shape, np.int64))
    left = concatenate([part.reshape(1, *base.shape) for part in (base.shares, *fine)])
    right = concatenate([part.reshape(1, *base.shape) for part in (base.shares, *[one] * len(fine))])
    products = yield from base.party.mul_truncate(left, right, base.fraction)
    return [base.of(products[i]) for i in range(1 + len(fine))]
