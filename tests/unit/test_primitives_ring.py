from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.errors import Malformed, MisuseError
from flute.primitives.ring import WORD_BYTES, add_into, check_ring, from_bytes, to_bytes

WIDTHS = st.sampled_from(WORD_BYTES)


def ring(values: list[int], word_bytes: int) -> np.ndarray:
    return np.array([value % 2 ** (8 * word_bytes) for value in values], dtype=f"u{word_bytes}")


@given(WIDTHS, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_signed_integers_survive_the_ring_and_the_wire(word_bytes: int, values: list[int]) -> None:
    half = 2 ** (8 * word_bytes - 1)
    x = np.array([(value + half) % (2 * half) - half for value in values], dtype=f"i{word_bytes}")
    words = x.view(f"u{word_bytes}")
    back = from_bytes(to_bytes(words), len(values), word_bytes)
    assert back.dtype == words.dtype
    assert np.array_equal(back.view(x.dtype), x)


@given(WIDTHS, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_addition_is_mod_two_to_the_width(word_bytes: int, a: int, b: int) -> None:
    total = ring([a], word_bytes)
    add_into(total, ring([b], word_bytes))
    assert int(total[0]) == (a + b) % 2 ** (8 * word_bytes)


@pytest.mark.parametrize("word_bytes", WORD_BYTES)
def test_words_travel_little_endian(word_bytes: int) -> None:
    assert to_bytes(ring([1, -1], word_bytes)) == b"\x01" + bytes(word_bytes - 1) + b"\xff" * word_bytes
    swapped = ring([1, -1], word_bytes).astype(f">u{word_bytes}")
    assert to_bytes(swapped) == to_bytes(ring([1, -1], word_bytes))


@pytest.mark.parametrize("word_bytes", WORD_BYTES)
@pytest.mark.parametrize("off", [-1, 1])
def test_another_number_of_bytes_is_refused(word_bytes: int, off: int) -> None:
    from_bytes(bytes(2 * word_bytes), 2, word_bytes)
    for size in (0, 2 * word_bytes + off, 3 * word_bytes):
        with pytest.raises(Malformed, match="arrived"):
            from_bytes(bytes(size), 2, word_bytes)


@pytest.mark.parametrize("word_bytes", [0, 1, 3, 16])
def test_words_of_another_width_are_refused(word_bytes: int) -> None:
    with pytest.raises(MisuseError):
        from_bytes(bytes(48), 3, word_bytes)


def test_residues_from_the_wire_share_its_bytes_and_cannot_be_changed() -> None:
    raw = to_bytes(ring([7, 8], 4))
    words = from_bytes(raw, 2, 4)
    assert np.shares_memory(words, np.frombuffer(raw, dtype=np.uint8))
    for kind in (raw, bytearray(raw), memoryview(bytearray(raw))):
        with pytest.raises(ValueError, match="read-only"):
            from_bytes(kind, 2, 4)[0] = 1


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(3), np.zeros(3, dtype=np.int64), np.zeros((2, 2), dtype=np.uint64), np.zeros(3, dtype=np.uint8)],
)
def test_only_flat_vectors_of_residues_are_in_the_ring(wrong: np.ndarray) -> None:
    for refuses in (check_ring, to_bytes):
        with pytest.raises(MisuseError):
            refuses(wrong)


def test_two_lengths_or_two_widths_are_not_added() -> None:
    for other in (np.zeros(4, dtype=np.uint64), np.zeros(1, dtype=np.uint64), np.zeros(3, dtype=np.uint32)):
        with pytest.raises(MisuseError):
            add_into(np.zeros(3, dtype=np.uint64), other)
