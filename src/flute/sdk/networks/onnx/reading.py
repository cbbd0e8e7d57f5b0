"""An ONNX file as operators in order, each with the arrays it is given and the shapes that it works on.

The `onnx` package parses and checks it; nothing of it is run. Refused beforehand is what a file could hide:
functions, operators of others, graphs within operators (loops, branches), arrays in files beside it, trainings.
Source: onnx.proto (ONNX 1.22).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.deep.parameter import Shape
from flute.defaults.models.own_networks import MAX_GRAPH_BYTES, MAX_GRAPH_OPERATORS, MAX_SHOWN, OPSETS, TRIED_PATIENTS
from flute.errors import MisuseError, SandboxRefusal
from flute.sandbox.formats import require_model
from flute.sdk.extras import loaded

_OURS: Final = ("", "ai.onnx")
_OTHERWISE: Final = "export it with torch.onnx.export(module.eval(), …), without functions, loops and branches"
_WITHIN: Final = ("g", "graphs", "sparse_tensor", "sparse_tensors", "tp", "type_protos", "ref_attr_name")
"""What an attribute may hold besides numbers, words and an array."""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """output: the first. said: its attributes. given: of its inputs those that are kept in the file, None for what is
    computed. before, after: shapes of its first input and output, patients included."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    said: Mapping[str, Any]
    given: tuple[NDArray[Any] | None, ...]
    before: Shape
    after: Shape

    def __str__(self) -> str:
        return f"{self.kind} {shown(self.name)!r}" if self.name else self.kind


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """made: each operator by its output, but those that keep an array. inputs: shapes, patients included."""

    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    made: Mapping[str, Operator]


def read_graph(raw: bytes) -> Graph:
    """Raises: MisuseError: no ONNX file, or something in it that is not taken; `onnx` is not installed."""
    try:
        require_model(raw, MAX_GRAPH_BYTES)
    except SandboxRefusal as error:
        raise MisuseError(error.text) from error
    onnx = loaded("onnx", "sdk")
    try:
        model = onnx.load_model_from_string(raw)
    except Exception as error:  # the parser's own
        raise MisuseError("This ONNX file is damaged: it cannot be parsed.") from error
    _require_plain(model)
    _fix_patients(model.graph)
    try:
        onnx.checker.check_model(model, full_check=True)
        shapes = _shapes(onnx, model)
    except Exception as error:  # the checker's own
        raise MisuseError(f"This ONNX file is not sound: {shown(str(error), 2 * MAX_SHOWN)}") from error
    return _graph(onnx, model.graph, shapes)


def shown(text: str | bytes, most: int = MAX_SHOWN) -> str:
    """The first line of a text out of the file (bytes where it is none), cut, without what cannot be printed."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    first = "".join(c for c in text.strip().partition("\n")[0] if c.isprintable())
    return first if len(first) <= most else first[:most] + "…"


def _require_plain(model: Any) -> None:
    """Raises: MisuseError: see the module's head."""
    found = [one.version for one in model.opset_import if one.domain in _OURS]
    if len(found) != 1 or found[0] not in OPSETS:
        raise MisuseError(
            f"ONNX's operators are read of opset {OPSETS[0]} to {OPSETS[-1]}, not {found[0] if found else 'another'};"
            " export with torch.onnx.export(…, opset_version=20)."
        )
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer or graph.quantization_annotation:
        raise _not_taken("functions, a training, or sparse or quantised arrays")
    if len(graph.node) > MAX_GRAPH_OPERATORS:
        raise MisuseError(f"{len(graph.node):,} operators are too many; {MAX_GRAPH_OPERATORS:,} is the most.")
    for node in graph.node:
        if node.domain not in _OURS:
            raise _not_taken(f"{shown(node.op_type)} of {shown(node.domain)}, which is none of ONNX's own operators")
        for one in node.attribute:
            if any(one.HasField(f) if f in ("g", "sparse_tensor", "tp") else getattr(one, f) for f in _WITHIN):
                raise _not_taken(f"{shown(node.op_type)} with {shown(one.name)} of its own")
    for tensor in _tensors(graph):
        if tensor.data_location or tensor.external_data:
            raise MisuseError(
                "The weights of this ONNX file lie in another file; export with external_data=False, or save it by "
                "onnx.save(model, path, save_as_external_data=False)."
            )


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for one in node.attribute:
            yield from (one.t, *one.tensors)


def _fix_patients(graph: Any) -> None:
    """So that all shapes come out as numbers: a shape that depends on how many patients there are does so openly."""
    kept = {tensor.name for tensor in graph.initializer}
    for one in graph.input:
        sides = one.type.tensor_type.shape.dim
        if one.name not in kept and len(sides) and not sides[0].HasField("dim_value"):
            sides[0].dim_value = TRIED_PATIENTS
    for one in graph.output:
        for side in one.type.tensor_type.shape.dim:
            side.Clear()
    del graph.value_info[:]


def _shapes(onnx: Any, model: Any) -> dict[str, Shape]:
    """Of all that is passed on. The package finds none behind a group normalisation; it does behind an instance
    normalisation, which changes no shape either."""
    alike = onnx.ModelProto()
    alike.CopyFrom(model)
    for node in alike.graph.node:
        if node.op_type == "GroupNormalization":
            node.op_type = "InstanceNormalization"
            del node.attribute[:]
    found = onnx.shape_inference.infer_shapes(alike, check_type=True, strict_mode=True, data_prop=True).graph
    return {one.name: _shape(one) for one in (*found.input, *found.output, *found.value_info)}


def _graph(onnx: Any, graph: Any, shapes: Mapping[str, Shape]) -> Graph:
    arrays = {tensor.name: _array(onnx, tensor) for tensor in graph.initializer}
    made: dict[str, Operator] = {}
    for node in graph.node:
        said = {one.name: _value(onnx, one) for one in node.attribute}
        output = node.output[0]
        if node.op_type == "Constant" and len(said) == 1:
            arrays[output] = np.asarray(*said.values())
        elif node.op_type == "Identity" and node.input[0] in arrays:
            arrays[output] = arrays[node.input[0]]
        else:
            inputs = tuple(node.input)
            given = tuple(arrays.get(name) for name in inputs)
            before = shapes.get(inputs[0], ()) if inputs else ()
            made[output] = Operator(
                node.op_type, node.name, inputs, output, said, given, before, shapes.get(output, ())
            )  # fmt: skip
    asked = {one.name: shapes[one.name] for one in graph.input if one.name not in arrays}
    return Graph(asked, tuple(one.name for one in graph.output), made)


def _array(onnx: Any, tensor: Any) -> NDArray[Any]:
    """Raises: MisuseError: other numbers than its shape and type say."""
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (TypeError, ValueError) as error:
        raise MisuseError(f"Array {shown(tensor.name)!r} has other numbers than its shape and type say.") from error


def _value(onnx: Any, attribute: Any) -> Any:
    """A number, a word, a tuple of numbers, or an array."""
    if attribute.HasField("t"):
        return _array(onnx, attribute.t)
    found = onnx.helper.get_attribute_value(attribute)
    if isinstance(found, bytes):
        return found.decode(errors="replace")
    return found if isinstance(found, int | float) else tuple(found)


def _shape(value: Any) -> Shape:
    """0 for a side that depends on something else than the patients."""
    return tuple(side.dim_value for side in value.type.tensor_type.shape.dim)


def _not_taken(what: str) -> MisuseError:
    return MisuseError(f"This ONNX file has {what}, which is not taken; {_OTHERWISE}.")
