"""The logistic function on shares, right where models live and bounded everywhere.

A polynomial that is right on an interval runs away outside it, and a masked opening hides only what stays in its
range: an odd patient, or a fit that diverges, would then show part of the model. So the polynomial is one in
s = sin(27 arcsin(x / REACH)), which the cubic u (3 - 4 u^2) makes in three steps from x / REACH and which never
leaves [-1, 1] while |x| <= REACH. For |x| <= RIGHT_UP_TO the arc is on its first branch and the value is the
logistic function; beyond, the arc folds back and the value is that of some other, smaller x: wrong, but in (0, 1).

Three numbers of `activation_bits` are multiplied before they are truncated: a truncation has to wait until the
products in it are verified (two rounds), a product has not.
Sources: Chebyshev series, Trefethen 2013, "Approximation theory and approximation practice", chapter 3; extending
a domain by folding, after Cheon, Kim and Park 2022, "Efficient homomorphic evaluation on large intervals".
"""

from __future__ import annotations

from math import pi
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.mpc.field import Elements, Prime
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate, stack
from flute.mpc.steps import Step
from flute.mpc.truncation import product

REACH_BITS: Final = 8
REACH: Final = 1 << REACH_BITS
"""Largest linear predictor that stays bounded."""
FOLDS: Final = 3
RIGHT_UP_TO: Final = 14.8
"""Largest |x| at which the value is the logistic function of x; that is 4e-7 from 0 or 1."""
DEGREE: Final = 31
SERIES_ERROR: Final = 1.6e-5
"""What the series of this degree leaves out at most; it swings about 0, so that sums over rows feel little of it."""
_TERMS: Final = (1, 3, 5, 7)
_BLOCK: Final = 8


def activation_bits(party: Party) -> int:
    """Fraction bits of activations, a third of the room for truncation: 25 for three hubs."""
    return (party.value_bits - 1) // 3


def _series() -> NDArray[np.float64]:
    """Chebyshev coefficients 0..DEGREE in s of logistic(x) - 1/2 with x = REACH sin(arcsin(s) / 27)."""
    nodes = 4_096
    angle = pi * (np.arange(nodes) + 0.5) / nodes
    x = REACH * np.sin((pi / 2 - angle) / 3**FOLDS)
    value = 1 / (1 + np.exp(-x)) - 0.5
    return np.array([2 / nodes * np.sum(value * np.cos(k * angle)) for k in range(DEGREE + 1)])


def _blocks() -> NDArray[np.float64]:
    """[4, 4] w with sum of w[k, j] T_8k T_j equal to the series: from T_8k T_j = (T_8k+j + T_8k-j) / 2."""
    left = _series()
    blocks = np.zeros((DEGREE // _BLOCK + 1, len(_TERMS)))
    for k in range(DEGREE // _BLOCK, 0, -1):
        for j, term in enumerate(_TERMS):
            blocks[k, j] = 2 * left[_BLOCK * k + term]
            left[_BLOCK * k - term] -= left[_BLOCK * k + term]
    blocks[0] = left[list(_TERMS)]
    return blocks


BLOCKS: Final = _blocks()


def centred_logistic(party: Party, x: Shares) -> Step[Shares]:
    """1 / (1 + e^-x) - 1/2 with `activation_bits`; x: [n] linear predictors over REACH, same fraction bits.

    Guarantees: for |x| <= REACH the value is in [-1/2, 1/2] give or take 2e-5. For |x| <= RIGHT_UP_TO it is off by
    at most SERIES_ERROR and, without bias, by rounding: REACH / 4 for each unit in the last place that x is off
    (three hubs: 4e-6 in the root mean square, 2e-5 at worst).
    Costs: 27 rounds after verified inputs; 15 products and 12 truncations for each x.
    """
    bits = activation_bits(party)
    one, size = 1 << bits, x.shape[0]
    for _ in range(FOLDS):
        square = yield from party.mul(x, x)
        x = yield from party.mul_truncate(x, 3 * one * one - square * 4, 2 * bits)
    odd, t8 = yield from _small(party, x, bits)
    square = yield from party.mul(t8, t8)
    grown = yield from party.mul_truncate(
        concatenate([t8, t8]), concatenate([t8 * one, square * 4 - 3 * one * one]), 2 * bits
    )
    even = stack([t8, grown[:size] * 2 - one, grown[size:]])
    parts = stack([_weighted(odd, row, bits) for row in BLOCKS])
    rest = yield from product(party, even, parts[1:], 2 * bits, None, _sum_of_products)
    first = yield from party.truncate(parts[0], bits)
    return first + rest


def _small(party: Party, s: Shares, bits: int) -> Step[tuple[list[Shares], Shares]]:
    """[T_1, T_3, T_5, T_7] and T_8 at s, from T_a+b = 2 T_a T_b - T_a-b."""
    one, size = 1 << bits, s.shape[0]
    square = yield from party.mul(s, s)
    grown = yield from party.mul_truncate(
        concatenate([s, s]), concatenate([s * one, square * 4 - 3 * one * one]), 2 * bits
    )
    t2, t3 = grown[:size] * 2 - one, grown[size:]
    pair = yield from party.mul(concatenate([t2, t2]), concatenate([t2, t3]))
    t4, t5 = pair[:size] * 2 - one * one, pair[size:] * 2 - s * one  # with twice the fraction bits
    grown = yield from party.mul_truncate(concatenate([t3, t3, t3]), concatenate([t4, t5, t2 * one]), 2 * bits - 1)
    t7, t8, t5 = grown[:size] - s, grown[size : 2 * size] - t2, grown[2 * size :] - s
    return [s, t3, t5, t7], t8


def _weighted(parts: list[Shares], weights: NDArray[np.float64], bits: int) -> Shares:
    """The sum of weight T_j, with twice the fraction bits."""
    whole = [round(float(weight) * 2**bits) for weight in weights]
    total: Shares = parts[0] * whole[0]
    for part, weight in zip(parts[1:], whole[1:], strict=True):
        total = total + part * weight
    return total


def _sum_of_products(prime: Prime, a: Elements, b: Elements) -> Elements:
    return prime.sum(prime.mul(a, b), axis=0)
