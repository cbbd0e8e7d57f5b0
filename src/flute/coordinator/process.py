"""The coordinator as a process: the wire, a clock, the API, a clean end."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import uvicorn

from flute.coordinator.desk import Desk
from flute.coordinator.doors.api import make_api
from flute.coordinator.federation.enrolments import Enrolments
from flute.coordinator.federation.rosterbook import RosterBook
from flute.coordinator.home import CoordinatorHome
from flute.coordinator.listings import Listings
from flute.coordinator.plans.aggregators import doors_of
from flute.coordinator.rounds import Rounds
from flute.coordinator.runs import Runner
from flute.coordinator.store import open_store
from flute.defaults import CLOCK_S, DOOR_STOP_S, EVERY_LINK, LOOPBACK, ROSTER_PUSH_S
from flute.errors import MisuseError
from flute.messages.question import RosterFiles
from flute.transport.identity import open_authority
from flute.transport.relay import RelayChannel
from flute.trust.keyfiles import load_party_keys

LOG = logging.getLogger("flute.coordinator")


def unix_time() -> int:
    return int(time.time())


class Coordinator:
    """The running parts of a coordinator. `close` leaves no process and no port."""

    def __init__(self, home: CoordinatorHome) -> None:
        self.config = home.config()
        keys = load_party_keys(home.keys)
        authority = open_authority(home.authority)
        engine = open_store(home.database)
        self.book = RosterBook(home.roster, keys.signing)
        self.rounds = Rounds(engine)
        self.rounds.sweep()
        self.enrolments = Enrolments(engine, self.config.federation, keys, authority)
        listen = LOOPBACK if self.config.engine_host == "localhost" else EVERY_LINK
        self.listings = Listings(home.folder / "catalogue")
        self.channel = RelayChannel(home.mail, keys.party, authority.kit, listen=listen)
        self.desk = Desk(keys.signing, keys.sealing, lambda: self.book.roster(unix_time()), self.channel, unix_time)
        aggregators = doors_of(self.config.aggregators)
        self.runner = Runner(self.rounds, self.desk, timeout_s=self.config.round_timeout_s, aggregators=aggregators)
        self._stop = threading.Event()
        self._pushed: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._receive, name="messages", daemon=True),
            threading.Thread(target=self._clock, name="clock", daemon=True),
        ]

    def start(self) -> None:
        self.channel.wait_ready()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=DOOR_STOP_S)
        self.channel.close()

    def push_roster(self) -> None:
        """Hand the newest roster to every hub, and let the wire know who is in."""
        roster = self.book.roster(unix_time())
        hubs = [hub.id for hub in roster.hubs()]
        self.channel.admit(hubs)
        for hub in hubs:
            _, envelope = self.desk.write(RosterFiles(self.book.files(), self.rounds.head(hub)), hub=hub)
            self.desk.send(hub, envelope)
            self._pushed[hub] = time.monotonic()

    def _receive(self) -> None:
        while not self._stop.is_set():
            delivery = self.channel.receive(timeout_s=0.5)
            if delivery is None:
                continue
            try:
                self.runner.receive(delivery.body)
            except Exception:  # one bad message must not end the thread that takes all of them
                LOG.exception("a message could not be dealt with")
            self.channel.done(delivery)

    def _clock(self) -> None:
        """Deadlines, hubs that are back, the roster's daily word. It must not die of one bad study."""
        while not self._stop.is_set():
            try:
                if time.monotonic() - min(self._pushed.values(), default=-ROSTER_PUSH_S) >= ROSTER_PUSH_S:
                    self.push_roster()
                self.runner.tick_all()
            except MisuseError as error:
                LOG.debug("waiting: %s", error.text)
            except Exception:
                LOG.exception("clock")
            self._stop.wait(CLOCK_S)


def serve_coordinator(folder: Path) -> None:
    """Run until SIGTERM or SIGINT."""
    home = CoordinatorHome(folder)
    coordinator = Coordinator(home)
    config = coordinator.config
    server = uvicorn.Server(
        uvicorn.Config(
            make_api(coordinator),
            host=config.api_host,
            port=config.api_port,
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=DOOR_STOP_S,
        )
    )
    try:
        coordinator.start()
        server.run()
    finally:
        coordinator.close()
