"""One cell of a table, as text or as a database or a workbook types it, into a value of the common model.

Nothing is guessed: what can be read in two ways is refused with a finding that says what to write in the mapping.
Whether the value is possible at all is for `conformance.build` to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from flute.conformance.cells import Unfit
from flute.data.findings import Finding, shown
from flute.defaults.records import MAX_CELL_CHARS
from flute.errors import MisuseError
from flute.tabular.mapping import Formats

Cell = Any
_TOKENS: Final = {
    "YYYY": r"(?P<year>\d{4})", "MM": r"(?P<month>\d{1,2})", "DD": r"(?P<day>\d{1,2})", "hh": r"(?P<hour>\d{1,2})",
    "mm": r"(?P<minute>\d{2})", "ss": r"(?P<second>\d{2})",
}  # fmt: skip
_SIGNS: Final = frozenset(" .,/-:T")
_ISO_TIME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)\Z", re.ASCII)
_NUMBER_LIKE: Final = re.compile(r"[+-]?[\d.,' ]*\d[\d.,' ]*\Z", re.ASCII)
_SPACES: Final = str.maketrans("\u00a0\u202f\u2009\u2019", "   '")
"""No-break, narrow and thin space, and the typographer's apostrophe, as thousands are written with them too."""


def text_of(cell: Cell) -> str:
    """A cell as text: whole numbers without a point, dates as year-month-day; empty where there is nothing.

    Raises: Unfit (path left to the caller): longer than MAX_CELL_CHARS, or bytes.
    """
    match cell:
        case str():
            text = cell.strip()
        case None:
            return ""
        case bool():
            text = "true" if cell else "false"
        case float():
            text = "" if cell != cell else _float_text(cell)
        case Decimal():
            whole = cell.is_finite() and cell == cell.to_integral_value()
            text = str(int(cell)) if whole else f"{cell:f}"
        case datetime() if cell.time() == time.min and cell.tzinfo is None:
            text = cell.date().isoformat()
        case bytes() | bytearray() | memoryview():
            raise unfit("wrong-type", "cell-bytes", "bytes", "Map a column that holds text, a number or a date.")
        case _:
            text = str(cell).strip()
    if len(text) > MAX_CELL_CHARS:
        raise unfit("too-long", "cell-size", text, f"A cell may hold {MAX_CELL_CHARS} characters; map another one.")
    return text


def _float_text(number: float) -> str:
    """Fifteen digits, as a workbook shows it: 0.1 + 0.2 is 0.3 there."""
    return str(int(number)) if number.is_integer() else f"{number:.15g}"


def unfit(reason: str, rule: str, found: object, mend: str, path: str = "") -> Unfit:
    return Unfit(Finding(reason, path, rule, shown(found), mend))


# --- numbers -----------------------------------------------------------------------------------------


def number_reader(formats: Formats) -> Callable[[Cell], Cell]:
    """A function from a cell to a number's text with a decimal point; what is no number goes on as it is."""
    decimal, thousands = formats.decimal or ".", formats.thousands
    whole = r"\d+" if thousands is None else rf"(?:\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+)"
    pattern = re.compile(rf"([+-]?)({whole})(?:{re.escape(decimal)}(\d+))?\Z", re.ASCII)

    def read(cell: Cell) -> Cell:
        if not isinstance(cell, str):
            return text_of(cell) if isinstance(cell, float | Decimal) else cell
        text = text_of(cell).translate(_SPACES)
        if not _NUMBER_LIKE.match(text):
            return text
        match = pattern.match(text)
        if match is None:
            raise unfit("wrong-type", "number-format", text, _number_mend(text, formats))
        sign, digits, fraction = match.groups()
        if thousands is not None:
            digits = digits.replace(thousands, "")
        return f"{sign}{digits}" + (f".{fraction}" if fraction else "")

    return read


def _number_mend(text: str, formats: Formats) -> str:
    if "," in text and formats.decimal is None and formats.thousands is None:
        return (
            "The comma may be a decimal sign or stand between thousands: write 'formats: {decimal: \",\"}' or "
            "'formats: {thousands: \",\"}' for this table in the mapping."
        )
    between = f", {formats.thousands!r} between thousands" if formats.thousands else ""
    return (
        f"The mapping says {formats.decimal or '.'!r} for decimals{between or ' and nothing between thousands'}; "
        "correct the cell, or the table's 'formats'."
    )


# --- dates -------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def date_pattern(written: str) -> tuple[re.Pattern[str], str]:
    """The pattern of a date format such as "DD.MM.YYYY hh:mm", and its shape, which two formats must not share.

    Raises: MisuseError: it cannot be a format; the text says what to write.
    """
    pattern, shape, rest, seen = "", "", written.strip(), set()
    while rest:
        token = next((t for t in _TOKENS if rest.startswith(t)), None)
        if token is None and rest[0] not in _SIGNS:
            short = "years have four digits, since a century must not be guessed; " if rest.startswith("YY") else ""
            raise MisuseError(
                f"{written[:40]!r} is no way to write a day: {short}write it with YYYY, MM, DD, hh, mm and ss and "
                "the signs between them, for example 'DD.MM.YYYY'."
            )
        if token is not None and token in seen:
            raise MisuseError(f"{written[:40]!r} has {token} twice.")
        piece = token or rest[0]
        seen.add(piece if token else "")
        pattern += _TOKENS.get(piece, re.escape(piece))
        shape += ("0" * len(piece)) if token else piece
        rest = rest[len(piece) :]
    if not {"YYYY", "MM", "DD"} <= seen or ("mm" in seen) != ("hh" in seen) or ("ss" in seen and "mm" not in seen):
        raise MisuseError(
            f"{written[:40]!r} is no way to write a day: it needs YYYY, MM and DD, and for a time hh and mm besides."
        )
    return re.compile(pattern + r"\Z", re.ASCII), shape


def moment_reader(formats: Formats) -> Callable[[Cell], Cell]:
    """A function from a cell to a `date`, a `datetime`, or ISO 8601 text.

    A time gets the declared zone; midnight sharp without a zone is a day, as databases and workbooks keep days.
    """
    patterns = [date_pattern(written)[0] for written in formats.date_formats()]
    names = " or ".join(formats.date_formats())
    zone = ZoneInfo(formats.zone) if formats.zone else None

    def read(cell: Cell) -> Cell:
        if isinstance(cell, datetime):
            return _in_zone(cell, zone)
        if isinstance(cell, date):
            return cell
        text = text_of(cell)
        if not text:
            return None
        if not isinstance(cell, str):
            mend = "A number is no date: format the column as a date, or give it as text."
            raise unfit("date-invalid", "date-typed", text, mend)
        if patterns:
            return _by_patterns(text, patterns, names, zone)
        timed = _ISO_TIME.match(text)
        if timed is None:
            return text
        try:
            return _in_zone(datetime.fromisoformat(f"{timed[1]}T{timed[2]}"), zone)
        except ValueError:
            raise _no_such_day(text) from None

    return read


def _by_patterns(text: str, patterns: list[re.Pattern[str]], names: str, zone: ZoneInfo | None) -> date:
    match = next((m for m in (p.match(text) for p in patterns) if m), None)
    if match is None:
        mend = f"The mapping says that days are written {names}; correct the cell, or the table's 'formats'."
        raise unfit("date-invalid", "date-format", text, mend)
    pieces = {name: int(digits) for name, digits in match.groupdict().items()}
    try:
        if "hour" not in pieces:
            return date(pieces["year"], pieces["month"], pieces["day"])
        return _in_zone(datetime(**pieces), zone)  # type: ignore[arg-type]
    except ValueError:
        raise _no_such_day(text) from None


def _no_such_day(text: str) -> Unfit:
    return unfit("date-invalid", "date-calendar", text, "There is no such day or time; look it up in the record.")


def _in_zone(moment: datetime, zone: ZoneInfo | None) -> date:
    if moment.tzinfo is not None:
        return moment if zone is None else moment.astimezone(zone)
    if moment.time() == time.min:
        return moment.date()
    if zone is None:
        return moment
    placed = moment.replace(tzinfo=zone)
    if placed.astimezone(ZoneInfo("UTC")).astimezone(zone).replace(tzinfo=None) != moment:
        mend = f"The clocks of {zone.key} leaped over this time; look it up in the record."
        raise unfit("date-invalid", "date-zone", moment, mend)
    return placed


# --- words -------------------------------------------------------------------------------------------


def word_reader(values: Mapping[str, str], where: str) -> Callable[[Cell], Cell]:
    """A function from a cell to the common model's word. Capitals and doubled blanks do not count, unless the mapping
    itself tells them apart. Without `values` the cell's own text is the word, and yes or no of a database 1 or 0."""
    plain: dict[str, str | None] = {}
    for word, meaning in values.items():
        known = plain.setdefault(_plain(word), meaning)
        plain[_plain(word)] = meaning if known == meaning else None

    def read(cell: Cell) -> Cell:
        text = text_of(cell)
        if not text:
            return None
        meaning = values.get(text) or plain.get(_plain(text))
        if meaning is None and isinstance(cell, bool):
            meaning = values.get(str(int(cell)))
        if meaning is None:
            mend = f"Say what it means: write it below {where} in the mapping, or correct the cell."
            raise unfit("code-not-in-value-set", "word-unmapped", text, mend)
        return meaning

    return read if values else lambda cell: str(int(cell)) if isinstance(cell, bool) else text_of(cell)


def _plain(word: str) -> str:
    return " ".join(word.split()).casefold()
