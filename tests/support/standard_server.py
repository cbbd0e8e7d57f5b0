"""A small FHIR server that follows the standard's text, and that can be told to leave a part of it out.

It is there for what sekmet does not do: servers that cannot sort, show no totals, keep no history, forget their
links, export deletions, compress, put files on another host. It pages by offset on purpose: that is what makes
lists shift. Real HTTP, in threads of this process; time is a counter that only writes move.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

Resource = dict[str, Any]
START = datetime(2026, 3, 1, 8, tzinfo=UTC)


def stamp(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Ways:
    """What this server does and does not. `most`: resources per page, whatever is asked."""

    sorts: bool = True
    filters_by_time: bool = True
    refuses_unknown: bool = False
    ignores: tuple[str, ...] = ()
    totals: bool = True
    says_time: bool = True
    stamps_resources: bool = True
    whole_seconds: bool = False
    keeps_places: bool = False
    sorts_by_minute: bool = False
    history: bool = True
    ids: bool = True
    most: int = 1_000
    capabilities: bool = True
    version: str = "4.0.1"
    exact_instants: bool = False
    export: bool = True
    polls: int = 1
    export_gzip: bool = False
    export_deletions: bool = True
    export_errors: tuple[str, ...] = ()
    export_files_at: str = ""
    export_wants_token: bool = False
    per_file: int = 1_000
    token: str = ""
    history_since: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    number: int
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes = b""

    def value(self, name: str, default: str = "") -> str:
        return next((v for n, v in reversed(self.query) if n == name), default)


@dataclass(slots=True)
class Said:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Event:
    key: str
    when: datetime
    method: str
    resource: Resource | None


class StandardServer:
    """`before`: called before every request is answered; what it returns, if anything, is the answer."""

    def __init__(self, ways: Ways | None = None) -> None:
        self.ways = ways or Ways()
        self.time = START
        self.step = timedelta(milliseconds=7)
        self.asked: list[Asked] = []
        self.before: Callable[[Asked], Said | None] = lambda asked: None
        self.base = ""
        self._held: dict[str, Resource] = {}
        self._events: list[_Event] = []
        self._jobs: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()

    # --- what is stored --------------------------------------------------------------------------------

    def put(self, *resources: Resource, at_once: bool = False) -> None:
        """`at_once`: all at the same instant."""
        with self._lock:
            for number, resource in enumerate(resources):
                if not (at_once and number):
                    self.time += self.step
                key = f"{resource['resourceType']}/{resource['id']}"
                stored = dict(resource)
                if self.ways.stamps_resources:
                    shown = self.time.replace(microsecond=0) if self.ways.whole_seconds else self.time
                    stored["meta"] = {**resource.get("meta", {}), "lastUpdated": stamp(shown)}
                if not self.ways.keeps_places:
                    self._held.pop(key, None)
                self._held[key] = stored
                self._events.append(_Event(key, self.time, "PUT", stored))

    def touch(self, key: str) -> None:
        """The same resource with a new time."""
        with self._lock:
            self.put({**self._held[key], "meta": {}})

    def delete(self, key: str) -> None:
        with self._lock:
            self.time += self.step
            del self._held[key]
            self._events.append(_Event(key, self.time, "DELETE", None))

    def all(self) -> dict[str, Resource]:
        with self._lock:
            return dict(self._held)

    def changes_of(self, key: str) -> datetime:
        return next(e.when for e in reversed(self._events) if e.key == key)

    # --- answering -------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Said:
        parts = urlsplit(target)
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        with self._lock:
            asked = Asked(len(self.asked), method, parts.path, query, headers, body)
            self.asked.append(asked)
            said = self.before(asked)
            if said is not None:
                return said
            if self.ways.token and headers.get("authorization") != f"Bearer {self.ways.token}":
                return outcome(401, "login")
            return self._routed(asked)

    def _routed(self, asked: Asked) -> Said:
        path = asked.path.removeprefix("/fhir").strip("/").split("/")
        if path == ["metadata"]:
            return self._capabilities()
        if path[-1] == "$export":
            return self._kick_off(asked)
        if path[0] == "job":
            return self._status(asked, path[1])
        if path[0] == "file":
            return self._file(path[1], path[2])
        if len(path) == 2 and path[1] == "_history":
            return self._history(asked, path[0])
        return self._search(asked, path[0]) if len(path) == 1 else outcome(404, "not-found")

    def _capabilities(self) -> Said:
        if not self.ways.capabilities:
            return outcome(404, "not-found")
        codes = [{"code": "search-type"}, *([{"code": "history-type"}] if self.ways.history else [])]
        kinds = sorted({key.partition("/")[0] for key in self._held} | {"Patient", "Observation"})
        rest = {"mode": "server", "resource": [{"type": kind, "interaction": codes} for kind in kinds]}
        return fhir({"resourceType": "CapabilityStatement", "fhirVersion": self.ways.version, "rest": [rest]})

    # --- search ----------------------------------------------------------------------------------------

    def _search(self, asked: Asked, kind: str) -> Said:
        known = {"_count", "_offset", "_elements", "_lastUpdated", "_sort", "_id", "code", "status"} - set(
            self.ways.ignores
        )
        if not self.ways.sorts:
            known.discard("_sort")
        if not self.ways.filters_by_time:
            known.discard("_lastUpdated")
        if not self.ways.ids:
            known.discard("_id")
        used = [(name, value) for name, value in asked.query if name in known]
        if self.ways.refuses_unknown and len(used) < len(asked.query):
            return outcome(400, "not-supported")
        found = [r for key, r in self._held.items() if key.startswith(f"{kind}/") and self._matches(key, r, used)]
        order = dict(used).get("_sort", "")
        if order in ("_lastUpdated", "-_lastUpdated"):
            digits = len("2026-03-01T08:00") if self.ways.sorts_by_minute else 40
            times = {r["id"]: str(r.get("meta", {}).get("lastUpdated", ""))[:digits] for r in found}
            found.sort(key=lambda r: times[r["id"]], reverse=order.startswith("-"))
        count = min(int(dict(used).get("_count", "20")), self.ways.most)
        offset = int(dict(used).get("_offset", "0"))
        page = found[offset : offset + count]
        if "_elements" in dict(used):
            page = [{k: r[k] for k in ("resourceType", "id", "meta") if k in r} for r in page]
        rest = [(n, v) for n, v in used if n not in ("_count", "_offset")]
        return fhir(self._bundle(kind, page, len(found), rest, count, offset))

    def _bundle(
        self, kind: str, page: list[Resource], total: int, rest: list[tuple[str, str]], count: int, offset: int
    ) -> Resource:
        def link(relation: str, at: int) -> dict[str, str]:
            query = urlencode([*rest, ("_count", str(count)), ("_offset", str(at))])
            return {"relation": relation, "url": f"{self.base}/{kind}?{query}"}

        bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "link": [link("self", offset)]}
        if offset + count < total:
            bundle["link"].append(link("next", offset + count))
        if self.ways.totals:
            bundle["total"] = total
        if self.ways.says_time:
            bundle["meta"] = {"lastUpdated": stamp(self.time)}
        bundle["entry"] = [
            {"fullUrl": f"{self.base}/{kind}/{r['id']}", "resource": r, "search": {"mode": "match"}} for r in page
        ]
        return bundle

    def _matches(self, key: str, resource: Resource, used: list[tuple[str, str]]) -> bool:
        for name, value in used:
            if name == "_id" and resource["id"] not in value.split(","):
                return False
            if name == "status" and resource.get("status") != value:
                return False
            if name == "code" and value not in {
                f"{c.get('system')}|{c.get('code')}" for c in resource.get("code", {}).get("coding", [])
            }:
                return False
            if name == "_lastUpdated" and not self._updated(self.changes_of(key), value):
                return False
        return True

    def _updated(self, when: datetime, value: str) -> bool:
        """With `exact_instants` equality finds nothing: such a server keeps finer times than it shows."""
        bound = datetime.fromisoformat(value[2:])
        return {
            "ge": when >= bound,
            "lt": when < bound,
            "gt": when >= bound if self.ways.exact_instants else when > bound,
            "eq": when == bound and not self.ways.exact_instants,
        }[value[:2]]

    def _history(self, asked: Asked, kind: str) -> Said:
        if not self.ways.history:
            return outcome(405, "not-supported")
        since = asked.value("_since")
        bound = datetime.fromisoformat(since) if since else None
        events = [
            e
            for e in reversed(self._events)
            if e.key.startswith(f"{kind}/") and (bound is None or not self.ways.history_since or e.when >= bound)
        ]
        count, offset = int(asked.value("_count", "20")), int(asked.value("_offset", "0"))
        entries: list[Resource] = []
        for event in events[offset : offset + count]:
            entry: Resource = {
                "fullUrl": f"{self.base}/{event.key}",
                "request": {"method": event.method, "url": event.key},
                "response": {"status": "200", "lastModified": stamp(event.when)},
            }
            entries.append({**entry, "resource": event.resource} if event.resource else entry)
        links = []
        if offset + count < len(events):
            query = urlencode([("_since", since), ("_count", str(count)), ("_offset", str(offset + count))])
            links.append({"relation": "next", "url": f"{self.base}/{kind}/_history?{query}"})
        return fhir({"resourceType": "Bundle", "type": "history", "link": links, "entry": entries})

    # --- export ----------------------------------------------------------------------------------------

    def _kick_off(self, asked: Asked) -> Said:
        if not self.ways.export:
            return outcome(404, "not-supported")
        if asked.headers.get("prefer") != "respond-async":
            return outcome(400, "invalid")
        kinds = asked.value("_type").split(",")
        since = asked.value("_since")
        bound = datetime.fromisoformat(since) if since else START
        name = f"j{len(self._jobs) + 1}"
        files: dict[str, bytes] = {}
        listed: dict[str, list[Resource]] = {"output": [], "deleted": [], "error": []}

        def add(group: str, kind: str, lines: list[Resource]) -> None:
            for start in range(0, len(lines), self.ways.per_file):
                part = lines[start : start + self.ways.per_file]
                suffix = ".gz" if self.ways.export_gzip else ""
                file = f"{group}-{kind}-{start}.ndjson{suffix}"
                raw = "".join(json.dumps(line) + "\n" for line in part).encode()
                files[file] = gzip.compress(raw) if self.ways.export_gzip else raw
                root = self.ways.export_files_at or self.base
                listed[group].append({"type": kind, "url": f"{root}/file/{name}/{file}", "count": len(part)})

        for kind in kinds:
            wanted = [r for k, r in self._held.items() if k.startswith(f"{kind}/") and self.changes_of(k) >= bound]
            add("output", kind, wanted)
        gone = {e.key for e in self._events if e.method == "DELETE" and e.when >= bound and e.key not in self._held}
        if since and self.ways.export_deletions and gone:
            entry = [{"request": {"method": "DELETE", "url": key}} for key in sorted(gone)]
            add("deleted", "Bundle", [{"resourceType": "Bundle", "type": "transaction", "entry": entry}])
        issues = [{"severity": severity, "code": "exception"} for severity in self.ways.export_errors]
        if issues:
            add("error", "OperationOutcome", [{"resourceType": "OperationOutcome", "issue": issues}])
        self._jobs[name] = {"polls": self.ways.polls, "files": files, "time": stamp(self.time), **listed}
        return Said(202, headers={"content-location": f"{self.base}/job/{name}"})

    def _status(self, asked: Asked, name: str) -> Said:
        job = self._jobs.get(name)
        if job is None:
            return outcome(404, "not-found")
        if asked.method == "DELETE":
            del self._jobs[name]
            return Said(202)
        if job["polls"]:
            job["polls"] -= 1
            return Said(202, headers={"retry-after": "3", "x-progress": "writing"})
        manifest = {
            "transactionTime": job["time"],
            "request": f"{self.base}/$export",
            "requiresAccessToken": self.ways.export_wants_token,
            **{group: job[group] for group in ("output", "deleted", "error")},
        }
        return Said(200, json.dumps(manifest).encode(), {"content-type": "application/json"})

    def _file(self, name: str, file: str) -> Said:
        job = self._jobs.get(name)
        if job is None or file not in job["files"]:
            return outcome(404, "not-found")
        return Said(200, job["files"][file], {"content-type": "application/fhir+ndjson"})

    def forget_exports(self) -> None:
        with self._lock:
            self._jobs.clear()

    @property
    def exports(self) -> int:
        return len(self._jobs)

    def change(self, **ways: Any) -> None:
        self.ways = replace(self.ways, **ways)


def fhir(value: Resource, status: int = 200) -> Said:
    return Said(status, json.dumps(value).encode(), {"content-type": "application/fhir+json"})


def outcome(status: int, code: str) -> Said:
    issue = [{"severity": "error", "code": code, "diagnostics": "SECRET-DIAGNOSTICS"}]
    return fhir({"resourceType": "OperationOutcome", "issue": issue}, status)


# --- HTTP ----------------------------------------------------------------------------------------------


@contextmanager
def serving(server: StandardServer) -> Iterator[StandardServer]:
    """On a free port of 127.0.0.1; `base` is its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            said = server.answer(self.command, self.path, headers, body)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(said.body)))
            self.end_headers()
            self.wfile.write(said.body)

        do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as port:
        server.base = f"http://127.0.0.1:{port}/fhir"
        yield server


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what these servers are for."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    httpd = _Quiet(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    httpd.block_on_close = False
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield int(httpd.server_address[1])
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)
