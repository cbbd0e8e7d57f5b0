"""Public numbers of a step: eight bytes each, the same there and back, and never changed through what was read."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from flute.errors import Malformed
from flute.messages.numbers import read_numbers, read_only, write_numbers

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


def test_what_was_read_cannot_be_changed() -> None:
    for found in (read_numbers(bytes(16)), read_only([1.0, 2.0]), read_only(np.ones(2))):
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 5.0


def test_big_endian_numbers_and_stretched_arrays_are_written_alike() -> None:
    values = np.arange(10.0)
    assert write_numbers(values.astype(">f8")) == write_numbers(values)
    assert write_numbers(values[::2]) == write_numbers(values[::2].copy())


def test_what_is_read_only_already_is_not_copied() -> None:
    found = read_numbers(bytes(80))
    assert np.shares_memory(read_only(found), found)
