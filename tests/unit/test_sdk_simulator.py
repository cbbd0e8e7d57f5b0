"""The simulator gives what hubs would give: pooled results when exact, real noise when private; and budgets hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import chi2

import flute.sdk as flute
from flute.errors import BudgetExceeded, MisuseError, StudyFileError
from flute.study.files.file import read_study_file
from support.heart import EXAMPLE, PREDICTORS, design, pooled

ALPHA = 1e-6
"""False alarm of the test of the noise."""


@pytest.fixture
def federation() -> Iterator[flute.Federation]:
    with flute.simulator(EXAMPLE) as made:
        yield made


def private(federation: flute.Federation, epsilon: float = 3.0, **more: object) -> flute.Study:
    given = {"purpose": "Test.", "variables": EXAMPLE.variables, "budget": flute.Budget(epsilon)} | more
    return federation.study("heart", **given)  # type: ignore[arg-type]


@pytest.mark.requirement("F-HUF-1")
def test_an_exact_model_equals_the_pooled_fit(federation: flute.Federation) -> None:
    study = federation.study("exact", purpose="Test.", variables=EXAMPLE.variables, exact=flute.Exact())
    model = flute.FederatedLogisticRegression("heart_disease", PREDICTORS).fit(study)
    table = pooled().dropna(subset=[*PREDICTORS, "heart_disease"])
    fit = sm.Logit(table["heart_disease"].to_numpy(float), design(table)).fit(disp=0, tol=1e-12)
    learned = np.concatenate([model.intercept_, model.coef_[0]])
    assert np.allclose(learned, fit.params, rtol=1e-6)
    assert not np.allclose(learned * (1 + 1e-5), fit.params, rtol=1e-6)


@pytest.mark.requirement("F-HUF-1")
def test_the_noise_is_as_large_as_the_result_says(tmp_path: Path) -> None:
    """Counts of 60 coins, one answer. Chi-squared of the squared errors over the said deviations, two-sided."""
    chance = np.random.default_rng(5)
    coins = [f"coin{k}" for k in range(60)]
    tables = {hub: pd.DataFrame(chance.integers(0, 2, (300, 60)), columns=coins) for hub in ("one", "two", "three")}
    with flute.simulator(tables, simulated=True) as fed:
        study = fed.study("coins", purpose="T.", variables={c: flute.binary() for c in coins}, budget=2.0)
        answer = study.run(flute.Describe(coins), epsilon=2.0, progress=False)
    whole = pd.concat(tables.values())
    errors = [
        (level["count"] - (whole[coin] == int(name)).sum()) / level["noise_se"]
        for coin in coins
        for name, level in answer.value["variables"][coin]["levels"].items()
    ]
    assert fits(errors, 1.0)
    assert not fits(errors, 2.0)
    assert not fits(errors, 0.5)


def fits(errors: list[float], scale: float) -> bool:
    squares = float(np.sum((np.array(errors) / scale) ** 2))
    return bool(chi2.ppf(ALPHA / 2, len(errors)) < squares < chi2.ppf(1 - ALPHA / 2, len(errors)))


def test_hubs_compute_quantiles_on_shares(federation: flute.Federation) -> None:
    study = federation.study(
        "shares", purpose="T.", variables=EXAMPLE.variables, exact=True, plan="mpc", max_patients=1000
    )
    answer = study.run(flute.Quantiles(["age"], percents=[50], grid=92), progress=False)
    found = answer.value["variables"]["age"]["quantiles"]["50"]
    assert abs(found - pooled()["age"].median()) <= 1.0  # a step of the grid


def test_each_hub_answers_for_itself(federation: flute.Federation) -> None:
    asked = flute.Describe(["sex"], per_hub=True, epsilon=1).fit(private(federation))
    assert set(asked.results_) == set(EXAMPLE)
    for hub, path in EXAMPLE.items():
        n = asked.results_[hub].value["variables"]["sex"]["n"]
        assert abs(n["value"] - len(pd.read_csv(path))) < 7 * n["noise_se"] + 1
    with pytest.raises(MisuseError, match="Each hub answered for itself"):
        asked.to_frame()


# --- the budget ------------------------------------------------------------------------------------------


@pytest.mark.requirement("F-PIL-17")
def test_runs_are_drawn_on_the_study_budget_in_rho(federation: flute.Federation) -> None:
    study = private(federation, 2.0)
    study.run(flute.Describe(["age"]), epsilon=1, progress=False)
    study.run(flute.Describe(["sex"]), epsilon=1, progress=False)
    budget = study.budget
    assert abs(budget.rho_spent + budget.rho_left - budget.rho) < 1e-12
    assert 1.4 < budget.spent < 1.5  # two of epsilon 1 are less than 2
    assert budget.left > 1.0
    for account in budget.accounts:  # the hubs' ledgers say the same
        assert account.dataset is not None
        assert abs(account.dataset["rho"] - budget.rho_spent) / budget.rho_spent < 0.01


@pytest.mark.requirement("F-PIL-17")
def test_what_passes_the_study_budget_is_refused_before_anything_is_asked(federation: flute.Federation) -> None:
    study = private(federation, 1.0)
    with pytest.raises(BudgetExceeded, match="1 are left"):
        study.run(flute.Describe(["age"]), epsilon=1.01)
    assert study.runs == {}
    study.run(flute.Describe(["age"]), epsilon=1.0, progress=False)
    with pytest.raises(BudgetExceeded):
        study.run(flute.Describe(["sex"]), epsilon=0.01)


def test_all_that_is_left_can_be_spent(federation: flute.Federation) -> None:
    study = private(federation, 1.0)
    study.run(flute.Describe(["age"]), epsilon=0.3, progress=False)
    study.run(flute.Describe(["sex"]), epsilon=study.budget.left, progress=False)
    assert study.budget.left < 0.01


@pytest.mark.requirement("F-PIL-17")
def test_a_hub_judges_though_the_notebook_would_let_it_pass() -> None:
    """Two studies of epsilon 1 under a hub's ceiling of 1 in all: the second is the hub's to refuse."""
    with flute.simulator(EXAMPLE, epsilon=1.0) as fed:
        private(fed, 1.0).run(flute.Describe(["age"]), epsilon=1, progress=False)
        other = fed.study("other", purpose="T.", variables=EXAMPLE.variables, budget=1.0)
        with pytest.raises(flute.StudyStopped, match="in all"):
            other.run(flute.Describe(["age"]), epsilon=1, progress=False)


@pytest.mark.requirement("F-PIL-17")
def test_an_answer_is_looked_up_for_nothing_and_asked_anew_for_its_price(
    federation: flute.Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    study = private(federation)
    first = study.run(flute.Describe(["age"]), epsilon=1, progress=False)
    spent = study.budget.rho_spent
    same = study.run(flute.Describe(["age"]), epsilon=1)
    assert "answered this before; looking it up costs nothing" in capsys.readouterr().out
    assert same.value == first.value
    assert study.budget.rho_spent == spent
    anew = study.run(flute.Describe(["age"]), epsilon=1, again=True, progress=False)
    assert anew.value != first.value
    assert study.budget.rho_spent == 2 * spent
    assert study.run(flute.Describe(["age"]), epsilon=0.5, progress=False).study == "heart-3"


def test_several_questions_share_one_agreement(federation: flute.Federation) -> None:
    study = private(federation)
    first, second = flute.Describe(["age"], share=0.25), flute.Describe(["sex"])
    study.run([first, second], epsilon=1, progress=False)
    assert [q.share for q in study.runs["heart-1"].questions] == [0.25, 0.75]
    own = [flute.Describe(["age"], epsilon=0.5), flute.Describe(["sex"], epsilon=0.5)]
    study.run(own, progress=False)
    assert 0.5 < study.runs["heart-2"].epsilon < 1.0
    assert own[0].epsilon_spent_ <= 0.5 + 1e-6


def test_exact_numbers_are_counted_over_all_runs(federation: flute.Federation) -> None:
    study = federation.study("few", purpose="T.", variables=EXAMPLE.variables, exact=flute.Exact(12))
    study.run(flute.Describe(["age"], bins=4), progress=False)
    assert study.budget.numbers_left == 12 - 7
    with pytest.raises(BudgetExceeded, match="5 are left"):
        study.run(flute.Describe(["pressure"], bins=4))
    study.run(flute.Describe(["age"], bins=4), progress=False)  # it was answered


# --- in flight ---------------------------------------------------------------------------------------------


def test_a_run_is_found_again_by_its_name(federation: flute.Federation) -> None:
    running = private(federation).start(flute.Describe(["age"]), epsilon=1)
    found = federation.attach(running.id)
    assert found.result(60).value == running.result(60).value
    assert found.done
    with pytest.raises(MisuseError, match="no run 'heart-9'; there are heart-1"):
        federation.attach("heart-9")


def test_a_run_in_flight_is_joined_and_not_proposed_twice(federation: flute.Federation) -> None:
    study = private(federation)
    first = study.start(flute.Describe(["age"]), epsilon=1)
    second = study.start(flute.Describe(["age"]), epsilon=1)
    assert first.id == second.id
    assert first.result(60).value == second.result(60).value


def test_a_cancelled_run_says_who_stopped_it(federation: flute.Federation) -> None:
    running = private(federation).start([flute.Describe(["age"], bins=1024)], epsilon=1)
    running.cancel("enough")
    with pytest.raises(flute.StudyStopped, match="me stopped it: enough"):
        running.result(60)


def test_results_are_awaited(federation: flute.Federation) -> None:
    study = private(federation)
    found = asyncio.run(study.arun(flute.Describe(["age"]), epsilon=1))
    assert found.algorithm == "describe"


# --- terms ---------------------------------------------------------------------------------------------------


def test_the_study_file_of_a_run_is_the_agreement_it_proposes(federation: flute.Federation) -> None:
    study = private(federation)
    query = flute.Describe(["age"], bins=8, epsilon=1.0)
    text = study.to_yaml(query)
    study.run(query, progress=False)
    proposed = study.runs["heart-1"]
    assert read_study_file(text, path="t.yaml", code=proposed.code)[0] == proposed


def test_a_mistake_is_said_as_of_a_study_file(federation: flute.Federation) -> None:
    with pytest.raises(StudyFileError, match=r"'agee' is not among the study's variables; did you mean 'age'\?"):
        private(federation).run(flute.Describe(["agee"]), epsilon=1)


def test_a_preview_spends_nothing(federation: flute.Federation) -> None:
    study = private(federation, 1.0)
    seen = study.preview(flute.Describe(["sex"]), epsilon=0.6)
    assert seen.fits
    assert 0 < seen.left < 1
    assert not study.preview(flute.Describe(["sex"]), epsilon=1.5).fits
    assert study.runs == {}
    assert study.budget.rho_spent == 0
    table = seen.to_frame()
    assert (table["95 % within"] > 0).any()


def test_frames_and_files_give_the_same(tmp_path: Path) -> None:
    frames = {hub: pd.read_csv(path) for hub, path in EXAMPLE.items()}
    found = []
    for records in (frames, EXAMPLE):
        with flute.simulator(records) as fed:
            study = fed.study("same", purpose="T.", variables=EXAMPLE.variables, exact=True)
            found.append(study.run(flute.Describe(["age", "smoker"], bins=8), progress=False).value)
    assert found[0] == found[1]


def test_conditions_are_asked_for_where_hubs_are_not_ones_own(federation: flute.Federation) -> None:
    federation.place.__class__.conditions, kept = None, federation.place.conditions  # as a connected place
    try:
        with pytest.raises(MisuseError, match="on what ground the hubs take part"):
            private(federation)
    finally:
        federation.place.__class__.conditions = kept
