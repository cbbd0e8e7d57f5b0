"""Weights are read from safetensors of 32-bit numbers and from nothing else."""

from __future__ import annotations

import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.deep.layers import Conv, Dense, Norm
from flute.deep.sizes import sized
from flute.deep.start import start_weights
from flute.deep.weights import named_weights, read_weights, write_weights
from flute.errors import FluteError, Malformed, MisuseError, TooLarge

PARAMETERS = sized((Conv(2), Norm(1), Dense(3)), 0, (1, 4, 4)).parameters
WEIGHTS = start_weights(PARAMETERS, 5)
RAW = write_weights(PARAMETERS, WEIGHTS)


def header_of(raw: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def rewritten(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_what_is_written_is_read_again() -> None:
    assert np.array_equal(read_weights(RAW, PARAMETERS), WEIGHTS)
    assert {name: array.shape for name, array in named_weights(RAW, PARAMETERS).items()} == {
        p.name: p.shape for p in PARAMETERS
    }


def test_the_safetensors_package_reads_what_is_written_and_the_other_way_round() -> None:
    theirs = pytest.importorskip("safetensors.numpy")
    read = theirs.load(RAW)
    ours = named_weights(RAW, PARAMETERS)
    assert read.keys() == ours.keys()
    assert all(np.array_equal(read[name], ours[name]) for name in ours)
    in_another_order = theirs.save({name: ours[name] for name in reversed(ours)}, {"made_by": "somebody"})
    assert np.array_equal(read_weights(in_another_order, PARAMETERS), WEIGHTS)


def test_weights_of_another_network_are_not_written() -> None:
    with pytest.raises(MisuseError):
        write_weights(PARAMETERS, WEIGHTS[:-1])


def test_weights_of_another_network_are_not_read() -> None:
    with pytest.raises(Malformed, match="other names"):
        read_weights(RAW, sized((Dense(3),), 2, ()).parameters)
    other = sized((Conv(2), Norm(1), Dense(4)), 0, (1, 4, 4)).parameters
    with pytest.raises(Malformed, match=r"weight have another shape|bias have another shape"):
        read_weights(write_weights(other, start_weights(other, 1)), PARAMETERS)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        raise AssertionError("a pickle was opened")


def hostile() -> dict[str, bytes]:
    header, body = header_of(RAW)
    first, *names = header
    begin, end = header[first]["data_offsets"]
    shifted = {name: {**entry, "data_offsets": header[first]["data_offsets"]} for name, entry in header.items()}
    return {
        "empty": b"",
        "a pickle": pickle.dumps({"weights": WEIGHTS.tolist()}),
        "a header longer than the file": struct.pack("<Q", 2**63) + RAW[8:],
        "no header": struct.pack("<Q", 0) + body,
        "no JSON": struct.pack("<Q", 8) + b"\xff" * 8 + body,
        "a list": struct.pack("<Q", 2) + b"[]" + body,
        "cut off": RAW[:-4],
        "something behind": RAW + b"\0\0\0\0",
        "one tensor less": rewritten({n: header[n] for n in names}, body),
        "one tensor more": rewritten({**header, "x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, body),
        "another type": rewritten({**header, first: {**header[first], "dtype": "F16"}}, body),
        "an unknown field": rewritten({**header, first: {**header[first], "code": "x"}}, body),
        "a negative place": rewritten({**header, first: {**header[first], "data_offsets": [-4, end]}}, body),
        "a huge shape": rewritten({**header, first: {**header[first], "shape": [2**40, 2**40]}}, body),
        "all in one place": rewritten(shifted, body[begin:end]),
        "places overlap": rewritten({**header, names[0]: {**header[names[0]], "data_offsets": [0, 8]}}, body),
        "turned round": rewritten({**header, first: {**header[first], "data_offsets": [end, begin]}}, body),
        "not a number": RAW[:-4] + np.float32(np.nan).tobytes(),
        "infinite": RAW[:-4] + np.float32(np.inf).tobytes(),
    }


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_file_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        read_weights(hostile()[name], PARAMETERS)


def test_a_file_of_more_than_any_network_has_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        read_weights(bytes(10_000_000), PARAMETERS)


@settings(max_examples=200, deadline=None)
@given(raw=st.one_of(st.binary(max_size=400), st.binary(max_size=60).map(lambda b: struct.pack("<Q", len(b)) + b)))
def test_no_bytes_do_anything_but_be_refused(raw: bytes) -> None:
    with pytest.raises(FluteError):
        read_weights(raw, PARAMETERS)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(RAW) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_gives_other_finite_numbers(at: int, byte: int) -> None:
    changed = RAW[:at] + bytes([byte]) + RAW[at + 1 :]
    try:
        found = read_weights(changed, PARAMETERS)
    except Malformed:
        return
    assert found.shape == WEIGHTS.shape
    assert np.isfinite(found).all()
