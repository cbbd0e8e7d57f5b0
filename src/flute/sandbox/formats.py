"""Which files a researcher may bring: graphs as ONNX, weights as safetensors. Judged by bytes, before any parser.

Everything that may hold a pickle is refused, for a pickle is a program: `.pt` and `.pth` (a zip, or a bare pickle),
`.npy` (object arrays), `.npz`, joblib. So is whatever is not recognised; a file's name is never looked at.
Source: safetensors format (8 bytes length, JSON header, data); onnx.proto, ModelProto; Protocol Buffers encoding.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from flute.data.strict_json import NotStrict, decode
from flute.defaults.sandbox import (
    MAX_DIMENSIONS,
    MAX_MODEL_BYTES,
    MAX_NAME_BYTES,
    MAX_TENSORS,
    MAX_VALUES,
    MAX_WEIGHTS_BYTES,
    MAX_WEIGHTS_HEADER_BYTES,
)
from flute.errors import SandboxRefusal

_REFUSED: Final = (
    (b"\x93NUMPY", "npy", "a numpy file, which may hold Python objects"),
    (b"PK\x03\x04", "zip", "a zip archive, such as PyTorch's .pt and numpy's .npz, which may hold a pickle"),
    (b"PK\x05\x06", "zip", "an empty zip archive"),
    (b"\x7fELF", "program", "a program"),
    (b"\x1f\x8b", "compressed", "a compressed file"),
    (b"\x89HDF", "hdf5", "an HDF5 file"),
)
_PICKLE_OPENINGS: Final = (b"(l", b"(d", b"(i", b"(c", b"c__", b"cos\n", b"cposix", b"cbuiltins", b"]", b"}")
_LENGTH: Final = 8
_DTYPES: Final = {"F64": ("<f8", 8), "F32": ("<f4", 4), "I64": ("<i8", 8)}
_ONNX_FIELDS: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Of ModelProto: number and wire type."""
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8


def recognised(raw: bytes) -> Literal["onnx", "safetensors"]:
    """Raises: SandboxRefusal: a kind of file that may carry code, or none that is known; `reason` names the kind."""
    for opening, reason, what in _REFUSED:
        if raw.startswith(opening):
            raise _refused(f"This is {what}", reason)
    if _may_be_a_pickle(raw):
        raise _refused("This may be a pickle, which is a program", "pickle")
    if len(raw) > _LENGTH and raw[_LENGTH : _LENGTH + 1] == b"{":
        return "safetensors"
    if _is_onnx(raw):
        return "onnx"
    raise _refused("This is no file of a known kind", "unknown-format")


def require_model(raw: bytes, most: int = MAX_MODEL_BYTES) -> None:
    """Raises: SandboxRefusal: too large, or no ONNX graph."""
    if len(raw) > most:
        raise SandboxRefusal(f"A model has at most {most:,} bytes.", reason="too-large")
    if recognised(raw) != "onnx":
        raise SandboxRefusal("Weights alone are no model; bring the graph as ONNX.", reason="unknown-format")


def weights(raw: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file: float64, float32 or int64, read-only views of `raw`.

    Guarantees: no byte of data is interpreted before the whole header is checked; arrays lie one after another,
    without overlap or gap, from the header's end to the file's; nothing larger than the file is ever made.
    Raises: SandboxRefusal: `reason` is that of `recognised`, "too-large" or "safetensors-header".
    """
    if len(raw) > MAX_WEIGHTS_BYTES:
        raise SandboxRefusal(f"Weights have at most {MAX_WEIGHTS_BYTES:,} bytes.", reason="too-large")
    if recognised(raw) != "safetensors":
        raise SandboxRefusal("Weights come as safetensors.", reason="unknown-format")
    size = int.from_bytes(raw[:_LENGTH], "little")
    if size > MAX_WEIGHTS_HEADER_BYTES or _LENGTH + size > len(raw):
        raise _bad_header(f"it is said to have {size:,} bytes")
    try:
        header = decode(raw[_LENGTH : _LENGTH + size].rstrip(b" "))
    except NotStrict:
        raise _bad_header("it is no strict JSON") from None
    if not isinstance(header, dict):
        raise _bad_header("it is no object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _bad_header(f"more than {MAX_TENSORS:,} arrays")
    described = sorted((_described(name, said) for name, said in header.items()), key=lambda one: one[3])
    found, end = {}, 0
    for name, dtype, shape, begins, ends in described:
        if begins != end:
            raise _bad_header("arrays overlap or leave gaps")
        end = ends
        at = _LENGTH + size + begins
        if _LENGTH + size + ends > len(raw):
            raise _bad_header("arrays go on behind the file's end")
        found[name] = np.frombuffer(raw, dtype, math.prod(shape), at).reshape(shape)
    if _LENGTH + size + end != len(raw):
        raise _bad_header("there are bytes behind the last array")
    return found


def _described(name: str, said: object) -> tuple[str, str, tuple[int, ...], int, int]:
    """Name, type, shape, first byte, end. Raises: SandboxRefusal."""
    if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad_header("an array is not described by dtype, shape and data_offsets")
    if not 1 <= len(name.encode()) <= MAX_NAME_BYTES or not name.isprintable():
        raise _bad_header("an array's name is too long, or cannot be printed")
    shape, offsets = said["shape"], said["data_offsets"]
    if not isinstance(said["dtype"], str) or said["dtype"] not in _DTYPES:
        raise _bad_header(f"arrays are of {', '.join(_DTYPES)}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(shape) > MAX_DIMENSIONS or len(offsets) != 2:
        raise _bad_header("a shape or an offset is no list of whole numbers")
    dtype, width = _DTYPES[said["dtype"]]
    if math.prod(shape) > MAX_VALUES or offsets[1] - offsets[0] != width * math.prod(shape):
        raise _bad_header("a shape and its bytes do not fit")
    return name, dtype, tuple(shape), offsets[0], offsets[1]


def _whole_numbers(said: object) -> bool:
    return isinstance(said, list) and all(type(n) is int and 0 <= n <= 2**40 for n in said)


def _may_be_a_pickle(raw: bytes) -> bool:
    """Protocols 2 to 5 begin with 0x80 and their number; the older ones end with a stop and begin with an opcode."""
    if raw[:1] == b"\x80" and raw[1:2] <= b"\x05":
        return True
    return raw.endswith(b".") and raw.startswith(_PICKLE_OPENINGS)


def _is_onnx(raw: bytes) -> bool:
    """A walk over the outermost fields of a message, each known and of its right type; nothing inside is read."""
    seen, at = set(), 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, wire = key >> 3, key & 7
        if _ONNX_FIELDS.get(number) != wire:
            return False
        length, at = _varint(raw, at)
        at += length if wire == 2 else 0
        seen.add(number)
    return at == len(raw) and {_IR_VERSION, _GRAPH, _OPSETS} <= seen


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits and where it ends; one that does not end has no known field as key, and is huge."""
    value = 0
    for place, byte in enumerate(raw[at : at + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    return 2**64 - 1, len(raw) + 1


def _refused(what: str, reason: str) -> SandboxRefusal:
    text = f"{what}. Bring a graph as ONNX and weights as safetensors; pickles are never opened."
    return SandboxRefusal(text, reason=reason)


def _bad_header(why: str) -> SandboxRefusal:
    return SandboxRefusal(f"The safetensors file's header is not taken: {why}.", reason="safetensors-header")
