"""`evaluate` in exact mode equals what the pooled patients say; `scores` is post-processing that adds up."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.random import default_rng
from scipy.special import expit, logit

from flute.algorithms.contract import Describe, Evaluate, LogisticRegression, Setting, StudyVariable
from flute.algorithms.scores import THRESHOLDS, proportion, risk_edges
from flute.data.variables import Array, Variable
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import algorithm_for
from support.sums import Privacy, dataset, run, setting, spread

AGE = StudyVariable(Variable("age", "number", 40, 90))
PSA = StudyVariable(Variable("psa", "number", 0.1, 150), log=True)
GRADE = StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, PSA, GRADE, ILL)
QUESTIONS: dict[str, Any] = {
    "full": (LogisticRegression("ill", ("age", "psa", "grade")), "pooled"),
    "own": (LogisticRegression("ill", ("age",)), "each"),
    "cohort": (Describe(("age",)), "pooled"),
}
MODELS = {
    "full": {"raw_coefficients": [-6.0, 0.06, 0.6, 0.4, 1.0]},
    "own@a": {"raw_coefficients": [-4.0, 0.06]},
    "own@b": {"raw_coefficients": [-3.5, 0.05]},
    "own@c": {"raw_coefficients": [-5.0, 0.07]},
}
SPEC = Evaluate(("full", "own"), by="grade", bins=64)


def columns(n: int = 900, seed: int = 5) -> dict[str, Array]:
    chance = default_rng(seed)
    found: dict[str, Array] = {
        "age": chance.normal(66, 8, n).clip(40, 90),
        "psa": np.exp(chance.normal(1.9, 0.6, n)).clip(0.1, 150),
        "grade": chance.integers(0, 3, n).astype(float),
    }
    risk = expit(-6.2 + 0.06 * found["age"] + 0.7 * np.log(found["psa"]) + found["grade"] * 0.5)
    found["ill"] = (chance.random(n) < risk).astype(float)
    for name in ("age", "psa", "grade"):
        found[name][chance.random(n) < 0.03] = np.nan
    return found


def agreed(**changed: Any) -> Setting:
    return setting(ALL, QUESTIONS, **changed)


def evaluated(found: dict[str, Array], spec: Evaluate = SPEC, **changed: Any) -> dict[str, Any]:
    privacy = changed.pop("privacy", None)
    owner = default_rng(6).choice(3, len(found["age"]), p=[0.7, 0.2, 0.1])
    return run(spec, agreed(**changed), spread(found, owner, ALL), privacy=privacy, inputs=MODELS)


def complete(found: dict[str, Array]) -> dict[str, Array]:
    keep = ~np.isnan(np.column_stack(list(found.values()))).any(axis=1)
    return {name: values[keep] for name, values in found.items()}


def full_risk(c: dict[str, Array]) -> Array:
    b = MODELS["full"]["raw_coefficients"]
    return expit(
        b[0] + b[1] * c["age"] + b[2] * np.log(c["psa"]) + b[3] * (c["grade"] == 1) + b[4] * (c["grade"] == 2)
    )


def delong(case: Array, control: Array) -> tuple[float, float]:
    """Area and standard error, pair by pair."""
    wins = (case[:, None] > control) + 0.5 * (case[:, None] == control)
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    return float(wins.mean()), float(np.sqrt(v10.var(ddof=1) / len(case) + v01.var(ddof=1) / len(control)))


def test_models_of_every_hub_are_scored_beside_the_pooled_one() -> None:
    assert list(evaluated(columns())["models"]) == ["full", "own@a", "own@b", "own@c"]


def test_auc_and_its_error_equal_the_pairwise_computation_on_binned_risk() -> None:
    found = columns()
    c = complete(found)
    risk, y = full_risk(c), c["ill"] == 1
    binned = np.searchsorted(risk_edges(64), risk, side="right")
    area, error = delong(binned[y], binned[~y])
    shown = evaluated(found)["models"]["full"]["auc"]
    assert shown["value"] == pytest.approx(area, abs=1e-12)
    assert shown["sampling_se"] == pytest.approx(error, rel=2e-3)
    assert shown["noise_se"] == 0
    assert shown["value"] == pytest.approx(delong(risk[y], risk[~y])[0], abs=2e-3)  # what binning costs
    assert (shown["low"], shown["high"]) == pytest.approx((area - 1.96 * error, area + 1.96 * error), abs=1e-4)


def test_brier_score_and_mean_risk_are_exact_whatever_the_bins() -> None:
    c = complete(columns())
    risk = full_risk(c)
    for bins in (8, 64):
        shown = evaluated(columns(), Evaluate(("full",), bins=bins))["models"]["full"]
        assert shown["brier"]["value"] == pytest.approx(np.mean((c["ill"] - risk) ** 2), abs=1e-9)
        assert shown["calibration"]["mean_predicted"]["value"] == pytest.approx(risk.mean(), abs=1e-9)
        assert shown["calibration"]["mean_observed"]["value"] == pytest.approx(c["ill"].mean(), abs=1e-12)
        assert (shown["n"]["value"], shown["events"]["value"]) == (len(risk), c["ill"].sum())


def test_sensitivity_specificity_and_net_benefit_are_exact_at_the_thresholds() -> None:
    c = complete(columns())
    risk, y = full_risk(c), c["ill"] == 1
    shown = evaluated(columns())["models"]["full"]
    assert [row["threshold"] for row in shown["net_benefit"]] == list(THRESHOLDS)
    for row, benefit in zip(shown["thresholds"], shown["net_benefit"], strict=True):
        acted, odds = risk >= row["threshold"], row["threshold"] / (1 - row["threshold"])
        assert row["sensitivity"]["value"] == pytest.approx(acted[y].mean())
        assert row["specificity"]["value"] == pytest.approx((~acted[~y]).mean())
        assert benefit["model"] == pytest.approx(((acted & y).sum() - odds * (acted & ~y).sum()) / len(y))
        assert benefit["treat_all"] == pytest.approx((y.sum() - odds * (~y).sum()) / len(y))
        assert row["sensitivity"]["low"] < row["sensitivity"]["value"] <= row["sensitivity"]["high"]


def test_roc_runs_from_corner_to_corner_and_its_area_is_the_auc() -> None:
    shown = evaluated(columns())["models"]["full"]
    sensitivity = np.array([p["sensitivity"] for p in shown["roc"]])
    fall_out = 1 - np.array([p["specificity"] for p in shown["roc"]])
    assert (sensitivity[0], fall_out[0], sensitivity[-1], fall_out[-1]) == pytest.approx((1, 1, 0, 0))
    assert -np.trapezoid(sensitivity, fall_out) == pytest.approx(shown["auc"]["value"])


def test_recalibration_comes_close_to_the_fit_on_unbinned_risk() -> None:
    c = complete(columns())
    score = logit(full_risk(c))
    free = sm.Logit(c["ill"], sm.add_constant(score)).fit(disp=0)
    shifted = sm.GLM(c["ill"], np.ones(len(score)), family=sm.families.Binomial(), offset=score).fit()
    shown = evaluated(columns())["models"]["full"]["calibration"]
    assert shown["slope"]["value"] == pytest.approx(free.params[1], abs=0.02)
    assert shown["slope"]["se"] == pytest.approx(free.bse[1], rel=0.03)
    assert shown["in_the_large"]["value"] == pytest.approx(shifted.params[0], abs=0.02)
    assert shown["in_the_large"]["se"] == pytest.approx(shifted.bse[0], rel=0.03)


def test_groups_of_risk_hold_everybody_once() -> None:
    c = complete(columns())
    groups = evaluated(columns())["models"]["full"]["calibration"]["groups"]
    assert sum(g["n"] for g in groups) == len(c["ill"])
    assert sum(g["n"] * g["observed"]["value"] for g in groups) == pytest.approx(c["ill"].sum())
    assert sum(g["n"] * g["predicted"] for g in groups) / len(c["ill"]) == pytest.approx(
        full_risk(c).mean(), abs=0.005
    )
    predicted = [g["predicted"] for g in groups]
    assert predicted == sorted(predicted)
    assert 8 <= len(groups) <= 10


def test_risk_by_level_is_observed_and_predicted_per_level() -> None:
    c = complete(columns())
    risk = full_risk(c)
    levels = evaluated(columns())["by"]["levels"]
    for k, row in enumerate(levels):
        member = c["grade"] == k
        assert row["level"] == GRADE.variable.levels[k]
        assert row["n"]["value"] == member.sum()
        assert row["observed"]["value"] == pytest.approx(c["ill"][member].mean())
        assert row["predicted"]["full"]["value"] == pytest.approx(risk[member].mean(), abs=1e-9)


def test_missing_predictors_under_indicate_keep_their_patients() -> None:
    found = columns()
    inputs = {"full": {"raw_coefficients": [-6.0, 0.06, 0.1, 0.6, 0.2, 0.4, 1.0, 0.3]}}
    spec = Evaluate(("full",))
    data = spread(found, np.zeros(len(found["age"]), dtype=int), ALL)
    shown = run(spec, agreed(missing="indicate"), data, inputs=inputs)["models"]["full"]
    assert shown["n"]["value"] == len(found["age"])


@pytest.mark.parametrize("bins", [8, 9, 20, 32, 64, 256])
def test_edges_rise_from_0_to_1_and_hold_the_thresholds_once_there_is_room(bins: int) -> None:
    edges = risk_edges(bins)
    assert len(edges) == bins + 1
    assert (np.diff(edges) > 0).all()
    assert (edges[0], edges[-1]) == (0, 1)
    if bins >= 64:
        assert set(THRESHOLDS) <= set(edges.tolist())


def test_private_results_are_plain_json_and_possible_numbers_even_where_noise_drowns_all() -> None:
    for rho, n in ((1e-6, 0), (1e-6, 5), (1e-4, 900), (0.02, 900), (1.0, 900)):
        privacy = Privacy(rho, default_rng(n))
        shown = evaluated(columns(n), mode="private", privacy=privacy)
        json.dumps(shown, allow_nan=False)
        for model in shown["models"].values():
            if model["auc"] is not None:
                assert 0 <= model["auc"]["low"] <= model["auc"]["value"] <= model["auc"]["high"] <= 1
                specificity = [p["specificity"] for p in model["roc"]]
                assert specificity == sorted(specificity)


def test_a_model_that_separates_completely_is_scored_without_failing() -> None:
    n = 60
    found = {"age": np.linspace(41, 89, n), "psa": np.full(n, 5.0), "grade": np.zeros(n)}
    found["ill"] = (found["age"] > 65).astype(float)
    inputs = {"full": {"raw_coefficients": [-65.0 * 9, 9.0, 0, 0, 0]}}
    shown = run(Evaluate(("full",)), agreed(), [dataset(found, ALL)], inputs=inputs)["models"]["full"]
    assert shown["auc"]["value"] == 1.0
    assert shown["calibration"]["slope"]["value"] is None
    json.dumps(shown, allow_nan=False)


def test_an_evaluation_without_one_of_the_classes_says_none() -> None:
    found = columns(50) | {"ill": np.zeros(50)}
    shown = evaluated(found)["models"]["full"]
    assert shown["events"]["value"] == 0
    assert shown["auc"] is None


def test_the_floor_sees_classes_levels_and_that_a_bin_may_hold_one_patient() -> None:
    found = {"age": [50.0, 60, 70, np.nan], "psa": [2.0] * 4, "grade": [0.0, 0, 2, 2], "ill": [0.0, 1, 1, 1]}
    spec = Evaluate(("full",), by="grade")
    cells = algorithm_for(spec).cells(spec, agreed(), dataset(found, ALL))
    assert cells.tolist() == [1, 2, 1, 1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (Evaluate(("cohort",)), "is no model of this study"),
        (Evaluate(("later",)), "is no model of this study"),
        (Evaluate(("full", "full")), "twice"),
        (Evaluate(("full",), by="age"), "is a number"),
        (Evaluate(("full",), by="weight"), "not among"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_what_to_write(spec: Evaluate, sentence: str) -> None:
    with pytest.raises(StudyFileError, match=sentence):
        algorithm_for(spec).check(spec, agreed())


@pytest.mark.parametrize("found", [{}, {"raw_coefficients": [1.0]}, {"raw_coefficients": [float("nan")] * 5}])
def test_a_model_without_usable_coefficients_is_not_scored(found: dict[str, Any]) -> None:
    with pytest.raises(MisuseError, match="full"):
        algorithm_for(SPEC).next(SPEC, agreed(), (), {**MODELS, "full": found})


def test_the_question_carries_all_coefficients_in_the_order_of_the_references() -> None:
    asked = algorithm_for(SPEC).next(SPEC, agreed(), (), MODELS)
    assert asked.parameters.tolist() == [b for model in MODELS.values() for b in model["raw_coefficients"]]
    assert set(algorithm_for(SPEC).fields(SPEC, agreed())) == {"age", "psa", "grade", "ill"}
    assert algorithm_for(SPEC).fields(Evaluate(("own",)), agreed()) == ("ill", "age")


def test_an_interval_contains_its_value_and_widens_with_noise() -> None:
    for hits, n in ((0, 4), (1, 4), (4, 4), (50, 100)):
        calm, noisy = proportion(hits, n, 0.0), proportion(hits, n, 0.1)
        for shown in (calm, noisy):
            assert 0 <= shown["low"] <= shown["value"] <= shown["high"] <= 1
        assert noisy["high"] - noisy["low"] > calm["high"] - calm["low"]
