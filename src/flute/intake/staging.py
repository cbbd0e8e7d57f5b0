"""What a hub has taken from its hospital so far: the rows of a dataset's views, and what was refused.

One DuckDB file per dataset. A page of a reader and the mark from which reading goes on are written in one
transaction, so that after kill -9 at any instant no resource is missing and none stands twice. The file holds
only what the views read out of a resource, never the resource itself; it holds the hospital's own ids and dates,
so only the hub's user can read it, it belongs in no backup, and it may be deleted at any time: the next import
then reads everything anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import duckdb
import msgspec

from flute.data.findings import Finding
from flute.data.reader import Refused
from flute.defaults.records import STAGING_MEMORY_MB
from flute.errors import Unreachable
from flute.homes import private_folder
from flute.intake.batch import KEY, Batch, Before, Known, rows_of
from flute.intake.rows import SAFE_DATABASE, quoted, text_column
from flute.views.cells import Column
from flute.views.tables import insert
from flute.views.view import View

_FORM: Final = b"flute/staging/v1"
_TABLES: Final = """
CREATE TABLE design(digest BLOB);
CREATE TABLE source(source VARCHAR, mark BLOB);
CREATE TABLE scope(scope VARCHAR, generation BIGINT, open BOOLEAN);
CREATE TABLE met(key VARCHAR, scope VARCHAR, generation BIGINT);
CREATE TABLE resource(key VARCHAR, origin VARCHAR, bundle VARCHAR, digest BLOB, updated VARCHAR, used BOOLEAN);
CREATE TABLE warning(key VARCHAR, rule VARCHAR);
CREATE TABLE refused(
  scope VARCHAR, generation BIGINT, origin VARCHAR, key VARCHAR, bundle VARCHAR, reason VARCHAR, finding BLOB);
"""
_KEY: Final = Column(KEY, "VARCHAR")


class Staging:
    """One dataset's staging. Safe for one thread.

    `path`: None keeps everything in memory (an import that is not to be resumed). `design`: digest of the views
    and of the rules that judge resources; a file of another design is begun anew.
    Raises: Unreachable: the file cannot be opened (another import has it, the disk is full).
    """

    def __init__(self, path: Path | None, views: Mapping[str, View], design: bytes) -> None:
        self.views = dict(views)
        if path is not None:
            private_folder(path.parent)
        try:
            self.database = _opened(path)
            self._prepare(_FORM + design)
        except (duckdb.Error, OSError) as error:
            raise Unreachable(
                "The staging file cannot be opened: another import of this dataset is running, or the disk is full."
            ) from error

    # --- what is known -----------------------------------------------------------------------------

    def mark(self, source: str) -> bytes | None:
        """From where the reader of a source goes on; None at the very start."""
        row = self._one("SELECT mark FROM source WHERE source = ?", source)
        return None if row is None else bytes(row[0])

    def known(self, scope: str, keys: Sequence[str], *, begins: bool) -> Known:
        """Of these keys, those that were taken before. `begins`: the page that asks begins its scope."""
        generation = self._generation(scope, begins=begins)
        with self._table("asked", {"key": keys}):
            rows = self._do(
                "SELECT r.key, r.digest, r.updated, bool_or(m.scope <> ? OR m.generation = ?) FROM resource r "
                "JOIN met m USING (key) WHERE r.key IN (SELECT key FROM asked) GROUP BY ALL",
                scope,
                generation,
            )
        return {key: Before(bytes(digest), updated, here) for key, digest, updated, here in rows}

    def keys(self, source: str, scope: str) -> list[str]:
        """What is held of a scope of a source."""
        return [row[0] for row in self._do("SELECT key FROM met WHERE scope = ?", f"{source}/{scope}")]

    def resources(self) -> int:
        return int(self._one("SELECT count(*) FROM resource")[0])

    def set_aside(self) -> int:
        """Resources that were taken and that no view reads."""
        return int(self._one("SELECT count(*) FROM resource WHERE NOT used")[0])

    def scopes(self) -> int:
        """Files, or other parts of the system, that something was read from."""
        return int(self._one("SELECT count(*) FROM (SELECT scope FROM met UNION SELECT scope FROM refused)")[0])

    def warnings(self) -> dict[str, int]:
        """How many resources each rule warns of."""
        return dict(self._do("SELECT rule, count(*) FROM warning GROUP BY 1 ORDER BY 1"))

    def refused(self) -> list[Refused]:
        """Everything refused, for the data manager's own eyes."""
        rows = self._do("SELECT origin, key, bundle, finding FROM refused ORDER BY rowid")
        return [Refused(o, k, msgspec.msgpack.decode(f, type=Finding), b) for o, k, b, f in rows]

    def of_bundles_of(self, keys: Sequence[str]) -> list[tuple[str, str, str]]:
        """(key, origin, bundle) of every resource that stands or falls with one of these."""
        with self._table("asked", {"key": keys}):
            return self._do(
                "SELECT key, origin, bundle FROM resource WHERE bundle <> '' AND bundle IN "
                "(SELECT bundle FROM resource WHERE key IN (SELECT key FROM asked)) ORDER BY key"
            )

    def origins(self, keys: Sequence[str]) -> dict[str, str]:
        with self._table("asked", {"key": keys}):
            return dict(self._do("SELECT key, origin FROM resource WHERE key IN (SELECT key FROM asked)"))

    # --- writing -----------------------------------------------------------------------------------

    def keep_sources(self, sources: Collection[str]) -> None:
        """Forget what came from any other source."""
        with self._transaction():
            for (source,) in self._do("SELECT source FROM source"):
                if source not in sources:
                    self._do("DELETE FROM source WHERE source = ?", source)
                    for table in ("scope", "met", "refused"):
                        self._do(f"DELETE FROM {table} WHERE starts_with(scope, ?)", f"{source}/")  # noqa: S608 fixed
            self._drop_orphans()

    def write(self, batch: Batch, source: str) -> None:
        """One page of a source, whole or not at all. The batch's scope begins with the source's name and a slash.

        Raises: Unreachable: the disk is full, or the file is gone."""
        try:
            with self._transaction():
                generation = self._generation(batch.scope, begins=batch.begins)
                self._note_scope(batch, generation)
                self._forget(batch, generation)
                self._add(batch, generation)
                self._do("DELETE FROM source WHERE source = ?", source)
                self._do("INSERT INTO source VALUES (?, ?)", source, batch.mark)
                if batch.ends == "complete":
                    self._drop_what_was_not_met(batch.scope, generation)
        except duckdb.Error as error:
            raise Unreachable("The hub's staging file cannot be written; see that its disk has room.") from error

    def _generation(self, scope: str, *, begins: bool) -> int:
        row = self._one("SELECT generation, open FROM scope WHERE scope = ?", scope)
        if row is None:
            return 1
        return int(row[0]) + (begins or not row[1])

    def _note_scope(self, batch: Batch, generation: int) -> None:
        self._do("DELETE FROM scope WHERE scope = ?", batch.scope)
        self._do("INSERT INTO scope VALUES (?, ?, ?)", batch.scope, generation, not batch.ends)

    def _forget(self, batch: Batch, generation: int) -> None:
        """What was known of this page's keys and is not true any more."""
        refused = [r.key for r in batch.refused if r.key and r.finding.reason != "duplicate-id"]
        asked = [*batch.taken, *batch.unchanged, *batch.gone, *refused]
        if not asked:
            return
        with self._table("asked", {"key": asked}):
            self._do(
                "DELETE FROM refused WHERE scope = ? AND generation < ? AND key IN (SELECT key FROM asked)",
                batch.scope,
                generation,
            )
            self._do("DELETE FROM met WHERE scope = ? AND key IN (SELECT key FROM asked)", batch.scope)
        self._drop([*batch.taken, *refused])
        if batch.gone:
            self._drop_orphans()

    def _add(self, batch: Batch, generation: int) -> None:
        if any(not r.key for r in batch.refused):
            # What has no key is told anew whenever its scope is read.
            old = "DELETE FROM refused WHERE scope = ? AND generation < ? AND key = ''"
            self._do(old, batch.scope, generation)
        taken = list(batch.taken.values())
        met = [*batch.taken, *batch.unchanged]
        self._insert("met", {"key": met, "scope": [batch.scope] * len(met), "generation": [generation] * len(met)})
        self._insert(
            "resource",
            {
                "key": [t.key for t in taken],
                "origin": [t.origin for t in taken],
                "bundle": [t.bundle for t in taken],
                "digest": [t.digest for t in taken],
                "updated": [t.updated for t in taken],
                "used": [bool(t.rows) for t in taken],
            },
        )
        warned = [(t.key, rule) for t in taken for rule in t.warnings]
        self._insert("warning", {"key": [w[0] for w in warned], "rule": [w[1] for w in warned]})
        for name, view in self.views.items():
            if rows := rows_of(taken, name):
                insert(self.database, _view_table(name), (_KEY, *view.columns), rows)
        refused = batch.refused
        self._insert(
            "refused",
            {
                "scope": [batch.scope] * len(refused),
                "generation": [generation] * len(refused),
                "origin": [r.origin for r in refused],
                "key": [r.key for r in refused],
                "bundle": [r.bundle for r in refused],
                "reason": [r.finding.reason for r in refused],
                "finding": [msgspec.msgpack.encode(r.finding) for r in refused],
            },
        )

    def _drop_what_was_not_met(self, scope: str, generation: int) -> None:
        old = [scope, generation]
        self._do("DELETE FROM refused WHERE scope = ? AND generation < ?", *old)
        self._do("DELETE FROM met WHERE scope = ? AND generation < ?", *old)
        self._drop_orphans()

    def _drop_orphans(self) -> None:
        orphans = self._do("SELECT key FROM resource ANTI JOIN met USING (key)")
        self._drop([row[0] for row in orphans])

    def _drop(self, keys: Sequence[str]) -> None:
        if not keys or not self.resources():
            return
        with self._table("dropped", {"key": keys}):
            if not self._one("SELECT count(*) FROM resource WHERE key IN (SELECT key FROM dropped)")[0]:
                return
            for table in ("resource", "warning"):
                self._do(f"DELETE FROM {table} WHERE key IN (SELECT key FROM dropped)")  # noqa: S608 fixed
            for name in self.views:
                self._do(
                    f"DELETE FROM {_view_table(name)} WHERE {quoted(KEY)} IN (SELECT key FROM dropped)"  # noqa: S608 quoted
                )

    # --- for the rows --------------------------------------------------------------------------------

    def offer_views(self, without: Sequence[str]) -> None:
        """Every view's table under the name that a recipe's SQL knows, without the resources of these keys."""
        self._do("CREATE OR REPLACE TEMP TABLE left_out(key VARCHAR)")
        self._insert("left_out", {"key": list(without)})
        for name, view in self.views.items():
            cells = ", ".join(quoted(c.name) for c in view.columns)
            self._do(
                f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS SELECT {cells} FROM {_view_table(name)} "  # noqa: S608 quoted
                f"WHERE {quoted(KEY)} NOT IN (SELECT key FROM left_out)"
            )

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """All rows of a view. `offer_views` comes first."""
        return self._do(f"SELECT * FROM {quoted(name)}")  # noqa: S608 quoted

    # --- plumbing --------------------------------------------------------------------------------------

    def _prepare(self, design: bytes) -> None:
        tables = {row[0] for row in self._do("SHOW TABLES")}
        if "design" in tables and self._one("SELECT digest FROM design") == (design,):
            return
        with self._transaction():
            for table in sorted(tables):
                self._do(f"DROP TABLE {quoted(table)}")
            self._do(_TABLES)
            for name, view in self.views.items():
                columns = "".join(f", {quoted(c.name)} {c.sql_type}" for c in view.columns)
                self._do(f"CREATE TABLE {_view_table(name)} ({quoted(KEY)} VARCHAR{columns})")
            self._do("INSERT INTO design VALUES (?)", design)

    def _do(self, sql: str, *values: object) -> list[Any]:
        """One statement, to its end: DuckDB wants every result fetched before the next."""
        rows: list[Any] = self.database.execute(sql, list(values)).fetchall()
        return rows

    def _one(self, sql: str, *values: object) -> Any:
        rows = self._do(sql, *values)
        return rows[0] if rows else None

    def _insert(self, table: str, columns: dict[str, list[Any]]) -> None:
        if next(iter(columns.values())):
            with self._table("arriving", columns):
                self._do(f"INSERT INTO {table} SELECT {', '.join(columns)} FROM arriving")  # noqa: S608 fixed names

    @contextmanager
    def _table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> Iterator[None]:
        """Python values as a table of that name, for the length of a statement."""
        self.database.register(name, {column: text_column(values) for column, values in columns.items()})
        try:
            yield
        finally:
            self.database.unregister(name)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._do("BEGIN")
        try:
            yield
        except BaseException:
            self._do("ROLLBACK")
            raise
        self._do("COMMIT")

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _view_table(name: str) -> str:
    return quoted(f"view {name}")


def _opened(path: Path | None) -> Any:
    """A database that reads and writes its own file and what it spills beside it, nothing else."""
    settings = SAFE_DATABASE | {"memory_limit": f"{STAGING_MEMORY_MB}MB"}
    if path is None:
        database = duckdb.connect(":memory:", config=settings)
    else:
        spill = str(path.with_suffix(".spill"))
        database = duckdb.connect(str(path), config=settings | {"temp_directory": spill})
        path.chmod(0o600)
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database
