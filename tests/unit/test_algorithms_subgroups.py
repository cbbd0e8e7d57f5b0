"""`evaluate` in groups: bands of a number, every score of every model in every group, equal to the pooled ones."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.random import default_rng
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from flute.algorithms.contract import Evaluate, LogisticRegression, StudyVariable
from flute.algorithms.scores import risk_edges
from flute.data.variables import Array, Variable
from flute.errors import StudyFileError
from flute.questions.registry import algorithm_for
from support.sums import Privacy, run, setting, spread

AGE = StudyVariable(Variable("age", "number", 40, 90), log=True)
SEX = StudyVariable(Variable("sex", "binary"))
ILL = StudyVariable(Variable("ill", "binary"))
ALL = (AGE, SEX, ILL)
QUESTIONS: dict[str, Any] = {
    "model": (LogisticRegression("ill", ("age", "sex")), "pooled"),
    "short": (LogisticRegression("ill", ("sex",)), "pooled"),
}
INPUTS = {"model": {"raw_coefficients": [-21.0, 5.0, 0.8]}, "short": {"raw_coefficients": [-0.5, 0.8]}}
CUTS = (55.0, 70.0)


def columns(n: int = 900) -> dict[str, Array]:
    chance = default_rng(8)
    age = chance.normal(65, 9, n).clip(40, 90).round()
    sex = (chance.random(n) < 0.5).astype(float)
    ill = (chance.random(n) < expit(-21 + 5 * np.log(age) + 0.5 * sex)).astype(float)
    age[chance.random(n) < 0.03] = np.nan
    return {"age": age, "sex": sex, "ill": ill}


def evaluated(found: dict[str, Array], spec: Evaluate, hubs: int = 3, **changed: Any) -> dict[str, Any]:
    privacy = changed.pop("privacy", None)
    owner = default_rng(2).integers(0, hubs - 1, len(found["age"]))
    owner[0] = hubs - 1
    return run(spec, setting(ALL, QUESTIONS, **changed), spread(found, owner, ALL), inputs=INPUTS, privacy=privacy)


@pytest.mark.parametrize("hubs", [3, 10])
def test_scores_within_bands_of_age_equal_the_pooled_ones(hubs: int) -> None:
    found = columns()
    shown = evaluated(found, Evaluate(("model", "short"), "age", 32, CUTS, True), hubs)
    there = ~np.isnan(found["age"])
    age, sex, y = (found[k][there] for k in ("age", "sex", "ill"))
    risk = expit(-21 + 5 * np.log(age) + 0.8 * sex)
    edges = risk_edges(32)
    binned = np.searchsorted(edges, risk, side="right")
    levels = shown["by"]["levels"]
    assert [row["level"] for row in levels] == ["below 55", "55 to below 70", "70 and above"]
    bands = (age < 55, (age >= 55) & (age < 70), age >= 70)
    for row, band in zip(levels, bands, strict=True):
        one = row["scores"]["model"]
        assert (row["n"]["value"], one["n"]["value"], one["events"]["value"]) == (
            band.sum(),
            band.sum(),
            y[band].sum(),
        )
        assert row["observed"]["value"] == pytest.approx(y[band].mean())
        assert one["auc"]["value"] == pytest.approx(roc_auc_score(y[band], binned[band]), abs=1e-9)
        assert one["brier"]["value"] == pytest.approx(np.mean((y - risk)[band] ** 2), abs=1e-9)
        assert set(row["scores"]) == {"model", "short"}
    assert shown["models"]["model"]["auc"]["value"] == pytest.approx(roc_auc_score(y, binned), abs=1e-9)


def test_a_model_that_is_wrong_for_one_sex_is_seen_there_and_not_in_the_whole() -> None:
    found = columns(4_000)
    shown = evaluated(found, Evaluate(("model",), "sex", fairness=True))["by"]["levels"]
    off = [row["scores"]["model"]["in_the_large"] for row in shown]
    assert off[1]["high"] < 0  # the model says 0.8 for this sex, patients have 0.5
    assert off[0]["low"] < 0 < off[0]["high"]


@pytest.mark.parametrize("mode", ["exact", "private"])
def test_the_norm_of_a_row_that_stands_in_a_group_is_reached_and_not_passed(mode: str) -> None:
    spec, agreed = Evaluate(("model",), "age", 16, CUTS, True), setting(ALL, QUESTIONS, mode=mode)
    shape = algorithm_for(spec).outline(spec, agreed)[0]
    data = spread({"age": np.array([40.0, 90.0]), "sex": np.zeros(2), "ill": np.zeros(2)}, np.zeros(2, int), ALL)[0]
    rows = algorithm_for(spec).update(spec, agreed, 0, (-700.0, 0.0, 0.0), data)
    longest = float(np.linalg.norm(rows, axis=1).max())
    assert 0.9 * shape.clip_norm < longest <= shape.clip_norm * (1 + 1e-12)
    alone = algorithm_for(spec).outline(Evaluate(("model",), "age", 16, CUTS), agreed)[0]
    assert longest > alone.clip_norm


def test_private_groups_are_possible_numbers_with_their_noise() -> None:
    spec = Evaluate(("model",), "age", 16, CUTS, True)
    shown = evaluated(columns(3_000), spec, mode="private", privacy=Privacy(0.5, default_rng(3)))
    for row in shown["by"]["levels"]:
        one = row["scores"]["model"]["auc"]
        assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
        assert one["noise_se"] > 0


def test_an_agreement_made_before_groups_were_known_keeps_its_bytes() -> None:
    assert msgspec.to_builtins(Evaluate(("model",))) == {
        "algorithm": "evaluate", "models": ("model",), "by": "", "bins": 64,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (Evaluate(("model",), "age"), "write where its groups begin"),
        (Evaluate(("model",), "age", cuts=(70.0, 55.0)), "rising numbers within the range"),
        (Evaluate(("model",), "age", cuts=(30.0,)), "rising numbers within the range"),
        (Evaluate(("model",), "sex", cuts=(0.5,)), "they divide a number"),
        (Evaluate(("model",), cuts=(50.0,)), "they divide a number"),
        (Evaluate(("model",), fairness=True), "say of which groups"),
    ],
)
def test_groups_that_cannot_be_made_are_refused_with_what_to_write(spec: Evaluate, sentence: str) -> None:
    with pytest.raises(StudyFileError, match=sentence):
        algorithm_for(spec).check(spec, setting(ALL, QUESTIONS))
