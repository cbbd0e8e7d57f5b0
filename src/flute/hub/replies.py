"""Answers that left, and protocol secrets: what a hub has to say again in the same bytes, or must never say twice.

Two SQLite files. `hub.db` may be backed up. `secrets.db` holds ticket secrets and ratcheted channel keys:
it belongs in no backup, since a restored copy could open what was already opened another way. Both are
written with synchronous=FULL, and long answers in files beside `hub.db` (`transport.bodies`) likewise: whatever a
reply rests on is on disk before the reply leaves. A `hub.db` that was restored without those files knows which
messages it has answered, and answers none of them again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flute.defaults import REPLAY_MEMORY_S
from flute.errors import Replayed
from flute.transport.bodies import Bodies, is_large

_REPLIES_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen(
  message_id BLOB PRIMARY KEY, digest BLOB NOT NULL, reply BLOB, forget_at INTEGER NOT NULL, file TEXT);
CREATE TABLE IF NOT EXISTS own_answer(release BLOB PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS masked(study TEXT PRIMARY KEY, vector BLOB NOT NULL, file TEXT);
"""
_SECRETS_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS member(study TEXT PRIMARY KEY, state BLOB NOT NULL);
PRAGMA secure_delete=ON;
"""


class Replies:
    """The part of a hub's store that the protocol rests on."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.RLock()
        self._hub = open_database(folder / "hub.db", _REPLIES_SCHEMA)
        self._secrets = open_database(folder / "secrets.db", _SECRETS_SCHEMA)
        self._bodies = Bodies(folder / "hub-bodies", durable=True)
        self._written: list[str] = []
        """Files of rows that the open transaction adds."""
        for table in ("seen", "masked"):
            _widen(self._hub, table)
        named = "SELECT file FROM seen WHERE file NOT NULL UNION SELECT file FROM masked WHERE file NOT NULL"
        self._bodies.sweep({file for (file,) in self._hub.execute(named)})

    def close(self) -> None:
        with self._lock:
            self._hub.close()
            self._secrets.close()

    # --- replay and replies --------------------------------------------------------------------

    def seen(self, message_id: bytes, digest: bytes, now: int) -> bytes | None:
        """None for a message not dealt with yet; the stored reply when the very same bytes come again.

        Raises: Replayed: the id was used for other bytes, or the same bytes had no reply to repeat."""
        with self._lock:
            row = self._hub.execute(
                "SELECT digest, reply, file FROM seen WHERE message_id = ? AND forget_at >= ?", (message_id, now)
            ).fetchone()
        if row is None:
            return None
        reply = self._whole(row[1], row[2])
        if row[0] == digest and reply is not None:
            return reply
        raise Replayed("This message was already received; a message id serves once.")

    def remember(self, message_id: bytes, digest: bytes, reply: bytes | None, now: int) -> None:
        """A message was dealt with, and what was answered. A message that a crash cut short is not
        remembered: it is delivered and dealt with again, and every step of that is idempotent."""
        with self._write(self._hub) as db:
            old = db.execute(
                "SELECT file FROM seen WHERE forget_at < ? OR message_id = ?", (now, message_id)
            ).fetchall()
            db.execute("DELETE FROM seen WHERE forget_at < ?", (now,))
            db.execute(
                "INSERT OR REPLACE INTO seen (message_id, digest, reply, file, forget_at) VALUES (?,?,?,?,?)",
                (message_id, digest, *self._kept(reply), now + REPLAY_MEMORY_S),
            )
        self._bodies.drop(file for (file,) in old if file)

    def keep_own_answer(self, release: bytes, body: bytes) -> None:
        with self._write(self._hub) as db:
            db.execute("INSERT INTO own_answer VALUES (?,?)", (release, body))

    def own_answer(self, release: bytes) -> bytes | None:
        with self._lock:
            row = self._hub.execute("SELECT body FROM own_answer WHERE release = ?", (release,)).fetchone()
        return None if row is None else bytes(row[0])

    # --- secrets -------------------------------------------------------------------------------

    def member(self, study: str) -> bytes | None:
        with self._lock:
            row = self._secrets.execute("SELECT state FROM member WHERE study = ?", (study,)).fetchone()
        return None if row is None else bytes(row[0])

    def put_member(self, study: str, state: bytes, vector: bytes | None = None) -> None:
        """The state; before it, a masked vector that may have to be sent again. It leaves only after both are on
        disk, so a crash in between loses nothing that anybody has seen. The vector is no secret."""
        if vector is not None:
            with self._write(self._hub) as db:
                old = self._masked_file(study)
                db.execute(
                    "INSERT OR REPLACE INTO masked (study, vector, file) VALUES (?,?,?)", (study, *self._kept(vector))
                )
            self._bodies.drop(old)
        with self._write(self._secrets) as db:
            db.execute("INSERT OR REPLACE INTO member VALUES (?,?)", (study, state))

    def vector(self, study: str) -> bytes:
        """The last masked vector of a study; empty where there was none."""
        with self._lock:
            row = self._hub.execute("SELECT vector, file FROM masked WHERE study = ?", (study,)).fetchone()
        return b"" if row is None else self._whole(*row) or b""

    def erase_member(self, study: str) -> None:
        with self._write(self._secrets) as db:
            db.execute("DELETE FROM member WHERE study = ?", (study,))
        with self._write(self._hub) as db:
            old = self._masked_file(study)
            db.execute("DELETE FROM masked WHERE study = ?", (study,))
        self._bodies.drop(old)

    def _masked_file(self, study: str) -> list[str]:
        row = self._hub.execute("SELECT file FROM masked WHERE study = ?", (study,)).fetchone()
        return [row[0]] if row is not None and row[0] else []

    # --- inside --------------------------------------------------------------------------------

    def _kept(self, body: bytes | None) -> tuple[bytes | None, str | None]:
        """What a row holds, and the file that has it where the row does not; within a transaction."""
        if body is None or not is_large(len(body)):
            return body, None
        self._written.append(self._bodies.put(body))
        return b"", self._written[-1]

    def _whole(self, row: bytes | None, file: str | None) -> bytes | None:
        """None where there was none, or where its file is gone."""
        if file is not None:
            return self._bodies.get(file)
        return None if row is None else bytes(row)

    @contextmanager
    def _write(self, db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        with self._lock:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                self._bodies.drop(self._written)
                raise
            finally:
                self._written.clear()
            db.execute("COMMIT")


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """One of the hub's own SQLite files: what a reply rests on is on disk before the reply leaves."""
    path.touch(mode=0o600, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.executescript(schema)
    return db


def _widen(db: sqlite3.Connection, table: str) -> None:
    """A database of before long answers had files gets the column for it."""
    if "file" not in {column[1] for column in db.execute(f"PRAGMA table_info({table})")}:
        db.execute(f"ALTER TABLE {table} ADD COLUMN file TEXT")
