"""A hub tells researchers of their own studies and of nobody else's: through the real service, rounds and desk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.coordinator.inquiries import Inquiries
from flute.defaults.accounts import MAX_OPEN_ACCOUNTS, MAX_OPEN_PER_PERSON, PICO
from flute.errors import BadSignature, NotPossible
from flute.hub.doors.status import ledger_view
from flute.ledger import audit
from flute.messages.accounts import (
    AccountsCall,
    AccountsTold,
    ask_accounts,
    check_call,
    check_told,
    sign_told,
)
from flute.sdk.hubs.told import account_of
from flute.study.agreement import Agreement, agreement_digest, write_agreement
from flute.study.protection import hub_epsilon, study_budget
from support.inprocess import NOW, InProcessFederation
from support.parties import Party
from support.studies import study

HUBS = ("north", "south", "west")
NONCE = bytes(range(16))
QUESTION = """\
  cohort:
    algorithm: describe
    variables: [age]
    share: 1
"""


def agreed(name: str = "trial") -> Agreement:
    base = study("budget: {epsilon: 1}", QUESTION)
    return msgspec.structs.replace(base, study=name)


@pytest.fixture
def fed(tmp_path: Path) -> InProcessFederation:
    variables = [v.variable for v in agreed().variables if v.variable.name == "age"]
    return InProcessFederation(tmp_path, {hub: {"age": [40.0, 60.0] * 100} for hub in HUBS}, variables)


def asked(*studies: str, person: str = "ada", now: int = NOW, nonce: bytes = NONCE, **changes: Any) -> AccountsCall:
    call = ask_accounts(Party(person).signing, "ada", "test", studies, now=now, rand=nonce)
    return msgspec.structs.replace(call, **changes) if changes else call


def told(fed: InProcessFederation, call: AccountsCall, hubs: tuple[str, ...] = HUBS) -> dict[str, AccountsTold]:
    fed.runner.inquiries.ask(call, hubs)
    fed.settle()
    return fed.runner.inquiries.told(call.nonce)


@pytest.mark.requirement("F-PIL-17")
def test_every_hub_tells_what_it_decided_charged_and_has_left(fed: InProcessFederation) -> None:
    agreement = agreed()
    fed.propose(agreement)
    before = told(fed, asked("trial"))["north"]
    assert (before.studies[0].decision, before.studies[0].ended, before.studies[0].spent.rho) == ("asked", False, 0.0)
    fed.consent("trial")
    fed.runner.run("trial")
    fed.settle()
    found = told(fed, asked("trial", nonce=NONCE[::-1]))
    assert set(found) == set(HUBS)
    rho = study_budget(agreement)[0]
    for hub, said in found.items():
        check_told(said, Party(hub).signing.public)
        (one,), (persons,) = said.studies, said.persons
        assert one.agreement == agreement_digest(write_agreement(agreement))
        assert (one.decision, one.ended) == ("granted", True)  # granted, and over
        assert 0.99 * rho < one.spent.rho <= rho * (1 + 1e-9)
        assert persons.spent.rho == said.own.rho == one.spent.rho
        assert persons.left / PICO < before.persons[0].left / PICO - 0.98 * rho


@pytest.mark.requirement("F-PIL-17")
def test_steward_researcher_and_study_read_one_epsilon(fed: InProcessFederation) -> None:
    """At what rounding leaves of delta, wherever it is said; at the whole of it the number would be another."""
    fed.run(agreed())
    (door,) = ledger_view(fed.hubs["north"].parts)["studies"]
    notebook = account_of("north", told(fed, asked("trial"))["north"], "records", asked=True).runs["trial"]
    assert door["epsilon_noised"] == pytest.approx(notebook["epsilon_noised"], rel=1e-6)
    assert door["epsilon"] == pytest.approx(1.0, abs=1e-3)
    assert hub_epsilon(door["rho"], door["delta"]) < door["epsilon"] * (1 - 1e-4)


@pytest.mark.requirement("F-PIL-17")
def test_a_study_of_somebody_else_is_not_told_not_even_that_it_is_there(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    found = told(fed, asked("trial", "another"))["north"]
    assert [one.study for one in found.studies] == ["trial"]
    entry = fed.hubs["north"].parts.store.study("trial")
    other = write_agreement(msgspec.structs.replace(agreed("theirs"), researcher="bob"))
    fed.hubs["north"].parts.store.put_study(msgspec.structs.replace(entry, study="theirs", agreement=other))
    again = told(fed, asked("trial", "theirs", nonce=NONCE[::-1]))["north"]
    assert [one.study for one in again.studies] == ["trial"]


BAD = {
    "signed_by_another": asked("trial", person="bob"),
    "of_yesterday": asked("trial", now=NOW - 86_400),
    "for_another_federation": ask_accounts(Party("ada").signing, "ada", "other", ("trial",), now=NOW, rand=NONCE),
    "one_more_study_than_was_signed": asked("trial", studies=("trial", "other")),
    "in_the_name_of_a_stranger": ask_accounts(Party("eve").signing, "eve", "test", ("trial",), now=NOW, rand=NONCE),
    "in_the_name_of_a_hub": ask_accounts(Party("west").signing, "west", "test", ("trial",), now=NOW, rand=NONCE),
}


@pytest.mark.parametrize("call", BAD.values(), ids=BAD.keys())
def test_a_question_that_no_researcher_asked_now_is_refused_by_every_hub(
    fed: InProcessFederation, call: AccountsCall
) -> None:
    fed.propose(agreed())
    assert told(fed, call) == {}
    for hub in fed.hubs.values():
        lines = [line.as_json() for line in audit.history(hub.parts.journal)]
        assert any(line["kind"] == "refused" for line in lines)
        assert not any("accounts-told" in str(line) for line in lines)
    assert set(told(fed, asked("trial", nonce=NONCE[::-1]))) == set(HUBS)  # the same, asked properly


def test_that_it_was_told_is_in_the_journal(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    told(fed, asked("trial"))
    lines = [str(line.as_json()) for line in audit.history(fed.hubs["west"].parts.journal)]
    assert any("ada: accounts-told 1 studies." in line for line in lines)


def test_every_field_of_question_and_answer_is_signed(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    call, said = asked("trial"), told(fed, asked("trial"))["north"]
    check_call(call, Party("ada").signing.public)
    for change in ({"studies": ()}, {"at": NOW + 1}, {"nonce": bytes(16)}, {"federation": "other"}):
        with pytest.raises(BadSignature):
            check_call(msgspec.structs.replace(call, **change), Party("ada").signing.public)
    cheaper = msgspec.structs.replace(said.own, settled=said.own.settled + 1)
    for change in ({"hub": "west"}, {"nonce": bytes(16)}, {"line": said.line + 1}, {"own": cheaper}, {"studies": ()}):
        with pytest.raises(BadSignature):
            check_told(msgspec.structs.replace(said, **change), Party("north").signing.public)
    with pytest.raises(BadSignature):
        check_told(sign_told(said, Party("coordinator").signing), Party("north").signing.public)


def test_a_hub_cannot_answer_for_another_and_only_the_first_answer_counts(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    found = told(fed, asked("trial"))
    waiting = fed.runner.inquiries
    call = asked("trial", nonce=NONCE[::-1])
    waiting.ask(call, ("north",))
    answer = msgspec.structs.replace(found["north"], nonce=call.nonce)
    waiting.take("west", answer)
    waiting.take("south", msgspec.structs.replace(answer, hub="south"))
    assert waiting.told(call.nonce) == {}
    waiting.take("north", answer)
    waiting.take("north", msgspec.structs.replace(answer, line=0))
    assert waiting.told(call.nonce) == {"north": answer}
    waiting.close(call.nonce)
    assert waiting.told(call.nonce) == {}


def test_open_questions_are_limited_and_forgotten(fed: InProcessFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Inquiries(fed.desk)
    for number in range(MAX_OPEN_PER_PERSON):
        waiting.ask(asked("trial", nonce=number.to_bytes(16, "big")), ())
    with pytest.raises(NotPossible, match="Too many questions"):
        waiting.ask(asked("trial"), ())
    for number in range(MAX_OPEN_ACCOUNTS - MAX_OPEN_PER_PERSON):  # others still may
        other = msgspec.structs.replace(
            asked("trial", nonce=(1_000 + number).to_bytes(16, "big")), person=f"p{number}"
        )
        waiting.ask(other, ())
    with pytest.raises(NotPossible, match="Too many questions"):
        waiting.ask(msgspec.structs.replace(asked("trial"), person="bob"), ())
    monkeypatch.setattr("flute.coordinator.inquiries.ACCOUNTS_KEEP_S", 0.0)
    waiting.ask(asked("trial"), ())
    assert waiting.told(bytes(16)) == {}
