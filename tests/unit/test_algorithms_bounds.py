"""What one patient can contribute is bounded by public facts alone, whatever stands in the record.

These tests bypass the readers that make unusable values missing: columns hold anything a float can be, and
the parameters anything a hostile coordinator may send.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.algorithms.contract import Describe, Evaluate, LogisticRegression, Setting, Spec, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.questions.registry import algorithm_for
from support.sums import dataset, setting

VARIABLES = (
    StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60, spread=10),
    StudyVariable(Variable("psa", "number", 0.1, 150), log=True, scale="none"),
    StudyVariable(Variable("fh", "binary")),
    StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")), reference_level="mid"),
    StudyVariable(Variable("ill", "binary")),
)
QUESTIONS: dict[str, tuple[Spec, Any]] = {
    "cohort": (Describe(("age", "psa", "fh", "grade", "ill"), bins=16), "pooled"),
    "model": (LogisticRegression("ill", ("age", "psa", "fh", "grade")), "pooled"),
    "own": (LogisticRegression("ill", ("age", "fh")), "each"),
    "check": (Evaluate(("model", "own"), by="grade", bins=16), "pooled"),
}
ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
LIKELY = st.sampled_from([20.0, 100.0, 0.1, 150.0, 0.0, 1.0, 2.0, 60.0, float("nan")])
ROWS = st.lists(st.tuples(*[st.one_of(LIKELY, ANYTHING)] * 5), min_size=1, max_size=8)
FINITE = st.one_of(st.sampled_from([0.0, 1e308, -1e308, 1.0]), st.floats(allow_nan=False, allow_infinity=False))


def agreed(mode: str, missing: str) -> Setting:
    return setting(VARIABLES, QUESTIONS, mode=mode, missing=missing)


def made(rows: list[tuple[float, ...]]) -> Dataset:
    table = np.array(rows, dtype=np.float64)
    return dataset({v.variable.name: table[:, i] for i, v in enumerate(VARIABLES)}, VARIABLES)


def parameter_count(question: str, mode: str, missing: str, step: int) -> int:
    """Columns of the models, counted by hand."""
    model, own = (6, 3) if missing == "drop" else (10, 5)
    if question == "model" and mode == "private":
        return 0 if step == 0 else model + model * model
    if question == "model":
        return model
    return {"cohort": 0, "check": model + 3 * own}[question]


def answer(question: str, mode: str, missing: str, step: int, fill: Any, data: Dataset) -> tuple[Array, float, float]:
    spec, where = QUESTIONS[question][0], agreed(mode, missing)
    algorithm = algorithm_for(spec)
    algorithm.check(spec, where)
    parameters = [next(fill) for _ in range(parameter_count(question, mode, missing, step))]
    shape = algorithm.outline(spec, where)[step]
    rows = algorithm.update(spec, where, step, parameters, data)
    assert rows.shape == (len(data), shape.size)
    return rows, shape.clip_norm, shape.magnitude


@pytest.mark.parametrize("missing", ["drop", "indicate"])
@pytest.mark.parametrize("mode", ["private", "exact"])
@pytest.mark.parametrize(("question", "step"), [("cohort", 0), ("model", 0), ("check", 0)])
@settings(max_examples=60, deadline=None)
@given(rows=ROWS, data=st.data())
def test_no_record_and_no_parameter_takes_a_row_beyond_its_public_norm(
    question: str, step: int, mode: str, missing: str, rows: list[tuple[float, ...]], data: st.DataObject
) -> None:
    fill = iter(lambda: data.draw(FINITE), None)
    update, norm, magnitude = answer(question, mode, missing, step, fill, made(rows))
    assert np.isfinite(update).all()
    assert np.linalg.norm(update, axis=1).max() <= norm * (1 + 1e-12)
    assert np.abs(update).max() <= magnitude * (1 + 1e-12)


@pytest.mark.parametrize("missing", ["drop", "indicate"])
@settings(max_examples=60, deadline=None)
@given(rows=ROWS, data=st.data())
def test_gradient_rows_are_finite_before_the_hub_clips_them(
    missing: str, rows: list[tuple[float, ...]], data: st.DataObject
) -> None:
    fill = iter(lambda: data.draw(FINITE), None)
    update, norm, _ = answer("model", "private", missing, 1, fill, made(rows))
    assert np.isfinite(update).all()
    assert np.linalg.norm(update, axis=1).max() <= norm * (1 + 1e-12)


@pytest.mark.parametrize("mode", ["private", "exact"])
def test_the_norm_bounds_are_tight_so_no_noise_is_wasted(mode: str) -> None:
    worst = {"cohort": (20.0, 0.1, 0.0, 0.0, 0.0), "check": (20.0, 0.1, 0.0, 0.0, 0.0)}
    for question, row in worst.items():
        fill = iter([-1e300] + [0.0] * 50)  # risk 0: the first bin, and as far from 1/2 as can be
        update, norm, _ = answer(question, mode, "drop", 0, fill, made([row]))
        reached = float(np.linalg.norm(update))
        assert reached <= norm * (1 + 1e-12)
        assert reached > 0.8 * norm
    if mode == "private":
        update, norm, _ = answer("model", mode, "drop", 0, iter([]), made([(100.0, 150.0, 1.0, 2.0, 1.0)]))
        assert np.linalg.norm(update) == pytest.approx(norm)


@pytest.mark.parametrize("missing", ["drop", "indicate"])
@pytest.mark.parametrize("mode", ["private", "exact"])
@pytest.mark.parametrize(("question", "step"), [("cohort", 0), ("model", 0), ("model", 2), ("check", 0)])
def test_a_row_depends_on_its_own_patient_alone(question: str, step: int, mode: str, missing: str) -> None:
    chance = np.random.default_rng(1)
    table = np.column_stack(
        [chance.uniform(15, 105, 60), chance.uniform(0, 160, 60), *(chance.integers(0, k, 60) for k in (2, 3, 2))]
    )
    table[chance.random(table.shape) < 0.1] = np.nan
    data, kept = made([tuple(row) for row in table]), chance.random(60) < 0.4
    coefficients = [0.01] * 120
    whole, _, _ = answer(question, mode, missing, step, iter(coefficients), data)
    part, _, _ = answer(question, mode, missing, step, iter(coefficients), data.where(kept))
    assert part == pytest.approx(whole[kept], rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("mode", ["private", "exact"])
@pytest.mark.parametrize("question", ["model", "check"])
def test_patients_left_out_have_a_row_of_zeros_and_are_not_dropped(question: str, mode: str) -> None:
    rows = [(np.nan, 2.0, 1.0, 1.0, 1.0), (60.0, 2.0, 1.0, 1.0, np.nan), (60.0, 2.0, 1.0, 1.0, 1.0)]
    update, _, _ = answer(question, mode, "drop", 0, iter([0.0] * 50), made(rows))
    assert (update[:2] == 0).all()
    assert (update[2] != 0).any()


def test_a_hub_without_patients_answers_with_no_rows() -> None:
    for question in ("cohort", "model", "check"):
        empty = made([(60.0, 2.0, 1.0, 1.0, 1.0)]).where(np.array([False]))
        update, _, _ = answer(question, "exact", "drop", 0, iter([0.0] * 50), empty)
        assert update.shape[0] == 0
