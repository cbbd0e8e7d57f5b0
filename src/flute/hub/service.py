"""The hub service: takes envelopes from the channel, lets the gate decide, answers, journals everything.

One thread deals with messages, one after the other; the steward's door calls the same object under the same
lock. Every step is idempotent: a message that a crash cut short is delivered again and dealt with again.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from flute.defaults import MAX_TEXT_CHARS, MAX_WAITING_MESSAGES
from flute.errors import (
    BadMessageError,
    ChannelError,
    Equivocation,
    EvidenceError,
    FluteError,
    NotInRoster,
    NotPossible,
    ProtocolAbortedError,
    Refusal,
    WrongStudy,
)
from flute.hub.accounts import accounts_told
from flute.hub.decisions.consents import Consents
from flute.hub.parts import COORDINATOR, NO_DIGEST, Parts
from flute.hub.rounds.gate import Gate, release_id
from flute.hub.rounds.protocol import Protocol
from flute.hub.rounds.stops import Stops
from flute.hub.store import StudyEntry
from flute.ledger.budgets.budget import Outcome
from flute.ledger.journals.heads import parse_head
from flute.ledger.lines.entries import (
    QuestionReceived,
    Released,
    Resent,
    RosterAccepted,
    StudyProposed,
)
from flute.ledger.lines.entries import Refused as RefusedLine
from flute.ledger.lines.entries import StudyClosed as StudyClosedLine
from flute.messages.accounts import AccountsCall
from flute.messages.answer import Refused
from flute.messages.channel import Delivery
from flute.messages.envelope import (
    Opened,
    bodies,
    envelope_digest,
    open_envelope,
    parse_envelope,
)
from flute.messages.question import (
    AnyQuestion,
    EchoesSaid,
    EncryptedQuestion,
    JointQuestion,
    KeyCall,
    OpeningCall,
    OwnQuestion,
    Proposal,
    RosterFiles,
    RoundClosed,
    SecureQuestion,
    SplitQuestion,
    StudyClosed,
    SurvivorsSaid,
    TicketCall,
)
from flute.messages.talk import Heard
from flute.study.agreement import agreement_digest
from flute.trust.roster import Roster

LOG = logging.getLogger("flute.hub")
ACCEPTS = bodies(
    Proposal, TicketCall, SecureQuestion, JointQuestion, KeyCall, EncryptedQuestion, OpeningCall, SplitQuestion,
    OwnQuestion, SurvivorsSaid, EchoesSaid, RoundClosed, StudyClosed, AccountsCall,
)  # fmt: skip
TALK_ONLY = bodies(Heard)
STOP_ONLY = bodies(StudyClosed)
_ANSWERED_AT_ONCE = SecureQuestion | EncryptedQuestion | SplitQuestion | OwnQuestion
"""A question whose answer leaves as the reply to it; that of a computation among hubs leaves when it ends."""
ROSTER_ONLY = bodies(RosterFiles)


_AFTER_FAILURE_S = 2.0
_INTERNAL = "The hub could not deal with this message; its steward finds the reason in the hub's log."


class _InternalError(FluteError):
    """Something of ours broke. The other side learns that and no more."""

    code = "internal-error"


class HubService:
    """Deals with envelopes and with the steward's decisions."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self.lock = threading.RLock()
        self.consents = Consents(parts)
        self._gate = Gate(parts.me, parts.sealing, parts.store, parts.ledger, lambda: parts.trust.roster, parts.roots)
        self._stops = Stops()
        self._protocol = Protocol(parts, self._gate, self._stops)

    @property
    def parts(self) -> Parts:
        return self._p

    # --- messages ---------------------------------------------------------------------------------

    def serve(self, stop: threading.Event) -> None:
        """Deal with messages until told to stop. They are taken in by another thread, see `stops`."""
        taken: queue.Queue[Delivery] = queue.Queue(MAX_WAITING_MESSAGES)
        threading.Thread(target=self.take_in, args=(taken, stop), name="intake of messages", daemon=True).start()
        while not stop.is_set():
            try:
                delivery = taken.get(timeout=0.5)
            except queue.Empty:
                with self.lock:
                    self._protocol.tidy()
                continue
            try:
                self.deal(delivery)
            except Exception:  # a full disk, say: nothing left, nothing is forgotten, and it is tried again
                LOG.exception("a message could not be answered")
                stop.wait(_AFTER_FAILURE_S)

    def take_in(self, taken: queue.Queue[Delivery], stop: threading.Event) -> None:
        """Messages from the channel, in the order in which they come, until told to stop."""
        while not stop.is_set():
            try:
                delivery = self._p.channel.receive(timeout_s=0.5)
            except ChannelError:
                LOG.exception("no message can be taken in")
                stop.wait(_AFTER_FAILURE_S)
                continue
            if delivery is not None:
                self._heed_stop(delivery.body)
                _put(taken, delivery, stop)

    def _heed_stop(self, raw: bytes) -> None:
        """Where it is the coordinator's word that a study is stopped, whatever is busy with that study ends. The
        message itself waits its turn, and is checked again then."""
        try:
            if parse_envelope(raw).header.kind == "study-closed":
                opened = self._gate.open(raw, STOP_ONLY, self._p.now())
                self._stops.stop(opened.header.study)
        except FluteError:
            return

    def deal(self, delivery: Delivery) -> None:
        """One message. Its reply is stored, then sent, and only then is the message forgotten."""
        with self.lock:
            reply = self.reply_to(delivery.body)
            if reply is not None:
                self._p.channel.send(COORDINATOR, reply)
        self._p.channel.done(delivery)

    def reply_to(self, raw: bytes) -> bytes | None:
        """The envelope that answers `raw`: an answer, a refusal, or nothing where nothing is to be said."""
        now = self._p.now()
        with self.lock:
            try:
                return self._answer(raw, now)
            except FluteError as error:
                return self._refuse(raw, error, now)
            except Exception:
                LOG.exception("a message could not be dealt with")
                return self._refuse(raw, _InternalError(_INTERNAL), now)

    def _answer(self, raw: bytes, now: int) -> bytes | None:
        header = parse_envelope(raw).header
        if header.kind == "roster-files":
            self._take_roster(raw, now)
            return None
        if header.kind == "talk-heard":
            return self._protocol.hear(self._gate.open(raw, TALK_ONLY, now), now)
        opened = self._gate.open(raw, ACCEPTS, now)
        stored = self._p.store.seen(header.message_id, opened.digest, now)
        if stored is not None:
            self._p.journal.append(Resent(header.study, b"", envelope_digest(stored), COORDINATOR), now)
            return stored
        try:
            body = self._dispatch(opened, raw, now)
        except (Refusal, BadMessageError, EvidenceError, ProtocolAbortedError) as error:
            reply = self._refuse(raw, error, now)  # remembered as well: asked again, it is said again
        else:
            reply = None if body is None else self._p.envelope(body, header.study, opened.digest, now)
            if isinstance(opened.body, _ANSWERED_AT_ONCE) and reply is not None:
                self._journal_release(opened, reply, now)
        self._p.store.remember(header.message_id, opened.digest, reply, now)
        return reply

    def _dispatch(self, opened: Opened, raw: bytes, now: int) -> Struct | None:
        if isinstance(opened.body, AnyQuestion):
            return self._question(opened, opened.body, len(raw), now)
        match opened.body:
            case Proposal() as proposal:
                return self._proposed(proposal, now)
            case TicketCall() as call:
                return self._protocol.ticket(opened, call, now)
            case SurvivorsSaid() as said:
                return self._protocol.survivors(opened, said, now)
            case EchoesSaid() as said:
                return self._protocol.shares(opened, said, now)
            case KeyCall() as key_call:
                return self._protocol.key_call(opened, key_call, now)
            case OpeningCall() as opening:
                return self._protocol.opening(opened, opening, now)
            case AccountsCall() as accounts:
                return accounts_told(self._p, accounts, now)
            case RoundClosed() as closed:
                self._settle(closed, now)
            case StudyClosed() as closed:
                self._closed(closed, now)
        return None

    # --- studies ------------------------------------------------------------------------------------

    def _proposed(self, proposal: Proposal, now: int) -> Struct | None:
        """A study to decide about. Proposed again, it is answered with the decision, if there is one."""
        digest = agreement_digest(proposal.agreement)
        checked = self._gate.check_proposal(proposal.agreement, proposal.signature)
        agreement = checked.agreement
        try:
            known = self._p.store.study(agreement.study)
        except WrongStudy:
            known = None
        if known is not None and known.digest != digest:
            raise WrongStudy(
                f"{self._p.me} knows another agreement of study {agreement.study}; give it another name."
            )
        if known is not None:
            return None if known.state == "proposed" else self._p.decision(known)
        entry = StudyEntry(
            agreement.study, proposal.agreement, digest, proposal.signature, "proposed", NO_DIGEST, False, now, 0
        )
        self._p.journal.append(StudyProposed(agreement.study, digest, agreement.researcher), now)
        self._p.store.put_study(entry)
        return self._follow(entry, now)

    def _follow(self, entry: StudyEntry, now: int) -> Struct | None:
        """The decision where the study follows one that a steward has read; else it waits for its own."""
        try:
            granted = self.consents.followed(entry, now)
        except NotPossible:
            LOG.info("study %s could follow another, but the dataset does not serve it", entry.study)
            return None
        if granted is None:
            return None
        self._p.store.put_study(granted)
        return self._p.decision(granted)

    def _closed(self, closed: StudyClosed, now: int) -> None:
        """The study ended: its keys and unused tickets are erased, what was journaled stays."""
        entry = self._p.store.study(closed.study)
        if entry.digest != closed.agreement:
            raise WrongStudy(f"{self._p.me} knows another agreement of study {closed.study}.")
        if entry.state in ("granted", "proposed"):
            self._p.store.put_study(msgspec.structs.replace(entry, state="closed"))
        self._p.store.erase_member(closed.study)
        self._protocol.drop_study(closed.study)
        self._stops.forget(closed.study)
        self._p.journal.append(StudyClosedLine(closed.study, closed.state, closed.why), now)

    # --- rounds ---------------------------------------------------------------------------------------

    def _question(self, opened: Opened, asked: AnyQuestion, size: int, now: int) -> Struct:
        header = opened.header
        self._p.journal.append(
            QuestionReceived(header.study, asked.question, asked.step, header.sender, opened.digest, size), now
        )
        admitted = self._gate.admit(opened, now)
        return self._protocol.answer(admitted, now)

    # --- roster -----------------------------------------------------------------------------------------

    def _take_roster(self, raw: bytes, now: int) -> None:
        """A newer roster proves itself by its owners' signatures; the envelope only has to be the coordinator's."""
        header = parse_envelope(raw).header
        opened = open_envelope(
            raw, me=self._p.me, roster=AnyVersion(self._p.trust.roster, header.roster_version), accepts=ROSTER_ONLY,
            now=now, key=self._p.sealing,
        )  # fmt: skip
        if opened.header.sender != COORDINATOR or not isinstance(opened.body, RosterFiles):
            raise NotInRoster("Only the coordinator hands over rosters.")
        before = self._p.trust.roster.version
        roster = self._p.trust.update(opened.body.files, now)
        if roster.version != before:
            self._p.journal.append(RosterAccepted(roster.version, roster.digest, roster.content.expires), now)
        if opened.body.head:
            self._p.ledger.witnessed(parse_head(opened.body.head))

    # --- small pieces -------------------------------------------------------------------------------------

    def _refuse(self, raw: bytes, error: FluteError, now: int) -> bytes | None:
        """Journal a refusal and say it to the coordinator: a code and a sentence, nothing else."""
        try:
            header = parse_envelope(raw).header
            sender, kind, study = header.sender, header.kind, header.study
        except BadMessageError:
            sender, kind, study = "", "", ""
        LOG.warning("refused %s of %s (%s): %s", kind or "a message", sender or "someone", error.code, error.text)
        digest = envelope_digest(raw)
        line = RefusedLine(error.code, error.text[:MAX_TEXT_CHARS], sender, kind, study, digest)
        self._p.journal.append(line, now)
        body = Refused(error.code, error.text[:MAX_TEXT_CHARS])
        try:
            return self._p.envelope(body, study, digest, now)
        except NotInRoster:
            return None

    def _journal_release(self, opened: Opened, reply: bytes, now: int) -> None:
        asked = opened.body
        assert isinstance(asked, _ANSWERED_AT_ONCE)
        entry = self._p.store.study(opened.header.study)
        release = release_id(entry, asked)
        line = Released(entry.study, asked.question, asked.step, release, envelope_digest(reply), len(reply))
        self._p.journal.append(line, now)

    def _settle(self, closed: RoundClosed, now: int) -> None:
        """How a release ended. One that this hub never reserved is not acknowledged, only logged."""
        reservation = self._p.ledger.find(closed.release)
        if reservation is None:
            raise WrongStudy(f"{self._p.me} reserved nothing for the release that this message closes.")
        self._protocol.drop_release(closed.release)
        outcome: Outcome = "released" if closed.outcome == "released" else "aborted"
        total = closed.total if outcome == "released" else b""
        if self._p.ledger.outcome(closed.release) is None:
            self._p.ledger.settle(reservation, outcome, now, total=total)
        elif outcome == "released":
            self._require_same_total(closed)

    def _require_same_total(self, closed: RoundClosed) -> None:
        """Raises: Equivocation: this hub was told another total of that release before."""
        told = self._p.ledger.total(closed.release)
        if told and told != closed.total:
            raise Equivocation(
                f"{self._p.me} was told another total of this release before; the journal holds what was said first."
            )


def _put(taken: queue.Queue[Delivery], delivery: Delivery, stop: threading.Event) -> None:
    """Waits for room; what finds none before the end stays in the mailbox and comes again."""
    while not stop.is_set():
        try:
            return taken.put(delivery, timeout=0.5)
        except queue.Full:
            continue


@dataclass(frozen=True, slots=True)
class AnyVersion:
    """A roster for opening a roster update, which is by nature from another version."""

    roster: Roster
    version: int

    def signing_key(self, party: str) -> bytes:
        return self.roster.signing_key(party)

    def sealing_key(self, party: str) -> bytes:
        return self.roster.sealing_key(party)
