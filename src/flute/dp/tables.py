"""Tables of the discrete Gaussian, from integer arithmetic alone: what a draw looks up.

A table is keyed by its exact variance, a fraction, so that variances of several draws can add up exactly.
Sources: N_Z(0, sigma^2) is that of Canonne, Kamath and Steinke 2020 (Definition 1); levels of 16 bits, Marsaglia,
Tsang and Wang 2004, "Fast generation of discrete random variables", here with the remainder kept exactly. Proof:
docs/proofs/noise.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_TABLE_SIGMA: Final = 1_950
"""Table values are int16 and reach 16 sigma, 31,200 here."""
OPEN: Final = np.int16(-(2**15))
"""Where a level leaves the value to the next one."""
LAST_BYTES: Final = 32
"""Of the uniform number that decides where every level has left a value open."""

_TAIL: Final = 16
_PRECISION: Final = 384
_EXTRA: Final = 32
_LEVEL_BITS: Final = 16
_LEVELS: Final = 4
"""A level leaves at most one draw in seven open, all of them two in 10,000, which take the last, slow step."""
_KEPT: Final = 12
"""Tables kept. Hub sigmas of the default grid (1,000 times 1, 2, ... 64) need eight; the largest takes 5 MB."""


@dataclass(frozen=True, slots=True)
class Table:
    """Everything a draw at one variance looks up.

    levels: int16 [65536] each; 16 uniform bits choose an entry: a value, or OPEN, which hands over to the next
    level with fresh bits. last: floor(2^256 F(x)) for x = -reach .. reach-1, F the distribution function of what
    all levels leave open; a uniform 256-bit U then means -reach + #{t <= U}.
    """

    reach: int
    levels: tuple[NDArray[np.int16], ...]
    last: list[int]


@lru_cache(maxsize=_KEPT)
def table_for(variance: Fraction) -> Table:
    """The table of N_Z(0, variance), variance from 1/4 to MAX_TABLE_SIGMA^2; kept for the next call.

    Guarantees: a draw from it is within 2^-183 (total variation) of N_Z(0, variance), given uniform bits:
      1 tail: values beyond T = ceil(16 sigma) are left out; P(|X| > T) <= 2 exp(-128) < 2^-183.6
        (Chernoff with E exp(tX) <= exp(t^2 sigma^2/2), since a shifted lattice sum of a Gaussian is never
        larger than the unshifted one: Poisson summation);
      2 weights exp(-x^2/2sigma^2) come from integer arithmetic with 384 fraction bits. r, q are off by under
        2^-383 and each truncated product by 2^-384, so r q^x is off by under (x+1) 2^-382, a weight by under
        T^2 2^-382, all together by under (2T+1) T^2 2^-382 < 2^-336 for T <= 31,200; their sum is at least 1;
      3 levels split these integers without any rounding (`_split`);
      4 each of 2 T thresholds of the last step is rounded down to 256 bits: under 2 T 2^-256 < 2^-240 together.
    """
    reach = math.ceil(_TAIL * math.sqrt(variance))
    weights = _weights(variance, reach)
    levels = []
    for _ in range(_LEVELS):
        level, weights = _split(weights)
        levels.append(level)
    below = list(accumulate(weights))
    return Table(reach, tuple(levels), [(part << 8 * LAST_BYTES) // below[-1] for part in below[:-1]])


def _split(weights: list[int]) -> tuple[NDArray[np.int16], list[int]]:
    """One level, and the weights of what it leaves open; weights are for x = -reach..reach, in any unit.

    x gets floor(2^16 w/W) of 2^16 entries, W the sum, and 2^16 w mod W is left to it: with R entries open, all
    that is left adds up to R W, so that entries/2^16 + R/2^16 left/(R W) = w/W exactly.
    """
    total = sum(weights)
    counts, left = zip(*(divmod(weight << _LEVEL_BITS, total) for weight in weights), strict=True)
    reach = len(weights) // 2
    level = np.full(2**_LEVEL_BITS, OPEN, dtype=np.int16)
    level[: sum(counts)] = np.repeat(np.arange(-reach, reach + 1, dtype=np.int16), counts)
    level.setflags(write=False)
    return level, list(left)


def _weights(variance: Fraction, reach: int) -> list[int]:
    """2^384 exp(-x^2/2sigma^2) for x = -reach..reach.

    weight(x+1) = weight(x) r q^x with r = exp(-1/2sigma^2), q = r^2: two integer products per value.
    """
    exponent = 1 / (2 * variance)
    ratio, step = _exp_minus(exponent), _exp_minus(2 * exponent)
    half = [1 << _PRECISION]
    for _ in range(reach):
        half.append((half[-1] * ratio) >> _PRECISION)
        ratio = (ratio * step) >> _PRECISION
    return half[:0:-1] + half


def _exp_minus(y: Fraction) -> int:
    """exp(-y) with 384 fraction bits for 0 < y <= 4, off by under 2^-383: Taylor's series in integers."""
    scaled = (y.numerator << (_PRECISION + _EXTRA)) // y.denominator
    term = total = 1 << (_PRECISION + _EXTRA)
    k = 0
    while term:
        k += 1
        term = ((term * scaled) >> (_PRECISION + _EXTRA)) // k
        total += -term if k % 2 else term
    return total >> _EXTRA
