"""What FHIR R4 says about types and choice elements: the tables that come with fhirpathpy, asked in one place.

Source: FHIR R4 (4.0.1), data types and resource definitions.
"""

from __future__ import annotations

from typing import Any, Final

from fhirpathpy.engine.nodes import TypeInfo
from fhirpathpy.models import models

R4: Final[dict[str, dict[str, Any]]] = models["r4"]
# fhirpathpy sets its model at the first `is` or `as` of the process, and answers `ofType` otherwise before that.
_types: Final[Any] = TypeInfo
_types.model = R4

SYSTEM_TYPES: Final = frozenset({"Boolean", "String", "Integer", "Decimal", "Date", "DateTime", "Time", "Quantity"})
_TYPES: Final = frozenset(R4["type2Parent"]) | frozenset(R4["type2Parent"].values()) | {"Resource"}


def known(name: str) -> bool:
    """Whether FHIR R4 (or FHIRPath's System) has a type of this name; a namespace in front may be left out."""
    space, _, own = name.rpartition(".")
    return (space in {"", "FHIR"} and own in _TYPES) or (space in {"", "System"} and own in SYSTEM_TYPES)


def complex_type(name: str) -> bool:
    """Whether values of this type are objects: "Quantity", or a part of a resource ("Observation.referenceRange")."""
    if "." in name:
        return any(path.startswith(name + ".") for path in R4["path2Type"])
    return name in _TYPES and name[0].isupper()


def primitive(name: str | None) -> bool:
    return name is not None and (name.startswith("System.") or name[0].islower())


def descends(name: str, wanted: str) -> bool:
    """Whether a type is `wanted` or one made from it ("code" from "string", "Age" from "Quantity")."""
    at: str | None = name
    while at is not None:
        if at == wanted:
            return True
        at = R4["type2Parent"].get(at)
    return False


def child(path: str, name: str) -> str:
    """Path of an element's child, where it is defined ("QuestionnaireResponse.item" for an item in an item)."""
    return str(R4["pathsDefinedElsewhere"].get(f"{path}.{name}", f"{path}.{name}"))


def type_of(path: str) -> str:
    """Type of an element: "CodeableConcept", or its own path where it is a part of a resource."""
    return str(R4["path2Type"].get(path, path))


def choices(path: str) -> list[str]:
    """Suffixes of a choice element ("Quantity", "String", … for Observation.value); none for any other."""
    return list(R4["choiceTypePaths"].get(path, ()))
