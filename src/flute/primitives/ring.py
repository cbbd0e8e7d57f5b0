"""Arithmetic mod 2^64 on vectors, and their bytes on the wire (64-bit words, little-endian).

Signed integers enter and leave in two's complement, so sums of them are right as long as the true total
lies in [-2^63, 2^63): the caller bounds it (`aggregation.codec`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.errors import Malformed, MisuseError

Ring = NDArray[np.uint64]
Integers = NDArray[np.int64]
WORD_BYTES: Final = 8


def to_ring(values: Integers) -> Ring:
    """int64 [d] as residues mod 2^64, uint64 [d]; a copy."""
    if values.dtype != np.int64 or values.ndim != 1:
        raise MisuseError("Only a flat vector of 64-bit integers can enter the ring.")
    return values.astype(np.uint64)


def from_ring(words: Ring) -> Integers:
    """uint64 [d] as the residues nearest to zero, int64 [d]; a copy."""
    if words.dtype != np.uint64 or words.ndim != 1:
        raise MisuseError("Only a flat vector of 64-bit residues can leave the ring.")
    return words.astype(np.int64)


def add_into(total: Ring, words: Ring) -> None:
    """total += words mod 2^64, in place. Raises: MisuseError: two lengths."""
    if total.shape != words.shape:
        raise MisuseError("Two vectors of different lengths cannot be added.")
    np.add(total, words, out=total)


def to_bytes(words: Ring) -> bytes:
    return words.astype("<u8", copy=False).tobytes()


def from_bytes(raw: bytes, size: int) -> Ring:
    """Read-only uint64 [size]. Raises: Malformed: not exactly `size` words."""
    if len(raw) != size * WORD_BYTES:
        raise Malformed(f"A vector of {size} words takes {size * WORD_BYTES} bytes; {len(raw)} arrived.")
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64, copy=False)
