"""Studies that follow one a steward has read: as many as the word allows, alike in all that matters, journaled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flute.algorithms.contract import StudyVariable
from flute.errors import NoConsent, NotPossible
from flute.hub.decisions.standing import Standing
from flute.hub.store import HubPolicy
from flute.ledger.lines.entries import ConsentFollowed
from flute.study.agreement import Agreement
from flute.study.alike import differences
from support.inprocess import InProcessFederation
from support.studies import DESCRIBE, study

FIRST = study("budget: {epsilon: 1}", DESCRIBE)
DAY = 86_400


def people(seed: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {
        "age": chance.uniform(30, 90, 50), "pressure": chance.uniform(80, 200, 50),
        "sex": chance.integers(0, 2, 50).astype(float), "grade": chance.integers(0, 3, 50).astype(float),
        "ill": chance.integers(0, 2, 50).astype(float),
    }  # fmt: skip


@pytest.fixture
def fed(tmp_path: Path) -> InProcessFederation:
    return InProcessFederation(
        tmp_path, {hub: people(k) for k, hub in enumerate(FIRST.hubs)}, [v.variable for v in FIRST.variables],
        policy=HubPolicy(epsilon=3, epsilon_all=6),
    )  # fmt: skip


def named(name: str, **changed: object) -> Agreement:
    return msgspec.structs.replace(FIRST, study=name, title=f"Question {name}", **changed)


def states(fed: InProcessFederation, study: str) -> set[str]:
    return {hub.parts.store.study(study).state for hub in fed.hubs.values()}


def let_follow(fed: InProcessFederation, epsilon: float) -> None:
    fed.propose(FIRST)
    for hub in fed.hubs.values():
        hub.steward.decide(FIRST.study, grant=True, person="eva", alike=epsilon)
    fed.settle()


def test_a_study_alike_is_granted_unread_runs_and_is_journaled(fed: InProcessFederation) -> None:
    let_follow(fed, 2.5)
    fed.propose(named("heart-2"))
    assert states(fed, "heart-2") == {"granted"}
    fed.runner.run("heart-2")
    fed.settle()
    row = fed.rounds.study("heart-2")
    assert row is not None
    assert row.state == "finished"
    for hub in fed.hubs.values():
        lines = [line.entry for line in hub.parts.journal.lines(kinds=("consent-followed",))]
        assert [(e.study, e.alike, e.person) for e in lines if isinstance(e, ConsentFollowed)] == [
            ("heart-2", "heart", "eva")
        ]


def test_without_that_word_the_steward_has_to_read_it(fed: InProcessFederation) -> None:
    fed.propose(FIRST)
    fed.consent(FIRST.study)
    fed.propose(named("heart-2"))
    assert states(fed, "heart-2") == {"proposed"}


def test_their_budgets_together_stay_under_what_was_said(fed: InProcessFederation) -> None:
    """rho adds up: epsilon 2 at delta 1e-6 holds that of epsilon 1 three times and a bit."""
    let_follow(fed, 2.0)
    following = [f"heart-{k}" for k in range(2, 9)]
    for name in following:
        fed.propose(named(name))
    granted = [name for name in following if states(fed, name) == {"granted"}]
    assert granted == following[: len(granted)]
    assert 1 <= len(granted) < len(following)
    assert states(fed, following[-1]) == {"proposed"}
    hub = fed.hubs["north"]
    (stands,) = hub.service.consents.standing.standing()
    assert sum(stands.granted.values()) <= stands.rho
    assert len(stands.granted) == len(granted) + 1
    fed.propose(named("small", epsilon=0.05))  # what is left serves a smaller one
    assert states(fed, "small") == {"granted"}


def test_a_restarted_hub_remembers_what_was_said_and_what_followed(fed: InProcessFederation) -> None:
    let_follow(fed, 2.0)
    fed.propose(named("heart-2"))
    before = fed.hubs["north"].service.consents.standing.standing()
    after = fed.restart_hub("north").service.consents.standing.standing()
    assert after == before
    assert set(after[0].granted) == {"heart", "heart-2"}


def wider(used: StudyVariable) -> StudyVariable:
    return msgspec.structs.replace(
        used, variable=msgspec.structs.replace(used.variable, high=used.variable.high + 10)
    )


CHANGES: dict[str, Callable[[Agreement], Agreement]] = {
    "purpose": lambda a: msgspec.structs.replace(a, purpose="Something else."),
    "plan": lambda a: msgspec.structs.replace(a, plan=msgspec.structs.replace(a.plan, echo=False)),
    "later": lambda a: msgspec.structs.replace(a, ends=a.ends + DAY),
    "earlier": lambda a: msgspec.structs.replace(a, starts=a.starts - DAY),
    "delta": lambda a: msgspec.structs.replace(a, delta=1e-5),
    "dataset": lambda a: msgspec.structs.replace(a, dataset="others"),
    "code": lambda a: msgspec.structs.replace(a, code=bytes(32)),
    "researcher": lambda a: msgspec.structs.replace(a, researcher="bob"),
    "real": lambda a: msgspec.structs.replace(a, simulated=False),
    "patients": lambda a: msgspec.structs.replace(a, max_patients=a.max_patients + 1),
    "hubs": lambda a: msgspec.structs.replace(a, hubs=a.hubs[:2]),
    "ground": lambda a: msgspec.structs.replace(
        a, conditions={h: msgspec.structs.replace(c, legal_basis="another") for h, c in a.conditions.items()}
    ),
    "exact": lambda a: msgspec.structs.replace(a, mode="exact", max_numbers=9, epsilon=0.0, delta=0.0),
    "fields": lambda a: study(
        "budget: {epsilon: 1}", DESCRIBE.replace("[age, sex, grade]", "[age, sex, grade, pressure]")
    ),
    "range": lambda a: msgspec.structs.replace(a, variables=(wider(a.variables[0]), *a.variables[1:])),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_an_officer_decides_about_has_to_be_the_same(change: Callable[[Agreement], Agreement]) -> None:
    assert differences(named("heart-2"), FIRST) == ()
    assert differences(change(FIRST), FIRST) != ()


def test_a_study_that_differs_waits_for_the_steward(fed: InProcessFederation) -> None:
    let_follow(fed, 2.0)
    fed.propose(named("heart-2", purpose="Something else."))
    assert states(fed, "heart-2") == {"proposed"}


@pytest.mark.parametrize("how", ["withdrawn", "ended", "expired"])
def test_the_word_ends(fed: InProcessFederation, how: str) -> None:
    let_follow(fed, 2.0)
    for hub in fed.hubs.values():
        if how == "withdrawn":
            hub.steward.withdraw(FIRST.study, person="eva")
        elif how == "ended":
            hub.steward.end_following(FIRST.study, person="eva")
    if how == "expired":
        standing: Standing = fed.hubs["north"].service.consents.standing
        assert standing.of(named("heart-2"), FIRST.ends) is not None
        assert standing.of(named("heart-2"), FIRST.ends + 1) is None
        return
    fed.propose(named("heart-2"))
    assert states(fed, "heart-2") == {"proposed"}
    with pytest.raises(NoConsent, match="nothing to end"):
        fed.hubs["north"].steward.end_following(FIRST.study, person="eva")


@pytest.mark.parametrize("epsilon", [0.5, 6.5])
def test_less_than_the_study_or_more_than_the_hub_allows_cannot_be_said(
    fed: InProcessFederation, epsilon: float
) -> None:
    fed.propose(FIRST)
    with pytest.raises(NotPossible, match="an epsilon in between"):
        fed.hubs["north"].steward.decide(FIRST.study, grant=True, person="eva", alike=epsilon)
    assert fed.hubs["north"].parts.store.study(FIRST.study).state == "proposed"


def test_an_exact_study_lets_nothing_follow(fed: InProcessFederation) -> None:
    exact = study()
    fed.propose(exact)
    with pytest.raises(NotPossible, match="each exact study"):
        fed.hubs["north"].steward.decide(exact.study, grant=True, person="eva", alike=2.0)


def test_it_can_be_said_of_a_granted_study_and_anew_with_another_epsilon(fed: InProcessFederation) -> None:
    let_follow(fed, 1.2)
    fed.propose(named("heart-2"))
    assert states(fed, "heart-2") == {"proposed"}
    for hub in fed.hubs.values():
        hub.steward.decide(FIRST.study, grant=True, person="eva", alike=3.0)
    fed.propose(named("heart-3"))
    assert states(fed, "heart-3") == {"granted"}
