"""One patient's pull on a sum, bounded: clip each row, then round it to integers without bias."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.dp.noise import SPARE, Keystream
from flute.errors import MisuseError

Array = NDArray[np.float64]

MIN_CLIP_NORM: Final = 2.0**-400
MAX_CLIP_NORM: Final = 2.0**400
"""Inside these, no product below underflows to where its rounding could matter, and none overflows."""
MAX_SCALED: Final = 2**50
"""Largest |coordinate| times scale: below it a double's fraction has three bits left, and floor is exact."""
MAX_SUM: Final = 2**62
"""Patients times the largest rounded coordinate; an int64 sum stays inside with one guard bit."""

_PORTION: Final = 2**15
"""Numbers at a time: temporaries of 256 KiB stay in the second-level cache, and the keystream's own are kept."""
_STRETCH: Final = 2**13
"""Squares of a row that are added at a time: more, and numpy's order depends on how many rows there are."""
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
    clipped = np.array(updates, order="C")
    for rows in portions(clipped):
        _clip_rows(rows, clip_norm)
    return clipped


def _clip_rows(rows: Array, clip_norm: float) -> None:
    """In place. One row comes to the same doubles among whatever others it stands."""
    margin = (rows.shape[1] + _ROUNDING) * 2.0**-53
    peak = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    lost = ~np.isfinite(peak)
    rows[lost], peak[lost] = 0.0, 0.0
    peak[peak == 0] = 1.0
    norm = np.sqrt(_squares(rows, peak))
    with np.errstate(over="ignore"):
        long = ~(peak * norm * (1 + margin) <= clip_norm)
    rows /= np.where(long, peak, 1.0)[:, None]
    rows *= np.where(long, clip_norm / np.where(long, norm, 1.0) * (1 - 2 * margin), 1.0)[:, None]


def _squares(rows: Array, peak: Array) -> Array:
    """Sum of squares of each row over its peak, [k], in stretches of a fixed length."""
    total = np.zeros(len(rows))
    for start in range(0, rows.shape[1], _STRETCH):
        unit = rows[:, start : start + _STRETCH] / peak[:, None]
        total += np.einsum("ij,ij->i", unit, unit)
    return total


class GridSum:
    """The sum of patients' rows on the integer grid, a portion at a time: scale, round each row, add.

    Guarantees: every coordinate of every row becomes one of its two neighbours on the grid, upper with the
    chance of its fraction (to 2^-53), independently and unconditionally: no redraw, so nothing about the data
    shows in how long it takes or in what is drawn. Unbiased. Rows are rounded one by one before they are
    added, so that one patient's rounded row is bounded (`calibrate.Mechanism.sensitivity`), not the sum's.
    The r-th row reads the r-th stretch of the keystream, however rows are divided into portions: leaving out the
    last row leaves the others as they were. After an error the sum is not to be used.
    Args: size: d. scale: grid steps per unit.
        rand: SEED_SIZE bytes, fresh operating-system entropy for every release.
    Raises: MisuseError: a scale that is none, a seed of another length.
    Source: Kairouz, Liu, Steinke 2021, Algorithm 1, without its conditioning on the norm.
    """

    def __init__(self, size: int, scale: float, rand: bytes) -> None:
        if not (math.isfinite(scale) and scale > 0):
            raise MisuseError(f"A scale must be positive and finite, not {scale}.")
        self._scale = scale
        self._stream = Keystream(rand, _LABEL)
        self._room = _Room()
        self._rows = 0
        self._largest = 0.0
        self.total: NDArray[np.int64] = np.zeros(size, dtype=np.int64)

    def add(self, rows: Array) -> None:
        """Rows float64 [k, d], clipped already.

        Raises: MisuseError: another number of columns, a value that is not finite, or so large that a double, or the
            int64 sum of all rows that were added, could not hold it exactly. Rows clipped and scaled by one
            `Mechanism` never are (it bounds C times scale).
        """
        _require_table(rows)
        if rows.shape[1] != len(self.total):
            raise MisuseError(f"Rows of {len(self.total)} numbers are added here, not of {rows.shape[1]}.")
        for portion in portions(rows):
            self._require_room(portion)
            for start in range(0, len(self.total), _PORTION):
                columns = slice(start, start + _PORTION)
                self.total[columns] += _round(portion[:, columns], self._scale, self._stream, self._room)

    def _require_room(self, rows: Array) -> None:
        bound = float(np.maximum(rows.max(initial=0.0), -rows.min(initial=0.0))) * self._scale
        self._rows += len(rows)
        self._largest = max(self._largest, bound)
        if not bound <= MAX_SCALED or self._rows * (self._largest + 1) > MAX_SUM:
            raise MisuseError(
                "A row holds a value that is not finite or too large for the integer grid; clip rows before they "
                "are rounded, and scale them by the same mechanism."
            )


def quantise(updates: Array, scale: float, rand: bytes) -> NDArray[np.int64]:
    """Sum of all rows of one table on the integer grid, int64 [d]; see `GridSum`.

    Args: updates: float64 [n, d], rows already clipped. scale: grid steps per unit. rand: SEED_SIZE fresh bytes.
    """
    _require_table(updates)
    summed = GridSum(updates.shape[1], scale, rand)
    summed.add(updates)
    return summed.total


class _Room:
    """What rounding one portion needs: memory that is asked for anew each time costs more than all arithmetic."""

    def __init__(self) -> None:
        self._numbers = np.empty((3, _PORTION), dtype=np.float64)
        self._above = np.empty(_PORTION, dtype=np.bool_)
        self.random = np.empty(8 * _PORTION + SPARE, dtype=np.uint8)

    def of(self, shape: tuple[int, ...]) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """Three tables of numbers and one of bits, not cleared."""
        size = math.prod(shape)
        values, below, uniform = (row[:size].reshape(shape) for row in self._numbers)
        return values, below, uniform, self._above[:size].reshape(shape)


def _round(rows: Array, scale: float, stream: Keystream, room: _Room) -> NDArray[np.int64]:
    """The sum of at most _PORTION scaled values, each taken to the integer below or above it: above where a uniform
    53-bit number is under its fraction. Lies in `room`, unless there are several rows."""
    values, below, uniform, above = room.of(rows.shape)
    words = stream.take(8 * rows.size, room.random).view("<u8").reshape(rows.shape)
    words >>= np.uint64(64 - _UNIFORM_BITS)
    np.copyto(uniform, words.view("<i8"))
    np.multiply(rows, scale, out=values)
    np.floor(values, out=below)
    values -= below
    values *= 2.0**_UNIFORM_BITS
    np.less(uniform, values, out=above)
    grid = uniform.view(np.int64)
    np.copyto(grid, below, casting="unsafe")
    grid += above
    return np.asarray(grid[0] if len(grid) == 1 else grid.sum(axis=0))


def portions(rows: Array) -> Iterator[Array]:
    """The rows in stretches of about _PORTION numbers, so that temporaries stay small however many patients there
    are; one row at least."""
    step = max(1, _PORTION // max(1, rows.shape[1]))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _require_table(updates: Array) -> None:
    if updates.ndim != 2 or updates.dtype != np.float64:
        raise MisuseError("Updates must be float64 with one row per patient.")
