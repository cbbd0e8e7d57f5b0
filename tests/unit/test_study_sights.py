"""Against whom a study protects how much, as it is told before anybody consents."""

from __future__ import annotations

import pytest

from flute.dp.events import Onlooker
from flute.study.agreement import Agreement
from flute.study.cautions import cautions
from flute.study.files.check import check_study
from flute.study.protection import sights
from support.studies import DESCRIBE, EXACT, MODEL, private_model, study


def told(agreement: Agreement) -> dict[str, float]:
    return {s.who: s.epsilon for s in sights(agreement, check_study(agreement).prices)}


@pytest.mark.parametrize("epsilon", [1, 3])
def test_nobody_permitted_sees_more_than_the_agreed_epsilon(epsilon: int) -> None:
    agreement = study(f"budget: {{epsilon: {epsilon}}}", private_model(1.0))
    seen = told(agreement)
    assert seen[Onlooker.CHARGED] <= epsilon
    assert seen[Onlooker.CHARGED] > 0.85 * epsilon  # the filter's price is a little larger, and no more
    assert seen[Onlooker.OUTSIDER] < seen[Onlooker.ONE_HUB] <= seen[Onlooker.CHARGED] < seen[Onlooker.BEYOND]


def test_it_is_said_as_odds_with_their_chance() -> None:
    agreement = study("budget: {epsilon: 1}", private_model(1.0))
    for sight in sights(agreement, check_study(agreement).prices):
        assert "factor of" in sight.says
        assert "1 in 1,000,000" in sight.says
        assert "%" not in sight.says


def test_answers_of_one_hub_alone_are_the_same_to_everybody() -> None:
    agreement = study("budget: {epsilon: 1}", DESCRIBE.replace("share: 0.3", "share: 1"))
    assert len({round(epsilon, 9) for epsilon in told(agreement).values()}) == 1


def test_an_exact_study_has_no_epsilon_to_tell() -> None:
    agreement = study(EXACT, MODEL)
    assert told(agreement) == {}


def test_three_hubs_are_told_what_two_can_do() -> None:
    said = " ".join(cautions(study("budget: {epsilon: 1}", private_model(1.0))))
    assert "only the noise" in said
    assert "can stop a round" in said
    exact = " ".join(cautions(study(EXACT, MODEL)))
    assert "exact sum of the other two" in exact
