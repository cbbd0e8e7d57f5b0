"""Private `cox`: what a patient can add, what is fitted without noise, what is said where noise is all there is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.duration.hazard_regression import PHReg

from flute.algorithms.contract import Ask, Opened
from flute.questions.registry import algorithm_for
from flute.summaries.survival.cox import Cox
from flute.summaries.survival.private_cox_rows import ScoreAsked, read_score, score_size, scored
from support.hazard_cohorts import RATIOS, SPEC, VARIABLES, cohort, columns, fitted
from support.summary_cases import asked
from support.summary_cases import cohort as mixed_cohort
from support.sums import dataset, setting

PRIVATE = setting(VARIABLES, mode="private")
NO_NOISE = 1e12
"""A budget at which noise is 1e-6 of a patient."""


@pytest.mark.requirement("F-HUF-2")
def test_without_noise_the_fit_is_coxs_within_what_weights_cost() -> None:
    """Against the pooled fit of the ungridded times: less than its standard error away in every column."""
    table = cohort(np.random.default_rng(1), 4000)
    shown = fitted(table, np.random.default_rng(2), NO_NOISE)
    theirs = PHReg(table["time"], columns(table), status=table["died"], ties="breslow").fit()
    off = np.abs(np.array(shown["coefficients"]) - theirs.params)
    assert (off < theirs.bse).all()
    assert off.mean() < 0.5 * theirs.bse.mean()
    errors = np.array(shown["standard_errors"])
    assert (errors > theirs.bse).all()
    assert (errors < 1.35 * theirs.bse).all()
    assert max(shown["noise_standard_errors"]) < 0.1 * errors.min()
    assert (shown["n"], shown["events"]) == (4000, table["died"].sum())
    assert shown["ending"] == "fixed-steps"
    assert shown["informed"] > 0.99


def test_the_baseline_hazard_is_that_of_a_patient_at_the_references() -> None:
    table = cohort(np.random.default_rng(4), 4000)
    shown = fitted(table, np.random.default_rng(2), NO_NOISE)
    times, found = (np.array(shown["baseline"][k]) for k in ("times", "cumulative_hazard"))
    assert found[:18] == pytest.approx((times[:18] / 9) ** 1.2, rel=0.15)


def test_what_noise_and_chance_leave_is_told_apart_and_together() -> None:
    shown = fitted(cohort(np.random.default_rng(1)), np.random.default_rng(2), 0.05)
    noise, sampling = (np.array(shown[f"{kind}_standard_errors"]) for kind in ("noise", "sampling"))
    assert shown["standard_errors"] == pytest.approx(np.hypot(noise, sampling))
    for ratio, b, se in zip(shown["hazard_ratios"], shown["coefficients"], shown["standard_errors"], strict=True):
        assert ratio["low"] == pytest.approx(np.exp(b - 1.959964 * se))
        assert ratio["high"] == pytest.approx(np.exp(b + 1.959964 * se))
    more = fitted(cohort(np.random.default_rng(1)), np.random.default_rng(2), 0.5)
    assert np.all(np.array(more["noise_standard_errors"]) < noise)


FINITE = st.one_of(st.sampled_from([0.0, 1e308, -1e308, 1.0, -1.0]), st.floats(allow_nan=False, allow_infinity=False))
ANYTHING = st.one_of(
    st.sampled_from([20.0, 100.0, 0.1, 0.0, 1.0, 2.0, 10.0, float("nan")]),
    st.floats(allow_nan=True, allow_infinity=True),
)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(*[ANYTHING] * 6), min_size=1, max_size=6), missing=st.sampled_from(["drop", "indicate"]),
    step=st.integers(0, 3), data=st.data(),
)  # fmt: skip
def test_no_record_and_no_parameter_takes_a_row_beyond_its_norm(
    rows: list[tuple[float, ...]], missing: str, step: int, data: st.DataObject
) -> None:
    agreed, spec, algorithm = replace(PRIVATE, missing=missing), replace_bins(4), algorithm_for(SPEC)
    q = 5 if missing == "drop" else 9
    size = score_size(q, 4) if step else 0
    parameters = np.resize(data.draw(st.lists(FINITE, min_size=1, max_size=12)), size)
    table = {v.variable.name: np.array(rows)[:, k] for k, v in enumerate(VARIABLES)}
    update = algorithm.update(spec, agreed, step, parameters, dataset(table, VARIABLES))
    shape = algorithm.outline(spec, agreed)[step]
    assert update.shape == (len(rows), shape.size)
    assert np.isfinite(update).all()
    assert np.linalg.norm(update, axis=1).max() <= shape.clip_norm * (1 + 1e-12)


def replace_bins(bins: int) -> Cox:
    return Cox(SPEC.time, SPEC.event, SPEC.predictors, bins)


def test_norms_are_reached_so_that_no_noise_is_wasted() -> None:
    algorithm, table = algorithm_for(SPEC), cohort(np.random.default_rng(1), 3000)
    table["time"][:100] *= 1e-3  # the first bin's row is the longest
    data, history = dataset(table, VARIABLES), []
    for step, shape in enumerate(algorithm.outline(SPEC, PRIVATE)):
        reached = algorithm.next(SPEC, PRIVATE, tuple(history), {})
        assert isinstance(reached, Ask)
        rows = algorithm.update(SPEC, PRIVATE, step, reached.parameters, data)
        assert 0.85 * shape.clip_norm < np.linalg.norm(rows, axis=1).max() <= shape.clip_norm * (1 + 1e-12)
        history.append(Opened(reached.parameters, rows.sum(axis=0), 1e-6))


def test_a_weight_is_the_smallest_that_any_time_and_ending_would_need() -> None:
    chance = np.random.default_rng(1)
    asked_with = read_score(chance.normal(size=score_size(3, 6)), 3, 6)
    one = ScoreAsked(asked_with.coefficients, 3 * asked_with.directions, asked_with.hazards, asked_with.centres)
    z = chance.normal(size=(20, 3))
    found, longest = scored(z, one), np.zeros(20)
    cumulated = np.concatenate([[0.0], np.cumsum(one.hazards)])
    summed = np.vstack([np.zeros(3), np.cumsum(one.hazards[:, None] * one.centres, axis=0)])
    for k in range(6):
        for part in np.linspace(0, 1, 11):
            passed = cumulated[k] + part * one.hazards[k]
            drift = summed[k] + part * one.hazards[k] * one.centres[k]
            u = -(found.relative * passed)[:, None] * found.moved + found.relative[:, None] * drift
            for event in (0, 1) if one.hazards[k] > 0 else (0,):
                longest = np.maximum(longest, np.linalg.norm(u + event * (found.moved - one.centres[k]), axis=1))
    assert found.weight == pytest.approx(1 / np.maximum(longest, 1.0), rel=1e-9)


@pytest.mark.parametrize("rows", [0, 1, 3, 60])
def test_few_patients_under_noise_give_plain_numbers_and_say_that_noise_is_all_there_is(rows: int) -> None:
    table = {name: values[:rows] for name, values in cohort(np.random.default_rng(1)).items()}
    owner = np.zeros(rows) if rows else None
    shown = fitted(table, np.random.default_rng(3), 0.01) if owner is not None else _of_nobody()
    json.dumps(shown, allow_nan=False)
    assert shown["ending"] == "noise-dominated"
    assert shown["standard_errors"] is None


def _of_nobody() -> dict[str, object]:
    return asked(Cox("time", "died", ("age", "sex")), mixed_cohort().iloc[:0], rho=0.01)


def test_a_level_that_nobody_has_and_a_column_that_never_varies_leave_the_others_alone() -> None:
    table = cohort(np.random.default_rng(1), 3000)
    table = table | {"grade": np.minimum(table["grade"], 1.0)}
    shown = fitted(table, np.random.default_rng(2), 1.0)
    assert shown["ending"] == "fixed-steps"
    errors = np.array(shown["standard_errors"], dtype=float)
    assert np.abs(np.array(shown["coefficients"])[:3] - RATIOS[:3]).max() < 4 * errors[:3].max()
    assert errors[4] > 3 * errors[3]
    constant = fitted(table | {"sex": np.ones(3000)}, np.random.default_rng(2), 1.0)
    json.dumps(constant, allow_nan=False)
    assert abs(constant["coefficients"][0] - RATIOS[0]) < 4 * constant["standard_errors"][0]


def test_the_same_totals_are_asked_and_answered_alike() -> None:
    algorithm, data = algorithm_for(SPEC), dataset(cohort(np.random.default_rng(1), 500), VARIABLES)
    history: list[Opened] = []
    for step in range(4):
        first, again = (algorithm.next(SPEC, PRIVATE, tuple(history), {}) for _ in range(2))
        assert isinstance(first, Ask)
        assert isinstance(again, Ask)
        assert first.parameters.tobytes() == again.parameters.tobytes()
        rows = algorithm.update(SPEC, PRIVATE, step, first.parameters, data)
        history.append(Opened(first.parameters, rows.sum(axis=0), 3.0))
