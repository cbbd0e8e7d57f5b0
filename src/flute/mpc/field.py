"""Arithmetic in two prime fields side by side: residues modulo 2^61 - 1 and 2^58 - 27.

A number below 2^119 is known by its two residues (Chinese remainder theorem), so that a number of 77 bits can be
hidden under a mask of 117 bits while every product stays one of 64-bit words. Elements are uint64 arrays of residues
in [0, p), in that one form everywhere. Products of matrices go through float64 matrix multiplication in limbs of 21
bits, which is exact: 2^21 · 2^21 · 1024 = 2^52 < 2^53.

Source: reduction by 2^e - c: Crandall 1992 (US 5,159,632, expired), and Menezes et al. 1996, algorithm 14.47.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.errors import MisuseError

Elements = NDArray[np.uint64]
"""uint64, any shape, each in [0, p)."""
Integers = NDArray[Any]
"""int64, or object with Python integers."""
_STEP: Final = 1 << 14
"""Elements per pass: four scratch rows of 128 kB stay in the second-level cache."""
_FEW: Final = 4
"""Weights that are applied one by one: small ones cost a quarter of a product."""
_LIMB: Final = 21
_LIMBS: Final = 3
_EXACT: Final = 1024
"""Terms that one floating-point sum of limb products may have."""
_U = np.uint64


@dataclass(frozen=True)
class Prime:
    """The field of p = 2^bits - gap, a prime; 57 to 61 bits, gap below 32. `split`: bits of a lower half."""

    bits: int
    gap: int
    split: int

    @cached_property
    def p(self) -> int:
        return int(2**self.bits - self.gap)

    @cached_property
    def _constants(self) -> tuple[np.uint64, ...]:
        high = self.bits - self.split
        return (
            _U(self.split), _U(2**self.split - 1), _U(2 ** (2 * self.split - self.bits) * self.gap),
            _U(high), _U(2**high - 1), _U(self.bits), _U(2**self.bits - 1), _U(self.gap), _U(self.p),
        )  # fmt: skip

    def zeros(self, shape: tuple[int, ...]) -> Elements:
        return np.zeros(shape, np.uint64)

    def element(self, value: int) -> Elements:
        """One public integer, as an array without dimensions."""
        return np.asarray(value % self.p, np.uint64)

    def elements(self, values: Integers) -> Elements:
        """Residues of signed integers: int64 of any magnitude, or Python integers."""
        if values.dtype == object:
            return np.array([int(v) % self.p for v in values.ravel()], np.uint64).reshape(values.shape)
        return np.mod(values.astype(np.int64), np.int64(self.p)).astype(np.uint64)

    def reduce(self, words: Elements) -> Elements:
        """Any 64-bit words, modulo p."""
        _, _, _, _, _, bits, mask, gap, _ = self._constants
        return self._lowered(np.add(np.bitwise_and(words, mask), np.multiply(np.right_shift(words, bits), gap)))

    def _lowered(self, words: Elements) -> Elements:
        """Words below 2p in [0, p): where p cannot be taken off, the difference wraps and is the larger one."""
        return np.asarray(np.minimum(words, np.subtract(words, self._constants[8])))

    def add(self, a: Elements, b: Elements) -> Elements:
        return self._lowered(np.add(a, b))

    def sub(self, a: Elements, b: Elements) -> Elements:
        change = np.subtract(a, b)
        return np.asarray(np.minimum(change, np.add(change, self._constants[8])))

    def neg(self, a: Elements) -> Elements:
        return self.sub(np.zeros_like(a), a)

    def mul(self, a: Elements, b: Elements) -> Elements:
        """Element by element, with numpy's broadcasting."""
        left, right = (a, b) if np.shape(a) == np.shape(b) else np.broadcast_arrays(a, b)
        out = np.empty(left.shape, np.uint64)
        flat, x, y = out.reshape(-1), left.reshape(-1), right.reshape(-1)
        rows = np.empty((4, min(_STEP, flat.size)), np.uint64)
        for start in range(0, flat.size, _STEP):
            part = slice(start, start + _STEP)
            self._mul_into(x[part], y[part], flat[part], rows[:, : flat[part].size])
        return out

    def _mul_into(self, a: Elements, b: Elements, out: Elements, rows: Elements) -> None:
        """out = a · b. With a = a1·2^s + a0: hi·2^2s + mid·2^s + lo, each below 2^63, and 2^bits = gap."""
        split, low_mask, high_factor, high, high_mask, bits, mask, gap, p = self._constants
        a1, b1, a0, b0 = rows
        np.right_shift(a, split, out=a1)
        np.right_shift(b, split, out=b1)
        np.bitwise_and(a, low_mask, out=a0)
        np.bitwise_and(b, low_mask, out=b0)
        np.multiply(a0, b0, out=out)
        np.multiply(a0, b1, out=a0)
        np.multiply(b0, a1, out=b0)
        mid = np.add(a0, b0, out=a0)
        np.multiply(a1, b1, out=a1)
        np.multiply(a1, high_factor, out=a1)
        np.add(out, a1, out=out)
        np.right_shift(mid, high, out=b0)
        np.multiply(b0, gap, out=b0)
        np.add(out, b0, out=out)
        np.bitwise_and(mid, high_mask, out=mid)
        np.left_shift(mid, split, out=mid)
        np.add(out, mid, out=out)
        np.right_shift(out, bits, out=a0)
        np.multiply(a0, gap, out=a0)
        np.bitwise_and(out, mask, out=out)
        np.add(out, a0, out=out)
        np.subtract(out, p, out=a0)
        np.minimum(out, a0, out=out)

    def scale(self, a: Elements, factor: int) -> Elements:
        """a · factor for a public integer; a small one, as Lagrange's weights often are, in a quarter of the time."""
        reduced = factor % self.p
        if reduced.bit_length() + self.bits <= 64:
            return self.reduce(a * _U(reduced))
        if (self.p - reduced).bit_length() + self.bits <= 64:
            return self.neg(self.reduce(a * _U(self.p - reduced)))
        return self.mul(a, self.element(reduced))

    def weigh(self, values: Elements, weights: Sequence[int]) -> Elements:
        """The sum over the first axis of values times public weights. Many short rows are done in one pass."""
        if len(values) <= _FEW or values[0].size >= _STEP:
            return reduce(self.add, [self.scale(value, w) for value, w in zip(values, weights, strict=True)])
        column = np.array([w % self.p for w in weights], np.uint64).reshape(-1, *[1] * (values.ndim - 1))
        return self.sum(self.mul(values, column), axis=0)

    def inverse(self, value: int) -> int:
        return pow(value, -1, self.p)

    def sum(self, a: Elements, axis: int | tuple[int, ...] | None = None) -> Elements:
        """Sum over an axis of at most 2^32 elements."""
        low = np.asarray(np.sum(a & _U(2**32 - 1), axis=axis, dtype=np.uint64))
        high = np.asarray(np.sum(a >> _U(32), axis=axis, dtype=np.uint64))
        return self.add(self.mul(self.reduce(high), self.element(2**32)), self.reduce(low))

    def matmul(self, a: Elements, b: Elements) -> Elements:
        """a @ b, exactly, with numpy's rules for stacks of matrices; both at least two-dimensional.

        Raises: MisuseError: the inner sizes differ.
        """
        inner = a.shape[-1]
        if inner != b.shape[-2]:
            raise MisuseError(f"A matrix of {inner} columns cannot meet one of {b.shape[-2]} rows.")
        total: Elements | None = None
        for start in range(0, inner, _EXACT):
            part = slice(start, start + _EXACT)
            product = self._matmul_part(a[..., part], b[..., part, :])
            total = product if total is None else self.add(total, product)
        if total is None:
            raise MisuseError("A product of matrices needs at least one column.")
        return total

    def _matmul_part(self, a: Elements, b: Elements) -> Elements:
        left, right = _limbs(a), _limbs(b)
        total: Elements | None = None
        for weight in range(2 * _LIMBS - 1):
            pairs = [(i, weight - i) for i in range(_LIMBS) if 0 <= weight - i < _LIMBS]
            words = sum([np.matmul(left[i], right[j]).astype(np.uint64) for i, j in pairs], start=np.uint64(0))
            term = self.scale(self.reduce(np.asarray(words)), 2 ** (_LIMB * weight))
            total = term if total is None else self.add(total, term)
        assert total is not None
        return total

    def combine(self, weights: Elements, columns: Elements) -> Elements:
        """weights [r, k] @ columns [k, c] for long k and small r, c, in blocks of one stack of small products."""
        length = columns.shape[0]
        blocks = -(-length // _EXACT)
        room = blocks * _EXACT
        left = np.zeros((weights.shape[0], room), np.uint64)
        right = np.zeros((room, columns.shape[1]), np.uint64)
        left[:, :length], right[:length] = weights, columns
        stacked = self._matmul_part(
            left.reshape(-1, blocks, _EXACT).transpose(1, 0, 2), right.reshape(blocks, _EXACT, -1)
        )
        return self.sum(stacked, axis=0)


def _limbs(a: Elements) -> list[NDArray[np.float64]]:
    mask = _U(2**_LIMB - 1)
    return [((a >> _U(_LIMB * i)) & mask).astype(np.float64) for i in range(_LIMBS)]


NARROW_PRIME: Final = Prime(bits=61, gap=1, split=31)
SECOND_PRIME: Final = Prime(bits=58, gap=27, split=29)
Ring = tuple[Prime, ...]
NARROW: Final[Ring] = (NARROW_PRIME,)
"""Bits and what is computed from them."""
WIDE: Final[Ring] = (NARROW_PRIME, SECOND_PRIME)
"""Numbers: residues modulo both primes, one integer modulo their product."""


def modulus(ring: Ring) -> int:
    product = 1
    for prime in ring:
        product *= prime.p
    return product


def join(residues: Sequence[Elements]) -> tuple[Elements, Elements]:
    """The integer c in [0, p1·p2) with these residues, as high · 2^61 + low, low < 2^61.

    c = r1 + p1·h with h = (r2 - r1)/p1 mod p2; as p1 = 2^61 - 1 that is h·2^61 + (r1 - h)."""
    first, second = residues
    wrapped = SECOND_PRIME.reduce(first)
    inverse = SECOND_PRIME.inverse(NARROW_PRIME.p)
    high = SECOND_PRIME.scale(SECOND_PRIME.sub(second, wrapped), inverse)
    borrow = first < high
    low = np.where(borrow, first + _U(2**61) - high, first - high)
    return high - borrow.astype(np.uint64), low


def to_signed(ring: Ring, residues: Sequence[Elements]) -> Integers:
    """Python integers in (-P/2, P/2) with these residues, P the product of the primes. Shape as given."""
    if len(ring) == 1:
        values = residues[0].astype(object)
    else:
        high, low = join(residues)
        values = high.astype(object) * 2**61 + low.astype(object)
    product = modulus(ring)
    return np.where(values > product // 2, values - product, values)
