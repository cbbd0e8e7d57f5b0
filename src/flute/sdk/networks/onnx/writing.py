"""A trained network as an ONNX file that any runtime takes: the layers that hubs build, and the weights.

Inputs are what `NeuralNetwork.inputs` gives: `numbers` [n, columns] on the study's public scale, and `image`
[n, *shape] within [-1, 1]; the output is `log_odds` [n]. What does nothing in use (dropout) is not written.
Source: ONNX operators, opset 21.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Join, Layer, Monai, Norm, Pool, Residual
from flute.deep.parameter import Shape
from flute.deep.sizes import LAST
from flute.defaults.models.own_networks import WRITTEN_IR_VERSION, WRITTEN_OPSET
from flute.errors import MisuseError
from flute.sdk.extras import loaded
from flute.sdk.networks.own_layers import EPS

NUMBERS, IMAGE, LOG_ODDS = "numbers", "image", "log_odds"
_KINDS: Final = {"relu": "Relu", "tanh": "Tanh", "gelu": "Gelu", "elu": "Elu"}


def written(
    layers: Sequence[Layer], columns: int, image: Shape, weights: Mapping[str, NDArray[Any]], said: Mapping[str, str]
) -> bytes:
    """weights: float32 by name, as `sizes` names them. said: remarks that the file carries, such as names of columns.

    Raises: MisuseError: a network of MONAI's, whose inside is not known here; `onnx` is not installed."""
    onnx = loaded("onnx", "sdk")
    graph = _Writer(onnx, columns, weights)
    end = graph.layers(layers, "", (IMAGE, image) if image else (NUMBERS, (columns,)))
    last = graph.add("Gemm", [graph.flat(end), *graph.held(LAST)], transB=1)
    graph.add("Squeeze", [last, graph.kept("last.side", np.array([1]))], LOG_ODDS)
    given = {**({IMAGE: image} if image else {}), **({NUMBERS: (columns,)} if columns else {})}
    inputs, output = (
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["patients", *sides]) for n, sides in some]
        for some in (given.items(), [(LOG_ODDS, ())])
    )
    made = onnx.helper.make_graph(graph.nodes, "network", inputs, output, graph.tensors)
    opsets = [onnx.helper.make_opsetid("", WRITTEN_OPSET)]
    model = onnx.helper.make_model(made, producer_name="flute", opset_imports=opsets, ir_version=WRITTEN_IR_VERSION)
    onnx.helper.set_model_props(model, dict(said))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


_At = tuple[str, Shape]
"""What the next layer takes: its name, and its shape without the patients."""


class _Writer:
    """Collects operators and arrays in order."""

    def __init__(self, onnx: Any, columns: int, weights: Mapping[str, NDArray[Any]]) -> None:
        self._onnx, self._columns, self._weights = onnx, columns, weights
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def layers(self, layers: Sequence[Layer], prefix: str, at: _At) -> _At:
        for k, layer in enumerate(layers):
            at = self._layer(layer, f"{prefix}{k}", at)
        return at

    def _layer(self, layer: Layer, name: str, at: _At) -> _At:
        before, shape = at
        match layer:
            case Dense():
                return self.add("Gemm", [self.flat(at), *self.held(name)], transB=1), (layer.size,)
            case Conv():
                return self._conv(layer, name, at)
            case Pool():
                size = [layer.size] * (len(shape) - 1)
                kind = "MaxPool" if layer.kind == "max" else "AveragePool"
                found = self.add(kind, [before], kernel_shape=size, strides=size)
                return found, (shape[0], *(side // layer.size for side in shape[1:]))
            case GlobalMean():
                return self.add("Flatten", [self.add("GlobalAveragePool", [before])]), shape[:1]
            case Norm():
                return self._norm(layer, name, at), shape
            case Activation():
                return self.add(_KINDS[layer.kind], [before]), shape
            case Dropout():
                return at
            case Residual():
                return self.add("Add", [before, self.layers(layer.inner, f"{name}.", at)[0]]), shape
            case Join():
                return self.add("Concat", [self.flat(at), NUMBERS], axis=1), (prod(shape) + self._columns,)
            case Monai():
                raise MisuseError(
                    f"{layer.name} is MONAI's, whose operators are not known here; write "
                    "torch.onnx.export(model.to_torch(), …)."
                )

    def _conv(self, layer: Conv, name: str, at: _At) -> _At:
        before, shape = at
        sides, pad = len(shape) - 1, layer.kernel // 2
        strides = [layer.stride] * sides
        found = self.add("Conv", [before, *self.held(name)], strides=strides, pads=[pad] * 2 * sides)
        after = ((side + 2 * pad - layer.kernel) // layer.stride + 1 for side in shape[1:])
        return found, (layer.channels, *after)

    def _norm(self, layer: Norm, name: str, at: _At) -> str:
        """ONNX's group normalisation is for images: each of a patient's numbers gets a side of its own for it."""
        before, shape = at
        if len(shape) > 1:
            return self.add("GroupNormalization", [before, *self.held(name)], num_groups=layer.groups, epsilon=EPS)
        side = self.kept(f"{name}.side", np.array([2]))
        wide = self.add("Unsqueeze", [before, side])
        even = self.add("GroupNormalization", [wide, *self.held(name)], num_groups=layer.groups, epsilon=EPS)
        return self.add("Squeeze", [even, side])

    def flat(self, at: _At) -> str:
        before, shape = at
        return self.add("Flatten", [before]) if len(shape) > 1 else before

    def held(self, name: str) -> list[str]:
        """Names of a layer's weight and bias, which are kept in the file from now on."""
        return [self.kept(one, self._weights[one]) for one in (f"{name}.weight", f"{name}.bias")]

    def kept(self, name: str, array: NDArray[Any]) -> str:
        self.tensors.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **said: Any) -> str:
        """The name of what it gives."""
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name=name, **said))
        return name
