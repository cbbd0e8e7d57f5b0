"""One hub of five, with a fifth of the patients, poisons: a robust model holds where a pooled fit, or a mean, bends.

Row 11 of the poisoning goals: a loss of AUC of at most .01. Controls: the pooled fit falls to false records, the mean
of the same votes to false votes, and the median itself to a majority.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from typing import Any

import numpy as np
import pytest

from flute.algorithms.design import design_for, matrix, raw_scaling
from flute.attacks.figures import auc
from flute.models.robust.median import middle
from flute.mpc.party import Party
from support.mpc_parties import compute
from support.robust_attacks import MOST, POISONS, Bent, Scene, against_the_others, bent

pytestmark = [pytest.mark.requirement("NF-SRS-5"), pytest.mark.requirement("F-SRS-4")]

PAIRS = 8
GOAL = 0.01


@cache
def found(name: str, differ: float = 0.0) -> Bent:
    return bent(Scene(differ=differ), POISONS[name], PAIRS)


@pytest.mark.defence("exact D")
@pytest.mark.parametrize("name", sorted(POISONS))
def test_one_hub_of_five_cannot_drag_a_robust_model(name: str) -> None:
    """The upper end of a 95 % interval over eight pairs of honest and poisoned fits: .004 and 3 % at most."""
    under = found(name)
    assert under.robust_loss.high <= GOAL
    assert under.robust_trigger.high < 0.06


@pytest.mark.control("exact D")
@pytest.mark.parametrize("name", ["backdoor", "backdoor in half"])
def test_a_backdoor_wins_against_a_pooled_fit(name: str) -> None:
    under = found(name)
    assert under.pooled_loss.low > GOAL
    assert under.pooled_trigger.low > 0.5


@pytest.mark.control("exact D")
@pytest.mark.parametrize("name", ["its vote x100, turned round", "a vote against all others'"])
def test_a_false_vote_wins_against_the_mean_of_the_votes(name: str) -> None:
    assert found(name).mean_loss.low > 0.1


def test_two_cheats_of_five_are_held_too_and_three_are_not() -> None:
    """Fewer than half: the claim ends where its sentence does."""
    scene = Scene()
    lost: dict[int, list[float]] = {2: [], 3: []}
    for number in range(6):
        honest, clean, _ = scene.cohorts(number)
        ill = clean.column("ill") == 1
        for liars, kept in lost.items():
            before, after = scene.robust(honest), scene.robust(honest, against_the_others, liars=liars)
            kept.append(_auc(scene, before, clean, ill) - _auc(scene, after, clean, ill))
    assert max(lost[2]) < 0.02
    assert min(lost[3]) > 0.2


def test_hubs_whose_effects_differ_by_a_third_lose_little_more() -> None:
    under = found("a vote against all others'", differ=0.3)
    assert under.robust_loss.high <= 0.02
    assert under.efficiency.value <= 0.01


def test_on_shares_every_number_that_opens_lies_between_honest_ones_whatever_two_of_five_put_in() -> None:
    rng = np.random.default_rng(8)
    honest = rng.integers(-5_000, 5_000, (3, 6))
    worst = np.array([[MOST] * 6, [-MOST, MOST] * 3])

    def program(party: Party) -> Generator[Any, Any, Any]:
        mine = honest[party.me - 1] if party.me <= 3 else worst[party.me - 4]
        return (yield from middle(party, mine, votes=True, bits=17, least=3))

    run = compute(program, 5)
    assert not run.errors
    for count, twice in run.results.values():
        assert count == 5
        assert (2 * honest.min(axis=0) <= twice).all()
        assert (twice <= 2 * honest.max(axis=0)).all()


def _auc(scene: Scene, model: dict[str, Any], clean: Any, ill: Any) -> float:
    design = design_for(scene.model.predictors, scene.setting)
    return auc(matrix(design, raw_scaling(design), clean) @ np.array(model["raw_coefficients"]), ill)
