"""The square-root factorisation of prefix sums."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import binom

from flute.algorithms.prefix import coefficients, norm_squared, onto_counts, opened_counts, rows


def test_coefficients_are_those_of_the_paper() -> None:
    k = np.arange(30)
    assert coefficients(30) == pytest.approx((-1.0) ** k * binom(-0.5, k))


@pytest.mark.parametrize("bins", [4, 33, 256])
def test_the_factor_squared_sums_prefixes(bins: int) -> None:
    factor = rows(np.arange(bins), bins, private=True).T
    assert factor @ factor == pytest.approx(np.tril(np.ones((bins, bins))), abs=1e-12)


def test_the_norm_is_the_largest_of_any_bin_and_reached() -> None:
    lengths = np.sum(rows(np.arange(64), 64, private=True) ** 2, axis=1)
    assert lengths.max() == pytest.approx(norm_squared(64, private=True))
    assert lengths.argmax() == 0


def test_a_thousand_bins_cost_three_sigma_where_flat_ones_cost_thirty_two() -> None:
    counts = opened_counts(np.zeros(1024), 1.0, private=True)
    worst = counts.prefix_noise_sds().max() * np.sqrt(norm_squared(1024, private=True))
    assert worst == pytest.approx(3.3, abs=0.05)


@pytest.mark.parametrize("private", [True, False])
def test_counts_without_noise_come_out_as_they_were(private: bool) -> None:
    index = np.array([0, 3, 3, 7, 2, -1])
    counts = opened_counts(rows(index, 8, private=private).sum(axis=0), 0.0, private=private)
    truth = np.array([1, 0, 1, 2, 0, 0, 0, 1])
    assert counts.raw == pytest.approx(truth, abs=1e-9)
    assert counts.prefix == pytest.approx(np.cumsum(truth), abs=1e-9)
    assert counts.consistent == pytest.approx(truth, abs=1e-9)


def test_noise_deviations_are_those_of_the_linear_map() -> None:
    bins, sigma = 16, 2.5
    counts = opened_counts(np.zeros(bins), sigma, private=True)
    inverse = np.linalg.inv(rows(np.arange(bins), bins, private=True).T)
    weights = np.linspace(-1, 2, bins)
    assert counts.noise_sd(weights) == pytest.approx(sigma * np.linalg.norm(weights @ inverse))
    assert counts.count_noise_sds() == pytest.approx(sigma * np.linalg.norm(inverse, axis=1))
    prefixes = np.tril(np.ones((bins, bins)))
    assert counts.prefix_noise_sds() == pytest.approx(sigma * np.linalg.norm(prefixes @ inverse, axis=1))


def test_shown_counts_are_never_negative_and_add_up() -> None:
    noisy = np.random.default_rng(1).normal(0, 30, size=(50, 20))
    for opened in noisy:
        counts = opened_counts(opened, 30.0, private=True)
        assert (counts.consistent >= 0).all()
        assert np.cumsum(counts.consistent)[-1] == pytest.approx(counts.total)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [([5.0, -2.0, 1.0], [4.0, 0.0, 0.0]), ([-1.0, -2.0, 1.0], [0.0, 0.0, 0.0]), ([3.0, 4.0, 0.0], [3.0, 4.0, 0.0])],
)
def test_level_counts_are_projected_onto_counts_of_the_same_total(raw: list[float], shown: list[float]) -> None:
    assert onto_counts(np.array(raw)).tolist() == pytest.approx(shown)
