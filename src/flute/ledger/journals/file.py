"""The journal's file: its schema, how it is opened, locked and written to in one transaction."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from flute.defaults import JOURNAL_BUSY_S, MAX_JOURNAL_LINE_BYTES
from flute.errors import LedgerError
from flute.homes import sync_folder
from flute.ledger.journals.chain import Head, Row, damaged_row, genesis, make_head
from flute.primitives.keys import SigningKey

OBJECTS: Final = {
    "line": "CREATE TABLE line(number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, "
    "body BLOB NOT NULL, previous BLOB NOT NULL, seal BLOB NOT NULL, digest BLOB NOT NULL)",
    "head": "CREATE TABLE head(id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, "
    "digest BLOB NOT NULL, signature BLOB NOT NULL)",
    "line_is_never_changed": "CREATE TRIGGER line_is_never_changed BEFORE UPDATE ON line "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "line_is_never_dropped": "CREATE TRIGGER line_is_never_dropped BEFORE DELETE ON line "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "line_comes_next": "CREATE TRIGGER line_comes_next BEFORE INSERT ON line "
    "WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM line) "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "head_is_never_dropped": "CREATE TRIGGER head_is_never_dropped BEFORE DELETE ON head "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "head_only_grows": "CREATE TRIGGER head_only_grows BEFORE UPDATE ON head WHEN NEW.number <= OLD.number "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
}
"""The whole schema. Triggers are there against accidents; whoever can write the file can drop them."""

COLUMNS: Final = f"number, at, kind, substr(body, 1, {MAX_JOURNAL_LINE_BYTES + 1}), previous, seal, digest"
_TYPES: Final = (int, int, str, bytes, bytes, bytes, bytes)


def as_row(values: tuple[Any, ...]) -> Row:
    """SQLite keeps any type in any column: what is not of ours can only be a damaged line."""
    if any(type(value) is not kind for value, kind in zip(values, _TYPES, strict=True)):
        return damaged_row(values[0])
    return Row._make(values)


def read_head(connection: sqlite3.Connection) -> Head | None:
    values = connection.execute("SELECT number, digest, signature FROM head WHERE id = 1").fetchone()
    if values is None or [type(value) for value in values] != [int, bytes, bytes]:
        return None
    return Head._make(values)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside, or nothing; on disk when it ends."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
            connection.execute("ROLLBACK")
        raise


def take_lock(path: Path) -> int:
    """An exclusive lock that ends with the process, however it ends. Raises: LedgerError: another one has it."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LedgerError(f"No lock file can be made beside the journal {path}: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LedgerError(
            f"Another process writes the journal {path.name}: only one hub service may. Stop the other one first; "
            "reading and 'flute audit' work meanwhile."
        ) from error
    return lock


def open_to_read(path: Path) -> sqlite3.Connection:
    """Raises: LedgerError: there is no file, or it may not be read."""
    if not path.is_file():
        raise LedgerError(f"There is no journal at {path}.")
    frozen = not Path(f"{path}-wal").exists() and not os.access(path.parent, os.W_OK)
    address = f"{path.absolute().as_uri()}?mode=ro" + (
        "&immutable=1" if frozen else ""
    )  # evidence on read-only media
    try:
        connection = sqlite3.connect(
            address, uri=True, timeout=JOURNAL_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = lambda raw: raw.decode(errors="replace")  # a changed letter is a changed line
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.Error as error:
        raise LedgerError(f"The journal {path} cannot be opened for reading ({error}).") from error
    return connection


def open_to_write(path: Path, key: SigningKey, *, create: bool) -> sqlite3.Connection:
    """Durable writes (fsync at every commit); makes an empty journal where there is none and `create` is set.

    Raises: LedgerError: there is none. sqlite3.Error: the file is no database, or cannot be written.
    """
    if not path.is_file():
        if not create:
            raise LedgerError(
                f"There is no journal at {path}. This hub had one: its budget and audit log are in it. Restore it "
                "from its backup; do not start with a new one."
            )
        _create(path, key)
    return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=JOURNAL_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path, key: SigningKey) -> None:
    """Whole or not at all: a kill half way leaves no file that could pass for a journal somebody emptied."""
    new = path.with_name(f"{path.name}.new")
    for left in (new, *(new.with_name(f"{new.name}{end}") for end in ("-wal", "-shm"))):
        left.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = _connect(new)
    try:
        with transaction(connection):
            for statement in OBJECTS.values():
                connection.execute(statement)
            head = make_head(key, 0, genesis(key.public))
            connection.execute("INSERT INTO head VALUES (1, ?, ?, ?)", head)
    finally:
        connection.close()  # the last one: it leaves one file that holds everything
    new.rename(path)
    sync_folder(path.parent)


def restore_schema(connection: sqlite3.Connection) -> None:
    """Put back triggers that are gone. Raises: LedgerError: something stands there that is not ours; a foreign
    trigger could swallow or alter what is appended."""
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
    strange = sorted(name for name, sql in found.items() if OBJECTS.get(name) != sql)
    if strange:
        raise LedgerError(
            f"The journal's file holds things that this software did not make ({', '.join(strange)}). Somebody "
            "altered it; have it examined before the hub starts."
        )
    with transaction(connection):
        for name, statement in OBJECTS.items():
            if name not in found:
                connection.execute(statement)
