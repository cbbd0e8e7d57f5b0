"""What the coordinator does with a round's total: the next common weights. Replayed from what was opened, so that one
who was killed comes to the same.

The vector of a round: [n | n * loss / LOSS_CAP | n * change of the weights / CHANGE_BOUND], for SCAFFOLD also
[n * gradient at the asked weights / GRADIENT_BOUND]; a hub gives it for its own patients, the sums over hubs are
opened.
Source: McMahan et al. 2017 (mean change, weighted by patients); Reddi et al. 2021, algorithm 2 (Adam at the server);
Karimireddy et al. 2020, option I (a hub's control variate is its gradient at the weights of the round before).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import UNSET

from flute.algorithms.contract import Opened
from flute.algorithms.design import Mask
from flute.data.variables import Array
from flute.deep.parameter import Parameter
from flute.deep.spec import Training
from flute.defaults.models.deep import ADAM_DECAYS, ADAM_FLOOR, ADAM_RATE, CHANGE_BOUND, GRADIENT_BOUND, LOSS_CAP

HEAD = 2
"""Numbers of a round's vector before the change of the weights."""


@dataclass(frozen=True, slots=True)
class Round:
    """Means over all patients of what one round opened. gradient: empty unless the method opens one."""

    n: float
    loss: float
    change: Array
    gradient: Array


def vector_size(training: Training, weights: int) -> int:
    """Length of a round's vector."""
    return HEAD + weights * (2 if training.method == "scaffold" else 1)


def asked_size(training: Training, weights: int, step: int) -> int:
    """Length of what a round is asked with: the weights; SCAFFOLD's later rounds also those before and all hubs' mean
    gradient there."""
    return weights * (3 if training.method == "scaffold" and step else 1)


def opened_round(opened: Opened, weights: int) -> Round:
    n = max(round(float(opened.total[0])), 0)
    means = opened.total[1:] / max(n, 1)
    change, gradient = means[1 : 1 + weights] * CHANGE_BOUND, means[1 + weights :] * GRADIENT_BOUND
    return Round(n, float(means[0]) * LOSS_CAP, change, gradient)


def next_asked(training: Training, parameters: Sequence[Parameter], history: Sequence[Opened]) -> Array:
    """What the round after `history` (at least one) is asked with; its first entries are the weights."""
    size = sum(parameter.size for parameter in parameters)
    weights = history[-1].parameters[:size]
    after = weights + _move(training, parameters, history)
    if training.method != "scaffold":
        return np.asarray(after)
    return np.concatenate([after, weights, opened_round(history[-1], size).gradient])


def _move(training: Training, parameters: Sequence[Parameter], history: Sequence[Opened]) -> Array:
    """By how much the last round moves the weights. Buffers take their mean whatever the method."""
    trained = trained_mask(parameters)
    change = opened_round(history[-1], len(trained)).change
    if training.method != "fedadam":
        rate = 1.0 if training.server_rate is UNSET else training.server_rate
        return np.asarray(np.where(trained, rate * change, change))
    rate = ADAM_RATE if training.server_rate is UNSET else training.server_rate
    first, second = _moments(history, len(trained))
    return np.asarray(np.where(trained, rate * first / (np.sqrt(second) + ADAM_FLOOR), change))


def _moments(history: Sequence[Opened], weights: int) -> tuple[Array, Array]:
    """Adam's, without correction of their start, as in Reddi et al.; the second starts at the floor's square."""
    keep_first, keep_second = ADAM_DECAYS
    first, second = np.zeros(weights), np.full(weights, ADAM_FLOOR**2)
    for opened in history:
        change = opened_round(opened, weights).change
        first = keep_first * first + (1 - keep_first) * change
        second = keep_second * second + (1 - keep_second) * change**2
    return first, second


def trained_mask(parameters: Sequence[Parameter]) -> Mask:
    """[total] false for entries of buffers."""
    return np.concatenate([np.full(parameter.size, parameter.trained) for parameter in parameters])
