"""Federated ridge, lasso and elastic net equal scikit-learn on the pooled, equally scaled table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge

from flute.algorithms.contract import Evaluate, Opened, StudyVariable
from flute.data.variables import Array, Variable
from flute.errors import MisuseError, StudyFileError
from flute.models.regression.penalised import PenalisedRegression, most_steps
from flute.models.regression.penalty import Penalty, minimum
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread
from unit.test_models_glm import NAMES, OUTCOMES, PREDICTORS, TIME, columns, owners, table

RATIOS = (0.0, 0.5, 1.0)
GRID = (0.06, 0.03, 0.01, 0.003, 0.001)


def variables(family: str) -> tuple[StudyVariable, ...]:
    return (*PREDICTORS, OUTCOMES[family], TIME)


def asked(ratio: float, family: str, strengths: tuple[float, ...], **more: Any) -> PenalisedRegression:
    return PenalisedRegression("y", NAMES, strengths, ratio, family, **more)  # type: ignore[arg-type]


def federated(found: pd.DataFrame, owner: Array, spec: PenalisedRegression, **changed: Any) -> dict[str, Any]:
    hubs = spread({c: found[c].to_numpy(float) for c in found}, owner, variables(spec.family))
    names = tuple(f"h{i}" for i in range(len(hubs)))
    return run(spec, setting(variables(spec.family), hubs=names, **changed), hubs)


def pooled(found: pd.DataFrame, family: str, strength: float, ratio: float) -> Array:
    """[p] intercept first; scikit-learn's objectives, whose intercept is free of penalty."""
    x, y = columns(found).iloc[:, 1:].to_numpy(), found["y"].to_numpy()
    tight: dict[str, Any] = {"tol": 1e-13, "max_iter": 1_000_000}
    model: Any
    if family == "gaussian" and ratio == 0:
        model = Ridge(alpha=strength * len(y), solver="cholesky")
    elif family == "gaussian":
        model = Lasso(strength, **tight) if ratio == 1 else ElasticNet(alpha=strength, l1_ratio=ratio, **tight)
    elif ratio == 0:
        model = LogisticRegression(C=1 / (strength * len(y)), solver="newton-cholesky", tol=1e-13, max_iter=1000)
    else:
        model = LogisticRegression(
            C=1 / (strength * len(y)), l1_ratio=ratio, penalty="elasticnet", solver="saga", tol=1e-12,
            max_iter=100_000, random_state=0,
        )  # fmt: skip
    model.fit(x, y)
    return np.concatenate([np.ravel(model.intercept_), np.ravel(model.coef_)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.requirement("F-HUF-3")
@pytest.mark.parametrize("hubs", [3, 10])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_every_strength_of_a_path_equals_scikit_learn(family: str, ratio: float, hubs: int) -> None:
    found = table(21, family, 260)  # type: ignore[arg-type]
    grid = GRID if family == "binomial" else tuple(30 * s for s in GRID)
    ours = federated(found, owners(21, 260, hubs), asked(ratio, family, grid))
    assert ours["ending"] == "converged"
    for row in ours["path"]:
        want = pooled(found, family, row["strength"], ratio)
        assert row["coefficients"] == pytest.approx(want, rel=1e-6, abs=1e-7)
        assert row["columns_kept"] == np.count_nonzero(np.abs(want[1:]) > 1e-9)
        assert row["degrees_of_freedom"] <= 1 + row["columns_kept"] + 1e-9
    kept = [row["columns_kept"] for row in ours["path"]]
    assert kept[0] < 5 or ratio == 0
    picked = min(ours["path"], key=lambda row: row["bic"])
    assert ours["strength"] == picked["strength"]
    assert ours["coefficients"] == picked["coefficients"]


def test_a_penalty_that_leaves_nothing_leaves_the_intercept_of_the_share() -> None:
    """scikit-learn's saga stops short here, so the answer is the closed form."""
    found = table(21, "binomial", 260)
    ours = federated(found, owners(21, 260, 3), asked(1.0, "binomial", (0.3,)))
    share = found["y"].mean()
    assert ours["coefficients"] == pytest.approx([np.log(share / (1 - share)), 0, 0, 0, 0, 0], rel=1e-9)


def test_another_strength_is_told_apart() -> None:
    """The comparison can fail: 1 % more penalty is seen."""
    found = table(22, "gaussian", 200)
    row = federated(found, owners(22, 200, 3), asked(0.5, "gaussian", (0.1,)))["path"][0]
    assert row["coefficients"] != pytest.approx(pooled(found, "gaussian", 0.101, 0.5), rel=1e-6, abs=1e-7)


def test_a_path_takes_few_openings_and_never_more_than_were_agreed() -> None:
    found = table(23, "binomial", 300)
    spec = asked(1.0, "binomial", GRID)
    hubs = spread({c: found[c].to_numpy(float) for c in found}, owners(23, 300, 3), variables("binomial"))
    where, algorithm = setting(variables("binomial")), algorithm_for(spec)
    history: list[Opened] = []
    while True:
        reached = algorithm.next(spec, where, tuple(history), {})
        if not hasattr(reached, "parameters"):
            break
        rows = [algorithm.update(spec, where, len(history), reached.parameters, hub) for hub in hubs]
        history.append(Opened(reached.parameters, np.sum([r.sum(axis=0) for r in rows], axis=0), 0.0))
    assert len(history) <= 6 * len(GRID)
    assert len(algorithm.outline(spec, where)) == most_steps(spec) == 25 + 8 * 4
    with pytest.raises(MisuseError):
        algorithm.update(spec, where, most_steps(spec), (0.0,) * 6, hubs[0])


# --- hard tables ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ratio", RATIOS)
def test_separated_outcomes_have_a_fit_under_a_penalty(ratio: float) -> None:
    found = table(24, "binomial", 150)
    found["y"] = found["sex"]
    ours = federated(found, owners(24, 150, 3), asked(ratio, "binomial", (0.05,)))
    assert ours["ending"] == "converged"
    assert ours["coefficients"] == pytest.approx(pooled(found, "binomial", 0.05, ratio), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_constant_columns_and_absent_levels_are_held_at_0(family: str) -> None:
    found = table(25, family, 200)  # type: ignore[arg-type]
    found["grade"] = 1.0
    ours = federated(found, owners(25, 200, 3), asked(0.5, family, (0.02,)))
    assert ours["ending"] == "converged"
    assert ours["coefficients"][4:] == [0.0, 0.0]
    assert set(ours["not_estimated"]) == {"grade=low", "grade=high"}


def test_a_column_that_stands_twice_is_shared_out_by_a_ridge() -> None:
    rng = default_rng(26)
    twice = (
        StudyVariable(Variable("a", "number", -5, 5)), StudyVariable(Variable("b", "number", -5, 5)),
        StudyVariable(Variable("y", "number", -30, 30)),
    )  # fmt: skip
    a = rng.normal(0, 1, 90).clip(-5, 5)
    columns_of = {"a": a, "b": a, "y": (3 * a + rng.normal(0, 1, 90)).clip(-30, 30)}
    spec = PenalisedRegression("y", ("a", "b"), (0.1,), 0.0, "gaussian")
    ours = run(spec, setting(twice), spread(columns_of, np.arange(90) % 3, twice))
    want = Ridge(alpha=9.0).fit(np.column_stack([a, a]), columns_of["y"])
    assert ours["coefficients"] == pytest.approx([want.intercept_, *want.coef_], rel=1e-6)


@pytest.mark.parametrize(("case", "ending"), [("nobody", "no-data"), ("all ill", "one-outcome")])
def test_where_there_is_nothing_to_fit_it_is_said(case: str, ending: str) -> None:
    found = table(27, "binomial", 0 if case == "nobody" else 60)
    found["y"] = 1.0
    owner = np.zeros(len(found), dtype=np.int64)
    hubs = spread({c: found[c].to_numpy(float) for c in found}, owner, variables("binomial"))
    empty = dataset({c: np.zeros(0) for c in found}, variables("binomial"))
    ours = run(asked(0.5, "binomial", (0.1,)), setting(variables("binomial")), [*hubs, empty, empty])
    assert ours["ending"] == ending
    assert set(ours["raw_coefficients"]) == {None}
    assert ours["path"] == []


# --- the quadratic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_minimum_of_a_quadratic_meets_the_conditions_even_where_columns_repeat(seed: int) -> None:
    rng = default_rng(seed)
    a = rng.normal(0, 1, (12, 9))
    a[:, 3] = a[:, 2]
    hessian, linear = a.T @ a, rng.normal(0, 6, 9)
    penalty = Penalty(0.5 * (seed % 2), 2.0, np.array([0.0, *[1.0] * 8]))
    linear[3] = linear[2]
    b = minimum(hessian, linear, penalty, rng.normal(0, 1, 9))
    slope = linear - hessian @ b - penalty.ridge * penalty.weights * b
    assert abs(slope[0]) < 1e-6
    for k in range(1, 9):
        assert slope[k] == pytest.approx(2.0 * np.sign(b[k]), abs=1e-5) if b[k] else abs(slope[k]) <= 2.0 + 1e-6


# --- private ------------------------------------------------------------------------------------------


def privately(spec: PenalisedRegression, seed: int, n: int, rho: float) -> dict[str, Any]:
    found = table(seed, spec.family, n)  # type: ignore[arg-type]
    age = StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=62, spread=9)
    y = OUTCOMES[spec.family]
    if spec.family == "gaussian":
        y = StudyVariable(y.variable, scale="reference", centre=1, spread=4)
    used = (age, *PREDICTORS[1:], y, TIME)
    hubs = spread({c: found[c].to_numpy(float) for c in found}, np.arange(n) % 3, used)
    return run(spec, setting(used, mode="private"), hubs, privacy=Privacy(rho, default_rng(seed)))


@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_a_private_penalty_holds_coefficients_and_costs_nothing_more(family: str) -> None:
    """Without noise to speak of, close to the pooled fit of that penalty; the more penalty, the smaller."""
    found = table(31, family, 2000)  # type: ignore[arg-type]
    sizes = []
    for strength in (1e-4, 0.1, 1.0):
        ours = privately(asked(0.0, family, (strength,)), 31, 2000, 1e6)
        x = columns(found)
        x["age"] = (found["age"] - 62) / 9
        want = pooled_on(x, found["y"].to_numpy(), family, strength)
        assert ours["coefficients"] == pytest.approx(want, abs=0.12 if family == "binomial" else 0.3)
        sizes.append(float(np.linalg.norm(ours["coefficients"][1:])))
        assert ours["ending"] == "noised"
    assert sizes[0] > 1.2 * sizes[1] > 1.2 * sizes[2]


def pooled_on(x: pd.DataFrame, y: Array, family: str, strength: float) -> Array:
    n = len(y)
    if family == "gaussian":
        model: Any = Ridge(alpha=strength * n).fit(x.iloc[:, 1:], y)
    else:
        model = LogisticRegression(C=1 / (strength * n), tol=1e-10, max_iter=1000).fit(x.iloc[:, 1:], y)
    return np.concatenate([np.ravel(model.intercept_), np.ravel(model.coef_)])


def test_a_private_lasso_keeps_fewer_columns() -> None:
    ours = privately(asked(1.0, "gaussian", (0.8,)), 32, 2000, 0.2)
    assert 1 <= ours["path"][0]["columns_kept"] < 5
    assert ours["path"][0]["bic"] is None


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "changed", "says"),
    [
        (asked(0.0, "binomial", (0.1, 0.2)), {}, "largest first"),
        (asked(0.0, "binomial", (0.1, 0.1)), {}, "largest first"),
        (asked(0.0, "gaussian", (0.2, 0.1)), {"mode": "private"}, "write one"),
        (asked(0.0, "gaussian", (0.2,)), {}, "must be a number"),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    spec: PenalisedRegression, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(StudyFileError, match=says):
        algorithm_for(spec).check(spec, setting(variables("binomial"), **changed))


def test_evaluate_refuses_a_model_that_predicts_no_risk() -> None:
    where = setting(variables("gaussian"), {"fit": (asked(0.0, "gaussian", (0.1,)), "pooled")})
    with pytest.raises(StudyFileError, match="predicts no risk"):
        algorithm_for(Evaluate(("fit",))).fields(Evaluate(("fit",)), where)
