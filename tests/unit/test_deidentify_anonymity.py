"""k, l, uniqueness and risks of small tables that can be counted by hand."""

from __future__ import annotations

import math

import pytest

from flute.deidentify.anonymity import anonymity, as_text
from flute.deidentify.classes import Classes
from flute.errors import MisuseError

CLASSES = Classes({"age": "quasi-identifier", "sex": "quasi-identifier", "outcome": "sensitive", "note": "other"})


def table(ages: list[float], sexes: str, outcomes: str) -> dict[str, list[object]]:
    return {"age": list(ages), "sex": list(sexes), "outcome": list(outcomes), "note": ["x"] * len(ages)}


def test_classes_are_counted() -> None:
    report = anonymity(table([60, 60, 60, 61, 61, 70], "mmmffm", "abaaax"), CLASSES)
    assert (report.records, report.classes, report.k, report.unique) == (6, 3, 1, 1)
    assert report.sizes == {"1": 1, "2": 2, "3": 3}
    assert report.diversity == {"outcome": 1}
    assert report.risk.prosecutor_highest == 1.0
    assert report.risk.marketer == report.risk.prosecutor_mean == 0.5
    assert report.risk.journalist_highest is None
    assert not report.enough


def test_l_is_the_least_number_of_different_sensitive_values() -> None:
    report = anonymity(table([60, 60, 60, 61, 61], "mmmff", "abcxy"), CLASSES)
    assert report.diversity == {"outcome": 2}


def test_the_journalist_must_find_him_in_the_population() -> None:
    report = anonymity(table([60] * 4, "mmmm", "abab"), CLASSES, population=400)
    assert report.risk.journalist_highest == pytest.approx(4 / (4 * 400))
    assert report.risk.prosecutor_highest == 0.25
    with pytest.raises(MisuseError, match="cannot be smaller"):
        anonymity(table([60] * 4, "mmmm", "abab"), CLASSES, population=3)


def test_missing_values_are_alike() -> None:
    report = anonymity(table([math.nan, math.nan], "mm", "ab"), CLASSES)
    assert report.k == 2


def test_suggestions_together_meet_the_risk_and_keep_what_they_can() -> None:
    ages = [float(50 + n % 40) for n in range(400)]
    report = anonymity(table(ages, "mf" * 200, "ab" * 200), CLASSES)
    assert report.k == 10
    assert not report.enough
    assert report.suggestions[-1].k >= 11
    assert [(step.column, step.how) for step in report.suggestions] == [("age", "ranges of 5")]


def test_rare_levels_go_together_before_a_column_is_left_out() -> None:
    sexes = "m" * 50 + "f" * 50 + "xyz" + "u" * 9
    report = anonymity(table([60.0] * 112, sexes, "a" * 112), CLASSES)
    assert [(step.column, step.how, step.k) for step in report.suggestions] == [("sex", "rare levels together", 12)]


def test_a_table_too_small_for_the_risk_says_so() -> None:
    report = anonymity(table([60, 70], "mf", "ab"), CLASSES)
    assert report.suggestions == ()
    assert "leave rare records out" in as_text(report)


def test_a_table_that_meets_the_risk_needs_nothing() -> None:
    report = anonymity(table([60.0] * 24, "m" * 12 + "f" * 12, "ab" * 12), CLASSES)
    assert report.enough
    assert report.suggestions == ()
    assert "k = 12" in as_text(report)


def test_identifiers_are_taken_out_first() -> None:
    with pytest.raises(MisuseError, match="identifies persons"):
        anonymity({"id": [1], "age": [2]}, Classes({"id": "identifier", "age": "quasi-identifier"}))


@pytest.mark.parametrize("columns", [{"age": []}, {"age": [1, 2], "sex": ["m"]}, {"sex": ["m"]}])
def test_tables_of_no_shape_are_refused(columns: dict[str, list[object]]) -> None:
    classes = Classes({"age": "quasi-identifier"} | ({"sex": "sensitive"} if "sex" in columns else {}))
    with pytest.raises(MisuseError):
        anonymity(columns, classes)


def test_the_report_holds_no_value_of_the_table() -> None:
    text = as_text(anonymity(table([61.0, 62.0], "mf", "qz"), CLASSES))
    assert "61" not in text
    assert "q" not in text.replace("quasi", "").replace("unique", "")
