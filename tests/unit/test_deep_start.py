"""Initial weights follow from the public seed, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from flute.deep.layers import Conv, Dense, Layers, Norm
from flute.deep.sizes import sized
from flute.deep.start import start_weights

LAYERS: Layers = (Conv(4), Norm(2), Dense(300))
PARAMETERS = sized(LAYERS, 0, (1, 8, 8)).parameters
FALSE_ALARM = 1e-6
PINNED = [0.3597392141819, -0.03613317757844925, 0.40513136982917786]
"""Two weights and a bias."""


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    assert np.array_equal(start_weights(PARAMETERS, 7), start_weights(PARAMETERS, 7))
    assert not np.array_equal(start_weights(PARAMETERS, 7), start_weights(PARAMETERS, 8))


def test_the_weights_of_seed_0_are_what_they_were() -> None:
    """Hubs and coordinator of other versions must mean the same by a seed."""
    found = start_weights(sized((), 2, ()).parameters, 0)
    assert found.tolist() == pytest.approx(PINNED, abs=0)


def test_one_layer_more_does_not_change_where_the_others_start() -> None:
    longer = sized((*LAYERS, Dense(5)), 0, (1, 8, 8)).parameters
    shared = sum(p.size for p in PARAMETERS[:6])
    assert np.array_equal(start_weights(PARAMETERS, 1)[:shared], start_weights(longer, 1)[:shared])


def test_weights_are_numbers_of_32_bits() -> None:
    found = start_weights(PARAMETERS, 3)
    assert np.array_equal(found, found.astype(np.float32).astype(np.float64))


def test_norms_start_at_one_and_zero_and_the_rest_is_uniform_within_its_bound() -> None:
    found, at = start_weights(PARAMETERS, 11), 0
    for parameter in PARAMETERS:
        part = found[at : at + parameter.size]
        at += parameter.size
        if not parameter.bound:
            assert np.all(part == parameter.centre)
            continue
        assert np.abs(part).max() <= np.float32(parameter.bound)
        if parameter.size > 10_000:
            assert kstest(part / parameter.bound, "uniform", (-1, 2)).pvalue > FALSE_ALARM
            assert kstest(0.95 * part / parameter.bound, "uniform", (-1, 2)).pvalue < FALSE_ALARM
