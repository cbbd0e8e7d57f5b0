"""The page of `flute attack`: families, intervals where the numbers are, verdicts in words and shapes, no script."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import msgspec
import pytest

from flute.attacks.suite import ATTACKS, judged, shown
from flute.report.attacked import FAMILIES, attack_page, render_attacks
from support.attack_studies import mixed
from support.html_page import Page
from unit.attack_sample import AGAIN, agreement, found, verdicts
from unit.test_report_charts import drawings, outside, overlapping

EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{ 7*7 }}"""


def html() -> str:
    return render_attacks(agreement(), verdicts(), at=0, again=AGAIN)


def test_every_attack_belongs_to_one_family() -> None:
    for attack in ATTACKS.values():
        assert sum(attack.figure in family.figures for family in FAMILIES) == 1, attack.name
    page = attack_page(agreement(), verdicts(), at=0, again=AGAIN)
    assert sorted(t.name for f in page.families for t in f.told) == sorted(ATTACKS)


def test_the_summary_counts_what_is_within_above_undecided_and_unpromised() -> None:
    page = attack_page(agreement(), verdicts(), at=0, again=AGAIN)
    tried = [v for v in verdicts() if v.found is not None]
    counted = {t.says.partition(":")[0]: t.figure for t in page.tiles}
    for kind, says in (
        ("within", "stay within the bound"), ("exceeds", "are above the bound"),
        ("undecided", "are not decided"), ("no promise", "meet no promise"),
    ):  # fmt: skip
        number = sum(judged(v.found) == kind for v in tried if v.found)
        assert number > 0
        assert counted[says] == f"{number} of {len(tried)}"
    said = dict(page.summary)
    assert "difference did more than the plan's bound allows" in said["Found"]
    assert "membership-model" in said["Open"]


def test_nothing_broken_is_not_said_to_be_broken_and_nothing_undecided_to_be_within() -> None:
    calm = [v for v in verdicts() if v.judged != "exceeds"]
    said = dict(attack_page(agreement(), calm, at=0, again=AGAIN).summary)["Found"]
    bounded = [v for v in calm if v.judged in ("within", "undecided")]
    within = sum(v.judged == "within" for v in bounded)
    assert within < len(bounded)
    assert f"of {len(bounded)} that have one, {within} stay within it" in said


def test_an_exact_study_is_said_to_promise_nothing() -> None:
    exact = mixed(None)
    page = attack_page(exact, [], at=0, again=AGAIN)
    assert dict(page.summary)["Promised"].startswith("Nothing about a single patient")
    assert "Promised" not in dict(attack_page(agreement(), verdicts(), at=0, again=AGAIN).summary)


def test_values_and_bound_are_drawn_where_they_are_and_written_beside() -> None:
    name = "membership-sums"
    one = [v for v in verdicts() if v.attack == name]
    (family,) = attack_page(agreement(), one, at=0, again=AGAIN).families
    assert family.figure is not None
    drawing = ElementTree.fromstring(family.figure.svg or "")
    ticks = {t.text: float(t.get("x", 0)) for t in drawing.iter("text") if t.text in ("0 %", "100 %")}

    def place(share: float) -> float:
        return ticks["0 %"] + share * (ticks["100 %"] - ticks["0 %"])

    whiskers = [e for e in drawing.iter("line") if (e.get("class") or "").startswith("whisker")]
    ends = [(float(e.get("x1", 0)), float(e.get("x2", 0))) for e in whiskers]
    told = found(name, 0.1)
    for (left, right), figure in zip(ends, (told.unprotected, told.protected), strict=True):
        assert left == pytest.approx(place(figure.low), abs=0.1)
        assert right == pytest.approx(place(figure.high), abs=0.1)
    limit = [e for e in drawing.iter("line") if e.get("class") == "limit"][-1]
    assert float(limit.get("x1", 0)) == pytest.approx(place(0.46), abs=0.1)
    written = [t.text for t in drawing.iter("text")]
    assert f"{shown(ATTACKS[name], 0.1)} (0.0 % to 20.0 %)" in written
    assert "bound 46.0 %" in written
    assert "✓ within the bound" in written


def test_a_verdict_is_words_and_a_shape_and_what_was_not_tried_says_so() -> None:
    page = attack_page(agreement(), verdicts(), at=0, again=AGAIN)
    told = {t.name: t for f in page.families for t in f.told}
    said = {told[name].verdict for name in ("membership-sums", "difference", "membership-model", "label-flip")}
    assert {s[0] for s in said} == {"✓", "✗", "?", "–"}
    assert told["backdoor"].verdict == "– not tried"
    assert "There is no model." in html()
    drawn = " ".join(t.text or "" for d in drawings(html()) for t in d.iter("text"))
    assert all(s in drawn for s in said)
    assert "backdoor" not in drawn


def test_a_lower_bound_of_epsilon_is_not_drawn_as_an_interval() -> None:
    one = [v for v in verdicts() if v.attack == "epsilon-audit"]
    (family,) = attack_page(agreement(), one, at=0, again=AGAIN).families
    assert family.figure is not None
    assert "at least 9.50" in str(family.figure.svg)
    assert "no limit" not in str(family.figure.svg)
    assert "no upper end is known" in family.figure.note
    assert "inf" not in str(family.figure.svg)


def test_charts_are_readable_and_every_one_has_a_sentence_and_a_folded_table() -> None:
    shown_ones = drawings(html())
    assert len(shown_ones) == len(FAMILIES)
    for drawing in shown_ones:
        assert not overlapping(drawing)
        assert not outside(drawing)
    for figure in re.findall(r'<figure class="chart".*?</figure>', html(), re.DOTALL):
        assert re.search(r'<p class="takeaway">.{10,}</p>', figure)
        assert re.search(r"<details>.*<table>.*<caption>.+</caption>.*</details>", figure, re.DOTALL)


def test_the_page_loads_and_runs_nothing_and_is_labelled_simulated() -> None:
    page = Page(html())
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
        assert not any(n.startswith("on") or n in {"src", "style", "action"} for n in attributes)
    assert page.of("meta")[1]["content"].startswith("default-src 'none'")
    assert html().index("<strong>SIMULATED</strong>") < html().index("<h1>")
    assert "<title>SIMULATED: " in html()
    assert AGAIN in html()
    assert len(page.ids) == len(set(page.ids))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    scrolling = [a for _, a in page.elements if "scroll" in (a.get("class") or "").split()]
    assert all(a["tabindex"] == "0" and a["aria-label"] and a["role"] for a in scrolling)


def test_texts_of_a_study_are_shown_as_texts() -> None:
    evil = msgspec.structs.replace(agreement(), title=EVIL)
    page = Page(render_attacks(evil, verdicts(), at=0, again=EVIL))
    assert not page.of("script")
    assert not page.of("img")
    assert "alert(1)" in " ".join(page.text)
