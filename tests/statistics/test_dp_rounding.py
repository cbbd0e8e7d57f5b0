"""Rounding is unbiased, and no patient's rounded row outgrows what is charged for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from flute.dp.calibrate import widened_sensitivity
from flute.dp.clip import clip, quantise

ALPHA = 1e-6
Z = float(norm.isf(ALPHA / 2))


def seed(i: int) -> bytes:
    return i.to_bytes(32, "big")


def unbiased(total: NDArray[np.int64], value: float, patients: int) -> bool:
    """All coordinates of a sum of `patients` equal values within Z deviations, Bonferroni over coordinates."""
    fraction = value - math.floor(value)
    deviation = math.sqrt(patients * fraction * (1 - fraction))
    return bool((np.abs(total - patients * value) < norm.isf(ALPHA / 2 / total.size) * deviation).all())


@pytest.mark.parametrize("value", [0.3, -0.3, 0.5, 7.01, -7.99, 1000.25])
def test_rounding_is_unbiased_where_rounding_to_nearest_and_cutting_off_are_not(value: float) -> None:
    rows = np.full((40_000, 5), value)
    assert unbiased(quantise(rows, 1.0, seed(1)), value, 40_000)
    for wrong in (np.rint(rows), np.floor(rows), np.trunc(rows)):
        if value != 0.5 or wrong[0, 0] != 0.5:
            assert not unbiased(wrong.sum(axis=0).astype(np.int64), value, 40_000)


def test_rounding_a_hundredth_off_would_be_seen() -> None:
    assert not unbiased(quantise(np.full((400_000, 3), 0.3 + 0.004), 1.0, seed(2)), 0.3, 400_000)


def test_each_rounding_has_the_variance_of_its_fraction_and_is_independent_of_the_others() -> None:
    rows = np.full((1, 200_000), 0.3)
    rounded = quantise(rows, 1.0, seed(3))
    assert abs(rounded.mean() - 0.3) < Z * math.sqrt(0.21 / rounded.size)
    for lag in (1, 2, 3, 64):
        assert abs(np.corrcoef(rounded[:-lag], rounded[lag:])[0, 1]) < Z / math.sqrt(rounded.size)
    one_draw_for_all = np.repeat(rounded[::2], 2)
    assert not abs(np.corrcoef(one_draw_for_all[:-1], one_draw_for_all[1:])[0, 1]) < Z / math.sqrt(rounded.size)


def worst_rows(scaled_norm: float, size: int) -> list[NDArray[np.float64]]:
    """Rows of L2 norm C = 1 that gain most by rounding at scale `scaled_norm`: fractions near a half."""
    flat = np.full(size, 1 / math.sqrt(size))
    halves = np.floor(flat * scaled_norm) + 0.5
    spike = np.zeros(size)
    spike[0] = 0.9
    spike[1:] = math.sqrt((1 - 0.81) / (size - 1))
    return [flat, halves, spike]


@pytest.mark.parametrize("scaled_norm", [3.0, 10.0, 40.0, 308.0])
def test_one_patient_of_35_numbers_never_moves_the_integer_sum_beyond_what_is_charged(scaled_norm: float) -> None:
    """Neighbours D and D + patient under the same rounding of the others, 12,000 trials.

    The chance of a single excess is 12,000 times at most 1e-12. The control: C s alone, which a price without
    rounding would charge, is exceeded in a large part of the trials.
    """
    others = clip(np.random.default_rng(4).normal(size=(3, 35)), 1.0)
    bound = widened_sensitivity(scaled_norm, 35)
    longest, over, trials = 0.0, 0, 0
    for row in worst_rows(scaled_norm, 35):
        patient = clip(row[None, :], 1.0)
        table = np.concatenate([others, patient])
        for i in range(4_000):
            moved = quantise(table, scaled_norm, seed(i)) - quantise(others, scaled_norm, seed(i))
            length = math.sqrt(float((moved**2).sum()))
            longest, over, trials = max(longest, length), over + (length > scaled_norm), trials + 1
    assert longest <= bound
    assert over > trials / 10, "the control must be exceeded"
    assert bound <= scaled_norm + 6


@pytest.mark.parametrize("size", [1, 35, 1000])
def test_the_likely_bound_has_the_form_that_rounding_shows(size: int) -> None:
    """The bound at chance 1e-3 instead of 1e-12, by the same formula: exceeded in at most 1 in 1,000.

    20,000 trials; false alarm ALPHA by Poisson at 20 expected (up to 46). The control: a bound without its
    chance term is exceeded about half of the time.
    """
    scaled_norm, beta, trials = 50.0, 1e-3, 20_000
    row = np.full(size, 0.5 + math.floor(scaled_norm / math.sqrt(size)))
    length = float(np.linalg.norm(row))
    chance = math.sqrt(2 * math.log(1 / beta))
    mean_square = length**2 + size / 4
    bound_square = mean_square + chance * (length + math.sqrt(size) / 2)
    tiled = np.tile(row, trials)[None, :]
    moved = quantise(tiled, 1.0, seed(5)).reshape(trials, size).astype(np.float64)
    squares = (moved**2).sum(axis=1)
    assert (squares > bound_square).sum() <= 46
    assert (squares > mean_square).sum() > trials / 5
