"""Boosting under sums is boosting of the pooled rows; private curves are bounded, and plain numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from flute.algorithms.contract import Setting, StudyVariable
from flute.data.variables import Array, Variable
from flute.errors import StudyFileError
from flute.models.features import codes, features_for
from flute.models.trees.boosting import BoostingScorer, GradientBoosting
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread

AGE = StudyVariable(Variable("age", "number", 20, 100))
FH = StudyVariable(Variable("fh", "binary"))
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, FH, GRADE, ILL)
PREDICTORS = ("age", "fh", "grade")


def table(n: int = 600, seed: int = 1) -> dict[str, Array]:
    chance = np.random.default_rng(seed)
    age, fh, grade = chance.normal(62, 11, n).clip(20, 100), chance.integers(0, 2, n), chance.integers(0, 3, n)
    slope = np.abs(age - 62) / 8 + 1.2 * fh * (grade == 2) - 0.5 * (grade == 0)
    ill = chance.random(n) < 1 / (1 + np.exp(1.5 - slope))
    return {"age": age, "fh": fh.astype(float), "grade": grade.astype(float), "ill": ill.astype(float)}


def pooled_margins(spec: GradientBoosting, where: Setting, columns: dict[str, Array]) -> Array:
    """Boosting as a textbook has it, row by row on one table: [n] log odds of every patient after all rounds."""
    features = features_for(spec.predictors, spec.bins, where)
    found, y = codes(features, dataset(columns, ALL)), columns["ill"]
    margin = np.full(len(y), np.log((y.sum() + 0.5) / ((1 - y).sum() + 0.5)))

    def score(rows: NDArray[np.bool_], g: Array, h: Array) -> float:
        return float(g[rows].sum() ** 2 / (h[rows].sum() + spec.penalty))

    def grow(rows: NDArray[np.bool_], depth: int, g: Array, h: Array, added: Array) -> None:
        best, chosen = 1e-9, None
        for k, feature in enumerate(features) if depth else ():
            for cut in range(feature.cuts):
                left = rows & (found[:, k] <= cut if feature.ordered else found[:, k] == cut)
                right = rows & ~left
                if min(h[left].sum(), h[right].sum()) >= 1:
                    gain = score(left, g, h) + score(right, g, h) - score(rows, g, h)
                    if gain > best + 1e-9:
                        best, chosen = gain, (left, right)
        if chosen is None:
            added[rows] = spec.learning_rate * g[rows].sum() / (h[rows].sum() + spec.penalty)
        else:
            for side in chosen:
                grow(side, depth - 1, g, h, added)

    for _ in range(spec.rounds):
        p, added = 1 / (1 + np.exp(-margin)), np.zeros(len(y))
        grow(np.ones(len(y), dtype=np.bool_), spec.max_depth, y - p, p * (1 - p), added)
        margin = margin + added
    return np.asarray(margin)


@pytest.mark.requirement("F-HUF-5")
@pytest.mark.parametrize("count", [3, 10])
def test_it_is_the_pooled_model_whatever_the_hubs(count: int) -> None:
    spec = GradientBoosting("ill", PREDICTORS, rounds=8, max_depth=3, learning_rate=0.3)
    where, columns = setting(ALL), table()
    owner = np.random.default_rng(2).integers(2, count, len(columns["ill"]))
    owner[0] = 0  # one row at the first hub, none at the second
    result = run(spec, where, spread(columns, owner, ALL))
    assert len(result["parameters"]) == BoostingScorer().size(spec, where)
    risks = BoostingScorer().risks(spec, where, np.array(result["parameters"]), dataset(columns, ALL))
    pooled = pooled_margins(spec, where, columns)
    assert np.log(risks / (1 - risks)) == pytest.approx(pooled, rel=1e-6, abs=1e-8)
    other = pooled_margins(spec, where, table(seed=3))
    assert np.abs(np.log(risks / (1 - risks)) - other).max() > 0.1
    assert sum(result["importances"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_few_patients_and_one_kind_of_patient_make_a_model_that_says_the_same_for_all(rows: int) -> None:
    spec = GradientBoosting("ill", PREDICTORS, rounds=3)
    columns = {k: v[:rows] for k, v in table().items()} | {"ill": np.zeros(rows)}
    result = run(spec, setting(ALL), [dataset(columns, ALL)])
    json.dumps(result, allow_nan=False)
    risks = BoostingScorer().risks(spec, setting(ALL), np.array(result["parameters"]), dataset(table(50), ALL))
    assert np.ptp(risks) == 0
    assert result["n"] == rows


@pytest.mark.parametrize("missing", ["drop", "indicate"])
def test_private_curves_are_plain_numbers_even_where_noise_drowns_all(missing: str) -> None:
    spec = GradientBoosting("ill", PREDICTORS, bins=8)
    where = setting(ALL, mode="private", missing=missing)
    for rho in (1e-6, 1e-3, 10.0):
        for rows in (0, 3, 600):
            columns = {k: v[:rows] for k, v in table().items()}
            result = run(spec, where, [dataset(columns, ALL)], privacy=Privacy(rho, np.random.default_rng(rows)))
            json.dumps(result, allow_nan=False)
            assert len(result["parameters"]) == BoostingScorer().size(spec, where)
            assert np.abs(result["parameters"]).max() < 50


@pytest.mark.requirement("F-HUF-5")
def test_private_curves_show_the_shape_that_is_there() -> None:
    spec = GradientBoosting("ill", PREDICTORS)
    result = run(
        spec,
        setting(ALL, mode="private"),
        [dataset(table(5000), ALL)],
        privacy=Privacy(0.02, np.random.default_rng(1)),
    )
    age = result["curves"]["age"]
    middle = np.array(age["edges"][:-1]) + 2.5
    curve, bottom = np.array(age["log_odds"]), int(np.argmin(np.abs(middle - 62)))
    for end in (42.5, 82.5):  # truth: 2.4 higher
        rise = curve[int(np.argmin(np.abs(middle - end)))] - curve[bottom]
        assert 1.0 < rise < 3.5
    assert result["importances"]["age"] > 0.4


def test_what_is_too_long_is_refused_before_anything_is_read() -> None:
    many = tuple(StudyVariable(Variable(f"x{i}", "number", 0, 1)) for i in range(60))
    spec = GradientBoosting("ill", tuple(v.variable.name for v in many), bins=64, max_depth=5)
    with pytest.raises(StudyFileError, match="numbers at once"):
        algorithm_for(spec).check(spec, setting((*many, ILL)))
    with pytest.raises(StudyFileError):
        algorithm_for(spec).check(GradientBoosting("age", ("fh",)), setting(ALL))
