"""A runner for SQL-on-FHIR v2 ViewDefinitions: one resource in, flat rows out.

Covered: `resource`, `constant`, `where`, and `select` with `column`, `forEach`, `forEachOrNull`, `unionAll`
and nested `select`. Everything else (`repeat`, a collection column, …) is refused by name when the view is
compiled, so that a view never quietly gives other rows than its author meant.

Source: SQL-on-FHIR v2, ViewDefinition, "Processing algorithm".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any, Final

from flute.errors import Unmappable
from flute.views.fhirpath import Path, PathFailed
from flute.views.plainpath import Constants

Cell = str | int | float | bool | None
Row = tuple[Cell, ...]
Declaration = Mapping[str, Any]


class DoesNotFit(Unmappable):
    """One resource does not fit a view (a value of another type, two where one belongs). No value is in the text."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a view's table. `sql_type`: what DuckDB stores it as."""

    name: str
    sql_type: str


@dataclass(frozen=True, slots=True)
class View:
    """A compiled ViewDefinition."""

    name: str
    resource: str
    columns: tuple[Column, ...]
    _where: tuple[Path, ...]
    _selects: tuple[_Select, ...]

    def rows(self, resource: Mapping[str, Any]) -> list[Row]:
        """Rows of one resource of type `self.resource`; none where `where` does not hold.

        Raises: DoesNotFit: a value that its column cannot hold.
        """
        try:
            for path in self._where:
                if path.values(resource, self.resource) != [True]:
                    return []
            return _product([select.rows(resource, self.resource) for select in self._selects])
        except PathFailed as error:
            raise DoesNotFit(self.name) from error


def compile_view(name: str, declaration: Declaration) -> View:
    """Compile a ViewDefinition.

    Raises: Unmappable: it uses what this runner does not cover, or contradicts itself.
    """
    reader = _Compiler(name, _constants(name, declaration.get("constant", ())))
    reader.only(declaration, _VIEW_KEYS, "a ViewDefinition")
    resource = declaration.get("resource")
    if not isinstance(resource, str) or not declaration.get("select"):
        raise Unmappable(f"View {name} needs `resource` and at least one `select`.")
    where = tuple(reader.path(item, "where") for item in declaration.get("where", ()))
    selects = tuple(reader.select(item) for item in declaration["select"])
    columns = tuple(column for select in selects for column in select.columns)
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        raise Unmappable(f"View {name} names a column twice.")
    return View(name, resource, columns, where, selects)


# --- compiling -----------------------------------------------------------------------------------

_DESCRIPTIVE: Final = frozenset((
    "resourceType", "url", "name", "title", "description", "status", "version", "fhirVersion", "publisher",
    "meta", "id",
))  # fmt: skip
_VIEW_KEYS: Final = frozenset({"resource", "constant", "where", "select"}) | _DESCRIPTIVE
_SELECT_KEYS: Final = frozenset({"column", "forEach", "forEachOrNull", "unionAll", "select"})
_COLUMN_KEYS: Final = frozenset({"name", "path", "type", "description"})
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}\Z")
_USED_CONSTANT: Final = re.compile(r"%(`[^`]*`|[A-Za-z_][A-Za-z0-9_]*)")
_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.)*'")
_ALWAYS_THERE: Final = frozenset({"context", "ucum"})


def _constants(name: str, declared: Sequence[Declaration]) -> dict[str, str | int | float | bool]:
    found: dict[str, str | int | float | bool] = {}
    for item in declared:
        values = [v for k, v in item.items() if k.startswith("value")]
        if not isinstance(item.get("name"), str) or len(values) != 1 or not isinstance(values[0], str | int | float):
            raise Unmappable(f"View {name} declares a constant without a name and exactly one plain value.")
        found[item["name"]] = values[0]
    return found


class _Compiler:
    def __init__(self, view: str, constants: Constants) -> None:
        self._view = view
        self._constants = constants

    def only(self, item: Declaration, allowed: frozenset[str], where: str) -> None:
        beyond = sorted(set(item) - allowed)
        if beyond:
            raise Unmappable(f"View {self._view} uses {', '.join(beyond)} in {where}, which is not supported here.")

    def path(self, item: Declaration, where: str) -> Path:
        self.only(item, frozenset({"path", "description"}), where)
        return self._compiled(item.get("path"))

    def _compiled(self, expression: object) -> Path:
        if not isinstance(expression, str) or not expression.strip():
            raise Unmappable(f"View {self._view} has an element without a path.")
        used = {m.strip("`") for m in _USED_CONSTANT.findall(_TEXT.sub("''", expression))}
        unknown = sorted(used - set(self._constants) - _ALWAYS_THERE)
        if unknown:
            raise Unmappable(f"View {self._view} uses the constant {', '.join(unknown)}, which it does not declare.")
        return Path(expression, self._constants)

    def select(self, item: Declaration) -> _Select:
        self.only(item, _SELECT_KEYS, "a select")
        if "forEach" in item and "forEachOrNull" in item:
            raise Unmappable(f"View {self._view} has a select with both forEach and forEachOrNull.")
        each = item.get("forEach", item.get("forEachOrNull"))
        own = tuple(self._column(column) for column in item.get("column", ()))
        nested = tuple(self.select(inner) for inner in item.get("select", ()))
        union = tuple(self.select(inner) for inner in item.get("unionAll", ()))
        if len({branch.columns for branch in union}) > 1:
            raise Unmappable(f"View {self._view} has a unionAll whose branches differ in their columns.")
        columns = (
            *(column for column, _, _ in own),
            *(column for inner in nested for column in inner.columns),
            *(union[0].columns if union else ()),
        )
        return _Select(
            columns,
            tuple((path, read) for _, path, read in own),
            None if each is None else self._compiled(each),
            "forEachOrNull" in item,
            nested,
            union,
        )

    def _column(self, item: Declaration) -> tuple[Column, Path, _Read]:
        kept = {k: v for k, v in item.items() if not (k == "collection" and v is False)}
        self.only(kept, _COLUMN_KEYS, "a column")
        name, kind = item.get("name"), item.get("type", "string")
        if not isinstance(name, str) or not _NAME.match(name):
            raise Unmappable(f"View {self._view} has a column without a usable name.")
        if kind not in _TYPES:
            raise Unmappable(f"View {self._view} gives column {name} the type {kind}, which is not supported here.")
        sql_type, read = _TYPES[kind]
        return Column(name, sql_type), self._compiled(item.get("path")), read


# --- running -------------------------------------------------------------------------------------

_Read = Callable[[Any], Cell]


def _as_text(value: Any) -> Cell:
    if type(value) is not str:
        raise DoesNotFit("string")
    return value


def _as_boolean(value: Any) -> Cell:
    if type(value) is not bool:
        raise DoesNotFit("boolean")
    return value


def _as_integer(value: Any) -> Cell:
    if type(value) is not int or abs(value) >= 2**53:
        raise DoesNotFit("integer")
    return value


def _as_decimal(value: Any) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise DoesNotFit("decimal")
    # Numbers beyond 64 bits are no measurement, and may be too large for a double.
    if value >= 2**63 or value <= -(2**63):
        raise DoesNotFit("decimal")
    return float(value)


_TEXT_TYPES: Final = (
    "string", "code", "id", "uri", "url", "canonical", "date", "dateTime", "instant", "time", "oid", "uuid",
    "markdown",
)  # fmt: skip
_TYPES: Final[Mapping[str, tuple[str, _Read]]] = {
    **dict.fromkeys(_TEXT_TYPES, ("VARCHAR", _as_text)),
    "boolean": ("BOOLEAN", _as_boolean),
    **dict.fromkeys(("integer", "positiveInt", "unsignedInt"), ("BIGINT", _as_integer)),
    "decimal": ("DOUBLE", _as_decimal),
}


@dataclass(frozen=True, slots=True)
class _Select:
    columns: tuple[Column, ...]
    _own: tuple[tuple[Path, _Read], ...]
    _each: Path | None
    _or_null: bool
    _nested: tuple[_Select, ...]
    _union: tuple[_Select, ...]

    def rows(self, node: Any, base: str | None) -> list[Row]:
        if self._each is None:
            return self._rows_of(node, base)
        foci = self._each.foci(node, base)
        if not foci and self._or_null:
            return [(None,) * len(self.columns)]
        return [row for focus, path in foci for row in self._rows_of(focus, path)]

    def _rows_of(self, node: Any, base: str | None) -> list[Row]:
        parts = [[tuple(_cell(path.values(node, base), read) for path, read in self._own)]]
        parts += [inner.rows(node, base) for inner in self._nested]
        if self._union:
            parts.append([row for branch in self._union for row in branch.rows(node, base)])
        return _product(parts)


def _cell(found: list[Any], read: _Read) -> Cell:
    if not found:
        return None
    if len(found) > 1:
        raise DoesNotFit("one value expected")
    return read(found[0])


def _product(parts: Sequence[list[Row]]) -> list[Row]:
    """Every combination of the parts' rows, side by side."""
    if len(parts) == 1:
        return parts[0]
    return [tuple(cell for row in combination for cell in row) for combination in product(*parts)]
