"""Keys of channels and masks, and masking itself. Source: Bonawitz et al. 2017, section 4 (double masking).

Masked vector of hub i, mod 2^16, 2^32 or 2^64:
    y_i = x_i + PRG(self_i) + sum over neighbours j of ±PRG(pair_ij), plus where i < j.
In a sum over survivors their pair masks cancel. Their self masks are taken off once t hubs have shown their shares of
each seed; pair masks with a hub that dropped out, once t hubs have shown their shares of its private key. Every key
has the round's context as its salt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from msgspec import Struct

from flute.aggregation.context import info
from flute.errors import Malformed
from flute.primitives.keys import AgreementKey, derive, digest
from flute.primitives.prg import BLOCK, Stream, new_room
from flute.primitives.ring import Ring, check_ring

_FIELD: Final = 2**255 - 19


class Secret(Struct, frozen=True):
    """A struct that holds secrets: neither `repr` nor rich shows its fields."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secret>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class MaskKey(Secret, frozen=True):
    """Key of one mask stream, and whether it is subtracted."""

    key: bytes
    negative: bool


def check_point(point: bytes) -> None:
    """Raises: Malformed: not the one encoding of an X25519 u-coordinate (u < 2^255 - 19, high bit 0)."""
    if int.from_bytes(point, "little") >= _FIELD:
        raise Malformed("A public key of a ticket is not in canonical form.")


def channel_key(mine: AgreementKey, peer: bytes, *, study: str, agreement: bytes, me: str, other: str) -> bytes:
    """The two hubs' first channel key in a study; the same on both sides.

    Raises: Malformed: `peer` is a small-order point or no canonical key.
    """
    check_point(peer)
    (low, low_key), (high, high_key) = sorted(((me, mine.public), (other, peer)))
    salt = digest(agreement, low_key, high_key)
    return derive(mine.agree(peer), salt=salt, info=info("channel", study, low, high))


def dealing_key(channel: bytes, *, study: str, dealer: str, holder: str) -> bytes:
    """The channel's first chain key in one direction; each direction ratchets by its dealer's tickets."""
    return derive(channel, info=info("dealing", study, dealer, holder))


def ratchet(chain: bytes, steps: int = 1) -> bytes:
    """The chain key `steps` tickets on. What it was before cannot be computed from it."""
    for _ in range(steps):
        chain = derive(chain, info=info("ratchet"))
    return chain


def box_key(chain: bytes, *, study: str, serial: int, dealer: str, pub: bytes) -> bytes:
    """AEAD key of one box: used once, for the pub commits to what is in it."""
    return derive(chain, info=info("ticket", study, str(serial), dealer, pub.hex()))


def seed_commitment(seed: bytes, *, study: str, dealer: str, serial: int) -> bytes:
    return digest(info("seed", study, dealer, str(serial)), seed)


def self_mask(seed: bytes, *, ctx: bytes, hub: str) -> MaskKey:
    return MaskKey(derive(seed, salt=ctx, info=info("self", hub)), False)


def pair_mask(mine: AgreementKey, peer: bytes, *, ctx: bytes, me: str, other: str) -> MaskKey:
    """Raises: Malformed: `peer` is a small-order point."""
    low, high = sorted((me, other))
    return MaskKey(derive(mine.agree(peer), salt=ctx, info=info("mask", low, high)), me > other)


class MaskStreams:
    """All masks of one vector, added or taken off block by block, in order. The same keys twice give the difference
    of two vectors away: whoever makes one of these sees to it that they are used once."""

    def __init__(self, keys: Iterable[MaskKey]) -> None:
        self._room = new_room()
        self._streams = [(Stream(mask.key, self._room), np.subtract if mask.negative else np.add) for mask in keys]

    def add_to(self, words: Ring) -> None:
        """words + masks, in place. Stretches stay in the cache while every mask passes over them."""
        check_ring(words)
        mask = np.frombuffer(self._room, dtype=words.dtype.newbyteorder("<"), count=BLOCK // words.itemsize)
        for start in range(0, words.size, mask.size):
            part = words[start : start + mask.size]
            here = mask[: part.size]
            for stream, change in self._streams:
                for _ in stream.blocks(part.nbytes):  # one, which lies in the room until the next
                    change(part, here, out=part)


def opposite(keys: Iterable[MaskKey]) -> list[MaskKey]:
    """The keys that take these masks off."""
    return [MaskKey(mask.key, not mask.negative) for mask in keys]
