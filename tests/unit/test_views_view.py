"""ViewDefinitions: what each construct gives, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from flute.errors import Unmappable
from flute.views.view import DoesNotFit, compile_view

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "active": True,
    "name": [
        {"use": "official", "family": "A", "given": ["B", "C"]},
        {"use": "usual", "family": "D", "given": ["E"]},
    ],
    "contact": [{"telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "2"}]}],
}


def rows(select: Any, resource: dict[str, Any] = PATIENT, **view: Any) -> list[tuple[Any, ...]]:
    return compile_view("v", {"resource": "Patient", "select": select, **view}).rows(resource)


def column(name: str, path: str, kind: str = "string") -> dict[str, str]:
    return {"name": name, "path": path, "type": kind}


ID = {"column": [column("id", "getResourceKey()")]}


def test_columns_are_cells_in_their_order() -> None:
    select = [{"column": [column("id", "id"), column("on", "active", "boolean"), column("none", "gender", "code")]}]
    assert rows(select) == [("p1", True, None)]


def test_for_each_gives_one_row_per_focus_and_none_without() -> None:
    names = {"forEach": "name", "column": [column("family", "family")]}
    assert rows([ID, names]) == [("p1", "A"), ("p1", "D")]
    assert rows([ID, names], {"resourceType": "Patient", "id": "p2"}) == []


def test_for_each_or_null_keeps_a_resource_without_focus() -> None:
    names = {"forEachOrNull": "name", "column": [column("family", "family"), column("use", "use")]}
    assert rows([ID, names], {"resourceType": "Patient", "id": "p2"}) == [("p2", None, None)]


def test_two_selects_give_every_combination() -> None:
    each = {"forEach": "name", "column": [column("family", "family")]}
    given = {"forEach": "contact.telecom", "column": [column("value", "value")]}
    assert rows([each, given]) == [("A", "1"), ("A", "2"), ("D", "1"), ("D", "2")]


def test_a_nested_select_starts_at_its_parent_s_focus() -> None:
    select = [
        {
            "forEach": "name",
            "column": [column("family", "family")],
            "select": [{"forEach": "given", "column": [column("given", "$this")]}],
        }
    ]
    assert rows(select) == [("A", "B"), ("A", "C"), ("D", "E")]


def test_union_all_puts_branches_below_each_other() -> None:
    branches = [
        {"forEach": "name", "column": [column("text", "family")]},
        {"forEach": "contact.telecom", "column": [column("text", "value")]},
    ]
    assert rows([{**ID, "unionAll": branches}]) == [("p1", "A"), ("p1", "D"), ("p1", "1"), ("p1", "2")]


def test_where_keeps_a_resource_only_if_every_condition_is_true() -> None:
    assert rows([ID], where=[{"path": "active = true"}, {"path": "name.exists()"}]) == [("p1",)]
    assert rows([ID], where=[{"path": "active = true"}, {"path": "gender = 'male'"}]) == []


def test_constants_are_used_by_name() -> None:
    select = [{"column": [column("family", "name.where(use = %kind).family")]}]
    assert rows(select, constant=[{"name": "kind", "valueString": "usual"}]) == [("D",)]


def test_a_choice_element_is_found_inside_a_for_each() -> None:
    observation = {"resourceType": "Observation", "component": [{"valueInteger": 3}, {"valueString": "x"}]}
    select = [{"forEach": "component", "column": [column("n", "value.ofType(integer)", "integer")]}]
    assert compile_view("v", {"resource": "Observation", "select": select}).rows(observation) == [(3,), (None,)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("string", 3), ("string", True), ("boolean", "true"), ("integer", 3.0), ("integer", True), ("integer", 2**60),
     ("decimal", "3"), ("decimal", True), ("decimal", 10**400), ("string", {"a": "b"})],
)  # fmt: skip
def test_a_value_of_another_type_does_not_fit(kind: str, value: object) -> None:
    with pytest.raises(DoesNotFit):
        rows([{"column": [column("x", "gender", kind)]}], {"resourceType": "Patient", "gender": value})


def test_two_values_where_one_belongs_do_not_fit() -> None:
    with pytest.raises(DoesNotFit):
        rows([{"column": [column("family", "name.family")]}])


REFUSED = {
    "repeat": {"select": [{"repeat": ["contact"], "column": []}]},
    "collection": {"select": [{"column": [{"name": "g", "path": "name.given", "collection": True}]}]},
    "tag": {"select": [{"column": [{"name": "g", "path": "id", "tag": []}]}]},
    "profile": {"select": [ID], "profile": ["x"]},
    "Quantity": {"select": [{"column": [column("g", "id", "Quantity")]}]},
    "%rowIndex|rowIndex": {"select": [{"column": [column("g", "%rowIndex", "integer")]}]},
    "forEachOrNull": {"select": [{"forEach": "name", "forEachOrNull": "name", "column": []}]},
    "branches": {"select": [{"unionAll": [ID, {"column": [column("other", "id")]}]}]},
    "twice": {"select": [ID, ID]},
    "usable name": {"select": [{"column": [column('a"; DROP TABLE x', "id")]}]},
    "path": {"select": [{"column": [{"name": "g"}]}]},
    "`select`": {"select": []},
    "constant": {"select": [ID], "constant": [{"name": "k"}]},
}


@pytest.mark.parametrize("construct", REFUSED)
def test_what_is_not_covered_is_refused_by_name(construct: str) -> None:
    with pytest.raises(Unmappable, match=construct):
        compile_view("v", {"resource": "Patient", **REFUSED[construct]})
