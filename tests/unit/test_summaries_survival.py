"""`survival` equals lifelines on pooled times moved to the grid; the derivatives of its curves are right."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import median_survival_times, restricted_mean_survival_time
from statsmodels.duration.hazard_regression import PHReg

from flute.algorithms.prefix import Counts
from flute.data.variables import Array
from flute.errors import StudyFileError
from flute.questions.registry import algorithm_for
from flute.summaries.survival.curves import Survival
from flute.summaries.survival.life_tables import Life, curve_of
from support.summary_cases import HUBS, LEVELS, VARIABLES, asked, cohort, on_grid
from support.sums import dataset, setting

SPEC = Survival("time", "died", "grade", bins=32)


def _pooled(table: pd.DataFrame, bins: int = 32) -> pd.DataFrame:
    """Complete rows with times at the upper ends of their bins."""
    rows = table[["time", "died", "grade"]].dropna()
    return rows.assign(time=(on_grid(rows["time"].to_numpy(), 0, 10, bins) + 1) * 10 / bins)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_curves_intervals_medians_and_means_equal_those_of_lifelines(hubs: int) -> None:
    table = cohort()
    shown, rows = asked(SPEC, table, hubs), _pooled(table)
    for k, level in enumerate(LEVELS):
        group, got = rows[rows["grade"] == k], shown["groups"][level]
        theirs = KaplanMeierFitter().fit(group["time"], group["died"])
        times = got["curve"]["times"]
        assert got["n"]["value"] == len(group)
        assert got["events"]["value"] == group["died"].sum()
        assert got["curve"]["survival"] == pytest.approx(theirs.survival_function_at_times(times).tolist(), rel=1e-6)
        ends = theirs.confidence_interval_.loc[group["time"].unique()]
        for end, column in (("low", 0), ("high", 1)):
            ours = dict(zip(times, got["curve"][end], strict=True))
            assert [ours[t] for t in ends.index] == pytest.approx(ends.iloc[:, column].tolist(), rel=1e-6)
        assert got["median"]["value"] == theirs.median_survival_time_
        limits = median_survival_times(theirs.confidence_interval_).to_numpy()[0]
        expected = [limit if np.isfinite(limit) else None for limit in limits]
        assert [got["median"]["low"], got["median"]["high"]] == expected
        assert got["restricted_mean"]["value"] == pytest.approx(restricted_mean_survival_time(theirs, 10), rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
@pytest.mark.parametrize("bins", [6, 32, 256])
def test_the_log_rank_test_equals_that_of_lifelines_on_the_grid(hubs: int, bins: int) -> None:
    table = cohort()
    shown = asked(Survival("time", "died", "grade", bins=bins), table, hubs)["log_rank"]
    rows = _pooled(table, bins)
    theirs = multivariate_logrank_test(rows["time"], rows["grade"], rows["died"])
    assert shown["statistic"] == pytest.approx(theirs.test_statistic, rel=1e-6)
    assert shown["p"] == pytest.approx(theirs.p_value, rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
def test_hazard_ratios_of_groups_equal_those_of_a_pooled_cox_regression(hubs: int) -> None:
    table = cohort()
    shown, rows = asked(SPEC, table, hubs)["hazard_ratios"], _pooled(table)
    x = np.column_stack([rows["grade"] == 1, rows["grade"] == 2]).astype(float)
    theirs = PHReg(rows["time"], x, status=rows["died"], ties="breslow").fit()
    assert list(shown) == ["mid", "high"]
    assert [s["value"] for s in shown.values()] == pytest.approx(np.exp(theirs.params), rel=1e-6)
    assert [s["log_se"] for s in shown.values()] == pytest.approx(theirs.bse, rel=1e-6)
    ends = [[s["low"], s["high"]] for s in shown.values()]
    assert np.array(ends) == pytest.approx(np.exp(theirs.conf_int()), rel=1e-6)


@pytest.mark.requirement("F-HUF-2")
def test_a_fine_grid_comes_near_the_ungridded_figures() -> None:
    table = cohort()
    rows = table[["time", "died", "grade"]].dropna()
    theirs = multivariate_logrank_test(rows["time"], rows["grade"], rows["died"])
    off = [
        abs(asked(Survival("time", "died", "grade", bins=b), table)["log_rank"]["statistic"] - theirs.test_statistic)
        for b in (8, 256)
    ]
    assert off[1] < 0.05 * theirs.test_statistic + 0.02
    curve = asked(Survival("time", "died", bins=256), table)["groups"]["all"]
    rows = table[["time", "died"]].dropna()
    km = KaplanMeierFitter().fit(rows["time"], rows["died"])
    assert curve["median"]["value"] == pytest.approx(km.median_survival_time_, abs=2 * 10 / 256)


def _life(died: Array, ended: Array) -> Life:
    def counts(raw: Array) -> Counts:
        return Counts(raw, np.cumsum(raw), raw, 0.0)

    return Life(counts(died), counts(ended), np.linspace(0, 10, len(died) + 1))


def test_derivatives_of_the_curve_by_counts_are_those_of_small_changes() -> None:
    died, ended = np.array([4.0, 0.0, 7.0, 3.0, 2.0]), np.array([1.0, 5.0, 0.0, 2.0, 9.0])
    curve, step = curve_of(_life(died, ended)), 1e-6
    for i in range(5):
        moved = np.eye(5)[i] * step
        by_event = np.log(curve_of(_life(died + moved, ended)).survival / curve.survival) / step
        by_end = np.log(curve_of(_life(died, ended + moved)).survival / curve.survival) / step
        assert by_event == pytest.approx(curve.by_events[:, i], rel=1e-4, abs=1e-7)
        assert by_end == pytest.approx(curve.by_ends[:, i], rel=1e-4, abs=1e-7)


def test_nobody_one_patient_and_a_curve_that_reaches_zero_are_told() -> None:
    for rows in (0, 1, 2):
        json.dumps(asked(SPEC, cohort(missing=0).iloc[:rows]), allow_nan=False)
    table = cohort(missing=0).assign(died=1.0)
    got = asked(Survival("time", "died", bins=16), table)["groups"]["all"]
    assert got["curve"]["survival"][-1] == 0
    assert got["restricted_mean"]["se"] is not None
    never = asked(SPEC, cohort().assign(died=0.0))
    assert never["log_rank"]["p"] is None
    assert never["groups"]["low"]["median"]["value"] is None
    assert never["hazard_ratios"] == {"mid": None, "high": None}
    only = table.assign(died=(table["grade"] == 0).astype(float))
    assert asked(SPEC, only)["hazard_ratios"] == {"mid": None, "high": None}


def test_noised_curves_fall_stay_within_0_and_1_and_end_where_they_drown() -> None:
    reached = []
    for rho in (1e-6, 0.02, 0.5):
        shown = asked(SPEC, cohort(), rho=rho)
        json.dumps(shown, allow_nan=False)
        curve = [s for s in shown["groups"]["high"]["curve"]["survival"] if s is not None]
        assert curve == sorted(curve, reverse=True)
        assert all(0 <= s <= 1 for s in curve)
        reached.append(len(curve))
    assert reached[0] < reached[1] < reached[2]


def test_the_norm_is_reached_so_no_noise_is_wasted() -> None:
    agreed, algorithm = setting(VARIABLES, mode="private"), algorithm_for(SPEC)
    corner = {v.variable.name: [max(v.variable.low, 0.0)] for v in VARIABLES}
    row = algorithm.update(SPEC, agreed, 0, (), dataset(corner, VARIABLES))
    assert np.linalg.norm(row) == pytest.approx(algorithm.outline(SPEC, agreed)[0].clip_norm)


def test_what_is_no_survival_question_is_refused() -> None:
    for spec in (Survival("died", "died"), Survival("time", "age"), Survival("time", "died", "age"),
                 Survival("time", "died", "died"), Survival("time", "grade")):  # fmt: skip
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(VARIABLES))
