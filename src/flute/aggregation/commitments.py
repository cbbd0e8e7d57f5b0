"""Commitments of a dealer to every share it deals: salted hashes under a Merkle root.

A share is then verified singly, by whoever holds it and whoever it is shown to, so that neither a lying
dealer nor a lying holder can have the other blamed. Leaves are numbered 2 (x - 1) for the seed's share and
2 (x - 1) + 1 for the private key's; the number is computed by the verifier and never taken from a message.
Source: Merkle tree as in RFC 6962 section 2.1 (leaves and nodes hashed under different labels), padded to a
power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from flute.aggregation.context import info, number
from flute.errors import BadShare
from flute.messages.protocol import Opening
from flute.primitives.keys import digest
from flute.primitives.sharing import check_share

_LEAF: Final = info("share-leaf")
_NODE: Final = info("share-node")
_EMPTY: Final = digest(info("share-none"))


class Kind(IntEnum):
    SEED = 0
    POINT = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a share stands: whose it is, which ticket of theirs, how many holders, which of them."""

    study: str
    dealer: str
    serial: int
    holders: int
    holder: int
    kind: Kind

    @property
    def leaf(self) -> int:
        return 2 * (self.holder - 1) + self.kind


def commit(place: Place, share: bytes, salt: bytes) -> bytes:
    """Hiding as long as `salt` is fresh and secret, binding by SHA-256."""
    return digest(
        _LEAF, place.study.encode(), place.dealer.encode(), number(place.serial), number(place.holders),
        number(place.leaf), share, salt,
    )  # fmt: skip


def root(leaves: Sequence[bytes]) -> bytes:
    return _levels(leaves)[-1][0]


def paths(leaves: Sequence[bytes]) -> tuple[tuple[bytes, ...], ...]:
    """For every leaf the sibling digests on its way to the root."""
    levels = _levels(leaves)[:-1]
    return tuple(tuple(level[(i >> depth) ^ 1] for depth, level in enumerate(levels)) for i in range(len(leaves)))


def check_opening(place: Place, opening: Opening, shares_root: bytes) -> None:
    """Raises: BadShare: not the share that the dealer committed to for this place."""
    check_share(opening.share)
    node = commit(place, opening.share, opening.salt)
    if len(opening.path) != (2 * place.holders - 1).bit_length():
        raise BadShare(f"A share of {place.dealer} comes with a proof of the wrong length.")
    for depth, sibling in enumerate(opening.path):
        left, right = (sibling, node) if place.leaf >> depth & 1 else (node, sibling)
        node = digest(_NODE, left, right)
    if node != shares_root:
        raise BadShare(f"A share of {place.dealer} is not the one that {place.dealer} committed to.")


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    width = 1 << (len(leaves) - 1).bit_length()
    levels = [[*leaves, *[_EMPTY] * (width - len(leaves))]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([digest(_NODE, below[i], below[i + 1]) for i in range(0, len(below), 2)])
    return levels
