"""Elements of a header, read without trusting it: what is absent, broken or of another type counts as not said."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence


def text(ds: Dataset, keyword: str) -> str:
    return text_of(value_of(ds, keyword))


def text_of(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value).strip()


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    value = value_of(ds, keyword)
    if value is None or value == "":
        return ()
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]
    return tuple(str(v).strip() for v in values)


def value_of(ds: Dataset, keyword: str) -> Any:
    """An element's value, or None: absent, empty, or not what its type promises ("3,0" as a number)."""
    try:
        return ds.get(keyword)
    except (ValueError, TypeError, OverflowError, NotImplementedError, struct.error):
        return None


def number(ds: Dataset, keyword: str) -> float | None:
    value = value_of(ds, keyword)
    return as_number(value) if value is not None else None


def numbers(ds: Dataset, keyword: str) -> tuple[float, ...] | None:
    return number_list(value_of(ds, keyword))


def number_list(value: Any) -> tuple[float, ...] | None:
    if value is None or isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return None
    found = [finite(v) for v in value]
    known = tuple(v for v in found if v is not None)
    return known if found and len(known) == len(found) else None


def as_number(value: Any) -> float | None:
    """The first number of an element, also where a transfer lost its type (VR UN): text, or a little-endian float."""
    if isinstance(value, bytes):
        first = value.split(b"\\")[0].strip(b" \0")
        if re.fullmatch(rb"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", first):
            return float(first)
        return finite(struct.unpack("<f", value)[0]) if len(value) == 4 else None
    if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str)):
        value = next(iter(value), None)
    return finite(value)


def finite(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where the element is no sequence."""
    value = value_of(ds, keyword)
    return list(value) if isinstance(value, DicomSequence) else []


def private(ds: Dataset, group: int, creator: str, element: int) -> Any:
    try:
        return ds.private_block(group, creator)[element].value
    except (KeyError, ValueError):
        return None
