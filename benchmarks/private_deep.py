"""Private networks: AUC on new patients against epsilon, beside opacus DP-SGD on the same patients in one place.

    python benchmarks/private_deep.py [--quick] [--json]

Data: a dense network on the simulated pilot (three hubs, 3,063 men), and on scikit-learn's breast cancer (569) and
diabetes (442, the outcome above 140); a convolutional network on its digits (1,797 images of 8 x 8; is the digit at
least 5?). Public sets are divided anew for every trial, two thirds to fit and one to judge; three hubs.
Privacy: one question has the whole epsilon at delta 1e-6; of three hubs one may collude, so a total carries 1.5 times
the variance that is charged. Noise is Gaussian, as `tests/support/sums.py` draws it. Ours has one setting for all
data and every epsilon: what `flute` does when nothing but layers and rounds are said.
Anchor: opacus, the same inputs on the same public scale, the same layers, all patients in one place, noise as charged
(nobody to collude), Poisson batches or all patients, the PRV accountant. Of several settings each trial has the one
that was best on the other trials at that epsilon: so its tuning costs it no privacy, and is not judged on its own
luck. opacus needs torch beside it: give an environment's Python as FLUTE_OPACUS_PYTHON.
Seeds: constants were chosen on other divisions, cohorts and noise (first seed 5001), and on some of the pilot's first
cohorts: its cohorts and new patients here are others. FILTER_PACE was chosen on other outcomes of the digits.
Trials: as many as tell a difference of .005, or as an hour allows; the row says to what it is known.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from private_models import EPSILONS, FIRST_SEED, HERE, WITHIN, Task, Trial, area, pilot, public
from private_regression import FRESH, hubs_of
from rows import Row, options, show
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from flute.algorithms.contract import StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.inputs import inputs
from flute.deep.layers import Activation, Conv, Dense, Layers, Pool
from flute.deep.scorer import NetworkScorer
from flute.deep.spec import NeuralNetwork, Training
from flute.defaults import DELTA
from flute.study.protection import budget_of
from support.sums import Privacy, run, setting

ROUNDS = 40
TABLES: Layers = (Dense(16), Activation("tanh"))
IMAGES: Layers = (Conv(8), Activation("tanh"), Pool(2), Conv(16), Activation("tanh"), Pool(2))
SIDE = 8
PILOT_SEED, PILOT_JUDGE_SEED = 9_001, 9_901
"""Nothing was chosen on these."""
Counts = Mapping[float, int]
QUICK: Counts = {1.0: 1}


@dataclass(frozen=True)
class Network:
    """One data set and its network, and how many trials it gets at every epsilon."""

    task: Task
    spec: NeuralNetwork
    trials: Counts

    @property
    def label(self) -> str:
        return "CNN" if self.spec.image else "DNN"


def table(task: Task, trials: Counts) -> Network:
    spec = NeuralNetwork(task.outcome, task.predictors, network=TABLES, training=Training(rounds=ROUNDS))
    return Network(task, spec, trials)


def new_pilot(trials: int) -> Task:
    """Cohorts and new patients on which nothing was chosen."""
    known = pilot(0)
    judge = list(hubs_of(PILOT_JUDGE_SEED, known.setting, FRESH).values())
    seeds = range(PILOT_SEED, PILOT_SEED + trials)
    return replace(known, trials=[Trial(list(hubs_of(seed, known.setting).values()), judge) for seed in seeds])


def digits(trials: Counts) -> Network:
    found = load_digits()
    pixels, y = found.images[:, None].astype(np.float32), (found.target >= 5).astype(np.float64)
    variables = [
        StudyVariable(Variable("scan", "image", 0.0, 16.0, shape=(1, SIDE, SIDE))),
        StudyVariable(Variable("y", "binary")),
    ]
    divided = []
    for seed in range(max(trials.values())):
        chance = np.random.default_rng([FIRST_SEED, seed])
        fit, judge = np.split(chance.permutation(len(y)), [2 * len(y) // 3])
        owner = chance.integers(0, 3, len(fit))
        parts = [fit[owner == hub] for hub in range(3)]
        divided.append(
            Trial([images(pixels[i], y[i], variables) for i in parts], [images(pixels[judge], y[judge], variables)])
        )
    task = Task("digits", setting(variables), "y", (), divided)
    spec = NeuralNetwork("y", image="scan", network=IMAGES, training=Training(rounds=ROUNDS))
    return Network(task, spec, trials)


def images(pixels: Any, y: Array, variables: Sequence[StudyVariable]) -> Dataset:
    columns = {"scan": np.ones(len(y)), "y": y}
    names = np.array([f"p{i}" for i in range(len(y))])
    return Dataset(names, columns, [v.variable for v in variables], {"scan": pixels})


def ours(network: Network, epsilon: float) -> list[float]:
    """AUC of every trial."""
    where, scorer = replace(network.task.setting, mode="private"), NetworkScorer()
    rho, _ = budget_of(epsilon, DELTA)
    found = []
    for k, trial in enumerate(network.task.trials[: network.trials[epsilon]]):
        spec = msgspec.structs.replace(network.spec, seed=k)
        privacy = Privacy(rho, np.random.default_rng([FIRST_SEED, k, round(10 * epsilon)]))
        weights = scorer.parameters(spec, where, run(spec, where, trial.fit, privacy=privacy))
        found.append(area(network.task, spec, scorer, weights, "private", trial.judge))
    return found


# --- the anchor -------------------------------------------------------------------------------


def theirs(network: Network, *, quick: bool) -> Mapping[str, list[list[float]]]:
    """Setting to AUCs, by epsilon and trial; empty without opacus."""
    python = os.environ.get("FLUTE_OPACUS_PYTHON", "")
    if not python:
        return {}
    given: dict[str, Any] = {
        "epsilons": np.array([*network.trials]), "trials": np.array([*network.trials.values()]), "delta": DELTA,
        "quick": quick,
    }  # fmt: skip
    for k, trial in enumerate(network.task.trials):
        given[f"train_{k}"], given[f"outcome_{k}"] = pooled(network, trial.fit)
        given[f"test_{k}"], given[f"outcometest_{k}"] = pooled(network, trial.judge)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.npz"
        np.savez(path, **given)
        command = [python, str(HERE / "opacus_anchor.py"), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[list[float]]] = json.loads(done.stdout)
    return found


def pooled(network: Network, hubs: Sequence[Dataset]) -> tuple[Array, Array]:
    """All patients in one place: what the network is given, and the outcome."""
    x, y = [], []
    for data in hubs:
        given = inputs(network.spec, network.task.setting, data)
        kept = np.flatnonzero(given.included)
        scans = given.images(kept)
        x.append(given.x[kept] if scans is None else scans)
        y.append(given.y[kept])
    return np.concatenate(x), np.concatenate(y).astype(np.float64)


def chosen(found: Mapping[str, list[list[float]]], at: int) -> tuple[list[float], str]:
    """AUC of every trial, each by the setting that is best on the other ones (on all, where there is one trial); and
    the setting that was chosen most often."""
    names = list(found)
    areas = np.array([found[name][at] for name in names])
    trials = areas.shape[1]
    others = (areas.sum(axis=1, keepdims=True) - areas) / (trials - 1) if trials > 1 else areas
    best = others.argmax(axis=0)
    return areas[best, np.arange(trials)].tolist(), names[int(np.bincount(best).argmax())]


# --- rows -------------------------------------------------------------------------------------


def rows(network: Network, *, quick: bool) -> list[Row]:
    anchors, found = theirs(network, quick=quick), []
    for at, epsilon in enumerate(network.trials):
        areas = np.array(ours(network, epsilon))
        label = f"AUC, private {network.label}, {network.task.name}, epsilon {epsilon:g}"
        goal, mean = "at least opacus' less .005", float(areas.mean())
        if not anchors:
            found.append(Row(label, mean, "AUC", goal, "ABSENT: opacus (set FLUTE_OPACUS_PYTHON)", None))
            continue
        their_areas, name = chosen(anchors, at)
        gap = areas - np.array(their_areas)
        error = f"{gap.std(ddof=1) / np.sqrt(len(gap)):.4f}" if len(gap) > 1 else "nothing that one trial can say"
        anchor = (
            f"opacus DP-SGD, the best of {len(anchors)} settings by the other trials: {np.mean(their_areas):.4f}; "
            f"mean of the same {len(gap)} trials, the difference is known to {error}; most often {name}"
        )
        found.append(Row(label, mean, "AUC", goal, anchor, bool(gap.mean() >= -WITHIN)))
    return found


def networks(*, quick: bool) -> list[Network]:
    if quick:
        return [table(public("breast cancer", 1), QUICK), digits(QUICK)]
    same: dict[int, Counts] = {count: dict.fromkeys(EPSILONS, count) for count in (4, 12)}
    return [
        digits({0.5: 96, 1.0: 24, 3.0: 8, 10.0: 8}),
        table(new_pilot(4), same[4]),
        table(public("breast cancer", 12), same[12]),
        table(public("diabetes", 200), {0.5: 24, 1.0: 200, 3.0: 24, 10.0: 24}),
    ]


def main() -> None:
    args = options(__doc__ or "")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for network in networks(quick=args.quick):
            for row in rows(network, quick=args.quick):
                show(row, as_json=args.json)


if __name__ == "__main__":
    main()
