"""A local federation of real processes over small tables, and ways to kill -9 parts of it at a chosen moment."""

from __future__ import annotations

import csv
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from flute.errors import Answered, PeerUnreachable
from flute.hub.store import HubPolicy
from flute.ledger.journals.journal import JournalView, verify
from flute.ledger.lines.entries import RecordSourceOpened, Reserved
from flute.local.federation import LocalFederation
from flute.local.run import import_csv, set_policy
from flute.messages.question import SecureQuestion
from flute.study.agreement import Agreement
from flute.trust.keyfiles import load_party_keys
from support.crashes import check_said_once
from support.wiretap import Said, asked, captured_bodies, in_clear

HUBS = ("north", "south", "west")
ENDED = ("finished", "stopped")
STATES = ("gathering", "asked", "masked", "echoed")
POLICY = HubPolicy(
    epsilon=20, epsilon_all=100, exact_allowed=True, max_numbers=10_000_000, floor=1
)  # many studies over the same few rows: the test is about processes, not about the budget
PATIENCE_S = 90.0


def table(seed: int, n: int) -> dict[str, list[Any]]:
    """A small cohort in which a model can be fitted."""
    rng = np.random.default_rng(seed)
    age, sex = rng.normal(60, 10, n).clip(25, 95), rng.integers(0, 2, n)
    pressure = np.exp(rng.normal(4.9, 0.2, n)).clip(70, 250)
    ill = rng.random(n) < 1 / (1 + np.exp(0.5 - 0.04 * (age - 60) - 0.5 * sex))
    return {
        "age": age.round(1).tolist(), "pressure": pressure.round(1).tolist(), "sex": sex.tolist(),
        "grade": rng.choice(["low", "mid", "high"], n).tolist(), "ill": ill.astype(int).tolist(),
    }  # fmt: skip


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


class KilledFederation:
    """Processes that die and come back, while people try again. Wraps `LocalFederation`."""

    def __init__(self, folder: Path, agreement: Agreement, *, round_timeout_s: float = 15.0) -> None:
        capture = folder / "capture"
        capture.mkdir(parents=True)
        self.capture = capture
        self.local = LocalFederation(folder / "federation", HUBS, researcher="ada", capture=capture)
        self.local.build()
        home = self.local.coordinator_home
        home.write_config(msgspec.structs.replace(home.config(), round_timeout_s=round_timeout_s))
        self.local.start()
        set_policy(self.local, POLICY)
        for number, hub in enumerate(HUBS):
            path = folder / f"{hub}.csv"
            write_csv(path, table(number, 80))
            import_csv(self.local, hub, agreement.dataset, path, tuple(v.variable for v in agreement.variables))

    # --- killing ------------------------------------------------------------------------------------

    def kill_service(self, party: str) -> None:
        """kill -9, as a power cut; its relay goes with it. Then it is started again."""
        charged = self.charged(party) if party in HUBS else set()
        relay = self.relay_of(party)
        self.local.services[party].kill()
        until(lambda: relay is None or not relay.is_running() or relay.status() == psutil.STATUS_ZOMBIE)
        self.local.services[party].restart()
        assert charged <= (self.charged(party) if party in HUBS else charged), "a kill lost a reservation"

    def kill_relay(self, party: str) -> None:
        """kill -9 of the relay alone; its service starts another by itself."""
        until(lambda: self.relay_of(party) is not None)
        relay = self.relay_of(party)
        with suppress(psutil.NoSuchProcess):
            if relay is not None:
                relay.send_signal(signal.SIGKILL)

    def relay_of(self, party: str) -> psutil.Process | None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.local.services[party].pid).children():
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    if "flute.transport.relay" in child.cmdline():
                        return child
        return None

    # --- looking ------------------------------------------------------------------------------------

    def state(self, study: str) -> tuple[str, str, str, int]:
        """(state of the study, why, state of its newest round, rounds opened), straight from the database."""
        path = self.local.coordinator_home.database.absolute().as_uri()
        with closing(sqlite3.connect(f"{path}?mode=ro", uri=True, timeout=10)) as db:
            row = db.execute("SELECT state, why FROM study WHERE study = ?", (study,)).fetchone() or ("", "")
            rounds = [r[0] for r in db.execute("SELECT state FROM round WHERE study = ? ORDER BY id", (study,))]
        return row[0], row[1], rounds[-1] if rounds else "", rounds.count("opened")

    def charged(self, hub: str) -> set[bytes]:
        """Releases that a hub's journal charges, read beside the running hub."""
        path = self.local.hub_folder(hub) / "journal.db"
        if not path.exists():
            return set()
        return {line.entry.charge.release_id for line in JournalView(path).lines(kinds=("reserved",))}  # type: ignore[union-attr]

    # --- a study, by people who try again -------------------------------------------------------------

    def begin(self, agreement: Agreement) -> None:
        """Propose, consent, run."""
        with self.local.client() as client:
            self._try(lambda: client.propose(agreement), already="already")
        for hub in HUBS:
            self._try(partial(self._consent, hub, agreement.study), already="nothing to decide")
        until(lambda: self.state(agreement.study)[0] in ("ready", "running", *ENDED))
        with self.local.client() as client:
            self._try(lambda: client.run(agreement.study), already="")

    def wait_ended(self, study: str) -> tuple[str, str]:
        until(lambda: self.state(study)[0] in ENDED, what=lambda: f"{study}: {self.state(study)}")
        return self.state(study)[:2]

    def wait_round(self, study: str, opened: int, state: str) -> bool:
        """Until the study is in that state of a round after `opened` opened ones. False: it ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            ended, _, now, done = self.state(study)
            if ended in ENDED:
                return False
            if done >= opened and now == state:
                return True
        raise AssertionError(f"{study} never came to {state}: {self.state(study)}")

    def wait_connected(self) -> None:
        """Every part is up again: the coordinator answers, every hub's door is open, every relay connected."""

        def up() -> bool:
            try:
                with self.local.client() as client:
                    connected = set(HUBS) <= set(client.get("/health")["connected"])
                for hub in HUBS:
                    with self.local.hub(hub) as door:
                        door.get("/status")
            except PeerUnreachable:
                return False
            return connected

        until(up)

    def _consent(self, hub: str, study: str) -> None:
        with self.local.hub(hub) as door:
            until(lambda: study in {s["study"] for s in door.get("/status")["studies"]})
            door.decide(study, "grant", person="steward")

    @staticmethod
    def _try(act: Callable[[], Any], *, already: str) -> None:
        """Until the service is there to do it. `already`: what it says when an earlier try came through."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                act()
                return
            except Answered as said:
                if already and already in said.text:
                    return
                raise
            except PeerUnreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    # --- what must hold --------------------------------------------------------------------------------

    def check(self) -> None:
        """Journals whole, releases charged once and read once, and nothing said in two ways."""
        for hub in HUBS:
            folder = self.local.hub_folder(hub)
            verify(folder / "journal.db", load_party_keys(folder / "keys").signing.public)
            lines = [line.entry for line in JournalView(folder / "journal.db").lines()]
            reserved = [e.charge.release_id for e in lines if isinstance(e, Reserved)]
            read = [e.release_id for e in lines if isinstance(e, RecordSourceOpened) and e.release_id]
            assert len(set(reserved)) == len(reserved), "a release was charged twice"
            assert len(set(read)) == len(read), "records were read twice for one release"
            assert set(read) <= set(reserved), "records were read that nobody had paid for"
        charged = {hub: self.charged(hub) for hub in HUBS}
        questions = asked(self.local.coordinator_home.database, SecureQuestion)
        check_said_once(self.said(), questions, lambda hub, release: release in charged[hub])

    def said(self) -> list[Said]:
        """Everything that left the hubs until now, in clear."""
        key = load_party_keys(self.local.coordinator_home.keys).sealing
        return [in_clear(body, key) for path in self.capture.iterdir() for body in captured_bodies(path.read_bytes())]

    def close(self) -> None:
        """End everything; nothing of it may be left running."""
        self.local.close()
        until(lambda: not self.processes(), what=lambda: f"left running: {self.processes()}")

    def processes(self) -> list[str]:
        """Command lines that name this federation's folder, except our own."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.local.folder) in line and process.info["pid"] != os.getpid():
                found.append(line)
        return found


def until(
    holds: Callable[[], bool], timeout_s: float = PATIENCE_S, what: Callable[[], str] = lambda: "waited in vain"
) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)
