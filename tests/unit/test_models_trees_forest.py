"""A forest under sums is the forest of the pooled rows; private ones are drawn from what was opened alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from flute.algorithms.contract import Evaluate, Opened, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.errors import StudyFileError
from flute.models.features import codes, features_for
from flute.models.trees import private_forest
from flute.models.trees.forest import ForestScorer, RandomForest, _weights
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting

AGE = StudyVariable(Variable("age", "number", 20, 100))
PSA = StudyVariable(Variable("psa", "number", 0.1, 150), log=True)
FH = StudyVariable(Variable("fh", "binary"))
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, PSA, FH, GRADE, ILL)
PREDICTORS = ("age", "psa", "fh", "grade")


def table(n: int = 900, seed: int = 1) -> dict[str, Array]:
    chance = np.random.default_rng(seed)
    age, psa = chance.normal(62, 11, n).clip(20, 100), np.exp(chance.normal(1.6, 0.9, n)).clip(0.1, 150)
    fh, grade = chance.integers(0, 2, n).astype(float), chance.integers(0, 3, n).astype(float)
    slope = (age - 62) / 11 + 1.3 * np.log(psa) * (grade == 2) + 0.8 * fh - 0.6 * (grade == 0)
    ill = (chance.random(n) < 1 / (1 + np.exp(1.0 - slope))).astype(float)
    return {"age": age, "psa": psa, "fh": fh, "grade": grade, "ill": ill}


def split(whole: Dataset, count: int) -> list[Dataset]:
    """The first hub has one patient, the second none; everybody keeps his pseudonym."""
    owner = np.random.default_rng(2).integers(2, count, len(whole))
    owner[0] = 0
    return [whole.where(owner == hub) for hub in range(count)]


@pytest.mark.requirement("F-HUF-5")
@pytest.mark.parametrize("count", [3, 10])
def test_every_tree_is_the_pooled_tree_of_its_resampled_patients(count: int) -> None:
    spec = RandomForest("ill", PREDICTORS, trees=4, max_depth=3, min_leaf=25, candidates=4, seed=9)
    where, whole = setting(ALL), dataset(table(), ALL)
    result = run(spec, where, split(whole, count))
    features = features_for(PREDICTORS, spec.bins, where)
    found = codes(features, whole)
    x = np.hstack([found[:, :3], -(found[:, [3]] == np.arange(3)).astype(np.int64)])
    weights, y = _weights(spec, whole).astype(int), whole.column("ill")
    pooled = []
    for tree in range(4):
        often = np.repeat(np.arange(len(y)), weights[:, tree])
        reference = DecisionTreeClassifier(max_depth=3, min_samples_leaf=25).fit(x[often], y[often])
        pooled.append(reference.predict_proba(x)[:, 1])
    risks = ForestScorer().risks(spec, where, np.array(result["parameters"]), whole)
    assert risks == pytest.approx(np.mean(pooled, axis=0), rel=1e-9, abs=1e-12)
    assert np.abs(risks - np.mean(pooled[:3], axis=0)).max() > 1e-3  # one tree less is another forest
    assert result["n"] == 900
    assert len(result["parameters"]) == ForestScorer().size(spec, where)


def test_nodes_ask_few_predictors_and_another_seed_grows_another_forest() -> None:
    where, whole = setting(ALL), dataset(table(), ALL)
    found = []
    for seed in (1, 1, 2):
        spec = RandomForest("ill", PREDICTORS, trees=3, max_depth=2, seed=seed)
        found.append(run(spec, where, split(whole, 3))["parameters"])
    assert found[0] == found[1]
    assert found[0] != found[2]
    all_of_them = algorithm_for(spec).outline(RandomForest("ill", PREDICTORS, trees=3, candidates=4), where)
    assert algorithm_for(spec).outline(spec, where)[0].size < all_of_them[0].size


def test_patients_count_as_often_as_poisson_says() -> None:
    n, trees = 4000, 10
    spec = RandomForest("ill", PREDICTORS, trees=trees)
    data = dataset(table(n), ALL)
    counted = np.bincount(_weights(spec, data).astype(int).ravel(), minlength=5) / (n * trees)
    expected = np.array([*(np.exp(-1) / f for f in (1, 1, 2, 6)), 1 - np.exp(-1) * (1 + 1 + 1 / 2 + 1 / 6)])
    # 40,000 draws: 5.5 deviations each, a false alarm of 2e-7
    assert np.abs(counted - expected).max() < 5.5 * np.sqrt(0.25 / (n * trees))
    assert np.abs(counted - np.roll(expected, 1)).max() > 0.05


@pytest.mark.parametrize("rows", [0, 1])
def test_without_patients_there_is_a_forest_without_questions(rows: int) -> None:
    spec = RandomForest("ill", PREDICTORS, trees=2)
    data = dataset({k: v[:rows] for k, v in table().items()}, ALL)
    result = run(spec, setting(ALL), [data])
    json.dumps(result, allow_nan=False)
    assert result["n"] == rows
    assert all("rule" not in tree for tree in result["trees"])


@pytest.mark.requirement("F-HUF-5")
def test_private_forests_are_plain_numbers_even_where_noise_drowns_all() -> None:
    spec = RandomForest("ill", PREDICTORS, trees=3, max_depth=3)
    where = setting(ALL, mode="private", missing="indicate")
    for rho in (1e-6, 1e-3, 10.0):
        for rows in (0, 3, 900):
            data = dataset({k: v[:rows] for k, v in table().items()}, ALL)
            result = run(spec, where, [data], privacy=Privacy(rho, np.random.default_rng(rows)))
            json.dumps(result, allow_nan=False)
            assert len(result["parameters"]) == ForestScorer().size(spec, where)
            assert 0 <= min(result["parameters"][-24:]) <= max(result["parameters"][-24:]) <= 1


def test_a_private_forest_with_a_large_budget_tells_who_is_ill() -> None:
    spec = RandomForest("ill", PREDICTORS, max_depth=3)
    where = setting(ALL, {"model": (spec, "pooled"), "check": (Evaluate(("model",)), "pooled")}, mode="private")
    hubs = split(dataset(table(3000), ALL), 3)
    model = run(spec, where, hubs, privacy=Privacy(1.0, np.random.default_rng(1)))
    check = Evaluate(("model",))
    scored = run(check, where, hubs, privacy=Privacy(10.0, np.random.default_rng(2)), inputs={"model": model})
    assert scored["models"]["model"]["auc"]["value"] > 0.75
    assert model["n"] == pytest.approx(3000, abs=6 * model["n_noise_se"])


def test_drawn_trees_ask_nothing_twice_on_the_way_to_a_leaf_and_prefer_what_tells() -> None:
    features = features_for(PREDICTORS, 8, setting(ALL))
    total = np.full(2 * sum(f.codes for f in features), 100.0)
    total[-2:] = (20.0, 300.0)  # the last level of grade tells
    splits = private_forest.drawn(features, Opened((), total, 5.0), 50, 3, seed=4)
    pairs = np.column_stack([splits.feature, splits.cut]).reshape(50, 7, 2).tolist()
    for tree in pairs:
        for node in range(1, 7):
            above = (node - 1) // 2
            while True:
                assert tree[node] != tree[above]
                if above == 0:
                    break
                above = (above - 1) // 2
    roots = np.array([tree[0][0] for tree in pairs])
    assert (roots == 3).mean() > 0.6


def test_what_cannot_be_grown_is_refused_before_anything_is_read() -> None:
    where = setting(ALL)
    for spec in (
        RandomForest("age", ("psa",)),
        RandomForest("ill", PREDICTORS, candidates=5),
        RandomForest("ill", PREDICTORS, trees=200, max_depth=8, bins=64),
    ):
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, where)
