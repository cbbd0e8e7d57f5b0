"""`RelayChannel`: the wire as a service sees it. Durable mailboxes here, the engine in a child process.

    send -> outbox (disk) -> relay -> engine -> peer's relay -> peer's inbox (disk) -> receipt back -> outbox row gone

Delivery is end to end: the receipt leaves the receiving service only after its inbox has the message on disk,
so kill -9 of any relay, or of either service, at any point loses nothing; what is offered twice is recognised
by (sender, transfer id) and taken once. A hub's messages to another hub go to the coordinator, which stores
them in its outbox for that hub: opaque bytes that never reach the coordinator's own inbox.

As a program (`python -m flute.transport.relay`) this module is the relay process itself.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from flute.defaults import LOOPBACK, RELAY_RESTART_MAX_S, RELAY_RESTART_S, RELAY_START_TIMEOUT_S
from flute.errors import BadMessageError, ChannelError, FluteError, MisuseError
from flute.messages.channel import Delivery
from flute.transport.dispatch import COORDINATOR, Dispatch
from flute.transport.identity import Kit
from flute.transport.link import (
    PARTY,
    TRANSFER_SIZE,
    Admit,
    Again,
    Arrived,
    Failed,
    Frame,
    Parcel,
    Peers,
    Ready,
    Receipt,
    parcel_of,
)
from flute.transport.mailbox import Mailbox, Stored
from flute.transport.process import RelaySettings
from flute.transport.supervision import RunningRelay

_log: Final = logging.getLogger("flute.transport")


class RelayChannel:
    """A party's end of the wire; implements `messages.channel.Channel`. One per party and process.

    Args:
        folder: the party's own; holds the mailbox (mode 0600) and the relay's log. Made with mode 0700.
        me: a hub's id, or "coordinator".
        kit: this party's certificates (`transport.identity`).
        listen: coordinator only: the address to bind. Loopback unless told otherwise.
        capture: for tests only: a file that gets every outgoing body before TLS.

    Returns at once; `wait_ready` tells whether the relay runs. Nobody is admitted before `admit`: until then
    frames of and to hubs are dropped (a hub always knows the coordinator, and nobody else). Two threads: one
    starts and reads the relay, one ships.

    `Delivery.peer` is the hub whose certificate the wire verified (at the coordinator) or the sender that the
    coordinator names (at a hub). Neither is to be trusted: the envelope's signature is.
    """

    def __init__(
        self, folder: Path, me: str, kit: Kit, *, listen: str = LOOPBACK, capture: Path | None = None
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.me = me
        self._folder = folder
        self._settings = RelaySettings(
            me, _own_url(me, kit, listen), str(kit.ca), str(kit.cert), str(kit.key), kit.server_cn,
            str(folder / "relay.log"), str(capture) if capture else "",
        )  # fmt: skip
        self._mailbox = Mailbox(folder / "mailbox.db")
        self._dispatch = Dispatch(me, self._mailbox.outgoing())
        self._relay: RunningRelay | None = None
        self._telling_roster = threading.Lock()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._supervise, name=f"relay-{me}", daemon=True),
            threading.Thread(target=self._ship_all, name=f"ship-{me}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # --- the port ------------------------------------------------------------------------------

    def send(self, recipient: str, body: bytes) -> None:
        """See the port. Raises also MisuseError: a message to oneself, or to a name that no party can have."""
        if recipient == self.me or not PARTY.fullmatch(recipient):
            raise MisuseError(f"{self.me} cannot send a message to {recipient[:80]!r} over the wire.")
        parcel = Parcel(recipient, self.me, secrets.token_bytes(TRANSFER_SIZE), body)
        self._ship(self._dispatch.enqueue(self._mailbox.put(parcel)))

    def receive(self, timeout_s: float) -> Delivery | None:
        return self._mailbox.receive(timeout_s)

    def done(self, delivery: Delivery) -> None:
        self._mailbox.done(delivery)

    def close(self) -> None:
        """End the relay and give the mailbox up; what is in it stays there. Harmless when repeated."""
        self._closing.set()
        self._dispatch.close()
        relay = self._relay
        if relay is not None:
            relay.link.close()
        for thread in self._threads:
            thread.join()
        self._mailbox.close()

    # --- besides the port ----------------------------------------------------------------------

    def admit(self, hubs: Iterable[str]) -> None:
        """Coordinator: replace the roster of hubs. Frames of and to anybody else are dropped from the next one on.

        Raises: MisuseError: at a hub, or a name that no hub can have.
        """
        if not self._dispatch.is_coordinator:
            raise MisuseError("A hub admits the coordinator and nobody else; its roster is not set.")
        names = list(hubs)
        for name in names:
            if not PARTY.fullmatch(name):
                raise MisuseError(f"{name[:80]!r} is not a hub's name; the roster was not changed.")
        self._dispatch.admit(names)
        self._tell_roster()

    def connected(self) -> set[str]:
        """Admitted peers whose relay is connected to ours now."""
        return self._dispatch.connected()

    def undelivered(self) -> int:
        """Messages accepted here that no receiving service has confirmed."""
        return self._dispatch.undelivered()

    def wait_ready(self, timeout_s: float = RELAY_START_TIMEOUT_S) -> None:
        """Until the relay runs (at the coordinator: listens).

        Raises: ChannelError: it cannot, and why. It is tried again all the same, and this tells the last
        failure until an attempt succeeds.
        """
        self._dispatch.wait_ready(timeout_s)

    def wait_connected(self, peers: Iterable[str], timeout_s: float) -> None:
        """Raises: PeerUnreachable: names those that are not there after `timeout_s` seconds."""
        self._dispatch.wait_connected(peers, timeout_s)

    def wait_delivered(self, timeout_s: float) -> None:
        """Until every accepted message is confirmed. Raises: PeerUnreachable: some are not; they stay accepted."""
        self._dispatch.wait_delivered(timeout_s)

    @property
    def relay_pid(self) -> int | None:
        """Process id of the relay that runs now, for monitoring."""
        relay = self._relay
        return relay.pid if relay is not None else None

    # --- towards the wire ----------------------------------------------------------------------

    def _ship_all(self) -> None:
        while not self._closing.is_set():
            self._ship(self._dispatch.next_rows())

    def _ship(self, rows: Iterable[int]) -> None:
        for row in rows:
            try:
                parcel = self._mailbox.load(row)
            except ChannelError:  # the disk; the row is under way and will be overdue, so it is tried again
                _log.exception("%s: a message of the outbox cannot be read", self.me)
                continue
            relay = self._relay
            if parcel is not None and relay is not None:  # without one: as in `_tell`
                with contextlib.suppress(ChannelError):
                    relay.link.ship(self._dispatch.hop(parcel.recipient), parcel)

    def _tell_roster(self) -> None:
        with self._telling_roster:  # the newest is the last one
            self._tell(Admit(tuple(sorted(self._dispatch.admitted))))

    def _tell(self, frame: Frame) -> None:
        """To the relay. Without one the frame is dropped: all is offered again when there is one."""
        relay = self._relay
        if relay is not None:
            with contextlib.suppress(ChannelError):  # it died just now; the supervising thread sees it too
                relay.link.send(frame)

    # --- from the wire -------------------------------------------------------------------------

    def _supervise(self) -> None:
        pause_s = RELAY_RESTART_S
        while not self._closing.is_set():
            started = monotonic()
            try:
                with self._running() as relay:
                    self._read(relay)
            except OSError:  # no process, descriptor or disk to be had just now: that may pass
                _log.exception("the relay of %s cannot be started", self.me)
            if monotonic() - started > RELAY_RESTART_MAX_S:
                pause_s = RELAY_RESTART_S
            if not self._closing.is_set():
                _log.warning("the relay of %s ended; starting another in %.1f s", self.me, pause_s)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, RELAY_RESTART_MAX_S)

    @contextlib.contextmanager
    def _running(self) -> Iterator[RunningRelay]:
        relay = RunningRelay(self._settings, self._folder)
        try:
            self._relay = relay
            self._tell_roster()  # it starts with this
            if self._closing.is_set():  # `close` may have looked before there was a relay to close
                relay.link.close()
            yield relay
        finally:
            self._relay = None
            relay.end()
            self._dispatch.relay_ended()

    def _read(self, relay: RunningRelay) -> None:
        try:
            while (frame := relay.link.receive()) is not None:
                self._handle(frame)
        except FluteError:  # not a relay of ours any more, or our mailbox was closed under us: end it
            if not self._closing.is_set():
                _log.exception("the relay of %s is ended", self.me)

    def _handle(self, frame: Frame) -> None:
        match frame:
            case Receipt():
                row = self._mailbox.received(frame.transfer, frame.peer, COORDINATOR)
                if row is not None:
                    self._dispatch.delivered(row)
            case Arrived():
                self._take(frame.peer, frame.parcel)
            case Peers():
                self._dispatch.peers(frame.names)
            case Again():
                self._dispatch.again(frame.peer)
            case Ready():
                self._dispatch.relay_ready()
            case Failed():
                self._dispatch.relay_failed(frame.text)
            case _:
                raise ChannelError("The relay sent a frame that only a service sends.")

    def _take(self, peer: str, raw: bytes | memoryview) -> None:
        """Store what came, then confirm it. What is not stored is not confirmed: its sender keeps it."""
        ticket: int | None = None
        onwards: Stored | None = None
        try:
            parcel = parcel_of(raw)
            self._require_route(peer, parcel)
            if parcel.recipient == self.me:
                ticket = self._mailbox.arrived(parcel, peer)
            else:
                onwards = self._mailbox.forward(parcel, secrets.token_bytes(TRANSFER_SIZE))
        except (BadMessageError, ChannelError) as error:
            _log.warning("%s: a message handed over by %s was not taken: %s", self.me, peer, error.text)
            return
        self._tell(Receipt(peer, parcel.transfer))  # before others of our threads get busy with it
        if ticket is not None:
            self._mailbox.announce(ticket)
        if onwards is not None:
            self._ship(self._dispatch.enqueue(onwards))

    def _require_route(self, peer: str, parcel: Parcel) -> None:
        """Raises: ChannelError: it is not for us, and we do not pass it on."""
        if self._dispatch.is_coordinator and parcel.sender != peer:
            raise ChannelError(f"{peer} claims to forward for {parcel.sender}; only the coordinator forwards.")
        passed_on = self._dispatch.is_coordinator and parcel.recipient in self._dispatch.admitted
        if parcel.recipient != self.me and not passed_on:
            raise ChannelError(f"It is for {parcel.recipient}, who is not reached through {self.me}.")


def _own_url(me: str, kit: Kit, listen: str) -> str:
    """Where the coordinator binds, or where a hub dials."""
    if me != COORDINATOR:
        return kit.url
    url = urlsplit(kit.url)
    return f"{url.scheme}://{listen}:{url.port}"


if __name__ == "__main__":
    from flute.transport.process import main

    main(sys.argv[1:])
