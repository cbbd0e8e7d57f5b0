"""What a hub holds of values that nobody knows: Shamir shares, and shares of the same values times the check key.

`Shares` is frozen; what is linear (sums, differences, products with public integers, slices, stacks) is done by each
hub alone, on both halves alike. Products of two shared values are the party's business (`mpc.party`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flute.errors import MisuseError
from flute.mpc.field import NARROW, Elements, Integers, Prime, Ring

Residues = tuple[Elements, ...]
Key = tuple[Elements, ...]
"""My share of the check key of each prime, an array without dimensions. Secret."""


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Shares of an array of integers. Ring, shape and place in the program are public, nothing else.

    values: residues by prime. macs: of the values times the check key. The two halves of a value that came out of
    a product are only known to belong together once it was verified.
    """

    ring: Ring
    values: Residues = field(repr=False)
    macs: Residues = field(repr=False)
    key: Key = field(repr=False)

    __array_ufunc__ = None
    """numpy leaves `array * shares` to us."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values[0].shape

    @property
    def size(self) -> int:
        return self.values[0].size

    def __len__(self) -> int:
        return len(self.values[0])

    def __add__(self, other: Shares | Integers | int) -> Shares:
        return self._both(Prime.add, other)

    def __sub__(self, other: Shares | Integers | int) -> Shares:
        return self._both(Prime.sub, other)

    def __radd__(self, other: Integers | int) -> Shares:
        return self + other

    def __rsub__(self, other: Integers | int) -> Shares:
        return -self + other

    def __neg__(self) -> Shares:
        return self._each(Prime.neg)

    def __mul__(self, factor: Shares | Integers | int) -> Shares:
        """Times public integers, element by element."""
        if isinstance(factor, Shares):
            raise MisuseError("Two shared values are multiplied by the party: `yield from party.mul(x, y)`.")
        if isinstance(factor, int | np.integer):
            return self._each(lambda prime, a: prime.scale(a, int(factor)))
        public = integers(factor)
        return self._each(lambda prime, a: prime.mul(a, prime.elements(public)))

    def __rmul__(self, factor: Integers | int) -> Shares:
        return self * factor

    def __matmul__(self, matrix: Integers) -> Shares:
        """Times a public matrix; both at least two-dimensional."""
        public = integers(matrix)
        return self._each(lambda prime, a: prime.matmul(a, prime.elements(public)))

    def __rmatmul__(self, matrix: Integers) -> Shares:
        public = integers(matrix)
        return self._each(lambda prime, a: prime.matmul(prime.elements(public), a))

    def __getitem__(self, index: Any) -> Shares:
        return self._each(lambda _, a: np.asarray(a[index]))

    def reshape(self, *shape: int) -> Shares:
        return self._each(lambda _, a: a.reshape(shape))

    def transpose(self, *axes: int) -> Shares:
        return self._each(lambda _, a: a.transpose(*axes))

    @property
    def T(self) -> Shares:
        return self.transpose()

    def broadcast_to(self, *shape: int) -> Shares:
        return self._each(lambda _, a: np.broadcast_to(a, shape))

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Shares:
        return self._each(lambda prime, a: prime.sum(a, axis))

    def narrow(self) -> Shares:
        """The same values modulo the first prime alone; right where they are below 2^60 in magnitude."""
        return Shares(NARROW, self.values[:1], self.macs[:1], self.key[:1])

    def _each(self, change: Callable[[Prime, Elements], Elements]) -> Shares:
        values = tuple(change(prime, a) for prime, a in zip(self.ring, self.values, strict=True))
        macs = tuple(change(prime, a) for prime, a in zip(self.ring, self.macs, strict=True))
        return Shares(self.ring, values, macs, self.key)

    def _both(
        self, change: Callable[[Prime, Elements, Elements], Elements], other: Shares | Integers | int
    ) -> Shares:
        term = other if isinstance(other, Shares) else constant(self.ring, self.key, other)
        if term.ring != self.ring:
            raise MisuseError("A narrow and a wide value do not mix: take `narrow()` of the wide one.")
        values = tuple(change(*of) for of in zip(self.ring, self.values, term.values, strict=True))
        macs = tuple(change(*of) for of in zip(self.ring, self.macs, term.macs, strict=True))
        return Shares(self.ring, values, macs, self.key)


def integers(public: Any) -> NDArray[Any]:
    """Public integers as int64, or as Python integers where they are longer. Raises: MisuseError: no integers."""
    array = np.asarray(public)
    if array.dtype == bool:
        return array.astype(np.int64)
    if array.dtype != object and array.dtype.kind not in "iu":
        raise MisuseError("Shares meet integers only; scale a real number first (`mpc.fixed`).")
    return array if array.dtype == object or array.dtype.kind == "i" else array.astype(object)


def constant(ring: Ring, key: Key, public: Integers | int) -> Shares:
    """Shares of public integers: the same number at every hub, times the share of the key."""
    array = integers(public)
    values = tuple(prime.elements(array) for prime in ring)
    macs = tuple(prime.mul(v, k) for prime, v, k in zip(ring, values, key, strict=True))
    return Shares(ring, values, macs, key)


def concatenate(parts: Sequence[Shares], axis: int = 0) -> Shares:
    return _joined(parts, lambda arrays: np.concatenate(arrays, axis=axis))


def stack(parts: Sequence[Shares], axis: int = 0) -> Shares:
    return _joined(parts, lambda arrays: np.stack(arrays, axis=axis))


def _joined(parts: Sequence[Shares], join: Callable[[list[Elements]], Elements]) -> Shares:
    if not parts or any(part.ring != parts[0].ring for part in parts):
        raise MisuseError("Only values of one ring, and at least one, can be put together.")
    ring = parts[0].ring
    return Shares(
        ring,
        tuple(join([part.values[k] for part in parts]) for k in range(len(ring))),
        tuple(join([part.macs[k] for part in parts]) for k in range(len(ring))),
        parts[0].key,
    )
