"""A web server between FLUTE and a PACS that misbehaves as it is told: by the number of the call, or for a while."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = str
"""500, 429, 404, 302, drop (half of the body, then nothing), garbage, silence, ignore-query, half-object."""


@dataclass
class Proxy:
    """`faults`: given number and path of a call, which fault to show, or empty. `served`: paths answered in full."""

    target: str
    faults: Callable[[int, str], Fault] = lambda number, path: ""
    served: list[str] = field(default_factory=list)
    calls: int = 0
    port: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def images(self) -> list[str]:
        """Instances whose WADO-RS answer was whole."""
        return [path for path in self.served if "/instances/" in path]


@contextmanager
def proxy_before(target: str) -> Iterator[Proxy]:
    """`target`: scheme, host and port of the real server."""
    proxy = Proxy(target)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            proxy.calls += 1
            fault = proxy.faults(proxy.calls, self.path)
            path = self.path.partition("?")[0] if fault == "ignore-query" else self.path
            if fault == "silence":
                proxy.stop.wait(30)
                return
            if fault.isdigit():
                self._answer(
                    int(fault), "text/plain", b"no", location="http://127.0.0.1:9/" if fault == "302" else ""
                )
                return
            status, kind, body = self._real(path)
            if fault == "garbage":
                body = b"<html>" + b"x" * 200
            if fault == "half-object":  # a whole answer with a DICOM object in it that ends too early
                at = body.rindex(b"\r\n--")
                body = body[: at - 200] + body[at:]
            self._answer(status, kind, body, cut=fault == "drop")
            if not fault and status == 200:
                proxy.served.append(path)

        def _real(self, path: str) -> tuple[int, str, bytes]:
            request = urllib.request.Request(
                proxy.target + path, headers={"Accept": self.headers.get("Accept", "*/*")}
            )
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return answer.status, answer.headers["Content-Type"], answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.headers.get("Content-Type", "text/plain"), error.read()

        def _answer(self, status: int, kind: str, body: bytes, *, cut: bool = False, location: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
