"""`correlation` equals the pooled figures; its noised answers stay possible."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from flute.errors import StudyFileError
from flute.questions.registry import algorithm_for
from flute.summaries.correlation import Correlation
from support.summary_cases import HUBS, VARIABLES, asked, cohort
from support.sums import dataset, setting

SPEC = Correlation(("age", "pressure", "marker", "sex"))


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_exact_figures_equal_the_pooled_ones(hubs: int) -> None:
    table = cohort()
    complete = table[list(SPEC.variables)].dropna()
    complete = complete.assign(marker=np.log(complete["marker"]))
    shown = asked(SPEC, table, hubs)
    assert shown["n"]["value"] == len(complete)
    assert shown["left_out"]["value"] == len(table) - len(complete)
    assert np.array(shown["covariance"]["values"]) == pytest.approx(complete.cov().to_numpy(), rel=1e-6, abs=1e-9)
    for name in SPEC.variables:
        assert shown["means"][name]["value"] == pytest.approx(complete[name].mean(), rel=1e-6)
        assert shown["sds"][name]["value"] == pytest.approx(complete[name].std(), rel=1e-6)
        low, high = stats.t.interval(0.95, len(complete) - 1, complete[name].mean(), stats.sem(complete[name]))
        assert [shown["means"][name][end] for end in ("low", "high")] == pytest.approx([low, high], rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_exact_correlations_equal_those_of_scipy(hubs: int) -> None:
    table = cohort()
    complete = table[list(SPEC.variables)].dropna()
    complete = complete.assign(marker=np.log(complete["marker"]))
    shown = asked(SPEC, table, hubs)["correlation"]
    for i, a in enumerate(SPEC.variables):
        for j, b in enumerate(SPEC.variables):
            if i == j:
                assert shown[i][j] is None
                continue
            pooled = stats.pearsonr(complete[a], complete[b])
            ends = pooled.confidence_interval()
            got = shown[i][j]
            assert got["value"] == pytest.approx(pooled.statistic, rel=1e-6)
            assert got["p"] == pytest.approx(pooled.pvalue, rel=1e-5)
            assert [got["low"], got["high"]] == pytest.approx([ends.low, ends.high], rel=1e-6, abs=1e-8)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("basis", ["covariance", "correlation"])
def test_principal_components_equal_those_of_the_pooled_matrix(basis: str) -> None:
    table = cohort()
    complete = table[list(SPEC.variables)].dropna()
    complete = complete.assign(marker=np.log(complete["marker"]))
    matrix = (complete.cov() if basis == "covariance" else complete.corr()).to_numpy()
    shown = asked(SPEC, table)["components"][basis]
    values, vectors = np.linalg.eigh(matrix)
    assert [v["value"] for v in shown["eigenvalues"]] == pytest.approx(values[::-1], rel=1e-6)
    assert shown["shares"] == pytest.approx(values[::-1] / values.sum(), rel=1e-6)
    assert np.abs(shown["loadings"]) == pytest.approx(np.abs(vectors[:, ::-1].T), rel=1e-5, abs=1e-7)


def test_a_constant_has_no_correlation_and_spoils_no_other() -> None:
    shown = asked(Correlation(("age", "pressure", "fixed")), cohort())
    assert shown["sds"]["fixed"]["value"] == 0
    assert shown["correlation"][0][2] is None
    assert shown["correlation"][0][1]["value"] > 0.3
    assert shown["components"]["correlation"] is None


def test_two_variables_that_say_the_same_correlate_fully() -> None:
    table = cohort().assign(pressure=lambda t: t["age"] + 60)
    shown = asked(Correlation(("age", "pressure")), table)["correlation"][0][1]
    assert shown["value"] == pytest.approx(1.0)


def test_hardly_any_patient_gives_counts_and_no_figures() -> None:
    for rows in (0, 1):
        shown = asked(SPEC, cohort(missing=0).iloc[:rows])
        assert shown["n"]["value"] == rows
        assert shown["correlation"] is None


def test_noised_results_are_json_and_possible_however_much_noise_there_is() -> None:
    for rho in (1e-7, 1e-4, 0.1):
        shown = asked(SPEC, cohort(), rho=rho)
        json.dumps(shown, allow_nan=False)
        for row in shown["correlation"] or []:
            assert all(-1 <= cell["value"] <= 1 for cell in row if cell)


def test_the_norm_is_reached_so_no_noise_is_wasted() -> None:
    algorithm, agreed = algorithm_for(SPEC), setting(VARIABLES, mode="private")
    corner = {v.variable.name: [v.variable.high or 1.0] for v in VARIABLES}
    corner |= {"sex": [1.0], "ill": [1.0], "died": [1.0], "grade": [2.0], "reread": [2.0]}
    row = algorithm.update(SPEC, agreed, 0, (), dataset(corner, VARIABLES))
    assert np.linalg.norm(row) == pytest.approx(algorithm.outline(SPEC, agreed)[0].clip_norm)


def test_what_cannot_be_correlated_is_refused() -> None:
    for names in (("age", "age"), ("age", "grade"), ("age", "weight")):
        with pytest.raises(StudyFileError):
            algorithm_for(SPEC).check(Correlation(names), setting(VARIABLES))
