"""One gradient per patient, at a hub. Import this module where torch is needed, not above.

Nothing here fails, or takes longer, on account of a patient's values: who is left out has a row of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flute.data.variables import Array
from flute.deep.build import build, unflatten
from flute.deep.device import device, full_precision
from flute.deep.inputs import Floats, Inputs
from flute.deep.private.coordinates import Entry, entries
from flute.deep.private.inputs import Picture, parts_of
from flute.deep.private.reference import Reference
from flute.defaults.models.private_networks import BIAS_UNIT, BLOCK_BYTES, MOST_AT_ONCE, TYPICAL_CLIP

_BYTES_PER_WEIGHT = 24
"""Of one patient: weights and gradient in 4 bytes, the row and its copy in 8."""
_BYTES_PER_NUMBER = 12
"""Of what layers give: itself, and what a backward pass keeps beside it."""


def gradient_blocks(
    network: Reference, weights: Array, picture: Picture, length: float, data: Inputs
) -> Iterator[Array]:
    """Rows float64 [k, total] as `private` says, finite; k so that they need BLOCK_BYTES."""
    gradients = _Gradients(network, weights)
    moved = entries(network.layers, network.sized.parameters, picture)
    x, image = network.middle(picture)
    middle = _coordinates(gradients.of(x, image)[1], moved)[0]
    each = _BYTES_PER_WEIGHT * network.sized.total + _BYTES_PER_NUMBER * network.sized.numbers
    if not len(data):
        yield np.zeros((0, network.sized.total))
        return
    for rows in parts_of(len(data), max(1, min(MOST_AT_ONCE, BLOCK_BYTES // each))):
        yield _block(gradients, moved, middle, length, data, rows)


def _block(
    gradients: _Gradients,
    moved: tuple[Entry, ...],
    middle: Array,
    length: float,
    data: Inputs,
    rows: NDArray[np.int64],
) -> Array:
    logits, found = gradients.of(data.x[rows], data.images(rows))
    errors = 1 / (1 + np.exp(-np.clip(logits, -500.0, 500.0))) - data.y[rows]
    found = _coordinates(found, moved)
    found -= middle
    found /= max(length, 1e-6)
    found[:, -1] = BIAS_UNIT
    found *= (errors * data.included[rows] / TYPICAL_CLIP)[:, None]
    np.nan_to_num(found, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return found


def _coordinates(found: Array, moved: tuple[Entry, ...]) -> Array:
    for entry in moved:
        entry.gradient(found)
    return found


class _Gradients:
    """Log odds, and their gradients by all weights, of one patient each."""

    def __init__(self, network: Reference, weights: Array) -> None:
        self._where = device()
        self._parameters = network.sized.parameters
        self._module = build(network.layers, network.shape.columns, network.shape.image).to(self._where).eval()
        with np.errstate(over="ignore"):
            self._weights = torch.from_numpy(weights.astype(np.float32)).to(self._where)

    @full_precision()
    def of(self, x: Array | Floats, images: Array | Floats | None) -> tuple[Array, Array]:
        """float64 [k], [k, total]. Every patient has weights of her own, all alike: one backward pass is enough."""
        given = [x] if images is None else [x, images]
        with np.errstate(over="ignore"):
            tensors = [torch.from_numpy(np.asarray(part, dtype=np.float32)).to(self._where) for part in given]
        own = self._weights.expand(len(x), -1).clone().requires_grad_()
        logits = torch.func.vmap(self._one)(own, *tensors)
        (found,) = torch.autograd.grad(logits.sum(), own)
        return logits.detach().double().cpu().numpy(), found.double().cpu().numpy()

    def _one(self, weights: Any, *given: Any) -> Any:
        named = unflatten(weights, self._parameters)
        return torch.func.functional_call(self._module, named, tuple(part[None] for part in given))[0]
