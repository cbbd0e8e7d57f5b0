"""A runner for SQL-on-FHIR v2 ViewDefinitions: one resource in, flat rows out.

The whole of the standard's view layer is covered: `constant`, `where`, `select` with `column` (also collections),
`forEach`, `forEachOrNull`, `repeat`, `unionAll`, `%rowIndex` and nested `select`. What is not known (a function, a
type, an element) is refused by name when the view is compiled.

Source: SQL-on-FHIR v2, ViewDefinition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flute.fhirpath.path import Focus, Path, PathFailed
from flute.fhirpath.source import Aside
from flute.views.cells import Column, Row
from flute.views.declaration import Declaration, Definition
from flute.views.selects import DoesNotFit, Select
from flute.views.written import Add, write_view


@dataclass(frozen=True, slots=True)
class View:
    """A compiled ViewDefinition. `exact`: it needs decimals with the digits they are written with, for boundaries."""

    name: str
    resource: str
    columns: tuple[Column, ...]
    where: tuple[Path, ...]
    select: Select
    written: Add | None
    exact: bool

    def rows(self, resource: Mapping[str, Any]) -> list[Row]:
        """Rows of one resource of type `self.resource`; none where `where` does not hold.

        Raises: DoesNotFit: a value that its column cannot hold, or a condition that is neither true nor false.
        """
        found: list[Row] = []
        self.add(resource, found)
        return found

    def add(self, resource: Mapping[str, Any], out: list[Row]) -> None:
        """Add the rows of one resource to a list. Raises: DoesNotFit: nothing was added."""
        if self.written is not None:
            try:
                self.written(resource, out)
                return
            except Aside:
                pass
        out += self.rows_path_by_path(resource)

    def rows_path_by_path(self, resource: Mapping[str, Any]) -> list[Row]:
        """The same rows, the slow way: the reference for the written function, with reasons where they are none."""
        focus = Focus(resource, self.resource, resource)
        try:
            if not all(_holds(path, focus) for path in self.where):
                return []
            return self.select.rows(focus)
        except PathFailed as error:
            raise DoesNotFit(f"View {self.name}: the path {error.text} cannot be evaluated.") from error
        except DoesNotFit as error:
            raise DoesNotFit(f"View {self.name}: {error.text}") from error


def compile_view(name: str, declaration: Declaration) -> View:
    """Compile a ViewDefinition.

    Raises: Unmappable: it uses what this runner does not cover, or contradicts itself.
    """
    found = Definition(name, declaration)
    written = write_view(found.resource, found.where, found.select)
    return View(name, found.resource, found.select.columns, found.where, found.select, written, found.exact)


def _holds(path: Path, focus: Focus) -> bool:
    found = path.values(focus)
    if not found:
        return False
    if len(found) > 1 or not isinstance(found[0], bool):
        raise DoesNotFit(f"the condition {path.expression} is neither true nor false.")
    return found[0]


__all__ = ["Column", "DoesNotFit", "Row", "View", "compile_view"]
