"""Rank tests over all hubs' values on a public grid, with ties: Mann-Whitney and Kruskal-Wallis.

Tables stay shared. Twice the midrank of a grid value is an integer (2 below + tied + 1), so rank sums and the tie
term are exact; only the last division is fixed point.
Sources: Kruskal and Wallis 1952; Mann and Whitney 1947; correction for ties, Lehmann 1975, appendix 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import chi2, norm

from flute.errors import MisuseError
from flute.joint.arithmetic import fraction_bits, reveal, running
from flute.joint.counts import pooled
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step

RANK_COUNT_BITS: Final = 13
"""Up to 8,191 values: the square of a rank sum and its weight fill the room for truncation."""
TIE_FACTORS: Final = 14
"""2^14 terms of the series that divides by 1 - ties: 1e-7 of it is left where 99.9 % of the triples are tied."""
SHOWN: Final = 21
"""Fraction bits of a statistic that is opened (5e-7): what lies below would say more than the statistic."""


@dataclass(frozen=True, slots=True)
class RankTest:
    """statistic: H, chi-squared with one degree of freedom fewer than groups. sizes: values per group.

    u: for two groups, how many pairs the first group's value wins, ties a half each; else None.
    """

    statistic: float
    sizes: tuple[int, ...]
    p_value: float
    u: float | None = None

    @property
    def z(self) -> float:
        """Normal score of u: negative where the first group's values are the smaller ones."""
        if self.u is None:
            raise MisuseError("A normal score belongs to two groups.")
        return float(np.sign(self.u - self.sizes[0] * self.sizes[1] / 2) * np.sqrt(self.statistic))


def mann_whitney(party: Party, table: Integers, *, count_bits: int) -> Step[RankTest]:
    """Two groups. As `kruskal_wallis`; opens the first group's rank sum too (u and the two sizes say it)."""
    if table.shape[0] != 2:
        raise MisuseError("The Mann-Whitney test compares two groups.")
    return (yield from _rank_test(party, table, count_bits, opens_u=True))


def kruskal_wallis(party: Party, table: Integers, *, count_bits: int) -> Step[RankTest]:
    """Whether groups differ in location, over all hubs.

    table: [groups, grid] this hub's counts (`quantiles.on_grid` for each group). count_bits: public, all hubs
    together have fewer than 2^count_bits values; at most RANK_COUNT_BITS.
    Opens: how many values each group has; the statistic, rounded to 2^-SHOWN.
    Error (three hubs): 1e-6 at most while at most 99.9 % of the triples of values are tied, 3e-7 in practice.
    Costs: 84 rounds: those of `pooled`, two openings, and 3 for each of TIE_FACTORS; products: grid + 2 groups + 2
    and 2 TIE_FACTORS truncated ones.
    Raises: MisuseError: count_bits out of range, or a group that is empty at all hubs.
    """
    return (yield from _rank_test(party, table, count_bits, opens_u=False))


def _rank_test(party: Party, table: Integers, count_bits: int, *, opens_u: bool) -> Step[RankTest]:
    if not 1 <= count_bits <= RANK_COUNT_BITS:
        raise MisuseError(f"A rank test takes counts of 1 to {RANK_COUNT_BITS} bits.")
    groups = table.shape[0]
    counts = yield from pooled(party, table, bits=count_bits)
    opened = yield from reveal(party, counts.sum(1))
    sizes = tuple(int(size) for size in opened)
    total = sum(sizes)
    if min(sizes) < 1 or total < 2:
        raise MisuseError("A group without a single value cannot be ranked.")
    tied = counts.sum(0)
    ranks = running(tied) * 2 - tied + 1
    squares = yield from party.mul(tied, tied)
    columns = concatenate([ranks.reshape(-1, 1), squares.reshape(-1, 1)], axis=1)
    sums = yield from party.dot(concatenate([counts, tied.reshape(1, -1)]), columns)
    centred = sums[:groups, 0] - np.array(sizes) * (total + 1)
    statistic = yield from _statistic(party, centred, sums[groups, 1:] - total, sizes)
    shown = yield from reveal(party, concatenate([statistic, sums[:1, 0]] if opens_u else [statistic]))
    h = int(shown[0]) / 2**SHOWN
    u = int(shown[1]) / 2 - sizes[0] * (sizes[0] + 1) / 2 if opens_u else None
    p = 2 * norm.sf(np.sqrt(max(h, 0.0))) if opens_u else chi2.sf(h, groups - 1)
    return RankTest(h, sizes, float(p), u)


def _statistic(party: Party, centred: Shares, ties: Shares, sizes: Sequence[int]) -> Step[Shares]:
    """3 (N - 1) sum of centred^2 / n, over N^3 - N - ties, with SHOWN fraction bits; [1].

    centred: [groups] twice each rank sum less its expectation. ties: [1] sum of t^3 - t over grid values.
    The quotient is the sum over N^3 - N, times (1 + t)(1 + t^2)(1 + t^4)... with t = ties / (N^3 - N).
    """
    total = sum(sizes)
    cube = total**3 - total
    room, one = party.value_bits, fraction_bits(party)
    point = room - total.bit_length()
    fraction = point - one - 1
    weights = np.array([round(3 * (total - 1) * 2**point / (size * cube)) for size in sizes], dtype=object)
    squares = yield from party.mul(centred, centred)
    value = yield from party.truncate((squares * weights).sum(0).reshape(1), point - fraction)
    power = yield from party.truncate(ties * round(2**room / cube), room - one)
    for _ in range(TIE_FACTORS):
        grown = yield from party.mul_truncate(concatenate([power, power]), concatenate([power, value]), one)
        power, value = grown[:1], value + grown[1:]
    return (yield from party.truncate(value, fraction - SHOWN))
