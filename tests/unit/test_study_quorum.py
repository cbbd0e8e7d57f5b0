"""Studies that go on without a hub: one that denies, does not decide, withdraws, refuses or falls silent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flute.coordinator import turns
from flute.coordinator.doors.results import study_release, study_status
from flute.coordinator.runs import Runner
from flute.errors import NoConsent, StudyFileError, TooFewHubs, WrongStudy
from flute.messages.question import SecureQuestion, TicketCall
from flute.questions.code import code_digest
from flute.study.agreement import Agreement, PlanChoice, agreement_digest, read_agreement, write_agreement
from flute.study.files.check import check_study
from flute.study.files.file import read_study_file
from flute.study.plans.quorum import among
from flute.study.plans.sides import group_terms
from flute.study.protection import prices, sharers
from support.inprocess import InProcessFederation, make_roster
from support.studies import DESCRIBE, EXACT, MODEL, study, study_text, under_plan

HUBS = ("north", "south", "west")
FOUR = ("east", *HUBS)
POOLED = DESCRIBE.replace("per_hub: true", "per_hub: false").replace("share: 0.3", "share: 0.3")
TWICE = POOLED + POOLED.replace("cohort:", "again:")
HOUR = 3600


def people(hub: str, n: int) -> dict[str, list[object]]:
    rng = np.random.default_rng(list(hub.encode()))
    return {
        "age": [float(a) for a in rng.uniform(25, 95, n)],
        "pressure": [float(p) for p in rng.uniform(80, 200, n)],
        "sex": [int(s) for s in rng.integers(0, 2, n)],
        "grade": [str(g) for g in rng.choice(["low", "mid", "high"], n)],
        "ill": [int(i) for i in rng.integers(0, 2, n)],
    }


def agreed(hubs: tuple[str, ...] = HUBS, least: int = 2, *, questions: str = POOLED, **changes: Any) -> Agreement:
    """A private study of `hubs` that goes on with `least` of them."""
    base = study("budget: {epsilon: 3}", questions)
    conditions = dict.fromkeys(hubs, next(iter(base.conditions.values())))
    plan = changes.pop("plan", PlanChoice("secagg", 1, len(hubs) - least))
    return under_plan(base, plan, hubs=hubs, conditions=conditions, **({"hubs_min": least} | changes))


def exact(least: int, hubs: tuple[str, ...] = FOUR, **changes: Any) -> Agreement:
    base = study(EXACT, TWICE.replace("    share: 0.3\n", ""))
    conditions = dict.fromkeys(hubs, next(iter(base.conditions.values())))
    return under_plan(base, PlanChoice("secagg", 1, 0), hubs=hubs, conditions=conditions, hubs_min=least, **changes)


def federation(folder: Path, hubs: tuple[str, ...]) -> InProcessFederation:
    variables = [v.variable for v in agreed().variables]
    return InProcessFederation(folder, {hub: people(hub, 300) for hub in hubs}, variables)


@pytest.fixture
def fed(tmp_path: Path) -> InProcessFederation:
    return federation(tmp_path, HUBS)


@pytest.fixture
def four(tmp_path: Path) -> InProcessFederation:
    return federation(tmp_path, FOUR)


def decide(fed: InProcessFederation, name: str, grant: str = "", deny: str = "") -> None:
    for hub in grant.split():
        fed.hubs[hub].steward.decide(name, grant=True, person="eva")
    for hub in deny.split():
        fed.hubs[hub].steward.decide(name, grant=False, person="eva")
    fed.settle()


def state(fed: InProcessFederation, name: str = "heart") -> str:
    row = fed.rounds.study(name)
    assert row is not None
    return row.state


def ended(fed: InProcessFederation, name: str = "heart", *, seconds: float = 12.0) -> dict[str, Any]:
    """The release, once the clock has ticked until the study ended."""
    deadline = time.monotonic() + seconds
    while state(fed, name) not in ("finished", "stopped") and time.monotonic() < deadline:
        fed.settle()
        fed.runner.tick_all()
        time.sleep(0.02)
    fed.settle()
    row = fed.rounds.study(name)
    assert row is not None
    assert row.state == "finished", row.why
    return msgspec.to_builtins(study_release(fed.rounds, row))  # type: ignore[no-any-return]


def counted(release: dict[str, Any], question: str = "cohort") -> float:
    return float(release["results"][question]["variables"]["age"]["n"]["value"])


def sets(release: dict[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(receipt["hubs"]) for receipt in release["receipts"]]


# --- who takes part --------------------------------------------------------------------------------


@pytest.mark.requirement("F-SRS-9")
def test_one_of_three_hubs_denies_and_the_study_is_carried_out_by_two(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    decide(fed, "heart", grant="north west", deny="south")
    assert state(fed) == "ready"
    fed.runner.run("heart")
    release = ended(fed)
    assert sets(release) == [("north", "west")]
    assert release["missing"] == {"south": "did not consent"}
    assert abs(counted(release) - 600) < 100  # two hubs of 300 and noise: 300 and 900 are far off
    row = fed.rounds.study("heart")
    assert row is not None
    assert study_status(fed.rounds, row)["missing"] == {"south": "did not consent"}


def test_without_hubs_min_one_hub_that_denies_still_stops_the_study(fed: InProcessFederation) -> None:
    agreement = under_plan(study("budget: {epsilon: 3}", POOLED), PlanChoice())
    fed.propose(agreement)
    decide(fed, "heart", grant="north west", deny="south")
    assert state(fed) == "stopped"


def test_more_denials_than_agreed_stop_the_study(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    decide(fed, "heart", grant="north", deny="south")
    assert state(fed) == "consenting"
    decide(fed, "heart", deny="west")
    row = fed.rounds.study("heart")
    assert row is not None
    assert (row.state, row.why) == ("stopped", "west did not consent")


def test_a_study_waits_for_a_hub_that_has_not_decided_until_the_agreed_day(fed: InProcessFederation) -> None:
    fed.propose(agreed(decide_by=fed.now + HOUR))
    decide(fed, "heart", grant="north west")
    assert state(fed) == "consenting"
    with pytest.raises(WrongStudy, match="waiting for consent of south"):
        fed.runner.run("heart")
    fed.now += HOUR + 1
    fed.runner.tick("heart")
    assert state(fed) == "ready"


def test_without_a_day_it_waits_for_every_decision(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    decide(fed, "heart", grant="north west")
    fed.now += 3 * HOUR
    fed.runner.tick("heart")
    assert state(fed) == "consenting"
    decide(fed, "heart", grant="south")
    fed.runner.run("heart")
    release = ended(fed)
    assert (sets(release), release["missing"]) == ([HUBS], {})


def test_a_hub_that_decides_too_late_is_told_and_does_not_join(fed: InProcessFederation) -> None:
    fed.propose(agreed(decide_by=fed.now + HOUR))
    decide(fed, "heart", grant="north west")
    fed.now += HOUR + 1
    fed.hubs["south"].steward.decide("heart", grant=True, person="eva")  # on its way when the set is settled
    fed.runner.tick("heart")
    fed.settle()
    assert fed.hubs["south"].parts.store.study("heart").state == "closed"
    fed.runner.run("heart")
    release = ended(fed)
    assert sets(release) == [("north", "west")]
    assert release["missing"] == {"south": "had not decided when the study began"}


def test_questions_of_each_hub_skip_the_missing_one(fed: InProcessFederation) -> None:
    fed.propose(agreed(questions=DESCRIBE))
    decide(fed, "heart", grant="north west", deny="south")
    fed.runner.run("heart")
    release = ended(fed)
    assert sorted(release["results"]) == ["cohort@north", "cohort@west"]
    assert release["missing"] == {"south": "did not consent"}


# --- while it runs ----------------------------------------------------------------------------------


def begun(fed: InProcessFederation, agreement: Agreement) -> None:
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner.run(agreement.study)


def until_opened(fed: InProcessFederation, rounds: int) -> None:
    """Deliver messages one by one until so many rounds are opened."""
    for _ in range(10_000):
        if sum(r.state == "opened" for r in fed.rounds.rounds("heart")) >= rounds:
            return
        for hub in fed.hubs.values():
            if (delivery := hub.parts.channel.receive(0)) is not None:
                hub.service.deal(delivery)
        if (delivery := fed.channel.receive(0)) is not None:
            fed.runner.receive(delivery.body)
            fed.channel.done(delivery)
    raise AssertionError("nothing opened")


@pytest.mark.requirement("F-SRS-9")
def test_a_withdrawal_between_two_questions_leaves_the_study_to_the_other_two(fed: InProcessFederation) -> None:
    begun(fed, agreed(questions=TWICE))
    until_opened(fed, 1)
    fed.hubs["south"].steward.withdraw("heart", person="eva")
    release = ended(fed)
    assert sets(release) == [HUBS, ("north", "west")]
    assert release["missing"] == {"south": "withdrew its consent"}
    assert abs(counted(release, "cohort") - 900) < 120  # what was opened stays
    assert abs(counted(release, "again") - 600) < 120


def test_two_withdrawals_of_three_stop_the_study(fed: InProcessFederation) -> None:
    begun(fed, agreed(questions=TWICE))
    until_opened(fed, 1)
    for hub in ("south", "west"):
        fed.hubs[hub].steward.withdraw("heart", person="eva")
    fed.settle()
    assert state(fed) == "stopped"


def test_a_hub_that_falls_silent_is_left_out_after_one_round(fed: InProcessFederation) -> None:
    begun(fed, agreed(questions=TWICE))
    until_opened(fed, 1)
    gone = fed.hubs.pop("south")
    fed.runner = Runner(fed.rounds, fed.desk, timeout_s=0.6)
    release = ended(fed)
    assert sets(release) == [HUBS, ("north", "west")]
    assert release["missing"] == {"south": "did not answer"}
    fed.hubs["south"] = gone  # it comes back, learns that it is left out, and nothing opens with it
    fed.settle()
    assert gone.parts.store.study("heart").state == "closed"


def test_a_hub_that_refuses_a_question_is_left_out(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    fed.consent("heart")
    south = fed.hubs["south"].parts.store
    south.put_policy(msgspec.structs.replace(south.policy(), hidden=("age",)))
    fed.runner.run("heart")
    release = ended(fed)
    assert sets(release) == [("north", "west")]
    assert release["missing"] == {"south": "refused a question"}


def test_four_hubs_lose_one_within_a_round_and_another_for_good(
    four: InProcessFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropouts within a round and hubs that leave the study add up to no smaller sum than was agreed."""
    monkeypatch.setattr(turns, "STRAGGLER_S", 0.3)
    begun(four, agreed(FOUR, 2, questions=TWICE.replace("0.3", "0.2")))
    until_opened(four, 1)
    four.hubs["east"].steward.withdraw("heart", person="eva")
    four.hubs["south"].steward.withdraw("heart", person="eva")
    release = ended(four)
    assert sets(release)[0] == FOUR
    assert sets(release)[-1] == ("north", "west")
    assert all(len(hubs) >= 2 for hubs in sets(release))


def test_a_hub_that_was_restarted_goes_on_with_the_smaller_set(fed: InProcessFederation) -> None:
    begun(fed, agreed(questions=TWICE))
    until_opened(fed, 1)
    fed.hubs["south"].steward.withdraw("heart", person="eva")
    fed.restart_hub("west")
    assert sets(ended(fed)) == [HUBS, ("north", "west")]


# --- exact studies ----------------------------------------------------------------------------------


def test_an_exact_study_is_carried_out_by_three_of_four(four: InProcessFederation) -> None:
    four.propose(exact(3))
    decide(four, "heart", grant="east north west", deny="south")
    four.runner.run("heart")
    release = ended(four)
    assert set(sets(release)) == {("east", "north", "west")}
    assert release["missing"] == {"south": "did not consent"}


def test_an_exact_study_that_began_loses_no_hub(four: InProcessFederation) -> None:
    """Two exact sums that differ by one hub would reveal it."""
    begun(four, exact(3))
    until_opened(four, 1)
    four.hubs["south"].steward.withdraw("heart", person="eva")
    four.settle()
    row = four.rounds.study("heart")
    assert row is not None
    assert (row.state, row.why) == ("stopped", "south withdrew its consent")


# --- what is agreed ---------------------------------------------------------------------------------


def test_the_noise_is_scaled_for_the_fewest_hubs_whoever_takes_part() -> None:
    """Each of three hubs adds 1.41 times what it adds where all of them answer: m is 1 instead of 2."""
    whole = under_plan(study("budget: {epsilon: 3}", POOLED), PlanChoice())
    alone, shared = (prices(a, a.questions[0])[0].mechanism for a in (agreed(), whole))
    assert alone is not None
    assert shared is not None
    assert (sharers(agreed()), alone.shares, shared.shares) == (1, 1, 2)
    assert alone.hub_sigma / alone.scale / (shared.hub_sigma / shared.scale) == pytest.approx(2**0.5, rel=0.01)


@pytest.mark.parametrize(
    ("hubs", "terms"),
    [(HUBS, (3, 3)), (("north", "west"), (2, 2))],
)
def test_terms_follow_from_who_takes_part(hubs: tuple[str, ...], terms: tuple[int, int]) -> None:
    made = group_terms(among(agreed(), hubs), bytes(32), make_roster(HUBS))
    assert (made.hubs, made.threshold, made.survivors_min) == (hubs, *terms)
    with pytest.raises(TooFewHubs, match="at least 2 of its hubs; north, south would be missing"):
        among(agreed(), ("west",))


def test_an_agreement_without_hubs_min_keeps_its_bytes_and_digest() -> None:
    """Agreements that were signed before these elements existed are read as they were."""
    agreement = under_plan(study("budget: {epsilon: 3}", POOLED), PlanChoice())
    raw = write_agreement(agreement)
    assert b"hubs_min" not in raw
    assert b"decide_by" not in raw
    assert read_agreement(raw) == agreement
    assert agreement_digest(write_agreement(agreed())) != agreement_digest(raw)


SAID = "hubs: [north, south, west]\nhubs_min: 2\nplan: {dropouts: 1}\n"


def test_a_study_file_says_how_many_hubs_are_enough_and_until_when_they_decide() -> None:
    text = study_text("budget: {epsilon: 3}", POOLED).replace("hubs: [north, south, west]\n", SAID)
    agreement, _ = read_study_file(text + "decide_by: 2027-03-01\n", path="s.yaml", code=code_digest())
    check_study(agreement)
    assert (agreement.least, agreement.decide_by) == (2, 1_803_945_599)  # the last second of that day, UTC


@pytest.mark.parametrize(
    ("agreement", "says"),
    [
        (agreed(least=2, plan=PlanChoice("secagg", 1, 0)), r"write 'plan: \{dropouts: 1\}'"),
        (agreed(FOUR, 2, plan=PlanChoice("secagg", 2, 2)), "Write a number from 3 to 4"),
        (agreed(hubs_min=4), "Write a number from 2 to 3"),
        (exact(2), "Write a number from 3 to 4"),
        (agreed(plan=PlanChoice("secagg", 1, 1, echo=False)), "'echo: false' a study is carried out by all"),
        (agreed(decide_by=1_893_456_000), "decide_by is later"),
        (
            msgspec.structs.replace(agreed(hubs_min=msgspec.UNSET, plan=PlanChoice()), decide_by=1),
            "as well, or leave",
        ),
    ],
)
def test_what_cannot_be_carried_out_by_fewer_hubs_is_refused_with_what_to_write(
    agreement: Agreement, says: str
) -> None:
    with pytest.raises(StudyFileError, match=says):
        check_study(under_plan(agreement, agreement.plan))


@pytest.mark.parametrize("plan", ["mpc", "threshold-he"])
def test_plans_that_need_every_hub_say_so(plan: str) -> None:
    agreement = under_plan(agreed(), PlanChoice(plan, 1, 0))
    with pytest.raises(StudyFileError, match=f"With plan {plan} a study is carried out by all of its hubs"):
        check_study(agreement)


def test_models_of_each_hub_cannot_be_scored_where_some_may_not_be_made() -> None:
    own = MODEL.replace("  model:", "  own:") + "    per_hub: true\n    share: 0.4\n"
    scored = "  comparison: {algorithm: evaluate, models: [own], bins: 16, share: 0.3}\n"
    with pytest.raises(StudyFileError, match="'own' is one model of each hub"):
        check_study(agreed(questions=own + scored))


def test_a_hub_that_takes_no_part_reads_and_pays_nothing(fed: InProcessFederation) -> None:
    fed.propose(agreed())
    decide(fed, "heart", grant="north west", deny="south")
    fed.runner.run("heart")
    ended(fed)
    paid = {hub: fed.hubs[hub].parts.ledger.standing("heart").settled > 0 for hub in HUBS}
    assert paid == {"north": True, "south": False, "west": True}
    assert fed.hubs["south"].source.opened == []


def test_messages_name_the_set(fed: InProcessFederation) -> None:
    begun(fed, agreed())
    ended(fed)
    (r,) = fed.rounds.rounds("heart")
    sent = fed.rounds.messages(r.id, "secure-question", outgoing=True)
    terms = [msgspec.msgpack.decode(m.body, type=SecureQuestion).start.terms.hubs for m in sent]
    calls = [
        msgspec.msgpack.decode(m.body, type=TicketCall).keys
        for m in fed.rounds.messages(r.id, "ticket-call", outgoing=True)
    ]
    assert terms == [HUBS] * 3
    assert [tuple(k.hub for k in keys) for keys in calls] == [HUBS] * 3


# --- and back again ------------------------------------------------------------------------------------


@pytest.mark.requirement("F-SRS-9")
def test_a_hub_that_left_one_study_takes_part_in_the_next_and_not_again_in_the_first(
    fed: InProcessFederation,
) -> None:
    """A run of a notebook is an agreement of its own, so its next question asks every hub again."""
    fed.propose(agreed(questions=TWICE))
    decide(fed, "heart", grant="north south west")
    fed.hubs["south"].steward.withdraw("heart", person="eva")
    fed.settle()
    with pytest.raises(NoConsent):  # within an agreement a hub that left stays away
        fed.hubs["south"].steward.decide("heart", grant=True, person="eva")
    fed.runner.run("heart")
    assert set(sets(ended(fed))) == {("north", "west")}
    fed.propose(msgspec.structs.replace(agreed(), study="heart-2"))
    decide(fed, "heart-2", grant="north south west")
    fed.runner.run("heart-2")
    release = ended(fed, "heart-2")
    assert sets(release) == [HUBS]
    assert release["missing"] == {}
    assert abs(counted(release) - 900) < 100
