"""Many views over one stream of resources: rows gather per view and leave as columns, batch by batch.

A resource meets only the views of its type. Of these, a view whose `where` asks for a code
(`code.coding.where(system = 'x' and code = 'y').exists()`) meets only resources that carry it: the code is a key
of an index that is made when the program is made, and is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from flute.fhirpath.plain import Plain
from flute.fhirpath.source import Aside
from flute.fhirpath.tree import Both, Chain, Either, Equals, Exists, Expression, Member, Where
from flute.views.cells import Row, array
from flute.views.selects import DoesNotFit
from flute.views.view import View
from flute.views.written import Add, write_view

Code = tuple[str, str]
"""System and code."""
_Target = tuple[View, list[Row], Add | None]
"""A view, where its rows wait, and its written function."""


class Program:
    """Compiled views. `take` resources; when `waiting` is large enough, fetch `rows` or `columns` of each view."""

    def __init__(self, views: Iterable[View]) -> None:
        self.views = tuple(views)
        self._waiting: dict[str, list[Row]] = {view.name: [] for view in self.views}
        self._kinds: dict[str, _Kind] = {}
        for view in self.views:
            self._kinds.setdefault(view.resource, _Kind()).add(view, self._waiting[view.name])

    def take(self, resource: Mapping[str, Any]) -> int:
        """Add a resource's rows to every view of its type. Gives how many there were.

        Raises: DoesNotFit: it does not fit one of the views; nothing of it is in any.
        """
        kind = self._kinds.get(resource.get("resourceType", ""))
        if kind is None:
            return 0
        added = 0
        begun: list[tuple[list[Row], int]] = []
        for view, rows, written in kind.candidates(resource):
            before = len(rows)
            try:
                if written is None:
                    raise Aside
                written(resource, rows)
            except Aside:
                try:
                    rows += view.rows_path_by_path(resource)
                except DoesNotFit:
                    for others, length in begun:
                        del others[length:]
                    raise
            begun.append((rows, before))
            added += len(rows) - before
        return added

    def meets(self, resource: Mapping[str, Any]) -> list[str]:
        """Names of the views that a resource is given to; its rows may still be none."""
        kind = self._kinds.get(resource.get("resourceType", ""))
        return [view.name for view, _, _ in kind.candidates(resource)] if kind else []

    def waiting(self) -> int:
        """Rows that nobody has fetched yet."""
        return sum(map(len, self._waiting.values()))

    def rows(self, name: str) -> list[Row]:
        """Hand over a view's rows since the last time."""
        waiting = self._waiting[name]
        rows = waiting.copy()
        waiting.clear()
        return rows

    def columns(self, name: str) -> dict[str, NDArray[Any]]:
        """As `rows`, each column an array that DuckDB reads; cast to the column's `sql_type`."""
        view = next(view for view in self.views if view.name == name)
        rows = self.rows(name)
        cells = zip(*rows, strict=True) if rows else ((),) * len(view.columns)
        return {c.name: array(values, c) for c, values in zip(view.columns, cells, strict=True)}


@dataclass(slots=True)
class _Kind:
    """Views of one resource type: those that meet every resource, and those behind codes of an element."""

    all: list[_Target] = field(default_factory=list)
    always: list[_Target] = field(default_factory=list)
    coded: dict[tuple[str, str], dict[Code, list[_Target]]] = field(default_factory=dict)

    def add(self, view: View, rows: list[Row]) -> None:
        whole = (view, rows, view.written)
        self.all.append(whole)
        for number, path in enumerate(view.where):
            found = _codes(path.plain(view.resource))
            if found is not None:
                members, codes = found
                others = view.where[:number] + view.where[number + 1 :]
                target = (view, rows, write_view(view.resource, others, view.select))
                index = self.coded.setdefault(members, {})
                for code in codes:
                    index.setdefault(code, []).append(target)
                return
        self.always.append(whole)

    def candidates(self, resource: Mapping[str, Any]) -> list[_Target]:
        """Views whose `where` may hold; all of them, whole, for a resource of a shape that FHIR does not have."""
        found = self.always
        for (outer, inner), index in self.coded.items():
            element = resource.get(outer)
            if element is None and "_" + outer not in resource:
                continue
            codings = element.get(inner) if isinstance(element, dict) else None
            if not isinstance(codings, list):
                return self.all
            try:
                hits = [target for c in codings for target in index.get((c.get("system"), c.get("code")), ())]
            except (AttributeError, TypeError):
                return self.all
            if len(hits) > 1:
                hits = list({id(target): target for target in hits}.values())
            found = found + hits if found else hits
        return found


def _codes(plain: Plain | None) -> tuple[tuple[str, str], set[Code]] | None:
    """The element and codes that a condition asks for, if that is all it does."""
    match plain.tree if plain else None:
        case Exists(Chain((Member(outer), Member(inner), Where(criterion))), True):
            codes = _pairs(criterion)
            return None if codes is None else ((outer, inner), codes)
    return None


def _pairs(criterion: Expression) -> set[Code] | None:
    match criterion:
        case Both(Equals(Chain((Member("system"),)), str(system), True), codes):
            named = _named(codes)
            return None if named is None else {(system, code) for code in named}
        case Either(left, right):
            first, second = _pairs(left), _pairs(right)
            return None if first is None or second is None else first | second
    return None


def _named(codes: Expression) -> set[str] | None:
    match codes:
        case Equals(Chain((Member("code"),)), str(code), True):
            return {code}
        case Either(left, right):
            first, second = _named(left), _named(right)
            return None if first is None or second is None else first | second
    return None
