"""The entry's file: YAML that a steward writes; every error points at a line and says what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from flute.catalogue.entry import Category, Contact, Declaration, Described, EntryVariable, Organisation, coding
from flute.conformance.model import Coding
from flute.data.variables import Variable
from flute.errors import StudyFileError
from flute.study.files.lines import Form, Lines, convert, line_of, parse

__all__ = ["Lines", "entry_variables", "read_declaration"]

_SHOWN_CHARS: Final = 60
_WEB: Final = "write an address that begins with https://"
_ORGANISATION: Final = "write '{name: …, type: …, email: …}', for example 'type: inpatient-institute'"
_WRITE: Final = {
    "flute": "write 'flute: 1', which is the version of this file's form",
    "dataset": "write the dataset's name at this hub: letters, digits, '_', '.' and '-', a letter first",
    "address": f"{_WEB}: the entry's own lasting address, for example https://hospital.example.org/data/heart",
    "title": "write a text of 1 to 200 characters, in quotes if it is a number or a day",
    "description": "write what the dataset holds, in up to 2,000 characters",
    "keywords": "write a list of words people would search for, for example 'keywords: [heart, echo]'",
    "publisher": _ORGANISATION,
    "access_body": f"{_ORGANISATION}: the health data access body that supports access",
    "contact": "write '{email: …}' or '{page: …}': where questions about the dataset are answered",
    "name": "write a text of 1 to 200 characters",
    "type": "write a term of the Commission's list of publisher types: inpatient-institute, outpatient-institution, "
    "university, public-health-institute, national-authority, public-health-registry, non-gov-org, …",
    "email": "write an e-mail address, for example data@hospital.example.org",
    "page": _WEB,
    "note": "write a text of at most 500 characters",
    "access": "write '{rights: non-public, page: …, conditions: …}'",
    "rights": "write non-public, restricted or public",
    "conditions": "write under which conditions the data may be used, in up to 2,000 characters",
    "licence": _WEB,
    "legal_basis": "write on which legal ground the data are processed, in up to 2,000 characters",
    "purpose": "write what the data were collected for, in up to 2,000 characters",
    "population": "write who is in the dataset, in up to 2,000 characters",
    "provenance": "write where the records come from and what was done to them, in up to 2,000 characters",
    "period": "write 'period: {from: 2018-01-01, until: 2024-12-31}'",
    "from": "write a day, for example 2018-01-01",
    "until": "write a day, for example 2024-12-31",
    "category": "write a list of codes of EHDS article 51(1), for example 'category: [EHRS]'; there are "
    f"{', '.join(Category.__args__)}",  # type: ignore[attr-defined]
    "theme": "write a list of terms of the Commission's list of health themes, for example 'theme: [HEALTH_SYSTEMS]'",
    "ages": "write the lowest and the highest typical age in whole years, for example 'ages: [40, 90]'",
    "country": "write a list of three-letter country codes, for example 'country: [ESP]'",
    "language": "write a list of three-letter language codes, for example 'language: [ENG]'",
    "personal_data": "write a list of terms of the Data Privacy Vocabulary, for example 'personal_data: [Age]'",
    "standards": "write a list of terms of the Commission's list of standards, for example 'standards: [FHIR]'",
    "legislation": "write a list of addresses of laws, for example http://data.europa.eu/eli/reg/2025/327/oj",
    "retain_until": "write a day, for example 2035-12-31",
    "codes": "write a list such as '[\"http://loinc.org|8480-6|Systolic pressure\"]': system, bar, code",
}
"""What to write for each element."""
_FORM: Final = Form(
    file="catalogue entry",
    begins="flute: 1",
    page="docs/how-to/catalogue.md",
    write=_WRITE,
    named={
        ("variables", 1): "write each variable's name, and below it 'description' or 'codes'",
        ("variables", 2): "write for example '{description: …}' below the variable's name",
        ("variables", 3): "write what the column holds in up to 500 characters, or its codes as a list",
    },
)


def read_declaration(text: str, *, path: str) -> tuple[Declaration, Lines]:
    """What the file declares, and the line of every element (for later checks).

    Raises: StudyFileError: with the line, what is wrong and what to write."""
    try:
        document, lines = parse(text, _FORM)
        declared = _declared(document, lines)
        _check_fitting(declared, lines)
    except StudyFileError as error:
        raise StudyFileError(error.text, line=error.line, path=path) from error
    return declared, lines


def _declared(document: dict[Any, Any], lines: Lines) -> Declaration:
    """The variables are read one by one, so that what is wrong with one of them points at its own line."""
    head = {name: value for name, value in document.items() if name != "variables"}
    declared = convert(head, Declaration, (), lines, form=_FORM)
    block = document.get("variables", {})
    if not isinstance(block, dict):
        convert(block, Described, ("variables",), lines, form=_FORM)  # raises: it is no block
    said = {
        str(name): convert(raw, Described, ("variables", str(name)), lines, form=_FORM) for name, raw in block.items()
    }
    return msgspec.structs.replace(declared, variables=said)


def _check_fitting(declared: Declaration, lines: Lines) -> None:
    """What one element cannot know of another."""
    reached: tuple[tuple[str, Contact | Organisation], ...] = (
        ("publisher", declared.publisher), ("access_body", declared.access_body), ("contact", declared.contact),
    )  # fmt: skip
    for element, party in reached:
        if party.email is None and party.page is None:
            raise StudyFileError(
                f"{element} cannot be reached: write an 'email' or a 'page' below it.", line=line_of(lines, element)
            )
    if declared.period.until < declared.period.start:
        raise StudyFileError(
            f"period ends on {declared.period.until}, before it begins; write a later 'until'.",
            line=line_of(lines, "period", "until"),
        )
    if declared.ages is not None and declared.ages[1] < declared.ages[0]:
        raise StudyFileError("ages goes from a higher to a lower age; write the lower one first.",
                             line=line_of(lines, "ages"))  # fmt: skip
    if declared.retain_until is not None and declared.retain_until < declared.period.until:
        raise StudyFileError(
            f"retain_until is {declared.retain_until}, before the last record of the period; write a later day.",
            line=line_of(lines, "retain_until"),
        )


def entry_variables(
    declared: Declaration,
    variables: Sequence[Variable],
    lines: Lines,
    *,
    path: str,
    codes: Mapping[str, tuple[Coding, ...]],
) -> tuple[EntryVariable, ...]:
    """The dataset's own `variables` with what the file adds. `codes`: known otherwise, by variable.

    Raises: StudyFileError: the file describes a variable that the dataset lacks."""
    known = [v.name for v in variables]
    for name in declared.variables:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}."
            raise StudyFileError(
                f"variables: dataset {declared.dataset} has no variable {name[:_SHOWN_CHARS]!r}; {hint}",
                line=line_of(lines, "variables", name),
                path=path,
            )
    found = []
    for variable in variables:
        said = declared.variables.get(variable.name)
        own = tuple(coding(text) for text in said.codes) if said else ()
        found.append(EntryVariable(variable, said.description if said else "", own or codes.get(variable.name, ())))
    return tuple(found)
