"""The port of everything that a hospital's system is read through: resources, in pages that can be resumed.

A reader gives pages. What a page brings is written in one transaction together with the page's mark; after a
crash, and at the next import, reading goes on from the newest mark. So a reader must give, for the same mark
and an unchanged system, the same pages again, and it never remembers anything itself.

A *scope* is a part of the system that is read as a whole: a file, a resource type of a server, a table. Its first
page says `begins` (again where it is read anew from its start, because it changed while an import was interrupted).
Its last page says how it `ends`: `complete` (whatever was taken from this scope before and was not met now is gone)
or `changes` (only what changed was read; what is gone is listed in `gone`). A scope that is no longer there begins
and ends in one empty page.

The same key twice: the same content is one resource; of two contents the later `meta.lastUpdated` counts, and where
that does not tell, the first is kept and the second refused as `duplicate-id`. That is for the taker to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flute.data.findings import Finding

Resource = dict[str, Any]
Ends = Literal["", "complete", "changes"]


@dataclass(frozen=True, slots=True)
class Record:
    """One FHIR R4 resource with a type and an id. `origin`: where it stands, for the data manager ("lab.csv, row 7").
    `bundle`: name of the transaction that it stands or falls with, or empty."""

    resource: Resource
    origin: str
    bundle: str = ""

    @property
    def key(self) -> str:
        return f"{self.resource['resourceType']}/{self.resource['id']}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that could not be taken as a resource. `key`: "Type/id" as far as known, or empty."""

    origin: str
    key: str
    finding: Finding
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """`mark`: from where to go on, once everything of this page is on disk.

    `skipped`: resources of the scope that are known to be unchanged and were not read. `total`: resources expected
    in all, where the system says so. All records of one transaction bundle are in one page."""

    scope: str
    mark: bytes
    records: tuple[Record, ...] = ()
    refused: tuple[Refused, ...] = ()
    gone: tuple[str, ...] = ()
    begins: bool = False
    ends: Ends = ""
    skipped: int = 0
    total: int | None = None


class Reader(Protocol):
    """Where resources come from. Raises while iterating: Unreachable: the system does not answer, or breaks off;
    Unmappable: what it gives is not what was asked for. What earlier pages brought stays."""

    @property
    def name(self) -> str:
        """What the reader reads, for reports: no secret, no path beyond its last part."""
        ...

    def pages(self, mark: bytes | None) -> Iterator[Page]:
        """Pages from after `mark` (None: from the start); none where nothing changed."""
        ...
