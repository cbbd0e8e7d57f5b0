"""Fixed point on shares, as the statistics need it: clamping, running sums, reciprocals of counts.

A number v with f fraction bits is shared as the integer v 2^f. A truncation is off by less than (C + 1) / 2 units in
the last place and by sqrt(C / 12) in the root mean square, C = C(n, t) (`Party.truncate`); error bounds here are
counted in the former, C = 3. No value that is truncated exceeds `Party.value_bits` bits, which is 76 for three hubs.
"""

from __future__ import annotations

from typing import Final

from flute.errors import MisuseError
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step

MAX_COUNT_BITS: Final = 15
"""Largest count whose reciprocal stays exact enough: 32,767 patients of all hubs together."""
MIN_VALUE_BITS: Final = 64
"""Room for truncation that the programs here need; more hubs leave less."""


def fraction_bits(party: Party) -> int:
    """Fraction bits with which two numbers up to 2 are multiplied and truncated: 37 for three hubs.

    Raises: MisuseError: so many hubs that masks leave no room.
    """
    if party.value_bits < MIN_VALUE_BITS:
        raise MisuseError(f"These statistics need values of {MIN_VALUE_BITS} bits; so many hubs leave fewer.")
    return (party.value_bits - 2) // 2


def reveal(party: Party, x: Shares) -> Step[Integers]:
    """Opens x to everybody."""
    opened = yield from party.open(x)
    if opened is None:
        raise MisuseError("What is opened to everybody comes to everybody.")
    return opened


def running(x: Shares) -> Shares:
    """Sums of the first 1, 2, ... elements along the last axis; each hub by itself, in log2(length) additions."""
    length, reach = x.shape[-1], 1
    while reach < length:
        x = concatenate([x[..., :reach], x[..., reach:] + x[..., :-reach]], axis=-1)
        reach *= 2
    return x


def clamp(party: Party, x: Shares, bound: int, bits: int) -> Step[tuple[Shares, Shares]]:
    """x where |x| <= bound, else bound with the sign of x; and a 1 for each element that was outside.

    x: [n], |x| + bound < 2^bits. Costs: two comparisons, two bits made wide and two products for each element.
    """
    out = yield from party.less_than_zero(concatenate([bound - x, bound + x]), bits)
    wide = yield from party.widen(out, 1)
    size = x.shape[0]
    excess = yield from party.mul(wide, concatenate([bound - x, -bound - x]))
    return x + excess[:size] + excess[size:], wide[:size] + wide[size:]


def reciprocals(party: Party, counts: Shares, bits: int) -> Step[Shares]:
    """2^bits / n with `fraction_bits`, for counts 0 <= n < 2^bits, one-dimensional.

    Guarantees: for n >= 1 off by at most 4 units in the last place, besides 2^-40 of the value (three hubs, 12
    bits; 2^-34 at 15 bits). For n = 0: some number of at most bits + 5 bits before the point, so that a product
    with a numerator of 0 is still 0.
    Costs: bits + 5 truncated products one after the other, and 2 bits + 10 of them for each n.

    1 / n = 2^-bits (1 + e)(1 + e^2)(1 + e^4)... with e = 1 - n / 2^bits, which is right to 2^-11 after bits + 3
    factors even for n = 1; two Newton steps, whose residuals are exact, give the rest.
    Raises: MisuseError: more bits than there is room for.
    """
    if not 1 <= bits <= MAX_COUNT_BITS:
        raise MisuseError(f"Counts of 1 to {MAX_COUNT_BITS} bits can be inverted, not of {bits}.")
    fraction, size = fraction_bits(party), counts.shape[0]
    middle = (party.value_bits - 5) // 2 - bits
    start = min(party.value_bits - fraction - bits - 4, middle)
    power = (1 << fraction) - counts * (1 << (fraction - bits))
    inverse = counts * 0 + (1 << start)
    for _ in range(bits + 3):
        both = concatenate([power, power]), concatenate([power, inverse])
        grown = yield from party.mul_truncate(*both, fraction)
        power, inverse = grown[:size], inverse + grown[size:]
    inverse = yield from _newton(party, counts, inverse, bits, start, middle)
    return (yield from _newton(party, counts, inverse, bits, middle, fraction))


def _newton(party: Party, counts: Shares, inverse: Shares, bits: int, before: int, after: int) -> Step[Shares]:
    """inverse (2 - n inverse), from `before` to `after` fraction bits."""
    residual = (1 << (before + bits)) - (yield from party.mul(counts, inverse))
    correction = yield from party.mul_truncate(inverse, residual, 2 * before + bits - after)
    return inverse * (1 << (after - before)) + correction
