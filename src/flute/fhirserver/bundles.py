"""Bundles as FHIR servers give them: what an entry is, and why it cannot be taken where it cannot.

An answer is decoded entry by entry, so that one entry that is not as it should be costs that entry alone.
Source: FHIR R4 Bundle (searchset, history), section 3.1.1.4 (search.mode, OperationOutcome in a searchset).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Raw, Struct

from flute.conformance.bundles import taken
from flute.data import strict_json
from flute.data.findings import Finding, Reason, shown
from flute.data.reader import Record, Refused
from flute.defaults.records import MAX_FHIR_PAGE_ENTRIES, MAX_RESOURCE_BYTES
from flute.errors import Unmappable
from flute.fhirpath.references import reference_key
from flute.fhirserver.queries import read_instant

BROKEN: Final = ("error", "fatal")


class Link(Struct):
    relation: str = ""
    url: str = ""


class BundleMeta(Struct, rename="camel"):
    last_updated: str = ""


class Bundle(Struct, rename="camel"):
    resource_type: str = ""
    type: str = ""
    total: int | None = None
    link: list[Link] | None = None
    entry: list[Raw] | None = None
    meta: BundleMeta | None = None

    def where(self, relation: str) -> str:
        """The address of a link, or empty."""
        return next((link.url for link in self.link or () if link.relation == relation and link.url), "")


class _Mode(Struct):
    mode: str = ""


class _Request(Struct):
    method: str = ""
    url: str = ""


class _Response(Struct, rename="camel"):
    last_modified: str = ""
    etag: str = ""


class Entry(Struct, rename="camel"):
    full_url: str = ""
    resource: Raw = Raw()
    search: _Mode | None = None
    request: _Request | None = None
    response: _Response | None = None


class Issue(Struct):
    severity: str = ""
    code: str = ""


class Outcome(Struct, rename="camel"):
    resource_type: str = ""
    issue: list[Issue] | None = None


@dataclass(frozen=True, slots=True)
class Met:
    """A resource of a page. `updated`: its meta.lastUpdated. `version`: changes whenever the resource does."""

    record: Record
    updated: datetime | None
    version: int

    @property
    def key(self) -> str:
        return self.record.key


@dataclass(frozen=True, slots=True)
class Past:
    """One entry of a history: what became of a key, and when."""

    key: str
    deleted: bool
    when: datetime | None


def check_bundle(bundle: Bundle, kind: str, host: str) -> list[Raw]:
    """Its entries. `kind`: "searchset" or "history". Raises: Unmappable: it is another thing, or too much of it."""
    if bundle.resource_type != "Bundle" or bundle.type != kind:
        raise Unmappable(
            f"The server {host} gives no Bundle of type {kind}. See that its address is a FHIR interface."
        )
    entries = bundle.entry or []
    if len(entries) > MAX_FHIR_PAGE_ENTRIES:
        raise Unmappable(
            f"The server {host} gives more than {MAX_FHIR_PAGE_ENTRIES} resources at once, whatever it is asked. Set "
            "a largest page at the server, or use its bulk export."
        )
    return entries


# --- searchsets ------------------------------------------------------------------------------------


def read_match(raw: Raw, kind: str, host: str) -> Met | Refused | None:
    """One entry of a searchset for resources of type `kind`; None where there is nothing to take or to say.

    Raises: Unmappable: the server says in it that its answer is not whole, or that it ignored a parameter.
    """
    try:
        entry = msgspec.json.decode(raw, type=Entry)
    except msgspec.ValidationError:
        return refusal(host, "", "wrong-type", "entry", "entry of another form", "Mend the server: it breaks FHIR.")
    mode = entry.search.mode if entry.search else ""
    if mode == "outcome" or _is_outcome(entry.resource):
        return _outcome(entry.resource, kind, host)
    if mode == "include":
        return refusal(
            host, "", "wrong-type", "search.mode", mode, "Not asked for, so not taken; name its type under queries."
        )
    if not bytes(entry.resource):
        return refusal(host, "", "required-element-missing", "entry.resource", "", "Give a resource in each entry.")
    return read_resource(bytes(entry.resource), kind, host)


def read_resource(raw: bytes, kind: str, where: str, origin: str = "") -> Met | Refused:
    """One resource that should be of type `kind`. `where`: said of what has no key; `origin`: of what has, if not
    where and key together."""
    if len(raw) > MAX_RESOURCE_BYTES:
        mend = f"Keep a resource under {MAX_RESOURCE_BYTES} bytes; put images where images belong."
        return refusal(where, "", "too-long", "", f"{len(raw)} bytes", mend)
    try:
        resource = strict_json.decode(raw)
    except strict_json.NotStrict as error:
        return Refused(where, "", error.finding)
    found = taken(resource, where)
    if isinstance(found, Refused):
        return found
    if resource["resourceType"] != kind:
        mend = f"Only {kind} was asked for; the server gives something else."
        return refusal(where, found.key, "wrong-type", "resourceType", shown(resource["resourceType"]), mend)
    meta = resource.get("meta")
    updated, version = (meta.get("lastUpdated"), meta.get("versionId")) if isinstance(meta, dict) else (None, None)
    mark = hash((found.key, str(updated), str(version))) if updated else hash(raw)
    return Met(Record(resource, origin or f"{where}, {found.key}"), read_instant(updated), mark)


def _is_outcome(raw: Raw) -> bool:
    return b'"OperationOutcome"' in bytes(raw)[:200] and _decode_outcome(raw) is not None


def _decode_outcome(raw: Raw) -> Outcome | None:
    try:
        outcome = msgspec.json.decode(raw, type=Outcome)
    except msgspec.MsgspecError:
        return None
    return outcome if outcome.resource_type == "OperationOutcome" else None


def _outcome(raw: Raw, kind: str, host: str) -> Refused | None:
    """What the server has to say about its own answer."""
    outcome = _decode_outcome(raw)
    issues = (outcome.issue if outcome is not None else None) or []
    if any(issue.severity in BROKEN for issue in issues):
        raise Unmappable(
            f"The server {host} says that its list of {kind} is not whole. Its operator finds the reason in its log."
        )
    if any(issue.code == "not-supported" for issue in issues):
        raise Unmappable(
            f"The server {host} ignores a parameter of the search for {kind}. Leave the filter out of queries: what "
            "is not needed is left out later."
        )
    if not any(issue.severity == "warning" for issue in issues):
        return None
    mend = "The server warns about its own answer; its operator finds the reason in its log."
    codes = ", ".join(sorted({issue.code for issue in issues}))
    return refusal(host, "", "wrong-type", "OperationOutcome.issue", shown(codes), mend)


def refusal(host: str, key: str, reason: Reason, path: str, found: str, mend: str) -> Refused:
    return Refused(host, key, Finding(reason=reason, path=path, rule="fhir-server", found=found, mend=mend))


# --- histories -------------------------------------------------------------------------------------


def read_past(raw: Raw, kind: str) -> Past | None:
    """One entry of a type's history; None where it names no resource of that type."""
    try:
        entry = msgspec.json.decode(raw, type=Entry)
    except msgspec.ValidationError:
        return None
    request = entry.request or _Request()
    key = reference_key(entry.full_url, kind) or reference_key(request.url, kind) or _id_in(entry.resource, kind)
    if key is None:
        return None
    when = read_instant(entry.response.last_modified) if entry.response else None
    return Past(f"{kind}/{key}", request.method == "DELETE", when)


def _id_in(raw: Raw, kind: str) -> str | None:
    met = read_resource(bytes(raw), kind, "")
    return met.record.resource["id"] if isinstance(met, Met) else None
