"""Support vector machines under sums reach scikit-learn's primal solution on the same columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import LinearSVC

from flute.algorithms.contract import Evaluate, StudyVariable
from flute.data.variables import Array, Variable
from flute.errors import StudyFileError
from flute.models.machines.kernel import Kernel, columns, random_features
from flute.models.machines.svm import SupportVectors, SvmScorer
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread

AGE = StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60, spread=10)
PSA = StudyVariable(Variable("psa", "number", 0.1, 150), log=True)
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, PSA, GRADE, ILL)
PREDICTORS = ("age", "psa", "grade")


def table(n: int = 700, seed: int = 1, missing: float = 0.0) -> dict[str, Array]:
    chance = np.random.default_rng(seed)
    age, psa = chance.normal(62, 11, n).clip(20, 100), np.exp(chance.normal(1.6, 0.9, n)).clip(0.1, 150)
    grade = chance.integers(0, 3, n).astype(float)
    slope = (age - 62) / 11 + 0.9 * np.log(psa) + 0.8 * (grade == 2)
    ill = (chance.random(n) < 1 / (1 + np.exp(2.0 - slope))).astype(float)
    found = {"age": age, "psa": psa, "grade": grade}
    for column in found.values():
        column[chance.random(n) < missing] = np.nan
    return found | {"ill": ill}


def reference(spec: SupportVectors, missing: Any, columns_of: dict[str, Array]) -> tuple[Array, LinearSVC]:
    """scikit-learn's solution over the same columns, pooled; the intercept is one of them."""
    kernel = Kernel(spec.features if spec.kernel == "rbf" else 0, spec.gamma, spec.seed)
    where = setting(ALL, missing=missing)
    x = columns(kernel, spec.predictors, where, dataset(columns_of, ALL))
    kept = np.all([np.isfinite(columns_of[p]) for p in PREDICTORS], axis=0) | (missing == "indicate")
    fit = LinearSVC(C=spec.cost, dual=False, tol=1e-10, max_iter=100_000, fit_intercept=False)
    return x, fit.fit(x[kept], columns_of["ill"][kept])


@pytest.mark.requirement("F-HUF-6")
@pytest.mark.parametrize("count", [3, 10])
@pytest.mark.parametrize("missing", ["drop", "indicate"])
@pytest.mark.parametrize(
    "spec",
    [
        SupportVectors("ill", PREDICTORS),
        SupportVectors("ill", PREDICTORS, cost=50),
        SupportVectors("ill", PREDICTORS, kernel="rbf", features=24, gamma=0.2, seed=5),
    ],
    ids=["linear", "costly", "rbf"],
)
def test_decisions_are_those_of_the_pooled_machine(spec: SupportVectors, missing: Any, count: int) -> None:
    data, where = table(missing=0.06), setting(ALL, missing=missing)
    owner = np.random.default_rng(2).integers(2, count, len(data["ill"]))
    owner[0] = 0  # one row at the first hub, none at the second
    result = run(spec, where, spread(data, owner, ALL))
    x, pooled = reference(spec, missing, data)
    decisions = SvmScorer().decisions(spec, where, np.array(result["parameters"]), dataset(data, ALL))
    assert result["ending"] == "converged"
    assert np.abs(decisions - pooled.decision_function(x)).max() < 1e-3
    other = reference(spec, missing, table(seed=2, missing=0.06))[1]
    assert np.abs(decisions - other.decision_function(x)).max() > 1e-2


def test_where_columns_almost_separate_the_steps_suffice() -> None:
    found = load_breast_cancer()
    names = tuple(f"x{j}" for j in range(found.data.shape[1]))
    variables = [
        StudyVariable(Variable(v, "number", float(column.min()), float(column.max())))
        for v, column in zip(names, found.data.T, strict=True)
    ]
    variables.append(StudyVariable(Variable("y", "binary")))
    where, spec = setting(variables), SupportVectors("y", names)
    data = dataset(dict(zip(names, found.data.T, strict=True)) | {"y": found.target.astype(float)}, variables)
    result = run(spec, where, [data])
    x = columns(Kernel(0, 0, 0), names, where, data)
    pooled = LinearSVC(dual=False, tol=1e-10, max_iter=100_000, fit_intercept=False).fit(x, found.target)
    assert result["ending"] == "converged"
    assert np.abs(x @ np.array(result["coefficients"]) - pooled.decision_function(x)).max() < 1e-3


def test_random_features_come_near_the_gaussian_kernel_and_another_seed_gives_others() -> None:
    where, data = setting(ALL), dataset(table(60), ALL)
    x = columns(Kernel(0, 0, 0), PREDICTORS, where, data)[:, 1:]
    exact = rbf_kernel(x, gamma=0.3)

    def error(seed: int, gamma: float) -> float:
        z = columns(Kernel(4096, gamma, seed), PREDICTORS, where, data)[:, 1:]
        return float(np.abs(z @ z.T - exact).max())

    # 1,770 pairs, deviation at most 1/sqrt(4096) = .016 each: beyond .1 with a chance below 1e-6
    assert error(1, 0.3) < 0.1
    assert error(1, 0.6) > 0.1
    assert not np.allclose(random_features(1, 4, 8)[0], random_features(2, 4, 8)[0])


@pytest.mark.requirement("F-HUF-6")
def test_a_private_machine_with_a_large_budget_ranks_as_the_exact_one_does() -> None:
    data = table(3000)
    hubs = spread(data, np.random.default_rng(2).integers(0, 3, 3000), ALL)
    for spec in (SupportVectors("ill", PREDICTORS), SupportVectors("ill", PREDICTORS, kernel="rbf", features=16)):
        exact = run(spec, setting(ALL), hubs)
        private = run(spec, setting(ALL, mode="private"), hubs, privacy=Privacy(5.0, np.random.default_rng(3)))
        scores = [
            SvmScorer().decisions(spec, setting(ALL), np.array(r["parameters"]), dataset(data, ALL))
            for r in (exact, private)
        ]
        assert np.corrcoef(scores[0], scores[1])[0, 1] > 0.97
        assert private["n"] == pytest.approx(3000, abs=6 * private["n_noise_se"])


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_private_machines_are_plain_numbers_even_where_noise_drowns_all(kernel: Any) -> None:
    spec = SupportVectors("ill", PREDICTORS, kernel=kernel, features=8)
    where = setting(ALL, mode="private", missing="indicate")
    for rho in (1e-6, 1e-3, 10.0):
        for rows in (0, 3, 700):
            data = dataset({k: v[:rows] for k, v in table(missing=0.05).items()}, ALL)
            result = run(spec, where, [data], privacy=Privacy(rho, np.random.default_rng(rows)))
            json.dumps(result, allow_nan=False)
            assert len(result["parameters"]) == SvmScorer().size(spec, where)


@pytest.mark.parametrize("rows", [0, 1])
def test_without_patients_the_machine_decides_nothing(rows: int) -> None:
    spec = SupportVectors("ill", PREDICTORS)
    data = dataset({k: v[:rows] for k, v in table().items()}, ALL)
    result = run(spec, setting(ALL), [data] * 3 if rows == 0 else [data])
    json.dumps(result, allow_nan=False)
    assert result["ending"] == "converged"
    assert result["n"] == rows
    if rows == 0:
        assert set(result["coefficients"]) == {0.0}


def test_a_machine_is_scored_like_any_model() -> None:
    spec, check = SupportVectors("ill", PREDICTORS), Evaluate(("model",))
    where = setting(ALL, {"model": (spec, "pooled"), "check": (check, "pooled")})
    hubs = [dataset(table(), ALL)]
    scored = run(check, where, hubs, inputs={"model": run(spec, where, hubs)})
    assert scored["models"]["model"]["auc"]["value"] > 0.75


def test_what_cannot_be_fitted_is_refused_before_anything_is_read() -> None:
    where = setting(ALL)
    for spec in (
        SupportVectors("age", ("psa",)),
        SupportVectors("ill", ("ill",)),
        SupportVectors("ill", ("weight",)),
    ):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, where)


def test_the_floor_is_held_against_outcome_and_categories() -> None:
    spec, data = SupportVectors("ill", ("grade",)), dataset(table(), ALL)
    cells = algorithm_for(spec).cells(spec, setting(ALL), data)
    grade, ill = data.column("grade"), data.column("ill")
    ones = [int((grade == 1).sum()), int((grade == 2).sum()), int(ill.sum())]
    assert cells.tolist() == [*ones, *(len(data) - one for one in ones)]
