"""The selects of a view and their rows, the slow way: each path by itself, `fhirpathpy` where it is not plain.

`views.written` makes one function of a whole view with the same rows; this is what it steps aside for.

Source: SQL-on-FHIR v2, ViewDefinition, "Processing algorithm".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from flute.defaults.records import MAX_REPEAT_DEPTH
from flute.errors import Unmappable
from flute.fhirpath.path import Focus, Path, PathFailed
from flute.views.cells import Cell, Column, Misfit, Row, cell


class DoesNotFit(Unmappable):
    """One resource does not fit a view (a value of another type, two where one belongs). No value is in the text."""


@dataclass(frozen=True, slots=True)
class Own:
    """A column and where its cells come from."""

    column: Column
    path: Path


@dataclass(frozen=True, slots=True)
class Select:
    """`columns`: all of them, own ones first, then nested ones, then the union's.

    `each`, `repeat`: at most one of them is there. `nothing`: the row of a `forEachOrNull` without elements.
    """

    columns: tuple[Column, ...]
    own: tuple[Own, ...]
    nested: tuple[Select, ...] = ()
    union: tuple[Select, ...] = ()
    each: Path | None = None
    repeat: tuple[Path, ...] = ()
    nothing: Row | None = None

    @property
    def iterates(self) -> bool:
        return self.each is not None or bool(self.repeat)

    def rows(self, focus: Focus) -> list[Row]:
        """Raises: DoesNotFit; PathFailed."""
        if not self.iterates:
            return self._rows_of(focus)
        foci = self._foci(focus)
        if not foci and self.nothing is not None:
            return [self.nothing]
        return [
            row
            for index, (node, type_path) in enumerate(foci)
            for row in self._rows_of(Focus(node, type_path, focus.root, index))
        ]

    def _foci(self, focus: Focus) -> list[tuple[object, str | None]]:
        if self.each is not None:
            return self.each.foci(focus)
        return self._repeated(focus, 0)

    def _repeated(self, focus: Focus, depth: int) -> list[tuple[object, str | None]]:
        """Each element, then what repeats within it, before the next: the order in which one reads a form."""
        if depth > MAX_REPEAT_DEPTH:
            raise DoesNotFit(f"A repeat is nested more than {MAX_REPEAT_DEPTH} times, or leads back to itself.")
        found = []
        for path in self.repeat:
            for node, type_path in path.foci(focus):
                found.append((node, type_path))
                if isinstance(node, dict):
                    found += self._repeated(Focus(node, type_path, focus.root, focus.row), depth + 1)
        return found

    def _rows_of(self, focus: Focus) -> list[Row]:
        parts = [[tuple(_cell(own, focus) for own in self.own)]]
        parts += [inner.rows(focus) for inner in self.nested]
        if self.union:
            parts.append([row for branch in self.union for row in branch.rows(focus)])
        return _side_by_side(parts)


def _cell(own: Own, focus: Focus) -> Cell:
    try:
        return cell(own.path.values(focus), own.column)
    except Misfit as misfit:
        raise DoesNotFit(f"Column {own.column.name} holds {misfit}.") from None
    except PathFailed as error:
        raise DoesNotFit(f"The path of column {own.column.name} cannot be evaluated: {error.text}.") from error


def _side_by_side(parts: Sequence[list[Row]]) -> list[Row]:
    """Every combination of the parts' rows."""
    if len(parts) == 1:
        return parts[0]
    return [tuple(cell for row in combination for cell in row) for combination in product(*parts)]
