"""The noise errors that results state are the ones their noise has, and private models stay useful.

Every test draws from fixed seeds, so it either always passes or always fails; the false-alarm rate stated is
the one it would have with fresh seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.special import expit
from scipy.stats import chi2, rankdata

from flute.algorithms.contract import Describe, Evaluate, LogisticRegression, StudyVariable
from flute.algorithms.design import design_for, matrix, raw_scaling
from flute.algorithms.prefix import opened_counts, rows
from flute.algorithms.private_rows import coding, gradient_rows, private_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults import DELTA
from flute.dp.accounting import rho_for
from support.sums import Privacy, dataset, run, setting

ALPHA = 1e-6
VARIABLES = (
    StudyVariable(Variable("age", "number", 40, 90), scale="reference", centre=66, spread=8),
    StudyVariable(Variable("psa", "number", 0.1, 150), log=True, scale="reference", centre=1.9, spread=0.65),
    StudyVariable(Variable("volume", "number", 10, 250), log=True, scale="reference", centre=4.0, spread=0.45),
    StudyVariable(Variable("dre", "binary")),
    StudyVariable(Variable("grade", "category", levels=("1", "2", "3", "4", "5")), reference_level="3"),
    StudyVariable(Variable("ill", "binary")),
)
MODEL = LogisticRegression("ill", ("age", "psa", "volume", "dre", "grade"))
QUESTIONS: dict[str, Any] = {"model": (MODEL, "pooled")}
CHECK = Evaluate(("model",), by="grade", bins=32)


def cohort(seed: int, n: int = 2600) -> Dataset:
    chance = default_rng(seed)
    age = np.round(chance.normal(66.5, 7.3, n).clip(45, 85))
    volume = np.exp(4.0 + 0.45 * chance.standard_normal(n)).clip(15, 250)
    psa = np.exp(1.9 + 0.3 * (np.log(volume) - 4.0) + 0.55 * chance.standard_normal(n)).clip(0.3, 150)
    dre = (chance.random(n) < 0.23).astype(float)
    base = -0.6 + 0.05 * (age - 67) + 1.2 * (np.log(psa) - 1.9) + 1.1 * dre - 1.4 * (np.log(volume) - 4.0)
    ill = (chance.random(n) < expit(base)).astype(float)
    table = np.array([[0.18, 0.11, 0.38, 0.29, 0.04], [0.02, 0.02, 0.11, 0.57, 0.28]])
    grade = (chance.random(n)[:, None] > np.cumsum(table[ill.astype(int)], axis=1)).sum(axis=1).clip(0, 4)
    columns = {"age": age, "psa": psa, "volume": volume, "dre": dre, "grade": grade.astype(float), "ill": ill}
    return dataset(columns, VARIABLES)


def fits_spread(z: Array, alpha: float = ALPHA) -> bool:
    """Chi-squared test, two-sided, on the sum of squares of what should be N(0, 1)."""
    tail = chi2.cdf(float(z @ z), len(z))
    return bool(alpha / 2 < tail < 1 - alpha / 2)


def auc(data: Dataset, coefficients: list[float]) -> float:
    agreed = setting(VARIABLES)
    design = design_for(MODEL.predictors, agreed)
    y = data.column("ill")
    ranks = rankdata(matrix(design, raw_scaling(design), data) @ np.array(coefficients))
    return float((ranks[y == 1].sum() - y.sum() * (y.sum() + 1) / 2) / (y.sum() * (1 - y).sum()))


def test_prefix_counts_have_the_stated_deviation() -> None:
    """2,000 draws per coordinate, 4 coordinates: false alarm 4e-6. Rejects noise that is 20 % off."""
    chance, bins, sigma = default_rng(1), 64, 5.0
    truth = rows(chance.integers(0, bins, 1000), bins, private=True).sum(axis=0)
    draws = [opened_counts(truth + sigma * chance.standard_normal(bins), sigma, private=True) for _ in range(2000)]
    exact = opened_counts(truth, 0.0, private=True)
    for k in (0, 5, 31, 63):
        z = np.array([(d.prefix[k] - exact.prefix[k]) / d.prefix_noise_sds()[k] for d in draws])
        assert fits_spread(z)
        assert not fits_spread(z * 1.2)
        assert not fits_spread(z / 1.2)


def test_evaluation_states_the_noise_it_has() -> None:
    """600 draws of 5 figures: false alarm 5e-6 for exact deviations. Rejects stated errors that are 25 % off."""
    data, agreed = cohort(1), setting(VARIABLES, QUESTIONS, mode="private")
    fit = {"model": run(MODEL, setting(VARIABLES), [data])}
    truth = run(CHECK, setting(VARIABLES, QUESTIONS), [data], inputs=fit)
    chance = default_rng(2)
    draws = [run(CHECK, agreed, [data], privacy=Privacy(0.3, chance), inputs=fit) for _ in range(600)]
    read: dict[str, Any] = {
        "auc": lambda r: r["models"]["model"]["auc"],
        "brier": lambda r: r["models"]["model"]["brier"],
        "mean predicted": lambda r: r["models"]["model"]["calibration"]["mean_predicted"],
        "mean observed": lambda r: r["models"]["model"]["calibration"]["mean_observed"],
        "risk by level": lambda r: r["by"]["levels"][3]["observed"],
    }
    for name, figure in read.items():
        z = np.array([(figure(d)["value"] - figure(truth)["value"]) / figure(d)["noise_se"] for d in draws])
        assert fits_spread(z), name
        assert not fits_spread(z * 1.25), name
        assert not fits_spread(z / 1.25), name
        assert abs(z.mean()) < 5.6 / np.sqrt(len(z)), name  # two-sided 2e-8: no bias to speak of


def _share(level: dict[str, float]) -> dict[str, float]:
    return {"value": level["share"], "noise_se": level["share_noise_se"]}


def test_description_states_the_noise_it_has() -> None:
    """600 draws of 3 figures: false alarm 3e-6. Quantiles: neither half nor double."""
    data, spec = cohort(2), Describe(("age", "grade"), bins=32)
    truth = run(spec, setting(VARIABLES), [data])["variables"]
    agreed, chance = setting(VARIABLES, mode="private"), default_rng(3)
    draws = [run(spec, agreed, [data], privacy=Privacy(0.05, chance))["variables"] for _ in range(600)]
    read: dict[str, Any] = {
        "mean": lambda r: r["age"]["mean"],
        "sd": lambda r: r["age"]["sd"],
        "share of a level": lambda r: _share(r["grade"]["levels"]["4"]),
    }
    for name, figure in read.items():
        z = np.array([(figure(d)["value"] - figure(truth)["value"]) / figure(d)["noise_se"] for d in draws])
        assert fits_spread(z), name
        assert not fits_spread(z * 1.25), name
        assert not fits_spread(z / 1.25), name
    for q in ("25", "50", "75"):
        errors = [d["age"]["quantiles"][q]["value"] - truth["age"]["quantiles"][q]["value"] for d in draws]
        stated = np.sqrt(np.mean([d["age"]["quantiles"][q]["noise_se"] ** 2 for d in draws]))
        assert 0.5 < np.std(errors) / stated < 2.0


def test_a_private_model_ranks_almost_as_well_as_the_exact_one() -> None:
    """Mean loss of AUC over 12 seeds. At epsilon 1 the spread of one loss is .0005, the mean's .00015: the bound of
    .002 is 6 deviations above the .0010 seen. At epsilon 3 it is .0002 seen, bound .0004. It rejects the same model
    at a third of the budget (.007)."""

    def mean_loss(epsilon: float) -> float:
        losses = []
        for seed in range(12):
            data = cohort(seed)
            exact = auc(data, run(MODEL, setting(VARIABLES), [data])["raw_coefficients"])
            privacy = Privacy(rho_for(epsilon, DELTA), default_rng(100 + seed))
            fit = run(MODEL, setting(VARIABLES, mode="private"), [data], privacy=privacy)
            losses.append(exact - auc(data, fit["raw_coefficients"]))
        return float(np.mean(losses))

    assert mean_loss(1.0) < 0.002
    assert mean_loss(3.0) < 0.0004
    assert mean_loss(0.3) > 0.004


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_stated_noise_of_private_coefficients_is_about_right(epsilon: float) -> None:
    """The stated errors are estimates, so only their size is held: over 40 draws the scaled error is between
    .7 and 1.25 (seen: .81 to .90), and stating half of them, or double, would be seen. The deviation over draws of
    nine coefficients, were they exact, is .04."""
    data = cohort(1)
    exact = np.array(run(MODEL, setting(VARIABLES), [data])["coefficients"])
    chance, agreed = default_rng(5), setting(VARIABLES, mode="private")
    z = []
    for _ in range(40):
        fit = run(MODEL, agreed, [data], privacy=Privacy(rho_for(epsilon, DELTA), chance))
        z.append((np.array(fit["coefficients"]) - exact) / np.array(fit["noise_standard_errors"]))
    scaled = float(np.sqrt(np.mean(np.square(z))))
    assert 0.7 < scaled < 1.25
    assert not 0.7 < scaled / 2 < 1.25
    assert not 0.7 < scaled * 2 < 1.25


def test_weighting_patients_down_moves_no_coefficient_and_clipping_them_would() -> None:
    """At the maximum likelihood fit of 40,000 patients the weighted gradient is 0 but for chance: chi-squared on 9
    coordinates, false alarm 1e-6. Clipping the same rows to the same norm, which depends on the outcome, is seen."""
    data, agreed = cohort(3, 40_000), setting(VARIABLES)
    design = design_for(MODEL.predictors, agreed)
    x, y = matrix(design, private_scaling(design), data), data.column("ill")
    exact = np.array(run(MODEL, agreed, [data])["coefficients"])
    z = x @ coding(design)
    b = np.linalg.solve(coding(design), exact)
    tight = np.eye(design.size)  # norms of 2.9 where 1 is the bound
    weighted = gradient_rows(design, x, y, np.ones(len(y), dtype=bool), np.concatenate([b, tight.ravel()]))
    clipped = (y - expit(z @ b))[:, None] * z
    clipped = clipped / np.maximum(1.0, np.linalg.norm(clipped, axis=1))[:, None]

    def tail(rows: Array) -> float:
        total = rows.sum(axis=0)
        return float(chi2.sf(total @ np.linalg.solve(rows.T @ rows, total), design.size))

    assert np.linalg.norm(weighted, axis=1).max() <= 1 + 1e-12
    assert tail(weighted) > ALPHA
    assert tail(clipped) < ALPHA


def test_private_counts_of_patients_are_right_within_their_noise() -> None:
    """60 draws: false alarm 1e-6."""
    data, agreed, chance = cohort(1), setting(VARIABLES, mode="private"), default_rng(6)
    fits = [run(MODEL, agreed, [data], privacy=Privacy(0.02, chance)) for _ in range(60)]
    z = np.array([(fit["n"] - len(data)) / fit["n_noise_se"] for fit in fits])
    assert fits_spread(z)
    assert not fits_spread(z * 2)


def test_a_model_that_is_mostly_noise_says_so_and_stays_finite() -> None:
    """20 draws each. 2,600 patients at epsilon 1 are well above the limit, 250 at a tenth of that far below."""
    data = cohort(1)
    few = data.where(np.arange(len(data)) < 250)
    nobody = data.where(np.zeros(len(data), dtype=bool))
    agreed, chance = setting(VARIABLES, mode="private"), default_rng(7)
    cases = ((data, 0.0244, "fixed-steps"), (few, 0.0024, "noise-dominated"), (nobody, 1e-7, "noise-dominated"))
    for hub, rho, ending in cases:
        for _ in range(20):
            fit = run(MODEL, agreed, [hub], privacy=Privacy(rho, chance))
            assert fit["ending"] == ending
            assert np.abs(fit["coefficients"]).max() < 30
