"""A hospital's database, opened for reading only, and its errors told without what it holds.

PostgreSQL: a read-only transaction in which all tables are of the same moment, and a limit on every statement.
SQLite: the file is opened read-only. Any other: what runs is one SELECT inside a SELECT of ours, and the hospital
should give FLUTE an account that can read and no more, as it should anyway.
A password is never in the address: it comes from an environment variable or a file, and no text shows it.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from flute.defaults.records import SQL_BATCH_ROWS, SQL_CONNECT_S, SQL_STATEMENT_S
from flute.errors import FluteError, Unmappable, Unreachable
from flute.homes import read_secret_file

_SECRET_NAMES: Final = re.compile(r"pass|pwd|secret|token|odbc_connect", re.IGNORECASE)
_SQLITE_SAYS: Final = re.compile(
    r"no such (table|column|function)|near \"|ambiguous column|wrong number of arguments"
)
"""SQLite's sentences about the statement, which quote its names and no value."""
_SQLITE_STEPS: Final = 10_000
"""Of SQLite's machine between two looks at the clock: well under a millisecond."""


class Database:
    """`url`: any of SQLAlchemy's, without a password. `password_env`: the environment variable that holds it;
    `password_file`: the file.

    Raises: Unmappable: no address that can be read, a password in it, or its driver is not installed.
    KeyFileError: the password's file. Nothing is connected yet.
    """

    def __init__(self, url: str, *, password_env: str = "", password_file: Path | None = None) -> None:
        address = _address(url)
        self.dialect = address.get_backend_name()
        last = (address.database or "").rpartition("/")[2]
        self.name = f"{self.dialect} {last}".strip()
        self._deadline = float("inf")
        self._engine = self._made(address, _password(password_env, password_file))

    def __repr__(self) -> str:
        return f"<Database {self.name}>"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in one read-only transaction, ended without a trace.

        Raises: Unreachable: the database does not answer, or does not let this account in.
        """
        with self.told("its start"):
            connection = self._engine.connect()
        try:
            with self.told("its start"):
                if self.dialect == "postgresql":
                    # Not as options of the connection, which a pooler between may refuse.
                    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(SQL_STATEMENT_S * 1_000)}")
                elif self.dialect == "sqlite":
                    connection.exec_driver_sql("PRAGMA query_only = ON")
                    connection.exec_driver_sql("BEGIN")
            yield connection
        finally:
            self._deadline = float("inf")
            try:
                connection.close()
            except SQLAlchemyError:
                connection.invalidate()

    def rows(self, connection: Connection, statement: Any, what: str) -> Iterator[tuple[Any, ...]]:
        """Rows as they come, SQL_BATCH_ROWS of them in memory. Raises: Unreachable, Unmappable: see `told`."""
        with self.told(what):
            result = connection.execution_options(stream_results=True, yield_per=SQL_BATCH_ROWS).execute(statement)
        try:
            while True:
                with self.told(what):
                    batch = result.fetchmany(SQL_BATCH_ROWS)
                if not batch:
                    return
                yield from (tuple(row) for row in batch)
        finally:
            result.close()

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Its errors as ours; a database's own text quotes records, so it goes no further.

        Raises: Unreachable: it broke off, or took too long. Unmappable: it will not carry out the statement.
        """
        self._deadline = time.monotonic() + SQL_STATEMENT_S
        try:
            yield
        except DBAPIError as error:
            raise _told(self.name, what, error) from None
        except SQLAlchemyError as error:
            kind = type(error).__name__
            raise Unmappable(f"The database {self.name} cannot be read for {what} ({kind}).") from None

    def _made(self, address: URL, password: str) -> Engine:
        try:
            if self.dialect == "sqlite":
                return sqlalchemy.create_engine("sqlite://", creator=self._sqlite(address), poolclass=NullPool)
            settings: dict[str, Any] = {"password": password} if password else {}
            if self.dialect == "postgresql":
                settings |= {"connect_timeout": SQL_CONNECT_S, "application_name": "flute"}
            engine = sqlalchemy.create_engine(
                address, connect_args=settings, poolclass=NullPool, hide_parameters=True
            )
        except (ImportError, NoSuchModuleError) as error:
            raise Unmappable(
                f"The driver for {address.drivername} databases is not installed; for PostgreSQL: "
                "pip install 'flute[data]'."
            ) from error
        except (SQLAlchemyError, TypeError, ValueError):
            raise Unmappable(_NO_ADDRESS) from None
        if self.dialect == "postgresql":
            sqlalchemy.event.listen(engine, "connect", _forgiving_dates)
        return engine

    def _sqlite(self, address: URL) -> Any:
        path = address.database or ""
        if path in ("", ":memory:") or path.startswith("file:"):
            raise Unmappable("An SQLite source is a file: write for example 'sqlite:////data/hospital.db'.")
        location = f"file:{quote(str(Path(path).absolute()))}?mode=ro"

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(location, uri=True, isolation_level=None, check_same_thread=False)
            connection.set_progress_handler(lambda: time.monotonic() > self._deadline, _SQLITE_STEPS)
            if sqlite3.sqlite_version_info < (3, 44):
                connection.create_aggregate("string_agg", 2, _StringAgg)  # type: ignore[arg-type]
            return connection

        return connect


class _StringAgg:
    """The standard's aggregate, which older SQLite lacks: one query then serves SQLite and PostgreSQL."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._between = ""

    def step(self, text: object, between: object) -> None:
        if text is not None:
            self._texts.append(str(text))
            self._between = str(between)

    def finalize(self) -> str | None:
        return self._between.join(self._texts) if self._texts else None


def _forgiving_dates(connection: Any, _record: object) -> None:
    """A day that Python has not (infinity, 44 BC) comes as text, so that its row alone is refused."""
    from psycopg import DataError
    from psycopg.types.datetime import DateLoader, TimestampLoader, TimestamptzLoader

    def forgiving(loader: Any) -> Any:
        class Forgiving(loader):  # type: ignore[misc]
            def load(self, data: Any) -> Any:
                try:
                    return super().load(data)
                except DataError:
                    return bytes(data).decode("ascii", "replace")

        return Forgiving

    loaders = {"date": DateLoader, "timestamp": TimestampLoader, "timestamptz": TimestamptzLoader}
    for kind, loader in loaders.items():
        connection.adapters.register_loader(kind, forgiving(loader))


_NO_ADDRESS: Final = (
    "The address of the database cannot be read; write for example 'postgresql://reader@db.hospital.example/lab' or "
    "'sqlite:////data/hospital.db'."
)


def _address(url: str) -> URL:
    try:
        address = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise Unmappable(_NO_ADDRESS) from None
    if address.password is not None or any(_SECRET_NAMES.search(name) for name in address.query):
        raise Unmappable(
            "The address of the database holds a password, which would be seen in lists of processes and in logs. "
            "Take it out, and name the environment variable or the file that holds it."
        )
    return address.set(drivername="postgresql+psycopg") if address.drivername == "postgresql" else address


def _password(name: str, file: Path | None) -> str:
    if name and file is not None:
        raise Unmappable("The password comes from an environment variable or from a file; name one of them.")
    if file is not None:
        return read_secret_file(file).decode("utf-8", "replace").rstrip("\r\n")
    if name and name not in os.environ:
        raise Unmappable(f"The environment variable {name}, which is to hold the password, is not set.")
    return os.environ[name] if name else ""


def _told(name: str, what: str, error: DBAPIError) -> FluteError:
    original: Any = error.orig
    state = str(getattr(original, "sqlstate", None) or "")
    if state == "57014" or "interrupted" in str(original):
        return Unreachable(f"The database {name} took longer than {SQL_STATEMENT_S:.0f} s for {what}.")
    if state == "25006" or "readonly database" in str(original):
        return Unmappable(f"The statement of {what} tries to write into the database {name}; a source is only read.")
    if state.startswith("42"):
        said = getattr(getattr(original, "diag", None), "message_primary", None)
        return Unmappable(f"The database {name} does not carry out the statement of {what}: {said or state}.")
    if isinstance(original, sqlite3.Error) and _SQLITE_SAYS.search(str(original)):
        return Unmappable(f"The database {name} does not carry out the statement of {what}: {original}.")
    if state and state[:2] not in ("08", "53", "57", "58"):
        return Unmappable(
            f"The database {name} stopped at a record that does not fit the statement of {what} (SQLSTATE {state})."
        )
    if isinstance(original, sqlite3.DatabaseError) and "not a database" in str(original):
        return Unmappable(f"The file of {name} is no SQLite database, or it is encrypted.")
    return Unreachable(
        f"The database {name} does not answer, broke off, or does not let this account in (asked for {what}). See "
        "that it runs, and that its address, account and password are right."
    )
