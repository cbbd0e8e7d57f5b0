"""One's own network out of an ONNX file: its layers, as a study says them, and the weights that it came with.

Read backwards from its output, as the graph of a PyTorch module is. Nothing is guessed at: what was read has to take
the file's own weights, each in its shape, or the file is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.data.variables import Array
from flute.deep.layers import Join, Layer, Norm
from flute.deep.parameter import Shape
from flute.deep.sizes import Sized, sized
from flute.defaults.models.deep import MAX_NESTED
from flute.defaults.models.own_networks import MAX_GRAPH_BYTES
from flute.errors import MisuseError, StudyFileError
from flute.sdk.networks.onnx.operators import WEIGHED, dense, of_operator, require_eps, weights_of
from flute.sdk.networks.onnx.reading import Graph, Operator, read_graph, shown
from flute.sdk.networks.own_layers import require
from flute.sdk.networks.own_pieces import ONLY_RESIDUAL, SAME, Piece, State, arranged

_NONE: Final = "This network has no counterpart in a study"
_OWN_NUMBERS: Final = "numbers of its own have no counterpart; weights belong in linear layers and convolutions"


@dataclass(frozen=True, slots=True)
class BroughtNetwork:
    """layers: as a study says them, without the last one. columns, image: what it is made for. weights: float64
    [sized.total], in the order of `sizes`; names do not travel."""

    layers: tuple[Layer, ...]
    columns: int
    image: Shape
    sized: Sized
    weights: Array


def read_onnx(own: str | Path | bytes) -> BroughtNetwork:
    """own: a path, or the file's bytes.

    Raises: MisuseError: no such file, no ONNX, or something in it that has no counterpart: where, and what to do."""
    reader = _Reader(read_graph(own if isinstance(own, bytes) else _bytes_of(Path(own))))
    start: State = "image" if reader.image else ""
    layers, holders = arranged(reader.pieces(), start, lambda holder: reader.weights[holder][0])
    return _whole(reader, layers, holders)


def _bytes_of(path: Path) -> bytes:
    """Raises: MisuseError: it cannot be read, or is too large."""
    try:
        if path.stat().st_size > MAX_GRAPH_BYTES:
            raise MisuseError(f"{path.name} has more than {MAX_GRAPH_BYTES:,} bytes; networks here are smaller.")
        return path.read_bytes()
    except OSError as error:
        raise MisuseError(f"{path} cannot be read: {error.strerror}.") from error


def _whole(reader: _Reader, layers: tuple[Layer, ...], holders: tuple[str, ...]) -> BroughtNetwork:
    """Raises: MisuseError: the layers would have weights of other shapes than the file's: it was made otherwise."""
    try:
        found = sized(layers, reader.columns, reader.image)
    except StudyFileError as error:
        raise MisuseError(f"As layers of a study this network does not fit together. {error.text}") from error
    arrays = [array for holder in holders for array in reader.weights[holder][1:]]
    for parameter, array in zip(found.parameters, arrays, strict=True):
        if parameter.shape != array.shape:
            raise MisuseError(
                f"This network's weights are of shape {array.shape} where its layers would have {parameter.shape}: "
                "it does something between them that has no counterpart."
            )
    weights = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    if not np.isfinite(weights).all():
        raise MisuseError("Some weights of this network are not finite numbers.")
    return BroughtNetwork(layers, reader.columns, reader.image, found, weights)


class _Reader:
    """Reads a graph from its output back to its inputs. weights: by holder, the name of the file's array, and weight
    and bias as layers here have them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.weights: dict[str, tuple[str, NDArray[Any], NDArray[Any]]] = {}
        images = [name for name, shape in graph.inputs.items() if len(shape) in (4, 5)]
        numbers = [name for name, shape in graph.inputs.items() if len(shape) == 2]
        several = len(images) > 1 or len(numbers) > 1 or len(graph.outputs) != 1
        if several or not 1 <= len(graph.inputs) == len(images) + len(numbers):
            raise MisuseError(
                "A network takes an image [n, channels, (depth,) height, width], or the predictors' numbers [n, p], "
                "or both, and gives one tensor."
            )
        self._image, self._numbers = images[0] if images else "", numbers[0] if numbers else ""
        self.image = graph.inputs[self._image][1:] if images else ()
        self.columns = graph.inputs[self._numbers][1] if numbers else 0
        if 0 in self.image or (numbers and not self.columns):
            raise MisuseError("Of the network's inputs only the first side, the patients, may be left open.")

    def pieces(self) -> list[Piece]:
        return self._chain(self._graph.outputs[0], self._image or self._numbers, 0)

    def _chain(self, name: str, stop: str, depth: int) -> list[Piece]:
        """From behind `stop` to `name`. depth: of residual layers around it."""
        pieces: list[Piece] = []
        while name != stop:
            operator = self._graph.made.get(name)
            if operator is None:
                raise MisuseError(f"{_NONE}: {shown(name)!r} meets the rest otherwise than here: {ONLY_RESIDUAL}.")
            try:
                piece, name = self._step(operator, depth)
            except MisuseError as error:
                if error.text.startswith(_NONE):
                    raise
                raise MisuseError(f"{_NONE}, at {operator}: {error.text}.") from error
            pieces.append(piece)
        return pieces[::-1]

    def _step(self, operator: Operator, depth: int) -> tuple[Piece, str]:
        """What this operator is, and the name of what it follows on."""
        if operator.kind == "Add":
            return self._sum(operator, depth)
        if operator.kind == "Concat":
            return self._join(operator)
        layer, holder = of_operator(operator), ""
        if operator.kind in WEIGHED:
            holder = self._held(operator, operator.inputs[1], *weights_of(operator))
        return Piece(layer, str(operator), holder), operator.inputs[0]

    def _held(self, operator: Operator, name: str, weight: NDArray[Any], bias: NDArray[Any]) -> str:
        self.weights[operator.output] = (name, weight, bias)
        return operator.output

    def _sum(self, operator: Operator, depth: int) -> tuple[Piece, str]:
        """x + f(x), in either order; or the bias of what comes before."""
        one, other = operator.inputs
        for before, constant in zip((other, one), operator.given, strict=True):
            if constant is not None:
                return self._biased(operator, before, constant)
        require(depth < MAX_NESTED, f"residual layers stand within each other at most {MAX_NESTED} deep")
        for before, after in ((one, other), (other, one)):
            if before in self._ancestors(after):
                return Piece(SAME, str(operator), inner=tuple(self._chain(after, before, depth + 1))), before
        raise MisuseError(ONLY_RESIDUAL)

    def _biased(self, operator: Operator, before: str, bias: NDArray[Any]) -> tuple[Piece, str]:
        """A dense layer in two operators, or a group normalisation in five."""
        maker = self._graph.made.get(before)
        if maker is not None and maker.kind == "Mul":
            return self._group_norm(operator, maker, bias)
        weight = maker.given[1] if maker is not None and maker.kind == "MatMul" else None
        if maker is None or weight is None or len(maker.before) != 2:
            raise MisuseError(_OWN_NUMBERS)
        layer = dense(weight.T)
        return Piece(layer, str(maker), self._held(operator, maker.inputs[1], weight.T, bias)), maker.inputs[0]

    def _group_norm(self, operator: Operator, scaled: Operator, bias: NDArray[Any]) -> tuple[Piece, str]:
        """Reshape to [n, groups, …], InstanceNormalization with 1 and 0, Reshape back, Mul, Add."""
        weight, name = scaled.given[1], scaled.inputs[0]
        chain: list[Operator] = []
        for kind in ("Reshape", "InstanceNormalization", "Reshape"):
            maker = self._graph.made.get(name)
            if maker is None or maker.kind != kind:
                raise MisuseError(_OWN_NUMBERS)
            chain.append(maker)
            name = maker.inputs[0]
        back, even, grouped = chain
        ones, zeros = weights_of(even)
        channels, groups = grouped.before[:2], grouped.after[1:2]
        apart = len(grouped.after) == 3 and channels[:1] == grouped.after[:1] and back.after == grouped.before
        if weight is None or weight.size != bias.size or not apart or not (ones == 1).all() or zeros.any():
            raise MisuseError(_OWN_NUMBERS)
        require_eps(even)
        return Piece(
            Norm(groups[0]), str(even), self._held(operator, scaled.inputs[1], weight.ravel(), bias.ravel())
        ), name

    def _join(self, operator: Operator) -> tuple[Piece, str]:
        both = self._image and self._numbers and operator.inputs[1:] == (self._numbers,)
        if both and operator.said.get("axis") in (1, -1) and len(operator.before) == 2:
            return Piece(Join(), str(operator)), operator.inputs[0]
        raise MisuseError(
            "only torch.cat([what the image has become, predictors], dim=1) has a counterpart (flute.Join), where "
            "forward takes an image and predictors"
        )

    def _ancestors(self, name: str) -> set[str]:
        """All names that it follows on."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            maker = self._graph.made.get(waiting.pop())
            fresh = set(maker.inputs) - found if maker else set()
            found |= fresh
            waiting.extend(fresh)
        return found
