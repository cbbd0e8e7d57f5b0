"""Rounds of plan `enclave`: answers are split among aggregators, each of which adds up one share of every hub's.

    gathering -> asked -> opened
Offers are asked for anew for every round: keys of an aggregator serve one round.
"""

from __future__ import annotations

import os

from flute.coordinator.aggregators import Aggregators
from flute.coordinator.rounds import RoundRow, StudyRow
from flute.coordinator.turns import Turns
from flute.enclaves import collector
from flute.errors import ChannelError, ProtocolAbortedError
from flute.messages.answer import SplitAnswer
from flute.messages.enclave import (
    EnclaveBoxes,
    EnclaveDuty,
    EnclaveFinish,
    EnclaveOffer,
    EnclaveStart,
    EnclaveTaken,
    EnclaveTerms,
    EnclaveTotal,
)
from flute.messages.question import SplitQuestion
from flute.study.agreement import Agreement
from flute.study.enclaved import terms_of
from flute.study.protection import Price
from flute.study.sides import step_digest
from flute.trust.roster import write_content


class SplitRounds:
    """Moves a round among enclaves."""

    def __init__(self, turns: Turns, aggregators: Aggregators) -> None:
        self._turns = turns
        self._aggregators = aggregators

    def move(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        try:
            if r.state == "gathering":
                return self._ask(row, agreement, r, price)
            if not self._turns.all_answered(r, "split-answer", agreement.hubs):
                return False
            answers = self._turns.answers(r, SplitAnswer)
            start = self._turns.said(r, SplitQuestion).start
            boxes = {hub: answer.boxes for hub, answer in answers.items()}
            totals = {name: self._added(start, name, boxes) for name in start.terms.aggregators}
        except ChannelError as error:
            raise ProtocolAbortedError(error.text) from error
        total = collector.total(start, boxes, totals, bounds=price.bounds)
        receipts = {hub: answer.receipt for hub, answer in answers.items()}
        self._turns.opened(row, agreement, r, total.astype("<i8").tobytes(), receipts)
        return True

    def check_answer(self, r: RoundRow, hub: str, boxes: EnclaveBoxes) -> None:
        """Raises: Equivocation, BadSignature, NotInRoster: not this hub's boxes for this round."""
        start = self._turns.said(r, SplitQuestion).start
        collector.check_boxes(start, boxes, {hub: self._turns.desk.roster.signing_key(hub)})

    def _ask(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        terms = terms_of(agreement, row.digest, self._turns.desk.roster)
        start = collector.begin(
            terms,
            round_number=r.id,
            question=step_digest(row.digest, r.question, r.step, r.attempt, r.parameters),
            layout=price.layout,
            offers={name: self._offer(row, terms, name, r.id) for name in terms.aggregators},
            policies={name: self._aggregators.policy(name) for name in terms.aggregators},
            check_key=os.urandom(32),
        )
        for name in terms.aggregators:
            self._aggregators.ask(name, collector.for_aggregators(start), EnclaveTaken)
        asked = SplitQuestion(row.digest, r.question, r.step, r.attempt, tuple(r.parameters), start)
        self._turns.advance(row, r, "asked", dict.fromkeys(agreement.hubs, asked))
        return True

    def _offer(self, row: StudyRow, terms: EnclaveTerms, name: str, round_number: int) -> EnclaveOffer:
        roster = write_content(self._turns.desk.roster.content)
        duty = EnclaveDuty(row.agreement, row.signature, roster, name, round_number)
        return self._aggregators.ask(name, duty, EnclaveOffer)

    def _added(self, start: EnclaveStart, name: str, boxes: dict[str, EnclaveBoxes]) -> EnclaveTotal:
        """One aggregator's part of the total, of all hubs."""
        for hub in start.terms.hubs:
            self._aggregators.ask(name, collector.box_for(start, boxes[hub], name), EnclaveTaken)
        ctx = next(iter(boxes.values())).ctx
        return self._aggregators.ask(name, EnclaveFinish(ctx), EnclaveTotal)
