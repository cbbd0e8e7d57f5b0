"""A FHIR R4 resource from the values of a row of a table: the way of SQL, CSV and OMOP into the common model.

A value that does not fit is refused with a finding. `check` refuses what `build` would not have made.
Source: FHIR R4 (Observation, Procedure, FamilyMemberHistory, ImagingStudy, Patient; datatypes), UCUM.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from flute.conformance.cells import (
    Cell,
    Measured,
    Unfit,
    as_date,
    as_number,
    as_word,
    is_blank,
    plain,
    range_mend,
    unit_mend,
)
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
    Quantity,
    Whole,
)
from flute.conformance.units import factors
from flute.data.findings import Finding, shown
from flute.errors import MisuseError

Resource = dict[str, Any]
ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")
_REFERENCE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64}\Z")
PERSON: Final = "Patient"
REPEATING: Final = frozenset((("Procedure", "bodySite"),))
"""Of what is written here, the elements that R4 lets repeat in one resource type and not in another."""


def says_nothing(element: Element, values: Mapping[str, object]) -> bool:
    """The row has nothing to record under this element, as in a wide table where the man was not examined.

    That is: no required part has a value (no part at all, where none is required). A row with some required part
    and without another says something, and is refused by `build`.
    """
    wanted = [part for part in element.parts if part.required] or element.parts
    return all(is_blank(values.get(part.name)) for part in wanted)


def build(element: Element, key: str, subject: str, values: Mapping[str, object]) -> Resource:
    """The resource `key` of `element` about the person `subject` (an id; for the person himself it is not used).

    `values`: by the parts' names, as a table has them. A quantity: `Measured`, or a bare number in the model's
    unit. A choice or code: the model's word for it ("0", "initial"). A date: `date`, `datetime`, or ISO 8601 text;
    a time without a zone cannot be written in FHIR, so its day is kept. Links: references ("Observation/7").
    Where two parts exclude each other, the one declared first is taken. Digits and unit stay as they are given.

    Raises: Unfit: a value does not fit, or a required part has none. MisuseError: a part that the element lacks.
    Source: FHIR R4, the resource types named above.
    """
    unknown = sorted(set(values) - {part.name for part in element.parts})
    if unknown:
        raise MisuseError(f"The element {element.name} has no part {', '.join(unknown)}.")
    resource = _frame(element, key, subject)
    read: dict[str, Read] = {}
    taken: set[str] = set()
    for part in element.parts:
        value = values.get(part.name)
        if part.at not in taken and not is_blank(value):
            taken.add(part.at)
            name, written, read[part.name] = _WRITERS[type(part.kind)](Cell(element, part), value)
            if written is not None:
                resource[f"{part.at}{name}" if part.choice else part.at] = written
    for part in element.parts:
        if part.required and part.at not in taken:
            names = " or ".join(p.name for p in element.parts if p.at == part.at)
            raise Cell(element, part).unfit("required-element-missing", "", f"Give a value for {names}.")
    if element.claims and meets_claims(element, read):
        resource["meta"] = {"profile": list(element.claims)}
    return resource


Read = Measured | str
"""What a part says, once it was understood: a number with its UCUM code, or a word of the model, or a date."""


def meets_claims(element: Element, read: Mapping[str, Read]) -> bool:
    """Whether a resource with these parts meets the profiles of others that `element` names."""
    for name, values in element.claim_if.items():
        if name not in read or (values and read[name] not in values):
            return False
    for part in element.parts:
        value = read.get(part.name)
        if isinstance(part.kind, Quantity) and isinstance(value, Measured):
            exact = Decimal(str(value.number)).normalize()
            if value.unit != part.kind.unit or -int(exact.as_tuple().exponent) > part.kind.decimals:
                return False
    return True


# --- the resource around the values ---------------------------------------------------------------


def _frame(element: Element, key: str, subject: str) -> Resource:
    for name, value in (("id", key), *([(element.subject, subject)] if element.subject else [])):
        if not isinstance(value, str) or not ID.match(value):
            mend = "Use at most 64 letters, digits, hyphens and dots; map other keys to such ones."
            raise Unfit(Finding("id-invalid", f"{element.resource}.{name}", element.rule(name), shown(value), mend))
    resource: Resource = {"resourceType": element.resource, "id": key}
    if element.status:
        resource["status"] = element.status[0]
    if element.modality is not None:
        resource["modality"] = [_coding(element.modality)]
    if element.code:
        resource["code"] = _concept(element.written or element.code[:1])
    if element.subject:
        resource[element.subject] = {"reference": f"{PERSON}/{subject}"}
    if element.sites:
        site = _concept(element.sites[:1])
        resource["bodySite"] = [site] if (element.resource, "bodySite") in REPEATING else site
    return resource | {name: _concept((coding,)) for name, coding in element.always.items()}


def _coding(coding: Coding) -> dict[str, str]:
    return {"system": coding.system, "code": coding.code}


def _concept(codings: Iterable[Coding]) -> dict[str, Any]:
    return {"coding": [_coding(coding) for coding in codings]}


# --- values: type suffix of the FHIR element, what is written, what it says -----------------------

_Written = tuple[str, Any, Read]


@lru_cache(maxsize=100)
def _factors(unit: str, accepted: tuple[str, ...]) -> Mapping[str, Decimal]:
    return factors(Quantity(unit, accepted, {}, Decimal(0), Decimal(0), 0))


def _quantity(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Quantity)
    measured = value if isinstance(value, Measured) else Measured(value)
    number = as_number(cell, measured.number)
    spelt = plain(measured.unit) or kind.unit
    unit = spelt if spelt in kind.accepted else kind.spellings.get(spelt)
    if unit is None:
        raise cell.unfit("unit-not-convertible", spelt, unit_mend(kind))
    if not kind.low <= number * _factors(kind.unit, kind.accepted)[unit] <= kind.high:
        raise cell.unfit("value-out-of-range", f"{number} {unit}", range_mend(kind.low, kind.high, kind.unit))
    written = {"value": _plain(number), "unit": kind.labels.get(unit, unit), "system": UCUM, "code": unit}
    return "Quantity", written, Measured(number, unit)


def _age(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Age)
    number = as_number(cell, value)
    if not kind.low <= number <= kind.high:
        raise cell.unfit("value-out-of-range", number, range_mend(kind.low, kind.high, "years"))
    return "Age", {"value": _plain(number), "unit": "a", "system": UCUM, "code": "a"}, str(number)


def _whole(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Whole)
    number = as_number(cell, value)
    if number != number.to_integral_value():
        raise cell.unfit("wrong-type", value, "Write a whole number.")
    if not kind.low <= number <= kind.high:
        raise cell.unfit(kind.beyond, value, range_mend(kind.low, kind.high))
    return "Integer", int(number), str(int(number))


def _coded(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Coded)
    word = as_word(cell, value, kind.values)
    codings = kind.values[word]
    return "CodeableConcept", _concept(codings if kind.write_all else codings[:1]), word


def _flag(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Flag)
    word = as_word(cell, value, ("0", "1"))
    return "", [{"code": _concept(kind.codings[:1])}] if word == "1" else None, word


def _code(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Code)
    word = as_word(cell, value, kind.values)
    return "Code", kind.values[word], word


def _moment(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Moment)
    moment = as_date(cell, value)
    if kind.types[0] == "date":
        moment = moment[:10]
    return f"{kind.types[0][0].upper()}{kind.types[0][1:]}", moment, moment


def _links(cell: Cell, value: object) -> _Written:
    kind = cell.part.kind
    assert isinstance(kind, Links)
    references = [value] if isinstance(value, str) else value
    if not isinstance(references, tuple | list) or not all(_REFERENCE.match(plain(r)) for r in references):
        raise cell.unfit("wrong-type", value, "Give references such as Observation/7.")
    written = [{"url": kind.url, "valueReference": {"reference": plain(r)}} for r in references]
    return "", written, " ".join(plain(r) for r in references)


_WRITERS: Final[Mapping[type[Kind], Callable[[Cell, object], _Written]]] = {
    Quantity: _quantity, Whole: _whole, Coded: _coded, Flag: _flag, Code: _code, Moment: _moment, Age: _age,
    Links: _links,
}  # fmt: skip


def _plain(number: Decimal) -> int | float:
    """As JSON has it; a whole number stays one."""
    return int(number) if number == number.to_integral_value() else float(number)
