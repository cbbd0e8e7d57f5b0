"""Fisher's exact test on a table of all hubs' patients that stays shared, its margins too.

With margins R1, R2, C1, C2 and total N the table whose first cell is x has the log probability
    y(x) = K - lf(x) - lf(R1 - x) - lf(C1 - x) - lf(R2 - C1 + x),   K = lf(R1) + lf(R2) + lf(C1) + lf(C2) - lf(N),
lf(n) = ln n!, and lf of a negative number so large that nothing is left. A shared count becomes a shared vector that
is 1 at its place and 0 elsewhere; lf of it, and lf of it less each x, are public matrices times that vector. So y(x)
comes for every x without a product beyond those of the vectors, and the two-sided p is the sum of e^y(x) over the x
with y(x) <= y(observed), as likely ones included up to TIE.
Source: Fisher 1935; the two-sided sum as in R's fisher.test (R Core Team, stats package).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from flute.errors import MisuseError
from flute.joint.arithmetic import fraction_bits, reveal
from flute.joint.counts import pooled
from flute.mpc.field import Integers
from flute.mpc.fixed import Fixed
from flute.mpc.party import Party
from flute.mpc.series import Series, evaluate
from flute.mpc.shares import Shares, concatenate, stack
from flute.mpc.steps import Step

MAX_BITS: Final = 11
"""2,047 patients of all hubs together: work grows with them, and larger tables have `tables.chi_squared`."""
SHOWN: Final = 26
"""Fraction bits of the p value that is opened."""
LOG_FRACTION: Final = 30
NEVER: Final = 2**15 - 1
"""lf of a negative number: above K + FLOOR for every table of 2,047 patients (K <= ln 2047! < 13,600)."""
LOG_BITS: Final = 15 + LOG_FRACTION
FLOOR: Final = 30
"""e^-30 = 1e-13: less is taken as 0."""
TIE: Final = 1e-7
"""Relative difference of probabilities up to which two tables count as equally likely."""
_CHUNK: Final = 256


def fisher(party: Party, table: Integers, *, count_bits: int) -> Step[float]:
    """The two-sided p value of all hubs' 2 x 2 table.

    table: [2, 2] this hub's counts. count_bits: public, all hubs together have fewer than 2^count_bits - 1
    patients; at most MAX_BITS.
    Opens: p, rounded to 2^-SHOWN.
    Error: 1e-7.
    Costs: 92 rounds; with M = 2^count_bits: 9 M narrow products for the vectors, 2 M comparisons of 49 bits,
    3 M widenings and 16 M truncated products for the exponentials.
    Raises: MisuseError: not a 2 x 2 table, or too many patients.
    """
    if table.shape != (2, 2) or not 2 <= count_bits <= MAX_BITS:
        raise MisuseError(f"Fisher's test takes a 2 x 2 table of fewer than {2**MAX_BITS} patients.")
    cells = (yield from pooled(party, table, bits=count_bits)).reshape(4)
    likelihood, observed = yield from _log_probabilities(party, cells, count_bits)
    size = 1 << count_bits
    floor = FLOOR << LOG_FRACTION
    rarer = likelihood - observed.broadcast_to(size) - round(TIE * 2**LOG_FRACTION)
    compared = yield from party.less_than_zero(concatenate([likelihood + floor, rarer]), LOG_BITS + 4)
    gone, counted = compared[:size], compared[size:]
    counted = yield from party.mul(1 - gone, counted)
    wide = yield from party.widen(concatenate([1 - gone, counted]), 1)
    bounded = (yield from party.mul(wide[:size], likelihood + floor)) - floor
    fraction = min(fraction_bits(party), 36)
    exponent = Fixed(party, bounded, LOG_FRACTION).finer(fraction)
    chances = yield from evaluate(exponent, Series(np.exp, -float(FLOOR), 0.0, fraction - 6))
    rows = wide[size:].reshape(1, size), chances.shares.reshape(size, 1)
    total = yield from party.dot_truncate(*rows, fraction - SHOWN)
    return float(np.clip(int((yield from reveal(party, total))[0, 0]) / 2**SHOWN, 0.0, 1.0))


def _log_probabilities(party: Party, cells: Shares, bits: int) -> Step[tuple[Shares, Shares]]:
    """y(x) for x from 0 to 2^bits - 1, and y of the table at hand [1]; wide, LOG_FRACTION bits.

    Logarithms are looked up in pieces small enough to be made wide, four of which are added before they are.
    """
    size = 1 << bits
    a, b, c, d = (cells[k : k + 1] for k in range(4))
    counts = concatenate([a + b, c + d, a + c, b + d, a + b + c + d, a, d - a + size])
    digits = yield from party.bits(counts, bits + 1)
    vectors = yield from _indicators(party, digits)
    piece_bits = party.room.narrow_bits - 2
    logs = _log_factorials(size)
    varying, fixed = [], []
    for start in range(0, LOG_BITS, piece_bits):
        pieces = (logs >> start) & ((1 << piece_bits) - 1)
        varying.append(_terms_of_each(vectors, pieces, size))
        fixed.append(_looked_up(vectors[:5, :size], pieces[size:][None, :size]))
    seen = yield from party.dot(vectors[5, :size].reshape(1, size), stack(varying, axis=1))
    flat = concatenate([*varying, *(part.reshape(5) for part in fixed), seen.reshape(-1)])
    wide = yield from party.widen(flat, piece_bits + 2)
    count = len(varying)
    weights = np.array([1 << (piece_bits * k) for k in range(count)], dtype=object)
    each = (wide[: count * size].reshape(count, size) * weights[:, None]).sum(0)
    known = (wide[count * size : count * (size + 5)].reshape(count, 5) * weights[:, None]).sum(0)
    here = (wide[count * (size + 5) :] * weights).sum(0).reshape(1)
    constant = (known * np.array([1, 1, 1, 1, -1])).sum(0).reshape(1)
    return constant.broadcast_to(size) - each, constant - here


def _terms_of_each(vectors: Shares, pieces: NDArray[np.int64], size: int) -> Shares:
    """One piece of lf(x) + lf(R1 - x) + lf(C1 - x) + lf(R2 - C1 + x), for each x; `pieces` start at lf(-size)."""
    parts = []
    for start in range(0, size, _CHUNK):
        x = np.arange(start, min(start + _CHUNK, size))[:, None]
        less = pieces[size + np.arange(size)[None, :] - x]
        more = pieces[np.arange(2 * size)[None, :] + x]
        margins = _looked_up((vectors[0] + vectors[2])[:size].reshape(1, size), less)
        parts.append(margins + _looked_up(vectors[6].reshape(1, 2 * size), more) + pieces[size + x[:, 0]])
    return concatenate(parts)


def _looked_up(vectors: Shares, numbers: NDArray[np.int64]) -> Shares:
    """For one vector, [rows of numbers]; for one row of numbers, [vectors]: the number at each vector's place."""
    return (numbers @ vectors.T).reshape(-1)


def _log_factorials(size: int) -> NDArray[np.int64]:
    """ln n! with LOG_FRACTION bits for n from -size to 3 size - 1; NEVER below 0."""
    n = np.arange(-size, 3 * size)
    values = np.where(n < 0, float(NEVER), gammaln(np.maximum(n, 0) + 1.0))
    return np.asarray(np.round(values * 2**LOG_FRACTION), dtype=np.int64)


def _indicators(party: Party, digits: Shares) -> Step[Shares]:
    """[numbers, 2^bits] of 0, and 1 at the place whose bits are in digits [numbers, bits]; lowest bit first."""
    vector = stack([1 - digits[:, 0], digits[:, 0]], axis=1)
    for k in range(1, digits.shape[1]):
        upper = yield from party.mul(vector, digits[:, k : k + 1])
        vector = concatenate([vector - upper, upper], axis=1)
    return vector
