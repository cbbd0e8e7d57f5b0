"""What a hub remembers of its datasets besides their rows: where they come from, how good they were, who is out.

One SQLite file, `holdings.db`. Pseudonyms of persons who were withdrawn or decided about stand in it, no value of
any record; it belongs in the backup, since a hub that forgot a withdrawal would take the person in again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from flute.cohort.flow import Flow
from flute.cohort.overrides import Override
from flute.errors import NotPossible
from flute.hub.records.plans import ImportPlan
from flute.hub.replies import open_database
from flute.intake.profile import Profile

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS flow(dataset TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS plan(dataset TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS profile(
  number INTEGER PRIMARY KEY, dataset TEXT NOT NULL, at INTEGER NOT NULL, snapshot BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS decision(
  number INTEGER PRIMARY KEY, dataset TEXT NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS withdrawn(pseudonym TEXT PRIMARY KEY, at INTEGER NOT NULL);
"""


class Holdings:
    """One per hub service; safe for its threads."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.RLock()
        self._db = open_database(folder / "holdings.db", _SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- how a dataset is imported ------------------------------------------------------------------

    def put_plan(self, plan: ImportPlan) -> None:
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO plan VALUES (?, ?)", (plan.dataset, msgspec.json.encode(plan)))

    def plan(self, dataset: str) -> ImportPlan:
        """Raises: NotPossible: the dataset was never imported by this version."""
        row = self._one("SELECT body FROM plan WHERE dataset = ?", dataset)
        if row is None:
            raise NotPossible(f"Dataset {dataset!r} was not imported here yet; say where its records are.")
        return msgspec.json.decode(row[0], type=ImportPlan)

    # --- how persons came into it ----------------------------------------------------------------------

    def put_flow(self, dataset: str, flow: Flow | None) -> None:
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO flow VALUES (?, ?)", (dataset, msgspec.json.encode(flow)))

    def flow(self, dataset: str) -> Flow | None:
        """Of the last import; None where the dataset was not made by declared rules."""
        row = self._one("SELECT body FROM flow WHERE dataset = ?", dataset)
        return None if row is None else msgspec.json.decode(row[0], type=Flow | None)

    # --- how good each import was ---------------------------------------------------------------------

    def add_profile(self, dataset: str, at: int, snapshot: bytes, profile: Profile) -> None:
        body = msgspec.json.encode(profile)
        with self._write() as db:
            db.execute(
                "INSERT INTO profile(dataset, at, snapshot, body) VALUES (?,?,?,?)", (dataset, at, snapshot, body)
            )

    def last_profile(self, dataset: str) -> Profile | None:
        row = self._one("SELECT body FROM profile WHERE dataset = ? ORDER BY number DESC LIMIT 1", dataset)
        return None if row is None else msgspec.json.decode(row[0], type=Profile)

    def profiles(self, dataset: str) -> list[tuple[int, Profile]]:
        """(Unix time, profile), the oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT at, body FROM profile WHERE dataset = ? ORDER BY number", (dataset,))
            return [(at, msgspec.json.decode(body, type=Profile)) for at, body in rows.fetchall()]

    # --- decisions by hand ----------------------------------------------------------------------------

    def add_decision(self, dataset: str, at: int, override: Override) -> None:
        body = msgspec.json.encode(override)
        with self._write() as db:
            db.execute("INSERT INTO decision(dataset, at, body) VALUES (?,?,?)", (dataset, at, body))

    def decisions(self, dataset: str) -> list[Override]:
        """In the order in which they were taken."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM decision WHERE dataset = ? ORDER BY number", (dataset,))
            return [msgspec.json.decode(row[0], type=Override) for row in rows.fetchall()]

    # --- persons who were withdrawn -----------------------------------------------------------------------

    def withdraw(self, pseudonym: str, at: int) -> None:
        with self._write() as db:
            db.execute("INSERT OR IGNORE INTO withdrawn VALUES (?, ?)", (pseudonym, at))

    def withdrawn(self) -> frozenset[str]:
        with self._lock:
            return frozenset(row[0] for row in self._db.execute("SELECT pseudonym FROM withdrawn").fetchall())

    # --- plumbing ---------------------------------------------------------------------------------------------

    def _one(self, sql: str, *values: object) -> Any:
        with self._lock:
            return self._db.execute(sql, values).fetchone()

    @contextmanager
    def _write(self) -> Iterator[Any]:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
