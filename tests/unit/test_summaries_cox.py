"""`cox` equals statsmodels (ties by Breslow) on pooled times moved to the grid."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from statsmodels.duration.hazard_regression import PHReg

from flute.algorithms.contract import Opened, StudyVariable
from flute.errors import StudyFileError
from flute.questions.registry import algorithm_for
from flute.summaries.survival.cox import Cox
from support.summary_cases import HUBS, VARIABLES, asked, cohort, on_grid
from support.sums import dataset, setting

SPEC = Cox("time", "died", ("age", "marker", "sex", "grade"), bins=24)


def _pooled(table: pd.DataFrame, bins: int = 24) -> tuple[Any, pd.DataFrame]:
    rows = table[["time", "died", "age", "marker", "sex", "grade"]].dropna()
    rows = rows.assign(
        time=(on_grid(rows["time"].to_numpy(), 0, 10, bins) + 1) * 10 / bins,
        marker=np.log(rows["marker"]),
        mid=(rows["grade"] == 1).astype(float),
        high=(rows["grade"] == 2).astype(float),
    )
    x = rows[["age", "marker", "sex", "mid", "high"]]
    return PHReg(rows["time"], x, status=rows["died"], ties="breslow").fit(), rows


@pytest.mark.requirement("F-HUF-2")
@pytest.mark.parametrize("hubs", HUBS)
@pytest.mark.parametrize("bins", [8, 24, 256])
def test_the_fit_equals_the_pooled_one(bins: int, hubs: int) -> None:
    table = cohort()
    shown = asked(Cox(SPEC.time, SPEC.event, SPEC.predictors, bins), table, hubs)
    theirs, rows = _pooled(table, bins)
    assert shown["ending"] == "converged"
    assert shown["iterations"] <= 8
    assert (shown["n"], shown["events"]) == (len(rows), rows["died"].sum())
    assert shown["columns"] == ["age", "ln marker", "sex", "grade=mid", "grade=high"]
    assert shown["coefficients"] == pytest.approx(theirs.params, rel=1e-6)
    assert shown["standard_errors"] == pytest.approx(theirs.bse, rel=1e-6)
    assert shown["p"] == pytest.approx(theirs.pvalues, rel=1e-5)
    assert shown["log_likelihood"] == pytest.approx(theirs.llf, rel=1e-9)
    ratios = [[r["low"], r["high"]] for r in shown["hazard_ratios"]]
    assert np.array(ratios) == pytest.approx(np.exp(theirs.conf_int()), rel=1e-6)
    theirs_times, theirs_hazard, _ = theirs.baseline_cumulative_hazard[0]
    ours = np.interp(theirs_times, shown["baseline"]["times"], shown["baseline"]["cumulative_hazard"])
    assert ours[:-1] == pytest.approx(theirs_hazard[1:], rel=1e-6)  # theirs: before the time, not after


@pytest.mark.requirement("F-HUF-2")
def test_a_fine_grid_comes_near_the_ungridded_fit() -> None:
    table = cohort()
    rows = table[["time", "died", "age", "sex"]].dropna()
    theirs = CoxPHFitter().fit(rows, "time", "died").params_.to_numpy()
    errors = CoxPHFitter().fit(rows, "time", "died").standard_errors_.to_numpy()
    off = [
        np.abs(np.array(asked(Cox("time", "died", ("age", "sex"), b), table)["coefficients"]) - theirs).max()
        for b in (8, 256)
    ]
    assert off[1] < off[0]
    assert off[1] < 0.02 * errors.max()


def test_strong_effects_are_found_by_the_same_steps() -> None:
    chance = np.random.default_rng(2)
    table = cohort(missing=0)
    life = chance.exponential(3 * np.exp(-0.2 * (table["age"] - 60)))
    table = table.assign(time=np.minimum(life, 9.9), died=(life < 9.9).astype(float))
    shown, (theirs, _) = asked(SPEC, table), _pooled(table)
    assert shown["ending"] == "converged"
    assert shown["coefficients"] == pytest.approx(theirs.params, rel=1e-6)
    assert shown["coefficients"][0] * table["age"].std() > 1.2


def test_endings_other_than_a_fit_are_said() -> None:
    table = cohort(missing=0)
    assert asked(SPEC, table.assign(died=0.0))["ending"] == "no-events"
    assert asked(SPEC, table.iloc[:0])["ending"] == "no-events"
    constant = asked(Cox("time", "died", ("age", "fixed")), table)
    assert constant["ending"] == "converged"
    assert constant["not_estimated"] == ["fixed"]
    assert constant["standard_errors"][1] is None
    alone = asked(Cox("time", "died", ("age",)), table)
    assert constant["coefficients"][0] == pytest.approx(alone["coefficients"][0], rel=1e-8)
    twice = table.assign(pressure=table["age"] + 100)
    assert asked(Cox("time", "died", ("age", "pressure")), twice)["ending"] in ("collinear", "separation-suspected")
    only_women = table.assign(died=table["sex"])
    assert asked(Cox("time", "died", ("sex",)), only_women)["ending"] in ("separation-suspected", "not-converged")
    for rows in (0, 1, 3, 400):
        json.dumps(asked(SPEC, table.iloc[:rows]), allow_nan=False)


def test_missing_predictors_may_be_indicated() -> None:
    shown = asked(Cox("time", "died", ("age", "sex")), cohort(missing=0.1), missing="indicate")
    assert shown["columns"] == ["age", "age missing", "sex", "sex missing"]
    assert shown["ending"] == "converged"
    assert shown["n"] == len(cohort(missing=0.1)[["time", "died"]].dropna())


def test_no_coordinate_passes_1_whatever_the_coordinator_asks_with() -> None:
    agreed, algorithm = setting(VARIABLES), algorithm_for(SPEC)
    table = cohort(n=50)
    data = dataset({name: table[name].to_numpy() for name in table}, VARIABLES)
    size = 5 + 2 + SPEC.bins
    for asked_with in ((1e308,) * size, (-1e308,) * size, (0.0,) * size, (50.0,) * 5 + (-900.0, 7.0) + (9.0,) * 24):
        rows = algorithm.update(SPEC, agreed, 1, asked_with, data)
        assert np.isfinite(rows).all()
        assert np.abs(rows).max() <= 1


def test_the_next_question_follows_from_opened_totals_alone() -> None:
    """Nothing is kept between calls: asking again after the same history gives the same answer."""
    agreed, algorithm = setting(VARIABLES), algorithm_for(SPEC)
    table = cohort()
    data = dataset({name: table[name].to_numpy() for name in table}, VARIABLES)
    history: list[Opened] = []
    for step in range(3):
        first = algorithm.next(SPEC, agreed, tuple(history), {})
        again = algorithm.next(SPEC, agreed, tuple(history), {})
        assert first.parameters.tobytes() == again.parameters.tobytes()
        rows = algorithm.update(SPEC, agreed, step, first.parameters, data)
        history.append(Opened(first.parameters, rows.sum(axis=0), 0.0))


def test_what_is_no_cox_question_is_refused() -> None:
    pooled = [StudyVariable(VARIABLES[0].variable, scale="pooled"), *VARIABLES[1:]]
    with pytest.raises(StudyFileError, match="pooled"):
        algorithm_for(SPEC).check(SPEC, setting(pooled))
    for spec in (Cox("time", "died", ("time",)), Cox("age", "grade", ("sex",)), Cox("time", "died", ("sex", "sex"))):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, setting(VARIABLES))
