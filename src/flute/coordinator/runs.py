"""Study runs as a durable state machine: killed at any step, the coordinator goes on where it was.

    study   consenting -> ready -> running -> finished
                 any of these -> stopped (with the reason in words)
    round   gathering -> asked -> masked -> echoed -> opened        pooled, under masks
            gathering -> asked -> talking -> opened                 computed by the hubs on shares
            gathering -> asked -> summed -> opened                  added while encrypted
            gathering -> asked -> opened                            a hub's own answer
                 any of these -> failed (repeated with fresh tickets and noise, and charged again)

Every transition is one transaction that also stores what is to be sent; sending comes after. `tick` looks
at what is stored and does what can be done, so it may be called at any time, in any state, any number of
times: after a message, after a restart, by a clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from msgspec import UNSET

from flute.algorithms.contract import Finished
from flute.algorithms.contract import Opened as OpenedTotal
from flute.coordinator.desk import Desk
from flute.coordinator.inquiries import Inquiries
from flute.coordinator.keeping import lighter_answer, lighter_envelope
from flute.coordinator.members import Members
from flute.coordinator.plans.aggregators import Aggregators
from flute.coordinator.plans.exchange import Exchange
from flute.coordinator.rounds import ACTIVE, MessageRow, RoundRow, Rounds, StudyRow
from flute.coordinator.turns import Charged
from flute.defaults import ROUND_ATTEMPTS, ROUND_TIMEOUT_S
from flute.errors import BadMessageError, FluteError, NotInRoster, ProtocolAbortedError, WrongStudy
from flute.ledger.journals.heads import read_head_line
from flute.messages.accounts import AccountsTold
from flute.messages.answer import Consent, JointTotal, KeyReady, MaskedAnswer, Refused, TicketGiven
from flute.messages.envelope import Opened
from flute.messages.numbers import read_numbers, write_numbers
from flute.messages.question import Proposal
from flute.messages.talk import Said
from flute.study.agreement import Agreement
from flute.study.files.check import checked_agreement
from flute.study.plans import sides
from flute.study.plans.quorum import GRANTED, LEFT, UNDECIDED, missing
from flute.study.program import Track, next_step, tracks
from flute.study.protection import uncover

LOG = logging.getLogger("flute.coordinator")
PROPOSE_AGAIN_S: Final = 30.0
"""Stewards take days; a hub that was away learns of a proposal this soon."""
ENDED: Final = ("finished", "stopped")


class Runner:
    """Drives every study. One per coordinator; `receive` and `tick` may be called from any thread."""

    def __init__(
        self,
        rounds: Rounds,
        desk: Desk,
        *,
        timeout_s: float = ROUND_TIMEOUT_S,
        aggregators: Aggregators | None = None,
    ) -> None:
        self._rounds = rounds
        self._desk = desk
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._proposed: dict[str, float] = {}  # study -> when its open proposals were last offered
        self._histories: dict[str, dict[str, list[OpenedTotal]]] = {}  # study -> track -> what was opened so far
        self._exchange = Exchange(rounds, desk, timeout_s, aggregators or Aggregators())
        self._members = Members(rounds, self._exchange)
        self.inquiries = Inquiries(desk)

    # --- what people ask --------------------------------------------------------------------------

    def propose(self, raw: bytes, signature: bytes, agreement: Agreement, digest: bytes) -> None:
        """A checked and signed agreement becomes a study; every hub's steward is asked."""
        with self._lock:
            if self._rounds.study(agreement.study) is not None:
                raise WrongStudy(f"There is a study {agreement.study} already; choose another name.")
            row = StudyRow(agreement.study, raw, signature, digest, "consenting", "", self._desk.now(), 0)
            self._rounds.add_study(row, agreement.hubs)
            self._ask_consent(row)

    def run(self, study: str) -> None:
        """Raises: WrongStudy: no such study, or it is not ready (who has not consented yet)."""
        with self._lock:
            row = self._study(study)
            if row.state == "running":
                return
            if row.state != "ready":
                waiting = [h for h, c in self._rounds.consents(study).items() if c["decision"] == "asked"]
                why = f"waiting for consent of {', '.join(sorted(waiting))}" if waiting else row.why or row.state
                raise WrongStudy(f"Study {study} cannot run: {why}.")
            self._rounds.set_study(study, "running")
            self.tick(study)

    def stop(self, study: str, why: str) -> None:
        with self._lock:
            row = self._study(study)
            if row.state not in ENDED:
                self._stop(row, why)

    # --- what hubs say ----------------------------------------------------------------------------

    def receive(self, raw: bytes) -> None:
        """One envelope from the channel. Bytes that do not pass are dropped and logged, never acted upon."""
        with self._lock:
            try:
                opened = self._desk.open(raw)
            except (BadMessageError, NotInRoster) as error:
                LOG.warning("dropped a message: %s", error.text)
                return
            header = opened.header
            self._rounds.count_traffic(header.study, (header.sender, "coordinator", header.kind, len(raw)))
            if isinstance(opened.body, Consent):
                self._consent(opened, opened.body)
            elif isinstance(opened.body, AccountsTold):
                self.inquiries.take(header.sender, opened.body)
            else:
                self._answer(opened, raw)

    def _consent(self, opened: Opened, consent: Consent) -> None:
        hub, row = opened.header.sender, self._rounds.study(opened.header.study)
        if row is None or row.digest != consent.agreement or hub not in self._rounds.consents(row.study):
            LOG.warning("dropped a consent of %s to an agreement it was not asked for", hub)
            return
        before = self._rounds.consents(row.study)[hub]["decision"]
        if row.state != "consenting" and before != GRANTED:
            if row.state not in ENDED:
                self._members.too_late(row, hub)
            return
        key = None
        if consent.key is not None:
            try:
                agreement = checked_agreement(row.agreement).agreement
                terms = sides.group_terms(agreement, row.digest, self._desk.roster)
                sides.check_study_key(consent.key, terms, sides.hub_keys(agreement, self._desk.roster))
            except FluteError as error:
                LOG.warning("dropped a consent of %s: %s", hub, error.text)
                return
            key = msgspec.msgpack.encode(consent.key)
        self._rounds.set_consent(row.study, hub, consent.decision, key, consent.snapshot, self._desk.now())
        if row.state in ENDED:
            return  # what was opened before stays opened
        if consent.decision != GRANTED:
            self._without(row, [hub], f"{hub} {LEFT[consent.decision]}")
        self.tick(row.study)

    def _without(self, row: StudyRow, hubs: Sequence[str], why: str) -> None:
        """Hubs take no part any more, as was stored: the study goes on without them, or is stopped.

        Rounds under way began with them and are repeated; what they cost the others stays charged."""
        if not self._members.goes_on(row):
            self._stop(row, why)
        elif row.state == "running":
            LOG.warning("study %s goes on without %s: %s", row.study, ", ".join(hubs), why)
            for r in self._rounds.rounds(row.study):
                if r.state in ACTIVE and r.party in ("", *hubs):
                    self._exchange.fail(row, r, why)

    def _leave_out(self, row: StudyRow, hubs: Sequence[str], decision: str) -> bool:
        """False where the agreement does not let the study go on without these hubs."""
        left = self._running(row.study) and self._members.leave_out(row, hubs, decision, self._desk.now())
        if left:
            self._without(row, hubs, f"{', '.join(hubs)} {LEFT[decision]}")
        return left

    def _answer(self, opened: Opened, raw: bytes) -> None:
        asked = self._rounds.asked_by(opened.header.answers) or self._exchange.asked_by(opened.header.answers)
        if asked is None:
            if isinstance(opened.body, Refused):
                LOG.warning("%s refused: %s", opened.header.sender, opened.body.text)
            return
        round_id, hub = asked[:2]
        if hub != opened.header.sender:
            LOG.warning("%s answered a message to %s; dropped", opened.header.sender, hub)
            return
        current = self._rounds.round(round_id)
        if current is None:
            return
        row = self._study(current.study)
        if isinstance(opened.body, Said | JointTotal | KeyReady):
            self._exchange.talk(row, current, hub, opened.body)
            if not isinstance(opened.body, Said):  # hundreds of steps come before the end, and change nothing stored
                self.tick(current.study)
            return
        try:
            self._exchange.check_answer(current, hub, opened.body)
        except (BadMessageError, ProtocolAbortedError, NotInRoster) as error:
            LOG.warning("dropped an answer of %s: %s", hub, error.text)
            if current.state in ACTIVE and not self._members.carried_out(row).plan.dropouts:
                self._exchange.fail(row, current, error.text)
            return
        body = msgspec.msgpack.encode(opened.body)
        if current.state not in ACTIVE:  # it came too late
            raw, body = lighter_envelope(raw), lighter_answer(opened.header.kind, body)
        # a masked answer is large, and carries its hub's own signature: its envelope is not kept besides
        envelope = b"" if isinstance(opened.body, MaskedAnswer) else raw
        self._rounds.add_answer(round_id, hub, opened.header.kind, opened.digest, envelope, body)
        if isinstance(opened.body, Charged):
            self._keep_head(hub, opened.body.receipt.head)
        if isinstance(opened.body, TicketGiven):
            self._exchange.keep_ticket(opened.header.study, hub, opened.body.ticket)
        if current.state == "failed" and isinstance(opened.body, Charged):
            self._exchange.tell_aborted(row, current, [hub])  # it came too late
        elif current.state in ("masked", "echoed", "opened") and isinstance(opened.body, MaskedAnswer):
            self._exchange.tell_left_out(row, current)
        self.tick(current.study)

    def _keep_head(self, hub: str, raw: bytes) -> None:
        head = read_head_line(raw) if raw else None
        if head is not None:
            self._rounds.keep_head(hub, head.number, raw)

    # --- what time brings ---------------------------------------------------------------------------

    def tick_all(self) -> None:
        """Called by a clock and after a restart."""
        with self._lock:
            for row in self._rounds.studies():
                if row.state in ("consenting", "running"):
                    self.tick(row.study)

    def tick(self, study: str) -> None:
        """Do all that can be done for a study now."""
        with self._lock:
            row = self._study(study)
            if row.state == "consenting":
                if self._members.settle(row, self._desk.now()):
                    self._rounds.set_study(study, "ready")
                else:
                    self._ask_consent(row)
            elif row.state == "running":
                try:
                    while self._running(study) and self._step(row):
                        pass
                except FluteError as error:
                    self._stop(row, error.text)
                except Exception:
                    LOG.exception("study %s", study)
                    self._stop(row, "an internal error at the coordinator; its log has the reason")

    def _ask_consent(self, row: StudyRow) -> None:
        """Proposals are offered again every few seconds until the steward has decided; hubs know them again."""
        if time.monotonic() - self._proposed.get(row.study, -PROPOSE_AGAIN_S) < PROPOSE_AGAIN_S:
            return
        self._proposed[row.study] = time.monotonic()
        for hub, consent in self._rounds.consents(row.study).items():
            if consent["decision"] == UNDECIDED:
                self._exchange.send(hub, Proposal(row.agreement, row.signature), row.study)

    def _step(self, row: StudyRow) -> bool:
        """One piece of work on a running study; False when only waiting is left."""
        agreement = self._members.carried_out(row)
        finished = self._rounds.finished(row.study)
        for group in tracks(agreement):
            open_tracks = [t for t in group if t.reference not in finished]
            if open_tracks:
                moved = [self._step_track(row, agreement, t) for t in open_tracks if self._running(row.study)]
                return any(moved)
        self._finish(row)
        return False

    def _step_track(self, row: StudyRow, agreement: Agreement, track: Track) -> bool:
        past = self._rounds.rounds(row.study, track.question.id, track.party)
        if past and past[-1].state in ACTIVE:
            return self._progress(row, agreement, past[-1])
        failed = [r for r in past if r.state == "failed" and r.step == past[-1].step]
        left = len(missing(self._members.decisions(row.study)))  # each may have cost a round, and is left out now
        if past and past[-1].state == "failed" and len(failed) >= ROUND_ATTEMPTS + left:
            self._stop(row, f"question {track.question.id} failed {len(failed)} times; the last time: {past[-1].why}")
            return False
        done = [r for r in past if r.state == "opened"]
        agreed = checked_agreement(row.agreement).agreement
        step = next_step(agreed, track, self._history(row, track, done), self._rounds.results(row.study))
        if isinstance(step, Finished):
            self._rounds.put_result(row.study, track.reference, step.result, self._desk.now())
            self._histories[row.study].pop(track.reference)  # a study that goes on needs its result alone
            return True
        attempt = sum(1 for r in past if r.step == len(done))
        now = time.time()
        self._rounds.add_round(
            row.study, track.question.id, track.party, len(done), attempt, write_numbers(step.parameters), now,
            now + self._timeout_s,
        )  # fmt: skip
        return True

    def _history(self, row: StudyRow, track: Track, done: Sequence[RoundRow]) -> tuple[OpenedTotal, ...]:
        """What a track's rounds opened. Each is read once: a network's are long, and many. After a restart they are
        read again."""
        steps = checked_agreement(row.agreement).prices[track.question.id]
        history = self._histories.setdefault(row.study, {}).setdefault(track.reference, [])
        for r in done[len(history) :]:
            total, sigma = uncover(np.frombuffer(self._rounds.total(r.id), dtype="<i8"), steps[r.step])
            history.append(OpenedTotal(read_numbers(self._rounds.parameters(r.id)), total, sigma))
        return tuple(history)

    # --- rounds -------------------------------------------------------------------------------------

    def _progress(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        refusals = self._rounds.messages(r.id, "refused", outgoing=False)
        final = [m for m in refusals if msgspec.msgpack.decode(m.body, type=Refused).code not in _REPEATABLE]
        refusing = {m.hub for m in final}
        if final and agreement.hubs_min is not UNSET and time.time() < r.deadline and self._others_owe(r, refusing):
            return False  # whoever else refuses counts as well: the study goes on without all of them, or stops
        if final or (refusals and not self._exchange.tolerates(agreement, r, [m.hub for m in refusals])):
            self._refused(row, r, final or refusals)
            return True
        late = self._exchange.late(r)
        moved = self._exchange.progress(row, agreement, r)
        if late and (now := self._rounds.round(r.id)) is not None and now.state == "failed":
            self._leave_out(row, late, "away")
        return moved

    def _others_owe(self, r: RoundRow, refusing: set[str]) -> bool:
        return bool(set(self._exchange.owing(r)) - refusing)

    def _refused(self, row: StudyRow, r: RoundRow, messages: Sequence[MessageRow]) -> None:
        refusal = msgspec.msgpack.decode(messages[0].body, type=Refused)
        why = f"{messages[0].hub} refused ({refusal.code}): {refusal.text}"
        if refusal.code in _REPEATABLE:
            self._exchange.fail(row, r, why)
        elif not self._leave_out(row, [m.hub for m in messages], "refused"):
            self._stop(row, why)

    def _finish(self, row: StudyRow) -> None:
        """Hubs are told first: a crash in between repeats it, and leaves no hub with keys of an ended study."""
        self._close(row, "finished", "")
        self._rounds.set_study(row.study, "finished", "", self._desk.now())

    def _stop(self, row: StudyRow, why: str) -> None:
        for r in self._rounds.rounds(row.study):
            if r.state in ACTIVE:
                self._exchange.tell_aborted(row, r)
        self._close(row, "stopped", why)
        self._rounds.stop_study(row.study, why, self._desk.now(), time.time())

    def _close(self, row: StudyRow, state: str, why: str) -> None:
        self._histories.pop(row.study, None)
        for hub, consent in self._rounds.consents(row.study).items():
            if consent["decision"] in (GRANTED, UNDECIDED):
                self._members.say_closed(row, hub, state, why)

    def _running(self, study: str) -> bool:
        """As it is now: a piece of work may have stopped the study."""
        return self._rounds.state(study) == "running"

    def _study(self, study: str) -> StudyRow:
        row = self._rounds.study(study)
        if row is None:
            raise WrongStudy(f"There is no study {study!r} here.")
        return row


_REPEATABLE: Final = frozenset({"stale", "out-of-order", "protocol-aborted", "bad-share", "too-few-hubs", "replayed"})
"""Refusals that a fresh round may cure; all others are a hub's decision and stop the study."""
