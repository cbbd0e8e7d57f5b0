"""Signs, equality and bits of wide values, by opening them under a mask whose low bits are known bit by bit.

y = x + 2^k >= 0 is opened as c = y + R + 2^k·H, R made of k random bits, H of bounded integers. With c' = c mod 2^k
and u = [c' < R] the low part of y is c' - R + 2^k·u, and what is left is its top bit. u compares a public number with
shared bits, in a tree: for each run of bits, g says that R is greater there and p that both are equal; both start
without a product and join as g = g1 + p1·g0, p = p1·p0. Those products are hidden by masks that fill the field, so
nothing has to be verified between the layers.

Source: Catrina, de Hoogh 2010, protocols 3.1 to 3.6; the tree: Damgård et al. 2006, section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flute.errors import MisuseError
from flute.mpc.bits import wide_number
from flute.mpc.field import NARROW_PRIME, WIDE, Elements
from flute.mpc.opening import join_in_range
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step

if TYPE_CHECKING:
    from flute.mpc.party import Party

MAX_BITS = 59
"""Bits of a value that is taken apart: its low part has to be one word."""


def less_than_zero(party: Party, x: Shares, bits: int) -> Step[Shares]:
    """See `Party.less_than_zero`. Rounds: random bits 4, their number 1, the opening 1, ceil(log2 bits) layers."""
    y = x + 2**bits
    mask, low, number = yield from _open_masked(party, y, bits, bits)
    below = yield from _less(party, low, mask)
    top: Shares = (y.narrow() - low.astype(np.int64) + number.narrow()) * NARROW_PRIME.inverse(2**bits) - below
    return -top + 1


def is_zero(party: Party, x: Shares, bits: int) -> Step[Shares]:
    """See `Party.is_zero`. Rounds: as `less_than_zero`, of bits + 1."""
    mask, low, _ = yield from _open_masked(party, x + 2**bits, bits, bits + 1)
    wanted = (low - np.uint64(2**bits)) & np.uint64(2 ** (bits + 1) - 1)
    equal = _equal(_public_bits(wanted, bits + 1), mask)
    while equal.shape[-1] > 1:
        pairs = equal.shape[-1] // 2
        joined = yield from party.mul(equal[..., 0 : 2 * pairs : 2], equal[..., 1 : 2 * pairs : 2])
        equal = concatenate([joined, equal[..., 2 * pairs :]], axis=-1)
    return equal[..., 0]


def decompose(party: Party, x: Shares, bits: int) -> Step[Shares]:
    """See `Party.bits`. Rounds: random bits 4 and their number 1, the opening 1, ceil(log2 bits) + 1 products."""
    mask, low, _ = yield from _open_masked(party, x, bits, bits)
    public = _public_bits(low, bits)
    greater, equal = _greater(public, mask), _equal(public, mask)
    span = 1
    while span < bits:
        upper = np.array([i for i in range(bits) if i & span])
        lower = (upper | (span - 1)) - span
        first = equal[..., upper]
        joined = yield from party.mul(
            concatenate([first, first], axis=-1),
            concatenate([greater[..., lower], equal[..., lower]], axis=-1),
        )
        greater = _placed(greater, upper, greater[..., upper] + joined[..., : len(upper)])
        equal = _placed(equal, upper, joined[..., len(upper) :])
        span *= 2
    differs = 1 - _equal(public, mask)
    borrow = greater[..., :-1]
    crossed = yield from party.mul(differs[..., 1:], borrow)
    rest = differs[..., 1:] + borrow - crossed * 2
    return concatenate([differs[..., :1], rest], axis=-1)


def _open_masked(party: Party, y: Shares, bits: int, low: int) -> Step[tuple[Shares, Elements, Shares]]:
    """c mod 2^low for c = y + R + 2^low·H, with R's bits [..., low] and R itself. |y| < 2^(bits + 1), y >= 0."""
    if y.ring != WIDE or bits < 1 or low > MAX_BITS:
        raise MisuseError(f"A wide value of at most {MAX_BITS - 1} bits can be taken apart.")
    party.room.require(bits)
    random = yield from party.random_bits(y.size * low)
    mask = random.reshape(*y.shape, low)
    number = yield from wide_number(party, mask)
    yield from party.products.settle()
    high = party.chance.masks(WIDE, party.room.mask_bits(WIDE), low, y.shape).high
    hidden = (y + number).values
    opened = yield from party.wire.exchange(
        shares=[(prime, prime.add(v, prime.scale(h, 2**low))) for prime, v, h in zip(WIDE, hidden, high, strict=True)]
    )
    _, lowest = join_in_range(party, opened.shares, WIDE)
    return mask, lowest & np.uint64(2**low - 1), number


def _less(party: Party, public: Elements, mask: Shares) -> Step[Shares]:
    """1 where the public number is less than the one whose bits are shared. ceil(log2) rounds."""
    bits = _public_bits(public, mask.shape[-1])
    greater, equal = _greater(bits, mask), _equal(bits, mask)
    while greater.shape[-1] > 1:
        pairs = greater.shape[-1] // 2
        high = equal[..., 1 : 2 * pairs : 2]
        joined = yield from party.mul(
            concatenate([high, high[..., 1:]], axis=-1),
            concatenate([greater[..., 0 : 2 * pairs : 2], equal[..., 2 : 2 * pairs : 2]], axis=-1),
        )
        above = greater[..., 1 : 2 * pairs : 2] + joined[..., :pairs]
        lowest = equal[..., :1]  # never used: the lowest run needs no "equal"
        greater = concatenate([above, greater[..., 2 * pairs :]], axis=-1)
        equal = concatenate([lowest, joined[..., pairs:], equal[..., 2 * pairs :]], axis=-1)
    return greater[..., 0]


def _public_bits(values: Elements, count: int) -> Elements:
    return np.asarray((values[..., None] >> np.arange(count, dtype=np.uint64)) & np.uint64(1))


def _greater(public: Elements, mask: Shares) -> Shares:
    """The shared bit is 1 and the public one 0."""
    return mask * (1 - public.astype(np.int64))


def _equal(public: Elements, mask: Shares) -> Shares:
    signs = 2 * public.astype(np.int64) - 1
    return mask * signs + (1 - public.astype(np.int64))


def _placed(x: Shares, at: np.ndarray, part: Shares) -> Shares:
    """x with the entries at these places of the last axis replaced."""

    def put(whole: Elements, new: Elements) -> Elements:
        copy = whole.copy()
        copy[..., at] = new
        return copy

    values = tuple(put(w, n) for w, n in zip(x.values, part.values, strict=True))
    return Shares(x.ring, values, tuple(put(w, n) for w, n in zip(x.macs, part.macs, strict=True)), x.key)
