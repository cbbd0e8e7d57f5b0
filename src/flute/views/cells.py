"""Columns of a view and what their cells hold: FHIR types, JSON values, SQL types.

Dates and times stay text, since FHIR allows parts of them ("2023-05"). A decimal is a double. A column without a
type takes any one primitive. A column of an object type ("HumanName") holds the object; in SQL it is JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flute.fhirpath import types
from flute.fhirpath.source import Aside

Scalar = str | int | float | bool
Cell = Scalar | dict[str, Any] | list[Any] | None
Row = tuple[Cell, ...]
Read = Callable[[Any], Cell]


class Misfit(Aside):
    """A value that its column cannot hold. The text names the problem, never the value."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a view's table. `sql_type`: what DuckDB stores it as ("VARCHAR", "DOUBLE[]", …).

    `kind`: text, boolean, integer, decimal, any or object.
    """

    name: str
    sql_type: str
    kind: str = "text"
    collection: bool = False


def column(name: str, fhir_type: str | None, *, collection: bool) -> Column | None:
    """A column of a FHIR type (None: not said). None where FHIR R4 has no such type."""
    kind = _kind(fhir_type)
    if kind is None:
        return None
    return Column(name, _SQL[kind] + ("[]" if collection else ""), kind, collection)


_FHIR: Final = "http://hl7.org/fhir/StructureDefinition/"
_SYSTEM: Final = "http://hl7.org/fhirpath/System."
_KINDS: Final = {
    "boolean": "boolean",
    **dict.fromkeys(("integer", "positiveInt", "unsignedInt", "integer64"), "integer"),
    "decimal": "decimal",
}
_SQL: Final = {
    "text": "VARCHAR",
    "boolean": "BOOLEAN",
    "integer": "BIGINT",
    "decimal": "DOUBLE",
    "any": "VARCHAR",
    "object": "VARCHAR",
}


def _kind(fhir_type: str | None) -> str | None:
    if fhir_type is None:
        return "any"
    name = fhir_type.removeprefix(_FHIR).removeprefix("FHIR.")
    for prefix in (_SYSTEM, "System."):
        if name.startswith(prefix):  # FHIRPath's own primitives are spelt with a capital: System.String
            name = name[len(prefix) :][:1].lower() + name[len(prefix) + 1 :]
    if name in _KINDS:
        return _KINDS[name]
    if not types.known(name) and "." not in name:
        return None
    if types.primitive(name):
        return "text"
    return "object" if types.complex_type(name) else None


# --- one value -----------------------------------------------------------------------------------


def _text(value: Any) -> Cell:
    if type(value) is not str:
        raise Misfit("a value that is no text")
    return value


def _boolean(value: Any) -> Cell:
    if type(value) is not bool:
        raise Misfit("a value that is no boolean")
    return value


def _integer(value: Any) -> Cell:
    if type(value) is Decimal and value.as_tuple().exponent == 0:
        value = int(value)  # FHIRPath's floor() and its like
    if type(value) is not int or abs(value) >= 2**53:
        raise Misfit("a value that is no integer")
    return value


def _decimal(value: Any) -> Cell:
    # Numbers beyond 64 bits are no measurement, and may be too large for a double.
    if type(value) not in (float, int, Decimal) or not -(2**63) < value < 2**63:
        raise Misfit("a value that is no decimal")
    return float(value)


def _any(value: Any) -> Cell:
    if type(value) is Decimal:
        return _decimal(value)
    if type(value) not in (str, int, float, bool):
        raise Misfit("a value that is no primitive, and no type is declared")
    return value  # type: ignore[no-any-return]


def _object(value: Any) -> Cell:
    if type(value) is not dict:
        raise Misfit("a value that is no object")
    return _without_decimals(value)  # type: ignore[no-any-return]


def _without_decimals(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_decimals(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_decimals(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


READ: Final[dict[str, Read]] = {
    "text": _text,
    "boolean": _boolean,
    "integer": _integer,
    "decimal": _decimal,
    "any": _any,
    "object": _object,
}


def cell(found: list[Any], column: Column) -> Cell:
    """A cell from a path's result. Raises: Misfit."""
    read = READ[column.kind]
    if column.collection:
        return [read(value) for value in found]
    if not found:
        return None
    if len(found) > 1:
        raise Misfit("more than one value, and is no collection")
    return read(found[0])


# --- many values ---------------------------------------------------------------------------------


def sql_value(value: Cell, column: Column) -> Any:
    """A cell as DuckDB stores it: objects, and primitives of an undeclared type, are text."""
    if value is None or column.kind not in {"any", "object"}:
        return value
    if column.collection and isinstance(value, list):
        return [_as_text(item) for item in value]
    return _as_text(value)


def _as_text(value: Any) -> str:
    return value if type(value) is str else msgspec.json.encode(value).decode()


def array(values: Sequence[Cell], column: Column) -> NDArray[Any]:
    """A column's cells for DuckDB: numbers and booleans as doubles (NaN where there is none), the rest as objects.

    Whole numbers of FHIR fit a double exactly.
    """
    if column.sql_type in {"DOUBLE", "BIGINT", "BOOLEAN"}:
        return np.array(values, dtype=np.float64)
    found = np.empty(len(values), dtype=object)
    if column.kind == "text" and not column.collection:
        found[:] = values
        return found
    for i, value in enumerate(values):  # numpy would take lists of one length for a second dimension
        found[i] = sql_value(value, column)
    return found
