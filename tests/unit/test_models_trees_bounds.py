"""What one patient can add to trees, forests, boosting and support vector machines is bounded by public facts alone,
at every step, whatever stands in the record and whatever a coordinator asks with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.algorithms.contract import Spec, StepShape, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.models.machines.svm import SupportVectors
from flute.models.trees.boosting import GradientBoosting
from flute.models.trees.forest import RandomForest
from flute.models.trees.tree import DecisionTree
from flute.questions.registry import algorithm_for
from support.sums import dataset, setting

VARIABLES = (
    StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60, spread=10),
    StudyVariable(Variable("psa", "number", 0.1, 150), log=True),
    StudyVariable(Variable("fh", "binary")),
    StudyVariable(Variable("grade", "category", levels=("low", "mid", "high"))),
    StudyVariable(Variable("ill", "binary")),
)
PREDICTORS = ("age", "psa", "fh", "grade")
SPECS: dict[str, Spec] = {
    "tree": DecisionTree("ill", PREDICTORS, max_depth=2, bins=4),
    "boosting": GradientBoosting("ill", PREDICTORS, rounds=2, max_depth=2, bins=4, cycles=1),
    "forest": RandomForest("ill", PREDICTORS, trees=3, max_depth=2, bins=4),
    "linear": SupportVectors("ill", PREDICTORS),
    "rbf": SupportVectors("ill", PREDICTORS, kernel="rbf", features=6),
}
ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
LIKELY = st.sampled_from([20.0, 100.0, 0.1, 150.0, 0.0, 1.0, 2.0, 60.0, float("nan")])
ROWS = st.lists(st.tuples(*[st.one_of(LIKELY, ANYTHING)] * 5), min_size=1, max_size=6)
FILLS = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, 30.0, -30.0, 1e9, 1e308, -1e308])


def made(rows: list[tuple[float, ...]]) -> Dataset:
    table = np.array(rows, dtype=np.float64)
    return dataset({v.variable.name: table[:, i] for i, v in enumerate(VARIABLES)}, VARIABLES)


def answer(
    name: str, mode: str, missing: str, step: int, fills: list[float], data: Dataset
) -> tuple[Array, StepShape]:
    """A step's rows; `fills` are asked with, over and over. The step says itself how many numbers it takes."""
    spec, where = SPECS[name], setting(VARIABLES, mode=mode, missing=missing)
    algorithm = algorithm_for(spec)
    shape = algorithm.outline(spec, where)[step]
    size = asked(name, mode, missing, step)
    rows = algorithm.update(spec, where, step, [fills[i % len(fills)] for i in range(size)], data)
    assert rows.shape == (len(data), shape.size)
    return rows, shape


def asked(name: str, mode: str, missing: str, step: int) -> int:
    """Numbers that a step takes, counted by hand."""
    if step == 0:
        return 0
    private, indicate = mode == "private", missing == "indicate"
    codes, columns = 4 + 4 + 2 + 3 + 4 * indicate, 6 + 4 * indicate
    if name == "tree":
        return 2 * (2**step - 1)
    if name == "boosting":
        return 1 + codes if private else 1 + 10 * ((step - 1) // 2) + 2 * ((step - 1) % 2)
    if name == "forest":
        return 3 * 2 * 3 if private else 3 * 2 * (2**step - 1)
    p = columns if name == "linear" else 7
    return p + p * p if private else p


@pytest.mark.parametrize("missing", ["drop", "indicate"])
@pytest.mark.parametrize("mode", ["private", "exact"])
@pytest.mark.parametrize("name", list(SPECS))
@settings(max_examples=25, deadline=None)
@given(rows=ROWS, fills=st.lists(FILLS, min_size=1, max_size=5), at=st.integers(0, 100))
def test_no_record_and_no_parameter_takes_a_row_beyond_its_public_norm(
    name: str, mode: str, missing: str, rows: list[tuple[float, ...]], fills: list[float], at: int
) -> None:
    steps = len(algorithm_for(SPECS[name]).outline(SPECS[name], setting(VARIABLES, mode=mode, missing=missing)))
    update, shape = answer(name, mode, missing, at % steps, fills, made(rows))
    assert np.isfinite(update).all()
    assert np.linalg.norm(update, axis=1).max() <= shape.clip_norm * (1 + 1e-12)
    assert np.abs(update).max() <= shape.magnitude * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "step", "fills"),
    [
        ("tree", 0, [0.0]),
        ("tree", 2, [0.0]),
        ("boosting", 0, [0.0]),
        ("boosting", 1, [-30.0]),
        ("forest", 0, [0.0]),
        ("forest", 1, [0.0]),
        ("linear", 0, [0.0]),
        ("linear", 1, [-30.0]),
        ("rbf", 1, [-30.0]),
    ],
)
def test_the_norms_are_reached_so_no_noise_is_wasted(name: str, step: int, fills: list[float]) -> None:
    rows: Any = [
        (age, psa, fh, grade, 1.0) for age in (20, 100) for psa in (0.1, 150) for fh in (0, 1) for grade in (0, 2)
    ]
    update, shape = answer(name, "private", "drop", step, fills, made(rows))
    assert np.linalg.norm(update, axis=1).max() > 0.95 * shape.clip_norm


@pytest.mark.parametrize("mode", ["private", "exact"])
@pytest.mark.parametrize("name", list(SPECS))
def test_patients_left_out_have_a_row_of_zeros_and_are_not_dropped(name: str, mode: str) -> None:
    rows = [(np.nan, 2.0, 1.0, 1.0, 1.0), (60.0, 2.0, 1.0, 1.0, np.nan), *[(60.0, 2.0, 1.0, 1.0, 1.0)] * 20]
    for step in (0, 1):
        update, _ = answer(name, mode, "drop", step, [0.0], made(rows))
        assert (update[:2] == 0).all()
        assert step or (update[2:] != 0).any()
