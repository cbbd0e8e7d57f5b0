"""Networks in a notebook: one's own PyTorch module as layers, and what comes back, on simulated hubs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make deep")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import flute.sdk as flute  # noqa: E402
from flute.deep.build import build, load  # noqa: E402
from flute.deep.sizes import sized  # noqa: E402
from flute.errors import MisuseError, StudyFileError  # noqa: E402
from flute.sdk.networks.own_network import read_network  # noqa: E402

N = 24
VARIABLES = flute.Variables(
    age=flute.number(20, 100, scale="reference"), picture=flute.image((1, 4, 4), 0, 1), ill=flute.binary()
)


class Block(nn.Module):
    """Its sum is written into its input, which is what many people write."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding="same")

    def forward(self, x: Any) -> Any:
        found = self.second(functional.relu(self.norm(self.first(x))))
        found += x
        return functional.relu(found)


class Both(nn.Module):
    """Of an image and numbers, by calls and by modules."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8 + 3, 1)  # before what it follows on: the order of use counts
        self.first = nn.Conv2d(2, 4, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.dense = nn.Linear(4 * 2 * 2, 8)
        self.drop = nn.Dropout(0.25)

    def forward(self, image: Any, numbers: Any) -> Any:
        found = functional.max_pool2d(torch.tanh(self.first(image)), 2)
        found = self.blocks(found)
        found = self.drop(self.dense(found.view(found.size(0), -1)).relu())
        return self.last(torch.cat([found, numbers], dim=1)).squeeze(-1)


class Wide(nn.Module):
    """Of numbers, with sums in sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 1)
        self.outer, self.inner = nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Any) -> Any:
        x = functional.gelu(self.first(x))
        found = self.outer(x)
        found = found + torch.tanh(self.inner(found))
        return self.last(self.norm(x + found))[:, 0]


VOLUME = nn.Sequential(
    nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.ELU(), nn.AvgPool3d(2), nn.Identity(),
    nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 1),
)  # fmt: skip
FLAT = nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(3), nn.Flatten(), nn.ELU(), nn.Linear(27, 5), nn.Linear(5, 1))
SHAPES: dict[str, tuple[nn.Module, int, tuple[int, ...]]] = {
    "image and numbers": (Both(), 3, (2, 9, 9)),
    "numbers": (Wide(), 3, ()),
    "volume": (VOLUME, 0, (2, 4, 5, 6)),
    "flattened late": (FLAT, 0, (2, 9, 11)),
}


def carried(module: nn.Module, columns: int, image: tuple[int, ...]) -> Any:
    """The module that hubs build, with the weights of one's own, by the holders that were read."""
    own = read_network(module)
    parameters = sized(own.layers, columns, image).parameters
    held = [getattr(module.get_submodule(holder), name) for holder in own.holders for name in ("weight", "bias")]
    assert [tuple(one.shape) for one in held] == [parameter.shape for parameter in parameters]
    built = build(own.layers, columns, image)
    load(built, torch.cat([one.detach().ravel() for one in held]).double().numpy(), parameters)
    return built.eval()


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("name", SHAPES)
def test_a_module_and_the_layers_read_of_it_give_the_same(name: str) -> None:
    module, columns, image = SHAPES[name]
    module.eval()
    with torch.no_grad():  # a norm's weights begin at 1 and 0, which would hide that they were left out
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    given = torch.Generator().manual_seed(2)
    numbers = torch.randn(7, columns, generator=given)
    picture = torch.randn(7, *image, generator=given) if image else None
    taken = [one for one in (picture, numbers if columns else None) if one is not None]
    built = carried(module, columns, image)
    with torch.no_grad():
        mine = module(*taken).reshape(-1)
        assert torch.allclose(built(numbers, picture), mine, atol=1e-6)
        built.last.weight.mul_(1.01)
        assert not torch.allclose(built(numbers, picture), mine, atol=1e-6)  # the comparison sees one per cent


def test_what_travels_is_a_list_of_layers_and_no_name_of_ones_own() -> None:
    layers = flute.network(Wide())
    assert layers[0] == flute.Dense(6)
    assert layers[2] == flute.Residual((flute.Dense(6), flute.Residual((flute.Dense(6), flute.Activation("tanh")))))
    asked = flute.NeuralNetwork("ill", ["age"], network=Wide()).elements()
    assert asked["network"][0] == {"layer": "dense", "size": 6}
    assert "Wide" not in str(asked)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Any) -> Any:
        return self.last(self.one(x) + self.other(x))


class Gate(Branches):
    def forward(self, x: Any) -> Any:
        return self.last(self.one(x) * self.other(x))


class Choice(Branches):
    def forward(self, x: Any) -> Any:
        return self.last(self.one(x) if x.sum() > 0 else self.other(x))


class Own(Branches):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: Any) -> Any:
        return self.last(self.one(x) + self.shift)


class Twice(Branches):
    def forward(self, x: Any) -> Any:
        return self.last(self.one(self.one(x)))


class NumbersFirst(Both):
    def forward(self, image: Any, numbers: Any) -> Any:
        return self.last(torch.cat([numbers, self.first(image).flatten(1)], dim=1))


REFUSED = [
    (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), r"at 1 \(BatchNorm1d\).*GroupNorm"),
    (nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()), r"at 1 \(Sigmoid\).*log odds"),
    (nn.Sequential(nn.Linear(3, 2)), r"ends in nn.Linear\(…, 1\).*this one ends with 0 \(Linear\)"),
    (nn.Sequential(), r"this one does nothing"),
    (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 1)), r"at 0 \(Conv2d\).*padding=1"),
    (nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(4, 1)), r"bias=False"),
    (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(4, 1)), r"groups"),
    (nn.Sequential(nn.Conv2d(1, 4, (1, 3)), nn.Flatten(), nn.Linear(4, 1)), r"one size along all sides"),
    (nn.Sequential(nn.MaxPool2d(3, stride=1), nn.Flatten(), nn.Linear(4, 1)), r"side by side"),
    (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 1)), r"only the one to size 1"),
    (nn.Sequential(nn.Conv2d(1, 4, 1), nn.Linear(4, 1)), r"1 \(Linear\) would run along an image's last side"),
    (nn.Sequential(nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 1)), r"behind a flattened image"),
    (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=1e-3), nn.Linear(4, 1)), r"eps=1e-05"),
    (nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(), nn.Linear(4, 1)), r"ReLU, Tanh, GELU and ELU"),
    (nn.Sequential(nn.LSTM(3, 4)), r"at 0 \(LSTM\).*no sequences"),
    (nn.Sequential(nn.Linear(3, 4), nn.Flatten(0), nn.Linear(4, 1)), r"may stand at a network's end"),
    (Branches(), r"at `return self.last\(self.one\(x\) \+ self.other\(x\)\)`: only x \+ f\(x\)"),
    (Gate(), r"at `return self.last\(self.one\(x\) \* self.other\(x\)\)`: mul"),
    (Choice(), r"cannot be read: .*control flow"),
    (Own(), r"only x \+ f\(x\)"),
    (Twice(), r"shares its weights"),
    (NumbersFirst(), r"torch.cat\(\[what the image has become, predictors\], dim=1\)"),
    ("relu", r"or a torch.nn.Module, not str"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_has_no_counterpart_is_named_with_its_place(module: Any, said: str) -> None:
    with pytest.raises(MisuseError, match=f"(?s){said}"):
        flute.network(module)


def test_networks_of_monai_are_named_and_not_read() -> None:
    theirs = type("DenseNet", (nn.Module,), {"__module__": "monai.networks.nets.densenet"})
    with pytest.raises(MisuseError, match=r"flute.Monai\('DenseNet', arguments"):
        flute.network(theirs())


# --- on hubs ---------------------------------------------------------------------------------------------


def patients(seed: int, count: int = N) -> pd.DataFrame:
    """Those who are ill have a brighter picture."""
    chance = np.random.default_rng(seed)
    ill = chance.integers(0, 2, count)
    pictures = [np.clip(chance.normal(0.3 + 0.4 * one, 0.1, (1, 4, 4)), 0, 1).astype(np.float32) for one in ill]
    return pd.DataFrame({"age": chance.uniform(30, 90, count), "picture": pictures, "ill": ill})


class Small(nn.Module):
    """Its Linear is made for what an image of 1 x 4 x 4 and one number come to."""

    def __init__(self, inputs: int = 2 * 2 * 2) -> None:
        super().__init__()
        self.conv, self.dense, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(inputs, 4), nn.Linear(5, 1)

    def forward(self, image: Any, numbers: Any) -> Any:
        found = functional.max_pool2d(torch.relu(self.conv(image)), 2).flatten(1)
        return self.last(torch.cat([torch.relu(self.dense(found)), numbers], 1))


@pytest.fixture(scope="module")
def study() -> Iterator[flute.Study]:
    hubs = {name: patients(seed) for seed, name in enumerate(("north", "south", "west"))}
    with flute.simulator(hubs, simulated=True) as fed:
        yield fed.study("net", purpose="A test.", variables=VARIABLES, exact=flute.Exact(max_numbers=20_000))


@pytest.fixture(scope="module")
def own(study: flute.Study) -> flute.NeuralNetwork:
    model = flute.NeuralNetwork(
        "ill", ["age"], image="picture", network=Small(), rounds=20, batch=8, learning_rate=0.1, seed=3
    )
    return model.fit(study, progress=False)


def test_a_network_learns_and_tells_new_patients_apart(own: flute.NeuralNetwork) -> None:
    fresh = patients(9, 60)
    assert own.n_ == 3 * N
    assert own.losses_[-1] < 0.5 * own.losses_[0]
    risk = own.predict_proba(fresh)[:, 1]
    assert ((risk >= 0.5) == fresh["ill"]).mean() > 0.9
    assert own.to_frame()["loss"].tolist() == own.losses_.tolist()


def test_ones_own_module_comes_back_with_the_weights(own: flute.NeuralNetwork) -> None:
    fresh = patients(9)
    module = own.to_torch()
    assert isinstance(module, Small)
    assert module is not own.network
    numbers, images = own.inputs(fresh)
    with torch.no_grad():
        mine = torch.sigmoid(module(torch.from_numpy(images), torch.from_numpy(numbers))[:, 0])
        untrained = torch.sigmoid(own.network(torch.from_numpy(images), torch.from_numpy(numbers))[:, 0])
    risk = own.predict_proba(fresh)[:, 1]
    np.testing.assert_allclose(mine.numpy(), risk, atol=1e-6)
    assert np.abs(untrained.numpy() - risk).max() > 0.01


def test_layers_come_back_as_the_module_that_hubs_build(study: flute.Study) -> None:
    model = flute.NeuralNetwork("ill", image="picture", network=[flute.Conv(2), flute.GlobalMean()], rounds=1)
    model.fit(study, progress=False)
    module, (numbers, images) = model.to_torch(), model.inputs(patients(9))
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        name: array.shape for name, array in model.weights.items()
    }
    with torch.no_grad():
        mine = torch.sigmoid(module(torch.from_numpy(numbers), torch.from_numpy(images)))
    np.testing.assert_allclose(mine.numpy(), model.predict_proba(patients(9))[:, 1], atol=1e-6)


def test_weights_are_saved_as_safetensors(own: flute.NeuralNetwork, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy", reason="the format's own library: make deep")
    read = safetensors.load_file(own.save(tmp_path / "mine.safetensors"))
    assert read.keys() == own.weights.keys()
    assert all(np.array_equal(read[name], array) for name, array in own.weights.items())


@pytest.mark.requirement("F-PIL-23")
def test_a_trained_network_is_taken_home_as_onnx(own: flute.NeuralNetwork, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the file itself: the extra 'imaging'")
    fresh = patients(9)
    path = own.to_onnx(tmp_path / "mine.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    numbers, images = own.inputs(fresh)
    (log_odds,) = session.run(None, {"numbers": numbers, "image": images})
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), own.predict_proba(fresh)[:, 1], atol=1e-5)
    said = session.get_modelmeta().custom_metadata_map
    assert said["columns"] == '["age"]'
    assert said["standardisation"] == '{"age":{"centre":60.0,"spread":20.0}}'


def test_what_was_taken_home_is_a_network_of_another_study(
    own: flute.NeuralNetwork, study: flute.Study, tmp_path: Path
) -> None:
    path = own.to_onnx(tmp_path / "mine.onnx")
    again = flute.NeuralNetwork("ill", ["age"], image="picture", network=path)
    assert again.elements()["network"] == own.elements()["network"]
    again.check(study)
    with pytest.raises(
        MisuseError, match=r"takes an image of \(1, 4, 4\) and 1 columns; this study feeds it an image"
    ):
        flute.NeuralNetwork("ill", ["age", "age2"], image="picture", network=path).check(with_another(study))


def with_another(study: flute.Study) -> Any:
    """The same with one number more."""
    hubs = {name: patients(seed).assign(age2=50.0) for seed, name in enumerate(("north", "south", "west"))}
    variables = flute.Variables(
        age=flute.number(20, 100),
        age2=flute.number(20, 100),
        picture=flute.image((1, 4, 4), 0, 1),
        ill=flute.binary(),
    )
    fed = flute.simulator(hubs, simulated=True)
    return fed.study("wider", purpose="A test.", variables=variables, exact=flute.Exact(max_numbers=20_000))


def test_the_loss_of_every_round_is_drawn(own: flute.NeuralNetwork) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    axes = own.plot()
    assert "SIMULATED" in axes.get_title()
    assert len(axes.lines[0].get_ydata()) == 20


def test_a_patient_without_an_image_has_no_risk_and_another_shape_is_said(
    own: flute.NeuralNetwork, tmp_path: Path
) -> None:
    np.save(tmp_path / "one.npy", patients(9)["picture"][0])
    some = pd.DataFrame({"age": [50, 60, 70], "picture": [None, str(tmp_path / "one.npy"), np.full((1, 4, 4), 7.0)]})
    risk = own.predict_proba(some)[:, 1]
    assert np.isnan(risk).tolist() == [True, False, True]  # the third is out of range, as a hub would find
    with pytest.raises(MisuseError, match=r"picture, row 1: .* shape \(4, 4\); .* needs shape \(1, 4, 4\)"):
        own.predict_proba(pd.DataFrame({"age": [50], "picture": [np.zeros((4, 4))]}))
    with pytest.raises(MisuseError, match="row 1: no array of numbers"):
        own.predict_proba(pd.DataFrame({"age": [50], "picture": [str(tmp_path / "none.npy")]}))


def test_a_module_made_for_another_size_is_told_before_anything_is_asked(study: flute.Study) -> None:
    before = len(study.runs)
    model = flute.NeuralNetwork("ill", ["age"], image="picture", network=Small(inputs=18), rounds=1)
    with pytest.raises(MisuseError, match=r"dense.weight is of shape \(4, 18\); .* would be \(4, 8\)"):
        model.fit(study, progress=False)
    assert len(study.runs) == before


def test_more_numbers_than_a_study_has_are_refused_before_anything_is_asked(study: flute.Study) -> None:
    before = len(study.runs)
    with pytest.raises(StudyFileError, match="max_numbers"):
        flute.NeuralNetwork("ill", ["age"], network=[flute.Dense(2000)], rounds=50).fit(study)
    assert len(study.runs) == before
