"""Random values that nobody sends: each group expands its key, each hub weighs what its groups drew.

A group A (all hubs but t) draws v; hub i takes f(i)·v, where f is the polynomial of degree t that is 0 at the hubs
outside A. Summed over groups these are Shamir shares, of degree t and consistent by construction, of sum f_A(0)·v_A.
Whoever lacks one group's key sees a uniform value. Nothing can go wrong here by cheating: there is no message.

- `element`: uniform in a field. Weights are products of small integers, for a factor changes no uniform value.
- `masks`: sums of bounded integers, f(0) = 1, known in every field of the ring; and the same without their low bits.
- `owned`: uniform for all but one hub, which knows the value: only the groups that this hub is in.
- `zeros`: additive shares of 0 over all hubs, from the keys of pairs.

Source: Cramer, Damgård, Ishai 2005, sections 3 and 4; the bounded sums: Damgård, Thorbek 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Protocol

import numpy as np

from flute.mpc.field import Elements, Prime, Ring
from flute.mpc.setup import Circle, Group, Keys, stream_key
from flute.mpc.steps import Place
from flute.primitives.prg import Stream

_U = np.uint64
_AHEAD = 1024
"""Words that a keystream is read ahead: 8 kB."""
_WORD_BITS = 61
"""Bits of one drawn word of a bounded integer: 2^61 = 1 modulo the first prime."""


class Source(Protocol):
    """Uniform 64-bit words, the same at every hub that holds the key."""

    def words(self, count: int) -> Elements: ...


class KeySource:
    """The keystream of one key, word by word; read ahead, for most requests are small and there are many keys."""

    def __init__(self, key: bytes) -> None:
        self._stream = Stream(key)
        self._ahead = np.empty(0, np.uint64)

    def words(self, count: int) -> Elements:
        if count > self._ahead.size:
            more = max(count - self._ahead.size, _AHEAD)
            raw = b"".join([bytes(block) for block in self._stream.blocks(8 * more)])
            self._ahead = np.concatenate([self._ahead, np.frombuffer(raw, dtype="<u8")]).astype(np.uint64, copy=False)
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken


@dataclass(frozen=True, slots=True)
class Masks:
    """Shares, by prime, of M and of the sum over groups of floor(M_A / 2^low)."""

    whole: tuple[Elements, ...]
    high: tuple[Elements, ...]


class Chance:
    """One hub's draws. All hubs draw in the same order, or nothing fits: the order is the program's."""

    def __init__(self, circle: Circle, keys: Keys) -> None:
        self._circle = circle
        self._groups: dict[Group, Source] = {
            group: KeySource(stream_key(key, circle, "group", group)) for group, key in sorted(keys.groups.items())
        }
        self._pairs: dict[Group, Source] = {
            pair: KeySource(stream_key(key, circle, "pair", pair)) for pair, key in sorted(keys.pairs.items())
        }

    def element(self, prime: Prime, shape: tuple[int, ...]) -> Elements:
        """My share of a uniform element."""
        groups = list(self._groups)
        drawn = self._uniform(prime, list(self._groups.values()), prod(shape))
        return self._weighed(prime, groups, drawn, self._circle.me).reshape(shape)

    def owned(self, prime: Prime, owner: Place, shape: tuple[int, ...]) -> tuple[Elements, Elements | None]:
        """My share of an element that `owner` knows, and at the owner the element itself."""
        groups = [group for group in self._groups if owner in group]
        drawn = self._uniform(prime, [self._groups[group] for group in groups], prod(shape))
        value = self._weighed(prime, groups, drawn, 0).reshape(shape) if owner == self._circle.me else None
        return self._weighed(prime, groups, drawn, self._circle.me).reshape(shape), value

    def masks(self, ring: Ring, bits: int, low: int, shape: tuple[int, ...]) -> Masks:
        """Shares of M, the sum of one integer in [0, 2^bits) per group, and of the sum of their high parts.

        bits: at most 2 · 61. low: at most 61.
        """
        size = prod(shape)
        sources = self._groups.values()
        lower = np.stack([_bounded(source, min(bits, _WORD_BITS), size) for source in sources])
        upper = np.stack([_bounded(source, max(bits - _WORD_BITS, 0), size) for source in sources])
        whole, high = [], []
        for prime in ring:
            weights = [_unit_weight(prime, self._circle.hubs, group, self._circle.me) for group in self._groups]
            top = prime.weigh(prime.reduce(upper), weights)
            base = prime.weigh(prime.reduce(lower), weights)
            kept = prime.weigh(prime.reduce(lower >> _U(low)), weights)
            whole.append(prime.add(prime.scale(top, 2**_WORD_BITS), base).reshape(shape))
            high.append(prime.add(prime.scale(top, 2 ** (_WORD_BITS - low)), kept).reshape(shape))
        return Masks(tuple(whole), tuple(high))

    def zeros(self, prime: Prime, size: int) -> Elements:
        """My summand; those of all hubs add up to 0."""
        total = prime.zeros((size,))
        drawn = self._uniform(prime, list(self._pairs.values()), size)
        for pair, row in zip(self._pairs, drawn, strict=True):
            total = prime.add(total, row) if pair[0] == self._circle.me else prime.sub(total, row)
        return total

    def _uniform(self, prime: Prime, sources: Sequence[Source], size: int) -> Elements:
        """[source, size], exactly uniform: a word that is no residue is drawn again (once in 2^53)."""
        mask = _U(2**prime.bits - 1)
        drawn = np.empty((len(sources), size), np.uint64)
        for row, source in zip(drawn, sources, strict=True):
            np.bitwise_and(source.words(size), mask, out=row)
        while drawn.size and int(drawn.max()) >= prime.p:
            for row, source in zip(drawn, sources, strict=True):
                bad = row >= _U(prime.p)
                row[bad] = source.words(int(bad.sum())) & mask
        return drawn

    def _weighed(self, prime: Prime, groups: Sequence[Group], drawn: Elements, x: Place) -> Elements:
        """The sum of the groups' draws as seen at x."""
        return prime.weigh(drawn, [_weight(self._circle.hubs, group, x) for group in groups])


def _bounded(source: Source, bits: int, size: int) -> Elements:
    if bits == 0:
        return np.zeros(size, np.uint64)
    return source.words(size) >> _U(64 - bits)


@cache
def _weight(hubs: int, group: Group, x: Place) -> int:
    """The product of (j - x) over the hubs j outside the group."""
    return prod(j - x for j in range(1, hubs + 1) if j not in group)


@cache
def _unit_weight(prime: Prime, hubs: int, group: Group, x: Place) -> int:
    """The same, divided by its value at 0."""
    return _weight(hubs, group, x) * prime.inverse(_weight(hubs, group, 0)) % prime.p
