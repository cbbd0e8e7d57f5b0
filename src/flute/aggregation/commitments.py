"""Commitments of a dealer to every share it deals: hashes under a Merkle root.

A share is then verified singly, by whoever holds it and whoever it is shown to, so that neither a lying
dealer nor a lying holder can have the other blamed. A holder's leaf joins its two commitments; both are numbered by
the verifier and never by a message.

Cut to 128 bits: a holder that wants another share to pass needs a second preimage (2^128). A dealer can find two
shares with one commitment (2^64), but then its shares do not make the secret that it committed to in full, and it is
named. No salt: a share is one of 2^256 values, and whoever holds t - 1 of them would have to guess the secret's 256
bits. `Place` keeps commitments of different tickets apart.
Source: Merkle tree as in RFC 6962 section 2.1 (leaves and nodes hashed under different labels), padded to a
power of two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from flute.aggregation.context import info, number
from flute.errors import BadShare
from flute.primitives.keys import digest
from flute.primitives.sharing import check_share

COMMITMENT_SIZE: Final = 16
_SHARE: Final = info("share-commitment")
_LEAF: Final = digest(info("share-leaf"))
_NODE: Final = digest(info("share-node"))
_EMPTY: Final = digest(info("share-none"))


class Kind(IntEnum):
    SEED = 0
    POINT = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a share stands: whose it is, which ticket of theirs, how many holders, which of them (from 1)."""

    study: str
    dealer: str
    serial: int
    holders: int
    holder: int
    kind: Kind

    @property
    def index(self) -> int:
        """Among the commitments of a ticket."""
        return 2 * (self.holder - 1) + self.kind


def commit(place: Place, share: bytes) -> bytes:
    return Committer(place.study, place.dealer, place.serial, place.holders).commit(place.index, share)


class Committer:
    """Commitments of one ticket: what they have in common is hashed once."""

    def __init__(self, study: str, dealer: str, serial: int, holders: int) -> None:
        common = digest(_SHARE, study.encode(), dealer.encode(), number(serial), number(holders))
        self._common = hashlib.sha256(common)

    def commit(self, index: int, share: bytes) -> bytes:
        """index: `Place.index`; share: SHARE_SIZE bytes, so that no two inputs are one."""
        own = self._common.copy()
        own.update(index.to_bytes(8, "big") + share)
        return own.digest()[:COMMITMENT_SIZE]


def root(commitments: Sequence[bytes]) -> bytes:
    return _levels(tuple(commitments))[-1][0]


def proofs(commitments: Sequence[bytes]) -> tuple[bytes, tuple[tuple[bytes, ...], ...]]:
    """The root, and for every holder the sibling digests of its leaf on the way to it."""
    *below, (top,) = _levels(tuple(commitments))
    paths: list[tuple[bytes, ...]] = [()]
    for level in reversed(below):
        paths = [(level[i ^ 1], *paths[i >> 1]) for i in range(len(level))]
    return top, tuple(paths[: len(commitments) // 2])


def check_held(seed: Place, point: Place, shares: tuple[bytes, bytes], path: Sequence[bytes], root: bytes) -> None:
    """Are these the two shares that a dealer committed to for one holder? Raises: BadShare."""
    for share in shares:
        check_share(share)
    if len(path) != (seed.holders - 1).bit_length():
        raise BadShare(f"The shares of {seed.dealer} come with a proof of the wrong length.")
    committer = Committer(seed.study, seed.dealer, seed.serial, seed.holders)
    node = _leaf(committer.commit(seed.index, shares[0]), committer.commit(point.index, shares[1]))
    for depth, sibling in enumerate(path):
        left, right = (sibling, node) if (seed.holder - 1) >> depth & 1 else (node, sibling)
        node = _node(left, right)
    if node != root:
        raise BadShare(f"Shares of {seed.dealer} are not those that {seed.dealer} committed to.")


@lru_cache(maxsize=1)
def _levels(commitments: tuple[bytes, ...]) -> list[list[bytes]]:
    """Leaves first. The last tree is kept: whoever checks a ticket's root asks for its paths next."""
    leaves = list(map(_leaf, commitments[::2], commitments[1::2]))
    width = 1 << (len(leaves) - 1).bit_length()
    levels = [[*leaves, *[_EMPTY] * (width - len(leaves))]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append(list(map(_node, below[::2], below[1::2])))
    return levels


def _leaf(seed: bytes, point: bytes) -> bytes:
    """Both have COMMITMENT_SIZE bytes; the label's hash comes first, so lengths need not be said."""
    return hashlib.sha256(_LEAF + seed + point).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
