"""A notebook without PyTorch: networks are said and their weights read; only what computes with them needs it."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

import flute.sdk as flute
from flute.deep.spec import Training
from flute.errors import MisuseError
from flute.sdk.networks.estimator import LAYERS


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed."""
    monkeypatch.setitem(sys.modules, "torch", None)


def test_layers_are_said_as_a_study_file_has_them() -> None:
    inner = (flute.Conv(4), flute.Activation("tanh"))
    asked = flute.NeuralNetwork("ill", image="mri", network=[flute.Conv(4), flute.Residual(inner)], rounds=3, batch=8)
    assert asked.elements() == {
        "outcome": "ill",
        "predictors": (),
        "image": "mri",
        "network": [
            {"layer": "conv", "channels": 4, "kernel": 3, "stride": 1},
            {"layer": "residual", "inner": (
                {"layer": "conv", "channels": 4, "kernel": 3, "stride": 1}, {"layer": "activation", "kind": "tanh"})},
        ],
        "training": {"rounds": 3, "batch": 8},
    }  # fmt: skip


def test_every_layer_is_in_flute() -> None:
    assert all(getattr(flute, name) is kind for name, kind in LAYERS.items())


def test_everything_that_a_study_says_of_training_can_be_said() -> None:
    said = {field.name for field in msgspec.structs.fields(Training)}
    assert said <= flute.NeuralNetwork("ill").get_params().keys()


def test_an_onnx_file_is_read_all_the_same() -> None:
    vectors = Path(__file__).resolve().parents[1] / "vectors" / "onnx"
    assert flute.network(vectors / "numbers_traced.onnx")[0] == flute.Dense(8)


def test_what_is_no_layer_is_told_with_those_that_there_are() -> None:
    with pytest.raises(MisuseError, match=r"'relu' is no layer of a study.*flute.Activation"):
        flute.NeuralNetwork("ill", ["age"], network=["relu"]).elements()


@pytest.mark.parametrize("ask", [
    lambda: flute.network(object()),
    lambda: flute.NeuralNetwork("ill", ["age"], network=object()).elements(),
    lambda: flute.NeuralNetwork("ill", ["age"]).predict_proba({}),
    lambda: flute.NeuralNetwork("ill", ["age"]).to_torch(),
])  # fmt: skip
def test_what_needs_it_says_how_to_get_it(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(MisuseError, match=r"Networks need torch, .* pip install 'flute\[deep\]'"):
        ask()


def test_scikit_learn_can_copy_a_network() -> None:
    base = pytest.importorskip("sklearn.base")
    asked = flute.NeuralNetwork("ill", image="mri", network=[flute.Conv(4)], rounds=3)
    copied = base.clone(asked)
    assert copied.get_params() == asked.get_params()
    assert copied is not asked
