"""From a ViewDefinition (JSON) to compiled paths in nested selects; whatever is not understood is refused by name.

So a view never quietly gives other rows than its author meant.

Source: SQL-on-FHIR v2, logical model ViewDefinition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from flute.errors import Unmappable
from flute.fhirpath import types
from flute.fhirpath.functions import moment, time_of_day
from flute.fhirpath.path import BUILT_IN, Focus, Path
from flute.views.cells import Misfit, Row, cell, column
from flute.views.selects import Own, Select

Declaration = Mapping[str, Any]

_DESCRIPTIVE: Final = frozenset((
    "resourceType", "id", "meta", "text", "language", "url", "identifier", "version", "versionAlgorithmString",
    "name", "title", "status", "experimental", "date", "publisher", "contact", "description", "useContext",
    "jurisdiction", "purpose", "copyright", "copyrightLabel", "fhirVersion", "profile",
))  # fmt: skip
"""What says something about a view and changes none of its rows; `profile` is what it was meant for."""
_VIEW_KEYS: Final = frozenset({"resource", "constant", "where", "select"}) | _DESCRIPTIVE
_SELECT_KEYS: Final = frozenset({"column", "forEach", "forEachOrNull", "repeat", "unionAll", "select"})
_COLUMN_KEYS: Final = frozenset({"name", "path", "type", "description", "collection", "tag"})
_ITERATIONS: Final = ("forEach", "forEachOrNull", "repeat")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}\Z")
_USED_CONSTANT: Final = re.compile(r"%(`[^`]*`|'(?:[^'\\]|\\.)*'|[A-Za-z_][A-Za-z0-9_]*)")
_TEXT: Final = re.compile(r"(?<!%)'(?:[^'\\]|\\.)*'")
_R4: Final = re.compile(r"4\.[0-3](\.|\Z)")


class Definition:
    """A ViewDefinition, understood. `where`: conditions that all have to be true; `select`: everything it gives.

    `exact`: a path asks for a boundary, and so for the digits that a decimal is written with.
    """

    def __init__(self, name: str, declaration: Declaration) -> None:
        """Raises: Unmappable: it uses what this runner does not cover, or contradicts itself."""
        if not isinstance(declaration, Mapping):
            raise Unmappable(f"View {name} is no JSON object.")
        if declaration.get("resourceType", "ViewDefinition") != "ViewDefinition":
            raise Unmappable(f"View {name} is a FHIR resource of another type; a ViewDefinition is needed.")
        reader = _Reader(name)
        reader.only(declaration, _VIEW_KEYS, "a ViewDefinition")
        reader.constants = _constants(reader, declaration)
        resource = declaration.get("resource")
        if not isinstance(resource, str) or not declaration.get("select"):
            raise Unmappable(f"View {name} needs `resource` and at least one `select`.")
        _check_versions(name, declaration.get("fhirVersion", []))
        self.resource = resource
        self.where = tuple(reader.path(item) for item in reader.items(declaration, "where"))
        nested = tuple(reader.select(item, resource) for item in reader.items(declaration, "select"))
        self.select = Select(tuple(c for inner in nested for c in inner.columns), (), nested)
        names = [column.name for column in self.select.columns]
        if len(set(names)) != len(names):
            raise Unmappable(f"View {name} names a column twice.")
        if not names:
            raise Unmappable(f"View {name} has no column.")
        self.exact = any("Boundary(" in path for path in reader.paths)


def _check_versions(name: str, declared: Any) -> None:
    versions = declared if isinstance(declared, list) else [declared]
    if versions and not any(isinstance(v, str) and _R4.match(v) for v in versions):
        raise Unmappable(f"View {name} is for another FHIR version (fhirVersion); FHIR R4 is read here.")


# --- constants ------------------------------------------------------------------------------------

_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d)?)?\Z")
_DATE_TIME: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?)?)?\Z")
_TIME: Final = re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?\Z")


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _boolean(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def _whole(least: int) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        return value if type(value) is int and least <= value < 2**31 else None

    return read


def _integer64(value: Any) -> Any:
    """FHIR writes it as text, since JavaScript rounds numbers of this size."""
    return int(value) if isinstance(value, str) and re.match(r"[+-]?\d{1,19}\Z", value) else None


def _decimal(value: Any) -> Any:
    return Decimal(str(value)) if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else None


def _written_as(pattern: re.Pattern[str], made: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: made(value) if isinstance(value, str) and pattern.match(value) else None


_CONSTANTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{f"value{kind}": _text for kind in (
        "Base64Binary", "Canonical", "Code", "Id", "Markdown", "Oid", "String", "Uri", "Url", "Uuid",
    )},
    "valueBoolean": _boolean,
    "valueInteger": _whole(-(2**31)),
    "valuePositiveInt": _whole(1),
    "valueUnsignedInt": _whole(0),
    "valueInteger64": _integer64,
    "valueDecimal": _decimal,
    "valueDate": _written_as(_DATE, moment),
    "valueDateTime": _written_as(_DATE_TIME, moment),
    "valueInstant": _written_as(_DATE_TIME, moment),
    "valueTime": _written_as(_TIME, time_of_day),
}  # fmt: skip
"""Each type of constant and its value as FHIRPath has it; None where the value is not of that type."""


def _constants(reader: _Reader, declaration: Declaration) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in reader.items(declaration, "constant"):
        name, kinds = item.get("name"), sorted(set(item) - {"name"})
        if not isinstance(name, str) or not _NAME.match(name) or name in found or name in BUILT_IN:
            raise Unmappable(f"View {reader.view} has a constant without a name of its own.")
        if len(kinds) != 1 or kinds[0] not in _CONSTANTS:
            raise Unmappable(
                f"View {reader.view}: constant {name} needs exactly one value of a type that constants have, not "
                f"{', '.join(kinds) or 'none'}."
            )
        value = _CONSTANTS[kinds[0]](item[kinds[0]])
        if value is None:
            raise Unmappable(
                f"View {reader.view}: the value of constant {name} is no {kinds[0].removeprefix('value')}."
            )
        found[name] = value
    return found


# --- selects --------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, view: str) -> None:
        self.view = view
        self.constants: Mapping[str, Any] = {}
        self.paths: list[str] = []

    def only(self, item: Declaration, allowed: frozenset[str], where: str) -> None:
        beyond = sorted(set(item) - allowed)
        if beyond:
            raise Unmappable(f"View {self.view} uses {', '.join(beyond)} in {where}, which is not supported here.")

    def items(self, item: Declaration, name: str) -> Sequence[Declaration]:
        """A list of objects, or an empty one."""
        found = item.get(name, [])
        if not isinstance(found, list | tuple) or not all(isinstance(inner, Mapping) for inner in found):
            raise Unmappable(f"View {self.view}: {name} must be a list of objects.")
        return found

    def path(self, item: Declaration) -> Path:
        self.only(item, frozenset({"path", "description"}), "where")
        return self._compiled(item.get("path"))

    def _compiled(self, expression: object) -> Path:
        if not isinstance(expression, str) or not expression.strip():
            raise Unmappable(f"View {self.view} has an element without a path.")
        used = {m.strip("`'") for m in _USED_CONSTANT.findall(_TEXT.sub("''", expression))}
        unknown = sorted(used - set(self.constants) - BUILT_IN)
        if unknown:
            raise Unmappable(f"View {self.view} uses the constant {', '.join(unknown)}, which it does not declare.")
        self.paths.append(expression)
        try:
            return Path(expression, self.constants)
        except Unmappable as error:
            raise Unmappable(f"View {self.view}: {error.text}") from error

    def select(self, item: Declaration, base: str | None) -> Select:
        """`base`: type path of the focus, as far as known."""
        self.only(item, _SELECT_KEYS, "a select")
        ways = [way for way in _ITERATIONS if way in item]
        if len(ways) > 1:
            raise Unmappable(f"View {self.view} has a select with more than one of {', '.join(ways)}.")
        each, repeat = None, self._repeat(item.get("repeat"))
        if ways and not repeat:
            each = self._compiled(item[ways[0]])
        inside = _repeated_type(repeat, base) if repeat else _plain_type(each, base) if each else base
        own = tuple(self._column(inner, inside) for inner in self.items(item, "column"))
        nested = tuple(self.select(inner, inside) for inner in self.items(item, "select"))
        union = tuple(self.select(inner, inside) for inner in self.items(item, "unionAll"))
        if len({branch.columns for branch in union}) > 1:
            raise Unmappable(f"View {self.view} has a unionAll whose branches differ in their columns.")
        columns = (
            *(o.column for o in own),
            *(c for inner in nested for c in inner.columns),
            *(union[0].columns if union else ()),
        )
        nothing = _nothing(own, nested, union) if "forEachOrNull" in item else None
        return Select(columns, own, nested, union, each, repeat, nothing)

    def _repeat(self, declared: Any) -> tuple[Path, ...]:
        if declared is None:
            return ()
        if not isinstance(declared, list | tuple) or not declared:
            raise Unmappable(f"View {self.view}: repeat must be a list of paths.")
        return tuple(self._compiled(path) for path in declared)

    def _column(self, item: Declaration, base: str | None) -> Own:
        self.only(item, _COLUMN_KEYS, "a column")
        name, kind, collection = item.get("name"), item.get("type"), item.get("collection", False)
        if not isinstance(name, str) or not _NAME.match(name):
            raise Unmappable(f"View {self.view} has a column without a usable name.")
        if not isinstance(collection, bool):
            raise Unmappable(f"View {self.view}: collection of column {name} must be true or false.")
        path = self._compiled(item.get("path"))
        if kind is None:
            kind = _inferred(path, base)
        made = column(name, kind, collection=collection) if isinstance(kind, str | None) else None
        if made is None:
            raise Unmappable(f"View {self.view} gives column {name} the type {kind}, which is not supported here.")
        return Own(made, path)


def _repeated_type(paths: Sequence[Path], base: str | None) -> str | None:
    """The one type of everything that a `repeat` reaches, at every depth, or None."""
    first = {_plain_type(path, base) for path in paths}
    deeper = {_plain_type(path, kind) for path in paths for kind in first}
    return next(iter(first)) if len(first) == 1 and first == deeper else None


def _plain_type(path: Path, base: str | None) -> str | None:
    plain = path.plain(base)
    return plain.type if plain is not None else None


def _inferred(path: Path, base: str | None) -> str | None:
    """The type of an undeclared column, where the path says it."""
    found = _plain_type(path, base)
    return found if types.primitive(found) else None


def _nothing(own: Sequence[Own], nested: Sequence[Select], union: Sequence[Select]) -> Row:
    """Nulls, but for what says where it stands: `%rowIndex` is 0 there (the standard's own tests)."""
    cells = [_cell_of_nothing(o) for o in own]
    for inner in (*nested, *union[:1]):
        cells += _nothing(inner.own, inner.nested, inner.union)
    return tuple(cells)


def _cell_of_nothing(own: Own) -> Any:
    if "rowIndex" not in {m.strip("`'") for m in _USED_CONSTANT.findall(_TEXT.sub("''", own.path.expression))}:
        return None
    try:
        return cell(own.path.values(Focus({}, None, {})), own.column)
    except (Misfit, Unmappable):
        return None
