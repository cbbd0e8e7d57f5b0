"""Test files in the form of the SQL-on-FHIR suite: resources, views, and what each view has to give.

A case expects rows (in any order), or columns beside them, or an error. Ours may add `says`: a word of the error.
Each case runs three ways that have to agree: resource by resource, path by path, and through a `Program`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from flute.errors import FluteError
from flute.views.program import Program
from flute.views.stream import decoder
from flute.views.view import Row, View, compile_view


@dataclass(frozen=True)
class Case:
    """`resources`: each as JSON, so that a view may decode them the way it needs."""

    file: str
    title: str
    resources: tuple[bytes, ...]
    declaration: dict[str, Any]
    expected: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.file}: {self.title}"


def cases(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*.json")):
        file = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        resources = tuple(bytes(raw) for raw in msgspec.json.decode(file["resources"], type=list[msgspec.Raw]))
        for test in msgspec.json.decode(file["tests"]):
            yield Case(path.name, test["title"], resources, test["view"], test)


class Disagreement(Exception):
    """A view gave something else than the case expects."""


def check(case: Case) -> None:
    """Raises: Disagreement."""
    if case.expected.get("expectError"):
        _check_error(case)
        return
    view = compile_view("case", case.declaration)
    names = [column.name for column in view.columns]
    if names != case.expected.get("expectColumns", names):
        raise Disagreement(f"columns {names}")
    found = rows_in_three_ways(view, case.resources)
    if "expectCount" in case.expected and len(found) != case.expected["expectCount"]:
        raise Disagreement(f"{len(found)} rows")
    if "expect" in case.expected:
        _check_rows([dict(zip(names, row, strict=True)) for row in found], case.expected["expect"], names)


def rows_in_three_ways(view: View, raw: tuple[bytes, ...]) -> list[Row]:
    """Raises: Disagreement: they differ. DoesNotFit: a resource does not fit."""
    resources = list(map(decoder(exact=view.exact), raw))
    program = Program([view])
    for resource in resources:
        program.take(resource)
    mine = [resource for resource in resources if resource["resourceType"] == view.resource]
    one_by_one = [row for resource in mine for row in view.rows(resource)]
    by_path = [row for resource in mine for row in view.rows_path_by_path(resource)]
    if not one_by_one == by_path == program.rows(view.name):
        raise Disagreement(f"{one_by_one} by resource, {by_path} path by path")
    return one_by_one


def _check_rows(found: list[dict[str, Any]], expected: list[dict[str, Any]], names: list[str]) -> None:
    """A column that an expected row does not name is null there."""
    wanted = [{name: row.get(name) for name in names} for row in expected]
    if any(set(row) - set(names) for row in expected) or sorted(map(_key, found)) != sorted(map(_key, wanted)):
        raise Disagreement(f"rows {found}, expected {expected}")


def _key(value: Any) -> str:
    """JSON in which 5 and 5.0 are the same number, and true is none."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else value


def _check_error(case: Case) -> None:
    try:
        view = compile_view("case", case.declaration)
        rows_in_three_ways(view, case.resources)
    except FluteError as error:
        if case.expected.get("says", "") not in error.text:
            raise Disagreement(f"the error says {error.text!r}") from error
        return
    raise Disagreement("no error")


def report(results: list[tuple[Case, str | None]]) -> dict[str, Any]:
    """The standard's own report (test-report.schema.json). The second of each pair: why it failed, or None."""
    found: dict[str, Any] = {}
    for case, fault in results:
        result = {"passed": True} if fault is None else {"passed": False, "error": fault}
        found.setdefault(case.file, {"tests": []})["tests"].append({"name": case.title, "result": result})
    return found
