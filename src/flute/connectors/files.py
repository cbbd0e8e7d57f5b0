"""FHIR resources from a folder: NDJSON (also gzipped) and JSON bundles, streamed, refused one by one.

A resource that cannot be taken in is counted under a reason and the next one is read. A transaction bundle
is the exception: it stands or falls as a whole. Nothing here knows what a resource is about.

Source: FHIR R4 (id, Bundle, references); FHIR Bulk Data Access (NDJSON).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from flute.defaults import MAX_BUNDLE_BYTES, MAX_IMPORT_FILE_BYTES, MAX_RESOURCE_BYTES
from flute.errors import Unmappable, Unreachable
from flute.views.references import reference_key

ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
_URN: Final = "urn:uuid:"
_NDJSON: Final = (".ndjson", ".ndjson.gz")
Resource = dict[str, Any]

MALFORMED: Final = "malformed-json"
TOO_LONG: Final = "too-long"
MISSING: Final = "required-element-missing"
WRONG_TYPE: Final = "wrong-type"
BAD_ID: Final = "id-invalid"
UNRESOLVED: Final = "reference-not-resolved"
DUPLICATE: Final = "duplicate-id"
BUNDLE_REFUSED: Final = "transaction-refused"


class _Lines(Protocol):
    def readline(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Found:
    """One resource with an id. `bundle`: number of the transaction bundle it stands or falls with, or 0."""

    resource: Resource
    bundle: int


@dataclass(slots=True)
class Folder:
    """A folder of exports. Iterating reads every file again, in the order of their names.

    `given_up`: numbers of transaction bundles of which nothing is to be taken. After an iteration `files`,
    `resources` and `refused` say what was met.
    """

    path: Path
    given_up: frozenset[int] = frozenset()
    files: int = 0
    resources: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _bundles: int = 0

    def __iter__(self) -> Iterator[Found]:
        """Raises: Unreachable: no such folder, or a file in it cannot be read. Unmappable: it holds no FHIR file."""
        self.files = self.resources = self._bundles = 0
        self.refused = Counter()
        seen: set[tuple[str, str]] = set()
        for file in self._names():
            self.files += 1
            for found in self._file(file):
                key = (found.resource["resourceType"], found.resource["id"])
                if key in seen:
                    self.refused[DUPLICATE] += 1
                else:
                    seen.add(key)
                    yield found

    def _names(self) -> list[Path]:
        try:
            names = sorted(p for p in self.path.iterdir() if p.name.endswith((*_NDJSON, ".json")) and p.is_file())
        except OSError as error:
            raise Unreachable(f"There is no folder {self.path.name} that can be read.") from error
        if not names:
            raise Unmappable(f"The folder {self.path.name} holds no .ndjson, .ndjson.gz or .json file.")
        return names

    def _file(self, file: Path) -> Iterator[Found]:
        try:
            if file.name.endswith(".json"):
                yield from self._document(file)
            elif file.name.endswith(".gz"):
                with gzip.open(file, "rb") as stream:
                    yield from self._lines(stream)
            else:
                with file.open("rb") as plain:
                    yield from self._lines(plain)
        except (OSError, EOFError, zlib.error) as error:
            raise Unreachable(f"The file {file.name} cannot be read to its end.") from error

    def _lines(self, stream: _Lines) -> Iterator[Found]:
        decode = msgspec.json.Decoder().decode
        read = 0
        while line := stream.readline(MAX_RESOURCE_BYTES + 1):
            read += len(line)
            if read > MAX_IMPORT_FILE_BYTES:
                raise Unmappable(f"A file holds more than {MAX_IMPORT_FILE_BYTES} bytes; split the export.")
            if len(line) > MAX_RESOURCE_BYTES:
                self._refuse(TOO_LONG)
                read += _skip_line(stream, line)
            elif line.strip():
                try:
                    value = decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self._refuse(MALFORMED)
                    continue
                yield from self._one(value, 0)

    def _document(self, file: Path) -> Iterator[Found]:
        """A .json file: a bundle, or one resource."""
        if file.stat().st_size > MAX_BUNDLE_BYTES:
            self._refuse(TOO_LONG)
            return
        try:
            value = msgspec.json.decode(file.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._refuse(MALFORMED)
            return
        if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
            yield from self._one(value, 0)
            return
        try:
            yield from self._bundle(value)
        except RecursionError:
            self._refuse(MALFORMED)

    def _bundle(self, bundle: Resource) -> Iterator[Found]:
        kind, entries = bundle.get("type"), bundle.get("entry", [])
        if not isinstance(entries, list) or kind not in {"transaction", "collection", "searchset"}:
            self._refuse(WRONG_TYPE)
            return
        if kind == "transaction":
            yield from self._transaction(entries)
            return
        names = _names_of(entries)
        for entry in entries:
            yield from self._one(_resolved(entry, names), 0)

    def _transaction(self, entries: list[Any]) -> Iterator[Found]:
        """All of the bundle or nothing of it."""
        self._bundles += 1
        number, names = self._bundles, _names_of(entries)
        resources = [_resolved(entry, names) for entry in entries]
        reasons = Counter(r for r in map(_fault, resources) if r is not None)
        dangling = sum(_URN in reference for value in resources for reference in _references(value))
        reasons.update({UNRESOLVED: dangling} if dangling else {})
        if reasons or number in self.given_up:
            self.resources += len(resources)
            self.refused.update(reasons)
            self.refused[BUNDLE_REFUSED] += max(0, len(resources) - reasons.total())
            return
        for resource in resources:
            yield from self._one(resource, number)

    def _one(self, value: Any, bundle: int) -> Iterator[Found]:
        reason = _fault(value)
        if reason is not None:
            self._refuse(reason)
            return
        self.resources += 1
        yield Found(value, bundle)

    def _refuse(self, reason: str) -> None:
        self.resources += 1
        self.refused[reason] += 1


def _skip_line(stream: _Lines, begun: bytes) -> int:
    """Read to the end of a line that is too long, in pieces. Gives how many bytes that were."""
    skipped, piece = 0, begun
    while piece and not piece.endswith(b"\n"):
        piece = stream.readline(MAX_RESOURCE_BYTES)
        skipped += len(piece)
    return skipped


def _fault(value: Any) -> str | None:
    """Why a resource cannot be taken in at all, or None."""
    if not isinstance(value, dict):
        return WRONG_TYPE
    kind, key = value.get("resourceType"), value.get("id")
    if kind is None or key is None:
        return MISSING
    if not isinstance(kind, str) or not _TYPE.match(kind) or not isinstance(key, str):
        return WRONG_TYPE
    return None if ID.match(key) else BAD_ID


# --- bundles: what entries are called, and what they call each other ---------------------------


def _names_of(entries: list[Any]) -> dict[str, str]:
    """`urn:uuid:…` of each entry to the literal reference ("Patient/7") that it will have."""
    names = {}
    for entry in entries:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if isinstance(resource, dict) and isinstance(entry.get("fullUrl"), str) and entry["fullUrl"].startswith(_URN):
            names[entry["fullUrl"]] = f"{resource.get('resourceType')}/{_id_of(entry, resource)}"
    return names


def _id_of(entry: Resource, resource: Resource) -> object:
    """PUT says the id in its address; a POST has only its uuid, since the server would give it a new id."""
    request = entry.get("request")
    if isinstance(request, dict):
        if request.get("method") == "PUT":
            return reference_key(request.get("url")) or resource.get("id")
        if request.get("method") == "POST":
            return entry["fullUrl"].removeprefix(_URN)
    return resource.get("id") or entry["fullUrl"].removeprefix(_URN)


def _resolved(entry: Any, names: dict[str, str]) -> Any:
    """The entry's resource under its final id, its references by uuid turned into literal ones."""
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(resource, dict):
        return resource
    full = entry.get("fullUrl")
    if isinstance(full, str) and full in names:
        resource = {**resource, "id": names[full].partition("/")[2]}
    return _rewritten(resource, names) if names else resource


def _rewritten(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            k: names.get(v, v) if k == "reference" and isinstance(v, str) else _rewritten(v, names)
            for k, v in value.items()
        }
    return [_rewritten(item, names) for item in value] if isinstance(value, list) else value


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "reference" and isinstance(inner, str):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
