"""The law of a table is exact, a draw follows it bit by bit, and the variances of a coarse and a fine draw add up to
the one that is charged."""

from __future__ import annotations

import math
from bisect import bisect_right
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from flute.defaults import MAX_HUB_SIGMA, MAX_VECTOR
from flute.dp import noise
from flute.dp.noise import (
    COARSE,
    FINE_SIGMA,
    MAX_SIGMA,
    MIN_SIGMA,
    Keystream,
    discrete_gaussian,
    layers_of,
)
from flute.dp.tables import MAX_TABLE_SIGMA, OPEN, Table, table_for
from flute.errors import MisuseError

SEED = bytes(range(32))


def table_at(sigma: float) -> Table:
    return table_for(Fraction(sigma) ** 2)


def decimal_law(variance: Fraction, reach: int) -> list[Fraction]:
    """P(x), x = -reach..reach, each weight by its own exponential in 130 decimal digits."""
    with localcontext() as context:
        context.prec = 130
        twice = 2 * Decimal(variance.numerator) / variance.denominator
        weight = [(-(Decimal(x) ** 2) / twice).exp() for x in range(reach + 1)]
        total = weight[0] + 2 * sum(weight[1:])
        return [Fraction(weight[abs(x)] / total) for x in range(-reach, reach + 1)]


LAW_BITS = 4 * 16 + 256


def law_of(table: Table) -> list[int]:
    """2^LAW_BITS P(x), x = -reach..reach, that drawing from the table has: all levels' entries, and the last step."""
    law, left = [0] * (2 * table.reach + 1), 1
    for i, level in enumerate(table.levels, start=1):
        values, counts = np.unique(level[level != OPEN], return_counts=True)
        for x, count in zip(values.tolist(), counts.tolist(), strict=True):
            law[x + table.reach] += left * count << (LAW_BITS - 16 * i)
        left *= int((level == OPEN).sum())
    edges = [0, *table.last, 2**256]
    return [p + left * (high - low) for p, (low, high) in zip(law, pairwise(edges), strict=True)]


def distance(law: list[int], expected: list[Fraction]) -> float:
    """log2 of the largest difference of any value's probability."""
    return math.log2(max(abs(p - e * 2**LAW_BITS) for p, e in zip(law, expected, strict=True))) - LAW_BITS


VARIANCES = [Fraction(1, 4), Fraction(1), Fraction(3.7) ** 2, Fraction(1600), Fraction(10, 7)]


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_law_of_a_table_is_exact_to_250_bits_at_every_value(variance: Fraction) -> None:
    table = table_for(variance)
    law = law_of(table)
    assert len(table.levels) == 4
    assert sum(law) == 2**LAW_BITS
    assert distance(law, decimal_law(variance, table.reach)) < -250
    nearly = decimal_law(variance * (1 + Fraction(1, 2**100)), table.reach)
    assert distance(law, nearly) > -120, "a variance 2^-100 off is seen"


def test_the_law_of_the_largest_table_is_exact_in_the_middle_and_at_its_ends() -> None:
    table, sigma = table_at(1950.0), Decimal(1950)
    law, reach = law_of(table), table.reach
    with localcontext() as context:
        context.prec = 100
        weight = [(-(Decimal(x) ** 2) / (2 * sigma**2)).exp() for x in range(reach + 1)]
        total = weight[0] + 2 * sum(weight[1:])
        some = [0, 1, 2, 577, 4000, 9000, reach - 1, reach]
        expected = [Fraction(weight[x] / total) for x in some]
    assert sum(law) == 2**LAW_BITS
    assert distance([law[reach + x] for x in some], expected) < -250
    assert distance([law[reach - x] for x in some], expected) < -250


@pytest.mark.parametrize("sigma", [0.5, 3.0, 1000.0, 1950.0])
def test_what_the_table_leaves_out_is_below_one_in_2_to_the_183(sigma: float) -> None:
    reach = table_at(sigma).reach
    assert reach < 2**15 - 1
    assert math.log2(2) - (reach + 1) ** 2 / (2 * sigma**2) * math.log2(math.e) < -183


@pytest.mark.parametrize("sigma", [3.0, 1000.0, 1950.0])
def test_two_draws_in_ten_thousand_at_most_need_the_last_slow_step(sigma: float) -> None:
    assert math.prod(float((level == OPEN).mean()) for level in table_at(sigma).levels) < 2e-4


class FixedStream(Keystream):
    """Hands out one 256-bit number for ever."""

    def __init__(self, number: int) -> None:
        self.bytes = number.to_bytes(32, "big")

    def take(self, size: int) -> NDArray[np.uint8]:
        assert size == 32
        return np.frombuffer(self.bytes, dtype=np.uint8)


def test_the_last_step_inverts_all_256_bits() -> None:
    table = table_at(4.0)
    for i in range(0, 2 * table.reach, 7):
        edge = table.last[i]
        below = noise._invert(table, FixedStream(max(edge - 1, 0)), 2).tolist()
        at = noise._invert(table, FixedStream(edge), 1).tolist()
        assert below == [bisect_right(table.last, max(edge - 1, 0)) - table.reach] * 2
        assert at == [bisect_right(table.last, edge) - table.reach]
        assert edge == 0 or below[0] < at[0]
    assert noise._invert(table, FixedStream(2**256 - 1), 1).tolist() == [table.reach]
    assert noise._invert(table, FixedStream(0), 1)[0] >= -table.reach


def slow_draws(table: Table, size: int, stream: Keystream) -> list[int]:
    """What `_draw` promises, level by level in plain Python."""
    values: list[int | None] = [None] * size
    for level in table.levels:
        for i in [i for i, value in enumerate(values) if value is None]:
            entry = int(level[int.from_bytes(stream.take(2).tobytes(), "little")])
            values[i] = None if entry == OPEN else entry
    for i in [i for i, value in enumerate(values) if value is None]:
        number = int.from_bytes(stream.take(32).tobytes(), "big")
        values[i] = sum(edge <= number for edge in table.last) - table.reach
    return [value for value in values if value is not None]


@pytest.mark.parametrize("sigma", [3.0, 1000.0])
def test_draws_equal_a_plain_walk_through_the_levels_on_the_same_bits(sigma: float) -> None:
    expected = slow_draws(table_at(sigma), 20_000, Keystream(SEED, 1))
    assert discrete_gaussian(sigma, 20_000, SEED).tolist() == expected


def test_a_walk_that_reaches_the_last_step_equals_the_plain_one() -> None:
    """Levels with all but a few entries removed, so that most draws pass them all."""
    table = table_at(3.0)
    level = np.where(np.arange(2**16) % 8 == 0, table.levels[0], OPEN)
    sparse = Table(table.reach, (level, level), table.last)
    expected = slow_draws(sparse, 500, Keystream(SEED, 1))
    assert noise._draw(sparse, Keystream(SEED, 1), 500).tolist() == expected


def test_the_stream_is_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A F.5.5 uses another counter block, so the block cipher itself is checked: FIPS 197 C.3."""
    key = bytes.fromhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    blocks = [bytes([7]) + i.to_bytes(15, "big") for i in range(3)]
    assert Keystream(key, 7).take(48).tobytes() == Cipher(AES256(key), ECB()).encryptor().update(b"".join(blocks))


def test_streams_of_other_labels_and_other_seeds_differ() -> None:
    streams = {Keystream(SEED, label).take(32).tobytes() for label in range(256)}
    streams |= {Keystream(bytes([i + 1]) * 32, 1).take(32).tobytes() for i in range(100)}
    assert len(streams) == 356


def test_a_stream_is_the_same_however_it_is_cut() -> None:
    sizes = [0, 1, 15, 16, 17, 2 * noise._BLOCK, 2 * noise._BLOCK + 1, 7]
    stream = Keystream(SEED, 1)
    pieces = b"".join(stream.take(size).tobytes() for size in sizes)
    assert pieces == Keystream(SEED, 1).take(sum(sizes)).tobytes()


LARGE = [math.nextafter(1950.0, 2000.0), 2000.1, 2500.0, 16_000.0, MAX_HUB_SIGMA, 1e5, float(MAX_SIGMA)]


@pytest.mark.parametrize("sigma", LARGE)
def test_the_variances_of_a_coarse_and_a_fine_draw_add_up_to_what_is_charged_exactly(sigma: float) -> None:
    coarse, fine = layers_of(sigma)
    assert COARSE**2 * coarse + fine == Fraction(sigma) ** 2
    assert fine == FINE_SIGMA**2
    assert Fraction(MIN_SIGMA) ** 2 <= coarse <= MAX_TABLE_SIGMA**2


@pytest.mark.parametrize("sigma", [0.5, 3.1, 1000.0, 1950.0])
def test_noise_within_a_table_is_one_exact_draw(sigma: float) -> None:
    assert layers_of(sigma) == [Fraction(sigma) ** 2]


def log2_of_tau(coarse: Fraction, fine: Fraction, step: int) -> float:
    """log2 of tau = ln (1+e)/(1-e), e = 2 sum_j exp(-2 pi^2 t^2 j^2), 1/t^2 = 1/coarse + step^2/fine."""
    t_squared = float(1 / (1 / coarse + Fraction(step) ** 2 / fine))
    return math.log2(4.0001) - 2 * math.pi**2 * t_squared * math.log2(math.e)


@pytest.mark.parametrize("sigma", LARGE)
def test_a_coarse_and_a_fine_draw_stay_within_2_to_the_minus_445_of_the_discrete_gaussian(sigma: float) -> None:
    coarse, fine = layers_of(sigma)
    assert log2_of_tau(coarse, fine, COARSE) < -445
    assert log2_of_tau(coarse, fine / 16, COARSE) > -31, "fine noise of one coarse step would show"


@pytest.mark.parametrize(("coarse", "fine", "step"), [(4.0, 2.0, 4), (3.0, 2.0, 2), (1.0, 1.2, 1), (2.0, 3.0, 5)])
def test_the_pointwise_bound_holds_where_it_is_large_enough_to_be_seen(coarse: float, fine: float, step: int) -> None:
    """The claim itself, at deviations where tau is 1e-9 to 0.5: summed in full, no draws."""
    sigma = math.hypot(step * coarse, fine)
    t = coarse * fine / sigma
    e = 2 * sum(math.exp(-2 * math.pi**2 * t**2 * j**2) for j in range(1, 10))
    tau = math.log((1 + e) / (1 - e))
    x = np.arange(-math.ceil(6 * sigma), math.ceil(6 * sigma) + 1)
    y = np.arange(-math.ceil(12 * coarse), math.ceil(12 * coarse) + 1)
    joint = np.exp(-(y**2) / (2 * coarse**2) - (x[:, None] - step * y) ** 2 / (2 * fine**2))
    wide = np.arange(-math.ceil(40 * sigma), math.ceil(40 * sigma) + 1)
    norms = [np.exp(-(wide**2) / (2 * s**2)).sum() for s in (coarse, fine, sigma)]
    ratio = np.log(joint.sum(axis=1) / (norms[0] * norms[1])) - np.log(np.exp(-(x**2) / (2 * sigma**2)) / norms[2])
    worst = float(np.abs(ratio).max())
    assert worst <= tau + 1e-13
    assert worst > tau / 4, "the bound is not slack by much"


def test_a_large_draw_is_64_times_a_coarse_one_plus_a_fine_one() -> None:
    sigma, size = 2500.0, 5000
    stream = Keystream(SEED, noise._LABEL)
    coarse, fine = (noise._draw(table_for(v), stream, size).astype(np.int64) for v in layers_of(sigma))
    assert discrete_gaussian(sigma, size, SEED).tolist() == (64 * coarse + fine).tolist()


def test_all_large_noise_shares_one_fine_table_and_the_default_grid_fits_the_tables_kept() -> None:
    grid = [1000.0 * 2**i for i in range(7)]
    variances = {variance for sigma in grid for variance in layers_of(sigma)}
    assert grid[-1] == MAX_HUB_SIGMA
    assert len(variances) == 8
    for _ in range(2):
        before = table_for.cache_info().misses
        for sigma in grid:
            discrete_gaussian(sigma, 1, SEED)
    assert table_for.cache_info().misses == before, "the second pass builds nothing"


def test_what_a_hub_may_be_asked_for_can_be_drawn() -> None:
    assert MAX_HUB_SIGMA <= MAX_SIGMA
    assert MAX_SIGMA >= 1e5


def test_the_same_seed_gives_the_same_noise_and_another_bit_gives_other_noise() -> None:
    other = bytes([SEED[0] ^ 1]) + SEED[1:]
    first = discrete_gaussian(1000.0, 1000, SEED)
    assert first.dtype == np.int64
    assert first.tolist() == discrete_gaussian(1000.0, 1000, SEED).tolist()
    assert (first == discrete_gaussian(1000.0, 1000, other)).mean() < 0.02


def test_blocks_do_not_repeat() -> None:
    draws = discrete_gaussian(1000.0, 3 * noise._BLOCK, SEED).reshape(3, -1)
    assert (draws[0] == draws[1]).mean() < 0.01
    assert (draws[1] == draws[2]).mean() < 0.01


@pytest.mark.parametrize("sigma", [0.0, 0.49, -3.0, math.nan, math.inf, MAX_SIGMA * 1.001])
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
    table = table_at(5.0)
    assert table_at(5.0) is table
    for array in table.levels:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
