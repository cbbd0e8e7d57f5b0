"""Design matrices: public columns, missing values, scales that carry over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.algorithms.contract import StudyVariable
from flute.algorithms.design import (
    Scaling,
    check_design,
    check_variable,
    design_for,
    included,
    matrix,
    raw_scaling,
    study_scaling,
    transfer,
    unit_scaling,
)
from flute.data.variables import Variable
from flute.errors import StudyFileError
from support.sums import dataset, setting

AGE = StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60, spread=10)
PSA = StudyVariable(Variable("psa", "number", 0.1, 150), log=True, scale="none", centre=2.0)
FH = StudyVariable(Variable("fh", "binary"))
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")), reference_level="mid")
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, PSA, FH, GRADE, ILL)
NAMES = ("age", "psa", "fh", "grade")


def test_column_names_follow_from_the_study_alone() -> None:
    drop, indicate = (design_for(NAMES, setting(ALL, missing=m)) for m in ("drop", "indicate"))
    assert drop.names == ("intercept", "age", "ln psa", "fh", "grade=low", "grade=high")
    assert indicate.names == (
        "intercept", "age", "age missing", "ln psa", "psa missing", "fh", "fh missing",
        "grade=low", "grade=high", "grade missing",
    )  # fmt: skip


def test_first_level_is_the_reference_unless_another_is_named() -> None:
    plain = StudyVariable(GRADE.variable)
    assert design_for(("grade",), setting((plain,))).names == ("intercept", "grade=mid", "grade=high")


def test_values_are_logged_scaled_and_coded() -> None:
    agreed = setting(ALL)
    data = dataset({"age": [80.0], "psa": [np.e], "fh": [1.0], "grade": [2.0], "ill": [0.0]}, ALL)
    design = design_for(NAMES, agreed)
    scaling = study_scaling(design, np.zeros(2), np.ones(2))
    assert matrix(design, scaling, data)[0].tolist() == pytest.approx([1, 2, 1, 1, 0, 1])


def test_missing_values_take_reference_values_and_are_flagged() -> None:
    agreed = setting(ALL, missing="indicate")
    nothing = {"age": [np.nan], "psa": [np.nan], "fh": [np.nan], "grade": [np.nan], "ill": [1.0]}
    design = design_for(NAMES, agreed)
    row = matrix(design, study_scaling(design, np.zeros(2), np.ones(2)), dataset(nothing, ALL))[0]
    assert row.tolist() == [1, 0, 1, 2.0, 1, 0, 1, 0, 0, 1]  # psa is unscaled: it stands at its centre


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, -5.0, 19.999, 100.001])
def test_values_outside_the_declared_range_are_missing_and_never_clamped(strange: float) -> None:
    data = dataset({"age": [strange], "psa": [strange], "fh": [strange], "grade": [0.5], "ill": [1.0]}, ALL)
    assert not included(("age",), "ill", setting(ALL), data)[0]
    assert included(("age",), "ill", setting(ALL, missing="indicate"), data)[0]


def test_a_missing_outcome_always_leaves_the_patient_out() -> None:
    data = dataset({"age": [50.0], "psa": [2.0], "fh": [0.0], "grade": [0.0], "ill": [np.nan]}, ALL)
    for missing in ("drop", "indicate"):
        assert not included(NAMES, "ill", setting(ALL, missing=missing), data)[0]


@given(
    st.lists(st.floats(-3, 3), min_size=10, max_size=10),
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.1, 20), st.floats(-50, 50)), min_size=4, max_size=4),
)
def test_coefficients_carried_to_another_scale_predict_the_same(
    coefficients: list[float], scales: list[tuple[float, float, float]]
) -> None:
    agreed = setting(ALL, missing="indicate")
    design = design_for(NAMES, agreed)
    nan = np.nan
    numbers = {"age": [30, nan, 90, 55], "psa": [1, 9, nan, 0.5]}
    data = dataset({**numbers, "fh": [0, 1, nan, 1], "grade": [0, 1, 2, nan], "ill": [1] * 4}, ALL)
    old, new = (Scaling(*np.array(pair).T) for pair in (scales[:2], scales[2:]))
    b = np.array(coefficients)
    carried = transfer(design, old, new) @ b
    assert matrix(design, new, data) @ carried == pytest.approx(matrix(design, old, data) @ b, rel=1e-7, abs=1e-6)


def test_unit_scaling_keeps_every_value_within_one() -> None:
    design = design_for(NAMES, setting(ALL))
    ends = dataset({"age": [20, 100], "psa": [0.1, 150], "fh": [0, 1], "grade": [0, 2], "ill": [0, 1]}, ALL)
    assert np.abs(matrix(design, unit_scaling(design), ends)).max() == pytest.approx(1.0)
    assert raw_scaling(design).fills.tolist() == [60, 2.0]


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        (StudyVariable(Variable("x", "number", 0, 5), log=True), "low end above 0"),
        (StudyVariable(Variable("x", "number", 0, 1e16)), "larger unit"),
        (StudyVariable(Variable("x", "number", 0, 5), scale="reference", spread=float("inf")), "finite"),
        (StudyVariable(Variable("x", "number", 0, 5), scale="reference", spread=1e-300), "tiny"),
        (StudyVariable(Variable("x", "number", 0, 5), centre=float("nan")), "centre"),
        (StudyVariable(Variable("x", "number", 1e14, 1e14 + 1)), "too narrow"),
        (StudyVariable(Variable("x", "binary"), log=True), "for numbers"),
        (StudyVariable(Variable("x", "binary"), scale="pooled"), "for numbers"),
        (StudyVariable(Variable("x", "category", levels=("a", "b")), reference_level="c"), "not one of its levels"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused_with_what_to_write(variable: StudyVariable, sentence: str) -> None:
    with pytest.raises(StudyFileError, match=sentence):
        check_variable(variable)


def test_designs_that_are_too_wide_or_repeat_a_predictor_are_refused() -> None:
    wide = [StudyVariable(Variable(f"v{i}", "category", levels=tuple(map(str, range(64))))) for i in range(3)]
    with pytest.raises(StudyFileError, match="a model may have 150"):
        check_design(["v0", "v1", "v2"], setting(wide))
    with pytest.raises(StudyFileError, match="stands twice"):
        check_design(["age", "age"], setting(ALL))
    with pytest.raises(StudyFileError, match="not among the study's variables"):
        check_design(["weight"], setting(ALL))
