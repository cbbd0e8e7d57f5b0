"""Models of a 0/1 outcome: AUC on new patients against epsilon, and what exact ones lose against pooled fits.

    python benchmarks/private_models.py [--quick] [--json]

Data: the simulated pilot (three hubs, 3,063 men; new patients are 15,300 others), and scikit-learn's breast cancer
(569) and diabetes (442, the outcome above 140), two thirds to fit and one to judge; their columns' ends count as
public.
Privacy: one question has the whole epsilon at delta 1e-6; of three hubs one may collude, so a total carries 1.5 times
the variance that is charged. Noise is Gaussian, as `tests/support/sums.py` draws it.
Anchors: diffprivlib's LogisticRegression and RandomForestClassifier on the same patients in one place (epsilon, delta
0), of several settings in each trial the one that is best in the other trials; scikit-learn's
HistGradientBoostingClassifier and RandomForestClassifier (as many trees, as deep) and LinearSVC without privacy.
diffprivlib needs an older scikit-learn: give an environment's Python as FLUTE_DIFFPRIVLIB_PYTHON, or install it
where this runs.
Seeds: constants of private models were chosen on these data sets, with other divisions, cohorts and noise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from private_regression import FRESH, FRESH_SEED, auc, hubs_of, pilot_agreement
from rows import Row, options, show

from flute.algorithms.contract import LogisticRegression, Scorer, Setting, Spec, StudyVariable
from flute.algorithms.design import bounds, design_for, included, matrix, values
from flute.algorithms.private_rows import private_scaling, row_radius
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults import DELTA
from flute.models.machines.kernel import Kernel, columns
from flute.models.machines.svm import SupportVectors, SvmScorer
from flute.models.trees.boosting import GradientBoosting
from flute.models.trees.forest import RandomForest
from flute.models.trees.tree import DecisionTree
from flute.questions.registry import REGISTRY
from flute.study.protection import budget_of
from support.sums import Privacy, dataset, run, setting, spread

EPSILONS = (0.5, 1.0, 3.0, 10.0)
FIRST_SEED, TRIALS, QUICK_TRIALS = 3_001, 12, 2
SMALL_TRIALS = 48
"""Of the two public data sets: 300 patients and their noise make AUC vary by .07 from trial to trial."""
WITHIN = 0.005
"""Of an anchor's AUC."""
PRIVATE_BINS = 8
"""As the study file's page advises; exact models have their default."""
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Trial:
    fit: Sequence[Dataset]
    judge: Sequence[Dataset]


@dataclass(frozen=True)
class Task:
    """One data set, and its patients drawn or divided several times."""

    name: str
    setting: Setting
    outcome: str
    predictors: tuple[str, ...]
    trials: Sequence[Trial]


def pilot(trials: int) -> Task:
    agreement = pilot_agreement()
    spec, where = agreement.question("model").what, agreement.setting
    assert isinstance(spec, LogisticRegression)
    judge = list(hubs_of(FRESH_SEED, where, FRESH).values())
    drawn = [Trial(list(hubs_of(seed, where).values()), judge) for seed in range(FIRST_SEED, FIRST_SEED + trials)]
    return Task("pilot", where, spec.outcome, spec.predictors, drawn)


def public(name: str, trials: int) -> Task:
    found = {"breast cancer": load_breast_cancer, "diabetes": load_diabetes}[name]()
    y = (found.target > 140 if name == "diabetes" else found.target == 0).astype(np.float64)
    names = tuple(f"x{j}" for j in range(found.data.shape[1]))
    variables = [
        StudyVariable(Variable(v, "number", float(column.min()), float(column.max())))
        for v, column in zip(names, found.data.T, strict=True)
    ]
    variables.append(StudyVariable(Variable("y", "binary")))
    divided = []
    for seed in range(trials):
        chance = np.random.default_rng([FIRST_SEED, seed])
        order = chance.permutation(len(y))
        fit, judge = np.split(order, [2 * len(y) // 3])
        tables = [dict(zip(names, found.data[i].T, strict=True)) | {"y": y[i]} for i in (fit, judge)]
        hubs = spread(tables[0], chance.integers(0, 3, len(fit)), variables)
        divided.append(Trial(hubs, [dataset(tables[1], variables)]))
    return Task(name, setting(variables), "y", names, divided)


def area(task: Task, spec: Any, scorer: Scorer, model: Sequence[float], mode: Any, hubs: Sequence[Dataset]) -> float:
    where, found = replace(task.setting, mode=mode), []
    for data in hubs:
        kept = included(task.predictors, task.outcome, where, data)
        found.append((scorer.risks(spec, where, np.array(model), data)[kept], data.column(task.outcome)[kept]))
    return auc(*(np.concatenate(part) for part in zip(*found, strict=True)))


def private_areas(task: Task, spec: Spec, epsilon: float) -> list[float]:
    where, scorer = replace(task.setting, mode="private"), REGISTRY[type(spec)].scorer
    assert scorer is not None
    rho, _ = budget_of(epsilon, DELTA)
    found = []
    for k, trial in enumerate(task.trials):
        privacy = Privacy(rho, np.random.default_rng([FIRST_SEED, k, round(10 * epsilon)]))
        result = run(spec, where, trial.fit, privacy=privacy)
        model = scorer.parameters(spec, where, result)
        found.append(area(task, spec, scorer, model, "private", trial.judge))
    return found


def pooled(task: Task, hubs: Sequence[Dataset], *, coded: bool = False) -> tuple[Array, Array]:
    """All patients in one place: design columns on the public scale, or predictors as plain numbers."""
    design = design_for(task.predictors, task.setting)
    x, y = [], []
    for data in hubs:
        kept = included(task.predictors, task.outcome, task.setting, data)
        if coded:
            whole = np.column_stack([values(task.setting.variables[p], data) for p in task.predictors])
        else:
            whole = matrix(design, private_scaling(design), data)[:, 1:]
        x.append(whole[kept])
        y.append(data.column(task.outcome)[kept])
    return np.vstack(x), np.concatenate(y)


# --- the anchors ------------------------------------------------------------------------------


def anchor_python() -> str:
    """Where diffprivlib is; empty: nowhere."""
    given = os.environ.get("FLUTE_DIFFPRIVLIB_PYTHON", "")
    return given or (sys.executable if find_spec("diffprivlib") else "")


def theirs(task: Task, epsilons: Sequence[float]) -> Mapping[str, list[list[float]]]:
    """Model and setting to AUCs, by epsilon and trial; empty without diffprivlib."""
    python = anchor_python()
    if not python:
        return {}
    design = design_for(task.predictors, task.setting)
    given: dict[str, Any] = {"epsilons": np.array(epsilons), "trials": len(task.trials), "norm": row_radius(design)}
    given |= _ends(task)
    for k, trial in enumerate(task.trials):
        for part, hubs in (("", trial.fit), ("test", trial.judge)):
            given[f"{part or 'train'}_{k}"], given[f"outcome{part}_{k}"] = pooled(task, hubs)
            given[f"{'code' if part else 'codes'}{part}_{k}"], _ = pooled(task, hubs, coded=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.npz"
        np.savez(path, **given)
        command = [python, str(HERE / "diffprivlib_anchor.py"), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[list[float]]] = json.loads(done.stdout)
    return found


def _ends(task: Task) -> dict[str, Array]:
    """Public ends of columns and of plain numbers, as diffprivlib asks for."""
    design = design_for(task.predictors, task.setting)
    scaling, used = private_scaling(design), [task.setting.variables[p] for p in task.predictors]
    numbers = {v.variable.name: k for k, v in enumerate(design.numbers)}
    columns_of, codes_of = [], []
    for column in design.columns[1:]:
        k = numbers.get(column.variable, -1)
        low, high = bounds(design.numbers[k]) if k >= 0 else (0.0, 1.0)
        centre, spread_of = (scaling.centres[k], scaling.spreads[k]) if k >= 0 else (0.0, 1.0)
        columns_of.append(((low - centre) / spread_of, (high - centre) / spread_of))
    for v in used:
        top = len(v.variable.levels) - 1 if v.variable.kind == "category" else 1
        codes_of.append(bounds(v) if v.variable.kind == "number" else (0.0, float(top)))
    low, high = np.array(columns_of).T
    code_low, code_high = np.array(codes_of).T
    return {"low": low, "high": high, "codelow": code_low, "codehigh": code_high}


def best(found: Mapping[str, list[list[float]]], model: str, at: int) -> tuple[float, str]:
    """Mean AUC of a model at an epsilon, in every trial of the setting that is best in the others; and the setting
    that is best in all: the best in hindsight is lucky besides, which no user is."""
    names = [name for name in found if name.startswith(model)]
    areas = np.array([found[name][at] for name in names])
    others = areas.sum(axis=1, keepdims=True) - areas
    chosen = areas[np.argmax(others, axis=0), np.arange(areas.shape[1])]
    return float(chosen.mean()), names[int(np.argmax(areas.mean(axis=1)))]


# --- rows -------------------------------------------------------------------------------------


def private_rows(task: Task) -> list[Row]:
    anchors = theirs(task, EPSILONS)
    asked: list[tuple[Spec, str]] = [
        (LogisticRegression(task.outcome, task.predictors), "LogisticRegression"),
        (GradientBoosting(task.outcome, task.predictors, bins=PRIVATE_BINS), "RandomForestClassifier"),
        (RandomForest(task.outcome, task.predictors, bins=PRIVATE_BINS), "RandomForestClassifier"),
        (DecisionTree(task.outcome, task.predictors, bins=PRIVATE_BINS), ""),
        (SupportVectors(task.outcome, task.predictors), ""),
    ]
    found = []
    for spec, model in asked:
        for at, epsilon in enumerate(EPSILONS):
            ours = float(np.mean(private_areas(task, spec, epsilon)))
            label = f"AUC, private {REGISTRY[type(spec)].algorithm.name}, {task.name}, epsilon {epsilon:g}"
            if not model:
                found.append(Row(label, ours, "AUC", "", "none: told beside the others", None))
            elif not anchors:
                missing = "ABSENT: diffprivlib (set FLUTE_DIFFPRIVLIB_PYTHON)"
                found.append(Row(label, ours, "AUC", "at least diffprivlib's less .005", missing, None))
            else:
                theirs_mean, name = best(anchors, model, at)
                anchor = f"diffprivlib {name}: {theirs_mean:.4f}, mean of the same {len(task.trials)} trials"
                found.append(
                    Row(label, ours, "AUC", "at least diffprivlib's less .005", anchor, ours >= theirs_mean - WITHIN)
                )
    return found


def exact_rows(task: Task, trials: int) -> list[Row]:
    """Boosting and forests against scikit-learn's on rows in one place, as many rounds, as deep."""
    boosted = GradientBoosting(task.outcome, task.predictors)
    forest = RandomForest(task.outcome, task.predictors)

    def their_boosting(_: int) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            max_iter=boosted.rounds, max_depth=boosted.max_depth, early_stopping=False
        )

    def their_forest(seed: int) -> RandomForestClassifier:
        return RandomForestClassifier(
            forest.trees, max_depth=forest.max_depth, min_samples_leaf=forest.min_leaf, random_state=seed
        )

    rows = []
    for spec, pooled_model, seeds in ((boosted, their_boosting, 1), (forest, their_forest, 5)):
        scorer, where = REGISTRY[type(spec)].scorer, replace(task.setting, mode="exact")
        assert scorer is not None
        gaps = []
        for trial in task.trials[:trials]:
            model = scorer.parameters(spec, where, run(spec, where, trial.fit))
            ours = area(task, spec, scorer, model, "exact", trial.judge)
            x, y = pooled(task, trial.fit, coded=True)
            new, truth = pooled(task, trial.judge, coded=True)
            areas = [auc(pooled_model(k).fit(x, y).predict_proba(new)[:, 1], truth) for k in range(seeds)]
            gaps.append((ours, float(np.mean(areas))))
        ours, anchor = np.mean(gaps, axis=0).tolist()
        rows.append(
            Row(
                f"AUC less scikit-learn's, exact {REGISTRY[type(spec)].algorithm.name}, {task.name}",
                ours - anchor,
                "AUC",
                "at least -.005",
                f"scikit-learn, the same patients in one place: {anchor:.4f}, {len(gaps)} trials",
                ours - anchor >= -WITHIN,
            )
        )
    return rows


def svm_rows(task: Task) -> list[Row]:
    """Largest difference of a decision value from scikit-learn's, linear and random features."""
    rows, where = [], replace(task.setting, mode="exact")
    for spec in (
        SupportVectors(task.outcome, task.predictors),
        SupportVectors(task.outcome, task.predictors, kernel="rbf"),
    ):
        kernel = Kernel(spec.features if spec.kernel == "rbf" else 0, spec.gamma, spec.seed)
        trial = task.trials[0]
        model = np.array(run(spec, where, trial.fit)["parameters"])
        kept = [included(task.predictors, task.outcome, where, data) for data in trial.fit]
        x = np.vstack([columns(kernel, task.predictors, where, d)[k] for d, k in zip(trial.fit, kept, strict=True)])
        y = np.concatenate([d.column(task.outcome)[k] for d, k in zip(trial.fit, kept, strict=True)])
        fit = LinearSVC(C=spec.cost, dual=False, tol=1e-10, max_iter=100_000, fit_intercept=False).fit(x, y)
        ours = np.concatenate(
            [SvmScorer().decisions(spec, where, model, d)[k] for d, k in zip(trial.fit, kept, strict=True)]
        )
        gap = float(np.abs(ours - fit.decision_function(x)).max())
        anchor = "scikit-learn's LinearSVC on the same columns, tol 1e-10"
        label = f"largest difference of a decision value, exact svm, {spec.kernel}, {task.name}"
        rows.append(Row(label, gap, "decision", "at most 1e-3", anchor, gap <= 1e-3))
    return rows


def main() -> None:
    args = options(__doc__ or "")
    trials, small = (QUICK_TRIALS, QUICK_TRIALS) if args.quick else (TRIALS, SMALL_TRIALS)
    with threadpool_limits(1):
        for task in (pilot(trials), public("breast cancer", small), public("diabetes", small)):
            for row in (*private_rows(task), *exact_rows(task, 1 if args.quick else trials), *svm_rows(task)):
                show(row, as_json=args.json)


if __name__ == "__main__":
    main()
