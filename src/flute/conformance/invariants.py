"""A model's rules as FHIRPath: what the published profiles say where cardinality and bindings cannot.

They are written for a resource as their context and without functions of types, so that every validator that knows
FHIRPath at all gives the same verdict as `check`. What is recognised by its types alone (a choice that is neither
date nor age) stands in the profile as the types of the element.
Source: FHIRPath 2.0; FHIR R4, ElementDefinition.constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from flute.conformance.cells import range_mend, unit_mend
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


class Invariant(NamedTuple):
    """`human`: the sentence for people."""

    key: str
    human: str
    expression: str


def invariants(element: Element) -> Iterator[Invariant]:
    """The element's rules, in the order in which `check` judges them."""
    if element.status:
        words = " or ".join(element.status)
        yield Invariant(element.rule("status"), f"The status is {words}.", f"status in {_texts(element.status)}")
    if element.code:
        yield Invariant(element.rule("code"), "One of its codes says what it is.", _has("code", element.code))
    if element.modality is not None:
        one = f"modality.empty() or modality.where(code = {_text(element.modality.code)}).exists()"
        yield Invariant(element.rule("modality"), f"The modality is {element.modality.code}.", one)
    if element.sites:
        site = _has("bodySite", element.sites)
        if element.site_in_code:
            site = f"{site} or {_has('code', element.site_in_code)}"
        yield Invariant(element.rule("site"), "It says that it is about this part of the body.", site)
    for part in element.parts:
        for number, (human, expression) in enumerate(_INVARIANTS[type(part.kind)](part)):
            yield Invariant(element.rule(part) + (f"-{number + 1}" if number else ""), human, expression)


_Sentences = Iterator[tuple[str, str]]


def _quantity(part: Part) -> _Sentences:
    kind, at = part.kind, part.at
    assert isinstance(kind, Quantity)
    units = factors(kind)
    yield "There is a number.", f"{at}.value.exists()"
    yield "A bound (<, >) is no measurement.", f"{at}.comparator.empty()"
    foreign = f"{at}.code.empty() or {at}.system.empty() or {at}.system = {_text(UCUM)}"
    yield unit_mend(kind), f"({_unit_in(at, units)}) and ({foreign})"
    for value in dict.fromkeys(units.values()):
        number = f"{at}.value" if value == 1 else f"({at}.value * {value})"
        those = [unit for unit, factor in units.items() if factor == value]
        inside = f"({number} >= {kind.low} and {number} <= {kind.high})"
        yield range_mend(kind.low, kind.high, kind.unit), f"({_unit_in(at, those)}) implies {inside}"


def _unit_in(at: str, units: Iterable[str]) -> str:
    listed = _texts(units)
    return f"({at}.code.exists() and {at}.code in {listed}) or ({at}.code.empty() and {at}.unit in {listed})"


def _age(part: Part) -> _Sentences:
    kind, at = part.kind, part.at
    assert isinstance(kind, Age)
    inside = f"{at}.value >= {kind.low} and {at}.value <= {kind.high}"
    yield (
        "An age is stated in whole years (UCUM a).",
        f"{at}.value.exists() implies ({at}.comparator.empty() and ({_unit_in(at, ('a',))}) and {inside})",
    )


def _whole(part: Part) -> _Sentences:
    kind, at = part.kind, part.at
    assert isinstance(kind, Whole)
    inside = f"({at} >= {kind.low} and {at} <= {kind.high})"
    yield range_mend(kind.low, kind.high), f"{at}.exists() implies {inside}"


def _coded(part: Part) -> _Sentences:
    kind = part.kind
    assert isinstance(kind, Coded)
    said = " + ".join(f"iif({_has(part.at, meant)}, 1, 0)" for meant in kind.values.values())
    yield "Its codes mean exactly one of the choices.", f"{part.at}.empty() or ({said}) = 1"


def _code(part: Part) -> _Sentences:
    kind = part.kind
    assert isinstance(kind, Code)
    yield "The word is one of the choices.", f"{part.at}.empty() or {part.at} in {_texts(kind.values.values())}"


def _none(part: Part) -> _Sentences:
    yield from ()


_INVARIANTS: Final[Mapping[type[Kind], Callable[[Part], _Sentences]]] = {
    Quantity: _quantity, Whole: _whole, Coded: _coded, Flag: _none, Code: _code, Moment: _none, Age: _age,
    Links: _none,
}  # fmt: skip


def _has(at: str, found: Iterable[Coding]) -> str:
    either = " or ".join(f"(system = {_text(c.system)} and code = {_text(c.code)})" for c in found)
    return f"{at}.coding.where({either}).exists()"


def _texts(values: Iterable[str]) -> str:
    return "(" + " | ".join(_text(value) for value in values) + ")"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
