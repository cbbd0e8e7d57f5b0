"""Where networks are computed: a GPU where there is one, and in 32 bits throughout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

import flute.sdk as flute
from flute.algorithms.contract import Setting, StudyVariable
from flute.data.variables import Variable
from flute.deep.inputs import sized_for
from flute.deep.layers import Conv, GlobalMean
from flute.deep.scorer import NetworkScorer
from flute.deep.spec import NeuralNetwork
from flute.deep.start import start_weights
from flute.errors import NotPossible
from support.networks import NETWORKS, table

torch = pytest.importorskip("torch", reason="needs PyTorch: make deep")

from flute.deep.device import device, full_precision  # noqa: E402


@pytest.mark.parametrize(("there", "kind"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device().type == kind


def fast() -> tuple[bool, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return (cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark, not cudnn.deterministic)


def test_nothing_is_rounded_to_19_bits_and_settings_come_back() -> None:
    before = fast()
    assert before[0]  # as PyTorch comes: convolutions would be
    with suppress(ZeroDivisionError), full_precision():
        assert fast() == (False, False, False, False)
        raise ZeroDivisionError
    assert fast() == before


VARIABLES = (
    StudyVariable(Variable("ill", "binary")),
    StudyVariable(Variable("scan", "image", 0, 1, shape=(1, 4, 4))),
)
SPEC = NeuralNetwork("ill", image="scan", network=(Conv(2), GlobalMean()))
N = 12


def setting(mode: str) -> Setting:
    return Setting({v.variable.name: v for v in VARIABLES}, "drop", mode, ("x",), {})  # type: ignore[arg-type]


def scored() -> object:
    weights = start_weights(sized_for(SPEC, setting("exact")).parameters, 1)
    return NetworkScorer().risks(SPEC, setting("exact"), weights, people())


def trained() -> object:
    weights = start_weights(sized_for(SPEC, setting("exact")).parameters, 1)
    return NETWORKS.total(SPEC, setting("exact"), 0, weights, people())


def people() -> object:
    images = np.random.default_rng(1).random((N, 1, 4, 4), dtype=np.float32)
    return table({"ill": np.arange(N) % 2.0, "scan": np.ones(N)}, VARIABLES, {"scan": images})


@pytest.mark.parametrize("compute", [scored, trained])
def test_networks_are_computed_so(compute: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def forward(self: object, *given: object) -> object:
        seen.append(fast())
        return original(self, *given)

    original = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    compute()
    assert set(seen) == {(False, False, False, False)}


def test_a_study_that_needs_a_gpu_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = replace(SPEC, training=replace(SPEC.training, gpu=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotPossible, match=r"'gpu: true'.*this hub has none"):
        NETWORKS.require_parts(needs)
    NETWORKS.require_parts(replace(SPEC, training=replace(SPEC.training, gpu=False)))
    NETWORKS.require_parts(SPEC)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    NETWORKS.require_parts(needs)


def test_a_study_that_says_nothing_of_it_stays_what_it_was() -> None:
    assert b"gpu" not in msgspec.msgpack.encode(SPEC)
    assert flute.NeuralNetwork("ill", gpu=True).elements()["training"] == {"gpu": True}
