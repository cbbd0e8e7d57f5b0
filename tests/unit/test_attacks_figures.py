"""Figures and bounds: intervals hold what they should, and wrong claims are rejected."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from flute.attacks import figures
from flute.attacks.chance import Chance
from flute.attacks.figures import auc, dp_advantage, dp_success, mean, membership, rate, rates_apart, resampled
from flute.dp.gaussian import gaussian_epsilon
from flute.errors import MisuseError


def test_the_bound_on_advantage_is_the_known_one() -> None:
    assert dp_advantage(0.0, 0.0) == 0.0
    assert dp_advantage(1.0, 0.0) == pytest.approx(math.tanh(0.5))
    assert dp_advantage(1.0, 1e-6) == pytest.approx((math.e - 1 + 2e-6) / (math.e + 1))
    assert dp_advantage(math.inf, 1e-6) == 1.0
    assert dp_advantage(0.0, 0.6) == 0.6


def test_randomised_response_reaches_the_bound_and_a_gaussian_stays_below_it() -> None:
    """A bit told rightly with a chance of e/(1 + e) is 1-private: its advantage is the bound itself."""
    right = math.e / (1 + math.e)
    assert right - (1 - right) == pytest.approx(dp_advantage(1.0, 0.0))
    assert right == pytest.approx(dp_success(0.5, 1.0, 0.0) - 0) or right < dp_success(0.5, 1.0, 0.0)
    for mu in (0.1, 0.5, 2.0):
        advantage = 2 * norm.cdf(mu / 2) - 1
        assert advantage < dp_advantage(gaussian_epsilon(mu, 1e-6), 1e-6)
        assert advantage > dp_advantage(gaussian_epsilon(mu, 0.5) / 4, 0.0)


def test_what_can_be_known_of_a_patient_grows_from_guessing_to_certainty() -> None:
    assert dp_success(0.1, 0.0, 0.0) == pytest.approx(0.1)
    assert dp_success(0.1, 1.0, 0.0) == pytest.approx(0.1 * math.e)
    assert dp_success(0.5, 1.0, 0.0) == pytest.approx(1 - 0.5 / math.e)
    assert dp_success(0.5, math.inf, 0.0) == 1.0


@pytest.mark.parametrize(("epsilon", "delta"), [(-1, 0), (1, 1), (math.nan, 0), (1, -0.1)])
def test_bounds_of_nonsense_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(MisuseError):
        dp_advantage(epsilon, delta)


def test_exact_intervals_are_clopper_and_pearsons() -> None:
    """Published: 0 of 10 reaches to .3085, 5 of 10 from .1871 to .8129."""
    assert rate(0, 10).high == pytest.approx(0.30850, abs=1e-5)
    assert (rate(5, 10).low, rate(5, 10).high) == pytest.approx((0.18709, 0.81291), abs=1e-5)
    assert rate(10, 10).high == 1.0
    with pytest.raises(MisuseError):
        rate(3, 2)


def test_intervals_of_advantage_miss_the_truth_in_at_most_a_twentieth_of_all_cases() -> None:
    """400 runs of rates .6 and .3: more than 32 misses have a chance below 1 % at a true 5 %. Half as wide misses."""
    rng = np.random.default_rng(5)
    missed = narrow = 0
    for _ in range(400):
        found = rates_apart(int(rng.binomial(80, 0.6)), 80, int(rng.binomial(80, 0.3)), 80)
        missed += not found.low <= 0.3 <= found.high
        middle = found.value
        narrow += abs(0.3 - middle) > (found.high - found.low) / 4
    assert missed <= 32 < narrow


def test_auc_counts_ties_half() -> None:
    inside = np.array([[True, False, True, False]])
    assert auc(np.array([[2.0, 1.0, 2.0, 1.0]]), inside) == 1.0
    assert auc(np.array([[1.0, 1.0, 1.0, 1.0]]), inside) == 0.5
    assert auc(np.array([[1.0, 2.0, 1.0, 2.0]]), inside) == 0.0


def gaussians(apart: float, worlds: int, patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inside = (np.arange(worlds) % 2 == 1)[:, None] if patients == 1 else rng.random((worlds, patients)) < 0.5
    return rng.standard_normal(inside.shape) + apart * inside, inside


@pytest.mark.parametrize("patients", [1, 20])
def test_membership_finds_how_far_apart_gaussians_are(patients: int) -> None:
    """Truth: AUC Phi(1/sqrt 2) = .760, advantage 2 Phi(1/2) - 1 = .383, and a threshold that costs a little of it."""
    scores, inside = gaussians(1.0, 2_000 // patients + 40, patients, seed=11)
    found = membership(scores, inside, Chance(b"g"))
    assert found.auc.low < 0.760 < found.auc.high
    assert found.advantage.low < 0.383 < found.advantage.high
    assert found.advantage.low > 0.2, "and is not wide open"
    assert found.hits.value < 0.1
    assert found.advantage.method == ("exact" if patients == 1 else "bootstrap")


def test_scores_that_say_nothing_have_no_advantage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten runs at 95 %: more than two intervals without 0 have a chance of at most 1.2 %; ten where there is some."""
    monkeypatch.setattr(figures, "RESAMPLES", 20)
    nothing, something = (
        [membership(*gaussians(apart, 240, 1, seed), Chance(b"n")).advantage for seed in range(10)]
        for apart in (0.0, 1.5)
    )
    assert sum(not found.low <= 0 <= found.high for found in nothing) <= 2
    assert all(found.low > 0 for found in something)


def test_perfect_scores_get_no_interval_of_width_nothing() -> None:
    scores, inside = gaussians(50.0, 40, 5, seed=13)
    found = membership(scores, inside, Chance(b"p"))
    assert (found.auc.value, found.advantage.value, found.hits.value) == (1.0, 1.0, 1.0)
    assert found.auc.low < 0.95
    assert found.advantage.low < 0.95


def test_scores_that_are_no_numbers_count_as_low() -> None:
    scores, inside = gaussians(50.0, 40, 1, seed=14)
    scores[~inside] = np.nan
    assert membership(scores, inside, Chance(b"x")).auc.value == 1.0


def test_membership_needs_both_kinds() -> None:
    with pytest.raises(MisuseError, match="8 worlds"):
        membership(np.zeros((10, 1)), np.ones((10, 1), dtype=bool), Chance(b"x"))


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(3).standard_normal(400)
    found = mean(values, Chance(b"m"))
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.25 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.25 * half)
    assert resampled(lambda some: 1.0, 30, Chance(b"m")).low == pytest.approx(rate(30, 30).low)
