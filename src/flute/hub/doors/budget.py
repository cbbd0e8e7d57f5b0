"""The steward's door, budget and policy: what is allowed, how it is divided, who agreed that more is allowed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from msgspec import Meta, Struct

from flute.http import json_answer, read_json, read_stream
from flute.hub.decisions.change import Change, Confirmation
from flute.hub.decisions.steward import Steward
from flute.hub.doors.status import ledger_view
from flute.hub.parts import Parts
from flute.hub.store import HubPolicy, Part
from flute.ledger.charge import Place
from flute.ledger.recount import tally
from flute.messages.limits import Digest, PartyId, Signature, Text
from flute.primitives.keys import fingerprint

MAX_BODY_BYTES = 64 * 2**10
_MAX_CARD_CHARS = 1_000


class PolicyAsked(Struct, frozen=True, forbid_unknown_fields=True):
    policy: HubPolicy
    person: PartyId


class AllotmentAsked(Struct, frozen=True, forbid_unknown_fields=True):
    place: Place
    part: Part
    person: PartyId
    reason: Text = ""


class MoveAsked(Struct, frozen=True, forbid_unknown_fields=True):
    source: Place
    target: Place
    part: Part
    person: PartyId
    reason: Text = ""


class EnrolmentAsked(Struct, frozen=True, forbid_unknown_fields=True):
    card: Annotated[str, Meta(max_length=_MAX_CARD_CHARS)]
    person: PartyId


class ProposalAsked(Struct, frozen=True, forbid_unknown_fields=True):
    change: Change
    signature: Signature


class DropAsked(Struct, frozen=True, forbid_unknown_fields=True):
    change: Digest
    person: PartyId
    reason: Text = ""


def budget_routes(parts: Parts, steward: Steward) -> APIRouter:
    routes = APIRouter()

    @routes.get("/policy")
    def policy() -> Response:
        return json_answer(msgspec.to_builtins(parts.store.policy()))

    @routes.put("/policy")
    async def set_policy(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), PolicyAsked)
        policy = await run_in_threadpool(lambda: steward.set_policy(asked.policy, person=asked.person))
        return json_answer(msgspec.to_builtins(policy))

    @routes.get("/ledger")
    def ledger() -> Response:
        return json_answer(ledger_view(parts) | {"tally": tally(parts.ledger)})

    @routes.put("/allotments")
    async def allot(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), AllotmentAsked)
        await run_in_threadpool(
            lambda: steward.allot(asked.place, asked.part, person=asked.person, reason=asked.reason)
        )
        return json_answer(tally(parts.ledger)["allotments"])

    @routes.post("/allotments/move")
    async def move(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), MoveAsked)
        await run_in_threadpool(
            lambda: steward.move(asked.source, asked.target, asked.part, person=asked.person, reason=asked.reason)
        )
        return json_answer(tally(parts.ledger)["allotments"])

    _change_routes(routes, steward)
    return routes


def _change_routes(routes: APIRouter, steward: Steward) -> None:
    @routes.get("/stewards")
    def stewards() -> Response:
        found = steward.changes.stewards().items()
        return json_answer([{"steward": name, "fingerprint": fingerprint(key)} for name, key in sorted(found)])

    @routes.post("/stewards")
    async def enrol(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), EnrolmentAsked)
        name = await run_in_threadpool(lambda: steward.changes.enrol(asked.card, person=asked.person))
        return json_answer({"steward": name})

    @routes.get("/changes")
    def changes() -> Response:
        return json_answer([_shown(change) for change in steward.changes.waiting()])

    @routes.post("/changes")
    async def propose(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), ProposalAsked)
        change = await run_in_threadpool(lambda: steward.changes.propose(asked.change, asked.signature))
        return json_answer(_shown(change))

    @routes.post("/changes/confirm")
    async def confirm(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), Confirmation)
        change = await run_in_threadpool(lambda: steward.changes.confirm(asked.change, asked.person, asked.signature))
        return json_answer(_shown(change))

    @routes.post("/changes/drop")
    async def drop(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), DropAsked)
        await run_in_threadpool(lambda: steward.changes.drop(asked.change, person=asked.person, reason=asked.reason))
        return json_answer({"dropped": asked.change.hex()})


def _shown(change: Change) -> dict[str, Any]:
    return {
        "id": change.id.hex(),
        "what": change.what,
        "says": change.words,
        "proposer": change.proposer,
        "ends": change.ends,
        "change": msgspec.to_builtins(change),
    }
