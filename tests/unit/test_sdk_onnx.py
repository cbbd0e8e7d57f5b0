"""Networks as ONNX files: what PyTorch exports and other tools write is read as layers; nothing else comes in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import flute.sdk as flute
from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Join, Layer, Monai, Norm, Pool, Residual
from flute.deep.sizes import sized
from flute.deep.start import start_weights
from flute.deep.weights import named_weights, write_weights
from flute.defaults.models.own_networks import MAX_GRAPH_OPERATORS
from flute.errors import MisuseError
from flute.sdk.networks.onnx.network import BroughtNetwork, read_onnx
from flute.sdk.networks.onnx.writing import written
from support.onnx_graphs import Graph, numbers, small

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "onnx"
EXPORTS = sorted(path.name for path in VECTORS.glob("*.onnx"))


def answers(raw: bytes, seed: int = 1) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """What onnxruntime makes of five invented patients, and what they are: numbers, image."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the file itself: the extra 'imaging'")
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(seed)
    fed = {i.name: chance.normal(size=(5, *i.shape[1:])).astype(np.float32) for i in session.get_inputs()}
    by_rank = {array.ndim: array for array in fed.values()}
    images = [array for rank, array in by_rank.items() if rank > 2]
    return session.run(None, fed)[0].reshape(-1), by_rank.get(2), images[0] if images else None


def ours(own: BroughtNetwork, x: np.ndarray | None, image: np.ndarray | None) -> np.ndarray:
    """The same by the module that hubs build."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: make deep")
    from flute.deep.build import build, load

    module = build(own.layers, own.columns, own.image)
    load(module, own.weights, own.sized.parameters)
    given = [None if one is None else torch.from_numpy(one) for one in (x, image)]
    with torch.no_grad():
        return np.asarray(module.eval()(*given).numpy())


# --- in --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("name", EXPORTS)
def test_what_pytorch_exports_is_read_as_layers_that_give_the_same(name: str) -> None:
    raw = (VECTORS / name).read_bytes()
    own = read_onnx(raw)
    theirs, x, image = answers(raw)
    found = ours(own, x, image)
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    assert theirs.std() > 1e-3  # the patients differ, so that the comparison says something
    assert np.abs(ours(moved(own), x, image) - theirs).max() > 1e-5  # and sees weights that are 1 % off


def moved(own: BroughtNetwork) -> BroughtNetwork:
    return BroughtNetwork(own.layers, own.columns, own.image, own.sized, own.weights * 1.01)


def test_both_exporters_of_pytorch_are_read_alike() -> None:
    by_name = {name: read_onnx(VECTORS / name) for name in EXPORTS}
    assert len(by_name) == 15
    for name, own in by_name.items():
        other = by_name[f"{name.partition('_')[0]}_exported_22.onnx"]
        assert own.layers == other.layers
        assert np.array_equal(own.weights, other.weights)


def test_a_path_and_its_bytes_say_the_same_layers() -> None:
    path = VECTORS / "both_traced.onnx"
    layers = flute.network(path)
    assert layers == flute.network(str(path)) == flute.network(path.read_bytes())
    assert layers[:2] == (flute.Conv(4, 5, 2), flute.Activation("tanh"))
    assert isinstance(layers[3], Residual)
    assert layers[-1] == flute.Join()


def test_a_file_stands_in_the_place_of_layers_in_a_question() -> None:
    path = str(VECTORS / "numbers_traced.onnx")
    asked = flute.NeuralNetwork("ill", ["age"], network=path).elements()
    assert asked["network"][0] == {"layer": "dense", "size": 8}
    assert [layer["layer"] for layer in asked["network"]] == ["dense", "activation", "dense", "activation"]


def other_tool() -> Graph:
    """Dense layers as x W + b, in two operators or with W laid out the other way, as others than PyTorch write them;
    weights in a Constant, and again among the inputs, as old files have them."""
    graph = Graph({"x": (None, 3), "w": (3, 4)})
    graph.add("MatMul", ["x", graph.keep("w", numbers(1, 3, 4))], "one")
    graph.add("Constant", [], "b", value=numpy_helper.from_array(numbers(2, 4)))
    graph.add("Add", ["b", "one"], "two")
    graph.add("Elu", ["two"], "three", alpha=1.0)
    graph.add("Identity", ["three"], "four")
    graph.add("Gemm", ["four", graph.keep("w2", numbers(5, 4, 2)), graph.keep("b2", numbers(6, 2))], "five")
    graph.add("Reshape", ["five", graph.keep("s", np.array([-1, 2]))], "six")
    return graph.ended("six", 2)


def test_dense_layers_as_other_tools_write_them_are_read() -> None:
    raw = other_tool().file(opset=17)
    own = read_onnx(raw)
    assert own.layers == (Dense(4), Activation("elu"), Dense(2))
    theirs, x, image = answers(raw)
    np.testing.assert_allclose(ours(own, x, image), theirs, atol=1e-5)


# --- what does not come in -------------------------------------------------------------------------------


def beside(kind: str, **said: Any) -> Graph:
    """The small network with an operator more behind its first layer."""
    graph = Graph({"x": (None, 3)})
    graph.layer("x", "one", 3, 4)
    graph.add(kind, ["one"], "two", **said)
    return graph.ended("two", 4)


def of_image(kind: str, inputs: list[str], **said: Any) -> Graph:
    graph = Graph({"x": (None, 1, 4, 4)})
    graph.keep("w", numbers(1, 2, 1, 3, 3))
    graph.keep("b", numbers(2, 2))
    graph.add(kind, inputs, "one", **said)
    graph.add("GlobalAveragePool", ["one"], "two")
    graph.add("Flatten", ["two"], "three", axis=1)
    return graph.ended("three", 1 if "Pool" in kind else 2)


def laid_out(*sizes: int, numbers_left: int = 8) -> Graph:
    graph = Graph({"x": (None, 8)})
    graph.add("Reshape", ["x", graph.keep("s", np.array(sizes))], "one")
    return graph.ended("one", numbers_left)


def branches(kind: str) -> Graph:
    graph = Graph({"x": (None, 3)})
    graph.layer("x", "one", 3, 4)
    graph.layer("x", "other", 3, 4)
    graph.add(kind, ["one", "other"], "two")
    return graph.ended("two", 4)


def nested(depth: int) -> Graph:
    """x + f(x + g(x + …))."""
    graph = Graph({"x": (None, 3)})
    for k in range(depth):
        graph.add("Tanh", [f"s{k - 1}" if k else "x"], f"s{k}")
    name = "inmost"
    graph.add("Tanh", [f"s{depth - 1}"], name)
    for k in reversed(range(depth)):
        graph.add("Add", [f"s{k}", name], f"a{k}")
        graph.add("Tanh", [f"a{k}"], f"t{k}")
        name = f"t{k}"
    return graph.ended(name, 3)


def shared() -> Graph:
    graph = Graph({"x": (None, 3)})
    graph.keep("w", numbers(1, 3, 3))
    graph.keep("b", numbers(2, 3))
    graph.add("Gemm", ["x", "w", "b"], "one", transB=1)
    graph.add("Gemm", ["one", "w", "b"], "two", transB=1)
    return graph.ended("two", 3)


def batch_norm() -> Graph:
    graph = Graph({"x": (None, 3)})
    graph.layer("x", "one", 3, 4)
    held = [graph.keep(name, np.ones(4, np.float32)) for name in ("scale", "shift", "mean", "variance")]
    graph.add("BatchNormalization", ["one", *held], "two")
    return graph.ended("two", 4)


def chosen() -> Graph:
    """A branch that depends on a number of the patient's."""
    inner = helper.make_graph([helper.make_node("Relu", ["one"], ["then"])], "then", [], [
        helper.make_tensor_value_info("then", TensorProto.FLOAT, [None, 4])
    ])  # fmt: skip
    graph = Graph({"x": (None, 3)})
    graph.layer("x", "one", 3, 4)
    graph.add("If", [graph.keep("which", np.array(True))], "two", then_branch=inner, else_branch=inner)
    return graph.ended("two", 4)


def with_array(array: np.ndarray, name: str = "far") -> Graph:
    graph = small()
    graph.keep(name, array)
    return graph


def of_one(weight: Any, dtype: Any = np.float32) -> Graph:
    graph = Graph({"x": (None, 1)})
    graph.add(
        "Gemm", ["x", graph.keep("w", np.array([[weight]], dtype)), graph.keep("b", numbers(2, 1))], "y", transB=1
    )
    return graph


def elsewhere(model: Any) -> None:
    """Its weights in a file that a careless reader would open."""
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


def cut_short(model: Any) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:7]


def endless(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def of_sides(*sides: int | None) -> Graph:
    graph = Graph({"x": sides}, {"y": len(sides)})
    graph.add("Relu", ["x"], "y")
    return graph


def end_of(size: int) -> Graph:
    graph = Graph({"x": (None, 3)})
    graph.layer("x", "y", 3, size)
    return graph


def circle() -> Graph:
    graph = Graph({"x": (None, 3)})
    graph.add("Add", ["x", "y"], "one")
    graph.add("Relu", ["one"], "y")
    return graph


def long(count: int) -> Graph:
    graph = Graph({"x": (None, 3)})
    for k in range(count):
        graph.add("Relu", [f"r{k - 1}" if k else "x"], f"r{k}")
    return graph.ended(f"r{count - 1}", 3)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an operator that looks at several patients": (batch_norm().file, "at BatchNormalization: .*GroupNorm"),
    "chances instead of log odds": (beside("Sigmoid").file, "at Sigmoid: .*log odds"),
    "another curve": (beside("LeakyRelu").file, "LeakyRelu.*ReLU, Tanh, GELU and ELU"),
    "a curve of another shape": (beside("Elu", alpha=2.0).file, "elu comes as PyTorch has it"),
    "the other GELU": (beside("Gelu", approximate="tanh").file, "gelu comes as PyTorch has it"),
    "GELU in parts": (beside("Erf").file, "Erf.*opset_version=20"),
    "an attribute that nobody knows": (beside("Relu", slope=0.1).file, "not sound: .*slope"),
    "a branch": (chosen().file, "If with .*_branch of its own.*loops and branches"),
    "an operator of somebody's own": (beside("Fancy", domain="acme").file, "Fancy of acme"),
    "an operator that there is not": (beside("Fancy").file, "not sound: .*Fancy"),
    "an operator that no layer is": (beside("Abs").file, "at Abs: it has no counterpart"),
    "two branches that meet": (branches("Add").file, r"only x \+ f\(x\)"),
    "a gate": (branches("Mul").file, "at Mul: a gate"),
    "layers that share weights": (shared().file, "shares its weights"),
    "sums within sums within sums": (nested(8).file, "at most 4 deep"),
    "patients taken apart": (laid_out(-1, 4, numbers_left=4).file, "at Reshape: write flatten"),
    "convolutions without padding": (of_image("Conv", ["x", "w", "b"]).file, "padding=1"),
    "a convolution without bias": (of_image("Conv", ["x", "w"], pads=[1] * 4).file, "bias=False"),
    "dilation": (of_image("Conv", ["x", "w", "b"], pads=[1] * 4, dilations=[2, 2]).file, "groups and dilation"),
    "boxes that overlap": (of_image("MaxPool", ["x"], kernel_shape=[3, 3], strides=[1, 1]).file, "side by side"),
    "sides left open": (small(inputs={"x": (None, None)}).file, "only the first side"),
    "an input of one side": (of_sides(None).file, "the predictors' numbers"),
    "two ends": (small(outputs={"y": 2, "two": 2}).file, "gives one tensor"),
    "an end of two": (end_of(2).file, "ends in nn.Linear"),
    "an old opset": (partial(small().file, opset=11), "opset 17 to 25, not 11"),
    "an opset that is not known yet": (partial(small().file, opset=99), "opset 17 to 25, not 99"),
    "another opset": (partial(small().file, domain="acme"), "not another"),
    "functions": (partial(small().file, lambda model: model.functions.add()), "has functions, a training"),
    "a training": (partial(small().file, lambda model: model.training_info.add()), "has functions, a training"),
    "sparse arrays": (partial(small().file, lambda model: model.graph.sparse_initializer.add()), "or sparse"),
    "weights in another file": (partial(small().file, elsewhere), "external_data=False"),
    "numbers of another size": (of_one(1.0, np.float64).file, "not sound"),
    "fewer numbers than said": (partial(small().file, cut_short), "not sound|other numbers"),
    "an endless shape": (partial(small().file, endless), "not sound|other numbers"),
    "two arrays of a name": (with_array(np.zeros(2, np.float32), "one_w").file, "not sound|shape"),
    "operators in a circle": (circle().file, "not sound"),
    "an end that nobody makes": (small(outputs={"z": 2}).file, "not sound|meets the rest"),
    "weights that are no numbers": (of_one(np.nan).file, "not finite"),
    "too many operators": (long(MAX_GRAPH_OPERATORS).file, "2,001 operators are too many"),
    "an endless file": (lambda: small().file() + b"\x32\x80\x80\x80\x08" + bytes(2**24), "at most"),
    "a cut file": (lambda: small().file()[:-9], "no file of a known kind"),
    "a pickle": (lambda: b"\x80\x04K\x01.", "pickles are never opened"),
    "PyTorch's own file": (lambda: b"PK\x03\x04" + bytes(99), "may hold a pickle"),
    "weights alone": (lambda: (2).to_bytes(8, "little") + b"{}", "Weights alone are no model"),
}  # fmt: skip


def test_what_the_refused_ones_start_from_is_read() -> None:
    assert read_onnx(small().file()).layers == (Dense(4), Activation("relu"))
    assert read_onnx(of_image("Conv", ["x", "w", "b"], pads=[1] * 4).file()).layers == (Conv(2), GlobalMean())
    assert read_onnx(laid_out(-1, 8).file()).layers == ()
    assert isinstance(read_onnx(nested(3).file()).layers[1], Residual)
    assert read_onnx(with_array(np.zeros(2, np.float32)).file()).layers == (Dense(4), Activation("relu"))
    assert read_onnx(of_one(1.0).file()).layers == ()


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_network_of_a_study_is_refused_by_what_it_is(name: str) -> None:
    made, said = REFUSED[name]
    with pytest.raises(MisuseError, match=f"(?s){said}"):
        read_onnx(made())


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(MisuseError, match=r"nowhere\.onnx cannot be read: No such file"):
        flute.network("nowhere.onnx")


def test_without_the_formats_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MisuseError, match=r"need onnx, .* pip install 'flute\[sdk\]'"):
        flute.network(VECTORS / "both_traced.onnx")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(EXPORTS))
    raw = bytearray((VECTORS / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)) | st.just(len(raw)))
    with suppress(MisuseError):
        found = read_onnx(bytes(raw[:cut]))
        assert np.isfinite(found.weights).all()
        assert len(found.weights) == found.sized.total


# --- out -------------------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[tuple[Layer, ...], int, tuple[int, ...]]] = {
    "numbers": (
        (Dense(6), Norm(2), Activation("gelu"), Dropout(0.1), Residual((Dense(6), Activation("tanh"),
         Residual((Norm(),)))), Norm()), 3, ()),
    "both": (
        (Conv(4, 5, 2), Norm(2), Activation("elu"), Residual((Conv(4), Activation())), Pool(2, "mean"), Norm(4),
         Dense(5), Activation(), Join(), Dense(3)), 3, (2, 9, 11)),
    "a volume": ((Conv(4), Activation(), Pool(), Conv(3, 1), GlobalMean()), 0, (1, 6, 7, 8)),
    "the last layer alone": ((), 2, ()),
    "of an image": ((), 0, (1, 3, 3)),
    "joined at once": ((GlobalMean(), Join()), 2, (2, 3, 3)),
}  # fmt: skip


def trained(layers: tuple[Layer, ...], columns: int, image: tuple[int, ...]) -> tuple[bytes, BroughtNetwork]:
    """A file, and what it was written of."""
    found = sized(layers, columns, image)
    weights = start_weights(found.parameters, 3) + 0.05 * np.random.default_rng(2).normal(size=found.total)
    named = named_weights(write_weights(found.parameters, weights), found.parameters)
    exact = np.concatenate([array.ravel() for array in named.values()]).astype(np.float64)
    return written(layers, columns, image, named, {"columns": "[]"}), BroughtNetwork(
        layers, columns, image, found, exact
    )


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("name", LAYERS)
def test_a_network_written_as_onnx_predicts_the_same_elsewhere(name: str) -> None:
    raw, own = trained(*LAYERS[name])
    theirs, x, image = answers(raw)
    np.testing.assert_allclose(theirs, ours(own, x, image), atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_what_was_written_is_read_as_it_was(name: str) -> None:
    raw, own = trained(*LAYERS[name])
    back = read_onnx(raw)
    assert back.layers == tuple(layer for layer in own.layers if not isinstance(layer, Dropout))
    assert (back.columns, back.image) == (own.columns, own.image)
    assert np.array_equal(back.weights, own.weights)


def test_a_network_of_monai_is_sent_to_its_own_exporter() -> None:
    with pytest.raises(MisuseError, match=r"torch\.onnx\.export\(model\.to_torch\(\)"):
        written((Monai("DenseNet"),), 0, (1, 32, 32), {}, {})
