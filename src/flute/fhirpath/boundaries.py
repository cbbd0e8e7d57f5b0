"""`lowBoundary()` and `highBoundary()`: the least and the greatest value that a value of limited precision may mean.

A time without an offset may be meant anywhere on Earth, so its boundaries carry +14:00 and -12:00.

Source: FHIRPath, "Utility functions", lowBoundary and highBoundary (trial use).
"""

from __future__ import annotations

import calendar
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final, Literal

Side = Literal["low", "high"]

DECIMAL_DIGITS: Final = 8
"""Digits after the point of a decimal's boundary, where the caller does not say."""
MAX_DECIMAL_DIGITS: Final = 28
_DATE_DIGITS: Final = (4, 6, 8, 10, 12, 14, 17)
"""Precision of a date or dateTime counts its digits: year, month, day, hour, minute, second, millisecond."""
_TIME_DIGITS: Final = (2, 4, 6, 9)
_MOMENT: Final = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)(?:T(?:(?P<time>[\d:.]+)(?P<offset>Z|[+-]\d\d:\d\d)?)?)?)?)?T?\Z"
)
_TIME: Final = re.compile(r"(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?\Z")
_OFFSETS: Final = {"low": "+14:00", "high": "-12:00"}
_CLOCK: Final = {"low": ("00", "00", "00", "000"), "high": ("23", "59", "59", "999")}


def decimal_boundary(value: Decimal, side: Side, digits: int | None = None) -> Decimal | None:
    """Half a unit of the last digit written down or up; None for a precision that cannot be had.

    `digits`: after the point; the boundary is rounded outwards to them.
    """
    digits = DECIMAL_DIGITS if digits is None else digits
    if not 0 <= digits <= MAX_DECIMAL_DIGITS or not value.is_finite():
        return None
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    half = Decimal(5).scaleb(min(exponent, 0) - 1)
    edge = value - half if side == "low" else value + half
    return edge.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR if side == "low" else ROUND_CEILING)


def date_boundary(value: str, side: Side, digits: int | None = None, *, has_time: bool) -> str | None:
    """Boundary of a FHIR date (`has_time` false) or dateTime; None where it is neither, or for another precision."""
    most = 17 if has_time else 8
    digits = most if digits is None else digits
    found = _MOMENT.match(value)
    if found is None or digits not in _DATE_DIGITS or digits > most:
        return None
    year = found["year"]
    month = found["month"] or ("01" if side == "low" else "12")
    if not 1 <= int(month) <= 12 or int(year) == 0:
        return None
    day = found["day"] or ("01" if side == "low" else f"{calendar.monthrange(int(year), int(month))[1]:02}")
    date = "-".join((year, month, day)[: _DATE_DIGITS.index(min(digits, 8)) + 1])
    if digits <= 8:
        return date
    time = time_boundary(found["time"] or "", side, digits - 8)
    return None if time is None else f"{date}T{time}{found['offset'] or _OFFSETS[side]}"


def time_boundary(value: str, side: Side, digits: int | None = None) -> str | None:
    """Boundary of a time of day ("12:34"; "" for any time)."""
    digits = 9 if digits is None else digits
    found = _TIME.match(value) if value else None
    if (value and found is None) or digits not in _TIME_DIGITS:
        return None
    given = found.groups() if found else (None,) * 4
    filler = _CLOCK[side]
    hour, minute, second = (part or fill for part, fill in zip(given[:3], filler[:3], strict=True))
    thousandths = ((given[3] or "") + filler[3])[:3] if given[3] else filler[3]
    return (":".join((hour, minute, second)) + "." + thousandths)[: (2, 5, 8, 12)[_TIME_DIGITS.index(digits)]]
