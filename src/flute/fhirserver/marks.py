"""How far the reading of a FHIR server is: small values that say where to go on, and nothing of a resource.

A mark that is not ours, or that was made for other searches, is none: reading begins anew, which is always right.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from msgspec import Struct

_SOURCE: Final = b"flute/fhir-source/v1\x00"


class SearchMark(Struct, frozen=True, forbid_unknown_fields=True, tag_field="form", tag="fhir-search-1"):
    """`source`: digest of what is read. `since`: of each type that was read to its end, the server's time then.

    `scope`, `query`: what is being read; past the last scope everything is read. `listed`: by next links rather than
    by time. `cursor`: everything updated before it was given; `after`: and what was updated at it. `link`: the next
    page of a list. `began`, `newest`: the server's time at the scope's start, the latest update met. `loose`: neither
    can be relied on. `given`: the scope has given a page.
    """

    source: str
    since: dict[str, str] = {}
    scope: int = 0
    query: int = 0
    listed: bool = False
    cursor: str = ""
    after: bool = False
    link: str = ""
    began: str = ""
    newest: str = ""
    loose: bool = False
    given: bool = False

    def until(self, since: str) -> str:
        """From when the next import reads this scope, now read to its end; empty: everything anew."""
        return self.began or ("" if self.loose else self.newest or since)


class BulkMark(Struct, frozen=True, forbid_unknown_fields=True, tag_field="form", tag="fhir-bulk-1"):
    """`since`: the transaction time of the last export that was read to its end; empty: everything is to be read.

    `job`: status address of the export that is being read, empty where none is. `time`: its transaction time, once
    known. `step`, `line`: of its work, what is done. `begun`: the type that has begun and not ended. `whole`: the
    export reported no failure. `kinds`: types read before.
    """

    source: str
    since: str = ""
    job: str = ""
    time: str = ""
    step: int = 0
    line: int = 0
    begun: str = ""
    whole: bool = True
    kinds: tuple[str, ...] = ()


def source_of(*parts: str) -> str:
    """A digest of everything that decides what a reader reads."""
    return hashlib.sha256(_SOURCE + msgspec.json.encode(parts)).hexdigest()[:32]


def encoded(mark: SearchMark | BulkMark) -> bytes:
    return msgspec.json.encode(mark)


def decoded_mark(raw: bytes | None) -> SearchMark | BulkMark | None:
    """None for no mark, and for one that no reader of FHIR servers wrote."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=SearchMark | BulkMark)
    except msgspec.MsgspecError:
        return None
