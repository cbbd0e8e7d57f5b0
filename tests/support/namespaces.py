"""Separate hosts on one machine: network namespaces that a test makes, joined by veth pairs, and taps on them.

One host in the middle has a pair of its own with every other one. Addresses exist inside these namespaces only; there
is no route between two outer hosts, nor to this machine or beyond it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import pytest

MIDDLE_NAME = "coordinator.test"
"""Resolves to the host in the middle, on every host."""
_MIDDLE = "10.77.0.1"
_OUTER_LINK = "eth0"
_NETWORK_NAMESPACE = 0x40000000
_EVERY_PROTOCOL, _IPV4, _TCP, _SYN = 0x0003, 0x0800, 6, 0x02
_SOL_PACKET, _PACKET_STATISTICS, _SO_RCVBUFFORCE = 263, 6, 33
_BUFFER_BYTES, _FRAME_BYTES = 2**26, 2**17
_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "GRPC_PROXY")


def require_namespaces() -> None:
    """Skips the calling test where no namespace can be made, and says why."""
    if shutil.which("ip") is None:
        pytest.skip("no separate hosts here: ip is not installed (Debian: iproute2)")
    probe = f"flute-{secrets.token_hex(3)}-probe"
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no separate hosts here: ip netns add says {tried.stderr.strip()!r} (it needs root)")
    _ip("netns", "del", probe)


class Hosts:
    """`middle` and `outer`: names of hosts; each gets a namespace. `folder`: for the file that names the middle one.

    Whoever runs on them has to have ended before `close`."""

    def __init__(self, middle: str, outer: Sequence[str], folder: Path) -> None:
        token = secrets.token_hex(3)
        self.middle = middle
        self._namespaces = {name: f"flute-{token}-{i}" for i, name in enumerate((middle, *outer))}
        self._names = folder / "hosts"
        self._names.write_text(f"127.0.0.1 localhost\n{_MIDDLE} {MIDDLE_NAME}\n")
        try:
            self._make(outer)
        except BaseException:
            self.close()
            raise

    def _make(self, outer: Sequence[str]) -> None:
        for namespace in self._namespaces.values():
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        middle = self._namespaces[self.middle]
        _ip("-n", middle, "address", "add", f"{_MIDDLE}/32", "dev", "lo")
        for i, name in enumerate(outer, 1):
            there, link = self._namespaces[name], f"to{i}"
            _ip("link", "add", "name", link, "netns", middle, "type", "veth",
                "peer", "name", _OUTER_LINK, "netns", there)  # fmt: skip
            for namespace, end, last in ((middle, link, 1), (there, _OUTER_LINK, 2)):
                _ip("-n", namespace, "address", "add", f"10.77.{i}.{last}/30", "dev", end)
                _ip("-n", namespace, "link", "set", end, "up")
            _ip("-n", there, "route", "add", f"{_MIDDLE}/32", "via", f"10.77.{i}.1")

    def close(self) -> None:
        """The veth pairs go with their namespaces."""
        for namespace in self._namespaces.values():
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)

    def __enter__(self) -> Hosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prefix(self, name: str) -> list[str]:
        """Words before a command that make it run on this host; it keeps its process id."""
        as_root = 'mount --bind "$0" /etc/hosts && exec "$@"'  # seen by this process and its children alone
        without = [word for proxy in _PROXIES for word in ("-u", proxy)]
        return ["ip", "netns", "exec", self._namespaces[name], "sh", "-c", as_root, str(self._names), "env", *without]

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are this host's."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self._namespaces[name]}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(there)
            os.close(home)

    def send_in_clear(self, name: str, content: bytes) -> None:
        """A datagram to the host in the middle, which does not listen: what a careless program would do."""
        with self.inside(name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(content, (_MIDDLE, 9))


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NETWORK_NAMESPACE):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


# --- what is on the wire ----------------------------------------------------------------------------------


class Tap:
    """Every frame on an outer host's only link, from now until `close`."""

    def __init__(self, hosts: Hosts, name: str) -> None:
        with hosts.inside(name):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.bind((_OUTER_LINK, _EVERY_PROTOCOL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.settimeout(0.1)
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"tap-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Idempotent; what is under way is read first."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(_FRAME_BYTES)
            except TimeoutError:
                if self._stop.is_set():
                    break
                continue
            (self.sent if kind == socket.PACKET_OUTGOING else self.received).append(frame)
        counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.dropped = struct.unpack("II", counted)[1]


def tcp_streams(frames: Sequence[bytes]) -> list[bytes]:
    """What each connection carried in these frames (of one direction), put together again.

    Raises AssertionError: a byte of a connection is missing; its beginning counts as one."""
    parts: dict[tuple[bytes, bytes], list[tuple[int, bytes]]] = {}
    starts: dict[tuple[bytes, bytes], int] = {}
    for frame in frames:
        if int.from_bytes(frame[12:14], "big") != _IPV4 or frame[23] != _TCP:
            continue
        ip = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
        tcp = ip[4 * (ip[0] & 0xF) :]
        key, number = (ip[12:20], tcp[:4]), int.from_bytes(tcp[4:8], "big")
        if tcp[13] & _SYN:
            starts[key] = number + 1
        parts.setdefault(key, []).append((number, tcp[4 * (tcp[12] >> 4) :]))
    return [_joined(starts.get(key), pieces) for key, pieces in parts.items()]


def _joined(start: int | None, pieces: list[tuple[int, bytes]]) -> bytes:
    if not any(piece for _, piece in pieces):
        return b""  # a lone reset or acknowledgement of a connection that had ended: it carries nothing
    assert start is not None, "a connection's beginning was not seen"
    whole = bytearray()
    for at, piece in sorted(((number - start) % 2**32, piece) for number, piece in pieces if piece):
        assert at <= len(whole), f"bytes {len(whole)} to {at} of a connection were not seen"
        whole[at : at + len(piece)] = piece
    return bytes(whole)
