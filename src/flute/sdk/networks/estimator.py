"""Neural networks in a notebook: layers, or a PyTorch module, in; a model that predicts and gives its weights out."""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self, get_args

import msgspec
import numpy as np

from flute.algorithms.contract import Setting
from flute.deep.inputs import scored, shapes, sized_for
from flute.deep.layers import Layer
from flute.deep.parameter import Shape
from flute.deep.spec import NeuralNetwork as Asked
from flute.deep.spec import Training
from flute.deep.weights import named_weights, read_weights
from flute.errors import MisuseError
from flute.sdk.estimators import Predictor
from flute.sdk.extras import loaded
from flute.sdk.networks.onnx.network import BroughtNetwork, read_onnx
from flute.sdk.networks.onnx.writing import written
from flute.sdk.networks.own_network import OwnNetwork, is_file, network, read_network
from flute.sdk.results.result import Result
from flute.sdk.results.scoring import dataset
from flute.study.agreement import Agreement

_HOW_MANY: Final = (
    "Make it for the study's image, and its columns: one of a number or a 0/1 variable, one less than its levels of "
    "a category, and with missing='indicate' one more of each."
)
_TRAINING: Final = tuple(field.name for field in msgspec.structs.fields(Training))


@dataclass(eq=False, repr=False)
class NeuralNetwork(Predictor):
    """A network for a 0/1 outcome of numbers, an image, or both: `neural-network` among a study file's questions.

    network: layers (`flute.Conv`, `flute.Dense`, …), or a torch.nn.Module or an ONNX file, of which they are read; a
    last layer of size 1 is added to layers by itself. method to gpu: how it is trained. In private mode `rounds`
    noised gradients are taken, and of the rest only `clip_norm` and `seed` count.
    Learned: losses_ by round, weights, and result_ with all the rest."""

    algorithm: ClassVar[str] = "neural-network"
    outcome: str
    predictors: Sequence[str] = ()
    image: str | None = None
    network: Any = ()
    method: str | None = None
    rounds: int | None = None
    local_epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    proximal: float | None = None
    server_rate: float | None = None
    minutes: int | None = None
    gpu: bool | None = None
    clip_norm: float | None = None
    seed: int | None = None

    # --- the question --------------------------------------------------------------------------------

    def elements(self) -> dict[str, Any]:
        """Raises: MisuseError: a module, or something in the list, that is no layer of a study."""
        said = super().elements()
        training = {name: said.pop(name) for name in _TRAINING if name in said}
        layers = [_layer(one) for one in self._layers]
        return {**said, "network": layers, **({"training": training} if training else {})}

    @property
    def _layers(self) -> Sequence[Any]:
        if is_file(self.network):
            return network(self.network)
        own = self._own
        return own.layers if own is not None else _several(self.network)

    @property
    def _own(self) -> OwnNetwork | None:
        """What was read of a module, None where layers, or a file, were given."""
        given = isinstance(self.network, list | tuple) or _is_layer(self.network) or is_file(self.network)
        return None if given else read_network(self.network)

    def fit(self, study: Any, **options: Any) -> Self:
        """As of every estimator. Raises: MisuseError: as `check` besides, before anything is asked."""
        self.check(study)
        return super().fit(study, **options)

    def check(self, study: Any) -> None:
        """Whether one's own module, or file, is made for what this study feeds it; layers always are.

        Raises: MisuseError: which of its weights are of another shape than those that would be trained.
        StudyFileError: layers that do not fit on each other, or on the study's variables."""
        own = self._own
        if own is None and not is_file(self.network):
            return
        question, setting = _question(study.to_agreement(self, epsilon=1.0))  # no epsilon changes a shape
        if own is None:
            _require_inputs(read_onnx(self.network), *shapes(question, setting))
        else:
            arrays = {p.name: np.empty(p.shape, dtype=np.float32) for p in sized_for(question, setting).parameters}
            for holder, trained in own.pairs(arrays):
                _require_shapes(self.network.get_submodule(holder), holder, trained)

    # --- what was learned ----------------------------------------------------------------------------

    def take(self, results: Mapping[str, Result]) -> None:
        super().take(results)
        if not self.per_hub:
            self.losses_ = np.array([math.nan if v is None else v for v in self.fitted.value["losses"]])

    def predict_proba(self, frame: Any) -> Any:
        """As of every model. A column of images holds arrays of the declared shape, or paths of .npy files; a row
        without the image has no risk. Raises: MisuseError: torch is missing besides."""
        loaded("torch", "deep")
        return super().predict_proba(frame)

    @property
    def weights(self) -> dict[str, Any]:
        """Name of each parameter to its float32 array, as `to_torch` of layers names them."""
        return named_weights(self._file, sized_for(*_of(self.fitted)).parameters)

    @property
    def _file(self) -> bytes:
        """safetensors, as it was released."""
        return base64.b64decode(self.fitted.value["weights"])

    def save(self, path: str | Path) -> Path:
        """The weights as a safetensors file. Returns its path."""
        file = Path(path)
        file.write_bytes(self._file)
        return file

    def to_onnx(self, path: str | Path) -> Path:
        """The trained network as an ONNX file. Returns its path.

        It takes what `inputs` gives, as `numbers` [n, columns] and `image` [n, *shape], and gives `log_odds` [n]; the
        file's remarks say which columns, and on what scale. Needs no torch. Raises: MisuseError: a network of
        MONAI's."""
        what, setting = _of(self.fitted)
        value = self.fitted.value
        said = {name: value[name] for name in ("outcome", "image", "columns", "standardisation")}
        remarks = {name: msgspec.json.encode(one).decode() for name, one in said.items()}
        file = Path(path)
        file.write_bytes(written(what.network, *shapes(what, setting), self.weights, remarks))
        return file

    def to_torch(self) -> Any:
        """A module with the weights, in evaluation mode: a copy of one's own where the network was given as one, else
        the network as hubs build it, whose forward takes (numbers, image). Both take what `inputs` gives.

        Raises: MisuseError: torch is missing, or one's own module is made for inputs of another size."""
        torch = loaded("torch", "deep")
        own = self._own
        if own is None:
            return _built(self.fitted, self._file).eval()
        module = copy.deepcopy(self.network)
        with torch.no_grad():
            for holder, trained in own.pairs(self.weights):
                layer = module.get_submodule(holder)
                _require_shapes(layer, holder, trained)
                for name, array in trained.items():
                    getattr(layer, name).copy_(torch.from_numpy(array))
        return module.eval()

    def inputs(self, frame: Any) -> tuple[Any, Any]:
        """What hubs feed the network of such patients: float32 [n, columns] on the study's reference scale, and
        float32 [n, *shape] within [-1, 1] or None. Raises: MisuseError: a column is absent."""
        what, setting = _of(self.fitted)
        names = [*what.predictors, *([what.image] if what.image else [])]
        given = scored(what, setting, dataset(frame, [setting.variables[name] for name in names]))
        return given.x, given.images(np.arange(len(given)))


def _question(agreement: Agreement, name: str | None = None) -> tuple[Asked, Setting]:
    """A network's question, the first where it is not named, and what its agreement fixes."""
    what = (agreement.question(name) if name else agreement.questions[0]).what
    assert isinstance(what, Asked)
    return what, agreement.setting


def _of(result: Result) -> tuple[Asked, Setting]:
    return _question(result.agreement, result.question)


def _built(result: Result, file: bytes) -> Any:
    from flute.deep.build import build, load

    what, setting = _of(result)
    parameters = sized_for(what, setting).parameters
    module = build(what.network, *shapes(what, setting))
    load(module, read_weights(file, parameters), parameters)
    return module


def _require_shapes(layer: Any, holder: str, trained: Mapping[str, Any]) -> None:
    """Raises: MisuseError: a module made for other inputs."""
    for name, array in trained.items():
        shape = tuple(getattr(layer, name).shape)
        if shape != array.shape:
            raise MisuseError(
                f"{holder}.{name} is of shape {shape}; with this study's inputs it would be {array.shape}. "
                f"{_HOW_MANY}"
            )


def _require_inputs(brought: BroughtNetwork, columns: int, image: Shape) -> None:
    """Raises: MisuseError: a file made for other inputs."""
    if (brought.columns, brought.image) != (columns, image):
        raise MisuseError(
            f"The file's network takes {_inputs_said(brought.columns, brought.image)}; this study feeds it "
            f"{_inputs_said(columns, image)}. {_HOW_MANY}"
        )


def _inputs_said(columns: int, image: Shape) -> str:
    return " and ".join([*([f"an image of {image}"] if image else []), *([f"{columns} columns"] if columns else [])])


def _several(network: Any) -> Sequence[Any]:
    return [network] if _is_layer(network) else network


def _is_layer(one: Any) -> bool:
    return isinstance(one, (*LAYERS.values(), Mapping))


def _layer(one: Any) -> dict[str, Any]:
    """As a study file has it. Raises: MisuseError: no layer."""
    if not _is_layer(one):
        raise MisuseError(
            f"{one!r} is no layer of a study. There are {', '.join(f'flute.{name}' for name in LAYERS)}, for example "
            "flute.Conv(16); a PyTorch module is given as a whole: network=module."
        )
    built: dict[str, Any] = msgspec.to_builtins(one)
    return built


LAYERS: Final[Mapping[str, type[msgspec.Struct]]] = {kind.__name__: kind for kind in get_args(Layer)}
"""By the names that they have in `flute.sdk`."""
