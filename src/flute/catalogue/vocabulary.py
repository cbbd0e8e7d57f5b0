"""Names and controlled vocabularies of HealthDCAT-AP, and the terms that a description uses of them.

A term states which vocabulary it is of (`skos:inScheme`) and every vocabulary its title, so that a description can
be checked without the network.
Source: HealthDCAT-AP Release 8, "Controlled vocabularies to be used"; DCAT-AP 3.0.1, section 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flute.conformance.model import UCUM

Node = dict[str, Any]

PREFIXES: Final[Mapping[str, str]] = {
    "adms": "http://www.w3.org/ns/adms#",
    "csvw": "http://www.w3.org/ns/csvw#",
    "cv": "http://data.europa.eu/m8g/",
    "dcat": "http://www.w3.org/ns/dcat#",
    "dcatap": "http://data.europa.eu/r5r/",
    "dct": "http://purl.org/dc/terms/",
    "dpv": "https://w3id.org/dpv#",
    "dpvpd": "https://w3id.org/dpv/dpv-pd#",
    "eli": "http://data.europa.eu/eli/ontology#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "geodcatap": "http://data.europa.eu/930/",
    "healthdcatap": "http://healthdataportal.eu/ns/health#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "schema": "http://schema.org/",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "vcard": "http://www.w3.org/2006/vcard/ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_EU: Final = "http://publications.europa.eu/resource/authority"
_HEALTH: Final = "https://hdeu-dcat.data.health.europa.eu/resource/authority"
SCHEMES: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "access-right": (f"{_EU}/access-right", "Access rights", ("dct:RightsStatement",)),
    "country": (f"{_EU}/country", "Countries", ("dct:Location",)),
    "data-theme": (f"{_EU}/data-theme", "Data themes", ("skos:Concept",)),
    "dataset-type": (f"{_EU}/dataset-type", "Dataset types", ("skos:Concept",)),
    "file-type": (f"{_EU}/file-type", "File types", ("dct:MediaTypeOrExtent",)),
    "language": (f"{_EU}/language", "Languages", ("dct:LinguisticSystem",)),
    "planned-availability": (f"{_EU}/planned-availability", "Planned availability", ("skos:Concept",)),
    "coding-system": (f"{_HEALTH}/coding-system", "Coding systems", ("skos:Concept", "dct:Standard")),
    "health-theme": (f"{_HEALTH}/health-theme", "Health themes", ("skos:Concept",)),
    "healthcategories": (f"{_HEALTH}/healthcategories", "Health categories", ("skos:Concept",)),
    "publisher-type": (f"{_HEALTH}/publisher-type", "Publisher types", ("skos:Concept",)),
    "standard": (f"{_HEALTH}/standard", "Standards", ("skos:Concept", "dct:Standard")),
}
"""Vocabulary to its address, its title and the classes of its terms."""

CODING_SYSTEMS: Final[Mapping[str, str]] = {
    "http://snomed.info/sct": "SNOMED-CT",
    "http://loinc.org": "LOINC",
    "http://hl7.org/fhir/sid/icd-10": "ICD-10",
    "http://id.who.int/icd/release/11/mms": "ICD-11",
    "http://www.whocc.no/atc": "ATC",
    "http://www.orpha.net": "ORPHACODE",
    "http://human-phenotype-ontology.org": "HPO",
    "http://terminology.hl7.org/CodeSystem/icd-o-3": "ICD-O",
    UCUM: "UCUM",
}
"""FHIR's address of a code system to the Commission's term for it; others are left out of the list, not guessed."""
_MEANINGS: Final[Mapping[str, str]] = {
    "http://loinc.org": "https://loinc.org/rdf/",
    "http://snomed.info/sct": "http://snomed.info/id/",
}
"""Where a code's own address is known."""


class Graph:
    """Nodes by their addresses; what is said of one twice is said once."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def add(self, address: str, types: tuple[str, ...], /, **said: Any) -> Node:
        """A reference to the node. `said`: properties as `prefix__name`; None and empty lists are left out."""
        node = self._nodes.setdefault(address, {"@id": address, "@type": list(types)})
        for name, value in said.items():
            if value is not None and value != []:
                node[name.replace("__", ":", 1)] = value
        return ref(address)

    def term(self, scheme: str, code: str) -> Node:
        """A term of a controlled vocabulary."""
        address, title, types = SCHEMES[scheme]
        self.add(address, ("skos:ConceptScheme",), dct__title=text(title))
        label = text(code.replace("_", " ").replace("-", " ").lower()) if "skos:Concept" in types else None
        return self.add(f"{address}/{code}", types, skos__inScheme=ref(address), skos__prefLabel=label)

    def nodes(self) -> list[Node]:
        return list(self._nodes.values())


def ref(address: str) -> Node:
    return {"@id": address}


def text(words: str) -> Node:
    """Words of a person, in English as far as we know."""
    return {"@value": words, "@language": "en"}


def typed(value: object, kind: str) -> Node:
    """`kind`: a type of XML Schema, for example `date`."""
    return {"@value": str(value), "@type": f"xsd:{kind}"}


def meaning(system: str, code: str) -> str | None:
    """The address that says what a code means, where there is one."""
    stem = _MEANINGS.get(system)
    return None if stem is None else f"{stem}{code}"
