"""How a common model is declared: elements of a person's record, each one FHIR R4 resource.

One declaration serves four ends, so that they cannot disagree: the StructureDefinition that is published, the
check that a resource meets before it is taken in, the resource that is built from a row of a table, and the
names that a mapping file may use. Nothing here knows any disease; a declaration is passed in.
Source: FHIR R4, StructureDefinition, Observation, Procedure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from flute.errors import MisuseError


@dataclass(frozen=True, slots=True)
class Coding:
    """A code of a code system. `display`: what people read; never compared."""

    system: str
    code: str
    display: str = ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured number. `unit`: UCUM code of the model's own unit. `accepted`: UCUM codes that are converted into
    it, others are refused. `spellings`: units as people type them where no code is given, to their UCUM code.
    `low`, `high`: what is possible at all, in `unit`, inclusive. `decimals`: digits that a profile may show."""

    unit: str
    accepted: tuple[str, ...]
    spellings: Mapping[str, str]
    low: Decimal
    high: Decimal
    decimals: int


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in [low, high]. `beyond`: the reason for one outside."""

    low: int
    high: int
    beyond: str = "value-out-of-range"


@dataclass(frozen=True, slots=True)
class Coded:
    """A choice. `values`: what a table says ("0", "1", …) to the codings that mean it; the first is written (all of
    `write_all`), every one is read."""

    values: Mapping[str, tuple[Coding, ...]]
    write_all: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes ("1") where one of `codings` stands in a repeating element, no ("0") where none of them does."""

    codings: tuple[Coding, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """A plain code of a required binding, for example Patient.gender. `values`: what a table says to the code."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Moment:
    """A date, or a date with a time and zone. `types`: FHIR types that the element may have, the first is written."""

    types: tuple[Literal["date", "dateTime", "instant", "Period"], ...]


@dataclass(frozen=True, slots=True)
class Age:
    """Whole years, UCUM `a`."""

    low: int = 0
    high: int = 130


@dataclass(frozen=True, slots=True)
class Links:
    """References to resources of other elements (by the elements' names), in an extension `url`."""

    url: str
    elements: tuple[str, ...]


Kind = Quantity | Whole | Coded | Flag | Code | Moment | Age | Links


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of an element: a column of a table, one FHIR element of the resource.

    `at`: the FHIR element; a choice element without its type ("value", "effective", "performed"). Parts with the
    same `at` exclude each other. `required`: refused without it.
    """

    name: str
    at: str
    kind: Kind
    required: bool = False
    requirement: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Element:
    """One thing that the common model records about a person, as one FHIR R4 resource.

    `subject`: the element that refers to the person; empty for the person himself. `status`: what is accepted,
    the first is written. `code`: codings of `code`, any of which makes a resource this element; all of
    `written` are written (the first of `code` where empty). `sites`: accepted bodySite codings, the first is
    written; `site_in_code`: codings of `code` that say the site themselves. `claims`: addresses of profiles of
    others that a written resource meets and may claim.
    """

    name: str
    title: str
    resource: str
    parts: tuple[Part, ...]
    subject: str = "subject"
    status: tuple[str, ...] = ()
    code: tuple[Coding, ...] = ()
    written: tuple[Coding, ...] = ()
    sites: tuple[Coding, ...] = ()
    site_in_code: tuple[Coding, ...] = ()
    modality: Coding | None = None
    claims: tuple[str, ...] = ()
    requirement: str = ""

    def part(self, name: str) -> Part:
        """Raises: MisuseError: the element has no such part."""
        for part in self.parts:
            if part.name == name:
                return part
        raise MisuseError(f"{self.name} has no part {name}; it has {', '.join(p.name for p in self.parts)}.")


@dataclass(frozen=True, slots=True)
class Model:
    """A common model: `person` is the element that all others refer to. `url`: stem of the addresses of what is
    generated from it; `version`: of the declaration."""

    name: str
    title: str
    url: str
    version: str
    person: Element
    elements: tuple[Element, ...]

    def element(self, name: str) -> Element:
        """Raises: MisuseError: the model has no such element."""
        for element in (self.person, *self.elements):
            if element.name == name:
                return element
        names = ", ".join(e.name for e in (self.person, *self.elements))
        raise MisuseError(f"The model {self.name} has no element {name}; it has {names}.")
