"""Files that researchers bring, made byte by byte: an ONNX graph, safetensors, and what is refused."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DOUBLE = 11


def linear_model(weights: NDArray[np.float64], *, external: str = "") -> bytes:
    """y = x @ weights, in float64. `external`: a path that the graph says its weights lie at, instead of inside."""
    rows, columns = weights.shape
    node = _text(1, "x") + _text(1, "w") + _text(2, "y") + _text(4, "MatMul")
    tensor = b"".join(_number(1, n) for n in weights.shape) + _number(2, _DOUBLE) + _text(8, "w")
    if external:
        tensor += _field(13, _text(1, "location") + _text(2, external)) + _number(14, 1)
    else:
        tensor += _field(9, weights.tobytes())
    graph = _field(1, node) + _text(2, "step") + _field(5, tensor)
    graph += _field(11, _described("x", (None, rows))) + _field(12, _described("y", (None, columns)))
    return _number(1, 8) + _field(7, graph) + _field(8, _number(2, 13))


def safetensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    names = {np.dtype("f8"): "F64", np.dtype("f4"): "F32", np.dtype("i8"): "I64"}
    header, data = {}, b""
    for name, values in arrays.items():
        begins = len(data)
        data += values.tobytes()
        header[name] = {"dtype": names[values.dtype], "shape": values.shape, "data_offsets": [begins, len(data)]}
    return with_header(json.dumps(header).encode(), data)


def with_header(header: bytes, data: bytes = b"", *, said: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if said is None else said) + header + data


def refused_files() -> dict[str, tuple[bytes, str]]:
    """Bytes of each, and the reason for which it is refused."""
    objects, archive, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(arrays, a=np.ones(2))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as held:
        held.writestr("archive/data.pkl", pickle.dumps({"w": 1}) + bytes(10**6))
    old = {f"a pickle of protocol {p}": (pickle.dumps({"w": [1.0]}, protocol=p), "pickle") for p in range(6)}
    return {
        **old,
        "a pickle that runs a program": (b"cos\nsystem\n(S'true'\ntR.", "pickle"),
        "an array of objects": (objects.getvalue(), "npy"),
        "numpy's archive": (arrays.getvalue(), "zip"),
        "a .pt file, which unpacks to much more": (archive.getvalue(), "zip"),
        "a program": (b"\x7fELF" + bytes(60), "program"),
        "something packed": (b"\x1f\x8b" + bytes(60), "compressed"),
        "an HDF5 file": (b"\x89HDF\r\n\x1a\n", "hdf5"),
        "nothing": (b"", "unknown-format"),
        "text": (b"import os", "unknown-format"),
        "an ONNX graph that is cut off": (linear_model(np.ones((3, 1)))[:-2], "unknown-format"),
        "an ONNX graph with something behind": (linear_model(np.ones((3, 1))) + b"\xff\xff", "unknown-format"),
    }


def bad_headers() -> dict[str, bytes]:
    """Safetensors that lie about themselves."""
    one = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}

    def said(**changes: Any) -> bytes:
        return with_header(json.dumps({"w": {**one, **changes}}).encode(), bytes(8))

    return {
        "a header longer than the file": with_header(b"{}", said=2**40),
        "a header of 100 MB of blanks": with_header(b"{}" + b" " * 2_000_000),
        "nesting without end": with_header(b"{" + b'"a":{' * 5_000 + b"}" * 5_001),
        "a name twice": with_header(b'{"w":%b,"w":%b}' % ((json.dumps(one).encode(),) * 2), bytes(8)),
        "not JSON": with_header(b"{w}"),
        "a shape of more than there is": said(shape=[2**40]),
        "a shape whose product runs over": said(shape=[2**32, 2**32]),
        "a negative length": said(shape=[-1]),
        "data behind the file": said(data_offsets=[8, 16]),
        "data before the file": said(data_offsets=[-8, 0]),
        "a gap": with_header(json.dumps({"w": {**one, "data_offsets": [8, 16]}}).encode(), bytes(16)),
        "an overlap": with_header(json.dumps({"v": one, "w": one}).encode(), bytes(8)),
        "bytes behind": with_header(json.dumps({"w": one}).encode(), bytes(9)),
        "objects": said(dtype="OBJ"),
        "a list as type": said(dtype=["F64"]),
        "a number that is true": said(shape=[True]),
        "one field more": said(run="me"),
        "a name with a line break": with_header(json.dumps({"a\nb": one}).encode(), bytes(8)),
    }


def _described(name: str, shape: tuple[int | None, ...]) -> bytes:
    sizes = b"".join(_field(1, _text(2, "n") if n is None else _number(1, n)) for n in shape)
    return _text(1, name) + _field(2, _field(1, _number(1, _DOUBLE) + _field(2, sizes)))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode())
