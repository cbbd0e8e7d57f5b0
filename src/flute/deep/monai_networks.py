"""Networks of MONAI's by name: a closed list, each with the arguments that may be given. torch and MONAI are imported
only where one of them is asked for.

Which: those whose constructor takes the number of dimensions, channels and outputs, that have at most MAX_WEIGHTS in
some form, and that have been carried forward and backward in 2 and in 3 dimensions. `pretrained` is not among the
arguments: nothing is downloaded. Networks with batch normalisation keep running means besides their weights
(`Parameter.trained` false); a norm of its own, where the network takes one, does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from math import prod, sqrt
from types import MappingProxyType
from typing import Any, Final

import msgspec

from flute.deep.layers import Monai
from flute.deep.parameter import Parameter, Shape
from flute.defaults.models.deep import MAX_WEIGHTS, MONAI_LARGEST_ARGUMENT
from flute.errors import StudyFileError

_DENSE: Final = frozenset({"init_features", "growth_rate", "block_config", "bn_size", "act", "norm", "dropout_prob"})
_RESIDUAL: Final = frozenset(
    {"conv1_t_size", "conv1_t_stride", "no_max_pool", "shortcut_type", "widen_factor", "bias_downsample", "act"}
)
_PLAIN: Final = frozenset({"channels", "strides", "kernel_size", "num_res_units", "act", "norm", "dropout", "bias"})
ARGUMENTS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "Classifier": _PLAIN,
        "DenseNet": _DENSE,
        "DenseNet121": _DENSE,
        "Regressor": _PLAIN,
        "ResNet": _RESIDUAL | {"block", "layers", "block_inplanes"},
        "resnet10": _RESIDUAL,
        "resnet18": _RESIDUAL,
    }
)
"""Networks by their name in `monai.networks.nets`, and what a study may say of each."""
_LONGEST: Final = 16
"""Entries of a list among the arguments, and letters of a word."""
_FAULTS: Final = (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What constructors and layers raise for arguments and images that do not fit."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Parameters in the module's order, buffers last. numbers: what all its parts give for one patient."""

    parameters: tuple[Parameter, ...]
    numbers: int


def measured(layer: Monai, image: Shape) -> Measured:
    """Of this network over images of this shape.

    Raises: StudyFileError: a network or an argument that is not on the list, or that MONAI does not take; or there is
    no MONAI here."""
    _checked(layer)
    return _measured(msgspec.json.encode(layer), image)


def make(layer: Monai, image: Shape) -> Any:
    """The torch module, from [n, *image] to [n, outputs]. Raises: StudyFileError: as `measured`."""
    from monai.networks import nets

    given = _checked(layer) | _ours(layer, image)
    try:
        return getattr(nets, layer.name)(**given)
    except _FAULTS as error:
        raise _refused(layer, f"MONAI does not take these arguments: {_words(error)}") from error


def _ours(layer: Monai, image: Shape) -> dict[str, Any]:
    """The arguments that follow from the image and the number of outputs."""
    sides, channels, outputs = len(image) - 1, image[0], layer.outputs
    match layer.name:
        case "Classifier":
            return {"in_shape": image, "classes": outputs}
        case "Regressor":
            return {"in_shape": image, "out_shape": (outputs,)}
        case "DenseNet" | "DenseNet121":
            return {"spatial_dims": sides, "in_channels": channels, "out_channels": outputs}
        case _:
            return {"spatial_dims": sides, "n_input_channels": channels, "num_classes": outputs}


def _checked(layer: Monai) -> dict[str, Any]:
    """Its arguments, each one allowed and small."""
    if layer.name not in ARGUMENTS:
        raise _refused(layer, f"is not on the list of networks that may be used: {', '.join(sorted(ARGUMENTS))}.")
    unknown = sorted(set(layer.arguments) - ARGUMENTS[layer.name])
    if unknown:
        known = ", ".join(sorted(ARGUMENTS[layer.name]))
        raise _refused(layer, f"{unknown[0]!r} is not among the arguments that may be given: {known}.")
    for name, value in layer.arguments.items():
        _check_plain(layer, name, value, 0)
    return dict(layer.arguments)


def _check_plain(layer: Monai, name: str, value: Any, depth: int) -> None:
    """Numbers, words, true or false, lists of them, and [word, {setting: value}] as MONAI writes norms."""
    if isinstance(value, bool | None):
        return
    if isinstance(value, int | float):
        if not abs(value) <= MONAI_LARGEST_ARGUMENT:
            raise _refused(layer, f"{name}: a number is at most {MONAI_LARGEST_ARGUMENT}.")
        return
    if isinstance(value, str):
        if len(value) > _LONGEST or not value.replace("_", "").isalnum():
            raise _refused(layer, f"{name}: a word has at most {_LONGEST} letters, digits and '_'.")
        return
    if not isinstance(value, list | tuple | dict) or len(value) > _LONGEST or depth == 2:
        raise _refused(layer, f"{name}: write numbers, words, true or false, or short lists of them.")
    for one in [*value, *value.values()] if isinstance(value, dict) else value:
        _check_plain(layer, name, one, depth + 1)


@lru_cache(maxsize=32)
def _measured(raw: bytes, image: Shape) -> Measured:
    layer = msgspec.json.decode(raw, type=Monai)
    _require_monai(layer)
    import torch

    with torch.device("meta"):  # shapes alone: nothing is allocated for what may turn out too large
        hollow = make(layer, image).eval()
        total = sum(tensor.numel() for tensor in hollow.parameters())
        if total > MAX_WEIGHTS:
            raise _refused(layer, f"has {total:,} weights, and {MAX_WEIGHTS:,} is the most; make it narrower.")
        numbers = _forward(layer, hollow, image)
    with torch.random.fork_rng(devices=[]):
        module = make(layer, image)
    return Measured(tuple(_parameters(module)), numbers)


def _forward(layer: Monai, hollow: Any, image: Shape) -> int:
    """How many numbers its parts give for one image. Raises: StudyFileError: the image does not fit."""
    import torch

    given: list[int] = []
    for part in hollow.modules():
        if not list(part.children()):
            part.register_forward_hook(lambda _, __, output: given.append(output.numel()))
    try:
        output = hollow(torch.zeros(1, *image))
    except _FAULTS as error:
        raise _refused(layer, f"does not take images of {image}: {_words(error)}") from error
    if tuple(output.shape) != (1, layer.outputs):
        raise _refused(layer, f"gives {tuple(output.shape)[1:]}, not {layer.outputs} numbers, for a patient.")
    return sum(given)


def _parameters(module: Any) -> list[Parameter]:
    """Where all entries start alike (norms, slopes of activations) they start there; else uniformly by the number of
    inputs, as torch draws its own layers'; of one dimension, at 0."""
    found = []
    for name, tensor in module.named_parameters():
        shape, low, high = tuple(tensor.shape), float(tensor.detach().min()), float(tensor.detach().max())
        bound = 0.0 if low == high or len(shape) < 2 else 1 / sqrt(prod(shape[1:]))
        found.append(Parameter(name, shape, low if low == high else 0.0, bound))
    for name, tensor in module.named_buffers():
        if tensor.is_floating_point():
            found.append(Parameter(name, tuple(tensor.shape), float(tensor.min()), 0.0, trained=False))
    return found


def _require_monai(layer: Monai) -> None:
    if find_spec("torch") is None or find_spec("monai") is None:
        raise _refused(layer, "is MONAI's, which is not installed here; install it: pip install 'flute[deep]'.")


def _refused(layer: Monai, text: str) -> StudyFileError:
    return StudyFileError(f"network: monai {layer.name}: {text}")


def _words(error: BaseException) -> str:
    return str(error).split("\n")[0][:200]
