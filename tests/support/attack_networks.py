"""Studies of one small convolutional network, to attack, and digits for it (scikit-learn's; nobody's records)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from flute.attacks.chance import Chance
from flute.attacks.records import simulated
from flute.attacks.trial import Trial
from flute.data.dataset import Dataset
from flute.study.agreement import Agreement
from support.attack_studies import agreed

IMAGE = """\
  scan: {kind: image, shape: [1, 8, 8], range: [0, 16]}
  age: {kind: number, range: [20, 100], centre: 60, spread: 12}
  sex: {kind: binary}
  ill: {kind: binary}
"""
CONV = """\
    network:
      - {layer: conv, channels: 8}
      - {layer: activation, kind: tanh}
      - {layer: pool, kind: mean}
      - {layer: dense, size: 32}
      - {layer: activation, kind: tanh}
"""
DENSE = """\
    network:
      - {layer: dense, size: 16}
      - {layer: activation, kind: relu}
"""
MODEL = """\
  model:
    algorithm: neural-network
    outcome: ill
"""
ROUNDS = 4


def cnn(epsilon: float | None, training: str = f"{{rounds: {ROUNDS}}}") -> Agreement:
    """Of an image alone."""
    return agreed(IMAGE, f"{MODEL}    image: scan\n{CONV}    training: {training}\n", epsilon=epsilon)


def dense(epsilon: float | None) -> Agreement:
    """Of numbers alone."""
    question = f"{MODEL}    predictors: [age, sex]\n{DENSE}    training: {{rounds: {ROUNDS}}}\n"
    return agreed(IMAGE, question, epsilon=epsilon)


def digit_images(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """([count, 1, 8, 8] from 0 to 16, 1 where the digit is at least 5)."""
    found = load_digits()
    at = np.random.default_rng(seed).permutation(len(found.target))[:count]
    return found.images[at, None].astype(np.float32), (found.target[at] >= 5).astype(np.float64)


def digits(trial: Trial, count: int, seed: int, *, coins: bool = False) -> Dataset:
    """Patients with digits for images. coins: their outcomes have nothing to do with them."""
    images, five = digit_images(count, seed)
    fixed = {"scan": images} if coins else {"scan": images, "ill": five}
    subject = trial.subject
    return simulated(subject.setting, subject.fields, count, Chance(b"digits %d" % seed), fixed)
