"""The steward's door: a local API on a Unix socket that only the hub's own user can open.

It never listens on a network. Errors are answered as {"code", "text"}; nothing else of them gets out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from msgspec import Meta, Struct

import flute
from flute.data.source import Recipe
from flute.data.variables import Variable
from flute.errors import FluteError, NotPossible
from flute.http import json_answer, read_json, read_stream
from flute.hub.parts import Parts
from flute.hub.status import hub_status, ledger_view, study_view
from flute.hub.steward import Steward
from flute.hub.store import HubPolicy
from flute.ledger import audit
from flute.ledger.journal import verify
from flute.messages.limits import Name, PartyId, Text

MAX_BODY_BYTES = 4 * 2**20


class ImportAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """`source`: a folder of FHIR files (with `recipe`) or a CSV file (with `variables`), read by the hub itself."""

    dataset: Name
    source: Annotated[str, Meta(max_length=4096)]
    person: PartyId
    recipe: Recipe | None = None
    variables: tuple[Variable, ...] = ()
    id_column: str | None = None
    simulated: bool = False


class DecisionAsked(Struct, frozen=True, forbid_unknown_fields=True):
    decision: Literal["grant", "deny", "withdraw"]
    person: PartyId
    reason: Text = ""


class PolicyAsked(Struct, frozen=True, forbid_unknown_fields=True):
    policy: HubPolicy
    person: PartyId


def make_door(steward: Steward, parts: Parts) -> FastAPI:
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
        if asked.decision == "withdraw":
            entry = await run_in_threadpool(lambda: steward.withdraw(study, person=asked.person, reason=asked.reason))
        else:
            grant = asked.decision == "grant"
            entry = await run_in_threadpool(
                lambda: steward.decide(study, grant=grant, person=asked.person, reason=asked.reason)
            )
        return json_answer({"study": entry.study, "state": entry.state})

    @app.post("/import")
    async def take_records(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), ImportAsked)
        return json_answer(msgspec.to_builtins(await run_in_threadpool(lambda: _import(steward, asked))))

    @app.get("/policy")
    def policy() -> Response:
        return json_answer(msgspec.to_builtins(parts.store.policy()))

    @app.put("/policy")
    async def set_policy(request: Request) -> Response:
        asked = read_json(await read_stream(request, MAX_BODY_BYTES), PolicyAsked)
        policy = await run_in_threadpool(lambda: steward.set_policy(asked.policy, person=asked.person))
        return json_answer(msgspec.to_builtins(policy))

    @app.get("/ledger")
    def ledger() -> Response:
        return json_answer(ledger_view(parts))

    @app.get("/audit")
    def history(study: str = "", last: int = 0) -> Response:
        lines = [line.as_json() for line in audit.history(parts.journal, study=study)]
        return json_answer(lines[-last:] if last else lines)

    @app.get("/audit/verify")
    def verified() -> Response:
        found = verify(parts.journal.path, parts.signing.public)
        return json_answer({"lines": found.position.line, "head": found.position.digest.hex()})

    return app


def _import(steward: Steward, asked: ImportAsked) -> Any:
    source = Path(asked.source)
    if asked.recipe is not None:
        return steward.import_fhir(asked.dataset, source, asked.recipe, simulated=asked.simulated)
    if not asked.variables:
        raise NotPossible("An import needs a recipe for FHIR files, or the variables of a CSV file.")
    return steward.import_csv(
        asked.dataset, source, asked.variables, id_column=asked.id_column, simulated=asked.simulated
    )
