"""Numbers in fixed point and their functions, against float64, within the errors that docstrings state."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest

from flute.errors import MisuseError
from flute.mpc import fixed, functions
from flute.mpc.fixed import Fixed, constant, encode
from flute.mpc.party import Party
from flute.mpc.series import Series, blocks, coefficients, evaluate
from support.mpc_parties import compute, parties

Steps = Generator[Any, Any, Any]
FRACTION = 28
UNIT = 2.0**-FRACTION
RNG = np.random.default_rng(3)
POWERS = np.concatenate([2.0 ** RNG.uniform(-6, 10, 60), [2.0**-6, 1.0, 2.0, 1023.9, 512.0]])
EXPONENTS = np.concatenate([RNG.uniform(-8, 8, 60), [0.0, 7.999, -7.999, 1.0, -1.0]])


def result(values: Any, step: Callable[[Fixed], Steps], hubs: int = 3) -> tuple[Any, Any, int]:
    """Exact values as they were encoded, what opened, and the rounds."""

    def program(party: Party) -> Steps:
        x = constant(party, values, FRACTION)
        got = yield from step(x)
        rounds = party.rounds
        return (yield from got.open()), rounds

    opened, rounds = compute(program, hubs).sole
    return encode(values, FRACTION) / 2**FRACTION, opened, rounds


CASES: dict[str, tuple[Any, Callable[[Fixed], Steps], Callable[[Any], Any], Callable[[Any], Any], int]] = {
    "reciprocal": (
        POWERS, lambda x: functions.reciprocal(x, low=-6, high=10), lambda x: 1 / x,
        lambda y: 4 * y * UNIT + 2 * UNIT, 39,
    ),
    "inverse square root": (
        POWERS, lambda x: functions.inverse_square_root(x, low=-6, high=10), lambda x: 1 / np.sqrt(x),
        lambda y: 4 * y * UNIT + 2 * UNIT, 43,
    ),
    "logarithm": (
        POWERS, lambda x: functions.logarithm(x, low=-6, high=10), np.log, lambda y: 4 * UNIT + 0 * y, 39,
    ),
    "exponential": (
        EXPONENTS, lambda x: functions.exponential(x, magnitude=3), np.exp, lambda y: (2 + y) * UNIT, 33,
    ),
    "logistic": (
        EXPONENTS, lambda x: functions.logistic(x), lambda x: 1 / (1 + np.exp(-x)), lambda y: 4 * UNIT + 0 * y, 44,
    ),
    "logistic without cutting": (
        EXPONENTS, lambda x: functions.logistic(x, reach=None), lambda x: 1 / (1 + np.exp(-x)),
        lambda y: 4 * UNIT + 0 * y, 26,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_functions_keep_to_their_stated_error_and_rounds(name: str) -> None:
    values, step, plain, bound, rounds = CASES[name]
    x, got, used = result(values, step)
    error = np.abs(got - plain(x))
    assert (error < bound(plain(x))).all()
    assert used == rounds
    assert not (np.abs(got + 100 * UNIT - plain(x)) < bound(plain(x))).all()  # a hundred units off is seen


def test_five_hubs_keep_to_their_rounding_too() -> None:
    x, got, _ = result(POWERS, lambda x: functions.reciprocal(x, low=-6, high=10), hubs=5)
    assert (np.abs(got - 1 / x) < 8 / x * UNIT + 5.5 * UNIT).all()


def test_reciprocal_of_nothing_is_nothing() -> None:
    _, got, _ = result([0.0, 2.0], lambda x: functions.reciprocal(x, low=-6, high=10))
    assert np.abs(got - [0.0, 0.5]).max() < 4 * UNIT


def test_the_logistic_function_is_cut_off_at_both_ends() -> None:
    _, got, _ = result([-5000.0, 5000.0, 8.0, -8.5], lambda x: functions.logistic(x))
    ends = 1 / (1 + np.exp([8.0, -8.0, -8.0, 8.0]))
    assert np.abs(got - ends).max() < 4 * UNIT
    assert np.exp(-8.0) > np.abs(got[:2] - [0, 1]).max()


def test_products_dots_scales_and_quotients() -> None:
    a, b = RNG.uniform(-100, 100, (2, 40))

    def program(party: Party) -> Steps:
        x, y = constant(party, a, FRACTION), constant(party, b, FRACTION)
        opened = []
        for step in (
            x.mul(y), x.reshape(4, 10).dot(y.reshape(10, 4)), x.scale(np.pi),
            functions.divide(x, y * y_sign, low=-6, high=8),
            x.rounded(10),
        ):  # fmt: skip
            got = yield from step
            opened.append((yield from got.open()))
        return opened

    y_sign = np.where(b > 0, 1, -1)
    product, matrix, scaled, quotient, rough = compute(program).sole
    big = np.abs(b) > 2.0**-6
    assert np.abs(product - a * b).max() < 130 * UNIT  # of which the encoding is 100
    assert np.abs(matrix - a.reshape(4, 10) @ b.reshape(10, 4)).max() < 1300 * UNIT
    assert np.abs(scaled - a * np.pi).max() < 60 * UNIT
    assert (np.abs(quotient - a / np.abs(b))[big] < (500 + 500 / np.abs(b[big]) ** 2) * UNIT).all()
    assert np.abs(rough - a).max() < 2 * 2.0**-10


def test_sums_and_public_integer_factors_are_exact() -> None:
    x, got, _ = result([1.25, -3.5], lambda x: _now(3 * x - x * np.array([1, 2]) + 0.75 - (-x)))
    assert (got == 3 * x - x * [1, 2] + 0.75 + x).all()


def _now(value: Fixed) -> Steps:
    return value
    yield


def test_a_series_is_split_without_changing_it() -> None:
    series = Series(np.cos, -3.0, 3.0, 40)
    c = coefficients(series)
    parts = blocks(c)
    u = np.linspace(-1, 1, 50)
    width = parts.shape[1]
    chebyshev = np.polynomial.chebyshev
    outer = [np.cos(width * i * np.arccos(u)) for i in range(len(parts))]
    together = sum(t * chebyshev.chebval(u, row) for t, row in zip(outer, parts, strict=True))
    assert np.abs(together - np.cos(3 * u)).max() < 2.0**-38


def test_any_smooth_function_on_an_interval() -> None:
    x, got, _ = result(np.linspace(-3, 3, 40), lambda x: evaluate(x, Series(np.cos, -3.0, 3.0, FRACTION)))
    assert np.abs(got - np.cos(x)).max() < 12 * UNIT


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + x.finer(30),
        lambda x: x.finer(20),
        lambda x: fixed.stack([x, x.finer(30)]),
        lambda x: x + float("nan"),
        lambda x: x + 1e12,
        lambda x: next(functions.reciprocal(x, low=-6, high=40)),
        lambda x: next(functions.reciprocal(x, low=-40, high=-20)),
        lambda x: next(functions.inverse_square_root(x, low=-5, high=10)),
        lambda x: next(functions.exponential(x, magnitude=4)),
        lambda x: next(functions.logistic(x, magnitude=17)),
    ],
)
def test_misuse_is_said(wrong: Any) -> None:
    with pytest.raises(MisuseError):
        wrong(constant(parties(3)[1], [1.0], FRACTION))
