"""The coordinator's queries: studies, consents, tickets, rounds, messages. No decision is taken here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from flute.coordinator.keeping import is_large, lighter_answer, lighter_envelope
from flute.coordinator.store import CONSENT, HEAD, KEY, MESSAGE, RESULT, ROUND, SEEN, STUDY, TICKET, TRAFFIC
from flute.messages.protocol import Ticket

ACTIVE: Final = ("gathering", "asked", "masked", "echoed", "talking", "summed")


@dataclass(frozen=True, slots=True)
class StudyRow:
    study: str
    agreement: bytes
    signature: bytes
    digest: bytes
    state: str
    why: str
    proposed_at: int
    ended_at: int


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One attempt at one step. `party` is "" for a pooled round, a hub's id for one of its own. What it was asked
    with and what it opened may be long: `Rounds.parameters` and `Rounds.total` read them."""

    id: int
    study: str
    question: str
    party: str
    step: int
    attempt: int
    state: str
    why: str
    sigma: float
    deadline: float
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class MessageRow:
    hub: str
    kind: str
    digest: bytes
    envelope: bytes
    body: bytes


_ROUND_COLUMNS: Final = tuple(ROUND.c[name] for name in RoundRow.__slots__)


class Rounds:
    """Every method is one transaction, or takes part in the caller's through `transaction`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    # --- studies -------------------------------------------------------------------------------

    def add_study(self, row: StudyRow, hubs: tuple[str, ...]) -> None:
        with self.transaction() as db:
            db.execute(insert(STUDY).values(**{f: getattr(row, f) for f in StudyRow.__slots__}))
            for hub in hubs:
                db.execute(
                    insert(CONSENT).values(
                        study=row.study, hub=hub, decision="asked", key=None, snapshot=b"", at=row.proposed_at
                    )
                )

    def study(self, study: str) -> StudyRow | None:
        with self.transaction() as db:
            row = db.execute(select(STUDY).where(STUDY.c.study == study)).mappings().first()
        return None if row is None else StudyRow(**row)

    def state(self, study: str) -> str | None:
        """Of a study, None where there is none."""
        with self.transaction() as db:
            return db.execute(select(STUDY.c.state).where(STUDY.c.study == study)).scalar_one_or_none()

    def studies(self) -> list[StudyRow]:
        with self.transaction() as db:
            rows = db.execute(select(STUDY).order_by(STUDY.c.proposed_at, STUDY.c.study)).mappings().all()
        return [StudyRow(**r) for r in rows]

    def set_study(self, study: str, state: str, why: str = "", ended_at: int = 0) -> None:
        with self.transaction() as db:
            db.execute(update(STUDY).where(STUDY.c.study == study).values(state=state, why=why, ended_at=ended_at))

    def stop_study(self, study: str, why: str, at: int, now: float) -> None:
        """The study and its open rounds end together."""
        open_rounds = (ROUND.c.study == study, ROUND.c.state.in_(ACTIVE))
        with self.transaction() as db:
            db.execute(update(ROUND).where(*open_rounds).values(state="failed", why=why[:500], ended_at=now))
            db.execute(
                update(STUDY).where(STUDY.c.study == study).values(state="stopped", why=why[:1000], ended_at=at)
            )

    # --- consents and tickets --------------------------------------------------------------------

    def consents(self, study: str) -> dict[str, dict[str, Any]]:
        with self.transaction() as db:
            rows = db.execute(select(CONSENT).where(CONSENT.c.study == study)).mappings().all()
        return {r["hub"]: dict(r) for r in rows}

    def set_consent(self, study: str, hub: str, decision: str, key: bytes | None, snapshot: bytes, at: int) -> None:
        with self.transaction() as db:
            db.execute(
                update(CONSENT)
                .where(CONSENT.c.study == study, CONSENT.c.hub == hub)
                .values(decision=decision, key=key, snapshot=snapshot, at=at)
            )

    def add_ticket(self, study: str, hub: str, digest: bytes, body: bytes) -> None:
        with self.transaction() as db:
            db.execute(
                upsert(TICKET)
                .values(digest=digest, study=study, hub=hub, body=body, round=None)
                .on_conflict_do_nothing()
            )

    def tickets(self, study: str) -> list[tuple[Ticket, int | None]]:
        """Every ticket of a study, with the round that burnt it."""
        with self.transaction() as db:
            rows = db.execute(select(TICKET.c.body, TICKET.c.round).where(TICKET.c.study == study)).all()
        return [(msgspec.msgpack.decode(body, type=Ticket), used) for body, used in rows]

    # --- rounds ----------------------------------------------------------------------------------

    def add_round(
        self, study: str, question: str, party: str, step: int, attempt: int, parameters: bytes,
        now: float, deadline: float,
    ) -> int:  # fmt: skip
        with self.transaction() as db:
            result = db.execute(
                insert(ROUND).values(
                    study=study, question=question, party=party, step=step, attempt=attempt, state="gathering",
                    why="", parameters=parameters, total=None, sigma=0.0, deadline=deadline, began_at=now,
                    ended_at=0.0,
                )
            )  # fmt: skip
            return int(result.inserted_primary_key[0])  # type: ignore[index]

    def rounds(self, study: str, question: str | None = None, party: str | None = None) -> list[RoundRow]:
        """In the order in which they began."""
        query = select(*_ROUND_COLUMNS).where(ROUND.c.study == study)
        if question is not None:
            query = query.where(ROUND.c.question == question)
        if party is not None:
            query = query.where(ROUND.c.party == party)
        with self.transaction() as db:
            return [RoundRow(**r) for r in db.execute(query.order_by(ROUND.c.id)).mappings()]

    def round(self, round_id: int) -> RoundRow | None:
        with self.transaction() as db:
            row = db.execute(select(*_ROUND_COLUMNS).where(ROUND.c.id == round_id)).mappings().first()
        return None if row is None else RoundRow(**row)

    def parameters(self, round_id: int) -> bytes:
        """What a round is asked with."""
        with self.transaction() as db:
            return bytes(db.execute(select(ROUND.c.parameters).where(ROUND.c.id == round_id)).scalar_one())

    def total(self, round_id: int) -> bytes:
        """What a round opened; empty where it opened nothing."""
        with self.transaction() as db:
            return bytes(db.execute(select(ROUND.c.total).where(ROUND.c.id == round_id)).scalar_one() or b"")

    def advance(
        self,
        round_id: int,
        values: dict[str, Any],
        outgoing: list[tuple[str, str, bytes, bytes, bytes]],
        tickets: list[bytes] = [],  # noqa: B006 never changed
    ) -> None:
        """One step of a round, all or nothing: its new state, what is to be sent, the tickets it burns.

        outgoing: (hub, kind, digest, envelope, body)."""
        with self.transaction() as db:
            if values:
                db.execute(update(ROUND).where(ROUND.c.id == round_id).values(**values))
            for ticket in tickets:
                db.execute(update(TICKET).where(TICKET.c.digest == ticket).values(round=round_id))
            for hub, kind, digest, envelope, body in outgoing:
                db.execute(
                    upsert(MESSAGE)
                    .values(
                        round=round_id, hub=hub, kind=kind, outgoing=1, digest=digest, envelope=envelope, body=body
                    )
                    .on_conflict_do_nothing()
                )

    def end(self, round_id: int, values: dict[str, Any]) -> None:
        """A round's last state, and its large messages lighter, all or nothing."""
        with self.transaction() as db:
            db.execute(update(ROUND).where(ROUND.c.id == round_id).values(**values))
            sizes = select(
                MESSAGE.c.id, func.length(MESSAGE.c.envelope), func.length(MESSAGE.c.body)
            ).where(MESSAGE.c.round == round_id)  # fmt: skip
            for number, *size in db.execute(sizes).all():
                if is_large(max(size)):
                    _lighten(db, number)

    # --- messages --------------------------------------------------------------------------------

    def asked_by(self, digest: bytes) -> tuple[int, str, str] | None:
        """(round, hub, kind) of the outgoing message with this digest: what an answer answers."""
        with self.transaction() as db:
            row = db.execute(
                select(MESSAGE.c.round, MESSAGE.c.hub, MESSAGE.c.kind).where(
                    MESSAGE.c.digest == digest, MESSAGE.c.outgoing == 1
                )
            ).first()
        return None if row is None else (int(row[0]), str(row[1]), str(row[2]))

    def add_answer(self, round_id: int, hub: str, kind: str, digest: bytes, envelope: bytes, body: bytes) -> None:
        """The first answer of a kind counts; a hub that repeats itself changes nothing."""
        with self.transaction() as db:
            db.execute(
                upsert(MESSAGE)
                .values(round=round_id, hub=hub, kind=kind, outgoing=0, digest=digest, envelope=envelope, body=body)
                .on_conflict_do_nothing()
            )

    def exchanged(self, round_id: int, *, outgoing: bool) -> list[tuple[str, str]]:
        """(hub, kind) of a round's messages in their order, without what is in them."""
        with self.transaction() as db:
            rows = db.execute(
                select(MESSAGE.c.hub, MESSAGE.c.kind)
                .where(MESSAGE.c.round == round_id, MESSAGE.c.outgoing == int(outgoing))
                .order_by(MESSAGE.c.id)
            ).all()
        return [(str(hub), str(kind)) for hub, kind in rows]

    def said(self, round_id: int, kind: str) -> bytes | None:
        """The body of what was sent of a kind, as the first hub got it, without a question's parameters."""
        with self.transaction() as db:
            body = db.execute(
                select(MESSAGE.c.body)
                .where(MESSAGE.c.round == round_id, MESSAGE.c.kind == kind, MESSAGE.c.outgoing == 1)
                .order_by(MESSAGE.c.id)
                .limit(1)
            ).scalar_one_or_none()
        return None if body is None else bytes(body)

    def messages(self, round_id: int, kind: str, *, outgoing: bool) -> list[MessageRow]:
        """A round's messages of one kind. Masked answers are large: `message` gives one at a time."""
        with self.transaction() as db:
            rows = db.execute(
                select(MESSAGE)
                .where(MESSAGE.c.round == round_id, MESSAGE.c.outgoing == int(outgoing), MESSAGE.c.kind == kind)
                .order_by(MESSAGE.c.id)
            ).mappings()
            return [MessageRow(r["hub"], r["kind"], r["digest"], r["envelope"], r["body"]) for r in rows]

    def answer(self, round_id: int, hub: str, kind: str) -> bytes:
        """The body of one answer that has arrived."""
        with self.transaction() as db:
            body = db.execute(
                select(MESSAGE.c.body).where(
                    MESSAGE.c.round == round_id, MESSAGE.c.hub == hub, MESSAGE.c.kind == kind, MESSAGE.c.outgoing == 0
                )
            ).scalar_one()
        return bytes(body)

    # --- keys of studies under plan threshold-he -------------------------------------------------

    def asked_for_keys(self, study: str) -> int:
        """How many key ceremonies a study's hubs were called to."""
        calls = select(MESSAGE.c.round).where(MESSAGE.c.kind == "key-call", MESSAGE.c.outgoing == 1).distinct()
        with self.transaction() as db:
            rows = db.execute(select(ROUND.c.id).where(ROUND.c.study == study, ROUND.c.id.in_(calls))).all()
        return len(rows)

    def keep_key(self, study: str, attempt: int, body: bytes) -> None:
        with self.transaction() as db:
            db.execute(insert(KEY).values(study=study, attempt=attempt, body=body))

    def key(self, study: str) -> bytes | None:
        """The newest public key of a study."""
        with self.transaction() as db:
            body = db.execute(
                select(KEY.c.body).where(KEY.c.study == study).order_by(KEY.c.attempt.desc()).limit(1)
            ).scalar_one_or_none()
        return None if body is None else bytes(body)

    # --- heads of the hubs' journals -------------------------------------------------------------

    def keep_head(self, hub: str, number: int, head: bytes) -> None:
        """The newest one counts; it proves itself to the hub that signed it, and to nobody else."""
        with self.transaction() as db:
            statement = upsert(HEAD).values(hub=hub, number=number, head=head)
            db.execute(
                statement.on_conflict_do_update(
                    index_elements=["hub"], set_={"number": number, "head": head}, where=HEAD.c.number < number
                )
            )

    def head(self, hub: str) -> bytes:
        """Empty where the hub never gave one."""
        with self.transaction() as db:
            found = db.execute(select(HEAD.c.head).where(HEAD.c.hub == hub)).scalar_one_or_none()
        return bytes(found or b"")

    # --- results, traffic, nonces ----------------------------------------------------------------

    def put_result(self, study: str, reference: str, result: dict[str, Any], now: int) -> None:
        with self.transaction() as db:
            db.execute(
                upsert(RESULT)
                .values(study=study, reference=reference, result=result, at=now)
                .on_conflict_do_nothing()
            )

    def finished(self, study: str) -> frozenset[str]:
        """References of the questions that have a result."""
        with self.transaction() as db:
            return frozenset(db.execute(select(RESULT.c.reference).where(RESULT.c.study == study)).scalars())

    def results(self, study: str) -> dict[str, dict[str, Any]]:
        with self.transaction() as db:
            rows = db.execute(select(RESULT).where(RESULT.c.study == study).order_by(RESULT.c.at)).mappings()
            return {r["reference"]: r["result"] for r in rows}

    def count_traffic(self, study: str, *messages: tuple[str, str, str, int]) -> None:
        """messages: (sender, recipient, kind, bytes)."""
        with self.transaction() as db:
            for sender, recipient, kind, size in messages:
                statement = upsert(TRAFFIC).values(
                    study=study, sender=sender, recipient=recipient, kind=kind, messages=1, bytes=size
                )
                db.execute(
                    statement.on_conflict_do_update(
                        index_elements=["study", "sender", "recipient", "kind"],
                        set_={"messages": TRAFFIC.c.messages + 1, "bytes": TRAFFIC.c.bytes + size},
                    )
                )

    def traffic(self, study: str) -> list[dict[str, Any]]:
        with self.transaction() as db:
            return [dict(r) for r in db.execute(select(TRAFFIC).where(TRAFFIC.c.study == study)).mappings()]

    def first_use(self, nonce: bytes, now: int, forget_at: int) -> bool:
        """True the first time within `forget_at`; the coordinator's memory against replays."""
        with self.transaction() as db:
            db.execute(delete(SEEN).where(SEEN.c.forget_at < now))
            result = db.execute(upsert(SEEN).values(nonce=nonce, forget_at=forget_at).on_conflict_do_nothing())
            return bool(result.rowcount)


def _lighten(db: Connection, number: int) -> None:
    message = db.execute(select(MESSAGE).where(MESSAGE.c.id == number)).mappings().one()
    lighter = {
        "envelope": lighter_envelope(message["envelope"]),
        "body": lighter_answer(message["kind"], message["body"]),
    }
    db.execute(update(MESSAGE).where(MESSAGE.c.id == number).values(**lighter))
