"""What privacy costs a logistic regression: loss of AUC against the exact fit on the same patients.

    python benchmarks/private_regression.py [--quick] [--json]

Data: the simulated pilot, three hubs of 1,963, 700 and 400 men; those with missing values are left out, as the
study says. Mechanism: the whole epsilon at delta 1e-6 for one model, one of three hubs may collude; prices, clipping,
rounding and noise are the ones hubs use (`study.protection`), only masks and messages are left out.
Anchor: maximum likelihood without noise on the very same patients, run in the same loop.
Seeds: constants were chosen on 1 to 40; cohorts here are 1,001 to 1,100, each with noise of its own.
"Fresh" figures are on 15,300 simulated men whom neither model has seen.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from msgspec import structs
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.algorithms.contract import Finished, LogisticRegression, Opened, Setting, StudyVariable
from flute.algorithms.design import bounds, design_for, included, matrix, raw_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import DELTA
from flute.pilot import studies
from flute.pilot.simulate import simulate
from flute.questions.code import code_digest
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement
from flute.study.files.file import read_study_file
from flute.study.protection import RAND_SIZE, cover, prices, uncover
from support.sums import run

FIRST_SEED, SEEDS, QUICK_SEEDS = 1_001, 100, 10
FRESH = {"huvh": 9_800, "chu": 3_500, "irst": 2_000}
FRESH_SEED = 10_001
QUESTION = "model"


@dataclass(frozen=True)
class Goal:
    """Bounds of the median and of the 95th percentile of the loss of AUC; the AUC's own sampling error is .007."""

    median: float
    tail: float | None


GOALS = {1.0: Goal(0.0025, 0.009), 3.0: Goal(0.001, None)}
DEFAULT_SCALE_GOALS = {1.0: Goal(0.00375, 0.0135), 3.0: Goal(0.0015, None)}


@dataclass(frozen=True)
class Loss:
    """One cohort and one draw of noise. `slope`: calibration slope on fresh men, 1 is ideal."""

    same: float
    fresh: float
    slope: float
    anchor: float


def main() -> None:
    args = options(__doc__ or "")
    seeds = range(FIRST_SEED, FIRST_SEED + (QUICK_SEEDS if args.quick else SEEDS))
    given = pilot_agreement()
    cohorts = {seed: hubs_of(seed, given.setting) for seed in seeds}
    fresh = list(hubs_of(FRESH_SEED, given.setting, FRESH).values())
    for label, agreement, goals in (
        ("", given, GOALS),
        (", default scales", default_scales(given), DEFAULT_SCALE_GOALS),
    ):
        exact = {seed: exact_fit(agreement, hubs) for seed, hubs in cohorts.items()}
        for epsilon, goal in goals.items():
            whole = structs.replace(agreement, epsilon=epsilon)
            found = [trial(whole, seed, cohorts[seed], exact[seed], fresh) for seed in seeds]
            for row in summary(found, f"epsilon {epsilon:g}, delta {DELTA:g}{label}", goal):
                show(row, as_json=args.json)


def pilot_agreement() -> Agreement:
    """The pilot's study as it ships, its whole budget for its main model."""
    path = Path(next(iter(studies.__path__))) / "pilot.yaml"
    agreement, _ = read_study_file(path.read_text(), path=path.name, code=code_digest())
    question = structs.replace(agreement.question(QUESTION), share=1.0)
    assert isinstance(question.what, LogisticRegression)
    assert (len(agreement.hubs), agreement.plan.colluding, agreement.delta) == (3, 1, DELTA)
    return structs.replace(agreement, questions=(question,))


def default_scales(agreement: Agreement) -> Agreement:
    """As if the study file gave no centre and spread: the middle and a quarter of each range."""

    def default(v: StudyVariable) -> StudyVariable:
        if v.variable.kind != "number":
            return v
        low, high = bounds(v)
        return StudyVariable(v.variable, v.log, "reference", (low + high) / 2, (high - low) / 4)

    return structs.replace(agreement, variables=tuple(default(v) for v in agreement.variables))


def hubs_of(seed: int, setting: Setting, sizes: dict[str, int] | None = None) -> dict[str, Dataset]:
    found = {}
    for name, hub in simulate(seed, sizes).items():
        variables = [v.variable for v in setting.variables.values()]
        columns = {v.name: v.numbers(np.array(hub.truth[v.name])) for v in variables}
        found[name] = Dataset(np.array(hub.eligible), columns, variables)
    return found


def exact_fit(agreement: Agreement, hubs: Mapping[str, Dataset]) -> Sequence[float]:
    exactly = replace(agreement.setting, mode="exact")
    found: Sequence[float] = run(agreement.question(QUESTION).what, exactly, list(hubs.values()))["raw_coefficients"]
    return found


def private_fit(agreement: Agreement, hubs: Mapping[str, Dataset], chance: np.random.Generator) -> Sequence[float]:
    """Raw coefficients after the agreed steps, every hub's sum covered as it would be before it is masked."""
    question, setting = agreement.question(QUESTION), agreement.setting
    algorithm, steps = algorithm_for(question.what), prices(agreement, question)
    history: list[Opened] = []
    while not isinstance(ask := algorithm.next(question.what, setting, history, {}), Finished):
        step, price = len(history), steps[len(history)]
        parts = []
        for data in hubs.values():
            updates = algorithm.update(question.what, setting, step, ask.parameters, data)
            parts.append(cover(updates, price, hubs=len(hubs), rand=chance.bytes(RAND_SIZE)))
        history.append(Opened(ask.parameters, *uncover(np.sum(parts, axis=0), price)))
    found: Sequence[float] = ask.result["raw_coefficients"]
    return found


def trial(
    agreement: Agreement, seed: int, hubs: Mapping[str, Dataset], exact: Sequence[float], fresh: Sequence[Dataset]
) -> Loss:
    private = private_fit(agreement, hubs, np.random.default_rng([seed, round(1000 * agreement.epsilon)]))
    same = list(hubs.values())
    areas = [[auc(*scores(agreement, b, data)) for b in (exact, private)] for data in (same, fresh)]
    slope = calibration_slope(*scores(agreement, private, fresh))
    return Loss(areas[0][0] - areas[0][1], areas[1][0] - areas[1][1], slope, areas[0][0])


def scores(agreement: Agreement, coefficients: Sequence[float], hubs: Sequence[Dataset]) -> tuple[Array, Array]:
    spec, setting = agreement.question(QUESTION).what, agreement.setting
    assert isinstance(spec, LogisticRegression)
    design = design_for(spec.predictors, setting)
    parts = []
    for data in hubs:
        chosen = included(spec.predictors, spec.outcome, setting, data)
        eta = matrix(design, raw_scaling(design), data) @ np.array(coefficients)
        parts.append((eta[chosen], data.column(spec.outcome)[chosen]))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def auc(score: Array, outcome: Array) -> float:
    cases = float(outcome.sum())
    ranks = float(rankdata(score)[outcome == 1].sum())
    return (ranks - cases * (cases + 1) / 2) / (cases * (len(outcome) - cases))


def calibration_slope(score: Array, outcome: Array) -> float:
    x, b = np.column_stack([np.ones_like(score), score]), np.zeros(2)
    for _ in range(25):
        p = 1 / (1 + np.exp(-x @ b))
        b = b + np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]), x.T @ (outcome - p))
    return float(b[1])


def summary(found: Sequence[Loss], case: str, goal: Goal) -> list[Row]:
    same, fresh, slopes = (np.array([getattr(loss, what) for loss in found]) for what in ("same", "fresh", "slope"))
    anchor = f"exact fit on the same patients: mean AUC {np.mean([loss.anchor for loss in found]):.4f}"
    median, tail, slope = float(np.median(same)), float(np.quantile(same, 0.95)), float(slopes.mean())
    outside = float(np.mean((slopes < 0.85) | (slopes > 1.15)))
    tail_goal = "" if goal.tail is None else f"at most {goal.tail:g}"
    return [
        Row(
            f"loss of AUC, median of {len(same)} cohorts, {case}",
            median,
            "AUC",
            f"at most {goal.median:g}",
            anchor,
            median <= goal.median,
        ),
        Row(
            f"loss of AUC, 95th percentile, {case}",
            tail,
            "AUC",
            tail_goal,
            anchor,
            None if goal.tail is None else tail <= goal.tail,
        ),
        Row(f"loss of AUC, mean, {case}", float(same.mean()), "AUC", "", anchor, None),
        Row(f"largest loss of AUC, {case}", float(same.max()), "AUC", "", anchor, None),
        Row(f"loss of AUC on fresh patients, median, {case}", float(np.median(fresh)), "AUC", "", anchor, None),
        Row(
            f"calibration slope on fresh patients, mean, {case}",
            slope,
            "",
            "within .85 to 1.15",
            anchor,
            0.85 < slope < 1.15,
        ),
        Row(f"cohorts whose slope is outside .85 to 1.15, {case}", outside, "share", "", anchor, None),
    ]


if __name__ == "__main__":
    main()
