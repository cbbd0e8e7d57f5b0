"""From the steps of somebody's own network, in order, to the layers of a study; wherever they were read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from flute.deep.layers import Conv, Dense, GlobalMean, Layer, Norm, Pool, Residual
from flute.errors import MisuseError

FLAT: Final = "flat"
"""An image is laid out in a row: dense layers do that by themselves."""
SAME: Final = "same"
"""Nothing is changed."""
END: Final = "end"
"""Each patient's one number loses a side of size 1."""
ONLY_RESIDUAL: Final = "only x + f(x) has a counterpart (flute.Residual), no shortcut with weights of its own"
State = Literal["image", "row", "", "?"]
"""What is passed on: an image, one that is laid out in a row, numbers that are no image, or nothing says it yet."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of the network: a layer, or FLAT, SAME or END. holder: what its weights are found by, or empty.
    inner: of a residual layer. of_numbers: it would do something else to an image."""

    layer: Layer | str
    where: str
    holder: str = ""
    of_numbers: bool = False
    inner: tuple[Piece, ...] = ()


def arranged(
    pieces: Sequence[Piece], start: State, weight_of: Callable[[str], Hashable]
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """(layers, holders in the layers' order); the last holder is the linear layer of size 1 that ends every network.

    start: what the network is given. weight_of: of a holder, what tells its weights from others'.
    Raises: MisuseError: it ends otherwise, shares weights, or treats an image as no layers here do."""
    kept = list(pieces)
    while kept and kept[-1].layer in (SAME, FLAT, END) and not kept[-1].inner:
        kept.pop()
    if not kept or kept[-1].layer != Dense(1):
        ends = f" ends with {kept[-1].where}" if kept else " does nothing"
        raise MisuseError(f"A network ends in nn.Linear(…, 1), one log odds for each patient; this one{ends}.")
    _require_own_weights(kept, weight_of)
    _require_order(kept, start)
    return _layers(kept)[:-1], tuple(piece.holder for piece in _all(kept) if piece.holder)


def _layers(pieces: Sequence[Piece]) -> tuple[Layer, ...]:
    made: list[Layer] = []
    for piece in pieces:
        if piece.inner:
            made.append(Residual(_layers(piece.inner)))
        elif not isinstance(piece.layer, str):
            made.append(piece.layer)
    return tuple(made)


def _all(pieces: Sequence[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        yield from _all(piece.inner)
        yield piece


def _require_own_weights(pieces: Sequence[Piece], weight_of: Callable[[str], Hashable]) -> None:
    """Raises: MisuseError: weights that two layers share."""
    seen: set[Hashable] = set()
    for piece in _all(pieces):
        if piece.holder:
            weight = weight_of(piece.holder)
            if weight in seen:
                raise MisuseError(f"{piece.where} shares its weights with another layer; each has its own here.")
            seen.add(weight)


def _require_order(pieces: Sequence[Piece], state: State) -> State:
    """Here dense layers lay an image out by themselves, so that being flat has to make no difference.

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


def _state_behind(layer: Layer | str, state: State) -> State:
    if isinstance(layer, Conv | Pool):
        return "image"
    if layer == FLAT:
        return "row" if state in ("image", "?") else state
    return "" if isinstance(layer, Dense | GlobalMean) else state
