"""Hubs that are away while a study runs: the sum of the others opens, charged as agreed, and said to be theirs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flute.coordinator import turns
from flute.coordinator.doors.results import study_release, summed_hubs
from flute.errors import Equivocation, NotPossible, StudyFileError
from flute.messages.answer import MaskedAnswer
from flute.messages.question import EchoesSaid, SecureQuestion, SurvivorsSaid, TicketCall
from flute.study.agreement import Agreement, PlanChoice
from flute.study.files.check import check_study
from flute.study.protection import prices
from support.inprocess import InProcessFederation
from support.studies import DESCRIBE, EXACT, MODEL, study, under_plan

HUBS = ("east", "north", "south", "upper", "west")
POOLED = DESCRIBE.replace("per_hub: true", "per_hub: false").replace("share: 0.3", "share: 0.5")


def people(hub: str, n: int) -> dict[str, list[object]]:
    rng = np.random.default_rng(list(hub.encode()))
    return {
        "age": [float(a) for a in rng.uniform(25, 95, n)],
        "pressure": [float(p) for p in rng.uniform(80, 200, n)],
        "sex": [int(s) for s in rng.integers(0, 2, n)],
        "grade": [str(g) for g in rng.choice(["low", "mid", "high"], n)],
        "ill": [int(i) for i in rng.integers(0, 2, n)],
    }


def five(dropouts: int, *, echo: bool = True, questions: str = POOLED) -> Agreement:
    base = study("budget: {epsilon: 3}", questions)
    conditions = dict.fromkeys(HUBS, next(iter(base.conditions.values())))
    plan = PlanChoice("secagg", 1, dropouts, echo)
    return under_plan(base, plan, hubs=HUBS, conditions=conditions)


@pytest.fixture
def fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessFederation:
    monkeypatch.setattr(turns, "STRAGGLER_S", 0.8)
    monkeypatch.setattr(turns, "STRAGGLER_AGAIN_S", 0.8)
    variables = [v.variable for v in five(1).variables]
    return InProcessFederation(tmp_path, {hub: people(hub, 300) for hub in HUBS}, variables)


def begun(fed: InProcessFederation, agreement: Agreement) -> None:
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner.run(agreement.study)


def deaf(fed: InProcessFederation, hub: str, kind: type) -> None:
    """From now on `hub` loses messages of this kind, as a hub that was killed on the way."""
    service, tag = fed.hubs[hub].service, str(kind.__struct_config__.tag)
    deal = service.deal

    def losing(delivery: object) -> None:
        if tag.encode() in delivery.body[:400]:  # type: ignore[attr-defined]
            fed.hubs[hub].parts.channel.done(delivery)  # type: ignore[arg-type]
        else:
            deal(delivery)  # type: ignore[arg-type]

    service.deal = losing  # type: ignore[method-assign]


def finish(fed: InProcessFederation, agreement: Agreement) -> dict[str, object]:
    """Let the clock tick until the study ends."""
    for _ in range(200):
        fed.settle()
        time.sleep(0.03)
        fed.runner.tick_all()
        row = fed.rounds.study(agreement.study)
        assert row is not None
        if row.state in ("finished", "stopped"):
            break
    assert row.state == "finished", row.why
    return msgspec.to_builtins(study_release(fed.rounds, row))  # type: ignore[no-any-return]


def counted(release: dict) -> float:
    age = release["results"]["cohort"]["variables"]["age"]
    return float(age["n"]["value"])


@pytest.mark.parametrize("kind", [TicketCall, SecureQuestion])
def test_a_hub_that_is_away_is_left_out_of_the_sum(fed: InProcessFederation, kind: type) -> None:
    agreement = five(1)
    begun(fed, agreement)
    deaf(fed, "south", kind)
    release = finish(fed, agreement)
    (receipt,) = release["receipts"]
    assert list(receipt["hubs"]) == ["east", "north", "upper", "west"]
    assert abs(counted(release) - 1200) < 150  # four hubs of 300, and noise


@pytest.mark.parametrize("kind", [SurvivorsSaid, EchoesSaid])
def test_a_hub_that_dies_after_its_vector_left_is_in_the_sum(fed: InProcessFederation, kind: type) -> None:
    agreement = five(0)
    begun(fed, agreement)
    deaf(fed, "south", kind)
    release = finish(fed, agreement)
    assert list(release["receipts"][0]["hubs"]) == list(HUBS)
    assert abs(counted(release) - 1500) < 150


def test_without_the_echo_a_round_takes_two_messages(fed: InProcessFederation) -> None:
    agreement = five(1, echo=False)
    begun(fed, agreement)
    deaf(fed, "south", SecureQuestion)
    release = finish(fed, agreement)
    assert list(release["receipts"][0]["hubs"]) == ["east", "north", "upper", "west"]
    (r,) = [r for r in fed.rounds.rounds(agreement.study) if r.state == "opened"]
    assert {kind for _, kind in fed.rounds.exchanged(r.id, outgoing=True)} == {
        "ticket-call", "secure-question", "survivors-said"
    }  # fmt: skip


def test_more_hubs_away_than_agreed_fail_the_round(fed: InProcessFederation) -> None:
    agreement = five(1)
    begun(fed, agreement)
    fed.runner = type(fed.runner)(fed.rounds, fed.desk, timeout_s=2.0)
    for hub in ("south", "west"):
        deaf(fed, hub, SecureQuestion)
    for _ in range(60):
        fed.settle()
        time.sleep(0.05)
        fed.runner.tick_all()
    first = fed.rounds.rounds(agreement.study)[0]
    assert first.state == "failed"
    assert "south, west" in first.why


def test_a_late_vector_is_told_that_nothing_came_of_it(fed: InProcessFederation) -> None:
    """Its charge stands; its reservation is settled as aborted, and it takes part in the next round."""
    agreement = five(1)
    fed.propose(agreement)
    fed.consent(agreement.study)
    late = fed.hubs.pop("south")
    fed.runner.run(agreement.study)
    fed.settle()
    fed.hubs["south"] = late  # gives its ticket too late for this round
    finish(fed, agreement)
    fed.settle()
    assert late.parts.ledger.open() == ()


def test_every_hub_charges_for_the_fewest_survivors_whoever_answers(fed: InProcessFederation) -> None:
    """m = survivors_min - colluding: five hubs, one away, one colluding leave three shares of noise."""
    plan, tolerant = prices(five(0), five(0).questions[0])[0], prices(five(1), five(1).questions[0])[0]
    assert plan.mechanism is not None
    assert tolerant.mechanism is not None
    assert (plan.mechanism.shares, tolerant.mechanism.shares) == (4, 3)
    assert tolerant.rho == pytest.approx(plan.rho, rel=1e-6)  # the same budget buys a coarser answer
    relative = [p.mechanism.total_sigma / p.mechanism.scale for p in (plan, tolerant)]  # type: ignore[union-attr]
    assert relative[1] / relative[0] == pytest.approx(math.sqrt(4 / 3), rel=1e-2)
    agreement = five(1)
    begun(fed, agreement)
    deaf(fed, "south", SecureQuestion)
    finish(fed, agreement)
    for hub in ("east", "north", "upper", "west"):
        account = fed.hubs[hub].parts.ledger.standing(agreement.study)
        assert account.settled == pytest.approx(tolerant.rho)


@pytest.mark.parametrize(
    ("plan", "mode", "says"),
    [
        (PlanChoice("secagg", 1, 2), "private", "at most 1 may be missing"),
        (PlanChoice("secagg", 3, 1), "private", "at most 0 may be missing"),
        (PlanChoice("secagg", 1, 1), "exact", "dropouts: 0"),
        (PlanChoice("secagg", 1, 1, echo=False), "private", ""),
    ],
)
def test_dropouts_that_cannot_be_covered_are_refused_with_what_to_write(
    plan: PlanChoice, mode: str, says: str
) -> None:
    base = study(EXACT, MODEL) if mode == "exact" else five(0)
    conditions = dict.fromkeys(HUBS, next(iter(base.conditions.values())))
    agreement = under_plan(base, plan, hubs=HUBS, conditions=conditions)
    if not says:
        check_study(agreement)
        return
    with pytest.raises(StudyFileError, match=says):
        check_study(agreement)


def test_the_summed_hubs_are_the_survivors_that_were_told(fed: InProcessFederation) -> None:
    agreement = five(1)
    begun(fed, agreement)
    deaf(fed, "west", SecureQuestion)
    finish(fed, agreement)
    (r,) = [r for r in fed.rounds.rounds(agreement.study) if r.state == "opened"]
    assert summed_hubs(fed.rounds, r) == ("east", "north", "south", "upper")


def test_a_hub_with_more_patients_than_agreed_cannot_consent(fed: InProcessFederation) -> None:
    agreement = msgspec.structs.replace(five(0), max_patients=299)
    fed.propose(agreement)
    with pytest.raises(NotPossible, match=r"has 300 patients.*allows a hub 299"):
        fed.hubs["north"].steward.decide(agreement.study, grant=True, person="eva")
    assert fed.hubs["north"].source.opened == []


def test_a_hub_that_answers_with_anothers_vector_is_not_counted(fed: InProcessFederation) -> None:
    """The vector is signed and for this round, but it is not the sender's: it would be summed twice."""
    agreement = five(0)
    begun(fed, agreement)
    deaf(fed, "west", SurvivorsSaid)
    fed.settle()
    (r,) = fed.rounds.rounds(agreement.study)
    answer = msgspec.msgpack.decode(fed.rounds.answer(r.id, "north", "masked-answer"), type=MaskedAnswer)
    checks = fed.runner._exchange.check_answer
    checks(r, "north", answer)
    with pytest.raises(Equivocation, match="south answered with a vector of north"):
        checks(r, "south", answer)
