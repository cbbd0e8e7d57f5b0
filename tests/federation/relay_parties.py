"""Real parties for tests of the wire: certificates once per session, relays of their own for every test."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flute.messages.channel import Delivery
from flute.transport import identity
from flute.transport.identity import Authority, Kit
from flute.transport.relay import RelayChannel

HUBS = ("hub-a", "hub-b", "hub-c")
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Identities:
    folder: Path
    authority: Authority
    kits: dict[str, Kit]

    @property
    def port(self) -> int:
        return self.authority.port


def make_identities(folder: Path, hubs: Iterable[str] = HUBS, port: int | None = None) -> Identities:
    kits = {}
    with identity.certificate_tool():
        authority = identity.make_authority(folder / "coordinator", "trial", "localhost", port or free_port())
        for hub in hubs:
            asked = identity.request(folder / hub, hub, "trial")
            signed = identity.approve(authority, hub, asked)
            kits[hub] = identity.install(folder / hub, signed, authority.fingerprint)
    return Identities(folder, authority, kits)


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return make_identities(tmp_path_factory.mktemp("identities"))


@dataclass
class Federation:
    """Starts parties and closes them all."""

    identities: Identities
    folder: Path
    running: list[RelayChannel] = field(default_factory=list)

    def coordinator(self, admitted: Iterable[str] = HUBS, *, capture: Path | None = None) -> RelayChannel:
        channel = RelayChannel(
            self.folder / "coordinator", "coordinator", self.identities.authority.kit, capture=capture
        )
        channel.admit(admitted)
        self.running.append(channel)
        return channel

    def hub(self, name: str, *, capture: Path | None = None) -> RelayChannel:
        channel = RelayChannel(self.folder / name, name, self.identities.kits[name], capture=capture)
        self.running.append(channel)
        return channel

    def __getitem__(self, party: str) -> RelayChannel:
        """A running party."""
        return next(channel for channel in self.running if channel.me == party)

    def connected(self, *hubs: str) -> tuple[RelayChannel, ...]:
        """The coordinator and these hubs, connected."""
        coordinator = self.coordinator()
        channels = [self.hub(name) for name in hubs]
        coordinator.wait_connected(hubs, PATIENCE_S)
        for channel in channels:
            channel.wait_connected(["coordinator"], PATIENCE_S)
        return (coordinator, *channels)


@pytest.fixture
def federation(identities: Identities, tmp_path: Path) -> Iterator[Federation]:
    started = Federation(identities, tmp_path)
    yield started
    for channel in started.running:
        channel.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """One federation of coordinator and three hubs, on a port of its own, for tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("standing")
    started = Federation(make_identities(folder / "identities"), folder)
    started.connected(*HUBS)
    yield started
    for channel in started.running:
        channel.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def taken(channel: RelayChannel, count: int, timeout_s: float = PATIENCE_S) -> list[Delivery]:
    """The next `count` messages, each reported done."""
    deliveries = []
    for _ in range(count):
        delivery = channel.receive(timeout_s)
        assert delivery is not None, f"only {len(deliveries)} of {count} messages came"
        channel.done(delivery)
        deliveries.append(delivery)
    return deliveries


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
    """Seconds until it held."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - start


def log_of(federation: Federation, party: str) -> str:
    return (federation.folder / party / "relay.log").read_text()
