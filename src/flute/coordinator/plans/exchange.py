"""One round between the coordinator and the hubs: what was stored so far decides what is sent next.

gathering -> asked -> masked -> echoed -> opened        pooled, under masks (`masked`; split besides: `split`)
gathering -> asked -> talking -> opened                 computed by the hubs on shares (`joint`)
gathering -> asked -> opened                            split among enclaves (`split`), or a hub's own answer
     any of these -> failed
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct

from flute.coordinator.desk import Desk
from flute.coordinator.plans.aggregators import Aggregators
from flute.coordinator.plans.carrier import Carrier
from flute.coordinator.plans.encrypted import EncryptedRounds
from flute.coordinator.plans.joint import JointRounds
from flute.coordinator.plans.masked import MaskedRounds
from flute.coordinator.plans.split import MaskedSplitRounds, SplitRounds
from flute.coordinator.rounds import RoundRow, Rounds, StudyRow
from flute.coordinator.turns import Turns
from flute.errors import BadMessageError, Equivocation, NotInRoster, ProtocolAbortedError
from flute.messages.answer import EncryptedAnswer, JointTotal, KeyReady, MaskedAnswer, OwnTotal, SplitAnswer
from flute.messages.protocol import Ticket
from flute.messages.question import OwnQuestion
from flute.messages.talk import Said
from flute.study.agreement import Agreement
from flute.study.files.check import checked_agreement


class Exchange:
    """Moves single rounds. The runner decides which, and what a failure means for the study."""

    def __init__(self, rounds: Rounds, desk: Desk, timeout_s: float, aggregators: Aggregators) -> None:
        self._turns = Turns(rounds, desk, timeout_s)
        self._masked = MaskedRounds(self._turns)
        self._carrier = Carrier(self._turns)
        self._joint = JointRounds(self._turns, self._carrier)
        self._encrypted = EncryptedRounds(self._turns, self._carrier)
        self._split = SplitRounds(self._turns, aggregators)
        self._masked_split = MaskedSplitRounds(self._turns, self._masked, self._split)

    def progress(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        """One piece of work on an active round; False when only waiting is left."""
        try:
            moved = self._move(row, agreement, r)
        except (ProtocolAbortedError, BadMessageError, NotInRoster) as error:
            self.fail(row, r, error.text)
            return True
        if moved or self._carrier.carries(r):  # a talk watches over its own time
            return moved
        if not self._turns.begun(r):  # after a restart: the hubs may have waited for us
            self._turns.postpone(r)
        elif time.time() > r.deadline:
            self.fail(row, r, f"no answer from {', '.join(self._turns.silent(r) or sorted(agreement.hubs))}")
            return True
        self._turns.offer_again(r)
        return False

    def _move(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        if r.party:
            return self._own_round(row, agreement, r)
        price = checked_agreement(row.agreement).prices[r.question][r.step]
        match agreement.plan.name:
            case "mpc":
                return self._joint.move(row, agreement, r)
            case "threshold-he":
                return self._encrypted.move(row, agreement, r, price)
            case "enclave":
                return self._split.move(row, agreement, r, price)
            case "secagg-enclave":
                return self._masked_split.move(row, agreement, r, price)
        return self._masked.move(row, agreement, r, price)

    def _own_round(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        if r.state == "gathering":
            question = OwnQuestion(row.digest, r.question, r.step, r.attempt, self._turns.rounds.parameters(r.id))
            self._turns.advance(row, r, "asked", {r.party: question})
            return True
        own = self._turns.answers(r, OwnTotal)
        if r.party in own:
            self._turns.opened(row, agreement, r, own[r.party].total, {r.party: own[r.party].receipt})
            return True
        return False

    def check_answer(self, r: RoundRow, hub: str, answer: Struct) -> None:
        """Before `hub`'s answer is kept.

        Raises: BadMessageError, ProtocolAbortedError, NotInRoster: it is not for this round, not the hub's own
        vector, or not as it signed it.
        """
        if isinstance(answer, MaskedAnswer):
            self._masked.check_answer(r, hub, answer)
        if isinstance(answer, SplitAnswer):
            if answer.boxes.hub != hub:
                raise Equivocation(f"{hub} answered with boxes of {answer.boxes.hub}.")
            self._split.check_answer(r, hub, answer.boxes)
        if isinstance(answer, EncryptedAnswer) and answer.contribution.hub != hub:
            raise Equivocation(f"{hub} answered with a contribution of {answer.contribution.hub}.")

    def tolerates(self, agreement: Agreement, r: RoundRow, refused: Sequence[str]) -> bool:
        """May a round go on without the hubs that refused it?"""
        return not r.party and len(refused) <= agreement.plan.dropouts and r.state in ("gathering", "asked")

    def owing(self, r: RoundRow) -> list[str]:
        """Hubs that owe an answer to what was sent last in an active round."""
        return self._turns.silent(r)

    def late(self, r: RoundRow) -> list[str]:
        """Those that owe one, and had their time."""
        over = self._turns.begun(r) and not self._carrier.carries(r) and time.time() > r.deadline
        return self.owing(r) if over else []

    # --- what hubs say in a talk -----------------------------------------------------------------

    def asked_by(self, digest: bytes) -> tuple[int, str] | None:
        """(round, hub) of a message that is kept in memory alone."""
        return self._carrier.asked_by(digest)

    def talk(self, row: StudyRow, r: RoundRow, hub: str, body: Said | JointTotal | KeyReady) -> None:
        try:
            self._carrier.take(r, hub, body, body.session)
        except ProtocolAbortedError as error:
            self.fail(row, r, error.text)

    # --- how rounds end ----------------------------------------------------------------------------

    def fail(self, row: StudyRow, r: RoundRow, why: str) -> None:
        """Give a round up. What a hub charged for it stays charged; a repeat is a new charge."""
        self._carrier.drop(r.id)
        self._turns.fail(row, r, why)

    def tell_aborted(self, row: StudyRow, r: RoundRow, hubs: Sequence[str] = ()) -> None:
        self._carrier.drop(r.id)
        self._turns.tell_aborted(row, r, hubs)

    def tell_left_out(self, row: StudyRow, r: RoundRow) -> None:
        self._masked.tell_left_out(row, r)

    def send(self, hub: str, body: Struct, study: str) -> None:
        self._turns.send(hub, body, study)

    def keep_ticket(self, study: str, hub: str, ticket: Ticket) -> None:
        self._masked.keep_ticket(study, hub, ticket)
