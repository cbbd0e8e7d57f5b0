"""Public numbers of a step as they travel, in one of two forms.

    wide     float64, little-endian, one after the other: 8 k bytes
    narrow   one byte, 4, and then float32, little-endian: 4 k + 1 bytes, which no wide form can have

Narrow is written where every number is one of 32 bits and there are NARROW_FROM and more of them: weights of
networks, whose messages are then half as long. Which form it is stands in the bytes themselves, so whatever hashes or
signs them covers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.defaults.rounds import NARROW_FROM
from flute.errors import Malformed

_WIDE: Final = 8
_NARROW: Final = 4
_MARK: Final = bytes([_NARROW])


def read_only(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [k] that nobody changes through; the same memory where `values` is such an array already."""
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    if found.flags.writeable:
        found = found.view()
        found.flags.writeable = False
    return found


def nearest_narrow(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [k], each the nearest number of 32 bits; unchanged where one of them is too large to have one."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return narrow.astype(np.float64) if np.isfinite(narrow).all() else values


def write_numbers(values: NDArray[np.float64]) -> bytes:
    """float64 [k] in the narrow form where that loses nothing and pays, else in the wide one."""
    if values.size >= NARROW_FROM:
        with np.errstate(over="ignore"):
            narrow = values.astype("<f4")
        if (narrow == values).all():
            return b"".join((_MARK, narrow.data))
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def read_numbers(raw: bytes) -> NDArray[np.float64]:
    """Read-only float64 [k], of the wide form over the bytes themselves; they may be no finite numbers.

    Raises: Malformed: of neither form, or narrow and too short for it."""
    if len(raw) % _WIDE == 0:
        return read_only(np.frombuffer(raw, dtype="<f8"))
    if raw[:1] != _MARK or len(raw) % _NARROW != 1:
        raise Malformed("The parameters of a step are numbers of 8 bytes each; a part of one is left over.")
    if len(raw) // _NARROW < NARROW_FROM:
        raise Malformed(f"Fewer than {NARROW_FROM} parameters are written as numbers of 8 bytes each.")
    return read_only(np.frombuffer(raw, dtype="<f4", offset=1).astype(np.float64))
