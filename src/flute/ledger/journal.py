"""The hub's journal: one append-only, hash-chained table in SQLite. Budget and audit log are views of it.

Durable: WAL with synchronous=FULL; `append` returns after the fsync, lines and signed head in one transaction.
One writer: a lock beside the file, and every write checks that the head is still the one it last wrote, so
that a second writer who got past the lock cannot add to what the first one decided on.
Readers (`JournalView`) work at the same time, from any process, each on a consistent snapshot.
`ledger.chain` says what the chain shows and what it cannot.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from flute.errors import JournalBroken, LedgerError, MisuseError
from flute.ledger.chain import Head, Position, Row, Verified, check_chain, make_head, make_row
from flute.ledger.entries import Entry, kind_of, read_entry, write_entry
from flute.ledger.file import (
    COLUMNS,
    as_row,
    open_to_read,
    open_to_write,
    read_head,
    restore_schema,
    take_lock,
    transaction,
)
from flute.primitives.keys import SigningKey

__all__ = ["Journal", "JournalView", "Line", "Position", "Snapshot", "Verified", "verify"]


@dataclass(frozen=True, slots=True)
class Line:
    """A journal line for readers. `at`: Unix seconds."""

    position: Position
    at: int
    kind: str
    entry: Entry


class Snapshot:
    """One consistent state of a journal; lines that are appended meanwhile are not in it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.head = read_head(connection)

    def rows(self, start: int = 1, kinds: Sequence[str] = ()) -> Iterator[Row]:
        """Stored lines by number, from `start` on, of `kinds` (all where none is named)."""
        marks = ", ".join("?" * len(kinds))
        where = f"AND kind IN ({marks})" if kinds else ""
        query = f"SELECT {COLUMNS} FROM line WHERE number >= ? {where} ORDER BY number"  # noqa: S608 marks only
        number = start - 1
        try:
            for values in self._connection.execute(query, (start, *kinds)):
                number = values[0]
                yield as_row(values)
        except sqlite3.DatabaseError as error:
            raise JournalBroken(
                f"The journal's file is damaged: nothing after line {number} can be read. Restore its backup.",
                line=number + 1,
            ) from error


class JournalView:
    """Reading a journal, also while the hub writes it. Checks nothing: `verify` does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Raises: LedgerError: there is no journal. JournalBroken: the file is none."""
        connection = open_to_read(self.path)
        try:
            try:
                connection.execute("BEGIN")
                taken = Snapshot(connection)
            except sqlite3.DatabaseError as error:
                raise JournalBroken(
                    f"{self.path.name} holds no journal, or its file is damaged. Restore it from its backup.", line=1
                ) from error
            yield taken
        finally:
            connection.close()

    def lines(self, start: int = 1, kinds: Sequence[str] = ()) -> Iterator[Line]:
        """Lines by number, from `start` on, of `kinds` (all where none is named)."""
        with self.snapshot() as taken:
            for row in taken.rows(start, kinds):
                yield Line(Position(row.number, row.digest), row.at, row.kind, read_entry(row.body))

    def row(self, number: int) -> Row:
        """Raises: LedgerError: no such line."""
        with self.snapshot() as taken:
            row = next(taken.rows(number), None)
        if row is None or row.number != number:
            raise LedgerError(f"The journal has no line {number}.")
        return row

    def head(self) -> Position:
        """The last line as the head names it (line 0 where there is none yet)."""
        with self.snapshot() as taken:
            if taken.head is None:
                raise JournalBroken("The journal's head is missing; run 'flute audit verify'.", line=1)
            return Position(taken.head.number, taken.head.digest)


class Journal(JournalView):
    """The one writer of a journal. `Journal.open` makes it; all methods may be called from any thread."""

    def __init__(
        self, path: Path, key: SigningKey, connection: sqlite3.Connection, lock: int, last: Position
    ) -> None:
        super().__init__(path)
        self._key = key
        self._connection: sqlite3.Connection | None = connection
        self._lock = lock
        self._last = last
        self._turn = threading.RLock()
        self._file = _identity(path)
        self._claimed: set[str] = set()

    @classmethod
    def open(
        cls, path: Path, signing_key: SigningKey, *, expected: Position | None = None, create: bool = True
    ) -> Journal:
        """Take the journal for writing, after checking every line of it.

        `expected`: the newest position that somebody else vouches for, where there is one. `create`: make it
        where there is none; a hub that has enrolled says False, since a lost journal is a lost budget.

        Raises: LedgerError: another process writes it, there is none, its schema was altered.
          JournalBroken: see `verify`.
        """
        lock = take_lock(path)
        connection = None
        try:
            connection = open_to_write(path, signing_key, create=create)
            verified = verify(path, signing_key.public, expected)
            restore_schema(connection)
            return cls(path, signing_key, connection, lock, verified.position)
        except BaseException as error:
            if connection is not None:
                connection.close()
            os.close(lock)
            if isinstance(error, sqlite3.Error):
                raise LedgerError(f"The journal {path.name} cannot be opened ({error}).") from error
            raise

    @property
    def public(self) -> bytes:
        return self._key.public

    @property
    def last(self) -> Position:
        """The last line that this writer wrote or found."""
        return self._last

    def append(self, entry: Entry, now: int) -> Position:
        """Write one line; it is on disk when this returns. Raises: see `append_all`."""
        return self.append_all((entry,), now)[-1]

    def append_all(self, entries: Sequence[Entry], now: int) -> tuple[Position, ...]:
        """Write several lines, all or none; they are on disk when this returns. `now`: Unix seconds.

        Raises: MisuseError: an entry is out of its bounds, or the journal was closed.
          LedgerError: nothing may be relied on: the disk is full, or another process wrote.
        """
        taken = sorted({kind_of(entry) for entry in entries} & self._claimed)
        if taken:
            raise MisuseError(f"Lines of kind {', '.join(taken)} are written by the ledger alone.")
        return self._append(entries, now)

    def claim(self, kinds: Iterable[str]) -> Callable[[Entry, int], Position]:
        """From now on lines of `kinds` are appended by the function returned, and by nothing else: two budgets kept
        in one journal would each allow what only one may. Raises: MisuseError: somebody else claimed them."""
        with self._turn:
            if self._claimed.intersection(kinds):
                raise MisuseError("This journal has its ledger already; use that one.")
            self._claimed.update(kinds)
        return lambda entry, now: self._append((entry,), now)[-1]

    def _append(self, entries: Sequence[Entry], now: int) -> tuple[Position, ...]:
        bodies = [(kind_of(entry), write_entry(entry)) for entry in entries]
        if not bodies:
            return ()
        with self._turn:
            last, rows = self._last, []
            for kind, body in bodies:
                row = make_row(self._key, last.line + 1, now, kind, body, last.digest)
                last = Position(row.number, row.digest)
                rows.append(row)
            self._write(rows, make_head(self._key, last.line, last.digest))
            self._last = last
        return tuple(Position(row.number, row.digest) for row in rows)

    def close(self) -> None:
        """Let another process take the journal. Closing twice does no harm."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, rows: Sequence[Row], head: Head) -> None:
        if self._connection is None:
            raise MisuseError("The journal was closed; open it again before writing.")
        if _identity(self.path) != self._file:
            raise LedgerError(
                f"The file {self.path.name} was replaced while the hub ran: what is written now would be lost. "
                "Nothing was written; stop the hub service and run 'flute audit verify'."
            )
        try:
            with transaction(self._connection):
                found = read_head(self._connection)
                if found is None or (found.number, found.digest) != (self._last.line, self._last.digest):
                    raise LedgerError(
                        f"Another process wrote to the journal after line {self._last.line}. Nothing was written "
                        "here; stop the other hub service and start this one again."
                    )
                self._connection.executemany("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                self._connection.execute("UPDATE head SET number = ?, digest = ?, signature = ?", head)
                self._require_stored(rows, head)
        except sqlite3.Error as error:
            raise LedgerError(
                f"The journal cannot be written ({error}). What it was to vouch for must not happen; free disk space "
                "or mend the file system, then start the hub service again."
            ) from error

    def _require_stored(self, rows: Sequence[Row], head: Head) -> None:
        """Before the commit: the last line is still there, and the new ones stand as they were written."""
        assert self._connection is not None
        found = self._connection.execute(f"SELECT {COLUMNS} FROM line WHERE number >= ?", (self._last.line,))  # noqa: S608
        stored = [as_row(values) for values in found]
        before = stored.pop(0) if self._last.line and stored else None
        if (before and before.digest) != (self._last.digest if self._last.line else None):
            stored = []
        if stored != list(rows) or read_head(self._connection) != head:
            raise LedgerError(
                f"The journal's file was altered while the hub ran, at line {self._last.line} or after. Nothing was "
                "written; stop the hub service and run 'flute audit verify'."
            )


def verify(path: Path, public_key: bytes, expected: Position | None = None) -> Verified:
    """Check every line against the chain and the signed head; may run while the hub writes.

    Raises: JournalBroken: names the first line that shows it and what was done: changed, dropped, inserted,
      reordered, truncated, head forged or set back; with `expected`, an older copy in its place.
      LedgerError: there is no journal.
    """
    with JournalView(path).snapshot() as taken:
        return check_chain(taken.rows, taken.head, public_key, expected)


def _identity(path: Path) -> tuple[int, int]:
    """Which file stands at `path`: a writer keeps writing to a file that was replaced, and nobody would read it."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)
