"""The audit log: the journal for people, receipts for others, and an export that proves itself.

An export is NDJSON: one canonical JSON object per journal line, then one with the signed head. Each carries
the line's bytes as they were sealed and the same in readable form. `verify_export` needs the hub's public
key and nothing else, names the same failures as `journal.verify`, and finds every changed byte: a line that
is not exactly what its sealed bytes give is a changed line.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from flute.defaults import MAX_JOURNAL_LINE_BYTES
from flute.errors import LedgerError, Malformed
from flute.ledger.journals.chain import Head, Position, Row, Verified, check_chain, check_row, damaged_row
from flute.ledger.journals.heads import is_head_line, read_head_line, write_head_line
from flute.ledger.journals.journal import JournalView, Line
from flute.ledger.lines.entries import Entry, study_of

_MAX_EXPORT_LINE: Final = 8 * MAX_JOURNAL_LINE_BYTES
"""Bytes as base64, and once more in readable form."""
_NO_HEAD: Final = Head(0, b"", b"")
"""Stands for a head that cannot be read; no key signed it."""


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One journal line for people. `text` is a sentence without control characters."""

    position: Position
    at: int
    kind: str
    text: str
    entry: Entry

    @property
    def time(self) -> str:
        """UTC, ISO 8601."""
        return _time(self.at)

    def as_json(self) -> dict[str, Any]:
        """For `--format json`: plain values, bytes as hexadecimal."""
        return {
            "line": self.position.line,
            "time": self.time,
            "kind": self.kind,
            "text": self.text,
            "entry": _readable(msgspec.to_builtins(self.entry, builtin_types=(bytes,))),
            "digest": self.position.digest.hex(),
        }


def history(
    journal: JournalView, *, since: int = 0, until: int | None = None, kinds: Sequence[str] = (), study: str = ""
) -> Iterator[AuditLine]:
    """Lines in order, written from `since` to `until` (Unix seconds, both included), of `kinds`, about `study`.

    Reads; checks nothing: run `journal.verify` first where it matters.
    """
    for line in journal.lines(kinds=kinds):
        if line.at < since or (until is not None and line.at > until):
            continue
        if not study or study_of(line.entry) == study:
            yield _audit_line(line)


class Receipt(Struct, frozen=True, forbid_unknown_fields=True):
    """One journal line that proves itself to whoever has the hub's public key. Values as in an export."""

    line: int
    at: int
    time: str
    kind: str
    entry: dict[str, Any]
    body: str
    previous: str
    seal: str
    digest: str

    @property
    def position(self) -> Position:
        return Position(self.line, bytes.fromhex(self.digest))


def receipt(journal: JournalView, position: Position) -> Receipt:
    """The receipt of a line, for whoever was given its position.

    Raises: LedgerError: the journal has no such line, or another one stands there.
    """
    row = journal.row(position.line)
    if row.digest != position.digest:
        raise LedgerError(f"Line {position.line} of this journal is not the one asked for; run 'flute audit verify'.")
    return _receipt(row)


def check_receipt(raw: bytes, public: bytes) -> Receipt:
    """A receipt from its JSON, sealed by the hub. Raises: Malformed: no receipt. BadSignature: not the hub's."""
    row = _row(raw)
    if row is None:
        raise Malformed("This is not a receipt of a journal line, or it was changed.")
    check_row(row, public)
    return _receipt(row)


def write_receipt(shown: Receipt) -> bytes:
    return msgspec.json.encode(shown)


def export(journal: JournalView, file: IO[bytes]) -> Position:
    """Write the whole journal as NDJSON, one consistent state of it. Returns the last line's position.

    Raises: LedgerError: the journal has no head to vouch for the export.
    """
    with journal.snapshot() as taken:
        if taken.head is None:
            raise LedgerError("The journal's head is missing; run 'flute audit verify'.")
        for row in taken.rows():
            file.write(write_receipt(_receipt(row)) + b"\n")
        file.write(write_head_line(taken.head) + b"\n")
        return Position(taken.head.number, taken.head.digest)


def verify_export(path: Path, public: bytes, expected: Position | None = None) -> Verified:
    """Check an export against the hub's public key, line by line.

    Raises: JournalBroken: as `journal.verify`, and where lines follow the head. LedgerError: there is no file.
    """
    try:
        with path.open("rb") as file:
            head = _find_head(file)
        return check_chain(lambda: export_rows(path), head, public, expected)
    except OSError as error:
        raise LedgerError(f"The export {path} cannot be read ({error.strerror}).") from error


def _audit_line(line: Line) -> AuditLine:
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in line.entry.says())
    return AuditLine(line.position, line.at, line.kind, text, line.entry)


def _time(at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return ""


def _readable(value: Any) -> Any:
    """Bytes as hexadecimal, all through."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _readable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(inner) for inner in value]
    return value


def _receipt(row: Row) -> Receipt:
    try:
        entry = _readable(msgspec.msgpack.decode(row.body))  # without types: a newer version's kinds export as well
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        entry = None
    return Receipt(
        line=row.number,
        at=row.at,
        time=_time(row.at),
        kind=row.kind,
        entry=entry if isinstance(entry, dict) else {},
        body=base64.b64encode(row.body).decode(),
        previous=row.previous.hex(),
        seal=row.seal.hex(),
        digest=row.digest.hex(),
    )


def _row(raw: bytes) -> Row | None:
    """The stored line that an export line or receipt stands for; None where it is not exactly that."""
    try:
        shown = msgspec.json.decode(raw, type=Receipt)
        row = Row(
            shown.line,
            shown.at,
            shown.kind,
            base64.b64decode(shown.body, validate=True),
            bytes.fromhex(shown.previous),
            bytes.fromhex(shown.seal),
            bytes.fromhex(shown.digest),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        return None
    whole = -(2**63) <= row.number < 2**63 and -(2**63) <= row.at < 2**63
    return row if whole and write_receipt(_receipt(row)) == raw else None


def _file_lines(file: IO[bytes]) -> Iterable[bytes]:
    while raw := file.readline(_MAX_EXPORT_LINE):
        yield raw.removesuffix(b"\n")


def _find_head(file: IO[bytes]) -> Head | None:
    """The head, if it is the last line, as it has to be."""
    last = b""
    for raw in _file_lines(file):
        last = raw
    return (read_head_line(last) or _NO_HEAD) if is_head_line(last) else None


def export_rows(path: Path) -> Iterator[Row]:
    """The lines of an export that was verified: all but the last one, if that is a
    head; what cannot be read is a damaged line."""
    with path.open("rb") as file:
        waiting: bytes | None = None
        place = 0
        for raw in _file_lines(file):
            if waiting is not None:
                place += 1
                yield _row(waiting) or damaged_row(place)
            waiting = raw
        if waiting is not None and not is_head_line(waiting):
            yield _row(waiting) or damaged_row(place + 1)
