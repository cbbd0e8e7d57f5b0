"""DICOM PS3.15 table E.1-1: what becomes of each attribute, by the standard's action codes.

The table is `ps3_15_e1_1.csv` beside this file: tag, keyword (none where pydicom's dictionary is older), the Basic
Profile's action, and the actions of the options that we carry out: Retain Patient Characteristics (`patient`), Retain
Longitudinal Temporal Information with Modified Dates (`dates`), Clean Descriptors (`descriptors`), Clean Structured
Content (`content`). Edition of January 2025, with the attributes added until 2026c. Private attributes, curves and
overlays, which the table names by pattern, go out by a rule of `dicom`.

A compound action (X/Z/D …) depends on how an object's definition types the attribute. We take the last, which meets
every type: Z is also right where the attribute is optional, D also where it may be empty.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal, cast

Action = Literal["X", "Z", "D", "K", "C", "U"]
"""Remove, empty, dummy value, keep, clean, new UID (table E.1-1a)."""
_TABLE: Final = "ps3_15_e1_1.csv"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. `basic`: what holds without options, and where nothing is left of a cleaned value. `option`: C or K of
    an option that is carried out, or None."""

    basic: Action
    option: Literal["K", "C"] | None


@cache
def profile(modified_dates: bool) -> Mapping[int, Rule]:
    """Rules by tag. `modified_dates`: whether that option is carried out."""
    table = files(__package__).joinpath(_TABLE).read_text(encoding="ascii")
    return {int(row["tag"], 16): _rule(row, modified_dates) for row in csv.DictReader(table.splitlines())}


def _rule(row: Mapping[str, str], modified_dates: bool) -> Rule:
    basic = cast(Action, row["basic"].rpartition("/")[2])
    options = [row["patient"], row["descriptors"], row["content"], row["dates"] if modified_dates else ""]
    chosen = next((option for option in options if option), None)
    return Rule(basic, cast("Literal['K', 'C'] | None", chosen))
