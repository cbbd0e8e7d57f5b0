"""A whole federation in one process: the real gate, ledger, rounds, runner and messages over the local
channel; only the wire and the FHIR import are left out. The clock is a number that tests may move."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from flute.coordinator.desk import Desk
from flute.coordinator.doors.results import study_release
from flute.coordinator.rounds import Rounds
from flute.coordinator.runs import Runner
from flute.coordinator.store import open_store
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.errors import Unmappable
from flute.hub.decisions.steward import Steward
from flute.hub.parts import Parts
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.service import HubService
from flute.hub.store import DatasetEntry, HubPolicy, HubStore
from flute.ledger.budgets.budget import Ledger
from flute.ledger.journals.journal import Journal
from flute.messages.channel import Channel
from flute.questions.code import code_digest
from flute.study.agreement import Agreement, agreement_digest, sign_agreement, write_agreement
from flute.transport.local import LocalExchange
from flute.trust.roster import ApprovedCode, Coordinator, Hub, Person, Role, Roster, RosterContent, arranged
from support.parties import Party

NOW = 1_790_000_000
Columns = Mapping[str, Sequence[Any]]


@dataclass
class ArraySource:
    """Raw columns in memory; counts how often it was opened and for which fields."""

    columns: Columns
    opened: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def snapshot(self) -> bytes:
        return hashlib.sha256(repr(sorted(self.columns.items())).encode()).digest()

    def size(self) -> int:
        return len(next(iter(self.columns.values())))

    def open(self, variables: Sequence[Variable]) -> Dataset:
        absent = sorted({v.name for v in variables} - set(self.columns))
        if absent:
            raise Unmappable(f"The records have no {', '.join(absent)}.")
        self.opened.append(tuple(v.name for v in variables))
        size = self.size()
        raw = {v.name: np.array(list(self.columns[v.name]), dtype=object) for v in variables}
        return Dataset(
            np.array([f"p{i}" for i in range(size)]),
            {v.name: v.numbers(raw[v.name]) for v in variables},
            list(variables),
        )


@dataclass
class FixedTrust:
    """Stands where `hub.trusted.Trust` stands, with a roster that was made by the test."""

    roster: Roster
    joined: bool = True


@dataclass
class TestHub:
    __test__ = False

    name: str
    folder: Path
    source: ArraySource
    parts: Parts
    service: HubService
    steward: Steward

    def close(self) -> None:
        self.parts.journal.close()
        self.parts.store.close()


def make_roster(hubs: Sequence[str], *, version: int = 1, revoked: Sequence[str] = (), code: bytes = b"") -> Roster:
    coordinator = Party("coordinator")
    content = RosterContent(
        federation="test",
        version=version,
        expires=NOW + 10**7,
        coordinator=Coordinator("coordinator", coordinator.signing.public, coordinator.sealing.public),
        hubs=tuple(
            Hub(h, Party(h).signing.public, Party(h).sealing.public, Party(h + "-owner").signing.public, h,
                h in revoked)
            for h in hubs
        ),
        people=(Person("ada", Party("ada").signing.public, Role.RESEARCHER),),
        codes=(ApprovedCode("algorithms", code or code_digest()),),
    )  # fmt: skip
    return Roster(arranged(content), threshold=2, fresh_until=NOW + 80_000)


class InProcessFederation:
    """`data`: hub to raw columns. `dataset`: the name under which each hub holds its own."""

    def __init__(
        self, folder: Path, data: Mapping[str, Columns], variables: Sequence[Variable], *,
        policy: HubPolicy | None = None, dataset: str = "records",
    ) -> None:  # fmt: skip
        self.folder = folder
        self.now = NOW
        self.exchange = LocalExchange()
        self.roster = make_roster(list(data))
        self.policy = policy or HubPolicy(exact_allowed=True, floor=1, max_numbers=100_000)
        self.variables = tuple(variables)
        self.dataset = dataset
        self.hubs = {name: self.open_hub(name, columns) for name, columns in data.items()}
        self.engine = open_store(folder / "coordinator.db")
        self.open_coordinator()

    def open_coordinator(self) -> None:
        me = Party("coordinator")
        self.rounds = Rounds(self.engine)
        self.channel: Channel = self.exchange.channel("coordinator")
        self.desk = Desk(me.signing, me.sealing, lambda: self.roster, self.channel, lambda: self.now)
        self.runner = Runner(self.rounds, self.desk)

    def open_hub(self, name: str, columns: Columns) -> TestHub:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        source = ArraySource(columns)
        store = HubStore(folder)
        store.put_policy(self.policy)
        store.put_dataset(DatasetEntry(self.dataset, source.snapshot, self.variables, {}, self.now, True))
        me = Party(name)
        journal = Journal.open(folder / "journal.db", me.signing)
        parts = Parts(
            me=name, signing=me.signing, sealing=me.sealing, store=store, journal=journal,
            ledger=Ledger(journal, hub_ceilings(self.policy)), trust=FixedTrust(self.roster),  # type: ignore[arg-type]
            sources=lambda _: source, channel=self.exchange.channel(name), now=lambda: self.now,
        )  # fmt: skip
        service = HubService(parts)
        return TestHub(name, folder, source, parts, service, Steward(parts, service.lock, service.consents))

    def restart_hub(self, name: str) -> TestHub:
        """As after kill -9: everything in memory is gone, everything on disk is there."""
        old = self.hubs[name]
        old.close()
        self.hubs[name] = self.open_hub(name, old.source.columns)
        self.hubs[name].source = old.source
        return self.hubs[name]

    def propose(self, agreement: Agreement) -> None:
        raw = write_agreement(agreement)
        self.runner.propose(raw, sign_agreement(raw, Party("ada").signing), agreement, agreement_digest(raw))
        self.settle()

    def consent(self, study: str) -> None:
        for hub in self.hubs.values():
            hub.steward.decide(study, grant=True, person="eva")
        self.settle()

    def settle(self) -> None:
        """Deliver messages until nobody has anything to say."""
        moved = True
        while moved:
            moved = False
            for hub in self.hubs.values():
                while (delivery := hub.parts.channel.receive(0)) is not None:
                    hub.service.deal(delivery)
                    moved = True
            while (delivery := self.channel.receive(0)) is not None:
                self.runner.receive(delivery.body)
                self.channel.done(delivery)
                moved = True

    def run(self, agreement: Agreement) -> dict[str, Any]:
        """Propose, consent, run: the release as plain values."""
        self.propose(agreement)
        self.consent(agreement.study)
        self.runner.run(agreement.study)
        self.settle()
        row = self.rounds.study(agreement.study)
        assert row is not None
        assert row.state == "finished", row.why
        return msgspec.to_builtins(study_release(self.rounds, row))  # type: ignore[no-any-return]

    def close(self) -> None:
        for hub in self.hubs.values():
            hub.close()
        self.engine.dispose()
