"""The common model as FHIR R4 documents: a profile per element, value sets, code systems of ours, a logical model.

Profiles are published as differentials; a tool that needs snapshots makes them from R4's own definitions. The logical
model has both, since all of its elements are its own. Everything comes from the declaration: what is published is
what is checked.
Source: FHIR R4, StructureDefinition, ElementDefinition, ValueSet, CodeSystem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from flute.conformance.invariants import invariants
from flute.conformance.model import (
    UCUM,
    Age,
    Code,
    Coded,
    Coding,
    Element,
    Flag,
    Links,
    Model,
    Moment,
    Part,
    Quantity,
    Whole,
)

Document = dict[str, Any]
FHIR_VERSION: Final = "4.0.1"
PUBLISHER: Final = "FLUTE"
_R4: Final = "http://hl7.org/fhir/StructureDefinition/"
_ORDER: Final = (
    "extension", "status", "modality", "category", "code", "subject", "patient", "relationship", "gender",
    "birthDate", "started", "effective[x]", "performed[x]", "value[x]", "bodySite", "outcome", "condition",
)  # fmt: skip
"""In R4's definitions, elements that declarations use stand in this order; a differential keeps it."""


def documents(model: Model) -> list[Document]:
    """Every document of the model: profiles, logical model, value sets, code systems; the same bytes every time.

    Raises: MisuseError: the declaration contradicts itself.
    """
    elements = (model.person, *model.elements)
    sets = [document for element in elements for document in _value_sets(model, element)]
    return [*(profile(model, element) for element in elements), logical_model(model), *sets, *_code_systems(model)]


def address(model: Model, kind: str, name: str) -> str:
    """The canonical address of a document. `kind`: its resource type."""
    return f"{model.url}{kind.lower()}:{name}"


# --- profiles ------------------------------------------------------------------------------------------


def profile(model: Model, element: Element) -> Document:
    """The profile that a resource of this element meets exactly where `check` has nothing against it, up to what
    `docs/reference/common-model.md` lists."""
    rows = {row["path"].partition(".")[2]: row for row in _rows(model, element)}
    ordered = sorted(rows, key=lambda path: (_place(path), path.count(".")))
    root: Document = {"id": element.resource, "path": element.resource, "short": element.title}
    rules = [
        {"key": i.key, "severity": "error", "human": i.human, "expression": i.expression} for i in invariants(element)
    ]
    if rules:
        root["constraint"] = rules
    return {
        **_head(model, "StructureDefinition", element.slug, element.title),
        "fhirVersion": FHIR_VERSION,
        "kind": "resource",
        "abstract": False,
        "type": element.resource,
        "baseDefinition": f"{_R4}{element.resource}",
        "derivation": "constraint",
        "differential": {"element": [root, *(rows[path] for path in ordered)]},
    }


def _place(path: str) -> int:
    first = path.partition(".")[0]
    return _ORDER.index(first) if first in _ORDER else len(_ORDER)


def _rows(model: Model, element: Element) -> Iterator[Document]:
    kind = element.resource
    if element.status:
        yield _row(kind, "status", 1, "1")
    if element.code:
        yield _row(kind, "code", 1, "1") | _binding(model, element, "code")
    if element.modality is not None:
        yield _row(kind, "modality", 0, "*")
    if element.sites:
        yield _row(kind, "bodySite", 0 if element.site_in_code else 1, "") | _binding(model, element, "site")
    if element.subject:
        yield _row(kind, element.subject, 1, "1")
        yield _row(kind, f"{element.subject}.reference", 1, "1")
    for at in dict.fromkeys(part.at for part in element.parts):
        yield _part_row(model, element, [part for part in element.parts if part.at == at])


def _row(kind: str, path: str, least: int, most: str) -> Document:
    row: Document = {"id": f"{kind}.{path}", "path": f"{kind}.{path}"}
    if least:
        row["min"] = least
    return (row | {"max": most} if most == "1" else row) | {"mustSupport": True}


def _part_row(model: Model, element: Element, parts: list[Part]) -> Document:
    first = parts[0]
    required = any(part.required for part in parts) and not isinstance(first.kind, Flag)
    row = _row(
        element.resource, f"{first.at}[x]" if first.choice else first.at, int(required), "1" if required else ""
    )
    notes = " ".join(dict.fromkeys(part.note for part in parts if part.note))
    row |= {"comment": notes} if notes else {}
    needs = ", ".join(dict.fromkeys(part.requirement for part in parts if part.requirement))
    row |= {"requirements": needs} if needs else {}
    if first.choice and required:
        row["type"] = [{"code": code} for part in parts for code in _types(part)]
    if isinstance(first.kind, Coded):
        return row | _binding(model, element, first.name)
    return row | (_binding(model, element, "unit", "extensible") if isinstance(first.kind, Quantity) else {})


def _types(part: Part) -> tuple[str, ...]:
    kind = part.kind
    if isinstance(kind, Moment):
        return kind.types
    return (_TYPES[type(kind)],)


_TYPES: Final[dict[type, str]] = {
    Quantity: "Quantity", Whole: "integer", Coded: "CodeableConcept", Flag: "boolean", Code: "code", Age: "Age",
    Links: "Reference",
}  # fmt: skip


def _binding(model: Model, element: Element, name: str, strength: str = "required") -> Document:
    """Of a quantity, the unit is bound: not required, since common spellings of units are read too."""
    return {"binding": {"strength": strength, "valueSet": address(model, "ValueSet", f"{element.slug}-{name}")}}


# --- value sets and code systems ------------------------------------------------------------------------


def _value_sets(model: Model, element: Element) -> Iterator[Document]:
    if element.code:
        yield _value_set(model, element, "code", [(coding, "") for coding in element.code])
    if element.sites:
        yield _value_set(model, element, "site", [(coding, "") for coding in element.sites])
    for part in element.parts:
        kind = part.kind
        if isinstance(kind, Coded):
            meant = [(coding, word) for word, codings in kind.values.items() for coding in codings]
            yield _value_set(model, element, part.name, meant)
        elif isinstance(kind, Flag):
            yield _value_set(model, element, part.name, [(coding, "1") for coding in kind.codings])
        elif isinstance(kind, Quantity):
            yield _value_set(model, element, "unit", [(Coding(UCUM, unit), "") for unit in kind.accepted])


def _value_set(model: Model, element: Element, name: str, members: list[tuple[Coding, str]]) -> Document:
    """`members`: codings with the model's word for them. What they mean is said as a designation: the name that the
    code system itself gives a code is not ours to write."""
    systems = dict.fromkeys(coding.system for coding, _ in members)
    return {
        **_head(model, "ValueSet", f"{element.slug}-{name}", f"{element.title}: {name}"),
        "compose": {
            "include": [
                {"system": system, "concept": [_concept(c, word) for c, word in members if c.system == system]}
                for system in systems
            ]
        },
    }


def _concept(coding: Coding, word: str) -> Document:
    meaning = coding.display or word
    return {"code": coding.code} | ({"designation": [{"value": meaning}]} if meaning else {})


def _code_systems(model: Model) -> Iterator[Document]:
    """Code systems under the model's own stem: nobody else publishes them."""
    own: dict[str, dict[str, Coding]] = {}
    for coding in _codings(model):
        if coding.system.startswith(model.url):
            own.setdefault(coding.system, {}).setdefault(coding.code, coding)
    for system, codes in own.items():
        name = system.rpartition(":")[2]
        yield {
            **_head(model, "CodeSystem", name, f"Codes of our own: {name}"),
            "url": system,
            "caseSensitive": True,
            "content": "complete",
            "count": len(codes),
            "concept": [{"code": c.code} | ({"display": c.display} if c.display else {}) for c in codes.values()],
        }


def _codings(model: Model) -> Iterator[Coding]:
    for element in (model.person, *model.elements):
        yield from (*element.code, *element.written, *element.sites, *element.site_in_code)
        for part in element.parts:
            if isinstance(part.kind, Coded):
                yield from (coding for meant in part.kind.values.values() for coding in meant)
            elif isinstance(part.kind, Flag):
                yield from part.kind.codings


# --- logical model -----------------------------------------------------------------------------------------


def logical_model(model: Model) -> Document:
    """What is recorded about a person, whatever it is stored as; each element says which FHIR element carries it."""
    root = _name(model.name)
    rows = [_logical(root, model.title, 0, "*", []), *_logical_rows(model, root)]
    url = address(model, "StructureDefinition", model.name)
    return {
        **_head(model, "StructureDefinition", model.name, model.title),
        "fhirVersion": FHIR_VERSION,
        "mapping": [{"identity": "r4", "uri": "http://hl7.org/fhir", "name": "FHIR R4"}],
        "kind": "logical",
        "abstract": False,
        "type": url,
        "baseDefinition": f"{_R4}Element",
        "derivation": "specialization",
        "snapshot": {"element": [row | _base(row) for row in rows]},
        "differential": {"element": rows},
    }


def _logical_rows(model: Model, root: str) -> Iterator[Document]:
    for element in (model.person, *model.elements):
        here = f"{root}.{_camel(element.name)}"
        person = element is model.person
        yield _logical(here, element.title, int(person), "1" if person else "*", ["BackboneElement"])
        for part in element.parts:
            alone = sum(p.at == part.at for p in element.parts) == 1
            row = _logical(
                f"{here}.{_camel(part.name)}", _short(part), int(part.required and alone), "1", _types(part)
            )
            if isinstance(part.kind, Links):
                row["max"] = "*"
            elif isinstance(part.kind, Coded):
                row |= _binding(model, element, part.name)
            if part.requirement:
                row["requirements"] = part.requirement
            yield row | {"mapping": [{"identity": "r4", "map": f"{element.resource}.{_at(part)}"}]}


def _logical(path: str, short: str, least: int, most: str, types: Iterable[str]) -> Document:
    row = {"id": path, "path": path, "short": short, "definition": short, "min": least, "max": most}
    listed = [{"code": code} for code in types]
    return row | ({"type": listed} if listed else {})


def _base(row: Document) -> Document:
    return {"base": {"path": row["path"], "min": row["min"], "max": row["max"]}}


def _short(part: Part) -> str:
    kind = part.kind
    if isinstance(kind, Quantity):
        return f"{part.name}, in {kind.unit}, {kind.low} to {kind.high}"
    if isinstance(kind, Whole | Age):
        return f"{part.name}, {kind.low} to {kind.high}"
    if isinstance(kind, Coded | Code):
        return f"{part.name}, one of {', '.join(kind.values)}"
    return part.name


def _at(part: Part) -> str:
    return f"{part.at}[x]" if part.choice else part.at


# --- what all documents say -----------------------------------------------------------------------------


def _head(model: Model, kind: str, name: str, title: str) -> Document:
    return {
        "resourceType": kind,
        "id": name,
        "url": address(model, kind, name),
        "version": model.version,
        "name": _name(name),
        "title": title,
        "status": "active",
        "experimental": False,
        "publisher": PUBLISHER,
    }


def _name(slug: str) -> str:
    """A name that programs can use: capital first, letters and digits."""
    return "".join(word[:1].upper() + word[1:] for word in slug.replace("_", "-").split("-"))


def _camel(name: str) -> str:
    whole = _name(name)
    return whole[:1].lower() + whole[1:]
