"""CSV files and .xlsx workbooks as a source: the tables that a mapping names, row by row, refused row by row.

A scope is a table of the mapping. A table whose file and mapping did not change since it was read to its end is not
read again (by the digest of the file); one that changed is read anew as a whole. An import that was interrupted goes
on in the row behind its last page, as long as the file is still the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from flute.conformance.model import Model
from flute.data.findings import Finding
from flute.data.reader import Page, Record, Refused
from flute.defaults.records import MAX_IMPORT_FILE_BYTES, PAGE_RESOURCES
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.tabular.delimited import Delimited
from flute.tabular.mapping import Mapping, Table, digest_text
from flute.tabular.table_rows import RowMaker, places_of
from flute.tabular.workbook import Sheet, Workbook

_WORKBOOK: Final = ".xlsx"


class _Mark(Struct, forbid_unknown_fields=True):
    """`done`: per table the digest of what was read to its end. `table`, `digest`, `row`: where reading stands."""

    form: Literal["sheets/1"] = "sheets/1"
    done: dict[str, bytes] = {}
    table: str = ""
    digest: bytes = b""
    row: int = 0


@dataclass(frozen=True, slots=True)
class _Opened:
    """A table that is there and has its columns. `what`: as people call it."""

    what: str
    source: Delimited | Sheet
    places: dict[str, int]
    digest: bytes

    def rows(self) -> Iterator[tuple[int, list[Any] | Finding]]:
        if isinstance(self.source, Sheet):
            return self.source.rows(tuple(self.places.values()))
        return self.source.rows()


class SheetsReader:
    """`Reader` over a folder of CSV files and workbooks, or over one such file.

    Only files that the mapping names are opened, and only the columns that it names are read. Before the first page
    every table that is to be read is looked at: a missing file or column is said before anything was taken.
    """

    def __init__(self, place: Path, mapping: Mapping, model: Model) -> None:
        """Raises: MisuseError: the mapping names tables of a database."""
        foreign = [name for name, table in mapping.tables.items() if table.table or table.query]
        if foreign:
            raise MisuseError(f"The mapping's table {foreign[0]} is in a database; read it with an SQL source.")
        self._place = place
        self._mapping = mapping
        self._model = model

    @property
    def name(self) -> str:
        return self._mapping.name or self._place.name

    def __repr__(self) -> str:
        return f"<SheetsReader {self.name}>"

    def pages(self, mark: bytes | None) -> Iterator[Page]:
        """Raises: Unreachable: a file is not there or breaks off. Unmappable: a column or sheet is not there.
        MisuseError: `mark` is none of ours."""
        state = _state(mark)
        digests = self._digests()
        opened = self._open({name: d for name, d in digests.items() if state.done.get(name) != d})
        under_way = {state.table} if state.table else set()
        for name in sorted((set(state.done) | under_way) - set(digests)):
            state.done.pop(name, None)
            if name == state.table:
                state.table, state.digest, state.row = "", b"", 0
            yield Page(name, _encoded(state), begins=True, ends="complete")
        for name, table in opened.items():
            yield from self._table(name, table, state)

    def _table(self, name: str, table: _Opened, state: _Mark) -> Iterator[Page]:
        goes_on = state.table == name and state.digest == table.digest
        if not goes_on:
            state.table, state.digest, state.row = name, table.digest, 0
        maker, records, refused = RowMaker(name, self._mapping, self._model), list[Record](), list[Refused]()
        total = table.source.total if isinstance(table.source, Sheet) else None
        begins, number = not goes_on, state.row
        for number, cells in table.rows():
            if number <= state.row:
                continue
            origin = f"{table.what}, row {number}"
            if isinstance(cells, Finding):
                refused.append(Refused(origin, "", cells))
            else:
                made = maker.make({c: cells[i] for c, i in table.places.items()}, origin)
                if isinstance(made, Record):
                    records.append(made)
                elif made is not None:
                    refused.append(made)
            if len(records) + len(refused) >= PAGE_RESOURCES:
                state.row = number
                yield Page(name, _encoded(state), tuple(records), tuple(refused), begins=begins, total=total)
                begins, records, refused = False, [], []
        state.done[name] = table.digest
        state.table, state.digest, state.row = "", b"", 0
        yield Page(name, _encoded(state), tuple(records), tuple(refused), begins=begins, ends="complete", total=total)

    # --- files ---------------------------------------------------------------------------------------

    def _digests(self) -> dict[str, bytes]:
        """Of every table's file and of what the mapping says about it."""
        paths = {name: self._path(name, table) for name, table in self._mapping.tables.items()}
        contents = {path: _digest_of(path) for path in set(paths.values())}
        rules = {name: digest_text(self._mapping, name, self._model) for name in paths}
        return {name: hashlib.sha256(contents[path] + rules[name]).digest() for name, path in paths.items()}

    def _open(self, digests: dict[str, bytes]) -> dict[str, _Opened]:
        books: dict[Path, Workbook] = {}
        opened = {}
        for name, digest in digests.items():
            table = self._mapping.tables[name]
            path = self._path(name, table)
            source: Delimited | Sheet
            if path.suffix.lower() == _WORKBOOK:
                books[path] = books.get(path) or Workbook(path)
                source = books[path].sheet(_sheet_of(name, table, path), table.header_row)
                what = source.what
            else:
                source, what = Delimited(path, table), path.name
            opened[name] = _Opened(what, source, places_of(source.header, table.columns(), what), digest)
        return opened

    def _path(self, name: str, table: Table) -> Path:
        """The table's file: in the folder and nowhere else."""
        if self._place.is_file():
            if table.file and table.file != self._place.name:
                raise Unmappable(
                    f"Table {name} of the mapping is in {table.file}, and only {self._place.name} was given; give "
                    "the folder."
                )
            return self._place
        if not self._place.is_dir():
            raise Unreachable(f"There is no file or folder {self._place.name} that can be read.")
        if not table.file:
            return self._only_workbook(name)
        path = self._place / table.file
        if not path.resolve().is_relative_to(self._place.resolve()):
            raise Unmappable(f"Table {name} of the mapping names a file outside of the folder.")
        if not path.is_file():
            raise Unreachable(f"The folder {self._place.name} has no file {table.file}, which table {name} is in.")
        return path

    def _only_workbook(self, name: str) -> Path:
        books = sorted(p for p in self._place.iterdir() if p.suffix.lower() == _WORKBOOK and p.is_file())
        if len(books) != 1:
            raise Unmappable(
                f"Table {name} of the mapping names a sheet and no file, and the folder {self._place.name} has "
                f"{len(books)} workbooks; write 'file: …'."
            )
        return books[0]


def _sheet_of(name: str, table: Table, path: Path) -> str:
    if not table.sheet:
        raise Unmappable(f"{path.name} is a workbook; say in table {name} of the mapping which 'sheet: …' it is.")
    return table.sheet


def _digest_of(path: Path) -> bytes:
    """BLAKE2b of a file's bytes."""
    try:
        if path.stat().st_size > MAX_IMPORT_FILE_BYTES:
            raise Unreachable(f"{path.name} is larger than {MAX_IMPORT_FILE_BYTES} bytes; split it.")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError as error:
        raise Unreachable(f"There is no file {path.name} that can be read.") from error


def _state(mark: bytes | None) -> _Mark:
    if mark is None:
        return _Mark()
    try:
        return msgspec.msgpack.decode(mark, type=_Mark)
    except msgspec.DecodeError as error:
        raise MisuseError(
            "This mark was left by another kind of source; begin a new dataset for this one."
        ) from error


def _encoded(state: _Mark) -> bytes:
    return msgspec.msgpack.encode(state)
