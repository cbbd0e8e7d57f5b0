"""What is asked of a FHIR server: searches as people write them, and the addresses that come of them.

`Observation?code=http://loinc.org|2857-1` names a resource type and filters. Searches of one type form one scope, so
that a resource that stops matching one of them and begins to match another is never taken for gone.
Source: FHIR R4 section 3.1.1 (search).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from flute.errors import MisuseError

_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:\-]{0,127}\Z")
_OURS: Final = re.compile(
    r"_(count|sort|lastUpdated|summary|elements|since|offset|total|format|pretty|contained.*)\Z"
)
_OTHERS: Final = ("_include", "_revinclude")
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One search of one resource type. `filters`: decoded names and values, in the order that people wrote."""

    kind: str
    filters: Pairs = ()

    def url(self, base: str, *more: tuple[str, str]) -> str:
        pairs = urlencode([*self.filters, *more], safe="|:/,")
        return f"{base}/{self.kind}?{pairs}" if pairs else f"{base}/{self.kind}"

    def __str__(self) -> str:
        return self.url("")[1:]

    def ignored_by(self, self_link: str) -> list[str]:
        """Filters that a `self` link does not repeat: the server says by it which parameters it used."""
        used = {name for name, _ in parse_qsl(urlsplit(self_link).query, keep_blank_values=True)}
        return sorted({name for name, _ in self.filters} - used)


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything that is read of one resource type."""

    kind: str
    queries: tuple[Query, ...]

    @property
    def is_filtered(self) -> bool:
        return all(query.filters for query in self.queries)


def read_query(text: str) -> Query:
    """Raises: MisuseError: no search, or one that uses a parameter which FLUTE sets itself."""
    kind, _, rest = text.strip().partition("?")
    if _TYPE.match(kind) is None:
        raise MisuseError(
            f"'{text[:80]}' is no search; write a resource type, or one like Observation?code=SYSTEM|CODE."
        )
    filters = tuple(parse_qsl(rest, keep_blank_values=True))
    for name, _ in filters:
        if _NAME.match(name) is None:
            raise MisuseError(f"The search for {kind} has a parameter without a proper name.")
        if name.startswith(_OTHERS):
            raise MisuseError(
                f"The search for {kind} uses {name}; name the other resource type as a search of its own."
            )
        if _OURS.match(name.partition(":")[0]):
            raise MisuseError(f"The search for {kind} uses {name}, which FLUTE sets itself; leave it out.")
    return Query(kind, filters)


def scopes_of(texts: Iterable[str]) -> tuple[Scope, ...]:
    """Scopes in the order in which their types are first named. Raises: MisuseError: none, or a bad search."""
    by_kind: dict[str, list[Query]] = {}
    for text in texts:
        query = read_query(text)
        known = by_kind.setdefault(query.kind, [])
        if query not in known:
            known.append(query)
    if not by_kind:
        raise MisuseError("Say what to read from the FHIR server: resource types, or searches, under queries.")
    return tuple(Scope(kind, tuple(queries)) for kind, queries in by_kind.items())


# --- instants ------------------------------------------------------------------------------------


def read_instant(text: object) -> datetime | None:
    """A FHIR instant, in UTC, cut to microseconds; None where it is none."""
    if not isinstance(text, str) or "T" not in text or len(text) > 40:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except OverflowError:
        return None


def write_instant(when: datetime) -> str:
    """In UTC, with milliseconds where they say it all: some servers read no more digits."""
    fine = "microseconds" if when.microsecond % 1_000 else "milliseconds"
    return when.astimezone(UTC).isoformat(timespec=fine).replace("+00:00", "Z")


def before(text: str, seconds: int) -> str:
    """That long before an instant."""
    when = read_instant(text)
    if when is None:
        raise MisuseError("A mark of this reader holds an instant that is none.")
    return write_instant(when - timedelta(seconds=seconds))
