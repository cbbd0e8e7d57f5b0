"""Charts: numbers to SVG that is well formed, inside its frame and without texts over one another."""

from __future__ import annotations

import math
import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from flute.report.charts.bars import BudgetBar, budget_bars, flat_bars
from flute.report.charts.curves import Curve, curves_chart, percent_axis
from flute.report.charts.forest import ForestRow, Ratio, forest
from flute.report.charts.svg import CHAR, fitted, nice_ticks, tag, wrapped
from flute.report.cohorts import cohorts
from flute.report.model import Report, StudyReport
from flute.report.numbers import decimal
from flute.report.render import render_html
from unit.report_sample import sample

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
LONG = "A very long name of a model that somebody thought up on a rainy afternoon in the library"


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in SVG.findall(html)]


def boxes(drawing: ElementTree.Element) -> list[tuple[str, float, float, float, float]]:
    found = []
    for text in drawing.iter("text"):
        size, x, y = float(text.get("font-size")), float(text.get("x")), float(text.get("y"))
        width = len(text.text or "") * CHAR * size
        left = x - width * {"end": 1.0, "middle": 0.5}.get(text.get("text-anchor", ""), 0.0)
        found.append((text.text or "", left, y - 0.75 * size, left + width, y + 0.2 * size))
    return found


def overlapping(drawing: ElementTree.Element) -> list[tuple[str, str]]:
    return [
        (a[0], b[0])
        for a, b in combinations(boxes(drawing), 2)
        if min(a[3], b[3]) - max(a[1], b[1]) > 0.5 and min(a[4], b[4]) - max(a[2], b[2]) > 0.5
    ]


def outside(drawing: ElementTree.Element) -> list[str]:
    _, _, width, height = map(float, drawing.get("viewBox").split())
    return [
        t for t, left, top, right, low in boxes(drawing) if left < -1 or right > width + 1 or top < 0 or low > height
    ]


def test_every_text_of_the_sample_stays_in_its_frame_and_off_the_others() -> None:
    shown = drawings(render_html(sample()))
    assert len(shown) > 15
    for drawing in shown:
        title = drawing.find("title").text
        assert not overlapping(drawing), title
        assert not outside(drawing), title


def test_the_overlap_check_sees_two_texts_on_one_spot() -> None:
    twice = tag("text", "median 55", x=10, y=20, font_size=12) + tag("text", "55%", x=30, y=22, font_size=12)
    assert overlapping(ElementTree.fromstring(f"<svg>{twice}</svg>"))


@pytest.mark.parametrize("n", [1, 2, 8, 12])
def test_curves_have_long_names_and_equal_courses_and_stay_readable(n: int) -> None:
    curve = ((0.0, 0.0), (0.2, 0.7), (1.0, 1.0))
    svg = curves_chart("c", "t", "d", [Curve(LONG, "AUC 0.861", curve)] * n, percent_axis("x"), percent_axis("y"))
    drawing = ElementTree.fromstring(svg)
    assert not outside(drawing)
    assert not overlapping(drawing)
    assert len({p.get("stroke-dasharray") for p in drawing.iter("path")}) == min(n, 8)


def test_a_curve_without_points_is_no_crash() -> None:
    assert "svg" in curves_chart("c", "t", "d", [Curve("a", "", ())], percent_axis("x"), percent_axis("y"))


@pytest.mark.parametrize("value", [1e-12, 1e-3, 1.0, 40.0, 1e12])
def test_odds_ratios_of_any_size_are_drawn_within_the_chart(value: float) -> None:
    rows = [ForestRow(LONG, (Ratio(value, value / 50, value * 50), None))]
    drawing = ElementTree.fromstring(forest("f", "t", "d", rows, ["private", "exact"]))
    ends = [float(line.get(k)) for line in drawing.iter("line") for k in ("x1", "x2")]
    assert all(0 <= end <= 760 for end in ends)


def test_noise_below_zero_draws_no_bar_below_zero() -> None:
    variables = {
        "x": {
            "histogram": {"edges": [0, 1, 2, 3], "counts": [-40.0, 100.0, 60.0]},
            "n": {"value": -3.0, "noise_se": 9},
        },
        "c": {"levels": {"0": {"count": -8.0, "noise_se": 12.0}, "1": {"count": 0.0, "noise_se": 12.0}}},
    }
    study = StudyReport("s", "S", "private", results={"d@north": {"variables": variables}})
    report = Report(title="t", simulated=False, made_at=0, studies=(study,))
    panels = {v.name: v.panels[0] for v in cohorts(report)[0].variables}
    assert [bar.share for bar in panels["x"].bars] == [0.0, 0.625, 0.375]
    assert [bar.share for bar in panels["c"].bars] == [0.0, 0.0]
    html = render_html(report)
    assert "−3 ± 9" in html  # the count as released, noise and all
    for drawing in drawings(html):
        assert all(float(rect.get("height")) >= 0 and float(rect.get("width")) >= 0 for rect in drawing.iter("rect"))


def test_budgets_and_times_of_nothing_are_drawn_as_nothing() -> None:
    assert "<svg" in budget_bars("b", "t", "d", [BudgetBar("north", 0.0, 0.0, None, "", False)])
    assert "<svg" in flat_bars("s", "t", "d", [("a", 0.0)], decimal)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.1, 0.42), (40, 90), (0.2, 200), (0, 1e-9), (1e9, 3e9)])
def test_ticks_are_round_within_and_at_least_two(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 * abs(low) <= t <= high * (1 + 1e-9) for t in ticks)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, math.inf), (math.nan, 1)])
def test_a_range_without_extent_has_no_ticks(low: float, high: float) -> None:
    assert nice_ticks(low, high) == ()


def test_long_texts_are_cut_and_wrapped_to_their_room() -> None:
    assert fitted("short", 200) == "short"
    assert fitted(LONG, 100).endswith("…")
    assert len(wrapped(LONG, 200, 2)) == 2
    assert wrapped("", 200, 2) == []
