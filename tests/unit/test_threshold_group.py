"""The skin over the group: arithmetic as of integers modulo the order, and nothing unread passes."""

from __future__ import annotations

import hashlib

import pytest
import rbcl
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.errors import Malformed, MisuseError
from flute.threshold import group
from flute.threshold.group import IDENTITY, ORDER, add, multiply, multiply_base, subtract, write_scalar

SCALARS = st.one_of(st.integers(-5, 5), st.integers(0, ORDER - 1), st.just(ORDER))


@settings(max_examples=40, deadline=None)
@given(SCALARS, SCALARS)
def test_elements_add_and_multiply_as_integers_modulo_the_order(a: int, b: int) -> None:
    assert add(multiply_base(a), multiply_base(b)) == multiply_base((a + b) % ORDER)
    assert subtract(multiply_base(a), multiply_base(b)) == multiply_base((a - b) % ORDER)
    assert multiply(a, multiply_base(b)) == multiply_base(a * b % ORDER)


def test_nothing_times_anything_and_anything_times_nothing_is_the_identity() -> None:
    assert multiply(0, multiply_base(7)) == multiply_base(ORDER) == multiply(7, IDENTITY) == IDENTITY


def test_weighted_sums_and_polynomials_are_those_of_the_numbers_behind_them() -> None:
    numbers, weights = [3, 0, ORDER - 2, 11], [5, 6, 7, ORDER - 1]
    elements = [multiply_base(number) for number in numbers]
    expected = sum(w * x for w, x in zip(weights, numbers, strict=True)) % ORDER
    assert group.weighted(weights, elements) == multiply_base(expected)
    assert group.evaluate(elements, 9) == multiply_base(sum(c * 9**i for i, c in enumerate(numbers)) % ORDER)
    assert group.powers(3, 4) == [3, 9, 27, 81]
    with pytest.raises(MisuseError):
        group.weighted(weights[1:], elements)


NO_ELEMENT = {
    "identity": bytes(32),
    "negative": write_scalar(1),
    "all ones": b"\xff" * 32,
    "the field's prime": (2**255 - 19).to_bytes(32, "little"),
    "high bit set": bytes(multiply_base(5)[:31]) + bytes([multiply_base(5)[31] | 0x80]),
    "short": bytes(multiply_base(5)[:31]),
    "long": bytes(multiply_base(5)) + b"\0",
    "empty": b"",
}


@pytest.mark.parametrize("raw", NO_ELEMENT.values(), ids=NO_ELEMENT)
def test_what_is_no_element_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        group.read_element(raw)
    with pytest.raises(Malformed):
        group.read_elements(bytes(multiply_base(3)) + raw, 2)


def test_control_the_library_takes_two_encodings_for_one_element() -> None:
    """RFC 9496 section 4.3.1 refuses the second."""
    assert rbcl.crypto_core_ristretto255_is_valid_point(NO_ELEMENT["high bit set"])
    assert rbcl.crypto_core_ristretto255_add(NO_ELEMENT["high bit set"], IDENTITY) == multiply_base(5)


def test_control_the_library_takes_a_wrong_encoding_for_the_identity_without_a_word() -> None:
    assert rbcl.crypto_core_ristretto255_add(b"\xff" * 32, multiply_base(5)) == IDENTITY


def test_a_column_holds_as_many_elements_as_it_should() -> None:
    column = b"".join(map(multiply_base, (1, 2, 3)))
    assert group.read_elements(column, 3) == tuple(map(multiply_base, (1, 2, 3)))
    for count in (2, 4):
        with pytest.raises(Malformed):
            group.read_elements(column, count)


def test_a_scalar_has_one_encoding() -> None:
    assert group.read_scalar(write_scalar(ORDER - 1)) == ORDER - 1
    for raw in (write_scalar(ORDER), b"\xff" * 32, bytes(31), bytes(33)):
        with pytest.raises(Malformed):
            group.read_scalar(raw)


def test_scalars_are_made_from_exactly_their_random_bytes() -> None:
    rand = bytes(range(64)) + b"\xff" * 64
    expected = [int.from_bytes(rand[:64], "little") % ORDER, (2**512 - 1) % ORDER]
    assert group.scalars_from(rand, 2) == expected
    for wrong in (rand[:-1], rand + b"\0", b""):
        with pytest.raises(MisuseError):
            group.scalars_from(wrong, 2)
    with pytest.raises(MisuseError):
        group.scalar_from(rand)


def test_challenges_differ_by_label_by_parts_and_by_where_parts_end() -> None:
    asked = [
        (b"one", b"ab", b"c"), (b"two", b"ab", b"c"), (b"one", b"a", b"bc"), (b"one", b"abc"),
        (b"one", b"ab", b"c", b""), (b"one", b"", b"ab", b"c"),
    ]  # fmt: skip
    assert len({group.hash_to_scalar(*parts) for parts in asked}) == len(asked)
    assert group.hash_to_scalar(b"one", b"ab", b"c") == group.hash_to_scalar(b"one", b"ab", b"c")


def test_a_challenge_is_sha_512_over_length_prefixed_parts_modulo_the_order() -> None:
    label = hashlib.sha256((4).to_bytes(8, "big") + b"what").digest()
    body = label + (2).to_bytes(8, "big") + (1).to_bytes(8, "big") + b"x" + (2).to_bytes(8, "big") + b"yz"
    expected = int.from_bytes(hashlib.sha512(body).digest(), "little") % ORDER
    assert group.hash_to_scalar(b"what", b"x", b"yz") == expected
