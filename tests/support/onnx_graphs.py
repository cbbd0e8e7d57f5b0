"""ONNX files out of operators said in a line each, sound and otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Inputs = Mapping[str, Sequence[int | None]]


class Graph:
    """A file in the making. outputs: names of what it gives, and their numbers of sides."""

    def __init__(self, inputs: Inputs, outputs: Mapping[str, int] | None = None) -> None:
        self.inputs, self.outputs = inputs, outputs or {"y": 2}
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], output: str, **said: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **said))

    def keep(self, name: str, array: Any) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def layer(self, inputs: str, output: str, taken: int, given: int) -> None:
        """A dense layer with weights of its own."""
        held = [self.keep(f"{output}_w", numbers(1, given, taken)), self.keep(f"{output}_b", numbers(2, given))]
        self.add("Gemm", [inputs, *held], output, transB=1)

    def ended(self, name: str, size: int) -> Graph:
        """With the linear layer of size 1 that every network ends in."""
        self.layer(name, "y", size, 1)
        return self

    def model(self, *, opset: int = 20, version: int = 9, domain: str = "") -> Any:
        ends = {name: [None] * rank for name, rank in self.outputs.items()}
        given, told = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in some.items()]
            for some in (self.inputs, ends)
        )
        graph = helper.make_graph(self.nodes, "tried", given, told, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=version)

    def file(self, change: Callable[[Any], object] = lambda model: None, **said: Any) -> bytes:
        """change: what is done to the model before it is written."""
        model = self.model(**said)
        change(model)
        return bytes(model.SerializeToString())


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def small(**changed: Any) -> Graph:
    """Of three numbers: a dense layer of four, ReLU, and the last one; `changed` as `Graph` takes it."""
    graph = Graph(**({"inputs": {"x": (None, 3)}} | changed))
    graph.layer("x", "one", 3, 4)
    graph.add("Relu", ["one"], "two")
    return graph.ended("two", 4)
