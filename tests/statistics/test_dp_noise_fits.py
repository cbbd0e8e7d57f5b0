"""The noise has the scale and the shape that is charged for, and a sampler that is a little off is seen.

Every test says how often it would fail by chance (ALPHA, per two-sided comparison) and shows a noise that it
rejects. Seeds are fixed, so a result repeats.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm, poisson

from flute.dp.calibrate import mechanism_for
from flute.dp.noise import discrete_gaussian

ALPHA = 1e-6
Z = float(norm.isf(ALPHA / 2))


def seed(i: int) -> bytes:
    return i.to_bytes(32, "big")


def pmf(sigma: float, reach: int) -> NDArray[np.float64]:
    """The discrete Gaussian on -reach..reach, normalised."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def variance(sigma: float) -> float:
    """The discrete Gaussian's own variance: sigma^2 but for small sigma."""
    reach = math.ceil(20 * sigma)
    return float((pmf(sigma, reach) * np.arange(-reach, reach + 1) ** 2).sum())


def sigma_fits(draws: NDArray[np.int64], sigma: float) -> bool:
    """Two-sided chi-squared test of the sum of squares, false alarm ALPHA."""
    statistic = float((draws.astype(np.float64) ** 2).sum()) / variance(sigma)
    return bool(chi2.ppf(ALPHA / 2, draws.size) < statistic < chi2.isf(ALPHA / 2, draws.size))


def shape_fits(draws: NDArray[np.int64], sigma: float) -> bool:
    """Chi-squared test of frequencies against the exact pmf, cells of at least 10 expected, false alarm ALPHA."""
    reach = max(int(np.abs(draws).max()), math.ceil(8 * sigma))
    expected = pmf(sigma, reach) * draws.size
    observed = np.bincount(draws + reach, minlength=2 * reach + 1).astype(np.float64)
    thin = expected < 10
    cells = np.append(expected[~thin], expected[thin].sum())
    seen = np.append(observed[~thin], observed[thin].sum())
    statistic = float(((seen - cells) ** 2 / cells).sum())
    return statistic < chi2.isf(ALPHA, cells.size - 1)


@pytest.mark.parametrize("sigma", [3.0, 8.0, 256.0, 1000.0, 1950.0, 1951.0, 4000.0, 16000.0])
def test_the_noise_has_the_scale_that_is_charged_and_five_percent_off_is_seen(sigma: float) -> None:
    draws = discrete_gaussian(sigma, 20_000, seed(1))
    assert sigma_fits(draws, sigma)
    assert not sigma_fits(draws, sigma / 0.95), "5 % too little"
    assert not sigma_fits(draws, sigma / 1.05), "5 % too much"


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_sampler_with_five_percent_other_noise_is_caught_ten_times_of_ten(factor: float) -> None:
    caught = [not sigma_fits(discrete_gaussian(factor * 100.0, 20_000, seed(i)), 100.0) for i in range(10)]
    assert all(caught)


@pytest.mark.parametrize("sigma", [256.0, 1000.0, 4000.0])
def test_a_million_draws_fit_to_six_in_a_thousand(sigma: float) -> None:
    draws = discrete_gaussian(sigma, 1_000_000, seed(2))
    assert sigma_fits(draws, sigma)
    assert not sigma_fits(draws, sigma * 1.006)
    assert abs(draws.mean()) < Z * sigma / 1000


@pytest.mark.parametrize("sigma", [0.5, 0.75, 1.0, 3.0, 8.0])
def test_frequencies_are_those_of_the_exact_pmf(sigma: float) -> None:
    assert shape_fits(discrete_gaussian(sigma, 1_000_000, seed(3)), sigma)


@pytest.mark.parametrize("sigma", [0.5, 0.75, 1.0])
def test_a_rounded_continuous_gaussian_is_rejected(sigma: float) -> None:
    rounded = np.rint(np.random.default_rng(1).normal(scale=sigma, size=1_000_000)).astype(np.int64)
    assert not shape_fits(rounded, sigma)


@pytest.mark.parametrize("sigma", [3.0, 8.0])
def test_shapes_of_the_same_scale_are_rejected(sigma: float) -> None:
    rng = np.random.default_rng(2)
    uniform = rng.integers(-1, 2, size=(200_000, round(1.5 * sigma**2))).sum(axis=1)
    laplace = np.rint(rng.laplace(scale=sigma / math.sqrt(2), size=200_000)).astype(np.int64)
    holed = discrete_gaussian(sigma, 200_000, seed(4)) // 2 * 2
    for wrong in (laplace, holed, uniform if sigma < 4 else laplace):
        assert not shape_fits(wrong, sigma)


def test_large_noise_has_no_holes_or_bumps_where_the_lazy_levels_meet() -> None:
    """At sigma 1000 one draw in 12 needs a second look. 4M draws, every value a cell, false alarm ALPHA."""
    draws = np.concatenate([discrete_gaussian(1000.0, 2_000_000, seed(i)) for i in (5, 6)])
    assert shape_fits(draws, 1000.0)
    odd_moved = np.where(np.arange(draws.size) % 100 == 0, draws // 64 * 64, draws)
    assert not shape_fits(odd_moved, 1000.0), "one draw in a hundred on a coarse grid is seen"


def test_tails_are_there_and_as_heavy_as_they_should_be() -> None:
    sigma, size = 4.0, 4_000_000
    draws = discrete_gaussian(sigma, size, seed(7))
    for at in (17, 20, 22):
        expected = 2 * pmf(sigma, 80)[80 + at :].sum() * size
        low, high = poisson.ppf(ALPHA / 2, expected), poisson.isf(ALPHA / 2, expected)
        assert low <= (np.abs(draws) >= at).sum() <= high
        if at == 17:
            assert not low <= (np.abs(np.clip(draws, -16, 16)) >= at).sum(), "a cut tail is rejected"
            heavier = np.where(np.arange(size) % 500 == 0, 3 * draws, draws)
            assert not (np.abs(heavier) >= at).sum() <= high, "a heavy tail is rejected"
    right = (draws >= 17).sum()
    assert abs(right - (draws <= -17).sum()) < Z * math.sqrt((np.abs(draws) >= 17).sum())


def correlation_is_nil(a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    """Two-sided test of Pearson's correlation, false alarm ALPHA."""
    return bool(abs(np.corrcoef(a, b)[0, 1]) < Z / math.sqrt(a.size))


@pytest.mark.parametrize("sigma", [8.0, 1000.0, 4000.0])
def test_seeds_that_differ_in_one_bit_give_independent_noise(sigma: float) -> None:
    base = discrete_gaussian(sigma, 200_000, seed(8))
    other = discrete_gaussian(sigma, 200_000, seed(8 ^ 1))
    assert correlation_is_nil(base, other)
    assert correlation_is_nil(np.abs(base), np.abs(other))
    leaking = other + base // 32
    assert not correlation_is_nil(base, leaking), "a thirtieth in common is seen"


@pytest.mark.parametrize("lag", [1, 2, 8, 2**16])
def test_coordinates_of_one_vector_are_independent(lag: int) -> None:
    draws = discrete_gaussian(1000.0, 400_000, seed(9))
    assert correlation_is_nil(draws[:-lag], draws[lag:])
    assert correlation_is_nil(np.abs(draws[:-lag]), np.abs(draws[lag:]))
    assert not correlation_is_nil(draws[:-lag], draws[lag:] + draws[:-lag] // 32)


def test_noises_of_hubs_add_up_to_a_discrete_gaussian_from_sigma_three_and_not_at_a_half() -> None:
    """Why MIN_HUB_SIGMA: the sum of two small ones is not what is charged."""
    three = discrete_gaussian(3.0, 1_000_000, seed(10)) + discrete_gaussian(3.0, 1_000_000, seed(11))
    assert shape_fits(three, 3.0 * math.sqrt(2))
    half = discrete_gaussian(0.5, 1_000_000, seed(12)) + discrete_gaussian(0.5, 1_000_000, seed(13))
    assert not shape_fits(half, 0.5 * math.sqrt(2))


def test_four_draws_of_half_the_sigma_continue_the_table_without_a_step() -> None:
    below, above = (discrete_gaussian(s, 1_000_000, seed(14)) / s for s in (1950.0, 1950.5))
    cells = norm.ppf(np.linspace(0, 1, 101))[1:-1]
    for draws in (below, above):
        counts = np.bincount(np.searchsorted(cells, draws), minlength=100)
        assert ((counts - 1e4) ** 2 / 1e4).sum() < chi2.isf(ALPHA, 99)
    uniform_sum = np.random.default_rng(3).uniform(-1, 1, size=(1_000_000, 4)).sum(axis=1) * math.sqrt(3 / 4)
    counts = np.bincount(np.searchsorted(cells, uniform_sum), minlength=100)
    assert not ((counts - 1e4) ** 2 / 1e4).sum() < chi2.isf(ALPHA, 99), "a sum of four uniforms is rejected"


def test_three_hubs_totals_carry_the_noise_that_the_mechanism_names() -> None:
    mechanism = mechanism_for(0.0243, 1.0, 20_000, 3, 3, 1)
    nobody = np.empty((0, 20_000))
    shares = [mechanism.contribution(nobody, rand=seed(20 + i) + seed(30 + i)) for i in range(3)]
    assert sigma_fits(sum(shares), mechanism.total_sigma)
    assert sigma_fits(shares[0] + shares[1], mechanism.sigma), "what is left when one hub subtracts its own"
    assert sigma_fits(shares[0], mechanism.hub_sigma)
    assert not sigma_fits(shares[0], mechanism.sigma)
    assert not sigma_fits(shares[0] + shares[1], mechanism.total_sigma)
