"""A party's outbox and inbox in one SQLite file: what was accepted survives kill -9 of any process.

Durability. WAL with synchronous=NORMAL: a commit is in the kernel's hands when a call returns, so a killed
process loses nothing. A power cut may lose the last seconds (never damage the file): for that case the
protocols above send anew what was not answered, and the hub's ledger has its own fsync.

Long bodies lie in files beside it (`bodies`), in the kernel's hands like the rows. What a power cut left of one is
no message any more: it is forgotten, or, where its length is right, refused by whoever opens the envelope.

Bodies are sealed envelopes; the file is readable by its owner alone all the same. One process at a time: a
second one that opens the same file is refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from flute.defaults import MAX_ENVELOPE_BYTES, MAX_MAILBOX_BYTES, MAX_MAILBOX_MESSAGES, MAX_TRANSFERS_REMEMBERED
from flute.errors import ChannelError, TooLarge
from flute.messages.channel import Delivery
from flute.transport.bodies import Bodies, is_large
from flute.transport.link import Parcel
from flute.transport.mailfile import forget_lost, open_mail

_PRUNE_EVERY: Final = 1_000
"""Arrivals between two prunings of `seen`."""
_SIZE: Final = "coalesce(size, length(body))"


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of the outbox, without its body. file: where that lies, None where it is in the row."""

    row: int
    recipient: str
    size: int
    file: str | None = None


class _Quota:
    """Messages and bytes per name, so that no mailbox grows without end."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def add(self, name: str, size: int, sign: int = 1) -> None:
        self.messages[name] += sign
        self.bytes[name] += sign * size

    def require_room(self, name: str, size: int) -> None:
        """Raises: ChannelError: full."""
        if self.messages[name] >= MAX_MAILBOX_MESSAGES or self.bytes[name] + size > MAX_MAILBOX_BYTES:
            raise ChannelError(
                f"The mailbox for {name} is full ({self.messages[name]} messages, {self.bytes[name]} bytes). "
                f"Nothing more is taken for {name} until there is room: check that {name} is connected and running."
            )


class Mailbox:
    """Durable outbox and inbox of one party. Thread-safe; `receive` sleeps on a condition, it does not poll."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises: MisuseError: another process has it open."""
        self._lock = threading.Lock()
        self._arrival = threading.Condition(self._lock)
        self._closed = False
        self._bodies = Bodies(path.with_name(f"{path.name}-bodies"), durable=False)
        self._database = open_mail(path)
        forget_lost(self._database, self._bodies)
        self._out, self._in = _Quota(), _Quota()
        self._pending: deque[int] = deque()
        self._arrived = 0
        self._outgoing: dict[bytes, Stored] = {}
        """By transfer id: what no receipt came for."""
        self._confirmed: list[Stored] = []
        """Of the outbox, to be deleted with the next transaction."""
        self._written: list[str] = []
        """Files of rows that the open transaction adds."""
        outbox = f"SELECT transfer, row, recipient, {_SIZE}, file FROM outbox"  # noqa: S608 fixed words
        for transfer, *fields in self._database.execute(outbox):
            self._note_outgoing(transfer, Stored(*fields))
        inbox = f"SELECT ticket, hop, {_SIZE} FROM inbox ORDER BY ticket"  # noqa: S608 fixed words
        for ticket, hop, size in self._database.execute(inbox):
            self._in.add(hop, size)
            self._pending.append(ticket)

    # --- outbox ------------------------------------------------------------------------------

    def put(self, parcel: Parcel) -> Stored:
        """Store a message of our own. Raises: TooLarge, ChannelError (full, closed)."""
        size = _checked_size(parcel.body)
        with self._lock:
            self._out.require_room(parcel.recipient, size)
            with self._transaction() as database:
                stored = self._insert_outgoing(database, parcel)
            return self._note_outgoing(parcel.transfer, stored)

    def forward(self, parcel: Parcel, transfer: bytes) -> Stored | None:
        """Store another party's message for a third; None where it was already taken once.

        `transfer`: a fresh id for the next leg, so that nobody can make two messages of the outbox share one.
        Raises: TooLarge, ChannelError (full: the sender keeps it and offers it again).
        """
        size = _checked_size(parcel.body)
        with self._lock:
            self._out.require_room(parcel.recipient, size)
            with self._transaction() as database:
                if not self._first_time(database, parcel):
                    return None  # commits: nothing was changed
                stored = self._insert_outgoing(database, msgspec.structs.replace(parcel, transfer=transfer))
            return self._note_outgoing(transfer, stored)

    def outgoing(self) -> list[Stored]:
        """Everything that was accepted and not yet received, oldest first."""
        with self._lock:
            return sorted(self._outgoing.values(), key=lambda stored: stored.row)

    def load(self, row: int) -> Parcel | None:
        """One message of the outbox; None where its receipt came meanwhile."""
        with self._lock:
            fields = self._one("SELECT recipient, sender, transfer, body, file FROM outbox WHERE row = ?", row)
        if fields is None:
            return None
        recipient, sender, transfer, *kept = fields
        return Parcel(recipient, sender, transfer, self._body(*kept))

    def received(self, transfer: bytes, hop: str, through: str) -> int | None:
        """Forget a message that the next hop has on disk; its row, or None where it is not known (any more).

        `hop` is who says so. Where it is `through` (the coordinator, at a hub) it speaks for every recipient;
        otherwise only for itself: no hub can make us forget a message to another.

        The row leaves the disk with the next transaction: a crash before that sends the message once more,
        and its receiver knows it.
        """
        with self._lock:
            stored = self._outgoing.get(transfer)
            if stored is None or hop not in (stored.recipient, through):
                return None
            del self._outgoing[transfer]
            self._confirmed.append(stored)
            self._out.add(stored.recipient, stored.size, -1)
        return stored.row

    # --- inbox -------------------------------------------------------------------------------

    def arrived(self, parcel: Parcel, hop: str) -> int | None:
        """Store a message for us; its ticket, or None where it had come before. Durable on return.

        `hop` is the cell that handed it over: the quota is counted for it, since `parcel.sender` is a claim.
        `receive` gives it out after `announce(ticket)`: so the caller can confirm it first, before another
        thread of this process begins to work on it. Raises: TooLarge, ChannelError (full).
        """
        size = _checked_size(parcel.body)
        with self._lock:
            self._in.require_room(hop, size)
            with self._transaction() as database:
                if not self._first_time(database, parcel):
                    return None
                ticket = database.execute(
                    "INSERT INTO inbox (hop, peer, body, file, size) VALUES (?, ?, ?, ?, ?)",
                    (hop, parcel.sender, *self._kept(parcel.body)),
                ).lastrowid
            assert ticket is not None  # sqlite3's type; an INSERT always has one
            self._in.add(hop, size)
        return ticket

    def announce(self, ticket: int) -> None:
        """Let `receive` give out what `arrived` stored."""
        with self._lock:
            self._pending.append(ticket)
            self._arrival.notify()

    def receive(self, timeout_s: float) -> Delivery | None:
        """The oldest message that this process has not been given yet, or None after `timeout_s` seconds.

        Raises: ChannelError: the mailbox was closed, before or while this call waited.
        """
        deadline = monotonic() + timeout_s
        with self._lock:
            while not self._pending:
                self._open_database()
                left = deadline - monotonic()
                if left <= 0 or not self._arrival.wait(left):
                    return None
            ticket = self._pending[0]
            found = self._one("SELECT peer, body, file FROM inbox WHERE ticket = ?", ticket)
            self._pending.popleft()
        assert found is not None  # only `done` deletes, and it knows only tickets that were handed out
        return Delivery(ticket, found[0], self._body(*found[1:]))

    def done(self, delivery: Delivery) -> None:
        """Delete a message of the inbox. Harmless when repeated."""
        with self._lock:
            size = f"SELECT hop, {_SIZE}, file FROM inbox WHERE ticket = ?"  # noqa: S608 fixed words
            found = self._one(size, delivery.ticket)
            if found is None:
                return
            with self._transaction() as database:
                database.execute("DELETE FROM inbox WHERE ticket = ?", (delivery.ticket,))
            self._in.add(found[0], found[1], -1)
        self._bodies.drop([found[2]] if found[2] else [])

    def close(self) -> None:
        """Give the file up and wake whoever waits in `receive`. Harmless when repeated."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(ChannelError), self._transaction():  # the last confirmed rows
                    pass
                self._closed = True
                self._database.close()
                self._arrival.notify_all()

    # --- inside ------------------------------------------------------------------------------

    def _open_database(self) -> sqlite3.Connection:
        if self._closed:
            raise ChannelError("This mailbox was closed; the party that owned it has stopped.")
        return self._database

    def _note_outgoing(self, transfer: bytes, stored: Stored) -> Stored:
        self._outgoing[transfer] = stored
        self._out.add(stored.recipient, stored.size)
        return stored

    def _one(self, query: str, key: int | bytes) -> tuple[Any, ...] | None:
        try:
            found: tuple[Any, ...] | None = self._open_database().execute(query, (key,)).fetchone()
        except sqlite3.Error as error:
            raise ChannelError("The mailbox cannot be read. Look at its disk.") from error
        return found

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One commit. Raises: ChannelError: the disk is full or the file cannot be written; nothing was stored."""
        database = self._open_database()
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("DELETE FROM outbox WHERE row = ?", [(stored.row,) for stored in self._confirmed])
            yield database
            database.execute("COMMIT")
            self._written.clear()
            self._bodies.drop(stored.file for stored in self._confirmed if stored.file)
            self._confirmed.clear()
        except (sqlite3.Error, OSError) as error:
            raise ChannelError(
                "The mailbox cannot be written; nothing was accepted. Look at the free space of its disk."
            ) from error
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._bodies.drop(self._written)
            self._written.clear()

    def _insert_outgoing(self, database: sqlite3.Connection, parcel: Parcel) -> Stored:
        body, file, size = self._kept(parcel.body)
        row = database.execute(
            "INSERT INTO outbox (recipient, sender, transfer, body, file, size) VALUES (?, ?, ?, ?, ?, ?)",
            (parcel.recipient, parcel.sender, parcel.transfer, body, file, size),
        ).lastrowid
        assert row is not None  # sqlite3's type; an INSERT always has one
        return Stored(row, parcel.recipient, len(parcel.body), file)

    def _kept(self, body: bytes) -> tuple[bytes, str | None, int | None]:
        """What a row holds of a body, the file that has it where the row does not, and that file's size."""
        if not is_large(len(body)):
            return body, None, None
        file = self._bodies.put(body)
        self._written.append(file)
        return b"", file, len(body)

    def _body(self, kept: bytes, file: str | None) -> bytes:
        """Raises: ChannelError: its file cannot be read (any more)."""
        if file is None:
            return kept
        try:
            body = self._bodies.get(file)
        except OSError as error:
            raise ChannelError("The mailbox cannot be read. Look at its disk.") from error
        if body is None:
            raise ChannelError("A message's file is gone from the mailbox's folder; restart this party to go on.")
        return body

    def _first_time(self, database: sqlite3.Connection, parcel: Parcel) -> bool:
        """Note (sender, transfer), in the transaction that stores the message; False where it is known."""
        noted = database.execute(
            "INSERT OR IGNORE INTO seen (sender, transfer) VALUES (?, ?)", (parcel.sender, parcel.transfer)
        )
        if noted.rowcount == 0:
            return False
        self._arrived += 1
        if self._arrived % _PRUNE_EVERY == 0:
            newest = noted.lastrowid or 0
            database.execute("DELETE FROM seen WHERE row <= ?", (newest - MAX_TRANSFERS_REMEMBERED,))
        return True


def _checked_size(body: bytes) -> int:
    if len(body) > MAX_ENVELOPE_BYTES:
        raise TooLarge(f"A message of {len(body)} bytes is over the limit of {MAX_ENVELOPE_BYTES}.")
    return len(body)
