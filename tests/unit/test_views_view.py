"""ViewDefinitions: what each construct gives, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_undeclared_types_come_from_the_path_where_it_says_them() -> None:
    select = [{"column": [{"name": n, "path": p} for n, p in (
        ("born", "birthDate"), ("on", "active"), ("has", "name.exists()"), ("n", "name.count()"), ("i", "%rowIndex"),
    )]}]  # fmt: skip
    view = compile_view("v", {"resource": "Patient", "select": select})
    assert [(c.name, c.sql_type, c.kind) for c in view.columns] == [
        ("born", "VARCHAR", "text"), ("on", "BOOLEAN", "boolean"), ("has", "BOOLEAN", "boolean"),
        ("n", "VARCHAR", "any"), ("i", "BIGINT", "integer"),
    ]  # fmt: skip


def test_two_columns_of_one_path_keep_their_own_types() -> None:
    """They are one variable of the written function."""
    given = {"resourceType": "Observation", "component": [{"valueInteger": 3}]}
    value = "component.value.ofType(integer)"
    select = [{"column": [column("a", value, "decimal"), column("b", value, "integer")]}]
    ((a, b),) = compile_view("v", {"resource": "Observation", "select": select}).rows(given)
    assert (type(a), type(b)) == (float, int)


def test_the_reason_names_the_view_and_the_column_and_no_value() -> None:
    with pytest.raises(DoesNotFit, match=r"View v: Column family holds more than one value") as caught:
        rows([{"column": [column("family", "name.family")]}])
    assert not {"A", "D"} & set(caught.value.text)


def test_a_resource_that_steps_aside_adds_no_row_before_it_does() -> None:
    """The second condition cannot be answered by the written function."""
    view = compile_view("v", {"resource": "Patient", "select": [ID], "where": [{"path": "gender.exists()"}]})
    out: list[Any] = [("before",)]
    view.add({"resourceType": "Patient", "id": "p", "_gender": {"extension": [{"url": "u"}]}}, out)
    assert out == [("before",), ("p",)]


def test_a_chain_deeper_than_python_nests_loops_goes_path_by_path() -> None:
    path = ".".join(["item"] * 25) + ".linkId"
    nested: dict[str, Any] = {"linkId": "deep"}
    for _ in range(25):
        nested = {"item": [nested]}
    view = compile_view("v", {"resource": "QuestionnaireResponse", "select": [{"column": [column("l", path)]}]})
    assert view.written is None
    assert view.rows({"resourceType": "QuestionnaireResponse", **nested}) == [("deep",)]


HOSTILE = ["'; import os; os.abort(); '", "x' or 1=1 --", '"""', "\\n\\", "{v1}", "%s", "§ü€"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_view_is_never_code(text: str) -> None:
    """Constants and separators go into the written function as values."""
    select = [{"column": [column("same", "gender = %k", "boolean"), column("k", "%k")]}]
    view = compile_view(
        "v", {"resource": "Patient", "select": select, "constant": [{"name": "k", "valueString": text}]}
    )
    assert view.written is not None
    assert view.rows({"resourceType": "Patient", "gender": text}) == [(True, text)]
