"""Databases: read in pages that can be resumed, only what changed, never written to, and told without values."""

from __future__ import annotations

import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import psycopg
import pytest

from flute.data.reader import Page
from flute.errors import KeyFileError, MisuseError, Unmappable, Unreachable
from flute.tabular import database as database_module
from flute.tabular import sql as sql_module
from flute.tabular.database import Database
from flute.tabular.mapping_file import read_mapping
from flute.tabular.sql import SqlReader
from flute.tabular.sql_mark import earlier, loaded, stored
from support.postgres import PASSWORD, Postgres, postgres_server
from support.ward_model import WARD

pytestmark = pytest.mark.requirement("F-SRS-7")
PEOPLE = "  people: {table: person, patient: id, make: person, parts: {gender: sex}}\n"
WEIGHTS = """\
  weights:
    table: weight
    patient: id
    key: nr
    make: weight
    parts: {value: {column: kilo, unit: kg}, when: day}
"""
CHANGED = WEIGHTS + "    changed: at\n"
TABLES = """
CREATE TABLE person (id VARCHAR(20), sex VARCHAR(10));
CREATE TABLE weight (id VARCHAR(20), nr INTEGER, kilo NUMERIC, day DATE, at TIMESTAMP);
INSERT INTO person VALUES ('p1', 'male'), ('p2', 'female');
"""


def text(tables: str, head: str = "") -> str:
    return f"flute: mapping/1\n{head}tables:\n{PEOPLE}{tables}"


def pages(reader: SqlReader, mark: bytes | None = None) -> list[Page]:
    return list(reader.pages(mark))


def weights(found: list[Page]) -> list[str]:
    return [r.key.partition(".")[2] for p in found for r in p.records if r.key.startswith("Observation/weights.")]


class Ward:
    """A database that tests write to with their own connection, and read by FLUTE."""

    def __init__(self, url: str, run: Callable[[str], None], head: str = "") -> None:
        self.url, self.run, self._head = url, run, head
        run(TABLES)

    def reader(self, tables: str = WEIGHTS) -> SqlReader:
        return SqlReader(self.url, read_mapping(text(tables, self._head), WARD), WARD)

    def fill(self, first: int, last: int, at: str = "2024-01-01 08:00:00") -> None:
        rows = ", ".join(f"('p1', {n}, {n % 90 + 30}, '2020-05-01', '{at}')" for n in range(first, last + 1))
        self.run(f"INSERT INTO weight VALUES {rows}")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def ward(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    if request.param == "sqlite":
        return sqlite_ward(tmp_path)
    monkeypatch.setenv("WARD_PASSWORD", PASSWORD)
    return postgres_ward(request.getfixturevalue("server"))


def sqlite_ward(folder: Path) -> Ward:
    path = folder / "ward.db"

    def run(script: str) -> None:
        with sqlite3.connect(path) as connection:
            connection.executescript(script)

    return Ward(f"sqlite:///{path}", run)


def postgres_ward(server: Postgres) -> Ward:
    database = server.fresh("ward")

    def run(script: str) -> None:
        with database.connect() as connection:
            connection.execute(script)  # type: ignore[arg-type]

    return Ward(database.url, run, "login: {password_env: WARD_PASSWORD}\n")


# --- reading --------------------------------------------------------------------------------------------


def test_a_table_is_read_in_the_order_of_its_key(ward: Ward) -> None:
    ward.fill(1, 12)
    found = pages(ward.reader())
    assert [(p.scope, p.begins, p.ends) for p in found] == [
        ("people", True, "complete"),
        ("weights", True, "complete"),
    ]
    assert weights(found) == [str(n) for n in range(1, 13)]
    assert found[1].records[0].origin == "table weights, nr 1"
    assert found[1].records[0].resource["effectiveDateTime"] == "2020-05-01"


def test_reading_goes_on_behind_any_page_with_the_same_pages(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 4)
    ward.fill(1, 19)
    whole = pages(ward.reader())
    assert len(whole) == 6
    for stopped in range(len(whole)):
        assert pages(ward.reader(), whole[stopped].mark) == whole[stopped + 1 :]


@pytest.mark.parametrize("kind", ["VARCHAR(20)", "NUMERIC", "DATE", "DOUBLE PRECISION"])
def test_keys_of_every_type_keep_the_order(kind: str, ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 2)
    ward.run(f"CREATE TABLE keyed (id VARCHAR(20), nr {kind}, kilo NUMERIC, day DATE)")
    for n in range(1, 8):
        key = f"'2020-05-{n:02d}'" if kind == "DATE" else f"{n}" if kind != "VARCHAR(20)" else f"'k''{n}'"
        ward.run(f"INSERT INTO keyed VALUES ('p1', {key}, 70, '2020-05-01')")
    tables = WEIGHTS.replace("table: weight", "table: keyed")
    whole = pages(ward.reader(tables))
    assert len(weights(whole)) == 7
    for stopped in range(len(whole)):
        assert pages(ward.reader(tables), whole[stopped].mark) == whole[stopped + 1 :]


def test_a_key_of_two_columns_is_resumed_too(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 2)
    ward.run(
        "".join(f"INSERT INTO weight VALUES ('p{n % 3}', {n % 2}, 70, '2020-05-0{n}', NULL);" for n in range(1, 7))
    )
    tables = WEIGHTS.replace("key: nr", "key: [id, nr]")
    whole = pages(ward.reader(tables))
    assert len(set(weights(whole))) == 6
    for stopped in range(len(whole)):
        assert pages(ward.reader(tables), whole[stopped].mark) == whole[stopped + 1 :]


def test_a_key_that_names_several_rows_loses_none_of_them(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """The taker sees all of them, wherever reading was interrupted, and refuses what contradicts itself."""
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 3)
    ward.run("".join(f"INSERT INTO weight VALUES ('p1', {n // 2}, {60 + n}, '2020-05-01', NULL);" for n in range(12)))
    whole = pages(ward.reader())
    assert len(weights(whole)) == 12
    for stopped in range(len(whole)):
        assert sorted(weights(whole[: stopped + 1] + pages(ward.reader(), whole[stopped].mark))) == sorted(
            weights(whole)
        )
    ward.run("".join(f"INSERT INTO weight VALUES ('p1', 9, {60 + n}, '2020-05-01', NULL);" for n in range(12)))
    with pytest.raises(Unmappable, match="must name one row"):
        pages(ward.reader())


def test_rows_are_refused_one_by_one(ward: Ward) -> None:
    ward.fill(1, 3)
    ward.run("INSERT INTO weight VALUES ('p1', NULL, 70, '2020-05-01', NULL), ('p1', 4, -70, '2020-05-01', NULL), "
             "(NULL, 5, 70, '2020-05-01', NULL)")  # fmt: skip
    found = pages(ward.reader())
    assert weights(found) == ["1", "2", "3"]
    refused = {(r.origin, r.finding.path, r.finding.reason) for p in found for r in p.refused}
    assert refused == {
        ("table weights, nr None", "nr", "required-element-missing"),
        ("table weights, nr 4", "kilo", "value-out-of-range"),
        ("table weights, nr 5", "id", "required-element-missing"),
    }


def test_a_query_is_read_like_a_table_whatever_signs_it_holds(ward: Ward) -> None:
    ward.fill(1, 9)
    query = (
        "SELECT w.id, w.nr, w.kilo, w.day, ':x' AS a, '100%' AS b -- all; of them\n"
        "FROM weight w JOIN person p ON p.id = w.id WHERE p.sex LIKE 'm%' AND w.nr > 3 AND ':nr' <> ''"
    )
    tables = WEIGHTS.replace("table: weight", f"query: {msgspec.json.encode(query).decode()}")
    assert weights(pages(ward.reader(tables))) == [str(n) for n in range(4, 10)]


def test_a_query_may_gather_keys_for_links(ward: Ward) -> None:
    ward.fill(1, 3)
    tables = (
        WEIGHTS
        + """\
  scans:
    query: >
      SELECT p.id, (SELECT string_agg(CAST(w.nr AS VARCHAR), '+') FROM weight w WHERE w.id = p.id) AS found
      FROM person p
    patient: id
    key: id
    make: scan
    parts: {links: [{table: weights, column: found, separator: "+"}]}
"""
    )
    found = {r.key: r.resource for p in pages(ward.reader(tables)) for r in p.records}
    links = [e["valueReference"]["reference"] for e in found["ImagingStudy/scans.p1"]["extension"]]
    assert links == [f"Observation/weights.{n}" for n in (1, 2, 3)]
    assert "extension" not in found["ImagingStudy/scans.p2"]


# --- only what changed ------------------------------------------------------------------------------------


def test_a_table_with_the_same_rows_gives_no_page(ward: Ward) -> None:
    ward.fill(1, 5)
    mark = pages(ward.reader())[-1].mark
    assert pages(ward.reader(), mark) == []
    ward.run("DELETE FROM weight WHERE nr = 2")
    second = pages(ward.reader(), mark)
    assert [(p.scope, p.begins, p.ends) for p in second] == [("weights", True, "complete")]
    assert weights(second) == ["1", "3", "4", "5"]
    assert pages(ward.reader(), second[-1].mark) == []


def test_the_second_import_reads_only_what_changed(ward: Ward) -> None:
    ward.fill(1, 6)
    ward.fill(7, 8, "2024-02-01 09:00:00")
    mark = pages(ward.reader(CHANGED))[-1].mark
    assert pages(ward.reader(CHANGED), mark) == []
    ward.run("UPDATE weight SET kilo = 99, at = '2024-03-01 10:00:00' WHERE nr = 3")
    ward.fill(9, 9, "2024-03-01 10:00:00")
    second = pages(ward.reader(CHANGED), mark)
    assert [(p.scope, p.begins, p.ends) for p in second] == [("weights", True, "changes")]
    assert weights(second) == ["3", "9"]
    assert pages(ward.reader(CHANGED), second[-1].mark) == []


def test_a_change_that_comes_late_is_not_lost(ward: Ward) -> None:
    """A transaction that began before the last import and ended after it stamps its rows in the past."""
    ward.fill(1, 2, "2024-01-01 08:00:00")
    mark = pages(ward.reader(CHANGED))[-1].mark
    ward.fill(3, 3, "2024-01-01 07:30:00")
    ward.fill(4, 4, "2024-01-01 06:30:00")
    assert weights(pages(ward.reader(CHANGED), mark)) == ["3"]
    assert weights(pages(ward.reader(CHANGED + "    overlap_s: 7200\n"), None)) == ["1", "2", "3", "4"]


def test_a_table_filled_in_one_go_is_not_read_again_and_again(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows of the same instant than are remembered one by one."""
    monkeypatch.setattr(sql_module, "MAX_RECENT_ROWS", 3)
    ward.fill(1, 9)
    mark = pages(ward.reader(CHANGED))[-1].mark
    assert pages(ward.reader(CHANGED), mark) == []
    ward.fill(10, 10, "2024-05-01 08:00:00")
    second = pages(ward.reader(CHANGED), mark)
    assert weights(second) == ["10"]
    assert pages(ward.reader(CHANGED), second[-1].mark) == []


def test_changes_are_resumed_and_what_changes_meanwhile_is_met(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    ward.fill(1, 4)
    mark = pages(ward.reader(CHANGED))[-1].mark
    ward.fill(5, 12, "2024-02-01 08:00:00")
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 3)
    first = next(ward.reader(CHANGED).pages(mark))
    assert (weights([first]), first.ends) == (["5", "6", "7"], "")
    ward.run("UPDATE weight SET kilo = 50, at = '2024-02-01 09:00:00' WHERE nr = 5")
    rest = pages(ward.reader(CHANGED), first.mark)
    assert weights(rest) == ["8", "9", "10", "11", "12", "5"]
    assert (rest[0].begins, rest[-1].ends) == (True, "changes")
    assert weights(pages(ward.reader(CHANGED), rest[-1].mark)) in ([], ["5"])


def test_what_changes_while_a_whole_reading_is_interrupted_is_met_next_time(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 3)
    ward.fill(1, 9)
    first = next(p for p in ward.reader(CHANGED).pages(None) if p.scope == "weights")
    ward.run("UPDATE weight SET kilo = 50, at = '2024-02-01 09:00:00' WHERE nr = 2")
    rest = pages(ward.reader(CHANGED), first.mark)
    assert weights(rest) == ["4", "5", "6", "7", "8", "9"]
    assert weights(pages(ward.reader(CHANGED), rest[-1].mark)) == ["2"]


def test_rows_without_a_time_of_change_are_said(ward: Ward) -> None:
    ward.fill(1, 2)
    ward.run("INSERT INTO weight VALUES ('p1', 3, 70, '2020-05-01', NULL)")
    with pytest.raises(Unmappable, match=r"1 rows have no 'at'.*COALESCE"):
        pages(ward.reader(CHANGED))


def test_a_table_that_left_the_mapping_is_gone(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    ward.fill(1, 5)
    mark = pages(ward.reader())[-1].mark
    left = pages(ward.reader(""), mark)
    assert [(p.scope, p.records, p.begins, p.ends) for p in left] == [("weights", (), True, "complete")]
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 2)
    half = next(p for p in ward.reader().pages(None) if p.scope == "weights")
    assert [p.scope for p in pages(ward.reader(""), half.mark)] == ["weights"]


# --- nothing is written ------------------------------------------------------------------------------------


def with_query(query: str) -> str:
    return WEIGHTS.replace("table: weight", f"query: {msgspec.json.encode(query).decode()}")


def test_a_function_that_writes_fails_in_the_read_only_transaction(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account may do everything: the transaction stops it. Outside of ours the same query writes."""
    monkeypatch.setenv("WARD_PASSWORD", PASSWORD)
    ward = postgres_ward(server)
    ward.run(
        "CREATE FUNCTION sly() RETURNS integer LANGUAGE sql AS 'DELETE FROM weight RETURNING 1'; CREATE SEQUENCE s"
    )
    ward.fill(1, 3)
    for sly in ("sly()", "nextval('s')::int", "set_config('transaction_read_only', 'off', false)::int"):
        query = f"SELECT id, nr, kilo, day FROM weight WHERE {sly} = 1"
        with pytest.raises(Unmappable) as caught:
            pages(ward.reader(with_query(query)))
        assert "tries to write" in caught.value.text or "does not fit" in caught.value.text, sly
    assert len(weights(pages(ward.reader()))) == 3
    ward.run("SELECT sly()")
    assert weights(pages(ward.reader())) == []


def test_an_sqlite_file_is_opened_for_reading_only(tmp_path: Path) -> None:
    ward = sqlite_ward(tmp_path)
    database = Database(ward.url)
    with database.reading() as connection:
        for statement in ("INSERT INTO person VALUES ('x', 'male')", "PRAGMA query_only = OFF", "DROP TABLE person"):
            if not statement.startswith("PRAGMA"):
                with pytest.raises(Unmappable, match="tries to write"), database.told("a test"):
                    connection.exec_driver_sql(statement)
            else:
                connection.exec_driver_sql(statement)
    with pytest.raises(Unreachable), Database(f"sqlite:///{tmp_path}/new.db").reading():
        pass
    assert not (tmp_path / "new.db").exists()


def test_only_the_mapped_columns_are_asked_for(tmp_path: Path) -> None:
    """A column that no part names is never selected, however the table looks."""
    ward = sqlite_ward(tmp_path)
    ward.run("ALTER TABLE weight ADD COLUMN secret_name TEXT; ALTER TABLE person ADD COLUMN phone TEXT")
    asked: list[str] = []
    database = ward.reader()._database
    with database.reading() as connection:
        connection.connection.driver_connection.set_trace_callback(asked.append)  # type: ignore[union-attr]
        reading = ward.reader()._reading(connection, "weights")
        list(database.rows(connection, reading._all, "x"))
    read = [statement for statement in asked if "SELECT" in statement and "*" not in statement]
    assert read
    assert not any("secret_name" in statement or "phone" in statement for statement in read)


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (WEIGHTS.replace("table: weight", "table: wight"), "wight"),
        (
            WEIGHTS.replace("column: kilo", "column: kilos"),
            "no column 'kilos', which the mapping names; did you mean",
        ),
        (with_query("SELECT id, nr, kilo, day FORM weight"), "does not carry out the statement of table weights"),
    ],
)
def test_what_is_not_there_is_named_before_anything_is_taken(tables: str, said: str, ward: Ward) -> None:
    with pytest.raises(Unmappable) as caught:
        next(ward.reader(tables).pages(None))
    assert said in caught.value.text


def test_an_error_at_a_record_does_not_quote_it(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARD_PASSWORD", PASSWORD)
    ward = postgres_ward(server)
    ward.run("INSERT INTO weight VALUES ('Secret-Patient', 1, 70, '2020-05-01', NULL)")
    with pytest.raises(Unmappable) as caught:
        pages(ward.reader(with_query("SELECT id, CAST(id AS INTEGER) AS nr, kilo, day FROM weight")))
    told = "".join(traceback.format_exception(caught.value))
    assert "SQLSTATE 22P02" in caught.value.text
    assert "Secret-Patient" not in told


def test_days_that_python_has_not_are_refused_alone(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARD_PASSWORD", PASSWORD)
    ward = postgres_ward(server)
    ward.fill(1, 2)
    ward.run("INSERT INTO weight VALUES ('p1', 3, 70, 'infinity', 'infinity'), ('p1', 4, 70, '0044-03-15 BC', NULL)")
    found = pages(ward.reader())
    assert weights(found) == ["1", "2"]
    assert [r.finding.reason for p in found for r in p.refused] == ["date-invalid", "date-invalid"]


def test_a_statement_that_never_ends_is_given_up(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "SQL_STATEMENT_S", 0.5)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    endless += "SELECT i AS id, i AS nr, 1 AS kilo, '' AS day FROM n"
    with pytest.raises(Unreachable, match="took longer than"):
        pages(ward.reader(with_query(endless + " WHERE i < 0")))


def test_a_table_without_end_stops_at_a_limit(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_module, "MAX_TABLE_ROWS", 10)
    ward.fill(1, 11)
    with pytest.raises(Unmappable, match="more than 10 rows"):
        pages(ward.reader())


def test_a_server_that_breaks_off_is_unreachable_and_goes_on_later(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARD_PASSWORD", PASSWORD)
    monkeypatch.setattr(sql_module, "PAGE_RESOURCES", 500)
    ward = postgres_ward(server)
    ward.fill(1, 5_000)
    reading = ward.reader().pages(None)
    got = [next(reading) for _ in range(3)]
    with server.connect() as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flute'")
    with pytest.raises(Unreachable, match="broke off"):
        got.extend(reading)
    rest = pages(ward.reader(), got[-1].mark)
    assert [int(n) for n in weights(got + rest)] == list(range(1, 5_001))


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "SQL_CONNECT_S", 1)
    mapping = read_mapping(text(WEIGHTS), WARD)
    with pytest.raises(Unreachable, match="does not answer"):
        pages(SqlReader("postgresql://reader@127.0.0.1:1/lab", mapping, WARD))


def test_a_file_that_is_no_database_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "ward.db").write_bytes(b"id,nr\n" * 500)
    with pytest.raises(Unmappable, match="no SQLite database"):
        pages(SqlReader(f"sqlite:///{tmp_path}/ward.db", read_mapping(text(WEIGHTS), WARD), WARD))


# --- passwords ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["postgresql://reader:hush@h/lab", "postgresql://reader@h/lab?password=hush", "postgresql://h/lab?sslpassword=hush",
     "mssql+pyodbc://?odbc_connect=PWD%3Dhush", "no address", "postgresql://[::1/hush", "oracle9://h/hush", "sqlite://"],
)  # fmt: skip
def test_an_address_with_a_password_or_without_sense_is_refused_unquoted(url: str) -> None:
    with pytest.raises(Unmappable) as caught:
        Database(url)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_the_password_shows_nowhere(
    server: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    good = server.fresh("ward")
    with good.connect() as connection:
        connection.execute(TABLES)
    mapping = read_mapping(text(WEIGHTS, f"login: {{password_file: {secret}}}\n"), WARD)
    reader = SqlReader(good.url, mapping, WARD)
    shown = [repr(reader), repr(reader._database), repr(reader._database._engine), reader.name]
    assert len(pages(reader)) == 2
    wrong = tmp_path / "wrong"
    wrong.write_text(PASSWORD[:-1])
    wrong.chmod(0o600)
    with pytest.raises(Unreachable) as caught:
        pages(SqlReader(good.url, read_mapping(text(WEIGHTS, f"login: {{password_file: {wrong}}}\n"), WARD), WARD))
    shown += ["".join(traceback.format_exception(caught.value)), caplog.text, *capsys.readouterr()]
    assert PASSWORD[:-1] not in "".join(shown)
    assert str(tmp_path) not in "".join(shown[:4])


def test_a_password_file_that_others_read_and_a_variable_that_is_not_set_are_said(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("x")
    secret.chmod(0o644)
    with pytest.raises(KeyFileError):
        Database("postgresql://r@h/lab", password_file=secret)
    with pytest.raises(Unmappable, match="FLUTE_NOT_SET"):
        Database("postgresql://r@h/lab", password_env="FLUTE_NOT_SET")
    with pytest.raises(Unmappable, match="name one of them"):
        Database("postgresql://r@h/lab", password_env="A", password_file=secret)


# --- marks -------------------------------------------------------------------------------------------------


def test_a_mark_of_another_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="another kind of source"):
        pages(sqlite_ward(tmp_path).reader(), b"\x93abc")


def test_files_are_not_looked_for_in_a_database() -> None:
    mapping = read_mapping(text(WEIGHTS.replace("table: weight", "file: w.csv")), WARD)
    with pytest.raises(MisuseError, match="is in a file"):
        SqlReader("sqlite:///x.db", mapping, WARD)


@pytest.mark.parametrize(
    ("value", "before"),
    [(datetime(2024, 1, 1, 8), datetime(2024, 1, 1, 7)), ("2024-01-01 08:00:00", "2024-01-01 07:00:00"),
     ("2024-01-01 08:00:00.250000", "2024-01-01 07:00:00.250000"), (42, 42), ("000A", "000A"), (None, None)],
)  # fmt: skip
def test_an_hour_earlier_is_of_the_same_type(value: object, before: object) -> None:
    assert earlier(value, 3_600) == before
    assert loaded(stored(value)) == value


def test_the_server_of_these_tests_asks_for_the_password(server: Postgres) -> None:
    """Otherwise the tests above would show nothing."""
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"host=127.0.0.1 port={server.port} dbname=postgres user=owner password=x")
