"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from flute.report import numbers


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (1234567.891, 1, "1,234,567.9"),
        (-0.004, 2, "0.00"),
        (-12.5, 1, "−12.5"),
        (None, 2, "–"),
        (math.nan, 2, "–"),
        (math.inf, 2, "–"),
        (1e300, 2, "1.00e+300"),
    ],
)
def test_decimals_have_separators_a_true_minus_and_a_dash_for_the_unknown(
    value: float | None, digits: int, shown: str
) -> None:
    assert numbers.decimal(value, digits) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1.0, "1"), (66.66, "66.7"), (1963, "1,963"), (0.0123456, "0.0123"), (1e-6, "1e−6"), (None, "–")],
)
def test_short_numbers_keep_three_digits_and_no_trailing_zero(value: float | None, shown: str) -> None:
    assert numbers.short(value) == shown


def test_sizes_times_dates_and_units_are_in_words() -> None:
    assert numbers.size(999) == "999 B"
    assert numbers.size(1_530_000) == "1.53 MB"
    assert numbers.duration(0.311) == "0.31 s"
    assert numbers.duration(125.2) == "2 min 5 s"
    assert numbers.when(0) == "1 January 1970, 00:00 UTC"
    assert numbers.when(None) == "–"
    assert numbers.unit("cm3") == "cm³"
    assert numbers.unit("furlong") == "furlong"
    assert numbers.memory(2**30) == "1,024 MiB"
    assert numbers.percent(0.384, 1) == "38.4%"
    assert numbers.listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize("value", [True, "3", None, math.nan, math.inf, 10**400, [1]])
def test_what_is_no_finite_number_is_unknown(value: object) -> None:
    assert numbers.finite(value) is None


def test_intervals_are_left_out_where_one_end_is_unknown() -> None:
    assert numbers.with_span(0.861, 0.84, 0.88, numbers.probability) == "0.861 (0.840 to 0.880)"
    assert numbers.with_span(0.861, None, 0.88, numbers.probability) == "0.861"
