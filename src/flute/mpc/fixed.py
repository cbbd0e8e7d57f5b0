"""Numbers in fixed point on shares: v / 2^fraction, v a wide shared integer.

Sums and public integer factors are exact. Every product is rounded: its error is below (C + 1)/2 units of
2^-fraction, C = C(n, t) the number of groups (3 hubs: 2 units; 5: 5.5; 10: 105), mean 0, standard deviation
sqrt(C/12) units.

Who writes a program answers for magnitudes: |x·y|·2^(fx + fy) < 2^party.value_bits for every product and for all
inputs within their bounds (with 3 hubs 76 bits: two numbers of 30 fraction bits may have a product below 2^16).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flute.errors import MisuseError
from flute.mpc import shares as _shares
from flute.mpc.field import Integers
from flute.mpc.shares import Shares
from flute.mpc.steps import Place, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flute.mpc.party import Party

Reals = NDArray[np.float64]


def encode(values: ArrayLike, fraction: int) -> Integers:
    """The nearest multiples of 2^-fraction, as integers. Raises: MisuseError: not finite, or 2^63 or more."""
    scaled = np.rint(np.asarray(values, np.float64) * 2.0**fraction)
    if scaled.size and not np.abs(scaled).max() < 2.0**63:
        raise MisuseError("A number is not finite or too large for this many fraction bits.")
    return scaled.astype(np.int64)


def decode(values: Integers, fraction: int) -> Reals:
    """Opened integers as reals."""
    return np.asarray(np.asarray(values) / 2**fraction, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """Shared numbers in fixed point. Immutable; methods that are generators communicate."""

    party: Party
    shares: Shares
    fraction: int

    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shares.shape

    @property
    def size(self) -> int:
        return self.shares.size

    def of(self, shares: Shares) -> Fixed:
        """Other shares in the same format."""
        return Fixed(self.party, shares, self.fraction)

    def __add__(self, other: Fixed | ArrayLike) -> Fixed:
        return self.of(self.shares + self._term(other))

    def __sub__(self, other: Fixed | ArrayLike) -> Fixed:
        return self.of(self.shares - self._term(other))

    def __radd__(self, other: ArrayLike) -> Fixed:
        return self + other

    def __rsub__(self, other: ArrayLike) -> Fixed:
        return -self + other

    def __neg__(self) -> Fixed:
        return self.of(-self.shares)

    def __mul__(self, factor: Integers | int) -> Fixed:
        """Times public integers, exactly. For reals: `scale`."""
        return self.of(self.shares * factor)

    def __rmul__(self, factor: Integers | int) -> Fixed:
        return self * factor

    def __getitem__(self, index: Any) -> Fixed:
        return self.of(self.shares[index])

    def reshape(self, *shape: int) -> Fixed:
        return self.of(self.shares.reshape(*shape))

    def transpose(self, *axes: int) -> Fixed:
        return self.of(self.shares.transpose(*axes))

    @property
    def T(self) -> Fixed:
        return self.transpose()

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Fixed:
        return self.of(self.shares.sum(axis))

    def broadcast_to(self, *shape: int) -> Fixed:
        return self.of(self.shares.broadcast_to(*shape))

    def finer(self, fraction: int) -> Fixed:
        """The same numbers with more fraction bits; exact, no message."""
        if fraction < self.fraction:
            raise MisuseError("Fraction bits are dropped by `rounded`, which communicates.")
        return Fixed(self.party, self.shares * 2 ** (fraction - self.fraction), fraction)

    def rounded(self, fraction: int, *, bound: int | None = None) -> Step[Fixed]:
        """With fewer fraction bits: one round after settling."""
        if fraction >= self.fraction:
            return self.finer(fraction)
        shares = yield from self.party.truncate(self.shares, self.fraction - fraction, bound=bound)
        return Fixed(self.party, shares, fraction)

    def mul(self, other: Fixed, *, bound: int | None = None) -> Step[Fixed]:
        """Element by element, in this one's format. bound: |x·y|·2^(fx + fy) < 2^bound, for better hiding."""
        shares = yield from self.party.mul_truncate(self.shares, other.shares, other.fraction, bound=bound)
        return self.of(shares)

    def dot(self, other: Fixed, *, bound: int | None = None) -> Step[Fixed]:
        """self @ other: rounded once per output element, whatever the number of terms."""
        shares = yield from self.party.dot_truncate(self.shares, other.shares, other.fraction, bound=bound)
        return self.of(shares)

    def scale(self, factors: ArrayLike, *, fraction: int | None = None, bound: int | None = None) -> Step[Fixed]:
        """Times public reals, taken to `fraction` bits (as many as this one's unless said)."""
        places = self.fraction if fraction is None else fraction
        shares = yield from self.party.truncate(self.shares * encode(factors, places), places, bound=bound)
        return self.of(shares)

    def open(self, *, to: Place | None = None) -> Step[Reals | None]:
        """See `Party.open`; as reals."""
        values = yield from self.party.open(self.shares, to=to)
        return None if values is None else decode(values, self.fraction)

    def _term(self, other: Fixed | ArrayLike) -> Shares | Integers:
        if not isinstance(other, Fixed):
            return encode(other, self.fraction)
        if other.fraction != self.fraction:
            raise MisuseError("Numbers of different fraction bits do not add; use `finer` or `rounded` first.")
        return other.shares


def constant(party: Party, values: ArrayLike, fraction: int) -> Fixed:
    """Public reals as shared numbers, without a message."""
    return Fixed(party, party.constant(encode(values, fraction)), fraction)


def concatenate(parts: Sequence[Fixed], axis: int = 0) -> Fixed:
    return _joined(parts, _shares.concatenate([part.shares for part in parts], axis))


def stack(parts: Sequence[Fixed], axis: int = 0) -> Fixed:
    return _joined(parts, _shares.stack([part.shares for part in parts], axis))


def _joined(parts: Sequence[Fixed], shares: Shares) -> Fixed:
    if any(part.fraction != parts[0].fraction for part in parts):
        raise MisuseError("Numbers of different fraction bits cannot be put together.")
    return parts[0].of(shares)
