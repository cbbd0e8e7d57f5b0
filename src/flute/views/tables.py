"""A view's rows as a file or on a stream: JSON, NDJSON, CSV, Parquet, Arrow; memory does not grow with the rows.

Parquet and Arrow are made by DuckDB from a table on disk, in a private folder beside the file that is to be, gone
when the file is done. A file appears under its name only when it is complete.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Protocol, get_args

import duckdb
import msgspec

from flute.defaults.records import VIEW_STAGING_MEMORY
from flute.errors import MisuseError
from flute.views.cells import Cell, Column, Row, array

TableFormat = Literal["json", "ndjson", "csv", "parquet", "arrow"]
FORMATS: Final[tuple[TableFormat, ...]] = get_args(TableFormat)
FILES_ONLY: Final[frozenset[TableFormat]] = frozenset({"parquet", "arrow"})


class Table(Protocol):
    def add(self, rows: Sequence[Row]) -> None: ...
    def close(self) -> None:
        """Complete the table; without it there is none."""


@contextmanager
def table_file(path: Path, format: TableFormat, columns: Sequence[Column]) -> Iterator[Table]:
    """A table that becomes the file `path` when the block ends without an error.

    Raises: MisuseError: Arrow without the package pyarrow, or no such folder. OSError: the file cannot be written.
    """
    if format == "arrow" and find_spec("pyarrow") is None:
        raise MisuseError("Arrow files are written with the package pyarrow: pip install pyarrow, or use parquet.")
    if not path.parent.is_dir():
        raise MisuseError(f"There is no folder {path.parent} to write {path.name} to.")
    with tempfile.TemporaryDirectory(prefix=".flute-view-", dir=path.parent) as folder:
        part = Path(folder) / "part"
        if format in FILES_ONLY:
            table: Table = _Staged(Path(folder), part, format, columns)
            yield table
            table.close()
        else:
            with part.open("wb") as stream:
                table = table_stream(stream, format, columns)
                yield table
                table.close()
        os.replace(part, path)


def table_stream(stream: BinaryIO, format: TableFormat, columns: Sequence[Column]) -> Table:
    """A table on a stream of bytes. Raises: MisuseError: a format that needs a file."""
    if format in FILES_ONLY:
        raise MisuseError(f"{format} needs a file to write: say --out FILE.")
    if format == "csv":
        return _Csv(stream, columns)
    return _Json(stream, columns, lines=format == "ndjson")


class _Json:
    """An array of objects, or one object per line."""

    def __init__(self, stream: BinaryIO, columns: Sequence[Column], *, lines: bool) -> None:
        self._stream = stream
        self._names = [column.name for column in columns]
        self._lines = lines
        self._encode = msgspec.json.Encoder().encode
        self._begun = False

    def add(self, rows: Sequence[Row]) -> None:
        encoded = [self._encode(dict(zip(self._names, row, strict=True))) for row in rows]
        if not encoded:
            return
        if self._lines:
            self._stream.write(b"\n".join(encoded) + b"\n")
            return
        self._stream.write((b",\n" if self._begun else b"[") + b",\n".join(encoded))
        self._begun = True

    def close(self) -> None:
        if not self._lines:
            self._stream.write(b"]\n" if self._begun else b"[]\n")


class _Csv:
    """RFC 4180 with a header; nothing where there is no value, JSON where a cell is a list or an object."""

    def __init__(self, stream: BinaryIO, columns: Sequence[Column]) -> None:
        self._stream = stream
        self._add([[column.name for column in columns]])

    def add(self, rows: Sequence[Row]) -> None:
        self._add([[_plain(value) for value in row] for row in rows])

    def close(self) -> None:
        pass

    def _add(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._stream.write(text.getvalue().encode())


def _plain(value: Cell) -> Any:
    return value if value is None or type(value) in (str, int, float) else msgspec.json.encode(value).decode()


class _Staged:
    """Rows in DuckDB on disk, then one file."""

    def __init__(self, folder: Path, path: Path, format: TableFormat, columns: Sequence[Column]) -> None:
        self._path = path
        self._format = format
        self._columns = columns
        self._database: Any = duckdb.connect(
            folder / "rows.duckdb",
            config={"memory_limit": VIEW_STAGING_MEMORY, "threads": "1", "autoinstall_known_extensions": "false"},
        )
        self._database.execute(f"CREATE TABLE rows ({', '.join(f'{_quoted(c)} {c.sql_type}' for c in columns)})")

    def add(self, rows: Sequence[Row]) -> None:
        if rows:
            insert(self._database, "rows", self._columns, rows)

    def close(self) -> None:
        if self._format == "parquet":
            self._database.execute("COPY rows TO ? (FORMAT parquet)", [str(self._path)])
        else:
            self._write_arrow()
        self._database.close()

    def _write_arrow(self) -> None:
        from pyarrow import ipc  # type: ignore[import-not-found,import-untyped,unused-ignore]

        batches = self._database.sql("FROM rows").to_arrow_reader(100_000)
        with ipc.new_file(str(self._path), batches.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)


def insert(database: Any, table: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Add rows to a table of DuckDB that has the view's columns."""
    cells = zip(*rows, strict=True)
    # An object column of numpy has no SQL type of its own where all of it is missing: hence the casts.
    batch = {c.name: array(values, c) for c, values in zip(columns, cells, strict=True)}
    database.register("batch", batch)
    selected = ", ".join(f"CAST({_quoted(c)} AS {c.sql_type})" for c in columns)
    database.execute(f"INSERT INTO {table} SELECT {selected} FROM batch")  # noqa: S608 names of columns are plain words
    database.unregister("batch")


def _quoted(column: Column) -> str:
    return f'"{column.name}"'
