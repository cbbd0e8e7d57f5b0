"""A CSV file row by row, in bounded memory: what cannot be read as a row is one finding, and the next row is read.

Source: RFC 4180; delimiter and encoding as declared. Without a declared delimiter it is the one by which the header
holds the columns that the mapping names.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from flute.data.findings import Finding, shown
from flute.defaults.records import MAX_CSV_COLUMNS, MAX_IMPORT_FILE_BYTES, MAX_ROW_BYTES
from flute.errors import Unmappable, Unreachable
from flute.tabular.mapping import Table

MALFORMED: Final = "malformed-row"
_DELIMITERS: Final = (",", ";", "\t", "|")
_BOM: Final = b"\xef\xbb\xbf"
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")


class _NoRowError(Exception):
    """What stands here is no row, for the reason of the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.rule)
        self.finding = finding


class Delimited:
    """One CSV file. `header`: the columns' names, as they stand there.

    Raises: Unreachable: no such file, or it is too large. Unmappable: no header that can be read.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self.path = path
        self._encoding = table.encoding
        self._header_row = table.header_row
        try:
            with path.open("rb") as file:
                if path.stat().st_size > MAX_IMPORT_FILE_BYTES:
                    raise Unreachable(f"{path.name} is larger than {MAX_IMPORT_FILE_BYTES} bytes; split it.")
                line = self._header_line(file)
        except OSError as error:
            raise Unreachable(f"There is no file {path.name} that can be read.") from error
        self._delimiter = table.delimiter or self._detected(line, table.columns())
        self.header = self._names(line, self._delimiter)

    def rows(self) -> Iterator[tuple[int, list[str] | Finding]]:
        """(line of the file, its cells or why it is no row), in the file's order; empty rows are left out.

        Raises: Unreachable: the file cannot be read to its end.
        """
        try:
            with self.path.open("rb") as file:
                self._header_line(file)
                yield from self._records(file)
        except OSError as error:
            raise Unreachable(f"The file {self.path.name} cannot be read to its end.") from error

    # --- header --------------------------------------------------------------------------------------

    def _header_line(self, file: BinaryIO) -> str:
        """Reads up to and with the header line."""
        name = self.path.name
        raw = b""
        for number in range(self._header_row):
            raw = file.readline(MAX_ROW_BYTES + 1)
            if number == 0 and raw.startswith(_WIDE):
                raise Unmappable(f"The file {name} is UTF-16; save it as 'CSV UTF-8'.")
            if number == 0 and raw.startswith(_BOM):
                if self._encoding != "utf-8":
                    raise Unmappable(f"The file {name} says that it is UTF-8; leave 'encoding' out of the mapping.")
                raw = raw.removeprefix(_BOM)
        if not raw.strip() or len(raw) > MAX_ROW_BYTES:
            raise Unmappable(
                f"The file {name} has no names of columns in line {self._header_row}; write 'header_row: …' in the "
                "mapping if they stand elsewhere."
            )
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise Unmappable(f"{name}, line {self._header_row}: {_ENCODING_MEND}") from error

    def _names(self, line: str, delimiter: str) -> list[str]:
        try:
            names = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True))]
        except (csv.Error, StopIteration) as error:
            raise Unmappable(
                f"The names of the columns in {self.path.name} cannot be read: a quote is not closed, or lines do "
                "not end in a line break. Save the file as 'CSV UTF-8'."
            ) from error
        if len(names) > MAX_CSV_COLUMNS:
            raise Unmappable(f"The file {self.path.name} has more than {MAX_CSV_COLUMNS} columns.")
        return names

    def _detected(self, line: str, wanted: Sequence[str]) -> str:
        found = {delimiter: self._names(line, delimiter) for delimiter in _DELIMITERS}
        fits = [delimiter for delimiter, names in found.items() if set(wanted) <= set(names)]
        return (fits or sorted(found, key=lambda d: -len(found[d])))[0]

    # --- rows ------------------------------------------------------------------------------------------

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, list[str] | Finding]]:
        line = self._header_row
        while True:
            lines = _Lines(file, self._encoding, line)
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            try:
                while True:
                    cells = next(reader)
                    if any(cells):
                        yield lines.begun, self._fitting(cells)
                    lines.next_record()
            except StopIteration:
                return
            except (csv.Error, _NoRowError) as error:
                # The record's first line is lost; the next one is tried as a row of its own.
                yield lines.begun, error.finding if isinstance(error, _NoRowError) else _QUOTES
                line = lines.begun
                lines.back_to_second_line()

    def _fitting(self, cells: list[str]) -> list[str] | Finding:
        wanted = len(self.header)
        if len(cells) == wanted:
            return cells
        mend = (
            f"The header has {wanted} columns and this row {len(cells)} cells. Put cells that hold the delimiter in "
            "quotes, and give every row all its cells."
        )
        return Finding(MALFORMED, "", "row-cells", str(len(cells)), mend)


class _Lines:
    """Decoded lines of a file for a `csv.reader`, none of them unbounded, which know where the record began."""

    def __init__(self, file: BinaryIO, encoding: str, line: int) -> None:
        self._file, self._encoding = file, encoding
        self._line = line
        self.next_record()

    def next_record(self) -> None:
        self.begun = self._line + 1
        self._second = -1
        self._bytes = 0

    def back_to_second_line(self) -> None:
        self._file.seek(self._second)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_ROW_BYTES + 1)
        if not raw:
            if self._bytes:
                raise _NoRowError(_QUOTES)
            raise StopIteration
        self._line += 1
        self._bytes += len(raw)
        if len(raw) > MAX_ROW_BYTES:
            self._skip_line(raw)
        if self._second < 0:
            self._second = self._file.tell()
        if self._bytes > MAX_ROW_BYTES:
            raise _NoRowError(_TOO_LONG)
        if b"\0" in raw:
            raise _NoRowError(_NUL)
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            found = shown(raw[max(0, error.start - 20) : error.end + 20].decode("ascii", "replace"))
            raise _NoRowError(Finding(MALFORMED, "", "row-encoding", found, _ENCODING_MEND)) from error

    def _skip_line(self, raw: bytes) -> None:
        """To the end of a line that is too long, in pieces."""
        while raw and not raw.endswith(b"\n"):
            raw = self._file.readline(MAX_ROW_BYTES)


_ENCODING_MEND: Final = (
    "This line is not in the encoding of the mapping (UTF-8 if it says none); save the file as 'CSV UTF-8', or write "
    "'encoding: cp1252' or 'encoding: latin-1' for this table."
)
_QUOTES: Final = Finding(
    MALFORMED, "", "row-quotes", "a quote that is not closed, or something behind it",
    "Put the whole cell in quotes and double the quotes inside it, or take the quote away.",
)  # fmt: skip
_TOO_LONG: Final = Finding(
    "too-long", "", "row-size", f"more than {MAX_ROW_BYTES} bytes",
    "Look for a quote that opens here and is not closed, or for a cell that holds a document.",
)  # fmt: skip
_NUL: Final = Finding(
    MALFORMED, "", "row-nul", "a zero byte", "The file is damaged here or is no text; export it again."
)  # fmt: skip
