"""Networks trained across hubs beside the same network trained on all patients in one place: AUC on new patients.

    python benchmarks/deep_models.py [--quick] [--json]

Data: the simulated pilot (3,063 men at three hubs; judged on 15,300 others), scikit-learn's breast cancer (569) and
its digits as images of 1 x 8 x 8 (1,797; the outcome is whether the digit is 5 or more), two thirds to train on.
Divisions: at random among three hubs; by outcome, of which one hub has 80 %, one 20 % (80/20); by the mean of
the predictors or the image's brightness, thirds of it (by feature).
One thread: steps are small, and a machine that has other work is not slowed down by waiting threads.
Anchor: the same layers, initial weights, optimiser (torch.optim.SGD), batch and number of passes over the patients,
in one place. What differs: hubs average after every round, and momentum begins anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace as changed
from sklearn.datasets import load_breast_cancer, load_digits
from torch.nn.functional import binary_cross_entropy_with_logits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from private_regression import FRESH, FRESH_SEED, auc, hubs_of, pilot_agreement
from rows import Row, options, show

from flute.algorithms.contract import LogisticRegression, Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.build import build, flat, load
from flute.deep.inputs import chosen, inputs, shapes, sized_for
from flute.deep.layers import Activation, Conv, Dense, Layers, Pool
from flute.deep.scorer import NetworkScorer
from flute.deep.spec import NeuralNetwork, Training
from flute.deep.start import start_weights
from support.networks import carried, joined, table

GOAL = 0.01
"""Of the AUC of training in one place."""
TRAINING = Training(rounds=20, local_epochs=2, proximal=0.1)
"""Of every method alike; fedprox and scaffold alone are pulled."""
METHODS = ("fedavg", "fedprox", "scaffold", "fedadam")
FIRST_SEED, TRIALS, QUICK_TRIALS = 4_001, 3, 1
DNN: Layers = (Dense(16), Activation(), Dense(8), Activation())
CNN: Layers = (Conv(8), Activation(), Pool(), Conv(16), Activation(), Pool(), Dense(16), Activation())


@dataclass(frozen=True)
class Task:
    """fit, judge: all patients in one place. feature: [fit], by which hubs differ."""

    name: str
    spec: NeuralNetwork
    setting: Setting
    fit: Dataset
    judge: Dataset
    feature: Array


def pilot(trial: int) -> Task:
    agreement = pilot_agreement()
    model, where = agreement.question("model").what, replace(agreement.setting, mode="exact")
    assert isinstance(model, LogisticRegression)
    used = [where.variables[name] for name in (model.outcome, *model.predictors)]
    fit = joined(list(hubs_of(FIRST_SEED + trial, where).values()), used)
    judge = joined(list(hubs_of(FRESH_SEED, where, FRESH).values()), used)
    spec = NeuralNetwork(model.outcome, model.predictors, network=DNN, training=TRAINING, seed=trial)
    return Task("pilot", spec, where, fit, judge, inputs(spec, where, fit).x.mean(axis=1))


def breast_cancer(trial: int) -> Task:
    found = load_breast_cancer()
    names = tuple(f"x{j}" for j in range(found.data.shape[1]))
    ends = zip(names, found.data.min(axis=0).tolist(), found.data.max(axis=0).tolist(), strict=True)
    variables = [StudyVariable(Variable(name, "number", low, high)) for name, low, high in ends]
    spec = NeuralNetwork("y", names, network=DNN, training=TRAINING, seed=trial)
    columns = dict(zip(names, found.data.T, strict=True)) | {"y": (found.target == 0).astype(np.float64)}
    return public("breast cancer", spec, variables, columns, None, trial)


def digits(trial: int) -> Task:
    found = load_digits()
    variables = [StudyVariable(Variable("digit", "image", 0, 16, shape=(1, 8, 8)))]
    spec = NeuralNetwork("y", image="digit", network=CNN, training=TRAINING, seed=trial)
    columns = {"y": (found.target >= 5).astype(np.float64), "digit": np.ones(len(found.target))}
    return public("digits", spec, variables, columns, found.images[:, None].astype(np.float32), trial)


def public(name: str, spec: NeuralNetwork, variables: Sequence[StudyVariable], columns: dict[str, Array],
           images: np.ndarray | None, trial: int) -> Task:  # fmt: skip
    every = [*variables, StudyVariable(Variable("y", "binary"))]
    where = Setting({v.variable.name: v for v in every}, "drop", "exact", ("a", "b", "c"), {})
    order = np.random.default_rng([FIRST_SEED, trial]).permutation(len(columns["y"]))
    fit, judge = np.split(order, [2 * len(order) // 3])
    data = [
        table({k: v[rows] for k, v in columns.items()}, every, {} if images is None else {spec.image: images[rows]})
        for rows in (fit, judge)
    ]
    feature = inputs(spec, where, data[0]).x.mean(axis=1) if images is None else images[fit].mean(axis=(1, 2, 3))
    return Task(name, spec, where, data[0], data[1], feature)


def divisions(task: Task, trial: int) -> Iterator[tuple[str, list[Dataset]]]:
    chance = np.random.default_rng([FIRST_SEED, trial, 1])
    y = task.fit.column(task.spec.outcome)
    part = chance.random(len(y))
    ends = np.where(y == 1, 0.8, 0.2)
    skewed = np.select([part < ends, part < (1 + ends) / 2], [0, 1], 2)
    thirds = np.searchsorted(np.quantile(task.feature, [1 / 3, 2 / 3]), task.feature)
    owners = {"alike": chance.integers(0, 3, len(y)), "80/20 by outcome": skewed, "by feature": thirds}
    for name, owner in owners.items():
        yield name, [task.fit.where(owner == hub) for hub in range(3)]


def area(task: Task, weights: Array) -> float:
    kept = chosen(task.spec, task.setting, task.judge)
    risks = NetworkScorer().risks(task.spec, task.setting, weights, task.judge)
    return auc(risks[kept], task.judge.column(task.spec.outcome)[kept])


def federated(task: Task, hubs: Sequence[Dataset], method: str) -> float:
    spec = changed(task.spec, training=changed(task.spec.training, method=method))
    result = carried(spec, task.setting, hubs)
    return area(task, NetworkScorer().parameters(spec, task.setting, result))


def in_one_place(task: Task) -> float:
    """The usual loop of torch."""
    spec, sized = task.spec, sized_for(task.spec, task.setting)
    given, training = inputs(spec, task.setting, task.fit), spec.training
    module = build(spec.network, *shapes(spec, task.setting))
    load(module, start_weights(sized.parameters, spec.seed), sized.parameters)
    kept = np.flatnonzero(given.included)
    optimiser = torch.optim.SGD(module.parameters(), training.learning_rate, training.momentum)
    chance = np.random.default_rng([FIRST_SEED, spec.seed, 2])
    for _ in range(training.rounds * training.local_epochs):
        for rows in np.array_split(chance.permutation(kept), range(training.batch, len(kept), training.batch)):
            images = given.images(rows)
            parts = [given.x[rows], *([] if images is None else [images])]
            logits = module(*(torch.from_numpy(part) for part in parts))
            optimiser.zero_grad()
            binary_cross_entropy_with_logits(logits, torch.from_numpy(given.y[rows])).backward()
            optimiser.step()
    return area(task, flat(module, sized.parameters))


def rows(trials: int, methods: Sequence[str]) -> Iterator[Row]:
    for make in (pilot, breast_cancer, digits):
        tasks = [make(trial) for trial in range(trials)]
        pooled = [in_one_place(task) for task in tasks]
        found: dict[tuple[str, str], list[float]] = {}
        for trial, task in enumerate(tasks):
            for division, hubs in divisions(task, trial):
                for method in methods:
                    found.setdefault((division, method), []).append(federated(task, hubs, method))
        anchor = f"torch.optim.SGD in one place {np.mean(pooled):.4f}"
        for (division, method), areas in found.items():
            lost = float(np.mean(pooled) - np.mean(areas))
            goal = f"AUC at most {GOAL} below the anchor" if method == "fedavg" else ""
            yield Row(f"{tasks[0].name}, {division}, {method}", float(np.mean(areas)), "AUC", goal,
                      f"{anchor}; {trials} divisions", lost <= GOAL if goal else None)  # fmt: skip


def main() -> None:
    asked = options(__doc__ or "")
    torch.set_num_threads(1)
    for row in rows(QUICK_TRIALS if asked.quick else TRIALS, METHODS[:1] if asked.quick else METHODS):
        show(row, as_json=asked.json)


if __name__ == "__main__":
    main()
