"""Rounds of plan `secagg`: the coordinator's part of masked sums.

Plan `secagg-enclave` goes the same way, but for what hubs are asked and how the sum is made (`split`).

gathering -> asked -> masked -> echoed -> opened
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flute.coordinator.rounds import RoundRow, Rounds, StudyRow
from flute.coordinator.turns import Turns, log_blame
from flute.errors import Equivocation
from flute.messages.answer import EchoAnswer, MaskedAnswer, Receipt, SharesAnswer
from flute.messages.protocol import Masked, Shares, Start, StudyKey, Survivors, Ticket
from flute.messages.question import EchoesSaid, SecureQuestion, SurvivorsSaid, TicketCall
from flute.study.agreement import Agreement
from flute.study.plans import sides
from flute.study.protection import Price


@dataclass(frozen=True, slots=True)
class Gathered:
    """Message 0 for every hub, and the digests of the tickets that it names."""

    starts: dict[str, Start]
    tickets: list[bytes]


@dataclass(frozen=True, slots=True)
class Shown:
    """The tickets of a round, and what hubs have shown of them to open it."""

    tickets: dict[str, Ticket]
    shares: dict[str, Shares]


class MaskedRounds:
    """Moves a round of masked sums; what was stored so far decides what is sent next."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._rounds = turns.rounds

    def move(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        if r.state == "gathering":
            gathered = self.gather(row, agreement, r, price)
            return gathered is not None and self._ask(row, r, gathered)
        start = self._turns.said(r, SecureQuestion).start
        if r.state == "asked":
            return self.survivors(row, r, start, "masked-answer")
        survivors = self._turns.said(r, SurvivorsSaid).survivors
        if r.state == "masked" and agreement.plan.echo:
            return self.echoes(row, agreement, r, start, survivors)
        return self._open(row, agreement, r, start, survivors, price)

    def survivors(self, row: StudyRow, r: RoundRow, start: Start, kind: str) -> bool:
        """Message 2, once every hub's answer (of `kind`) is here, or enough of them and the others had their time."""
        arrived = self._turns.enough(r, kind, [pub.hub for pub in start.pubs], start.terms.survivors_min)
        if not arrived:
            return False
        self._turns.away[r.study] = frozenset(start.terms.hubs) - set(arrived)
        said = SurvivorsSaid(sides.survivors(start, arrived))
        self._turns.advance(row, r, "masked", dict.fromkeys(arrived, said))
        return True

    def echoes(self, row: StudyRow, agreement: Agreement, r: RoundRow, start: Start, survivors: Survivors) -> bool:
        """Message 4, once enough hubs have signed the set."""
        signed = self._turns.enough(r, "echo-answer", survivors.hubs, start.terms.threshold)
        if not signed:
            return False
        tags = {hub: answer.echo for hub, answer in self._turns.answers(r, EchoAnswer).items() if hub in signed}
        valid, wrong = sides.echoes(start, survivors, tags, self._keys(agreement))
        log_blame(r, "sent a wrong signature over the survivor set", wrong)
        self._turns.advance(row, r, "echoed", dict.fromkeys(signed, EchoesSaid(valid)))
        return True

    def _open(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, start: Start, survivors: Survivors, price: Price
    ) -> bool:
        shown = self.shown(row, agreement, r, start)
        if shown is None:
            return False
        vectors = _Vectors(self._rounds, r.id, survivors.hubs)
        total, bad = sides.total(start, survivors, vectors, shown.tickets, shown.shares, price.bounds)
        log_blame(r, "sent shares that do not hold", bad)
        self.tell_left_out(row, r)
        self.keep_next(row, shown)
        self._turns.opened(row, agreement, r, total.astype("<i8").tobytes(), vectors.receipts)
        return True

    def shown(self, row: StudyRow, agreement: Agreement, r: RoundRow, start: Start) -> Shown | None:
        """What opens the round, once enough hubs have sent it."""
        kind = "echoes-said" if agreement.plan.echo else "survivors-said"
        asked = [hub for hub, sent in self._rounds.exchanged(r.id, outgoing=True) if sent == kind]
        if not self._turns.enough(r, "shares-answer", asked, start.terms.threshold):
            return None
        shares = {hub: answer.shares for hub, answer in self._turns.answers(r, SharesAnswer).items()}
        named = set(sides.named_tickets(start))
        tickets = {t.pub.hub: t for t, _ in self._rounds.tickets(row.study) if sides.ticket_digest(t) in named}
        return Shown(tickets, shares)

    def keep_next(self, row: StudyRow, shown: Shown) -> None:
        """The tickets for a later round that came with the shares."""
        for hub, share in shown.shares.items():
            if share.ticket is not None:
                self.keep_ticket(row.study, hub, share.ticket)

    def _ask(self, row: StudyRow, r: RoundRow, gathered: Gathered) -> bool:
        numbers = self._rounds.parameters(r.id)
        questions = {
            hub: SecureQuestion(row.digest, r.question, r.step, r.attempt, numbers, start)
            for hub, start in gathered.starts.items()
        }
        self._turns.advance(row, r, "asked", questions, gathered.tickets)
        return True

    def gather(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> Gathered | None:
        """Tickets of the hubs, then message 0; the tickets it names have to be burnt in the transaction that sends
        it."""
        terms = sides.group_terms(agreement, row.digest, self._turns.desk.roster)
        stored = self._rounds.tickets(row.study)
        fresh = {t.pub.hub: t for t, used in stored if used is None and sides.usable(t, terms)}
        if not self._turns.waited(r, sorted(fresh), agreement.hubs, terms.survivors_min):
            asked = {hub for hub, kind in self._rounds.exchanged(r.id, outgoing=True) if kind == "ticket-call"}
            calls = {
                hub: TicketCall(row.digest, self._burnt(stored, hub), self._study_keys(row.study))
                for hub in sorted(set(agreement.hubs) - set(fresh) - asked)
            }
            if calls:
                self._turns.advance(row, r, "gathering", calls)
            return None
        asked_digest = sides.step_digest(row.digest, r.question, r.step, r.attempt, self._rounds.parameters(r.id))
        starts = sides.starts(terms, r.id, asked_digest, price.layout, fresh, self._keys(agreement))
        return Gathered(starts, [sides.ticket_digest(t) for t in fresh.values()])

    def check_answer(self, r: RoundRow, hub: str, answer: MaskedAnswer) -> None:
        """Raises: BadMessageError, ProtocolAbortedError, NotInRoster."""
        if answer.masked.hub != hub:
            raise Equivocation(f"{hub} answered with a vector of {answer.masked.hub}.")
        start = self._turns.said(r, SecureQuestion).start
        sides.check_masked(start, answer.masked, {hub: self._turns.desk.roster.signing_key(hub)})

    def tell_left_out(self, row: StudyRow, r: RoundRow) -> None:
        """Hubs whose vectors came after the set was fixed."""
        inside = self._turns.said(r, SurvivorsSaid).survivors.hubs
        arrived = {hub for hub, kind in self._rounds.exchanged(r.id, outgoing=False) if kind == "masked-answer"}
        late = sorted(arrived - set(inside))
        if late:
            self._turns.tell_aborted(row, r, late)

    def keep_ticket(self, study: str, hub: str, ticket: Ticket) -> None:
        self._rounds.add_ticket(study, hub, sides.ticket_digest(ticket), msgspec.msgpack.encode(ticket))

    def _keys(self, agreement: Agreement) -> Mapping[str, bytes]:
        return sides.hub_keys(agreement, self._turns.desk.roster)

    @staticmethod
    def _burnt(tickets: Sequence[tuple[Ticket, int | None]], hub: str) -> int:
        """The highest serial of a hub's tickets that a round has named."""
        return max((t.pub.serial for t, used in tickets if t.pub.hub == hub and used is not None), default=0)

    def _study_keys(self, study: str) -> tuple[StudyKey, ...]:
        return tuple(
            msgspec.msgpack.decode(c["key"], type=StudyKey)
            for _, c in sorted(self._rounds.consents(study).items())
            if c["key"] is not None
        )


class _Vectors(Mapping[str, Masked]):
    """The vectors of a round, read from the store one at a time; notes the receipts that came with them."""

    def __init__(self, rounds: Rounds, round_id: int, hubs: Sequence[str]) -> None:
        self._rounds, self._round, self._hubs = rounds, round_id, hubs
        self.receipts: dict[str, Receipt] = {}

    def __getitem__(self, hub: str) -> Masked:
        answer = msgspec.msgpack.decode(self._rounds.answer(self._round, hub, "masked-answer"), type=MaskedAnswer)
        self.receipts[hub] = answer.receipt
        return answer.masked

    def __iter__(self) -> Iterator[str]:
        return iter(self._hubs)

    def __len__(self) -> int:
        return len(self._hubs)
