"""One's own PyTorch module as the closed list of layers that a study says: `flute.network(module)`.

The module's graph is read by `torch.fx`, which runs its `forward` on names instead of numbers. What travels is the
list of layers: no code, no pickle, and no weights either, since training begins at weights from the study's seed.
What has no counterpart among the layers is named with its place in the module, and what to write instead.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from flute.deep.layers import Conv, Dense, GlobalMean, Join, Layer, Norm, Pool, Residual
from flute.errors import MisuseError
from flute.sdk.extras import loaded
from flute.sdk.own_layers import END, FLAT, OF_NUMBERS, SAME, argument, of_call, of_module

_LINE: Final = "flute_line"
_ONLY_RESIDUAL: Final = "only x + f(x) has a counterpart (flute.Residual), no shortcut with weights of its own"


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


def network(module: Any) -> tuple[Layer, ...]:
    """The layers of a torch.nn.Module that takes [n, channels, (depth,) height, width] or [n, p], or both in this
    order, and ends in nn.Linear(…, 1): one log odds for each patient.

    Raises: MisuseError: something in it has no counterpart: where, and what to write instead; torch is missing."""
    return read_network(module).layers


def read_network(module: Any) -> OwnNetwork:
    """Raises: as `network`."""
    torch = loaded("torch", "deep")
    if not isinstance(module, torch.nn.Module):
        raise MisuseError(
            "A network is a list of layers, for example [flute.Conv(16), flute.Pool(), flute.Dense(32)], or a "
            f"torch.nn.Module, not {type(module).__name__}."
        )
    kind = type(module)
    if kind.__module__.partition(".")[0] == "monai":
        raise MisuseError(
            f"{kind.__name__} is MONAI's: name it, and every hub builds its own: "
            f"network=[flute.Monai({kind.__name__!r}, arguments={{…}})]."
        )
    return _arranged(_Graph(torch, module))


# --- the graph -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """One step of the network: a layer, or FLAT, SAME or END. holder: path of the module with its weights, or empty.
    inner: of a residual layer. of_numbers: it would do something else to an image."""

    layer: Layer | str
    where: str
    holder: str = ""
    of_numbers: bool = False
    inner: tuple[_Piece, ...] = ()


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

    def chain(self, node: Any, stop: Any) -> list[_Piece]:
        """From behind `stop` to `node`."""
        pieces: list[_Piece] = []
        while node is not stop:
            if node.op == "placeholder":
                self._refuse(node, f"what follows on it meets the rest otherwise than here: {_ONLY_RESIDUAL}")
            piece, node = self._step(node)
            pieces.append(piece)
        return pieces[::-1]

    def _step(self, node: Any) -> tuple[_Piece, Any]:
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

    def _layer(self, node: Any, name: str) -> _Piece:
        try:
            if node.op != "call_module":
                return _Piece(of_call(node, name), self._where(node))
            module = self.modules[name]
            holder = name if any(True for _ in module.parameters()) else ""
            return _Piece(of_module(module), self._where(node), holder, type(module).__name__ in OF_NUMBERS)
        except MisuseError as error:
            self._refuse(node, error.text)

    def _sum(self, node: Any) -> tuple[_Piece, Any]:
        """x + f(x), in either order."""
        sides = node.args
        if len(sides) == 2 and all(isinstance(side, self._node) for side in sides) and not node.kwargs:
            for before, after in (sides, sides[::-1]):
                if before in _ancestors(after):
                    return _Piece(SAME, self._where(node), inner=tuple(self.chain(after, before))), before
        self._refuse(node, _ONLY_RESIDUAL)

    def _join(self, node: Any) -> tuple[_Piece, Any]:
        parts, axis = argument(node, 0, "tensors", ()), argument(node, 1, "dim", 0)
        if len(self.inputs) == len(parts) == 2 and parts[1] is self.inputs[1] and axis in (1, -1):
            return _Piece(Join(), self._where(node)), parts[0]
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


# --- from pieces to layers -------------------------------------------------------------------------------


def _arranged(graph: _Graph) -> OwnNetwork:
    pieces = graph.chain(graph.result, graph.inputs[0])
    while pieces and pieces[-1].layer in (SAME, FLAT, END) and not pieces[-1].inner:
        pieces.pop()
    if not pieces or pieces[-1].layer != Dense(1):
        ends = f" ends with {pieces[-1].where}" if pieces else " does nothing"
        raise MisuseError(f"A network ends in nn.Linear(…, 1), one log odds for each patient; this one{ends}.")
    _require_own_weights(graph, pieces)
    _require_order(pieces, "?")
    holders = tuple(piece.holder for piece in _all(pieces) if piece.holder)
    return OwnNetwork(_layers(pieces)[:-1], holders)


def _layers(pieces: Sequence[_Piece]) -> tuple[Layer, ...]:
    made: list[Layer] = []
    for piece in pieces:
        if piece.inner:
            made.append(Residual(_layers(piece.inner)))
        elif not isinstance(piece.layer, str):
            made.append(piece.layer)
    return tuple(made)


def _all(pieces: Sequence[_Piece]) -> Iterator[_Piece]:
    for piece in pieces:
        yield from _all(piece.inner)
        yield piece


def _require_own_weights(graph: _Graph, pieces: Sequence[_Piece]) -> None:
    """Raises: MisuseError: weights that two layers share."""
    seen: set[int] = set()
    for piece in _all(pieces):
        if piece.holder:
            weight = id(graph.modules[piece.holder].weight)
            if weight in seen:
                raise MisuseError(f"{piece.where} shares its weights with another layer; each has its own here.")
            seen.add(weight)


def _require_order(pieces: Sequence[_Piece], state: str) -> str:
    """Here dense layers lay an image out by themselves, so that being flat has to make no difference.

    state: "image", "row" where it is laid out in one, "" of numbers that are no image, "?" where nothing says yet.
    Returns the state behind. Raises: MisuseError."""
    for piece in pieces:
        if piece.inner:
            state = _require_order(piece.inner, state)
        elif piece.layer is END:
            raise MisuseError(f"{piece.where} may stand at a network's end, nowhere else.")
        elif isinstance(piece.layer, Norm) and state == "row":
            raise MisuseError(f"{piece.where} comes behind a flattened image; put it before that.")
        elif piece.of_numbers and state == "image":
            raise MisuseError(
                f"{piece.where} would run along an image's last side; put nn.Flatten() before a Linear, and write "
                "nn.GroupNorm(1, channels) for a LayerNorm."
            )
        else:
            state = _state_behind(piece.layer, state)
    return state


def _state_behind(layer: Layer | str, state: str) -> str:
    if isinstance(layer, Conv | Pool):
        return "image"
    if layer is FLAT:
        return "row" if state in ("image", "?") else state
    return "" if isinstance(layer, Dense | GlobalMean) else state
