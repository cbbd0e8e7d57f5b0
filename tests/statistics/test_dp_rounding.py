"""Rounding is unbiased, and no patient's rounded row outgrows what is charged for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, chi2, norm

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


FRACTIONS = [1e-3, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999]
MILLION = 1_000_000


def rounded_up_as_often_as(ups: int, chance: float, size: int) -> bool:
    """`ups` of `size` is binomial with `chance`; exact, two-sided, false alarm ALPHA."""
    return bool(binom.ppf(ALPHA / 2, size, chance) <= ups <= binom.isf(ALPHA / 2, size, chance))


@pytest.mark.parametrize("base", [0, 7, -8, 2**30, -(2**40)])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_value_goes_to_one_of_its_two_neighbours_and_up_as_often_as_its_fraction_says(
    base: int, fraction: float
) -> None:
    """n = 1e6. A chance off by .005 is rejected, power over 1 - 1e-6: the shift is past the limits of both."""
    value = base + fraction
    exact = value - base
    ups = quantise(np.full((1, MILLION), value), 1.0, seed(6)) - base
    assert set(np.unique(ups)) == {0, 1}
    assert rounded_up_as_often_as(int(ups.sum()), exact, MILLION)
    for wrong in (exact - 0.005, exact + 0.005):
        if 0 < wrong < 1:
            assert not rounded_up_as_often_as(int(ups.sum()), wrong, MILLION)
            deviation = math.sqrt(exact * (1 - exact) / MILLION) + math.sqrt(wrong * (1 - wrong) / MILLION)
            assert Z * deviation < 0.005


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 2.0**49])
def test_a_whole_number_is_never_moved(value: float) -> None:
    assert set(np.unique(quantise(np.full((1, 10_000), value), 1.0, seed(7)))) == {int(value)}


def conditional_law_holds(values: NDArray[np.float64], rounded: NDArray[np.int64]) -> bool:
    """Within each of 100 ranges of the fraction, as many went up as the fractions say; false alarm ALPHA.

    Chi-squared: each range's excess over its deviation, squared and added.
    """
    fraction = values - np.floor(values)
    groups = np.minimum((fraction * 100).astype(np.int64), 99)
    excess = np.bincount(groups, rounded - np.floor(values) - fraction, minlength=100)
    spread = np.bincount(groups, fraction * (1 - fraction), minlength=100)
    return float((excess**2 / spread).sum()) < chi2.isf(ALPHA, 100)


@pytest.mark.parametrize("scale", [1.0, 308.7])
def test_the_chance_follows_the_fraction_over_its_whole_range(scale: float) -> None:
    """n = 1e6 values. Rejected: rounding to nearest, cutting off, a fair coin, a dither of half the width, chances
    2 % of the way to a fair coin (chi-squared shifted by 660, the limit is 181; power over 1 - 1e-12)."""
    values = np.random.default_rng(5).normal(scale=20 / scale, size=MILLION)
    rounded = quantise(values[None, :], scale, seed(8))
    scaled = values * scale
    assert conditional_law_holds(scaled, rounded)
    uniform = np.random.default_rng(6).random(MILLION)
    fraction = scaled - np.floor(scaled)
    wrong = {
        "to nearest": np.rint(scaled),
        "cut off": np.trunc(scaled),
        "a fair coin": np.floor(scaled) + (uniform < 0.5),
        "half the width": np.floor(scaled + 0.25 + uniform / 2),
        "towards a fair coin": np.floor(scaled) + (uniform < fraction + 0.02 * (0.5 - fraction)),
    }
    for name, values_rounded in wrong.items():
        assert not conditional_law_holds(scaled, values_rounded.astype(np.int64)), name


def test_patients_are_rounded_apart_so_that_a_sum_has_the_sum_of_their_variances() -> None:
    """400,000 sums of 20 patients. The controls share one uniform number per coordinate, or round the sum only."""
    size, patients, fraction = 400_000, 20, 0.3
    each = patients * fraction * (1 - fraction)

    def spread_fits(total: NDArray[np.int64]) -> bool:
        """Variance of a sum of Bernoullis: mean square against its own deviation; false alarm ALPHA."""
        fourth = each * (1 + 3 * (patients - 2) / patients * each)
        deviation = math.sqrt((fourth - each**2) / size)
        return bool(abs(np.square(total - patients * fraction).mean() - each) < Z * deviation)

    assert spread_fits(quantise(np.full((patients, size), fraction), 1.0, seed(9)))
    shared = patients * quantise(np.full((1, size), fraction), 1.0, seed(9))
    assert not spread_fits(shared)
    assert not spread_fits(quantise(np.full((1, size), patients * fraction + 0.5), 1.0, seed(9)))


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
