"""The bound that an attack shows: rarely above the truth, high enough to catch a broken build."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from flute.dp.audit import MIN_WORLDS, gaussian_dp_lower_bound
from flute.dp.gaussian import mu_for
from flute.errors import MisuseError

DELTA, WORLDS, REPEATS = 1e-6, 10_000, 300


def bounds(epsilon: float, *, noise: float, seed: int, confidence: float = 0.95) -> np.ndarray:
    """REPEATS bounds from exact Gaussians whose noise is `noise` times what epsilon needs."""
    rng, mu = np.random.default_rng(seed), mu_for(epsilon, DELTA) / noise
    return np.array(
        [
            gaussian_dp_lower_bound(
                rng.normal(mu, 1, WORLDS), rng.normal(0, 1, WORLDS), delta=DELTA, confidence=confidence
            )
            for _ in range(REPEATS)
        ]
    )


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_bound_is_above_the_truth_no_more_often_than_it_says(epsilon: float) -> None:
    """False alarm of this test: 1e-6, by the binomial tail at the stated 1 in 20."""
    above = int((bounds(epsilon, noise=1.0, seed=1) > epsilon).sum())
    assert above <= binom.ppf(1 - 1e-6, REPEATS, 0.05)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_bound_is_at_least_a_third_of_the_truth(epsilon: float) -> None:
    shown = bounds(epsilon, noise=1.0, seed=2)
    assert np.quantile(shown, 0.05) >= epsilon / 3
    assert np.median(shown) >= 0.6 * epsilon


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_noise_halved_is_caught_every_time(epsilon: float) -> None:
    assert (bounds(epsilon, noise=0.5, seed=3) > epsilon).all()


def test_more_confidence_shows_less() -> None:
    cautious, bold = (np.median(bounds(3.0, noise=1.0, seed=4, confidence=c)) for c in (0.9999, 0.8))
    assert cautious < bold < 3.0


def test_scores_that_tell_nothing_show_nothing() -> None:
    rng = np.random.default_rng(5)
    shown = [
        gaussian_dp_lower_bound(rng.normal(0, 1, 400), rng.normal(0, 1, 400), delta=DELTA, confidence=0.95)
        for _ in range(200)
    ]
    assert np.mean(np.array(shown) == 0.0) >= 0.95


def test_the_scale_of_the_scores_does_not_matter_and_infinite_ones_are_allowed() -> None:
    rng = np.random.default_rng(6)
    inside, outside = rng.normal(1, 1, 2000), rng.normal(0, 1, 2000)
    first = gaussian_dp_lower_bound(inside, outside, delta=DELTA, confidence=0.95)
    assert first == gaussian_dp_lower_bound(np.exp(inside), np.exp(outside), delta=DELTA, confidence=0.95)
    assert gaussian_dp_lower_bound(np.full(2000, math.inf), outside, delta=DELTA, confidence=0.95) > 5 * first


def test_few_worlds_bad_scores_and_bad_arguments_are_refused() -> None:
    good = np.zeros(MIN_WORLDS)
    for inside, outside, delta, confidence in (
        (good[1:], good, DELTA, 0.95),
        (good, good[1:], DELTA, 0.95),
        (np.full(MIN_WORLDS, math.nan), good, DELTA, 0.95),
        (good[:, None], good, DELTA, 0.95),
        (good, good, 0.0, 0.95),
        (good, good, DELTA, 1.0),
    ):
        with pytest.raises(MisuseError):
            gaussian_dp_lower_bound(inside, outside, delta=delta, confidence=confidence)
