"""Results as tables of rows: what of a release people look at first. One shape per kind of answer, and one for all
others: every figure with its path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from flute.sdk.extras import frame, loaded
from flute.sdk.results.shapes import SHAPES, Row

_LONGEST_LIST: Final = 64
"""Longer lists of figures (a histogram, a path of steps) are in `value`, not in the table of all others."""


class Framed(Protocol):
    def to_frame(self) -> Any: ...


def frame_of(algorithm: str, value: Row) -> Any:
    """value: of a result of this algorithm."""
    head, rows = rows_of(algorithm, value)
    return frame([{name: row.get(name) for name in head} for row in rows], head[0])


def stacked(results: Mapping[str, Framed]) -> Any:
    """One frame of several hubs' own answers, the hub as the first level of the index."""
    return loaded("pandas").concat({hub: one.to_frame() for hub, one in results.items()}, names=["hub"])


def rows_of(algorithm: str, value: Row) -> tuple[list[str], list[Row]]:
    """Column names, the first of which names a row, and the rows."""
    rows = SHAPES.get(algorithm, _any)(value)
    if not rows and algorithm in SHAPES:
        rows = _any(value)
    head = list(dict.fromkeys(name for row in rows for name in row))
    kept = [name for name in head if any(row.get(name) is not None for row in rows)]
    return kept or ["figure", "value"], rows


def _any(value: Row) -> list[Row]:
    """Every figure and text of a result, by its path."""
    rows: list[Row] = []
    _walk(value, "", rows)
    return rows


def _walk(value: Any, path: str, rows: list[Row]) -> None:
    if isinstance(value, dict) and "value" in value and not isinstance(value["value"], dict | list):
        rows.append({"figure": path, **value})
    elif isinstance(value, dict):
        for name, inner in value.items():
            _walk(inner, f"{path}.{name}" if path else str(name), rows)
    elif isinstance(value, list):
        if len(value) <= _LONGEST_LIST:
            for index, inner in enumerate(value):
                _walk(inner, f"{path}[{index}]", rows)
    else:
        rows.append({"figure": path, "value": value})
