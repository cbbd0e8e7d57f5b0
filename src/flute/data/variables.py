"""Variables as a study declares them, and how raw columns become numbers.

A value that is not usable (not a number, outside its declared range, not among its levels) is *missing*
and counted; it is never clamped into the range, since that would invent a patient.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from flute.defaults.images import MAX_IMAGE_NUMBERS, MAX_IMAGE_SIDE
from flute.errors import MisuseError
from flute.messages.limits import Name

Array = NDArray[np.float64]
Kind = Literal["number", "binary", "category", "image"]
Shape = Annotated[tuple[Annotated[int, Meta(ge=1, le=MAX_IMAGE_SIDE)], ...], Meta(min_length=3, max_length=4)]
"""(channels, height, width) or (channels, depth, height, width)."""

_ARTICLE = {"number": "a number", "image": "an image"}
_TRUE = frozenset({"1", "1.0", "true", "yes", "y"})
_FALSE = frozenset({"0", "0.0", "false", "no", "n"})


class Variable(Struct, frozen=True, forbid_unknown_fields=True):
    """One variable of a dataset.

    number: `low` and `high` are public bounds in `unit` (UCUM); they bound what one patient can contribute.
    binary: 0 or 1. category: one of `levels`, coded by position (0 is the first).
    image: numbers in [`low`, `high`] of this `shape`, which the other kinds have none of (it is left out of what is
    encoded, so that what was agreed before there were images keeps its digest).
    """

    name: Name
    kind: Kind
    low: float = 0.0
    high: float = 1.0
    levels: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=64)] = ()
    unit: Annotated[str, Meta(max_length=32)] = ""
    label: Annotated[str, Meta(max_length=200)] = ""
    shape: Shape | UnsetType = UNSET

    def __post_init__(self) -> None:
        self._require_shape()
        ranged = self.kind in ("number", "image")
        if ranged and not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name}: {_ARTICLE[self.kind]} needs a range [low, high] with low < high")
        if self.kind == "category" and (len(self.levels) < 2 or len(set(self.levels)) != len(self.levels)):
            raise ValueError(f"{self.name}: a category needs at least two different levels")

    def _require_shape(self) -> None:
        if (self.kind == "image") != (self.shape is not UNSET):
            raise ValueError(f"{self.name}: a shape is what an image needs, and what no other variable has")
        # What a program builds is not decoded, so the field's own limits are held against it here.
        sides = (1, 1, 1) if self.shape is UNSET else self.shape
        if len(sides) not in (3, 4) or not all(1 <= side <= MAX_IMAGE_SIDE for side in sides):
            raise ValueError(f"{self.name}: a shape is (channels, height, width) or (channels, depth, height, width)")
        if math.prod(sides) > MAX_IMAGE_NUMBERS:
            raise ValueError(f"{self.name}: an image may hold {MAX_IMAGE_NUMBERS} numbers")

    def numbers(self, raw: NDArray[Any]) -> Array:
        """Raw values [n] (strings, numbers or None) as float64 [n]; NaN where missing or unusable.

        Of an image the raw values are digests, and 1.0 says that there is one."""
        if self.kind == "image":
            return np.array([np.nan if value is None else 1.0 for value in raw], dtype=np.float64)
        if self.kind == "number":
            values = _as_floats(raw)
            values[~((values >= self.low) & (values <= self.high))] = np.nan
            return values
        table = _binary_codes() if self.kind == "binary" else {_text(v): float(i) for i, v in enumerate(self.levels)}
        return np.array([table.get(_text(v), np.nan) for v in raw], dtype=np.float64)


def _as_floats(raw: NDArray[Any]) -> Array:
    if raw.dtype.kind in "fiu":
        return raw.astype(np.float64)
    if raw.dtype.kind not in "OUS":
        raise MisuseError(f"A column of type {raw.dtype} cannot be read as numbers.")
    return np.array([_one_float(v) for v in raw], dtype=np.float64)


def _one_float(value: object) -> float:
    if value is None or isinstance(value, bool):
        return float("nan")
    try:
        return float(str(value).strip())
    except ValueError:
        return float("nan")


def _binary_codes() -> dict[str, float]:
    return dict.fromkeys(_TRUE, 1.0) | dict.fromkeys(_FALSE, 0.0)


def _text(value: object) -> str:
    """One spelling for a level however the source typed it: 3, 3.0 and "3" are the same level."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip().lower()
