"""What came out of a study, and the receipt that says how: by whom, under which agreement, at what price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from flute.errors import MisuseError
from flute.messages.answer import Receipt
from flute.primitives.keys import digest
from flute.study.agreement import Agreement, Question
from flute.study.protection import Price


class HubReceipt(Struct, frozen=True):
    """Where one hub's journal says that it paid."""

    hub: str
    release: str
    line: int
    digest: str


class ReleaseReceipt(Struct, frozen=True):
    """One opened total: what it belongs to, what it cost each patient at each hub, who journaled it."""

    study: str
    question: str
    step: int
    hubs: tuple[str, ...]
    roster_version: int
    agreement: str
    code: str
    plan: str
    mode: str
    rho: float
    numbers: int
    total: str
    journal: tuple[HubReceipt, ...]


def make_receipt(
    agreement: Agreement,
    agreement_digest: bytes,
    question: Question,
    step: int,
    price: Price,
    *,
    roster_version: int,
    total: bytes,
    receipts: Mapping[str, Receipt],
) -> ReleaseReceipt:
    """Raises: MisuseError: a hub that took part has no receipt; without one there is no release."""
    hubs = tuple(sorted(receipts))
    pooled = min(len(agreement.hubs) - agreement.plan.dropouts, agreement.least)
    least = pooled if question.scope == "pooled" else 1
    if not set(hubs) <= set(agreement.hubs) or len(hubs) < least:
        raise MisuseError("A release needs the receipt of every hub whose answer is in it.")
    return ReleaseReceipt(
        study=agreement.study,
        question=question.id,
        step=step,
        hubs=hubs,
        roster_version=roster_version,
        agreement=agreement_digest.hex(),
        code=agreement.code.hex(),
        plan=agreement.plan.name,
        mode=agreement.mode,
        rho=price.rho,
        numbers=price.numbers,
        total=total_digest(total).hex(),
        journal=tuple(_hub_receipt(hub, receipts[hub]) for hub in hubs),
    )


def total_digest(total: bytes) -> bytes:
    """Names an opened total; every hub of the round is told the same one."""
    return digest(b"flute/total/v1", total)


def analysis_plan_digest(questions: Sequence[Question]) -> str:
    """Digest of the fixed list of questions: what was planned before anything was seen."""
    return digest(b"flute/analysis-plan/v1", msgspec.msgpack.encode(tuple(questions))).hex()


def _hub_receipt(hub: str, receipt: Receipt) -> HubReceipt:
    return HubReceipt(hub, receipt.release.hex(), receipt.line, receipt.digest.hex())


class Release(Struct, frozen=True):
    """A study's results with all that vouches for them. JSON-able; holds opened totals' results only."""

    study: str
    title: str
    simulated: bool
    mode: str
    statement: str
    """The privacy statement in plain words, with odds; for exact results, that there is no bound."""
    analysis_plan: str
    results: dict[str, dict[str, Any]]
    receipts: tuple[ReleaseReceipt, ...]
    missing: dict[str, str] = {}
    """Hub to why it took no part, or not to the end; each receipt names the hubs of its own total."""
