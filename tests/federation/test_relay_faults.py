"""kill -9 at any point: of a hub's relay, of the coordinator's, of whole services. Nothing is lost.

Each test keeps messages flowing in all directions while it kills; every one must arrive, and the user of the
port is given each once (a service that is itself killed may be given again the one it was working on).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.federation import relay_service
from tests.federation.relay_parties import (
    PATIENCE_S,
    Federation,
    Identities,
    federation,
    identities,
    taken,
    until,
)

from flute.defaults import RELAY_RESTART_MAX_S
from flute.transport.relay import RelayChannel

__all__ = ["federation", "identities"]  # fixtures

MESSAGES = 120


def stream(channel: RelayChannel, recipient: str, count: int = MESSAGES, pause_s: float = 0.01) -> threading.Thread:
    def run() -> None:
        for number in range(count):
            channel.send(recipient, f"{channel.me}>{recipient} {number}".encode())
            time.sleep(pause_s)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def expected(sender: str, recipient: str, count: int = MESSAGES) -> Counter[bytes]:
    return Counter(f"{sender}>{recipient} {number}".encode() for number in range(count))


def kill_relay(channel: RelayChannel) -> None:
    pid = channel.relay_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("victims", [("hub-a",), ("coordinator",), ("coordinator", "hub-a", "hub-b")])
def test_kill_9_of_relays_in_mid_stream_loses_nothing_and_repeats_nothing(
    federation: Federation, victims: tuple[str, ...]
) -> None:
    coordinator, hub_a, hub_b = federation.connected("hub-a", "hub-b")
    streams = [stream(hub_a, "coordinator"), stream(coordinator, "hub-a"), stream(hub_a, "hub-b")]
    for pause_s in (0.3, 0.4):
        time.sleep(pause_s)
        for victim in victims:
            until(lambda victim=victim: federation[victim].relay_pid is not None)  # type: ignore[misc]
            kill_relay(federation[victim])
    for thread in streams:
        thread.join()
    assert Counter(d.body for d in taken(coordinator, MESSAGES)) == expected("hub-a", "coordinator")
    assert Counter(d.body for d in taken(hub_a, MESSAGES)) == expected("coordinator", "hub-a")
    assert Counter(d.body for d in taken(hub_b, MESSAGES)) == expected("hub-a", "hub-b")
    for channel in (coordinator, hub_a, hub_b):
        channel.wait_delivered(PATIENCE_S)
        assert channel.receive(0.0) is None


@pytest.mark.parametrize("victim", ["hub-a", "coordinator"])
def test_killed_relay_is_back_in_seconds(federation: Federation, victim: str) -> None:
    coordinator, hub_a = federation.connected("hub-a")
    kill_relay(federation[victim])
    start = time.monotonic()
    hub_a.send("coordinator", b"x")
    coordinator.send("hub-a", b"y")
    taken(coordinator, 1)
    taken(hub_a, 1)
    took = time.monotonic() - start
    print(f"delivered {took:.2f} s after kill -9 of the relay of {victim}")
    assert took < RELAY_RESTART_MAX_S


def test_relay_killed_again_and_again_is_started_ever_more_slowly_and_still_delivers(federation: Federation) -> None:
    coordinator, hub_a = federation.connected("hub-a")
    pids = set()
    for _ in range(3):
        until(lambda: hub_a.relay_pid not in pids | {None})
        pids.add(hub_a.relay_pid)
        kill_relay(hub_a)
    coordinator.send("hub-a", b"x")
    assert taken(hub_a, 1)[0].body == b"x"
    assert not any(psutil.pid_exists(pid) for pid in pids if pid is not None)


class Service:
    """A service in its own process, restarted with the same folder."""

    def __init__(self, name: str, identities: Identities, folder: Path, *answer_to: str) -> None:
        self.notes = folder / f"{name}.notes"
        home = identities.folder / name
        program = str(Path(relay_service.__file__))
        self._command = [sys.executable, program, name, str(folder / name), str(home), str(self.notes), *answer_to]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def kill(self) -> list[psutil.Process]:
        """SIGKILL; its relay, which must not outlive it."""
        relays = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return relays

    def noted(self) -> Counter[bytes]:
        return Counter(self.notes.read_bytes().splitlines()) if self.notes.exists() else Counter()


def restarting(service: Service, times: int, pause_s: float, check: Callable[[list[psutil.Process]], None]) -> None:
    for _ in range(times):
        time.sleep(pause_s)
        check(service.kill())
        service.start()


def no_orphan(relays: list[psutil.Process]) -> None:
    assert relays
    took = until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in relays), 2.0)
    assert took < 2.0


def test_kill_9_of_a_hub_s_whole_service_loses_nothing_and_leaves_no_orphan(
    federation: Federation, identities: Identities, tmp_path: Path
) -> None:
    coordinator = federation.coordinator()
    hub = Service("hub-a", identities, tmp_path, "coordinator")
    try:
        coordinator.wait_connected(["hub-a"], PATIENCE_S)
        sending = stream(coordinator, "hub-a", MESSAGES, 0.015)
        restarting(hub, 2, 0.6, no_orphan)
        sending.join()
        wanted = expected("coordinator", "hub-a")
        until(lambda: set(hub.noted()) == set(wanted))
        assert (hub.noted() - wanted).total() <= 2  # per kill the one in hand, which was not reported done
        answers: Counter[bytes] = Counter()
        while set(answers) != set(wanted):
            answers += Counter(d.body for d in taken(coordinator, 1))
        assert (answers - wanted).total() <= 2
    finally:
        hub.kill()


def test_kill_9_of_the_coordinator_s_whole_service_loses_nothing(
    federation: Federation, identities: Identities, tmp_path: Path
) -> None:
    hub_a, hub_b = federation.hub("hub-a"), federation.hub("hub-b")
    coordinator = Service("coordinator", identities, tmp_path)
    try:
        streams = [stream(hub_a, "coordinator"), stream(hub_a, "hub-b")]
        restarting(coordinator, 2, 0.8, no_orphan)
        for thread in streams:
            thread.join()
        assert Counter(d.body for d in taken(hub_b, MESSAGES)) == expected("hub-a", "hub-b")
        wanted = expected("hub-a", "coordinator")
        until(lambda: set(coordinator.noted()) == set(wanted))
        assert (coordinator.noted() - wanted).total() <= 2
        hub_a.wait_delivered(PATIENCE_S)
    finally:
        coordinator.kill()


def test_ctrl_c_at_the_terminal_does_not_reach_the_relay(federation: Federation) -> None:
    hub_a = federation.hub("hub-a")
    hub_a.wait_ready()
    assert hub_a.relay_pid is not None
    assert os.getpgid(hub_a.relay_pid) != os.getpgid(0)
