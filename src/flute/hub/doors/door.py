"""The steward's door: a local API on a Unix socket that only the hub's own user can open.

It never listens on a network. Errors are answered as {"code", "text"}; nothing else of them gets out.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from msgspec import Meta, Struct

import flute
from flute.cohort.overrides import KeepIn, LeaveOut, Override, SamePerson, TakeBack, Why
from flute.errors import FluteError, MisuseError
from flute.http import json_answer, read_json, read_stream
from flute.hub.decisions.steward import Steward
from flute.hub.doors.budget import budget_routes
from flute.hub.doors.catalogue import catalogue_routes
from flute.hub.doors.status import hub_status, study_view
from flute.hub.parts import Parts
from flute.hub.records.catalogue import Catalogue
from flute.hub.records.curation import Curator
from flute.hub.records.data import Data
from flute.hub.records.imports import done
from flute.hub.records.plans import AttachPlan, ImportPlan
from flute.hub.store import StudyEntry
from flute.ledger import audit
from flute.ledger.journals.journal import verify
from flute.messages.limits import Code, PartyId, Text

MAX_BODY_BYTES = 4 * 2**20
PatientId = Annotated[str, Meta(min_length=1, max_length=256)]


class DecisionAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """`alike`: with a grant, the epsilon up to which private studies alike may follow it unread; 0 for none."""

    decision: Literal["grant", "deny", "withdraw", "end-alike"]
    person: PartyId
    reason: Text = ""
    alike: Annotated[float, Meta(ge=0, le=100)] = 0.0


class ByHandAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """`patients`: the hospital's own ids; they are turned into pseudonyms here and go no further."""

    decision: Literal["keep-in", "leave-out", "same-person", "take-back"]
    patients: Annotated[tuple[PatientId, ...], Meta(min_length=1, max_length=16)]
    person: PartyId
    why: Why
    despite: Annotated[tuple[Code, ...], Meta(max_length=16)] = ()


class WithdrawalAsked(Struct, frozen=True, forbid_unknown_fields=True):
    patient: PatientId
    person: PartyId
    reason: Text


def make_door(steward: Steward, data: Data, catalogue: Catalogue, parts: Parts) -> FastAPI:
    """The API. Handlers that read records or write run in worker threads, under the service's lock."""
    app = FastAPI(title="FLUTE hub, steward's door", version=flute.__version__, docs_url=None, redoc_url=None)

    @app.exception_handler(FluteError)
    def say_no(_request: Request, error: FluteError) -> Response:
        return JSONResponse({"code": error.code, "text": error.text}, status_code=409)

    @app.get("/status")
    def status() -> Response:
        return json_answer(hub_status(parts))

    @app.get("/studies/{study}")
    def study(study: str) -> Response:
        return json_answer(study_view(parts, study))

    @app.post("/studies/{study}/decision")
    async def decide(study: str, request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), DecisionAsked)
        entry = await run_in_threadpool(_decide, steward, study, asked)
        return json_answer({"study": entry.study, "state": entry.state})

    _data_routes(app, data)
    app.include_router(catalogue_routes(parts, catalogue))

    app.include_router(budget_routes(parts, steward))

    @app.get("/audit")
    def history(study: str = "", last: int = 0) -> Response:
        lines = [line.as_json() for line in audit.history(parts.journal, study=study)]
        return json_answer(lines[-last:] if last else lines)

    @app.get("/audit/verify")
    def verified() -> Response:
        found = verify(parts.journal.path, parts.signing.public)
        return json_answer({"lines": found.position.line, "head": found.position.digest.hex()})

    return app


def _decide(steward: Steward, study: str, asked: DecisionAsked) -> StudyEntry:
    match asked.decision:
        case "withdraw":
            return steward.withdraw(study, person=asked.person, reason=asked.reason)
        case "end-alike":
            return steward.end_following(study, person=asked.person, reason=asked.reason)
        case _:
            return steward.decide(
                study, grant=asked.decision == "grant", person=asked.person, reason=asked.reason, alike=asked.alike
            )


def _data_routes(app: FastAPI, data: Data) -> None:
    @app.post("/imports")
    async def start_import(request: Request) -> Response:
        plan = read_json(await read_stream(request, MAX_BODY_BYTES), ImportPlan)
        return json_answer(msgspec.to_builtins(data.imports.start(plan)))

    @app.post("/attached")
    async def attach_images(request: Request) -> Response:
        plan = read_json(await read_stream(request, MAX_BODY_BYTES), AttachPlan)
        return json_answer(msgspec.to_builtins(data.imports.start(plan)))

    @app.post("/imports/{dataset}/again")
    def import_again(dataset: str) -> Response:
        return json_answer(msgspec.to_builtins(data.imports.start(data.holdings.plan(dataset))))

    @app.get("/imports/{dataset}")
    def import_state(dataset: str) -> Response:
        return json_answer(msgspec.to_builtins(data.imports.state(dataset)))

    @app.get("/datasets/{dataset}/cohort")
    def cohort(dataset: str) -> Response:
        return json_answer(data.curator.cohort(dataset))

    @app.get("/datasets/{dataset}/profiles")
    def profiles(dataset: str) -> Response:
        found = data.holdings.profiles(dataset)
        return json_answer([{"at": at, "profile": msgspec.to_builtins(profile)} for at, profile in found])

    @app.post("/datasets/{dataset}/decisions")
    async def decide_by_hand(dataset: str, request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), ByHandAsked)
        taken = await run_in_threadpool(lambda: data.curator.decide(dataset, _override(asked, data.curator)))
        return json_answer(msgspec.to_builtins(done(dataset, taken)))

    @app.post("/withdrawals")
    async def withdraw(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), WithdrawalAsked)
        done = await run_in_threadpool(
            lambda: data.withdrawal.withdraw(asked.patient, person=asked.person, reason=asked.reason)
        )
        return json_answer(msgspec.to_builtins(done))


def _override(asked: ByHandAsked, curator: Curator) -> Override:
    """Raises: MisuseError: a decision that lacks a part; kept, it could not be read again."""
    try:
        checked: Override = msgspec.convert(msgspec.to_builtins(_made(asked, curator)), type=Override)
        return checked
    except msgspec.ValidationError as error:
        raise MisuseError(f"The decision {asked.decision} lacks a part ({error}).") from error


def _made(asked: ByHandAsked, curator: Curator) -> Override:
    known_as = tuple(curator.known_as(patient) for patient in asked.patients)
    if asked.decision == "same-person":
        return SamePerson(asked.person, asked.why, known_as)
    if len(known_as) != 1:
        raise MisuseError(f"{asked.decision} is about one patient; name one.")
    match asked.decision:
        case "keep-in":
            return KeepIn(asked.person, asked.why, known_as[0], asked.despite)
        case "leave-out":
            return LeaveOut(asked.person, asked.why, known_as[0])
        case "take-back":
            return TakeBack(asked.person, asked.why, known_as[0])
