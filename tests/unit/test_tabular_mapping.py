"""Mapping files: what fits is read, what does not is told with its line and what to write."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.conformance.cells import Unfit
from flute.errors import MisuseError, StudyFileError
from flute.tabular import mapping as maps
from flute.tabular.cell_formats import date_pattern, moment_reader, number_reader, text_of, word_reader
from flute.tabular.mapping import Formats
from flute.tabular.mapping_file import FORM, read_mapping
from flute.tabular.table_rows import RowMaker, person_id, resource_id
from support.ward_model import WARD, mapping

DOCS = Path(__file__).resolve().parents[2] / "docs"
STRUCTS = (
    maps.MappingFile, maps.Table, maps.MappedPart, maps.MakeBy, maps.UnitColumn, maps.Link, maps.Formats, maps.Tag,
    maps.Login, maps.FilesForm,
)  # fmt: skip
WEIGHTS = """\
  weights:
    file: w.csv
    patient: id
    key: nr
    make: weight
    parts: {value: {column: kilo, unit: kg}, when: day}
"""


def test_what_is_left_out_is_taken_from_the_table_and_the_file() -> None:
    head = "formats: {decimal: ',', dates: DD.MM.YYYY}\nfiles: {delimiter: ';'}\n"
    found = read_mapping(mapping(WEIGHTS + "    formats: {decimal: '.', thousands: ','}\n", head), WARD)
    table = found.tables["weights"]
    assert table.parts["value"].formats == Formats(decimal=".", thousands=",", dates="DD.MM.YYYY")
    assert found.tables["people"].parts["birth"].formats.decimal == ","
    assert (table.delimiter, table.encoding, table.key) == (";", "utf-8", ("nr",))
    assert table.columns() == ("id", "nr", "kilo", "day")


WRONG = {
    "not_a_mapping": ("- a\n", 1, "This is no mapping file"),
    "study_file": ("flute: 1\ntables: {}\n", 1, "flute is the text '1'; write 'flute: mapping/1'"),
    "no_yaml": ("flute: mapping/1\ntables: {a: [}\n", 2, "This is not YAML"),
    "twice": ("flute: mapping/1\nflute: mapping/1\n", 2, "stands here twice"),
    "nobody": ("flute: mapping/1\ntables:\n" + WEIGHTS, 2, "No table makes 'person'"),
    "unknown_element": (mapping(WEIGHTS.replace("make: weight", "make: wieght")), 8, "did you mean 'weight'?"),
    "unknown_part": (mapping(WEIGHTS.replace("when: day", "wehn: day")), 9, "did you mean 'when'?"),
    "unknown_name": (mapping(WEIGHTS.replace("key: nr", "kye: nr")), 7, "There is no element 'kye'"),
    "no_unit": (mapping(WEIGHTS.replace(", unit: kg", "")), 9, "write 'unit: kg' if the column is always in it"),
    "foreign_unit": (mapping(WEIGHTS.replace("unit: kg", "unit: lb")), 9, "cannot be turned into kg"),
    "needed_part": (mapping(WEIGHTS.replace("value: {column: kilo, unit: kg}, ", "")), 9, "needs value"),
    "no_patient": (mapping(WEIGHTS.replace("    patient: id\n", "")), 4, "needs an element 'patient'"),
    "two_places": (mapping(WEIGHTS + "    table: w\n"), 4, "file and table"),
    "no_place": (mapping(WEIGHTS.replace("    file: w.csv\n", "")), 4, "says nothing about where its rows are"),
    "two_makes": (mapping(WEIGHTS + "    make_by: {column: c, values: {W: weight}}\n"), 4, "what a row makes"),
    "capital_name": (mapping(WEIGHTS.replace("  weights:", "  Weights:")), 4, "cannot be the name of a table"),
    "long_name": (mapping(WEIGHTS.replace("  weights:", f"  {'w' * 32}:")), 4, "cannot be the name of a table"),
    "bare_yes": (mapping("  s:\n    file: s.csv\n    patient: id\n    make: smoker\n    parts:\n      value:\n"
                         "        column: s\n        values: {yes: '1'}\n"), 11, "put it in quotes"),
    "bare_no_as_value": (mapping(WEIGHTS.replace("key: nr", "key: no")), 7, "put it in quotes"),
    "unknown_word": (mapping("  s: {file: s.csv, patient: id, make: smoker, parts: {value: {column: s, values: "
                             "{j: ja}}}}\n"), 4, "'ja' is no word of the common model; there may be 0, 1"),
    "fixed_and_column": (mapping(WEIGHTS.replace("column: kilo", "column: kilo, fixed: '3'")), 9, "a column, or"),
    "same_sign": (mapping(WEIGHTS + "    formats: {decimal: ',', thousands: ','}\n"), 10, "the same sign"),
    "short_year": (mapping(WEIGHTS + "    formats: {dates: DD.MM.YY}\n"), 10, "years have four digits"),
    "month_or_day": (mapping(WEIGHTS + "    formats: {dates: [DD/MM/YYYY, MM/DD/YYYY]}\n"), 10, "look alike"),
    "no_zone": (mapping(WEIGHTS + "    formats: {zone: Europe/Atlantis}\n"), 10, "no time zone"),
    "changed_of_a_file": (mapping(WEIGHTS + "    changed: at\n"), 10, "for tables of a database"),
    "link_to_nowhere": (mapping("  scans: {file: s.csv, patient: id, make: scan, parts: {links: [{table: weight, "
                                "column: w}]}}\n" + WEIGHTS), 4, "did you mean 'weights'?"),
    "link_without_key": (mapping("  scans: {file: s.csv, patient: id, make: scan, parts: {links: [{table: weights, "
                                 "column: w}]}}\n" + WEIGHTS.replace("    key: nr\n", "")), 4, "no 'key'"),
    "link_not_allowed": (mapping("  scans: {file: s.csv, patient: id, make: scan, parts: {links: [{table: people, "
                                 "column: w}]}}\n"), 4, "to which no such link may lead"),
    "deep": ("a: " + "[" * 60 + "]" * 60, 1, "nested"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_line_and_what_to_write(name: str) -> None:
    text, line, said = WRONG[name]
    with pytest.raises(StudyFileError) as caught:
        read_mapping(text, WARD, path="m.yaml")
    assert said in caught.value.text
    assert (caught.value.line, caught.value.path) == (line, "m.yaml")
    assert "study" not in caught.value.text


def test_changed_needs_a_key() -> None:
    text = mapping(WEIGHTS.replace("file: w.csv", "table: w").replace("key: nr", "changed: at"))
    with pytest.raises(StudyFileError, match="could not be told from a new one"):
        read_mapping(text, WARD)


QUERIES = {
    "two": "SELECT 1; DROP TABLE w", "second_behind_comment": "SELECT 1 /* ; */ ; SELECT 2", "drop": "DROP TABLE w",
    "delete": "DELETE FROM w", "cte": "WITH d AS (DELETE FROM w RETURNING id) SELECT * FROM d",
    "into": "SELECT * INTO x FROM w", "for_update": "SELECT * FROM w FOR UPDATE", "bracket": "SELECT 1) q; --",
    "closes": "SELECT 1) AS q UNION SELECT (2", "quote": "SELECT 'a", "dollar": "SELECT $$a", "nothing": "-- SELECT",
    "backslash": r"SELECT 'a\' ; DROP TABLE w; --'", "mysql": "SELECT 1 /*! ; DROP TABLE w */", "pragma": "PRAGMA x",
    "comment": "SELECT 1 /* open", "values": "VALUES (1)", "brackets": "(SELECT 1)",
    "hash": "SELECT 1 # '\n; DROP TABLE w",
}  # fmt: skip


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_that_is_not_one_select_is_refused(name: str) -> None:
    text = mapping(WEIGHTS.replace("file: w.csv", f"query: {msgspec.json.encode(QUERIES[name]).decode()}"))
    with pytest.raises(StudyFileError) as caught:
        read_mapping(text, WARD)
    assert caught.value.line == 5


@pytest.mark.parametrize(
    "query",
    ["SELECT id, kilo FROM w -- comment; here", "with a as (select 1) select * from a;", "SELECT ';' AS x /* ; */",
     'SELECT "delete" FROM w', "SELECT $t$ ; DELETE $t$", "SELECT replace(a, 'b', 'c'), x::date FROM w",
     "SELECT 'it''s', (1), updated FROM w"],
)  # fmt: skip
def test_one_select_may_hold_what_only_looks_dangerous(query: str) -> None:
    text = mapping(WEIGHTS.replace("file: w.csv", f"query: {msgspec.json.encode(query).decode()}"))
    assert read_mapping(text, WARD).tables["weights"].query == query


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_whatever_people_write_is_a_mapping_or_a_sentence(text: str) -> None:
    for written in (text, mapping(text), mapping(WEIGHTS + text)):
        try:
            read_mapping(written, WARD)
        except StudyFileError as error:
            assert error.text.endswith((".", "?"))  # noqa: PT017


# --- cells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formats", "cell", "number"),
    [
        (Formats(), "3.4", "3.4"), (Formats(), 3.4, "3.4"), (Formats(), 0.1 + 0.2, "0.3"), (Formats(), "-7", "-7"),
        (Formats(decimal=","), "3,4", "3.4"), (Formats(decimal=",", thousands="."), "1.234,5", "1234.5"),
        (Formats(thousands=","), "1,234.5", "1234.5"), (Formats(thousands=" "), "1\u202f234", "1234"),
        (Formats(decimal=","), 3.4, "3.4"), (Formats(thousands="'"), "1’234", "1234"),
        (Formats(decimal=",", thousands="."), "1234,5", "1234.5"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_declared(formats: Formats, cell: object, number: str) -> None:
    assert number_reader(formats)(cell) == number


@pytest.mark.parametrize(
    ("formats", "text"),
    [(Formats(), "3,4"), (Formats(), "1,234"), (Formats(decimal=","), "3.4"),
     (Formats(decimal=".", thousands=","), "1,23"),
     (Formats(decimal=",", thousands="."), "1.23"), (Formats(), "1 234"), (Formats(decimal=","), "1,2,3")],
)  # fmt: skip
def test_a_number_that_could_be_two_is_refused(formats: Formats, text: str) -> None:
    with pytest.raises(Unfit) as caught:
        number_reader(formats)(text)
    finding = caught.value.finding
    assert (finding.reason, finding.rule, finding.found) == ("wrong-type", "number-format", text)
    assert "formats" in finding.mend
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["<0.1", "negative", "3.4 kg", "", "1e3"])
def test_what_is_no_number_goes_on_to_the_models_own_check(text: str) -> None:
    assert number_reader(Formats(decimal=","))(text) == text


@pytest.mark.parametrize(
    ("formats", "cell", "moment"),
    [
        (Formats(), "2020-05-01", "2020-05-01"), (Formats(), date(2020, 5, 1), date(2020, 5, 1)),
        (Formats(dates="DD.MM.YYYY"), "1.5.2020", date(2020, 5, 1)),
        (Formats(dates=("DD.MM.YYYY", "YYYYMMDD")), "20200501", date(2020, 5, 1)),
        (Formats(), datetime(2020, 5, 1), date(2020, 5, 1)), (Formats(), "2020-05-01 00:00:00", date(2020, 5, 1)),
        (Formats(), "2020-05-01 10:30", datetime(2020, 5, 1, 10, 30)),
        (Formats(dates="MM/DD/YYYY hh:mm"), "5/1/2020 9:05", datetime(2020, 5, 1, 9, 5)),
        (Formats(), "", None),
    ],
)  # fmt: skip
def test_days_are_read_as_they_are_declared(formats: Formats, cell: object, moment: object) -> None:
    assert moment_reader(formats)(cell) == moment


def test_a_time_gets_the_declared_zone_and_an_instant_is_moved_into_it() -> None:
    read = moment_reader(Formats(zone="Europe/Brussels"))
    assert read("2020-07-01 23:30").isoformat() == "2020-07-01T23:30:00+02:00"
    assert read(datetime.fromisoformat("2020-06-30T22:30:00+00:00")).isoformat() == "2020-07-01T00:30:00+02:00"


@pytest.mark.parametrize(
    ("formats", "cell", "rule"),
    [
        (Formats(dates="DD.MM.YYYY"), "2020-05-01", "date-format"),
        (Formats(dates="DD.MM.YYYY"), "1.5.20", "date-format"),
        (Formats(dates="DD.MM.YYYY"), "31.02.2020", "date-calendar"), (Formats(), 43952.0, "date-typed"),
        (Formats(), "2020-02-30 10:00", "date-calendar"),
        (Formats(zone="Europe/Brussels"), "2020-03-29 02:30", "date-zone"), (Formats(), 2020, "date-typed"),
    ],
)  # fmt: skip
def test_a_day_that_is_doubtful_is_refused(formats: Formats, cell: object, rule: str) -> None:
    with pytest.raises(Unfit) as caught:
        moment_reader(formats)(cell)
    assert (caught.value.finding.reason, caught.value.finding.rule) == ("date-invalid", rule)


@pytest.mark.parametrize("written", ["YYYY", "DD.MM", "DD.MM.YY", "DD.MM.YYYY hh", "DD MON YYYY", "DD.DD.YYYY", "%d"])
def test_a_date_format_that_leaves_something_open_is_refused(written: str) -> None:
    with pytest.raises(MisuseError):
        date_pattern(written)


def test_words_do_not_depend_on_capitals_unless_the_mapping_does() -> None:
    assert word_reader({"Positiv": "1"}, "x")("  positiv ") == "1"
    apart = word_reader({"p": "0", "P": "1"}, "x")
    assert (apart("p"), apart("P")) == ("0", "1")
    with pytest.raises(Unfit) as caught:
        word_reader({"Positiv": "1"}, "'values' of value")("fraglich")
    assert caught.value.finding.reason == "code-not-in-value-set"
    assert "'values' of value" in caught.value.finding.mend


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, ""), (7.0, "7"), (True, "true"), (float("nan"), ""), (float("inf"), "inf"), (" a ", "a"), (7, "7"),
     (datetime(2020, 5, 1), "2020-05-01")],
)  # fmt: skip
def test_cells_become_text_as_people_see_them(cell: object, text: str) -> None:
    assert text_of(cell) == text


@pytest.mark.parametrize("cell", [b"x", memoryview(b"x"), "x" * 10_001])
def test_bytes_and_documents_are_no_cells(cell: object) -> None:
    with pytest.raises(Unfit):
        text_of(cell)


def test_without_a_map_the_columns_own_words_count() -> None:
    read = word_reader({}, "x")
    assert [read(cell) for cell in ("1", 1.0, True, False, " 0 ")] == ["1", "1", "1", "0", "0"]


# --- ids ----------------------------------------------------------------------------------------------


def test_ids_are_valid_stable_and_different() -> None:
    ids = [person_id(p) for p in ("12/345", "12_345", "Müller", "a" * 65, "12.345")]
    assert len(set(ids)) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", i) for i in ids)
    assert ids[-1] == "12.345"
    keys = [("a", ["1"]), ("a", ["1", "2"]), ("a", ["12"]), ("a", ["1|2"]), ("b", ["1"]), ("a", ["x" * 80])]
    made = [resource_id(table, key) for table, key in keys]
    assert len(set(made)) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", i) for i in made)
    assert made[0] == "a.1"


def test_without_a_key_the_content_names_the_row() -> None:
    found = read_mapping(mapping(WEIGHTS.replace("    key: nr\n", "")), WARD)
    maker = RowMaker("weights", found, WARD)
    rows = [{"id": "p", "kilo": kilo, "day": "2020-05-01"} for kilo in ("80", "80", "81")]
    ids = [maker.make(row, "").resource["id"] for row in rows]  # type: ignore[union-attr]
    assert ids[0] == ids[1] != ids[2]


# --- the reference page ---------------------------------------------------------------------------------


def elements() -> set[str]:
    return {f.encode_name for kind in STRUCTS for f in msgspec.structs.fields(kind)}


def test_every_element_is_documented() -> None:
    page = (DOCS / "reference" / "mapping-file.md").read_text(encoding="utf-8")
    assert sorted(e for e in elements() if f"`{e}`" not in page) == []
    named = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert named <= elements()


def test_every_element_has_advice() -> None:
    assert elements() - {"tables"} == set(FORM.write)


@pytest.mark.parametrize("page", ["how-to/sql-and-tables.md", "how-to/omop.md", "reference/mapping-file.md"])
def test_the_mappings_that_pages_show_are_mappings(page: str) -> None:
    from flute.pilot.profiles import PILOT_MODEL

    shown = re.findall(r"```yaml\n(flute: mapping/1\n.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    for text in shown:
        read_mapping(text, PILOT_MODEL, path=page)
    assert shown or page == "how-to/omop.md"
