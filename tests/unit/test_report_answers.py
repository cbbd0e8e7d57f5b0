"""Statistics and learners in the report: every result is shown, drawn where its numbers are, and never a crash."""

from __future__ import annotations

import copy
import functools
import math
import random
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from flute.report.charts.intervals import IntervalPanel, IntervalRow, Reading, interval_panels
from flute.report.charts.svg import Axis
from flute.report.page import page_of
from flute.report.reading import mapping
from flute.report.render import render_html
from flute.report.sections import answers as sections
from flute.report.sections.answers import answer_sections
from flute.report.sections.shown import Answer
from support.html_page import Page
from unit.report_answers import released, report_of
from unit.test_report_charts import drawings, outside, overlapping

EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{ 7*7 }}"""


@functools.cache
def answers(mode: str) -> dict[str, Answer]:
    """By reference."""
    sections = answer_sections(report_of(released(mode), mode))  # type: ignore[arg-type]
    return {answer.heading.partition(":")[0]: answer for section in sections for answer in section.answers}


def svg(answer: Answer, ending: str) -> ElementTree.Element:
    return ElementTree.fromstring(next(f.svg for f in answer.figures if f.id.endswith(ending)))


def near(a: float, b: float) -> bool:
    """As numbers are rounded in drawings."""
    return abs(a - b) <= 0.06


@pytest.mark.parametrize("mode", ["exact", "private"])
def test_every_result_is_in_a_section_and_only_what_has_no_chart_is_among_the_rest(mode: str) -> None:
    page = page_of(report_of(released(mode), mode))  # type: ignore[arg-type]
    assert set(answers(mode)) == set(released(mode))
    assert [a.heading.partition(":")[0] for a in page.answers["more"].answers] == ["robust"]
    html = render_html(page.report)
    sections = [a["id"] for a in Page(html).of("section")]
    assert [s for s in sections if s in page.answers] == list(page.answers)


@pytest.mark.parametrize("mode", ["exact", "private"])
def test_every_chart_has_a_sentence_and_a_table_and_no_texts_over_one_another(mode: str) -> None:
    html = render_html(report_of(released(mode), mode))  # type: ignore[arg-type]
    for figure in re.findall(r'<figure class="chart".*?</figure>', html, re.DOTALL):
        assert re.search(r'<p class="takeaway">.{10,}</p>', figure)
        assert re.search(r"<details>.*<table>.*<td.*</details>", figure, re.DOTALL)
    shown = drawings(html)
    assert len(shown) > 15
    for drawing in shown:
        assert not overlapping(drawing), drawing.find("title").text
        assert not outside(drawing), drawing.find("title").text
    ids = Page(html).ids
    assert len(ids) == len(set(ids))


# --- numbers in, positions out ----------------------------------------------------------------


def test_an_interval_is_drawn_from_its_low_to_its_high_end_and_the_limit_where_it_is() -> None:
    row = IntervalRow("a", (Reading(20.0, 10.0, 40.0, "20"),), mark=50.0, mark_said="bound 50")
    panel = IntervalPanel(Axis(0.0, 100.0, (0.0, 100.0), str), (row,))
    drawing = ElementTree.fromstring(interval_panels("i", "t", "d", [panel], ("a",), "bound"))
    ticks = {t.text: float(t.get("x")) for t in drawing.iter("text") if t.text in ("0.0", "100.0")}
    start, unit = ticks["0.0"], (ticks["100.0"] - ticks["0.0"]) / 100
    whisker = next(e for e in drawing.iter("line") if e.get("class") == "whisker s0")
    dot = list(drawing.iter("circle"))[-1]
    limit = [e for e in drawing.iter("line") if e.get("class") == "limit"][-1]
    assert near(float(whisker.get("x1")), start + 10 * unit)
    assert near(float(whisker.get("x2")), start + 40 * unit)
    assert near(float(dot.get("cx")), start + 20 * unit)
    assert near(float(limit.get("x1")), start + 50 * unit)


def test_an_interval_beyond_the_axis_ends_in_an_arrow_and_a_lower_bound_in_a_short_one() -> None:
    axis = Axis(0.0, 100.0, (0.0,), str)
    wide = IntervalRow("a", (Reading(20.0, -50.0, 400.0, "20"),))
    lower = IntervalRow("b", (Reading(30.0, 30.0, None, "at least 30", one_sided=True),))
    drawn = interval_panels("i", "t", "d", [IntervalPanel(axis, (wide, lower))], ("a",))
    tips = [e for e in ElementTree.fromstring(drawn).iter("polygon") if e.get("class") == "fill s0"]
    assert len(tips) == 3
    inside = IntervalRow("a", (Reading(20.0, 5.0, 40.0, "20"),))
    drawn = interval_panels("i", "t", "d", [IntervalPanel(axis, (inside,))], ("a",))
    assert not [e for e in ElementTree.fromstring(drawn).iter("polygon") if e.get("class") == "fill s0"]


def curve_points(drawing: ElementTree.Element, style: int) -> list[tuple[float, float]]:
    drawn = next(p for p in drawing.iter("path") if p.get("class") == f"curve s{style}")
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", drawn.get("d"))]


@pytest.mark.parametrize("mode", ["exact", "private"])
def test_a_survival_curve_steps_down_at_its_times_to_its_values(mode: str) -> None:
    drawing = svg(answers(mode)["curve"], "-curves")
    curve = released(mode)["curve"]["groups"]["all"]["curve"]
    points = curve_points(drawing, 0)
    left, top = points[0]
    bottom = next(float(e.get("y1")) for e in drawing.iter("line") if e.get("class") == "axis")
    pairs = [p for p in zip(curve["times"], curve["survival"], strict=True) if None not in p]
    right = points[-1][0]
    for k, (time, survival) in enumerate(pairs):
        x, y = points[2 + 2 * k]
        assert near(x, left + (right - left) * time / pairs[-1][0])
        assert near(y, bottom - (bottom - top) * survival)
        assert points[1 + 2 * k][1] == points[2 * k][1]  # level until the step


def band_heights(mode: str, curve: dict[str, Any]) -> list[float]:
    results = {"curve": {**released(mode)["curve"], "groups": {"all": {"curve": curve}}}}
    (section,) = answer_sections(report_of(results))
    drawing = svg(section.answers[0], "-curves")
    band = next(p for p in drawing.iter("path") if p.get("class") == "band s0")
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", band.get("d"))]
    upper, lower = points[: len(points) // 2], points[len(points) // 2 :][::-1]
    return [b[1] - a[1] for a, b in zip(upper, lower, strict=True)]


def test_a_band_is_of_the_interval_with_its_noise_and_not_of_sampling_alone() -> None:
    curve = released("private")["curve"]["groups"]["all"]["curve"]
    drawn = band_heights("private", curve)
    wider = copy.deepcopy(curve)
    wider["low"], wider["high"] = ([v + s * 0.05 for v in curve[k]] for k, s in (("low", -1), ("high", 1)))
    assert sum(band_heights("private", wider)) > 1.2 * sum(drawn)
    unit = 360.0
    ends = [(h - low) * unit for low, h in zip(curve["low"], curve["high"], strict=True)]
    assert near(drawn[2], ends[0])
    sampling = [3.92 * s * unit for s in curve["sampling_se"]]
    assert drawn[2] > 1.01 * sampling[0]


def test_hazard_ratios_lie_on_a_logarithmic_axis_where_they_belong() -> None:
    drawing = svg(answers("exact")["hazards"], "-hazards")
    ticks = {t.text: float(t.get("x")) for t in drawing.iter("text") if t.text in ("0.5", "1", "2")}
    ratio = released("exact")["hazards"]["hazard_ratios"][1]["value"]
    dots = [float(c.get("cx")) for c in drawing.iter("circle")][1:]  # the first is the key's
    assert near(dots[1], ticks["1"] + (ticks["2"] - ticks["1"]) * math.log2(ratio))
    table = answers("exact")["hazards"].figures[0].table
    assert [row[0] for row in table.rows][2:] == ["Grade: mid against low", "Grade: high against low"]


def test_cells_are_as_dark_as_their_share_and_bars_as_long_as_their_importance() -> None:
    counts = released("exact")["cross"]["counts"]
    cells = [float(r.get("fill-opacity")) for r in svg(answers("exact")["cross"], "-grid").iter("rect")]
    shares = [v / sum(row) for row in counts for v in row]
    assert cells == pytest.approx([0.75 * s for s in shares], abs=1e-3)
    bars = [float(r.get("width")) for r in svg(answers("exact")["tree"], "-importances").iter("rect")]
    told = sorted(released("exact")["tree"]["importances"].values(), reverse=True)
    assert [b / bars[0] for b in bars] == pytest.approx(
        [max(v / told[0], bars[-1] / bars[0]) for v in told], abs=1e-2
    )


def test_what_a_variable_adds_is_drawn_as_steps_in_a_band_of_its_interval() -> None:
    curves = released("private")["boosted"]["curves"]
    drawing = svg(answers("private")["boosted"], "-curves")
    assert [t.text for t in drawing.iter("text") if t.get("font-weight")] == [
        "Age",
        "Blood pressure",
        "Female",
        "Grade",
    ]
    line, band = curve_points(drawing, 0), next(p for p in drawing.iter("path") if p.get("class") == "band s0")
    edges = [float(x) for x in re.findall(r"([\d.]+) ([\d.]+)", band.get("d"))[0]]
    odds, errors = curves["age"]["log_odds"], curves["age"]["se"]
    heights = [y for _, y in line]
    unit = (max(heights) - min(heights)) / (max(odds) - min(odds))
    assert len(line) == 2 * len(odds)
    assert line[0][1] - edges[1] == pytest.approx(1.96 * errors[0] * unit, rel=0.01)
    whiskers = [e for e in drawing.iter("line") if e.get("class") == "whisker s0"]
    reach = [float(e.get("y1")) - float(e.get("y2")) for e in whiskers]
    told = [*curves["sex"]["se"], *curves["grade"]["se"]]
    assert reach == pytest.approx([2 * 1.96 * s * unit for s in told], rel=0.02)
    assert "curves" not in released("exact")["boosted"]


def test_a_negative_correlation_is_shaded_in_the_other_colour() -> None:
    result = copy.deepcopy(released("exact")["pairs"])
    result["correlation"][1][0]["value"] = result["correlation"][0][1]["value"] = -0.6
    (section,) = answer_sections(report_of({"pairs": result}))
    cells = svg(section.answers[0], "-grid").iter("rect")
    pairs = [result["correlation"][i][j]["value"] for i in range(3) for j in range(i)]
    assert [c.get("class") == "cell minus" for c in cells] == [v < 0 for v in pairs]
    assert pairs[0] == -0.6


# --- tables -----------------------------------------------------------------------------------


def test_the_first_table_has_a_column_per_group_and_a_row_per_level() -> None:
    (table,) = answers("exact")["first"].tables
    assert table.head[1:3] == ("Heart disease: no", "Heart disease: yes")
    found = {row[0]: row for row in table.rows}
    low = released("exact")["first"]["table"]["grade"]["groups"]["1"]["levels"]["low"]
    assert found["— low"][2] == f"{low['count']:,.0f} ({100 * low['share']:.1f}%)"
    assert found["Age (years)"][3] != ""
    private = {row[0]: row for row in answers("private")["first"].tables[0].rows}
    assert "±" in private["— low"][1]
    assert "±" not in found["— low"][1]


def test_tests_and_agreement_are_told_with_their_intervals() -> None:
    tests = {row[0]: row for row in answers("private")["two-groups"].tables[0].rows}
    assert {"James", "Welch", "Mann-Whitney", "Cohen's d"} <= set(tests)
    assert re.search(r"difference .+ \(.+ to .+\)", tests["Welch"][4])
    kappas = {row[0]: row for row in answers("private")["raters"].tables[0].rows}
    assert kappas["Cohen's kappa"][3] != "none"
    exact = {row[0]: row for row in answers("exact")["raters"].tables[0].rows}
    assert exact["Cohen's kappa"][3] == "none"


def test_a_tree_is_read_leaf_by_leaf_in_the_variables_own_names() -> None:
    (leaves,) = answers("exact")["tree"].tables
    patients = sum(float(row[3].replace(",", "")) for row in leaves.rows)
    assert patients == released("exact")["tree"]["n"]
    assert any("Blood pressure" in row[0] or "Age" in row[0] for row in leaves.rows)
    assert any(" is not " in row[0] for row in leaves.rows)


def test_a_kernel_machines_weights_are_not_drawn_as_odds_ratios() -> None:
    page = page_of(report_of({"machine": released("exact")["machine"]}))
    assert page.coefficients == []
    assert "Weights of a linear kernel" in page.answers["learners"].answers[0].tables[0].caption


def test_coefficients_have_ratios_where_the_link_is_a_logarithm_and_the_released_ends() -> None:
    amounts = answers("exact")["amounts"].figures[0].table
    assert amounts.head[1] == "Ratio"
    assert amounts.rows[0][1] == f"{released('exact')['amounts']['ratios'][1]:.3f}"
    slopes = answers("exact")["slopes"].figures[0].table
    low, high = (released("exact")["slopes"][k][2] for k in ("low", "high"))
    assert slopes.rows[1][2] == f"{low:.4g} to {high:.4g}".replace("-", "−")


def test_a_fit_that_did_not_end_well_is_warned_of() -> None:
    bad = {**released("exact")["slopes"], "ending": "collinear", "ending_text": "Column sex is a combination."}
    html = render_html(report_of({"slopes": bad}))
    assert "Do not use this as it is" in html
    assert "Column sex is a combination." in html
    assert "Do not use this as it is" not in render_html(report_of({"slopes": released("exact")["slopes"]}))


NETWORK: dict[str, Any] = {
    "outcome": "ill", "image": "", "columns": ["age"], "inputs": {"columns": 1, "image": []}, "rounds": 3, "seed": 7,
    "layers": [{"layer": "dense", "size": 8}, {"layer": "residual", "layers": [{"layer": "dense", "size": 4}]}],
    "training": {"method": "scaffold", "rounds": 3, "learning_rate": 0.05}, "size": 1_234, "weights": "QUJD" * 2_000,
    "n": 900, "losses": [0.7, 0.5, 0.4], "ending": "agreed-rounds", "ending_text": "The agreed rounds were run.",
}  # fmt: skip


def test_a_networks_loss_is_drawn_per_round_and_its_weights_are_not_written_out() -> None:
    html = render_html(report_of({"net": NETWORK}))
    assert "QUJDQUJD" not in html
    assert Page(html).says("1,234 weights")
    assert Page(html).says("The loss went from 0.700 to 0.400 in 3 rounds")
    points = curve_points(drawings(html)[0], 0)
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2)
    assert (points[1][1] - points[0][1]) == pytest.approx(2 * (points[2][1] - points[1][1]), abs=0.3)
    assert not overlapping(drawings(html)[0])
    assert Page(html).says("layers (dense)")


def test_a_network_that_diverged_is_warned_of_and_one_without_losses_has_no_curve() -> None:
    diverged = {**NETWORK, "ending": "diverged", "ending_text": "The loss rose."}
    assert Page(render_html(report_of({"net": diverged}))).says("Do not use this as it is: The loss rose.")
    private = render_html(report_of({"net": {**NETWORK, "losses": [], "n_noise_se": 3.0}}))
    assert not drawings(private)
    assert Page(private).says("900 ± 3.0 patients")


# --- results that nobody has thought of -------------------------------------------------------


def test_a_result_of_an_unknown_kind_is_shown_as_a_table_and_long_parts_are_counted() -> None:
    strange = {
        "wards": {"east": {"value": 12.0, "low": 10.0, "high": 14.0, "noise_se": 1.0}},
        "weights": "QUJD" * 5_000,
        "series": list(range(500)),
        "said": "fine",
    }
    html = render_html(report_of({"beds": strange}))
    assert "More results" in html
    assert Page(html).says("10 to 14")
    assert "a text of 20000 characters" in html
    assert "500 values" in html
    assert "QUJDQUJD" not in html
    assert len(html) < 60_000


def test_a_result_with_thousands_of_numbers_is_cut_and_says_so() -> None:
    html = render_html(report_of({"many": {"groups_": {f"g{k}": float(k) for k in range(2_000)}}}))
    assert "1920 more lines stand in the report" in html


def test_charts_beyond_what_one_page_holds_leave_their_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {f"curve-{k}": released("exact")["curve"] for k in range(4)}
    assert len(drawings(render_html(report_of(results)))) == 4
    monkeypatch.setattr(sections, "MAX_CHARTS", 2)
    html = render_html(report_of(results))
    assert len(drawings(html)) == 2
    assert html.count("Survival at some times") == 2 * 4  # the caption and the region's name
    assert html.count("Too many charts for one page") == 2


def spoilt(value: Any, chance: random.Random) -> Any:
    """Here and there another kind of value, a part left out, or a list cut short."""
    if chance.random() < 0.06:
        return chance.choice([None, "x", -1e300, 1e300, [], {}, True, [None, 3.0], {"value": "y"}, 0])
    if isinstance(value, dict):
        return {k: spoilt(v, chance) for k, v in value.items() if chance.random() > 0.03}
    if isinstance(value, list):
        kept = value[: chance.randrange(len(value) + 1)] if chance.random() < 0.05 else value
        return [spoilt(v, chance) for v in kept]
    return value


@pytest.mark.parametrize("seed", range(12))
def test_spoilt_results_are_never_a_crash(seed: int) -> None:
    chance = random.Random(seed)
    results = {name: mapping(spoilt(result, chance)) or {} for name, result in released("exact").items()}
    for drawing in drawings(render_html(report_of(results))):  # type: ignore[arg-type]
        assert drawing.find("title") is not None


def test_texts_in_results_are_shown_as_texts() -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, str):
            return EVIL
        if isinstance(value, dict):
            return {k: poisoned(v) for k, v in value.items()}
        return [poisoned(v) for v in value] if isinstance(value, list) else value

    results = {name: poisoned(result) for name, result in released("exact").items()}
    page = Page(render_html(report_of(results)))
    assert not page.of("script")
    assert not page.of("img")
    assert "alert(1)" in " ".join(page.text)


def test_a_choice_of_models_names_them_by_what_differs_and_says_whether_noise_hides_the_best() -> None:
    answer = answers("private")["choice"]
    (figure,) = answer.figures
    labels = [row[0] for row in figure.table.rows]
    assert len(labels) == len(set(labels)) == 4
    assert any("Age + Blood pressure" in label for label in labels)
    result = released("private")["choice"]
    best = result["models"][result["best"]]["settings"]
    assert best == {} or all(str(v) in str(result["best_model"]) for v in best.values() if not isinstance(v, list))
    assert ("Noise hides" in figure.takeaway) is not result["told_apart"]
