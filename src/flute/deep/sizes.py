"""What layers come to: shapes, weights and their order, from public facts alone and without torch.

A network's weights are one vector: parameter after parameter in the order of `Sized.parameters`, each in C order.
Names are those of the torch module that `build` makes. Networks of MONAI's are sized by MONAI (`monai_networks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

from flute.deep import monai_networks
from flute.deep.layers import (
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalMean,
    Join,
    Layer,
    Monai,
    Norm,
    Pool,
    Residual,
)
from flute.deep.parameter import Parameter, Shape
from flute.defaults.models.deep import MAX_NESTED, MAX_NETWORK_NUMBERS, MAX_WEIGHTS
from flute.errors import StudyFileError

LAST = "last"
"""Name of the dense layer of size 1 that every network ends with."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A network's parameters in order. numbers: what all layers give for one patient, together."""

    parameters: tuple[Parameter, ...]
    numbers: int

    @property
    def total(self) -> int:
        """Length of the vector of weights."""
        return sum(parameter.size for parameter in self.parameters)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Where a walk through the layers stands. shape: what the next layer takes, one patient's: (numbers,) or
    (channels, sides...). columns: how many numbers a join would add."""

    shape: Shape
    columns: int
    image: bool
    within: int = 0
    """How many residual layers the walk is in."""
    word: str = ""
    """Number of the layer, from 1, within its network: "3", or "3.2" in a residual layer."""

    def refused(self, layer: Layer, text: str) -> StudyFileError:
        return StudyFileError(f"network: layer {self.word} ({kind_of(layer)}) {text}")


@dataclass(frozen=True, slots=True)
class _Step:
    """What one layer makes of its input: the shape after it, and its parameters, named within the layer."""

    shape: Shape
    parameters: tuple[Parameter, ...] = ()
    numbers: int = 0
    """Besides those of its output."""


def kind_of(layer: Layer) -> str:
    """The word that a study file names the layer by."""
    return str(type(layer).__struct_config__.tag)


def sized(layers: Sequence[Layer], columns: int, image: Shape) -> Sized:
    """A network over `columns` numbers and an image of this shape, () where there is none.

    Raises: StudyFileError: layers that do not fit on each other, or too large a network; which layer, and what to do.
    """
    if not columns and not image:
        raise StudyFileError("predictors: a network needs some, or an image; name them.")
    joins = [k for k, layer in enumerate(layers) if isinstance(layer, Join)]
    if columns and image and len(joins) != 1:
        raise StudyFileError(
            "network: it takes an image and predictors; write one layer 'join' where the predictors come in."
        )
    walk = _Walk(image or (columns,), columns, bool(image))
    shape, parameters, numbers = _through(layers, walk)
    last = _dense_parameters(prod(shape), 1)
    parameters += [parameter.under(LAST) for parameter in last]
    found = Sized(tuple(parameters), numbers + 1)
    if found.total > MAX_WEIGHTS:
        raise StudyFileError(
            f"network: it has {found.total:,} weights, and {MAX_WEIGHTS:,} is the most; take fewer channels, a "
            "smaller dense layer, or pool before it."
        )
    if found.numbers > MAX_NETWORK_NUMBERS:
        raise StudyFileError(
            f"network: its layers give {found.numbers:,} numbers for one patient, and {MAX_NETWORK_NUMBERS:,} is the "
            "most; take fewer channels, or a stride or a pool earlier."
        )
    return found


def _through(layers: Sequence[Layer], walk: _Walk) -> tuple[Shape, list[Parameter], int]:
    shape, parameters, numbers = walk.shape, list[Parameter](), 0
    for k, layer in enumerate(layers):
        word = f"{walk.word}.{k + 1}" if walk.within else str(k + 1)
        step = _step(layer, _Walk(shape, walk.columns, walk.image, walk.within, word), first=k == 0)
        parameters += [parameter.under(str(k)) for parameter in step.parameters]
        shape, numbers = step.shape, numbers + prod(step.shape) + step.numbers
    return shape, parameters, numbers


def _step(layer: Layer, walk: _Walk, *, first: bool) -> _Step:
    match layer:
        case Dense():
            return _Step((layer.size,), _dense_parameters(prod(walk.shape), layer.size))
        case Conv():
            return _conv(layer, walk)
        case Pool():
            sides = tuple(side // layer.size for side in _image(layer, walk)[1:])
            if min(sides) < 1:
                raise walk.refused(layer, f"leaves nothing of an image of {_said(walk.shape)}; pool less.")
            return _Step((walk.shape[0], *sides))
        case GlobalMean():
            return _Step((_image(layer, walk)[0],))
        case Norm():
            return _norm(layer, walk)
        case Activation() | Dropout():
            return _Step(walk.shape)
        case Residual():
            return _residual(layer, walk)
        case Join():
            if walk.within or not (walk.columns and walk.image):
                raise walk.refused(layer, "is for networks that take an image and predictors, and not in 'residual'.")
            return _Step((prod(walk.shape) + walk.columns,))
        case Monai():
            if not first or walk.within or len(walk.shape) < 3:
                raise walk.refused(layer, "takes the image itself; write it first, and name an image.")
            return _monai(layer, walk)


def _image(layer: Layer, walk: _Walk) -> Shape:
    if len(walk.shape) < 3:
        why = "put it before what lays the image out ('dense', 'global-mean')" if walk.image else "name one"
        raise walk.refused(layer, f"needs an image; {why}.")
    return walk.shape


def _dense_parameters(inputs: int, outputs: int) -> tuple[Parameter, ...]:
    """Uniform to one over the root of the number of inputs, as torch draws them."""
    bound = 1 / sqrt(inputs)
    return (Parameter("weight", (outputs, inputs), 0.0, bound), Parameter("bias", (outputs,), 0.0, bound))


def _conv(layer: Conv, walk: _Walk) -> _Step:
    channels, *sides = _image(layer, walk)
    padding = layer.kernel // 2
    after = tuple((side + 2 * padding - layer.kernel) // layer.stride + 1 for side in sides)
    kernel = (layer.kernel,) * len(sides)
    bound = 1 / sqrt(channels * prod(kernel))
    weight = Parameter("weight", (layer.channels, channels, *kernel), 0.0, bound)
    return _Step((layer.channels, *after), (weight, Parameter("bias", (layer.channels,), 0.0, bound)))


def _norm(layer: Norm, walk: _Walk) -> _Step:
    channels = walk.shape[0]
    if channels % layer.groups:
        raise walk.refused(layer, f"cannot divide {channels} channels or numbers into {layer.groups} groups.")
    if prod(walk.shape) // layer.groups < 2:
        raise walk.refused(layer, "would have one number in a group, and make it 0; take fewer groups.")
    return _Step(walk.shape, (Parameter("weight", (channels,), 1.0), Parameter("bias", (channels,), 0.0)))


def _residual(layer: Residual, walk: _Walk) -> _Step:
    if walk.within == MAX_NESTED:
        raise walk.refused(layer, f"stands in {MAX_NESTED} others; write them one after the other.")
    inner = _Walk(walk.shape, walk.columns, walk.image, walk.within + 1, walk.word)
    shape, parameters, numbers = _through(layer.inner, inner)
    if shape != walk.shape:
        raise walk.refused(
            layer, f"takes {_said(walk.shape)} and its inner layers give {_said(shape)}; they must be alike."
        )
    return _Step(shape, tuple(parameters), numbers)


def _monai(layer: Monai, walk: _Walk) -> _Step:
    found = monai_networks.measured(layer, walk.shape)
    return _Step((layer.outputs,), found.parameters, found.numbers)


def _said(shape: Shape) -> str:
    return " x ".join(str(side) for side in shape)
