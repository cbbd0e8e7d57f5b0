"""Public numbers of a step as they travel: float64, little-endian, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flute.errors import Malformed

_SIZE = 8


def read_only(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [k] that nobody changes through; the same memory where `values` is such an array already."""
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    if found.flags.writeable:
        found = found.view()
        found.flags.writeable = False
    return found


def write_numbers(values: NDArray[np.float64]) -> bytes:
    """float64 [k] as 8 k bytes."""
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def read_numbers(raw: bytes) -> NDArray[np.float64]:
    """Read-only float64 [k], over the bytes themselves; they may be no finite numbers.

    Raises: Malformed: the length is no multiple of 8."""
    if len(raw) % _SIZE:
        raise Malformed("The parameters of a step are numbers of 8 bytes each; a part of one is left over.")
    return read_only(np.frombuffer(raw, dtype="<f8"))
