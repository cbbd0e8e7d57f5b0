"""What a resource is called and what a Reference points at (SQL-on-FHIR v2: getResourceKey, getReferenceKey)."""

from __future__ import annotations

import re
from typing import Any, Final

_REFERENCE: Final = re.compile(
    r"(?:^|/)([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?\Z"
)


def reference_key(reference: object, kind: str | None = None) -> str | None:
    """The id a literal reference points at ("Patient/7", absolute or versioned), None for any other.

    `kind`: accept references to this resource type only.
    """
    found = _REFERENCE.search(reference) if isinstance(reference, str) else None
    if found is None or (kind is not None and found[1] != kind):
        return None
    return found[2]


def resource_keys(nodes: list[Any], *_: object) -> list[Any]:
    """`getResourceKey()`: the id of a resource."""
    return [n["id"] for n in nodes if isinstance(n, dict) and "id" in n]


def reference_keys(nodes: list[Any], kind: Any = None) -> list[Any]:
    """`getReferenceKey(Type)`: the id each Reference points at. `kind`: a type name, or fhirpathpy's type."""
    name = getattr(kind, "name", kind)
    keys = [reference_key(n.get("reference"), name) for n in nodes if isinstance(n, dict)]
    return [key for key in keys if key is not None]
