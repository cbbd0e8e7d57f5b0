"""FHIR files of a folder behind the readers' port: NDJSON and JSON, packed with gzip or not, page by page.

A file is a scope. One that did not change since it was read is passed over; one that changed is read as a whole; what
came from one that is gone is gone. A file that cannot be read to its end brings nothing, and what was taken from it
before stays. Within a file resources are refused one by one; a transaction bundle stands or falls as a whole.
Source: FHIR Bulk Data Access (NDJSON); FHIR R4, bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from flute.conformance.bundles import entries, taken
from flute.connectors.file_survey import (
    Stamp,
    Surveyed,
    form_of,
    opened,
    refused_by_name,
    stamp_of,
    survey,
)
from flute.data.findings import Finding, shown
from flute.data.reader import Page, Record, Refused
from flute.data.strict_json import NotStrict, decode
from flute.defaults.records import MAX_RESOURCE_BYTES, PAGE_BYTES, PAGE_RESOURCES
from flute.errors import Unmappable, Unreachable


class _File(Struct, frozen=True, array_like=True):
    """A file that was read. `resources`: how many it held."""

    stamp: Stamp
    digest: bytes
    resources: int


class _Open(Struct, frozen=True, array_like=True):
    """A file in the middle of which reading stopped. `offset`: bytes of its unpacked text that are done, or entries
    of its bundle; `line`, `resources`: met so far."""

    name: str
    digest: bytes
    offset: int
    line: int
    resources: int


class _Mark(Struct, frozen=True):
    files: dict[str, _File] = {}
    open: _Open | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one line or document gives. `size`: bytes. `offset`, `line`: where reading goes on after it."""

    found: tuple[Record | Refused, ...]
    size: int
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class FilesReader:
    """A folder of FHIR files, or one such file. Files in folders below it are not read."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def pages(self, mark: bytes | None) -> Iterator[Page]:
        """See the port. Raises: Unreachable: no such folder, or a file changes while it is read. Unmappable: the
        folder holds no FHIR file (a disk that is not mounted must not look like a hospital without patients)."""
        files = self._files()
        known = _Mark() if mark is None else msgspec.msgpack.decode(mark, type=_Mark)
        gone = [name for name in known.files if name not in files]
        for name in gone:
            known = _Mark({n: f for n, f in known.files.items() if n != name}, known.open)
            yield Page(name, _packed(known), begins=True, ends="complete")
        unchanged: list[str] = []
        for name, path in files.items():
            before = known.files.get(name)
            found = None if before is not None and before.stamp == stamp_of(path) else survey(path)
            if before is not None and (found is None or (found.digest and found.digest == before.digest)):
                unchanged.append(name)
            elif found is not None:
                for page, after in _pages_of(path, found, known):
                    yield page
                    known = after
        if gone or len(unchanged) < len(files):
            for name in unchanged:
                yield Page(name, _packed(known), begins=True, ends="changes", skipped=known.files[name].resources)

    def _files(self) -> dict[str, Path]:
        """By name, in its order. Other people's files are not mentioned, nor are hidden ones (copies to a stick leave
        such behind); those that look like ours are refused."""
        try:
            single = self.path.is_file()
            names = [self.path] if single else sorted(self.path.iterdir())
        except OSError as error:
            raise Unreachable(f"There is no folder {self.path.name} that can be read.") from error
        visible = (path for path in names if single or not path.name.startswith("."))
        files = {p.name: p for p in visible if form_of(p.name) is not None or refused_by_name(p.name) is not None}
        if not any(form_of(name) for name in files):
            where = f"{self.path.name} is" if single else f"The folder {self.path.name} holds"
            raise Unmappable(f"{where} no FHIR file that is read here (.ndjson or .json, also with .gz behind it).")
        return files


# --- one file -------------------------------------------------------------------------------------------


def _pages_of(path: Path, found: Surveyed, known: _Mark) -> Iterator[tuple[Page, _Mark]]:
    """Pages of one file with the marks after them."""
    if found.broken is not None:
        done = _Mark(known.files | {path.name: _File(found.stamp, found.digest, 0)})
        refused = (Refused(path.name, "", found.broken),)
        yield Page(path.name, _packed(done), refused=refused, begins=True, ends="changes"), done
        return
    resumed = known.open
    if resumed is None or (resumed.name, resumed.digest) != (path.name, found.digest):
        resumed = None
    place = resumed or _Open(path.name, found.digest, 0, 0, 0)
    waiting: list[Record | Refused] = []
    size, begins = 0, resumed is None
    for piece in _pieces(path, place):
        if waiting and (len(waiting) + len(piece.found) > PAGE_RESOURCES or size + piece.size > PAGE_BYTES):
            mark = _Mark(known.files, place)
            yield _page(path.name, waiting, mark, begins=begins), mark
            waiting, size, begins = [], 0, False
        waiting += piece.found
        size += piece.size
        place = _Open(place.name, place.digest, piece.offset, piece.line, place.resources + len(piece.found))
    if stamp_of(path) != found.stamp:
        raise Unreachable(f"The file {path.name} changes while it is read; import again when it is finished.")
    done = _Mark(known.files | {path.name: _File(found.stamp, found.digest, place.resources)})
    yield _page(path.name, waiting, done, begins=begins, ends=True), done


def _page(scope: str, found: list[Record | Refused], mark: _Mark, *, begins: bool, ends: bool = False) -> Page:
    return Page(
        scope,
        _packed(mark),
        tuple(item for item in found if isinstance(item, Record)),
        tuple(item for item in found if isinstance(item, Refused)),
        begins=begins,
        ends="complete" if ends else "",
    )


def _packed(mark: _Mark) -> bytes:
    return msgspec.msgpack.encode(mark)


def _pieces(path: Path, place: _Open) -> Iterator[_Piece]:
    """Raises: Unreachable: the file cannot be read any more, though it could a moment ago."""
    try:
        with opened(path) as file:
            if form_of(path.name) == "document":
                yield from _document(path.name, file, place.offset)
            else:
                file.seek(place.offset)
                yield from _lines(path.name, file, place)
    except (OSError, EOFError) as error:
        raise Unreachable(f"The file {path.name} cannot be read to its end.") from error


def _lines(name: str, file: BinaryIO, place: _Open) -> Iterator[_Piece]:
    offset, number = place.offset, place.line
    while line := file.readline(MAX_RESOURCE_BYTES + 1):
        number += 1
        offset += len(line)
        origin = f"{name}, line {number}"
        if len(line) > MAX_RESOURCE_BYTES:
            offset += _skip_line(file, line)
            mend = f"A resource has at most {MAX_RESOURCE_BYTES} bytes; put images and documents beside it."
            finding = Finding("too-long", "", "resource-size", shown(line[:40].decode("utf-8", "replace")), mend)
            yield _Piece((Refused(origin, "", finding),), 0, offset, number)
        elif line.strip():
            yield _Piece((_one(line, origin),), len(line), offset, number)


def _one(line: bytes, origin: str) -> Record | Refused:
    try:
        return taken(decode(line), origin)
    except NotStrict as error:
        return Refused(origin, "", error.finding)


def _skip_line(file: BinaryIO, begun: bytes) -> int:
    """Read to the end of a line that is too long, in pieces. Gives how many bytes that were."""
    skipped, piece = 0, begun
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(MAX_RESOURCE_BYTES)
        skipped += len(piece)
    return skipped


def _document(name: str, file: BinaryIO, after: int) -> Iterator[_Piece]:
    """A document holds a bundle or one resource. `after`: entries that are done."""
    raw = file.read()
    try:
        value = decode(raw)
        if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
            found = [taken(value, name)]
        else:
            found = list(entries(value, name, name))
    except NotStrict as error:
        found = [Refused(name, "", error.finding)]
    except RecursionError:
        mend = "Nested beyond what any resource needs: export it anew."
        found = [Refused(name, "", Finding("malformed-json", "", "nesting", "", mend))]
    if any(item.bundle for item in found):
        yield _Piece(tuple(found), 0, len(found), 0)
        return
    size = len(raw) // max(1, len(found))
    for number, item in enumerate(found[after:], start=after + 1):
        yield _Piece((item,), size, number, 0)
