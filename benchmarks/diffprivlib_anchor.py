"""AUC of diffprivlib's models, in an environment of its own: PYTHON diffprivlib_anchor.py TASKS.npz

TASKS.npz holds, for every trial k, train_k and test_k (design columns on the study's public scale), codes_k and
codetest_k (the same predictors as plain numbers, categories by position), outcome_k and outcometest_k; and epsilons,
norm (of an ordinary patient's columns), low and high (of columns), codelow and codehigh.
Printed: {"model": [[AUC of every trial] of every epsilon]} per model and variant, as JSON.
Nothing but diffprivlib, scikit-learn and numpy is imported: it runs where FLUTE does not.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
from diffprivlib.models import LogisticRegression, RandomForestClassifier
from sklearn.metrics import roc_auc_score

COSTS = (1.0, 10.0, 100.0)
"""C of the regression: one over its penalty. Its caller takes the best."""
DEPTHS = (3, 5)


def regression(given: Any, k: int, epsilon: float, cost: float) -> float:
    model = LogisticRegression(epsilon=epsilon, data_norm=float(given["norm"]), C=cost, random_state=k)
    model.fit(given[f"train_{k}"], given[f"outcome_{k}"])
    return float(roc_auc_score(given[f"outcometest_{k}"], model.decision_function(given[f"test_{k}"])))


def forest(given: Any, k: int, epsilon: float, depth: int, *, coded: bool) -> float:
    train, test, low, high = (
        ("codes", "codetest", "codelow", "codehigh") if coded else ("train", "test", "low", "high")
    )
    model = RandomForestClassifier(
        n_estimators=10, epsilon=epsilon, bounds=(given[low], given[high]), classes=[0, 1], max_depth=depth,
        random_state=k,
    )  # fmt: skip
    model.fit(given[f"{train}_{k}"], given[f"outcome_{k}"].astype(int))
    return float(roc_auc_score(given[f"outcometest_{k}"], model.predict_proba(given[f"{test}_{k}"])[:, 1]))


def main() -> None:
    warnings.simplefilter("ignore")
    given = np.load(sys.argv[1])
    trials = range(int(given["trials"]))
    found: dict[str, list[list[float]]] = {}
    for epsilon in given["epsilons"].tolist():
        for cost in COSTS:
            areas = [regression(given, k, epsilon, cost) for k in trials]
            found.setdefault(f"LogisticRegression, C {cost:g}", []).append(areas)
        for depth in DEPTHS:
            for coded in (False, True):
                areas = [forest(given, k, epsilon, depth, coded=coded) for k in trials]
                kind = "plain numbers" if coded else "columns"
                found.setdefault(f"RandomForestClassifier, depth {depth}, {kind}", []).append(areas)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
