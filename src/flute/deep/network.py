"""Neural networks. Exact: hubs train, and the mean change of their weights moves the common ones (`training`,
`server`). Private: every round is one gradient over all patients, each patient's bounded, under noise (`private`)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, StepShape
from flute.algorithms.design import check_design, check_image, known, matrix, raw_scaling, terms
from flute.algorithms.expected import Expected
from flute.algorithms.linear import read_parameters
from flute.algorithms.made_up import Assumed
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.inputs import chosen, inputs, network_design, network_scaling, shapes, sized_for
from flute.deep.layers import Monai
from flute.deep.private.steps import private_blocks, private_check, private_expected, private_next, private_outline
from flute.deep.server import asked_size, next_asked, opened_round, vector_size
from flute.deep.sizes import Sized
from flute.deep.spec import NeuralNetwork
from flute.deep.start import start_weights
from flute.deep.weights import write_weights
from flute.defaults.models.deep import MAX_BATCH_NUMBERS, MAX_WEIGHTS
from flute.errors import MisuseError, NotPossible, StudyFileError
from flute.messages.numbers import nearest_narrow

_SAID: Final = {
    "agreed-rounds": "The agreed rounds were run.",
    "diverged": (
        "The loss rose: the steps were too large, or the hubs' patients differ too much for so many local epochs. "
        "Take a smaller learning_rate, fewer local_epochs, or method 'fedprox'."
    ),
    "no-data": "No patient had the values that this network needs; its weights are those it started with.",
}


class NeuralNetworkAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "neural-network"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "The weights of a network that tells how likely the outcome is. In exact mode also how many patients "
            "there are and their mean loss in every round; in private mode how many there are, of every predictor "
            "mean and deviation, and of an image the same for each channel and a coarse mean image, under noise."
        ),
        bounded_by=(
            "Private: first a patient adds her inputs, their squares and a coarse image, then in every round one "
            "gradient, each scaled down to an agreed norm. Exact: a hub "
            "gives what training on its patients came to; no number of it is larger than its patients times an "
            "agreed bound, but no norm bounds what one patient does to it."
        ),
        leaked_otherwise=(
            "Private: nothing; the number of rounds is fixed beforehand and every opened vector is charged. Exact: "
            "the mean change of every weight in every round is opened to the coordinator. These are more numbers "
            "than there are patients, so that only the owners' cap on numbers limits them; networks may keep what "
            "single patients had, and weights have been used to tell who was among those trained on."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: NeuralNetwork, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        _check_variables(spec, setting)
        sized = sized_for(spec, setting)
        if setting.mode == "private":
            private_check(spec, setting)
            return
        if sized.numbers * spec.training.batch > MAX_BATCH_NUMBERS:
            most = MAX_BATCH_NUMBERS // sized.numbers
            raise StudyFileError(f"batch: this network takes at most {most:,} patients at a time; write less.")
        if spec.training.method == "scaffold" and 3 * sized.total > MAX_WEIGHTS:
            raise StudyFileError(
                f"method: 'scaffold' carries three numbers for each of {sized.total:,} weights, and {MAX_WEIGHTS:,} "
                "is the most; take a smaller network or another method."
            )

    def require_parts(self, spec: NeuralNetwork) -> None:
        """Raises: NotPossible: torch or MONAI is not installed here, or there is no GPU where the study needs one."""
        names = ["torch", *(["monai"] if any(isinstance(layer, Monai) for layer in spec.network) else [])]
        for name in names:
            if find_spec(name) is None:
                raise NotPossible(
                    f"A network is trained with {name}, which is not installed here; install it: "
                    "pip install 'flute[deep]'."
                )
        if spec.training.gpu is True:
            _require_gpu()

    def expected_errors(
        self, spec: NeuralNetwork, setting: Setting, sigmas: Sequence[float], assumed: Assumed
    ) -> Sequence[Expected]:
        """See `algorithms.expected`: nothing is trained for a preview."""
        return private_expected(sigmas) if setting.mode == "private" else ()

    def seconds(self, spec: NeuralNetwork, setting: Setting) -> float:
        """See the contract: what the study states."""
        return 60.0 * spec.training.minutes

    def fields(self, spec: NeuralNetwork, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors, *([spec.image] if spec.image else []))

    def outline(self, spec: NeuralNetwork, setting: Setting) -> tuple[StepShape, ...]:
        if setting.mode == "private":
            return private_outline(spec, setting)
        size, rounds = vector_size(spec.training, sized_for(spec, setting).total), spec.training.rounds
        norm = float(np.sqrt(size))
        return tuple(StepShape(f"round-{k}", size, norm, 1 / rounds, 1.0) for k in range(rounds))

    def blocks(
        self, spec: NeuralNetwork, setting: Setting, step: int, parameters: Array, data: Dataset
    ) -> Iterator[Array]:
        """Private mode: see the contract. Raises: MisuseError: parameters that this step does not take."""
        return private_blocks(spec, setting, step, parameters, data)

    def total(self, spec: NeuralNetwork, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """Exact mode: see the contract, and `server` for what the vector holds. Raises: MisuseError: parameters that
        this step does not take."""
        sized = sized_for(spec, setting)
        asked = read_parameters(
            parameters, asked_size(spec.training, sized.total, step), step, len(self.outline(spec, setting))
        )
        from flute.deep.training import Hub

        hub = Hub(spec, sized, shapes(spec, setting), inputs(spec, setting, data))
        return hub.total(step, asked, np.argsort(data.pseudonyms, kind="stable"))

    def counted(self, spec: NeuralNetwork, setting: Setting, data: Dataset) -> Array:
        """[n, 1]: who is trained on, which is the one count that a round's total holds."""
        return np.asarray(chosen(spec, setting, data)[:, None].astype(np.float64))

    def update(self, spec: NeuralNetwork, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. Exact mode: the hub's total in equal parts, one for each of its patients."""
        if setting.mode == "private":
            return np.concatenate([*self.blocks(spec, setting, step, parameters, data)])
        total = self.total(spec, setting, step, parameters, data)
        return np.tile(total / max(len(data), 1), (len(data), 1))

    def cells(self, spec: NeuralNetwork, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome, and in and out of every 0/1 column."""
        there = chosen(spec, setting, data)
        design = network_design(spec, setting)
        x = matrix(design, raw_scaling(design), data)[there]
        flags = [x[:, i] for i, c in enumerate(design.columns) if c.kind in ("binary", "level", "missing")]
        flags.append(data.column(spec.outcome)[there])
        ones = np.array([int(np.sum(flag)) for flag in flags], dtype=np.int64)
        return np.concatenate([ones, int(there.sum()) - ones])

    def next(
        self,
        spec: NeuralNetwork,
        setting: Setting,
        history: Sequence[Opened],
        inputs: Mapping[str, dict[str, Any]],
    ) -> Ask | Finished:
        if setting.mode == "private":
            reached = private_next(spec, setting, history)
            return reached if isinstance(reached, Ask) else Finished(_result(spec, setting, *reached))
        sized = sized_for(spec, setting)
        if not history:
            return Ask(start_weights(sized.parameters, spec.seed))
        asked = next_asked(spec.training, sized.parameters, history)
        if len(history) < spec.training.rounds:
            return Ask(
                nearest_narrow(asked)
            )  # hubs compute in 32 bits, and such numbers travel as half as many bytes
        return Finished(_result(spec, setting, asked[: sized.total], _course(sized, history)))


def _require_gpu() -> None:
    from flute.deep.device import device

    if device().type != "cuda":
        raise NotPossible(
            "This network is to be trained on a GPU ('gpu: true'), and this hub has none that PyTorch can use. Ask "
            "the researcher to leave it out, with more 'minutes', or install PyTorch's build with CUDA beside a GPU."
        )


def _check_variables(spec: NeuralNetwork, setting: Setting) -> None:
    """Raises: StudyFileError: variables that no network can be made of."""
    if known(spec.outcome, setting).variable.kind != "binary":
        raise StudyFileError(f"outcome: {spec.outcome!r} must be a binary variable; declare 'kind: binary'.")
    if spec.image:
        check_image(known(spec.image, setting))
    if spec.outcome in spec.predictors:
        raise StudyFileError(f"predictors: {spec.outcome!r} is the outcome itself; leave it out.")
    for name in spec.predictors:
        if known(name, setting).variable.kind == "image":
            raise StudyFileError(f"predictors: {name!r} is an image; write it under 'image'.")
    check_design(spec.predictors, setting)


def _course(sized: Sized, history: Sequence[Opened]) -> dict[str, Any]:
    """What the rounds say of the training."""
    rounds = [opened_round(opened, sized.total) for opened in history]
    losses, ending = [one.loss for one in rounds], "agreed-rounds"
    if not rounds[-1].n:
        ending = "no-data"
    elif losses[-1] > losses[0]:
        ending = "diverged"
    return {
        "n": int(rounds[-1].n),
        "losses": losses,
        "ending": ending,
        "ending_text": _SAID[ending],
    }


def _result(spec: NeuralNetwork, setting: Setting, weights: Array, course: Mapping[str, Any]) -> dict[str, Any]:
    """The result in either mode: the network, what it takes, its weights, and what there is to say of the course."""
    sized = sized_for(spec, setting)
    if weights.shape != (sized.total,):
        raise MisuseError(f"This network has {sized.total} weights.")
    columns, image = shapes(spec, setting)
    design = network_design(spec, setting)
    scaling = network_scaling(design)
    scales = zip(design.numbers, scaling.centres.tolist(), scaling.spreads.tolist(), strict=True)
    return {
        "outcome": spec.outcome,
        "predictors": list(spec.predictors),
        "image": spec.image,
        "columns": list(design.names[1:]),
        "terms": terms(design)[1:],
        "standardisation": {used.variable.name: {"centre": c, "spread": s} for used, c, s in scales},
        "inputs": {"columns": columns, "image": list(image)},
        "layers": msgspec.json.decode(msgspec.json.encode(spec.network)),
        "training": msgspec.to_builtins(spec.training),
        "rounds": spec.training.rounds,
        "seed": spec.seed,
        "size": sized.total,
        "weights": b64encode(write_weights(sized.parameters, weights)).decode(),
        **course,
    }
