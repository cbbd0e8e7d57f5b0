"""What a researcher may bring is known by its bytes; all else is refused by name before anything parses it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.errors import SandboxRefusal
from flute.sandbox.formats import recognised, require_model, weights
from support.sandbox_files import bad_headers, linear_model, refused_files, safetensors, with_header

ARRAYS = {
    "layer.weight": np.arange(6.0).reshape(2, 3),
    "layer.bias": np.ones(2, "f4"),
    "steps": np.array(3, "i8"),
    "none": np.zeros((0, 4)),
}


def test_safetensors_come_back_as_they_were() -> None:
    found = weights(safetensors(ARRAYS))
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)
        assert not found[name].flags.writeable


def test_the_formats_own_library_reads_the_same() -> None:
    library = pytest.importorskip("safetensors.numpy")
    raw = library.save({k: v for k, v in ARRAYS.items() if v.size})
    assert all(np.array_equal(values, ARRAYS[name]) for name, values in weights(raw).items())


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("name", refused_files())
def test_a_file_that_may_carry_code_is_refused_by_name(name: str) -> None:
    raw, reason = refused_files()[name]
    for reader in (recognised, weights, require_model):
        with pytest.raises(SandboxRefusal) as refused:
            reader(raw)
        assert refused.value.reason == reason


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("name", bad_headers())
def test_weights_that_lie_about_themselves_are_refused(name: str) -> None:
    with pytest.raises(SandboxRefusal) as refused:
        weights(bad_headers()[name])
    assert refused.value.reason == "safetensors-header"


def test_a_graph_is_no_weights_and_weights_are_no_graph() -> None:
    graph = linear_model(np.ones((3, 1)))
    assert recognised(graph) == "onnx"
    require_model(graph)
    with pytest.raises(SandboxRefusal):
        weights(graph)
    with pytest.raises(SandboxRefusal):
        require_model(safetensors(ARRAYS))
    with pytest.raises(SandboxRefusal) as refused:
        require_model(graph, len(graph) - 1)
    assert refused.value.reason == "too-large"


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_bytes_come_the_answer_is_a_refusal_or_arrays(raw: bytes) -> None:
    for tried in (raw, with_header(b"{" + raw, b"data")):
        try:
            assert isinstance(weights(tried), dict)
        except SandboxRefusal:
            continue
