"""Tables and queries of a database as a source, read in one read-only transaction and in bounded memory.

A scope is a table of the mapping. Three ways to read one:
whole      in the order of its key, so that an import that was interrupted goes on behind its last page; without a
           key it begins anew. A table that gives the very same rows as last time gives no page.
changes    where the mapping names a column `changed` and the table was read whole before: rows that changed later
           than `overlap_s` before the newest change seen then, less those that are remembered as read.
not at all where it is no longer in the mapping: what it brought is gone.
What was deleted is seen when a table is read whole, and not by `changed`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from flute.conformance.model import Model
from flute.data.reader import Ends, Page, Record, Refused
from flute.defaults.records import MAX_RECENT_ROWS, MAX_TABLE_ROWS, PAGE_RESOURCES
from flute.errors import MisuseError, Unmappable
from flute.tabular.database import Database
from flute.tabular.mapping import Mapping, Table, digest_text
from flute.tabular.sql_mark import (
    HASH_BYTES,
    Done,
    Mark,
    Way,
    Window,
    decoded,
    earlier,
    encoded,
    hashes,
    loaded,
    row_hash,
    stored,
)
from flute.tabular.statement import bare
from flute.tabular.table_rows import RowMaker, places_of

_BIND: Final = re.compile(r"(?<![:\w\\]):(?=\w)")
"""A colon that SQLAlchemy would take for a parameter."""
_HASHES: Final = 2**128


class SqlReader:
    """`Reader` over a database. `url`: without a password; where that is says the mapping's `login`.

    Before the first page every table is looked at: a missing column is said before anything was taken.
    """

    def __init__(self, url: str, mapping: Mapping, model: Model) -> None:
        """Raises: MisuseError: the mapping names files. Unmappable, KeyFileError: see `Database`."""
        foreign = [name for name, table in mapping.tables.items() if not (table.table or table.query)]
        if foreign:
            raise MisuseError(f"The mapping's table {foreign[0]} is in a file; read it as CSV files or a workbook.")
        login = mapping.login
        secret = Path(login.password_file) if login.password_file else None
        self._database = Database(url, password_env=login.password_env, password_file=secret)
        self._mapping = mapping
        self._model = model

    @property
    def name(self) -> str:
        return self._mapping.name or self._database.name

    def __repr__(self) -> str:
        return f"<SqlReader {self._database.name}>"

    def pages(self, mark: bytes | None) -> Iterator[Page]:
        """Raises: Unreachable: the database does not answer, breaks off or takes too long. Unmappable: a table or
        column is not there, or a statement is not carried out. MisuseError: `mark` is none of ours."""
        state = decoded(mark)
        with self._database.reading() as connection:
            readings = {name: self._reading(connection, name) for name in self._mapping.tables}
            for name in sorted({*state.done, *state.under_way()} - set(readings)):
                state.forget(name)
                yield Page(name, encoded(state), begins=True, ends="complete")
            for name, reading in readings.items():
                done = state.done.get(name)
                if done is None or done.rules != reading.rules:
                    yield from reading.whole(state)
                elif reading.table.changed:
                    yield from reading.changes(state, done)
                elif done.content != reading.content():
                    yield from reading.whole(state)

    def _reading(self, connection: Connection, name: str) -> _Reading:
        rules = hashlib.sha256(digest_text(self._mapping, name, self._model)).digest()
        maker = RowMaker(name, self._mapping, self._model)
        return _Reading(self._database, connection, maker, rules)


class _Reading:
    """One table, in one transaction. Raises: Unmappable: a column is not there, or rows have no `changed`."""

    def __init__(self, database: Database, connection: Connection, maker: RowMaker, rules: bytes) -> None:
        self.table, self.rules = maker.table, rules
        self._maker, self._database, self._connection = maker, database, connection
        self._what = f"table {maker.name}"
        self._columns = self.table.columns()
        names = self._names()
        places_of(names, self._columns, f"The {self._what} of the mapping")
        self._rows_of = _source(self.table, self._columns)
        self._all = sa.select(*self._rows_of.c)
        self._newest = self._newest_change() if self.table.changed else None

    # --- the three ways -------------------------------------------------------------------------------

    def whole(self, state: Mark) -> Iterator[Page]:
        """From its start, or from behind the last page of a reading that was interrupted."""
        after = self._begin_or_go_on(state, "whole")
        content = int.from_bytes(state.content, "big")
        pager = _Pager(self._maker, state, begins=after is None)
        for row, key in self._in_order(after):
            yield from pager.full(key, content)
            content = (content + int.from_bytes(row_hash(row), "big")) % _HASHES
            pager.take(dict(zip(self._columns, row, strict=True)), key)
        state.end(content.to_bytes(16, "big"))
        yield pager.page("complete")

    def changes(self, state: Mark, done: Done) -> Iterator[Page]:
        """Rows that changed since it was read before. One that changes while a reading is interrupted may be met in
        both its halves: each begins the scope anew, so that the later content counts."""
        after = self._begin_or_go_on(state, "changes")
        order = [self._rows_of.c[column] for column in (self.table.changed, *self.table.key)]
        places = [self._columns.index(column) for column in (self.table.changed, *self.table.key)]
        query = self._all.where(self._since(done.window)).order_by(*order)
        if after is not None:
            query = query.where(_behind(order, after))
        known, met = hashes(done.window.recent), False
        pager = _Pager(self._maker, state, begins=True)
        for row in self._rows(query):
            if row_hash(row)[:HASH_BYTES] in known:
                continue
            met, key = True, [row[place] for place in places]
            yield from pager.full(key)
            pager.take(dict(zip(self._columns, row, strict=True)), key)
        if met or after is not None:
            state.end(b"")
            yield pager.page("changes")

    def _begin_or_go_on(self, state: Mark, way: Way) -> list[Any] | None:
        """The key behind which reading goes on; None from the start."""
        if (state.table, state.rules, state.way) == (self._maker.name, self.rules, way) and state.after:
            return [loaded(value) for value in state.after]
        # What is remembered is the table as it was before the first row was read: a change that comes while reading
        # is interrupted is not among it, and is met next time.
        state.begin(self._maker.name, self.rules, way, self._window(self._newest))
        return None

    def content(self) -> bytes:
        """Of all rows in any order: the same digest means the same rows."""
        total = 0
        for row in self._rows(self._all):
            total = (total + int.from_bytes(row_hash(row), "big")) % _HASHES
        return total.to_bytes(16, "big")

    # --- what changed ------------------------------------------------------------------------------------

    def _window(self, newest: Any) -> Window:
        """The rows that changed last, as far back as a change may come late: remembered one by one, or where they are
        many (a table that was filled in one go) by one digest of them all."""
        if newest is None:
            return Window()
        column = self._rows_of.c[self.table.changed]
        recent: list[bytes] = []
        total = count = 0
        floor = earlier(newest, self.table.overlap_s)
        for row in self._rows(self._all.where(column >= floor, column <= newest)):
            digest = row_hash(row)
            total, count = (total + int.from_bytes(digest, "big")) % _HASHES, count + 1
            if count <= MAX_RECENT_ROWS:
                recent.append(digest[:HASH_BYTES])
        if count > MAX_RECENT_ROWS:
            return Window(stored(newest), digest=total.to_bytes(16, "big"))
        return Window(stored(newest), recent=b"".join(recent))

    def _since(self, window: Window) -> Any:
        """Which rows may have changed since `window` was remembered."""
        column, newest = self._rows_of.c[self.table.changed], loaded(window.newest)
        if newest is None:
            return sa.true()
        if window.digest and self._window(newest).digest == window.digest:
            return column > newest
        return column >= earlier(newest, self.table.overlap_s)

    # --- queries ------------------------------------------------------------------------------------------

    def _in_order(self, after: Sequence[Any] | None) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
        """(row, its key) in the key's order, rows without a key first; of a table without one in no order, and with
        an empty key, from which nothing can go on."""
        if not self.table.key:
            for row in self._rows(self._all):
                yield row, []
            return
        keys = [self._rows_of.c[column] for column in self.table.key]
        places = [self._columns.index(column) for column in self.table.key]
        has_key = sa.and_(*(key.is_not(None) for key in keys))
        query = self._all.where(has_key).order_by(*keys)
        if after is None:
            for row in self._rows(self._all.where(sa.not_(has_key))):
                yield row, []
        else:
            query = query.where(_behind(keys, after))
        for row in self._rows(query):
            yield row, [row[place] for place in places]

    def _rows(self, query: Any) -> Iterator[tuple[Any, ...]]:
        for number, row in enumerate(self._database.rows(self._connection, query, self._what), start=1):
            if number > MAX_TABLE_ROWS:
                raise Unmappable(
                    f"The {self._what} has more than {MAX_TABLE_ROWS} rows; see whether its query joins."
                )
            yield row

    def _names(self) -> list[str]:
        star = sa.select(sa.text("*")).select_from(_source(self.table, ())).where(sa.false())
        with self._database.told(self._what):
            result = self._connection.execute(star)
            names = list(result.keys())
            result.close()
        return names

    def _newest_change(self) -> Any:
        column = self._rows_of.c[self.table.changed]
        query = sa.select(sa.func.max(column), sa.func.count(), sa.func.count(column)).select_from(self._rows_of)
        newest, rows, filled = next(iter(self._database.rows(self._connection, query, self._what)))
        if filled < rows:
            raise Unmappable(
                f"In {self._what}, {rows - filled} rows have no {self.table.changed!r}, so that it cannot be told "
                "when they changed; write a query with COALESCE of it and the day of entry, or leave 'changed' out."
            )
        return newest


def _source(table: Table, columns: Sequence[str]) -> Any:
    named: list[Any] = [sa.column(column) for column in columns]
    if table.table:
        schema, _, name = table.table.rpartition(".")
        return sa.table(name, *named, schema=schema or None)
    text = sa.text(_BIND.sub(r"\\:", bare(table.query)))
    if not columns:
        return text.columns(sa.column("x")).subquery("source_rows")
    return text.columns(*named).subquery("source_rows")


def _behind(keys: Sequence[Any], after: Sequence[Any]) -> Any:
    """Rows whose key comes after `after`, column by column."""
    cases = [
        sa.and_(*(k == v for k, v in zip(keys[:i], after[:i], strict=True)), keys[i] > after[i])
        for i in range(len(keys))
    ]
    return sa.or_(*cases)


class _Pager:
    """Rows on their way into pages."""

    def __init__(self, maker: RowMaker, state: Mark, *, begins: bool) -> None:
        self._maker, self._state, self._begins = maker, state, begins
        self._records: list[Record] = []
        self._refused: list[Refused] = []
        self._key: Sequence[Any] = ()

    def full(self, key: Sequence[Any], content: int = 0) -> Iterator[Page]:
        """The page, where it is full before a row of this key. Rows of the same key are not parted, since reading
        goes on behind a key; where there is none it goes on nowhere, and the table is begun anew.

        Raises: Unmappable: the key names more rows than a page holds.
        """
        size = len(self._records) + len(self._refused)
        if size < PAGE_RESOURCES:
            return
        if key and key == self._key:
            if size >= 2 * PAGE_RESOURCES:
                columns = " and ".join(self._maker.table.key)
                raise Unmappable(
                    f"In table {self._maker.name}, more than {PAGE_RESOURCES} rows have the same {columns}; its "
                    "'key' must name one row."
                )
            return
        self._state.after = [stored(value) for value in self._key]
        self._state.content = content.to_bytes(16, "big")
        yield self.page()

    def take(self, row: dict[str, Any], key: Sequence[Any]) -> None:
        self._key = key
        made = self._maker.make(row, self._origin(row))
        if isinstance(made, Record):
            self._records.append(made)
        elif made is not None:
            self._refused.append(made)

    def page(self, ends: Ends = "") -> Page:
        page = Page(
            self._maker.name, encoded(self._state), tuple(self._records), tuple(self._refused),
            begins=self._begins, ends=ends,
        )  # fmt: skip
        self._records, self._refused, self._begins = [], [], False
        return page

    def _origin(self, row: dict[str, Any]) -> str:
        """ "table lab, sample_id S7", by which the data manager finds the row."""
        table = self._maker.table
        named = table.key or (table.patient,)
        return f"table {self._maker.name}, " + ", ".join(f"{column} {row[column]}" for column in named)[:200]
