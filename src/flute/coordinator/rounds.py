"""The coordinator's queries: studies, rounds, messages (the rest is in `entries`). No decision is taken here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, Engine, func, insert, select, update

from flute.coordinator.entries import Entries
from flute.coordinator.keeping import Filing, lighter_answer, lighter_envelope
from flute.coordinator.store import CONSENT, MESSAGE, ROUND, STUDY, TICKET, bodies_of
from flute.errors import MisuseError
from flute.transport.bodies import is_large

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


class Rounds(Entries):
    """As `Entries`, and studies, rounds and messages. What is long of them lies in files beside the database."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._bodies = bodies_of(engine)

    def sweep(self) -> None:
        """Delete files that a crash left without a row. Call before the first round is moved."""
        columns = (ROUND.c.parameters_file, ROUND.c.total_file, MESSAGE.c.envelope_file, MESSAGE.c.body_file)
        with self.transaction() as db:
            named = {name for column in columns for name in db.execute(select(column)).scalars() if name}
        self._bodies.sweep(named)

    @contextmanager
    def _filing(self) -> Iterator[tuple[Connection, Filing]]:
        """A transaction with its files."""
        with Filing(self._bodies) as files:
            with self.transaction() as db:
                yield db, files
            files.committed()

    def _whole(self, row: bytes, file: str | None) -> bytes:
        """Of a message: all of it while its round goes on, then what stays."""
        found = None if file is None else self._bodies.get(file)
        return bytes(row) if found is None else found

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
        with self._filing() as (db, files):
            for number in db.execute(select(ROUND.c.id).where(*open_rounds)).scalars().all():
                _lighten(db, files, number)
            db.execute(update(ROUND).where(*open_rounds).values(state="failed", why=why[:500], ended_at=now))
            db.execute(
                update(STUDY).where(STUDY.c.study == study).values(state="stopped", why=why[:1000], ended_at=at)
            )

    # --- rounds ----------------------------------------------------------------------------------

    def add_round(
        self, study: str, question: str, party: str, step: int, attempt: int, parameters: bytes,
        now: float, deadline: float,
    ) -> int:  # fmt: skip
        with self._filing() as (db, files):
            kept, file = files.keep(parameters, b"")
            result = db.execute(
                insert(ROUND).values(
                    study=study, question=question, party=party, step=step, attempt=attempt, state="gathering",
                    why="", parameters=kept, parameters_file=file, total=None, sigma=0.0, deadline=deadline,
                    began_at=now, ended_at=0.0,
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
        return self._vector(round_id, ROUND.c.parameters, ROUND.c.parameters_file)

    def total(self, round_id: int) -> bytes:
        """What a round opened; empty where it opened nothing."""
        return self._vector(round_id, ROUND.c.total, ROUND.c.total_file)

    def _vector(self, round_id: int, row: Column[Any], file: Column[Any]) -> bytes:
        with self.transaction() as db:
            kept, name = db.execute(select(row, file).where(ROUND.c.id == round_id)).one()
        found = bytes(kept or b"") if name is None else self._bodies.get(name)
        if found is None:
            raise MisuseError(
                f"A vector of round {round_id} is gone from {self._bodies.folder}; restore that folder."
            )
        return found

    def advance(
        self,
        round_id: int,
        values: dict[str, Any],
        outgoing: list[tuple[str, str, bytes, bytes, bytes]],
        tickets: list[bytes] = [],  # noqa: B006 never changed
    ) -> None:
        """One step of a round, all or nothing: its new state, what is to be sent, the tickets it burns.

        outgoing: (hub, kind, digest, envelope, body)."""
        with self._filing() as (db, files):
            if values:
                db.execute(update(ROUND).where(ROUND.c.id == round_id).values(**values))
            for ticket in tickets:
                db.execute(update(TICKET).where(TICKET.c.digest == ticket).values(round=round_id))
            for hub, kind, digest, envelope, body in outgoing:
                _add_message(db, files, round_id, (hub, kind, 1, digest), envelope, body)

    def end(self, round_id: int, values: dict[str, Any]) -> None:
        """A round's last state, and its large messages lighter, all or nothing."""
        with self._filing() as (db, files):
            if "total" in values:
                kept, file = files.keep(values["total"], b"")
                values = values | {"total": kept, "total_file": file}
            db.execute(update(ROUND).where(ROUND.c.id == round_id).values(**values))
            _lighten(db, files, round_id)

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
        with self._filing() as (db, files):
            _add_message(db, files, round_id, (hub, kind, 0, digest), envelope, body)

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
            found = [dict(r) for r in rows]
        return [
            MessageRow(
                r["hub"], r["kind"], r["digest"],
                self._whole(r["envelope"], r["envelope_file"]), self._whole(r["body"], r["body_file"]),
            )
            for r in found
        ]  # fmt: skip

    def answer(self, round_id: int, hub: str, kind: str) -> bytes:
        """The body of one answer that has arrived."""
        with self.transaction() as db:
            found = db.execute(
                select(MESSAGE.c.body, MESSAGE.c.body_file).where(
                    MESSAGE.c.round == round_id, MESSAGE.c.hub == hub, MESSAGE.c.kind == kind, MESSAGE.c.outgoing == 0
                )
            ).one()
        return self._whole(*found)


def _add_message(
    db: Connection, files: Filing, round_id: int, what: tuple[str, str, int, bytes], envelope: bytes, body: bytes
) -> None:
    """The first one of a kind counts. What is large of it lies in files until the round has ended.

    what: hub, kind, whether it goes out, digest."""
    hub, kind, outgoing, digest = what
    place = {"round": round_id, "hub": hub, "kind": kind, "outgoing": outgoing}
    if db.execute(select(MESSAGE.c.id).filter_by(**place)).first() is not None:
        return
    kept_envelope, envelope_file = files.keep(envelope, lighter_envelope(envelope))
    kept_body, body_file = files.keep(body, lighter_answer(kind, body))
    db.execute(
        insert(MESSAGE).values(
            **place, digest=digest, envelope=kept_envelope, envelope_file=envelope_file, body=kept_body,
            body_file=body_file,
        )
    )  # fmt: skip


def _lighten(db: Connection, files: Filing, round_id: int) -> None:
    """Give up what lies in files of a round's messages; in rows it does where an older version wrote them."""
    sizes = select(
        MESSAGE.c.id, MESSAGE.c.envelope_file, MESSAGE.c.body_file,
        func.length(MESSAGE.c.envelope), func.length(MESSAGE.c.body),
    ).where(MESSAGE.c.round == round_id)  # fmt: skip
    for number, envelope_file, body_file, *size in db.execute(sizes).all():
        lighter: dict[str, Any] = {"envelope_file": None, "body_file": None}
        files.give_up(envelope_file, body_file)
        if is_large(max(size)):
            message = db.execute(select(MESSAGE).where(MESSAGE.c.id == number)).mappings().one()
            lighter["envelope"] = lighter_envelope(message["envelope"])
            lighter["body"] = lighter_answer(message["kind"], message["body"])
        db.execute(update(MESSAGE).where(MESSAGE.c.id == number).values(**lighter))
