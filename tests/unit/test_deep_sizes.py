"""Layers come to the shapes, names and numbers of weights that torch's modules have, worked out without torch."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from msgspec import json

from flute.deep.layers import (
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalMean,
    Join,
    Layers,
    Monai,
    Norm,
    Pool,
    Residual,
)
from flute.deep.sizes import sized
from flute.deep.start import start_weights
from flute.errors import StudyFileError

INNER = Residual((Conv(4), Norm(2), Activation("gelu"), Residual((Conv(4, kernel=1),))))
NETWORKS: dict[str, tuple[Layers, int, tuple[int, ...]]] = {
    "no layers": ((), 5, ()),
    "dense": ((Dense(7), Activation("relu"), Dense(3), Activation("elu")), 5, ()),
    "norm of numbers": ((Dense(8), Norm(4), Residual((Dense(8), Dropout(0.1)))), 5, ()),
    "two dimensions": (
        (Conv(4), Activation("tanh"), Pool(), INNER, Conv(8, 5, 2), Pool(2, "mean"), GlobalMean()), 0, (1, 17, 12)
    ),
    "three dimensions": ((Conv(4, 2), INNER, Pool(2), Join(), Dense(3)), 3, (2, 6, 16, 13)),
    "mean in three dimensions": ((Conv(2, 3, 3), Pool(2, "mean"), GlobalMean(), Join()), 2, (1, 12, 13, 14)),
    "an image laid out": ((Dense(4),), 0, (1, 3, 3)),
    "join at once": ((Join(), Dense(4)), 2, (1, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_weights_that_torch_gives_it(name: str) -> None:
    torch = pytest.importorskip("torch")
    from flute.deep.build import build, flat, load

    layers, columns, image = NETWORKS[name]
    found = sized(layers, columns, image)
    module = build(layers, columns, image)
    assert [(p.name, p.shape) for p in found.parameters] == [
        (n, tuple(tensor.shape)) for n, tensor in module.named_parameters()
    ]
    assert found.total == sum(tensor.numel() for tensor in module.parameters())
    weights = start_weights(found.parameters, 3)
    load(module, weights, found.parameters)
    assert np.array_equal(flat(module, found.parameters), weights)
    x, images = torch.ones(2, columns), torch.ones(2, *image) if image else None
    assert module(x, images).shape == (2,)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_that_layers_give_are_those_that_torch_computes(name: str) -> None:
    torch = pytest.importorskip("torch")
    from flute.deep.build import Sum, build

    layers, columns, image = NETWORKS[name]
    module, given = build(layers, columns, image), []
    for part in module.modules():
        if not list(part.children()) or isinstance(part, Sum):
            part.register_forward_hook(lambda _, __, output: given.append(prod(output.shape[1:])))
    module(torch.ones(1, columns), torch.ones(1, *image) if image else None)
    assert sized(layers, columns, image).numbers == sum(given)


def test_start_bounds_are_those_that_torch_draws_within() -> None:
    torch = pytest.importorskip("torch")
    layers: Layers = (Conv(64, 3), Activation(), Dense(64))
    ours = sized(layers, 0, (2, 9, 9)).parameters
    torch.manual_seed(1)
    for parameter, theirs in zip(
        ours[:4], [*torch.nn.Conv2d(2, 64, 3).parameters(), *torch.nn.Linear(64 * 81, 64).parameters()], strict=True
    ):
        largest = float(theirs.detach().abs().max())
        assert 0.9 * parameter.bound < largest <= parameter.bound


REFUSED: dict[str, tuple[Layers, int, tuple[int, ...], str]] = {
    "nothing": ((Dense(3),), 0, (), "needs some, or an image"),
    "image too late": (
        (Dense(3), Conv(4)), 0, (1, 8, 8), r"layer 2 \(conv\) needs an image; put it before what lays the image out"
    ),
    "no image": ((Pool(),), 3, (), r"layer 1 \(pool\) needs an image; name one"),
    "mean of numbers": ((GlobalMean(),), 3, (), r"layer 1 \(global-mean\) needs an image"),
    "pooled away": ((Pool(4), Pool(4)), 0, (1, 8, 8), r"layer 2 \(pool\) leaves nothing of an image of 1 x 2 x 2"),
    "groups": ((Conv(6), Norm(4)), 0, (1, 8, 8), r"layer 2 \(norm\) cannot divide 6 channels"),
    "one in a group": ((Dense(4), Norm(4)), 3, (), r"layer 2 \(norm\) would have one number in a group"),
    "residual": (
        (Conv(4), Residual((Conv(8),))), 0, (1, 8, 8), r"layer 2 \(residual\) takes 4 x 8 x 8 and its inner layers"
    ),
    "inside a residual": ((Residual((Pool(8),)),), 0, (1, 4, 4), r"layer 1\.1 \(pool\)"),
    "no join": ((Dense(3),), 2, (1, 4, 4), "write one layer 'join'"),
    "two joins": ((Join(), Join()), 2, (1, 4, 4), "write one layer 'join'"),
    "join without image": ((Join(),), 2, (), r"layer 1 \(join\) is for networks"),
    "join within": ((Residual((Join(),)), Join()), 2, (1, 4, 4), r"layer 1\.1 \(join\)"),
    "monai late": ((Conv(1), Monai("Classifier")), 0, (1, 16, 16), r"layer 2 \(monai\) takes the image itself"),
    "monai without image": ((Monai("Classifier"),), 3, (), r"layer 1 \(monai\) takes the image itself"),
    "too many weights": ((Dense(4096), Dense(4096)), 3, (), "16,801,793 weights, and 2,000,000 is the most"),
    "too much for a patient": ((Conv(512, 1), GlobalMean()), 0, (1, 512, 512), "numbers for one patient"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_do_not_fit_are_named_with_what_to_do(name: str) -> None:
    layers, columns, image, text = REFUSED[name]
    with pytest.raises(StudyFileError, match=text):
        sized(layers, columns, image)


def test_residual_layers_may_stand_in_each_other_only_so_deep() -> None:
    nested: Any = Dense(3)
    for _ in range(6):
        nested = Residual((nested,))
    with pytest.raises(StudyFileError, match="stands in 4 others"):
        sized((nested,), 3, ())


def test_layers_are_read_from_a_study_file_and_nothing_else_is() -> None:
    raw = b'[{"layer":"conv","channels":4},{"layer":"residual","inner":[{"layer":"activation","kind":"elu"}]}]'
    assert json.decode(raw, type=Layers) == (Conv(4), Residual((Activation("elu"),)))
    for bad in (b'[{"layer":"lambda"}]', b'[{"layer":"dense"}]', b'[{"layer":"dense","size":4,"code":"x"}]'):
        with pytest.raises(ValueError, match=r"Invalid|missing|unknown"):
            json.decode(bad, type=Layers)


MONAI: dict[str, tuple[Monai, tuple[int, ...], bool]] = {
    "classifier": (Monai("Classifier", 4, {"channels": [4, 8], "strides": [2, 2]}), (1, 16, 16), False),
    "regressor": (Monai("Regressor", 3, {"channels": [4, 8], "strides": [2, 2]}), (2, 8, 16, 16), False),
    "dense": (
        Monai("DenseNet", 4, {"init_features": 8, "growth_rate": 4, "block_config": [1, 1], "act": "relu",
                              "norm": ["group", {"num_groups": 2}]}),
        (1, 8, 16, 16), False,
    ),
    "batch norm": (Monai("DenseNet", 4, {"init_features": 8, "growth_rate": 4, "block_config": [1, 1]}), (1, 16, 16),
                   True),
    "residual": (Monai("resnet10", 4, {"widen_factor": 0.125}), (1, 32, 32), True),
    "residual of one's own": (
        Monai("ResNet", 4, {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8]}),
        (1, 16, 32, 32), True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MONAI)
def test_a_network_of_monai_is_sized_as_it_is_built(name: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("monai")
    from flute.deep.build import build, flat, load

    layer, image, buffers = MONAI[name]
    layers: Layers = (layer, Activation(), Dense(3))
    found = sized(layers, 0, image)
    module = build(layers, 0, image)
    assert {p.name: p.shape for p in found.parameters if p.trained} == {
        n: tuple(t.shape) for n, t in module.named_parameters()
    }
    assert any(not p.trained for p in found.parameters) == buffers
    weights = start_weights(found.parameters, 1)
    load(module, weights, found.parameters)
    assert np.array_equal(flat(module, found.parameters), weights)
    module(torch.zeros(2, 0), torch.ones(2, *image)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_the_learned_slope_of_an_activation_starts_where_torch_starts_it() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("monai")
    layer, image, _ = MONAI["classifier"]
    slopes = [p for p in sized((layer,), 0, image).parameters if p.shape == (1,) and p.name.endswith(".A.weight")]
    assert slopes
    assert {(p.centre, p.bound) for p in slopes} == {(0.25, 0.0)}


NOT_MONAI: dict[str, tuple[Monai, str]] = {
    "unknown": (Monai("UNet"), "is not on the list of networks that may be used: Classifier,"),
    "downloads": (Monai("DenseNet", 4, {"pretrained": True}), "'pretrained' is not among the arguments"),
    "ours": (Monai("DenseNet", 4, {"spatial_dims": 3}), "'spatial_dims' is not among the arguments"),
    "huge": (Monai("DenseNet", 4, {"growth_rate": 10**9}), "growth_rate: a number is at most 1024"),
    "not a number": (Monai("DenseNet", 4, {"dropout_prob": float("nan")}), "dropout_prob: a number is at most"),
    "words": (Monai("DenseNet", 4, {"act": "os.system"}), "act: a word has at most"),
    "deep": (Monai("DenseNet", 4, {"norm": ["a", {"b": [["c"]]}]}), "norm: write numbers, words"),
    "long": (Monai("DenseNet", 4, {"block_config": [1] * 17}), "block_config: write numbers"),
}


@pytest.mark.parametrize("name", NOT_MONAI)
def test_a_network_of_monai_is_on_the_list_and_so_are_its_arguments(name: str) -> None:
    layer, text = NOT_MONAI[name]
    with pytest.raises(StudyFileError, match=text):
        sized((layer,), 0, (1, 16, 16))


def test_what_monai_itself_refuses_is_a_word_about_the_study_file() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("monai")
    with pytest.raises(StudyFileError, match="monai DenseNet121: does not take images of"):
        sized((Monai("DenseNet121", 4, {"init_features": 8, "growth_rate": 4}),), 0, (1, 4, 8, 8))
    with pytest.raises(StudyFileError, match="monai Classifier: MONAI does not take these arguments"):
        sized((Monai("Classifier", 4),), 0, (1, 16, 16))
    with pytest.raises(StudyFileError, match=r"weights, and 2,000,000 is the most; make it narrower"):
        sized((Monai("DenseNet121", 4),), 0, (1, 64, 64))


def test_without_monai_its_networks_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flute.deep.monai_networks.find_spec", lambda _: None)
    with pytest.raises(StudyFileError, match=r"install it: pip install 'flute\[deep\]'"):
        sized((Monai("Classifier", 5, {"channels": [4], "strides": [2]}),), 0, (1, 16, 16))
