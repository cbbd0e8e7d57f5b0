"""How integers travel: residues of 16, 32 or 64 bits, or three 21-bit lanes in 64, and the test of an opened total.

| width | per coordinate | room: largest |total| | for |
| ----- | -------------- | --------------------- | --- |
| 16    | 2.00 bytes     | 24,576                | long noised vectors |
| 21    | 2.67 bytes     | 786,432               | long vectors, with or without noise |
| 32    | 4.00 bytes     | 2^30                  | noised sums of many patients |
| 64    | 8.00 bytes     | 2^62                  | exact statistics |

Lanes carry into each other: mask and sum live mod 2^64, and whoever reads the total takes the carries off again,
since each lane's total is smaller than its lane. A quarter (narrow) or a half (wide) of every range stays empty, so
that what is out of bounds shows. Every vector ends with SENTINELS coordinates of 1: their sum is the number of hubs,
or what was opened is not the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from flute.defaults import BLOCK_COORDINATES, FIXED_POINT_BITS, SENTINELS
from flute.errors import BadTotal, MisuseError
from flute.primitives.prg import Stream
from flute.primitives.ring import Integers, Ring

Floats = NDArray[np.floating]
Width = Literal[16, 21, 32, 64]
WIDTHS: Final[tuple[Width, ...]] = (16, 21, 32, 64)
ROOM: Final[dict[int, int]] = {16: 3 * 2**13, 21: 3 * 2**18, 32: 2**30, 64: 2**62}
"""Largest magnitude that a total may have."""
_WORD_BYTES: Final[dict[int, int]] = {16: 2, 21: 8, 32: 4, 64: 8}
_LANES: Final = 3
_LANE: Final = 21
_HALF: Final = 2**20
"""Of a lane's range."""
_HALVES: Final = np.uint64(_HALF | _HALF << _LANE | _HALF << 2 * _LANE)
_PART: Final = 2**15
"""Coordinates encoded at a time, so that temporaries stay in the cache and their chance is one block of a stream."""
_MORE_BITS: Final = 62
_LEAST_CLIP: Final = 1e-30
"""Its scale is still a float32."""
_STRETCH: Final = 2**14
"""Words of lanes put together or taken apart at a time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a step's agreed numbers allow, on the integer grid.

    part: largest |coordinate| of one hub's answer, its noise's tail included. total: of the sum of all hubs'.
    norm: L2 norm of that sum; infinite where a step bounds coordinates only.
    """

    part: int
    total: int
    norm: float = math.inf

    def __post_init__(self) -> None:
        if not 0 < self.part <= self.total or not self.norm > 0:
            raise MisuseError("The bounds of a step do not fit together.")


def exact_bounds(hubs: int) -> Bounds:
    """All the room of 64 bits, shared by `hubs`: a coordinate of 2^62 / hubs and more is refused."""
    if hubs < 1:
        raise MisuseError("A sum needs at least one hub.")
    part = (ROOM[64] - 1) // hubs
    return Bounds(part, hubs * part)


def width_for(total_bound: int) -> Width:
    """The narrowest width with room for such a total. Raises: MisuseError: none has."""
    for width in WIDTHS:
        if total_bound <= ROOM[width]:
            return width
    raise MisuseError(f"A total of up to {total_bound} needs more than the {ROOM[64]} that 64 bits hold.")


@dataclass(frozen=True, slots=True)
class Layout:
    """`size` coordinates of `width` bits with their sentinels, in blocks of BLOCK_COORDINATES."""

    width: Width
    size: int

    def __post_init__(self) -> None:
        if self.width not in WIDTHS or self.size < 1:
            raise MisuseError("A vector has at least one coordinate, of 16, 21, 32 or 64 bits.")

    @property
    def word_bytes(self) -> int:
        return _WORD_BYTES[self.width]

    @property
    def blocks(self) -> int:
        return -(-(self.size + SENTINELS) // BLOCK_COORDINATES)

    @property
    def length(self) -> int:
        """Bytes of the whole masked vector."""
        return sum(self.block_words(k) for k in range(self.blocks)) * self.word_bytes

    def block_size(self, index: int) -> int:
        """Coordinates of block `index`, sentinels included."""
        if not 0 <= index < self.blocks:
            raise MisuseError(f"A vector of {self.blocks} blocks has no block {index}.")
        return min(BLOCK_COORDINATES, self.size + SENTINELS - index * BLOCK_COORDINATES)

    def block_words(self, index: int) -> int:
        return self._words(self.block_size(index))

    def values_of(self, index: int) -> slice:
        """Which of the vector's own coordinates block `index` holds."""
        start = index * BLOCK_COORDINATES
        return slice(min(start, self.size), min(start + self.block_size(index), self.size))

    def _words(self, coordinates: int) -> int:
        return -(-coordinates // _LANES) if self.width == 21 else coordinates

    def pack(self, index: int, values: Integers, bounds: Bounds) -> Ring:
        """Block `index` of one hub's answer as residues, sentinels behind the last coordinate.

        values: signed integers, those of `values_of(index)`. Raises: MisuseError: another number of them, not
        integers, a coordinate beyond the bounds, or bounds beyond this width.
        """
        own = self.values_of(index)
        if values.dtype.kind != "i" or values.shape != (own.stop - own.start,):
            raise MisuseError("A block of an answer holds another number of coordinates, or no integers.")
        self._require_room(bounds)
        if values.size and (int(values.max()) > bounds.part or int(values.min()) < -bounds.part):
            raise MisuseError("An answer holds a number beyond the range that was agreed for this step.")
        ones = self.block_size(index) - values.size
        if self.width == 21:
            return _pack_lanes(values, ones)
        words = np.empty(values.size + ones, dtype=f"i{self.word_bytes}")
        words[: values.size] = values
        words[values.size :] = 1
        return words.view(f"u{self.word_bytes}")

    def unpack(self, index: int, words: Ring) -> Integers:
        """The nearest integers to zero that block `index` of a total stands for, sentinels included.

        int16, int32 or int64; for the whole-word widths the same memory as `words`.
        """
        if words.shape != (self.block_words(index),) or words.dtype.itemsize != self.word_bytes:
            raise MisuseError("A block of a total has another length than its layout.")
        if self.width == 21:
            return _unpack_lanes(words)[: self.block_size(index)]
        return words.view(f"i{self.word_bytes}")

    def _require_room(self, bounds: Bounds) -> None:
        if bounds.total > ROOM[self.width]:
            raise MisuseError(
                f"Totals of up to {bounds.total} were agreed, and {self.width} bits hold {ROOM[self.width]}."
            )


class TotalReader:
    """Turns the blocks of an opened total into integers, and tests that they can be the sum that was asked for.

    `read` every block in order, then `finish`: until that has returned, nothing may be used.
    """

    def __init__(self, layout: Layout, *, survivors: int, bounds: Bounds) -> None:
        if survivors < 1:
            raise MisuseError("A sum needs at least one hub.")
        layout._require_room(bounds)
        self._layout, self._survivors, self._bounds = layout, survivors, bounds
        self._next = 0
        self._squares = 0.0

    def read(self, words: Ring) -> Integers:
        """The next block's own coordinates. Raises: BadTotal: wrong sentinels, or a coordinate out of bounds."""
        values = self._layout.unpack(self._next, words)
        own = self._layout.values_of(self._next)
        inside, sentinels = values[: own.stop - own.start], values[own.stop - own.start :]
        self._next += 1
        if (sentinels != self._survivors).any():
            raise BadTotal(
                "What was opened is not the sum of the answers: its check numbers are wrong. A hub masked its vector "
                "differently, or a vector was changed on the way. The total is not used; the round stays charged."
            )
        if inside.size and max(int(inside.max()), -int(inside.min())) > self._bounds.total:
            raise BadTotal(_OUTSIDE)
        if self._bounds.norm != math.inf:
            self._squares += _sum_of_squares(inside)
        return inside

    def finish(self) -> None:
        """Raises: BadTotal: the norm is beyond its bound. MisuseError: blocks are missing."""
        if self._next != self._layout.blocks:
            raise MisuseError("A total was to be used before all of its blocks were read.")
        if math.sqrt(self._squares) > self._bounds.norm:
            raise BadTotal(_OUTSIDE)


_OUTSIDE: Final = (
    "What was opened lies outside what these hubs' answers can add up to: at least one of them sent more than its "
    "clip norm allows. The total is not used; the round stays charged."
)


def read_total(words: Ring, layout: Layout, *, survivors: int, bounds: Bounds) -> Integers:
    """The opened total of a vector of one block as integers [size]; see `TotalReader` for what is tested."""
    reader = TotalReader(layout, survivors=survivors, bounds=bounds)
    values = reader.read(words)
    reader.finish()
    return values


# --- real numbers ------------------------------------------------------------------------------


def encode_exact(values: NDArray[np.float64], *, hubs: int, bits: int = FIXED_POINT_BITS) -> Integers:
    """float64 [d] to int64 [d] at `bits` fraction bits, rounded to nearest, ties to even; for width 64.

    Guarantees: |decoded - value| <= 2^-(bits + 1) per coordinate; over n hubs the decoded total differs from
    the true sum by at most n 2^-(bits + 1) plus its own float64 rounding (relative 2^-53).
    Raises: MisuseError: not a flat vector, not finite, or 2^62 / hubs and more after scaling.
    """
    _check_bits(bits)
    if values.dtype != np.float64 or values.ndim != 1:
        raise MisuseError("Only a flat vector of float64 numbers can be encoded.")
    _require_finite(values)
    limit = math.ldexp(float(exact_bounds(hubs).part), -bits)
    if (np.abs(values) >= limit).any():
        raise MisuseError(
            f"An answer holds a number of magnitude {limit:.6g} or more, which a sum over {hubs} hubs at {bits} "
            "fraction bits cannot hold. Standardise the variables by reference values, or agree on fewer bits."
        )
    return np.rint(np.ldexp(values, bits)).astype(np.int64)


def decode_exact(total: Integers, *, bits: int = FIXED_POINT_BITS) -> NDArray[np.float64]:
    """int64 [d] totals as float64 [d]; see `encode_exact` for the error."""
    _check_bits(bits)
    return np.ldexp(total.astype(np.float64), -bits)


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Real numbers in [-clip, clip] on a grid as fine as the width allows a sum of `hubs`; without noise.

    width: 16, 21 or 32 (at 64 bits `encode_exact` is finer than any noise). Each number is rounded stochastically,
    so that a sum over hubs and rounds is not biased. Guarantees, per coordinate and in parts of the clip: the mean
    over n hubs is off by at most n / (room - 2n), and by a root mean square of sqrt(n / 6) / (room - 2n), with room
    24,576 at 16 bits and 786,432 at 21; that is 2.9e-6 at 21 bits and 30 hubs. An upper neighbour has its fraction's
    chance to within 2^-11, and float32's own precision comes on top.
    """

    width: Width
    hubs: int
    clip: float

    def __post_init__(self) -> None:
        if not (_LEAST_CLIP <= self.clip <= 1 / _LEAST_CLIP and 1 <= self.hubs < ROOM[self.width] // 4):
            raise MisuseError("A fixed point needs a clip from 1e-30 to 1e30, and more room than hubs.")
        if self.width == 64:
            raise MisuseError("At 64 bits numbers are encoded exactly: encode_exact.")

    @property
    def scale(self) -> float:
        """Grid steps per unit."""
        return (ROOM[self.width] - 2 * self.hubs) / (self.hubs * self.clip)

    @property
    def bounds(self) -> Bounds:
        part = ROOM[self.width] // self.hubs
        return Bounds(part, self.hubs * part)

    def encode(self, values: Floats, *, rand: bytes) -> Integers:
        """float [d] clipped coordinate by coordinate and rounded, int16 (16 bits) or int32 [d].

        rand: 32 fresh bytes. Raises: MisuseError: not a flat vector of floats, or a value that is not finite: it
        would switch the clip off.
        """
        if values.ndim != 1 or values.dtype.kind != "f":
            raise MisuseError("Only a flat vector of real numbers can be encoded.")
        chance = Stream(rand)
        encoded = np.empty(values.size, dtype=np.int16 if self.width == 16 else np.int32)
        for start in range(0, values.size, _PART):
            self._round(values[start : start + _PART], encoded[start : start + _PART], chance)
        return encoded

    def _round(self, part: Floats, into: Integers, chance: Stream) -> None:
        """floor(x s + u), u uniform: in integers of 2^-k of a grid step, so that nothing but x s 2^k is rounded."""
        real, whole = (np.float64, np.int64) if self.width == 32 else (np.float32, np.int32)
        fraction = min(16, np.iinfo(whole).bits - 2 - self.bounds.part.bit_length())
        low, high = part.min(), part.max()
        if not (math.isfinite(low) and math.isfinite(high)):  # a NaN anywhere is the least and the greatest
            raise MisuseError(_NOT_FINITE)
        given: NDArray[Any] = np.clip(part, -self.clip, self.clip) if low < -self.clip or high > self.clip else part
        grid: NDArray[Any] = given.astype(real, copy=False)
        grid = grid * real(math.ldexp(self.scale, fraction))
        numbers = np.rint(grid, out=grid).astype(whole)
        (block,) = chance.blocks(2 * part.size)
        numbers += np.frombuffer(block, dtype="<u2") >> np.uint16(16 - fraction)
        numbers >>= fraction
        into[:] = numbers

    def decode(self, total: Integers) -> NDArray[np.float64]:
        """Totals [d] as sums in the unit of the values."""
        return np.divide(total, self.scale, dtype=np.float64)


def _pack_lanes(values: Integers, ones: int) -> Ring:
    """Lane k of word i is coordinate k W + i, W the number of words: three stretches laid over each other."""
    count = values.size + ones
    width = -(-count // _LANES)
    words = np.zeros(width, dtype=np.int64)
    for start in range(0, width, _STRETCH):
        part = words[start : start + _STRETCH]
        low, middle, high = (values[at : at + part.size] for at in range(start, _LANES * width, width))
        part[: high.size] = high
        for lane in (middle, low):
            part <<= _LANE
            part[: lane.size] += lane
    for place in range(values.size, count):
        words[place % width] += 1 << _LANE * (place // width)
    return words.view(np.uint64)


def _unpack_lanes(words: Ring) -> Integers:
    """int32 [3 W]; the inverse of `_pack_lanes` as long as every lane's number is within 2^20.

    A lane below zero has borrowed one from the lane above. Half a range added to each makes all of them positive,
    which gives back what was borrowed; it is taken off again lane by lane.
    """
    values = np.empty((_LANES, words.size), dtype=np.int32)
    for start in range(0, words.size, _STRETCH):
        left = words[start : start + _STRETCH] + _HALVES
        for lane in values[:, start : start + _STRETCH]:
            np.copyto(lane, left, casting="unsafe")
            lane &= 2 * _HALF - 1
            lane -= _HALF
            left >>= _LANE
    return values.reshape(-1)


def _sum_of_squares(values: Integers) -> float:
    return sum(
        float(np.square(values[start : start + _PART], dtype=np.float64).sum())
        for start in range(0, values.size, _PART)
    )


def _require_finite(values: Floats) -> None:
    if not np.isfinite(values).all():
        raise MisuseError(_NOT_FINITE)


_NOT_FINITE: Final = "An answer holds a number that is not finite; it cannot be summed."


def _check_bits(bits: int) -> None:
    if not 0 <= bits <= _MORE_BITS:
        raise MisuseError(f"Fraction bits lie between 0 and {_MORE_BITS}.")
