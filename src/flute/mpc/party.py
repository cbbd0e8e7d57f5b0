"""One hub's side of a computation on shares: active security with abort, fewer than half of the hubs corrupt.

Guarantees, for at most t corrupt hubs that do as they like (docs/proofs/mpc.md):
- no honest hub takes a wrong result, and no honest hub shows its share of an output unless every product before was
  verified and every hub confirmed so;
- what corrupt hubs see of the others' values is what the outputs say, up to 2^-40 for each masked number.
Not guaranteed: that a result comes (any hub can stop it), that a hub's input is true, that corrupt hubs do not see an
output first.

Values are integers. A wide value lives modulo p1·p2, about 2^119; a narrow one modulo p1 = 2^61 - 1: bits, and what
is computed from them. Who writes a program answers for magnitudes: `value_bits` says how large a value may be that
goes into `truncate`, `less_than_zero`, `is_zero` or `bits`, for all inputs within their bounds. What is larger is not
hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from flute.errors import MisuseError
from flute.mpc import bits as _bits
from flute.mpc import comparison, inputs, opening, truncation
from flute.mpc.chance import Chance
from flute.mpc.field import NARROW, WIDE, Elements, Integers, Prime, Ring
from flute.mpc.opening import Room
from flute.mpc.setup import Circle, Keys
from flute.mpc.shares import Shares, constant
from flute.mpc.steps import Place, Step
from flute.mpc.verification import Products
from flute.mpc.wire import Item, Wire


class Party:
    """One hub in one computation. keys: from `mpc.setup`, used for this computation and never again."""

    def __init__(self, circle: Circle, keys: Keys) -> None:
        self.circle = circle
        self.chance = Chance(circle, keys)
        self.wire = Wire(circle, self.chance)
        self.products = Products(self.wire, self.chance)
        self.room = Room(circle)

    @property
    def me(self) -> Place:
        return self.circle.me

    @property
    def hubs(self) -> int:
        return self.circle.hubs

    @property
    def corrupt(self) -> int:
        """t: how many hubs may lie."""
        return self.circle.corrupt

    @property
    def rounds(self) -> int:
        """Rounds of communication so far."""
        return self.wire.rounds

    @property
    def value_bits(self) -> int:
        """Largest `bound`: |x| < 2^bound for what is truncated or compared."""
        return self.room.wide_bits

    def constant(self, values: Integers | int, ring: Ring = WIDE) -> Shares:
        """Public integers as shares, without a message."""
        return constant(ring, self.products.key[: len(ring)], values)

    def input(self, values: Integers | None, *, owner: Place, shape: tuple[int, ...], bound: int) -> Step[Shares]:
        """One hub's integers, |v| < 2^bound, wide. values: at the owner; None elsewhere. Rounds: see `inputs`."""
        mine = {} if owner != self.me else {owner: values}
        if (values is None) == (owner == self.me):
            raise MisuseError("The owner of an input gives its values, and nobody else does.")
        shared = yield from inputs.share(self, mine.get(owner), {owner: shape}, bound)
        return shared[owner]

    def inputs(
        self, mine: Integers | None, shapes: Mapping[Place, tuple[int, ...]], *, bound: int
    ) -> Step[dict[Place, Shares]]:
        """Inputs of several hubs at once, by owner: 5 rounds in all. Every input is proven to be
        in its bound before it is used, for an oversized one would lift honest values above their masks."""
        return (yield from inputs.share(self, mine, shapes, bound))

    def summed(self, mine: Integers, *, bound: int) -> Step[Shares]:
        """The sum over all hubs of what each puts in, all of one shape, each proven to be within its bound."""
        shapes = dict.fromkeys(range(1, self.hubs + 1), np.shape(mine))
        shared = yield from inputs.share(self, mine, shapes, bound)
        first, *others = shared.values()
        total = first
        for part in others:
            total = total + part
        return total

    def noise(self, mine: Integers, *, bound: int) -> Step[Shares]:
        """The sum over all hubs of what each drew, to be added to a value before it opens. Who knows t of the draws
        still lacks n - t."""
        return (yield from self.summed(mine, bound=bound))

    def mul(self, x: Shares, y: Shares) -> Step[Shares]:
        """Element by element, with broadcasting. One round."""
        return (yield from self.product(x, y, Prime.mul))

    def dot(self, x: Shares, y: Shares) -> Step[Shares]:
        """x @ y for matrices and stacks of them. One round; the cost is one reduction per output element."""
        return (yield from self.product(x, y, Prime.matmul))

    def product(self, x: Shares, y: Shares, how: Callable[[Prime, Elements, Elements], Elements]) -> Step[Shares]:
        if x.ring != y.ring:
            raise MisuseError("A narrow and a wide value do not meet in a product: take `narrow()` of the wide one.")
        items: list[Item] = []
        for prime, a, mac, b in zip(x.ring, x.values, x.macs, y.values, strict=True):
            items += [(prime, how(prime, a, b)), (prime, how(prime, mac, b))]
        reduced = yield from self.products.reduce(items)
        result = Shares(x.ring, tuple(reduced.products[0::2]), tuple(reduced.products[1::2]), x.key)
        for prime, values, macs in zip(result.ring, result.values, result.macs, strict=True):
            self.products.remember(prime, values, macs)
        return result

    def truncate(self, x: Shares, bits: int, *, bound: int | None = None) -> Step[Shares]:
        """x / 2^bits, rounded, |x| < 2^bound: off by less than (C + 1)/2, C = C(n, t), and mostly by sqrt(C/12)."""
        return (yield from truncation.truncate(self, x, bits, bound))

    def mul_truncate(self, x: Shares, y: Shares, bits: int, *, bound: int | None = None) -> Step[Shares]:
        """truncate(mul(x, y)) in one round after what is in doubt was verified."""
        return (yield from truncation.product(self, x, y, bits, bound, Prime.mul))

    def dot_truncate(self, x: Shares, y: Shares, bits: int, *, bound: int | None = None) -> Step[Shares]:
        return (yield from truncation.product(self, x, y, bits, bound, Prime.matmul))

    def random_bits(self, count: int) -> Step[Shares]:
        """Verified uniform bits that nobody knows, narrow, [count]. Four rounds."""
        return (yield from _bits.random_bits(self, count))

    def widen(self, x: Shares, bits: int) -> Step[Shares]:
        """A narrow value in [0, 2^bits) as a wide one; `room.narrow_bits` at most. One round after `settle`."""
        return (yield from _bits.widen(self, x, bits))

    def less_than_zero(self, x: Shares, bits: int) -> Step[Shares]:
        """1 where x < 0, else 0, as a narrow value; |x| < 2^bits, x wide."""
        return (yield from comparison.less_than_zero(self, x, bits))

    def is_zero(self, x: Shares, bits: int) -> Step[Shares]:
        """1 where x = 0, else 0, as a narrow value; |x| < 2^bits, x wide."""
        return (yield from comparison.is_zero(self, x, bits))

    def bits(self, x: Shares, bits: int) -> Step[Shares]:
        """The bits of x, 0 <= x < 2^bits, x wide; narrow, on a new last axis, lowest first."""
        return (yield from comparison.decompose(self, x, bits))

    def verify(self) -> Step[None]:
        """Check every product so far. Two rounds; none where nothing waits. Raises: Cheating."""
        yield from self.products.verify()

    def open(self, x: Shares, *, to: Place | None = None) -> Step[Integers | None]:
        """The values, signed; to everybody, or to one hub (the others get None).

        Everything is verified first, and every hub confirms that before any share of an output is sent: two rounds
        more.
        Raises: Cheating, Equivocation: nothing was opened, or what was shown is not used.
        """
        return (yield from opening.open_output(self, x, to))

    def narrow_constant(self, values: Integers | int) -> Shares:
        return self.constant(values, NARROW)
