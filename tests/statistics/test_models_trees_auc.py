"""Boosting and forests under sums rank new patients as scikit-learn's do that have all rows in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from flute.algorithms.contract import Scorer, Spec, StudyVariable
from flute.data.variables import Array, Variable
from flute.models.trees.boosting import BoostingScorer, GradientBoosting
from flute.models.trees.forest import ForestScorer, RandomForest
from support.sums import dataset, run, setting, spread

WITHIN = 0.005
"""Of scikit-learn's AUC; less is a failure, more is none."""
Pooled = Callable[[int], Any]


def public(name: str) -> tuple[Array, Array]:
    found = {"breast cancer": load_breast_cancer, "wine": load_wine, "diabetes": load_diabetes}[name]()
    cases = found.target > 140 if name == "diabetes" else found.target == 1
    return np.asarray(found.data, dtype=np.float64), cases.astype(np.float64)


def boosting(names: tuple[str, ...]) -> tuple[Spec, Scorer, Pooled]:
    def pooled(_: int) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(max_iter=40, max_depth=3, early_stopping=False)

    return GradientBoosting("y", names, rounds=40), BoostingScorer(), pooled


def forest(names: tuple[str, ...]) -> tuple[Spec, Scorer, Pooled]:
    def pooled(seed: int) -> RandomForestClassifier:
        return RandomForestClassifier(20, max_depth=4, min_samples_leaf=10, random_state=seed)

    return RandomForest("y", names, trees=20), ForestScorer(), pooled


def areas(name: str, made: Any, folds: int, predictors: int | None = None) -> tuple[float, float]:
    """Mean AUC over folds of three: ours (three hubs, only `predictors` of the columns), and scikit-learn's over two
    seeds."""
    x, y = public(name)
    names = tuple(f"x{j}" for j in range(x.shape[1]))
    variables = [
        StudyVariable(Variable(v, "number", float(x[:, j].min()), float(x[:, j].max()))) for j, v in enumerate(names)
    ]
    variables.append(StudyVariable(Variable("y", "binary")))
    where, (spec, scorer, pooled) = setting(variables), made(names[:predictors])
    ours, theirs = [], []
    for train, test in list(StratifiedKFold(3, shuffle=True, random_state=0).split(x, y))[:folds]:
        tables = [{n: x[i, j] for j, n in enumerate(names)} | {"y": y[i]} for i in (train, test)]
        owner = np.random.default_rng(0).integers(0, 3, len(train))
        model = run(spec, where, spread(tables[0], owner, variables))["parameters"]
        risks = scorer.risks(spec, where, np.array(model), dataset(tables[1], variables))
        ours.append(roc_auc_score(y[test], risks))
        with threadpool_limits(1):
            fits = [pooled(seed).fit(x[train], y[train]) for seed in (0, 1)]
        theirs += [roc_auc_score(y[test], fit.predict_proba(x[test])[:, 1]) for fit in fits]
    return float(np.mean(ours)), float(np.mean(theirs))


@pytest.mark.requirement("F-HUF-5")
@pytest.mark.parametrize("made", [boosting, forest])
@pytest.mark.parametrize(("name", "folds"), [("breast cancer", 1), ("wine", 3), ("diabetes", 3)])
def test_it_is_as_good_as_with_all_rows_in_one_place(name: str, folds: int, made: Any) -> None:
    ours, theirs = areas(name, made, folds)
    assert ours >= theirs - WITHIN


@pytest.mark.parametrize("made", [boosting, forest])
def test_a_model_that_lacks_what_tells_would_be_found_wanting(made: Any) -> None:
    ours, theirs = areas("diabetes", made, 1, predictors=2)  # age and sex alone
    assert ours < theirs - WITHIN
