"""Rounds of plan `threshold-he`: answers are added while encrypted, and opened by as many hubs as were agreed.

    gathering -> asked -> summed -> opened
Where the study has no key yet, the hubs make one while its first round is gathering.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flute.coordinator.plans.carrier import Carrier
from flute.coordinator.rounds import RoundRow, StudyRow
from flute.coordinator.turns import Turns, log_blame
from flute.errors import ProtocolAbortedError
from flute.messages.answer import EncryptedAnswer, KeyBegun, KeyReady, OpeningAnswer
from flute.messages.question import EncryptedQuestion, KeyCall, OpeningCall
from flute.study.agreement import Agreement
from flute.study.plans import encrypted
from flute.study.protection import Price
from flute.threshold.keys import PublicKey, read_public_key


class EncryptedRounds:
    """Moves a round of encrypted sums."""

    def __init__(self, turns: Turns, carrier: Carrier) -> None:
        self._turns = turns
        self._carrier = carrier
        self._rounds = turns.rounds

    def move(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price) -> bool:
        public = self._key(row)
        if r.state == "gathering":
            return self._gather(row, agreement, r, public)
        if public is None:
            raise ProtocolAbortedError("the study's key is gone; a new one is made")
        if r.state == "asked":
            if not self._turns.all_answered(r, "encrypted-answer", agreement.hubs):
                return False
            answers = self._turns.answers(r, EncryptedAnswer)
            call = OpeningCall(tuple(answers[hub].contribution for hub in sorted(answers)))
            self._turns.advance(row, r, "summed", dict.fromkeys(agreement.hubs, call))
            return True
        return self._open(row, agreement, r, price, public)

    def _gather(self, row: StudyRow, agreement: Agreement, r: RoundRow, public: PublicKey | None) -> bool:
        if public is None:
            return self._make_key(row, agreement, r)
        asked = EncryptedQuestion(
            row.digest, r.question, r.step, r.attempt, self._rounds.parameters(r.id), r.id, public.digest()
        )  # fmt: skip
        self._turns.advance(row, r, "asked", dict.fromkeys(agreement.hubs, asked))
        return True

    def _make_key(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        if self._carrier.carries(r):
            return self._key_made(row, agreement, r)
        sent = [kind for _, kind in self._rounds.exchanged(r.id, outgoing=True)]
        if "key-call" not in sent:
            call = KeyCall(row.digest, 1 + self._rounds.asked_for_keys(row.study))
            self._turns.advance(row, r, "gathering", dict.fromkeys(agreement.hubs, call))
            return True
        begun = self._turns.answers(r, KeyBegun)
        if set(begun) != set(agreement.hubs):
            return False
        self._carrier.begin(r, {hub: answer.said for hub, answer in begun.items()})
        return True

    def _key_made(self, row: StudyRow, agreement: Agreement, r: RoundRow) -> bool:
        ended = self._carrier.ended(r)
        if ended is None:
            self._carrier.wait(r)
            return False
        reported = {
            hub: read_public_key(body.terms, body.whole, body.shares)
            for hub, body in ended.items()
            if isinstance(body, KeyReady)
        }
        public = encrypted.agreed_key(reported)
        attempt = public.terms.attempt
        if public.terms != encrypted.key_terms(agreement, row.digest, self._turns.desk.roster, attempt):
            raise ProtocolAbortedError("the hubs made a key under other terms than the roster and the agreement say")
        self._rounds.keep_key(row.study, attempt, msgspec.msgpack.encode(public))
        self._carrier.drop(r.id)
        return True

    def _key(self, row: StudyRow) -> PublicKey | None:
        """The study's key, if it was made under the present roster."""
        raw = self._rounds.key(row.study)
        public = None if raw is None else msgspec.msgpack.decode(raw, type=PublicKey)
        return public if public is not None and public.terms.roster == self._turns.desk.roster.digest else None

    def _open(self, row: StudyRow, agreement: Agreement, r: RoundRow, price: Price, public: PublicKey) -> bool:
        needed = public.terms.threshold
        if not self._turns.enough(r, "opening-answer", agreement.hubs, needed):
            return False
        shares = {hub: a.share for hub, a in self._turns.answers(r, OpeningAnswer).items()}
        answers = self._turns.answers(r, EncryptedAnswer)
        total, wrong = encrypted.opened_total(
            msgspec.structs.replace(self._turns.said(r, EncryptedQuestion), parameters=self._rounds.parameters(r.id)),
            public,
            price.shape.size,
            price.bounds,
            [a.contribution for a in answers.values()],
            shares.values(),
            self._signing_keys(agreement),
        )
        log_blame(r, "sent a part of the key that does not hold", wrong)
        receipts = {hub: a.receipt for hub, a in answers.items()}
        self._turns.opened(row, agreement, r, total.astype("<i8").tobytes(), receipts)
        return True

    def _signing_keys(self, agreement: Agreement) -> Mapping[str, bytes]:
        return {hub: self._turns.desk.roster.signing_key(hub) for hub in agreement.hubs}
