from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.errors import MisuseError
from flute.primitives.prg import MAX_STREAM_BYTES, Stream, add_keystream, keystream
from flute.primitives.ring import WORD_BYTES

KEY = hashlib.sha256(b"key").digest()
STEP = 256 * 1024
SIZES = [0, 1, 8, 15, 16, 17, STEP - 8, STEP, STEP + 8, 3 * STEP + 24]


def counter_mode_from_2(key: bytes, size: int) -> bytes:
    return Cipher(AES(key), CTR((2).to_bytes(16, "big"))).encryptor().update(bytes(size))


def counting(words: int, word_bytes: int) -> np.ndarray:
    return (np.arange(words, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(f"u{word_bytes}")


@pytest.mark.parametrize("size", SIZES)
def test_stream_is_aes_in_counter_mode_from_2(size: int) -> None:
    assert keystream(KEY, size) == counter_mode_from_2(KEY, size)


def test_counter_mode_from_1_is_another_stream() -> None:
    other = Cipher(AES(KEY), CTR((1).to_bytes(16, "big"))).encryptor().update(bytes(64))
    assert keystream(KEY, 64) != other


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 100), st.sampled_from([STEP - 1, STEP, STEP + 1])), max_size=12))
def test_pieces_of_any_size_are_one_long_stream(sizes: list[int]) -> None:
    """Also where a piece ends within a cipher block of 16 bytes."""
    stream = Stream(KEY)
    pieces = [bytes(block) for size in sizes for block in stream.blocks(size)]
    assert b"".join(pieces) == counter_mode_from_2(KEY, sum(sizes))


def test_a_stream_that_began_anew_for_each_piece_would_be_seen() -> None:
    again = keystream(KEY, 24) + keystream(KEY, 24)
    assert again != counter_mode_from_2(KEY, 48)


@pytest.mark.parametrize("word_bytes", WORD_BYTES)
@pytest.mark.parametrize("words", [0, 1, 2, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 100_000, 150_001])
def test_adding_and_taking_away_a_stream_is_exact_across_blocks(words: int, word_bytes: int) -> None:
    start = counting(words, word_bytes)
    y = start.copy()
    add_keystream(y, KEY)
    mask = np.frombuffer(counter_mode_from_2(KEY, word_bytes * words), dtype=f"<u{word_bytes}")
    assert np.array_equal(y, start + mask)
    add_keystream(y, KEY, negative=True)
    assert np.array_equal(y, start)


@pytest.mark.parametrize("word_bytes", WORD_BYTES)
def test_a_mask_that_is_added_in_parts_goes_on_where_it_stopped(word_bytes: int) -> None:
    """Odd sizes, so that words of the next part begin within a cipher block."""
    whole, parts = counting(70_007, word_bytes), counting(70_007, word_bytes)
    add_keystream(whole, KEY)
    stream = Stream(KEY)
    for start, stop in ((0, 1), (1, 4), (4, 4), (4, 65_543), (65_543, 70_007)):
        stream.add_to(parts[start:stop])
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(31), bytes(33)])
def test_a_key_of_another_size_is_refused(key: bytes) -> None:
    with pytest.raises(MisuseError):
        keystream(key, 16)


@pytest.mark.parametrize("size", [-1, MAX_STREAM_BYTES + 1])
def test_a_stream_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(MisuseError):
        keystream(KEY, size)


def test_a_stream_ends_where_its_counter_would_repeat() -> None:
    """What was read before counts; half of GCM's 2^32 - 2 blocks, so the counter cannot wrap."""
    stream = Stream(KEY)
    list(stream.blocks(STEP))
    with pytest.raises(MisuseError, match="at most"):
        next(stream.blocks(MAX_STREAM_BYTES - STEP + 1))
    next(stream.blocks(MAX_STREAM_BYTES - STEP))
    assert MAX_STREAM_BYTES // 16 < 2**32 - 2


@pytest.mark.parametrize(
    "wrong", [np.zeros(4, dtype=np.int64), np.zeros((2, 2), dtype=np.uint64), np.zeros(4, dtype=np.uint8)]
)
def test_only_flat_ring_vectors_are_masked(wrong: np.ndarray) -> None:
    with pytest.raises(MisuseError):
        add_keystream(wrong, KEY)
