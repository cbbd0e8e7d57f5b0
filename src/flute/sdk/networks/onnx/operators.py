"""What stands for which: ONNX's operators as layers of a study.

Each reader takes an operator and gives a layer, FLAT, SAME or END.
Raises everywhere: MisuseError: it has no counterpart, and what to write instead; `sdk.networks.onnx.network` says
where.
Source: ONNX operators, opset 17 to 25 (what is read here means the same in all of them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Layer, Norm, Pool
from flute.errors import MisuseError
from flute.sdk.networks.onnx.reading import Operator
from flute.sdk.networks.own_layers import EPS, instead_of, require
from flute.sdk.networks.own_pieces import END, FLAT, SAME

_EPS_APART: Final = 1e-10
"""Of 1e-5 as a number of 32 bits."""
_NO_BIAS: Final = "a layer has a bias here; leave bias=False away"


def of_operator(operator: Operator) -> Layer | str:
    """Of operators that follow on their first input, whatever else they are given."""
    reader = _READERS.get(operator.kind)
    if reader is None:
        raise MisuseError(_INSTEAD.get(operator.kind) or instead_of(operator.kind))
    require(bool(operator.given) and operator.given[0] is None, "what follows on no input has no counterpart")
    return reader(operator)


def weights_of(operator: Operator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weight and bias as the layer has them."""
    weight, bias = _kept(operator, 1, "weight"), _kept(operator, 2, _NO_BIAS)
    return (weight if operator.kind != "Gemm" or operator.said.get("transB", 0) else weight.T), bias


def dense(weight: NDArray[Any]) -> Layer:
    """weight: [outputs, inputs]."""
    require(weight.ndim == 2 and weight.dtype == np.float32, "a linear layer has a matrix of 32-bit weights")
    return Dense(len(weight))


def require_eps(operator: Operator) -> None:
    apart = abs(operator.said.get("epsilon", EPS) - EPS)
    require(apart < _EPS_APART, f"a norm has eps={EPS:g} here")


def _kept(operator: Operator, place: int, what: str) -> NDArray[Any]:
    found = operator.given[place] if place < len(operator.given) else None
    if found is None:
        raise MisuseError(what if place >= len(operator.given) else f"its {what} has to be kept in the file")
    require(found.dtype == np.float32, "its weights are of other than 32-bit numbers; export it as float32")
    return found


def _gemm(operator: Operator) -> Layer:
    said = operator.said
    require(said.get("alpha", 1) == said.get("beta", 1) == 1 and not said.get("transA"), "only x W + b is read")
    return dense(weights_of(operator)[0])


def _conv(operator: Operator) -> Layer:
    said, (weight, _) = operator.said, weights_of(operator)
    sides = weight.ndim - 2
    require(sides in (2, 3), "images have 2 or 3 sides here")
    kernel = _one(weight.shape[2:], "kernel")
    stride = _one(said.get("strides", (1,) * sides), "stride")
    even = said.get("pads", (0,) * (2 * sides)) == (kernel // 2,) * (2 * sides)
    auto = said.get("auto_pad", "NOTSET")
    same = even if auto == "NOTSET" else auto in ("SAME_UPPER", "SAME_LOWER") and stride == 1
    require(kernel % 2 == 1 and same, f"write an odd kernel, with padding={kernel // 2}")
    plain = said.get("group", 1) == 1 and set(said.get("dilations", ())) <= {1}
    require(plain, "groups and dilation have no counterpart")
    return Conv(len(weight), kernel, stride)


def _pool(operator: Operator) -> Layer:
    said, sizes = operator.said, operator.said["kernel_shape"]
    size = _one(sizes, "box")
    plain = said.get("strides") == sizes and not any(said.get("pads", ())) and not said.get("ceil_mode", 0)
    plain = plain and set(said.get("dilations", ())) <= {1} and said.get("auto_pad", "NOTSET") == "NOTSET"
    require(plain and len(sizes) in (2, 3), "the boxes of a pool lie side by side, without padding")
    return Pool(size, "max" if operator.kind == "MaxPool" else "mean")


def _mean(operator: Operator) -> Layer:
    """Over all sides of an image, whether they are kept as ones or not."""
    before, after = operator.before, operator.after
    whole = len(before) in (4, 5) and after in (before[:2], before[:2] + (1,) * (len(before) - 2))
    require(whole, "only the mean over all sides of an image has a counterpart: mean(dim=(-2, -1))")
    return GlobalMean()


def _laid_out(operator: Operator) -> str:
    """What moves no number: patients stay apart, and each one's numbers stay in order."""
    before, after = operator.before, operator.after
    require(bool(before) and 0 not in (*before, *after), "its shape is not fixed; write flatten(1)")
    if after == before or (len(before) == 2 and after == (*before, 1)):
        return SAME
    if before[1:] == (1,) and after == before[:1]:
        return END
    row = (before[0], prod(before[1:]))
    require(after == row, "write flatten(1); other ways to lay numbers out have no counterpart")
    return FLAT


def _picked(operator: Operator) -> str:
    one = operator.before[1:] == (1,) and operator.after == operator.before[:1]
    require(one, "write [:, 0], at the end")
    return END


def _activation(operator: Operator) -> Layer:
    kind: Any = operator.kind.lower()
    usual = operator.said.get("alpha", 1.0) == 1.0 and operator.said.get("approximate", "none") == "none"
    require(usual, f"{kind} comes as PyTorch has it by default")
    return Activation(kind)


def _dropout(operator: Operator) -> Layer:
    part = operator.given[1] if len(operator.given) > 1 else None
    return Dropout(0.5 if part is None else float(part))


def _nothing(operator: Operator) -> str:
    return SAME


def _norm(operator: Operator) -> Layer:
    """Layer normalisation of numbers is group normalisation in one group; instance normalisation of an image, in as
    many groups as channels."""
    scale, bias = weights_of(operator)
    require(scale.ndim == 1 and scale.shape == bias.shape, "write nn.GroupNorm(1, channels) for images")
    require_eps(operator)
    if operator.kind == "LayerNormalization":
        require(len(operator.before) == 2, "write nn.GroupNorm(1, channels) for images")
        return Norm(1)
    return Norm(operator.said["num_groups"] if operator.kind == "GroupNormalization" else len(scale))


def _one(sizes: Sequence[int], what: str) -> int:
    require(len(set(sizes)) == 1, f"its {what} is of one size along all sides here")
    return sizes[0]


_READERS: Final[Mapping[str, Callable[[Operator], Layer | str]]] = {
    "Gemm": _gemm, "Conv": _conv, "MaxPool": _pool, "AveragePool": _pool, "GlobalAveragePool": _mean,
    "ReduceMean": _mean, "Flatten": _laid_out, "Reshape": _laid_out, "Squeeze": _laid_out, "Unsqueeze": _laid_out,
    "Gather": _picked, "Identity": _nothing, "Dropout": _dropout,
    "Relu": _activation, "Tanh": _activation, "Gelu": _activation, "Elu": _activation,
    "LayerNormalization": _norm, "InstanceNormalization": _norm, "GroupNormalization": _norm,
}  # fmt: skip
WEIGHED: Final = frozenset({"Gemm", "Conv", "LayerNormalization", "InstanceNormalization", "GroupNormalization"})
"""Operators with a weight and a bias."""

_INSTEAD: Final[Mapping[str, str]] = {
    "BatchNormalization": instead_of("batch_norm"),
    **dict.fromkeys(("Sigmoid", "Softmax", "LogSoftmax"), instead_of("Sigmoid")),
    **dict.fromkeys(("LeakyRelu", "PRelu", "Selu", "HardSwish", "Swish", "Mish", "Clip"), instead_of("LeakyReLU")),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Attention"), instead_of("LSTM")),
    "ConvTranspose": instead_of("ConvTranspose2d"),
    "Erf": "write it by torch.onnx.export(…, opset_version=20), where GELU is one operator",
    "Transpose": "images come with their channels first: [n, channels, height, width]",
    "MatMul": _NO_BIAS,
    "Mul": "a gate has no counterpart; if this is GELU, write it by torch.onnx.export(…, opset_version=20)",
    "Cast": "the network's numbers are of 32 bits throughout; export it as float32",
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), "export the network before it is quantised"),
}
