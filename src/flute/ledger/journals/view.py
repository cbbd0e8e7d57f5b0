"""Reading a journal, also while the hub writes it, from any process, each on a consistent snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flute.errors import JournalBroken, LedgerError
from flute.ledger.journals.chain import Head, Position, Row, Verified, check_chain, check_expected, genesis
from flute.ledger.journals.file import COLUMNS, as_row, open_to_read, read_head
from flute.ledger.lines.budget import JournalRecovered
from flute.ledger.lines.entries import Entry, read_entry


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
        found = self.signed_head()
        return Position(found.number, found.digest)

    def signed_head(self) -> Head:
        """The head as a witness keeps it."""
        with self.snapshot() as taken:
            if taken.head is None:
                raise JournalBroken("The journal's head is missing; run 'flute audit verify'.", line=1)
            return taken.head

    def require_position(self, expected: Position, public: bytes) -> None:
        """Raises: JournalBroken: the line that somebody else vouches for is not in this journal, and no recovery has
        accounted for it."""
        with self.snapshot() as taken:
            last = taken.head.number if taken.head is not None else 0
            row = next(taken.rows(expected.line), None) if 0 < expected.line <= last else None
            accounted = [read_entry(row.body) for row in taken.rows(kinds=("journal-recovered",))]
        lost = [e for e in accounted if isinstance(e, JournalRecovered)]
        if not any(e.found < expected.line <= e.lost for e in lost):
            check_expected(expected, last, genesis(public) if row is None else row.digest)


def verify(path: Path, public_key: bytes, expected: Position | None = None) -> Verified:
    """Check every line against the chain and the signed head; may run while the hub writes.

    Raises: JournalBroken: names the first line that shows it and what was done: changed, dropped, inserted,
      reordered, truncated, head forged or set back; with `expected`, an older copy in its place.
      LedgerError: there is no journal.
    """
    with JournalView(path).snapshot() as taken:
        return check_chain(taken.rows, taken.head, public_key, expected)
