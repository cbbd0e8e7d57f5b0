"""FHIRPath functions of ours for fhirpathpy: what SQL-on-FHIR adds, what fhirpathpy lacks, and what it gets wrong.

`join` of nothing is an empty text (the standard's own tests say so); `extension` gives all of a url, not the
first; `=` compares whole collections; `single` of two is an error; `$this` is what it was after a criterion;
`toDate` gives a day; `sum` and its like take elements; nothing is added to dates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, cast

from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.invocations.equality import equality
from fhirpathpy.engine.nodes import FP_DateTime, FP_Time, FP_Type, ResourceNode

from flute.fhirpath.boundaries import Side, date_boundary, decimal_boundary, time_boundary
from flute.fhirpath.references import reference_keys, resource_keys

Collection = list[Any]
_node: Final[Any] = ResourceNode
_moment: Final[Any] = FP_DateTime
_time: Final[Any] = FP_Time
_same: Final[Any] = equality
ENGINE: Final[Mapping[str, dict[str, Any]]] = cast(Any, invocation_registry)
"""fhirpathpy's own functions."""


def _data(item: Any) -> Any:
    return item.data if isinstance(item, ResourceNode) else item


def _resource_key(_: Any, items: Collection) -> Collection:
    return resource_keys([_data(item) for item in items])


def _reference_key(_: Any, items: Collection, kind: Any = None) -> Collection:
    return reference_keys([_data(item) for item in items], getattr(kind, "name", None))


def _extension(_: Any, items: Collection, url: str) -> Collection:
    found = []
    for data in map(_data, items):
        extensions = data.get("extension") if isinstance(data, dict) else None
        for extension in extensions if isinstance(extensions, list) else ():
            if isinstance(extension, dict) and extension.get("url") == url:
                found.append(_node(extension, "Extension"))
    return found


def _join(_: Any, items: Collection, separator: Any = "") -> str:
    """Raises: TypeError: something that is no text."""
    return ("" if separator == [] else separator).join(_data(item) for item in items)


def _single(_: Any, items: Collection) -> Collection:
    if len(items) > 1:
        raise ValueError("more than one item")
    return items


def _equal(context: Any, left: Collection, right: Collection) -> Collection:
    """[], [True] or [False]: item by item, in their order."""
    if len(left) != len(right):
        return [False]
    pairs = [_same(context, [a], [b]) for a, b in zip(left, right, strict=True)]
    if False in pairs:
        return [False]
    return [] if None in pairs else [True]


def _unequal(context: Any, left: Collection, right: Collection) -> Collection:
    return [not value for value in _equal(context, left, right)]


def _plus(context: Any, left: Collection, right: Collection) -> Any:
    return _numbers_or_texts(left, right, ENGINE["+"]["fn"](context, left, right))


def _minus(context: Any, left: Collection, right: Collection) -> Any:
    return _numbers_or_texts(left, right, ENGINE["-"]["fn"](context, left, right))


def _numbers_or_texts(left: Collection, right: Collection, found: Any) -> Any:
    """Raises: TypeError: a time was added to a date. The engine loses time zones at that."""
    if any(isinstance(_data(item), FP_Type | dict) for item in (*left, *right)):
        raise TypeError("no number")
    return found


def _to_date(context: Any, items: Collection) -> Collection:
    """The day of a dateTime, too."""
    found = ENGINE["toDate"]["fn"](context, items)
    return [_moment(str(found.asStr).partition("T")[0])] if isinstance(found, FP_DateTime) else []


def _of_values(engine: Callable[..., Any]) -> Callable[..., Any]:
    return lambda context, items: engine(context, [_data(item) for item in items])


def _low(context: Any, items: Collection, digits: Any = None) -> Collection:
    return _boundary(items, "low", digits)


def _high(context: Any, items: Collection, digits: Any = None) -> Collection:
    return _boundary(items, "high", digits)


def _boundary(items: Collection, side: Side, digits: Any) -> Collection:
    """Raises: TypeError: more than one item, or one of a type without boundaries."""
    if not items or digits == []:
        return []
    (item,) = _single(None, items)
    places = None if digits is None else int(digits)
    found = _boundary_of(_data(item), _kind(item), side, places)
    return [] if found is None else [found]


def _kind(item: Any) -> str:
    if isinstance(item, ResourceNode):
        return str(item.path)
    if isinstance(item, FP_Time):
        return "time"
    if isinstance(item, FP_DateTime):
        return "dateTime" if "T" in str(_text(item)) else "date"
    return "decimal"


def _boundary_of(value: Any, kind: str, side: Side, digits: int | None) -> Any:
    match kind:
        case "date" | "dateTime" | "instant":
            return date_boundary(_text(value), side, digits, has_time=kind != "date")
        case "time":
            return time_boundary(_text(value).removeprefix("T"), side, digits)
        case "Period":
            end = value.get("start" if side == "low" else "end")
            return None if end is None else date_boundary(end, side, digits, has_time=True)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise TypeError("no boundary")
    return decimal_boundary(Decimal(value), side, digits)


def _text(value: Any) -> str:
    """A date or time as it was written."""
    text = value.asStr if isinstance(value, FP_DateTime | FP_Time) else value
    if not isinstance(text, str):
        raise TypeError("no date or time")
    return text


def _restoring(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that walks a criterion over items, and leaves `$this` and `$index` as they were before."""

    def call(context: dict[str, Any], *arguments: Any) -> Any:
        before: dict[str, Any] = {name: context[name] for name in ("$this", "$index") if name in context}
        try:
            return function(context, *arguments)
        finally:
            context.update(before)

    return call


def _takes_a_criterion(entry: dict[str, Any]) -> bool:
    return entry.get("variadic") == "Expr" or any("Expr" in kinds for kinds in entry.get("arity", {}).values())


FUNCTIONS: Final[dict[str, dict[str, Any]]] = {
    **{name: entry | {"fn": _restoring(entry["fn"])} for name, entry in ENGINE.items() if _takes_a_criterion(entry)},
    "getResourceKey": {"fn": _resource_key},
    "getReferenceKey": {"fn": _reference_key, "arity": {0: [], 1: ["TypeSpecifier"]}},
    "extension": {"fn": _extension, "arity": {1: ["String"]}},
    "join": {"fn": _join, "arity": {0: [], 1: ["String"]}},
    "single": {"fn": _single},
    **{name: ENGINE[name] | {"fn": _of_values(ENGINE[name]["fn"])} for name in ("sum", "min", "max", "avg")},
    "toDate": {"fn": _to_date},
    "+": ENGINE["+"] | {"fn": _plus},
    "-": ENGINE["-"] | {"fn": _minus},
    "lowBoundary": {"fn": _low, "arity": {0: [], 1: ["Integer"]}},
    "highBoundary": {"fn": _high, "arity": {0: [], 1: ["Integer"]}},
    "=": {"fn": _equal, "arity": {2: ["Any", "Any"]}, "nullable": True},
    "!=": {"fn": _unequal, "arity": {2: ["Any", "Any"]}, "nullable": True},
}


def moment(text: str) -> Any:
    """A date or dateTime as fhirpathpy compares it."""
    return _moment(text)


def time_of_day(text: str) -> Any:
    return _time(text)
