"""`compare` equals scipy on the pooled values, ranks on the pooled values moved to the grid."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flute.data.variables import Array
from flute.errors import StudyFileError
from flute.questions.registry import algorithm_for
from flute.summaries.compare import Compare
from flute.summaries.samples import Sample, standardised_difference
from support.summary_cases import HUBS, VARIABLES, asked, cohort, on_grid
from support.sums import dataset, setting

TWO, THREE = Compare("age", "sex", bins=40), Compare("age", "grade", bins=40)


def _groups(table: pd.DataFrame, by: str, levels: int, name: str = "age") -> list[Array]:
    rows = table[[name, by]].dropna()
    return [rows[name][rows[by] == k].to_numpy() for k in range(levels)]


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_tests_of_two_means_equal_those_of_scipy(hubs: int) -> None:
    table = cohort()
    shown, (a, b) = asked(TWO, table, hubs), _groups(table, "sex", 2)
    for name, equal in (("student", True), ("welch", False)):
        theirs, got = stats.ttest_ind(a, b, equal_var=equal), shown["tests"][name]
        ends = theirs.confidence_interval()
        assert got["statistic"] == pytest.approx(theirs.statistic, rel=1e-6)
        assert got["p"] == pytest.approx(theirs.pvalue, rel=1e-6)
        assert got["degrees_of_freedom"] == pytest.approx(theirs.df, rel=1e-6)
        assert [got["difference"][end] for end in ("low", "high")] == pytest.approx([ends.low, ends.high], rel=1e-6)
    pooled = np.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2))
    assert shown["tests"]["cohens_d"]["value"] == pytest.approx((a.mean() - b.mean()) / pooled, rel=1e-6)
    for name, group in (("0", a), ("1", b)):
        assert shown["groups"][name]["n"]["value"] == len(group)
        assert shown["groups"][name]["mean"]["value"] == pytest.approx(group.mean(), rel=1e-6)
        assert shown["groups"][name]["sd"]["value"] == pytest.approx(group.std(ddof=1), rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_analysis_of_variance_and_kruskal_wallis_equal_those_of_scipy(hubs: int) -> None:
    table = cohort()
    shown, groups = asked(THREE, table, hubs)["tests"], _groups(table, "grade", 3)
    theirs = stats.f_oneway(*groups)
    assert shown["analysis_of_variance"]["statistic"] == pytest.approx(theirs.statistic, rel=1e-6)
    assert shown["analysis_of_variance"]["p"] == pytest.approx(theirs.pvalue, rel=1e-6)
    ranks = stats.kruskal(*(on_grid(g, 20, 100, 40) for g in groups))
    assert shown["kruskal_wallis"]["statistic"] == pytest.approx(ranks.statistic, rel=1e-6)
    assert shown["kruskal_wallis"]["p"] == pytest.approx(ranks.pvalue, rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
@pytest.mark.parametrize("bins", [8, 40, 1024])
def test_mann_whitney_equals_scipy_on_the_grid_and_says_how_far_the_values_are(hubs: int, bins: int) -> None:
    table = cohort()
    a, b = _groups(table, "sex", 2)
    got = asked(Compare("age", "sex", bins=bins), table, hubs)["tests"]["mann_whitney"]
    theirs = stats.mannwhitneyu(*(on_grid(g, 20, 100, bins) for g in (a, b)), method="asymptotic")
    assert got["u"] == pytest.approx(theirs.statistic, rel=1e-9)
    assert got["p"] == pytest.approx(theirs.pvalue, rel=1e-6)
    assert got["rank_biserial"]["value"] == pytest.approx(2 * theirs.statistic / (len(a) * len(b)) - 1, rel=1e-6)
    ungridded = stats.mannwhitneyu(a, b).statistic
    assert abs(ungridded - got["u"]) <= got["grid_bound"]
    assert got["grid_bound"] < len(a) * len(b) / 8


@pytest.mark.requirement("F-HUF-2")
def test_quantiles_are_within_a_grid_step_of_the_pooled_ones() -> None:
    table = cohort()
    shown = asked(THREE, table)
    for name, group in zip(("low", "mid", "high"), _groups(table, "grade", 3), strict=True):
        for q, got in shown["groups"][name]["quantiles"].items():
            assert got["value"] == pytest.approx(np.quantile(group, int(q) / 100), abs=shown["grid_step"])


def test_a_constant_and_an_empty_group_leave_what_can_be_said() -> None:
    shown = asked(Compare("fixed", "sex"), cohort())["tests"]
    assert shown["welch"]["p"] is None
    assert shown["kruskal_wallis"]["p"] is None
    table = cohort()
    table = table[table["grade"] != 1]
    shown = asked(THREE, table)["tests"]["analysis_of_variance"]
    _, *groups = sorted(_groups(table, "grade", 3), key=len)
    assert shown["p"] == pytest.approx(stats.f_oneway(*groups).pvalue, rel=1e-6)
    men = asked(TWO, cohort().query("sex == 0"))["tests"]
    assert {men[name]["p"] for name in ("welch", "student", "mann_whitney")} == {None}


def test_results_are_json_for_hardly_anybody_and_however_much_noise_there_is() -> None:
    for rows in (0, 1, 2, 400):
        json.dumps(asked(TWO, cohort().iloc[:rows]), allow_nan=False)
        for rho in (1e-7, 1e-3, 0.1):
            json.dumps(asked(TWO, cohort().iloc[:rows], rho=rho), allow_nan=False)
            json.dumps(asked(THREE, cohort().iloc[:rows], rho=rho), allow_nan=False)


def test_the_norm_is_reached_so_no_noise_is_wasted() -> None:
    agreed, algorithm = setting(VARIABLES, mode="private"), algorithm_for(TWO)
    corner = {v.variable.name: [max(v.variable.low, 0.0)] for v in VARIABLES}
    row = algorithm.update(TWO, agreed, 0, (), dataset(corner, VARIABLES))
    assert np.linalg.norm(row) == pytest.approx(algorithm.outline(TWO, agreed)[0].clip_norm)


def test_what_cannot_be_compared_is_refused() -> None:
    for spec in (Compare("grade", "sex"), Compare("age", "pressure"), Compare("age", "weight")):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(VARIABLES))


def test_intervals_of_deviations_and_quantiles_are_about_those_of_a_bootstrap() -> None:
    table, chance = cohort(missing=0), np.random.default_rng(3)
    spec = Compare("pressure", "sex", bins=128)
    drawn = []
    for _ in range(200):
        group = asked(spec, table.iloc[chance.integers(0, len(table), len(table))])["groups"]["1"]
        drawn.append([group["sd"]["value"], group["quantiles"]["50"]["value"]])
    deviation, median = np.std(drawn, axis=0)
    told = asked(spec, table)["groups"]["1"]
    assert told["sd"]["sampling_se"] == pytest.approx(deviation, rel=0.2)
    assert (told["quantiles"]["50"]["high"] - told["quantiles"]["50"]["low"]) / 3.92 == pytest.approx(median, rel=0.3)
    assert told["n"] == {
        "value": told["n"]["value"],
        "low": told["n"]["value"],
        "high": told["n"]["value"],
        "noise_se": 0,
    }


def test_the_noise_of_a_standardised_difference_is_that_of_means_and_variances() -> None:
    chance = np.random.default_rng(1)
    means, variances = 50 + 0.5 * chance.normal(size=(2, 4000)), 100 + 6 * chance.normal(size=(2, 4000))
    means[0] += 8
    found = np.abs(means[0] - means[1]) / np.sqrt(variances.mean(axis=0))
    one = [Sample(200, m, 100, 1, 0.5, 6) for m in (58, 50)]
    value, noise = standardised_difference(*one)
    assert value == pytest.approx(0.8)
    assert noise == pytest.approx(float(found.std()), rel=0.05)
