"""Masked vectors that are too long for one message: one file a round and hub, every block at its place.

Blocks come at least once and in any order, message 1 among them. A second file notes which are there. None is
believed before the hub's message 1, whose signed hash is over all of them; what lies here until then is masked bytes
of bounded number and size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flute.aggregation.codec import Layout
from flute.errors import Equivocation
from flute.messages.protocol import Masked, MaskedBlock, Start
from flute.study.plans import sides


class VectorFiles:
    """The vectors of one round. `folder`: made where it is not there; the caller removes it after the round."""

    def __init__(self, folder: Path, start: Start) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._start = folder, start
        self._layout = Layout(start.width, start.size)
        self._hubs = {pub.hub for pub in start.pubs}

    def put(self, block: MaskedBlock) -> None:
        """Store a block; the same one again changes nothing.

        Raises: Equivocation: of a hub outside the round, of another length, or more than the vector has.
        """
        index = block.index
        if block.hub not in self._hubs or not 0 <= index < self._layout.blocks:
            raise Equivocation(f"A block that claims to come from {block.hub} has no place in this round.")
        if len(block.words) != self._bytes(index):
            raise Equivocation(f"A block of {block.hub} has another length than this round's.")
        _write(self._path(block.hub, "vector"), index * self._bytes(0), block.words)
        _write(self._path(block.hub, "there"), index, _THERE)

    def complete(self, hub: str) -> bool:
        """Has every block of this hub's vector arrived?"""
        path = self._path(hub, "there")
        return path.exists() and path.read_bytes() == _THERE * self._layout.blocks

    def read(self, hub: str, index: int) -> bytes:
        """A block as it was stored. Raises: Equivocation: it never came."""
        path, size = self._path(hub, "vector"), self._bytes(index)
        if not path.exists():
            raise Equivocation(f"No block of the vector of {hub} ever came.")
        with path.open("rb") as file:
            file.seek(index * self._bytes(0))
            data = file.read(size)
        if len(data) != size:
            raise Equivocation(f"Blocks of the vector of {hub} are missing.")
        return data

    def check(self, message: Masked, keys: Mapping[str, bytes]) -> None:
        """Once it is complete. Raises: as `collector.VectorHash`; Equivocation: blocks are missing."""
        if not self.complete(message.hub):
            raise Equivocation(f"Blocks of the vector of {message.hub} are missing.")
        whole = sides.vector_hash(self._start, message.hub)
        for index in range(self._layout.blocks):
            whole.take(self.read(message.hub, index))
        whole.check(message, keys)

    def _bytes(self, index: int) -> int:
        return self._layout.block_words(index) * self._layout.word_bytes

    def _path(self, hub: str, what: str) -> Path:
        return self._folder / f"{hub}.{what}"


_THERE: Final = b"\x01"


def _write(path: Path, at: int, data: bytes) -> None:
    path.touch(mode=0o600)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
