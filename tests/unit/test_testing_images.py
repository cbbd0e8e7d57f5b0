"""The conformance suite draws images as well, ordinary and hostile ones, and sees what is planted around them."""

from __future__ import annotations

import numpy as np
import pytest

from flute.attacks.chance import Chance
from flute.testing import NotConforming, check_algorithm
from flute.testing.course import turned
from flute.testing.example import joined, mixed, patients, pictures, repeated, taken
from unit.faulty_image_algorithms import EXAMPLE, FAULTY, PICTURE, BrightnessAlgorithm, registration

pytestmark = pytest.mark.requirement("NF-HUF-2")


def test_a_sound_algorithm_over_images_passes() -> None:
    check_algorithm(registration(BrightnessAlgorithm), EXAMPLE)


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_around_images_fails_by_its_own_check(fault: str) -> None:
    algorithm, check = FAULTY[fault]
    with pytest.raises(NotConforming) as seen:
        check_algorithm(registration(algorithm), EXAMPLE)
    assert seen.value.check == check


def test_ordinary_images_are_within_their_range_and_each_is_another() -> None:
    data = patients(EXAMPLE, 200, Chance(b"drawn"))
    images, there = data.images("picture"), data.column("picture") == 1
    assert 0 < (~there).sum() < 40
    assert not images[~there].any()
    assert images.min() >= 0
    assert images.max() <= 16
    assert len(np.unique(images[there].reshape(there.sum(), -1), axis=0)) == there.sum()
    assert data.images("other").shape == (200, 2, 3, 3, 3)


def test_extreme_images_are_as_declared_and_hostile_ones_are_not() -> None:
    allowed = mixed(EXAMPLE, 300, Chance(b"extreme"), hostile=False)
    there = allowed.column("picture")
    assert set(there[~np.isnan(there)]) == {1.0}
    assert np.isnan(there).any()
    assert set(np.unique(allowed.images("picture"))) == {0, 8, 16}
    strangers = mixed(EXAMPLE, 300, Chance(b"hostile"), hostile=True)
    assert len({str(image) for _, image in pictures(PICTURE.variable)}) > 10
    found = strangers.images("picture")
    assert np.isnan(found).any()
    assert np.isinf(found).any()
    missing = np.isnan(strangers.column("picture"))
    assert found[missing].any()  # an image that its column knows nothing of


def test_images_stay_with_their_patients() -> None:
    data = patients(EXAMPLE, 20, Chance(b"kept"))
    where = {name: k for k, name in enumerate(data.pseudonyms.tolist())}
    others = patients(EXAMPLE, 3, Chance(b"others"))
    for moved in (turned(data, EXAMPLE), taken(EXAMPLE, data, np.array([3, 1])), joined(EXAMPLE, data, others, 7)):
        for place, name in enumerate(moved.pseudonyms.tolist()):
            if name in where:
                assert np.array_equal(moved.images("picture")[place], data.images("picture")[where[name]])
    twice = repeated(EXAMPLE, data, 2, Chance(b"twice"))
    assert np.array_equal(twice.images("other")[20:], data.images("other"))
    assert len(set(twice.pseudonyms.tolist())) == 40
