"""What the cells of a table say: numbers, words, dates, units; and the sentence for one that says it wrongly.

Nothing is guessed: "3,4" may be three or thirty-four, and 01.02.03 may be any of three days.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from flute.conformance.model import Element, Part, Quantity
from flute.data.findings import Finding, shown
from flute.errors import Unmappable

_NUMBER: Final = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?\Z", re.ASCII)
_WHOLE: Final = re.compile(r"(\d{1,9})\.0{1,9}\Z", re.ASCII)
_DATE: Final = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?\Z", re.ASCII)
_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2})(:\d{2}(?:\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?\Z", re.ASCII
)
_SHORT_YEAR: Final = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2}\b", re.ASCII)


@dataclass(frozen=True, slots=True)
class Measured:
    """A number as a table has it, with its unit: a UCUM code, or as people spell it. Empty: the model's own unit."""

    number: object
    unit: str = ""


class Unfit(Unmappable):
    """One value of a row cannot stand in the common model. The finding quotes it; the text does not."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"A value does not fit {finding.path}: {finding.reason}.")
        self.finding = finding


def is_blank(value: object) -> bool:
    """Nothing stands in this cell: no value, NaN, or text without a letter."""
    if isinstance(value, Measured):
        return is_blank(value.number)
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value or value in ((), [])


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a value goes, for the finding."""

    element: Element
    part: Part

    def unfit(self, reason: str, value: object, mend: str) -> Unfit:
        where = f"{self.element.resource}.{self.part.at}"
        return Unfit(Finding(reason, where, self.element.rule(self.part), shown(value), mend))


def plain(value: object) -> str:
    return str(value).strip()


def as_number(cell: Cell, value: object) -> Decimal:
    """Raises: Unfit: no number, or not written as one."""
    if isinstance(value, bool):
        raise cell.unfit("wrong-type", value, "Write a number.")
    text = plain(value)
    if not _NUMBER.match(text):
        raise cell.unfit("wrong-type", text, _number_mend(text))
    return Decimal(text)


def _number_mend(text: str) -> str:
    if text.startswith(("<", ">", "≤", "≥")):
        return "A bound is no measurement: give the number itself, or leave the cell empty."
    if "," in text:
        return "Write the number with a decimal point and without separators, for example 3.4."
    return "Write a number with a decimal point, and the unit in its own column."


def as_word(cell: Cell, value: object, words: Iterable[str]) -> str:
    """A word of the model. What a database says counts by its text: 1.0 and True as "1"."""
    text = _WHOLE.sub(r"\1", plain(int(value) if isinstance(value, bool) else value))
    if text not in words:
        raise cell.unfit("code-not-in-value-set", text, f"Map it to one of: {', '.join(words)}.")
    return text


def as_date(cell: Cell, value: object) -> str:
    """A FHIR date or dateTime. Raises: Unfit: no such day, or not written year-month-day."""
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo is not None else value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    text = plain(value)
    timed, dated = _TIME.match(text), _DATE.match(text)
    try:
        if timed is not None:
            day, minute, second, zone = timed.groups(default="")
            datetime.fromisoformat(f"{day}T{minute}{(second or ':00')[:3]}{zone}")
            return f"{day}T{minute}{second or ':00'}{zone}" if zone else day
        if dated is not None:
            date.fromisoformat(text + "-01-01"[len(text) - 4 :])
            return text
    except ValueError:
        raise cell.unfit("date-invalid", text, "There is no such day; look it up in the record.") from None
    raise cell.unfit("date-invalid", text, _date_mend(text))


def _date_mend(text: str) -> str:
    if _SHORT_YEAR.match(text):
        return "Write the year with four digits, as year-month-day: the century must not be guessed."
    return "Write the date as year-month-day, for example 2023-02-01: which number is the month must not be guessed."


# --- sentences that `check` says too ---------------------------------------------------------------


def unit_mend(kind: Quantity) -> str:
    others = [unit for unit in kind.accepted if unit != kind.unit]
    converted = f", or {' or '.join(others)}, which {'is' if len(others) == 1 else 'are'} converted" if others else ""
    return f"Write the unit as UCUM {kind.unit}{converted}."


def range_mend(low: object, high: object, unit: str = "") -> str:
    of = f" {unit}" if unit else ""
    return f"Possible is {low} to {high}{of}; look the value and its unit up in the record."
