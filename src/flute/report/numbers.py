"""Numbers for people, in the report's language (English): thousands separators, units, never a false digit.

The sentences of the ledger and the agreement come with English numbers too; mixing two styles on one page
would make 1,200 ambiguous, so there is one style. What is unknown or not finite is shown as a dash.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

UNKNOWN: Final = "–"
_UNITS: Final = {
    "a": "years",
    "mo": "months",
    "wk": "weeks",
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "cm3": "cm³",
    "kg/m2": "kg/m²",
    "m2": "m²",
    "ug/L": "µg/L",
    "umol/L": "µmol/L",
    "mm[Hg]": "mmHg",
    "Cel": "°C",
    "{score}": "",
    "1": "",
}
"""UCUM codes that read oddly, as people write them; other codes are shown as they are."""
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_SMALLEST_P: Final = 1e-4
_PREFIXES: Final = ("B", "kB", "MB", "GB", "TB")


def finite(value: object) -> float | None:
    """The value as a number, None if it is no finite one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def decimal(value: float | None, digits: int = 2) -> str:
    """Thousands separated, a true minus sign, no minus before zero."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value != 0 and abs(value) >= 1e15:
        return f"{value:.2e}".replace("-", "−")
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def count(value: float | None) -> str:
    return decimal(value, 0)


def short(value: float | None, digits: int = 3) -> str:
    """So many significant digits, no trailing zeros; large whole numbers in full."""
    if value is None or not math.isfinite(value) or value == 0:
        return UNKNOWN if value is None or not math.isfinite(value) else "0"
    size = math.floor(math.log10(abs(value)))
    if size < -5:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        shown = f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
        return shown.replace("-", "−")
    text = decimal(value, max(0, digits - 1 - size))
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float | None, digits: int = 0) -> str:
    text = decimal(None if share is None else 100 * share, digits)
    return text if text == UNKNOWN else f"{text}%"


def probability(value: float | None) -> str:
    """An area or a score between 0 and 1, three digits."""
    return decimal(value, 3)


def p_value(value: float | None) -> str:
    """Four digits; below that, only that it is."""
    return f"below {_SMALLEST_P:g}" if value is not None and value < _SMALLEST_P else decimal(value, 4)


def span(low: float | None, high: float | None, write: Callable[[float | None], str]) -> str:
    """`0.84 to 0.88`; a dash where either end is unknown."""
    return UNKNOWN if low is None or high is None else f"{write(low)} to {write(high)}"


def with_span(
    value: float | None, low: float | None, high: float | None, write: Callable[[float | None], str]
) -> str:
    """`0.86 (0.84 to 0.88)`, without brackets where no interval is known."""
    if value is None or low is None or high is None:
        return write(value)
    return f"{write(value)} ({span(low, high, write)})"


def size(byte_count: float | None) -> str:
    if byte_count is None or not math.isfinite(byte_count):
        return UNKNOWN
    at = 0
    while abs(byte_count) >= 999.5 and at < len(_PREFIXES) - 1:
        byte_count, at = byte_count / 1000, at + 1
    return f"{short(byte_count) if at else count(byte_count)} {_PREFIXES[at]}"


def memory(byte_count: float | None) -> str:
    """Memory as operating systems count it."""
    return UNKNOWN if byte_count is None else f"{count(byte_count / 2**20)} MiB"


def duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 100:
        return f"{decimal(seconds, 2 if seconds < 1 else 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{count(minutes)} min {rest} s"


def when(unix: int | None, *, time: bool = True) -> str:
    """`24 November 2026, 15:41 UTC`, English whatever the machine's locale."""
    if unix is None:
        return UNKNOWN
    at = datetime.fromtimestamp(unix, tz=UTC)
    day = f"{at.day} {_MONTHS[at.month - 1]} {at.year}"
    return f"{day}, {at.hour:02}:{at.minute:02} UTC" if time else day


def unit(ucum: str) -> str:
    return _UNITS.get(ucum, ucum)


def listed(items: list[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def plural(n: float | None, one: str, many: str) -> str:
    """`1 hub`, `3 hubs`."""
    return f"{UNKNOWN if n is None else count(n)} {one if n == 1 else many}"
