"""What rounds of every plan do alike: store what is to be sent with the round's new state, wait, say how it ended.

Every transition is one transaction that also stores what is to be sent; sending comes after it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from flute.algorithms.contract import TakesTime
from flute.coordinator.desk import Desk
from flute.coordinator.keeping import kept_question
from flute.coordinator.rounds import ACTIVE, RoundRow, Rounds, StudyRow
from flute.defaults import STRAGGLER_AGAIN_S, STRAGGLER_S
from flute.errors import NotInRoster, OutOfOrder, ProtocolAbortedError
from flute.messages.answer import EncryptedAnswer, JointBegun, MaskedAnswer, OwnTotal, Receipt, SplitAnswer
from flute.messages.envelope import kind_of
from flute.messages.question import RoundClosed
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement
from flute.study.files.check import checked_agreement
from flute.study.protection import uncover
from flute.study.release import total_digest

LOG = logging.getLogger("flute.coordinator")
T = TypeVar("T", bound=Struct)
ASK_AGAIN_S: Final = 5.0
"""Open messages are offered again this often; hubs know them again and answer the same."""
ASK_AGAIN_MAX_S: Final = 60.0
"""The longest pause between two offers of a question whose answer takes time: it may be many megabytes."""
Charged = MaskedAnswer | OwnTotal | JointBegun | EncryptedAnswer | SplitAnswer
"""Answers that a hub charged for; each carries its receipt."""
CHARGED: Final[dict[str, type[Charged]]] = {
    "masked-answer": MaskedAnswer,
    "own-total": OwnTotal,
    "joint-begun": JointBegun,
    "encrypted-answer": EncryptedAnswer,
    "split-answer": SplitAnswer,
}


class Turns:
    """The coordinator's store and desk, as rounds use them. Decides nothing about a plan."""

    def __init__(self, rounds: Rounds, desk: Desk, timeout_s: float) -> None:
        self.rounds = rounds
        self.desk = desk
        self.timeout_s = timeout_s
        self.away: dict[str, frozenset[str]] = {}  # study -> hubs that its last round did without
        self._offered: dict[int, float] = {}  # round id -> when its open messages were last offered
        self._said: dict[tuple[int, type[Struct]], Struct] = {}  # what an active round has sent, read once
        self._asked_at: dict[int, float] = {}  # round id -> when its hubs were asked
        self._offers: dict[int, int] = {}  # round id -> how often its open messages were offered again
        self._extra: dict[tuple[str, str], float] = {}  # (study, question) -> seconds that a step may take besides
        self._enough_since: dict[tuple[int, str], float] = {}  # (round id, state) -> since when enough have answered

    def begun(self, r: RoundRow) -> bool:
        """Was anything of this round sent since this process started? If not, the hubs may have waited for us."""
        return r.id in self._offered

    def postpone(self, r: RoundRow) -> None:
        self.rounds.advance(r.id, {"deadline": time.time() + self._limit_s(r, r.state)}, [])

    def _limit_s(self, r: RoundRow, state: str) -> float:
        """How long a hub may be silent in that state: longer where it computes its answer, and that takes time."""
        return self.timeout_s + (self._extra_s(r) if state == "asked" else 0.0)

    def _extra_s(self, r: RoundRow) -> float:
        if (r.study, r.question) not in self._extra:
            row = self.rounds.study(r.study)
            assert row is not None
            agreement = checked_agreement(row.agreement).agreement
            what = agreement.question(r.question).what
            algorithm = algorithm_for(what)
            self._extra[r.study, r.question] = (
                algorithm.seconds(what, agreement.setting) if isinstance(algorithm, TakesTime) else 0.0
            )
        return self._extra[r.study, r.question]

    def enough(self, r: RoundRow, kind: str, expected: Sequence[str], least: int) -> tuple[str, ...]:
        """The hubs that sent their answer of that kind, once it is time to go on with them; none before."""
        arrived = sorted(hub for hub, sent in self.rounds.exchanged(r.id, outgoing=False) if sent == kind)
        return tuple(arrived) if self.waited(r, arrived, expected, least) else ()

    def all_answered(self, r: RoundRow, kind: str, expected: Sequence[str]) -> bool:
        """Told by the kinds alone: answers may be large, and this is asked at every tick."""
        arrived = {hub for hub, sent in self.rounds.exchanged(r.id, outgoing=False) if sent == kind}
        return arrived == set(expected)

    def waited(self, r: RoundRow, arrived: Sequence[str], expected: Sequence[str], least: int) -> bool:
        """All are here, or enough are and the others refused or had some time more: little, if they were left out of
        the study's last round too; as long again as the first ones took, where a step takes time."""
        if len(arrived) < least:
            return False
        refused = {hub for hub, kind in self.rounds.exchanged(r.id, outgoing=False) if kind == "refused"}
        if set(expected) - refused <= set(arrived):
            return True
        since = self._enough_since.setdefault((r.id, r.state), time.monotonic())
        known_away = set(expected) - refused - set(arrived) <= self.away.get(r.study, frozenset())
        patience = STRAGGLER_AGAIN_S if known_away else STRAGGLER_S
        if r.state == "asked" and self._extra_s(r) and not known_away:
            patience = max(patience, since - self._asked_at.get(r.id, since))
        return time.monotonic() - since > min(patience, self._limit_s(r, r.state) / 2)

    def advance(
        self, row: StudyRow, r: RoundRow, state: str, bodies: Mapping[str, Struct], tickets: list[bytes] | None = None
    ) -> None:
        """Store the new state with what is to be sent, then send."""
        written = {
            hub: self.desk.write(body, hub=hub, study=row.study, round_id=r.id) for hub, body in bodies.items()
        }
        outgoing = [
            (hub, kind_of(bodies[hub]), digest, envelope, kept_question(bodies[hub]))
            for hub, (digest, envelope) in written.items()
        ]
        values = {"state": state, "deadline": time.time() + self._limit_s(r, state)}
        self.rounds.advance(r.id, values, outgoing, tickets or [])
        self._offered[r.id], self._offers[r.id] = time.monotonic(), 0
        if state == "asked":
            self._asked_at[r.id] = self._offered[r.id]
        sent = [("coordinator", hub, kind, len(envelope)) for hub, kind, _, envelope, _ in outgoing]
        self.rounds.count_traffic(row.study, *sent)
        for hub, _, _, envelope, _ in outgoing:
            self.desk.send(hub, envelope)

    def opened(
        self, row: StudyRow, agreement: Agreement, r: RoundRow, total: bytes, receipts: Mapping[str, Receipt]
    ) -> None:
        price = checked_agreement(row.agreement).prices[r.question][r.step]
        if len(total) != 8 * price.shape.size:
            raise ProtocolAbortedError("An opened total has another length than its step was agreed with.")
        _, sigma = uncover(np.frombuffer(total, dtype="<i8"), price)
        for hub, receipt in receipts.items():  # said first: a crash repeats it, and never leaves it unsaid
            self.send(hub, RoundClosed(receipt.release, "released", total_digest(total)), row.study)
        self._end(r, {"state": "opened", "total": total, "sigma": sigma})

    def fail(self, row: StudyRow, r: RoundRow, why: str) -> None:
        """Give a round up. What a hub charged for it stays charged; a repeat is a new charge."""
        LOG.warning("round %s of %s failed: %s", r.id, row.study, why)
        self.tell_aborted(row, r)
        self._end(r, {"state": "failed", "why": why[:500]})

    def _end(self, r: RoundRow, values: dict[str, Any]) -> None:
        self.rounds.end(r.id, values | {"ended_at": time.time()})
        for key in [key for key in self._said if key[0] == r.id]:
            del self._said[key]
        self._asked_at.pop(r.id, None)
        self._offers.pop(r.id, None)

    def tell_aborted(self, row: StudyRow, r: RoundRow, hubs: Sequence[str] = ()) -> None:
        """Those that charged (or only `hubs`) learn that nothing came of it; said before it is stored, as in
        `opened`."""
        for hub, kind in self.rounds.exchanged(r.id, outgoing=False):
            if kind in CHARGED and (not hubs or hub in hubs):
                answer = msgspec.msgpack.decode(self.rounds.answer(r.id, hub, kind), type=CHARGED[kind])
                self.send(hub, RoundClosed(answer.receipt.release, "aborted", bytes(32)), row.study)

    def post(self, hub: str, body: Struct, study: str, round_id: int) -> tuple[bytes, bytes]:
        """Send what is not kept: (digest, envelope). Raises: NotInRoster."""
        digest, envelope = self.desk.write(body, hub=hub, study=study, round_id=round_id)
        self.rounds.count_traffic(study, ("coordinator", hub, kind_of(body), len(envelope)))
        self.desk.send(hub, envelope)
        return digest, envelope

    def send(self, hub: str, body: Struct, study: str) -> None:
        try:
            _, envelope = self.desk.write(body, hub=hub, study=study)
        except NotInRoster:
            return
        self.rounds.count_traffic(study, ("coordinator", hub, kind_of(body), len(envelope)))
        self.desk.send(hub, envelope)

    def offer_again(self, r: RoundRow) -> None:
        """What waits for an answer once more, byte for byte: after a restart at once, then every few seconds; ever
        more seldom where hubs are at work on long questions."""
        offers = self._offers.get(r.id, 0)
        pause = min(ASK_AGAIN_S * 2.0**offers, ASK_AGAIN_MAX_S) if self._extra_s(r) else ASK_AGAIN_S
        if time.monotonic() - self._offered.get(r.id, 0.0) < pause:
            return
        self._offered[r.id], self._offers[r.id] = time.monotonic(), offers + 1
        silent = self.silent(r)
        for kind in _WAITS_FOR[r.state] if silent else ():
            for message in self.rounds.messages(r.id, kind, outgoing=True):
                if message.hub in silent:
                    self.desk.send(message.hub, message.envelope)

    def silent(self, r: RoundRow) -> list[str]:
        """Hubs that owe an answer to what was sent last."""
        answered = set(self.rounds.exchanged(r.id, outgoing=False))
        sent = self.rounds.exchanged(r.id, outgoing=True)
        waiting = ((hub, _ANSWERS_TO[kind]) for hub, kind in sent if kind in _WAITS_FOR[r.state])
        return sorted({hub for hub, kinds in waiting if not any((hub, kind) in answered for kind in kinds)})

    def said(self, r: RoundRow, kind: type[T]) -> T:
        """What was sent in a round, as any of its hubs got it, but without a question's parameters."""
        known = self._said.get((r.id, kind))
        if isinstance(known, kind):
            return known
        body = self.rounds.said(r.id, str(kind.__struct_config__.tag))
        if body is None:
            raise OutOfOrder(f"Round {r.id} has sent no {kind.__name__}.")
        found = msgspec.msgpack.decode(body, type=kind)
        if r.state in ACTIVE:
            self._said[r.id, kind] = found
        return found

    def answers(self, r: RoundRow, kind: type[T]) -> dict[str, T]:
        """Hub to answer of one kind, of those that have arrived."""
        tag = str(kind.__struct_config__.tag)
        rows = self.rounds.messages(r.id, tag, outgoing=False)
        return {row.hub: msgspec.msgpack.decode(row.body, type=kind) for row in rows}


_WAITS_FOR: Final[dict[str, tuple[str, ...]]] = {
    "gathering": ("ticket-call", "key-call"),
    "asked": ("secure-question", "own-question", "joint-question", "encrypted-question", "split-question"),
    "masked": ("survivors-said",),
    "echoed": ("echoes-said",),
    "summed": ("opening-call",),
    "talking": (),
}
"""State to what was sent last."""
_ANSWERS_TO: Final = {
    "ticket-call": ("ticket-given",),
    "secure-question": ("masked-answer",),
    "survivors-said": ("echo-answer", "shares-answer"),
    "echoes-said": ("shares-answer",),
    "own-question": ("own-total",),
    "joint-question": ("joint-begun",),
    "key-call": ("key-begun",),
    "encrypted-question": ("encrypted-answer",),
    "opening-call": ("opening-answer",),
    "split-question": ("split-answer",),
}


def log_blame(r: RoundRow, what: str, hubs: Sequence[str]) -> None:
    if hubs:
        LOG.warning("round %s of %s: %s %s", r.id, r.study, ", ".join(hubs), what)
