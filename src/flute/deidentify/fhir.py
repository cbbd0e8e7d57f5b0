"""A FHIR resource without what says whose it is: built anew from the elements that the table of `classes` lists.

Guarantees: no element, extension or sub-element that is not listed is in the result; no text of any kind (narrative,
display, note, `text` of a concept, string values) is; every id and reference is a keyed name, the same for the same
original in every resource; every date is moved by the patient's shift or turned to his age; ages from AGE_CAP on are
AGE_CAP. A resource whose type is not listed, or that does not say which patient it is about, is not released.
Codes of other than public terminologies go: a local code names the hospital. Numbers stay as they are.
Source: FHIR R4; ISO 25237.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal

from flute.defaults.records import AGE_CAP
from flute.deidentify.classes import (
    PUBLIC_PROFILES,
    PUBLIC_SYSTEMS,
    UCUM,
    Element,
    Treatment,
    fhir_elements,
    is_unit,
)
from flute.deidentify.dates import Shift, age_at, day_of, shift_fhir, shift_of
from flute.deidentify.pseudonyms import object_uid, resource_name
from flute.deidentify.withheld import Withheld
from flute.deidentify.words import tokens

Resource = dict[str, Any]
AGE_EXTENSION: Final = "urn:x-flute:extension:age"
"""On a date that was turned to an age, where FHIR has no element for the age itself."""
_MASKED: Final = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}
_SOP_CLASS: Final = re.compile(r"urn:oid:1\.2\.840\.10008\.5\.1\.4\.[\d.]{1,40}")
_STUDY_UID: Final = "urn:dicom:uid"
_OID: Final = "urn:oid:"
_REFERENCE: Final = re.compile(
    r"(?:^|/)([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?\Z"
)
"""Relative, absolute, versioned; the server's address goes."""
_WORD: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_CODE: Final = re.compile(r"[A-Za-z0-9.\-_/:+%*^'\[\]#]{1,64}")
_COMPARATORS: Final = frozenset({"<", "<=", ">=", ">"})
_EXTENSION_VALUES: Final[Mapping[Treatment, str]] = {
    "reference": "valueReference", "concept": "valueCodeableConcept", "coding": "valueCoding", "code": "valueCode",
    "quantity": "valueQuantity", "date": "valueDateTime",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FhirRules:
    """How resources are de-identified. `key`: 32 bytes. `today`: for ages that a birth date tells. `extensions`: the
    treatment of each extension that may stay, by URL. `profiles`: how names of profiles begin that may stay."""

    key: bytes = field(repr=False)
    today: date
    dates: Literal["shift", "ages"] = "shift"
    systems: tuple[str, ...] = PUBLIC_SYSTEMS
    extensions: Mapping[str, Treatment] = field(default_factory=dict)
    profiles: tuple[str, ...] = PUBLIC_PROFILES


@dataclass(frozen=True, slots=True)
class Person:
    """What a Patient resource says that other resources need. `forbidden`: words that name him, lower case."""

    birth: date | None = None
    forbidden: frozenset[str] = field(default=frozenset(), repr=False)


NOBODY: Final = Person()


def person_of(patient: Mapping[str, Any]) -> Person:
    """Birth date and names of a Patient resource."""
    birth = patient.get("birthDate")
    named = [patient.get(name) for name in ("name", "identifier", "telecom", "address", "contact", "id")]
    words = {word for word in tokens(_texts(named)) if len(word) > (4 if word.isdigit() else 3)}
    return Person(day_of(birth) if isinstance(birth, str) else None, frozenset(words))


def subject_of(resource: Mapping[str, Any]) -> str | None:
    """The id of the patient that a resource is about, as the source spells it; None where it names none."""
    if resource.get("resourceType") == "Patient":
        return resource["id"] if isinstance(resource.get("id"), str) else None
    for name in ("subject", "patient"):
        found = resource.get(name)
        kind, _, key = (_target(found) or "").partition("/")
        if kind == "Patient":
            return key
    return None


def deidentified(
    resource: Mapping[str, Any], rules: FhirRules, person: Person = NOBODY
) -> tuple[Resource, Counter[str]]:
    """De-identify one resource of a person. Gives the new resource, and how many elements did not pass, by why.

    Raises: Withheld: its type is not listed, or it does not say which patient it is about.
    """
    kind = str(resource.get("resourceType"))
    elements = fhir_elements().get(kind)
    if elements is None:
        raise Withheld(
            "type-not-listed", "Resources of its type are not released; the table of elements lists those that are."
        )
    subject = subject_of(resource)
    if subject is None:
        raise Withheld("no-patient", "It does not say which patient it is about, so no pseudonym and no shift fits.")
    work = _Work(rules, person, kind, shift_of(rules.key, subject), Counter())
    result: Resource = {"resourceType": kind} | work.group(resource, elements, top=True)
    work.mark(result)
    return result, work.dropped


@dataclass(frozen=True, slots=True)
class _Work:
    """One resource on its way. Each treatment gives what stays of a value, or None."""

    rules: FhirRules
    person: Person
    kind: str
    shift: Shift
    dropped: Counter[str]

    def group(self, source: Mapping[str, Any], elements: Mapping[str, Element], *, top: bool = False) -> Resource:
        result: Resource = {}
        for name, value in source.items():
            element = elements.get(name)
            if element is None:
                if name != "resourceType" or not top:
                    self._extension_or_nothing(name, value, result)
            elif self.rules.dates == "ages" and element.treatment in ("date", "birth"):
                self._aged(name, value, result)
            else:
                self._put(result, name, self._kept(element, value, source))
        return result

    def _kept(self, element: Element, value: Any, source: Mapping[str, Any]) -> Any:
        if isinstance(value, list):
            kept = [one for item in value if (one := self._kept(element, item, source)) is not None]
            return kept or None
        match element.treatment:
            case "group":
                return self.group(value, element.inner) or None if isinstance(value, dict) else None
            case "id":
                return resource_name(self.rules.key, self.kind, value) if isinstance(value, str) else None
            case "birth":
                return self._birth(value, source)
        return _TREATMENTS[element.treatment](self, value)

    def _put(self, result: Resource, name: str, kept: Any) -> None:
        if kept is None:
            self.dropped["value"] += 1
        elif name == "deceasedDateTime" and kept is True:
            result["deceasedBoolean"] = True
        elif name == "birthDate" and kept is _MASKED:
            result["_birthDate"] = {"extension": [_MASKED]}
        else:
            result[name] = kept

    def _extension_or_nothing(self, name: str, value: Any, result: Resource) -> None:
        """Listed extensions, each with the one kind of value that is listed for it; nothing else that is unknown."""
        kept = []
        for item in value if name == "extension" and isinstance(value, list) else ():
            url = item.get("url") if isinstance(item, dict) else None
            treatment = self.rules.extensions.get(url) if isinstance(url, str) else None
            if treatment is not None and _EXTENSION_VALUES[treatment] in item:
                inner = _TREATMENTS[treatment](self, item[_EXTENSION_VALUES[treatment]])
                if inner is not None:
                    kept.append({"url": url, _EXTENSION_VALUES[treatment]: inner})
        if kept:
            result["extension"] = kept
        else:
            self.dropped["not-listed"] += 1

    # --- dates ----------------------------------------------------------------------------------------

    def date(self, value: Any) -> Any:
        return shift_fhir(value, self.shift) if isinstance(value, str) else None

    def period(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return None
        return self.group(value, {"start": _DATE, "end": _DATE}) or None

    def deceased(self, value: Any) -> Any:
        return True if self.rules.dates == "ages" else self.date(value)

    def _birth(self, value: Any, source: Mapping[str, Any]) -> Any:
        """The birth date moved; masked for whoever is, or was when he died, of the last age group."""
        birth = _middle(value)
        died = _middle(source.get("deceasedDateTime"))
        if birth is None:
            return None
        years = age_at(birth, min(died or self.rules.today, self.rules.today))
        return _MASKED if years is None or years >= AGE_CAP else self.date(value)

    def _aged(self, name: str, value: Any, result: Resource) -> None:
        """An age in place of a date: FHIR's own element where there is one, an extension elsewhere."""
        day = day_of(value) if isinstance(value, str) else None
        years = age_at(self.person.birth, day) if self.person.birth and day and name != "birthDate" else None
        if years is None:
            self.dropped["date"] += 1
            return
        age = {"value": years, "unit": "a", "system": UCUM, "code": "a"}
        base = name.removesuffix("DateTime")
        if f"{base}Age" in fhir_elements()[self.kind]:
            result[f"{base}Age"] = age
        else:
            result[f"_{name}"] = {"extension": [{"url": AGE_EXTENSION, "valueAge": age}]}

    # --- names ----------------------------------------------------------------------------------------

    def reference(self, value: Any) -> Any:
        kind, _, name = (_target(value) or "").partition("/")
        if kind not in fhir_elements():
            return None
        return {"reference": f"{kind}/{resource_name(self.rules.key, kind, name)}"}

    def uid(self, value: Any) -> Any:
        if not isinstance(value, str):
            return None
        bare = value.removeprefix(_OID)
        return value[: len(value) - len(bare)] + object_uid(self.rules.key, bare)

    def uids(self, value: Any) -> Any:
        """A DICOM study's identifier; no other identifier."""
        if not isinstance(value, dict) or value.get("system") != _STUDY_UID:
            return None
        return {"system": _STUDY_UID, "value": self.uid(value.get("value"))}

    def meta(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return None
        profiles = [p for p in _strings(value.get("profile")) if p.startswith(self.rules.profiles) and self._safe(p)]
        kept: Resource = {"profile": profiles} if profiles else {}
        for name in ("tag", "security"):
            codings = [c for item in _list(value.get(name)) if (c := self.coding(item)) is not None]
            kept |= {name: codings} if codings else {}
        return kept or None

    # --- codes and numbers ------------------------------------------------------------------------------

    def coding(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return None
        system, code = value.get("system"), value.get("code")
        if not isinstance(system, str) or not isinstance(code, str):
            return None
        if _SOP_CLASS.fullmatch(code):
            return {"system": "urn:ietf:rfc:3986", "code": code}
        public = system.startswith(self.rules.systems) and self._safe(system)
        return {"system": system, "code": code} if public and _CODE.fullmatch(code) and self._safe(code) else None

    def concept(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return None
        codings = [c for item in _list(value.get("coding")) if (c := self.coding(item)) is not None]
        return {"coding": codings} if codings else None

    def code(self, value: Any) -> Any:
        return value if isinstance(value, str) and _WORD.fullmatch(value) and self._safe(value) else None

    def plain(self, value: Any) -> Any:
        number = isinstance(value, (bool, int, float, Decimal))
        return value if number and self._safe(str(value)) else None

    def quantity(self, value: Any) -> Any:
        if not isinstance(value, dict) or (number := self.plain(value.get("value"))) is None:
            return None
        kept: Resource = {"value": number}
        if isinstance(value.get("comparator"), str) and value["comparator"] in _COMPARATORS:
            kept["comparator"] = value["comparator"]
        unit, code = value.get("unit"), value.get("code")
        if isinstance(unit, str) and is_unit(unit):
            kept["unit"] = unit
        if value.get("system") == UCUM and isinstance(code, str) and _CODE.fullmatch(code) and self._safe(code):
            kept |= {"system": UCUM, "code": code}
        if kept.get("code") == "a" or str(unit).lower() in ("a", "y", "years", "year"):
            kept["value"] = min(number, AGE_CAP)
        return kept

    def range(self, value: Any) -> Any:
        return self._quantities(value, ("low", "high"))

    def ratio(self, value: Any) -> Any:
        return self._quantities(value, ("numerator", "denominator"))

    def _quantities(self, value: Any, names: tuple[str, ...]) -> Any:
        if not isinstance(value, dict):
            return None
        return {n: kept for n in names if n in value and (kept := self.quantity(value[n])) is not None} or None

    def _safe(self, text: str) -> bool:
        """Whether none of its words or numbers is one that names the patient."""
        return not self.person.forbidden & tokens([text])

    def mark(self, result: Resource) -> None:
        """Say in the resource that its names are pseudonyms (HL7 v3 ObservationValue)."""
        meta = result.setdefault("meta", {})
        label = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "PSEUDED"}
        meta["security"] = [c for c in meta.get("security", []) if c != label] + [label]


_DATE: Final = Element("date", "quasi-identifier", {})
_TREATMENTS: Final[Mapping[str, Any]] = {
    "reference": _Work.reference, "subject": _Work.reference, "coding": _Work.coding, "concept": _Work.concept,
    "quantity": _Work.quantity, "range": _Work.range, "ratio": _Work.ratio, "code": _Work.code, "plain": _Work.plain,
    "date": _Work.date, "deceased": _Work.deceased, "period": _Work.period, "uid": _Work.uid, "uids": _Work.uids,
    "meta": _Work.meta,
}  # fmt: skip


def _target(reference: Any) -> str | None:
    """ "Type/id" that a Reference points to."""
    text = reference.get("reference") if isinstance(reference, dict) else None
    found = _REFERENCE.search(text) if isinstance(text, str) else None
    return f"{found[1]}/{found[2]}" if found else None


def _middle(text: Any) -> date | None:
    """A date, or the middle of the month or year that is named."""
    moved = shift_fhir(text[:10], Shift(0, 0)) if isinstance(text, str) else None
    return (
        None if moved is None else date.fromisoformat((moved + "-07-01" if len(moved) == 4 else moved + "-15")[:10])
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    return [item for item in _list(value) if isinstance(item, str)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in ("system", "use", "type", "gender", "period"):
                yield from _texts(inner)
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)
