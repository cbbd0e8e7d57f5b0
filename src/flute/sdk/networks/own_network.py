"""One's own network as the closed list of layers that a study says: `flute.network(module)`, or of an ONNX file.

A PyTorch module's graph is read by `torch.fx`, which runs its `forward` on names instead of numbers; a file's by
`sdk.networks.onnx`. What travels is the list of layers: no code, no pickle, and no weights either, since training
begins at weights from the study's seed. What has no counterpart is named with its place, and what to write instead.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from flute.deep.layers import Join, Layer
from flute.errors import MisuseError
from flute.sdk.extras import loaded
from flute.sdk.networks.onnx.network import read_onnx
from flute.sdk.networks.own_layers import OF_NUMBERS, argument, of_call, of_module
from flute.sdk.networks.own_pieces import ONLY_RESIDUAL, SAME, Piece, arranged

_LINE: Final = "flute_line"


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """layers: as a study says them. holders: paths of the modules that hold weights, in the layers' order; the last
    one is the linear layer of size 1 that every network ends in."""

    layers: tuple[Layer, ...]
    holders: tuple[str, ...]

    def pairs(self, weights: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each holder with its weight and bias, out of all weights in the layers' order."""
        arrays = list(weights.values())
        for holder, weight, bias in zip(self.holders, arrays[::2], arrays[1::2], strict=True):
            yield holder, {"weight": weight, "bias": bias}


def network(own: Any) -> tuple[Layer, ...]:
    """The layers of one's own network, which takes [n, channels, (depth,) height, width] or [n, p], or both in this
    order, and ends in nn.Linear(…, 1): one log odds for each patient.

    own: a torch.nn.Module, or an ONNX file, as a path or as bytes, for which torch is not needed.
    Raises: MisuseError: something in it has no counterpart: where, and what to write instead; torch is missing."""
    return read_onnx(own).layers if is_file(own) else read_network(own).layers


def is_file(own: Any) -> bool:
    """Whether it is meant as an ONNX file: a path, bytes, or a text that ends as such a file's name."""
    return isinstance(own, bytes | Path) or (isinstance(own, str) and own.endswith(".onnx"))


def read_network(module: Any) -> OwnNetwork:
    """Raises: as `network`."""
    torch = loaded("torch", "deep")
    if not isinstance(module, torch.nn.Module):
        raise MisuseError(
            "A network is a list of layers, for example [flute.Conv(16), flute.Pool(), flute.Dense(32)], an ONNX "
            f"file ('mine.onnx'), or a torch.nn.Module, not {type(module).__name__}."
        )
    kind = type(module)
    if kind.__module__.partition(".")[0] == "monai":
        raise MisuseError(
            f"{kind.__name__} is MONAI's: name it, and every hub builds its own: "
            f"network=[flute.Monai({kind.__name__!r}, arguments={{…}})]."
        )
    graph = _Graph(torch, module)
    pieces = graph.chain(graph.result, graph.inputs[0])
    return OwnNetwork(*arranged(pieces, "?", lambda holder: id(graph.modules[holder].weight)))


# --- the graph -------------------------------------------------------------------------------------------


class _Graph:
    """Reads a traced module from its output back to its inputs."""

    def __init__(self, torch: Any, module: Any) -> None:
        self._node = torch.fx.Node
        self.modules = dict(module.named_modules(remove_duplicate=False))
        try:
            nodes = _tracer(torch).trace(module).nodes
        except Exception as error:  # anybody's code
            raise MisuseError(
                f"The network's forward cannot be read: {str(error).partition('.')[0]}. Write it without branches "
                "and loops that depend on its input, or as torch.nn.Sequential."
            ) from error
        self.inputs = [node for node in nodes if node.op == "placeholder"]
        self.result = next(node for node in nodes if node.op == "output").args[0]
        if not isinstance(self.result, self._node) or not 1 <= len(self.inputs) <= 2:
            raise MisuseError(
                "A network takes an image, or the predictors' numbers, or both in this order, and gives one tensor."
            )

    def chain(self, node: Any, stop: Any) -> list[Piece]:
        """From behind `stop` to `node`."""
        pieces: list[Piece] = []
        while node is not stop:
            if node.op == "placeholder":
                self._refuse(node, f"what follows on it meets the rest otherwise than here: {ONLY_RESIDUAL}")
            piece, node = self._step(node)
            pieces.append(piece)
        return pieces[::-1]

    def _step(self, node: Any) -> tuple[Piece, Any]:
        """What this node is, and the node that it follows on."""
        if node.op not in ("call_module", "call_function", "call_method") or not node.all_input_nodes:
            self._refuse(
                node, "tensors of a module's own have no counterpart; weights belong in nn.Linear and nn.Conv"
            )
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        if node.op != "call_module" and name in ("add", "iadd", "add_"):
            return self._sum(node)
        if node.op != "call_module" and name in ("cat", "concat", "concatenate"):
            return self._join(node)
        return self._layer(node, name), node.all_input_nodes[0]

    def _layer(self, node: Any, name: str) -> Piece:
        try:
            if node.op != "call_module":
                return Piece(of_call(node, name), self._where(node))
            module = self.modules[name]
            holder = name if any(True for _ in module.parameters()) else ""
            return Piece(of_module(module), self._where(node), holder, type(module).__name__ in OF_NUMBERS)
        except MisuseError as error:
            self._refuse(node, error.text)

    def _sum(self, node: Any) -> tuple[Piece, Any]:
        """x + f(x), in either order."""
        sides = node.args
        if len(sides) == 2 and all(isinstance(side, self._node) for side in sides) and not node.kwargs:
            for before, after in (sides, sides[::-1]):
                if before in _ancestors(after):
                    return Piece(SAME, self._where(node), inner=tuple(self.chain(after, before))), before
        self._refuse(node, ONLY_RESIDUAL)

    def _join(self, node: Any) -> tuple[Piece, Any]:
        parts, axis = argument(node, 0, "tensors", ()), argument(node, 1, "dim", 0)
        if len(self.inputs) == len(parts) == 2 and parts[1] is self.inputs[1] and axis in (1, -1):
            return Piece(Join(), self._where(node)), parts[0]
        self._refuse(
            node,
            "only torch.cat([what the image has become, predictors], dim=1) has a counterpart (flute.Join), where "
            "forward takes an image and predictors",
        )

    def _where(self, node: Any) -> str:
        """A module's path, or the line of a call."""
        if node.op == "call_module":
            return f"{node.target} ({type(self.modules[node.target]).__name__})"
        return f"`{node.meta[_LINE]}`" if node.meta.get(_LINE) else str(node.name)

    def _refuse(self, node: Any, why: str) -> NoReturn:
        raise MisuseError(f"This network has no counterpart in a study, at {self._where(node)}: {why}.")


def _tracer(torch: Any) -> Any:
    """Notes at every node the line that it comes from; torch's own way to do so needs a package more."""
    within = str(Path(torch.__file__).parent)

    class Tracer(torch.fx.Tracer):  # type: ignore[misc]  # torch is typed as anything
        def create_node(self, *given: Any, **named: Any) -> Any:
            node = super().create_node(*given, **named)
            stack = traceback.extract_stack()
            outside = [f for f in stack if not f.filename.startswith(within) and f.filename != __file__]
            node.meta[_LINE] = outside[-1].line if outside and outside[-1].line else ""
            return node

    return Tracer()


def _ancestors(node: Any) -> set[Any]:
    found: set[Any] = set()
    waiting = [node]
    while waiting:
        fresh = [before for before in waiting.pop().all_input_nodes if before not in found]
        found.update(fresh)
        waiting.extend(fresh)
    return found
