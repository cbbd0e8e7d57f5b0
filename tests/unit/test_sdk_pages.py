"""What notebooks show: escaped, self-contained, dark where the system is; tables and pictures of every answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import matplotlib as mpl
import pandas as pd
import pytest

import flute.sdk as flute
from flute.errors import MisuseError
from flute.sdk.pages import shown
from flute.sdk.progress import line, status_page
from support.heart import EXAMPLE, PREDICTORS

mpl.use("Agg")
HOSTILE = '<script>alert("x")</script>'
STATUS = {
    "study": "heart-1", "title": HOSTILE, "state": "running", "why": "", "mode": "private", "done": 1, "of": 2,
    "consents": {"north": "granted", HOSTILE: "granted"}, "rounds": 3, "repeated": 1,
    "now": {"question": "model", "step": 2, "state": "masked"},
}  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, flute.Estimator]]:
    with flute.simulator(EXAMPLE) as fed:
        study = fed.study("pages", title=HOSTILE, purpose=HOSTILE, variables=EXAMPLE.variables, budget=5.0)
        model = flute.FederatedLogisticRegression("heart_disease", PREDICTORS)
        asked = {
            "study": study, "cohort": flute.Describe(["age", "sex"]), "model": model, "scores": flute.Evaluate(model),
            "mean": flute.RobustMean(["age"]),
        }  # fmt: skip
        study.run([asked["cohort"], model, asked["scores"], asked["mean"]], epsilon=4, progress=False)
        yield asked | {"budget": study.budget, "variables": EXAMPLE.variables, "federation": fed}


class Tags(HTMLParser):
    """Opening and closing tags, and addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.requirement("F-HUF-1")
@pytest.mark.parametrize("which", ["study", "cohort", "model", "scores", "mean", "budget", "variables", "federation"])
def test_every_page_is_whole_self_contained_and_dark_where_the_system_is(
    which: str, answers: dict[str, object]
) -> None:
    html = answers[which]._repr_html_()  # type: ignore[attr-defined]
    tags = Tags(html)
    assert tags.open == []
    assert tags.addresses == []
    assert tags.seen.isdisjoint({"script", "link", "img", "iframe"})
    assert "prefers-color-scheme:dark" in html
    assert "url(" not in html


def test_texts_of_others_are_escaped(answers: dict[str, object]) -> None:
    for html in (answers["study"]._repr_html_(), status_page(STATUS, [])):  # type: ignore[attr-defined]
        assert HOSTILE not in html
        assert "&lt;script&gt;" in html


def test_simulated_results_say_so(answers: dict[str, object]) -> None:
    assert "SIMULATED" in answers["model"]._repr_html_()  # type: ignore[attr-defined]
    assert repr(answers["model"].result_).startswith("<SIMULATED")  # type: ignore[attr-defined]


def test_a_run_shows_its_round_and_each_hub() -> None:
    assert line(STATUS) == "heart-1: running, model step 3 (masked), 1 of 2 results, 3 rounds, 1 repeated"
    waiting = STATUS | {"state": "consenting", "consents": {"north": "granted", "south": "asked"}}
    assert line(waiting) == "heart-1: waiting for the consent of south"
    html = status_page(STATUS, [{"sender": "north", "messages": 4, "bytes": 12_500}])
    assert re.search(r"<td>north</td><td>granted</td><td>4</td><td>12.5 kB</td>", html)


def test_cells_are_short_and_never_empty() -> None:
    assert [shown(v) for v in (None, float("nan"), 1234.0, 0.123456, True, 12345)] == [
        "–", "–", "1,234", "0.1235", "yes", "12,345",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("which", "columns"),
    [
        ("cohort", {"n", "missing", "mean", "sd", "p50", "share"}),
        ("model", {"coefficient", "per raw unit", "noise se", "odds ratio"}),
        ("scores", {"auc", "auc low", "auc high", "brier"}),
        ("mean", {"value"}),
    ],
)
def test_frames_hold_what_people_look_at_first(which: str, columns: set[str], answers: dict[str, object]) -> None:
    table = answers[which].to_frame()  # type: ignore[attr-defined]
    assert isinstance(table, pd.DataFrame)
    assert columns <= set(table.columns)
    assert len(table) > 0


def test_pictures_are_drawn_on_axes_that_are_given_or_made(answers: dict[str, object]) -> None:
    from matplotlib import pyplot

    given = pyplot.subplots()[1]
    assert answers["cohort"].plot(given, variable="sex") is given  # type: ignore[attr-defined]
    assert len(given.patches) == 2
    roc = answers["scores"].plot()  # type: ignore[attr-defined]
    assert "AUC" in roc.get_legend_handles_labels()[1][0]
    forest = answers["model"].plot()  # type: ignore[attr-defined]
    assert len(forest.get_yticks()) == len(answers["model"].coef_[0])  # type: ignore[attr-defined]
    assert all("SIMULATED" in axes.get_title() for axes in (given, roc, forest))
    with pytest.raises(MisuseError, match="'agee' was not described; there are age, sex"):
        answers["cohort"].plot(variable="agee")  # type: ignore[attr-defined]
    pyplot.close("all")
