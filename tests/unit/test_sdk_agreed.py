"""What a researcher sees of a study: the catalogue, what was agreed, who agreed, what was charged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import flute.sdk as flute
from flute.catalogue.entry import Entry
from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.sdk.budgets.budget import StudyBudget
from flute.sdk.hubs.agreed import approvals
from flute.sdk.hubs.catalogue import Catalogue
from flute.sdk.place import Account
from flute.sdk.progress import line, status_page
from flute.study.agreement import agreement_digest, write_agreement
from support.catalogue_entries import entry
from support.heart import EXAMPLE

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[flute.Federation, flute.Study]]:
    with flute.simulator(EXAMPLE) as fed:
        study = fed.study("heart", title=HOSTILE, purpose="Test.", variables=EXAMPLE.variables, budget=3.0)
        study.run(flute.Describe(["age"]), epsilon=1, progress=False)
        study.run(flute.Describe(["sex"], per_hub=True), epsilon=1, progress=False)
        yield fed, study


# --- what was agreed -------------------------------------------------------------------------------------


@pytest.mark.requirement("F-HUF-1")
def test_a_run_s_agreement_is_shown_as_everybody_reads_it(asked: tuple[flute.Federation, flute.Study]) -> None:
    _, study = asked
    agreed = study.agreement("heart-1")
    said = agreed.to_dict()
    assert said["reads"] == "age"
    assert said["protection"] == "private: epsilon 1 at delta 1e-06, per patient and hub"
    assert said["asks"] == "describe (describe, 1 step)"
    assert said["digest"] == agreement_digest(write_agreement(study.runs["heart-1"])).hex()
    assert "it stays in this process" in said["signed"]
    assert "odds" in agreed.statement
    assert study.agreement().to_dict()["run"] == "heart-2"  # the latest
    assert "Any hub can stop a round" in repr(agreed)


def test_the_page_of_an_agreement_is_escaped_and_names_every_hub(asked: tuple[flute.Federation, flute.Study]) -> None:
    html = asked[1].agreement()._repr_html_()
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    assert all(hub in html for hub in EXAMPLE)
    assert "an honest fraction of the parties" in html


def test_what_was_never_proposed_has_no_agreement(asked: tuple[flute.Federation, flute.Study]) -> None:
    fed, study = asked
    with pytest.raises(MisuseError, match="has no run 'heart-9' to show; its runs are heart-1, heart-2"):
        study.agreement("heart-9")
    with pytest.raises(MisuseError, match="Nothing was proposed of study new yet"):
        fed.study("new", purpose="Test.", variables=EXAMPLE.variables, budget=1.0).agreement()


# --- who agreed --------------------------------------------------------------------------------------------


def test_a_hub_s_own_word_goes_before_the_coordinator_s() -> None:
    consents = {"trial-1": {"chu": "granted", "huvh": "granted", "irst": "away"}}
    told = {"rho": 0.0, "decided_at": 1_800_000_000, "ended": False, "by": "signed by the hub"}
    accounts = [
        Account("chu", {"trial-1": told | {"decision": "withdrawn"}}),
        Account("huvh", told=False, why="It did not answer in time; ask again."),
        Account("irst", {"trial-1": told | {"decision": "granted"}}),
    ]
    found = approvals(consents, accounts)
    assert found.of("trial-1") == {"chu": "withdrawn", "huvh": "granted", "irst": "granted, then left out (away)"}
    assert [one.vouched for one in found] == [
        "signed by the hub", "by the coordinator's word", "signed by the hub",
    ]  # fmt: skip
    assert found[0].since == "2027-01-15"
    assert "chu withdrawn" in repr(found)
    assert "by the coordinator" in found._repr_html_()


def test_approvals_are_there_for_every_run_and_hub(asked: tuple[flute.Federation, flute.Study]) -> None:
    found = asked[1].approvals
    assert {(one.run, one.hub) for one in found} == {(r, h) for r in ("heart-1", "heart-2") for h in EXAMPLE}
    assert list(found.to_frame().columns) == ["decision", "since", "by"]
    assert "nobody has to: the records are yours" in found.to_frame()["by"].to_list()  # nothing is signed here


# --- what was charged --------------------------------------------------------------------------------------


@pytest.mark.requirement("F-PIL-17")
def test_the_budget_is_shown_by_hub_study_and_person(asked: tuple[flute.Federation, flute.Study]) -> None:
    rows = {row["who"]: row for row in asked[1].budget._rows()}
    for hub in EXAMPLE:
        for whose in ("this study", "all your questions", "all studies"):
            row = rows[f"hub {hub}, {whose}"]
            assert row["rho spent"] == pytest.approx(asked[1].budget.rho_spent, rel=0.01)
            assert "odds" in row["in words"]
        assert rows[f"hub {hub}, all studies"]["left"] < 10


def test_a_hub_that_told_nothing_says_why() -> None:
    account = Account("north", told=False, why="It did not answer in time; ask again.")
    rows = StudyBudget(flute.Budget(1.0), (), (account,))._rows()
    assert rows[1] == {"who": "hub north", "in words": "It did not answer in time; ask again."}


@pytest.mark.requirement("F-HUF-1")
def test_the_simulator_s_progress_counts_answers_and_bytes(asked: tuple[flute.Federation, flute.Study]) -> None:
    fed, study = asked
    rows = {row["sender"]: row for row in fed.place.traffic("heart-2")}
    assert set(rows) == set(EXAMPLE)
    sizes = sum(row["bytes"] for row in rows.values())
    assert all(row["messages"] == 1 and row["bytes"] > 0 for row in rows.values())
    assert sizes % 8 == 0
    shown = status_page(fed.place.status(study.attach("heart-2").id), list(rows.values()))
    assert ">0 B<" not in shown
    assert status_page(fed.place.status("heart-2"), []).count(">0 B<") == len(EXAMPLE)


def test_progress_says_which_hubs_are_missing_and_why() -> None:
    status: dict[str, Any] = {
        "study": "heart-1", "state": "running", "why": "", "done": 1, "of": 2, "rounds": 3, "repeated": 0,
        "consents": {"north": "granted", "west": "away"}, "missing": {"west": "did not answer"},
        "now": {"question": "model", "step": 2, "state": "masked"},
    }  # fmt: skip
    assert "(west did not answer)" in line(status)


# --- fewer hubs, and all of them again -----------------------------------------------------------------------


@pytest.mark.requirement("F-SRS-9")
def test_a_study_that_goes_on_without_a_hub_asks_all_of_them_again_in_its_next_run() -> None:
    with flute.simulator(EXAMPLE) as fed:
        given = {"purpose": "Test.", "variables": EXAMPLE.variables, "hubs_min": 3, "decide_by": "2026-12-01"}
        study = fed.study("few", budget=2.0, **given)  # type: ignore[arg-type]
        first = study.to_agreement(flute.Describe(["age"]), epsilon=1)
        assert (first.hubs_min, first.plan.dropouts, len(first.hubs)) == (3, 1, 4)
        study.run(flute.Describe(["age"]), epsilon=1, progress=False)
        second = study.to_agreement(flute.Describe(["sex"]), epsilon=1)
        assert second.hubs == first.hubs
        assert "hubs_min: 3" in study.to_yaml(flute.Describe(["sex"]), epsilon=1)
        assert "(3 of them are enough)" in study.agreement().to_dict()["hubs"]
        exact = fed.study("exactly", exact=True, **given)  # type: ignore[arg-type]
        assert exact.to_agreement(flute.Describe(["age"])).plan.dropouts == 0


# --- the catalogue ---------------------------------------------------------------------------------------------


def offer(hub: str, published: Entry) -> dict[str, Any]:
    variables = tuple(v.variable for v in published.variables)
    return {
        "hub": hub,
        "dataset": "heart",
        "about": published.description,
        "entry": published,
        "variables": variables,
    }


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue([offer("north", entry()), offer("south", entry(statistics=None))])


@pytest.mark.requirement("F-PIL-16")
def test_datasets_are_found_by_any_word_of_their_entry(catalogue: Catalogue) -> None:
    for words in ("heart", "ECHO blood", "systolic", "Example Hospital", "north"):
        assert catalogue.search(words), words
    assert [one["hub"] for one in catalogue.search("south heart")] == ["south"]
    assert catalogue.search("heart kidney") == []
    assert "no dataset" in repr(catalogue.search("kidney"))


@pytest.mark.requirement("F-PIL-16")
def test_a_description_has_released_figures_with_their_errors_and_no_others(catalogue: Catalogue) -> None:
    described = catalogue.describe("heart")
    table = described.to_frame()
    assert table.loc[("north", "pressure"), "persons"] > 0
    assert table.loc[("north", "pressure"), "± persons"] > 0
    assert table.loc[("south", "pressure"), "persons"] != table.loc[("south", "pressure"), "persons"]  # NaN
    html = described._repr_html_()
    assert "Differentially private" in html
    assert "SIMULATED" in html
    with pytest.raises(MisuseError, match="no dataset 'lungs' in this catalogue; it has heart"):
        catalogue.describe("lungs")


def test_a_study_takes_the_variables_that_its_hubs_declare_alike(catalogue: Catalogue) -> None:
    assert set(catalogue.variables("heart")) == {v.name for v in catalogue[0]["variables"]}
    wider = [
        msgspec.structs.replace(v, high=v.high + 1) if v.name == "pressure" else v for v in catalogue[1]["variables"]
    ]
    other = Catalogue([catalogue[0], catalogue[1] | {"variables": tuple(wider)}])
    with pytest.raises(MisuseError, match=r"declare pressure differently: north: 60 to 260; south: 60 to 261"):
        other.variables("heart")
    assert other.variables("heart", hub="south")["pressure"]["range"] == [60.0, 261.0]
    one = Variable("only", "binary")
    more = Catalogue([catalogue[0] | {"variables": (*catalogue[0]["variables"], one)}, catalogue[1]])
    assert "only" not in more.variables("heart")  # the other hub lacks it


def test_what_was_declared_once_need_not_be_declared_again(asked: tuple[flute.Federation, flute.Study]) -> None:
    fed, _ = asked
    study = fed.study("again", purpose="Test.", budget=1.0)
    assert set(study.terms.variables) == {"age", "sex"}
    with flute.simulator(EXAMPLE) as fresh:
        with pytest.raises(MisuseError, match="which variables the study reads"):
            fresh.study("first", purpose="Test.", budget=1.0)
        assert "columns patient, age, sex" in repr(fresh.catalogue())
        assert "which no study declared" in fresh.catalogue()._repr_html_()


def test_markup_in_an_entry_is_text(catalogue: Catalogue) -> None:
    hostile = Catalogue([catalogue[0] | {"about": HOSTILE}])
    assert HOSTILE not in hostile.describe("heart")._repr_html_()
    assert HOSTILE not in hostile._repr_html_()


# --- asked for too early, left too early -------------------------------------------------------------------------


def test_what_was_not_asked_yet_is_said_to_be_so() -> None:
    scores = flute.Evaluate(flute.FederatedLogisticRegression("heart_disease", ["age"]))
    with pytest.raises(AttributeError, match=r"no auc_ yet: ask with \.fit"):
        scores.auc_  # noqa: B018
    assert not hasattr(scores, "auc_")
    with pytest.raises(AttributeError, match="'Evaluate' object has no attribute 'auk'"):
        scores.auk  # type: ignore[attr-defined]  # noqa: B018


def test_a_script_that_ends_while_a_run_is_under_way_ends_well() -> None:
    """A thread that is left when the interpreter ends takes the whole process down with it."""
    script = (
        "import flute.sdk as flute; heart = flute.example('heart'); fed = flute.simulator(heart)\n"
        "s = fed.study('ends', purpose='T.', variables=heart.variables, budget=3.0)\n"
        "s.start(flute.Describe(['age']), epsilon=1)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
