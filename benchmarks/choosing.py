"""Ways to choose among eight models at the same epsilon: what the chosen one loses over the best.

    python benchmarks/choosing.py [--quick] [--json]

1,500 patients with ten numbers, of which four tell of the outcome; half of epsilon 1 at 1e-6 (as rho) for choosing,
half for the fit of the chosen model. Models: strengths of a ridge, or the first few of the predictors. A model's loss
is its mean log-loss on 20,000 other patients, over fits at half of the budget; a choice loses the difference to the
least of these. Noise is Gaussian, of three hubs of which two are counted on, without masks and messages.
Anchor: as many trials, each a cross-validation of its own (two folds), which share the budget; and chance.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.algorithms.contract import LogisticRegression, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.models.regression.penalised import PenalisedRegression
from flute.models.validation.choice import ChooseModel
from flute.models.validation.crossval import CrossValidate
from flute.questions.registry import REGISTRY
from flute.study.protection import budget_of
from support.sums import Privacy, run, setting

RUNS, QUICK_RUNS, TRUE_RUNS, QUICK_TRUE_RUNS = 200, 3, 20, 4
PATIENTS, OTHERS, WITHIN = 1_500, 20_000, 1.02
NAMES = tuple(f"x{k}" for k in range(10))
EFFECTS = np.array([0.9, 0.6, -0.5, 0.3, *(0.0,) * 6])
USED = (*(StudyVariable(Variable(name, "number", -4, 4)) for name in NAMES), StudyVariable(Variable("ill", "binary")))
AGREED = setting(USED, mode="private")
STRENGTHS = tuple(PenalisedRegression("ill", NAMES, (float(s),)) for s in np.geomspace(3, 1e-3, 8))
SETS = tuple(LogisticRegression("ill", NAMES[:k]) for k in (1, 2, 3, 4, 5, 6, 8, 10))
Models = Sequence[LogisticRegression | PenalisedRegression]


def main() -> None:
    args = options(__doc__ or "")
    rho = budget_of(1.0, 1e-6)[0] / 2
    for name, models in (("strengths of a ridge", STRENGTHS), ("lists of predictors", SETS)):
        chance = default_rng(1)
        losses = true_losses(models, rho, chance, QUICK_TRUE_RUNS if args.quick else TRUE_RUNS)
        for row in rows(name, models, losses, rho, chance, QUICK_RUNS if args.quick else RUNS):
            show(row, as_json=args.json)


def people(n: int, chance: Generator) -> Dataset:
    x = chance.normal(size=(n, len(NAMES))).clip(-4, 4)
    ill = (chance.random(n) < expit(-0.8 + x @ EFFECTS)).astype(float)
    pseudonyms = np.array([f"p{k}" for k in chance.integers(1 << 40, size=n)])
    return Dataset(pseudonyms, dict(zip(NAMES, x.T, strict=True)) | {"ill": ill}, [u.variable for u in USED])


def true_losses(models: Models, rho: float, chance: Generator, runs: int) -> Array:
    others = people(OTHERS, default_rng(99))
    ill, found = others.column("ill") == 1, np.zeros((runs, len(models)))
    for k in range(runs):
        patients = people(PATIENTS, chance)
        for m, model in enumerate(models):
            scorer = REGISTRY[type(model)].scorer
            assert scorer is not None
            result = run(model, AGREED, [patients], privacy=Privacy(rho, chance))
            risk = scorer.risks(model, AGREED, np.asarray(scorer.parameters(model, AGREED, result)), others)
            found[k, m] = -np.mean(np.log(np.clip(np.where(ill, risk, 1 - risk), np.exp(-4), 1)))
    return found.mean(axis=0)


def by_trials(models: Models, patients: Dataset, rho: float, chance: Generator) -> int:
    each = Privacy(rho / len(models), chance)
    found = [run(CrossValidate(m, 2, 16), AGREED, [patients], privacy=each)["log_loss"] for m in models]
    return int(np.argmin([one["value"] if one else np.inf for one in found]))


def by_one_question(models: Models, patients: Dataset, rho: float, chance: Generator) -> int:
    return int(run(ChooseModel(tuple(models)), AGREED, [patients], privacy=Privacy(rho, chance))["best"])


def rows(name: str, models: Models, losses: Array, rho: float, chance: Generator, runs: int) -> list[Row]:
    ways: dict[str, Callable[[Models, Dataset, float, Generator], int]] = {
        "trials": by_trials, "one question": by_one_question
    }  # fmt: skip
    chosen: dict[str, list[int]] = {way: [] for way in ways}
    for _ in range(runs):
        patients = people(PATIENTS, chance)
        for way, choose in ways.items():
            chosen[way].append(choose(models, patients, rho, chance))
    least, lost = float(losses.min()), {way: losses[picked] for way, picked in chosen.items()}
    anchor = f"by chance {float(losses.mean()) - least:.4f} nats; {runs} runs"
    found = []
    for way, own in lost.items():
        mine = way == "one question"
        holds = bool(own.mean() < lost["trials"].mean()) if mine else None
        goal = "less than trials at the same epsilon" if mine else ""
        found.append(
            Row(f"{name}, {way}: lost over the best", float(own.mean()) - least, "nats", goal, anchor, holds)
        )
        part = float(np.mean(own <= WITHIN * least))
        found.append(Row(f"{name}, {way}: within 2 % of the best", part, "of runs", "", anchor, None))
    return found


if __name__ == "__main__":
    main()
