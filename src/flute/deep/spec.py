"""What a study says of a network that is to be trained."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from flute.algorithms.contract import Spec
from flute.deep.layers import Layers
from flute.messages.limits import Name

Method = Literal["fedavg", "fedprox", "scaffold", "fedadam"]


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """How a network is trained. Exact mode: in each of `rounds` rounds every hub trains from the common weights for
    `local_epochs` passes over its patients by stochastic gradient descent, and the mean change moves them.

    method: fedavg, the mean (McMahan et al. 2017); fedprox, the same with a pull of strength `proximal` towards the
    common weights (Li et al. 2020); scaffold, each hub's steps corrected by how its gradient differs from all hubs'
    (Karimireddy et al. 2020), without momentum, and with the same pull, since a correction that is a round old leads
    astray where hubs are unlike and rounds long; fedadam, the server steps by Adam along the mean change (Reddi et
    al. 2021).
    server_rate: what the mean change is multiplied by (1 where left out), or the step of the server's Adam.
    minutes: how long a hub may take for a round; one that takes longer is repeated, then the study stops. gpu: true
    where only hubs with a GPU can take part; a hub that has one uses it in any case.
    Private mode: a round is one gradient over all patients, under noise, and only `rounds`, `minutes` and `gpu`
    count; 40 rounds fit.
    """

    method: Method = "fedavg"
    rounds: Annotated[int, Meta(ge=1, le=200)] = 10
    local_epochs: Annotated[int, Meta(ge=1, le=100)] = 1
    batch: Annotated[int, Meta(ge=1, le=4096)] = 32
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.05
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 0.0
    proximal: Annotated[float, Meta(ge=0, le=100)] = 0.01
    server_rate: Annotated[float, Meta(gt=0, le=10)] | UnsetType = UNSET
    minutes: Annotated[int, Meta(ge=1, le=1440)] = 10
    gpu: bool | UnsetType = UNSET


class NeuralNetwork(Spec, frozen=True, tag="neural-network"):
    """A network for a 0/1 outcome, of numbers, an image, or both.

    predictors: as in a regression. image: name of an image variable, or empty. network: its layers; a last one of
    size 1 is added. clip_norm: in private mode, what a patient's gradient is bounded by, in units of a typical
    patient's; 1 fits. seed: public; initial weights and the order of patients follow from it.
    """

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    image: Annotated[str, Meta(max_length=64)] = ""
    network: Layers = ()
    training: Training = Training()
    clip_norm: Annotated[float, Meta(gt=0, le=100)] = 1.0
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0
