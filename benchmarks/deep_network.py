"""What `deep_round.py` trains, here and in NVFLARE's FedAvg: a network, its images, and one round at a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.deep.inputs import inputs, shapes, sized_for
from flute.deep.layers import Activation, Conv, Dense, Layer, Pool
from flute.deep.spec import NeuralNetwork, Training
from flute.defaults.models.deep import CHANGE_BOUND

OUTCOME, IMAGE = "ill", "picture"
HUBS = ("east", "north", "west")


@dataclass(frozen=True)
class Size:
    """shape: of an image. channels: of the convolutions, each followed by a pool."""

    images: int
    shape: tuple[int, ...]
    channels: tuple[int, ...]
    dense: int
    rounds: int


SIZES = {
    "volumes": Size(1000, (3, 16, 48, 48), (16, 32, 64, 128), 640, 4),
    "pictures": Size(1000, (3, 64, 64), (16, 32, 64, 128, 256), 560, 5),
    "quick": Size(200, (1, 32, 32), (8, 16, 32), 64, 4),
}


def layers(size: Size) -> tuple[Layer, ...]:
    blocks = [layer for channels in size.channels for layer in (Conv(channels), Activation(), Pool())]
    return (*blocks, Dense(size.dense), Activation())


def question(size: Size) -> NeuralNetwork:
    training = Training(rounds=size.rounds, local_epochs=1, batch=32, learning_rate=0.01)
    return NeuralNetwork(OUTCOME, image=IMAGE, network=layers(size), training=training)


def pictures(size: Size, hub: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """SIMULATED: noise, with a bright blob at a place of chance in those who are ill."""
    chance = np.random.default_rng([7, hub])
    ill = chance.integers(0, 2, size.images)
    found = chance.normal(0.0, 0.3, (size.images, *size.shape))
    side = size.shape[-1]
    grid = np.arange(side)
    for k in np.flatnonzero(ill):
        row, column = chance.uniform(side / 4, 3 * side / 4, 2)
        far = ((grid[:, None] - row) ** 2 + (grid - column) ** 2) / (side / 8) ** 2
        found[k] += np.exp(-far)
    return np.clip(found, -2, 2).astype(np.float32), ill


class Local:
    """One hub's training in a round, by the code that hubs run."""

    def __init__(self, name: str, hub: int) -> None:
        from flute.deep.training import Hub

        size = SIZES[name]
        images, ill = pictures(size, hub)
        image = Variable(IMAGE, "image", -2.0, 2.0, shape=size.shape)
        outcome = Variable(OUTCOME, "binary")
        setting = Setting({OUTCOME: StudyVariable(outcome), IMAGE: StudyVariable(image)}, "drop", "exact", HUBS, {})
        rows = np.array([f"{k:06d}" for k in range(size.images)])
        columns = {OUTCOME: ill.astype(np.float64), IMAGE: np.ones(size.images)}
        data = Dataset(rows, columns, [outcome, image], {IMAGE: images})
        what = question(size)
        self.parameters = sized_for(what, setting).parameters
        self._hub = Hub(what, sized_for(what, setting), shapes(what, setting), inputs(what, setting, data))
        self._order = np.arange(size.images)

    def trained(self, step: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weights after one local epoch."""
        total = self._hub.total(step, weights, self._order)
        return weights + total[2 : 2 + weights.size] / max(len(self._order), 1) * CHANGE_BOUND


def as_frame(size: Size, hub: int) -> Any:
    """As a notebook gives a hub its records."""
    import pandas

    images, ill = pictures(size, hub)
    return pandas.DataFrame({OUTCOME: ill, IMAGE: list(images)})


HERE = Path(__file__).resolve().parent
