"""Everything of NVFLARE that we touch, and the only module that imports it. Loaded in child processes only.

We use the lower half of its cell network, the communicator: named endpoints, mTLS over grpc, framing,
reconnection. The upper half (`CoreCell`: routing from hub to hub, requests and replies, deserialising of
payloads, listeners made on demand) is not started: its frames find no receiver here. So the header in which
a cell says who a message is from, which it never checks, does not exist on our wire: a frame is from the
endpoint of the connection it came on, and that name is checked against the certificate.

A frame of ours: application id, no header, one byte for its kind, the body.

Version 2.9.0 is pinned. What is relied on: `Communicator` with its monitor and receiver, the resolver that binds
endpoint names to certificates, and the constants that `_tune` sets. `tests/unit/test_transport_engine.py` and
`tests/adversary/test_wire_peers.py` hold it to that.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from nvflare.fuel.f3.cellnet.identity import CellIdentityResolver
from nvflare.fuel.f3.comm_error import CommError
from nvflare.fuel.f3.communicator import Communicator, Mode
from nvflare.fuel.f3.connection import Connection
from nvflare.fuel.f3.drivers import grpc_driver
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.endpoint import Endpoint, EndpointState
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.sfm import conn_manager
from nvflare.tool.cert.cert_cli import def_cert_cli_parser, handle_cert_cmd
from nvflare.tool.package.package_cli import def_package_cli_parser, handle_package_cmd

from flute.defaults import (
    LOOPBACK,
    RELAY_RESTART_S,
    RELAY_START_TIMEOUT_S,
    WIRE_KEEPALIVE_S,
    WIRE_KEEPALIVE_TIMEOUT_S,
    WIRE_RECONNECT_MAX_S,
)
from flute.errors import ChannelError
from flute.transport.link import MAX_PARCEL_BYTES, TRANSFER_SIZE

COORDINATOR: Final = "coordinator"
SERVER: Final = "server"
"""What the engine calls the coordinator's endpoint; certificates and its tools have it fixed."""
APPLICATION: Final = 0x464C
"""Ours among the engine's application ids (its cell network is 1)."""
PARCEL: Final = b"P"
RECEIPT: Final = b"R"
AGAIN: Final = b"A"
"""Offer what is under way again: our end is new to you, whatever your side of the connection looks like."""
_SIZES: Final = {PARCEL: (1, MAX_PARCEL_BYTES), RECEIPT: (TRANSFER_SIZE, TRANSFER_SIZE), AGAIN: (0, 0)}
"""Smallest and largest body of each kind."""
_ENGINE_BYTES: Final = 64 * 1024
"""The engine's framing around a parcel; generous, it is 16 bytes."""
_LOOPBACK_NAMES: Final = frozenset({"localhost", LOOPBACK})
_log: Final = logging.getLogger("flute.transport.engine")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`me`: our id of this party. `url`: grpc://host:port, to bind at the coordinator, to dial at a hub."""

    me: str
    url: str
    ca: str
    cert: str
    key: str
    server_cn: str

    @property
    def is_coordinator(self) -> bool:
        return self.me == COORDINATOR


@dataclass(frozen=True, slots=True)
class Guard:
    """Which frames pass: those of an admitted neighbour under its own certificate, in our form. Asked on each one.

    `me`: our endpoint. `admitted`: endpoints in the roster now.
    """

    me: str
    server_cn: str
    admitted: Collection[str]

    def objection(self, peer: str, common_name: str | None, message: Message) -> str | None:
        """Why this frame must be dropped, or None. Nothing of its body is looked at but kind and length."""
        if not self._certified(peer, common_name):
            return "its certificate is of another name"
        if peer not in self.admitted:
            return "it is not in the roster"
        payload = message.payload
        if message.headers or not isinstance(payload, bytes):
            return "the frame is not of our form"
        smallest, largest = _SIZES.get(payload[:1], (1, 0))
        if not smallest <= len(payload) - 1 <= largest:
            return "the frame is of no kind of ours, or of a wrong length"
        return None

    def _certified(self, peer: str, common_name: str | None) -> bool:
        if self.me == SERVER:
            return common_name == peer
        # A grpc client is not told the name; it has checked the listener's host name against the certificate.
        return peer == SERVER and common_name in (None, self.server_cn)


class Engine:
    """One running endpoint behind its guard; the engine's message receiver and endpoint monitor.

    `hubs`: the roster at the start (at a hub it is not asked).
    `on_frame(kind, peer, body)` and `on_peers()` are called from the engine's threads.
    Raises (from the constructor): ChannelError: not grpc, no valid certificate, or the port is taken.
    """

    def __init__(
        self,
        settings: EngineSettings,
        hubs: Sequence[str],
        on_frame: Callable[[bytes, str, memoryview], None],
        on_peers: Callable[[], None],
    ) -> None:
        require_grpc(settings.url)
        _require_certificate(settings)
        if settings.is_coordinator:
            _require_free_port(settings.url)
        _tune(settings.url)
        self._lock = threading.Lock()
        self._connected: dict[str, Endpoint] = {}
        self._on_frame, self._on_peers = on_frame, on_peers
        me = _endpoint_name(settings.me)
        self._guard = Guard(me, settings.server_cn, _hubs(hubs) if settings.is_coordinator else frozenset({SERVER}))
        self._communicator = Communicator(
            Endpoint(me, conn_props=_credentials(settings)), CellIdentityResolver(me, {SERVER: settings.server_cn})
        )
        self._communicator.register_message_receiver(APPLICATION, self)
        self._communicator.register_monitor(self)
        mode = Mode.PASSIVE if settings.is_coordinator else Mode.ACTIVE
        self._communicator.add_connector(settings.url, mode, secure=True)
        self._communicator.start()
        if settings.is_coordinator:
            _await_port(settings.url)

    def admit(self, names: Sequence[str]) -> None:
        """Replace the roster; the next frame is judged by it. At a hub only the coordinator ever passes.

        A hub that was connected before it was admitted is told to offer again what was dropped until now.
        """
        before = self._guard.admitted
        if self._guard.me == SERVER:
            self._guard = Guard(SERVER, self._guard.server_cn, _hubs(names))
        with self._lock:
            waiting = [name for name in self._connected if name in self._guard.admitted and name not in before]
        self._on_peers()
        for name in waiting:
            self.send(AGAIN, name, b"")

    def peers(self) -> tuple[str, ...]:
        """Ids of the admitted peers that are connected."""
        with self._lock:
            return tuple(sorted(_party(name) for name in self._connected if name in self._guard.admitted))

    def send(self, kind: bytes, peer: str, body: bytes | memoryview) -> None:
        """Hand a frame to the connection of `peer`; without one, or outside the roster, it is dropped here.

        Nothing is awaited: the receipt of the other service is the only sign of delivery.
        """
        name = _endpoint_name(peer)
        with self._lock:
            endpoint = self._connected.get(name)
        if endpoint is None or name not in self._guard.admitted:
            return
        try:
            self._communicator.send(endpoint, APPLICATION, Message(None, b"".join((kind, body))))
        except CommError as error:
            _log.info("a frame to %s was not sent: %s", peer, error.code)  # the connection ended just now

    def process_message(self, endpoint: Endpoint, connection: Connection, app_id: int, message: Message) -> None:
        """The engine's callback for every frame with our application id."""
        common_name = connection.get_conn_properties().get(DriverParams.PEER_CN.value)
        objection = self._guard.objection(endpoint.name, common_name, message)
        if objection is not None:
            _log.warning("dropped a frame of %s: %s", endpoint.name[:64], objection)
            return
        self._on_frame(message.payload[:1], _party(endpoint.name), memoryview(message.payload)[1:])

    def state_change(self, endpoint: Endpoint) -> None:
        """The engine's callback for connections that come and go."""
        current = self._communicator.find_endpoint(endpoint.name)  # news of an old connection may come late
        with self._lock:
            if current is not None and current.state == EndpointState.READY:
                self._connected[endpoint.name] = current
            else:
                self._connected.pop(endpoint.name, None)
        self._on_peers()
        if endpoint.state == EndpointState.READY:
            self.send(AGAIN, COORDINATOR, b"")  # from a hub; the coordinator may not have missed its last connection


def require_grpc(url: str) -> None:
    """Raises: ChannelError: any other scheme."""
    if not url.startswith("grpc://"):
        scheme = url.split("://", 1)[0][:16]
        raise ChannelError(
            f"The wire runs over grpc only, not over {scheme!r}: with the engine's tcp a single idle connection "
            "blocks every newcomer. Write the coordinator's address as grpc://host:port."
        )


def run_certificate_command(arguments: Sequence[str]) -> int:
    """`nvflare cert …` or `nvflare package …` in this process; its exit code. Prints what the tool prints."""
    parser = argparse.ArgumentParser(prog="nvflare")
    commands = parser.add_subparsers(dest="command")
    def_cert_cli_parser(commands)
    def_package_cli_parser(commands)
    sys.argv = ["nvflare", *arguments]  # the tool looks there for --schema
    try:
        parsed = parser.parse_args(list(arguments))
        handler = {"cert": handle_cert_cmd, "package": handle_package_cmd}[arguments[0]]
        return int(handler(parsed) or 0)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


def _credentials(settings: EngineSettings) -> dict[str, str]:
    side = "server" if settings.is_coordinator else "client"
    return {
        "ca_cert": settings.ca,
        f"{side}_cert": settings.cert,
        f"{side}_key": settings.key,
        "connection_security": "mtls",
    }


def _tune(url: str) -> None:
    """Limits and times the engine leaves open: frame size, dead peers, an honest bind, prompt reconnection."""
    keepalive_ms = int(WIRE_KEEPALIVE_S * 1000)
    grpc_driver.GRPC_DEFAULT_OPTIONS[:] = [
        ("grpc.max_send_message_length", MAX_PARCEL_BYTES + _ENGINE_BYTES),
        ("grpc.max_receive_message_length", MAX_PARCEL_BYTES + _ENGINE_BYTES),
        ("grpc.http2.lookahead_bytes", 2**24),  # a large parcel is one grpc message: without these two it is
        ("grpc.http2.max_frame_size", 2**20),  # cut into 16 kB pieces (22 instead of 45 MB/s at the first one)
        ("grpc.so_reuseport", 0),  # or a second coordinator would share the port and take half of the hubs
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", int(WIRE_KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
        ("grpc.enable_http_proxy", 0 if urlsplit(url).hostname in _LOOPBACK_NAMES else 1),
    ]
    conn_manager.INIT_WAIT = RELAY_RESTART_S
    conn_manager.MAX_WAIT = WIRE_RECONNECT_MAX_S


def _require_certificate(settings: EngineSettings) -> None:
    """The engine would try for ever with files that cannot work; the operator is to be told."""
    try:
        for name in (settings.ca, settings.key):
            Path(name).read_bytes()
        certificate = x509.load_pem_x509_certificate(Path(settings.cert).read_bytes())
    except (OSError, ValueError) as error:
        raise ChannelError(f"The certificate of {settings.me} cannot be used; install its kit anew.") from error
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise ChannelError(
            f"The certificate of {settings.me} ended on {certificate.not_valid_after_utc:%Y-%m-%d}. Request a new "
            "one and have the coordinator approve it; nothing that was accepted is lost meanwhile."
        )


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("grpc://").partition(":")
    try:
        return host, int(port)
    except ValueError as error:
        raise ChannelError(f"The coordinator's address {url[:200]!r} has no port.") from error


def _await_port(url: str) -> None:
    """The engine binds in a thread of its own; whoever is told that we are ready may connect at once."""
    host, port = _address(url)
    deadline = time.monotonic() + RELAY_START_TIMEOUT_S
    while True:
        try:
            socket.create_connection((LOOPBACK if host == "0.0.0.0" else host, port), 1.0).close()  # noqa: S104
        except OSError as error:
            if time.monotonic() > deadline:
                raise ChannelError(f"The coordinator does not listen on {host}:{port}; see its relay.log.") from error
            time.sleep(0.01)
        else:
            return


def _require_free_port(url: str) -> None:
    """The engine hides a failed bind in a debug line and then waits for ever; so we try first."""
    host, port = _address(url)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ChannelError(
                f"The coordinator cannot listen on {host}:{port}: the port is taken or not allowed. "
                "Stop the other program, or give the coordinator another port."
            ) from error


def _hubs(names: Sequence[str]) -> frozenset[str]:
    return frozenset(names) - {COORDINATOR, SERVER}


def _endpoint_name(party: str) -> str:
    return SERVER if party == COORDINATOR else party


def _party(endpoint: str) -> str:
    return COORDINATOR if endpoint == SERVER else endpoint
