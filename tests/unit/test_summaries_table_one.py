"""`table-one` equals the pooled table, test by test."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flute.errors import StudyFileError
from flute.questions.registry import algorithm_for
from flute.summaries.table_one import TableOne
from support.summary_cases import HUBS, LEVELS, VARIABLES, asked, cohort
from support.sums import dataset, setting

BY_SEX = TableOne(("age", "pressure", "grade", "ill"), "sex")
BY_GRADE = TableOne(("age", "ill"), "grade")


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_numbers_equal_the_pooled_ones(hubs: int) -> None:
    table = cohort()
    shown = asked(BY_SEX, table, hubs)
    assert shown["left_out"]["value"] == table["sex"].isna().sum()
    for name in ("age", "pressure"):
        groups = [table[name][table["sex"] == k] for k in (0, 1)]
        for k, group in enumerate(groups):
            got = shown["table"][name]["groups"][str(k)]
            assert got["n"]["value"] == group.count()
            assert got["missing"]["value"] == group.isna().sum()
            assert got["mean"]["value"] == pytest.approx(group.mean(), rel=1e-6)
            assert got["sd"]["value"] == pytest.approx(group.std(), rel=1e-6)
            step = {"age": 80, "pressure": 200}[name] / 32
            assert got["quartiles"]["50"]["value"] == pytest.approx(group.median(), abs=step)
        a, b = (group.dropna() for group in groups)
        assert shown["table"][name]["p"] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, rel=1e-6)
        spread = np.sqrt((a.var() + b.var()) / 2)
        found = shown["table"][name]["standardised_difference"]
        assert found == pytest.approx(abs(a.mean() - b.mean()) / spread, rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_levels_equal_the_pooled_ones(hubs: int) -> None:
    table = cohort()
    shown = asked(BY_SEX, table, hubs)["table"]
    counts = pd.crosstab(table["sex"], table["grade"])
    for k in (0, 1):
        got = shown["grade"]["groups"][str(k)]
        assert [got["levels"][level]["count"] for level in LEVELS] == counts.loc[k].tolist()
        shares = [got["levels"][level]["share"] for level in LEVELS]
        assert shares == pytest.approx((counts.loc[k] / counts.loc[k].sum()).tolist())
        assert got["missing"]["value"] == table["grade"][table["sex"] == k].isna().sum()
    for name in ("grade", "ill"):
        theirs = stats.chi2_contingency(pd.crosstab(table["sex"], table[name]), correction=False)
        assert shown[name]["p"] == pytest.approx(theirs.pvalue, rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
def test_three_groups_are_compared_by_analysis_of_variance_and_the_largest_difference() -> None:
    table = cohort()
    shown = asked(BY_GRADE, table)["table"]["age"]
    groups = [table["age"][table["grade"] == k].dropna() for k in range(3)]
    assert shown["p"] == pytest.approx(stats.f_oneway(*groups).pvalue, rel=1e-6)
    differences = [
        abs(a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2) for a in groups for b in groups if a is not b
    ]
    assert shown["standardised_difference"] == pytest.approx(max(differences), rel=1e-6)


def test_without_groups_everybody_is_one_column_and_nothing_is_tested() -> None:
    shown = asked(TableOne(("age", "grade")), cohort())
    assert shown["groups"] == ["all"]
    assert shown["table"]["age"]["groups"]["all"]["n"]["value"] == cohort()["age"].count()
    assert shown["table"]["age"]["p"] is None
    assert shown["table"]["grade"]["standardised_difference"] is None


def test_results_are_json_for_hardly_anybody_and_however_much_noise_there_is() -> None:
    for rows in (0, 1, 2, 400):
        for spec in (BY_SEX, BY_GRADE):
            json.dumps(asked(spec, cohort().iloc[:rows]), allow_nan=False)
            for rho in (1e-7, 1e-3, 0.1):
                json.dumps(asked(spec, cohort().iloc[:rows], rho=rho), allow_nan=False)


def test_the_norm_is_reached_so_no_noise_is_wasted() -> None:
    agreed, algorithm = setting(VARIABLES, mode="private"), algorithm_for(BY_SEX)
    corner = {v.variable.name: [v.variable.low] for v in VARIABLES}
    row = algorithm.update(BY_SEX, agreed, 0, (), dataset(corner, VARIABLES))
    assert np.linalg.norm(row) == pytest.approx(algorithm.outline(BY_SEX, agreed)[0].clip_norm)


def test_the_floor_is_held_against_every_bin_level_and_missing_count() -> None:
    table = cohort()
    data = dataset({name: table[name].to_numpy() for name in table}, VARIABLES)
    cells = algorithm_for(BY_SEX).cells(BY_SEX, setting(VARIABLES), data)
    there = table["sex"].notna().sum()
    assert cells[0] == len(table) - there
    assert cells.sum() == len(table) - there + 4 * there


def test_what_makes_no_table_is_refused() -> None:
    for spec in (TableOne(("age", "age")), TableOne(("age", "sex"), "sex"), TableOne(("age",), "pressure")):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(VARIABLES))
