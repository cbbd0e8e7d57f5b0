"""A network as a study says it: a closed list of layers. No code travels, so a steward can read all of it.

A network takes one patient's image [channels, (depth,) height, width], or the numbers of her predictors where there
is no image, and ends in one number, the log odds of the outcome: a last dense layer of size 1 is added by itself. No
layer looks at two patients at once (there is no batch normalisation): else no patient's part could be bounded.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from flute.messages.limits import Name

Size = Annotated[int, Meta(ge=1, le=4096)]
Kernel = Annotated[int, Meta(ge=1, le=15)]


_Plain = bool | int | float | Annotated[str, Meta(max_length=64)]
_Named = Annotated[dict[Name, _Plain], Meta(max_length=16)]
Argument = _Plain | _Named | Annotated[tuple[_Plain | _Named, ...], Meta(max_length=16)]
"""What an argument of a MONAI network may be."""


class Dense(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="dense"):
    """A linear layer over all numbers; an image is laid out in a row first."""

    size: Size


class Conv(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="conv"):
    """A convolution in 2 or 3 dimensions, as the image has; padded so that stride 1 keeps the size (odd kernels)."""

    channels: Size
    kernel: Kernel = 3
    stride: Annotated[int, Meta(ge=1, le=8)] = 1


class Pool(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="pool"):
    """The largest or the mean of each box of `size` along every dimension; what does not fill one is left out."""

    size: Annotated[int, Meta(ge=2, le=8)] = 2
    kind: Literal["max", "mean"] = "max"


class GlobalMean(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="global-mean"):
    """The mean of each channel."""


class Norm(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="norm"):
    """Group normalisation (Wu and He 2018): `groups` divides the channels, or the numbers, of each patient alone."""

    groups: Annotated[int, Meta(ge=1, le=256)] = 1


class Activation(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="activation"):
    kind: Literal["relu", "tanh", "gelu", "elu"] = "relu"


class Dropout(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="dropout"):
    """While training, this part of the numbers is 0."""

    part: Annotated[float, Meta(ge=0, lt=1)] = 0.5


class Residual(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="residual"):
    """`inner`'s output plus its input, which must be of one shape."""

    inner: Annotated[tuple[Layer, ...], Meta(min_length=1, max_length=32)]


class Join(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="join"):
    """Puts the numbers of the predictors behind what the image has become; once, in networks of both."""


class Monai(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer", tag="monai"):
    """A network of MONAI's by its name, the first layer of its network, with `outputs` numbers at its end.

    arguments: its other arguments, as in Python; numbers, words, true or false, lists of them, and arguments of a
    part of it by name."""

    name: Name
    outputs: Size = 16
    arguments: Annotated[dict[Name, Argument], Meta(max_length=32)] = {}


Layer = Dense | Conv | Pool | GlobalMean | Norm | Activation | Dropout | Residual | Join | Monai
Layers = Annotated[tuple[Layer, ...], Meta(max_length=64)]
