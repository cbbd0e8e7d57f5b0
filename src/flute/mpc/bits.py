"""Bits: random ones, numbers made of them, and the way from a narrow value to a wide one.

Source of `random_bits`: Damgård et al. 2006, protocol RAN_2 (a random r over the root of its square is a random
sign).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flute.errors import MisuseError
from flute.mpc.field import NARROW, NARROW_PRIME, SECOND_PRIME, WIDE, Elements
from flute.mpc.opening import join_in_range
from flute.mpc.shares import Shares, constant
from flute.mpc.steps import Step

if TYPE_CHECKING:
    from flute.mpc.party import Party

_P = NARROW_PRIME
_HALF = _P.inverse(2)
_ROOT_BITS = _P.bits - 2
"""(2^59 - 1): with e = 2^59 - 1, a^(2e + 1) = a^((p - 1)/2) = 1 for a square a, so a^e is 1 over a root of a."""


def random_bits(party: Party, count: int) -> Step[Shares]:
    """See `Party.random_bits`. The squares r² are opened, never a sign; that they are squares is verified before any
    bit is used, for a falsified one makes a "bit" that somebody knows."""
    key = party.products.key[:1]
    r = party.chance.element(_P, (count,))
    first = yield from party.products.reduce([(_P, _P.mul(r, key[0]))], sums=[(_P, _P.mul(r, r))])
    mac, square = first.products[0], first.opened.sums[0]
    party.products.remember(_P, r, mac, certain=True)
    second = yield from party.products.reduce([(_P, _P.mul(mac, r))])
    party.products.remember(_P, square, second.products[0])
    yield from party.products.verify()
    root = inverse_root(square)
    if bool((_P.mul(_P.mul(root, root), square) != 1).any()):
        raise party.wire.stop("A random value opened as 0 or as no square. The computation stops.")
    sign = Shares(NARROW, (_P.mul(r, root),), (_P.mul(mac, root),), key)
    return (sign + 1) * _HALF


def inverse_root(squares: Elements) -> Elements:
    """s with s²·a = 1 for every square a but 0: a^(2^59 - 1), by doubling runs of ones."""
    return _run_of_ones(squares, _ROOT_BITS)


def _run_of_ones(a: Elements, length: int) -> Elements:
    """a^(2^length - 1)."""
    if length == 1:
        return a
    half = _run_of_ones(a, length // 2)
    result = half
    for _ in range(length // 2):
        result = _P.mul(result, result)
    result = _P.mul(result, half)
    return _P.mul(_P.mul(result, result), a) if length % 2 else result


def weighted(bits: Shares) -> Shares:
    """The number whose bits lie on the last axis, lowest first."""
    powers = np.array([2**i % _P.p for i in range(bits.shape[-1])], dtype=np.int64)
    return (bits * powers).sum(axis=-1)


def widen(party: Party, x: Shares, bits: int) -> Step[Shares]:
    """See `Party.widen`. c = x + s is opened modulo the first prime under a bounded mask s, so that no sum wraps;
    modulo the second prime x is c - s."""
    if x.ring != NARROW or not 1 <= bits <= party.room.narrow_bits:
        raise MisuseError(f"A narrow value of at most {party.room.narrow_bits} bits can be widened.")
    yield from party.products.settle()
    masks = party.chance.masks(WIDE, party.room.mask_bits(NARROW), 0, x.shape)
    key = party.products.key
    reduced = yield from party.products.reduce(
        [(SECOND_PRIME, SECOND_PRIME.mul(masks.whole[1], key[1]))],
        shares=[(_P, _P.add(x.values[0], masks.whole[0]))],
    )
    _, low = join_in_range(party, reduced.opened.shares, NARROW)
    shown = constant(WIDE[1:], key[1:], low.astype(np.int64))
    values = SECOND_PRIME.sub(shown.values[0], masks.whole[1])
    macs = SECOND_PRIME.sub(shown.macs[0], reduced.products[0])
    party.products.remember(SECOND_PRIME, values, macs, certain=True)
    return Shares(WIDE, (x.values[0], values), (x.macs[0], macs), key)


def wide_number(party: Party, bits: Shares) -> Step[Shares]:
    """The wide number whose verified bits lie on the last axis, lowest first. One round."""
    size = party.room.narrow_bits
    digits = bits.shape[-1]
    starts = range(0, digits, size)
    pieces = [weighted(bits[..., start : start + size]) for start in starts]
    together = Shares(
        NARROW,
        (np.stack([piece.values[0] for piece in pieces], axis=-1),),
        (np.stack([piece.macs[0] for piece in pieces], axis=-1),),
        bits.key,
    )
    wide = yield from widen(party, together, size)
    return (wide * np.array([2**start for start in starts], dtype=object)).sum(axis=-1)
