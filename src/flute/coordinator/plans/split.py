"""Rounds among enclaves: answers are split among aggregators, each of which adds up one share of every hub's.

    gathering -> asked -> opened                        plan enclave
    gathering -> asked -> masked -> echoed -> opened    plan secagg-enclave: what is split is under masks
Offers are asked for anew for every round: keys of an aggregator serve one round.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct

from flute.coordinator.plans.aggregators import Aggregators
from flute.coordinator.plans.masked import MaskedRounds
from flute.coordinator.rounds import RoundRow, StudyRow
from flute.coordinator.turns import Turns, log_blame
from flute.enclaves import collector
from flute.enclaves.combined import open_masked
from flute.errors import ChannelError, ProtocolAbortedError
from flute.messages.answer import Receipt, SplitAnswer
from flute.messages.enclave import (
    AggregatorCall,
    EnclaveBoxes,
    EnclaveDuty,
    EnclaveFinish,
    EnclaveOffer,
    EnclaveStart,
    EnclaveTaken,
    EnclaveTotal,
)
from flute.messages.protocol import Start, Survivors
from flute.messages.question import SplitQuestion, SurvivorsSaid
from flute.study.agreement import Agreement
from flute.study.plans import sides
from flute.study.plans.enclaved import split_digest, terms_of
from flute.study.protection import Price
from flute.trust.roster import write_content

A = TypeVar("A", bound=Struct)


class SplitRounds:
    """Moves a round of plan enclave."""

    def __init__(self, turns: Turns, aggregators: Aggregators) -> None:
        self._turns = turns
        self._aggregators = aggregators

    def move(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        if r.state == "gathering":
            start = self.begun(row, agreement, r, price, None)
            numbers = self._turns.rounds.parameters(r.id)
            asked = SplitQuestion(row.digest, r.question, r.step, r.attempt, numbers, start)
            self._turns.advance(row, r, "asked", dict.fromkeys(agreement.hubs, asked))
            return True
        if not self._turns.all_answered(r, "split-answer", agreement.hubs):
            return False
        answers = self._turns.answers(r, SplitAnswer)
        start = self._turns.said(r, SplitQuestion).start
        boxes = boxes_of(answers)
        total = collector.total(start, boxes, self.totals(start, boxes), bounds=price.bounds)
        self._turns.opened(row, agreement, r, total.astype("<i8").tobytes(), receipts_of(answers))
        return True

    def check_answer(self, r: RoundRow, hub: str, boxes: EnclaveBoxes) -> None:
        """Raises: Equivocation, BadSignature, NotInRoster: not this hub's boxes for this round."""
        start = self._turns.said(r, SplitQuestion).start
        collector.check_boxes(start, boxes, {hub: self._turns.desk.roster.signing_key(hub)})

    def begun(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price, masked: Start | None
    ) -> EnclaveStart:
        """A round that every aggregator has offered its keys for and begun; nothing is asked of hubs yet.

        masked: message 0 of the masks below, if there are any. Raises: ProtocolAbortedError: an aggregator said no or
        does not answer.
        """
        terms = terms_of(agreement, row.digest, self._turns.desk.roster)
        numbers = self._turns.rounds.parameters(r.id)
        step = sides.step_digest(row.digest, r.question, r.step, r.attempt, numbers)
        start = collector.begin(
            terms,
            round_number=r.id,
            question=split_digest(step, masked),
            layout=price.layout,
            offers={name: self._offer(row, name, r.id) for name in terms.aggregators},
            policies={name: self._aggregators.policy(name) for name in terms.aggregators},
            check_key=os.urandom(32),
        )
        for name in terms.aggregators:
            self._say(name, collector.for_aggregators(start), EnclaveTaken)
        return start

    def totals(self, start: EnclaveStart, boxes: Mapping[str, EnclaveBoxes]) -> dict[str, EnclaveTotal]:
        """Every aggregator's part of the total, of all hubs. Raises: ProtocolAbortedError: as `begun`."""
        return {name: self._added(start, name, boxes) for name in start.terms.aggregators}

    def _offer(self, row: StudyRow, name: str, round_number: int) -> EnclaveOffer:
        roster = write_content(self._turns.desk.roster.content)
        duty = EnclaveDuty(row.agreement, row.signature, roster, name, round_number)
        return self._say(name, duty, EnclaveOffer)

    def _added(self, start: EnclaveStart, name: str, boxes: Mapping[str, EnclaveBoxes]) -> EnclaveTotal:
        for hub in start.terms.hubs:
            self._say(name, collector.box_for(start, boxes[hub], name), EnclaveTaken)
        ctx = next(iter(boxes.values())).ctx
        return self._say(name, EnclaveFinish(ctx), EnclaveTotal)

    def _say(self, name: str, call: AggregatorCall, kind: type[A]) -> A:
        try:
            return self._aggregators.ask(name, call, kind)
        except ChannelError as error:
            raise ProtocolAbortedError(error.text) from error


class MaskedSplitRounds:
    """Moves a round of plan secagg-enclave: all hubs answer, and the enclaves' sum is opened by hubs' shares."""

    def __init__(self, turns: Turns, masked: MaskedRounds, split: SplitRounds) -> None:
        self._turns = turns
        self._masked = masked
        self._split = split

    def move(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        if r.state == "gathering":
            return self._ask(row, agreement, r, price)
        asked = self._turns.said(r, SplitQuestion)
        masked = asked.masked
        assert masked is not None
        if r.state == "asked":
            return self._masked.survivors(row, r, masked, "split-answer")
        survivors = self._turns.said(r, SurvivorsSaid).survivors
        if r.state == "masked":
            return self._masked.echoes(row, agreement, r, masked, survivors)
        return self._open(row, agreement, r, asked.start, masked, survivors, price)

    def _ask(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        """Tickets first: an aggregator's offer is of no use without them."""
        gathered = self._masked.gather(row, agreement, r, price)
        if gathered is None:
            return False
        start = self._split.begun(row, agreement, r, price, next(iter(gathered.starts.values())))
        numbers = self._turns.rounds.parameters(r.id)
        questions = {
            hub: SplitQuestion(row.digest, r.question, r.step, r.attempt, numbers, start, masked)
            for hub, masked in gathered.starts.items()
        }
        self._turns.advance(row, r, "asked", questions, gathered.tickets)
        return True

    def _open(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, start: EnclaveStart, masked: Start,
        survivors: Survivors, price: Price,
    ) -> bool:  # fmt: skip
        shown = self._masked.shown(row, agreement, r, masked)
        if shown is None:
            return False
        answers = self._turns.answers(r, SplitAnswer)
        boxes = boxes_of(answers)
        left = sides.masks_left(masked, survivors, shown.tickets, shown.shares)
        log_blame(r, "sent shares that do not hold", left.bad_shares)
        words = collector.total_words(start, boxes, self._split.totals(start, boxes))
        total = open_masked(words, left.masks, price.layout, hubs=len(start.terms.hubs), bounds=price.bounds)
        self._masked.keep_next(row, shown)
        self._turns.opened(row, agreement, r, total.astype("<i8").tobytes(), receipts_of(answers))
        return True


def boxes_of(answers: Mapping[str, SplitAnswer]) -> dict[str, EnclaveBoxes]:
    return {hub: answer.boxes for hub, answer in answers.items()}


def receipts_of(answers: Mapping[str, SplitAnswer]) -> dict[str, Receipt]:
    return {hub: answer.receipt for hub, answer in answers.items()}
