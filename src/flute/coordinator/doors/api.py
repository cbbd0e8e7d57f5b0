"""The coordinator's HTTP API. Every call about studies is signed by an enrolled person (RFC 9421).

Errors are answered as {"code", "text"}. Nothing is read before its size is checked.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

import flute
from flute.coordinator.doors.posted import StopPosted, StudyPosted
from flute.coordinator.doors.results import study_release, study_status, study_times
from flute.coordinator.doors.served import Served
from flute.coordinator.doors.told import told_routes
from flute.coordinator.rounds import Rounds
from flute.defaults import MAX_JOIN_BYTES, MAX_ROSTER_BYTES
from flute.errors import (
    FluteError,
    Malformed,
    NotInRoster,
    Refusal,
    Replayed,
    StudyFileError,
    TooLarge,
    WrongStudy,
)
from flute.http import json_answer, read_json, read_stream
from flute.questions.code import code_digest
from flute.study.agreement import (
    MAX_AGREEMENT_BYTES,
    agreement_digest,
    check_agreement_signature,
    read_agreement,
)
from flute.study.files.check import check_study
from flute.trust.people import asgi_target, verify_request
from flute.trust.roster import Person, Role
from flute.trust.signing import Bundle

_MAX_SMALL: Final = 64 * 1024
_STATUS: Final[dict[type[FluteError], int]] = {NotInRoster: 403, Refusal: 403, WrongStudy: 409, TooLarge: 413}


class StoredNonces:
    """Memory against replayed calls, in the coordinator's database: a restart forgets nothing."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def remember(self, person: str, nonce: str, *, until: int, now: int) -> None:
        key = hashlib.sha256(f"{person}|{nonce}".encode()).digest()
        if not self._rounds.first_use(key, now, until):
            raise Replayed("This very call was received before; sign a new one.")


def make_api(coordinator: Served) -> FastAPI:
    app = FastAPI(
        title="FLUTE coordinator", version=flute.__version__, docs_url=None, redoc_url=None
    )  # they load foreign code
    nonces = StoredNonces(coordinator.rounds)

    async def person(request: Request, limit: int, *roles: Role) -> tuple[Person, bytes]:
        """Who calls, and the call's body. Checked before anything of it is acted upon."""
        body = await read_stream(request, limit)
        roster = coordinator.desk.roster
        found = await run_in_threadpool(
            lambda: verify_request(
                roster=roster,
                method=request.method,
                target=asgi_target(request.scope),
                headers=request.headers,
                body=body,
                now=coordinator.desk.now(),
                nonces=nonces,
            )
        )
        if roles:
            roster.require_role(found.id, *roles)
        return found, body

    @app.exception_handler(FluteError)
    def say_no(_request: Request, error: FluteError) -> Response:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400)
        return JSONResponse({"code": error.code, "text": error.text}, status_code=status)

    @app.get("/health")
    def health() -> Response:
        return json_answer(
            {
                "federation": coordinator.config.federation,
                "version": flute.__version__,
                "code": code_digest().hex(),
                "connected": sorted(coordinator.channel.connected()),
            }
        )

    _roster_routes(app, coordinator)
    _study_routes(app, coordinator, person)
    told_routes(app, coordinator, person)
    return app


def _roster_routes(app: FastAPI, coordinator: Served) -> None:
    """Rosters and requests to join prove themselves: they carry their own signatures."""
    book, enrolments = coordinator.book, coordinator.enrolments

    @app.get("/roster")
    def roster() -> Response:
        coordinator.desk.roster  # noqa: B018 renews the word on it, or says that there is none
        return json_answer({name: base64.b64encode(raw).decode() for name, raw in book.files().items()})

    @app.get("/roster/proposal")
    def proposal() -> Response:
        bundle = book.proposal()
        if bundle is None:
            raise WrongStudy("No roster is being signed at the moment.")
        return Response(bundle.to_bytes(), media_type="application/octet-stream")

    @app.post("/roster/proposal")
    async def signed(request: Request) -> Response:
        bundle = Bundle.from_bytes(await read_stream(request, 4 * MAX_ROSTER_BYTES))
        text = await run_in_threadpool(lambda: book.signed(bundle, coordinator.desk.now()))
        if book.proposal() is None:
            await run_in_threadpool(coordinator.push_roster)
        return json_answer({"text": text, "published": book.proposal() is None})

    @app.post("/enrolment")
    async def join(request: Request) -> Response:
        raw = await read_stream(request, MAX_JOIN_BYTES)
        known = coordinator.desk.roster if book.files() else None
        entry = await run_in_threadpool(lambda: enrolments.receive(raw, known, coordinator.desk.now()))
        return json_answer({"hub": entry.id, "state": "asked"})

    @app.get("/enrolment/{hub}/{request_digest}")
    def admission(hub: str, request_digest: str) -> Response:
        try:
            named = bytes.fromhex(request_digest)
        except ValueError:
            raise Malformed("A request is named by its digest in hexadecimal.") from None
        found = enrolments.admission(hub, named)
        return Response(found or b"", status_code=200 if found else 202, media_type="application/octet-stream")


def _study_routes(app: FastAPI, coordinator: Served, person: Callable[..., Any]) -> None:
    rounds, runner = coordinator.rounds, coordinator.runner

    @app.post("/studies")
    async def propose(request: Request) -> Response:
        found, body = await person(request, 3 * MAX_AGREEMENT_BYTES, Role.RESEARCHER)
        posted = read_json(body, StudyPosted)
        return json_answer(await run_in_threadpool(lambda: _propose(coordinator, found, posted)))

    @app.get("/studies")
    async def studies(request: Request) -> Response:
        await person(request, _MAX_SMALL)
        return json_answer([study_status(rounds, row) for row in rounds.studies()])

    @app.get("/studies/{study}")
    async def one(study: str, request: Request) -> Response:
        await person(request, _MAX_SMALL)
        return json_answer(study_status(rounds, _row(rounds, study)))

    @app.post("/studies/{study}/run")
    async def run(study: str, request: Request) -> Response:
        found, _ = await person(request, _MAX_SMALL, Role.RESEARCHER)
        _own(rounds, study, found)
        await run_in_threadpool(lambda: runner.run(study))
        return json_answer(study_status(rounds, _row(rounds, study)))

    @app.post("/studies/{study}/stop")
    async def stop(study: str, request: Request) -> Response:
        found, body = await person(request, _MAX_SMALL, Role.RESEARCHER)
        _own(rounds, study, found)
        why = read_json(body, StopPosted).why
        await run_in_threadpool(lambda: runner.stop(study, f"{found.id} stopped it: {why}"))
        return json_answer(study_status(rounds, _row(rounds, study)))

    @app.get("/studies/{study}/release")
    async def release(study: str, request: Request) -> Response:
        found, _ = await person(request, _MAX_SMALL, Role.RESEARCHER)
        _own(rounds, study, found)
        return json_answer(msgspec.to_builtins(study_release(rounds, _row(rounds, study))))

    @app.get("/studies/{study}/agreement")
    async def agreement(study: str, request: Request) -> Response:
        """The signed document, byte for byte as its researcher proposed it and hubs' stewards read it."""
        found, _ = await person(request, _MAX_SMALL, Role.RESEARCHER)
        _own(rounds, study, found)
        row = _row(rounds, study)
        return json_answer(StudyPosted(row.agreement, row.signature))

    @app.get("/studies/{study}/traffic")
    async def traffic(study: str, request: Request) -> Response:
        await person(request, _MAX_SMALL)
        _row(rounds, study)
        return json_answer({"traffic": rounds.traffic(study), "times": study_times(rounds, study)})


def _propose(coordinator: Served, found: Person, posted: StudyPosted) -> dict[str, Any]:
    """A study from an agreement that its researcher signed and that can be carried out."""
    agreement = read_agreement(posted.agreement)
    if agreement.researcher != found.id:
        raise NotInRoster(f"{found.id} cannot propose a study in the name of {agreement.researcher}.")
    check_agreement_signature(posted.agreement, posted.signature, found.signing_key)
    roster = coordinator.desk.roster
    check_study(agreement, roster_hubs=[hub.id for hub in roster.hubs()])
    if agreement.code != roster.approved("algorithms"):
        raise StudyFileError(
            "The algorithms of this study are not those that the roster approved; use the federation's version."
        )
    coordinator.runner.propose(posted.agreement, posted.signature, agreement, agreement_digest(posted.agreement))
    return {"study": agreement.study, "digest": agreement_digest(posted.agreement).hex(), "state": "consenting"}


def _row(rounds: Rounds, study: str) -> Any:
    row = rounds.study(study)
    if row is None:
        raise WrongStudy(f"There is no study {study!r} here.")
    return row


def _own(rounds: Rounds, study: str, found: Person) -> None:
    """Only a study's own researcher runs it, stops it and reads its results."""
    if read_agreement(_row(rounds, study).agreement).researcher != found.id:
        raise NotInRoster(f"Study {study} is not {found.id}'s; its researcher runs it.")
