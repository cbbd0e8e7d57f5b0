"""PS3.15 table E.1-1 as data: its actions, and how compound ones are taken."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

import flute.deidentify.profile as module
from flute.deidentify.profile import profile

TABLE = Path(module.__file__).with_name("ps3_15_e1_1.csv")


def rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_whole() -> None:
    """Counts per action of the standard's table, without the four rows that name attributes by pattern."""
    found = Counter(row["basic"] for row in rows())
    assert found == {"X": 412, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U": 2}
    tags = [row["tag"] for row in rows()]
    assert tags == sorted(set(tags))


@pytest.mark.parametrize(
    ("tag", "shifted", "aged"),
    [
        (0x00100010, ("Z", None), ("Z", None)),  # Patient's Name
        (0x00100020, ("D", None), ("D", None)),  # Patient ID: Z/D
        (0x00100030, ("Z", None), ("Z", None)),  # birth date: no option keeps it
        (0x00101010, ("X", "K"), ("X", "K")),  # age: a patient's characteristic
        (0x00080020, ("Z", "C"), ("Z", None)),  # Study Date: modified, or gone
        (0x0008103E, ("X", "C"), ("X", "C")),  # Series Description: cleaned
        (0x0020000D, ("U", None), ("U", None)),  # Study Instance UID
        (0x0040A730, ("D", "C"), ("D", "C")),  # Content Sequence: cleaned structured content
        (0x00400275, ("X", "C"), ("X", "C")),  # Request Attributes Sequence
    ],
)
def test_actions_are_those_of_the_standard(tag: int, shifted: tuple[str, str], aged: tuple[str, str]) -> None:
    assert (profile(True)[tag].basic, profile(True)[tag].option) == shifted
    assert (profile(False)[tag].basic, profile(False)[tag].option) == aged


def test_what_the_table_does_not_list_has_no_rule() -> None:
    assert 0x00280010 not in profile(True)  # Rows


def test_keywords_are_those_of_pydicoms_dictionary() -> None:
    from pydicom.datadict import keyword_for_tag

    named = [row for row in rows() if row["keyword"]]
    assert len(named) > 600
    assert [row["tag"] for row in named if keyword_for_tag(int(row["tag"], 16)) != row["keyword"]] == []
