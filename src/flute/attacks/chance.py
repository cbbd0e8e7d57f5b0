"""Chance of an attacker's own trials, from one seed: simulated patients, coins, shadow models.

Repeatable on purpose, so that a hospital can run the same trial twice. It protects nothing: noise of real answers is
drawn from the operating system's entropy by the hub.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from flute.data.variables import Array
from flute.primitives.prg import keystream

_BITS = 53


class Chance:
    """A sequence of draws that the seed fixes. Two with the same seed give the same draws in the same order."""

    def __init__(self, seed: bytes) -> None:
        self._seed, self._count = hashlib.sha256(b"flute/attack-chance/v1" + seed).digest(), 0

    def bytes(self, size: int) -> bytes:
        self._count += 1
        return keystream(hashlib.sha256(self._seed + self._count.to_bytes(8, "big")).digest(), size)

    def child(self, name: str) -> Chance:
        """A sequence of its own, whatever was drawn here before."""
        return Chance(self._seed + name.encode())

    def uniform(self, *shape: int) -> Array:
        """float64 in (0, 1)."""
        words = np.frombuffer(self.bytes(8 * int(np.prod(shape))), dtype="<u8").reshape(shape)
        return ((words >> np.uint64(64 - _BITS)).astype(np.float64) + 0.5) / 2.0**_BITS

    def normal(self, *shape: int) -> Array:
        return np.asarray(ndtri(self.uniform(*shape)))

    def coins(self, *shape: int, chance: float = 0.5) -> NDArray[np.bool_]:
        return np.asarray(self.uniform(*shape) < chance)

    def integers(self, below: int, *shape: int) -> NDArray[np.int64]:
        return np.minimum((self.uniform(*shape) * below).astype(np.int64), below - 1)

    def order(self, count: int) -> NDArray[Any]:
        """A permutation of range(count)."""
        return np.argsort(self.uniform(count), kind="stable")
