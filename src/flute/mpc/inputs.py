"""Inputs: a hub's integers become shares that are consistent by construction and proven to be within their bound.

The owner shows each bit of its values under a mask that it alone knows (`chance.owned`); subtracting the shares of
the mask leaves shares of the bit, whatever was shown. That each is a bit is a claim about a product, b·(b - 1) = 0,
and is verified as one: its mac κ·b·(b - 1) has to be 0. Bits are then put together and widened.

Why so strict: an input far out of its bound, multiplied with an honest value, would lift that above the masks it is
opened under, and show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from flute.defaults.joint import MAX_INPUT_BITS
from flute.errors import MisuseError
from flute.mpc.bits import wide_number
from flute.mpc.field import NARROW, NARROW_PRIME, Elements, Integers
from flute.mpc.shares import Shares, integers
from flute.mpc.steps import Place, Step
from flute.mpc.wire import Item, Own

if TYPE_CHECKING:
    from flute.mpc.party import Party

_P = NARROW_PRIME


def share(
    party: Party, mine: Integers | None, shapes: Mapping[Place, tuple[int, ...]], bound: int
) -> Step[dict[Place, Shares]]:
    """See `Party.inputs`. mine: this hub's values if it is among the owners, of the shape named for it."""
    if not 1 <= bound <= MAX_INPUT_BITS:
        raise MisuseError(f"Inputs have magnitudes below 2^1 to 2^{MAX_INPUT_BITS}.")
    digits = bound + 1
    plain = _digits(party, mine, shapes, bound)
    bits = yield from _masked(party, plain, {owner: (prod(shape), digits) for owner, shape in shapes.items()})
    reduced = yield from party.products.reduce([(_P, _P.mul(bits.macs[0], (bits - 1).values[0]))])
    party.products.remember(_P, np.zeros_like(reduced.products[0]), reduced.products[0])
    yield from party.products.verify()
    values = yield from wide_number(party, bits)
    values = values - 2**bound
    result, at = {}, 0
    for owner, shape in sorted(shapes.items()):
        result[owner] = values[at : at + prod(shape)].reshape(*shape)
        at += prod(shape)
    return result


def _digits(
    party: Party, mine: Integers | None, shapes: Mapping[Place, tuple[int, ...]], bound: int
) -> Elements | None:
    """My values plus 2^bound, bit by bit [values, bound + 1].

    Raises: MisuseError: a value out of its bound, or values of another shape than was agreed."""
    if (mine is None) != (party.me not in shapes):
        raise MisuseError("A hub that is named as an owner gives values, and no other does.")
    if mine is None:
        return None
    array = integers(mine)
    if array.shape != tuple(shapes[party.me]):
        raise MisuseError(f"Values of shape {array.shape} were given where {tuple(shapes[party.me])} was agreed.")
    if array.size and not -(2**bound) < int(array.min()) <= int(array.max()) < 2**bound:
        raise MisuseError(f"An input does not lie within 2^{bound}. Nothing was sent.")
    shifted = (array.reshape(-1) + 2**bound).astype(np.uint64)
    return np.asarray((shifted[:, None] >> np.arange(bound + 1, dtype=np.uint64)) & np.uint64(1))


def _masked(party: Party, plain: Elements | None, shapes: Mapping[Place, tuple[int, int]]) -> Step[Shares]:
    """Every owner's bits as shares, one below the other in the order of owners. One round."""
    owners = sorted(shapes)
    drawn = [party.chance.owned(_P, owner, shapes[owner]) for owner in owners]
    own = []
    for owner, (_, mask) in zip(owners, drawn, strict=True):
        shown = None if plain is None or mask is None else _P.add(plain, mask)
        own.append(Own(owner, _P, shapes[owner], shown))
    key = party.products.key[0]
    macs: list[Item] = [(_P, _P.mul(mask, key)) for mask, _ in drawn]
    reduced = yield from party.products.reduce(macs, own=own)
    values = [_P.sub(shown, mask) for shown, (mask, _) in zip(reduced.opened.own, drawn, strict=True)]
    checks = [
        _P.sub(_P.mul(shown, key), mac) for shown, mac in zip(reduced.opened.own, reduced.products, strict=True)
    ]
    bits = Shares(NARROW, (np.concatenate(values),), (np.concatenate(checks),), party.products.key[:1])
    party.products.remember(_P, bits.values[0], bits.macs[0])
    return bits
