"""Linear models: how equal they are to pooled fits, and what a robust model gives up and costs.

    python benchmarks/algorithm_cases/linear_models.py [--quick] [--json]

- glm against statsmodels, penalised-regression against scikit-learn, over the same rows split among 3 and 10 hubs, of
  which one is empty and one has a single row: the largest relative error of a coefficient, a standard error, the
  deviance and AIC, sums rounded to 40 fraction bits as plans round them.
- robust-model against the pooled maximum likelihood fit, on patients neither has seen: the simulated pilot (three
  hubs of 1,963, 700 and 400 men) and five hubs of 200 whose effects are alike, or differ by half.
- The median on shares: processor seconds of one hub, rounds, and what one hub sends to each other, all hubs in turn
  in one process.
- Private gaussian: the error of coefficients beside that of chance in who was a patient.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from private_regression import FRESH, FRESH_SEED, hubs_of, pilot_agreement
from rows import Row, options, show

from flute.algorithms.contract import LogisticRegression, Setting, Spec
from flute.algorithms.design import design_for, included, matrix, raw_scaling
from flute.attacks.figures import auc
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.models.linear_models import ROBUST_FRACTION_BITS, ROBUST_LIMIT_BITS
from flute.models.regression.glm import GeneralisedLinearModel
from flute.models.regression.penalised import PenalisedRegression
from flute.models.robust.median import middle
from flute.models.robust.model import RobustModel, RobustModelAlgorithm, ballot, prior, result
from flute.models.robust.own_fit import own_fit
from flute.mpc.party import Party
from support.mpc_parties import compute
from support.robust_attacks import POISONS, Scene, bent
from support.sums import run
from unit import test_models_glm as glm_tables
from unit import test_models_penalised as penalised_tables

EXACT = 1e-6
PILOT_LOSS = 0.01


def main() -> None:
    args = options(__doc__ or "")
    for row in cases(args.quick):
        show(row, as_json=args.json)


def cases(quick: bool) -> Iterator[Row]:
    yield from glm_rows(3 if quick else 10)
    yield from penalised_rows()
    yield from robust_rows(4 if quick else 25)
    yield from cost_rows((3, 5) if quick else (3, 5, 8))
    yield from private_rows(40 if quick else 200)


def relative(ours: Any, theirs: Any) -> float:
    """The largest difference, relative; of what is nearly 0 to the largest of its kind."""
    a, b = np.atleast_1d(np.asarray(ours, dtype=float)), np.atleast_1d(np.asarray(theirs, dtype=float))
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-3 * np.abs(b).max())))


def glm_rows(seeds: int) -> Iterator[Row]:
    for family in glm_tables.FAMILIES:
        for hubs in (3, 10):
            worst = 0.0
            for seed in range(40, 40 + seeds):
                found = glm_tables.table(seed, family, 400)
                spec = GeneralisedLinearModel("y", glm_tables.NAMES, family)
                ours = glm_tables.federated(found, glm_tables.owners(seed, 400, hubs), family, spec)
                theirs = glm_tables.pooled(found, family, False)
                worst = max(
                    worst,
                    relative(ours["coefficients"], theirs.params),
                    relative(ours["standard_errors"], theirs.bse),
                    relative(ours["deviance"], theirs.deviance),
                    relative(ours["aic"], theirs.aic),
                )
            yield Row(
                f"glm {family}, {hubs} hubs", worst, "relative", f"at most {EXACT:g}", "statsmodels", worst <= EXACT
            )


def penalised_rows() -> Iterator[Row]:
    warnings.simplefilter("ignore")
    for family in ("binomial", "gaussian"):
        for ratio, name in ((0.0, "ridge"), (0.5, "elastic net"), (1.0, "lasso")):
            for hubs in (3, 10):
                found, worst = penalised_tables.table(21, family, 260), 0.0  # type: ignore[arg-type]
                grid = penalised_tables.GRID if family == "binomial" else tuple(30 * s for s in penalised_tables.GRID)
                spec = PenalisedRegression("y", glm_tables.NAMES, grid, ratio, family)  # type: ignore[arg-type]
                ours = penalised_tables.federated(found, glm_tables.owners(21, 260, hubs), spec)
                for row in ours["path"]:
                    theirs = penalised_tables.pooled(found, family, row["strength"], ratio)
                    worst = max(worst, relative(row["coefficients"], theirs))
                yield Row(
                    f"penalised-regression {family} {name}, five strengths, {hubs} hubs", worst, "relative",
                    f"at most {EXACT:g}", "scikit-learn", worst <= EXACT,
                )  # fmt: skip


# --- robust-model --------------------------------------------------------------------------------------


def robust_fit(spec: Spec, setting: Setting, hubs: list[Dataset]) -> dict[str, Any]:
    """What robust-model opens, in clear."""
    assert isinstance(spec, LogisticRegression)
    asked, design = RobustModel(spec.outcome, spec.predictors), design_for(spec.predictors, setting)
    votes = [ballot(own_fit(*RobustModelAlgorithm()._rows(asked, setting, data), prior(design))) for data in hubs]
    numbers = np.ldexp(np.median(votes, axis=0), -ROBUST_FRACTION_BITS)
    return result(asked, design, len(votes), numbers, "median")


def judged(spec: LogisticRegression, setting: Setting, found: dict[str, Any], data: list[Dataset]) -> float:
    design = design_for(spec.predictors, setting)
    odds: list[Array] = []
    ill: list[Any] = []
    for hub in data:
        chosen = included(spec.predictors, spec.outcome, setting, hub)
        odds.append(matrix(design, raw_scaling(design), hub)[chosen] @ np.array(found["raw_coefficients"]))
        ill.append(hub.column(spec.outcome)[chosen] == 1)
    return auc(np.concatenate(odds), np.concatenate(ill))


def robust_rows(seeds: int) -> Iterator[Row]:
    from dataclasses import replace

    agreement = pilot_agreement()
    spec, setting = agreement.questions[0].what, replace(agreement.setting, mode="exact")
    assert isinstance(spec, LogisticRegression)
    fresh = list(hubs_of(FRESH_SEED, setting, FRESH).values())
    pooled, robust = [], []
    for seed in range(1_001, 1_001 + seeds):
        hubs = list(hubs_of(seed, setting).values())
        pooled.append(judged(spec, setting, run(spec, setting, hubs), fresh))
        robust.append(judged(spec, setting, robust_fit(spec, setting, hubs), fresh))
    lost = np.array(pooled) - np.array(robust)
    yield Row("AUC of the pooled fit, pilot, fresh men", float(np.mean(pooled)), "", "", f"{seeds} cohorts", None)
    yield Row("AUC of robust-model, pilot, fresh men", float(np.mean(robust)), "", "", "the same cohorts", None)
    yield Row(
        "AUC that robust-model gives up, pilot, nobody poisons", float(lost.mean()), "", f"at most {PILOT_LOSS}",
        f"5th to 95th percentile {np.percentile(lost, 5):.4f} to {np.percentile(lost, 95):.4f}",
        float(lost.mean()) <= PILOT_LOSS,
    )  # fmt: skip
    for differ in (0.0, 0.5):
        cost = bent(Scene(differ=differ), POISONS["labels flipped"], 2 * seeds).efficiency
        yield Row(
            f"AUC that robust-model gives up, five hubs of 200, effects differ by {differ:.0%}", cost.value, "", "",
            f"95 % interval {cost.low:.4f} to {cost.high:.4f}", None,
        )  # fmt: skip


def cost_rows(sizes: tuple[int, ...]) -> Iterator[Row]:
    columns, bits = 11, ROBUST_FRACTION_BITS + ROBUST_LIMIT_BITS
    table = np.random.default_rng(1).integers(-4_000, 4_000, (max(sizes), 2 * columns))
    for hubs in sizes:

        def program(party: Party) -> Any:
            return (yield from middle(party, table[party.me - 1], votes=True, bits=bits, least=3))

        begin = time.process_time()
        done = compute(program, hubs)
        seconds = (time.process_time() - begin) / hubs
        assert np.array_equal(done.results[1][1], 2 * np.median(table[:hubs], axis=0))
        sent, rounds = done.parties[1].wire.sent_bytes / 1e6, done.parties[1].rounds
        said = f"{rounds} rounds, {sent:.2f} MB to each other hub, cheating hubs withstood"
        yield Row(f"robust-model on shares, {columns} columns, {hubs} hubs", seconds, "cpu s a hub", "", said, None)


# --- private -----------------------------------------------------------------------------------------------


def private_rows(runs: int) -> Iterator[Row]:
    truth = 4 * np.array([0.3, 0.4, -0.3, 0.5, -0.3, 0.4])
    for rho, epsilon in ((0.018, 1), (0.14, 3)):
        held, sampling, noise = [], [], []
        for seed in range(runs):
            ours, _ = glm_tables.private(seed, 3000, rho)
            held.append(np.abs(np.array(ours["coefficients"]) - truth) < 1.96 * np.array(ours["standard_errors"]))
            noise.append(ours["noise_standard_errors"])
            sampling.append(ours["sampling_standard_errors"])
        ratio, share = float(np.mean(noise) / np.mean(sampling)), float(np.mean(held))
        name = f"glm gaussian, private, 3,000 patients, six columns, epsilon about {epsilon}"
        yield Row(f"{name}: noise error over sampling error", ratio, "", "", f"{runs} runs", None)
        yield Row(f"{name}: 95 % intervals hold", share, "", "0.92 to 0.99", f"{runs} runs", 0.92 <= share <= 0.99)


if __name__ == "__main__":
    main()
