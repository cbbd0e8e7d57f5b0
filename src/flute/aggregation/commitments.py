"""Commitments of a dealer to every share it deals: hashes under a Merkle root.

A share is then verified singly, by whoever holds it and whoever it is shown to, so that neither a lying
dealer nor a lying holder can have the other blamed. A leaf joins both commitments of CHUNK_HOLDERS holders, so that a
ticket of 30 hubs takes 7 hashes to check and not 61; a holder is given its chunk and the path from there. All of them
are numbered by the verifier and never by a message.

Cut to 128 bits: a holder that wants another share to pass needs a second preimage (2^128). A dealer can find two
shares with one commitment (2^64), but then its shares do not make the secret that it committed to in full, and it is
named. No salt: a share is one of 2^256 values, and whoever holds t - 1 of them would have to guess the secret's 256
bits; so a holder may see its neighbours' commitments. `Committer` keeps those of different tickets apart.
Source: Merkle tree as in RFC 6962 section 2.1 (leaves and nodes hashed under different labels), padded to a
power of two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Final

from flute.aggregation.context import info, number
from flute.errors import BadShare
from flute.messages.protocol import CHUNK_HOLDERS, COMMITMENT_SIZE
from flute.primitives.keys import digest
from flute.primitives.sharing import check_share

Path = tuple[bytes, ...]
_SHARE: Final = info("share-commitment")
_LEAF: Final = digest(info("share-chunk"))
_NODE: Final = digest(info("share-node"))
_EMPTY: Final = digest(info("share-none"))
_PAIR: Final = 2 * COMMITMENT_SIZE
_CHUNK: Final = CHUNK_HOLDERS * _PAIR


class Kind(IntEnum):
    SEED = 0
    POINT = 1


def place(holder: int, kind: Kind) -> int:
    """A share's number among the commitments of a ticket. holder: from 1."""
    return 2 * (holder - 1) + kind


class Committer:
    """Commitments of one ticket: what they have in common is hashed once."""

    def __init__(self, study: str, dealer: str, serial: int, holders: int) -> None:
        self.dealer, self.holders = dealer, holders
        self._common = digest(_SHARE, study.encode(), dealer.encode(), number(serial), number(holders))

    def commit(self, index: int, share: bytes) -> bytes:
        """index: `place`; share: SHARE_SIZE bytes, so that no two inputs are one."""
        return hashlib.sha256(self._common + index.to_bytes(8, "big") + share).digest()[:COMMITMENT_SIZE]

    def check_held(self, holder: int, shares: tuple[bytes, bytes], chunk: bytes, path: Path, root: bytes) -> None:
        """Are these the two shares, of seed and of private key, that the dealer committed to for this holder?

        holder: from 1. chunk, path: as `proofs` gives them. Raises: BadShare.
        """
        for share in shares:
            check_share(share)
        at, inside = divmod(holder - 1, CHUNK_HOLDERS)
        if len(chunk) != min(_CHUNK, self.holders * _PAIR - at * _CHUNK) or len(path) != _depth(self.holders):
            raise BadShare(f"The shares of {self.dealer} come with a proof of the wrong length.")
        first = place(holder, Kind.SEED)
        own = self.commit(first, shares[0]) + self.commit(first + 1, shares[1])
        node = _leaf(chunk)
        for sibling in path:
            left, right = (sibling, node) if at & 1 else (node, sibling)
            node, at = _node(left, right), at >> 1
        if node != root or chunk[_PAIR * inside : _PAIR * (inside + 1)] != own:
            raise BadShare(f"Shares of {self.dealer} are not those that {self.dealer} committed to.")


def root(commitments: Sequence[bytes]) -> bytes:
    return _levels(b"".join(commitments))[-1][0]


def proofs(commitments: Sequence[bytes]) -> list[tuple[bytes, Path]]:
    """For every holder the commitments of its chunk in one string, and the sibling digests on the way to the root."""
    joined = b"".join(commitments)
    paths: list[Path] = [()]
    for level in reversed(_levels(joined)[:-1]):
        paths = [(level[i ^ 1], *paths[i >> 1]) for i in range(len(level))]
    of_chunks = list(zip(_chunks(joined), paths, strict=False))
    return [of_chunks[x // CHUNK_HOLDERS] for x in range(len(commitments) // 2)]


@lru_cache(maxsize=1)
def _levels(joined: bytes) -> list[list[bytes]]:
    """Leaves first. The last tree is kept: whoever checks a ticket's root asks for its proofs next."""
    leaves = list(map(_leaf, _chunks(joined)))
    levels = [[*leaves, *[_EMPTY] * ((1 << (len(leaves) - 1).bit_length()) - len(leaves))]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append(list(map(_node, below[::2], below[1::2])))
    return levels


def _chunks(joined: bytes) -> list[bytes]:
    return [joined[start : start + _CHUNK] for start in range(0, len(joined), _CHUNK)]


def _depth(holders: int) -> int:
    """Of the tree over the chunks of so many holders."""
    return ((holders - 1) // CHUNK_HOLDERS).bit_length()


def _leaf(chunk: bytes) -> bytes:
    """The label's hash comes first; how long the chunk at a place is, every verifier knows."""
    return hashlib.sha256(_LEAF + chunk).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
