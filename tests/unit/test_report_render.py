"""The page: complete, self-contained, accessible, and deaf to hostile texts."""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from flute.report.charts.svg import SMALL, WIDTH
from flute.report.model import Budget, Command, HubReport, Report, Row, StepTime, StudyReport, TrafficRow
from flute.report.render import render_html
from support.html_page import Page
from unit.report_sample import sample

EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{ 7*7 }} ]]></style></svg>&amp;"""


@functools.cache
def html() -> str:
    return render_html(sample())


@functools.cache
def page() -> Page:
    return Page(html())


SECTIONS = [
    "summary", "models", "coefficients", "cohort", "agreement", "budget", "exact", "traffic", "threats", "time",
    "receipts", "further",
]  # fmt: skip


def test_sections_stand_in_their_order_and_the_contents_list_leads_to_each() -> None:
    assert [a["id"] for a in page().of("section")] == SECTIONS
    links = [a["href"] for a in page().of("a")]
    assert links == ["#main", *(f"#{section}" for section in SECTIONS)]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    for tag, attributes in page().elements:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"src", "srcset", "style", "action"}
            assert not re.match(r"(https?:)?//|javascript:|data:", value or "")
            if name in {"href", "xlink:href"}:
                assert value.startswith("#")
    assert "@import" not in html()
    assert "@font-face" not in html()
    assert set(re.findall(r"url\(([^)]*)\)", html())) <= {f"#{i}" for i in page().ids}
    policies = [a["content"] for a in page().of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0].startswith("default-src 'none'")


def test_every_figure_has_a_name_a_description_a_takeaway_and_a_table() -> None:
    ids = page().ids
    assert len(ids) == len(set(ids))
    drawings = page().of("svg")
    for drawing in drawings:
        assert drawing["role"] == "img"
        name, description = drawing["aria-labelledby"].split()
        assert name in ids
        assert description in ids
    figures = re.findall(r'<figure class="chart".*?</figure>', html(), re.DOTALL)
    assert len(figures) == len(drawings)
    for figure in figures:
        assert re.search(r'<p class="takeaway">.{10,}</p>', figure)
        assert re.search(r"<details>.*<table>.*<caption>.+</caption>.*</details>", figure, re.DOTALL)
    for wanted in ("desc", "title"):
        assert all(len(t) > 3 for t in re.findall(rf"<{wanted} id=[^>]*>(.*?)</{wanted}>", html()))


def test_the_page_can_be_walked_by_keyboard_and_heard() -> None:
    assert page().of("html") == [{"lang": "en"}]
    assert page().of("main")[0]["id"] == "main"
    assert len(page().of("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page().elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    scrolling = [a for _, a in page().elements if "scroll" in (a.get("class") or "").split()]
    assert all(a["tabindex"] == "0" and a["aria-label"] and a["role"] for a in scrolling)
    assert all(a.get("scope") in {"col", "row"} for a in page().of("th"))


def test_texts_in_charts_are_at_least_eleven_pixels_at_the_smallest_width() -> None:
    style = html().split("<style>")[1].split("</style>")[0]
    least = float(re.search(r"\.drawing svg\{[^}]*min-width:([\d.]+)rem", style).group(1)) * 16
    sizes = [float(a["font-size"]) for tag, a in page().elements if tag == "text"]
    assert min(sizes) == SMALL
    assert min(sizes) * least / WIDTH >= 11


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _over(colour: str, ground: str, opacity: float) -> str:
    def parts(c: str) -> list[int]:
        digits = c.lstrip("#") if len(c) == 7 else "".join(2 * d for d in c.lstrip("#"))
        return [int(digits[i : i + 2], 16) for i in (0, 2, 4)]

    mixed = (opacity * a + (1 - opacity) * b for a, b in zip(parts(colour), parts(ground), strict=True))
    return "#" + "".join(f"{round(v):02x}" for v in mixed)


def contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_light_dark_and_on_paper() -> None:
    style = (files("flute.report") / "templates" / "style.html").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--([\w-]+):(#[0-9a-f]+)", block)) for block in re.findall(r":root\{(.*?)\}", style)]
    assert len(themes) == 3
    for theme in themes:
        for ink, ground in (
            ("ink", "bg"), ("ink", "surface"), ("muted", "bg"), ("muted", "surface"), ("accent", "surface"),
            ("accent", "bg"), ("accent", "accent-soft"), ("warn", "warn-bg"), ("warn", "surface"),
            ("good", "good-bg"), ("bad", "bad-bg"), ("good", "surface"), ("bad", "surface"), ("muted", "grid"),
        ):  # fmt: skip
            assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground, theme[ink])
        for fill, strongest in (("bar", 0.75), ("s1", 0.45)):  # cells of a grid, with figures on them
            assert contrast(theme["ink"], _over(theme[fill], theme["surface"], strongest)) >= 4.5, fill
        for series in (*(f"s{k}" for k in range(8)), "bar-strong"):
            assert contrast(theme[series], theme["surface"]) >= 3, (series, theme[series])


def test_simulated_is_said_at_the_top_and_in_the_title_and_only_then() -> None:
    assert html().index("<strong>SIMULATED</strong>") < html().index("<h1>")
    assert "<title>SIMULATED: " in html()
    real = render_html(msgspec.structs.replace(sample(), simulated=False, steps=()))
    assert 'class="banner"' not in real
    assert "<title>SIMULATED" not in real


def test_unaudited_is_said_and_exact_results_have_no_bound() -> None:
    text = " ".join(page().text)
    assert text.count("UNAUDITED") >= 3
    assert "Nothing limits mathematically what can be concluded about one patient" in text
    private = msgspec.structs.replace(sample(), studies=sample().studies[:1])
    assert 'id="exact"' not in render_html(private)


def test_main_figures_are_in_words_and_counts_carry_their_noise() -> None:
    text = " ".join(" ".join(page().text).split())
    assert re.search(r"AUC of “model”, made by all hubs together", text)
    assert re.search(r"Compared with not taking part, what anyone can conclude", text)
    assert re.search(r"1,974 ± 14 patients, as released", text)
    assert re.search(r"PI-RADS score: 5 against 3", text)
    assert re.search(r"Age at biopsy, 8 years more", text)
    assert re.search(r"PSA, 1\.92 times as high", text)
    assert re.search(r"65% of it is “masked-answer”", text)
    assert re.search(r"✓ holds", text)
    assert re.search(r"✗ does not hold", text)


def test_all_nine_cells_of_each_study_are_shown() -> None:
    assert len(re.findall(r'class="(?:holds|fails)"', html())) == 18


def test_exact_and_private_stand_side_by_side_per_the_same_step() -> None:
    figure = re.search(r'<figure class="chart" id="odds-0">.*?</figure>', html(), re.DOTALL).group(0)
    cells = [re.sub(r"<[^>]+>", "", c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", figure)]
    at = cells.index("PSA, 1.92 times as high")
    private, exact = float(cells[at + 1]), float(cells[at + 3])
    # log-odds of PSA in the made-up patients: 1.2 per unit of ln PSA, spread 0.65
    assert abs(math.log(exact) - 1.2 * 0.65) < 0.2
    assert abs(math.log(private / exact)) < 0.4
    assert "chance in who was a patient comes on top" in figure


def test_the_page_is_small_enough_to_send() -> None:
    assert len(html().encode()) < 300_000


def test_the_room_knows_no_variable_of_any_study() -> None:
    room = files("flute.report")
    sources = [f for f in room.iterdir() if f.name.endswith(".py")] + list((room / "templates").iterdir())
    assert len(sources) > 15
    for source in sources:
        found = re.search(
            r"psa\b|pi-?rads|prostat|biops|cancer|huvh|\birst\b", source.read_text("utf-8"), re.IGNORECASE
        )
        assert found is None, (source.name, found)


# --- hostile texts ----------------------------------------------------------------------------


def poisoned(value: Any) -> Any:
    """Every string that people or studies may choose, replaced by markup; keys that structure results stay."""
    if isinstance(value, str):
        return EVIL
    if isinstance(value, dict):
        return {k: poisoned(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    return value


def hostile_report() -> Report:
    raw = msgspec.to_builtins(sample())
    for study in raw["studies"]:
        for free in ("title", "purpose", "statement", "plan", "agreement", "conditions", "receipts", "analysis_plan"):
            study[free] = poisoned(study[free])
        study["labels"] = dict.fromkeys(study["labels"], EVIL)
        study["units"] = dict.fromkeys(study["units"], EVIL)
        study["references"] = dict.fromkeys(study["references"], EVIL)
        study["cells"], study["questions"] = poisoned(study["cells"]), poisoned(study["questions"])
        study["id"] = EVIL
        for receipt in study["receipts"]:
            receipt["mode"] = "private"
        evil = {}
        for reference, result in study["results"].items():
            kinds = {k: v for k, v in result.items() if k in ("ending", "ending_text", "ending_column")}
            evil[f"{reference}{EVIL}"] = result | poisoned(kinds)
            if "by" in result:
                result["by"]["levels"] = [level | {"level": EVIL} for level in result["by"]["levels"]]
                result["models"] = {f"{k}{EVIL}": v for k, v in result["models"].items()}
            for variable in result.get("variables", {}).values():
                if "levels" in variable:
                    variable["levels"] = {f"{k}{EVIL}": v for k, v in variable["levels"].items()}
        study["results"] = evil
    free = ("title", "federation", "version", "hubs", "traffic", "steps", "commands", "comparators")
    return msgspec.convert(raw | {k: poisoned(raw[k]) for k in free}, Report)


def test_hostile_texts_stay_text_everywhere() -> None:
    shown = Page(render_html(hostile_report()))
    kinds = {tag for tag, _ in shown.elements}
    assert kinds <= {tag for tag, _ in page().elements} | {"polygon", "circle"}
    assert not kinds & {"script", "img"}
    assert not any(name.startswith("on") or name == "src" for _, a in shown.elements for name in a)
    assert "".join(shown.text).count("<script>alert(1)</script>") > 30
    assert "49" not in render_html(Report(title="{{ 7*7 }}", simulated=False, made_at=0))


# --- missing parts ----------------------------------------------------------------------------


def test_an_empty_report_is_a_page() -> None:
    shown = Page(render_html(Report(title="Nothing yet", simulated=False, made_at=0)))
    assert [a["id"] for a in shown.of("section")] == ["summary"]


def test_a_study_without_evaluation_has_its_other_sections() -> None:
    study = sample().studies[1]
    shown = Page(render_html(Report(title="t", simulated=False, made_at=0, studies=(study,))))
    assert [a["id"] for a in shown.of("section")] == [
        "summary", "coefficients", "agreement", "exact", "threats", "receipts",
    ]  # fmt: skip


STRANGE = (None, math.nan, math.inf, -1.0, "text", [], {}, [None], {"value": None}, True, 10**400)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places in a result; of a list or of variables, models and levels, the first of a kind stands for all."""
    if at:
        yield at
    if isinstance(value, dict):
        many = at and at[-1] in ("variables", "models", "levels", "predicted", "quantiles")
        for key in list(value)[: 1 if many else None]:
            yield from paths(value[key], (*at, key))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*at, 0))


def changed(result: dict, at: tuple[Any, ...], new: Any, *, drop: bool) -> dict:
    result = copy.deepcopy(result)
    place = result
    for key in at[:-1]:
        place = place[key]
    if drop:
        del place[at[-1]]
    else:
        place[at[-1]] = new
    return result


@functools.cache
def small_results() -> dict[str, dict]:
    """One result of each kind, short enough to be broken in every place."""
    found = sample().studies[0].results
    described = copy.deepcopy(found["cohort@chu"])
    described["variables"] = {k: described["variables"][k] for k in ("psa", "dre")}
    compared = copy.deepcopy(found["comparison"])
    compared["models"] = {"model": compared["models"]["model"]}
    exact = copy.deepcopy(sample().studies[1].results["no-mri"])
    return {"cohort@chu": described, "comparison": compared, "no-mri": exact}


@pytest.mark.parametrize("reference", ["cohort@chu", "comparison", "no-mri"])
def test_any_part_of_a_result_may_be_absent_or_strange(reference: str) -> None:
    base = small_results()
    tried = 0
    for at in paths(base[reference]):
        for new, drop in ((None, True), *((strange, False) for strange in STRANGE)):
            results = {reference: changed(base[reference], at, new, drop=drop)}
            study = msgspec.structs.replace(sample().studies[0], results=results, receipts=(), conditions=())
            render_html(Report(title="t", simulated=False, made_at=0, studies=(study,)))
            tried += 1
    assert tried > 300


@pytest.mark.parametrize("strange", STRANGE, ids=str)
def test_a_strange_result_is_left_out(strange: Any) -> None:
    study = StudyReport("s", "S", "private", results={"a": {"x": strange}, "b": {"models": strange}, "c": {}})
    assert "<h1>t</h1>" in render_html(Report(title="t", simulated=False, made_at=0, studies=(study,)))


def test_unknown_budgets_journals_and_times_are_left_out() -> None:
    report = Report(
        title="t",
        simulated=False,
        made_at=0,
        hubs=(HubReport("north"), HubReport("south", budget_after=Budget(epsilon=math.inf, odds_factor=math.nan))),
        steps=(StepTime("a"), StepTime("b", math.nan)),
        traffic=(TrafficRow("north", "coordinator", "masked-answer"),),
        commands=(Command("flute"),),
        studies=(StudyReport("s", "S", "private", agreement=(Row("a", "b"),)),),
    )
    Page(render_html(report))


def test_a_fit_that_failed_is_said_not_hidden() -> None:
    result = copy.deepcopy(sample().studies[1].results["no-mri"])
    result |= {"ending": "separation-suspected", "ending_text": "The outcome is decided by PSA."}
    study = msgspec.structs.replace(sample().studies[1], results={"no-mri": result})
    shown = render_html(Report(title="t", simulated=False, made_at=0, studies=(study,)))
    assert "Do not use these fits as they are" in shown
    assert "The outcome is decided by PSA." in shown


# --- size and order ---------------------------------------------------------------------------


def test_a_study_of_thirty_hubs_and_forty_variables_stays_a_page_one_can_open() -> None:
    described = small_results()["cohort@chu"]["variables"]["psa"]
    results = {f"d@hub-{h}": {"variables": {f"v{i}": described for i in range(40)}} for h in range(30)}
    study = StudyReport("s", "S", "private", results=results)
    shown = render_html(Report(title="t", simulated=False, made_at=0, studies=(study,)))
    assert len(shown.encode()) < 1_000_000
    assert "Too many panels to draw" in shown
