"""A throw-away federation: coordinator and hubs as separate processes with their own folders and keys.

Everything is made as it would be made across hospitals (invitation, request, admission, a roster that a
threshold of owners signed); only the people are played by this program, and it says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from sqlalchemy import Engine

from flute.coordinator.doors.client import CoordinatorClient
from flute.coordinator.federation.enrolments import Enrolments
from flute.coordinator.federation.rosterbook import RosterBook
from flute.coordinator.federation.setup import init_coordinator, next_roster
from flute.coordinator.home import CoordinatorConfig, CoordinatorHome
from flute.coordinator.store import open_store
from flute.defaults import LOOPBACK
from flute.errors import PeerUnreachable
from flute.hub.doors.client import HubClient
from flute.hub.setup import accept_roster, ask_to_join, init_hub, sign_roster, take_admission
from flute.local.processes import Service, free_port
from flute.primitives.keys import KEY_SIZE
from flute.transport.certificates import certificate_tool
from flute.transport.identity import open_authority
from flute.trust.enrolment import TOKEN_SIZE
from flute.trust.keyfiles import load_party_keys, load_person_key, make_person_key
from flute.trust.roster import Person, Role
from flute.trust.verification import root_fingerprint

START_TIMEOUT_S = 30.0
Say = Callable[[str], None]


class LocalFederation:
    """`folder`: everything lies in it. `hubs`: their names. `researcher`: the one person enrolled.

    `capture`: for tests only, a folder that gets what each hub's relay sends, before TLS."""

    def __init__(
        self, folder: Path, hubs: Sequence[str], *, researcher: str, name: str = "local", capture: Path | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.hubs = tuple(sorted(hubs))
        self.researcher = researcher
        self.name = name
        self._capture = capture
        self.coordinator_home = CoordinatorHome(self.folder / "coordinator")
        self.person_folder = self.folder / "people" / researcher
        self.services: dict[str, Service] = {}
        self.peak_memory_bytes = 0

    def hub_folder(self, hub: str) -> Path:
        return self.folder / "hubs" / hub

    # --- making it -----------------------------------------------------------------------------------

    def build(self) -> None:
        """Keys, certificates, admissions and the first roster, signed by every owner (played by us)."""
        config = CoordinatorConfig(self.name, "localhost", free_port(), LOOPBACK, free_port())
        with certificate_tool():
            init_coordinator(self.coordinator_home.folder, config, os.urandom)
            engine = open_store(self.coordinator_home.database)
            try:
                self._join_all(engine, config)
            finally:
                engine.dispose()
        self._first_roster()

    def _join_all(self, engine: Engine, config: CoordinatorConfig) -> None:
        now = int(time.time())
        keys = load_party_keys(self.coordinator_home.keys)
        enrolments = Enrolments(engine, self.name, keys, open_authority(self.coordinator_home.authority))
        for hub in self.hubs:
            folder = self.hub_folder(hub)
            init_hub(folder, hub, os.urandom)
            url = f"http://{config.api_host}:{config.api_port}"
            invitation = enrolments.invite(hub, api_url=url, now=now, rand=os.urandom(TOKEN_SIZE))
            _, request = ask_to_join(folder, invitation, now)
            enrolments.receive(request, None, now)
            take_admission(folder, enrolments.admit(hub, b""), now)
        self._entries = enrolments.admitted()

    def _first_roster(self) -> None:
        now = int(time.time())
        keys = load_party_keys(self.coordinator_home.keys)
        make_person_key(self.person_folder, self.researcher, rand=os.urandom(KEY_SIZE))
        person = Person(self.researcher, load_person_key(self.person_folder).key.public, Role.RESEARCHER)
        book = RosterBook(self.coordinator_home.roster, keys.signing)
        bundle = next_roster(self.name, keys, None, None, hubs=self._entries, people=[person], now=now)
        book.propose(bundle)
        for hub in self.hubs:
            if book.proposal() is not None:
                book.signed(sign_roster(self.hub_folder(hub), bundle, now), now)
        files = book.files()
        heard = root_fingerprint(files["1.root.json"])
        for hub in self.hubs:
            accept_roster(self.hub_folder(hub), files, heard, now)

    # --- running it ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all services and wait until every hub is connected. Raises: ServiceDied."""
        log = self.folder / "logs"
        log.mkdir(exist_ok=True)
        serve = ["coordinator", "serve", str(self.coordinator_home.folder)]
        self.services["coordinator"] = Service("coordinator", serve, log / "coordinator.log")
        for hub in self.hubs:
            self.services[hub] = Service(hub, self._hub_arguments(hub), log / f"{hub}.log")
        for hub in self.hubs:
            self.services[hub].wait_until(lambda hub=hub: self._door_open(hub), START_TIMEOUT_S)  # type: ignore[misc]
        self.services["coordinator"].wait_until(self._all_connected, START_TIMEOUT_S)

    def _hub_arguments(self, hub: str) -> list[str]:
        arguments = ["hub", "serve", str(self.hub_folder(hub))]
        if self._capture is not None:
            arguments += ["--capture-for-test", str(self._capture / f"{hub}.out")]
        return arguments

    def client(self) -> CoordinatorClient:
        config = self.coordinator_home.config()
        url = f"http://{config.api_host}:{config.api_port}"
        return CoordinatorClient(url, self.name, load_person_key(self.person_folder))

    def hub(self, hub: str) -> HubClient:
        return HubClient(self.hub_folder(hub))

    def note_memory(self) -> None:
        """Remember the largest memory of all processes together seen so far."""
        now = sum(service.memory_bytes() for service in self.services.values())
        self.peak_memory_bytes = max(self.peak_memory_bytes, now)

    def close(self) -> None:
        """End every service; no process and no port is left."""
        for service in self.services.values():
            service.terminate()
        for service in self.services.values():
            service.wait_ended()
        self.services.clear()

    def __enter__(self) -> LocalFederation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _door_open(self, hub: str) -> bool:
        try:
            with self.hub(hub) as door:
                door.get("/status")
        except PeerUnreachable:
            return False
        return True

    def _all_connected(self) -> bool:
        try:
            with self.client() as client:
                health: dict[str, Any] = client.get("/health")
        except (PeerUnreachable, httpx.HTTPError):
            return False
        return set(self.hubs) <= set(health["connected"])
