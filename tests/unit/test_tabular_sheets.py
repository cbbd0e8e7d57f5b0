"""CSV files and workbooks: rows become resources or refusals, one by one; hostile files end in one sentence."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest

from flute.data.findings import Finding
from flute.data.reader import Page, Refused
from flute.defaults.records import MAX_ROW_BYTES
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.tabular import sheets as sheets_module
from flute.tabular import workbook_check
from flute.tabular.delimited import Delimited
from flute.tabular.mapping_file import read_mapping
from flute.tabular.sheets import SheetsReader
from support.ward_model import WARD, mapping

pytestmark = pytest.mark.requirement("F-SRS-7")
WEIGHTS = """\
  weights:
    file: w.csv
    patient: id
    key: nr
    make: weight
    parts: {value: {column: kilo, unit: {column: unit}}, when: day}
"""
GOOD = "id,nr,kilo,unit,day\np1,1,80.5,kg,2020-05-01\np2,2,71000,g,2020-05-02\n"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def files(**contents: str | bytes) -> Path:
        if not (tmp_path / "people.csv").exists():
            (tmp_path / "people.csv").write_text("id,sex,born\np1,male,1950-01-31\np2,female,\n")
        for name, content in contents.items():
            raw = content.encode() if isinstance(content, str) else content
            (tmp_path / f"{name}.csv").write_bytes(raw)
        return tmp_path

    return files


def reader(place: Path, tables: str = WEIGHTS, head: str = "") -> SheetsReader:
    return SheetsReader(place, read_mapping(mapping(tables, head), WARD), WARD)


def pages(source: SheetsReader, mark: bytes | None = None) -> list[Page]:
    return list(source.pages(mark))


def refusals(found: list[Page]) -> list[Refused]:
    return [refused for page in found for refused in page.refused]


def records(found: list[Page]) -> dict[str, dict[str, object]]:
    return {record.key: record.resource for page in found for record in page.records}


def test_rows_become_resources_of_the_common_model(write: Write) -> None:
    found = records(pages(reader(write(w=GOOD), head="tags: [{system: s, code: T}]\n")))
    assert found["Patient/p1"] == {
        "resourceType": "Patient", "id": "p1", "gender": "male", "birthDate": "1950-01-31",
        "meta": {"tag": [{"system": "s", "code": "T"}]},
    }  # fmt: skip
    weight = found["Observation/weights.2"]
    assert weight["valueQuantity"] == {
        "value": 71000, "unit": "g", "system": "http://unitsofmeasure.org", "code": "g",
    }  # fmt: skip
    assert (weight["subject"], weight["effectiveDateTime"]) == ({"reference": "Patient/p2"}, "2020-05-02")


BROKEN = {
    "comma": ("p1,1,\"3,4\",kg,2020-05-01", "kilo", "wrong-type", "number-format", "decimal"),
    "bound": ("p1,1,<3,kg,2020-05-01", "kilo", "wrong-type", "weight-value", "bound"),
    "unit": ("p1,1,80,lb,2020-05-01", "unit", "unit-not-convertible", "weight-value", "'unit' in the mapping"),
    "no_unit": ("p1,1,80,,2020-05-01", "unit", "required-element-missing", "row-unit", "Fill in the unit"),
    "no_value": ("p1,1,,kg,2020-05-01", "kilo", "required-element-missing", "weight-value", "Give a value"),
    "no_patient": (",1,80,kg,2020-05-01", "id", "required-element-missing", "row-patient", "whose it is"),
    "no_key": ("p1,,80,kg,2020-05-01", "nr", "required-element-missing", "row-key", "key"),
    "short_year": ("p1,1,80,kg,01.05.20", "day", "date-invalid", "weight-when", "four digits"),
    "no_day": ("p1,1,80,kg,2020-02-30", "day", "date-invalid", "weight-when", "no such day"),
    "range": ("p1,1,-80,kg,2020-05-01", "kilo", "value-out-of-range", "weight-value", "0 to 500 kg"),
    "cells": ("p1,1,80,kg,2020-05-01,more", "", "malformed-row", "row-cells", "5 columns"),
    "few_cells": ("p1,1,80,kg", "", "malformed-row", "row-cells", "quotes"),
    "nul": ("p1,1,8\0,kg,2020-05-01", "", "malformed-row", "row-nul", "export it again"),
    "quote": ('p1,1,"80"x,kg,2020-05-01', "", "malformed-row", "row-quotes", "double the quotes"),
    "latin": (b"p1,1,80,kg,\xfc", "", "malformed-row", "row-encoding", "cp1252"),
    "long_cell": (f"p1,1,{'9' * 10_001},kg,2020-05-01", "kilo", "too-long", "cell-size", "10000"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_alone_is_refused_with_row_column_and_mend(name: str, write: Write) -> None:
    line, path, reason, rule, mend = BROKEN[name]
    raw = line if isinstance(line, bytes) else line.encode()
    found = pages(reader(write(w=GOOD.replace("p1,1", "p1,7").encode() + raw + b"\np2,9,70,kg,2020-05-03\n")))
    (refused,) = refusals(found)
    assert refused.origin == "w.csv, row 4"
    assert (refused.finding.path, refused.finding.reason, refused.finding.rule) == (path, reason, rule)
    assert mend in refused.finding.mend
    assert {"Observation/weights.7", "Observation/weights.2", "Observation/weights.9"} <= set(records(found))
    assert "Observation/weights.1" not in records(found)


def test_declared_decimal_commas_dates_and_encoding_are_read(write: Write) -> None:
    text = "id;nr;kilo;unit;day\np1;ü1;1.080,5;Kilo;01.05.2020\n".replace("1.080,5", "80,5")
    head = "formats: {decimal: ',', dates: DD.MM.YYYY, blank: ['-']}\nfiles: {encoding: cp1252}\n"
    people = "id;sex;born\np1;male;31.01.1950\np2;-;-\n".encode("cp1252")
    found = pages(reader(write(w=text.encode("cp1252"), people=people), head=head))
    assert refusals(found) == []
    assert any(r.get("valueQuantity", {}).get("value") == 80.5 for r in records(found).values())  # type: ignore[attr-defined]
    assert records(found)["Patient/p2"] == {"resourceType": "Patient", "id": "p2"}


def test_a_long_table_makes_what_each_row_says(write: Write) -> None:
    tables = """\
  results:
    file: r.csv
    patient: id
    key: nr
    make_by: {column: test, values: {W: weight, S: smoker}, others: OTHERS}
    where: {state: [final, F]}
    parts: {value: {column: v, unit: kg, values: {ja: "1"}}}
"""
    # One column cannot be a number of kilograms and a word: each gets a table of its own.
    tables = tables.replace("{W: weight, S: smoker}", "{S: smoker}").replace(", unit: kg", "")
    rows = "id,nr,test,state,v\np1,1,s,F,JA\np1,2,X,F,3\np1,3,S,draft,ja\n"
    found = pages(reader(write(r=rows), tables.replace("OTHERS", "skip")))
    assert [k for k in records(found) if k.startswith("Obs")] == ["Observation/results.1"]
    assert refusals(found) == []
    (refused,) = refusals(pages(reader(write(r=rows), tables.replace("OTHERS", "refuse"))))
    assert (refused.finding.rule, refused.finding.path, refused.finding.found) == ("row-element", "test", "X")


def test_a_wide_table_makes_several_elements_and_links_them(write: Write) -> None:
    tables = """\
  kilos: {file: v.csv, patient: id, key: nr, make: weight, if_empty: skip, parts: {value: {column: kilo, unit: kg}}}
  pains: {file: v.csv, patient: id, key: nr, make: pain, if_empty: skip, parts: {value: pain}}
  scans:
    file: v.csv
    patient: id
    key: nr
    make: scan
    parts:
      when: day
      links:
        - {table: kilos, column: nr, filled: kilo}
        - {table: pains, column: more, separator: "+"}
"""
    rows = "id,nr,kilo,pain,day,more\np1,1,80,3,2020-05-01,1+9\np1,2,,,2020-05-02,\n"
    found = records(pages(reader(write(v=rows), tables)))
    assert set(found) >= {
        "Observation/kilos.1",
        "Observation/pains.1",
        "ImagingStudy/scans.1",
        "ImagingStudy/scans.2",
    }
    assert "Observation/kilos.2" not in found
    links = [e["valueReference"]["reference"] for e in found["ImagingStudy/scans.1"]["extension"]]  # type: ignore[attr-defined]
    assert links == ["Observation/kilos.1", "Observation/pains.1", "Observation/pains.9"]
    assert "extension" not in found["ImagingStudy/scans.2"]


# --- marks -----------------------------------------------------------------------------------------------


def test_unchanged_files_give_no_page_and_a_changed_one_is_read_as_a_whole(write: Write) -> None:
    place = write(w=GOOD)
    first = pages(reader(place))
    assert [(p.scope, p.begins, p.ends) for p in first] == [
        ("people", True, "complete"),
        ("weights", True, "complete"),
    ]
    assert pages(reader(place), first[-1].mark) == []
    write(w=GOOD + "p1,3,82,kg,2020-06-01\n")
    second = pages(reader(place), first[-1].mark)
    assert [(p.scope, len(p.records), p.ends) for p in second] == [("weights", 3, "complete")]
    assert pages(reader(place), second[-1].mark) == []


def test_another_mapping_reads_the_table_anew_and_a_table_that_left_is_gone(write: Write) -> None:
    place = write(w=GOOD)
    mark = pages(reader(place))[-1].mark
    other = pages(reader(place, WEIGHTS.replace("make: weight", "make: weight\n    if_empty: skip")), mark)
    assert [p.scope for p in other] == ["weights"]
    left = pages(reader(place, ""), mark)
    assert [(p.scope, p.records, p.begins, p.ends) for p in left] == [("weights", (), True, "complete")]
    assert pages(reader(place, ""), left[-1].mark) == []


def test_reading_goes_on_behind_any_page_with_the_same_pages(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets_module, "PAGE_RESOURCES", 3)
    rows = "".join(f"p1,{n},{'x' if n % 4 == 0 else n},kg,2020-05-01\n" for n in range(1, 21))
    place = write(w="id,nr,kilo,unit,day\n" + rows)
    whole = pages(reader(place))
    assert len(whole) == 8
    assert sum(len(p.records) for p in whole) == 17
    assert len(refusals(whole)) == 5
    for stopped in range(len(whole)):
        assert pages(reader(place), whole[stopped].mark) == whole[stopped + 1 :]


def test_a_file_that_changed_while_reading_was_interrupted_is_begun_anew(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets_module, "PAGE_RESOURCES", 1)
    place = write(w=GOOD)
    marks = [page.mark for page in reader(place).pages(None) if page.scope == "weights" and not page.ends]
    write(w=GOOD.replace("80.5", "81.5"))
    again = pages(reader(place), marks[0])
    assert again[0].begins
    assert records(again)["Observation/weights.1"]["valueQuantity"]["value"] == 81.5  # type: ignore[index]


def test_a_mark_of_another_source_is_refused(write: Write) -> None:
    with pytest.raises(MisuseError, match="another kind of source"):
        pages(reader(write(w=GOOD)), b"\x93abc")


# --- files that are not there, or not so -----------------------------------------------------------------


def test_missing_columns_and_files_are_said_before_anything_is_taken(write: Write, tmp_path: Path) -> None:
    for content, said in (
        (GOOD.replace("kilo", "kilos"), "did you mean 'kilos'?"),
        (GOOD.replace("unit", "kilo"), "two columns called 'kilo'"),
        ("\n" + GOOD, "no names of columns in line 1"),
        ("", "no names of columns in line 1"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (b'id,"nr\n', "quote is not closed"),
        (GOOD.replace("\n", "\r"), "do not end in a line break"),
    ):
        with pytest.raises(Unmappable) as caught:
            next(reader(write(w=content)).pages(None))
        assert said in caught.value.text
        assert "80.5" not in caught.value.text
    (tmp_path / "w.csv").unlink()
    with pytest.raises(Unreachable, match=r"has no file w\.csv"):
        next(reader(tmp_path).pages(None))
    with pytest.raises(Unreachable, match="no file or folder"):
        next(reader(tmp_path / "nowhere").pages(None))


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "link.csv"])
def test_no_file_outside_of_the_folder_is_read(name: str, write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text(GOOD)
    write(w=GOOD).joinpath("people.csv").rename(folder / "people.csv")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(Unmappable, match="outside of the folder"):
        next(reader(folder, WEIGHTS.replace("w.csv", name)).pages(None))


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(write: Write) -> None:
    found = pages(reader(write(w=b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())))
    assert len(records(found)) == 4
    with pytest.raises(Unmappable, match="says that it is UTF-8"):
        pages(reader(write(w=b"\xef\xbb\xbf" + GOOD.encode()), head="files: {encoding: latin-1}\n"))


def test_quoted_line_breaks_belong_to_the_cell_and_rows_are_counted_as_lines(write: Write) -> None:
    rows = 'id,nr,kilo,unit,day\np1,"1\n1",80,kg,2020-05-01\np2,2,x,kg,2020-05-02\n'
    found = pages(reader(write(w=rows)))
    assert [r.origin for r in refusals(found)] == ["w.csv, row 4"]
    assert len(records(found)) == 3


def test_a_quote_that_is_never_closed_costs_one_row(write: Write) -> None:
    rows = 'id,nr,kilo,unit,day\np1,1,80,kg,2020-05-01\np1,"2,80,kg,2020-05-01\n'
    rows += "".join(f"p1,{n},80,kg,2020-05-01\n" for n in range(3, 10_003))
    found = pages(reader(write(w=rows)))
    assert [(r.origin, r.finding.rule) for r in refusals(found)] == [("w.csv, row 3", "row-quotes")]
    assert sum(len(p.records) for p in found) == 2 + 10_001


def test_a_line_of_two_gigabytes_is_passed_over_in_bounded_memory(write: Write) -> None:
    """The file is sparse: its zeros take no room on the disk, and the reader must not hold them."""
    place = write(w=GOOD)
    with (place / "w.csv").open("r+b") as file:
        file.seek(0, io.SEEK_END)
        file.write(b"p1,3,")
        file.seek(2 * 2**30, io.SEEK_CUR)
        file.write(b"80,kg,2020-05-01\np2,4,70,kg,2020-05-01\n")
    table = read_mapping(mapping(WEIGHTS), WARD).tables["weights"]
    tracemalloc.start()
    rows = list(Delimited(place / "w.csv", table).rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [number for number, _ in rows] == [2, 3, 4, 5]
    assert isinstance(rows[2][1], Finding)
    assert (rows[2][1].reason, rows[2][1].rule) == ("too-long", "row-size")
    assert rows[3][1] == ["p2", "4", "70", "kg", "2020-05-01"]
    assert peak < 8 * MAX_ROW_BYTES


# --- workbooks --------------------------------------------------------------------------------------------


def book(place: Path, *rows: list[object], change: Callable[[openpyxl.Workbook], None] | None = None) -> Path:
    """A workbook with people, and `rows` in sheet Lab."""
    workbook = openpyxl.Workbook()
    people = workbook.active
    assert people is not None
    people.title = "People"
    for row in (["id", "sex", "born"], [1, "male", date(1950, 1, 31)], ["p2", "female", None]):
        people.append(row)
    lab = workbook.create_sheet("Lab")
    lab.append(["id", "nr", "kilo", "unit", "day"])
    for row in rows:
        lab.append(row)
    if change is not None:
        change(workbook)
    path = place / "ward.xlsx"
    workbook.save(path)
    return path


def book_reader(place: Path, extra: str = "") -> SheetsReader:
    text = mapping(WEIGHTS.replace("file: w.csv", f"sheet: Lab{extra}")).replace("file: people.csv", "sheet: People")
    return SheetsReader(place, read_mapping(text, WARD), WARD)


def test_typed_cells_need_no_declaration(tmp_path: Path) -> None:
    rows = [[1, 1, 80.5, "kg", date(2020, 5, 1)], ["p2", "2", 71, "kg", datetime(2020, 5, 2, 10, 30)]]
    path = book(tmp_path, *rows)
    for place in (path, tmp_path):
        found = records(pages(book_reader(place)))
        assert found["Patient/1"]["birthDate"] == "1950-01-31"
        weight = found["Observation/weights.1"]
        assert (weight["effectiveDateTime"], weight["valueQuantity"]["value"]) == ("2020-05-01", 80.5)  # type: ignore[index]
        assert found["Observation/weights.2"]["effectiveDateTime"] == "2020-05-02"


def test_a_cell_that_shows_nothing_although_something_stands_there_is_refused(tmp_path: Path) -> None:
    def change(workbook: openpyxl.Workbook) -> None:
        lab = workbook["Lab"]
        lab["C3"] = "=C2*2"  # openpyxl calculates nothing: no value is stored
        lab["C4"].value, lab["C4"].data_type = "#N/A", "e"
        lab.merge_cells("C5:C6")

    rows: list[list[object]] = [["p2", n, 70 + n, "kg", date(2020, 5, n)] for n in range(1, 7)]
    found = pages(book_reader(book(tmp_path, *rows, change=change)))
    assert [(r.origin, r.finding.rule, r.finding.path) for r in refusals(found)] == [
        ("ward.xlsx, sheet Lab, row 3", "cell-formula", "kilo"),
        ("ward.xlsx, sheet Lab, row 4", "cell-error", "kilo"),
        ("ward.xlsx, sheet Lab, row 6", "cell-merged", "kilo"),
    ]
    assert {"Observation/weights.1", "Observation/weights.4", "Observation/weights.6"} <= set(records(found))


def test_a_number_without_a_date_format_is_no_date(tmp_path: Path) -> None:
    found = pages(book_reader(book(tmp_path, ["p2", 1, 70, "kg", 43952])))
    assert [r.finding.rule for r in refusals(found)] == ["date-typed"]


def test_a_title_above_the_table_and_hidden_sheets_are_declared_and_named(tmp_path: Path) -> None:
    def change(workbook: openpyxl.Workbook) -> None:
        workbook["Lab"].insert_rows(1, 2)
        workbook["Lab"]["A1"] = "Laboratory"
        workbook.create_sheet("Old").sheet_state = "hidden"

    place = book(tmp_path, ["p2", 1, 70, "kg", date(2020, 5, 1)], change=change)
    with pytest.raises(Unmappable, match="has no column 'id'"):
        pages(book_reader(place))
    found = pages(book_reader(place, "\n    header_row: 3"))
    assert [r.origin for p in found for r in p.records][-1] == "ward.xlsx, sheet Lab, row 4"
    text = mapping(WEIGHTS.replace("file: w.csv", "sheet: Labor")).replace("file: people.csv", "sheet: People")
    with pytest.raises(Unmappable, match=r"no sheet 'Labor'; it has People, Lab, Old \(hidden\)"):
        pages(SheetsReader(place, read_mapping(text, WARD), WARD))


def repacked(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """The workbook's parts, changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))


BOMB = b" " * (9 * 2**20)


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than BOMB, so that the test packs no quarter of a gigabyte."""
    monkeypatch.setattr(workbook_check, "MAX_WORKBOOK_INFLATED_BYTES", 8 * 2**20)


@pytest.mark.usefixtures("little_room")
def test_a_workbook_that_unpacks_without_end_is_not_opened(tmp_path: Path) -> None:
    path = book(tmp_path)
    assert len(pages(book_reader(path))) == 2
    repacked(path, lambda n, c: c + BOMB if n == "xl/styles.xml" else c)
    assert path.stat().st_size < 2**16
    with pytest.raises(Unmappable, match="unpacks to more than"):
        pages(book_reader(path))


@pytest.mark.usefixtures("little_room")
def test_an_archive_that_lies_about_its_size_is_seen_through(tmp_path: Path) -> None:
    """The size in the archive's list says 10 bytes, and a checksum that fits them; the stream goes on."""
    path = book(tmp_path)
    repacked(path, lambda n, c: BOMB if n == "xl/styles.xml" else c)
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"xl/styles.xml") - 46
    assert raw[entry : entry + 4] == b"PK\x01\x02"
    raw[entry + 16 : entry + 20] = struct.pack("<I", zlib.crc32(b" " * 10))
    raw[entry + 24 : entry + 28] = struct.pack("<I", 10)
    path.write_bytes(raw)
    with pytest.raises(Unmappable, match="unpacks to more than"):
        pages(book_reader(path))


def test_one_cell_far_out_does_not_ask_for_half_a_terabyte(tmp_path: Path) -> None:
    def change(workbook: openpyxl.Workbook) -> None:
        workbook["Lab"]["XFD1048576"] = "x"

    with pytest.raises(Unmappable, match="reaches over more than"):
        pages(book_reader(book(tmp_path, change=change)))


def test_xml_that_expands_itself_is_not_read(tmp_path: Path) -> None:
    path = book(tmp_path)
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    repacked(path, lambda n, c: c.replace(b"<worksheet", laughs + b"<worksheet", 1) if "sheet2" in n else c)
    with pytest.raises(Unmappable, match="document type"):
        pages(book_reader(path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"id,nr\n1,2\n", b"\xd0\xcf\x11\xe0" + b"\0" * 512])
def test_what_is_no_workbook_is_called_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ward.xlsx"
    path.write_bytes(content)
    with pytest.raises(Unmappable, match=r"is no \.xlsx workbook"):
        pages(book_reader(path))


def test_a_damaged_workbook_ends_in_a_sentence(tmp_path: Path) -> None:
    """Whatever byte is wrong: a sentence of ours, or the rows; never a crash of the library."""
    path = book(tmp_path, ["p2", 1, 70, "kg", date(2020, 5, 1)])
    good = path.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 60)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            pages(book_reader(path))
        except (Unmappable, Unreachable):
            continue


def test_tables_of_a_database_are_not_looked_for_in_files() -> None:
    text = mapping(WEIGHTS.replace("file: w.csv", "table: w"))
    with pytest.raises(MisuseError, match="is in a database"):
        SheetsReader(Path("x"), read_mapping(text, WARD), WARD)
