"""`cross-table` equals scipy and statsmodels on the pooled table."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import Table2x2
from statsmodels.stats.inter_rater import cohens_kappa

from flute.errors import StudyFileError
from flute.questions.registry import algorithm_for
from flute.summaries.cross_table import CrossTable
from flute.summaries.tables import standardised_difference
from support.summary_cases import HUBS, VARIABLES, asked, cohort
from support.sums import setting


def _pooled(table: pd.DataFrame, by: str, outcome: str) -> Any:
    return pd.crosstab(table[by], table[outcome]).to_numpy()


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_a_table_of_any_size_equals_the_pooled_one(hubs: int) -> None:
    table = cohort()
    shown, counts = asked(CrossTable("grade", "ill"), table, hubs), _pooled(table, "ill", "grade")
    test = stats.chi2_contingency(counts, correction=False)
    assert shown["counts"] == counts.tolist()
    assert shown["n"]["value"] + shown["left_out"]["value"] == len(table)
    assert shown["independence"]["statistic"] == pytest.approx(test.statistic, rel=1e-6)
    assert shown["independence"]["p"] == pytest.approx(test.pvalue, rel=1e-6)
    assert shown["independence"]["degrees_of_freedom"] == test.dof
    assert shown["cramers_v"] == pytest.approx(stats.contingency.association(counts, method="cramer"), rel=1e-6)
    assert shown["fisher_p"] is None


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_two_by_two_equals_scipy_and_statsmodels(hubs: int) -> None:
    table = cohort()
    shown, counts = asked(CrossTable("ill", "sex"), table, hubs), _pooled(table, "sex", "ill")
    corrected = stats.chi2_contingency(counts, correction=True)
    assert shown["independence"]["corrected"]["statistic"] == pytest.approx(corrected.statistic, rel=1e-6)
    assert shown["independence"]["corrected"]["p"] == pytest.approx(corrected.pvalue, rel=1e-6)
    assert shown["fisher_p"] == pytest.approx(stats.fisher_exact(counts).pvalue, rel=1e-6)
    theirs = Table2x2(counts)
    odds = shown["odds_ratio"]
    assert [odds["value"], odds["low"], odds["high"]] == pytest.approx(
        [theirs.oddsratio, *theirs.oddsratio_confint()], rel=1e-6
    )
    rows = counts.sum(axis=1)
    shares = counts[:, 1] / rows
    error = np.sqrt(np.sum(shares * (1 - shares) / rows))
    assert shown["risk_difference"]["value"] == pytest.approx(shares[1] - shares[0], rel=1e-6)
    assert shown["risk_difference"]["se"] == pytest.approx(error, rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
@pytest.mark.parametrize("kind", ["unweighted", "linear", "quadratic"])
def test_kappa_and_its_error_equal_those_of_statsmodels(kind: str, hubs: int) -> None:
    table = cohort()
    shown = asked(CrossTable("reread", "grade", raters=True), table, hubs)["kappa"][kind]
    theirs = cohens_kappa(_pooled(table, "grade", "reread"), wt=None if kind == "unweighted" else kind)
    assert shown["value"] == pytest.approx(theirs.kappa, rel=1e-6)
    assert shown["se"] == pytest.approx(theirs.std_kappa, rel=1e-6)


def test_empty_cells_and_levels_leave_what_can_be_said() -> None:
    table = cohort(missing=0)
    table = table[(table["sex"] == 0) | (table["ill"] == 1)]  # no woman is well
    shown = asked(CrossTable("ill", "sex"), table)
    assert shown["odds_ratio"]["value"] is None
    assert shown["fisher_p"] == pytest.approx(stats.fisher_exact(_pooled(table, "sex", "ill")).pvalue)
    men = asked(CrossTable("ill", "sex"), table[table["sex"] == 0])
    assert men["independence"]["p"] is None
    assert men["cramers_v"] is None
    two = table[table["grade"] < 2]
    counts = _pooled(two, "grade", "ill")
    shown = asked(CrossTable("ill", "grade"), two)["independence"]
    assert shown["p"] == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)


def test_nobody_and_one_patient_are_tables_too() -> None:
    for rows in (0, 1):
        shown = asked(CrossTable("reread", "grade", raters=True), cohort(missing=0).iloc[:rows])
        json.dumps(shown, allow_nan=False)
        assert shown["kappa"]["unweighted"]["value"] is None


def test_noised_results_are_json_however_much_noise_there_is() -> None:
    for rho in (1e-8, 1e-3, 1.0):
        for spec in (CrossTable("ill", "sex"), CrossTable("reread", "grade", raters=True)):
            shown = asked(spec, cohort(), rho=rho)
            json.dumps(shown, allow_nan=False)
            assert min(min(row) for row in shown["counts"]) >= 0
            assert shown["fisher_p"] is None or 0 <= shown["fisher_p"] <= 1


def test_an_odds_ratio_of_counts_that_drown_is_not_told() -> None:
    assert asked(CrossTable("ill", "sex"), cohort(), rho=1e-5)["odds_ratio"]["value"] is None
    assert asked(CrossTable("ill", "sex"), cohort(), rho=1.0)["odds_ratio"]["value"] is not None


def test_the_difference_of_levels_is_that_of_shares_for_two_levels() -> None:
    a, b = 30 / 100, 45 / 90
    spread = np.sqrt((a * (1 - a) + b * (1 - b)) / 2)
    found, noise = standardised_difference(np.array([70.0, 30.0]), np.array([45.0, 45.0]), 0.0)
    assert noise == 0
    assert found == pytest.approx(abs(a - b) / spread)
    assert standardised_difference(np.array([5.0, 5.0]), np.array([50.0, 50.0]), 0.0)[0] == pytest.approx(
        0.0, abs=1e-12
    )


def test_fishers_p_under_little_noise_is_near_the_exact_one() -> None:
    table = cohort(n=70, missing=0)
    exact, noised = (asked(CrossTable("ill", "sex"), table, **changed)["fisher_p"] for changed in ({}, {"rho": 50.0}))
    assert noised == pytest.approx(exact, abs=0.1)


def test_cramers_v_has_an_interval_about_as_wide_as_a_bootstraps() -> None:
    table, chance, drawn = cohort(missing=0), np.random.default_rng(3), []
    spec = CrossTable("reread", "grade")
    for _ in range(200):
        drawn.append(asked(spec, table.iloc[chance.integers(0, len(table), len(table))])["cramers_v"])
    shown = asked(spec, table)
    assert shown["cramers_v_interval"]["value"] == shown["cramers_v"]
    assert shown["cramers_v_interval"]["sampling_se"] == pytest.approx(float(np.std(drawn)), rel=0.15)


def test_what_makes_no_table_is_refused() -> None:
    for spec in (CrossTable("ill", "ill"), CrossTable("age", "ill"), CrossTable("grade", "ill", raters=True)):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(VARIABLES))
