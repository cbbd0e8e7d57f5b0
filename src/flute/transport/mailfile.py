"""The SQLite file of a mailbox: its tables, how it is opened, and what is found in it at the start."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from flute.errors import MisuseError
from flute.transport.bodies import Bodies

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outbox (row INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL,
    sender TEXT NOT NULL, transfer BLOB NOT NULL UNIQUE, body BLOB NOT NULL, file TEXT, size INTEGER);
CREATE TABLE IF NOT EXISTS inbox (ticket INTEGER PRIMARY KEY AUTOINCREMENT, hop TEXT NOT NULL,
    peer TEXT NOT NULL, body BLOB NOT NULL, file TEXT, size INTEGER);
CREATE TABLE IF NOT EXISTS seen (row INTEGER PRIMARY KEY AUTOINCREMENT, sender TEXT NOT NULL,
    transfer BLOB NOT NULL, UNIQUE (sender, transfer));
"""
_WAL_BYTES: Final = 16 * 2**20
"""What is left of the log file after a burst of messages."""


def open_mail(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # before SQLite makes it with the umask's rights
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.0)
    try:
        # Exclusive: the lock ends with the process, also after kill -9; and no shared-memory file is needed.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        database.executescript(_SCHEMA)
        _widen(database)
    except sqlite3.OperationalError as error:
        database.close()
        raise MisuseError(
            f"The mailbox {path.name} cannot be opened: another process of this party has it open, or its folder "
            "cannot be written. Stop the other process first."
        ) from error
    return database


def _widen(database: sqlite3.Connection) -> None:
    """A mailbox of before long bodies had files gets the columns for it."""
    for table in ("outbox", "inbox"):
        if "file" not in {column[1] for column in database.execute(f"PRAGMA table_info({table})")}:
            database.execute(f"ALTER TABLE {table} ADD COLUMN file TEXT")
            database.execute(f"ALTER TABLE {table} ADD COLUMN size INTEGER")


def forget_lost(database: sqlite3.Connection, bodies: Bodies) -> None:
    """Rows whose file a power cut took, and files that no row names."""
    named = set()
    for table in ("outbox", "inbox"):
        kept = f"SELECT rowid, file, size FROM {table} WHERE file NOT NULL"  # noqa: S608 one of two words
        for row, file, size in database.execute(kept).fetchall():
            if bodies.size(file) == size:
                named.add(file)
            else:
                database.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))  # noqa: S608 one of two words
    bodies.sweep(named)
