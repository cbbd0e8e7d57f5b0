"""Statistics on shares, asked in a real study: equal to the pooled ones, and nothing but the result is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from flute.errors import StudyFileError
from flute.messages.answer import JointTotal
from flute.study.agreement import Agreement, PlanChoice
from flute.study.files.check import check_study
from support.inprocess import InProcessFederation
from support.studies import EXACT, study, under_plan

HUBS = ("north", "south", "west")
QUESTIONS = """\
  middle:
    algorithm: joint-quantiles
    variables: [age, pressure]
    percents: [25, 50, 90]
  table:
    algorithm: joint-test
    outcome: grade
    by: ill
  rare:
    algorithm: joint-test
    outcome: sex
    by: ill
    method: fisher
  ranks:
    algorithm: joint-test
    outcome: age
    by: grade
  survival:
    algorithm: log-rank
    time: age
    event: ill
    by: sex
"""
HIDDEN = """\
  risk:
    algorithm: hidden-model
    outcome: ill
    predictors: [age, pressure, sex]
    bins: 16
"""


def people(hub: str, n: int = 60) -> dict[str, list[object]]:
    rng = np.random.default_rng(list(hub.encode()))
    age, pressure = rng.uniform(25, 95, n), rng.uniform(80, 200, n)
    sex = rng.integers(0, 2, n)
    ill = rng.random(n) < 1 / (1 + np.exp(-(age - 60) / 12 - 0.8 * sex))
    return {
        "age": [float(a) for a in age],
        "pressure": [float(p) for p in pressure],
        "sex": [int(s) for s in sex],
        "grade": [str(g) for g in np.where(age > 60, rng.choice(["low", "mid", "high"], n), "low")],
        "ill": [int(i) for i in ill],
    }


def pooled() -> dict[str, Any]:
    all_of = [people(hub) for hub in HUBS]
    return {name: np.array([v for one in all_of for v in one[name]]) for name in all_of[0]}


def agreement(questions: str, mode: str = EXACT) -> Agreement:
    return under_plan(study(mode, questions), PlanChoice("mpc"), max_patients=100)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Results of all questions, and how many numbers every opened total had."""
    asked = agreement(QUESTIONS + HIDDEN)
    variables = [v.variable for v in asked.variables]
    fed = InProcessFederation(tmp_path_factory.mktemp("joint"), {hub: people(hub) for hub in HUBS}, variables)
    release = fed.run(asked)
    opened = [len(fed.rounds.total(r.id)) // 8 for r in fed.rounds.rounds("heart") if r.state == "opened"]
    yield release["results"], opened
    fed.close()


def on_grid(x: Any, low: float, high: float, size: int) -> Any:
    grid = np.linspace(low, high, size + 1)[1:]
    return grid[np.searchsorted(grid, x)]


def test_fishers_test_is_that_of_the_pooled_table(answered: Any) -> None:
    data = pooled()
    table = [[int(((data["ill"] == y) & (data["sex"] == s)).sum()) for s in (0, 1)] for y in (0, 1)]
    found = answered[0]["rare"]
    assert found["p"] == pytest.approx(stats.fisher_exact(table).pvalue, abs=2e-7)
    assert found["test"] == "Fisher's exact"


@pytest.mark.requirement("F-SRS-4")
def test_quantiles_are_those_of_all_patients_on_the_grid(answered: Any) -> None:
    found, data = answered[0]["middle"]["variables"], pooled()
    age = on_grid(data["age"], 20, 100, 1024)
    for percent, value in found["age"]["quantiles"].items():
        assert value == pytest.approx(np.quantile(age, int(percent) / 100, method="inverted_cdf"), abs=1e-8)
    pressure = np.exp(on_grid(np.log(data["pressure"]), np.log(60), np.log(260), 1024))
    for percent, value in found["pressure"]["quantiles"].items():
        assert value == pytest.approx(np.quantile(pressure, int(percent) / 100, method="inverted_cdf"), rel=1e-8)


def test_the_chi_squared_test_is_that_of_the_pooled_table(answered: Any) -> None:
    data = pooled()
    levels = ["low", "mid", "high"]
    table = [[int(((data["ill"] == y) & (data["grade"] == g)).sum()) for g in levels] for y in (0, 1)]
    want = stats.chi2_contingency(table, correction=False)
    found = answered[0]["table"]
    assert found["statistic"] == pytest.approx(want.statistic, abs=1e-6)
    assert found["degrees_of_freedom"] == want.dof
    assert found["p"] == pytest.approx(want.pvalue, rel=1e-5)


def test_the_rank_test_is_that_of_all_values_on_the_grid(answered: Any) -> None:
    data = pooled()
    age = on_grid(data["age"], 20, 100, 256)
    want = stats.kruskal(*(age[data["grade"] == g] for g in ("low", "mid", "high")))
    found = answered[0]["ranks"]
    assert found["statistic"] == pytest.approx(want.statistic, rel=1e-5)
    assert found["groups"] == {g: int((data["grade"] == g).sum()) for g in ("low", "mid", "high")}


def test_the_log_rank_test_is_that_of_all_patients_on_the_grid(answered: Any) -> None:
    data = pooled()
    time = on_grid(data["age"], 20, 100, 64)
    expected = variance = observed = 0.0
    for t in np.unique(time[data["ill"] == 1]):
        at_risk, dying = time >= t, (time == t) & (data["ill"] == 1)
        n, n0, d = at_risk.sum(), (at_risk & (data["sex"] == 0)).sum(), dying.sum()
        observed += (dying & (data["sex"] == 0)).sum()
        expected += d * n0 / n
        variance += d * n0 / n * (1 - n0 / n) * (n - d) / (n - 1) if n > 1 else 0.0
    found = answered[0]["survival"]
    assert abs(found["observed_less_expected"]) == pytest.approx(abs(observed - expected), abs=1e-6)
    assert found["variance"] == pytest.approx(variance, abs=1e-6)


@pytest.mark.requirement("F-SRS-10")
def test_a_hidden_model_is_scored_as_the_pooled_fit_and_is_not_in_the_result(answered: Any) -> None:
    data, found = pooled(), answered[0]["risk"]
    x = np.column_stack([data["age"], np.log(data["pressure"]), data["sex"]])
    fit = sm.Logit(data["ill"], sm.add_constant(x)).fit(disp=0)
    risk = fit.predict()
    wins = (risk[data["ill"] == 1][:, None] > risk[data["ill"] == 0][None, :]).mean()
    assert found["settled"] is True
    assert found["patients"] == dict.fromkeys(HUBS, 60)
    assert found["scores"]["auc"]["value"] == pytest.approx(wins, abs=0.02)  # 16 bins
    assert found["scores"]["brier"]["value"] == pytest.approx(float(np.mean((data["ill"] - risk) ** 2)), abs=2e-4)
    words = {str(key) for key in walk(found)}
    assert not words & {"coefficients", "raw_coefficients", "odds_ratio", "terms"}


def walk(found: Any) -> Iterator[Any]:
    if isinstance(found, dict):
        for key, value in found.items():
            yield key
            yield from walk(value)
    elif isinstance(found, list):
        for item in found:
            yield from walk(item)


@pytest.mark.requirement("F-SRS-10")
def test_no_more_numbers_are_opened_than_were_agreed(answered: Any) -> None:
    checked = check_study(agreement(QUESTIONS + HIDDEN))
    agreed = [price.shape.size for question in checked.agreement.questions for price in checked.prices[question.id]]
    assert answered[1] == agreed == [6, 1, 1, 4, 2, 1 + 3 + 2 * 16 + 2]


def test_what_is_computed_on_shares_is_refused_under_plans_of_sums_and_with_a_budget() -> None:
    with pytest.raises(StudyFileError, match="mpc"):
        check_study(study(EXACT, QUESTIONS))
    private = "".join(f"{line}\n" for line in HIDDEN.splitlines()) + "    share: 0.5\n"
    with pytest.raises(StudyFileError, match="exact studies"):
        check_study(agreement(private, "budget: {epsilon: 3}"))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (HIDDEN.replace("[age, pressure, sex]", "[age, ill]"), "the outcome itself"),
        (HIDDEN.replace("outcome: ill", "outcome: grade"), "0/1"),
        (QUESTIONS.replace("by: ill", "by: age"), "is a number"),
        (QUESTIONS.replace("by: sex", "by: grade"), "by: 'grade' has to be a 0/1"),
        (QUESTIONS.replace("[age, pressure]", "[age, sex]"), "no number"),
        (QUESTIONS.replace("event: ill", "event: nobody"), "not among the study's variables"),
    ],
)
def test_questions_that_make_no_sense_are_refused_with_what_to_write(asked: str, says: str) -> None:
    with pytest.raises(StudyFileError, match=says):
        check_study(agreement(asked))


def test_more_patients_than_counts_have_room_for_are_refused_with_how_many_would_do() -> None:
    wide = under_plan(study(EXACT, QUESTIONS), PlanChoice("mpc"))
    with pytest.raises(StudyFileError, match="max_patients: "):
        check_study(wide)


def test_what_hubs_report_of_a_computation_is_its_numbers_alone() -> None:
    assert JointTotal.__struct_fields__ == ("session", "total")
