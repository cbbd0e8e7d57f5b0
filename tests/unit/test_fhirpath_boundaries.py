"""Boundaries: the examples of FHIRPath's own text, and what has none."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.fhirpath.boundaries import date_boundary, decimal_boundary, time_boundary


@pytest.mark.parametrize(
    ("value", "digits", "low", "high"),
    [
        ("1.587", None, "1.58650000", "1.58750000"),
        ("1.587", 2, "1.58", "1.59"),
        ("1.587", 6, "1.586500", "1.587500"),
        ("-1.587", 2, "-1.59", "-1.58"),
        ("-1.587", 0, "-2", "-1"),
        ("1", None, "0.50000000", "1.50000000"),
        ("1", 0, "0", "2"),
        ("1.00", None, "0.99500000", "1.00500000"),
        ("120", 2, "119.50", "120.50"),
        ("0", None, "-0.50000000", "0.50000000"),
        ("1.5", -1, None, None),
        ("1.5", 29, None, None),
    ],
)
def test_decimals(value: str, digits: int | None, low: str | None, high: str | None) -> None:
    found = [decimal_boundary(Decimal(value), side, digits) for side in ("low", "high")]
    assert [None if f is None else str(f) for f in found] == [low, high]


@given(st.decimals(-(10**9), 10**9, places=3))
def test_a_decimal_lies_between_its_boundaries(value: Decimal) -> None:
    low, high = decimal_boundary(value, "low"), decimal_boundary(value, "high")
    assert low is not None
    assert high is not None
    assert low < value < high
    assert high - low == Decimal("0.001")


@pytest.mark.parametrize(
    ("value", "has_time", "digits", "low", "high"),
    [
        ("2014", False, 6, "2014-01", "2014-12"),
        ("2014-02", False, None, "2014-02-01", "2014-02-28"),
        ("2016-02", False, None, "2016-02-01", "2016-02-29"),
        ("2014-01-15", False, 4, "2014", "2014"),
        ("2014-01-15", False, 17, None, None),
        ("2014-01-01T08", True, 17, "2014-01-01T08:00:00.000+14:00", "2014-01-01T08:59:59.999-12:00"),
        ("2014-01-01T08:05+02:00", True, None, "2014-01-01T08:05:00.000+02:00", "2014-01-01T08:05:59.999+02:00"),
        ("2014-01-01T08:05:09.2Z", True, None, "2014-01-01T08:05:09.200Z", "2014-01-01T08:05:09.299Z"),
        ("2014-01-01", True, None, "2014-01-01T00:00:00.000+14:00", "2014-01-01T23:59:59.999-12:00"),
        ("2014-01-01", True, 12, "2014-01-01T00:00+14:00", "2014-01-01T23:59-12:00"),
        ("2014", True, 5, None, None),
        ("2014-13", False, None, None, None),
        ("0000-01", False, None, None, None),
        ("soon", False, None, None, None),
    ],
)
def test_dates(value: str, has_time: bool, digits: int | None, low: str | None, high: str | None) -> None:
    assert [date_boundary(value, side, digits, has_time=has_time) for side in ("low", "high")] == [low, high]


@pytest.mark.parametrize(
    ("value", "digits", "low", "high"),
    [
        ("10:30", 9, "10:30:00.000", "10:30:59.999"),
        ("10", None, "10:00:00.000", "10:59:59.999"),
        ("10:30:15", 4, "10:30", "10:30"),
        ("10:30", 5, None, None),
        ("noon", None, None, None),
    ],
)
def test_times(value: str, digits: int | None, low: str | None, high: str | None) -> None:
    assert [time_boundary(value, side, digits) for side in ("low", "high")] == [low, high]
