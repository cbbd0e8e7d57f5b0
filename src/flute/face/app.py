"""The hub's FHIR face: a read-only FHIR R4 server over what FLUTE made, for the hospital's own tools.

Local network only, with a token, and every read is in the journal before it is answered. Counts are exact: these are
the hospital's own data in its own house, and nothing here leaves it; what leaves goes through the gate.

 1 method, path      GET and HEAD; a dataset, then `metadata`, a type, or a type and an id
 2 token             of whom, in constant time                                         401
 3 form              what the caller accepts                                           406
 4 question          parameters that are known, in their bounds; unknown ones are refused, never ignored
 5 journal           who read what, how much; where it cannot be written, nothing is answered     503
Errors are OperationOutcomes with a sentence; a bug is logged here and told nobody.
Source: FHIR R4, RESTful API (3.1.0) and search (3.1.1).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from flute.defaults.records import FACE_MAX_QUERY_CHARS
from flute.errors import FluteError
from flute.face.search import Asked, BadSearch, read_search
from flute.face.shelf import Resource, Shelf, instant
from flute.face.statement import capability_statement
from flute.primitives.keys import digest

LOG = logging.getLogger("flute.face.app")
FHIR_JSON: Final = "application/fhir+json"
_ACCEPTED: Final = (FHIR_JSON, "application/json", "application/*", "*/*")
_FORMATS: Final = (FHIR_JSON, "application/json", "json")
_METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Read:
    """What somebody read. `what`: metadata, read or search. `person`: digest of the pseudonym where it was about one
    person, else empty. `resources`: how many were given."""

    holder: str
    dataset: str
    what: str
    kind: str
    person: bytes
    resources: int


Shelves = Callable[[], Mapping[str, Shelf]]
"""Datasets by name, as they are now."""
Holder = Callable[[str], str | None]
"""Token to whose it is."""
OnRead = Callable[[Read], None]
"""Called before a read is answered. Raises: FluteError: it could not be noted, so it is not answered."""


class Refused(Exception):
    """Answered as an OperationOutcome. `code`: of FHIR's value set issue-type."""

    def __init__(self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.headers = status, code, text, dict(headers or {})


@dataclass(frozen=True, slots=True)
class _Call:
    """A call whose token was good."""

    holder: str
    shelf: Shelf
    base: str
    request: Request


def make_face(shelves: Shelves, holder: Holder, on_read: OnRead, version: str) -> FastAPI:
    """The server's application. `version`: of the software, for its CapabilityStatement."""
    app = FastAPI(title="FLUTE hub, FHIR face", version=version, docs_url=None, redoc_url=None, openapi_url=None)
    face = _Face(shelves, holder, on_read, version)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Nothing of a failure gets out, whatever failed."""
        try:
            return await call_next(request)
        except Exception:
            LOG.exception("a call of the FHIR face failed")
            return _outcome(500, "exception", "The hub's FHIR face failed; its log says why.", {})

    @app.exception_handler(Refused)
    def refused(_request: Request, error: Refused) -> Response:
        return _outcome(error.status, error.code, error.text, error.headers)

    @app.exception_handler(FluteError)
    def unavailable(_request: Request, error: FluteError) -> Response:
        """The hub service did not answer, or did not note the read. Its words may name a folder: they stay here."""
        LOG.warning("a read was not answered: %s", error.text)
        return _outcome(503, "transient", "The hub service does not answer, so nothing is shown; try later.", {})

    @app.exception_handler(HTTPException)
    def elsewhere(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405 or request.method not in _METHODS:
            return _outcome(405, "not-supported", "This server is read-only: GET and HEAD.", {"allow": "GET, HEAD"})
        return _outcome(404, "not-found", "There is nothing at this address; try DATASET/metadata.", {})

    async def metadata(dataset: str, request: Request) -> Response:
        return await run_in_threadpool(lambda: face.metadata(face.call(dataset, request)))

    async def search(dataset: str, kind: str, request: Request) -> Response:
        return await run_in_threadpool(lambda: face.search(face.call(dataset, request), kind))

    async def read(dataset: str, kind: str, key: str, request: Request) -> Response:
        return await run_in_threadpool(lambda: face.read(face.call(dataset, request), kind, key))

    for path, handler in (("metadata", metadata), ("{kind}", search), ("{kind}/{key}", read)):
        app.add_api_route(f"/{{dataset}}/{path}", handler, methods=list(_METHODS), response_class=Response)
    return app


class _Face:
    def __init__(self, shelves: Shelves, holder: Holder, on_read: OnRead, version: str) -> None:
        self._shelves, self._holder, self._on_read, self._version = shelves, holder, on_read, version

    def call(self, dataset: str, request: Request) -> _Call:
        """Steps 1 to 3."""
        holder = self._token(request)
        shelf = self._shelves().get(dataset)
        if shelf is None:
            raise Refused(404, "not-found", "This hub shows no dataset of that name here.")
        _require_form(request)
        if len(str(request.url.query)) > FACE_MAX_QUERY_CHARS:
            raise Refused(414, "too-long", f"A search may have {FACE_MAX_QUERY_CHARS} characters.")
        base = f"{request.url.scheme}://{request.url.netloc}/{dataset}"
        return _Call(holder, shelf, base, request)

    def _token(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        holder = self._holder(token.strip()) if scheme.lower() == "bearer" else None
        if holder is None:
            raise Refused(
                401, "login", "A token is needed: 'Authorization: Bearer …'; the hub's steward makes one.",
                {"www-authenticate": 'Bearer realm="flute"'},
            )  # fmt: skip
        return holder

    def metadata(self, call: _Call) -> Response:
        self._note(call, "metadata", "CapabilityStatement", b"", 1)
        return _answer(call, capability_statement(call.shelf, call.base, self._version), {})

    def read(self, call: _Call, kind: str, key: str) -> Response:
        self._require_kind(call, kind)
        unknown = sorted(set(call.request.query_params) - {"_format"})
        if unknown:
            raise Refused(400, "not-supported", f"A read takes no parameter {unknown[0][:40]!r}.")
        found = call.shelf.read(kind, key)
        if found is None:
            self._note(call, "read", kind, _person(key), 0)
            raise Refused(404, "not-found", f"There is no {kind} of that id.")
        self._note(call, "read", kind, _person(key), 1)
        tag = f'W/"{call.shelf.version}"'
        headers = {"etag": tag, "last-modified": _http_date(call.shelf.updated)}
        if tag in [known.strip() for known in call.request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        return _answer(call, found, headers)

    def search(self, call: _Call, kind: str) -> Response:
        self._require_kind(call, kind)
        try:
            asked = read_search(call.shelf, kind, call.request.query_params.multi_items())
        except BadSearch as bad:
            raise Refused(bad.status, bad.code, bad.text) from bad
        matches = call.shelf.matches(asked.search) if asked.in_time else None
        page, more = matches.page(asked.after, asked.count) if matches and asked.count else ([], None)
        persons = asked.search.persons or asked.search.ids or frozenset()
        one = _person(next(iter(persons))) if len({k.partition("-")[0] for k in persons}) == 1 else b""
        self._note(call, "search", kind, one, len(page))
        return _answer(call, _bundle(call, asked, page, len(matches) if matches else 0, more), {})

    def _require_kind(self, call: _Call, kind: str) -> None:
        if kind not in call.shelf.kinds:
            there = ", ".join(call.shelf.kinds)
            raise Refused(404, "not-supported", f"This dataset has no resources of that type; it has {there}.")

    def _note(self, call: _Call, what: str, kind: str, person: bytes, resources: int) -> None:
        """Step 5."""
        self._on_read(Read(call.holder, call.shelf.name, what, kind, person, resources))


def _require_form(request: Request) -> None:
    wanted = request.query_params.get("_format")
    if wanted is not None:
        fits = wanted.partition(";")[0].replace(" ", "+") in _FORMATS  # a plus sign that was not escaped
    else:
        listed = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")]
        fits = any(form in _ACCEPTED for form in listed)
    if not fits:
        raise Refused(406, "not-supported", f"This server speaks {FHIR_JSON} alone.")


def _bundle(call: _Call, asked: Asked, page: list[Resource], total: int, more: int | None) -> Resource:
    links = [{"relation": "self", "url": asked.link(call.base)}]
    if more is not None:
        links.append({"relation": "next", "url": asked.link(call.base, call.shelf.version, more)})
    bundle: Resource = {
        "resourceType": "Bundle",
        "meta": {"lastUpdated": instant(datetime.now(UTC))},
        "type": "searchset",
        "total": total,
        "link": links,
    }
    if page:
        bundle["entry"] = [
            {
                "fullUrl": f"{call.base}/{resource['resourceType']}/{resource['id']}",
                "resource": resource,
                "search": {"mode": "match"},
            }
            for resource in page
        ]
    return bundle


def _answer(call: _Call, resource: Resource, headers: Mapping[str, str]) -> Response:
    body = msgspec.json.encode(resource)
    sent = {**headers, "cache-control": "private, no-store", "content-length": str(len(body))}
    return Response(b"" if call.request.method == "HEAD" else body, headers=sent, media_type=FHIR_JSON)


def _outcome(status: int, code: str, text: str, headers: Mapping[str, str]) -> Response:
    body: dict[str, Any] = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "diagnostics": text}],
    }
    sent = {**headers, "cache-control": "no-store"}
    return Response(msgspec.json.encode(body), status_code=status, headers=sent, media_type=FHIR_JSON)


def _person(key: str) -> bytes:
    """Of whom a resource is, as the journal names persons: by the digest of the pseudonym."""
    return digest(key.partition("-")[0].encode())


def _http_date(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
