"""Dates: intervals stay, patients differ, every spelling of FHIR and DICOM keeps its form."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.defaults.records import AGE_CAP, DATE_SHIFT_MAX_DAYS, DATE_SHIFT_MIN_DAYS
from flute.deidentify.dates import (
    Shift,
    age_at,
    day_of,
    shift_da,
    shift_dt,
    shift_fhir,
    shift_of,
    shift_tm,
)

KEY = b"k" * 32
DAYS = st.dates(date(1900, 1, 1), date(2100, 12, 31))
PATIENTS = st.text(min_size=1, max_size=40)
SHIFTS = PATIENTS.map(lambda patient: shift_of(KEY, patient))


@given(PATIENTS, DAYS, DAYS)
def test_an_interval_in_days_is_what_it_was(patient: str, first: date, second: date) -> None:
    shift = shift_of(KEY, patient)
    moved = [date.fromisoformat(str(shift_fhir(day.isoformat(), shift))) for day in (first, second)]
    assert moved[1] - moved[0] == second - first
    assert moved[0] != first


@given(SHIFTS, DAYS)
def test_fhir_and_dicom_move_a_day_alike(shift: Shift, day: date) -> None:
    iso = str(shift_fhir(day.isoformat(), shift))
    assert shift_da(f"{day:%Y%m%d}", shift) == iso.replace("-", "")
    assert str(shift_dt(f"{day:%Y%m%d}120000", shift))[:8] == iso.replace("-", "")
    assert str(shift_fhir(f"{day}T12:00:00Z", shift))[:10] == iso


@given(PATIENTS)
def test_a_shift_is_in_its_range_and_always_the_same(patient: str) -> None:
    shift = shift_of(KEY, patient)
    assert DATE_SHIFT_MIN_DAYS <= -shift.days <= DATE_SHIFT_MAX_DAYS
    assert shift == shift_of(KEY, patient)


@given(SHIFTS, st.integers(6 * 3600, 22 * 3600 - 1), st.integers(6 * 3600, 22 * 3600 - 1))
def test_times_between_six_and_ten_at_night_keep_their_distance(shift: Shift, first: int, second: int) -> None:
    def seconds(text: str | None) -> int:
        assert text is not None
        return int(text[:2]) * 3600 + int(text[2:4]) * 60 + int(text[4:6])

    moved = [seconds(shift_tm(f"{t // 3600:02}{t // 60 % 60:02}{t % 60:02}", shift)) for t in (first, second)]
    assert moved[1] - moved[0] == second - first


def test_a_time_carries_nothing_into_its_date() -> None:
    late = Shift(-100, 2 * 3600 - 1)
    assert shift_fhir("2024-03-10T23:30:00Z", late) == "2023-12-01T01:29:59Z"


def test_a_leap_day_moves_and_comes_back() -> None:
    assert shift_fhir("2024-02-29", Shift(-366, 0)) == "2023-02-28"
    assert shift_fhir("2023-02-28", Shift(366, 0)) == "2024-02-29"
    assert shift_fhir("2023-02-29", Shift(-366, 0)) is None


def test_partial_dates_stay_partial() -> None:
    year_back = Shift(-365, 0)
    assert shift_fhir("2020", year_back) == "2019"
    assert shift_fhir("2020-03", year_back) == "2019-03"
    assert shift_dt("2020", year_back) == "2019"
    assert shift_dt("202003+0100", year_back) == "201903+0100"
    assert shift_fhir("2020-03-01T10:20:30.125+01:00", Shift(-1, 60)) == "2020-02-29T10:21:30.125+01:00"


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2020-13-01", "2020-02-30", "20-01-01", "2020-01-01T25:00:00Z", "2020-1-1"]
)
def test_what_is_no_date_gives_none(text: str) -> None:
    assert shift_fhir(text, Shift(-100, 0)) is None


def test_a_date_that_would_leave_the_calendar_gives_none() -> None:
    assert shift_da("00010101", Shift(-100, 0)) is None
    assert shift_dt("0001", Shift(-1000, 0)) is None
    assert shift_da("19570230", Shift(-1, 0)) is None
    assert shift_tm("2460", Shift(0, 0)) is None


def test_old_spellings_of_dicom_are_read() -> None:
    assert shift_da("1999.12.31", Shift(-1, 0)) == "19991230"
    assert shift_tm("10:20:30", Shift(0, 0)) == "102030"
    assert shift_tm("10", Shift(0, 3599)) == "10"
    assert day_of("20200229123000.5") == date(2020, 2, 29)
    assert day_of("2020-02") is None


def test_ages_are_completed_years() -> None:
    assert age_at(date(2000, 2, 29), date(2019, 2, 28)) == 18
    assert age_at(date(2000, 2, 29), date(2019, 3, 1)) == 19
    assert age_at(date(1920, 1, 1), date(2024, 1, 1)) == AGE_CAP
    assert age_at(date(2024, 1, 2), date(2024, 1, 1)) is None


@given(st.integers(0, 120), DAYS)
def test_no_age_above_the_cap(years: int, day: date) -> None:
    found = age_at(day - timedelta(days=years * 366), day)
    assert found is None or 0 <= found <= AGE_CAP
