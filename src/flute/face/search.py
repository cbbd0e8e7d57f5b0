"""A search as it stands in an address: known parameters in their bounds, or a refusal; and the links between pages.

Supported: `_id`, `patient` and `subject` (persons, as ids or references), `code` (token), `_lastUpdated` (all
resources of a snapshot have the same), `_count`, `_sort` (by what is the same for all: it changes nothing),
`_summary=count`, `_total`. A comma means or; the same parameter twice means and.
Source: FHIR R4, search (3.1.1.3, 3.1.1.4, 3.1.1.5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import urlencode

from flute.defaults.records import FACE_MAX_PAGE_RESOURCES, FACE_PAGE_RESOURCES
from flute.face.shelf import Code, Search, Shelf

PARAMETERS: Final = ("_id", "patient", "subject", "code", "_lastUpdated")
"""What filters."""
_ONLY_PATIENT: Final = frozenset({"FamilyMemberHistory"})
_NO_CODE: Final = frozenset({"Patient", "ImagingStudy"})
_SHAPING: Final = ("_count", "_sort", "_summary", "_total", "_format", "_page")
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")
_TIME: Final = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|)(\d{4}.*)\Z")
_MAX_VALUES: Final = 200


T = TypeVar("T")


class BadSearch(Exception):
    """`code`: of FHIR's value set issue-type."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.text, self.status = code, text, status


def filters(kind: str) -> tuple[str, ...]:
    """Parameters that filter resources of a type."""
    if kind == "Patient":
        return ("_id", "_lastUpdated")
    without = ({"subject"} if kind in _ONLY_PATIENT else set()) | ({"code"} if kind in _NO_CODE else set())
    return tuple(name for name in PARAMETERS if name not in without)


@dataclass(frozen=True, slots=True)
class Asked:
    """`count` 0: only how many. `after`: place to go on from. `in_time`: the snapshot meets `_lastUpdated`."""

    search: Search
    count: int
    after: int
    in_time: bool
    pairs: tuple[tuple[str, str], ...]
    """As they were asked, without the page."""

    def link(self, base: str, version: str = "", after: int | None = None) -> str:
        page = [] if after is None else [("_page", f"{version}.{after}")]
        query = urlencode([*self.pairs, *page], safe="|:/,")
        return f"{base}/{self.search.kind}?{query}" if query else f"{base}/{self.search.kind}"


def read_search(shelf: Shelf, kind: str, pairs: Sequence[tuple[str, str]]) -> Asked:
    """Raises: BadSearch: a parameter that is unknown here, or out of its bounds."""
    known = filters(kind)
    ids: frozenset[str] | None = None
    persons: frozenset[str] | None = None
    codes: tuple[Code, ...] | None = None
    in_time = True
    for name, value in pairs:
        if name not in known and name not in _SHAPING:
            there = ", ".join((*known, *(s for s in _SHAPING if s != "_page")))
            raise BadSearch("not-supported", f"{kind} cannot be searched by {name[:40]!r}; there are {there}.")
        match name:
            case "_id":
                ids = _both(ids, frozenset(_values(name, value, _checked_id)))
            case "patient" | "subject":
                persons = _both(persons, frozenset(_values(name, value, _person)))
            case "code":
                if codes is not None:
                    raise BadSearch("not-supported", "Give code once; several codes with commas mean any of them.")
                codes = tuple(_values(name, value, _token))
            case "_lastUpdated":
                in_time = in_time and any(_values(name, value, lambda v: _meets_time(shelf.updated, v)))
    count, after = _shaped(shelf, pairs)
    kept = tuple((n, v) for n, v in pairs if n not in ("_page", "_format"))
    return Asked(Search(kind, ids, persons, codes), count, after, in_time, kept)


def _both(one: frozenset[str] | None, other: frozenset[str]) -> frozenset[str]:
    return other if one is None else one & other


def _values(name: str, value: str, read: Callable[[str], T]) -> list[T]:
    listed = [part for part in value.split(",") if part]
    if not listed or len(listed) > _MAX_VALUES:
        raise BadSearch("invalid", f"{name} takes 1 to {_MAX_VALUES} values, with commas between them.")
    return [read(part) for part in listed]


def _checked_id(text: str) -> str:
    if not _ID.match(text):
        raise BadSearch("invalid", "An id has 1 to 64 letters, digits, hyphens and dots.")
    return text


def _person(text: str) -> str:
    """An id, `Patient/id`, or the address of a patient here."""
    head, _, key = text.rpartition("/")
    if head and not head.endswith("Patient"):
        raise BadSearch("invalid", "patient and subject take the id of a Patient.")
    return _checked_id(key)


def _token(text: str) -> Code:
    """`code`, `system|code`, `|code` (no system) or `system|` (any code of it)."""
    system, bar, code = text.partition("|")
    if not bar:
        return Code(None, text)
    if not system and not code:
        raise BadSearch("invalid", "A code is written as code, or as system|code.")
    return Code(system, code)


def _meets_time(updated: datetime, text: str) -> bool:
    """A date or instant with a prefix. An instant less exact than a second stands for all of its span."""
    found = _TIME.match(text)
    span = _span(found.group(2)) if found else None
    if found is None or span is None:
        raise BadSearch("invalid", "_lastUpdated takes a date or an instant, for example ge2026-01-01.")
    start, end = span
    inside = start <= updated < end
    match found.group(1):
        case "" | "eq":
            return inside
        case "ne":
            return not inside
        case "gt" | "sa":
            return updated >= end
        case "lt" | "eb":
            return updated < start
        case "ge":
            return updated >= start
        case _:
            return updated < end


def _span(text: str) -> tuple[datetime, datetime] | None:
    """[start, end) of a year, month, day or instant."""
    whole = {4: "-01-01", 7: "-01"}.get(len(text), "")
    try:
        start = datetime.fromisoformat(text.replace(" ", "+") + whole)
        start = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
        if len(text) == 4:
            return start, start.replace(year=start.year + 1)
        if len(text) == 7:
            return start, (start + timedelta(days=32)).replace(day=1)
        if len(text) == 10:
            return start, start + timedelta(days=1)
        return start, start + (timedelta(milliseconds=1) if "." in text else timedelta(seconds=1))
    except (ValueError, OverflowError):
        return None


def _shaped(shelf: Shelf, pairs: Sequence[tuple[str, str]]) -> tuple[int, int]:
    """How many at once, and from where. The last of a repeated parameter counts."""
    said = dict(pairs)
    if said.get("_sort", "_id").lstrip("-") not in ("_id", "_lastUpdated"):
        raise BadSearch("not-supported", "_sort takes _id or _lastUpdated; all resources were updated at once.")
    if said.get("_total", "accurate") not in ("none", "estimate", "accurate"):
        raise BadSearch("invalid", "_total takes none, estimate or accurate; it is always given, and exact.")
    summary = said.get("_summary", "false")
    if summary not in ("false", "count"):
        raise BadSearch("not-supported", "_summary takes count, or false.")
    count = said.get("_count", str(FACE_PAGE_RESOURCES))
    if not count.isascii() or not count.isdigit() or len(count) > 9:
        raise BadSearch("invalid", f"_count takes a whole number up to {FACE_MAX_PAGE_RESOURCES}.")
    after = _place(shelf, said["_page"]) if "_page" in said else -1
    return (0 if summary == "count" else min(int(count), FACE_MAX_PAGE_RESOURCES)), after


def _place(shelf: Shelf, text: str) -> int:
    version, _, place = text.partition(".")
    if not place.isascii() or not place.isdigit() or len(place) > 15:
        raise BadSearch("invalid", "This page is not of this search; begin it anew.")
    if version != shelf.version:
        raise BadSearch("expired", "The dataset was imported anew since this search began; begin it anew.", 410)
    return int(place)
