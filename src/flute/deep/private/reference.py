"""What a network says of inputs that nobody has: computed by the coordinator, without torch, and by no record.

Needed are its log odds at the mean input, and how long a typical gradient is. Layers as `build` makes them, over
float64; a network of MONAI's is built by MONAI itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf

from flute.data.variables import Array
from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Join, Layer, Monai, Norm, Pool, Residual
from flute.deep.private.coordinates import entries
from flute.deep.private.inputs import InputShape, Picture, picture_of
from flute.deep.sizes import LAST, Sized
from flute.defaults.models.private_networks import DIRECTIONS, MADE_UP_INPUTS, MEASURED_NUMBERS
from flute.primitives.keys import digest
from flute.primitives.prg import keystream

_NORM_FLOOR = 1e-5
"""torch's, added to a variance."""
_LABEL = b"flute/network/private/v1"
_STEP = 1e-3
"""Of a finite difference, beside weights of about .1 to 1."""


@dataclass(frozen=True)
class Reference:
    """A network of these layers. `sized`: its parameters in order."""

    layers: tuple[Layer, ...]
    sized: Sized
    shape: InputShape

    def log_odds(self, weights: Array, x: Array, images: Array | None) -> Array:
        """[k] of inputs x [k, columns] and images [k, channels, sides...]; the last layer's bias counts as 0."""
        if any(isinstance(layer, Monai) for layer in self.layers):
            return np.asarray(self._by_torch(weights, x, images) - weights[-1])
        named, at = {}, 0
        for parameter in self.sized.parameters:
            named[parameter.name] = weights[at : at + parameter.size].reshape(parameter.shape)
            at += parameter.size
        found = _through(self.layers, "", named, x if images is None else images, x)
        return np.asarray(found.reshape(len(x), -1) @ named[f"{LAST}.weight"][0])

    def _by_torch(self, weights: Array, x: Array, images: Array | None) -> Array:
        import torch

        from flute.deep.build import build, load

        module = build(self.layers, self.shape.columns, self.shape.image)
        load(module, weights, self.sized.parameters)
        module.eval()
        given = [x] if images is None else [x, images]
        with torch.no_grad():
            logits = module(*(torch.from_numpy(part.astype(np.float32)) for part in given))
        return np.asarray(logits.double().numpy())

    def middle(self, picture: Picture) -> tuple[Array, Array | None]:
        """The mean input."""
        return picture.means[None], picture.image(picture.coarse)[None] if self.shape.image else None

    def typical_length(self, weights: Array, picture: Picture) -> float:
        """About how long the gradient of the log odds is, less that at the mean input, in the coordinates of
        `private.coordinates`; above 0. Alike whenever it is asked for."""
        return _typical_length(self, weights.tobytes(), picture.numbers().tobytes())


@lru_cache(maxsize=16)
def _typical_length(network: Reference, weights: bytes, picture: bytes) -> float:
    """Root of the mean square of differences along random directions (Hutchinson 1989).

    Directions and made-up inputs come from a public stream: they hide nothing."""
    where = picture_of(network.shape, np.frombuffer(picture))
    at = np.frombuffer(weights)
    x, images = _made_up(where)
    tries = max(2, min(DIRECTIONS, MEASURED_NUMBERS // (2 * (MADE_UP_INPUTS + 1) * network.sized.numbers)))
    squares = []
    for k in range(tries):
        direction = _bell(b"direction", k, len(at))
        for one in entries(network.layers, network.sized.parameters, where):
            one.step(direction)
        there, back = (network.log_odds(at + s * _STEP * direction, x, images) for s in (1, -1))
        moved = (there - back) / (2 * _STEP)
        squares.append(float(np.mean((moved[1:] - moved[0]) ** 2)))
    found = sqrt(sum(squares) / len(squares))
    return found if np.isfinite(found) and found > 1e-6 else 1.0


def _made_up(where: Picture) -> tuple[Array, Array | None]:
    """The mean input, and MADE_UP_INPUTS around it: columns spread as opened, images by their cells."""
    shape, k = where.shape, MADE_UP_INPUTS
    bells = np.stack([np.zeros(shape.columns), *(_bell(b"columns", j, shape.columns) for j in range(k))])
    x = where.means + where.spreads * bells
    if not shape.image:
        return x, None
    spreads = where.channel_spreads.reshape(-1, *[1] * len(shape.cells))
    images = [where.image(where.coarse)]
    for j in range(k):
        bell = _bell(b"image", j, shape.coarse).reshape(where.coarse.shape)
        images.append(np.clip(where.image(where.coarse + spreads * bell), -1.0, 1.0))
    return x, np.stack(images)


def _bell(purpose: bytes, number: int, size: int) -> Array:
    """[size] of mean 0 and variance 1, uniform: directions and inputs need no more."""
    words = np.frombuffer(keystream(digest(_LABEL, purpose, number.to_bytes(4, "little")), 4 * size), dtype="<u4")
    return np.asarray(((words.astype(np.float64) + 0.5) / 2.0**31 - 1.0) * sqrt(3.0))


# --- layers -----------------------------------------------------------------------------------


def _through(layers: Sequence[Layer], prefix: str, named: dict[str, Any], found: Array, x: Array) -> Array:
    for k, layer in enumerate(layers):
        found = _layer(layer, f"{prefix}{k}", named, found, x)
    return found


def _layer(layer: Layer, name: str, named: dict[str, Any], found: Array, x: Array) -> Array:
    match layer:
        case Dense():
            return np.asarray(found.reshape(len(found), -1) @ named[f"{name}.weight"].T + named[f"{name}.bias"])
        case Conv():
            return _conv(layer, named[f"{name}.weight"], named[f"{name}.bias"], found)
        case Pool():
            return _pool(layer, found)
        case GlobalMean():
            return np.asarray(found.reshape(*found.shape[:2], -1).mean(axis=2))
        case Norm():
            return _norm(layer, named[f"{name}.weight"], named[f"{name}.bias"], found)
        case Activation():
            return _activation(layer, found)
        case Residual():
            return found + _through(layer.inner, f"{name}.", named, found, x)
        case Join():
            return np.hstack([found.reshape(len(found), -1), x])
        case Dropout() | Monai():
            return found


def _conv(layer: Conv, weight: Array, bias: Array, found: Array) -> Array:
    sides, pad = found.ndim - 2, layer.kernel // 2
    padded = np.pad(found, [(0, 0), (0, 0), *[(pad, pad)] * sides])
    axes = tuple(range(2, 2 + sides))
    windows = sliding_window_view(padded, (layer.kernel,) * sides, axis=axes)
    windows = windows[(slice(None), slice(None), *[slice(None, None, layer.stride)] * sides)]
    summed = np.tensordot(windows, weight, axes=([1, *range(2 + sides, 2 + 2 * sides)], [1, *range(2, 2 + sides)]))
    return np.asarray(np.moveaxis(summed + bias, -1, 1))


def _pool(layer: Pool, found: Array) -> Array:
    sides = [side // layer.size for side in found.shape[2:]]
    cut = found[(slice(None), slice(None), *(slice(0, side * layer.size) for side in sides))]
    split = cut.reshape(*cut.shape[:2], *(n for side in sides for n in (side, layer.size)))
    axes = tuple(range(3, 3 + 2 * len(sides), 2))
    return np.asarray(split.max(axis=axes) if layer.kind == "max" else split.mean(axis=axes))


def _norm(layer: Norm, weight: Array, bias: Array, found: Array) -> Array:
    grouped = found.reshape(len(found), layer.groups, -1)
    middle, variance = grouped.mean(axis=2, keepdims=True), grouped.var(axis=2, keepdims=True)
    even = ((grouped - middle) / np.sqrt(variance + _NORM_FLOOR)).reshape(found.shape)
    along = (-1, *[1] * (found.ndim - 2))
    return np.asarray(even * weight.reshape(along) + bias.reshape(along))


def _activation(layer: Activation, found: Array) -> Array:
    match layer.kind:
        case "relu":
            return np.maximum(found, 0.0)
        case "tanh":
            return np.tanh(found)
        case "gelu":
            return np.asarray(found * (1 + erf(found / sqrt(2.0))) / 2)
        case "elu":
            return np.where(found > 0, found, np.expm1(np.minimum(found, 0.0)))
