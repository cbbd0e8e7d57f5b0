"""From records to a sealed answer: the one file in which records meet what leaves.

    admitted question -> open the source -> per-patient updates -> clip, sum, noise -> mask -> answer
The reservation is on disk before the source is opened, and the answer is on disk before it leaves: after a
crash the same question gets the same bytes, or, where the crash came before they were stored, none at all:
the charge stands, and only a new question, charged anew, gets an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import JointAlgorithm, OwnCode
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.enclaves import hub as enclaves
from flute.enclaves.combined import split_masked
from flute.errors import MisuseError, OutOfOrder, ProtocolAbortedError
from flute.hub.rounds.gate import Admitted, fields_of
from flute.hub.rounds.held import HeldRecords, Sources
from flute.hub.rounds.own_code import own_rows
from flute.hub.rounds.stops import Stops
from flute.hub.store import HubStore
from flute.ledger.budgets.budget import Reservation
from flute.ledger.journals.heads import write_head_line
from flute.ledger.journals.journal import Journal
from flute.ledger.lines.entries import RecordSourceOpened
from flute.messages.answer import EncryptedAnswer, JointBegun, MaskedAnswer, OwnTotal, Receipt, SplitAnswer
from flute.messages.question import EncryptedQuestion, SecureQuestion, SplitQuestion
from flute.messages.talk import Said
from flute.primitives.keys import SigningKey
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement
from flute.study.contribution import covered, given_by
from flute.study.plans.encrypted import EncryptedSide
from flute.study.plans.jointly import Work, computed, summed
from flute.study.plans.sides import HubSide
from flute.study.protection import RAND_SIZE

Entropy = Callable[[int], bytes]
"""Fresh operating-system entropy; an argument so that tests can replay."""


class Round:
    """Computes answers to admitted questions. Holds no records between calls but images (`held`)."""

    def __init__(self, store: HubStore, journal: Journal, sources: Sources, entropy: Entropy, stops: Stops) -> None:
        self._stops = stops
        self._store = store
        self._journal = journal
        self._records_held = HeldRecords(sources)
        self._entropy = entropy

    def pooled(self, admitted: Admitted, side: HubSide, now: int) -> MaskedAnswer:
        """Message 1. `side` has stored itself, with this very answer, before this returns."""
        asked = admitted.opened.body
        if not isinstance(asked, SecureQuestion):
            raise MisuseError("A pooled answer needs a pooled question.")
        price = admitted.price
        masked = side.begin(asked.start, admitted.named, price.layout)
        if masked is None:
            _require_unanswered(admitted.reservation)
            masked = side.mask(self._vector(admitted, now, hubs=len(admitted.agreement.hubs)), price.bounds)
        return MaskedAnswer(masked, self._receipt(admitted.reservation))

    def joint(self, admitted: Admitted, begin: Callable[[Work], Said], now: int) -> JointBegun:
        """The first step of a computation among hubs. `begin`: opens the talk over this hub's part of it."""
        _require_unanswered(admitted.reservation)
        return JointBegun(begin(self._work(admitted, now)), self._receipt(admitted.reservation))

    def _work(self, admitted: Admitted, now: int) -> Work:
        what, agreement = admitted.question.what, admitted.agreement
        algorithm = algorithm_for(what)
        if isinstance(algorithm, JointAlgorithm):
            return computed(algorithm, what, agreement.setting, self._records(admitted, now), admitted.price)
        return summed(self._vector(admitted, now, hubs=len(agreement.hubs)), admitted.price.bounds)

    def encrypted(self, admitted: Admitted, side: EncryptedSide, now: int) -> EncryptedAnswer:
        """This hub's covered vector, encrypted. `side` has stored it before this returns."""
        asked = admitted.opened.body
        if not isinstance(asked, EncryptedQuestion):
            raise MisuseError("An encrypted answer needs a question that asks for one.")
        _require_unanswered(admitted.reservation)
        vector = self._vector(admitted, now, hubs=len(admitted.agreement.hubs))
        message = side.contribute(asked, vector, admitted.price.bounds)
        return EncryptedAnswer(message, self._receipt(admitted.reservation))

    def split(self, admitted: Admitted, me: str, key: SigningKey, now: int) -> SplitAnswer:
        """This hub's covered vector in one share for each enclave that the gate accepted."""
        if admitted.enclaves is None:
            raise MisuseError("Nothing is split for enclaves that were not appraised.")
        _require_unanswered(admitted.reservation)
        vector = self._vector(admitted, now, hubs=len(admitted.agreement.hubs))
        rand = self._entropy(enclaves.rand_size(admitted.enclaves.start.terms))
        boxes = enclaves.split(admitted.enclaves, vector, me=me, bounds=admitted.price.bounds, key=key, rand=rand)
        return SplitAnswer(boxes, self._receipt(admitted.reservation))

    def masked_split(self, admitted: Admitted, side: HubSide, me: str, key: SigningKey, now: int) -> SplitAnswer:
        """This hub's covered vector under masks, in one share for each enclave that the gate accepted.

        The message that plan secagg sends stays here, its hash included: whoever knew the masks could try out answers
        by that. `side` has stored the vector before this returns; a hub that is interrupted answers a new round only.
        """
        asked, chosen = admitted.opened.body, admitted.enclaves
        if not isinstance(asked, SplitQuestion) or asked.masked is None or chosen is None:
            raise MisuseError("Nothing is split for enclaves that were not appraised, or masked without a message 0.")
        _require_unanswered(admitted.reservation)
        if side.begin(asked.masked, admitted.named, admitted.price.layout) is not None:
            raise OutOfOrder(f"{me} has answered under these masks before; a vector is split once.")
        masked = side.mask(self._vector(admitted, now, hubs=len(admitted.agreement.hubs)), admitted.price.bounds)
        rand = self._entropy(enclaves.rand_size(chosen.start.terms))
        boxes = split_masked(chosen, masked.vector, me=me, key=key, rand=rand)
        return SplitAnswer(boxes, self._receipt(admitted.reservation))

    def own(self, admitted: Admitted, now: int) -> OwnTotal:
        """This hub's own sum, under its own noise alone."""
        stored = self._store.own_answer(admitted.release)
        if stored is None:
            _require_unanswered(admitted.reservation)
            stored = self._vector(admitted, now, hubs=1).astype("<i8").tobytes()
            self._store.keep_own_answer(admitted.release, stored)
        return OwnTotal(stored, self._receipt(admitted.reservation))

    def _receipt(self, reservation: Reservation) -> Receipt:
        """With the head as it was then, so that the same answer is given in the same bytes again."""
        at = reservation.position
        return Receipt(reservation.release_id, at.line, at.digest, write_head_line(self._journal.head_at(at)))

    def _vector(self, admitted: Admitted, now: int, *, hubs: int) -> NDArray[np.int64]:
        data, rand = self._records(admitted, now), self._entropy(RAND_SIZE)
        given = self._given(admitted, data)
        return covered(given, len(data), admitted.price, hubs=hubs, rand=rand, question=admitted.question.id)

    def _records(self, admitted: Admitted, now: int) -> Dataset:
        agreement, question = admitted.agreement, admitted.question
        names = fields_of(question, agreement)
        self._journal.append(
            RecordSourceOpened(agreement.study, question.id, admitted.release, admitted.study.snapshot, names), now
        )
        variables = agreement.setting.variables
        return self._records_held.open(admitted.study.snapshot, [variables[name].variable for name in names])

    def drop_records(self) -> None:
        """A study has ended."""
        self._records_held.drop()

    def tidy(self) -> None:
        """Called now and then."""
        self._records_held.tidy()

    def _given(self, admitted: Admitted, data: Dataset) -> Callable[[], Array | Iterator[Array]]:
        """What will give the step's numbers. Nothing is computed before `covered` calls it, which lets no failure
        show."""
        question, setting = admitted.question, admitted.agreement.setting
        algorithm = algorithm_for(question.what)
        if isinstance(algorithm, OwnCode):
            stop = self._stops.of(admitted.agreement.study)
            return partial(own_rows, algorithm, question, setting, data, stop)
        return given_by(algorithm, question.what, setting, admitted.step, admitted.parameters, data)


def floor_holds(agreement: Agreement, data: Dataset, floor: int) -> bool:
    """The one yes or no of an exact study: no count it could show lies between 1 and `floor` - 1 persons."""
    setting = agreement.setting
    return all(
        bool(np.all((cells == 0) | (cells >= floor)))
        for cells in (algorithm_for(q.what).cells(q.what, setting, data) for q in agreement.questions)
    )


def _require_unanswered(reservation: Reservation) -> None:
    """A charge pays for one answer. Where a crash came between the two, the answer is not computed later: the
    first one may have left. Raises: ProtocolAbortedError: the coordinator may ask anew, at a new charge."""
    if not reservation.fresh:
        raise ProtocolAbortedError(
            "The hub was interrupted after it had charged this question and before it had answered it. The charge "
            "stands; the question has to be asked anew, and is charged again."
        )
