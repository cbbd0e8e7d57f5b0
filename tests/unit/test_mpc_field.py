"""Two prime fields side by side, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

from flute.errors import MisuseError
from flute.mpc.bits import inverse_root
from flute.mpc.field import NARROW, NARROW_PRIME, SECOND_PRIME, WIDE, Elements, Prime, join, modulus, to_signed

PRIMES = (NARROW_PRIME, SECOND_PRIME)
BOTH = pytest.mark.parametrize("prime", PRIMES, ids=lambda prime: str(prime.p))


def drawn(prime: Prime, *shape: int, seed: int = 1) -> Elements:
    values = np.random.default_rng(seed).integers(0, prime.p, shape, dtype=np.uint64)
    edges = [0, 1, prime.p - 1, prime.p // 2, prime.p - 2]
    values.reshape(-1)[: len(edges)] = edges
    return values


def is_prime(number: int) -> bool:
    """Miller and Rabin with the bases that decide every number below 3.3e24."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):
        x = pow(base, odd, number)
        if x in (1, number - 1):
            continue
        if not any((x := x * x % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


def test_both_moduli_are_prime_and_the_test_of_it_sees_composites() -> None:
    assert is_prime(NARROW_PRIME.p)
    assert is_prime(SECOND_PRIME.p)
    assert not is_prime(2**61 - 3)
    assert not is_prime(2**58 - 25)
    assert 2**118.9 < modulus(WIDE) < 2**119


@BOTH
def test_operations_agree_with_integers(prime: Prime) -> None:
    a, b = drawn(prime, 40_000, seed=1), drawn(prime, 40_000, seed=2)
    x, y = a.astype(object), b.astype(object)
    assert (prime.mul(a, b) == x * y % prime.p).all()
    assert (prime.add(a, b) == (x + y) % prime.p).all()
    assert (prime.sub(a, b) == (x - y) % prime.p).all()
    assert (prime.neg(a) == -x % prime.p).all()
    for factor in (0, 1, -1, 3, -5, prime.p - 2, 2**200 + 7):
        assert (prime.scale(a, factor) == x * factor % prime.p).all()


@BOTH
def test_results_are_always_in_their_one_form(prime: Prime) -> None:
    a = drawn(prime, 5_000)
    whole = np.full(64, prime.p - 1, np.uint64)
    for result in (prime.mul(a, a), prime.mul(whole, whole), prime.neg(a), prime.reduce(whole * np.uint64(4))):
        assert int(result.max()) < prime.p


@BOTH
def test_matrices_multiply_exactly_even_where_every_entry_is_largest(prime: Prime) -> None:
    a, b = drawn(prime, 3, 2_500), drawn(prime, 2_500, 4, seed=5)
    largest = np.full((2, 3_000), prime.p - 1, np.uint64)
    for left, right in ((a, b), (largest, largest.T.copy())):
        expected = left.astype(object) @ right.astype(object) % prime.p
        assert (prime.matmul(left, right) == expected).all()
        assert (prime.combine(left, right) == expected).all()


@BOTH
def test_stacks_of_matrices_and_sums(prime: Prime) -> None:
    a, b = drawn(prime, 7, 2, 5), drawn(prime, 7, 5, 3, seed=3)
    assert (prime.matmul(a, b) == np.matmul(a.astype(object), b.astype(object)) % prime.p).all()
    assert (prime.sum(a, (0, 2)) == a.astype(object).sum((0, 2)) % prime.p).all()
    weights = [3, -4, 2**70, 5, 0, prime.p - 1, 9]
    assert (prime.weigh(a, weights) == np.tensordot(weights, a.astype(object), 1) % prime.p).all()
    assert (prime.weigh(a[:2], weights[:2]) == np.tensordot(weights[:2], a[:2].astype(object), 1) % prime.p).all()


@BOTH
def test_any_word_is_reduced(prime: Prime) -> None:
    words = np.array([0, prime.p - 1, prime.p, prime.p + 1, 2**63, 2**64 - 1], np.uint64)
    assert (prime.reduce(words) == words.astype(object) % prime.p).all()


def test_signed_numbers_up_to_118_bits_come_back() -> None:
    numbers = [0, 1, -1, 2**60, -(2**60), 2**117 + 12345, -(2**117) + 1, modulus(WIDE) // 2, -(modulus(WIDE) // 2)]
    array = np.array(numbers, dtype=object)
    assert list(to_signed(WIDE, [prime.elements(array) for prime in WIDE])) == numbers
    small = np.array([0, -5, 2**59, -(2**59)], dtype=np.int64)
    assert list(to_signed(NARROW, [NARROW_PRIME.elements(small)])) == list(small)


def test_joined_residues_are_the_number() -> None:
    numbers = np.array([0, 1, 2**61 - 2, 2**61 - 1, 2**61, 2**100 + 3, modulus(WIDE) - 1], dtype=object)
    high, low = join([prime.elements(numbers) for prime in WIDE])
    assert (high.astype(object) * 2**61 + low.astype(object) == numbers).all()
    assert int(low.max()) < 2**61


def test_the_inverse_root_of_a_square_is_one() -> None:
    r = drawn(NARROW_PRIME, 200)[1:]
    squares = NARROW_PRIME.mul(r, r)
    root = inverse_root(squares)
    assert (NARROW_PRIME.mul(NARROW_PRIME.mul(root, root), squares) == 1).all()
    no_squares = NARROW_PRIME.neg(squares)  # -1 is no square modulo 2^61 - 1
    wrong = inverse_root(no_squares)
    assert not (NARROW_PRIME.mul(NARROW_PRIME.mul(wrong, wrong), no_squares) == 1).any()


def test_matrices_of_other_sizes_are_refused() -> None:
    with pytest.raises(MisuseError):
        NARROW_PRIME.matmul(drawn(NARROW_PRIME, 2, 3), drawn(NARROW_PRIME, 4, 2))
