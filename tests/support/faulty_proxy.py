"""A proxy in front of a real FHIR server that fails in a chosen way at a chosen request.

Real sockets: it answers with errors, garbage or half an answer, drips, or cuts the connection.
"""

from __future__ import annotations

import gzip
import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from support.standard_server import listening

FAULTS = (
    "status-500", "status-502", "status-503-retry-after", "status-429", "garbage", "truncated", "empty",
    "dropped-before", "dropped-midway", "drip", "login-page", "broken-gzip", "no-length-and-cut",
)  # fmt: skip
DRIP_S = 0.02
Plan = Callable[[int, str], str]
"""Number of the request from 0, and its path with its query: the fault, or empty."""


class FaultyProxy:
    """`plan` may be changed while it runs. `paths`: everything that was asked for, in order."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.plan: Plan = lambda number, path: ""
        self.paths: list[str] = []
        self.faults: list[str] = []
        self.base = ""

    def fail_once(self, at: int, fault: str) -> None:
        """The request number `at` fails, every later one goes well. Counting starts now."""
        self.paths.clear()
        self.faults.clear()
        self.plan = lambda number, path: fault if number == at else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultyProxy

    def do_GET(self) -> None:
        proxy = self.proxy
        number = len(proxy.paths)
        proxy.paths.append(self.path)
        fault = proxy.plan(number, self.path)
        if fault:
            proxy.faults.append(fault)
        status, headers, body = self._upstream()
        if fault:
            self._fail(fault, headers, body)
        else:
            self._send(status, headers, body)

    do_POST = do_DELETE = do_GET

    def _upstream(self) -> tuple[int, dict[str, str], bytes]:
        proxy, to = self.proxy, self.proxy.upstream
        connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=60)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        skipped = ("host", "accept-encoding", "content-length", "connection")
        headers = {n: v for n, v in self.headers.items() if n.lower() not in skipped}
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        own, theirs = proxy.base.encode(), to.geturl().encode()
        found = answer.read().replace(theirs, own)
        kept = ("content-type", "content-location", "retry-after", "location", "expires")
        given = {n.lower(): v for n, v in answer.getheaders() if n.lower() in kept}
        connection.close()
        return answer.status, {n: v.replace(theirs.decode(), own.decode()) for n, v in given.items()}, found

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, fault: str, headers: dict[str, str], body: bytes) -> None:
        kind = {"content-type": headers.get("content-type", "application/fhir+json")}
        match fault:
            case "status-500" | "status-502" | "status-429":
                self._send(int(fault.rpartition("-")[2]), {}, b"no")
            case "status-503-retry-after":
                self._send(503, {"retry-after": "2"}, b"")
            case "garbage":
                self._send(200, kind, b"\x00\xff{]" * 40)
            case "truncated":
                self._send(200, kind, body[: len(body) // 2])
            case "empty":
                self._send(200, kind, b"")
            case "dropped-before":
                self.close_connection = True
                self.connection.close()
            case "login-page":
                self._send(200, {"content-type": "text/html"}, b"<!DOCTYPE html><html>Please log in</html>")
            case "broken-gzip":
                packed = gzip.compress(body)
                self._send(200, {**kind, "content-encoding": "gzip"}, packed[: len(packed) // 2])
            case "dropped-midway" | "no-length-and-cut" | "drip":
                self._break_off(fault, kind, body)
            case _:
                raise AssertionError(fault)

    def _break_off(self, fault: str, headers: dict[str, str], body: bytes) -> None:
        self.close_connection = True
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault == "no-length-and-cut":
            self.send_header("connection", "close")
        else:
            self.send_header("content-length", str(max(len(body), 2)))
        self.end_headers()
        try:
            if fault == "drip":
                for at in range(len(body)):
                    self.wfile.write(body[at : at + 1])
                    self.wfile.flush()
                    time.sleep(DRIP_S)
            else:
                self.wfile.write(body[: len(body) // 2])
        except OSError:
            return
        self.wfile.flush()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """`upstream`: the FHIR base address that it stands in front of; `base` is the one that it offers."""
    proxy = FaultyProxy(upstream)
    with listening(type("Handler", (_Handler,), {"proxy": proxy})) as port:
        proxy.base = f"http://127.0.0.1:{port}{proxy.upstream.path}"
        yield proxy
