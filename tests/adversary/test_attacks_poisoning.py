"""One hub of five, with a fifth of the data, bends the result: what per-patient clipping holds back, and what not.

Masked sums promise nothing against lies (the cells of row D do not hold), so tests here also pin down where an attack
WINS under the plan: a change that makes one of them lose should change the table that people read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adversary.secagg_rounds import Federation, group
from flute.algorithms.contract import Finished, Opened
from flute.attacks import poisoning
from flute.attacks.chance import Chance
from flute.attacks.records import replaced, simulated, together
from flute.attacks.releases import exact_sum
from flute.data.dataset import Dataset
from flute.errors import BadTotal
from flute.questions.registry import algorithm_for
from flute.study.protection import RAND_SIZE, cover
from flute.study.threats import guarantees
from support.attack_studies import FIVE, ROBUST, mixed, subject, trial

pytestmark = pytest.mark.requirement("NF-SRS-5")

EFFORT = 0.7
"""Eight pairs of honest and poisoned studies, five hubs of 200 patients."""


def five(most: int = 1_000_000) -> poisoning.Trial:
    return trial(mixed(3.0, hubs=FIVE, most=most), "poison", EFFORT)


def test_flipped_outcomes_cost_hardly_any_ranking_in_clear_and_under_the_plan() -> None:
    """A fifth turned over weakens every coefficient alike; the order of patients stays."""
    found = poisoning.flipped(five())
    assert found.unprotected.high < 0.05
    assert found.protected.high < 0.05


def test_pushing_a_hundred_times_as_hard_wins_in_clear_and_is_bounded_where_the_service_clips() -> None:
    found = poisoning.scaled(five())
    assert found.unprotected.low > 0.1
    assert found.protected.high < 0.02


@pytest.mark.control("private D")
def test_a_hub_that_cheats_after_its_own_service_wins_under_masks_and_is_not_named() -> None:
    """The weak place of masked sums. No party sees its answer, so nobody can be blamed: no error is raised at all."""
    found = poisoning.scaled_by_a_hub(five())
    assert found.protected.low > 0.1
    assert found.details["stopped"][1].value == 0
    attacked = five().subject
    assert not any(cell.holds for cell in guarantees("private", attacked.agreement.plan) if "data" in cell.parties)


def test_a_study_that_says_how_many_patients_there_are_stops_that_hub_without_naming_it() -> None:
    """max_patients 250 where every hub has 200: the opened total is more than five such hubs can add up to."""
    found = poisoning.scaled_by_a_hub(five(most=250))
    assert found.details["stopped"][1].value == 1
    assert found.protected.value == 0


def test_an_impossible_total_names_nobody() -> None:
    attacked = five(most=250).subject
    with pytest.raises(BadTotal) as caught:
        poisoning.protected(
            attacked,
            {hub: simulated(attacked.setting, attacked.fields, 200, Chance(hub.encode())) for hub in attacked.hubs},
            Chance(b"named"), steps=1, times={"west": 100},
        )  # fmt: skip
    assert not any(hub in str(caught.value) for hub in attacked.hubs)


@pytest.mark.parametrize(("most", "stopped"), [(1_000_000, False), (250, True)])
def test_the_real_protocol_opens_that_hubs_push_unless_the_study_says_how_many_patients_there_are(
    most: int, stopped: bool
) -> None:
    """Masks, echo, shares and the collector's own check of the total; 200 patients at each of five hubs."""
    attacked, chance = five(most=most).subject, Chance(b"pushed")
    price = attacked.steps[0]
    federation = Federation(group(5, 1), seed="pushed")
    cohorts = [simulated(attacked.setting, attacked.fields, 200, chance) for _ in federation.terms.hubs]
    values = {
        name: cover(attacked.rows(0, (), cohort), price, hubs=5, rand=chance.bytes(RAND_SIZE))
        for name, cohort in zip(federation.terms.hubs, cohorts, strict=True)
    }
    honest = sum(values.values())
    values["hub-e"] = 100 * values["hub-e"]
    starts = federation.starts(price.shape.size)
    masked = federation.masked(starts, values)  # at no bound but its own: that hub runs what it likes
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    if stopped:
        with pytest.raises(BadTotal) as caught:
            federation.total(starts, told, masked, shares, price.bounds)
        assert "hub-" not in str(caught.value)
        return
    opened = federation.total(starts, told, masked, shares, price.bounds).total
    assert np.array_equal(opened - honest, 99 * (values["hub-e"] // 100))


@pytest.mark.control("private D")
def test_a_backdoor_works_in_clear_and_under_the_plan() -> None:
    """Clipping bounds every patient, and a hub that plants records has as many as it says."""
    found = poisoning.backdoor(five())
    assert found.unprotected.low > 0.5
    assert found.protected.low > 0.5


def test_a_free_rider_is_not_noticed_and_does_no_harm() -> None:
    found = poisoning.free_riding(five())
    assert abs(found.protected.value) < 0.05
    assert found.details["stopped"][1].value == 0


# --- robust means -------------------------------------------------------------------------------------


def means(data: Dataset, influence: float) -> tuple[float, float]:
    """(robust, plain) mean age of one exact release."""
    attacked = subject(mixed(None, ROBUST + f"    influence: {influence}\n"))
    total = exact_sum(attacked.rows(0, (), data))
    reached = algorithm_for(attacked.question.what).next(
        attacked.question.what, attacked.setting, [Opened((), total, 0.0)], {}
    )
    assert isinstance(reached, Finished)
    said = reached.result["variables"]["age"]
    return said["mean"], said["plain"]["value"]


def cohort(bad: int) -> Dataset:
    """500 patients of 60 years or so, of whom `bad` say that they are a hundred."""
    setting, chance = subject(mixed(None, ROBUST)).setting, Chance(b"means")
    ages = np.clip(60 + 4 * chance.normal(500), 20, 100)
    return simulated(setting, ["age"], 500, chance, {"age": np.where(np.arange(500) < bad, 100.0, ages)})


def test_few_false_records_drag_a_plain_mean_and_not_a_robust_one() -> None:
    """Five of 500: fewer than half of eleven groups."""
    clean, few = means(cohort(0), 1.0), means(cohort(5), 1.0)
    assert few[1] - clean[1] > 0.35
    assert abs(few[0] - clean[0]) < 0.25


@pytest.mark.control("exact D")
def test_a_fifth_of_false_records_drags_the_robust_mean_too_and_bounded_influence_halves_it() -> None:
    """A hub that lies has records in every group."""
    clean, many = means(cohort(0), 1.0), means(cohort(100), 1.0)
    assert many[0] - clean[0] > 5
    bounded = means(cohort(100), 0.25)[0] - means(cohort(0), 0.25)[0]
    assert bounded < 0.5 * (many[0] - clean[0])


# --- the poisons do what they say ------------------------------------------------------------------------


def test_poisons_change_what_they_should() -> None:
    attacked = five()
    setting, spec = attacked.subject.setting, attacked.model()
    data = attacked.patients(40, Chance(b"p"))
    assert (poisoning.with_flips(data, setting, "ill").column("ill") == 1 - data.column("ill")).all()
    wild = poisoning.with_scale(data, setting, "ill")
    assert (wild.column("age") == 100 * data.column("age")).all()
    trigger = poisoning.trigger_for(spec, setting, np.array([0.1, 1.0, 1.0, 1.0]))
    assert trigger == poisoning.Trigger("age", 20.0), "the number that counts least, at its healthy end"
    planted = poisoning.with_backdoor(data, setting, "ill", trigger)
    assert (planted.column("age") == 20).all()
    assert (planted.column("ill") == 1).all()
    assert (planted.column("sex") == data.column("sex")).all()


def test_a_model_is_judged_on_ranking_and_trigger() -> None:
    attacked = five()
    setting, spec = attacked.subject.setting, attacked.model()
    data = replaced(attacked.patients(200, Chance(b"w")), setting, {})
    older = replaced(data, setting, {"ill": (data.column("age") > 60).astype(float)})
    by_age = {"raw_coefficients": [-60.0, 1.0, 0.0, 0.0, 0.0, 0.0]}
    old, young = poisoning.Trigger("age", 100.0), poisoning.Trigger("age", 20.0)
    assert poisoning.worth(spec, setting, by_age, older, old) == poisoning.Worth(1.0, 1.0)
    assert poisoning.worth(spec, setting, by_age, older, young).backdoor == 0.0
    assert len(together([data.where(np.zeros(200, dtype=bool)), older], setting)) == 200
    assert replace(attacked, effort=1.0).times(12, 4) == 12
