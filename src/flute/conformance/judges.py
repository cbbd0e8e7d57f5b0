"""What each part of an element says, and what is wrong with it: one judge per kind, compiled from a declaration.

A judge reads R4-valid resources; it appends what is wrong and gives what it understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from flute.conformance.base import no_such_day
from flute.conformance.build import Read
from flute.conformance.cells import Measured, range_mend, unit_mend
from flute.conformance.model import (
    UCUM,
    Age,
    Code,
    Coded,
    Coding,
    Element,
    Flag,
    Kind,
    Links,
    Moment,
    Part,
    Quantity,
    Whole,
)
from flute.conformance.units import factors
from flute.data.findings import Finding, shown

Resource = Mapping[str, Any]
Findings = list[Finding]
Judge = Callable[[Resource, Findings], Read | None]
"""Judges one part; gives what it says, or None where it says nothing of the types that are read."""
MISSING: Final = "required-element-missing"
NOTHING: Final[Mapping[str, Any]] = {}
_DAY_CHARS: Final = len("2023-02-01")
_NO_BOUND: Final = "A bound is no measurement: give the number itself, or leave the record out."


def judge_of(element: Element, part: Part) -> Judge:
    """Raises: MisuseError: the declaration contradicts itself (a unit that cannot be converted, …)."""
    return _JUDGES[type(part.kind)](element, part)


def _quantity(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Quantity)
    name, where, rule = f"{part.at}Quantity", f"{element.resource}.{part.at}Quantity", element.rule(part)
    known = {unit: _plain(factor) for unit, factor in factors(kind).items()}
    low, high = _plain(kind.low), _plain(kind.high)

    def judge(resource: Resource, findings: Findings) -> Read | None:
        quantity = resource.get(name)
        if quantity is None:
            return None
        value, code = quantity.get("value"), quantity.get("code")
        if value is None:
            findings.append(
                Finding(MISSING, f"{where}.value", rule, shown(quantity), "Give the number that was measured.")
            )
            return None
        if "comparator" in quantity:
            found = f"{quantity['comparator']} {value}"
            findings.append(Finding("wrong-type", f"{where}.comparator", rule, shown(found), _NO_BOUND))
            return None
        unit = quantity.get("unit") if code is None else code
        factor = known.get(unit)
        if factor is None or (code is not None and quantity.get("system", UCUM) != UCUM):
            path = f"{where}.unit" if code is None else f"{where}.code"
            findings.append(Finding("unit-not-convertible", path, rule, _unit(quantity), unit_mend(kind)))
            return None
        if not low <= _times(value, factor) <= high:
            mend = range_mend(kind.low, kind.high, kind.unit)
            findings.append(Finding("value-out-of-range", f"{where}.value", rule, shown(f"{value} {unit}"), mend))
            return None
        if code is None:
            mend = f"Give the unit's UCUM code as well ({kind.spellings.get(unit, unit)}); its text was read."
            findings.append(
                Finding("unit-not-convertible", f"{where}.code", f"{rule}-unit", shown(unit), mend, warning=True)
            )
        return Measured(value, kind.spellings.get(unit, unit))

    return judge


def _unit(quantity: Resource) -> str:
    system, code = quantity.get("system", UCUM), quantity.get("code")
    return shown(quantity.get("unit", "") if code is None else code if system == UCUM else f"{system}|{code}")


def _plain(number: Decimal) -> int | float:
    """An int where that is exact: a number of any size can be multiplied by it."""
    return int(number) if number == number.to_integral_value() else float(number)


def _times(value: Any, factor: int | float) -> Any:
    try:
        return value * factor
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _age(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Age)
    name, where, rule = f"{part.at}Age", f"{element.resource}.{part.at}Age", element.rule(part)

    def judge(resource: Resource, findings: Findings) -> Read | None:
        age = resource.get(name, NOTHING)
        value = age.get("value")
        if value is None:
            return None
        if "comparator" in age:
            found = shown(f"{age['comparator']} {value}")
            findings.append(Finding("wrong-type", f"{where}.comparator", rule, found, _NO_BOUND))
        elif age.get("code", age.get("unit")) != "a":
            mend = "Write whole years, unit and code a (UCUM)."
            findings.append(Finding("unit-not-convertible", f"{where}.code", rule, _unit(age), mend))
        elif not kind.low <= value <= kind.high:
            mend = range_mend(kind.low, kind.high, "years")
            findings.append(Finding("value-out-of-range", f"{where}.value", rule, shown(value), mend))
        else:
            return str(value)
        return None

    return judge


def _whole(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Whole)
    name, where, rule = f"{part.at}Integer", f"{element.resource}.{part.at}Integer", element.rule(part)

    def judge(resource: Resource, findings: Findings) -> Read | None:
        value = resource.get(name)
        if value is not None and not kind.low <= value <= kind.high:
            findings.append(Finding(kind.beyond, where, rule, shown(value), range_mend(kind.low, kind.high)))
        return None if value is None else str(value)

    return judge


def _coded(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Coded)
    name = f"{part.at}CodeableConcept" if part.choice else part.at
    where, rule = f"{element.resource}.{name}", element.rule(part)
    word_of = {(c.system, c.code): word for word, meant in kind.values.items() for c in meant}
    mend = (
        "Write one of: " + "; ".join(f"{one_of(meant[:1])} for {word}" for word, meant in kind.values.items()) + "."
    )

    def judge(resource: Resource, findings: Findings) -> Read | None:
        concept = resource.get(name)
        if concept is None:
            return None
        found = codings(concept)
        words = {word_of[coding] for coding in found if coding in word_of}
        if len(words) == 1:
            return words.pop()
        quoted = ", ".join(f"{system}|{code}" for system, code in found) or concept
        findings.append(Finding("code-not-in-value-set", where, rule, shown(quoted), mend[:500]))
        return None

    return judge


def _flag(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Flag)
    wanted, at = pairs(kind.codings), part.at

    def judge(resource: Resource, findings: Findings) -> Read | None:
        said = any(not wanted.isdisjoint(codings(item.get("code", NOTHING))) for item in resource.get(at, ()))
        return "1" if said else "0"

    return judge


def _code(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Code)
    at, where, rule = part.at, f"{element.resource}.{part.at}", element.rule(part)
    known, mend = frozenset(kind.values.values()), f"Write one of: {', '.join(kind.values.values())}."

    def judge(resource: Resource, findings: Findings) -> Read | None:
        value: str | None = resource.get(at)
        if value is not None and value not in known:
            findings.append(Finding("code-not-in-value-set", where, rule, shown(value), mend))
        return value

    return judge


def _moment(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Moment)
    names = [(_typed_name(part, name), name == "Period") for name in kind.types]
    rule = element.rule(part)

    def judge(resource: Resource, findings: Findings) -> Read | None:
        for name, is_period in names:
            value = resource.get(name)
            moment: str | None = value.get("start") if is_period and value is not None else value
            if moment is None:
                continue
            where = f"{element.resource}.{name}" + (".start" if is_period else "")
            if no_such_day(moment):
                mend = "There is no such day; look the date up in the record."
                findings.append(Finding("date-invalid", where, rule, shown(moment), mend))
            elif len(moment) < _DAY_CHARS and not part.required:
                mend = "Give the day; a year or month alone is taken as no date."
                findings.append(Finding("date-invalid", where, f"{rule}-exact", shown(moment), mend, warning=True))
            return moment
        return None

    return judge


def _links(element: Element, part: Part) -> Judge:
    kind = part.kind
    assert isinstance(kind, Links)
    addresses, at = {kind.url, *kind.also}, part.at

    def judge(resource: Resource, findings: Findings) -> Read | None:
        return next((item["url"] for item in resource.get(at, ()) if item.get("url") in addresses), None)

    return judge


_JUDGES: Final[Mapping[type[Kind], Callable[[Element, Part], Judge]]] = {
    Quantity: _quantity, Whole: _whole, Coded: _coded, Flag: _flag, Code: _code, Moment: _moment, Age: _age,
    Links: _links,
}  # fmt: skip


# --- reading R4 ------------------------------------------------------------------------------------------


def codings(concept: Any) -> list[tuple[str | None, str | None]]:
    """(system, code) of a CodeableConcept, or of every one of a list of them."""
    if isinstance(concept, list):
        return [pair for one in concept for pair in codings(one)]
    return [(coding.get("system"), coding.get("code")) for coding in concept.get("coding", ())]


def typed(resource: Resource, at: str) -> str | None:
    """Which type a choice element has here, by its name in JSON ("valueQuantity")."""
    length = len(at)
    return next((name for name in resource if name.startswith(at) and name[length : length + 1].isupper()), None)


def _typed_name(part: Part, kind: str) -> str:
    return f"{part.at}{kind[0].upper()}{kind[1:]}" if part.choice else part.at


def type_of(part: Part) -> str:
    """What a part has to be written as, for a sentence."""
    if isinstance(part.kind, Moment):
        return " or ".join(part.kind.types)
    return {Quantity: "Quantity", Whole: "integer", Coded: "CodeableConcept", Age: "Age"}.get(
        type(part.kind), part.at
    )


def pairs(found: Iterable[Coding]) -> frozenset[tuple[str | None, str | None]]:
    return frozenset((coding.system, coding.code) for coding in found)


def one_of(found: Iterable[Coding]) -> str:
    return " or ".join(f"{coding.system}|{coding.code}" for coding in found)
