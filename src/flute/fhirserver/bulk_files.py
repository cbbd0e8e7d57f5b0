"""Files of a bulk export: NDJSON, plain or gzipped, line by line, begun again where a download breaks off.

Source: FHIR Bulk Data Access 2.0, "Bulk Data Output File Request"; NDJSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from flute.defaults.records import FHIR_FILE_S, MAX_IMPORT_FILE_BYTES, MAX_RESOURCE_BYTES
from flute.fhirserver.connection import Check, Connection, Declined
from flute.fhirserver.wire import Again, Call

_NDJSON: Final = "application/fhir+ndjson"


@dataclass(frozen=True, slots=True)
class Line:
    """Line `number` of a file, from 1. `length` exceeds that of `text` where the line was too long to be kept."""

    number: int
    text: bytes
    length: int

    @property
    def is_too_long(self) -> bool:
        return self.length > len(self.text)


@dataclass(frozen=True, slots=True)
class ExportFile:
    """`check`: lets its address pass. `authorised`: the server says that it wants the access token. `count`: lines
    that it announces, or None."""

    url: str
    check: Check
    authorised: bool
    count: int | None = None


def lines_of(connection: Connection, file: ExportFile, *, done: int = 0) -> Iterator[Line]:
    """Lines that are not blank, after the first `done` lines of any kind.

    A download that breaks off is begun again, and what was given is passed over. Attempts count anew whenever one
    of them got further. The first line that is no JSON is fetched again too: a proxy may have cut the file there.
    Raises: Declined: the file is gone or not allowed. Unreachable, Unmappable: see `Wire`.
    """
    failed, renewed = 0, False
    suspect: tuple[int, bytes] | None = None
    while True:
        before = done
        try:
            filled = 0
            for line in _download(connection, file):
                is_filled = line.is_too_long or bool(line.text.strip())
                filled += is_filled
                if line.number <= done:
                    continue
                if is_filled and suspect is None and not _is_json(line):
                    suspect = line.number, line.text
                    raise Again(f"The server {connection.host} gives a line that is no JSON.")
                if suspect is not None and line.number == suspect[0] and line.text != suspect[1]:
                    suspect = None
                done = line.number
                if is_filled:
                    yield line
            if file.count is not None and filled < file.count:
                raise Again(f"The server {connection.host} gives a file of fewer resources than it announced.")
            return
        except Again as again:
            failed = 1 if done > before else failed + 1
            connection.wire.pause(again, failed)
        except Declined as declined:
            if declined.status != 401 or renewed or not file.authorised or not connection.credentials.renew():
                raise
            renewed = True


def _is_json(line: Line) -> bool:
    if line.is_too_long:
        return True
    try:
        msgspec.json.decode(line.text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _download(connection: Connection, file: ExportFile) -> Iterator[Line]:
    """One attempt. Raises: Again: it broke off."""
    call = Call(file.url, headers={"accept": _NDJSON})
    with connection.following(call, file.check, authorised=file.authorised, time_s=FHIR_FILE_S) as answer:
        declared = answer.headers.get("content-length")
        framed = declared is not None or "chunked" in answer.headers.get("transfer-encoding", "").lower()
        pieces = connection.wire.plain(answer.pieces(MAX_IMPORT_FILE_BYTES))
        yield from _lines(connection, _limited(connection, pieces), framed=framed)


def _limited(connection: Connection, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Also after a gzipped file was unpacked."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_IMPORT_FILE_BYTES:
            raise connection.wire.too_large(MAX_IMPORT_FILE_BYTES)
        yield piece


def _lines(connection: Connection, pieces: Iterator[bytes], *, framed: bool) -> Iterator[Line]:
    """`framed`: HTTP itself says where the body ends, so that a missing last line break means nothing."""
    number, length = 1, 0
    held = bytearray()
    for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            length += end - start
            _hold(held, piece[start:end])
            yield _line(connection, number, held, length)
            held.clear()
            number, length, start = number + 1, 0, end + 1
        length += len(piece) - start
        _hold(held, piece[start:])
    if length and not framed and not held.rstrip().endswith(b"}"):
        raise Again(f"The server {connection.host} broke off in the middle of a file.")
    if length:
        yield _line(connection, number, held, length)


def _line(connection: Connection, number: int, held: bytearray, length: int) -> Line:
    if number == 1:
        connection.recognise(bytes(held[:200]))
    return Line(number, bytes(held), length)


def _hold(held: bytearray, more: bytes) -> None:
    """Up to one byte over the limit."""
    held += more[: MAX_RESOURCE_BYTES + 1 - len(held)]
