"""Whatever must not be answered is refused before a record is read: typed, journaled, uncharged, in a sentence.

Each attack changes one thing about a genuine question that is on its way to hub north (`support.hostile`);
the control shows that the same question, untouched, is answered and opens the records exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flute.data.variables import Variable
from flute.defaults import (
    FRESHNESS_LIFETIME_S,
    MAX_CLOCK_SKEW_S,
    MAX_ENVELOPE_BYTES,
    MAX_PARAMETERS_BYTES,
    MESSAGE_LIFETIME_S,
)
from flute.hub.store import HubPolicy
from flute.ledger.budgets.budget import Level
from flute.ledger.journals.journal import verify
from flute.ledger.lines.entries import RecordSourceOpened, Resent
from flute.messages.answer import MaskedAnswer, OwnTotal, Refused
from flute.messages.envelope import ID_SIZE, Envelope, envelope_digest, kind_of, parse_envelope, read_body
from flute.messages.numbers import read_numbers, write_numbers
from flute.messages.protocol import GroupTerms, Start
from flute.messages.question import (
    OwnQuestion,
    Proposal,
    RosterFiles,
    RoundClosed,
    SecureQuestion,
    StudyClosed,
    TicketCall,
)
from flute.study.agreement import agreement_digest, sign_agreement, write_agreement
from flute.study.plans.sides import step_digest
from flute.trust.roster import Person, Role
from support.folders import quick_folder
from support.hostile import Caught, catch, check_text, expect_refusal, marked_people, open_at_hub
from support.inprocess import NOW, InProcessFederation, make_roster
from support.parties import Party
from support.studies import DESCRIBE, EXACT, MODEL, PRIVATE, private_model, study

HUBS = ("north", "south", "west")
NAN, ENDLESS = write_numbers(np.array([np.nan])), write_numbers(np.array([0.0, -np.inf]))
VARIABLES: tuple[Variable, ...] = tuple(v.variable for v in study().variables)
OPEN_POLICY = HubPolicy(exact_allowed=True, floor=1, max_numbers=20_000, epsilon=6, epsilon_all=6)
PRIVATE_STUDY = study(PRIVATE, DESCRIBE + private_model(0.4))
EXACT_STUDY = study(EXACT, MODEL)

pytestmark = [
    pytest.mark.requirement("URS-11"),
    pytest.mark.requirement("F-SRS-9"),
    pytest.mark.requirement("URS-12"),
]


@pytest.fixture
def quick() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def own(quick: Path) -> Caught:
    """A private study's own question to north, caught."""
    return catch(quick, PRIVATE_STUDY, VARIABLES, policy=OPEN_POLICY)


@pytest.fixture
def pooled(quick: Path) -> Caught:
    """An exact study's masked question to north, caught."""
    return catch(quick, EXACT_STUDY, VARIABLES, policy=OPEN_POLICY)


# --- control: the same questions, untouched ---------------------------------------------------------


@pytest.mark.parametrize(("agreement", "kind"), [(PRIVATE_STUDY, OwnTotal), (EXACT_STUDY, MaskedAnswer)])
def test_the_untouched_question_is_answered_and_opens_the_records_exactly_once(
    quick: Path, agreement: Any, kind: type
) -> None:
    caught = catch(quick, agreement, VARIABLES, policy=OPEN_POLICY)
    before, charged = len(caught.hub.source.opened), caught.charged
    reply = caught.service.reply_to(caught.raw)
    assert reply is not None
    assert isinstance(caught.opened_reply(reply).body, kind)
    assert len(caught.hub.source.opened) == before + 1
    assert caught.charged > charged
    assert caught.refused_lines() == []


def test_a_forged_header_alone_is_not_what_makes_a_question_refused(own: Caught) -> None:
    """The forger of the attacks below can also write a question that passes: only what they change is refused."""
    reply = own.service.reply_to(own.forge())
    assert reply is not None
    assert isinstance(own.opened_reply(reply).body, OwnTotal)


# --- their bytes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    name: str
    code: str
    make: Callable[[Caught], bytes]

    def __str__(self) -> str:
        return self.name


def _flipped_signature(c: Caught) -> bytes:
    e = parse_envelope(c.raw)
    return msgspec.msgpack.encode(Envelope(e.header, e.body, bytes([e.signature[0] ^ 1]) + e.signature[1:]))


def _flipped_body(c: Caught) -> bytes:
    e = parse_envelope(c.raw)
    return msgspec.msgpack.encode(Envelope(e.header, e.body[:-1] + bytes([e.body[-1] ^ 1]), e.signature))


def _resigned(c: Caught, body: bytes, **header: Any) -> bytes:
    """A body of any bytes, unsealed, rightly signed by the coordinator."""
    from flute.messages.envelope import _to_sign

    changed = msgspec.structs.replace(parse_envelope(c.raw).header, sealed=False, **header)
    signature = Party("coordinator").signing.sign(_to_sign(changed, body))
    return msgspec.msgpack.encode(Envelope(changed, body, signature))


def _not_canonical(c: Caught) -> bytes:
    """The same envelope with its fields in another order: same meaning, other bytes."""
    decoded = msgspec.msgpack.decode(c.raw)
    return msgspec.msgpack.encode({"signature": decoded["signature"], **decoded})


def _with_unknown_field(c: Caught) -> bytes:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(c.body)) | {"records": [[1, 2, 3]]}
    return _resigned(c, msgspec.msgpack.encode(fields))


def _too_long(c: Caught) -> bytes:
    body = msgspec.structs.replace(c.body, parameters=bytes(MAX_PARAMETERS_BYTES + 8))
    return c.forge(body)


BYTES = [
    Attack("a flipped bit in the signature", "bad-signature", _flipped_signature),
    Attack("a flipped bit in the sealed body", "bad-signature", _flipped_body),
    Attack("signed by another hub in the coordinator's name", "bad-signature", lambda c: c.forge(signer="south")),
    Attack("signed by a stranger in the coordinator's name", "bad-signature", lambda c: c.forge(signer="mallory")),
    Attack("an unknown sender", "not-in-roster", lambda c: c.forge(sender="mallory", signer="mallory")),
    Attack("another hub asks", "not-in-roster", lambda c: c.forge(sender="south", signer="south")),
    Attack("the hub's own name asks", "not-in-roster", lambda c: c.forge(sender="north", signer="north")),
    Attack("a researcher asks by herself", "not-in-roster", lambda c: c.forge(sender="ada", signer="ada")),
    Attack("an old roster", "stale", lambda c: c.with_header(roster_version=0)),
    Attack("a roster from the future", "stale", lambda c: c.forge(roster_version=2)),
    Attack("expired", "stale", lambda c: c.forge(now=NOW - MESSAGE_LIFETIME_S - MAX_CLOCK_SKEW_S - 1)),
    Attack("dated in the future", "stale", lambda c: c.forge(now=NOW + MAX_CLOCK_SKEW_S + 1)),
    Attack("a longer life than allowed", "stale", lambda c: c.forge(lifetime_s=MESSAGE_LIFETIME_S + 1)),
    Attack("for another recipient", "wrong-recipient", lambda c: c.with_header(recipient="south")),
    Attack("sealed for another hub", "malformed", lambda c: c.forge(seal_to=Party("south").sealing.public)),
    Attack("a sealed body under another header", "malformed", lambda c: c.with_header(round=7)),
    Attack("oversize", "too-large", lambda c: c.raw + bytes(MAX_ENVELOPE_BYTES)),
    Attack("an unknown version", "unknown-version", lambda c: c.with_header(version=2)),
    Attack("not an envelope", "malformed", lambda c: b"\xc1 GET / HTTP/1.1"),
    Attack("nothing", "malformed", lambda c: b""),
    Attack("cut off", "malformed", lambda c: c.raw[:-1]),
    Attack("something behind it", "malformed", lambda c: c.raw + b"\x00"),
    Attack("not canonical", "malformed", _not_canonical),
    Attack("an unknown field", "malformed", _with_unknown_field),
    Attack("another kind's body", "malformed", lambda c: _resigned(c, b"\x80")),
    Attack("an unknown kind", "malformed", lambda c: _resigned(c, b"\x80", kind="give-me-everything")),
    Attack("a hub's answer as a question", "malformed", lambda c: c.forge(Refused("refused", "No."))),
    Attack("a vector of parameters over its bound", "malformed", _too_long),
]


@pytest.mark.parametrize("attack", BYTES, ids=str)
def test_bytes_that_do_not_pass_are_refused_before_anything_is_read(own: Caught, attack: Attack) -> None:
    expect_refusal(own, attack.make(own), attack.code)


@pytest.mark.requirement("F-PIL-12")
def test_a_revoked_hubs_message_is_refused(own: Caught) -> None:
    """West was one of us; from the next roster version on its word is a stranger's."""
    own.set_roster(make_roster(HUBS, version=2, revoked=["west"]))
    refused = expect_refusal(own, own.forge(sender="west", signer="west", roster_version=2), "not-in-roster")
    assert "revoked" in refused.text


@pytest.mark.requirement("F-PIL-12")
def test_a_study_with_a_revoked_hub_is_not_answered_any_more(own: Caught) -> None:
    own.set_roster(make_roster(HUBS, version=2, revoked=["west"]))
    expect_refusal(own, own.forge(roster_version=2), "not-in-roster")


def test_a_message_under_the_roster_before_this_one_is_refused(own: Caught) -> None:
    own.set_roster(make_roster(HUBS, version=2))
    expect_refusal(own, own.raw, "stale")


def test_nothing_is_answered_when_nobody_confirmed_the_roster_for_a_day(own: Caught) -> None:
    own.fed.now = own.hub.parts.trust.roster.fresh_until
    assert own.fed.now <= NOW + FRESHNESS_LIFETIME_S
    expect_refusal(own, own.forge(now=own.fed.now), "roster-expired")


def test_nothing_is_answered_under_an_expired_roster(own: Caught) -> None:
    roster = own.hub.parts.trust.roster
    own.set_roster(
        type(roster)(msgspec.structs.replace(roster.content, expires=NOW), roster.threshold, roster.fresh_until)
    )
    expect_refusal(own, own.raw, "roster-expired")


def test_only_the_coordinator_hands_over_rosters(own: Caught) -> None:
    """Whatever is in it: a roster set out of another hub's hands is not even looked at."""
    body = RosterFiles({"1.root.json": b"{}"})
    expect_refusal(own, own.forge(body, sender="south", signer="south"), "not-in-roster")


# --- replays ------------------------------------------------------------------------------------------


def test_the_same_bytes_again_get_the_same_bytes_back_and_open_nothing(own: Caught) -> None:
    first = own.service.reply_to(own.raw)
    opened, charged = len(own.hub.source.opened), own.charged
    assert own.service.reply_to(own.raw) == first
    assert (len(own.hub.source.opened), own.charged) == (opened, charged)
    assert [line.envelope for line in own.lines(Resent)] == [envelope_digest(first or b"")]


def test_a_message_id_serves_once(own: Caught) -> None:
    """Other bytes under the id of a message that was answered: neither a new answer nor the old one."""
    own.service.reply_to(own.raw)
    other = msgspec.structs.replace(own.body, attempt=own.body.attempt + 1)
    expect_refusal(own, own.forge(other, rand=own.header.message_id), "replayed")


def test_the_same_bytes_without_a_stored_reply_are_refused(own: Caught) -> None:
    """A message that nothing is said to, twice: the second time it is a replay."""
    own.service.reply_to(own.raw)
    release = own.hub.parts.ledger.open()[0].release_id
    closing = own.forge(RoundClosed(release, "released", bytes(32)))
    assert own.service.reply_to(closing) is None
    expect_refusal(own, closing, "replayed")


@pytest.mark.parametrize("agreement", [PRIVATE_STUDY, EXACT_STUDY], ids=["own", "pooled"])
def test_a_question_to_one_hub_is_worth_nothing_at_another(quick: Path, agreement: Any) -> None:
    """South's own question, genuine in every byte, handed to north."""
    caught = catch(quick, agreement, VARIABLES, policy=OPEN_POLICY, hub="south")
    north = Caught(caught.fed, caught.fed.hubs["north"], caught.raw, caught.header, caught.body)
    expect_refusal(north, caught.raw, "wrong-recipient")


def test_an_answered_question_in_a_new_envelope_gets_the_same_answer_and_no_second_noise(own: Caught) -> None:
    """A new envelope around the very same question: the stored answer, not a new draw that could be averaged."""
    first, again = own.service.reply_to(own.raw), own.service.reply_to(own.forge())
    assert first is not None
    assert again is not None
    assert first != again
    assert own.opened_reply(first).body == own.opened_reply(again).body
    assert len(own.hub.source.opened) == 1


def test_a_masked_question_asked_again_in_a_new_round_without_a_new_ticket_is_refused(pooled: Caught) -> None:
    """The same tickets under another attempt would be a second vector under one mask. The refused question is
    charged (its reservation comes first), but nothing is read for it and nothing masked leaves."""
    assert isinstance(pooled.body, SecureQuestion)
    pooled.service.reply_to(pooled.raw)
    opened = len(pooled.hub.source.opened)
    asked = pooled.body
    named = step_digest(asked.agreement, asked.question, asked.step, 1, asked.parameters)
    start = msgspec.structs.replace(asked.start, round=asked.start.round + 1, question=named)
    again = msgspec.structs.replace(asked, attempt=1, start=start)
    reply = pooled.service.reply_to(pooled.forge(again))
    assert reply is not None
    body = pooled.opened_reply(reply).body
    assert isinstance(body, Refused)
    assert body.code == "replayed"
    check_text(body.text)
    assert len(pooled.hub.source.opened) == opened


@pytest.mark.parametrize("change", ["parameters", "attempt"])
def test_parameters_other_than_those_that_message_0_names_are_refused_before_they_are_charged(
    pooled: Caught, change: str
) -> None:
    assert isinstance(pooled.body, SecureQuestion)
    numbers = read_numbers(pooled.body.parameters) + 1
    other = {"parameters": write_numbers(numbers), "attempt": 7}[change]
    expect_refusal(pooled, pooled.forge(msgspec.structs.replace(pooled.body, **{change: other})), "equivocation")


# --- study and consent ------------------------------------------------------------------------------


def _changed(c: Caught, **fields: Any) -> bytes:
    return c.forge(msgspec.structs.replace(c.body, **fields))


WRONG = [
    Attack("another agreement", "wrong-study", lambda c: _changed(c, agreement=bytes(32))),
    Attack("a study nobody proposed", "wrong-study", lambda c: c.forge(study="other")),
    Attack("no study", "wrong-study", lambda c: c.forge(study="")),
    Attack("a question that was not agreed", "wrong-study", lambda c: _changed(c, question="incidence")),
    Attack("a step beyond the outline", "wrong-study", lambda c: _changed(c, step=1)),
    Attack("a step far beyond the outline", "wrong-study", lambda c: _changed(c, step=2**62)),
    Attack("another scope", "wrong-study", lambda c: _changed(c, question="model")),
    Attack("a parameter that is no number", "wrong-study", lambda c: _changed(c, parameters=NAN)),
    Attack("a part of a parameter", "malformed", lambda c: _changed(c, parameters=bytes(12))),
    Attack("a parameter without end", "wrong-study", lambda c: _changed(c, parameters=ENDLESS)),
]


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("attack", WRONG, ids=str)
def test_a_question_outside_the_agreement_is_refused(own: Caught, attack: Attack) -> None:
    expect_refusal(own, attack.make(own), attack.code)


def _as_pooled(c: Caught) -> bytes:
    """The own question asked as a masked one."""
    terms = GroupTerms("heart", c.body.agreement, bytes(32), 1, HUBS, 3, 1, 3, "echo", False)
    start = Start(terms, 1, bytes(32), 1, 64, (), ())
    return c.forge(SecureQuestion(c.body.agreement, c.body.question, 0, 0, b"", start))


def test_an_own_question_cannot_be_asked_under_masks(own: Caught) -> None:
    expect_refusal(own, _as_pooled(own), "wrong-study")


@pytest.mark.requirement("F-SRS-7")
def test_a_pooled_question_cannot_be_asked_of_one_hub_alone(pooled: Caught) -> None:
    """In an exact study this would be one hub's own sums without any noise."""
    alone = OwnQuestion(pooled.body.agreement, pooled.body.question, 0, 0, pooled.body.parameters)
    expect_refusal(pooled, pooled.forge(alone), "wrong-study")


PERIOD = [
    Attack("before the period", "no-consent", lambda c: _at(c, PRIVATE_STUDY.starts - MAX_CLOCK_SKEW_S - 1)),
    Attack("after the period", "no-consent", lambda c: _at(c, PRIVATE_STUDY.ends + 1)),
]


def _at(c: Caught, now: int) -> bytes:
    """The question at another time, under a roster that is fresh then."""
    c.fed.now = now
    roster = c.hub.parts.trust.roster
    content = msgspec.structs.replace(roster.content, expires=now + 10**7)
    c.set_roster(type(roster)(content, roster.threshold, now + 1000))
    return c.forge(now=now)


@pytest.mark.parametrize("attack", PERIOD, ids=str)
def test_a_question_outside_the_agreed_period_is_refused(own: Caught, attack: Attack) -> None:
    expect_refusal(own, attack.make(own), attack.code)


@pytest.mark.parametrize("decision", ["proposed", "denied", "withdrawn", "closed"])
def test_without_consent_nothing_is_answered(quick: Path, decision: str) -> None:
    fed = InProcessFederation(quick, marked_people(), VARIABLES, policy=OPEN_POLICY)
    fed.propose(PRIVATE_STUDY)
    hub, raw = fed.hubs["north"], write_agreement(PRIVATE_STUDY)
    if decision == "denied":
        hub.steward.decide("heart", grant=False, person="eva", reason="no")
    elif decision != "proposed":
        hub.steward.decide("heart", grant=True, person="eva")
    if decision == "withdrawn":
        hub.steward.withdraw("heart", person="eva")
    asked = OwnQuestion(agreement_digest(raw), "cohort", 0, 0, b"")
    caught = _of(fed, asked)
    if decision == "closed":
        closing = StudyClosed(agreement_digest(raw), "heart", "stopped", "")
        assert caught.service.reply_to(caught.forge(closing)) is None
    refused = expect_refusal(caught, caught.forge(), "no-consent")
    assert decision in refused.text
    expect_refusal(caught, caught.forge(TicketCall(agreement_digest(raw), 0, ())), "no-consent")
    assert hub.source.opened == []


def _of(fed: InProcessFederation, body: OwnQuestion) -> Caught:
    """A question that the coordinator never asked, as if it had."""
    _, raw = fed.desk.write(body, hub="north", study="heart")
    return Caught(fed, fed.hubs["north"], raw, open_at_hub(fed, "north", raw).header, body)


def test_an_exact_studys_look_for_the_floor_is_the_only_one_before_a_question(pooled: Caught) -> None:
    assert len(pooled.hub.source.opened) == 1
    assert [(look.question, look.release_id) for look in pooled.lines(RecordSourceOpened)] == [("floor", b"")]


# --- proposals ------------------------------------------------------------------------------------------


def _proposal(c: Caught, *, signer: str = "ada", **changed: Any) -> bytes:
    raw = write_agreement(msgspec.structs.replace(PRIVATE_STUDY, **changed))
    return c.forge(Proposal(raw, sign_agreement(raw, Party(signer).signing)))


PROPOSALS = [
    Attack("not signed by its researcher", "bad-signature", lambda c: _proposal(c, signer="coordinator", study="b1")),
    Attack("by nobody of the roster", "not-in-roster", lambda c: _proposal(c, researcher="eve", study="b2")),
    Attack("another agreement under a known name", "wrong-study", lambda c: _proposal(c, title="Other")),
    Attack("not an agreement", "malformed", lambda c: c.forge(Proposal(b"\x00", bytes(64)))),
    Attack(
        "hubs that nobody knows", "not-possible",
        lambda c: _proposal(
            c, study="b3", hubs=("elsewhere", "north", "south"),
            conditions=dict.fromkeys(("elsewhere", "north", "south"), PRIVATE_STUDY.conditions["north"]),
        ),
    ),
    Attack(
        "without this hub", "wrong-study",
        lambda c: _proposal(c, study="b4", hubs=("east", "south", "west")),
    ),
    Attack("all but one colluding", "not-possible", lambda c: _proposal(
        c, study="b5", plan=msgspec.structs.replace(PRIVATE_STUDY.plan, colluding=2))),
]  # fmt: skip


@pytest.mark.parametrize("attack", PROPOSALS, ids=str)
def test_a_proposal_that_no_steward_should_see_is_refused(own: Caught, attack: Attack) -> None:
    expect_refusal(own, attack.make(own), attack.code)
    assert [s.study for s in own.hub.parts.store.studies()] == ["heart"]


def test_a_proposal_by_a_person_of_another_role_is_refused(own: Caught) -> None:
    roster = own.hub.parts.trust.roster
    people = (Person("ada", Party("ada").signing.public, Role.STEWARD),)
    own.set_roster(
        type(roster)(msgspec.structs.replace(roster.content, people=people), roster.threshold, roster.fresh_until)
    )
    expect_refusal(own, _proposal(own, study="b6"), "not-allowed")
    expect_refusal(own, own.raw, "not-allowed")


# --- policy and code ------------------------------------------------------------------------------------


@pytest.mark.requirement("F-SRS-7")
def test_a_field_that_the_owner_hides_is_refused(own: Caught) -> None:
    own.set_policy(hidden=("sex",))
    assert "sex" in expect_refusal(own, own.raw, "field-hidden").text


def test_exact_results_without_the_owners_permission_are_refused(pooled: Caught) -> None:
    pooled.set_policy(exact_allowed=False)
    expect_refusal(pooled, pooled.raw, "exact-not-allowed")


def test_an_exact_study_with_a_count_under_the_floor_is_refused(quick: Path) -> None:
    caught = catch(
        quick, EXACT_STUDY, VARIABLES, policy=msgspec.structs.replace(OPEN_POLICY, floor=10_000), hub="north"
    )
    expect_refusal(caught, caught.raw, "under-floor")


def test_code_that_is_not_the_one_installed_here_is_refused(own: Caught, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flute.hub.rounds.gate.code_digest", lambda: bytes(32))
    expect_refusal(own, own.raw, "code-not-approved")


def test_code_that_hub_owners_did_not_approve_is_refused(own: Caught) -> None:
    own.set_roster(make_roster(HUBS, code=bytes([1]) * 32))
    expect_refusal(own, own.raw, "code-not-approved")


def test_code_that_the_roster_does_not_list_at_all_is_refused(own: Caught) -> None:
    roster = own.hub.parts.trust.roster
    own.set_roster(
        type(roster)(msgspec.structs.replace(roster.content, codes=()), roster.threshold, roster.fresh_until)
    )
    expect_refusal(own, own.raw, "code-not-approved")


# --- budget -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed", [{"epsilon": 0.05}, {"epsilon_all": 0.05}], ids=["the study's ceiling", "the dataset's ceiling"]
)
def test_a_question_over_the_owners_ceiling_is_refused(own: Caught, changed: dict[str, float]) -> None:
    own.set_policy(**changed)
    expect_refusal(own, own.raw, "budget-exceeded")


def test_exact_numbers_over_the_owners_cap_are_refused(pooled: Caught) -> None:
    pooled.set_policy(max_numbers=3)
    expect_refusal(pooled, pooled.raw, "budget-exceeded")


@pytest.mark.requirement("URS-2")
def test_a_question_repeated_until_the_agreed_budget_is_spent_is_then_refused(own: Caught) -> None:
    """Every attempt has fresh noise and is charged; the owner would allow more, the agreement does not."""
    answers = 0
    while True:
        raw = own.forge(msgspec.structs.replace(own.body, attempt=answers))
        before = len(own.hub.source.opened)
        reply = own.service.reply_to(raw)
        assert reply is not None
        if isinstance(own.opened_reply(reply).body, Refused):
            break
        answers += 1
        assert len(own.hub.source.opened) == before + 1
        assert answers < 10
    assert answers == 3  # its share of the budget is 0.3
    assert len(own.hub.source.opened) == answers
    again = own.forge(msgspec.structs.replace(own.body, attempt=answers + 1))
    expect_refusal(own, again, "budget-exceeded")
    account = own.hub.parts.ledger.account(Level.STUDY, "heart")
    from flute.study.protection import study_budget

    assert account.reserved + account.settled <= study_budget(PRIVATE_STUDY)[0]


def test_two_studies_share_the_datasets_ceiling(quick: Path) -> None:
    """Each study would fit by itself; together they are over what the owner allows for the dataset."""
    policy = msgspec.structs.replace(OPEN_POLICY, epsilon=3, epsilon_all=3)
    caught = catch(quick, PRIVATE_STUDY, VARIABLES, policy=policy)
    fed, second = caught.fed, msgspec.structs.replace(PRIVATE_STUDY, study="lung")
    for attempt in range(3):
        caught.service.reply_to(caught.forge(msgspec.structs.replace(caught.body, attempt=attempt)))
    raw = write_agreement(second)
    caught.service.reply_to(caught.forge(Proposal(raw, sign_agreement(raw, Party("ada").signing)), study="lung"))
    caught.hub.steward.decide("lung", grant=True, person="eva")
    asked = OwnQuestion(agreement_digest(raw), "cohort", 0, 0, caught.body.parameters)
    _, question = fed.desk.write(asked, hub="north", study="lung")
    refused = expect_refusal(caught, question, "budget-exceeded")
    assert "records" in refused.text


# --- out of order -----------------------------------------------------------------------------------------


def test_a_round_that_was_never_reserved_cannot_be_closed(own: Caught) -> None:
    expect_refusal(own, own.forge(RoundClosed(bytes(32), "released", bytes(32))), "wrong-study")


def test_every_refusal_is_in_the_journal_of_a_hub_that_was_attacked_all_day(own: Caught) -> None:
    """All byte attacks one after the other at the same hub: the genuine question is still answered after them."""
    for attack in BYTES:
        expect_refusal(own, attack.make(own), attack.code)
    assert len(own.refused_lines()) == len(BYTES)
    reply = own.service.reply_to(own.raw)
    assert reply is not None
    assert isinstance(own.opened_reply(reply).body, OwnTotal)
    assert len(own.hub.source.opened) == 1
    verify(own.hub.folder / "journal.db", own.hub.parts.signing.public)


def test_a_refusal_can_be_read_by_the_coordinator_alone(own: Caught) -> None:
    """It is sealed: who listens does not learn what a study may not do."""
    own.set_policy(hidden=("sex",))
    reply = own.service.reply_to(own.raw)
    assert reply is not None
    assert b"sex" not in reply
    assert b"field-hidden" not in reply
    body = own.opened_reply(reply).body
    assert kind_of(body) == "refused"
    assert read_body("refused", msgspec.msgpack.encode(body), {"refused": Refused}) == body
    assert len(parse_envelope(reply).header.message_id) == ID_SIZE
