"""Records, pictures and values out of what a study opens: read without error in clear, a guess under the plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flute.attacks import inference, inversion
from flute.attacks.chance import Chance
from flute.attacks.figures import dp_success
from flute.attacks.records import simulated
from flute.attacks.releases import longest_asks, protected, unprotected
from flute.dp.calibrate import mechanism_for
from flute.study.protection import RAND_SIZE
from support.attack_pictures import pictures
from support.attack_studies import DESCRIBE, hardly_noised, mixed, subject, trial, wide

pytestmark = [pytest.mark.requirement("URS-6"), pytest.mark.requirement("URS-8")]


@pytest.mark.parametrize("question", ["model", "describe"])
def test_a_record_is_read_off_a_hubs_update_in_clear_and_not_under_the_plan(question: str) -> None:
    attacked = trial(mixed(1.0) if question == "model" else mixed(1.0, DESCRIBE), f"records {question}")
    found = inversion.reconstruction(attacked)
    assert found.bound is not None
    assert found.unprotected.value == 1.0
    assert found.protected.high <= found.bound < 0.7


def test_control_a_build_with_hardly_any_noise_gives_the_record_away() -> None:
    found = inversion.reconstruction(hardly_noised(trial(mixed(1.0), "records model")))
    assert found.protected.low > 0.75


def test_an_exact_sum_over_a_patient_who_is_alone_in_it_is_her_record() -> None:
    """A hub's disclosure floor is there for that; nothing else is."""
    found = inversion.reconstruction(trial(mixed(None), "exact records", 0.3))
    assert found.protected.value == 1.0
    assert found.bound is None


def test_a_value_of_a_known_patient_is_found_in_clear_and_hardly_under_the_plan() -> None:
    attacked = trial(mixed(1.0), "attribute", 0.3)
    found = inference.attribute(attacked)
    assert found.unprotected.value == 1.0
    assert found.protected.high <= dp_success(0.5, 1.0, 1e-6)
    broken = inference.attribute(hardly_noised(attacked))
    assert broken.protected.low > dp_success(0.5, 1.0, 1e-6)


def test_a_value_shows_in_the_margin_that_an_ordinary_model_gives_its_members_and_not_in_the_released_one() -> None:
    found = inference.attribute_of_a_model(trial(mixed(1.0), "margins", 0.5))
    assert found.unprotected.low > 0.6
    assert found.protected.high <= dp_success(0.5, 1.0, 1e-6)


def test_a_hubs_make_up_shows_in_clear_and_under_the_plan_no_more_than_in_the_sum_of_honest_hubs() -> None:
    found = inference.property_share(trial(mixed(1.0), "property", 0.8))
    assert found.unprotected.low > 0.9
    assert found.bound == 0.75, "two honest hubs of three: half of the time both are of one kind"
    assert found.protected.high <= 0.79, "95 % interval of 80 hubs; .75 itself would reach .84"


def test_control_a_hub_asked_alone_with_hardly_any_noise_shows_its_make_up() -> None:
    """The two things that hide it are the other honest hubs and the noise: both are taken away."""
    attacked = hardly_noised(trial(mixed(1.0), "property", 0.4))
    alone = replace(attacked, subject=replace(attacked.subject, honest=attacked.subject.hubs[:1]))
    assert inference.property_share(alone).protected.low > 0.79


# --- pictures ------------------------------------------------------------------------------------------


def test_a_picture_of_64_pixels_is_read_off_a_models_gradient_in_clear_and_is_noise_under_the_plan() -> None:
    """Pixels are a study's variables here, so all of it is the real road: PSNR above 60 dB, and below 9 dB."""
    attacked = subject(wide(64, 1.0))
    asks, names, chance = longest_asks(attacked)[:2], attacked.model.predictors, Chance(b"pictures")
    levels = []
    for shown in pictures(5, 8, seed=3):
        fixed = {name: np.array([pixel]) for name, pixel in zip(names, shown.ravel(), strict=True)}
        patient = simulated(attacked.setting, attacked.fields, 1, chance, fixed)
        there = dict.fromkeys(attacked.hubs, patient.where(np.zeros(1, dtype=bool))) | {"north": patient}
        found = [
            inversion.record(attacked.model, attacked.setting, list(carried.steps))
            for carried in (
                unprotected(attacked, there, asks=asks, steps=2),
                protected(attacked, there, chance, asks=asks, steps=2),
            )
        ]
        levels.append([inversion.psnr(np.array([f[n] for n in names]), shown.ravel()) for f in found])
    clear, covered = np.array(levels).T
    assert clear.min() > 60
    assert covered.max() < 9


def test_pictures_of_a_softmax_layer_are_read_in_clear_and_are_noise_after_clip_and_noise() -> None:
    """28 x 28 pixels, ten classes, a batch of one and a batch of five; the hub's own clip and noise at epsilon 1."""
    shown, labels = pictures(5, 28, seed=4).reshape(5, -1), np.array([0, 2, 3, 7, 9])
    nothing = np.zeros((10, 784)), np.zeros(10)
    mechanism = mechanism_for(rho=0.0175, clip_norm=1.0, size=7_850, hubs=3, survivors_min=3, colluding=1)
    for picture, label in zip(shown[:2], labels[:2], strict=True):
        one = inversion.layer_gradient(*nothing, picture[None], label[None])
        assert inversion.psnr(inversion.picture(one), picture) > 60
        row = np.concatenate([one.weights.ravel(), one.bias])[None]
        noised = mechanism.contribution(row, rand=Chance(b"softmax").bytes(RAND_SIZE)) / mechanism.scale
        covered = inversion.LayerGradient(noised[:7_840].reshape(10, 784), noised[7_840:])
        assert inversion.psnr(inversion.picture(covered), picture) < 9
    several = inversion.layer_gradient(*nothing, shown, labels)
    found = inversion.pictures_of_batch(several, labels)
    assert min(inversion.psnr(f, s) for f, s in zip(found, shown, strict=True)) > 60


def test_records_of_a_small_batch_are_read_off_the_gradients_of_several_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three patients, six numbers each, eight rounds in clear: the largest error is a thousandth of a deviation."""
    rng = np.random.default_rng(7)
    x = np.column_stack([np.ones(3), rng.standard_normal((3, 6))])
    y = np.array([1.0, 0.0, 1.0])
    asked = rng.standard_normal((8, 7))
    gradients = np.array([(y - 1 / (1 + np.exp(-x @ b))) @ x for b in asked])
    found, outcomes = inversion.rows_from_rounds(gradients, asked, 3, Chance(b"rounds"))
    order = inversion.matched(np.column_stack([found, outcomes]), np.column_stack([x, y]))
    assert np.abs(order[:, :-1] - x).max() < 1e-3
    assert (np.round(order[:, -1]) == y).all()
    noised = gradients + 3.0 * rng.standard_normal(gradients.shape)
    monkeypatch.setattr(inversion, "_STARTS", 3)
    wrong, _ = inversion.rows_from_rounds(noised, asked, 3, Chance(b"rounds"))
    assert np.abs(inversion.matched(wrong, x) - x).max() > 0.5, "control: noise of three bounds leaves nothing"
