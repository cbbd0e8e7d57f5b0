"""Many views at once: the same rows as one by one, nothing of a resource that fits one view only in part."""

from __future__ import annotations

import copy
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flute.pilot.resources import resources_of
from flute.pilot.simulate import simulate
from flute.pilot.views import PILOT_VIEWS
from flute.views.program import Program
from flute.views.tables import insert
from flute.views.view import DoesNotFit, View, compile_view

VIEWS = [compile_view(name, declaration) for name, declaration in PILOT_VIEWS.items()]
ONE_OF_EACH: list[dict[str, Any]] = list(
    {
        (r["resourceType"], str(r.get("code"))): r
        for hub in simulate(3, {"huvh": 60}).values()
        for man in hub.men
        for r in resources_of(man)
    }.values()
)


def coded(name: str, *conditions: str) -> View:
    columns = [{"name": "id", "path": "id", "type": "id"}]
    where = [{"path": c} for c in conditions]
    return compile_view(name, {"resource": "Observation", "where": where, "select": [{"column": columns}]})


def observation(key: str, *codes: tuple[str, str], **more: Any) -> dict[str, Any]:
    coding = [{"system": system, "code": code} for system, code in codes]
    return {"resourceType": "Observation", "id": key, "code": {"coding": coding}, **more}


def by_path(resource: dict[str, Any]) -> dict[str, Any]:
    """The slow way, view by view; `None` where the resource does not fit."""
    found = {}
    for view in VIEWS:
        if view.resource == resource["resourceType"]:
            try:
                found[view.name] = view.rows_path_by_path(resource)
            except DoesNotFit:
                return {}
    return {name: rows for name, rows in found.items() if rows}


def at_once(resource: dict[str, Any]) -> dict[str, Any]:
    program = Program(VIEWS)
    try:
        program.take(resource)
    except DoesNotFit:
        assert program.waiting() == 0
        return {}
    return {view.name: rows for view in VIEWS if (rows := program.rows(view.name))}


def test_every_view_of_the_pilot_is_one_written_function() -> None:
    assert [view.name for view in VIEWS if view.written is None] == []


@pytest.mark.parametrize("resource", ONE_OF_EACH, ids=lambda r: r["id"])
def test_a_program_gives_the_rows_of_its_views(resource: dict[str, Any]) -> None:
    assert at_once(resource) == by_path(resource)


BITS = st.sampled_from(
    [None, True, 3, -1.5, "", "MR", [], [None], {}, {"extension": [{"url": "x"}]}, ["a", "b"], [{}], {"coding": 3},
     {"coding": [None]}, {"coding": [{"system": ["x"], "code": {}}]}, {"reference": "Patient/p"}, [[1]]]
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), resource=st.sampled_from(ONE_OF_EACH), bit=BITS)
def test_on_any_malformed_resource_all_ways_agree(data: st.DataObject, resource: dict[str, Any], bit: Any) -> None:
    broken = copy.deepcopy(resource)
    at: Any = broken
    while True:
        name = data.draw(st.sampled_from(sorted(at)))
        if not isinstance(at[name], dict) or not at[name] or data.draw(st.booleans()):
            break
        at = at[name]
    if at is broken and name == "resourceType":
        return
    at[data.draw(st.sampled_from([name, "_" + name]))] = bit
    assert at_once(broken) == by_path(broken)


def test_a_view_behind_a_code_meets_only_resources_that_carry_it() -> None:
    a = coded("a", "code.coding.where(system = 's' and code = 'a').exists()")
    b = coded("b", "status = 'final'", "code.coding.where(system = 's' and (code = 'b' or code = 'c')).exists()")
    program = Program([a, b, coded("every")])
    assert program.meets(observation("1", ("s", "a"))) == ["every", "a"]
    assert program.meets(observation("2", ("s", "c"), ("s", "a"))) == ["every", "b", "a"]
    assert program.meets(observation("3", ("t", "a"))) == ["every"]
    assert program.meets({"resourceType": "Observation", "code": {"coding": "odd"}}) == ["a", "b", "every"]
    assert program.meets({"resourceType": "Basic"}) == []


def test_the_other_conditions_of_a_view_behind_a_code_are_asked() -> None:
    view = coded("b", "status = 'final'", "code.coding.where(system = 's' and code = 'b').exists()")
    resources = [observation("1", ("s", "b")), observation("2", ("s", "b"), status="final")]
    assert [Program([view]).take(resource) for resource in resources] == [0, 1]


def test_a_code_that_is_met_twice_gives_its_rows_once() -> None:
    program = Program([coded("a", "code.coding.where(system = 's' and code = 'a').exists()")])
    assert program.take(observation("1", ("s", "a"), ("s", "a"))) == 1


@pytest.mark.parametrize(
    "condition",
    [
        "code.coding.where(system = 's' or code = 'a').exists()",
        "code.coding.where(code = 'a').exists()",
        "code.coding.where(system = 's' and code != 'a').exists()",
        "code.coding.where(system = 's' and code = 'a').empty()",
    ],
)
def test_other_conditions_are_no_key(condition: str) -> None:
    view = coded("v", condition)
    for resource in (observation("1", ("s", "a")), observation("2", ("s", "b")), observation("3")):
        assert Program([view]).take(resource) == len(view.rows_path_by_path(resource))


def test_a_resource_that_fits_one_view_and_not_the_other_is_in_none() -> None:
    good = coded("good")
    bad = compile_view("bad", {"resource": "Observation", "select": [{"column": [
        {"name": "n", "path": "status", "type": "integer"}]}]})  # fmt: skip
    program = Program([good, bad])
    assert program.take(observation("1")) == 2
    with pytest.raises(DoesNotFit):
        program.take(observation("2", status="final"))
    assert (program.rows("good"), program.rows("bad")) == ([("1",)], [(None,)])


def test_a_type_that_no_view_asks_for_is_passed_over() -> None:
    assert Program(VIEWS).take({"resourceType": "Basic", "id": "x"}) == 0


def test_columns_go_into_duckdb_as_they_are() -> None:
    view = compile_view("v", {"resource": "Patient", "select": [{"column": [
        {"name": "t", "path": "id"}, {"name": "b", "path": "active"},
        {"name": "d", "path": "multipleBirth.ofType(integer)"},
        {"name": "l", "path": "name.given", "collection": True}, {"name": "n", "path": "name.count()"},
        {"name": "o", "path": "maritalStatus", "type": "CodeableConcept"},
        {"name": "f", "path": "extension('w').value.ofType(decimal)"}]}]})  # fmt: skip
    program = Program([view])
    program.take({"resourceType": "Patient", "id": "p", "active": False, "multipleBirthInteger": 2,
                  "name": [{"given": ["A", "B"]}, {"given": ["C"]}], "maritalStatus": {"text": "m"},
                  "extension": [{"url": "w", "valueDecimal": 1.5}]})  # fmt: skip
    program.take({"resourceType": "Patient", "id": "q"})
    with duckdb.connect(":memory:") as database:
        database.execute(f"CREATE TABLE v ({', '.join(f'{c.name} {c.sql_type}' for c in view.columns)})")
        insert(database, "v", view.columns, program.rows("v"))
        assert database.execute("FROM v").fetchall() == [
            ("p", False, 2, ["A", "B", "C"], "2", '{"text":"m"}', 1.5),
            ("q", None, None, [], "0", None, None),
        ]


def test_columns_of_a_view_without_rows_are_empty() -> None:
    assert {name: len(cells) for name, cells in Program([coded("v")]).columns("v").items()} == {"id": 0}
