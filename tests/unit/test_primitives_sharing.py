from __future__ import annotations

import contextlib
import hashlib
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.errors import BadShare, MisuseError
from flute.primitives.sharing import (
    PRIME,
    SHARE_SIZE,
    Interpolation,
    check_share,
    combine,
    split,
    split_rand_size,
)

SECRET = st.binary(min_size=32, max_size=32)


def rand(threshold: int, seed: bytes = b"") -> bytes:
    return hashlib.shake_256(b"rand" + seed).digest(split_rand_size(threshold))


def is_prime(n: int) -> bool:
    """Miller and Rabin with 40 bases: a composite passes with probability under 4^-40."""
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for i in range(40):
        x = pow(int.from_bytes(hashlib.sha256(bytes([i])).digest(), "big") % (n - 3) + 2, d, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(s - 1)):
            return False
    return True


def test_field_is_the_smallest_prime_that_holds_a_secret() -> None:
    assert is_prime(PRIME)
    assert not any(is_prime(n) for n in range(2**256, PRIME))


@settings(deadline=None)
@given(SECRET, st.integers(2, 7), st.integers(0, 5), st.binary(max_size=8), st.data())
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, threshold: int, more: int, seed: bytes, data: st.DataObject
) -> None:
    holders = threshold + more
    shares = split(secret, threshold=threshold, holders=holders, rand=rand(threshold, seed))
    xs = data.draw(st.permutations(range(1, holders + 1)))[:threshold]
    assert combine({x: shares[x - 1] for x in xs}, threshold=threshold) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31) + b"\x01"])
def test_extreme_secrets_survive(secret: bytes) -> None:
    shares = split(secret, threshold=2, holders=3, rand=rand(2))
    for pair in combinations(range(1, 4), 2):
        assert combine({x: shares[x - 1] for x in pair}, threshold=2) == secret


def test_fewer_shares_fit_every_secret() -> None:
    """With t - 1 shares fixed, any secret at all has a last share that gives it: they say nothing."""
    shares = split(b"s" * 32, threshold=3, holders=3, rand=rand(3))
    held = {1: int.from_bytes(shares[0], "big"), 2: int.from_bytes(shares[1], "big")}
    for claim in (bytes(32), b"\xff" * 32, hashlib.sha256(b"any").digest()):
        points = {0: int.from_bytes(claim, "big"), **held}
        last = 0
        for x, y in points.items():
            weight = 1
            for other in points:
                if other != x:
                    weight = weight * (3 - other) * pow(x - other, -1, PRIME) % PRIME
            last = (last + y * weight) % PRIME
        forged = {1: shares[0], 2: shares[1], 3: last.to_bytes(SHARE_SIZE, "big")}
        assert combine(forged, threshold=3) == claim


def test_one_wrong_share_gives_a_wrong_secret_or_none() -> None:
    shares = split(b"s" * 32, threshold=2, holders=2, rand=rand(2))
    wrong = (int.from_bytes(shares[1], "big") ^ 1).to_bytes(SHARE_SIZE, "big")
    with contextlib.suppress(BadShare):
        assert combine({1: shares[0], 2: wrong}, threshold=2) != b"s" * 32


@pytest.mark.parametrize("value", [PRIME, PRIME + 1, 2**264 - 1])
def test_a_share_outside_the_field_is_refused(value: int) -> None:
    share = value.to_bytes(SHARE_SIZE, "big")
    with pytest.raises(BadShare):
        check_share(share)
    with pytest.raises(BadShare):
        combine({1: share, 2: bytes(SHARE_SIZE)}, threshold=2)


def test_the_largest_element_is_accepted() -> None:
    check_share((PRIME - 1).to_bytes(SHARE_SIZE, "big"))


def test_shares_whose_secret_has_no_32_bytes_are_refused() -> None:
    too_large = (2**256 + 5).to_bytes(SHARE_SIZE, "big")
    with pytest.raises(BadShare, match="one secret"):
        combine({1: too_large, 2: too_large}, threshold=2)


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34)])
def test_a_share_of_another_size_is_refused(share: bytes) -> None:
    with pytest.raises(BadShare):
        check_share(share)


@pytest.mark.parametrize(("threshold", "holders"), [(1, 3), (0, 3), (4, 3)])
def test_thresholds_that_protect_nothing_are_refused(threshold: int, holders: int) -> None:
    with pytest.raises(MisuseError):
        split(bytes(32), threshold=threshold, holders=holders, rand=bytes(max(split_rand_size(threshold), 0)))


def test_wrong_sizes_and_numbers_are_refused() -> None:
    with pytest.raises(MisuseError):
        split(bytes(31), threshold=2, holders=3, rand=rand(2))
    with pytest.raises(MisuseError):
        split(bytes(32), threshold=2, holders=3, rand=rand(3))
    shares = split(bytes(32), threshold=2, holders=3, rand=rand(2))
    for bad in ({}, {1: shares[0]}, {1: shares[0], 2: shares[1], 3: shares[2]}, {0: shares[0], 1: shares[1]}):
        with pytest.raises(MisuseError):
            combine(bad, threshold=2)


# --- weights that are worked out once ------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(SECRET, min_size=1, max_size=5), st.integers(2, 6), st.integers(0, 4), st.data())
def test_one_interpolation_serves_every_secret_of_the_same_holders(
    secrets: list[bytes], threshold: int, more: int, data: st.DataObject
) -> None:
    holders = threshold + more
    xs = data.draw(st.permutations(range(1, holders + 1)))[:threshold]
    weights = Interpolation(xs)
    for i, secret in enumerate(secrets):
        shares = split(secret, threshold=threshold, holders=holders, rand=rand(threshold, bytes([i])))
        assert weights.combine({x: shares[x - 1] for x in xs}) == secret
        in_another_order = {x: shares[x - 1] for x in sorted(xs, reverse=True)}
        assert weights.combine(in_another_order) == secret


def test_more_holders_than_the_threshold_agree_with_the_threshold() -> None:
    shares = split(b"s" * 32, threshold=2, holders=5, rand=rand(2))
    everyone = dict(enumerate(shares, 1))
    assert Interpolation(tuple(everyone)).combine(everyone) == b"s" * 32


def test_fewer_holders_than_the_threshold_give_another_secret() -> None:
    shares = split(b"s" * 32, threshold=3, holders=3, rand=rand(3))
    with contextlib.suppress(BadShare):
        assert Interpolation((1, 2)).combine({1: shares[0], 2: shares[1]}) != b"s" * 32


@pytest.mark.parametrize("holders", [(), (1,), (1, 1), (2, 3, 2), (0, 1), (-1, 2)])
def test_holders_that_are_too_few_or_not_distinct_are_refused(holders: tuple[int, ...]) -> None:
    with pytest.raises(MisuseError, match="distinct holders"):
        Interpolation(holders)


def test_shares_of_other_holders_than_the_weights_are_refused() -> None:
    shares = split(b"s" * 32, threshold=2, holders=3, rand=rand(2))
    weights = Interpolation((1, 2))
    for held in ({1: shares[0]}, {1: shares[0], 3: shares[2]}, dict(enumerate(shares, 1))):
        with pytest.raises(MisuseError, match="chosen holders"):
            weights.combine(held)


def test_bad_shares_are_refused_with_ready_weights_too() -> None:
    weights = Interpolation((1, 2))
    for bad in (b"\xff" * SHARE_SIZE, bytes(SHARE_SIZE - 1)):
        with pytest.raises(BadShare):
            weights.combine({1: bytes(SHARE_SIZE), 2: bad})
    too_large = (2**256 + 5).to_bytes(SHARE_SIZE, "big")
    with pytest.raises(BadShare, match="one secret"):
        weights.combine({1: too_large, 2: too_large})
