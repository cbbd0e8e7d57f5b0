"""The coordinator's routes to what hubs say, and the catalogue that it keeps for them."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from flute.catalogue.listing import Listing, SignedListing, read_listing, sign_listing
from flute.coordinator.doors.api import make_api
from flute.coordinator.listings import Listings
from flute.defaults.accounts import MAX_HUB_LISTINGS, MAX_LISTING_BYTES
from flute.errors import BadSignature, Malformed, NotInRoster, NotPossible, Stale, TooLarge
from flute.messages.accounts import AccountsTold, ask_accounts, check_told
from flute.study.agreement import Agreement, check_agreement_signature, write_agreement
from flute.trust.people import NONCE_SIZE, sign_request
from flute.trust.roster import Person, Role
from support.catalogue_entries import entry
from support.inprocess import NOW, InProcessFederation, make_roster
from support.parties import Party
from support.studies import study

HUBS = ("north", "south", "west")
QUESTION = """\
  cohort: {algorithm: describe, variables: [age], share: 1}
"""


def agreed() -> Agreement:
    return msgspec.structs.replace(study("budget: {epsilon: 1}", QUESTION), study="trial")


class Caller:
    """Signs what a person calls."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.calls = 0

    def unsigned(self, method: str, path: str, raw: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
                return await client.request(method, path, content=raw or None, headers=headers)

        return asyncio.run(once())

    def __call__(self, method: str, path: str, body: Any = None, *, person: str = "ada") -> Any:
        raw = b"" if body is None else msgspec.json.encode(body)
        self.calls += 1
        headers = sign_request(
            Party(person).signing, person=person, federation="test", method=method, target=path, body=raw, now=NOW,
            rand=self.calls.to_bytes(NONCE_SIZE, "big"),
        )  # fmt: skip
        return self.unsigned(method, path, raw, headers)


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[InProcessFederation]:
    variables = [v.variable for v in agreed().variables if v.variable.name == "age"]
    made = InProcessFederation(tmp_path, {hub: {"age": [40.0, 60.0] * 100} for hub in HUBS}, variables)
    bob = Person("bob", Party("bob").signing.public, Role.RESEARCHER)
    content = msgspec.structs.replace(made.roster.content, people=(*made.roster.content.people, bob))
    made.roster = type(made.roster)(content, threshold=2, fresh_until=made.roster.fresh_until)
    for hub in made.hubs.values():
        hub.parts.trust.roster = made.roster  # type: ignore[misc]
    made.propose(agreed())
    yield made
    made.close()


@pytest.fixture
def call(fed: InProcessFederation, tmp_path: Path) -> Iterator[Caller]:
    """The API over the federation's own rounds; hubs answer in another thread, as they do."""
    there = ["north", "south"]  # west is away
    served = SimpleNamespace(
        config=SimpleNamespace(federation="test"), desk=fed.desk, rounds=fed.rounds, runner=fed.runner,
        book=None, enrolments=None, listings=Listings(tmp_path / "catalogue"), push_roster=lambda: None,
        channel=SimpleNamespace(connected=lambda: there),
    )  # fmt: skip
    stop = threading.Event()

    def hubs_answer() -> None:
        while not stop.wait(0.01):
            fed.settle()

    thread = threading.Thread(target=hubs_answer)
    thread.start()
    yield Caller(make_api(served))  # type: ignore[arg-type]
    stop.set()
    thread.join()


# --- accounts ------------------------------------------------------------------------------------------


def question(person: str = "ada", studies: tuple[str, ...] = ("trial",), nonce: int = 1) -> Any:
    return ask_accounts(
        Party(person).signing, person, "test", studies, now=NOW, rand=nonce.to_bytes(NONCE_SIZE, "big")
    )


@pytest.mark.requirement("F-PIL-17")
def test_hubs_that_are_there_answer_and_one_that_is_away_is_not_waited_for(call: Caller) -> None:
    began = time.monotonic()
    answer = call("POST", "/accounts", question()).json()
    told = msgspec.convert(answer["told"], type=list[AccountsTold])
    assert {one.hub for one in told} == {"north", "south"}
    for one in told:
        check_told(one, Party(one.hub).signing.public)
        assert [s.study for s in one.studies] == ["trial"]
    assert time.monotonic() - began < 60
    nothing = call("POST", "/accounts", question(studies=("unknown",), nonce=2)).json()
    assert nothing == {"told": []}


def test_nobody_asks_in_another_s_name_nor_about_another_s_studies(call: Caller) -> None:
    refused = call("POST", "/accounts", question(), person="bob")
    assert (refused.status_code, refused.json()["code"]) == (403, "not-in-roster")
    assert call("POST", "/accounts", question("bob"), person="bob").json() == {"told": []}


def test_an_unsigned_call_and_a_long_list_are_refused(call: Caller) -> None:
    assert call.unsigned("POST", "/accounts", msgspec.json.encode(question())).status_code == 400
    assert call.unsigned("GET", "/catalogue").status_code == 400
    many = question(studies=tuple(f"s{number}" for number in range(300)))
    assert call("POST", "/accounts", many).json()["code"] == "malformed"


# --- the agreement --------------------------------------------------------------------------------------


@pytest.mark.requirement("F-HUF-1")
def test_a_study_s_own_researcher_gets_the_signed_document(call: Caller) -> None:
    found = {k: base64.b64decode(v) for k, v in call("GET", "/studies/trial/agreement").json().items()}
    assert found["agreement"] == write_agreement(agreed())
    check_agreement_signature(found["agreement"], found["signature"], Party("ada").signing.public)
    assert call("GET", "/studies/trial/agreement", person="bob").status_code == 403
    assert call("GET", "/studies/other/agreement").status_code == 409


# --- the catalogue ----------------------------------------------------------------------------------------


def listing(hub: str = "north", at: int = NOW, **changes: Any) -> SignedListing:
    said = msgspec.structs.replace(Listing("test", hub, "heart", at, entry()), **changes)
    return sign_listing(said, Party(hub).signing)


@pytest.mark.requirement("F-PIL-16")
def test_what_a_hub_publishes_is_what_every_researcher_gets(call: Caller) -> None:
    sent = listing()
    assert call.unsigned("POST", "/catalogue", msgspec.json.encode(sent)).json() == {
        "hub": "north", "dataset": "heart", "shown": True,
    }  # fmt: skip
    (found,) = msgspec.convert(call("GET", "/catalogue", person="bob").json(), type=list[SignedListing])
    assert found == sent
    forged = SignedListing(sent.raw, bytes(64))
    assert call.unsigned("POST", "/catalogue", msgspec.json.encode(forged)).json()["code"] == "bad-signature"
    assert call.unsigned("POST", "/catalogue", bytes(4 * MAX_LISTING_BYTES)).status_code == 413


def test_a_newer_entry_takes_the_place_of_an_older_one_and_never_the_other_way(tmp_path: Path) -> None:
    kept, roster = Listings(tmp_path / "catalogue"), make_roster(HUBS)
    kept.publish(listing(at=NOW - 60), roster, NOW)
    kept.publish(listing(at=NOW, entry=None), roster, NOW)
    kept.publish(listing(at=NOW, entry=None), roster, NOW)  # the same again
    with pytest.raises(Stale, match="newer entry"):
        kept.publish(listing(at=NOW - 60), roster, NOW)
    with pytest.raises(Stale, match="newer entry"):  # another one of the same second
        kept.publish(listing(at=NOW), roster, NOW)
    assert [read_listing(one).entry for one in Listings(tmp_path / "catalogue").newest()] == [None]


def test_what_no_hub_of_this_federation_signed_now_is_not_kept(tmp_path: Path) -> None:
    kept, roster = Listings(tmp_path / "catalogue"), make_roster(HUBS, revoked=["west"])
    for wrong, error in (
        (sign_listing(Listing("test", "north", "heart", NOW, entry()), Party("south").signing), BadSignature),
        (listing(federation="other"), BadSignature),
        (listing(at=NOW + 86_400), Stale),
        (listing("west"), NotInRoster),
        (listing("east"), NotInRoster),
        (listing(dataset="other"), Malformed),
        (SignedListing(b"{}", bytes(64)), Malformed),
        (SignedListing(b"[" * 10_000, bytes(64)), Malformed),
        (SignedListing(bytes(MAX_LISTING_BYTES + 1), bytes(64)), TooLarge),
    ):
        with pytest.raises(error):
            kept.publish(wrong, roster, NOW)
    assert kept.newest() == []
    kept.publish(listing(), roster, NOW)


def test_a_hub_cannot_fill_the_coordinator_s_disk(tmp_path: Path) -> None:
    kept, roster = Listings(tmp_path / "catalogue"), make_roster(HUBS)
    for number in range(MAX_HUB_LISTINGS):
        kept.publish(listing(dataset=f"d{number}", entry=None), roster, NOW)
    with pytest.raises(NotPossible, match="take one out"):
        kept.publish(listing(dataset="more", entry=None), roster, NOW)
    kept.publish(listing("south", dataset="more", entry=None), roster, NOW)
