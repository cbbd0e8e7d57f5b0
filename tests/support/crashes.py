"""A federation in one process whose parties die at a chosen write and come back, and what must hold then.

A party's *points* are the calls by which it leaves a trace: transactions of its stores, lines of its journal,
messages handed to its channel and taken off it. `Crash` is raised just before or just after one of them and
nothing catches it, as nothing catches kill -9; then the party is opened anew from its folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from flute.aggregation.context import pub_digest
from flute.coordinator.desk import ACCEPTS as FROM_HUBS
from flute.errors import FluteError
from flute.hub.service import ACCEPTS as TO_HUBS
from flute.hub.store import HubPolicy
from flute.ledger.budgets.budget import Level
from flute.ledger.journals.journal import verify
from flute.ledger.lines.entries import RecordSourceOpened
from flute.messages.answer import MaskedAnswer, OwnTotal, SharesAnswer
from flute.messages.envelope import _unseal, envelope_digest, parse_envelope, read_body
from flute.messages.question import SecureQuestion
from flute.study.agreement import Agreement
from flute.study.protection import study_budget
from support.inprocess import Columns, InProcessFederation, TestHub
from support.parties import Party
from support.wiretap import Said

When = Literal["before", "after"]
COORDINATOR_WRITES = (
    "add_study", "set_study", "set_consent", "add_ticket", "add_round", "advance", "add_answer", "put_result",
    "count_traffic", "stop_study",
)  # fmt: skip


class Crash(BaseException):
    """The process is gone. Not an Exception: no handler of the service may see it."""


@dataclass
class Points:
    """Counts the points of one party and crashes it at those that `dies` names."""

    dies: Callable[[int, When], bool] = lambda number, when: False
    count: int = 0
    names: list[str] = field(default_factory=list)
    crashes: int = 0

    @contextmanager
    def point(self, name: str) -> Iterator[None]:
        number, self.count = self.count, self.count + 1
        self.names.append(name)
        self._die_if_due(number, "before")
        yield
        self._die_if_due(number, "after")

    def _die_if_due(self, number: int, when: When) -> None:
        if self.dies(number, when):
            self.crashes += 1
            raise Crash(f"{when} point {number}, {self.names[number]}")

    def wrap(self, owner: object, name: str) -> None:
        """Make `owner.name(...)` a point."""
        real = getattr(owner, name)

        @wraps(real)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.point(name):
                return real(*args, **kwargs)

        setattr(owner, name, counted)

    def wrap_context(self, owner: object, name: str) -> None:
        """Make a context manager's body, to its commit, a point."""
        real = getattr(owner, name)

        @contextmanager
        def counted(*args: Any) -> Iterator[Any]:
            with self.point(name), real(*args) as value:
                yield value

        setattr(owner, name, counted)


class CrashingFederation(InProcessFederation):
    """`points`: party to what counts and crashes it; parties without one never die."""

    def __init__(self, folder: Path, data: dict[str, Columns], variables: Any, *, policy: HubPolicy | None = None):
        self.points: dict[str, Points] = defaultdict(Points)
        self.said: list[Said] = []
        self._charged: dict[str, tuple[float, float, int]] = {}
        super().__init__(folder, data, variables, policy=policy)
        self._listen()

    # --- parties that can die -----------------------------------------------------------------------

    def open_hub(self, name: str, columns: Columns) -> TestHub:
        hub = super().open_hub(name, columns)
        points = self.points[name]
        points.wrap_context(hub.parts.store, "_write")
        points.wrap(hub.parts.journal, "_append")
        points.wrap(hub.parts.channel, "send")
        points.wrap(hub.parts.channel, "done")
        return hub

    def open_coordinator(self) -> None:
        super().open_coordinator()
        points = self.points["coordinator"]
        for write in COORDINATOR_WRITES:
            points.wrap(self.rounds, write)
        points.wrap(self.channel, "send")
        points.wrap(self.channel, "done")

    @contextmanager
    def alive(self, party: str) -> Iterator[None]:
        """Whatever `party` does inside; if it dies of it, it is opened anew, and nothing may be lost by that."""
        try:
            yield
        except Crash:
            self._reopen(party)

    def _reopen(self, party: str) -> None:
        if party == "coordinator":
            self.open_coordinator()
            self._until_up("coordinator", lambda: self.runner.tick_all())
            return
        before = self.charges(party)
        self.restart_hub(party)
        after = self.charges(party)
        assert all(b <= a for b, a in zip(before, after, strict=True)), "a restart lost a reservation"

    def _until_up(self, party: str, start: Callable[[], None]) -> None:
        try:
            start()
        except Crash:
            self._reopen(party)

    def charges(self, hub: str) -> tuple[float, float, int]:
        account = self.hubs[hub].parts.ledger.account(Level.HUB, "")
        return account.reserved + account.settled, account.delta, account.exact_numbers

    # --- a study, by people who try again ------------------------------------------------------------

    def drive(self, agreement: Agreement, *, patience: int = 60) -> tuple[str, str]:
        """Propose, consent, run, however often somebody dies. (state, why) of the ended study."""
        for _ in range(patience):
            with self.alive("coordinator"):
                if self.rounds.study(agreement.study) is None:
                    self.propose_only(agreement)
            self.settle()
            self._consent_where_asked(agreement.study)
            self.settle()
            row = self.rounds.study(agreement.study)
            if row is None:
                continue
            if row.state in ("finished", "stopped"):
                self.settle()
                return row.state, row.why
            with self.alive("coordinator"):
                if row.state == "ready":
                    self.runner.run(agreement.study)
            self.settle()
            self.time_passes()
        raise AssertionError(f"study {agreement.study} came to no end: {self.rounds.study(agreement.study)}")

    def propose_only(self, agreement: Agreement) -> None:
        from flute.study.agreement import agreement_digest, sign_agreement, write_agreement

        raw = write_agreement(agreement)
        self.runner.propose(raw, sign_agreement(raw, Party("ada").signing), agreement, agreement_digest(raw))

    def _consent_where_asked(self, study: str) -> None:
        for name in list(self.hubs):
            with self.alive(name):
                try:
                    entry = self.hubs[name].parts.store.study(study)
                except FluteError:
                    continue
                if entry.state == "proposed":
                    self.hubs[name].steward.decide(study, grant=True, person="eva")

    def time_passes(self) -> None:
        """Half a minute later: what is offered again from time to time is due again."""
        self.runner._proposed.clear()
        self.runner._exchange._turns._offered.clear()
        with self.alive("coordinator"):
            self.runner.tick_all()
        self.settle()

    def settle(self) -> None:
        moved = True
        while moved:
            moved = sum(self._deliver_to_hub(name) for name in list(self.hubs)) > 0  # every one, not up to the first
            moved = self._deliver_to_coordinator() or moved

    def _deliver_to_hub(self, name: str) -> bool:
        delivery = self.hubs[name].parts.channel.receive(0)
        if delivery is not None:
            with self.alive(name):
                self.hubs[name].service.deal(delivery)
        return delivery is not None

    def _deliver_to_coordinator(self) -> bool:
        delivery = self.channel.receive(0)
        if delivery is not None:
            with self.alive("coordinator"):
                self.runner.receive(delivery.body)
                self.channel.done(delivery)
        return delivery is not None

    # --- everything that was said ----------------------------------------------------------------------

    def _listen(self) -> None:
        put = self.exchange.put

        def heard(recipient: str, sender: str, body: bytes) -> None:
            put(recipient, sender, body)
            envelope = parse_envelope(body)
            accepts = FROM_HUBS if recipient == "coordinator" else TO_HUBS
            clear = _unseal(envelope, Party(recipient).sealing)
            said = read_body(envelope.header.kind, clear, accepts)
            self.said.append(Said(envelope.header, said, clear, envelope_digest(body)))

        self.exchange.put = heard  # type: ignore[method-assign]


# --- what must hold, whatever died ----------------------------------------------------------------------


def check_all(fed: CrashingFederation, agreement: Agreement, state: str, why: str) -> None:
    """Named end, nothing said twice in two ways, all of it paid, never over budget, journals whole."""
    assert state in ("finished", "stopped")
    assert state == "finished" or len(why) > 10
    questions = {s.digest: s.body for s in fed.said if isinstance(s.body, SecureQuestion)}
    check_said_once(fed.said, questions, lambda hub, r: fed.hubs[hub].parts.ledger.find(r) is not None)
    for name in fed.hubs:
        check_hub(fed, name, agreement)


def check_said_once(
    said_by_hubs: Iterable[Said], questions: Mapping[bytes, SecureQuestion], paid: Callable[[str, bytes], bool]
) -> None:
    """Per release one answer, per ticket one vector under its mask, per round one opening; each answer paid for.

    `questions`: by the digest of their envelopes. `paid`: did this hub's journal charge this release?"""
    answers: dict[tuple[str, bytes], set[bytes]] = defaultdict(set)
    vectors: dict[tuple[str, bytes], set[bytes]] = defaultdict(set)
    openings: dict[tuple[str, bytes], set[bytes]] = defaultdict(set)
    for said in said_by_hubs:
        hub = said.header.sender
        match said.body:
            case MaskedAnswer(masked=masked, receipt=receipt):
                sent = masked.sha256 + masked.vector
                answers[hub, receipt.release].add(sent)
                question = questions[said.header.answers]
                ticket = next(p for p in question.start.pubs if p.hub == hub)
                vectors[hub, pub_digest(ticket)].add(sent)
                vectors[hub, masked.ctx].add(sent)
            case OwnTotal(total=total, receipt=receipt):
                answers[hub, receipt.release].add(total)
            case SharesAnswer(shares=shares):
                openings[hub, shares.ctx].add(repr(shares.shares).encode())
    for what, seen in (("release", answers), ("ticket", vectors), ("round", openings)):
        twice = [key for key, different in seen.items() if len(different) > 1]
        assert not twice, f"two different answers left for one {what}: {twice}"
    for hub, release in answers:
        assert paid(hub, release), "an answer left that nobody had paid for"


def check_hub(fed: CrashingFederation, name: str, agreement: Agreement) -> None:
    hub = fed.hubs[name]
    verify(hub.folder / "journal.db", hub.parts.signing.public)
    account = hub.parts.ledger.account(Level.STUDY, agreement.study)
    assert account.reserved + account.settled <= study_budget(agreement)[0]
    assert account.exact_numbers <= agreement.max_numbers
    opened = [line.entry for line in hub.parts.journal.lines() if isinstance(line.entry, RecordSourceOpened)]
    releases = [entry.release_id for entry in opened if entry.release_id]
    assert len(releases) == len(set(releases)), "records were read twice for one release"
    for release in releases:
        assert hub.parts.ledger.find(release) is not None, "records were read before they were paid for"


def check_tidy(fed: CrashingFederation, agreement: Agreement) -> None:
    """After a study that finished every hub has erased its study's secrets and settled what it answered."""
    for name, hub in fed.hubs.items():
        assert hub.parts.store.member(agreement.study) is None, f"{name} keeps secrets of an ended study"
        answered = {
            s.body.receipt.release
            for s in fed.said
            if s.header.sender == name and isinstance(s.body, MaskedAnswer | OwnTotal)
        }
        unsettled = {r.release_id for r in hub.parts.ledger.open()} & answered
        assert not unsettled, f"{name} was never told how {len(unsettled)} of its releases ended"
