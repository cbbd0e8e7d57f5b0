"""A million draws at every size of noise: bins, moments, tails and fine structure. Noise 1 % off is rejected.

False alarm: ALPHA = 1e-6 per verdict and sigma. Power against sigma 1 % off, either way, at n = 1e6: over 1 - 1e-12
for the mean square, over 1 - 1e-6 for the bins, for every sigma here. Tails beyond 4 sigma are too rare for that at
1e6: there 10 % off is seen (power over 1 - 1e-5), and 1 % off at 4e7 draws (power over .999). Seeds are fixed, so
a result repeats.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from tests.statistics.noise_laws import (
    Draws,
    centred,
    kurtosis_fits,
    residues_fit,
    scale_fits,
    scale_power,
    seed,
    shape_fits,
    shape_power,
    tail_fits,
    tail_limits,
    tail_power,
)

from flute.dp.noise import COARSE, discrete_gaussian

MILLION = 1_000_000
SIGMAS = [0.5, 1.0, 3.0, 4.0, 16.0, 256.0, 1000.0, 1950.0, 2500.0, 1e4, 1e5]
OFF = [1.01, 1 / 1.01]


@lru_cache(maxsize=len(SIGMAS))
def million(sigma: float) -> Draws:
    draws = discrete_gaussian(sigma, MILLION, seed(round(1000 * sigma)))
    draws.setflags(write=False)
    return draws


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_mean_square_is_the_variance_that_is_charged_and_one_percent_off_is_seen(sigma: float) -> None:
    assert scale_fits(million(sigma), sigma)
    for factor in OFF:
        assert not scale_fits(million(sigma), sigma * factor)
        assert scale_power(sigma, sigma * factor, MILLION) > 1 - 1e-12


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_bins_hold_what_the_exact_probabilities_say_and_one_percent_off_is_seen(sigma: float) -> None:
    assert shape_fits(million(sigma), sigma)
    for factor in OFF:
        assert not shape_fits(million(sigma), sigma * factor)
        assert shape_power(sigma, sigma * factor, MILLION) > 1 - 1e-6


@pytest.mark.parametrize("sigma", [3.0, 2500.0])
@pytest.mark.parametrize("factor", OFF)
def test_a_sampler_that_draws_one_percent_other_noise_is_caught_every_time(sigma: float, factor: float) -> None:
    """The stated power, tried: 12 samples of a mis-scaled sampler, each rejected by both verdicts."""
    for i in range(12):
        wrong = discrete_gaussian(sigma * factor, MILLION, seed(i))
        assert not scale_fits(wrong, sigma)
        assert not shape_fits(wrong, sigma)


@pytest.mark.parametrize("sigma", [3.0, 1000.0, 1e5])
def test_good_noise_is_rarely_refused(sigma: float) -> None:
    """40 fresh samples, five verdicts each: a refusal has a chance of 2e-4 in all."""
    for i in range(100, 140):
        draws = discrete_gaussian(sigma, 100_000, seed(i))
        assert scale_fits(draws, sigma)
        assert shape_fits(draws, sigma)
        assert centred(draws, sigma)
        assert kurtosis_fits(draws, sigma)
        assert tail_fits(draws, sigma, 4 * sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_noise_is_centred_and_a_shift_of_a_hundredth_sigma_is_seen(sigma: float) -> None:
    """Power of the shift: 10 deviations of the mean against 5.03, over 1 - 1e-6."""
    draws = million(sigma)
    assert centred(draws, sigma)
    shift = math.ceil(sigma / 100)
    every = round(100 * shift / sigma)
    assert not centred(draws + shift * (np.arange(MILLION) % every == 0), sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_kurtosis_is_that_of_the_discrete_gaussian_and_not_that_of_a_mixture(sigma: float) -> None:
    """The mixture has the right variance to 1e-3: half of it a quarter less noise, half of it more to make up."""
    assert kurtosis_fits(million(sigma), sigma)
    low, high = 0.75 * sigma, math.sqrt(2 - 0.75**2) * sigma
    if low >= 0.5:
        mixed = np.concatenate(
            [discrete_gaussian(s, MILLION // 2, seed(i)) for i, s in enumerate((low, high), start=200)]
        )
        assert not kurtosis_fits(mixed, sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_tails_beyond_four_to_five_sigma_are_as_heavy_as_they_should_be(sigma: float) -> None:
    draws = million(sigma)
    for at in (4.0, 4.5, 5.0):
        assert tail_fits(draws, sigma, at * sigma)
    low, _ = tail_limits(sigma, 4 * sigma, MILLION)
    assert low > 0
    cut = np.clip(draws, -math.ceil(4 * sigma) + 1, math.ceil(4 * sigma) - 1)
    assert not tail_fits(cut, sigma, 4 * sigma), "a tail cut at 4 sigma"
    heavy = np.where(np.arange(MILLION) % 500 == 0, 3 * draws, draws)
    assert not tail_fits(heavy, sigma, 4 * sigma), "one draw in 500 three times as far"
    for factor in (1.1, 1 / 1.1):
        assert tail_power(sigma, sigma * factor, 4 * sigma, MILLION) > 1 - 1e-5
        assert not tail_fits(draws, sigma * factor, 4 * sigma), "10 % off"


@pytest.mark.parametrize("sigma", [4.0, 1000.0, 1e5])
def test_tails_of_forty_million_draws_fit_and_one_percent_off_is_seen_at_four_sigma(sigma: float) -> None:
    """Power against 1 % off: over .999. At 5 sigma 23 draws are expected at sigma 1e5; none, or 56, is rejected."""
    size, far = 40 * MILLION, []
    for i in range(20):
        draws = np.abs(discrete_gaussian(sigma, 2 * MILLION, seed(400 + i)))
        far.append(draws[draws >= 4 * sigma])
    beyond = np.concatenate(far)

    def fits(hypothesis: float, cut: float) -> bool:
        low, high = tail_limits(hypothesis, cut, size)
        return bool(low <= np.count_nonzero(beyond >= cut) <= high)

    assert all(fits(sigma, at * sigma) for at in (4.0, 4.5, 5.0))
    assert tail_limits(sigma, 5 * sigma, size)[0] > 0
    for factor in OFF:
        assert not fits(sigma * factor, 4 * sigma)
        assert tail_power(sigma, sigma * factor, 4 * sigma, size) > 0.999


@pytest.mark.parametrize("sigma", [256.0, 1000.0, 2500.0, 1e4, 1e5])
@pytest.mark.parametrize("modulus", [3, COARSE, 2 * COARSE])
def test_no_residue_is_preferred_where_coarse_and_fine_meet(sigma: float, modulus: int) -> None:
    assert residues_fit(million(sigma), modulus)


def test_a_fine_draw_of_less_than_half_a_coarse_step_would_be_seen() -> None:
    """Why FINE_SIGMA is four steps: at 0.4 steps each residue's chance is off by up to a tenth, sigma is right."""
    sigma, fine = 2500.0, 0.4 * COARSE
    coarse = math.sqrt(sigma**2 - fine**2) / COARSE
    wrong = COARSE * discrete_gaussian(coarse, MILLION, seed(500)) + discrete_gaussian(fine, MILLION, seed(501))
    assert scale_fits(wrong, sigma)
    assert shape_fits(wrong, sigma)
    assert not residues_fit(wrong, COARSE)


@pytest.mark.parametrize("sigma", [1950.0, math.nextafter(1950.0, 2000.0)])
def test_noise_goes_on_without_a_step_where_the_table_ends(sigma: float) -> None:
    draws = discrete_gaussian(sigma, 4 * MILLION, seed(502))
    assert scale_fits(draws, sigma)
    assert shape_fits(draws, sigma)
    assert kurtosis_fits(draws, sigma)
    assert residues_fit(draws, COARSE)
    uniforms = np.random.default_rng(3).uniform(-1, 1, size=(MILLION, 4)).sum(axis=1) * math.sqrt(3 / 4)
    flat = np.rint(sigma * uniforms).astype(np.int64)
    assert scale_fits(flat, sigma)
    assert not shape_fits(flat, sigma), "a sum of four uniforms of the same variance"
    assert not kurtosis_fits(flat, sigma)
