"""What a hub does in each plan's protocol, once its service has let a message in: secrets, journal lines, answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct

from flute.hub.parts import Parts
from flute.hub.rounds.gate import Admitted, Gate
from flute.hub.rounds.round import Round
from flute.hub.rounds.stops import Stops
from flute.hub.rounds.talks import Talks
from flute.hub.store import StudyEntry
from flute.ledger.lines.entries import EvidenceAccepted, ProtocolStep, Released, TicketBurnt, TicketDealt
from flute.messages.answer import (
    EchoAnswer,
    JointTotal,
    KeyBegun,
    KeyReady,
    OpeningAnswer,
    SharesAnswer,
    TicketGiven,
)
from flute.messages.envelope import Opened, envelope_digest
from flute.messages.protocol import Echo, Start
from flute.messages.question import (
    EchoesSaid,
    EncryptedQuestion,
    JointQuestion,
    KeyCall,
    OpeningCall,
    OwnQuestion,
    SecureQuestion,
    SplitQuestion,
    SurvivorsSaid,
    TicketCall,
)
from flute.messages.talk import Heard, Said
from flute.primitives.keys import digest
from flute.study.plans.jointly import Vector, Work
from flute.study.plans.sides import named_tickets
from flute.threshold.keys import PublicKey

LOG = logging.getLogger("flute.hub")


class Protocol:
    """One per service. Every method takes a message that passed the gate's first checks."""

    def __init__(self, parts: Parts, gate: Gate, stops: Stops) -> None:
        self._p = parts
        self._gate = gate
        self._round = Round(parts.store, parts.journal, parts.sources, parts.entropy, stops)
        self._talks = Talks()

    # --- questions ------------------------------------------------------------------------------

    def answer(self, admitted: Admitted, now: int) -> Struct:
        """To a question that passed all six checks, under whatever plan it was asked."""
        match admitted.opened.body:
            case SecureQuestion() as asked:
                self._journal_tickets(admitted, asked.start, now)
                return self._round.pooled(admitted, self._p.side(admitted.study), now)
            case JointQuestion() as joint:
                return self._round.joint(admitted, self._computing(admitted, joint), now)
            case EncryptedQuestion():
                return self._round.encrypted(admitted, self._p.encrypted(admitted.study), now)
            case SplitQuestion(masked=None):
                self._journal_enclaves(admitted, now)
                return self._round.split(admitted, self._p.me, self._p.signing, now)
            case SplitQuestion(masked=Start() as masked):
                self._journal_enclaves(admitted, now)
                self._journal_tickets(admitted, masked, now)
                side = self._p.side(admitted.study)
                return self._round.masked_split(admitted, side, self._p.me, self._p.signing, now)
            case OwnQuestion():
                return self._round.own(admitted, now)
        raise AssertionError("the gate admits no other question")

    def _journal_tickets(self, admitted: Admitted, start: Start, now: int) -> None:
        """The tickets that a message 0 names are burnt, whoever answers."""
        burnt = [TicketBurnt(admitted.study.study, ticket, "named") for ticket in named_tickets(start)]
        self._p.journal.append_all(burnt, now)

    def _journal_enclaves(self, admitted: Admitted, now: int) -> None:
        """Which software, by whose word, gets a share of the answer; before any of it leaves."""
        assert admitted.enclaves is not None
        names = admitted.agreement.plan.aggregators
        lines = [
            EvidenceAccepted(admitted.study.study, name, found.maker, digest(found.measurement), found.development)
            for name, found in zip(names, admitted.enclaves.accepted, strict=True)
        ]
        self._p.journal.append_all(lines, now)

    def _computing(self, admitted: Admitted, asked: JointQuestion) -> Callable[[Work], Said]:
        """Opens the talk of an admitted question, over this hub's part of the computation."""

        def begin(work: Work) -> Said:
            talk = self._p.talk(admitted.study, asked, work)

            def last(total: Vector) -> JointTotal:
                return JointTotal(talk.session, total.astype("<i8").tobytes())

            return self._talks.begin(admitted.agreement.study, admitted.release, talk, last)

        return begin

    # --- talks ----------------------------------------------------------------------------------

    def hear(self, opened: Opened, now: int) -> bytes:
        """One step of a talk. It guards its own order, so steps are neither remembered nor journaled one by one."""
        heard = opened.body
        assert isinstance(heard, Heard)
        entry = self._consented(opened, now)
        body = self._talks.hear(entry.study, heard)
        reply = self._p.envelope(body, entry.study, opened.digest, now)
        if isinstance(body, JointTotal):
            self._journal_total(self._talks.release(heard.session), reply, now)
        if isinstance(body, KeyReady):
            step = ProtocolStep(entry.study, "key-made", digest(body.whole), opened.digest)
            self._p.journal.append(step, now)
        return reply

    def drop_release(self, release: bytes) -> None:
        self._talks.drop(release)

    def drop_study(self, study: str) -> None:
        self._talks.drop_study(study)
        self._round.drop_records()

    def tidy(self) -> None:
        """Called now and then: what is held in memory and not needed any more goes."""
        self._round.tidy()

    def _journal_total(self, release: bytes, reply: bytes, now: int) -> None:
        """A computation among hubs ended, and its total leaves; it was charged when it began."""
        reservation = self._p.ledger.find(release)
        assert reservation is not None
        charge = reservation.charge
        line = Released(charge.study, charge.question, charge.step, release, envelope_digest(reply), len(reply))
        self._p.journal.append(line, now)

    # --- plan secagg ----------------------------------------------------------------------------

    def ticket(self, opened: Opened, call: TicketCall, now: int) -> TicketGiven:
        entry, _ = self._gate.consented(opened, call.agreement, now)
        ticket, named = self._p.side(entry).ticket(call.keys, call.after)
        self._p.journal.append(TicketDealt(entry.study, named), now)
        return TicketGiven(ticket)

    def survivors(self, opened: Opened, said: SurvivorsSaid, now: int) -> EchoAnswer | SharesAnswer:
        entry = self._consented(opened, now)
        answer = self._p.side(entry).told(said.survivors)
        step = "echoed" if isinstance(answer, Echo) else "opened"
        self._p.journal.append(ProtocolStep(entry.study, step, said.survivors.ctx, opened.digest), now)
        return EchoAnswer(answer) if isinstance(answer, Echo) else SharesAnswer(answer)

    def shares(self, opened: Opened, said: EchoesSaid, now: int) -> SharesAnswer:
        entry = self._consented(opened, now)
        shares, wrong = self._p.side(entry).unmask(said.echoes)
        for hub in wrong:
            LOG.warning("study %s: the tag that claims to come from %s is wrong", entry.study, hub)
        self._p.journal.append(ProtocolStep(entry.study, "opened", said.echoes.ctx, opened.digest), now)
        return SharesAnswer(shares)

    # --- plan threshold-he ------------------------------------------------------------------------

    def key_call(self, opened: Opened, call: KeyCall, now: int) -> KeyBegun:
        entry, agreement = self._gate.consented(opened, call.agreement, now)
        self._gate.require_plan(agreement, "threshold-he")
        talk = self._p.encrypted(entry).key_talk(call)

        def last(public: PublicKey) -> KeyReady:
            return KeyReady(talk.session, public.terms, public.whole, public.shares)

        return KeyBegun(self._talks.begin(entry.study, b"", talk, last))

    def opening(self, opened: Opened, call: OpeningCall, now: int) -> OpeningAnswer:
        entry = self._consented(opened, now)
        share = self._p.encrypted(entry).open(call.contributions)
        self._p.journal.append(ProtocolStep(entry.study, "opened", share.ctx, opened.digest), now)
        return OpeningAnswer(share)

    def _consented(self, opened: Opened, now: int) -> StudyEntry:
        named = self._p.store.study(opened.header.study).digest
        return self._gate.consented(opened, named, now)[0]
