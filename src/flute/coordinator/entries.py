"""What the coordinator stores besides studies and rounds: consents, tickets, keys, heads, results, traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from flute.coordinator.store import CONSENT, HEAD, KEY, MESSAGE, RESULT, ROUND, SEEN, TICKET, TRAFFIC
from flute.messages.protocol import Ticket


class Entries:
    """Every method is one transaction, or takes part in the caller's through `transaction`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

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
