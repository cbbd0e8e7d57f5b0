"""A catalogue entry as HealthDCAT-AP: the description of one dataset, in JSON-LD and in Turtle.

The document is the dataset alone: the catalogue is whoever takes it in. Mandatory for data that are not public:
title, description, identifier, keyword, theme, type, access rights, applicable legislation, distribution (the way
to ask for access), contact point, provenance, health category, health data access body, structured data and, as
they are structured, variables. Numbers of persons are given only where they were released under noise.
Agents have a contact point of both kinds (`cv`, which Release 7 and 8 ask for, and `vcard`, which Release 5 did).
Source: HealthDCAT-AP Release 8 (https://healthdataeu.pages.code.europa.eu/healthdcat-ap/); DCAT-AP 3.0.1.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flute.catalogue.entry import Contact, Entry, EntryVariable, Organisation
from flute.catalogue.vocabulary import (
    CODING_SYSTEMS,
    PREFIXES,
    Graph,
    Node,
    meaning,
    ref,
    text,
    typed,
)
from flute.conformance.model import UCUM

STATISTICS_FILE: Final = "statistics.json"
_RIGHTS: Final = {"non-public": "NON_PUBLIC", "restricted": "RESTRICTED", "public": "PUBLIC"}
_DATATYPES: Final = {"number": "decimal", "binary": "boolean", "category": "string", "image": "string"}
_IANA: Final = "https://www.iana.org/assignments/media-types/"


def dcat_nodes(entry: Entry, sample_file: str) -> list[Node]:
    """The graph, as JSON-LD node objects with the names of PREFIXES. `sample_file`: name of the synthetic sample."""
    graph, d = Graph(), entry.declared
    at = d.address
    graph.add(
        at,
        ("dcat:Dataset",),
        dct__title=text(entry.title),
        dct__description=text(entry.description),
        dct__identifier=at,
        adms__identifier=graph.add(f"{at}#snapshot", ("adms:Identifier",), skos__notation=entry.snapshot),
        dcat__version=entry.snapshot[:12],
        dct__modified=typed(entry.imported, "date"),
        dcat__keyword=[text(word) for word in (*d.keywords, *(["SIMULATED"] if entry.simulated else []))],
        dcat__theme=graph.term("data-theme", "HEAL"),
        dct__type=graph.term("dataset-type", "SYNTHETIC_DATA" if entry.simulated else "PERSONAL_DATA"),
        dct__accessRights=graph.term("access-right", _RIGHTS[d.access.rights]),
        dcatap__applicableLegislation=[graph.add(law, ("eli:LegalResource",)) for law in d.legislation],
        dct__publisher=_agent(graph, f"{at}#publisher", d.publisher),
        geodcatap__custodian=_agent(graph, f"{at}#custodian", d.publisher),
        healthdcatap__hdab=_agent(graph, f"{at}#access-body", d.access_body),
        dcat__contactPoint=_card(graph, f"{at}#contact", d.contact),
        dct__provenance=graph.add(f"{at}#provenance", ("dct:ProvenanceStatement",), rdfs__label=_lineage(entry)),
        dct__language=[graph.term("language", code) for code in d.language],
        dct__spatial=[graph.term("country", code) for code in d.country],
        dct__conformsTo=[graph.term("standard", code) for code in d.standards],
        dct__temporal=_period(graph, f"{at}#period", d.period.start, d.period.until),
        dcat__distribution=_way_in(graph, entry),
        **_health(graph, entry),
        **_shown(graph, entry, sample_file),
    )
    return graph.nodes()


def dcat_jsonld(entry: Entry, sample_file: str) -> bytes:
    document = {"@context": dict(PREFIXES), "@graph": dcat_nodes(entry, sample_file)}
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def _lineage(entry: Entry) -> Node:
    made = "SIMULATED: made by a program, no person behind any record. " if entry.simulated else ""
    return text(made + entry.declared.provenance)


def _health(graph: Graph, entry: Entry) -> dict[str, Any]:
    d, at = entry.declared, entry.declared.address
    systems = {c.system for v in entry.variables for c in v.codes}
    systems |= {UCUM for v in entry.variables if v.variable.unit}
    return {
        "healthdcatap__healthCategory": [graph.term("healthcategories", code) for code in d.category],
        "healthdcatap__healthTheme": [graph.term("health-theme", code) for code in d.theme],
        "healthdcatap__populationCoverage": text(d.population),
        "healthdcatap__minTypicalAge": typed(d.ages[0], "nonNegativeInteger") if d.ages else None,
        "healthdcatap__maxTypicalAge": typed(d.ages[1], "nonNegativeInteger") if d.ages else None,
        "healthdcatap__hasCodingSystem": [
            graph.term("coding-system", CODING_SYSTEMS[s]) for s in sorted(systems) if s in CODING_SYSTEMS
        ],
        "healthdcatap__hasCodeValues": sorted({c.code for v in entry.variables for c in v.codes}),
        "healthdcatap__hasStructuredData": typed("true", "boolean"),
        "healthdcatap__hasVariables": _variables(graph, entry),
        "healthdcatap__retentionPeriod": (
            _period(graph, f"{at}#retention", d.period.start, d.retain_until) if d.retain_until else None
        ),
        "dpv__hasPurpose": graph.add(f"{at}#purpose", ("dpv:Purpose",), dct__description=text(d.purpose)),
        "dpv__hasLegalBasis": graph.add(
            f"{at}#legal-basis", ("dpv:LegalBasis",), dct__description=text(d.legal_basis)
        ),
        "dpv__hasPersonalData": [
            graph.add(f"{PREFIXES['dpvpd']}{term}", ("dpv:PersonalData",)) for term in d.personal_data
        ],
    }


def _shown(graph: Graph, entry: Entry, sample_file: str) -> dict[str, Any]:
    """What can be had without asking: the synthetic sample and, where they were released, the noised statistics."""
    said: dict[str, Any] = {
        "adms__sample": _file(
            graph, entry, sample_file, "CSV", "text/csv", "Synthetic sample for developers",
            "SYNTHETIC: drawn column by column, independently, from what is published here; no row is of a person.",
        )
    }  # fmt: skip
    if entry.statistics is None:
        return said
    persons = entry.statistics.persons.value
    if persons is not None:
        count = typed(round(persons), "nonNegativeInteger")
        said |= {"healthdcatap__numberOfRecords": count, "healthdcatap__numberOfUniqueIndividuals": count}
    said["healthdcatap__analytics"] = _file(
        graph, entry, STATISTICS_FILE, "JSON", "application/json", "Descriptive statistics",
        entry.statistics.sentence,
    )  # fmt: skip
    return said


def _way_in(graph: Graph, entry: Entry) -> Node:
    """The mandatory distribution: where access is asked for, and under which conditions."""
    access, at = entry.declared.access, entry.declared.address
    licence = graph.add(access.licence, ("dct:LicenseDocument",)) if access.licence else None
    return graph.add(
        f"{at}#access",
        ("dcat:Distribution",),
        dct__title=text("Access on request"),
        dct__description=text("The records stay in the hospital; studies come to them. Ask here for access."),
        dcat__accessURL=ref(access.page),
        dcatap__applicableLegislation=[ref(law) for law in entry.declared.legislation],
        dcatap__availability=graph.term("planned-availability", "AVAILABLE"),
        dct__license=licence,
        dct__rights=graph.add(f"{at}#conditions", ("dct:RightsStatement",), rdfs__label=text(access.conditions)),
    )


def _file(graph: Graph, entry: Entry, name: str, kind: str, media: str, title: str, about: str) -> Node:
    address = f"{entry.declared.address}/{name}"
    return graph.add(
        address,
        ("dcat:Distribution",),
        dct__title=text(title),
        dct__description=text(about),
        dcat__accessURL=ref(address),
        dcat__downloadURL=ref(address),
        dct__format=graph.term("file-type", kind),
        dcat__mediaType=graph.add(f"{_IANA}{media}", ("dct:MediaType",)),
        dcatap__applicableLegislation=[ref(law) for law in entry.declared.legislation],
    )


def _variables(graph: Graph, entry: Entry) -> Node:
    at = entry.declared.address
    table = graph.add(
        f"{at}#table",
        ("csvw:Table",),
        dct__title=text(f"{entry.title}: one row per person"),
        csvw__column=[_column(graph, f"{at}#variable-{v.variable.name}", v) for v in entry.variables],
    )
    return graph.add(f"{at}#variables", ("csvw:TableGroup",), dct__title=text("Variables"), csvw__table=table)


def _column(graph: Graph, at: str, v: EntryVariable) -> Node:
    meanings = [m for m in (meaning(c.system, c.code) for c in v.codes) if m is not None]
    return graph.add(
        at,
        ("csvw:Column",),
        csvw__name=v.variable.name,
        csvw__title=text(v.title),
        csvw__titles=text(v.title),
        csvw__datatype=_DATATYPES[v.variable.kind],
        csvw__propertyUrl=ref(meanings[0]) if meanings else None,
        dct__description=text(v.text),
        schema__unitCode=v.variable.unit or None,
    )


def _agent(graph: Graph, at: str, party: Organisation) -> Node:
    return graph.add(
        at,
        ("foaf:Agent",),
        foaf__name=text(party.name),
        dct__type=graph.term("publisher-type", party.type),
        dct__description=text(party.note) if party.note else None,
        cv__contactPoint=graph.add(
            f"{at}-contact",
            ("cv:ContactPoint",),
            cv__email=party.email,
            cv__contactPage=ref(party.page) if party.page else None,
        ),
        dcat__contactPoint=_card(graph, f"{at}-card", party),
    )


def _card(graph: Graph, at: str, party: Organisation | Contact) -> Node:
    return graph.add(
        at,
        ("vcard:Kind",),
        vcard__hasEmail=ref(f"mailto:{party.email}") if party.email else None,
        vcard__hasURL=ref(party.page) if party.page else None,
    )


def _period(graph: Graph, at: str, start: object, end: object) -> Node:
    return graph.add(
        at, ("dct:PeriodOfTime",), dcat__startDate=typed(start, "date"), dcat__endDate=typed(end, "date")
    )
