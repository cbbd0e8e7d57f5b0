"""A preview of what scores a network trains none, makes no image up, and needs no torch."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from flute.algorithms.contract import LogisticRegression
from flute.algorithms.even_points import even_points
from flute.algorithms.made_up import Assumed
from flute.deep.spec import NeuralNetwork
from flute.study.agreement import Agreement
from flute.study.files.file import read_study_file
from flute.study.preview import Foreseen, preview
from flute.study.stand_ins import without_networks
from support.networks_of_images import TEXT

DRAWS = 40


def agreement(network: str = "") -> Agreement:
    """A network over a picture, and its evaluation; or a regression over a number in its place."""
    text = (
        TEXT.replace("OUTCOME", "ill")
        .replace("IMAGE", "mri")
        .replace("exact: {max_numbers: 20000}", "budget: {epsilon: 3}")
    )
    text = text.replace("variables:\n", "variables:\n  age: {kind: number, range: [0, 100], scale: reference}\n")
    if network:
        text = text[: text.index("  net:")] + network
    else:
        text += "    share: 0.5\n"
    text += "  eval: {algorithm: evaluate, models: [net], share: 0.5}\n"
    return read_study_file(text, path="pictures.yaml", code=bytes(32))[0]


def seen(of: Agreement, question: str) -> Foreseen:
    (found,) = preview(of, Assumed(patients=1_000), only=question, draws=DRAWS).questions
    return found


def test_how_well_a_network_of_images_will_be_judged_is_foreseen_without_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    numbers = {one.what: one for one in seen(agreement(), "eval").numbers}
    assert numbers["net.auc"].value == pytest.approx(0.75, abs=0.02)
    assert 0.001 < numbers["net.auc"].sd < 0.05
    assert numbers["net.n"].unit == "patients"


def test_it_is_as_with_a_regression_that_tells_as_much() -> None:
    regression = "  net: {algorithm: logistic-regression, outcome: ill, predictors: [age], share: 0.5}\n"
    other = {one.what: one for one in seen(agreement(regression), "eval").numbers}
    found = {one.what: one for one in seen(agreement(), "eval").numbers}
    assert found.keys() == other.keys()
    assert found["net.auc"].sd == pytest.approx(other["net.auc"].sd, rel=0.5)


def test_of_the_network_itself_the_number_of_patients_is_foreseen() -> None:
    assert [one.what for one in seen(agreement(), "net").numbers] == ["n"]


def test_nothing_else_of_the_study_is_another() -> None:
    setting = agreement().setting
    found = without_networks(setting)
    assert found.variables["mri"].variable.kind == "number"
    assert found.variables["age"] == setting.variables["age"]
    assert found.questions["net"][0] == LogisticRegression("ill", ("mri",))
    assert found.questions["eval"] == setting.questions["eval"]
    assert isinstance(setting.questions["net"][0], NeuralNetwork)


def test_points_are_evenly_spread_and_can_be_continued() -> None:
    whole = even_points(1_000, 4)
    assert np.array_equal(whole[400:], even_points(600, 4, skip=400))
    assert even_points(5, 0).shape == (5, 0)
    for column in whole.T:
        counts = np.histogram(column, bins=50, range=(0, 1))[0]
        assert counts.min() >= 15  # 20 in each on average; of 1,000 drawn points one in two bins has fewer than 20
    drawn = np.random.default_rng(1).random(1_000)
    assert np.histogram(drawn, bins=50, range=(0, 1))[0].min() < 15
