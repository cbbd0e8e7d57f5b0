"""Functions of shared numbers: 1/x, 1/sqrt(x), x/y, log, exp, the logistic function.

Each brings its argument to a short interval and takes a series there (`mpc.series`): by a power of two found in the
argument's bits (1/x, 1/sqrt(x), log), by splitting off the whole part of the exponent (exp), or by cutting off both
ends (logistic). A wrong range is not noticed: the result is then meaningless, but never larger than in range.

Errors are for 3 and 5 hubs; with 10 hubs a product's rounding is 25 times coarser (`mpc.fixed`). Rounds are for 28
fraction bits, after everything before was verified.
Source of the normalisation: Catrina, Saxena 2010, protocol 3.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from flute.errors import MisuseError
from flute.mpc.comparison import MAX_BITS
from flute.mpc.fixed import Fixed, Reals, concatenate, encode
from flute.mpc.series import Series, evaluate
from flute.mpc.shares import Shares
from flute.mpc.shares import concatenate as side_by_side
from flute.mpc.steps import Step

if TYPE_CHECKING:
    from flute.mpc.party import Party

_EXTRA: Final = 6
"""Fraction bits of the inner work beyond the argument's."""
_MAX_OCTAVES: Final = 28
"""high - low: the scale factor times a number of the inner format has to stay below 2^value_bits."""
_MAX_EXPONENT: Final = 3


def reciprocal(x: Fixed, *, low: int, high: int) -> Step[Fixed]:
    """1/x for 2^low <= x < 2^high, 0 for 0; high - low up to 28.

    Relative error below 2^-(fraction - 2), and 2 units (n = 3) of the last place. 39 rounds.
    """
    scaled = yield from _normalised(x, low, high, step=1)
    inverse = yield from evaluate(scaled.number, Series(_inverse, 0.5, 1.0, x.fraction + 3))
    return (yield from _scaled_back(inverse, scaled.factor, x.fraction, high))


def inverse_square_root(x: Fixed, *, low: int, high: int) -> Step[Fixed]:
    """1/sqrt(x) for 2^low <= x < 2^high, 0 for 0; low and high even, high - low up to 28.

    Relative error below 2^-(fraction - 2), and 2 units (n = 3) of the last place. 43 rounds.
    """
    if high % 2 or low % 2:
        raise MisuseError("The range of a square root is given by even powers of two.")
    scaled = yield from _normalised(x, low, high, step=2)
    inverse = yield from evaluate(scaled.number, Series(_inverse_root, 0.25, 1.0, x.fraction + 3))
    return (yield from _scaled_back(inverse, scaled.factor, x.fraction, high // 2))


def divide(x: Fixed, y: Fixed, *, low: int, high: int) -> Step[Fixed]:
    """x/y for 2^low <= y < 2^high; 0 where y is 0. Error: |x| times that of `reciprocal`, and one product's."""
    inverse = yield from reciprocal(y, low=low, high=high)
    return (yield from x.mul(inverse))


def logarithm(x: Fixed, *, low: int, high: int) -> Step[Fixed]:
    """The natural logarithm for 2^low <= x < 2^high, high - low up to 28. Error below 4 units (n = 3). 39 rounds."""
    scaled = yield from _normalised(x, low, high, step=1)
    part = yield from evaluate(scaled.number, Series(np.log, 0.5, 1.0, x.fraction + 3))
    octaves = np.log(2) * np.arange(low + 1, high + 1)
    exponent = part.of((scaled.octave * encode(octaves, part.fraction)).sum(axis=-1))
    return (yield from (part + exponent).rounded(x.fraction))


def exponential(x: Fixed, *, magnitude: int) -> Step[Fixed]:
    """e^x for |x| < 2^magnitude, magnitude at most 3. Error below 2 + e^x / 4 units (n = 3). 33 rounds.

    x·log2(e) = whole + part: 2^whole is multiplied up from the bits of whole, 2^part is a series.
    """
    if not 0 <= magnitude <= _MAX_EXPONENT:
        raise MisuseError(f"An exponent has to be below 2^{_MAX_EXPONENT} in magnitude.")
    whole_bits = magnitude + 2
    offset = 2 ** (whole_bits - 1)
    fine = _inner(x)
    power = (yield from fine.scale(np.log2(np.e))) + float(offset)
    digits = yield from x.party.bits(power.shares, fine.fraction + whole_bits)
    wide = yield from x.party.widen(digits[..., fine.fraction :], 1)
    whole = (wide * 2 ** np.arange(whole_bits)).sum(axis=-1)
    part = yield from evaluate(
        power.of(power.shares - whole * 2**fine.fraction), Series(np.exp2, 0.0, 1.0, x.fraction + 3)
    )
    factor = yield from _power_of_two(x.party, wide)
    shares = yield from x.party.mul_truncate(part.shares, factor, fine.fraction + offset - x.fraction)
    return Fixed(x.party, shares, x.fraction)


def logistic(x: Fixed, *, magnitude: int = 8, reach: int | None = 16) -> Step[Fixed]:
    """1/(1 + e^-x). Beyond ±magnitude the value there, off by at most e^-magnitude; within, below 4 units (n = 3).

    magnitude: up to 16; the degree of the series grows with it (about 6 per unit at 28 fraction bits). reach: |x| is
    below 2^reach; None where it is at most `magnitude` for sure and nothing has to be cut off. 44 rounds, 26 without
    cutting.
    """
    if not 1 <= magnitude <= 16:
        raise MisuseError("The logistic function is computed up to a magnitude of 16.")
    inside = x if reach is None else (yield from clipped(x, magnitude, reach=reach))
    series = Series(_logistic, -float(magnitude), float(magnitude), x.fraction)
    value = yield from evaluate(_inner(inside), series)
    return (yield from value.rounded(x.fraction))


def clipped(x: Fixed, magnitude: float, *, reach: int) -> Step[Fixed]:
    """x, cut off at ±magnitude < 2^reach, exactly. |x| < 2^reach, reach at most 57 - fraction. 16 rounds."""
    over = concatenate([(magnitude - x).reshape(1, *x.shape), (x + magnitude).reshape(1, *x.shape)])
    beyond = yield from x.party.less_than_zero(over.shares, x.fraction + reach + 1)
    wide = yield from x.party.widen(beyond, 1)
    signs = np.array([1, -1]).reshape(2, *[1] * len(x.shape))
    change = yield from x.party.mul(wide, over.shares * signs)
    return x + x.of(change.sum(axis=0))


def _inverse(y: Reals) -> Reals:
    return 1 / y


def _inverse_root(y: Reals) -> Reals:
    return 1 / np.sqrt(y)


def _logistic(y: Reals) -> Reals:
    return 1 / (1 + np.exp(-y))


def _inner(x: Fixed) -> Fixed:
    return x.finer(max(x.fraction, min(x.fraction + _EXTRA, (x.party.value_bits - 4) // 2)))


@dataclass(frozen=True, slots=True)
class _Scaled:
    """x = number · 2^high / factor^step: number in [2^-step, 1), inner format; octave: which power, one-hot, wide."""

    number: Fixed
    factor: Shares
    octave: Shares


def _normalised(x: Fixed, low: int, high: int, *, step: int) -> Step[_Scaled]:
    count = high - low
    if not 1 <= count <= _MAX_OCTAVES or x.fraction + low < 0 or x.fraction + high > MAX_BITS:
        raise MisuseError(
            f"The range 2^{low} to 2^{high} does not fit numbers of {x.fraction} fraction bits: it may span "
            f"{_MAX_OCTAVES} powers of two, from the last place up to {MAX_BITS} bits."
        )
    digits = yield from x.party.bits(x.shares, x.fraction + high)
    leading = yield from _highest_one(x.party, digits[..., x.fraction + low :])
    octave = yield from x.party.widen(leading, 1)
    exponents = (count - 1 - np.arange(count)) // step
    factor = (octave * 2**exponents).sum(axis=-1)
    power = factor if step == 1 else (octave * 4**exponents).sum(axis=-1)
    inner = _inner(x).fraction
    finer = max(0, inner + 1 - x.fraction - high)
    shares = yield from x.party.mul_truncate(x.shares * 2**finer, power, x.fraction + finer + high - inner)
    return _Scaled(Fixed(x.party, shares, inner), factor, octave)


def _highest_one(party: Party, bits: Shares) -> Step[Shares]:
    """1 at the highest bit that is 1, else 0: products of all complements from above, in ceil(log2) layers."""
    count = bits.shape[-1]
    clear = 1 - bits
    span = 1
    while span < count:
        product = yield from party.mul(clear[..., :-span], clear[..., span:])
        clear = side_by_side([product, clear[..., count - span :]], axis=-1)
        span *= 2
    above = side_by_side([clear[..., 1:], clear[..., -1:] * 0 + 1], axis=-1)
    return above - clear


def _scaled_back(value: Fixed, factor: Shares, fraction: int, exponent: int) -> Step[Fixed]:
    """value · factor / 2^exponent, with `fraction` bits."""
    shift = value.fraction + exponent - fraction
    finer = max(0, 1 - shift)
    shares = yield from value.party.mul_truncate(value.shares * 2**finer, factor, shift + finer)
    return Fixed(value.party, shares, fraction)


def _power_of_two(party: Party, bits: Shares) -> Step[Shares]:
    """2 to the number whose bits these are, lowest first."""
    count = bits.shape[-1]
    factors = bits * (2 ** (2 ** np.arange(count)) - 1) + 1
    while factors.shape[-1] > 1:
        pairs = factors.shape[-1] // 2
        product = yield from party.mul(factors[..., 0 : 2 * pairs : 2], factors[..., 1 : 2 * pairs : 2])
        factors = side_by_side([product, factors[..., 2 * pairs :]], axis=-1)
    return factors[..., 0]
