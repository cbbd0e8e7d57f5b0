"""Layers as a torch module, and its weights as a vector. Import this module where torch is needed, not above.

Parameters have the names, shapes and order that `sizes` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from flute.data.variables import Array
from flute.deep import monai_networks
from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Join, Layer, Monai, Norm, Pool, Residual
from flute.deep.parameter import Parameter, Shape
from flute.deep.sizes import LAST, sized
from flute.errors import MisuseError


class Network(nn.Module):  # type: ignore[misc]
    """A network of these layers over `columns` numbers and an image of this shape, () where there is none."""

    def __init__(self, layers: Sequence[Layer], columns: int, image: Shape) -> None:
        super().__init__()
        sized(layers, columns, image)
        self._joins = {str(k) for k, layer in enumerate(layers) if isinstance(layer, Join)}
        self._image = bool(image)
        shape = image or (columns,)
        for k, layer in enumerate(layers):
            module, shape = _module(layer, shape, columns)
            self.add_module(str(k), module)
        self.add_module(LAST, nn.Linear(prod(shape), 1))

    def forward(self, x: Any, image: Any = None) -> Any:
        """x: [n, columns]; image: [n, channels, sides...] or None. Returns: log odds [n]."""
        found = image if self._image else x
        for name, module in self.named_children():
            if name == LAST:
                found = found.flatten(1)
            found = module(torch.cat([found.flatten(1), x], 1)) if name in self._joins else module(found)
        return found[:, 0]


class Sum(nn.Sequential):  # type: ignore[misc]
    """What its layers make of the input, plus the input."""

    def forward(self, found: Any) -> Any:
        return found + super().forward(found)


class MeanOfSides(nn.Module):  # type: ignore[misc]
    def forward(self, found: Any) -> Any:
        return found.flatten(2).mean(2)


class Flat(nn.Linear):  # type: ignore[misc]
    """A linear layer that lays out what it is given."""

    def forward(self, found: Any) -> Any:
        return super().forward(found.flatten(1))


def build(layers: Sequence[Layer], columns: int, image: Shape) -> Network:
    """Raises: StudyFileError: layers that do not fit, see `sizes.sized`."""
    with torch.random.fork_rng(devices=[]):  # torch draws weights that are never used; its chance stays where it was
        return Network(layers, columns, image)


def _module(layer: Layer, shape: Shape, columns: int) -> tuple[Any, Shape]:
    """The layer's module, and the shape after it. Whether it fits has been checked."""
    three = len(shape) == 4
    match layer:
        case Dense():
            return Flat(prod(shape), layer.size), (layer.size,)
        case Conv():
            kind = nn.Conv3d if three else nn.Conv2d
            module = kind(shape[0], layer.channels, layer.kernel, layer.stride, padding=layer.kernel // 2)
            sides = ((s + 2 * (layer.kernel // 2) - layer.kernel) // layer.stride + 1 for s in shape[1:])
            return module, (layer.channels, *sides)
        case Pool():
            kinds = {("max", 0): nn.MaxPool2d, ("max", 1): nn.MaxPool3d, ("mean", 0): nn.AvgPool2d}
            kind = kinds.get((layer.kind, int(three)), nn.AvgPool3d)
            return kind(layer.size), (shape[0], *(side // layer.size for side in shape[1:]))
        case GlobalMean():
            return MeanOfSides(), (shape[0],)
        case Norm():
            return nn.GroupNorm(layer.groups, shape[0]), shape
        case Activation():
            return {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU}[layer.kind](), shape
        case Dropout():
            return nn.Dropout(layer.part), shape
        case Residual():
            inner, at = [], shape
            for one in layer.inner:
                module, at = _module(one, at, columns)
                inner.append(module)
            return Sum(*inner), shape
        case Join():
            return nn.Identity(), (prod(shape) + columns,)
        case Monai():
            return monai_networks.make(layer, shape), (layer.outputs,)


def unflatten(vector: Any, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Views of a tensor [total] by name, for `torch.func.functional_call`."""
    parts = torch.split(vector, [parameter.size for parameter in parameters])
    return {p.name: part.reshape(p.shape) for p, part in zip(parameters, parts, strict=True)}


def load(module: Any, weights: Array, parameters: Sequence[Parameter]) -> None:
    """Sets a module's weights and buffers from a vector [total]. Raises: MisuseError: another length."""
    total = sum(parameter.size for parameter in parameters)
    if weights.shape != (total,):
        raise MisuseError(f"This network has {total} weights.")
    tensors = tensors_of(module)
    ends = accumulate(parameter.size for parameter in parameters)
    with torch.no_grad(), np.errstate(over="ignore"):  # what is no number of 32 bits comes out as no change
        for parameter, end in zip(parameters, ends, strict=True):
            part = weights[end - parameter.size : end].astype(np.float32).reshape(parameter.shape)
            tensors[parameter.name].copy_(torch.from_numpy(part))


def flat(module: Any, parameters: Sequence[Parameter]) -> Array:
    """float64 [total]."""
    tensors = tensors_of(module)
    parts = [tensors[parameter.name].detach().cpu().numpy().ravel() for parameter in parameters]
    return np.concatenate(parts).astype(np.float64)


def tensors_of(module: Any) -> Mapping[str, Any]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
