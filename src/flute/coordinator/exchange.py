"""One round between the coordinator and the hubs: what was stored so far decides what is sent next.

    gathering -> asked -> masked -> echoed -> opened        pooled, under masks
    asked -> opened                                         a hub's own answer
         any of these -> failed

Every transition is one transaction that also stores what is to be sent; sending comes after it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from flute.coordinator.desk import Desk
from flute.coordinator.rounds import MessageRow, RoundRow, Rounds, StudyRow
from flute.errors import BadMessageError, NotInRoster, ProtocolAbortedError
from flute.messages.answer import EchoAnswer, MaskedAnswer, OwnTotal, Receipt, SharesAnswer
from flute.messages.envelope import kind_of
from flute.messages.protocol import Echo, Masked, Shares, StudyKey, Ticket
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

    def progress(self, row: StudyRow, agreement: Agreement, r: RoundRow, answers: Sequence[MessageRow]) -> bool:
        """One piece of work on an active round; False when only waiting is left."""
        price = checked_agreement(row.agreement).prices[r.question][r.step]
        try:
            moved = (
                self._own_round(row, agreement, r, answers)
                if r.party
                else self._pooled_round(row, agreement, r, answers, price)
            )
        except (ProtocolAbortedError, BadMessageError, NotInRoster) as error:
            self.fail(row, r, error.text)
            return True
        if not moved and r.id not in self._offered:  # after a restart: the hubs may have waited for us
            self._rounds.advance(r.id, {"deadline": time.time() + self._timeout_s}, [])
        elif not moved and time.time() > r.deadline:
            self.fail(row, r, f"no answer from {', '.join(self._silent(agreement, r, answers))}")
            return True
        if not moved:
            self._offer_again(r, answers)
        return moved

    def _own_round(self, row: StudyRow, agreement: Agreement, r: RoundRow, answers: Sequence[MessageRow]) -> bool:
        if r.state == "gathering":
            question = OwnQuestion(row.digest, r.question, r.step, r.attempt, tuple(r.parameters))
            self._advance(row, r, "asked", {r.party: question})
            return True
        own = _bodies(answers, OwnTotal)
        if r.party in own:
            self._opened(row, agreement, r, own[r.party].total, {r.party: own[r.party].receipt})
            return True
        return False

    def _pooled_round(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, answers: Sequence[MessageRow], price: Price
    ) -> bool:
        hubs = set(agreement.hubs)
        keys = {hub: self._desk.roster.signing_key(hub) for hub in agreement.hubs}
        if r.state == "gathering":
            return self._gather(row, agreement, r, price, keys)
        start = msgspec.msgpack.decode(self._sent(r, "secure-question")[0].body, type=SecureQuestion).start
        if r.state == "asked":
            masked = {h: a.masked for h, a in _bodies(answers, MaskedAnswer).items()}
            if set(masked) != hubs:
                return False
            said = SurvivorsSaid(sides.survivors(start, masked, keys))
            self._advance(row, r, "masked", dict.fromkeys(sorted(hubs), said))
            return True
        survivors = msgspec.msgpack.decode(self._sent(r, "survivors-said")[0].body, type=SurvivorsSaid).survivors
        if r.state == "masked":
            echoes: dict[str, Echo] = {h: a.echo for h, a in _bodies(answers, EchoAnswer).items()}
            if set(echoes) != hubs:
                return False
            valid, wrong = sides.echoes(start, survivors, echoes, keys)
            _log_blame(r, "sent a wrong signature over the survivor set", wrong)
            said_echoes = EchoesSaid(valid)
            self._advance(row, r, "echoed", dict.fromkeys(sorted(hubs), said_echoes))
            return True
        shares: dict[str, Shares] = {h: a.shares for h, a in _bodies(answers, SharesAnswer).items()}
        if set(shares) != hubs:
            return False
        answered = _bodies(answers, MaskedAnswer)
        vectors: dict[str, Masked] = {h: a.masked for h, a in answered.items()}
        total, bad = sides.total(start, survivors, vectors, shares)
        _log_blame(r, "sent shares that do not hold", bad)
        for hub, share in shares.items():
            if share.ticket is not None:
                self.keep_ticket(row.study, hub, share.ticket)
        self._opened(row, agreement, r, total.astype("<i8").tobytes(), {h: a.receipt for h, a in answered.items()})
        return True

    def _gather(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price, keys: Mapping[str, bytes]
    ) -> bool:
        """Tickets of all hubs, then message 0; the tickets it names are burnt in the same transaction."""
        terms = sides.group_terms(agreement, row.digest, self._desk.roster)
        stored = self._rounds.tickets(row.study)
        fresh = {t.pub.hub: t for t, used in stored if used is None and sides.usable(t, terms)}
        lacking = sorted(set(agreement.hubs) - set(fresh))
        if lacking:
            asked = {m.hub for m in self._sent(r, "ticket-call")}
            calls = {
                hub: TicketCall(row.digest, self._burnt(stored, hub), self._study_keys(row.study))
                for hub in lacking
                if hub not in asked
            }
            if calls:
                self._advance(row, r, "gathering", calls)
            return False
        tickets = {hub: fresh[hub] for hub in agreement.hubs}
        asked_digest = sides.step_digest(row.digest, r.question, r.step, r.attempt, r.parameters)
        starts = sides.starts(terms, r.id, asked_digest, price.shape.size, tickets, keys)
        questions = {
            hub: SecureQuestion(row.digest, r.question, r.step, r.attempt, tuple(r.parameters), start)
            for hub, start in starts.items()
        }
        self._advance(row, r, "asked", questions, [sides.ticket_digest(t) for t in tickets.values()])
        return True

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

    def tell_aborted(self, row: StudyRow, r: RoundRow) -> None:
        """Those that answered learn that nothing came of it; said before it is stored, as in `_opened`."""
        answers = self._rounds.messages(r.id, outgoing=False)
        receipts = {h: a.receipt for h, a in _bodies(answers, MaskedAnswer).items()}
        receipts |= {h: a.receipt for h, a in _bodies(answers, OwnTotal).items()}
        for hub, receipt in receipts.items():
            self.send(hub, RoundClosed(receipt.release, "aborted", bytes(32)), row.study)

    def send(self, hub: str, body: Struct, study: str) -> None:
        try:
            _, envelope = self._desk.write(body, hub=hub, study=study)
        except NotInRoster:
            return
        self._rounds.count_traffic(study, "coordinator", hub, kind_of(body), len(envelope))
        self._desk.send(hub, envelope)

    def keep_ticket(self, study: str, hub: str, ticket: Ticket) -> None:
        self._rounds.add_ticket(study, hub, sides.ticket_digest(ticket), msgspec.msgpack.encode(ticket))

    def _offer_again(self, r: RoundRow, answers: Sequence[MessageRow]) -> None:
        """Open messages once more, byte for byte: after a restart at once, then every few seconds."""
        if time.monotonic() - self._offered.get(r.id, 0.0) < ASK_AGAIN_S:
            return
        self._offered[r.id] = time.monotonic()
        answered = {(m.hub, m.kind) for m in answers}
        for message in self._rounds.messages(r.id, outgoing=True):
            if (message.hub, _ANSWER_TO[message.kind]) not in answered:
                self._desk.send(message.hub, message.envelope)

    def _sent(self, r: RoundRow, kind: str) -> list[MessageRow]:
        return [m for m in self._rounds.messages(r.id, outgoing=True) if m.kind == kind]

    def _silent(self, agreement: Agreement, r: RoundRow, answers: Sequence[MessageRow]) -> list[str]:
        answered = {(m.hub, m.kind) for m in answers}
        open_ones = {
            m.hub for m in self._rounds.messages(r.id, outgoing=True) if (m.hub, _ANSWER_TO[m.kind]) not in answered
        }
        return sorted(open_ones) or sorted(agreement.hubs)


_ANSWER_TO: Final = {
    "ticket-call": "ticket-given",
    "secure-question": "masked-answer",
    "survivors-said": "echo-answer",
    "echoes-said": "shares-answer",
    "own-question": "own-total",
}


def _log_blame(r: RoundRow, what: str, hubs: Sequence[str]) -> None:
    if hubs:
        LOG.warning("round %s of %s: %s %s", r.id, r.study, ", ".join(hubs), what)


def _bodies(messages: Sequence[MessageRow], kind: type[T]) -> dict[str, T]:
    tag = kind.__struct_config__.tag
    return {m.hub: msgspec.msgpack.decode(m.body, type=kind) for m in messages if m.kind == tag}
