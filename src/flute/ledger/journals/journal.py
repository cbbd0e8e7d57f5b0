"""The hub's journal: one append-only, hash-chained table in SQLite. Budget and audit log are views of it.

Durable: WAL with synchronous=FULL; `append` returns after the fsync, lines and signed head in one transaction.
One writer: a lock beside the file, and every write checks that the head is still the one it last wrote, so
that a second writer who got past the lock cannot add to what the first one decided on.
Readers (`JournalView`) work at the same time, from any process.
Witnessed: with a `Witness`, a line is acknowledged only when its signed head is kept outside this folder as well.
`ledger.journals.chain` says what the chain shows and what it cannot.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from flute.errors import JournalBroken, LedgerError, MisuseError
from flute.ledger.journals.chain import Head, Position, Row, Verified, check_head, make_head, make_row
from flute.ledger.journals.file import (
    COLUMNS,
    as_row,
    open_to_write,
    read_head,
    restore_schema,
    take_lock,
    transaction,
)
from flute.ledger.journals.view import JournalView, Line, Snapshot, verify
from flute.ledger.journals.witness import Witness
from flute.ledger.lines.budget import WitnessKept
from flute.ledger.lines.entries import Entry, kind_of, write_entry
from flute.primitives.keys import SigningKey

__all__ = ["Journal", "JournalView", "Line", "Position", "Snapshot", "Verified", "verify"]


class Journal(JournalView):
    """The one writer of a journal. `Journal.open` makes it; all methods may be called from any thread."""

    def __init__(
        self,
        path: Path,
        key: SigningKey,
        connection: sqlite3.Connection,
        lock: int,
        found: Verified,
        witness: Witness | None,
    ) -> None:
        super().__init__(path)
        self._key = key
        self._connection: sqlite3.Connection | None = connection
        self._lock = lock
        self._last = found.position
        self._turn = threading.RLock()
        self._file = _identity(path)
        self._claimed: set[str] = set()
        self._witness = witness
        self._first: tuple[Entry, ...] = ()
        self._stopped = ""

    @classmethod
    def open(
        cls,
        path: Path,
        signing_key: SigningKey,
        *,
        expected: Position | None = None,
        create: bool = True,
        witness: Witness | None = None,
    ) -> Journal:
        """Take the journal for writing, after checking every line of it.

        `expected`: the newest position that somebody else vouches for, where there is one. `create`: make it
        where there is none; a hub that has enrolled says False, since a lost journal is a lost budget. `witness`:
        gets every head before its line is acknowledged, and is asked now whether there were later ones.

        Raises: LedgerError: another process writes it, there is none, its schema was altered, the witness is gone.
          JournalBroken: see `verify`.
        """
        lock = take_lock(path)
        connection = None
        try:
            connection = open_to_write(path, signing_key, create=create)
            verified = verify(path, signing_key.public, expected)
            restore_schema(connection)
            journal = cls(path, signing_key, connection, lock, verified, witness)
            journal._ask_witness()
            return journal
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

    def head_at(self, position: Position) -> Head:
        """The head that this journal had when `position` was its last line; for somebody else to keep."""
        return make_head(self._key, position.line, position.digest)

    @property
    def last(self) -> Position:
        """The last line that this writer wrote or found."""
        return self._last

    def require_head(self, head: Head) -> None:
        """A head that this hub gave away must be in its journal. One that is not is kept in the witness, so that a
        restart does not forget it.

        Raises: BadSignature: this hub did not sign it. JournalBroken: this journal is an older copy, or another one.
        """
        position = check_head(head, self.public)
        try:
            self.require_position(position, self.public)
        except JournalBroken:
            if self._witness is not None:
                self._witness.accuse(head)
            raise

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

    def append_sealed(self, rows: Iterable[Row]) -> int:
        """Put back lines that this hub sealed before and that follow the last one, as an export holds them; gives
        their number. All or none. The caller has verified the chain they come from."""
        with self._turn:
            taken = list(rows)
            if taken:
                last = Position(taken[-1].number, taken[-1].digest)
                head = make_head(self._key, last.line, last.digest)
                self._write(taken, head)
                self._last = last
                self._tell_witness(head)
            return len(taken)

    def claim(self, kinds: Iterable[str]) -> Callable[[Entry, int], Position]:
        """From now on lines of `kinds` are appended by the function returned, and by nothing else: two budgets kept
        in one journal would each allow what only one may. Raises: MisuseError: somebody else claimed them."""
        with self._turn:
            if self._claimed.intersection(kinds):
                raise MisuseError("This journal has its ledger already; use that one.")
            self._claimed.update(kinds)
        return lambda entry, now: self._append((entry,), now)[-1]

    def _append(self, entries: Sequence[Entry], now: int) -> tuple[Position, ...]:
        if not entries:
            return ()
        with self._turn:
            bodies = [(kind_of(entry), write_entry(entry)) for entry in (*self._first, *entries)]
            last, rows = self._last, []
            for kind, body in bodies:
                row = make_row(self._key, last.line + 1, now, kind, body, last.digest)
                last = Position(row.number, row.digest)
                rows.append(row)
            head = make_head(self._key, last.line, last.digest)
            self._write(rows, head)
            self._last, self._first = last, ()
            self._tell_witness(head)
        return tuple(Position(row.number, row.digest) for row in rows[-len(entries) :])

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

    def _ask_witness(self) -> None:
        if self._witness is None:
            return
        heads = self._witness.heads(self.public)
        for head in heads:
            self.require_position(Position(head.number, head.digest), self.public)
        known = next(self.lines(kinds=("witness-kept",)), None) is not None
        if known and not heads:
            raise LedgerError(
                f"The witness {self._witness.place} is gone, so nobody can tell whether this journal is an older "
                "copy. Put it back, or run 'flute hub recover'."
            )
        if not known:
            self._first = (WitnessKept(),)  # with the next line: opening has no clock
        self._tell_witness(self.signed_head())

    def _tell_witness(self, head: Head) -> None:
        """The line is on disk and not acknowledged yet. If the witness fails, what is decided on what this process
        knows would not count the line: it writes nothing more."""
        if self._witness is None:
            return
        try:
            self._witness.advance(head)
        except LedgerError as error:
            self._stopped = error.text
            raise

    def _write(self, rows: Sequence[Row], head: Head) -> None:
        if self._stopped:
            raise LedgerError(self._stopped)
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


def _identity(path: Path) -> tuple[int, int]:
    """Which file stands at `path`: a writer keeps writing to a file that was replaced, and nobody would read it."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)
