"""The sampling table is exact, and every lazy level decides what all 256 bits would."""

from __future__ import annotations

import math
from bisect import bisect_right
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from flute.defaults import MAX_HUB_SIGMA, MAX_VECTOR
from flute.dp import noise
from flute.dp.noise import Keystream, discrete_gaussian, table_for
from flute.errors import MisuseError

SEED = bytes(range(32))


def decimal_thresholds(sigma: float, reach: int) -> list[Fraction]:
    """2^256 F(x) for x = -reach..reach-1, each weight by its own exponential in 130 decimal digits."""
    with localcontext() as context:
        context.prec = 130
        variance = 2 * Decimal(sigma) ** 2
        weight = [(-(Decimal(x) ** 2) / variance).exp() for x in range(reach + 1)]
        total = weight[0] + 2 * sum(weight[1:])
        below, result = Decimal(0), []
        for x in range(-reach, reach):
            below += weight[abs(x)]
            result.append(Fraction(below / total) * 2**256)
    return result


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.7, 40.0])
def test_every_threshold_is_right_to_the_last_of_256_bits(sigma: float) -> None:
    table = table_for(sigma)
    expected = decimal_thresholds(sigma, table.reach)
    assert len(table.thresholds) == 2 * table.reach
    assert max(abs(t - e) for t, e in zip(table.thresholds, expected, strict=True)) <= 2


@pytest.mark.parametrize("sigma", [0.5, 3.0, 1000.0, 1950.0])
def test_what_the_table_leaves_out_is_below_one_in_2_to_the_180(sigma: float) -> None:
    reach = table_for(sigma).reach
    assert reach < 2**15 - 1
    assert math.log2(2) - (reach + 1) ** 2 / (2 * sigma**2) * math.log2(math.e) < -180


@pytest.mark.parametrize("sigma", [0.5, 12.5, 1000.0])
def test_sixteen_bits_decide_only_what_no_further_bit_could_change(sigma: float) -> None:
    table = table_for(sigma)
    for prefix in range(0, 2**16, 7):
        lowest = bisect_right(table.thresholds, prefix << 240) - table.reach
        highest = bisect_right(table.thresholds, ((prefix + 1) << 240) - 1) - table.reach
        assert table.first[prefix] == (lowest if lowest == highest else noise._OPEN)


@pytest.mark.parametrize("sigma", [0.5, 12.5, 1000.0])
def test_twenty_four_bits_decide_only_what_no_further_bit_could_change(sigma: float) -> None:
    table = table_for(sigma)
    open16 = np.flatnonzero(table.first == noise._OPEN)
    for prefix in open16[:: max(1, len(open16) // 40)].tolist():
        for byte in range(256):
            bits = (prefix << 8) | byte
            lowest = bisect_right(table.thresholds, bits << 232) - table.reach
            highest = bisect_right(table.thresholds, ((bits + 1) << 232) - 1) - table.reach
            expected = lowest if lowest == highest else noise._OPEN
            assert table.second[table.rows[prefix], byte] == expected


class FixedStream(Keystream):
    """Hands out the same byte for ever."""

    def __init__(self, byte: int) -> None:
        self.byte = byte

    def take(self, size: int) -> bytes:
        return bytes([self.byte]) * size


@pytest.mark.parametrize("byte", [0x00, 0x5A, 0xFF])
def test_a_tie_in_64_bits_is_settled_by_192_more(byte: int) -> None:
    table = table_for(4.0)
    keys = np.unique(np.concatenate([table.top, table.top + np.uint64(1), table.top[10:] - np.uint64(1)]))
    tail = int.from_bytes(bytes([byte]) * 24, "big")
    expected = [bisect_right(table.thresholds, (int(k) << 192) | tail) - table.reach for k in keys]
    assert noise._by_64_bits(table, keys, FixedStream(byte)).tolist() == expected


@pytest.mark.parametrize("sigma", [3.0, 1000.0])
def test_lazy_draws_equal_plain_inversion_of_the_same_bits(sigma: float) -> None:
    size, table = 20_000, table_for(sigma)
    short, more, words = (Keystream(SEED, label) for label in (noise._SHORT, noise._BYTES, noise._WORDS))
    prefixes = np.frombuffer(short.take(2 * size), dtype="<u2").tolist()
    # Bits that a lazy draw never asked for may be anything: zeros stand for them.
    open16 = [bisect_right(table.thresholds, p << 240) != bisect_right(table.thresholds, ((p + 1) << 240) - 1)
              for p in prefixes]  # fmt: skip
    uniforms = []
    for prefix, is_open in zip(prefixes, open16, strict=True):
        uniform = prefix << 240
        if is_open:
            uniform |= more.take(1)[0] << 232
            if bisect_right(table.thresholds, uniform) != bisect_right(table.thresholds, uniform + (1 << 232) - 1):
                uniform |= (int.from_bytes(words.take(8), "little") >> 24) << 192
        uniforms.append(uniform)
    expected = [bisect_right(table.thresholds, u) - table.reach for u in uniforms]
    third = sum(u % 2**232 > 0 for u in uniforms)
    assert sigma < 10 or third > 5, "the third level must be reached"
    assert discrete_gaussian(sigma, size, SEED).tolist() == expected


def test_the_stream_is_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A F.5.5 uses another counter block, so the block cipher itself is checked: FIPS 197 C.3."""
    key = bytes.fromhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    blocks = [bytes([7]) + i.to_bytes(15, "big") for i in range(3)]
    assert Keystream(key, 7).take(48) == Cipher(AES256(key), ECB()).encryptor().update(b"".join(blocks))


def test_streams_of_other_labels_and_other_seeds_differ() -> None:
    streams = {Keystream(SEED, label).take(32) for label in range(256)}
    streams |= {Keystream(bytes([i + 1]) * 32, 1).take(32) for i in range(100)}
    assert len(streams) == 356


def test_the_same_seed_gives_the_same_noise_and_another_bit_gives_other_noise() -> None:
    other = bytes([SEED[0] ^ 1]) + SEED[1:]
    first = discrete_gaussian(1000.0, 1000, SEED)
    assert first.dtype == np.int64
    assert first.tolist() == discrete_gaussian(1000.0, 1000, SEED).tolist()
    assert (first == discrete_gaussian(1000.0, 1000, other)).mean() < 0.02


def test_blocks_do_not_repeat() -> None:
    draws = discrete_gaussian(1000.0, 3 * 2**16, SEED).reshape(3, -1)
    assert (draws[0] == draws[1]).mean() < 0.01
    assert (draws[1] == draws[2]).mean() < 0.01


@pytest.mark.parametrize("sigma", [0.0, 0.49, -3.0, math.nan, math.inf, MAX_HUB_SIGMA * 1.001])
def test_noise_that_cannot_be_drawn_soundly_is_refused(sigma: float) -> None:
    with pytest.raises(MisuseError):
        discrete_gaussian(sigma, 1, SEED)


@pytest.mark.parametrize("size", [-1, MAX_VECTOR + 1])
def test_a_size_beyond_the_limits_is_refused(size: int) -> None:
    with pytest.raises(MisuseError):
        discrete_gaussian(3.0, size, SEED)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_seed_of_another_length_is_refused_even_for_no_draws(length: int) -> None:
    with pytest.raises(MisuseError):
        discrete_gaussian(3.0, 0, bytes(length))


def test_no_draws_are_no_draws() -> None:
    assert discrete_gaussian(3.0, 0, SEED).shape == (0,)


def test_a_table_is_built_once_and_cannot_be_changed() -> None:
    table = table_for(5.0)
    assert table_for(5.0) is table
    for array in (table.top, table.first, table.rows, table.second):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
