"""One patient's pull on a sum, bounded: clip each row, then round it to integers without bias."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.dp.noise import Keystream
from flute.errors import MisuseError

Array = NDArray[np.float64]

MIN_CLIP_NORM: Final = 2.0**-400
MAX_CLIP_NORM: Final = 2.0**400
"""Inside these, no product below underflows to where its rounding could matter, and none overflows."""
MAX_SCALED: Final = 2**50
"""Largest |coordinate| times scale: below it a double's fraction has three bits left, and floor is exact."""
MAX_SUM: Final = 2**62
"""Patients times the largest rounded coordinate; an int64 sum stays inside with one guard bit."""

_BLOCK: Final = 2**18
_ROUNDING: Final = 16
_UNIFORM_BITS: Final = 53
_LABEL: Final = 16
"""Keystream of rounding; the labels of noise are others, so that one seed may serve both."""


def clip(updates: Array, clip_norm: float) -> Array:
    """Scale each row to L2 norm at most `clip_norm`; a shorter row is left as it is.

    Guarantees: the exact norm of the returned doubles is at most C, rounding included; a row with a value
    that is not finite becomes 0 (it would otherwise switch the bound off). The argument is not changed.
    How: a row is divided by its largest |value|, so that no square over- or underflows. A norm of d terms,
    their division included, is then off by a factor under 1 + (d + 8) 2^-53, however it was summed; a row is
    kept only if its norm passes with that margin, and is otherwise shrunk with twice that margin.
    Args: updates: float64 [n patients, d]. clip_norm: C, unit of the update.
    Raises: MisuseError: not a table of float64, or C outside [2^-400, 2^400].
    Source: Abadi et al. 2016, Algorithm 1.
    """
    _require_table(updates)
    if not MIN_CLIP_NORM <= clip_norm <= MAX_CLIP_NORM:
        raise MisuseError(f"A clip norm must be positive and finite (2^-400 to 2^400), not {clip_norm}.")
    clipped = np.zeros_like(updates, order="C")
    for rows in _blocks(updates):
        clipped[rows] = _clip_block(updates[rows], clip_norm)
    return clipped


def _clip_block(rows: Array, clip_norm: float) -> Array:
    margin = (rows.shape[1] + _ROUNDING) * 2.0**-53
    safe = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    peak = np.abs(safe).max(axis=1, initial=0.0)
    unit = safe / np.where(peak > 0, peak, 1.0)[:, None]
    norm = np.sqrt(np.einsum("ij,ij->i", unit, unit))
    with np.errstate(over="ignore"):
        long = ~(peak * norm * (1 + margin) <= clip_norm)
    safe[long] = unit[long] * (clip_norm / norm[long] * (1 - 2 * margin))[:, None]
    return safe


def quantise(updates: Array, scale: float, rand: bytes) -> NDArray[np.int64]:
    """Sum of all patients' rows on the integer grid, int64 [d]: scale, round each row stochastically, add.

    Guarantees: every coordinate of every row becomes one of its two neighbours on the grid, upper with the
    chance of its fraction (to 2^-53), independently and unconditionally: no redraw, so nothing about the data
    shows in how long it takes or in what is drawn. Unbiased. Rows are rounded one by one before they are
    added, so that one patient's rounded row is bounded (`calibrate.Mechanism.sensitivity`), not the sum's.
    The r-th row reads the r-th stretch of the keystream: leaving out the last row leaves the others as they
    were.
    Args: updates: float64 [n, d], rows already clipped. scale: grid steps per unit.
        rand: SEED_SIZE bytes, fresh operating-system entropy for every release.
    Raises: MisuseError: a value that is not finite, or so large that a double or the int64 sum could not hold
        it exactly. Rows clipped and scaled by one `Mechanism` never are (it bounds C times scale).
    Source: Kairouz, Liu, Steinke 2021, Algorithm 1, without its conditioning on the norm.
    """
    _require_table(updates)
    if not (math.isfinite(scale) and scale > 0):
        raise MisuseError(f"A scale must be positive and finite, not {scale}.")
    _require_room(updates, scale)
    stream = Keystream(rand, _LABEL)
    total = np.zeros(updates.shape[1], dtype=np.int64)
    for rows in _blocks(updates):
        for columns in _stretches(updates.shape[1]):
            total[columns] += _round(updates[rows, columns] * scale, stream).sum(axis=0)
    return total


def _round(values: Array, stream: Keystream) -> NDArray[np.int64]:
    """Each value to the integer below or above it: above where a uniform 53-bit number is under its fraction."""
    words = np.frombuffer(stream.take(8 * values.size), dtype="<u8").reshape(values.shape)
    uniform = (words >> np.uint64(64 - _UNIFORM_BITS)).astype(np.float64)
    below = np.floor(values)
    return below.astype(np.int64) + (uniform < (values - below) * 2.0**_UNIFORM_BITS)


def _require_table(updates: Array) -> None:
    if updates.ndim != 2 or updates.dtype != np.float64:
        raise MisuseError("Updates must be float64 with one row per patient.")


def _require_room(updates: Array, scale: float) -> None:
    for rows in _blocks(updates):
        bound = float(np.abs(updates[rows]).max(initial=0.0)) * scale
        if not bound <= MAX_SCALED or len(updates) * (bound + 1) > MAX_SUM:
            raise MisuseError(
                "A row holds a value that is not finite or too large for the integer grid; clip rows before they "
                "are rounded, and scale them by the same mechanism."
            )


def _blocks(updates: Array) -> list[slice]:
    """Rows in portions of about _BLOCK numbers, so that temporaries stay small however many patients there are."""
    step = max(1, _BLOCK // max(1, updates.shape[1]))
    return [slice(start, start + step) for start in range(0, len(updates), step)]


def _stretches(size: int) -> list[slice]:
    """Columns in portions of _BLOCK; more than one only where a portion of rows is a single row."""
    return [slice(start, start + _BLOCK) for start in range(0, size, _BLOCK)]
