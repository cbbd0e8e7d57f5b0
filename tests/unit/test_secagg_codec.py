from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.aggregation.codec import decode_exact, encode_exact, largest_part, read_total, to_words
from flute.defaults import FIXED_POINT_BITS, SENTINELS
from flute.errors import BadTotal, MisuseError
from flute.primitives.ring import add_into

HUBS = 3
LIMIT = 2**62 / HUBS / 2**FIXED_POINT_BITS
FINITE = st.floats(min_value=-LIMIT, max_value=LIMIT, exclude_min=True, exclude_max=True)


@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1, max_size=10))
def test_exact_sum_stays_within_its_stated_error(rows: list[tuple[float, float, float]]) -> None:
    parts = [np.array(column) for column in zip(*rows, strict=True)]
    total = to_words(encode_exact(parts[0], hubs=HUBS), part_bound=largest_part(HUBS))
    for part in parts[1:]:
        add_into(total, to_words(encode_exact(part, hubs=HUBS), part_bound=largest_part(HUBS)))
    decoded = decode_exact(read_total(total, survivors=HUBS, part_bound=largest_part(HUBS)))
    for k, row in enumerate(rows):
        true = sum(map(Fraction, row))
        stated = Fraction(HUBS, 2 ** (FIXED_POINT_BITS + 1)) + (abs(true) + 1) * Fraction(1, 2**53)
        assert abs(Fraction(decoded[k]) - true) <= stated


def test_rounding_is_to_nearest_at_the_stated_bits() -> None:
    half = 2.0 ** -(FIXED_POINT_BITS + 1)
    x = np.array([half * 0.99, half * 1.01, -half * 1.01, 3 * half, 1.0])
    assert encode_exact(x, hubs=HUBS).tolist() == [0, 1, -1, 2, 2**FIXED_POINT_BITS]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(MisuseError, match="not finite"):
        encode_exact(np.array([1.0, bad]), hubs=HUBS)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_that_the_sum_cannot_hold_is_refused(sign: int) -> None:
    with pytest.raises(MisuseError, match=r"Standardise|fewer bits"):
        encode_exact(np.array([sign * LIMIT]), hubs=HUBS)
    fits = encode_exact(np.array([sign * np.nextafter(LIMIT, 0)]), hubs=HUBS)
    assert abs(int(fits[0])) <= largest_part(HUBS)


def test_fewer_bits_hold_larger_numbers() -> None:
    x = np.array([LIMIT * 1000])
    assert decode_exact(encode_exact(x, hubs=HUBS, bits=20), bits=20) == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("bad", [np.zeros(3, dtype=np.float32), np.zeros((2, 2)), np.zeros(3, dtype=np.int64)])
def test_other_types_and_shapes_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(MisuseError):
        encode_exact(bad, hubs=HUBS)


@pytest.mark.parametrize("bits", [-1, 63])
def test_bits_outside_the_word_are_refused(bits: int) -> None:
    with pytest.raises(MisuseError):
        encode_exact(np.zeros(1), hubs=HUBS, bits=bits)


@pytest.mark.parametrize("value", [11, -11, -(2**63)])
def test_a_part_beyond_its_bound_is_refused_at_the_hub(value: int) -> None:
    with pytest.raises(MisuseError, match="range"):
        to_words(np.array([0, value], dtype=np.int64), part_bound=10)


def total_of(values: list[int], sentinels: int = HUBS) -> np.ndarray:
    return np.array([*values, *[sentinels] * SENTINELS], dtype=np.int64).astype(np.uint64)


def test_largest_sums_pass_and_one_more_is_refused() -> None:
    assert read_total(total_of([30, -30]), survivors=HUBS, part_bound=10).tolist() == [30, -30]
    for value in (31, -31, 2**63 - 1, -(2**63)):
        with pytest.raises(BadTotal, match="outside"):
            read_total(total_of([0, value]), survivors=HUBS, part_bound=10)


@pytest.mark.parametrize("sentinels", [0, HUBS - 1, HUBS + 1, -1])
def test_wrong_sentinels_are_noticed(sentinels: int) -> None:
    with pytest.raises(BadTotal, match="check numbers"):
        read_total(total_of([0], sentinels), survivors=HUBS, part_bound=10)


def test_one_wrong_sentinel_of_four_is_noticed() -> None:
    words = total_of([0])
    for k in range(1, SENTINELS + 1):
        one = words.copy()
        one[-k] += np.uint64(1)
        with pytest.raises(BadTotal):
            read_total(one, survivors=HUBS, part_bound=10)


def test_a_total_longer_than_its_norm_bound_is_refused() -> None:
    assert read_total(total_of([3, 4]), survivors=HUBS, part_bound=10, norm_bound=5.0).tolist() == [3, 4]
    with pytest.raises(BadTotal, match="clip norm"):
        read_total(total_of([3, 5]), survivors=HUBS, part_bound=10, norm_bound=5.0)


@pytest.mark.parametrize("bound", [0, -1, 2**62 // 3 + 1])
def test_a_bound_without_room_is_refused(bound: int) -> None:
    with pytest.raises(MisuseError):
        read_total(total_of([0]), survivors=HUBS, part_bound=bound)
