"""Rounds of plan `mpc`: the hubs compute on shares among themselves; the coordinator carries sealed boxes.

gathering -> asked -> talking -> opened
"""

from __future__ import annotations

from flute.coordinator.plans.carrier import Carrier
from flute.coordinator.rounds import RoundRow, StudyRow
from flute.coordinator.turns import Turns
from flute.errors import Equivocation, ProtocolAbortedError
from flute.messages.answer import JointBegun, JointTotal
from flute.messages.question import JointQuestion
from flute.study.agreement import Agreement


class JointRounds:
    """Moves a round of joint computation."""

    def __init__(self, turns: Turns, carrier: Carrier) -> None:
        self._turns = turns
        self._carrier = carrier

    def move(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        if r.state == "gathering":
            numbers = self._turns.rounds.parameters(r.id)
            asked = JointQuestion(row.digest, r.question, r.step, r.attempt, numbers, r.id)
            self._turns.advance(row, r, "asked", dict.fromkeys(agreement.hubs, asked))
            return True
        if r.state == "asked":
            return self._begin(row, agreement, r)
        if not self._carrier.carries(r):
            raise ProtocolAbortedError("the coordinator was restarted while the hubs computed; they begin anew")
        ended = self._carrier.ended(r)
        if ended is None:
            self._carrier.wait(r)
            return False
        totals = {body.total for body in ended.values() if isinstance(body, JointTotal)}
        if len(totals) != 1:
            raise Equivocation("the hubs report different totals of one computation; at least one of them lies")
        receipts = {hub: begun.receipt for hub, begun in self._turns.answers(r, JointBegun).items()}
        self._turns.opened(row, agreement, r, totals.pop(), receipts)
        self._carrier.drop(r.id)
        return True

    def _begin(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        if not self._turns.all_answered(r, "joint-begun", agreement.hubs):
            return False
        begun = self._turns.answers(r, JointBegun)
        self._turns.advance(row, r, "talking", {})
        self._carrier.begin(r, {hub: answer.said for hub, answer in begun.items()})
        return True
