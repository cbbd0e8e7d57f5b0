"""A patient's row is bounded exactly, and rounded to the grid without a word about the data."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.dp.clip import GridSum, clip, quantise
from flute.dp.noise import discrete_gaussian
from flute.errors import MisuseError

SEED = bytes(range(32))
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)


def exact_norm_squared(row: np.ndarray) -> Fraction:
    return sum((Fraction(float(v)) ** 2 for v in row), Fraction(0))


def beyond(rows: np.ndarray, clip_norm: float) -> int:
    """Rows whose exact norm, in rational arithmetic, is above C."""
    return sum(exact_norm_squared(row) > Fraction(clip_norm) ** 2 for row in rows)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.lists(ANY_FLOAT, min_size=3, max_size=3), min_size=1, max_size=4),
    clip_norm=st.floats(2.0**-400, 2.0**400),
)
def test_no_row_is_longer_than_the_clip_norm_whatever_it_holds(rows: list[list[float]], clip_norm: float) -> None:
    clipped = clip(np.array(rows), clip_norm)
    assert beyond(clipped, clip_norm) == 0
    assert np.isfinite(clipped).all()


def test_rounding_does_not_lift_a_row_over_the_bound_where_the_textbook_formula_does() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(400, 35)) * rng.uniform(0.9, 40.0, size=(400, 1))
    textbook = rows * np.minimum(1.0, 1.0 / np.linalg.norm(rows, axis=1, keepdims=True))
    assert beyond(textbook, 1.0) > 20
    assert beyond(clip(rows, 1.0), 1.0) == 0


def test_short_rows_stay_and_long_rows_keep_their_direction() -> None:
    rows = np.array([[0.3, 0.4], [30.0, 40.0], [0.0, 0.0], [1e308, 1e308]])
    clipped = clip(rows, 1.0)
    assert clipped[0].tolist() == [0.3, 0.4]
    np.testing.assert_allclose(clipped[1], [0.6, 0.8], rtol=1e-14)
    assert clipped[2].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(clipped[3], [math.sqrt(0.5)] * 2, rtol=1e-14)
    assert rows[1].tolist() == [30.0, 40.0], "the argument must not change"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_with_a_value_that_is_not_finite_becomes_zero_and_others_do_not(bad: float) -> None:
    clipped = clip(np.array([[bad, 1.0], [0.5, 0.5]]), 1.0)
    assert clipped.tolist() == [[0.0, 0.0], [0.5, 0.5]]


def test_tiny_and_huge_rows_are_neither_lost_nor_overflow() -> None:
    rows = np.array([[5e-324, 5e-324], [1.7e308, -1.7e308]])
    clipped = clip(rows, 1e100)
    assert clipped[0].tolist() == [5e-324, 5e-324]
    assert np.linalg.norm(clipped[1] / 1e100) == pytest.approx(1.0)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf, 1e-200])
def test_a_clip_norm_that_bounds_nothing_is_refused(clip_norm: float) -> None:
    with pytest.raises(MisuseError):
        clip(np.ones((2, 2)), clip_norm)


def test_only_tables_of_doubles_are_taken() -> None:
    for bad in (np.ones(3), np.ones((2, 2), dtype=np.float32), np.ones((2, 2), dtype=np.int64)):
        with pytest.raises(MisuseError):
            clip(bad, 1.0)
        with pytest.raises(MisuseError):
            quantise(bad, 1.0, SEED)


def test_no_patients_give_an_empty_table_and_a_sum_of_zero() -> None:
    assert clip(np.empty((0, 4)), 1.0).shape == (0, 4)
    assert quantise(np.empty((0, 4)), 8.0, SEED).tolist() == [0, 0, 0, 0]


def test_each_value_becomes_one_of_its_two_neighbours_on_the_grid() -> None:
    row = np.array([[0.1, -0.1, 2.5, -7.75, 3.0, -3.0, 0.0, 1e-20, -1e-20]])
    seen = np.array([quantise(row, 4.0, i.to_bytes(32, "big")) for i in range(200)])
    scaled = row[0] * 4.0
    assert (seen >= np.floor(scaled)).all()
    assert (seen <= np.ceil(scaled)).all()
    assert len({tuple(s) for s in seen.tolist()}) > 2, "rounding must be random"


def test_whole_numbers_are_added_as_they_are() -> None:
    rows = np.arange(12.0).reshape(4, 3) - 5
    assert quantise(rows, 2.0, SEED).tolist() == (2 * rows.sum(axis=0)).astype(int).tolist()


def test_patients_are_rounded_one_by_one_so_that_leaving_out_the_last_leaves_the_others() -> None:
    rows = np.random.default_rng(2).normal(size=(3000, 200))
    last = quantise(rows, 10.0, SEED) - quantise(rows[:-1], 10.0, SEED)
    assert (np.abs(last - rows[-1] * 10.0) < 1).all()


def test_a_row_longer_than_a_portion_is_rounded_whole() -> None:
    row = np.full((2, 300_001), 0.25)
    total = quantise(row, 1.0, SEED)
    assert set(total.tolist()) == {0, 1, 2}
    assert abs(total.mean() - 0.5) < 0.01


@pytest.mark.parametrize("bad", [math.nan, math.inf, 2.0**51])
@pytest.mark.parametrize("row", [0, 1, 999])
def test_values_that_the_grid_cannot_hold_are_refused_wherever_they_stand(bad: float, row: int) -> None:
    rows = np.zeros((1000, 700))
    rows[row, 3] = bad
    with pytest.raises(MisuseError):
        quantise(rows, 1.0, SEED)


def test_a_sum_that_could_overflow_is_refused() -> None:
    rows = np.full((2**13, 1), 2.0**49)
    assert quantise(rows[: 2**12], 1.0, SEED)[0] == 2**61
    with pytest.raises(MisuseError):
        quantise(rows, 1.0, SEED)


def cut(rows: np.ndarray, borders: list[int]) -> list[np.ndarray]:
    return np.split(rows, sorted(b % (len(rows) + 1) for b in borders))


@settings(max_examples=60, deadline=None)
@given(
    patients=st.integers(0, 40),
    size=st.sampled_from([1, 2, 7, 100, 4097, 8192, 8193, 20_001]),
    borders=st.lists(st.integers(0, 1000), max_size=6),
)
def test_rows_come_to_the_same_bytes_however_they_are_divided(patients: int, size: int, borders: list[int]) -> None:
    """Clipped among others or alone, a row is the same doubles and reads the same stretch of the keystream."""
    rng = np.random.default_rng(patients)
    rows = rng.normal(size=(patients, size)) * rng.uniform(0.2, 5.0, size=(patients, 1)) / math.sqrt(size)
    parts = cut(rows, borders)
    whole = clip(rows, 1.0)
    assert np.concatenate([clip(part, 1.0) for part in parts]).tobytes() == whole.tobytes()
    summed = GridSum(size, 100.0, SEED)
    for part in parts:
        summed.add(clip(part, 1.0))
    assert summed.total.tobytes() == quantise(whole, 100.0, SEED).tobytes()


def test_a_table_of_another_memory_order_is_the_same_table() -> None:
    rows = np.random.default_rng(4).normal(size=(60, 9_000))
    assert clip(np.asfortranarray(rows), 1.0).tobytes() == clip(rows, 1.0).tobytes()


def test_a_portion_that_reads_another_stretch_of_the_keystream_is_seen() -> None:
    """The control of the test above: rows in another order are as good a sum, and other bytes."""
    rows = np.random.default_rng(5).uniform(size=(6, 50))
    assert (quantise(rows, 1.0, SEED) != quantise(rows[::-1], 1.0, SEED)).any()


def test_the_room_of_a_sum_counts_all_portions_together() -> None:
    rows = np.full((2**12, 1), 2.0**49)
    summed = GridSum(1, 1.0, SEED)
    summed.add(rows[:1])
    summed.add(np.ones((2**10, 1)))
    summed.add(rows)
    with pytest.raises(MisuseError):
        summed.add(rows)


@pytest.mark.parametrize("columns", [2, 4])
def test_rows_of_another_length_are_not_added(columns: int) -> None:
    with pytest.raises(MisuseError):
        GridSum(3, 1.0, SEED).add(np.ones((2, columns)))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_no_scale_is_refused(scale: float) -> None:
    with pytest.raises(MisuseError):
        quantise(np.ones((1, 1)), scale, SEED)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_seed_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(MisuseError):
        quantise(np.ones((1, 1)), 1.0, bytes(size))


def test_one_seed_gives_rounding_and_noise_unrelated_bits() -> None:
    """False alarm 1e-6 a comparison. Read from one stream, rounding's word i would be noise's shorts 4i..4i+3."""
    rounded = quantise(np.full((1, 25_000), 0.5), 1.0, SEED)
    noise = discrete_gaussian(8.0, 100_000, SEED).reshape(-1, 4)
    for part in range(4):
        assert abs(np.corrcoef(rounded, noise[:, part])[0, 1]) < 4.9 / math.sqrt(25_000)


def test_rounding_needs_little_memory_however_many_patients_there_are() -> None:
    rows = np.random.default_rng(3).uniform(size=(8000, 500))
    tracemalloc.start()
    quantise(rows, 7.0, SEED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.nbytes == 32_000_000
    assert peak < 16_000_000
