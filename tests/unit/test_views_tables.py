"""A view's table in each format, and files that are whole or not there."""

from __future__ import annotations

import csv
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flute.errors import MisuseError
from flute.views.cells import Row
from flute.views.tables import FILES_ONLY, TableFormat, table_file, table_stream
from flute.views.view import View, compile_view

VIEW: View = compile_view("v", {"resource": "Patient", "select": [{"column": [
    {"name": "text", "path": "id"}, {"name": "flag", "path": "active"},
    {"name": "many", "path": "name.given", "collection": True},
    {"name": "half", "path": "0.5", "type": "decimal"}, {"name": "n", "path": "name.count()", "type": "integer"},
    {"name": "thing", "path": "maritalStatus", "type": "CodeableConcept"}]}]})  # fmt: skip
ROWS: list[Row] = [
    ("a", True, ["x", "y,z"], 0.5, 2, {"text": "m"}),
    ('b"\n,', None, [], None, 0, None),
    ("ç", False, ["é"], -1.0, 1, None),
]
NAMES = [column.name for column in VIEW.columns]
WRITTEN = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def written(path: Path, format: TableFormat) -> Path:
    with table_file(path, format, VIEW.columns) as table:
        table.add(ROWS[:1])
        table.add([])
        table.add(ROWS[1:])
    return path


def test_json_is_an_array_of_objects(tmp_path: Path) -> None:
    assert json.loads(written(tmp_path / "t", "json").read_text()) == WRITTEN


def test_ndjson_is_an_object_per_line(tmp_path: Path) -> None:
    lines = written(tmp_path / "t", "ndjson").read_text().splitlines()
    assert [json.loads(line) for line in lines] == WRITTEN


def test_csv_has_a_header_and_json_where_a_cell_is_more_than_one_value(tmp_path: Path) -> None:
    header, *rows = csv.reader(io.StringIO(written(tmp_path / "t", "csv").read_bytes().decode()))
    assert header == NAMES
    assert rows == [
        ["a", "true", '["x","y,z"]', "0.5", "2", '{"text":"m"}'],
        ['b"\n,', "", "[]", "", "0", ""],
        ["ç", "false", '["é"]', "-1.0", "1", ""],
    ]


def test_parquet_has_the_columns_types(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", "parquet")
    found = duckdb.sql(f"FROM '{path}'")
    assert [str(kind) for kind in found.types] == [column.sql_type for column in VIEW.columns]
    assert found.fetchall() == [
        (*row[:5], None if row[5] is None else json.dumps(row[5]).replace(" ", "")) for row in ROWS
    ]


@pytest.mark.skipif(find_spec("pyarrow") is not None, reason="pyarrow is installed here")
def test_arrow_without_pyarrow_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="pip install pyarrow"):
        written(tmp_path / "t.arrow", "arrow")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs the package pyarrow: pip install pyarrow")
def test_arrow_has_the_rows(tmp_path: Path) -> None:
    from pyarrow import ipc  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with ipc.open_file(str(written(tmp_path / "t.arrow", "arrow"))) as file:
        table = file.read_all()
    assert table.column_names == NAMES
    assert [list(r.values())[:5] for r in table.to_pylist()] == [list(row[:5]) for row in ROWS]


@pytest.mark.parametrize("format", ["json", "ndjson", "csv", "parquet"])
def test_no_row_at_all_is_a_table_too(tmp_path: Path, format: TableFormat) -> None:
    with table_file(tmp_path / "t", format, VIEW.columns):
        pass
    if format == "parquet":
        assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{tmp_path / 't'}')").fetchall() == [(0,)]
    else:
        expected = {"json": "[]\n", "ndjson": "", "csv": ",".join(NAMES) + "\r\n"}[format]
        assert (tmp_path / "t").read_bytes().decode() == expected


@pytest.mark.parametrize("format", ["json", "csv", "parquet"])
def test_a_run_that_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path: Path, format: TableFormat) -> None:
    path = tmp_path / "t"
    path.write_text("old")

    def breaks_off() -> None:
        with table_file(path, format, VIEW.columns) as table:
            table.add(ROWS)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 ours
        breaks_off()
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("format", sorted(FILES_ONLY))
def test_what_is_no_stream_of_text_asks_for_a_file(format: TableFormat) -> None:
    with pytest.raises(MisuseError, match="--out"):
        table_stream(io.BytesIO(), format, VIEW.columns)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no folder"):
        written(tmp_path / "nowhere" / "t", "json")


def test_a_large_collection_of_equal_lengths_is_no_matrix(tmp_path: Path) -> None:
    """numpy would make a second dimension of lists that are all as long as each other."""
    rows: list[Any] = [("p", True, ["a", "b"], 1.0, 1, None)] * 3
    with table_file(tmp_path / "t", "parquet", VIEW.columns) as table:
        table.add(rows)
    assert duckdb.sql(f"SELECT DISTINCT many FROM read_parquet('{tmp_path / 't'}')").fetchall() == [(["a", "b"],)]
