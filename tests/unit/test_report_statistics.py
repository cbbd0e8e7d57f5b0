"""What was computed on shares stands in the report as tables, and a hidden model among the compared ones."""

from __future__ import annotations

from typing import Any

import pytest

from flute.report.model import Report, StudyReport
from flute.report.page import page_of
from flute.report.render import render_html
from flute.report.sections.statistics import statistics_tables

AGE = {"label": "Age", "unit": "a", "quantiles": {"25": 53.04, "50": 60.05}, "grid_step": 0.09}
TEST = {"test": "Kruskal-Wallis", "statistic": 104.634, "degrees_of_freedom": 1, "p": 1.4e-24, "groups": {"0": 1443}}
LOG_RANK = {"observed_less_expected": -4.0, "variance": 9.0, "statistic": 1.778, "degrees_of_freedom": 1, "p": 0.1824}


def report(results: dict[str, dict[str, Any]]) -> Report:
    study = StudyReport("heart", "Heart", "exact", results=results, labels={"age": "Age"}, units={"age": "a"})
    return Report(title="Heart", simulated=True, made_at=0, studies=(study,))


def test_quantiles_and_tests_stand_in_tables() -> None:
    quantiles, tests = statistics_tables(
        report({"middle": {"variables": {"age": AGE}}, "rate": TEST, "survival": LOG_RANK})
    )
    assert [row[1:3] for row in quantiles.rows] == [("25", "53.04"), ("50", "60.05")]
    assert "Age" in quantiles.rows[0][0]
    assert tests.rows[0] == ("rate", "Kruskal-Wallis", "104.63", "1", "below 0.0001")
    assert tests.rows[1][1:] == ("log-rank", "1.78", "1", "0.1824")


@pytest.mark.parametrize(
    "strange", [{"variables": {"age": 3}}, {"statistic": "x"}, {"variables": {"age": {"quantiles": {"50": 1.0}}}}, {}]
)
def test_what_is_no_such_result_is_left_out(strange: dict[str, Any]) -> None:
    assert statistics_tables(report({"q": strange})) == []
    assert "statistics" not in dict(page_of(report({"q": strange})).sections)


def test_the_page_shows_them_and_says_that_the_tables_were_opened_to_nobody() -> None:
    html = render_html(report({"middle": {"variables": {"age": AGE}}, "rate": TEST}))
    assert "opened to nobody" in html
    assert "53.04" in html
    assert "104.63" in html
