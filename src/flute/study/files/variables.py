"""Variables as a study file says them, and what they become: the elements that fit their kind, and their scale."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from flute.algorithms.contract import StudyVariable
from flute.data.variables import Shape, Variable
from flute.defaults.images import MAX_IMAGE_NUMBERS
from flute.errors import StudyFileError
from flute.study.files.lines import Lines, convert, line_of

_ELEMENTS: Final[dict[str, tuple[str, ...]]] = {
    "range": ("number", "image"), "log": ("number",), "scale": ("number",), "centre": ("number",),
    "spread": ("number",), "levels": ("category",), "reference": ("category",), "shape": ("image",),
}  # fmt: skip
"""Elements of a variable that are for some kinds only."""
_PLURAL: Final = {"number": "numbers", "category": "categories", "image": "images"}
_OUTSIDE: Final = {
    "number": "A value outside counts as missing, and the range bounds what one patient can contribute.",
    "image": "An image with a value outside counts as missing; the range is mapped to [-1, 1] for a network.",
}


class FileVariable(Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["number", "binary", "category", "image"]
    range: tuple[float, float] | None = None
    levels: Annotated[tuple[str | int, ...], Meta(max_length=64)] = ()
    unit: Annotated[str, Meta(max_length=32)] = ""
    label: Annotated[str, Meta(max_length=200)] = ""
    log: bool = False
    scale: Literal["none", "reference", "pooled"] | None = None
    centre: float | None = None
    spread: Annotated[float, Meta(gt=0)] | None = None
    reference: str | int | None = None
    shape: Shape | UnsetType = UNSET


def variable_of(name: str, raw: Any, mode: str, lines: Lines) -> StudyVariable:
    at = ("variables", name)
    v = convert(raw, FileVariable, at, lines)
    _check_fitting(name, v, raw, lines)
    low, high = (float(end) for end in v.range) if v.range is not None else (0.0, 1.0)
    levels = tuple(str(level) for level in v.levels)
    reference = "" if v.reference is None else str(v.reference)
    if reference and reference not in levels:
        raise StudyFileError(
            f"{name}: reference {reference!r} is not one of its levels; write one of {', '.join(levels)}.",
            line=line_of(lines, *at, "reference"),
        )
    variable = Variable(name, v.kind, low, high, levels, v.unit, v.label, v.shape)
    centre, spread = _reference_scale(v, low, high)
    scale = v.scale or (("pooled" if mode == "exact" else "reference") if v.kind == "number" else "none")
    return StudyVariable(variable, v.log, scale, centre, spread, reference)


def _check_fitting(name: str, v: FileVariable, raw: dict[str, Any], lines: Lines) -> None:
    """Every element belongs to the variable's kind, and what its kind needs is there."""
    at = ("variables", name)
    for element in (e for e in raw if v.kind not in _ELEMENTS.get(e, (v.kind,))):
        owner = " and ".join(_PLURAL[kind] for kind in _ELEMENTS[element])
        raise StudyFileError(
            f"{name} is {_article(v.kind)} and has {element!r}, which is for {owner}; leave it out, or correct its "
            "kind.",
            line=line_of(lines, *at, element),
        )
    if v.kind in ("number", "image") and v.range is None:
        raise StudyFileError(
            f"{name} is {_article(v.kind)} and needs its plausible values: write for example 'range: [0, 200]'. "
            f"{_OUTSIDE[v.kind]}",
            line=line_of(lines, *at),
        )
    if v.kind == "image":
        _check_shape(name, v, lines)
    if v.range is not None and not (math.isfinite(v.range[0]) and v.range[0] < v.range[1] < math.inf):
        raise StudyFileError(
            f"{name}: the range must go from a lower to a higher finite value; write for example 'range: [0, 200]'.",
            line=line_of(lines, *at, "range"),
        )
    if v.kind == "category" and len({str(level) for level in v.levels}) < max(2, len(v.levels)):
        raise StudyFileError(
            f"{name} is a category and needs at least two levels, all of them different; write for example "
            "'levels: [low, middle, high]'.",
            line=line_of(lines, *at, "levels"),
        )
    if v.log and v.range is not None and v.range[0] <= 0:
        raise StudyFileError(
            f"{name} has 'log: true', but its range starts at {v.range[0]:g}, which has no logarithm; write a low "
            "end above 0.",
            line=line_of(lines, *at, "range"),
        )


def _check_shape(name: str, v: FileVariable, lines: Lines) -> None:
    at = ("variables", name)
    if v.shape is UNSET:
        raise StudyFileError(
            f"{name} is an image and needs its shape: write for example 'shape: [1, 64, 64]', channels first, or "
            "'shape: [3, 16, 64, 64]' for a volume.",
            line=line_of(lines, *at),
        )
    if math.prod(v.shape) > MAX_IMAGE_NUMBERS:
        raise StudyFileError(
            f"{name}: an image may hold {MAX_IMAGE_NUMBERS:,} numbers, and this shape has {math.prod(v.shape):,}; "
            "write smaller sides.",
            line=line_of(lines, *at, "shape"),
        )


def _article(kind: str) -> str:
    return {"number": "a number", "category": "a category", "binary": "binary", "image": "an image"}[kind]


def _reference_scale(v: FileVariable, low: float, high: float) -> tuple[float, float]:
    """Public centre and spread: the middle and a quarter of the range, after the logarithm if there is one."""
    a, b = (float(np.log(low)), float(np.log(high))) if v.log else (low, high)
    if v.kind != "number":
        return 0.0, 1.0
    return (
        v.centre if v.centre is not None else (a + b) / 2,
        v.spread if v.spread is not None else (b - a) / 4,
    )
