"""How a common model is declared: elements of a person's record, each one FHIR R4 resource.

One declaration serves four ends, so that they cannot disagree: the StructureDefinition that is published, the
check that a resource meets before it is taken in, the resource that is built from a row of a table, and the
names that a mapping file may use. Nothing here knows any disease; a declaration is passed in, as a value that can be
written as JSON: the hub gets it from its owner's command line together with the recipe.
Source: FHIR R4, StructureDefinition, Observation, Procedure.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from flute.errors import MisuseError

UCUM: Final = "http://unitsofmeasure.org"


class Coding(Struct, frozen=True, forbid_unknown_fields=True):
    """A code of a code system. `display`: what people read in our own pages. It is not the code system's
    name for the code (some of those mislead here), so it is never written into a resource, nor compared."""

    system: str
    code: str
    display: str = ""


class Quantity(Struct, frozen=True, forbid_unknown_fields=True, tag="quantity"):
    """A measured number. `unit`: UCUM code of the model's own unit. `accepted`: UCUM codes that are converted into
    it, others are refused. `spellings`: units as people type them where no code is given, to their UCUM code.
    `low`, `high`: what is possible at all, in `unit`, inclusive. `decimals`: digits that a profile may show.
    `labels`: what is written for people beside a UCUM code, where that is not the code itself."""

    unit: str
    accepted: tuple[str, ...]
    spellings: Mapping[str, str]
    low: Decimal
    high: Decimal
    decimals: int
    labels: Mapping[str, str] = {}


class Whole(Struct, frozen=True, forbid_unknown_fields=True, tag="whole"):
    """A whole number in [low, high]. `beyond`: the reason for one outside."""

    low: int
    high: int
    beyond: str = "value-out-of-range"


class Coded(Struct, frozen=True, forbid_unknown_fields=True, tag="coded"):
    """A choice. `values`: what a table says ("0", "1", …) to the codings that mean it; the first is written (all of
    `write_all`), every one is read."""

    values: Mapping[str, tuple[Coding, ...]]
    write_all: bool = False


class Flag(Struct, frozen=True, forbid_unknown_fields=True, tag="flag"):
    """Yes ("1") where one of `codings` stands in a repeating element, no ("0") where none of them does."""

    codings: tuple[Coding, ...]


class Code(Struct, frozen=True, forbid_unknown_fields=True, tag="code"):
    """A plain code of a required binding, for example Patient.gender. `values`: what a table says to the code."""

    values: Mapping[str, str]


class Moment(Struct, frozen=True, forbid_unknown_fields=True, tag="moment"):
    """A date, or a date with a time and zone. `types`: FHIR types that the element may have, the first is written."""

    types: tuple[Literal["date", "dateTime", "instant", "Period"], ...]


class Age(Struct, frozen=True, forbid_unknown_fields=True, tag="age"):
    """Whole years, UCUM `a`."""

    low: int = 0
    high: int = 130


class Links(Struct, frozen=True, forbid_unknown_fields=True, tag="links"):
    """References to resources of other elements (by the elements' names), in an extension `url`. `also`: addresses
    of the same extension that are read as well, never written."""

    url: str
    elements: tuple[str, ...]
    also: tuple[str, ...] = ()


CHOICES: Final = frozenset((
    "abatement", "age", "born", "deceased", "effective", "multipleBirth", "occurrence", "onset", "performed", "value",
))  # fmt: skip
"""Elements of R4 that are written with their type behind them (`value[x]` as `valueQuantity`)."""
Kind = Quantity | Whole | Coded | Flag | Code | Moment | Age | Links


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """One piece of an element: a column of a table, one FHIR element of the resource.

    `at`: the FHIR element; a choice element without its type ("value", "effective", "performed"). Parts with the
    same `at` exclude each other. `required`: refused without it, or without another part with the same `at`.
    """

    name: str
    at: str
    kind: Kind
    required: bool = False
    requirement: str = ""
    note: str = ""

    @property
    def choice(self) -> bool:
        """Its FHIR element is a choice of types."""
        return self.at in CHOICES


class Element(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that the common model records about a person, as one FHIR R4 resource.

    `subject`: the element that refers to the person; empty for the person himself. `status`: what is accepted,
    the first is written. `code`: codings of `code`, any of which makes a resource this element; all of
    `written` are written (the first of `code` where empty). `sites`: accepted bodySite codings, the first is
    written; `site_in_code`: codings of `code` that say the site themselves. `claims`: addresses of profiles of
    others that a written resource meets and may claim, if its quantities are in the model's unit and no finer than
    `decimals`, and `claim_if` holds: for a part's name the values under which it does (none given: any value).
    `always`: what FHIR demands and no table says (element to coding); written, never checked.
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
    claim_if: Mapping[str, tuple[str, ...]] = {}
    always: Mapping[str, Coding] = {}
    requirement: str = ""

    @property
    def slug(self) -> str:
        """The name as ids are written: letters, digits, hyphens."""
        return self.name.replace("_", "-")

    def rule(self, part: Part | str) -> str:
        """The id of the rule about a part, in findings and in what is published."""
        return f"{self.slug}-{part if isinstance(part, str) else part.name}".replace("_", "-")

    def part(self, name: str) -> Part:
        """Raises: MisuseError: the element has no such part."""
        for part in self.parts:
            if part.name == name:
                return part
        raise MisuseError(f"{self.name} has no part {name}; it has {', '.join(p.name for p in self.parts)}.")


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """A common model: `person` is the element that all others refer to. `url`: stem of the addresses of what is
    generated from it, with its last colon or slash; `version`: of the declaration."""

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
