"""Networks: a patient's picture and her membership, out of plain federated averaging and out of a plan at epsilon 1.

Comparisons are of whole 95 % intervals with the bound, as in test_attacks_membership.py; pictures are compared with a
guess that looks at nothing. Controls: what is sent in clear gives both away, and so does a build whose hubs add a few
thousandths of the noise they charge for.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from flute.attacks import inversion, membership, networks, updates
from flute.attacks.chance import Chance
from flute.attacks.figures import dp_advantage
from flute.attacks.records import simulated
from flute.attacks.releases import protected
from flute.attacks.trial import Trial
from support.attack_networks import cnn, digit_images, digits
from support.attack_studies import hardly_noised, trial

pytestmark = [
    pytest.mark.requirement("URS-6"),
    pytest.mark.requirement("URS-7"),
    pytest.mark.requirement("URS-8"),
    pytest.mark.skipif(find_spec("torch") is None, reason="needs torch: pip install 'flute[deep]'"),
]

BOUND = dp_advantage(1.0, 1e-6)
PICTURES, MODELS = 2, 16


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tensors here are tiny: more threads take longer."""
    import torch

    torch.set_num_threads(1)


def levels(attacked: Trial) -> tuple[list[float], list[float]]:
    """PSNR of some digits, in clear and under the attacked plan, each patient alone in the sums."""
    from flute.attacks import network_inversion

    found: tuple[list[float], list[float]] = [], []
    for k, shown in enumerate(digit_images(PICTURES, seed=3)[0]):
        chance = Chance(b"picture %d" % k)
        patient = simulated(attacked.subject.setting, ("scan", "ill"), 1, chance, {"scan": shown[None]})
        for kept, (who, carried) in zip(found, network_inversion.seen_alone(attacked, patient, chance), strict=True):
            image = network_inversion.inverted(who, carried.steps, chance).image
            kept.append(inversion.psnr((image + 1) / 2, shown / 16))
    return found


def blank() -> float:
    """Mean PSNR of the mean of other digits."""
    middle = digit_images(1000, seed=99)[0].mean(axis=0) / 16
    return float(np.mean([inversion.psnr(middle, shown / 16) for shown in digit_images(PICTURES, seed=3)[0]]))


def test_a_picture_is_found_in_the_update_of_a_hub_with_one_patient_and_not_under_the_plan() -> None:
    clear, covered = levels(trial(cnn(1.0), "pictures"))
    assert np.median(clear) > 25
    assert np.mean(covered) < blank()


def test_control_a_build_with_hardly_any_noise_gives_the_picture_away() -> None:
    """The first step of a private network opens a coarse mean picture; without noise that is hers."""
    _, covered = levels(hardly_noised(trial(cnn(1.0), "pictures"), 1e-4))
    assert np.median(covered) > 25


def test_an_exact_sum_over_a_patient_who_is_alone_in_it_is_her_picture() -> None:
    """A hub's disclosure floor is there for that; secure aggregation hides her only among others."""
    clear, covered = levels(trial(cnn(None), "pictures"))
    assert np.median(clear) > 25
    assert np.median(covered) > 25


def test_among_many_patients_of_honest_hubs_no_picture_is_nearer_than_their_mean() -> None:
    from flute.attacks import network_inversion

    attacked = trial(cnn(None, "{rounds: 1, batch: 256}"), "crowd")
    there = {hub: digits(attacked, 100, seed) for seed, hub in enumerate(attacked.subject.hubs)}
    seen = protected(attacked.subject, there, Chance(b"crowd"), steps=1).steps
    found = network_inversion.inverted(attacked.subject, seen, Chance(b"crowd")).image
    pictures = np.concatenate([data.images("scan") for data in there.values()]) / 16
    middle = pictures.mean(axis=0)
    assert max(inversion.psnr((found + 1) / 2, one) for one in pictures) < max(
        inversion.psnr(middle, one) for one in pictures
    )


def test_shadow_models_tell_members_of_an_overfitted_network_and_not_of_the_released_one() -> None:
    attacked = trial(cnn(1.0), "members")
    played = networks.networks_played(attacked, attacked.patients(32, Chance(b"members")), MODELS)
    found = membership.found_of(attacked, *played)
    assert found.unprotected.low >= 0.5
    assert found.bound is not None
    assert found.protected.high <= found.bound <= BOUND
    assert found.details["AUC"][0].low > 0.75
    assert found.details["AUC"][1].high < 0.65


def test_her_rows_show_in_a_networks_steps_in_clear_and_not_under_the_plan() -> None:
    found = updates.difference(trial(cnn(1.0), "rows", 3.0))
    assert found.unprotected.low > 0.6
    assert found.protected.high <= BOUND


def test_control_her_rows_show_in_a_build_with_hardly_any_noise() -> None:
    assert updates.difference(hardly_noised(trial(cnn(1.0), "rows", 2.0))).protected.low > BOUND
