"""A decision tree under sums is the tree of the pooled rows on the same bins."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from flute.algorithms.contract import Evaluate, Setting, Spec, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.errors import MisuseError, StudyFileError
from flute.models.features import codes, cuts_for, features_for
from flute.models.trees.histograms import places, read_splits
from flute.models.trees.tree import DecisionTree, TreeScorer
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread

AGE = StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60, spread=10)
PSA = StudyVariable(Variable("psa", "number", 0.1, 150), log=True)
FH = StudyVariable(Variable("fh", "binary"))
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high", "top")))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, PSA, FH, GRADE, ILL)
PREDICTORS = ("age", "psa", "fh", "grade")


def table(n: int = 900, seed: int = 1, missing: float = 0.0) -> dict[str, Array]:
    chance = np.random.default_rng(seed)
    age, psa = chance.normal(62, 11, n).clip(20, 100), np.exp(chance.normal(1.6, 0.9, n)).clip(0.1, 150)
    fh, grade = chance.integers(0, 2, n).astype(float), chance.integers(0, 4, n).astype(float)
    slope = (age - 62) / 11 + 1.3 * np.log(psa) * (grade == 2) + 0.8 * fh - 0.6 * (grade == 0)
    ill = (chance.random(n) < 1 / (1 + np.exp(1.0 - slope))).astype(float)
    columns = {"age": age, "psa": psa, "fh": fh, "grade": grade}
    for column in columns.values():
        column[chance.random(n) < missing] = np.nan
    return columns | {"ill": ill}


def hubs(columns: dict[str, Array], count: int) -> list[Dataset]:
    """The first has one row, the second none, the rest what is left."""
    n = len(columns["ill"])
    owner = np.random.default_rng(2).integers(2, count, n)
    owner[0] = 0
    return spread(columns, owner, ALL)


def agreed(spec: Spec, **changed: Any) -> Setting:
    return setting(ALL, {"model": (spec, "pooled"), "check": (Evaluate(("model",)), "pooled")}, **changed)


def pooled_columns(spec: Any, where: Setting, data: Dataset) -> Array:
    """What scikit-learn sees: the codes, of a category one 0/1 column per code."""
    features = features_for(spec.predictors, spec.bins, where)
    found = codes(features, data)
    parts = [
        found[:, [k]] if f.ordered else -(found[:, [k]] == np.arange(f.codes)).astype(np.int64)
        for k, f in enumerate(features)
    ]
    return np.hstack(parts).astype(np.float64)


def leaves(spec: DecisionTree, where: Setting, result: dict[str, Any], data: Dataset) -> Array:
    cuts = cuts_for(features_for(spec.predictors, spec.bins, where))
    inner = 2 * (2**spec.max_depth - 1)
    splits = read_splits(np.array(result["parameters"][:inner]), cuts)
    return places(splits, cuts, codes(features_for(spec.predictors, spec.bins, where), data)).astype(np.float64)


def same_groups(a: Array, b: Array) -> bool:
    """Whether two labellings part the rows alike."""
    pairs = len(set(zip(a.tolist(), b.tolist(), strict=True)))
    return pairs == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.requirement("F-HUF-4")
@pytest.mark.parametrize("count", [3, 10])
@pytest.mark.parametrize("criterion", ["gini", "entropy"])
@pytest.mark.parametrize(("missing", "rate"), [("drop", 0.0), ("drop", 0.05), ("indicate", 0.08)])
def test_it_splits_as_the_pooled_fit_on_the_same_bins(count: int, criterion: Any, missing: Any, rate: float) -> None:
    spec = DecisionTree("ill", PREDICTORS, max_depth=4, min_leaf=25, bins=16, criterion=criterion)
    where, columns = agreed(spec, missing=missing), table(missing=rate)
    result = run(spec, where, hubs(columns, count))
    whole = dataset(columns, ALL)
    kept = np.all([np.isfinite(columns[p]) for p in PREDICTORS], axis=0) | (missing == "indicate")
    x, y = pooled_columns(spec, where, whole)[kept], columns["ill"][kept]
    reference = DecisionTreeClassifier(max_depth=4, min_samples_leaf=25, criterion=criterion).fit(x, y)
    assert same_groups(leaves(spec, where, result, whole)[kept], reference.apply(x).astype(float))
    risks = TreeScorer().risks(spec, where, np.array(result["parameters"]), whole)[kept]
    assert risks == pytest.approx(reference.predict_proba(x)[:, 1], rel=1e-9, abs=1e-12)
    gained = reference.feature_importances_
    by_name = dict(zip(("age", "psa", "fh"), gained[:3].tolist(), strict=True)) | {"grade": float(gained[3:].sum())}
    assert result["importances"] == pytest.approx(by_name, rel=1e-6, abs=1e-9)
    assert result["n"] == int(kept.sum())


def test_a_tree_of_other_rows_would_not_pass_for_the_same() -> None:
    spec = DecisionTree("ill", PREDICTORS, max_depth=4, min_leaf=25)
    where, columns = agreed(spec), table()
    result = run(spec, where, hubs(table(seed=7), 3))
    whole = dataset(columns, ALL)
    x = pooled_columns(spec, where, whole)
    reference = DecisionTreeClassifier(max_depth=4, min_samples_leaf=25).fit(x, columns["ill"])
    assert not same_groups(leaves(spec, where, result, whole), reference.apply(x).astype(float))


def test_of_equal_splits_the_first_predictor_and_the_middle_of_empty_bins_are_taken() -> None:
    n = 80
    ill = np.repeat([0.0, 1.0], n // 2)
    columns = {"age": np.where(ill == 1, 90.0, 30.0), "psa": np.where(ill == 1, 100.0, 0.2), "fh": ill, "grade": ill}
    spec = DecisionTree("ill", PREDICTORS, max_depth=2, min_leaf=10, bins=8)
    result = run(spec, agreed(spec), [dataset(columns | {"ill": ill}, ALL)])
    assert result["tree"]["rule"] == "age < 70"  # bins 1 and 7 are filled; 4 stands half-way
    assert result["importances"]["age"] == 1.0
    assert result["tree"]["yes"]["risk"] == 0.0
    assert result["tree"]["no"]["n"] == n // 2


@pytest.mark.parametrize("rows", [0, 1])
def test_without_patients_there_is_a_tree_without_questions(rows: int) -> None:
    spec = DecisionTree("ill", PREDICTORS)
    columns = {k: v[:rows] for k, v in table().items()}
    result = run(spec, agreed(spec), [dataset(columns, ALL)] * 3)
    json.dumps(result, allow_nan=False)
    assert "rule" not in result["tree"]
    assert set(result["importances"].values()) == {0.0}


def test_rules_are_said_in_the_variables_own_unit() -> None:
    spec = DecisionTree("ill", ("psa", "grade"), max_depth=2, bins=16)
    where = agreed(spec, missing="indicate")
    tree = run(spec, where, [dataset(table(missing=0.1), ALL)])["tree"]
    assert tree["rule"].startswith(("psa < ", "grade is "))
    edges = np.exp(np.log(0.1) + np.log(1500) * np.arange(17) / 16)
    said = [t["rule"] for t in (tree, tree["yes"], tree["no"]) if t.get("variable") == "psa"]
    assert said
    for rule in said:
        value = float(rule.split("<")[1].removesuffix(" or missing"))
        assert np.abs(edges - value).min() < 1e-4 * value


def test_the_model_is_scored_and_its_numbers_have_the_agreed_length() -> None:
    spec, check = DecisionTree("ill", PREDICTORS), Evaluate(("model",))
    where, data = agreed(spec), hubs(table(), 3)
    model = run(spec, where, data)
    assert len(model["parameters"]) == TreeScorer().size(spec, where)
    scored = run(check, where, data, inputs={"model": model})
    assert scored["models"]["model"]["auc"]["value"] > 0.7
    with pytest.raises(MisuseError):
        TreeScorer().parameters(spec, where, {})


@pytest.mark.requirement("F-HUF-4")
def test_private_trees_are_plain_numbers_even_where_noise_drowns_all() -> None:
    spec = DecisionTree("ill", PREDICTORS, max_depth=2, bins=8)
    where = agreed(spec, mode="private", missing="indicate")
    for rho in (1e-6, 1e-3, 10.0):
        for rows in (0, 3, 900):
            columns = {k: v[:rows] for k, v in table(missing=0.05).items()}
            privacy = Privacy(rho, np.random.default_rng(rows))
            result = run(spec, where, [dataset(columns, ALL)], privacy=privacy)
            json.dumps(result, allow_nan=False)
            numbers = result["parameters"]
            assert len(numbers) == TreeScorer().size(spec, where)
            assert min(numbers[-4:]) >= 0
            assert max(numbers[-4:]) <= 1


def test_with_a_large_budget_a_private_tree_tells_what_an_exact_one_does() -> None:
    spec = DecisionTree("ill", PREDICTORS, max_depth=2, bins=8)
    columns = table(4000)
    data, whole = hubs(columns, 3), dataset(columns, ALL)
    exact = run(spec, agreed(spec), data)
    private = run(spec, agreed(spec, mode="private"), data, privacy=Privacy(50.0, np.random.default_rng(1)))
    found = [TreeScorer().risks(spec, agreed(spec), np.array(r["parameters"]), whole) for r in (exact, private)]
    assert np.corrcoef(found[0], found[1])[0, 1] > 0.9
    assert private["n_noise_se"] > 0


def test_what_cannot_be_grown_is_refused_before_anything_is_read() -> None:
    where = agreed(DecisionTree("ill", PREDICTORS))
    wrong = (
        DecisionTree("age", ("psa",)),
        DecisionTree("ill", ("ill",)),
        DecisionTree("ill", ("psa", "psa")),
        DecisionTree("ill", ("weight",)),
    )
    for spec in wrong:
        with pytest.raises(StudyFileError):
            algorithm_for(spec).check(spec, where)
    many = tuple(StudyVariable(Variable(f"x{i}", "number", 0, 1)) for i in range(64))
    long = DecisionTree("ill", tuple(v.variable.name for v in many), max_depth=8, bins=64)
    with pytest.raises(StudyFileError, match="numbers at once"):
        algorithm_for(long).check(long, setting((*many, ILL), mode="private"))


def test_the_floor_is_held_against_every_bin_and_against_nodes_that_are_not_known_yet() -> None:
    spec = DecisionTree("ill", ("age", "fh"), bins=4)
    data = dataset(table(200), ALL)
    cells = algorithm_for(spec).cells(spec, agreed(spec), data)
    counts = [
        np.sum((np.floor((data.column("age") - 20) / 20).clip(0, 3) == b) & (data.column("ill") == y))
        for b in range(4)
        for y in (0, 1)
    ]
    assert cells[:8].tolist() == counts
    assert cells[-1] == 1
    nobody = dataset({k: v[:0] for k, v in table(3).items()}, ALL)
    assert algorithm_for(spec).cells(spec, agreed(spec), nobody).sum() == 0
