"""Vectors of residues mod 2^16, 2^32 or 2^64, and their bytes on the wire (little-endian words).

The width is the array's own type. What the residues mean, and how far sums may reach, is the codec's business
(`aggregation.codec`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.errors import Malformed, MisuseError

Ring = NDArray[Any]
"""uint16, uint32 or uint64 [words]."""
Integers = NDArray[Any]
"""Signed integers [coordinates]: int16, int32 or int64."""
WORD_BYTES: Final = (2, 4, 8)


def check_ring(words: Ring) -> None:
    """Raises: MisuseError: not a flat vector of 16-, 32- or 64-bit residues."""
    if words.ndim != 1 or words.dtype.kind != "u" or words.dtype.itemsize not in WORD_BYTES:
        raise MisuseError("Only a flat vector of 16-, 32- or 64-bit residues is in the ring.")


def add_into(total: Ring, words: Ring) -> None:
    """total += words, residue by residue, in place. Raises: MisuseError: two lengths or two widths."""
    if total.shape != words.shape or total.dtype != words.dtype:
        raise MisuseError("Two vectors of different lengths or widths cannot be added.")
    np.add(total, words, out=total)


def to_bytes(words: Ring) -> bytes:
    check_ring(words)
    return words.astype(words.dtype.newbyteorder("<"), copy=False).tobytes()


def from_bytes(raw: bytes | bytearray | memoryview, size: int, word_bytes: int) -> Ring:
    """Read-only residues [size] over the bytes themselves, not a copy of them.

    Raises: Malformed: not exactly `size` words of `word_bytes` bytes.
    """
    if word_bytes not in WORD_BYTES:
        raise MisuseError("Residues take 2, 4 or 8 bytes.")
    if len(raw) != size * word_bytes:
        raise Malformed(f"A vector of {size} words takes {size * word_bytes} bytes; {len(raw)} arrived.")
    words = np.frombuffer(raw, dtype=f"<u{word_bytes}").astype(f"u{word_bytes}", copy=False)
    words.flags.writeable = False
    return words
