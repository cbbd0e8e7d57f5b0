"""What a file of an export is, before anything of it is taken: its form, its fingerprint, and whether it is whole.

A file is looked through once as a whole, so that one that breaks off (a compressed export cut short, a disk that
gives no more) brings nothing, rather than its first half. Memory does not grow with the file.
Source: RFC 1952 (gzip: CRC and length at the end), FHIR Bulk Data Access (NDJSON).
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from msgspec import Struct

from flute.data.findings import Finding, shown
from flute.data.strict_json import BOMS
from flute.defaults.records import (
    INFLATION_LOOK_BYTES,
    MAX_BUNDLE_BYTES,
    MAX_IMPORT_FILE_BYTES,
    MAX_INFLATION,
    READ_CHUNK_BYTES,
)

Form = Literal["lines", "document"]
FORMS: Final[dict[str, Form]] = {
    ".ndjson": "lines", ".ndjson.gz": "lines", ".json": "document", ".json.gz": "document",
}  # fmt: skip
NOT_READ: Final = {
    ".xml": "FHIR in XML is not read: export it as JSON or NDJSON.",
    ".zip": "Archives are not opened: unpack it into the folder.",
    ".tar": "Archives are not opened: unpack it into the folder.",
    ".tgz": "Archives are not opened: unpack it into the folder.",
    ".7z": "Archives are not opened: unpack it into the folder.",
}
"""Endings that a data manager may take for readable; they are refused by name. Others are somebody else's files."""
BROKEN: Final = "file-broken"


class Stamp(Struct, frozen=True, array_like=True):
    """By what a file is known to be the same without reading it: bytes and time of its last change."""

    size: int
    changed_ns: int


NOTHING: Final = Stamp(-1, 0)
"""Of what cannot be looked at: a link in a circle, a folder of that name, no permission."""


class Surveyed(Struct, frozen=True, array_like=True):
    """`digest`: of the file's bytes as they lie on disk. `broken`: why nothing is to be taken from it, or None."""

    stamp: Stamp
    digest: bytes
    broken: Finding | None = None


def form_of(name: str) -> Form | None:
    return next((form for ending, form in FORMS.items() if name.endswith(ending)), None)


def refused_by_name(name: str) -> Finding | None:
    ending = next((ending for ending in NOT_READ if name.lower().endswith(ending)), None)
    if ending is None:
        return None
    return Finding("format-not-read", "", "file-form", shown(name), NOT_READ[ending])


def stamp_of(path: Path) -> Stamp:
    try:
        found = path.stat()
        return Stamp(found.st_size, found.st_mtime_ns) if path.is_file() else NOTHING
    except OSError:
        return NOTHING


def survey(path: Path) -> Surveyed:
    """Look a file through to its end. Never raises for what is wrong with the file."""
    stamp = stamp_of(path)
    by_name = refused_by_name(path.name)
    if by_name is not None:
        return Surveyed(stamp, b"", by_name)
    if stamp == NOTHING:
        mend = "It is no plain file that can be read: mend the link or the permission, or take it out of the folder."
        return Surveyed(stamp, b"", _broken("file-readable", path.name, mend))
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            start = file.read(READ_CHUNK_BYTES)
            piece = start
            while piece:
                digest.update(piece)
                piece = file.read(READ_CHUNK_BYTES)
        broken = _start(path, start) or _contents(path)
    except OSError:
        mend = "The disk or the permission does not let it be read to its end: copy it anew."
        broken = _broken("file-readable", path.name, mend)
    return Surveyed(stamp, digest.digest(), broken)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's text, unpacked while it is read."""
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
        yield cast(BinaryIO, file)


def _start(path: Path, start: bytes) -> Finding | None:
    if not start:
        return _broken("file-empty", path.name, "The file is empty: export it anew, or take it out of the folder.")
    if start.startswith(BOMS[1:]):
        return _broken("utf-8", path.name, "The file is UTF-16: save it in the encoding UTF-8.")
    return None


def _contents(path: Path) -> Finding | None:
    """Whether it can be unpacked to its end, within the limits."""
    most = MAX_BUNDLE_BYTES if form_of(path.name) == "document" else MAX_IMPORT_FILE_BYTES
    packed = path.stat().st_size
    if not path.name.endswith(".gz"):
        return _too_long(path, most) if packed > most else None
    read = 0
    try:
        with opened(path) as file:
            while piece := file.read(READ_CHUNK_BYTES):
                read += len(piece)
                if read > most:
                    return _too_long(path, most)
                if read > INFLATION_LOOK_BYTES and read > MAX_INFLATION * packed:
                    mend = "It unpacks to so much more than any export does that it may be meant to fill the disk."
                    return _broken("file-inflates", path.name, mend)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        mend = "It is no whole gzip file (cut short while it was copied?): copy or export it anew."
        return _broken("file-whole", path.name, mend)
    return _broken("file-empty", path.name, "The file is empty: export it anew.") if read == 0 else None


def _too_long(path: Path, most: int) -> Finding:
    return Finding("too-long", "", "file-size", shown(path.name), f"Split it into files of at most {most} bytes.")


def _broken(rule: str, found: str, mend: str) -> Finding:
    return Finding(BROKEN, "", rule, shown(found), mend)
