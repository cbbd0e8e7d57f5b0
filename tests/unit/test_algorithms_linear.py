"""Federated logistic regression equals the pooled maximum likelihood fit, or says by name why there is none.

The oracle is statsmodels on a design that pandas makes; nothing of `flute.algorithms.design` is used for it.
Rows are rounded to 40 fraction bits before they are summed, as secure aggregation rounds them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from msgspec import structs
from numpy.random import Generator, default_rng
from statsmodels.datasets import anes96, fair

from flute.algorithms.contract import Ask, Finished, LogisticRegression, Opened, StudyVariable
from flute.algorithms.design import Design, design_for
from flute.algorithms.newton import vector_size
from flute.algorithms.private_population import made_up_rows
from flute.algorithms.private_rows import coding, intercept
from flute.data.variables import Variable
from flute.defaults import IRLS_MAX_STEPS
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Problem:
    table: pd.DataFrame
    variables: tuple[StudyVariable, ...]
    owner: np.ndarray[Any, Any]

    @property
    def spec(self) -> LogisticRegression:
        return LogisticRegression("y", tuple(v.variable.name for v in self.variables[:-1]))


def number(name: str, low: float, high: float, **more: Any) -> StudyVariable:
    return StudyVariable(Variable(name, "number", low, high), **({"scale": "pooled"} | more))


def category(name: str, levels: int, reference: str = "") -> StudyVariable:
    return StudyVariable(
        Variable(name, "category", levels=tuple(f"L{i}" for i in range(levels))), reference_level=reference
    )


def binary(name: str) -> StudyVariable:
    return StudyVariable(Variable(name, "binary"))


def federated(problem: Problem, *, missing: str = "drop") -> dict[str, Any]:
    columns = {name: problem.table[name].to_numpy(dtype=float) for name in problem.table}
    hubs = spread(columns, problem.owner, problem.variables)
    return run(problem.spec, setting(problem.variables, missing=missing), hubs)


def pooled(problem: Problem, *, missing: str = "drop") -> Any:
    """statsmodels on the pooled, standardised table; columns named as ours."""
    table = problem.table.dropna(subset=["y"]) if missing == "indicate" else problem.table.dropna()
    x = pd.DataFrame({"intercept": np.ones(len(table))}, index=table.index)
    for used in problem.variables[:-1]:
        name, column = used.variable.name, table[used.variable.name]
        if used.variable.kind == "number":
            value = np.log(column) if used.log else column
            x[f"ln {name}" if used.log else name] = ((value - value.mean()) / value.std()).fillna(0.0)
        elif used.variable.kind == "binary":
            x[name] = column.fillna(0.0)
        else:
            reference = used.reference_level or used.variable.levels[0]
            for i, level in enumerate(used.variable.levels):
                if level != reference:
                    x[f"{name}={level}"] = (column == i).astype(float)
        if missing == "indicate":
            x[f"{name} missing"] = column.isna().astype(float)
    x = x.loc[:, (x != 0).any()]
    return sm.Logit(table["y"], x).fit(method="newton", disp=0, maxiter=100, tol=1e-14)


def assert_equal_to_pooled(problem: Problem, *, missing: str = "drop") -> dict[str, Any]:
    ours, theirs = federated(problem, missing=missing), pooled(problem, missing=missing)
    assert ours["ending"] == "converged", ours["ending_text"]
    assert ours["n"] == theirs.nobs
    assert ours["log_likelihood"] == pytest.approx(theirs.llf, abs=TOLERANCE)
    table = pd.DataFrame({k: ours[k] for k in ("coefficients", "standard_errors", "p")}, index=ours["columns"])
    table = table.drop(index=ours["not_estimated"])
    assert set(table.index) == set(theirs.params.index)
    for name, wanted in (("coefficients", theirs.params), ("standard_errors", theirs.bse), ("p", theirs.pvalues)):
        off = (table[name].astype(float) - wanted).abs().max()
        assert off < TOLERANCE, f"{name} differ by {off}"
    odds = pd.DataFrame(ours["odds_ratios"], index=ours["columns"]).drop(index=ours["not_estimated"])
    interval = np.exp(theirs.conf_int())
    assert odds["low"].to_numpy(float) == pytest.approx(interval[0][odds.index].to_numpy(), rel=1e-5)
    assert odds["high"].to_numpy(float) == pytest.approx(interval[1][odds.index].to_numpy(), rel=1e-5)
    return ours


def random_problem(chance: Generator) -> Problem:
    """Unbalanced hubs; at the last one a number never varies and a level never occurs."""
    n = int(chance.integers(250, 900))
    hubs = int(chance.integers(3, 5))
    owner = chance.choice(hubs, n, p=chance.dirichlet(np.full(hubs, 0.8)) * 0.85 + 0.15 / hubs)
    levels = int(chance.integers(3, 6))
    table = pd.DataFrame(
        {
            "age": np.round(chance.normal(66, 8, n).clip(40, 90)),
            "marker": np.exp(chance.normal(1.9, 0.7, n)).clip(0.1, 150),
            "tiny": chance.normal(0.004, 0.001, n).clip(0, 0.01),
            "sign": (chance.random(n) < 0.25).astype(float),
            "grade": chance.integers(0, levels, n).astype(float),
        }
    )
    last = owner == hubs - 1
    table.loc[last, "age"] = 60.0
    table.loc[last & (table["grade"] == levels - 1), "grade"] = 0.0
    eta = -0.6 + 0.06 * (table["age"] - 66) + 0.7 * (np.log(table["marker"]) - 1.9) + 300 * (table["tiny"] - 0.004)
    eta += 0.8 * table["sign"] + np.linspace(-0.8, 0.8, levels)[table["grade"].astype(int)]
    table = table.mask(chance.random(table.shape) < 0.03)
    table["y"] = (chance.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    variables = (
        number("age", 40, 90),
        number("marker", 0.1, 150, log=True),
        number("tiny", 0, 0.01),
        binary("sign"),
        category("grade", levels, "L1" if chance.random() < 0.5 else ""),
        binary("y"),
    )
    return Problem(table, variables, owner)


@pytest.mark.requirement("F-HUF-3")
@pytest.mark.parametrize("seed", range(20))
def test_random_problems_equal_the_pooled_fit(seed: int) -> None:
    problem = random_problem(default_rng(seed))
    assert_equal_to_pooled(problem)


@pytest.mark.parametrize("seed", range(100, 106))
def test_missing_values_with_indicators_equal_the_pooled_fit(seed: int) -> None:
    assert_equal_to_pooled(random_problem(default_rng(seed)), missing="indicate")


def _knocked_out(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Every 11th to 19th value of each column goes missing, at places that differ per column."""
    table = table.copy()
    for k, name in enumerate(columns):
        table.loc[table.index[k :: 11 + 2 * k], name] = np.nan
    return table


def _affairs() -> Problem:
    raw = fair.load_pandas().data
    table = pd.DataFrame({name: raw[name].astype(float) for name in ("age", "yrs_married", "educ", "religious")})
    table["children"] = (raw["children"] > 0).astype(float)
    table["rate"] = raw["rate_marriage"].astype(float) - 1
    table = _knocked_out(table, ["yrs_married", "educ", "rate", "religious"])
    table["y"] = (raw["affairs"] > 0).astype(float)
    variables = (
        number("age", 15, 45),
        number("yrs_married", 0.5, 25, log=True),
        number("educ", 8, 20),
        number("religious", 1, 4),
        binary("children"),
        category("rate", 5, "L3"),
        binary("y"),
    )
    owner = default_rng(1).choice(3, len(table), p=[0.8, 0.17, 0.03])
    return Problem(table, variables, owner)


def _election() -> Problem:
    raw = anes96.load_pandas().data
    table = pd.DataFrame({name: raw[name].astype(float) for name in ("TVnews", "age", "educ", "income")})
    table["popul"] = raw["popul"].astype(float)
    table["side"] = np.digitize(raw["selfLR"], [3, 5]).astype(float)
    table = _knocked_out(table, ["age", "income", "popul", "side"])
    table["y"] = raw["vote"].astype(float)
    variables = (
        number("TVnews", 0, 7),
        number("age", 18, 95),
        number("educ", 1, 7),
        number("income", 1, 24),
        number("popul", 0, 8000),
        category("side", 3, "L1"),
        binary("y"),
    )
    owner = np.sort(default_rng(2).choice(4, len(table), p=[0.5, 0.3, 0.15, 0.05]))
    return Problem(table, variables, owner)


@pytest.mark.requirement("F-HUF-3")
@pytest.mark.parametrize("missing", ["drop", "indicate"])
@pytest.mark.parametrize("problem", [_affairs, _election], ids=["fair over 3 hubs", "anes96 over 4 hubs"])
def test_public_tables_with_missing_values_equal_the_pooled_fit(problem: Any, missing: str) -> None:
    made = problem()
    assert made.table.isna().any().sum() >= 3
    assert_equal_to_pooled(made, missing=missing)


def test_the_scale_of_the_study_file_changes_no_prediction() -> None:
    base = random_problem(default_rng(7))
    reference = tuple(
        structs.replace(v, scale="reference", centre=3.0, spread=0.5) if v.log else v for v in base.variables
    )
    unscaled = tuple(structs.replace(v, scale="none") for v in base.variables)
    fits = [federated(replace(base, variables=v)) for v in (base.variables, reference, unscaled)]
    for other in fits[1:]:
        assert other["raw_coefficients"] == pytest.approx(fits[0]["raw_coefficients"], rel=1e-6)
    assert fits[2]["coefficients"] == pytest.approx(fits[2]["raw_coefficients"], rel=1e-9)
    assert fits[1]["standardisation"]["marker"] == {"centre": 3.0, "spread": 0.5}


def test_raw_coefficients_predict_over_the_unscaled_columns() -> None:
    problem = random_problem(default_rng(8))
    ours, theirs = federated(problem), pooled(problem)
    b = dict(zip(ours["columns"], ours["raw_coefficients"], strict=True))
    table = problem.table.dropna()
    eta = b["intercept"] + b["age"] * table["age"] + b["ln marker"] * np.log(table["marker"])
    eta += b["tiny"] * table["tiny"] + b["sign"] * table["sign"]
    for i, level in enumerate(problem.variables[4].variable.levels):
        eta += b.get(f"grade={level}", 0.0) * (table["grade"] == i)
    assert (1 / (1 + np.exp(-eta))).to_numpy() == pytest.approx(theirs.predict().tolist(), abs=1e-6)


def _simple(x: Any, y: Any, used: StudyVariable | None = None) -> Problem:
    table = pd.DataFrame({"x": np.asarray(x, dtype=float), "y": np.asarray(y, dtype=float)})
    return Problem(table, (used or number("x", -10, 10), binary("y")), np.arange(len(table)) % 3)


def _ended(problem: Problem, ending: str, column: str) -> dict[str, Any]:
    result = federated(problem)
    json.dumps(result, allow_nan=False)
    assert (result["ending"], result["ending_column"]) == (ending, column)
    assert column in result["ending_text"]
    assert result["iterations"] <= IRLS_MAX_STEPS
    assert result["standard_errors"] is None
    return result


def test_complete_separation_is_reported_and_not_looped_on() -> None:
    x = np.linspace(-3, 3, 60)
    _ended(_simple(x, x > 0.02), "separation-suspected", "x")


def test_a_level_whose_patients_all_have_the_outcome_is_reported() -> None:
    chance = default_rng(0)
    x, y = chance.integers(0, 2, 300), chance.integers(0, 2, 300)
    _ended(_simple(x, np.where(x == 1, 1, y), binary("x")), "separation-suspected", "x")


def test_a_single_patient_on_the_wrong_side_is_near_separation_with_an_answer() -> None:
    x = np.linspace(-3, 3, 60)
    y = (x > 0).astype(float)
    y[[25, 34]] = [1, 0]
    assert_equal_to_pooled(_simple(x, y))


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_an_outcome_that_everybody_has_or_nobody_has_is_reported(y: float) -> None:
    result = _ended(_simple(np.linspace(-1, 1, 30), np.full(30, y)), "separation-suspected", "intercept")
    assert result["iterations"] == 1


def test_collinear_columns_are_named() -> None:
    problem = random_problem(default_rng(3))
    table = problem.table.assign(copy=80 - problem.table["age"] / 2)
    variables = (*problem.variables[:-1], number("copy", 0, 80), problem.variables[-1])
    _ended(replace(problem, table=table, variables=variables), "collinear", "copy")


def test_a_number_that_is_the_same_for_everybody_is_named() -> None:
    _ended(_simple(np.full(50, 4.2), np.arange(50) % 2), "collinear", "x")


def test_nobody_with_the_needed_values_is_an_ending_of_its_own() -> None:
    _ended(_simple(np.full(9, np.nan), np.arange(9) % 2), "no-data", "")


def test_a_level_that_nobody_has_is_left_out_and_said() -> None:
    problem = random_problem(default_rng(5))
    grade = problem.variables[4].variable
    wider = category("grade", len(grade.levels) + 1, problem.variables[4].reference_level)
    result = assert_equal_to_pooled(replace(problem, variables=(*problem.variables[:4], wider, binary("y"))))
    assert result["not_estimated"] == [f"grade=L{len(grade.levels)}"]
    at = result["columns"].index(result["not_estimated"][0])
    assert (result["coefficients"][at], result["standard_errors"][at]) == (0.0, None)


def _opened(at: Sequence[float], log_likelihood: float, gradient: Sequence[float]) -> Opened:
    hessian = [25.0, 0.0, 10.0]
    return Opened(tuple(at), np.array([100.0, log_likelihood / 64, *gradient, *hessian]), 0.0)


def test_a_step_after_which_the_likelihood_fell_is_halved_until_it_rises() -> None:
    agreed = setting((number("x", -1, 1, scale="none"), binary("y")))
    spec = LogisticRegression("y", ("x",))
    history = [_opened((0, 0), -69.0, (5.0, 20.0))]
    asked = []
    for worse in (-90.0, -75.0):
        reached = algorithm_for(spec).next(spec, agreed, history, {})
        assert isinstance(reached, Ask)
        asked.append(np.array(reached.parameters))
        history.append(_opened(reached.parameters, worse, (0.0, 0.0)))
    reached = algorithm_for(spec).next(spec, agreed, history, {})
    assert isinstance(reached, Ask)
    assert asked[0] == pytest.approx([0.2, 2.0])
    assert asked[1] == pytest.approx(asked[0] / 2)
    assert np.array(reached.parameters) == pytest.approx(asked[0] / 4)


def test_steps_that_never_settle_end_when_the_agreed_number_is_used_up() -> None:
    agreed = setting((number("x", -1, 1, scale="none"), binary("y")))
    spec = LogisticRegression("y", ("x",))
    history: list[Opened] = []
    reached = algorithm_for(spec).next(spec, agreed, history, {})
    while isinstance(reached, Ask):
        assert len(history) < IRLS_MAX_STEPS
        sign = (-1.0) ** len(history)
        history.append(_opened(reached.parameters, -60 + 0.1 * len(history), (sign, sign)))
        reached = algorithm_for(spec).next(spec, agreed, history, {})
    assert isinstance(reached, Finished)
    assert reached.result["ending"] == "not-converged"
    assert len(history) == IRLS_MAX_STEPS


def test_the_same_stored_totals_give_the_very_same_next_step() -> None:
    agreed = setting((number("x", -1, 1), binary("y")))
    spec = LogisticRegression("y", ("x",))
    history = (_opened((0, 0), -69.0, (5.0, 2.0)),)
    one, other = (algorithm_for(spec).next(spec, agreed, history, {}).parameters.tobytes() for _ in range(2))
    assert one == other


def test_the_outline_is_the_longest_run_and_counts_every_opened_number() -> None:
    problem = random_problem(default_rng(1))
    agreed = setting(problem.variables)
    outline = algorithm_for(problem.spec).outline(problem.spec, agreed)
    p = len(federated(problem)["columns"])
    assert [shape.size for shape in outline] == [vector_size(p)] * IRLS_MAX_STEPS
    assert {shape.magnitude for shape in outline} == {1.0}


def test_private_outline_is_fixed_and_its_weights_use_the_whole_budget() -> None:
    variables = (number("x", -1, 1, scale="reference"), binary("s"), binary("y"))
    spec = LogisticRegression("y", ("x", "s"))
    outline = algorithm_for(spec).outline(spec, setting(variables, mode="private"))
    assert [shape.size for shape in outline] == [9, 3, 3, 3]
    assert sum(shape.weight for shape in outline) == pytest.approx(1.0)


PRIVATE = (
    number("x", -4, 4, scale="reference"),
    binary("s"),
    category("g", 5, "L2"),
    number("psa", 0.1, 150, log=True, scale="reference", centre=2.0, spread=0.7),
    binary("y"),
)
PRIVATE_SPEC = LogisticRegression("y", ("x", "s", "g", "psa"))


def private_design(missing: str = "indicate") -> Design:
    return design_for(PRIVATE_SPEC.predictors, setting(PRIVATE, mode="private", missing=missing))


def test_levels_stand_at_equal_distances_and_every_one_has_the_same_norm() -> None:
    design = private_design()
    columns = [i for i, c in enumerate(design.columns) if c.variable == "g"]
    x = np.zeros((6, design.size))
    x[:, 0] = 1.0
    for row, column in enumerate(columns):
        x[row, column] = 1.0  # four levels, then missing; the last row is the reference level
    z = (x @ coding(design))[:, columns[:-1]]
    levels = z[[0, 1, 2, 3, 5]]
    assert np.linalg.norm(levels, axis=1) == pytest.approx([2.0] * 5)
    assert levels.sum(axis=0) == pytest.approx([0.0] * 4)
    gaps = np.linalg.norm(levels[:, None] - levels[None], axis=2)[np.triu_indices(5, 1)]
    assert gaps == pytest.approx([gaps[0]] * 10)
    assert z[4] == pytest.approx([0.0] * 4)


def test_a_binary_is_minus_or_plus_one_and_nothing_when_missing() -> None:
    design = private_design()
    at, flag = design.position("s", "binary"), design.position("s", "missing")
    x = np.zeros((3, design.size))
    x[:, 0] = 1.0
    x[1, at] = x[2, flag] = 1.0
    assert (x @ coding(design))[:, at] == pytest.approx([-1.0, 1.0, 0.0])


@pytest.mark.parametrize("missing", ["drop", "indicate"])
def test_a_made_up_population_has_the_moments_it_was_made_for_and_no_chance_in_it(missing: str) -> None:
    design = private_design(missing)
    chance = default_rng(1)
    z = chance.normal(0.2, 1, (500, design.size)) @ (np.eye(design.size) + 0.2 * chance.random(design.size))
    z[:, 0] = intercept(design)
    moments = z.T @ z / len(z)
    rows = made_up_rows(design, moments)
    assert rows.T @ rows / len(rows) == pytest.approx(moments, rel=1e-8, abs=1e-8)
    assert np.array_equal(rows, made_up_rows(design, moments))


def test_with_next_to_no_noise_private_steps_reach_the_exact_fit() -> None:
    """What is left is the weights: half a standard error of the exact fit, which chance gives it anyway."""
    chance = default_rng(4)
    n = 4000
    table = {
        "x": chance.normal(0, 1, n).clip(-4, 4),
        "s": (chance.random(n) < 0.2).astype(float),
        "g": chance.choice(5, n, p=[0.1, 0.2, 0.4, 0.2, 0.1]).astype(float),
        "psa": np.exp(chance.normal(2, 0.7, n)).clip(0.1, 150),
    }
    eta = table["x"] + 0.8 * table["s"] + np.array([-1.5, -0.5, 0, 1, 2])[table["g"].astype(int)]
    table["y"] = (chance.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    hubs = [dataset(table, PRIVATE)]
    exact = run(PRIVATE_SPEC, setting(PRIVATE), hubs)
    private = run(PRIVATE_SPEC, setting(PRIVATE, mode="private"), hubs, privacy=Privacy(1e6, default_rng(1)))
    off = np.abs(np.array(private["coefficients"]) - exact["coefficients"]) / exact["standard_errors"]
    assert off.max() < 1.0
    assert np.sqrt(np.mean(off**2)) < 0.5


def test_the_floor_is_held_against_outcomes_and_every_column_both_ways() -> None:
    table = {"s": [1, 1, 0, np.nan, 0], "g": [0, 1, 2, 2, 1], "y": [1, 0, 0, 1, 0]}
    variables = (binary("s"), category("g", 3), binary("y"))
    spec = LogisticRegression("y", ("s", "g"))
    cells = algorithm_for(spec).cells(spec, setting(variables), dataset(table, variables))
    assert cells.tolist() == [2, 2, 1, 1, 2, 2, 3, 3]  # s, g=L1, g=L2, y; then all four the other way


@pytest.mark.parametrize(
    ("spec", "mode", "sentence"),
    [
        (LogisticRegression("x", ("s",)), "exact", "must be a binary"),
        (LogisticRegression("y", ("x", "y")), "exact", "outcome itself"),
        (LogisticRegression("y", ("x", "x")), "exact", "twice"),
        (LogisticRegression("y", ("z",)), "exact", "not among"),
        (LogisticRegression("y", ("x",)), "private", "scale: reference"),
    ],
)
def test_a_model_that_cannot_be_carried_out_is_refused_with_what_to_write(
    spec: LogisticRegression, mode: str, sentence: str
) -> None:
    agreed = setting((number("x", -1, 1), binary("s"), binary("y")), mode=mode)
    with pytest.raises(StudyFileError, match=sentence):
        algorithm_for(spec).check(spec, agreed)


@pytest.mark.parametrize("mode", ["exact", "private"])
@pytest.mark.parametrize(
    ("step", "parameters"),
    [(1, (0.0,)), (1, (0.0, float("nan"))), (1, (float("inf"), 0.0)), (25, (0.0, 0.0)), (-1, (0.0, 0.0))],
)
def test_parameters_of_a_wrong_form_are_refused_before_rows_are_used(
    mode: str, step: int, parameters: tuple[float, ...]
) -> None:
    variables = (number("x", -1, 1, scale="reference"), binary("y"))
    spec = LogisticRegression("y", ("x",))
    data = dataset({"x": [0.5], "y": [1.0]}, variables)
    with pytest.raises(MisuseError):
        algorithm_for(spec).update(spec, setting(variables, mode=mode), step, parameters, data)


def test_private_results_are_plain_json_and_claim_no_error_they_do_not_know() -> None:
    problem = random_problem(default_rng(2))
    variables = tuple(
        structs.replace(v, scale="reference", centre=66.0 if v.variable.name == "age" else 0.0, spread=8.0)
        if v.scale == "pooled"
        else v
        for v in problem.variables
    )
    for rho, rows in ((1e-5, 3), (0.01, 300), (10.0, 300)):
        table = problem.table.iloc[:rows]
        hubs = spread({k: table[k].to_numpy() for k in table}, problem.owner[:rows], variables)
        agreed = setting(variables, mode="private", missing="indicate")
        result = run(problem.spec, agreed, hubs, privacy=Privacy(rho, default_rng(1)))
        json.dumps(result, allow_nan=False)
        assert result["standard_errors"] is None
        assert np.isfinite(result["noise_standard_errors"]).all()
        assert result["iterations"] == 4
