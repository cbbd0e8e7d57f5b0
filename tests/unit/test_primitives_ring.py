from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.errors import Malformed, MisuseError
from flute.primitives.ring import add_into, from_bytes, from_ring, to_bytes, to_ring

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT64, min_size=1, max_size=20))
def test_signed_integers_survive_the_ring_and_the_wire(values: list[int]) -> None:
    x = np.array(values, dtype=np.int64)
    assert np.array_equal(from_ring(from_bytes(to_bytes(to_ring(x)), len(values))), x)


@given(INT64, INT64)
def test_addition_is_mod_two_to_the_64(a: int, b: int) -> None:
    total = to_ring(np.array([a], dtype=np.int64))
    add_into(total, to_ring(np.array([b], dtype=np.int64)))
    assert int(total[0]) == (a + b) % 2**64


def test_words_travel_little_endian() -> None:
    assert to_bytes(to_ring(np.array([1, -1], dtype=np.int64))) == b"\x01" + bytes(7) + b"\xff" * 8


@pytest.mark.parametrize("raw", [b"", bytes(15), bytes(17), bytes(24)])
def test_another_number_of_bytes_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        from_bytes(raw, 2)


def test_other_types_and_lengths_are_refused() -> None:
    with pytest.raises(MisuseError):
        to_ring(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(MisuseError):
        from_ring(np.zeros((2, 2), dtype=np.uint64))
    with pytest.raises(MisuseError):
        add_into(np.zeros(3, dtype=np.uint64), np.zeros(4, dtype=np.uint64))
