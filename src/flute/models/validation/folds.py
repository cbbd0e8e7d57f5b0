"""Folds of patients, and what is asked of many fits at once.

A patient's fold follows from his pseudonym, which stays at his hub, and a public seed.

Parameters of a step that serves several fits: for each how many of its own follow, -1 for one that has ended; then
those, fit by fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import shake_256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Ask
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import MisuseError
from flute.messages.numbers import read_only

Indices = NDArray[np.int64]
_FOLD: Final = b"flute/cross-validate/fold/v1"


def folds_of(data: Dataset, seed: int, folds: int) -> Indices:
    """[n] the fold of each patient, from 0."""
    return np.array([fold_of(seed, str(p), folds) for p in data.pseudonyms], dtype=np.int64)


def fold_of(seed: int, pseudonym: str, folds: int) -> int:
    drawn = shake_256(_FOLD + seed.to_bytes(8, "little") + pseudonym.encode()).digest(8)
    return int.from_bytes(drawn, "little") * folds >> 64


def asked_of(fits: Sequence[Array | None]) -> Ask:
    """What every fit asks, None for one that has ended."""
    lengths = [-1.0 if own is None else float(len(own)) for own in fits]
    return Ask(np.concatenate([lengths, *(own for own in fits if own is not None)]))


def split_asked(parameters: Array, fits: int, step: int) -> list[Array | None]:
    """What was asked of each. Raises: MisuseError: not as `asked_of` writes it."""
    read, wrong = read_only(parameters), MisuseError(f"Step {step} takes the parameters of {fits} fits.")
    if len(read) < fits or not np.isfinite(read).all():
        raise wrong
    lengths, rest = read[:fits], read[fits:]
    if any(one != np.floor(one) or not -1 <= one <= len(rest) for one in lengths):
        raise wrong
    if sum(max(int(one), 0) for one in lengths) != len(rest):
        raise wrong
    own: list[Array | None] = []
    at = 0
    for length in (int(one) for one in lengths):
        own.append(None if length < 0 else rest[at : at + length])
        at += max(length, 0)
    return own
