"""Coordinates in which private steps are taken: a linear change of a network's weights, and of its gradients.

The first layer that inputs reach is rewritten as if inputs had mean 0 and spread 1: w = w' / s, b = b' - (w' / s) m.
The network stays what it is; only how far a step of given length moves each weight changes, and with it what a
patient's bounded gradient is spent on. Inputs that reach no dense layer or convolution first stay as they are.
The filters of a convolution that an image reaches first move by FILTER_PACE less: noise on them costs most.
Source: the chain rule; natural coordinates for inputs, LeCun et al. 1998, section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import numpy as np

from flute.data.variables import Array
from flute.deep.layers import Conv, Dense, Join, Layer
from flute.deep.parameter import Parameter
from flute.deep.private.inputs import Picture
from flute.deep.sizes import LAST
from flute.defaults.models.private_networks import FILTER_PACE


@dataclass(frozen=True, slots=True)
class Entry:
    """A layer that inputs reach first. weight: slice of [outputs, inputs] numbers in the vector of weights; bias:
    slice of [outputs]. means, spreads: [inputs]; a weight is its coordinate over its input's spread. pace: what the
    inputs' own spreads are divided by in `spreads`; at less than 1 weights move less than those of other layers."""

    weight: slice
    bias: slice
    means: Array
    spreads: Array
    pace: float = 1.0

    def gradient(self, gradients: Array) -> None:
        """In place, of [k, total]: gradients by weights to gradients by coordinates."""
        k, inputs = len(gradients), len(self.means)
        by_bias = gradients[:, self.bias]
        found = gradients[:, self.weight].reshape(k, -1, inputs)
        moved = (found - by_bias[:, :, None] * self.means) / self.spreads
        gradients[:, self.weight] = moved.reshape(k, -1)

    def start(self, vector: Array) -> None:
        """In place, of [total]: initial weights for inputs of mean 0 and spread 1 to those for inputs as they are."""
        vector[self.weight] /= self.pace
        self.step(vector)

    def step(self, vector: Array) -> None:
        """In place, of [total]: a change of coordinates to one of weights."""
        matrix = vector[self.weight].reshape(-1, len(self.means)) / self.spreads
        vector[self.bias] -= matrix @ self.means
        vector[self.weight] = matrix.ravel()


def entries(layers: Sequence[Layer], parameters: Sequence[Parameter], picture: Picture) -> tuple[Entry, ...]:
    """One for the image, one for the columns, where they reach a dense layer or a convolution first."""
    found, shape = [], picture.shape
    ends = dict(zip((p.name for p in parameters), accumulate(p.size for p in parameters), strict=True))
    sizes = {p.name: p for p in parameters}

    def entry(name: str, means: Array, spreads: Array, pace: float = 1.0) -> Entry:
        weight, bias = f"{name}.weight", f"{name}.bias"
        inputs = prod(sizes[weight].shape[1:])
        before = inputs - len(means)
        return Entry(
            slice(ends[weight] - sizes[weight].size, ends[weight]), slice(ends[bias] - sizes[bias].size, ends[bias]),
            np.concatenate([np.zeros(before), means]), np.concatenate([np.ones(before), spreads]) / pace, pace,
        )  # fmt: skip

    if shape.image and _weighs(layers, 0):
        repeated = prod(sizes[f"{_name(layers, 0)}.weight"].shape[1:]) // shape.channels
        means, spreads = np.repeat(picture.channel_means, repeated), np.repeat(picture.channel_spreads, repeated)
        pace = FILTER_PACE if layers and isinstance(layers[0], Conv) else 1.0
        found.append(entry(_name(layers, 0), means, spreads, pace))
    joined = next((k + 1 for k, layer in enumerate(layers) if isinstance(layer, Join)), 0)
    if shape.columns and _weighs(layers, joined):
        found.append(entry(_name(layers, joined), picture.means, picture.spreads))
    return tuple(found)


def _name(layers: Sequence[Layer], at: int) -> str:
    return str(at) if at < len(layers) else LAST


def _weighs(layers: Sequence[Layer], at: int) -> bool:
    """Whether the layer in this place, or the last one, has a weight for every number that it is given."""
    return at >= len(layers) or isinstance(layers[at], Dense | Conv)
