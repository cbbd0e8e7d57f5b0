"""Bundles: what entries are called, what they call each other, and which of them stand or fall together.

A transaction is whole or nothing; the entries of a collection or of a search's answer are independent.
Source: FHIR R4, bundle (fullUrl, request, resolving references), http (transaction).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from flute.conformance.build import ID
from flute.data.findings import Finding, shown
from flute.data.reader import Record, Refused, Resource
from flute.fhirpath.references import reference_key

TAKEN_APART: Final = ("collection", "searchset")
TRANSACTION: Final = "transaction"
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
_URN: Final = "urn:uuid:"
_RULE: Final = "resource"


def taken(resource: Any, origin: str, bundle: str = "") -> Record | Refused:
    """The value as a resource with a type and an id, or why it is none."""
    finding = _fault(resource)
    return Record(resource, origin, bundle) if finding is None else Refused(origin, _key(resource), finding, bundle)


def entries(bundle: Resource, origin: str, name: str) -> Iterator[Record | Refused]:
    """The bundle's resources, under their final ids and with literal references. `name`: of the transaction.

    Every entry of a transaction carries `name`, so that one that is refused takes the others with it.
    """
    kind, found = bundle.get("type"), bundle.get("entry", [])
    if not isinstance(found, list) or kind not in (*TAKEN_APART, TRANSACTION):
        mend = "Send a transaction, a collection or the answer of a search; its entries are a list."
        yield Refused(origin, _key(bundle), Finding("wrong-type", "Bundle.type", "bundle-type", shown(kind), mend))
        return
    whole = name if kind == TRANSACTION else ""
    names = _names_of(found)
    for number, entry in enumerate(found):
        where = f"{origin}, entry {number + 1}"
        resource = _resolved(entry, names)
        if whole and (dangling := next((r for r in _references(resource) if _URN in r), None)) is not None:
            mend = "Put the resource that is meant into the same transaction, or refer to it by its type and id."
            finding = Finding("reference-not-resolved", "Bundle.entry.resource", "transaction", shown(dangling), mend)
            yield Refused(where, _key(resource), finding, whole)
        else:
            yield taken(resource, where, whole)


def _fault(value: Any) -> Finding | None:
    """Why a value cannot be taken in as a resource at all, or None."""
    if not isinstance(value, dict):
        return _finding("wrong-type", "", value, "A FHIR resource is a JSON object.")
    kind, key = value.get("resourceType"), value.get("id")
    if kind is None:
        return _finding("required-element-missing", "resourceType", "", "Write what it is: resourceType.")
    if not isinstance(kind, str) or not _TYPE.match(kind):
        return _finding("wrong-type", "resourceType", kind, "Write the name of an R4 resource type.")
    if key is None:
        return _finding("required-element-missing", "id", "", "Give the resource an id: it is known by it later on.")
    if not isinstance(key, str):
        return _finding("wrong-type", "id", key, "Write the id as text.")
    if not ID.match(key):
        return _finding("id-invalid", "id", key, "Use at most 64 letters, digits, hyphens and dots.")
    return None


def _finding(reason: str, path: str, found: object, mend: str) -> Finding:
    return Finding(reason, path, _RULE, shown(found), mend)


def _key(value: Any) -> str:
    """ "Type/id" of something refused, as far as both can be told."""
    if not isinstance(value, dict):
        return ""
    kind, key = value.get("resourceType"), value.get("id")
    known = isinstance(kind, str) and isinstance(key, str) and _TYPE.match(kind) and ID.match(key)
    return f"{kind}/{key}" if known else ""


# --- names --------------------------------------------------------------------------------------------


def _names_of(found: list[Any]) -> dict[str, str]:
    """`urn:uuid:…` of each entry to the literal reference ("Patient/7") that it will have."""
    names = {}
    for entry in found:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if isinstance(resource, dict) and isinstance(entry.get("fullUrl"), str) and entry["fullUrl"].startswith(_URN):
            names[entry["fullUrl"]] = f"{resource.get('resourceType')}/{_id_of(entry, resource)}"
    return names


def _id_of(entry: Resource, resource: Resource) -> object:
    """PUT says the id in its address; a POST has only its uuid, since the server would give it a new id."""
    request = entry.get("request")
    if isinstance(request, dict):
        if request.get("method") == "PUT":
            return reference_key(request.get("url")) or resource.get("id")
        if request.get("method") == "POST":
            return entry["fullUrl"].removeprefix(_URN)
    return resource.get("id") or entry["fullUrl"].removeprefix(_URN)


def _resolved(entry: Any, names: dict[str, str]) -> Any:
    """The entry's resource under its final id, its references by uuid turned into literal ones."""
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(resource, dict):
        return resource
    full = entry.get("fullUrl")
    if isinstance(full, str) and full in names:
        resource = {**resource, "id": names[full].partition("/")[2]}
    return _rewritten(resource, names) if names else resource


def _rewritten(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            k: names.get(v, v) if k == "reference" and isinstance(v, str) else _rewritten(v, names)
            for k, v in value.items()
        }
    return [_rewritten(item, names) for item in value] if isinstance(value, list) else value


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "reference" and isinstance(inner, str):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
