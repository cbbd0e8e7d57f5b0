"""Every value has its own frequency, no shape of the same scale passes, and no two draws are related.

Every test says how often it would fail by chance (ALPHA = 1e-6 per verdict) and shows a noise that it rejects.
Scale, bins, moments and tails at every sigma: test_dp_noise_million.py. Seeds are fixed, so a result repeats.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.statistics.noise_laws import frequencies_fit, seed, uncorrelated

from flute.dp.noise import discrete_gaussian


@pytest.mark.parametrize("sigma", [0.5, 0.75, 1.0, 3.0, 8.0])
def test_frequencies_are_those_of_the_exact_probabilities(sigma: float) -> None:
    assert frequencies_fit(discrete_gaussian(sigma, 1_000_000, seed(3)), sigma)


@pytest.mark.parametrize("sigma", [0.5, 0.75, 1.0])
def test_a_rounded_continuous_gaussian_is_rejected(sigma: float) -> None:
    rounded = np.rint(np.random.default_rng(1).normal(scale=sigma, size=1_000_000)).astype(np.int64)
    assert not frequencies_fit(rounded, sigma)


@pytest.mark.parametrize("sigma", [3.0, 8.0])
def test_shapes_of_the_same_scale_are_rejected(sigma: float) -> None:
    rng = np.random.default_rng(2)
    walk = rng.binomial(round(4 * sigma**2), 0.5, size=1_000_000) - round(2 * sigma**2)
    laplace = np.rint(rng.laplace(scale=sigma / math.sqrt(2), size=200_000)).astype(np.int64)
    holed = discrete_gaussian(sigma, 200_000, seed(4)) // 2 * 2
    assert not frequencies_fit(laplace, sigma)
    assert not frequencies_fit(holed, sigma)
    assert sigma > 3 or not frequencies_fit(walk, sigma), "a random walk of 36 steps"


@pytest.mark.parametrize("sigma", [1000.0, 2500.0])
def test_large_noise_has_no_holes_or_bumps_where_the_lazy_levels_meet(sigma: float) -> None:
    """At sigma 1000 one draw in 12 needs a second look. 4 million draws, every value a cell."""
    draws = np.concatenate([discrete_gaussian(sigma, 2_000_000, seed(i)) for i in (5, 6)])
    assert frequencies_fit(draws, sigma)
    moved = np.where(np.arange(draws.size) % 100 == 0, draws // 64 * 64, draws)
    assert not frequencies_fit(moved, sigma), "one draw in a hundred on a coarse grid is seen"


@pytest.mark.parametrize("sigma", [8.0, 1000.0, 4000.0])
def test_seeds_that_differ_in_one_bit_give_independent_noise(sigma: float) -> None:
    base = discrete_gaussian(sigma, 200_000, seed(8))
    other = discrete_gaussian(sigma, 200_000, seed(8 ^ 1))
    assert uncorrelated(base, other)
    assert uncorrelated(np.abs(base), np.abs(other))
    leaking = other + base // 32
    assert not uncorrelated(base, leaking), "a thirtieth in common is seen"


@pytest.mark.parametrize("sigma", [1000.0, 4000.0])
@pytest.mark.parametrize("lag", [1, 2, 8, 2**16, 2**17])
def test_coordinates_of_one_vector_are_independent(sigma: float, lag: int) -> None:
    draws = discrete_gaussian(sigma, 400_000, seed(9))
    assert uncorrelated(draws[:-lag], draws[lag:])
    assert uncorrelated(np.abs(draws[:-lag]), np.abs(draws[lag:]))
    assert not uncorrelated(draws[:-lag], draws[lag:] + draws[:-lag] // 32)
