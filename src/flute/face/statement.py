"""What the FHIR face says of itself: a CapabilityStatement made from what is really there.

Source: FHIR R4, CapabilityStatement; its invariants cpb-1 to cpb-16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flute.face.search import filters
from flute.face.shelf import Resource, Shelf, instant

_DEFINED: Final[Mapping[str, tuple[str, str, str]]] = {
    "_id": ("token", "http://hl7.org/fhir/SearchParameter/Resource-id", "One id or several, with commas."),
    "_lastUpdated": (
        "date", "http://hl7.org/fhir/SearchParameter/Resource-lastUpdated",
        "All resources have the instant at which the snapshot was frozen.",
    ),
    "patient": ("reference", "http://hl7.org/fhir/SearchParameter/clinical-patient", "The person, by pseudonym."),
    "subject": ("reference", "", "As patient."),
    "code": ("token", "http://hl7.org/fhir/SearchParameter/clinical-code", "A code, or system|code."),
}  # fmt: skip
_ABOUT: Final = (
    "Read-only. Resources are made from the dataset's frozen snapshot as FLUTE processed it: persons are pseudonyms "
    "of this hub, each resource is one element of the common model, dates that were not kept are absent. Counts are "
    "exact: this server is for the hospital's own tools, in its own network."
)


def capability_statement(shelf: Shelf, base: str, version: str) -> Resource:
    """`base`: the server's own address. `version`: of the software."""
    label = "SIMULATED " if shelf.simulated else ""
    return {
        "resourceType": "CapabilityStatement",
        "url": f"{base}/metadata",
        "version": shelf.version,
        "name": "FluteHubFace",
        "title": f"FLUTE hub: {label}dataset {shelf.name}",
        "status": "active",
        "experimental": shelf.simulated,
        "date": instant(shelf.updated),
        "publisher": "The hospital that runs this hub",
        "description": f"{label}{shelf.title}. {_ABOUT}",
        "kind": "instance",
        "software": {"name": "FLUTE hub, FHIR face", "version": version},
        "implementation": {"description": f"{label}dataset {shelf.name}", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "documentation": _ABOUT,
                "security": {
                    "cors": False,
                    "description": "A bearer token, which the hub's steward makes: 'Authorization: Bearer …'.",
                },
                "resource": [_resource(kind) for kind in shelf.kinds],
            }
        ],
    }


def _resource(kind: str) -> dict[str, Any]:
    return {
        "type": kind,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "versioned",
        "readHistory": False,
        "updateCreate": False,
        "conditionalRead": "not-match",
        "searchParam": [_parameter(name) for name in filters(kind)],
    }


def _parameter(name: str) -> dict[str, str]:
    kind, definition, words = _DEFINED[name]
    said = {"name": name, "type": kind, "documentation": words}
    return said | ({"definition": definition} if definition else {})
