"""Images that somebody prepared: `.npy` files, named in a column of a CSV file or by patient in a folder.

A file is data and nothing else: pickled objects are never read, and its header is judged before its numbers are.
"""

from __future__ import annotations

import math
import tokenize
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from flute.defaults.images import MAX_IMAGE_NUMBERS
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import Unreachable
from flute.intake.pixels import Picture

_LONGEST: Final = 8 * MAX_IMAGE_NUMBERS + 2**16
"""Bytes of a file: doubles, and a header."""
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
NO_ARRAY: Final[NDArray[Any]] = np.empty(0, dtype=object)
"""Stands for a file that holds none: it is counted as unusable."""


def read_array(path: Path) -> NDArray[Any]:
    """What a `.npy` file holds; NO_ARRAY where it is none, is too large, or leads out of its folder."""
    if ".." in path.parts:
        return NO_ARRAY
    try:
        with path.open("rb") as file:
            raw = BytesIO(file.read(_LONGEST + 1))
        shape, _, dtype = _HEADERS[npy.read_magic(raw)](raw)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > _LONGEST:
            return NO_ARRAY
        raw.seek(0)
        found: NDArray[Any] = npy.read_array(raw, allow_pickle=False)
        return found
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, RecursionError, tokenize.TokenError):
        return NO_ARRAY


def arrays_in(folder: Path, key: bytes | None) -> Iterator[Picture]:
    """One image of each file `PATIENT.npy`. `key`: the hub's own; None where the names are its pseudonyms already.

    Raises: Unreachable: there is no such folder."""
    if not folder.is_dir():
        raise Unreachable("There is no folder of that name whose images could be read.")
    for path in sorted(folder.glob("*.npy")):
        yield (path.stem if key is None else pseudonym(key, path.stem)), read_array(path)
