from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from flute.errors import MisuseError
from flute.primitives.prg import MAX_STREAM_BYTES, add_keystream, keystream

KEY = hashlib.sha256(b"key").digest()
SIZES = [0, 1, 8, 15, 16, 17, 256 * 1024 - 8, 256 * 1024, 256 * 1024 + 8, 3 * 256 * 1024 + 24]


def counter_mode_from_2(key: bytes, size: int) -> bytes:
    return Cipher(AES(key), CTR((2).to_bytes(16, "big"))).encryptor().update(bytes(size))


@pytest.mark.parametrize("size", SIZES)
def test_stream_is_aes_in_counter_mode_from_2(size: int) -> None:
    assert keystream(KEY, size) == counter_mode_from_2(KEY, size)


def test_counter_mode_from_1_is_another_stream() -> None:
    other = Cipher(AES(KEY), CTR((1).to_bytes(16, "big"))).encryptor().update(bytes(64))
    assert keystream(KEY, 64) != other


@pytest.mark.parametrize("words", [1, 2, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 100_000])
def test_adding_and_taking_away_a_stream_is_exact_across_blocks(words: int) -> None:
    start = np.arange(words, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    y = start.copy()
    add_keystream(y, KEY)
    expected = start + np.frombuffer(counter_mode_from_2(KEY, 8 * words), dtype="<u8")
    assert np.array_equal(y, expected)
    add_keystream(y, KEY, negative=True)
    assert np.array_equal(y, start)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(31), bytes(33)])
def test_a_key_of_another_size_is_refused(key: bytes) -> None:
    with pytest.raises(MisuseError):
        keystream(key, 16)


@pytest.mark.parametrize("size", [-1, MAX_STREAM_BYTES + 1])
def test_a_stream_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(MisuseError):
        keystream(KEY, size)


def test_only_flat_ring_vectors_are_masked() -> None:
    for wrong in (np.zeros(4, dtype=np.int64), np.zeros((2, 2), dtype=np.uint64)):
        with pytest.raises(MisuseError):
            add_keystream(wrong, KEY)  # type: ignore[arg-type]
