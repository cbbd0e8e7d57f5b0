"""Routes by which a researcher learns what hubs say of themselves: accounts, decisions, datasets.

Everything here is signed by the hub that says it, and by the researcher who asks; the coordinator carries it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from flute.catalogue.listing import SignedListing
from flute.coordinator.doors.served import Served
from flute.coordinator.inquiries import Inquiries
from flute.coordinator.rounds import Rounds
from flute.defaults.accounts import ACCOUNTS_WAIT_S, MAX_LISTING_BYTES
from flute.errors import NotInRoster
from flute.http import json_answer, read_json, read_stream
from flute.messages.accounts import AccountsCall
from flute.study.agreement import read_agreement
from flute.trust.roster import Role

_MAX_CALL: Final = 64 * 1024
_MAX_LISTING_CALL: Final = 3 * MAX_LISTING_BYTES
"""A listing in base64, with room for its frame."""
_POLL_S: Final = 0.02


def told_routes(app: FastAPI, coordinator: Served, person: Callable[..., Any]) -> None:
    """`person`: who calls, as every route of the API checks it."""
    _catalogue_routes(app, coordinator, person)

    @app.post("/accounts")
    async def accounts(request: Request) -> Response:
        found, body = await person(request, _MAX_CALL, Role.RESEARCHER)
        call = read_json(body, AccountsCall)
        if call.person != found.id:
            raise NotInRoster(f"{found.id} cannot ask for accounts in the name of {call.person}.")
        inquiries = coordinator.runner.inquiries
        hubs = await run_in_threadpool(lambda: _hubs_of(coordinator.rounds, call))
        there = sorted(hubs & set(coordinator.channel.connected()))
        await run_in_threadpool(lambda: inquiries.ask(call, there))
        try:
            await _all_told(inquiries, call.nonce, len(there))
            return json_answer({"told": list(inquiries.told(call.nonce).values())})
        finally:
            inquiries.close(call.nonce)


def _catalogue_routes(app: FastAPI, coordinator: Served, person: Callable[..., Any]) -> None:
    listings = coordinator.listings

    @app.get("/catalogue")
    async def catalogue(request: Request) -> Response:
        await person(request, _MAX_CALL)
        return json_answer(await run_in_threadpool(listings.newest))

    @app.post("/catalogue")
    async def publish(request: Request) -> Response:
        """Signed by the hub that publishes it, so nobody else has to be."""
        raw = await read_stream(request, _MAX_LISTING_CALL)
        signed = read_json(raw, SignedListing)
        desk = coordinator.desk
        kept = await run_in_threadpool(lambda: listings.publish(signed, desk.roster, desk.now()))
        return json_answer({"hub": kept.hub, "dataset": kept.dataset, "shown": kept.entry is not None})


def _hubs_of(rounds: Rounds, call: AccountsCall) -> set[str]:
    """Hubs of those of the named studies that this person proposed."""
    rows = [row for study in dict.fromkeys(call.studies) if (row := rounds.study(study)) is not None]
    agreements = [read_agreement(row.agreement) for row in rows]
    return {hub for agreement in agreements if agreement.researcher == call.person for hub in agreement.hubs}


async def _all_told(inquiries: Inquiries, nonce: bytes, hubs: int) -> None:
    """Returns once that many hubs have answered, or had their time."""
    until = time.monotonic() + ACCOUNTS_WAIT_S
    while len(inquiries.told(nonce)) < hubs and time.monotonic() < until:
        await asyncio.sleep(_POLL_S)
