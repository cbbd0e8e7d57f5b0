"""What a machine with a GPU has to show before hubs with one are relied on; elsewhere all of it is skipped.

    .venv/bin/python -m pytest tests/gpu -rs

Needs PyTorch's build with CUDA. The same questions are computed on the processor and on the GPU of one machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flute.algorithms.contract import Ask, Opened, Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.inputs import sized_for
from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Join, Layers, Norm, Pool, Residual
from flute.deep.scorer import NetworkScorer
from flute.deep.spec import NeuralNetwork, Training
from flute.deep.start import start_weights
from support.networks import NETWORKS, table

torch = pytest.importorskip("torch", reason="needs PyTorch: make deep")
pytestmark = [
    pytest.mark.requirement("F-PIL-23"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that PyTorch can use"),
]

AGE = StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60.0, spread=10.0)
ILL = StudyVariable(Variable("ill", "binary"))
SCAN = StudyVariable(Variable("scan", "image", 0, 1, shape=(1, 24, 24)))
VOLUME = StudyVariable(Variable("volume", "image", 0, 1, shape=(2, 8, 16, 16)))
VARIABLES = (AGE, ILL, SCAN, VOLUME)
BLOCK = Residual((Conv(8), Norm(2), Activation("gelu"), Conv(8)))
LAYERS: Layers = (Conv(8), Norm(4), Activation(), Pool(), BLOCK, Pool(2, "mean"), GlobalMean(), Join(), Dense(8))
N = 200


def agreed(mode: Any) -> Setting:
    return Setting({v.variable.name: v for v in VARIABLES}, "drop", mode, ("x", "y", "z"), {})


def asked(image: str, layers: Layers = LAYERS, **training: Any) -> NeuralNetwork:
    said = {"rounds": 2, "batch": 32, "learning_rate": 0.02} | training
    return NeuralNetwork("ill", ("age",), image, layers, Training(**said), seed=3)


def people(n: int = N) -> Dataset:
    chance = np.random.default_rng(n)
    ill = (chance.random(n) < 0.4).astype(float)
    images = {v.variable.name: scans(chance, ill, v.variable.shape or ()) for v in (SCAN, VOLUME)}
    columns = {"age": chance.uniform(30, 90, n), "ill": ill, "scan": np.ones(n), "volume": np.ones(n)}
    return table(columns, VARIABLES, images)


def scans(chance: np.random.Generator, ill: Array, shape: tuple[int, ...]) -> np.ndarray:
    """Those who are ill are brighter."""
    middle = 0.4 + 0.2 * ill.reshape(-1, *[1] * len(shape))
    return np.clip(chance.normal(middle, 0.2, (len(ill), *shape)), 0, 1).astype(np.float32)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Where networks are computed from now on: "cpu" or "cuda"."""

    def place(where: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: where == "cuda")

    return place


def total(spec: NeuralNetwork, step: int = 0) -> Array:
    setting = agreed("exact")
    return NETWORKS.total(spec, setting, step, start_weights(sized_for(spec, setting).parameters, 3), people())


def on_both(on: Callable[[str], None], compute: Callable[[], Array]) -> tuple[Array, Array]:
    """(processor's, GPU's); that the GPU did it is seen in its memory."""
    on("cpu")
    first = compute()
    on("cuda")
    torch.cuda.reset_peak_memory_stats()
    second = compute()
    assert torch.cuda.max_memory_allocated() > 100_000
    return first, second


@pytest.mark.parametrize("image", ["scan", "volume"])
@pytest.mark.parametrize("method", ["fedavg", "scaffold"])
def test_a_round_of_training_comes_to_the_same(on: Callable[[str], None], image: str, method: str) -> None:
    cpu, gpu = on_both(on, lambda: total(asked(image, method=method)))
    assert np.abs(cpu[2:]).max() > 1e-3  # the weights moved
    np.testing.assert_allclose(gpu / N, cpu / N, atol=2e-5)


def test_a_round_comes_to_the_same_bytes_again(on: Callable[[str], None]) -> None:
    """Algorithms are the same for the same shapes: a round that is repeated is no other answer."""
    on("cuda")
    assert total(asked("scan")).tobytes() == total(asked("scan")).tobytes()


def test_dropout_leaves_the_chance_of_the_machine_where_it_was(on: Callable[[str], None]) -> None:
    on("cuda")
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    spec = asked("scan", (Conv(4), Dropout(0.5), GlobalMean(), Join()))
    assert total(spec).tobytes() == total(spec).tobytes()
    assert torch.equal(torch.cuda.get_rng_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def private_rows(spec: NeuralNetwork, data: Dataset) -> Array:
    """Rows of the first gradient step."""
    setting = agreed("private")
    sums = NETWORKS.update(spec, setting, 0, np.zeros(0), people()).sum(axis=0)
    answer = NETWORKS.next(spec, setting, [Opened((), sums, 0.1)], {})
    assert isinstance(answer, Ask)
    return NETWORKS.update(spec, setting, 1, answer.parameters, data)


@pytest.mark.parametrize("image", ["scan", "volume"])
def test_every_patients_private_gradient_is_the_same(on: Callable[[str], None], image: str) -> None:
    """In 32 bits: with TensorFloat-32 they would be off by a thousandth."""
    cpu, gpu = on_both(on, lambda: private_rows(asked(image), people()))
    lengths = np.linalg.norm(cpu, axis=1)
    assert lengths.min() > 0.01
    assert (np.linalg.norm(gpu - cpu, axis=1) / lengths).max() < 2e-5


def test_a_patients_gradient_does_not_depend_on_how_many_others_there_are(on: Callable[[str], None]) -> None:
    on("cuda")
    everyone, some = people(), np.arange(N) % 7 == 0
    spec = asked("scan")
    all_rows, alone = private_rows(spec, everyone), private_rows(spec, everyone.where(some))
    apart = np.linalg.norm(all_rows[some] - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert apart.max() < 1e-6


@pytest.mark.parametrize("image", ["scan", "volume"])
def test_risks_are_the_same(on: Callable[[str], None], image: str) -> None:
    spec, setting = asked(image), agreed("exact")
    weights = start_weights(sized_for(spec, setting).parameters, 3)
    cpu, gpu = on_both(on, lambda: NetworkScorer().risks(spec, setting, weights, people()))
    assert cpu.std() > 1e-4
    np.testing.assert_allclose(gpu, cpu, atol=1e-6)


def test_an_epoch_is_faster(on: Callable[[str], None]) -> None:
    """Of a convolutional network that is large enough for it to be worth the way."""
    wide = asked("volume", (Conv(32), Activation(), Conv(32), Activation(), GlobalMean(), Join()), rounds=1)
    taken = {}
    for where in ("cpu", "cuda"):
        on(where)
        total(wide)  # what is set up once
        start = time.perf_counter()
        total(wide)
        taken[where] = time.perf_counter() - start
    assert taken["cuda"] < taken["cpu"]
