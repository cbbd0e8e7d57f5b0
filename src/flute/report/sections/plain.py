"""A result that has no section of its own, as a table of its numbers: nothing that was released is left unshown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flute.report.numbers import UNKNOWN, finite, short
from flute.report.reading import Names, interval
from flute.report.sections.figures import Table
from flute.report.sections.shown import Answer, Asked, ends, noise_of

_MAX_ROWS: Final = 80
_MAX_LISTED: Final = 8
"""Numbers of a list that are written out."""
_MAX_CHARS: Final = 160
_MAX_DEPTH: Final = 8
_INTERVAL_KEYS: Final = frozenset(
    {"value", "low", "high", "se", "noise_se", "sampling_se", "log_se", "log_noise_se", "log_sampling_se"}
)

Line = tuple[str, ...]


def plainly(asked: Asked) -> Answer:
    """Every number with the names that lead to it; long lists and texts are only counted."""
    rows = list(_lines(asked.names, asked.result, (), 0))
    note = f"{len(rows) - _MAX_ROWS} more lines stand in the report's JSON." if len(rows) > _MAX_ROWS else ""
    head = ("What", "Value", "95% interval", "Noise (SE)")
    table = Table("As it was released", head, tuple(rows[:_MAX_ROWS]))
    return Answer(asked.heading, tables=(table,) if rows else (), note=note)


def _lines(names: Names, found: object, path: tuple[str, ...], depth: int) -> Iterator[Line]:
    where = " · ".join(path) or "result"
    if isinstance(found, Mapping) and depth < _MAX_DEPTH:
        yield from _mapping(names, found, path, where, depth)
    elif isinstance(found, list | tuple):
        yield from _listed(names, list(found), path, where, depth)
    elif found is not None and found != "":
        yield where, _said(found), UNKNOWN, UNKNOWN


def _mapping(names: Names, found: Mapping[str, Any], path: tuple[str, ...], where: str, depth: int) -> Iterator[Line]:
    if "value" in found and set(found) <= _INTERVAL_KEYS:
        figure = interval(found)
        yield where, short(figure.value, 4), ends(figure, lambda v: short(v, 4)), noise_of(figure)
        return
    for key, value in found.items():
        yield from _lines(names, value, (*path, names.variable(str(key)).replace("_", " ")), depth + 1)


def _listed(names: Names, found: list[Any], path: tuple[str, ...], where: str, depth: int) -> Iterator[Line]:
    if any(isinstance(v, Mapping | list | tuple) for v in found):
        if depth >= _MAX_DEPTH or len(found) > _MAX_ROWS:
            yield where, f"{len(found)} entries", UNKNOWN, UNKNOWN
            return
        for k, value in enumerate(found):
            yield from _lines(names, value, (*path, str(k + 1)), depth + 1)
    elif len(found) > _MAX_LISTED:
        yield where, f"{len(found)} values", UNKNOWN, UNKNOWN
    elif found:
        yield where, ", ".join(map(_said, found)), UNKNOWN, UNKNOWN


def _said(value: object) -> str:
    number = finite(value)
    if number is not None:
        return short(number, 5)
    if isinstance(value, str):
        return value if len(value) <= _MAX_CHARS else f"a text of {len(value)} characters"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return UNKNOWN
