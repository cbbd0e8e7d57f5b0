"""A wire that remembers: a TCP forwarder between one hub and the coordinator that keeps every byte it passes on.

It sits where a tap in the hospital's router would: outside both processes, without any key.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

_TLS_TYPES = frozenset({20, 21, 22, 23})
_MAX_RECORD = 2**14 + 256


class RecordingWire:
    """Listens on a port of its own and forwards to `port`. `sent`: per connection, what came from the hub."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent: list[bytearray] = []
        self.received: list[bytearray] = []
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, name=f"wire-{self.port}", daemon=True).start()

    def close(self) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def __enter__(self) -> RecordingWire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                hub, _ = self._listener.accept()
                coordinator = socket.create_connection(("127.0.0.1", self._to), timeout=10)
                coordinator.settimeout(None)
            except OSError:
                if self._listener.fileno() < 0:
                    return
                with contextlib.suppress(OSError, UnboundLocalError):
                    hub.close()  # the coordinator does not listen yet; the hub tries again
                continue
            self._ends += [hub, coordinator]
            there, back = bytearray(), bytearray()
            self.sent.append(there)
            self.received.append(back)
            for source, sink, kept in ((hub, coordinator, there), (coordinator, hub, back)):
                threading.Thread(target=_forward, args=(source, sink, kept), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            kept += data
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def require_tls_only(stream: bytes) -> int:
    """Every byte of a connection belongs to a TLS record. How many records there were.

    Raises AssertionError: names the first byte that does not. A record that the end of the connection cut off
    is let pass."""
    at = records = 0
    while at + 5 <= len(stream):
        kind, version, size = stream[at], stream[at + 1 : at + 3], int.from_bytes(stream[at + 3 : at + 5], "big")
        assert kind in _TLS_TYPES, f"byte {at} is no TLS record: {stream[at : at + 16]!r}"
        assert version in (b"\x03\x01", b"\x03\x03"), f"byte {at + 1} is no TLS version: {version!r}"
        assert size <= _MAX_RECORD, f"byte {at + 3}: a TLS record of {size} bytes"
        at += 5 + size
        records += 1
    return records
