"""Bytes of a fixed layout, read from the front: big-endian numbers and byte strings led by their length."""

from __future__ import annotations

from flute.errors import MalformedEvidence


class Octets:
    """A reader that never reads past the end. `what`: said in errors; `reason`: their slug."""

    def __init__(self, raw: bytes, what: str, reason: str) -> None:
        self._raw = raw
        self._at = 0
        self._what = what
        self._reason = reason

    def refused(self, why: str) -> MalformedEvidence:
        return MalformedEvidence(f"A TPM quote is not taken because of {self._what}: {why}.", reason=self._reason)

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._raw):
            raise self.refused("it ends too early")
        self._at += size
        return self._raw[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self, size_of_length: int) -> bytes:
        return self.take(self.number(size_of_length))

    def require_end(self) -> None:
        if self._at != len(self._raw):
            raise self.refused("something stands behind it")
