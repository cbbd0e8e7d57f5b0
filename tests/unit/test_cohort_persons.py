"""The same person under two ids: seen where it can be known, joined where it is declared, never guessed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import duckdb
import pytest

from flute.cohort.persons import SAME_EVENTS, SAME_IDENTIFIER, join_persons, suspects
from flute.defaults.records import MAX_SHARED_IDENTIFIER
from flute.errors import MisuseError

BIRTH = "1956-05-20"
Row = Sequence[object]


def known_as(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()[:32]


def suspected(persons: list[Row], events: list[Row] = [], identifiers: list[Row] = []) -> set[tuple[str, str, str]]:  # noqa: B006 never changed
    connection = duckdb.connect()
    connection.execute("CREATE TABLE person(id VARCHAR, gender VARCHAR, birth VARCHAR)")
    connection.execute("CREATE TABLE event(patient VARCHAR, kind VARCHAR, day DATE, number DOUBLE)")
    connection.execute("CREATE TABLE identifier(id VARCHAR, system VARCHAR, value VARCHAR)")
    for table, rows in (("person", persons), ("event", events), ("identifier", identifiers)):
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", list(row))
    return set(connection.execute(suspects("person", "event", "identifier")).fetchall())


def twins(birth: str = BIRTH, gender: str | None = "male") -> list[Row]:
    return [("a", gender, birth), ("b", gender, birth)]


def test_one_identifier_on_two_persons_is_suspicious() -> None:
    card = [("a", "urn:card", "17"), ("b", "urn:card", "17")]
    assert suspected(twins("1956"), [], card) == {("a", "b", SAME_IDENTIFIER), ("b", "a", SAME_IDENTIFIER)}
    assert suspected(twins(), [], [("a", None, "17"), ("b", None, "17")])
    # The same number of two systems is no identity.
    assert suspected(twins(), [], [("a", "urn:card", "17"), ("b", "urn:lab", "17")]) == set()
    # Nor is one that was written twice for one person.
    assert suspected(twins(), [], [("a", "urn:card", "17"), ("a", "urn:card", "17")]) == set()


def test_a_placeholder_that_many_have_is_no_identity() -> None:
    many = [(f"p{i}", "urn:card", "unknown") for i in range(MAX_SHARED_IDENTIFIER + 1)]
    persons: list[Row] = [(f"p{i}", "male", f"19{50 + i}-01-01") for i in range(MAX_SHARED_IDENTIFIER + 1)]
    assert suspected(persons, [], many) == set()
    assert len(suspected(persons, [], many[1:])) == MAX_SHARED_IDENTIFIER * (MAX_SHARED_IDENTIFIER - 1)


def both(*events: Row) -> list[Row]:
    return [(patient, *event) for patient in "ab" for event in events]


def test_one_birth_and_two_kinds_of_event_alike_are_suspicious() -> None:
    events = both(("marker", "2023-02-01", 6.8), ("scan", "2023-03-01", None))
    assert suspected(twins(), events) == {("a", "b", SAME_EVENTS), ("b", "a", SAME_EVENTS)}


@pytest.mark.parametrize(
    ("persons", "events"),
    [
        (twins(), both(("marker", "2023-02-01", 6.8))),
        (twins(), both(("marker", "2023-02-01", 6.8), ("marker", "2023-03-01", 7.0))),
        (twins("1956"), both(("marker", "2023-02-01", 6.8), ("scan", "2023-03-01", None))),
        (twins(gender=None), both(("marker", "2023-02-01", 6.8), ("scan", "2023-03-01", None))),
        ([("a", "male", BIRTH), ("b", "male", "1956-05-21")],
         both(("marker", "2023-02-01", 6.8), ("scan", "2023-03-01", None))),
        (twins(), both(("marker", None, 6.8), ("scan", None, None))),
        (twins(), [("a", "marker", "2023-02-01", 6.8), ("b", "marker", "2023-02-01", 6.9),
                   ("a", "scan", "2023-03-01", None), ("b", "scan", "2023-03-01", None)]),
    ],
    ids=["one event", "one kind", "a year of birth", "no gender", "another birth", "no days", "another value"],
)  # fmt: skip
def test_less_is_no_ground_for_suspicion(persons: list[Row], events: list[Row]) -> None:
    assert suspected(persons, events) == set()


# --- joined by declaration ------------------------------------------------------------------------

VIEWS = {
    "person_view": {"resource": "Patient"}, "card_view": {"resource": "Patient"},
    "marker_view": {"resource": "Observation"}, "note_view": {"resource": "Basic"},
}  # fmt: skip


def ward() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE person_view AS SELECT * FROM (VALUES ('a', '1956'), ('b', '1957'), ('c', '1958')) v(id, birth)"
    )
    connection.execute("CREATE TABLE card_view AS SELECT * FROM (VALUES ('a', 1), ('b', 2)) v(id, value)")
    connection.execute(
        "CREATE TABLE marker_view AS SELECT * FROM (VALUES ('m1', 'a'), ('m2', 'b'), ('m3', 'c')) v(id, patient)"
    )
    connection.execute("CREATE TABLE note_view AS SELECT 'b' AS id")
    return connection


def test_every_record_of_a_declared_person_has_his_first_id() -> None:
    connection = ward()
    assert join_persons(connection, VIEWS, [(known_as("a"), known_as("b"), known_as("nobody"))], known_as) == 1
    assert connection.execute("FROM marker_view ORDER BY id").fetchall() == [("m1", "a"), ("m2", "a"), ("m3", "c")]
    assert connection.execute("FROM person_view ORDER BY birth").fetchall() == [
        ("a", "1956"), ("a", "1957"), ("c", "1958"),
    ]  # fmt: skip
    assert connection.execute("FROM card_view ORDER BY value").fetchall() == [("a", 1), ("a", 2)]
    assert connection.execute("FROM note_view").fetchall() == [("b",)], "a resource's own id is no person's"


def test_the_tables_that_were_read_are_not_changed() -> None:
    connection = ward()
    join_persons(connection, VIEWS, [(known_as("a"), known_as("b"))], known_as)
    assert connection.execute("SELECT count(*) FROM memory.main.marker_view WHERE patient = 'b'").fetchone() == (1,)


def test_a_group_whose_first_is_not_here_goes_by_the_next() -> None:
    connection = ward()
    assert join_persons(connection, VIEWS, [(known_as("nobody"), known_as("b"), known_as("c"))], known_as) == 1
    assert connection.execute("SELECT patient FROM marker_view WHERE id = 'm3'").fetchone() == ("b",)


def test_nothing_declared_changes_nothing() -> None:
    connection = ward()
    assert join_persons(connection, VIEWS, [], known_as) == 0
    assert join_persons(connection, VIEWS, [(known_as("x"), known_as("y"))], known_as) == 0
    assert connection.execute("FROM marker_view ORDER BY id").fetchall() == [("m1", "a"), ("m2", "b"), ("m3", "c")]


def test_without_a_view_of_patients_nobody_can_be_joined() -> None:
    with pytest.raises(MisuseError, match="a view of Patient"):
        join_persons(ward(), {"marker_view": {"resource": "Observation"}}, [(known_as("a"), known_as("b"))], known_as)
