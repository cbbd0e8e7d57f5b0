"""One CSV file with one row per patient, read as text and matched to declared variables by column name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from flute.data.variables import Variable
from flute.defaults.records import MAX_CSV_COLUMNS, MAX_IMPORT_FILE_BYTES, MAX_RESOURCE_BYTES
from flute.errors import Unmappable, Unreachable
from flute.intake.rows import ImportReport, Rows, count_cells, database, lock, make_rows, quoted

ROW_NUMBER: Final = "#row"
"""In place of an id column: the patient's place in the file is his id."""
_DELIMITERS: Final = (",", ";", "\t", "|")


def read_csv(
    path: Path, variables: Sequence[Variable], *, key: bytes | None, id_column: str | None = None, name: str = "csv"
) -> tuple[Rows, ImportReport]:
    """The declared variables' columns of a CSV file; other columns are not taken in.

    `key`: the hub's own, for pseudonyms; None where the ids are pseudonyms already. `id_column`: whose values say
    which patient a row is; by default the first column unless that is itself a variable, then the row's number
    (which another order of the file would change: such an import cannot be repeated after the file was sorted).
    The file is UTF-8 with a header line; the delimiter is read off that line. A cell of an image names a `.npy` file
    in the file's own folder, or below it.

    Raises: Unreachable: no such file. Unmappable: empty, no header, a column twice or absent, a patient
    twice or without id, lines that are no CSV. The texts name columns and counts, never a value.
    """
    header, delimiter = _header(path)
    ids = _id_column(header, variables, id_column)
    absent = [v.name for v in variables if v.name not in header]
    if absent:
        raise Unmappable(f"The file {path.name} has no column {', '.join(absent)}, which this dataset declares.")
    connection = database()
    _load(connection, path, header, delimiter, ids, variables)
    lock(connection)
    missing, unusable = count_cells(connection, variables)
    rows = make_rows(connection, variables, key)
    connection.close()
    total = len(rows)
    if not total:
        raise Unmappable(f"The file {path.name} has a header and no patient.")
    return rows, ImportReport(
        source=name, files=1, resources=0, set_aside=0, refused={}, patients=total, excluded={}, flags={},
        rows=total, missing=missing, unusable=unusable,
    )  # fmt: skip


def _header(path: Path) -> tuple[list[str], str]:
    """Column names and the delimiter between them."""
    try:
        size = path.stat().st_size if path.is_file() else None
        with path.open("rb") as file:
            first = file.readline(MAX_RESOURCE_BYTES + 1)
    except OSError as error:
        raise Unreachable(f"There is no file {path.name} that can be read.") from error
    if size is None or size > MAX_IMPORT_FILE_BYTES:
        raise Unreachable(f"{path.name} is no plain file of at most {MAX_IMPORT_FILE_BYTES} bytes.")
    if not first.strip():
        raise Unmappable(f"The file {path.name} is empty, or its first line is: a header line is needed.")
    try:
        line = first.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unmappable(f"The file {path.name} is not UTF-8; save it in that encoding.") from error
    delimiter = max(_DELIMITERS, key=line.count)
    names = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    _check_names(path, names)
    return names, delimiter


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(names) > MAX_CSV_COLUMNS:
        raise Unmappable(f"The file {path.name} has more than {MAX_CSV_COLUMNS} columns.")
    if any(not cell or _is_number(cell) for cell in names):
        raise Unmappable(f"The first line of {path.name} is no header: some of its cells are empty or numbers.")
    twice = sorted({cell for cell in names if names.count(cell) > 1})
    if twice:
        raise Unmappable(f"The file {path.name} has two columns called {', '.join(twice)}.")


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _id_column(header: Sequence[str], variables: Sequence[Variable], wanted: str | None) -> str:
    if wanted is None:
        return ROW_NUMBER if header[0] in {v.name for v in variables} else header[0]
    if wanted != ROW_NUMBER and wanted not in header:
        raise Unmappable(f"The file has no column {wanted}, which was named as the patients' id.")
    return wanted


def _load(
    connection: Any, path: Path, header: Sequence[str], delimiter: str, ids: str, variables: Sequence[Variable]
) -> None:
    """Table `chosen` from the file: everything is text, an empty cell is missing."""
    patient = "CAST(row_number() OVER () AS VARCHAR)" if ids == ROW_NUMBER else f"nullif(trim({quoted(ids)}), '')"
    beside = f"{path.absolute().parent}/".replace("'", "''")
    cells = ", ".join(_cell(v, beside) for v in variables)
    try:
        connection.execute(
            f"CREATE TABLE chosen AS SELECT {patient} AS patient, {cells} "  # noqa: S608 identifiers are quoted
            "FROM read_csv(?, header = false, skip = 1, auto_detect = false, delim = ?, quote = '\"', escape = '\"', "
            "null_padding = false, columns = ?, max_line_size = ?)",
            [_literal(path), delimiter, dict.fromkeys(header, "VARCHAR"), MAX_RESOURCE_BYTES],
        )
    except duckdb.Error:
        # DuckDB's own text quotes the line, that is a patient: it goes no further.
        raise Unmappable(
            f"The file {path.name} has lines that do not fit its header: another number of cells, an open quote, "
            "or letters that are not UTF-8."
        ) from None


def _cell(variable: Variable, beside: str) -> str:
    """SQL for a variable's column: its text, for an image the path of the file that it names."""
    cell = f"nullif(trim({quoted(variable.name)}), '')"
    if variable.kind == "image":
        cell = f"'{beside}' || {cell}"
    return f"{cell} AS {quoted(variable.name)}"


def _literal(path: Path) -> str:
    """The path with pattern letters bracketed, so that it names this file and no other."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path))
