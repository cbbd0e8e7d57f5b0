"""Public numbers of a step: the same there and back in either form, and never changed through what was read."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from flute.defaults.rounds import NARROW_FROM
from flute.errors import Malformed
from flute.messages.numbers import nearest_narrow, read_numbers, read_only, write_numbers

pytestmark = pytest.mark.requirement("URS-12")


@pytest.mark.parametrize("values", [[], [0.0], [-0.0, 1.5, 5e-324, 1e308], [float("nan"), float("inf")]])
def test_numbers_come_back_bit_by_bit(values: list[float]) -> None:
    raw = write_numbers(np.array(values))
    assert raw == struct.pack(f"<{len(values)}d", *values)
    assert write_numbers(read_numbers(raw)) == raw


@pytest.mark.parametrize("size", [1, 7, 9, 12])
def test_a_part_of_a_number_is_refused(size: int) -> None:
    with pytest.raises(Malformed, match="left over"):
        read_numbers(bytes(size))


def single(size: int) -> np.ndarray:
    """Numbers of 32 bits, the least and the largest among them."""
    values = np.random.default_rng(5).normal(size=size).astype(np.float32)
    values[:4] = -0.0, 1e-45, np.finfo(np.float32).max, np.inf
    return values.astype(np.float64)


@pytest.mark.parametrize("size", [NARROW_FROM, NARROW_FROM + 1, NARROW_FROM + 2, NARROW_FROM + 3])
def test_many_numbers_of_32_bits_travel_as_such_and_come_back_bit_by_bit(size: int) -> None:
    values = single(size)
    raw = write_numbers(values)
    assert (len(raw), raw[0]) == (4 * size + 1, 4)
    assert read_numbers(raw).tobytes() == values.tobytes()
    assert write_numbers(read_numbers(raw)) == raw


@pytest.mark.parametrize("one", [0.1, 1e300, float("nan"), 2.0**-160])
def test_control_one_number_that_32_bits_do_not_hold_keeps_all_of_them_wide(one: float) -> None:
    values = single(NARROW_FROM)
    values[7] = one
    raw = write_numbers(values)
    assert len(raw) == 8 * NARROW_FROM
    assert read_numbers(raw).tobytes() == values.tobytes()


def test_few_numbers_are_wide_whatever_they_are() -> None:
    values = single(NARROW_FROM - 1)
    assert len(write_numbers(values)) == 8 * values.size
    with pytest.raises(Malformed, match="Fewer than"):
        read_numbers(bytes([4]) + values.astype("<f4").tobytes())


def test_the_narrow_form_has_its_mark_and_whole_numbers() -> None:
    raw = write_numbers(single(NARROW_FROM + 1))
    for wrong in (bytes([5]) + raw[1:], raw[:-1], raw + b"\0", raw[1:] + b"\0"):
        with pytest.raises(Malformed, match="left over"):
            read_numbers(wrong)


def test_the_nearest_numbers_of_32_bits_travel_narrow_and_too_large_ones_stay_as_they_are() -> None:
    values = np.linspace(-1, 1, NARROW_FROM)
    near = nearest_narrow(values)
    assert np.abs(near - values).max() <= 2.0**-25
    assert len(write_numbers(near)) == 4 * NARROW_FROM + 1
    values[0] = 1e39
    assert nearest_narrow(values) is values


def test_what_was_read_cannot_be_changed() -> None:
    long = read_numbers(write_numbers(single(NARROW_FROM)))
    for found in (read_numbers(bytes(16)), long, read_only([1.0, 2.0]), read_only(np.ones(2))):
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 5.0


def test_big_endian_numbers_and_stretched_arrays_are_written_alike() -> None:
    values = np.arange(10.0)
    assert write_numbers(values.astype(">f8")) == write_numbers(values)
    assert write_numbers(values[::2]) == write_numbers(values[::2].copy())


def test_what_is_read_only_already_is_not_copied() -> None:
    found = read_numbers(bytes(80))
    assert np.shares_memory(read_only(found), found)
