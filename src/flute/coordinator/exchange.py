"""One round between the coordinator and the hubs: what was stored so far decides what is sent next.

    gathering -> asked -> masked -> echoed -> opened        pooled, under masks
    asked -> opened                                         a hub's own answer
         any of these -> failed

Every transition is one transaction that also stores what is to be sent; sending comes after it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from flute.coordinator.desk import Desk
from flute.coordinator.rounds import RoundRow, Rounds, StudyRow
from flute.defaults import STRAGGLER_AGAIN_S, STRAGGLER_S
from flute.errors import BadMessageError, Equivocation, NotInRoster, ProtocolAbortedError
from flute.messages.answer import EchoAnswer, MaskedAnswer, OwnTotal, Receipt, SharesAnswer
from flute.messages.envelope import kind_of
from flute.messages.protocol import Masked, Start, StudyKey, Survivors, Ticket
from flute.messages.question import (
    EchoesSaid,
    OwnQuestion,
    RoundClosed,
    SecureQuestion,
    SurvivorsSaid,
    TicketCall,
)
from flute.study import sides
from flute.study.agreement import Agreement
from flute.study.check import checked_agreement
from flute.study.protection import Price, uncover
from flute.study.release import total_digest

LOG = logging.getLogger("flute.coordinator")
T = TypeVar("T", bound=Struct)
ASK_AGAIN_S: Final = 5.0
"""Open messages are offered again this often; hubs know them again and answer the same."""


class Exchange:
    """Moves single rounds. The runner decides which, and what a failure means for the study."""

    def __init__(self, rounds: Rounds, desk: Desk, timeout_s: float) -> None:
        self._rounds = rounds
        self._desk = desk
        self._timeout_s = timeout_s
        self._offered: dict[int, float] = {}  # round id -> when its open messages were last offered
        self._enough_since: dict[tuple[int, str], float] = {}  # (round id, state) -> since when enough have answered
        self._away: dict[str, frozenset[str]] = {}  # study -> hubs that its last round did without

    def progress(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        """One piece of work on an active round; False when only waiting is left."""
        price = checked_agreement(row.agreement).prices[r.question][r.step]
        try:
            moved = self._own_round(row, agreement, r) if r.party else self._pooled_round(row, agreement, r, price)
        except (ProtocolAbortedError, BadMessageError, NotInRoster) as error:
            self.fail(row, r, error.text)
            return True
        if not moved and r.id not in self._offered:  # after a restart: the hubs may have waited for us
            self._rounds.advance(r.id, {"deadline": time.time() + self._timeout_s}, [])
        elif not moved and time.time() > r.deadline:
            self.fail(row, r, f"no answer from {', '.join(self._silent(r) or sorted(agreement.hubs))}")
            return True
        if not moved:
            self._offer_again(r)
        return moved

    def _own_round(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        if r.state == "gathering":
            question = OwnQuestion(row.digest, r.question, r.step, r.attempt, tuple(r.parameters))
            self._advance(row, r, "asked", {r.party: question})
            return True
        own = self._answers(r, OwnTotal)
        if r.party in own:
            self._opened(row, agreement, r, own[r.party].total, {r.party: own[r.party].receipt})
            return True
        return False

    def _pooled_round(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        keys = {hub: self._desk.roster.signing_key(hub) for hub in agreement.hubs}
        if r.state == "gathering":
            return self._gather(row, agreement, r, price, keys)
        start = self._said(r, SecureQuestion).start
        if r.state == "asked":
            return self._survivors(row, r, start)
        survivors = self._said(r, SurvivorsSaid).survivors
        if r.state == "masked" and agreement.plan.echo:
            return self._echoes(row, r, start, survivors, keys)
        return self._open(row, agreement, r, start, survivors, price)

    def _survivors(self, row: StudyRow, r: RoundRow, start: Start) -> bool:
        """Message 2, once every hub's vector is here, or enough of them and the others had their time."""
        arrived = self._enough(r, "masked-answer", [pub.hub for pub in start.pubs], start.terms.survivors_min)
        if not arrived:
            return False
        self._away[r.study] = frozenset(start.terms.hubs) - set(arrived)
        said = SurvivorsSaid(sides.survivors(start, arrived))
        self._advance(row, r, "masked", dict.fromkeys(arrived, said))
        return True

    def _echoes(
        self, row: StudyRow, r: RoundRow, start: Start, survivors: Survivors, keys: Mapping[str, bytes]
    ) -> bool:
        signed = self._enough(r, "echo-answer", survivors.hubs, start.terms.threshold)
        if not signed:
            return False
        tags = {hub: answer.echo for hub, answer in self._answers(r, EchoAnswer).items() if hub in signed}
        valid, wrong = sides.echoes(start, survivors, tags, keys)
        _log_blame(r, "sent a wrong signature over the survivor set", wrong)
        self._advance(row, r, "echoed", dict.fromkeys(signed, EchoesSaid(valid)))
        return True

    def _open(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, start: Start, survivors: Survivors, price: Price
    ) -> bool:
        kind = "echoes-said" if agreement.plan.echo else "survivors-said"
        asked = [hub for hub, sent in self._rounds.exchanged(r.id, outgoing=True) if sent == kind]
        if not self._enough(r, "shares-answer", asked, start.terms.threshold):
            return False
        shares = {hub: answer.shares for hub, answer in self._answers(r, SharesAnswer).items()}
        named = set(sides.named_tickets(start))
        tickets = {t.pub.hub: t for t, _ in self._rounds.tickets(row.study) if sides.ticket_digest(t) in named}
        vectors = _Vectors(self._rounds, r.id, survivors.hubs)
        total, bad = sides.total(start, survivors, vectors, tickets, shares, price.bounds)
        _log_blame(r, "sent shares that do not hold", bad)
        self.tell_left_out(row, r)
        for hub, share in shares.items():
            if share.ticket is not None:
                self.keep_ticket(row.study, hub, share.ticket)
        self._opened(row, agreement, r, total.astype("<i8").tobytes(), vectors.receipts)
        return True

    def _gather(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price, keys: Mapping[str, bytes]
    ) -> bool:
        """Tickets of the hubs, then message 0; the tickets it names are burnt in the same transaction."""
        terms = sides.group_terms(agreement, row.digest, self._desk.roster)
        stored = self._rounds.tickets(row.study)
        fresh = {t.pub.hub: t for t, used in stored if used is None and sides.usable(t, terms)}
        if not self._waited(r, sorted(fresh), agreement.hubs, terms.survivors_min):
            asked = {hub for hub, kind in self._rounds.exchanged(r.id, outgoing=True) if kind == "ticket-call"}
            calls = {
                hub: TicketCall(row.digest, self._burnt(stored, hub), self._study_keys(row.study))
                for hub in sorted(set(agreement.hubs) - set(fresh) - asked)
            }
            if calls:
                self._advance(row, r, "gathering", calls)
            return False
        asked_digest = sides.step_digest(row.digest, r.question, r.step, r.attempt, r.parameters)
        starts = sides.starts(terms, r.id, asked_digest, price.layout, fresh, keys)
        questions = {
            hub: SecureQuestion(row.digest, r.question, r.step, r.attempt, tuple(r.parameters), start)
            for hub, start in starts.items()
        }
        self._advance(row, r, "asked", questions, [sides.ticket_digest(t) for t in fresh.values()])
        return True

    def check_answer(self, r: RoundRow, hub: str, answer: Struct) -> None:
        """Before `hub`'s answer is kept.

        Raises: BadMessageError, ProtocolAbortedError, NotInRoster: it is not for this round, not the hub's own
        vector, or not as it signed it.
        """
        if isinstance(answer, MaskedAnswer):
            if answer.masked.hub != hub:
                raise Equivocation(f"{hub} answered with a vector of {answer.masked.hub}.")
            roster = self._desk.roster
            start = self._said(r, SecureQuestion).start
            sides.check_masked(start, answer.masked, {hub: roster.signing_key(hub)})

    def tolerates(self, agreement: Agreement, r: RoundRow, refused: Sequence[str]) -> bool:
        """May a round go on without the hubs that refused it?"""
        return not r.party and len(refused) <= agreement.plan.dropouts and r.state in ("gathering", "asked")

    def _enough(self, r: RoundRow, kind: str, expected: Sequence[str], least: int) -> tuple[str, ...]:
        """The hubs that sent their answer of that kind, once it is time to go on with them; none before."""
        arrived = sorted(hub for hub, sent in self._rounds.exchanged(r.id, outgoing=False) if sent == kind)
        return tuple(arrived) if self._waited(r, arrived, expected, least) else ()

    def _waited(self, r: RoundRow, arrived: Sequence[str], expected: Sequence[str], least: int) -> bool:
        """All are here, or enough are and the others refused or had some time more: little, if they were left out of
        the study's last round too."""
        if len(arrived) < least:
            return False
        refused = {hub for hub, kind in self._rounds.exchanged(r.id, outgoing=False) if kind == "refused"}
        if set(expected) - refused <= set(arrived):
            return True
        since = self._enough_since.setdefault((r.id, r.state), time.monotonic())
        known_away = set(expected) - refused - set(arrived) <= self._away.get(r.study, frozenset())
        patience = STRAGGLER_AGAIN_S if known_away else STRAGGLER_S
        return time.monotonic() - since > min(patience, self._timeout_s / 2)

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

    def _advance(
        self, row: StudyRow, r: RoundRow, state: str, bodies: Mapping[str, Struct], tickets: list[bytes] | None = None
    ) -> None:
        """Store the new state with what is to be sent, then send."""
        written = {
            hub: self._desk.write(body, hub=hub, study=row.study, round_id=r.id) for hub, body in bodies.items()
        }
        outgoing = [
            (hub, kind_of(bodies[hub]), digest, envelope, msgspec.msgpack.encode(bodies[hub]))
            for hub, (digest, envelope) in written.items()
        ]
        values = {"state": state, "deadline": time.time() + self._timeout_s}
        self._rounds.advance(r.id, values, outgoing, tickets or [])
        self._offered[r.id] = time.monotonic()
        for hub, kind, _, envelope, _ in outgoing:
            self._rounds.count_traffic(row.study, "coordinator", hub, kind, len(envelope))
            self._desk.send(hub, envelope)

    def _opened(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, total: bytes, receipts: Mapping[str, Receipt]
    ) -> None:
        price = checked_agreement(row.agreement).prices[r.question][r.step]
        if len(total) != 8 * price.shape.size:
            raise ProtocolAbortedError("An opened total has another length than its step was agreed with.")
        _, sigma = uncover(np.frombuffer(total, dtype="<i8"), price)
        for hub, receipt in receipts.items():  # said first: a crash repeats it, and never leaves it unsaid
            self.send(hub, RoundClosed(receipt.release, "released", total_digest(total)), row.study)
        self._rounds.advance(r.id, {"state": "opened", "total": total, "sigma": sigma, "ended_at": time.time()}, [])

    def fail(self, row: StudyRow, r: RoundRow, why: str) -> None:
        """Give a round up. What a hub charged for it stays charged; a repeat is a new charge."""
        LOG.warning("round %s of %s failed: %s", r.id, row.study, why)
        self.tell_aborted(row, r)
        self._rounds.advance(r.id, {"state": "failed", "why": why[:500], "ended_at": time.time()}, [])

    def tell_aborted(self, row: StudyRow, r: RoundRow, hubs: Sequence[str] = ()) -> None:
        """Those that answered (or only `hubs`) learn that nothing came of it; said before it is stored, as in
        `_opened`."""
        for hub, kind in self._rounds.exchanged(r.id, outgoing=False):
            if kind in ("masked-answer", "own-total") and (not hubs or hub in hubs):
                body = self._rounds.answer(r.id, hub, kind)
                kinds: type[MaskedAnswer | OwnTotal] = MaskedAnswer if kind == "masked-answer" else OwnTotal
                answer = msgspec.msgpack.decode(body, type=kinds)
                self.send(hub, RoundClosed(answer.receipt.release, "aborted", bytes(32)), row.study)

    def tell_left_out(self, row: StudyRow, r: RoundRow) -> None:
        """Hubs whose vectors came after the set was fixed."""
        inside = self._said(r, SurvivorsSaid).survivors.hubs
        arrived = {hub for hub, kind in self._rounds.exchanged(r.id, outgoing=False) if kind == "masked-answer"}
        late = sorted(arrived - set(inside))
        if late:
            self.tell_aborted(row, r, late)

    def send(self, hub: str, body: Struct, study: str) -> None:
        try:
            _, envelope = self._desk.write(body, hub=hub, study=study)
        except NotInRoster:
            return
        self._rounds.count_traffic(study, "coordinator", hub, kind_of(body), len(envelope))
        self._desk.send(hub, envelope)

    def keep_ticket(self, study: str, hub: str, ticket: Ticket) -> None:
        self._rounds.add_ticket(study, hub, sides.ticket_digest(ticket), msgspec.msgpack.encode(ticket))

    def _offer_again(self, r: RoundRow) -> None:
        """What waits for an answer once more, byte for byte: after a restart at once, then every few seconds."""
        if time.monotonic() - self._offered.get(r.id, 0.0) < ASK_AGAIN_S:
            return
        self._offered[r.id] = time.monotonic()
        silent = self._silent(r)
        for kind in _WAITS_FOR[r.state] if silent else ():
            for message in self._rounds.messages(r.id, kind, outgoing=True):
                if message.hub in silent:
                    self._desk.send(message.hub, message.envelope)

    def _silent(self, r: RoundRow) -> list[str]:
        """Hubs that owe an answer to what was sent last."""
        answered = set(self._rounds.exchanged(r.id, outgoing=False))
        sent = self._rounds.exchanged(r.id, outgoing=True)
        waiting = ((hub, _ANSWERS_TO[kind]) for hub, kind in sent if kind in _WAITS_FOR[r.state])
        return sorted({hub for hub, kinds in waiting if not any((hub, kind) in answered for kind in kinds)})

    def _said(self, r: RoundRow, kind: type[T]) -> T:
        """What was sent in a round, as any of its hubs got it."""
        tag = str(kind.__struct_config__.tag)
        return msgspec.msgpack.decode(self._rounds.messages(r.id, tag, outgoing=True)[0].body, type=kind)

    def _answers(self, r: RoundRow, kind: type[T]) -> dict[str, T]:
        """Hub to answer of one kind, of those that have arrived."""
        tag = str(kind.__struct_config__.tag)
        rows = self._rounds.messages(r.id, tag, outgoing=False)
        return {row.hub: msgspec.msgpack.decode(row.body, type=kind) for row in rows}


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


_WAITS_FOR: Final = {
    "gathering": ("ticket-call",),
    "asked": ("secure-question", "own-question"),
    "masked": ("survivors-said",),
    "echoed": ("echoes-said",),
}
"""State to what was sent last."""
_ANSWERS_TO: Final = {
    "ticket-call": ("ticket-given",),
    "secure-question": ("masked-answer",),
    "survivors-said": ("echo-answer", "shares-answer"),
    "echoes-said": ("shares-answer",),
    "own-question": ("own-total",),
}


def _log_blame(r: RoundRow, what: str, hubs: Sequence[str]) -> None:
    if hubs:
        LOG.warning("round %s of %s: %s %s", r.id, r.study, ", ".join(hubs), what)
