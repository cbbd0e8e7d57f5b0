"""The page of an import: complete, self-contained, labelled, deaf to hostile texts, right where nothing came in."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from flute.cohort.flow import Flow, Note, Step
from flute.report.imported import EXAMPLES, render_import
from support.html_page import Page

AT = 1_790_000_000
EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{ 7*7 }} ]]></style></svg>&amp;"""


def refusal(origin: str, found: str, **changes: str) -> dict[str, str]:
    plain = {
        "origin": origin, "resource": f"Observation/{origin}", "reason": "unit-not-convertible", "found": found,
        "path": "Observation.valueQuantity.code", "rule": "weight-value", "mend": "Write the unit as UCUM kg.",
    }  # fmt: skip
    return plain | changes


def ended(**changes: Any) -> dict[str, Any]:
    """The last state of an import of 40 persons, six records of which were refused for two reasons."""
    steps = (Step("too-young", "Under 18", "F-1", 4, 36), Step("no-weight", "Never weighed", "", 0, 36))
    flow = Flow("persons", "Adults who were weighed", 40, steps, 36, 0, (Note("no-date", "Day not known", 3),))
    report = {
        "source": "ward", "files": 2, "resources": 400, "set_aside": 0, "patients": 40, "rows": 36,
        "refused": {"unit-not-convertible": 5, "date-malformed": 1}, "excluded": {"too-young": 4}, "flags": {},
        "missing": {"kg": 9, "sex": 0}, "unusable": {"kg": 3, "sex": 0}, "warnings": {"code-assumed": 7},
    }  # fmt: skip
    refused = [refusal(f"export.ndjson, line {n}", f"stone {n}") for n in range(5)]
    refused.append(
        refusal("export.ndjson, line 9", "May", reason="date-malformed", path="Observation.effectiveDateTime")
    )
    alarms = [{"code": "missing-changed", "about": "kg", "says": "kg is missing in 25% of the rows, 2% before."}]
    plain = {
        "dataset": "ward", "state": "done", "report": report, "refused": refused, "flow": msgspec.to_builtins(flow),
        "alarms": alarms, "suspects": [], "anonymity": None, "code": "", "text": "",
    }  # fmt: skip
    return plain | changes


def html(state: dict[str, Any] | None = None, *, simulated: bool = False) -> str:
    return render_import(ended() if state is None else state, at=AT, simulated=simulated)


def test_it_says_what_was_taken_who_is_in_and_what_changed() -> None:
    page = Page(html())
    assert page.says("36 patients in the dataset, of 40 found")
    assert page.says("400 records in 2 parts of the source")
    assert page.says("6 records refused, with reasons")
    assert page.says("4 left out by the cohort's rules")
    assert page.says("missing-changed kg : kg is missing in 25% of the rows, 2% before.")
    assert page.says("Most often without a value: kg, 33.3% of the rows.")
    assert page.says("code-assumed 7")


def test_the_drawing_stands_in_a_table_too() -> None:
    table = html().split("<caption>Persons by rule</caption>")[1].split("</table>")[0]
    rows = [re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", row) for row in table.split("<tr>")[1:]]
    assert rows == [
        ["why", "rule", "left out", "remain"], ["All persons found", "found", "", "40"],
        ["Under 18", "too-young", "4", "36"], ["Never weighed", "no-weight", "0", "36"],
        ["Persons in the cohort", "cohort", "", "36"],
    ]  # fmt: skip


def test_refusals_are_grouped_by_reason_place_and_mend_the_most_frequent_first() -> None:
    page = html()
    cards = page.split('<article class="card">')[1:]
    assert len(cards) == 2
    assert "unit-not-convertible" in cards[0]
    assert (
        "<strong>5 records</strong> refused by rule <code>weight-value</code>. Write the unit as UCUM kg." in cards[0]
    )
    assert cards[0].count("<dt>") == EXAMPLES
    assert "<dt>export.ndjson, line 0</dt><dd>Found: <code>stone 0</code></dd>" in cards[0]
    assert "<strong>1 record</strong>" in cards[1]


def test_two_mistakes_in_one_record_are_one_record_refused() -> None:
    twice = [refusal("export.ndjson, line 1", "stone"), refusal("export.ndjson, line 1", "st")]
    state = ended(refused=twice)
    state["report"]["refused"] = {"unit-not-convertible": 1}
    page = Page(html(state))
    assert page.says("1 record refused, with its reason")
    assert page.says("1 record refused by rule")
    assert not page.says("not listed one by one")


def test_refusals_beyond_the_list_are_counted() -> None:
    state = ended()
    state["report"]["refused"]["unit-not-convertible"] = 1005
    assert Page(html(state)).says("1,000 records were refused besides, not listed one by one.")
    state["report"]["refused"]["unit-not-convertible"] = 6
    assert Page(html(state)).says("1 record was refused besides, not listed one by one.")
    state["refused"] = []
    assert not Page(html(state)).says("Nothing was refused.")


@pytest.mark.requirement("F-PIL-5")
def test_simulated_records_are_labelled_and_others_are_not() -> None:
    page = html(simulated=True)
    assert '<div class="banner" role="note"><strong>SIMULATED</strong>' in page
    assert "<title>SIMULATED: Import of ward</title>" in page
    assert "SIMULATED" not in html()


def test_it_loads_nothing_and_runs_nothing() -> None:
    page = Page(html(simulated=True))
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "form", "embed"}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert all((attributes.get(name) or "#").startswith("#") for name in ("href", "src", "action"))
    assert "url(" not in html()
    assert "@import" not in html()


def poisoned(value: Any) -> Any:
    """Every text of an ended import with hostile markup behind it, names of variables and rules included."""
    match value:
        case str():
            return f"{value}{EVIL}"
        case dict():
            return {k if k in STRUCTURE else f"{k}{EVIL}": poisoned(v) for k, v in value.items()}
        case list() | tuple():
            return [poisoned(v) for v in value]
        case _:
            return value


STRUCTURE = {
    *ended(), *ended()["report"], *ended()["flow"], *ended()["flow"]["steps"][0], *ended()["refused"][0],
    *ended()["alarms"][0], *ended()["flow"]["notes"][0],
}  # fmt: skip


def test_hostile_texts_stay_texts() -> None:
    state = poisoned(ended())
    flow = poisoned(ended()["flow"]) | {"persons": "<b>men</b>"}
    words = [step["word"] for step in ended()["flow"]["steps"]]  # codes: no other text is taken for one
    flow["steps"] = [
        step | {"word": word, "requirement": "<img src=x>"} for step, word in zip(flow["steps"], words, strict=True)
    ]
    flow["notes"] = [note | {"word": "no-date"} for note in flow["notes"]]
    state["flow"] = flow
    for simulated in (False, True):
        text = html(state, simulated=simulated)
        page = Page(text)
        tags = {tag for tag, _ in Page(html(simulated=simulated)).elements}
        assert {tag for tag, _ in page.elements} == tags
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert "<script" not in text
        assert "49 ]]" not in " ".join(page.text)
        assert " ".join(page.text).count("<script>alert(1)</script>") > 20
        assert text.count("</style>") == 2  # the page's and the drawing's


def test_a_page_of_nothing_says_so() -> None:
    state = ended(refused=[], flow=None, alarms=[])
    counts = {"files": 0, "resources": 0, "patients": 0, "rows": 0, "refused": {}, "excluded": {}, "missing": {}}
    state["report"] |= counts | {"unusable": {}, "warnings": {}}
    page = Page(html(state))
    assert page.says("Nothing was refused.")
    assert "<b>0</b><span>records refused</span>" in html(state)
    assert page.says("0 patients in the dataset, of 0 found")
    assert not page.says("Who is in")
    assert not page.says("What changed")
    assert not page.says("nan")


def test_everybody_without_a_value_is_no_division_by_nothing() -> None:
    state = ended(flow=None)
    state["report"] |= {"rows": 9, "missing": {"kg": 9}, "unusable": {"kg": 0}}
    assert Page(html(state)).says("Most often without a value: kg, 100.0% of the rows.")


def test_contents_lead_to_sections_that_are_there() -> None:
    for state in (ended(), ended(flow=None, alarms=[])):
        page = Page(html(state))
        sections = [s["id"] for s in page.of("section")]
        links = [str(a["href"])[1:] for a in page.of("a") if a["href"] != "#main"]
        assert links == sections
        assert len(page.ids) == len(set(page.ids))
