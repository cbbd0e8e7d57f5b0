"""Dates moved by a number of days that is one patient's own, or turned to ages; FHIR's and DICOM's spellings.

Guarantees: of one patient every date moves by the same whole number of days, so intervals in days stay exact, leap
days included; of two patients the shifts differ as draws of an HMAC do. Times of day turn on a clock face by a
number of seconds that is also the patient's own: a time to the second would name an examination to whoever can
see the hospital's calendar. They carry nothing into the date, so that "one year before" stays what it was.
A partial date (a year, a month) is moved from its middle and cut to what it said.
Source: FHIR R4 datatypes (date, dateTime, instant); DICOM PS3.5 section 6.2 (DA, TM, DT); PS3.15 annex E.3.6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from flute.defaults.records import (
    AGE_CAP,
    DATE_SHIFT_MAX_DAYS,
    DATE_SHIFT_MIN_DAYS,
    TIME_TURN_EARLIER_S,
    TIME_TURN_LATER_S,
)
from flute.deidentify.pseudonyms import keyed

_SHIFT: Final = b"flute/date-shift/v1"
_DAY_S: Final = 24 * 3600
_TIME: Final = r"(?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?P<fraction>\.\d{1,9})?)?)?"
_FHIR: Final = re.compile(
    rf"(?P<year>\d{{4}})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)(?:T{_TIME}(?P<zone>Z|[+-]\d\d:\d\d))?)?)?"
)
_DA: Final = re.compile(r"(?P<year>\d{4})\.?(?P<month>\d\d)\.?(?P<day>\d\d)")
_TM: Final = re.compile(_TIME)
_DT: Final = re.compile(rf"(?P<year>\d{{4}})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?:{_TIME})?)?)?(?P<zone>[+-]\d{{4}})?")


@dataclass(frozen=True, slots=True)
class Shift:
    """How one patient's dates move: `days` (negative: into the past), and `seconds` round the clock."""

    days: int
    seconds: int


def shift_of(key: bytes, patient: str) -> Shift:
    """The shift of the patient with this id (as the source spells it).

    Raises: MisuseError: the key is not 32 bytes.
    """
    drawn = keyed(key, _SHIFT + patient.encode())
    days = int.from_bytes(drawn[:16], "big") % (DATE_SHIFT_MAX_DAYS - DATE_SHIFT_MIN_DAYS + 1) + DATE_SHIFT_MIN_DAYS
    turn = int.from_bytes(drawn[16:], "big") % (TIME_TURN_EARLIER_S + TIME_TURN_LATER_S) - TIME_TURN_EARLIER_S
    return Shift(-days, turn)


def shift_fhir(text: str, shift: Shift) -> str | None:
    """A FHIR date, dateTime or instant, moved; None where it is none, or leaves the calendar."""
    found = _FHIR.fullmatch(text)
    day = _moved(found, shift) if found else None
    if found is None or day is None:
        return None
    iso = day.isoformat()
    if found["day"] is None:
        return iso[: len(text)]
    if found["hour"] is None:
        return iso
    time = _turned(found, shift, ":")
    return None if time is None else f"{iso}T{time}{found['zone']}"


def shift_da(text: str, shift: Shift) -> str | None:
    """A DICOM date, moved and written as YYYYMMDD; None where it is none, or leaves the calendar."""
    found = _DA.fullmatch(text.strip())
    day = _moved(found, shift) if found else None
    return None if day is None else f"{day:%Y%m%d}".zfill(8)


def shift_tm(text: str, shift: Shift) -> str | None:
    """A DICOM time of day, turned; None where it is none."""
    found = _TM.fullmatch(text.strip())
    return _turned(found, shift, "") if found else None


def shift_dt(text: str, shift: Shift) -> str | None:
    """A DICOM date with time, moved and turned; None where it is none, or leaves the calendar."""
    found = _DT.fullmatch(text.strip())
    day = _moved(found, shift) if found else None
    if found is None or day is None:
        return None
    digits = f"{day:%Y%m%d}".zfill(8)
    if found["day"] is None:
        return digits[: 6 if found["month"] else 4] + (found["zone"] or "")
    time = _turned(found, shift, "") if found["hour"] else ""
    return None if time is None else f"{digits}{time}{found['zone'] or ''}"


def day_of(text: str) -> date | None:
    """The calendar day of a FHIR or DICOM date; None for a partial date or for none at all."""
    found = _FHIR.fullmatch(text) or _DT.fullmatch(text.strip())
    if found is None or found["day"] is None:
        return None
    return _day(found)


def age_at(birth: date, day: date) -> int | None:
    """Completed years, everybody above AGE_CAP - 1 as AGE_CAP; None before birth. Who was born on a leap day turns
    on 1 March in other years."""
    years = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
    return None if years < 0 else min(years, AGE_CAP)


def _day(found: re.Match[str]) -> date | None:
    """The day that is named, or the middle of the month or year."""
    try:
        if found["month"] is None:
            return date(int(found["year"]), 7, 2)
        return date(int(found["year"]), int(found["month"]), int(found["day"] or 15))
    except ValueError:
        return None


def _moved(found: re.Match[str], shift: Shift) -> date | None:
    day = _day(found)
    try:
        return None if day is None else day + timedelta(days=shift.days)
    except OverflowError:
        return None


def _turned(found: re.Match[str], shift: Shift, colon: str) -> str | None:
    """Hours, minutes and seconds, turned and cut to what was said; a fraction of a second stays."""
    parts = [int(found[name] or 0) for name in ("hour", "minute", "second")]
    if parts[0] > 23 or parts[1] > 59 or parts[2] > 60:
        return None
    total = (parts[0] * 3600 + parts[1] * 60 + parts[2] + shift.seconds) % _DAY_S
    turned = [f"{total // 3600:02}", f"{total // 60 % 60:02}", f"{total % 60:02}"]
    said = 1 + (found["minute"] is not None) + (found["second"] is not None)
    return colon.join(turned[:said]) + (found["fraction"] or "")
