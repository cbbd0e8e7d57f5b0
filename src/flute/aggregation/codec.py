"""Numbers to ring elements and back: fixed point for exact sums, sentinels, and the test of an opened total.

Private sums come quantised and noised as int64 and pass unchanged. Every vector ends with SENTINELS
coordinates of 1: their sum is the number of hubs, or what was opened is not the sum. Ranges are such that
no sum within bounds comes near 2^63: one guard bit is left.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.defaults import FIXED_POINT_BITS, SENTINELS
from flute.errors import BadTotal, MisuseError
from flute.primitives.ring import Integers, Ring, from_ring, to_ring

Floats = NDArray[np.float64]
_SUM_LIMIT: Final = 2**62
_MORE_BITS: Final = 62


def largest_part(hubs: int) -> int:
    """Largest magnitude of one hub's coordinate such that `hubs` of them stay within 2^62."""
    if hubs < 1:
        raise MisuseError("A sum needs at least one hub.")
    return _SUM_LIMIT // hubs


def encode_exact(values: Floats, *, hubs: int, bits: int = FIXED_POINT_BITS) -> Integers:
    """float64 [d] to int64 [d] at `bits` fraction bits, rounded to nearest, ties to even.

    Guarantees: |decoded - value| <= 2^-(bits + 1) per coordinate; over n hubs the decoded total differs from
    the true sum by at most n 2^-(bits + 1) plus its own float64 rounding (relative 2^-53).
    Raises: MisuseError: not a flat vector, not finite, or 2^62 / hubs and more after scaling.
    """
    _check_bits(bits)
    if values.dtype != np.float64 or values.ndim != 1:
        raise MisuseError("Only a flat vector of float64 numbers can be encoded.")
    if not np.isfinite(values).all():
        raise MisuseError("An answer holds a number that is not finite; it cannot be summed.")
    limit = math.ldexp(float(largest_part(hubs)), -bits)
    if (np.abs(values) >= limit).any():
        raise MisuseError(
            f"An answer holds a number of magnitude {limit:.6g} or more, which a sum over {hubs} hubs at {bits} "
            "fraction bits cannot hold. Standardise the variables by reference values, or agree on fewer bits."
        )
    return np.rint(np.ldexp(values, bits)).astype(np.int64)


def decode_exact(total: Integers, *, bits: int = FIXED_POINT_BITS) -> Floats:
    """int64 [d] totals as float64 [d]; see `encode_exact` for the error."""
    _check_bits(bits)
    return np.ldexp(total.astype(np.float64), -bits)


def to_words(values: Integers, *, part_bound: int) -> Ring:
    """int64 [d] to ring words [d + SENTINELS]. `part_bound`: largest magnitude that a hub may send.

    Raises: MisuseError: not int64 [d], or a coordinate beyond the bound.
    """
    words = to_ring(values)
    if ((values > part_bound) | (values < -part_bound)).any():
        raise MisuseError("An answer holds a number beyond the range that was agreed for this step.")
    return np.concatenate([words, np.ones(SENTINELS, dtype=np.uint64)])


def read_total(words: Ring, *, survivors: int, part_bound: int, norm_bound: float | None = None) -> Integers:
    """The opened ring total [d + SENTINELS] as int64 [d], if it can be the sum of `survivors` answers.

    `norm_bound`: where a step bounds the L2 norm of the total (clip norm and noise tail), it is tested too.
    Raises: BadTotal: wrong sentinels, a coordinate beyond survivors * part_bound, or a norm beyond its bound.
    """
    if not 0 < part_bound <= largest_part(survivors):
        raise MisuseError(f"A bound of {part_bound} per hub leaves no room for a sum of {survivors}.")
    total = from_ring(words)
    if (total[-SENTINELS:] != survivors).any():
        raise BadTotal(
            "What was opened is not the sum of the answers: its check numbers are wrong. A hub masked its vector "
            "differently, or a vector was changed on the way. The total is not used; the round stays charged."
        )
    values = total[:-SENTINELS]
    limit = survivors * part_bound
    too_long = norm_bound is not None and float(np.linalg.norm(values.astype(np.float64))) > norm_bound
    if ((values > limit) | (values < -limit)).any() or too_long:
        raise BadTotal(
            "What was opened lies outside what these hubs' answers can add up to: at least one of them sent more "
            "than its clip norm allows. The total is not used; the round stays charged."
        )
    return values


def _check_bits(bits: int) -> None:
    if not 0 <= bits <= _MORE_BITS:
        raise MisuseError(f"Fraction bits lie between 0 and {_MORE_BITS}.")
