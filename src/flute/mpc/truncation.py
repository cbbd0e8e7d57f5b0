"""Division by a power of two, for numbers in fixed point: rounded, off by a few units in the last place.

c = x + 2^bound + M is opened, M = sum of M_A over the groups, and floor(c / 2^f) - sum of floor(M_A / 2^f) is taken.
The low parts of the M_A, uniform in [0, 2^f) each, round x up or down at random; their mean is taken off first, so
the mean error is 0, its standard deviation sqrt(C/12) units and its bound (C + 1)/2, C = C(n, t) groups.

A product is truncated in the same round: c = x·y + 2^bound + M is opened as a sum of products, and c - M is
remembered as the product to be verified. Source: after Catrina, Saxena 2010, protocol 3.1; masks from group keys
instead of bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from flute.errors import MisuseError
from flute.mpc.field import WIDE, Elements, Prime
from flute.mpc.opening import join_in_range
from flute.mpc.shares import Shares
from flute.mpc.steps import Step
from flute.mpc.wire import Item

if TYPE_CHECKING:
    from flute.mpc.chance import Masks
    from flute.mpc.party import Party

_MAX_FRACTION = 61


def truncate(party: Party, x: Shares, bits: int, bound: int | None) -> Step[Shares]:
    """See `Party.truncate`. One round, after `settle`."""
    offset, masks = _masks(party, x, bits, bound)
    yield from party.products.settle()
    shown: list[Item] = [
        (prime, prime.add(prime.add(v, prime.element(offset)), m))
        for prime, v, m in zip(WIDE, x.values, masks.whole, strict=True)
    ]
    reduced = yield from party.products.reduce(_macs(party, masks), shares=shown)
    return _shifted(party, reduced.opened.shares, masks, reduced.products, bits, offset)


def product(
    party: Party,
    x: Shares,
    y: Shares,
    bits: int,
    bound: int | None,
    how: Callable[[Prime, Elements, Elements], Elements],
) -> Step[Shares]:
    """truncate(x·y), |x·y| < 2^bound: one round, after `settle`."""
    yield from party.products.settle()
    if x.ring != WIDE or y.ring != WIDE:
        raise MisuseError("Only wide values are truncated.")
    results = [how(prime, a, b) for prime, a, b in zip(WIDE, x.values, y.values, strict=True)]
    macs: list[Item] = [(prime, how(prime, m, b)) for prime, m, b in zip(WIDE, x.macs, y.values, strict=True)]
    offset, masks = _masks(party, Shares(WIDE, tuple(results), tuple(results), x.key), bits, bound)
    shown: list[Item] = [
        (prime, prime.add(prime.add(v, prime.element(offset)), m))
        for prime, v, m in zip(WIDE, results, masks.whole, strict=True)
    ]
    reduced = yield from party.products.reduce([*macs, *_macs(party, masks)], sums=shown)
    for prime, c, m, mac in zip(WIDE, reduced.opened.sums, masks.whole, reduced.products, strict=False):
        party.products.remember(prime, prime.sub(prime.sub(c, prime.element(offset)), m), mac)
    return _shifted(party, reduced.opened.sums, masks, reduced.products[len(WIDE) :], bits, offset)


def _masks(party: Party, x: Shares, bits: int, bound: int | None) -> tuple[int, Masks]:
    """The public number added to x, at least 2^bound so that no sum is negative, and the masks."""
    if x.ring != WIDE or not 1 <= bits <= _MAX_FRACTION:
        raise MisuseError(f"A wide value is divided by 2 to 2^{_MAX_FRACTION}.")
    limit = party.room.require(party.room.wide_bits if bound is None else bound)
    masks = party.chance.masks(WIDE, party.room.mask_bits(WIDE), bits, x.shape)
    whole = 2 ** max(limit, bits) + party.room.groups * 2**bits
    return whole - (party.room.groups - 1) * 2 ** (bits - 1), masks


def _macs(party: Party, masks: Masks) -> list[Item]:
    """The high parts of the masks times the check key."""
    keys = party.products.key
    return [(prime, prime.mul(high, key)) for prime, high, key in zip(WIDE, masks.high, keys, strict=True)]


def _shifted(
    party: Party, residues: list[Elements], masks: Masks, macs: list[Elements], bits: int, offset: int
) -> Shares:
    """floor(c / 2^bits) less what was added; macs: of the masks' high parts."""
    high, low = join_in_range(party, residues, WIDE)
    added = (offset + (party.room.groups - 1) * 2 ** (bits - 1)) >> bits
    values, checks = [], []
    for prime, key, mask, mac in zip(WIDE, party.products.key, masks.high, macs, strict=True):
        upper = prime.scale(prime.reduce(high), 2 ** (_MAX_FRACTION - bits))
        quotient = prime.sub(prime.add(upper, prime.reduce(low >> np.uint64(bits))), prime.element(added))
        values.append(prime.sub(quotient, mask))
        checks.append(prime.sub(prime.mul(quotient, key), mac))
        party.products.remember(prime, values[-1], checks[-1], certain=True)
    return Shares(WIDE, tuple(values), tuple(checks), party.products.key)
