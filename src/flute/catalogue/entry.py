"""A catalogue entry: what a steward declares of a dataset, what the hub knows of its columns, what was released.

No field can hold a record. Numbers about the records come in through `Statistics` alone, which the hub makes
under noise and charges to its catalogue budget.
Source: HealthDCAT-AP (Release 8), properties of a dataset; Regulation (EU) 2025/327 (EHDS), articles 51, 77.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from flute.catalogue.statistics import Statistics
from flute.conformance.model import Coding
from flute.data.variables import Variable
from flute.messages.limits import Name

EHDS: Final = "http://data.europa.eu/eli/reg/2025/327/oj"
"""The law that a dataset for secondary use is described under, as the profile recommends."""

Web = Annotated[str, Meta(max_length=500, pattern=r"^https?://[^\s<>\"{}|\\^`]+\Z")]
Email = Annotated[str, Meta(max_length=254, pattern=r"^[^\s@<>]+@[^\s@<>]+\.[A-Za-z]{2,}\Z")]
Line = Annotated[str, Meta(min_length=1, max_length=200)]
Words = Annotated[str, Meta(min_length=1, max_length=2_000)]
Term = Annotated[str, Meta(min_length=2, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_-]*\Z")]
"""The last part of a term's address in one of the controlled vocabularies."""
Access = Literal["non-public", "restricted", "public"]
Category = Literal[
    "EHRS", "DIOH", "NRPE", "RPDG", "HRAD", "HGPD", "HPML", "PGEH", "WELA", "IDHP", "PHDR", "MRMR", "EHCT", "EMRD",
    "RMMD", "RQSH", "EINS",
]  # fmt: skip
"""The kinds of data of EHDS article 51(1), by the code of the Commission's list."""


class Contact(Struct, frozen=True, forbid_unknown_fields=True):
    """Where to ask; at least one of the two."""

    email: Email | None = None
    page: Web | None = None


class Organisation(Struct, frozen=True, forbid_unknown_fields=True):
    """`type`: of the Commission's list of publisher types, for example `inpatient-institute`."""

    name: Line
    type: Term
    email: Email | None = None
    page: Web | None = None
    note: Annotated[str, Meta(max_length=500)] = ""


class Period(Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from"}):
    start: date
    until: date


class Terms(Struct, frozen=True, forbid_unknown_fields=True):
    """How the data are to be had. `page`: where access is asked for."""

    rights: Access
    page: Web
    conditions: Words
    licence: Web | None = None


class Described(Struct, frozen=True, forbid_unknown_fields=True):
    """What a steward adds to a variable. `codes`: "SYSTEM|CODE" or "SYSTEM|CODE|what it says"."""

    description: Annotated[str, Meta(max_length=500)] = ""
    codes: Annotated[tuple[Annotated[str, Meta(min_length=3, max_length=500, pattern=r"^[^|\s]+\|[^|\s]+(\|.+)?\Z")],
                           ...], Meta(max_length=16)] = ()  # fmt: skip


class Declaration(Struct, frozen=True, forbid_unknown_fields=True):
    """What the steward says of a dataset: the whole of the entry's file. Nothing in it comes from records."""

    flute: Literal[1]
    dataset: Name
    address: Web
    """The entry's own lasting address; it identifies the dataset in every catalogue."""
    title: Line
    description: Words
    keywords: Annotated[tuple[Line, ...], Meta(min_length=1, max_length=50)]
    publisher: Organisation
    access_body: Organisation
    """The health data access body that supports access to the data."""
    contact: Contact
    access: Terms
    legal_basis: Words
    purpose: Words
    population: Words
    provenance: Words
    period: Period
    category: Annotated[tuple[Category, ...], Meta(min_length=1, max_length=17)]
    theme: Annotated[tuple[Term, ...], Meta(max_length=20)] = ()
    ages: tuple[Annotated[int, Meta(ge=0, le=130)], Annotated[int, Meta(ge=0, le=130)]] | None = None
    country: Annotated[tuple[Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")], ...], Meta(max_length=50)] = ()
    language: Annotated[tuple[Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")], ...], Meta(max_length=30)] = ("ENG",)
    personal_data: Annotated[tuple[Term, ...], Meta(max_length=50)] = ("HealthRecord",)
    standards: Annotated[tuple[Term, ...], Meta(max_length=20)] = ()
    legislation: Annotated[tuple[Web, ...], Meta(min_length=1, max_length=20)] = (EHDS,)
    retain_until: date | None = None
    variables: Mapping[str, Described] = {}


class EntryVariable(Struct, frozen=True, forbid_unknown_fields=True):
    """A column as the entry shows it."""

    variable: Variable
    description: str
    codes: tuple[Coding, ...] = ()

    @property
    def title(self) -> str:
        return self.variable.label or self.variable.name

    @property
    def text(self) -> str:
        """What the column holds, in one line: never empty."""
        v = self.variable
        kinds = {
            "number": f"A number from {v.low:g} to {v.high:g}{f' {v.unit}' if v.unit else ''}",
            "binary": "0 or 1",
            "category": f"One of: {', '.join(v.levels)}",
            "image": f"An image of {' x '.join(map(str, v.shape or ()))} numbers from {v.low:g} to {v.high:g}",
        }
        return ". ".join(part for part in (self.description or v.label, kinds[v.kind]) if part) + "."


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """`snapshot`: hexadecimal digest of the frozen records that are described, `imported`: when they were frozen."""

    declared: Declaration
    variables: tuple[EntryVariable, ...]
    snapshot: str
    imported: date
    simulated: bool
    statistics: Statistics | None = None

    @property
    def title(self) -> str:
        return f"SIMULATED: {self.declared.title}" if self.simulated else self.declared.title

    @property
    def description(self) -> str:
        if not self.simulated:
            return self.declared.description
        return f"SIMULATED records of nobody. {self.declared.description}"


def coding(text: str) -> Coding:
    """ "SYSTEM|CODE|display" as a coding."""
    system, code, *display = text.split("|", 2)
    return Coding(system, code, display[0] if display else "")
