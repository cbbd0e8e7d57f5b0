"""Shamir's secret sharing of 32-byte secrets over GF(2^256 + 297).

Any `threshold` shares give the secret; fewer are uniform and say nothing about it. Shares carry no proof
of their own: who combines them checks commitments first (`aggregation.commitments`).
Source: Shamir 1979, "How to share a secret". 2^256 + 297 is the smallest prime above 2^256, so that every
32-byte string is a field element; a share takes 33 bytes, big-endian.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final

from flute.errors import BadShare, MisuseError

PRIME: Final = 2**256 + 297
SECRET_SIZE: Final = 32
SHARE_SIZE: Final = 33
_COEFFICIENT_BYTES: Final = 48
"""384 bits mod a 257-bit prime: within 2^-127 of uniform."""


def split_rand_size(threshold: int) -> int:
    """Fresh random bytes that `split` needs."""
    return (threshold - 1) * _COEFFICIENT_BYTES


def split(secret: bytes, *, threshold: int, holders: int, rand: bytes) -> tuple[bytes, ...]:
    """Shares for x = 1..holders, in that order; deterministic in `rand` (split_rand_size(threshold) bytes).

    Raises: MisuseError: a wrong size, or not 2 <= threshold <= holders.
    """
    if len(secret) != SECRET_SIZE or len(rand) != split_rand_size(threshold):
        raise MisuseError("A secret or its randomness has the wrong size for sharing.")
    if not 2 <= threshold <= holders:
        raise MisuseError("A threshold must be at least 2 and at most the number of holders.")
    pieces = (rand[i : i + _COEFFICIENT_BYTES] for i in range(0, len(rand), _COEFFICIENT_BYTES))
    coefficients = [int.from_bytes(secret, "big"), *(int.from_bytes(p, "big") % PRIME for p in pieces)]
    return tuple(_evaluate(coefficients, x).to_bytes(SHARE_SIZE, "big") for x in range(1, holders + 1))


def check_share(share: bytes) -> None:
    """Raises: BadShare: not a field element in its one encoding."""
    _number(share)


class Interpolation:
    """Which holders' shares are combined, with their weights: worked out once for all secrets of a round."""

    def __init__(self, holders: Sequence[int]) -> None:
        """holders: as many x (from 1, distinct) as the threshold. Raises: MisuseError: they are not."""
        if len(holders) < 2 or len(set(holders)) != len(holders) or min(holders) < 1:
            raise MisuseError("Shares of at least two distinct holders are needed to combine.")
        self.holders = tuple(holders)
        self._weights = {x: _weight_at_zero(x, self.holders) for x in self.holders}

    def combine(self, shares: Mapping[int, bytes]) -> bytes:
        """The secret from these holders' shares. Guarantees nothing about its truth: a wrong share, a wrong secret.

        Raises: MisuseError: shares of other holders. BadShare: one outside the field, or no 32-byte secret.
        """
        if set(shares) != set(self.holders):
            raise MisuseError("Exactly the shares of the chosen holders are needed to combine.")
        total = sum([_number(share) * self._weights[x] for x, share in shares.items()]) % PRIME
        if total >= 2 ** (8 * SECRET_SIZE):
            raise BadShare("These shares do not belong to one secret.")
        return total.to_bytes(SECRET_SIZE, "big")


def combine(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """The secret from exactly `threshold` shares, x (1-based) to share; see `Interpolation.combine`."""
    if threshold < 2 or len(shares) != threshold:
        raise MisuseError(f"Exactly {threshold} shares of distinct holders are needed to combine.")
    return Interpolation(tuple(shares)).combine(shares)


def _number(share: bytes) -> int:
    number = int.from_bytes(share, "big")
    if len(share) != SHARE_SIZE or number >= PRIME:
        raise BadShare("A key share is not a number of the field that shares are made in.")
    return number


def _evaluate(coefficients: list[int], x: int) -> int:
    """Reduced at the end only: each step makes the number longer by the few bits of x."""
    value = 0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value % PRIME


def _weight_at_zero(x: int, xs: Sequence[int]) -> int:
    """Lagrange's basis polynomial of `x`, evaluated at 0."""
    others = [other for other in xs if other != x]
    top, bottom = prod(others), prod(other - x for other in others)
    return top * pow(bottom, -1, PRIME) % PRIME
