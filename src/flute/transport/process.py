"""The relay process: takes parcels off the wire to its service and the service's parcels onto the wire.

It holds no record, no study key, no ledger and no mailbox: killed at any point it loses nothing, because a
message leaves the sending service's outbox only when the receiving service has it on disk. It ends when its
service ends: the kernel kills it with its parent (Linux), and the end of the link does so everywhere.
"""

from __future__ import annotations

import ctypes
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from flute.defaults import RELAY_LOG_BYTES
from flute.errors import BadMessageError, ChannelError
from flute.transport.link import Admit, Again, Arrived, Failed, Frame, Link, Peers, Ready, Receipt, Ship

_PR_SET_PDEATHSIG: Final = 1
EXIT_SERVICE_GONE: Final = 0
EXIT_CANNOT_START: Final = 3


class RelaySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The relay's configuration file: names and paths, no secret.

    `capture` is for tests: a file to which every outgoing body is appended before TLS, so that a canary can
    be looked for in what leaves the house. It is empty unless a test names a file.
    """

    me: str
    url: str
    ca: str
    cert: str
    key: str
    server_cn: str
    log: str
    capture: str = ""


class _Pump:
    """Between link and engine, in both directions."""

    def __init__(self, settings: RelaySettings, link: Link) -> None:
        """The service's first frame is the roster, so that there is no moment without one."""
        from flute.transport import engine  # half a second of imports: only the child pays

        self._parcel, self._receipt = engine.PARCEL, engine.RECEIPT
        self._link = link
        self._reporting = threading.Lock()
        self._capture = Path(settings.capture) if settings.capture else None
        self._started = threading.Event()
        first = link.receive()
        if not isinstance(first, Admit):
            raise ChannelError("The service did not say whom it admits.")
        self._engine = engine.Engine(
            engine.EngineSettings(
                settings.me, settings.url, settings.ca, settings.cert, settings.key, settings.server_cn
            ),
            first.names,
            self._from_wire,
            self._report_peers,
        )
        self._started.set()
        self._tell(Ready())
        self._report_peers()

    def run(self) -> None:
        """Until the service is gone."""
        while (frame := self._link.receive()) is not None:
            self._from_service(frame)

    def _from_service(self, frame: Frame) -> None:
        match frame:
            case Ship():
                self._keep_for_test(frame.parcel)
                self._engine.send(self._parcel, frame.peer, frame.parcel)
            case Receipt():
                self._keep_for_test(frame.transfer)
                self._engine.send(self._receipt, frame.peer, frame.transfer)
            case Admit():
                self._engine.admit(frame.names)
            case _:
                raise ChannelError("The service sent a frame that only a relay sends.")

    def _from_wire(self, kind: bytes, peer: str, body: memoryview) -> None:
        if kind == self._parcel:
            self._tell(Arrived(peer, body))
        elif kind == self._receipt:
            self._tell(Receipt(peer, bytes(body)))
        else:
            self._tell(Again(peer))

    def _report_peers(self) -> None:
        if self._started.is_set():  # a hub may be connected before the engine's constructor returns
            with self._reporting:  # the newest report is the last one
                self._tell(Peers(self._engine.peers()))

    def _tell(self, frame: Frame) -> None:
        try:
            self._link.send(frame)
        except ChannelError:
            os._exit(EXIT_SERVICE_GONE)

    def _keep_for_test(self, body: bytes | memoryview) -> None:
        if self._capture is not None:
            with self._capture.open("ab") as file:
                file.write(body)


def main(arguments: Sequence[str]) -> None:
    """CONFIG.json, the number of the inherited end of the link, the process id of the service."""
    config, end, service = arguments
    _die_with_parent(int(service))
    settings = msgspec.json.decode(Path(config).read_bytes(), type=RelaySettings)
    _log_to(Path(settings.log))
    link = Link(socket.socket(fileno=int(end)))
    try:
        pump = _Pump(settings, link)
    except (ChannelError, OSError, ValueError, RuntimeError) as error:
        logging.getLogger("flute.transport.relay").exception("the relay cannot start")
        text = error.text if isinstance(error, ChannelError) else "The relay cannot start; its log says why."
        link.send(Failed(text))
        _leave(EXIT_CANNOT_START)
    try:
        pump.run()
    except (ChannelError, BadMessageError):
        logging.getLogger("flute.transport.relay").exception("the link carried what it should not")
    _leave(EXIT_SERVICE_GONE)


def _leave(status: int) -> None:
    """At once. The engine's own farewell waits for answers that our guard drops, and nothing is lost by going:
    what is under way stays in an outbox until its receipt."""
    logging.shutdown()
    os._exit(status)


def _die_with_parent(service: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != service:  # it died before the line above
        os._exit(EXIT_SERVICE_GONE)


def _log_to(path: Path) -> None:
    """Warnings and worse, ours and the engine's, to a file that cannot grow without end. Bodies are never logged."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=RELAY_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
