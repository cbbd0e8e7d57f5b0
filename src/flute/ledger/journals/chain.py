"""The hash chain of a journal, wherever its lines are stored: what a line's digest covers, and how a chain
that does not hold is explained.

  content = H(number, at, kind, body, previous)       previous = digest of the line before
  seal    = the hub's Ed25519 signature over content
  digest  = H(content, seal)
  head    = number and digest of the last line, signed by the hub under another label

The signed head makes the check cheap (one signature, two hashes a line) and shows a cut tail. The seals are
looked at only when something is wrong: a stranger can recompute every digest after the line he rewrote, but
not its seal, and so the first line he touched is still named. A seal is no head: a cut journal cannot be
closed with the seal of the line where it was cut.

Out of reach of any single copy: a whole older copy, head included, is sound in itself. It shows only
against a position that somebody else kept (a receipt, a witness). And whoever holds the hub's key can write
another history; receipts kept elsewhere show that too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

from flute.defaults import JOURNAL_LOOK_AHEAD
from flute.errors import BadSignature, JournalBroken
from flute.primitives.keys import SigningKey, digest, verify

_LINE: Final = b"flute/journal/line/v1"
_DIGEST: Final = b"flute/journal/digest/v1"
_HEAD: Final = b"flute/journal/head/v1"
_GENESIS: Final = b"flute/journal/genesis/v1"


class Row(NamedTuple):
    """One line as stored. `number` from 1; `at`: Unix seconds; `body`: canonical bytes of an entry."""

    number: int
    at: int
    kind: str
    body: bytes
    previous: bytes
    seal: bytes
    digest: bytes


class Head(NamedTuple):
    number: int
    digest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """A line of one hub's journal: its number and digest. Line 0 stands before the first."""

    line: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain whose every line holds. `digest`: of the last line. Times: Unix seconds, 0 where it is empty."""

    lines: int
    digest: bytes
    first_at: int
    last_at: int

    @property
    def position(self) -> Position:
        return Position(self.lines, self.digest)


def genesis(public: bytes) -> bytes:
    """What stands before line 1: it binds a journal to its hub's key."""
    return digest(_GENESIS, public)


def content_of(number: int, at: int, kind: str, body: bytes, previous: bytes) -> bytes:
    return digest(
        _LINE,
        number.to_bytes(8, "big", signed=True),
        at.to_bytes(8, "big", signed=True),
        kind.encode(),
        body,
        previous,
    )


def digest_of(content: bytes, seal: bytes) -> bytes:
    return digest(_DIGEST, content, seal)


def make_row(key: SigningKey, number: int, at: int, kind: str, body: bytes, previous: bytes) -> Row:
    content = content_of(number, at, kind, body, previous)
    seal = key.sign(_LINE + content)
    return Row(number, at, kind, body, previous, seal, digest_of(content, seal))


def make_head(key: SigningKey, number: int, last: bytes) -> Head:
    return Head(number, last, key.sign(_head_message(number, last)))


def damaged_row(number: int) -> Row:
    """Stands for a line whose fields cannot be read; it never passes."""
    return Row(number, 0, "", b"", b"", b"", b"")


def is_signed(head: Head, public: bytes) -> bool:
    """Whether the hub signed it: only then does it say anything."""
    return _signed(head, public) is not None


def check_head(head: Head, public: bytes) -> Position:
    """The position that a head vouches for. Raises: BadSignature: the hub did not sign it."""
    verify(public, head.signature, _head_message(head.number, head.digest))
    return Position(head.number, head.digest)


def check_row(row: Row, public: bytes) -> None:
    """One line by itself, as a receipt shows it. Raises: BadSignature: the hub did not write this very line."""
    content = _content(row)
    verify(public, row.seal, _LINE + content)
    if row.digest != digest_of(content, row.seal):
        raise BadSignature("A receipt's digest is not that of its line.")


def check_chain(
    read: Callable[[], Iterator[Row]], head: Head | None, public: bytes, expected: Position | None = None
) -> Verified:
    """The whole check. `read` gives the lines in stored order, and may be called twice.

    Raises: JournalBroken: names the first line that shows it and what was done; or the chain is sound, but
    it is not the one, or ends before the line, that `expected` was taken from.
    """
    trusted = _signed(head, public)
    last, first_at, last_at, met = Position(0, genesis(public)), 0, 0, genesis(public)
    for row in read():
        if not _follows(row, last):
            raise explain(list(read()), head, trusted, public)
        last, first_at, last_at = Position(row.number, row.digest), first_at or row.at, row.at
        if expected is not None and row.number == expected.line:
            met = row.digest
    if trusted is None or (trusted.number, trusted.digest) != (last.line, last.digest):
        raise explain(list(read()), head, trusted, public)
    if expected is not None:
        check_expected(expected, last.line, met)
    return Verified(last.line, last.digest, first_at, last_at)


def explain(rows: Sequence[Row], head: Head | None, trusted: Head | None, public: bytes) -> JournalBroken:
    """Which line of a chain that does not hold was touched first, and how. `trusted`: `head` if it is signed."""
    sound = _sound(rows, public)
    if trusted is None and sound == 0 and rows:
        return JournalBroken(
            "Neither line 1 nor the head of this journal is signed with the given key: it is another hub's journal, "
            "or it was written anew without the hub's key.",
            line=1,
        )
    if sound == len(rows):
        return _explain_head(len(rows), head, trusted)
    before = rows[sound - 1].digest if sound else genesis(public)
    return JournalBroken(_explain_row(rows, sound, before, trusted, public), line=sound + 1)


def _explain_row(rows: Sequence[Row], at: int, before: bytes, trusted: Head | None, public: bytes) -> str:
    line, row = at + 1, rows[at]
    surplus = len(rows) - trusted.number if trusted else 0
    written_as = _written_as(row, max(len(rows), trusted.number if trusted else 0), public)
    moved_to = _moved_to(rows, at, before, public)
    if moved_to is not None:
        if surplus > 0 or (trusted is None and written_as is None) or 0 < (written_as or 0) < line:
            copy = f", a copy of line {written_as}" if written_as else ", which the hub did not write"
            return (
                f"Line {line} was inserted: what stands there{copy}; the line that the hub wrote there comes later."
            )
        what = f"what stands there was written as line {written_as}" if written_as else "another line stands there"
        return f"Line {line} was reordered: {what}, and the line itself now comes in place {moved_to}."
    if written_as is not None and written_as > line:
        what = f"Line {line} was" if written_as == line + 1 else f"Lines {line} to {written_as - 1} were"
        return f"{what} dropped: what comes next was written as line {written_as}."
    if written_as == line:
        return f"Line {line} follows another line than the one before it: two copies of this journal were mixed."
    if written_as is not None:
        return f"Line {line} was changed: it was overwritten with a copy of line {written_as}."
    if surplus > 0:
        return f"Line {line} was inserted: the hub did not write it, and the journal has {surplus} lines too many."
    if row.number > line or surplus < 0:
        return f"Line {line} was dropped: what stands there is not sealed by the hub, and lines are missing."
    if row.digest != digest_of(_content(row), row.seal):
        return f"Line {line} was changed: its content does not match its digest."
    return f"Line {line} was changed: it and the digests after it were written anew without the hub's key."


def _explain_head(lines: int, head: Head | None, trusted: Head | None) -> JournalBroken:
    after = lines + 1
    if head is None:
        text = f"The signed head is missing: whether lines after line {lines} were cut off cannot be told."
    elif trusted is None:
        text = (
            f"The head was forged: it names line {head.number} without the hub's signature. The {lines} lines are "
            "the hub's own, but later ones may have been cut off."
        )
    elif trusted.number > lines:
        text = f"The journal was truncated: it ends at line {lines}, but its signed head names line {trusted.number}."
    elif trusted.number < lines:
        after = trusted.number + 1
        text = f"The head was set back: it names line {trusted.number}, but the hub sealed {lines} lines."
    else:
        after = lines
        text = (
            f"The head names another line {lines} than the one that stands there: the hub's key sealed two histories."
        )
    return JournalBroken(text, line=after)


def check_expected(expected: Position, lines: int, met: bytes) -> None:
    """`met`: the digest of line `expected.line`, where the journal's `lines` reach it.

    Raises: JournalBroken: the line that somebody else vouches for is not there."""
    if expected.line > lines:
        raise JournalBroken(
            f"The journal ends at line {lines}, but a receipt of line {expected.line} exists: an older copy was put "
            "in its place. What it charged since is unknown; nothing may be answered from it. Put the newest copy "
            "back, or run 'flute hub recover'.",
            line=lines + 1,
        )
    if met != expected.digest:
        raise JournalBroken(
            f"Line {expected.line} is not the one that the receipt names: an older copy was put in place and written "
            "on, or the journal was written anew. It differs at this line or before. Put the right copy back, or run "
            "'flute hub recover'.",
            line=expected.line,
        )


def _signed(head: Head | None, public: bytes) -> Head | None:
    """`head` where the hub signed it, else None."""
    if head is None:
        return None
    try:
        verify(public, head.signature, _head_message(head.number, head.digest))
    except BadSignature:
        return None
    return head


def _head_message(number: int, last: bytes) -> bytes:
    return _HEAD + digest(number.to_bytes(8, "big", signed=True), last)


def _content(row: Row) -> bytes:
    return content_of(row.number, row.at, row.kind, row.body, row.previous)


def _follows(row: Row, last: Position) -> bool:
    return (
        row.number == last.line + 1
        and row.previous == last.digest
        and row.digest == digest_of(_content(row), row.seal)
    )


def _sealed(content: bytes, seal: bytes, public: bytes) -> bool:
    try:
        verify(public, seal, _LINE + content)
    except BadSignature:
        return False
    return True


def _sound(rows: Iterable[Row], public: bytes) -> int:
    """How many lines from the first are the hub's own.

    A seal covers `previous`, so a good seal vouches for all lines that chain up to it: bisection is exact.
    """
    last, chained = Position(0, genesis(public)), []
    for row in rows:
        if not _follows(row, last):
            break
        last = Position(row.number, row.digest)
        chained.append(row)
    low, high = 0, len(chained)
    while low < high:
        middle = (low + high + 1) // 2
        row = chained[middle - 1]
        low, high = (middle, high) if _sealed(_content(row), row.seal, public) else (low, middle - 1)
    return low


def _written_as(row: Row, most: int, public: bytes) -> int | None:
    """The number under which the hub wrote this very line, wherever it stands now."""
    for number in chain((row.number,), range(1, most + 1)):
        content = content_of(number, row.at, row.kind, row.body, row.previous)
        if row.digest == digest_of(content, row.seal) and _sealed(content, row.seal, public):
            return number
    return None


def _moved_to(rows: Sequence[Row], at: int, before: bytes, public: bytes) -> int | None:
    """The place (from 1) where the true line `at + 1` stands now, if it is still there: the one whose content,
    put after `before`, the hub sealed under that number. Digests may have been recomputed around it."""
    for place in range(at + 1, len(rows)):
        row = rows[place]
        if row.previous != before and place > at + JOURNAL_LOOK_AHEAD:
            continue
        if _sealed(content_of(at + 1, row.at, row.kind, row.body, before), row.seal, public):
            return place + 1
    return None
