"""The middle of all hubs' numbers, coordinate by coordinate, on shares: nothing else of them opens.

Every two hubs' numbers are compared; how many are ahead of one is its rank; the number whose rank is the middle one
is taken by a product with a shared 0 or 1. A hub without a vote stands behind all others, so it moves no rank.

What it resists. With m votes of which fewer than half are lies, every opened coordinate lies between the least and
the largest honest vote, whatever the liars put in: on each side of the middle stands an honest one.
Source: Huber 1981 (breakdown point of the median); ranks instead of sorting, for fewer rounds.
"""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np

from flute.errors import MisuseError
from flute.joint.arithmetic import reveal
from flute.mpc.comparison import MAX_BITS
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate, stack
from flute.mpc.steps import Step

_RANK_BITS: Final = 5
"""A rank is below 16, and its distance from the middle fits besides its sign."""


def middle(party: Party, mine: Integers, *, votes: bool, bits: int, least: int) -> Step[tuple[int, Integers | None]]:
    """How many hubs vote, and of their numbers [d] twice the median; None, and nothing opened, below `least` votes.

    mine: [d], |v| < 2^bits, also of a hub without a vote (it is not used). votes: whether this hub has one.
    Twice the median: of an even number of votes the sum of the middle two, so it stays an integer.
    Opens: how many hubs vote; the result.
    Costs, for n hubs: n (n - 1) / 2 d comparisons of bits + 2 bits, 2 n d tests for 0 of 5 bits and 2 n d products;
    about 60 rounds.
    Raises: MisuseError: a number out of its bound; more than 16 hubs.
    """
    if not 1 <= party.hubs <= 2 ** (_RANK_BITS - 1) or bits + 2 >= MAX_BITS:
        raise MisuseError("The middle is taken of at most 16 hubs' numbers, of at most 56 bits.")
    flags = yield from _flags(party, votes)
    count = int((yield from reveal(party, flags.sum(0).reshape(1)))[0])
    shapes = dict.fromkeys(range(1, party.hubs + 1), mine.shape)
    given = yield from party.inputs(mine, shapes, bound=bits)
    if count < least:
        return count, None
    numbers = yield from _behind(party, stack([given[place] for place in sorted(given)]), flags, 2**bits + 1)
    ranks = yield from _ranks(party, numbers, bits + 2)
    chosen = yield from _standing(party, ranks, ((count - 1) // 2, count // 2))
    picked = yield from party.mul(chosen, numbers)
    return count, (yield from reveal(party, picked.sum(0)))


def _flags(party: Party, votes: bool) -> Step[Shares]:
    """[hubs] wide 0 or 1: who votes; 0 or 1 whatever is put in."""
    shapes = dict.fromkeys(range(1, party.hubs + 1), (1,))
    given = yield from party.inputs(np.array([1 if votes else 0]), shapes, bound=1)
    above = -concatenate([given[place] for place in sorted(given)])
    narrow = yield from party.less_than_zero(above, 2)
    return (yield from party.widen(narrow, 1))


def _behind(party: Party, numbers: Shares, flags: Shares, last: int) -> Step[Shares]:
    """[hubs, d] the numbers, `last` where a hub has no vote."""
    kept = yield from party.mul(numbers - last, flags.reshape(-1, 1))
    return kept + last


def _ranks(party: Party, numbers: Shares, bits: int) -> Step[Shares]:
    """[hubs, d] wide: how many hubs' numbers stand before each; of equal ones the first hub's stands before."""
    hubs, width = numbers.shape
    pairs = list(combinations(range(hubs), 2))
    first, second = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    overtaken = yield from party.less_than_zero((numbers[second] - numbers[first]).reshape(-1), bits)
    overtaken = overtaken.reshape(len(pairs), width)
    ranks = []
    for hub in range(hubs):
        as_first, as_second = np.flatnonzero(first == hub), np.flatnonzero(second == hub)
        # 1 - overtaken: the earlier hub stands before the later one
        ranks.append(overtaken[as_first].sum(0) - overtaken[as_second].sum(0) + len(as_second))
    wide = yield from party.widen(concatenate(ranks), _RANK_BITS)
    return wide.reshape(hubs, width)


def _standing(party: Party, ranks: Shares, places: tuple[int, int]) -> Step[Shares]:
    """[hubs, d] wide: how many of the two places each stands at, 0, 1 or 2."""
    low, high = places
    flat = ranks.reshape(-1)
    at = yield from party.is_zero(concatenate([flat - low, flat - high]), _RANK_BITS)
    wide = yield from party.widen(at, 1)
    size = flat.shape[0]
    return (wide[:size] + wide[size:]).reshape(*ranks.shape)
