"""FHIR JSON as fhirpathpy reads it right: each element once, decimals as decimals.

fhirpathpy takes "birthDate" and "_birthDate" for two elements, and compares 1.2 with a double. So it is given a copy;
objects that it finds are handed on as they stand in the resource.
Source: FHIR R4, json (JSON representation of primitive elements).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any


class Normal:
    """Copies, and the way back. `siblings`: keep every "_birthDate", for paths that look at extensions; otherwise one
    stays only where there is no value beside it."""

    def __init__(self, *, siblings: bool) -> None:
        self._siblings = siblings
        self._originals: dict[int, Any] = {}
        self._copies: list[Any] = []

    def copy(self, value: Any) -> Any:
        found = self._copy(value)
        self._copies.append(found)  # keeps their numbers from being given out again
        return found

    def original(self, value: Any) -> Any:
        return self._originals.get(id(value), value) if isinstance(value, dict) else value

    def _copy(self, value: Any) -> Any:
        if isinstance(value, dict):
            found = {name: self._copy(item) for name, item in self._members(value)}
            self._originals[id(found)] = value
            return found
        if isinstance(value, list):
            # A list in a list is no FHIR; it stays what it is.
            kept = value if self._siblings else [item for item in value if item is not None]
            return [item if isinstance(item, list) else self._copy(item) for item in kept]
        return Decimal(repr(value)) if isinstance(value, float) else value

    def _members(self, value: dict[str, Any]) -> list[tuple[str, Any]]:
        if self._siblings:
            return list(value.items())
        return [
            (name, _merged(item, value.get("_" + name)))
            for name, item in value.items()
            if name[:1] != "_" or value.get(name[1:]) is None
        ]


def _merged(item: Any, hidden: Any) -> Any:
    """A list whose gaps are filled with what "_name" says about them."""
    if not isinstance(item, list) or not isinstance(hidden, list):
        return item
    return [hidden[i] if value is None and i < len(hidden) else value for i, value in enumerate(item)]


def bare(value: Any) -> bool:
    """An element that holds nothing but an extension has no value."""
    return value.__class__ is dict and len(value) == 1 and "extension" in value
