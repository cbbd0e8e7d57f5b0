"""Weights in a file: safetensors of 32-bit numbers, written and read here without that package, and nothing else.

The format: 8 bytes with the length of the header (little-endian), the header in JSON (per tensor its type, its shape
and where its bytes begin and end), and the bytes. A pickle is refused as anything else is: only numbers are read.
Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from flute.data.variables import Array
from flute.deep.parameter import Parameter
from flute.defaults.models.deep import MAX_WEIGHTS, MAX_WEIGHTS_HEADER_BYTES
from flute.errors import Malformed, MisuseError, TooLarge

_LENGTH: Final = struct.Struct("<Q")
_NUMBER_BYTES: Final = 4
_ABOUT: Final = "__metadata__"
_Side = Annotated[int, msgspec.Meta(ge=0, le=MAX_WEIGHTS)]
_Place = Annotated[int, msgspec.Meta(ge=0, le=_NUMBER_BYTES * MAX_WEIGHTS)]


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Literal["F32"]
    shape: Annotated[tuple[_Side, ...], msgspec.Meta(max_length=8)]
    data_offsets: tuple[_Place, _Place]


_HEADER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSOR: Final = msgspec.json.Decoder(_Tensor)


def write_weights(parameters: Sequence[Parameter], weights: Array) -> bytes:
    """weights: float64 [total]; rounded to 32 bits. Raises: MisuseError: another length."""
    header = msgspec.json.encode(_entries(parameters))
    header += b" " * (-len(header) % _LENGTH.size)
    if weights.shape != (sum(parameter.size for parameter in parameters),):
        raise MisuseError("These weights are not those of this network.")
    return _LENGTH.pack(len(header)) + header + weights.astype("<f4").tobytes()


def read_weights(raw: bytes, parameters: Sequence[Parameter]) -> Array:
    """float64 [total], finite, in the order of `parameters`, wherever the file keeps them.

    Raises: Malformed: no such file, tensors of other names, shapes or types, or numbers that are not finite.
    TooLarge: more than a network may have."""
    if len(raw) > _LENGTH.size + MAX_WEIGHTS_HEADER_BYTES + _NUMBER_BYTES * MAX_WEIGHTS:
        raise TooLarge(f"A network has at most {MAX_WEIGHTS:,} weights.")
    tensors, body = _opened(raw)
    if tensors.keys() != {parameter.name for parameter in parameters}:
        raise Malformed("These are the weights of another network: its parameters have other names.")
    _check_places(tensors, len(body))
    parts = []
    for parameter in parameters:
        tensor = tensors[parameter.name]
        begin, end = tensor.data_offsets
        if tensor.shape != parameter.shape or end - begin != _NUMBER_BYTES * parameter.size:
            raise Malformed(f"Weights {parameter.name} have another shape than the network's.")
        parts.append(np.frombuffer(body[begin:end], dtype="<f4"))
    found = np.concatenate(parts).astype(np.float64)
    if not np.isfinite(found).all():
        raise Malformed("Some weights are not finite numbers.")
    return found


def named_weights(raw: bytes, parameters: Sequence[Parameter]) -> dict[str, np.ndarray]:
    """float32 arrays by name. Raises: as `read_weights`."""
    found = read_weights(raw, parameters).astype(np.float32)
    parts = np.split(found, list(accumulate(parameter.size for parameter in parameters))[:-1])
    return {p.name: part.reshape(p.shape) for p, part in zip(parameters, parts, strict=True)}


def _entries(parameters: Sequence[Parameter]) -> dict[str, _Tensor]:
    ends = accumulate(_NUMBER_BYTES * parameter.size for parameter in parameters)
    return {
        p.name: _Tensor("F32", p.shape, (end - _NUMBER_BYTES * p.size, end))
        for p, end in zip(parameters, ends, strict=True)
    }


def _opened(raw: bytes) -> tuple[dict[str, _Tensor], bytes]:
    """The header's entries and the bytes behind it."""
    if len(raw) < _LENGTH.size:
        raise Malformed("This is no safetensors file: it is too short.")
    (length,) = _LENGTH.unpack_from(raw)
    if length > min(MAX_WEIGHTS_HEADER_BYTES, len(raw) - _LENGTH.size):
        raise Malformed("This is no safetensors file: its header would be longer than it.")
    try:
        header = _HEADER.decode(raw[_LENGTH.size : _LENGTH.size + length])
        header.pop(_ABOUT, None)
        tensors = {name: _TENSOR.decode(entry) for name, entry in header.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed("This is no safetensors file of 32-bit numbers: its header cannot be read.") from error
    return tensors, raw[_LENGTH.size + length :]


def _check_places(tensors: dict[str, _Tensor], size: int) -> None:
    """One tensor begins where another ends, and the last ends with the file: nothing is read twice or hidden."""
    at = 0
    for begin, end in sorted(tensor.data_offsets for tensor in tensors.values()):
        if begin != at or end < begin:
            raise Malformed("The tensors of this file overlap or leave bytes between them.")
        at = end
    if at != size:
        raise Malformed("This file has bytes that belong to no tensor, or lacks some.")
