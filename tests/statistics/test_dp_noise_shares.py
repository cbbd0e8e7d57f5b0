"""What is left of the hubs' noise, after dropouts and after colluders subtract theirs, is what was charged.

The answers are those of `Mechanism.contribution` with no patients, a million coordinates. False alarm: ALPHA = 1e-6
per verdict. One share more or less is rejected: at 18 shares it changes sigma by 2.7 %, and the power against 1 % is
over 1 - 1e-6 (test_dp_noise_million.py). Seeds are fixed, so a result repeats.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from tests.statistics.noise_laws import (
    Draws,
    frequencies_fit,
    kurtosis_fits,
    scale_fits,
    scale_power,
    seed,
    shape_fits,
    tail_fits,
)

from flute.dp.calibrate import Mechanism, sum_slack
from flute.dp.noise import COARSE, discrete_gaussian, layers_of

MILLION = 1_000_000
PLANS = [(3, 3, 1), (3, 3, 2), (4, 3, 1), (10, 8, 3), (30, 24, 6)]
"""Hubs, survivors_min, colluding."""


def mechanism(hub_sigma: float, hubs: int, survivors: int, colluding: int) -> Mechanism:
    return Mechanism(1.0, MILLION, 5000.0, hub_sigma, hubs, survivors, colluding)


def answers(plan: Mechanism, first: int = 0) -> list[Draws]:
    nobody = np.empty((0, plan.size))
    return [plan.contribution(nobody, rand=seed(2 * i) + seed(2 * i + 1)) for i in range(first, first + plan.hubs)]


def fits(draws: Draws, variance: float) -> bool:
    sigma = math.sqrt(variance)
    return (
        scale_fits(draws, sigma)
        and shape_fits(draws, sigma)
        and kurtosis_fits(draws, sigma)
        and tail_fits(draws, sigma, 4 * sigma)
    )


@pytest.mark.parametrize("hub_sigma", [3.0, 1000.0, 5000.0])
@pytest.mark.parametrize(("hubs", "survivors", "colluding"), PLANS)
def test_after_dropouts_and_colluders_the_noise_has_the_charged_variance_and_no_other(
    hub_sigma: float, hubs: int, survivors: int, colluding: int
) -> None:
    plan = mechanism(hub_sigma, hubs, survivors, colluding)
    sent = answers(plan, first=100 * hubs)
    answering = np.random.default_rng(hubs).permutation(hubs)[:survivors]
    total = np.sum([sent[i] for i in answering], axis=0)
    left = total - np.sum([sent[i] for i in answering[:colluding]], axis=0)
    shares = survivors - colluding
    assert fits(left, shares * hub_sigma**2)
    assert shares * hub_sigma**2 == pytest.approx(plan.sigma**2, rel=1e-14)
    for wrong in {shares - 1, shares + 1} - {0}:
        assert not scale_fits(left, hub_sigma * math.sqrt(wrong)), "another number of shares"
        assert not shape_fits(left, hub_sigma * math.sqrt(wrong))
        assert scale_power(hub_sigma * math.sqrt(shares), hub_sigma * math.sqrt(wrong), MILLION) > 1 - 1e-9
    assert not scale_fits(left, hub_sigma * math.sqrt(survivors)), "colluders that are not reckoned with"
    assert not scale_fits(total, plan.sigma), "the total carries more than is charged"
    assert scale_fits(total, hub_sigma * math.sqrt(survivors))


@pytest.mark.parametrize("hub_sigma", [3.0, 17.3, 1000.0, 2500.1, 64_000.0])
@pytest.mark.parametrize(("hubs", "survivors", "colluding"), PLANS)
def test_the_variances_of_the_shares_add_up_to_the_charged_one_in_exact_fractions(
    hub_sigma: float, hubs: int, survivors: int, colluding: int
) -> None:
    plan = mechanism(hub_sigma, hubs, survivors, colluding)
    *coarse, fine = layers_of(plan.hub_sigma)
    drawn = fine + sum(COARSE**2 * variance for variance in coarse)
    assert plan.shares * drawn == plan.shares * Fraction(hub_sigma) ** 2
    assert float(plan.shares * drawn) == pytest.approx(plan.sigma**2, rel=1e-15)
    slack_free = plan.sensitivity**2 / (2 * float(plan.shares * drawn))
    assert plan.rho >= slack_free, "the price is never for more noise than is drawn"


def test_a_hub_that_draws_five_percent_less_is_seen_in_the_sum_of_three() -> None:
    """The sum's sigma is then 1.7 % off."""
    shares = [discrete_gaussian(s, MILLION, seed(i)) for i, s in enumerate((950.0, 1000.0, 1000.0), start=900)]
    assert not scale_fits(np.sum(shares, axis=0), 1000.0 * math.sqrt(3))


def test_two_hubs_that_draw_the_same_noise_are_seen() -> None:
    plan = mechanism(1000.0, 3, 3, 1)
    one, two, _ = answers(plan, first=7)
    assert fits(one + two, 2e6)
    assert not scale_fits(one + one, plan.sigma)


def test_noises_of_hubs_add_up_to_a_discrete_gaussian_from_sigma_three_and_not_at_a_half() -> None:
    """Why MIN_HUB_SIGMA: the sum of two small ones is not what is charged."""
    for hubs in (2, 5, 30):
        three = np.sum([discrete_gaussian(3.0, MILLION, seed(1000 + i)) for i in range(hubs)], axis=0)
        assert frequencies_fit(three, 3.0 * math.sqrt(hubs))
    half = discrete_gaussian(0.5, MILLION, seed(12)) + discrete_gaussian(0.5, MILLION, seed(13))
    assert not frequencies_fit(half, 0.5 * math.sqrt(2))


def pointwise_slack(sigma: float, shares: int) -> float:
    """max |ln P(sum of shares = x) - ln N_Z(0, shares sigma^2)(x)|, both summed in full, where a double can tell."""
    reach = math.ceil(12 * sigma * math.sqrt(shares))
    x = np.arange(-reach, reach + 1)
    one = np.exp(-(x**2) / (2 * sigma**2))
    one /= one.sum()
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)[reach : -reach or None]
    goal = np.exp(-(x**2) / (2 * shares * sigma**2))
    goal /= goal.sum()
    seen = np.abs(x) < 5 * sigma * math.sqrt(shares)
    return float(np.abs(np.log(total[seen] / goal[seen])).max())


@pytest.mark.parametrize("shares", [2, 3, 5])
@pytest.mark.parametrize("sigma", [0.6, 0.8, 1.0, 1.1])
def test_the_slack_that_is_charged_covers_the_exact_law_of_a_sum(sigma: float, shares: int) -> None:
    """Where tau is large enough to be seen in doubles. The pointwise distance is at most tau / 2, and for two shares
    no bound of a fifth of it would do; further shares only smooth."""
    assert pointwise_slack(sigma, shares) <= sum_slack(sigma, shares) / 2 + 1e-12
    assert pointwise_slack(sigma, 2) > sum_slack(sigma, 2) / 10
