"""Every product since the last check, in one batch: was it what it claims to be?

Each shared value z comes with m = κ·z, κ the check key that nobody knows, by a second product. Whoever corrupts some
products turns z into z + d and m into m + d', with d and d' of its choice but without κ. The check, per prime:

    w = g + sum a_k·z_k,   u = κg + sum a_k·m_k,   open V = s·u - (sκ)·w,  which has to be 0,

with a_k hashed from the transcript after all products, g and s fresh random values. g hides w should sκ be wrong, s
hides what u - κw is should it not be 0: V is 0, or uniform, whatever the data (docs/proofs/mpc.md, lemma 3). CHECKS
combinations run side by side. Two rounds: s·u - (sκ)·w is reduced to degree t, then opened with all n shares fitting.

Source: Chida et al. 2018, protocol 5.3, with its zero test (protocol 3.9) folded in and the coin hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flute.defaults.joint import CHECKS
from flute.errors import MisuseError
from flute.mpc.chance import Chance, KeySource
from flute.mpc.field import WIDE, Elements, Prime
from flute.mpc.shares import Key
from flute.mpc.steps import Step
from flute.mpc.wire import Item, Opened, Own, Wire
from flute.primitives.keys import derive


@dataclass(frozen=True, slots=True)
class _Fresh:
    """What one prime's next check needs, [CHECKS] each: s and sκ, g and κg."""

    s: Elements = field(repr=False)
    s_key: Elements = field(repr=False)
    g: Elements = field(repr=False)
    g_key: Elements = field(repr=False)


@dataclass(slots=True)
class Reduced:
    """Products brought to degree t, and what else the round showed."""

    products: list[Elements]
    opened: Opened


class Products:
    """Makes products (degree 2t to degree t) and keeps them until they are verified."""

    def __init__(self, wire: Wire, chance: Chance) -> None:
        self.key: Key = tuple(chance.element(prime, ()) for prime in WIDE)
        self.made = 0
        self._wire = wire
        self._chance = chance
        self._pending: dict[Prime, list[tuple[Elements, Elements]]] = {prime: [] for prime in WIDE}
        self._fresh: list[_Fresh] | None = None
        self._doubtful = False

    def reduce(
        self,
        products: Sequence[Item],
        *,
        sums: Sequence[Item] = (),
        shares: Sequence[Item] = (),
        own: Sequence[Own] = (),
    ) -> Step[Reduced]:
        """One round. products: my shares of degree 2t; back come shares of degree t of the same values, shifted by
        whatever a cheat chose. sums, shares, own: opened beside them, see `mpc.wire`. The first round after a
        verification also makes what the next one needs, so that no lie waits for a check that never comes.

        Source: Damgård, Nielsen 2007, section 3, without a king: every hub adds up the masked product itself.
        """
        if self._fresh is not None:
            return (yield from self._reduce(products, sums, shares, own))
        drawn, macs = self._draw()
        reduced = yield from self._reduce([*products, *macs], sums, shares, own)
        self._fresh = _paired(drawn, reduced.products[len(products) :])
        return Reduced(reduced.products[: len(products)], reduced.opened)

    def _reduce(
        self, products: Sequence[Item], sums: Sequence[Item], shares: Sequence[Item], own: Sequence[Own]
    ) -> Step[Reduced]:
        masks = [self._chance.element(prime, values.shape) for prime, values in products]
        masked = [(prime, prime.add(values, r)) for (prime, values), r in zip(products, masks, strict=True)]
        self.made += sum(values.size for _, values in products)
        opened = yield from self._wire.exchange(sums=[*masked, *sums], shares=shares, own=own)
        count = len(products)
        reduced = [
            prime.sub(total, r) for (prime, _), total, r in zip(products, opened.sums[:count], masks, strict=True)
        ]
        return Reduced(reduced, Opened(opened.sums[count:], opened.shares, opened.own))

    def remember(self, prime: Prime, values: Elements, macs: Elements, *, certain: bool = False) -> None:
        """To be verified: macs = κ · values. certain: no message made the value; only its mac may be wrong."""
        self._pending[prime].append((values.reshape(-1), macs.reshape(-1)))
        self._doubtful = self._doubtful or not certain

    @property
    def unverified(self) -> int:
        return sum(values.size for pairs in self._pending.values() for values, _ in pairs)

    def settle(self) -> Step[None]:
        """Verify if some value may be wrong. Comes before every opening under a mask that does not fill the field: a
        falsified factor could lift what it meets above such a mask. Wrong macs do no harm there, macs are not
        opened."""
        if self._doubtful:
            yield from self.verify()

    def verify(self) -> Step[None]:
        """Two rounds, none if nothing waits.

        Raises: Cheating: some product or its check value is not what it should be; nobody can be named.
        """
        if not self.unverified:
            return
        if self._fresh is None:
            raise MisuseError("Products wait for a verification that was not prepared.")
        fresh, seed, checks = self._fresh, self._wire.transcript, []
        for prime, f in zip(WIDE, fresh, strict=True):
            w, u = self._combined(prime, seed)
            w, u = prime.add(w, f.g), prime.add(u, f.g_key)
            checks.append((prime, prime.sub(prime.mul(f.s, u), prime.mul(f.s_key, w))))
        reduced = yield from self._reduce(checks, (), (), ())
        opened = yield from self._wire.exchange(shares=list(zip(WIDE, reduced.products, strict=True)))
        if any(value.any() for value in opened.shares):
            raise self._wire.stop(
                "A product of this computation was falsified by at least one hub; which one cannot be told. "
                "Nothing that depends on it was opened, and the computation stops."
            )
        self._fresh, self._doubtful = None, False
        self._pending = {prime: [] for prime in WIDE}

    def _combined(self, prime: Prime, seed: bytes) -> tuple[Elements, Elements]:
        pairs = self._pending[prime]
        if not pairs:
            return prime.zeros((CHECKS,)), prime.zeros((CHECKS,))
        columns = np.stack([np.concatenate([pair[i] for pair in pairs]) for i in (0, 1)], axis=1)
        weights = coefficients(prime, seed, CHECKS * len(columns)).reshape(CHECKS, -1)
        total = prime.combine(weights, columns)
        return total[:, 0], total[:, 1]

    def _draw(self) -> tuple[list[tuple[Elements, Elements]], list[Item]]:
        drawn = [(self._chance.element(p, (CHECKS,)), self._chance.element(p, (CHECKS,))) for p in WIDE]
        products = [
            (prime, prime.mul(value, key))
            for prime, key, pair in zip(WIDE, self.key, drawn, strict=True)
            for value in pair
        ]
        return drawn, products


def coefficients(prime: Prime, seed: bytes, count: int) -> Elements:
    """Public random weights: the expanded digest of all that was said. Within 2^-50 of uniform each."""
    key = derive(seed, info=b"flute/mpc/v1/check/" + str(prime.p).encode())
    return prime.reduce(KeySource(key).words(count))


def _paired(drawn: list[tuple[Elements, Elements]], macs: list[Elements]) -> list[_Fresh]:
    return [_Fresh(s, macs[2 * k], g, macs[2 * k + 1]) for k, (s, g) in enumerate(drawn)]
