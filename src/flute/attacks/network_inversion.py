"""One patient's image and numbers out of what training on her sends: the input is sought whose gradient points the
same way. Import this module where torch is needed, not above.

What is compared is what the hub's own code sends, written so that it can be differentiated: in exact mode the change
of the weights over all local steps, in private mode the row of a step. Her outcome shows in the sign of the last
bias.
Sources: Geiping, Bauermeister, Dröge, Moeller 2020, "Inverting gradients", equation 4 (cosine, total variation) and
section 6 (several local steps); Zhu, Liu, Han 2019 (L-BFGS).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch.nn.functional import binary_cross_entropy_with_logits

from flute.algorithms.contract import Setting
from flute.attacks.chance import Chance
from flute.attacks.figures import dp_success, mean
from flute.attacks.inversion import values_of
from flute.attacks.networks import network_of, plain
from flute.attacks.records import by_guess, recovered
from flute.attacks.releases import Carried, Seen, Subject, protected, unprotected
from flute.attacks.trial import Found, Trial
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.build import build, unflatten
from flute.deep.inputs import network_design, network_scaling, shapes, sized_for
from flute.deep.layers import Dense, Join
from flute.deep.private.coordinates import Entry, entries
from flute.deep.private.inputs import InputShape, Picture, picture_of
from flute.deep.private.reference import Reference
from flute.deep.server import HEAD
from flute.deep.sizes import LAST
from flute.deep.spec import NeuralNetwork
from flute.defaults.attacks import FIELD_TOLERANCE
from flute.defaults.models.private_networks import BIAS_UNIT, INPUT_UNIT, TYPICAL_CLIP
from flute.defaults.network_attacks import (
    FOUND,
    INVERSION_STARTS,
    INVERSION_STEPS,
    NUMBERS_REACH,
    PRIVATE_STEPS,
    RECORDS,
    SMOOTH,
    UNROLLED,
)


@dataclass(frozen=True, slots=True)
class Input:
    """What was found: numbers [columns] on the study's public scale, image [*shape] in [-1, 1] (empty: none),
    outcome, and how far the direction was from what was seen, 0 to 2."""

    x: Array
    image: Array
    outcome: float
    apart: float


class Network:
    """A network of the study whose updates are modelled, in 64 bits."""

    def __init__(self, spec: NeuralNetwork, setting: Setting) -> None:
        self.spec, self.mode = spec, setting.mode
        self.columns, self.image = shapes(spec, setting)
        self.sized = sized_for(spec, setting)
        self._module = build(spec.network, self.columns, self.image).double().eval()

    def log_odds(self, weights: Any, x: Any, image: Any) -> Any:
        """Of one patient."""
        given = (x[None],) if image is None else (x[None], image[None])
        return torch.func.functional_call(self._module, unflatten(weights, self.sized.parameters), given)[0]

    def by_weights(self, of: Any, weights: Any) -> Any:
        """The gradient [total] of a number, itself a function of the input."""
        (found,) = torch.autograd.grad(of, weights, create_graph=True)
        return found


class Trained:
    """Exact mode: how one patient, alone at her hub, moves the weights that a round was asked with."""

    def __init__(self, network: Network, asked: Array) -> None:
        self._network = network
        self._weights = _tensor(asked[: network.sized.total]).requires_grad_()

    def __call__(self, x: Any, image: Any, outcome: float) -> Any:
        """[total]. SCAFFOLD opens the gradient as well, so of it one step is enough."""
        training, start = self._network.spec.training, self._weights
        now, speed = start, torch.zeros_like(start)
        steps = 1 if training.method == "scaffold" else min(training.local_epochs, UNROLLED)
        for _ in range(steps):
            towards = self._gradient(now, x, image, outcome) + training.weight_decay * now
            if training.method == "fedprox":
                towards = towards + training.proximal * (now - start)
            speed = training.momentum * speed + towards
            now = now - training.learning_rate * speed
        return now - start

    def _gradient(self, weights: Any, x: Any, image: Any, outcome: float) -> Any:
        logit = self._network.log_odds(weights, x, image)
        loss = binary_cross_entropy_with_logits(logit, torch.full_like(logit, outcome))
        return self._network.by_weights(loss, weights)


class Row:
    """Private mode: one patient's row of a later step, before it is clipped, as `deep.private.steps` says."""

    def __init__(self, network: Network, asked: Array) -> None:
        shape = InputShape(network.columns, network.image)
        weights, numbers, length = np.split(asked, [network.sized.total, -1])
        where = picture_of(shape, numbers)
        self._network, self._length = network, max(float(length[0]), 1e-6)
        self._entries = entries(network.spec.network, network.sized.parameters, where)
        self._weights = _tensor(weights).requires_grad_()
        x, image = Reference(network.spec.network, network.sized, shape).middle(where)
        middle = (_tensor(x[0]), None if image is None else _tensor(image[0]))
        self._middle = self._moved(self._by_weights(*middle)[1]).detach()

    def __call__(self, x: Any, image: Any, outcome: float) -> Any:
        """[total]."""
        logit, found = self._by_weights(x, image)
        apart = (self._moved(found) - self._middle)[:-1] / self._length
        unit = torch.full((1,), BIAS_UNIT, dtype=apart.dtype)
        return torch.cat([apart, unit]) * (torch.sigmoid(logit) - outcome) / TYPICAL_CLIP

    def _by_weights(self, x: Any, image: Any) -> tuple[Any, Any]:
        logit = self._network.log_odds(self._weights, x, image)
        return logit, self._network.by_weights(logit, self._weights)

    def _moved(self, found: Any) -> Any:
        """As `Entry.gradient`, of one gradient that stays differentiable."""
        for entry in self._entries:
            found = _in_coordinates(entry, found)
        return found


def _in_coordinates(entry: Entry, found: Any) -> Any:
    means, spreads = _tensor(entry.means), _tensor(entry.spreads)
    moved = (found[entry.weight].reshape(-1, len(means)) - found[entry.bias][:, None] * means) / spreads
    parts = [found[: entry.weight.start], moved.ravel(), found[entry.weight.stop :]]
    return torch.cat(parts)


# --- the search ---------------------------------------------------------------------------------


def model_of(network: Network, asked: Array) -> Trained | Row:
    """What one patient adds to a step that was asked so."""
    return Trained(network, asked) if network.mode == "exact" else Row(network, asked)


def direction_of(network: Network, seen: Seen) -> Array:
    """[total] of a step's sum what the model gives, in whatever unit, turned so that `Trained` moves along it."""
    if network.mode == "private":
        return seen.total
    change = seen.total[HEAD : HEAD + network.sized.total]
    return -seen.total[HEAD + network.sized.total :] if network.spec.training.method == "scaffold" else change


def outcome_of(network: Network, direction: Array) -> float:
    """Her residual stands in the last bias: a gradient's is p - y, a change's has the other sign."""
    return float(direction[-1] > 0) if network.mode == "exact" else float(direction[-1] < 0)


def sought(network: Network, seen: Sequence[Seen], chance: Chance, first: Array) -> Input:
    """The input of one patient, the likeliest of some starts. seen: steps that `model_of` models. first:
    a start, numbers and then pixels."""
    models = [model_of(network, step.parameters) for step in seen]
    towards = [_tensor(_unit(direction_of(network, step))) for step in seen]
    outcome = outcome_of(network, np.sum([direction_of(network, step) for step in seen], axis=0))
    size = len(first)
    starts = [first, *(0.3 * chance.child(f"start {k}").normal(size) for k in range(INVERSION_STARTS))]

    def apart(unknown: Array) -> tuple[float, Array]:
        given = _tensor(unknown).requires_grad_()
        x, image = _parts(given, network)
        found = SMOOTH * _variation(image)
        for model, aim in zip(models, towards, strict=True):
            row = model(x, image, outcome)
            found = found + 1 - row @ aim / row.norm().clamp(min=1e-12)
        (slope,) = torch.autograd.grad(found, given)
        return float(found.detach()), np.nan_to_num(slope.numpy())

    reach = [(-NUMBERS_REACH, NUMBERS_REACH)] * network.columns + [(-1.0, 1.0)] * (size - network.columns)
    low, high = np.array(reach).T
    options = {"maxiter": INVERSION_STEPS, "ftol": 0.0, "gtol": 1e-9, "maxcor": 30}
    best, least = np.clip(first, low, high), math.inf
    for start in starts:
        begin = np.clip(start, low, high)
        tried = minimize(apart, begin, jac=True, method="L-BFGS-B", bounds=reach, options=options)
        if tried.fun < least:
            best, least = np.asarray(tried.x), float(tried.fun)
        if least < FOUND:
            break
    x, image = np.split(best, [network.columns])
    return Input(x, image.reshape(network.image or (0,)), outcome, least)


def _parts(given: Any, network: Network) -> tuple[Any, Any]:
    x, image = given[: network.columns], given[network.columns :]
    return x, image.reshape(network.image) if network.image else None


def _variation(image: Any) -> Any:
    """Mean difference of neighbours along every side."""
    if image is None:
        return 0.0
    return sum(image.diff(dim=axis).abs().mean() for axis in range(1, image.dim()) if image.shape[axis] > 1)


def _tensor(numbers: Array) -> Any:
    """A copy: arrays here may be read-only."""
    return torch.tensor(numbers, dtype=torch.float64)


def _unit(direction: Array) -> Array:
    return np.asarray(direction / max(float(np.linalg.norm(direction)), 1e-300))


# --- what needs no search -----------------------------------------------------------------------


def read(network: Network, seen: Sequence[Seen]) -> tuple[Array, Array]:
    """(numbers, image laid out in a row) as far as they can be read off directly, 0 where not: a place to begin.

    Private: the first step opens them, an image in cells. Exact: a patient alone moves a dense layer's weights along
    her input, however many local steps (Phong et al. 2018, section 3)."""
    shape = InputShape(network.columns, network.image)
    x, image = np.zeros(network.columns), np.zeros(math.prod(network.image) if network.image else 0)
    if network.mode == "private":
        opened = seen[0].total
        means = opened[1 : 1 + network.columns] * math.sqrt(max(network.columns, 1)) * INPUT_UNIT
        if network.image:
            cells = opened[-shape.coarse :] * math.sqrt(shape.coarse)
            none = np.zeros(network.columns), np.zeros(network.columns), np.zeros(shape.channels)
            where = Picture(shape, none[0], none[1], none[2], none[2], cells.reshape(shape.channels, *shape.cells))
            image = where.image(where.coarse).ravel()
        return means, image
    for name, first, kept in _dense_inputs(network):
        found = _input_of_dense(network, direction_of(network, seen[0]), name)
        (image if kept == "image" else x)[:] = found[first:]
    return x, image


def _dense_inputs(network: Network) -> list[tuple[str, int, str]]:
    """Dense layers that are given the image or the numbers as they are: (name, first of these inputs, which)."""
    layers = network.spec.network

    def named(at: int) -> str:
        return str(at) if at < len(layers) else LAST

    def dense(at: int) -> bool:
        return at >= len(layers) or isinstance(layers[at], Dense)

    found = []
    if dense(0):
        found.append((named(0), 0, "image" if network.image else "numbers"))
    joined = next((k + 1 for k, layer in enumerate(layers) if isinstance(layer, Join)), 0)
    if joined and dense(joined) and network.columns:
        found.append((named(joined), -network.columns, "numbers"))
    return found


def _input_of_dense(network: Network, direction: Array, name: str) -> Array:
    """The change of the row whose bias moved most, over that of the bias."""
    ends = np.cumsum([p.size for p in network.sized.parameters])
    parts = dict(zip([p.name for p in network.sized.parameters], np.split(direction, ends[:-1]), strict=True))
    bias = parts[f"{name}.bias"]
    row = int(np.argmax(np.abs(bias)))
    moved = parts[f"{name}.weight"].reshape(len(bias), -1)[row]
    return np.asarray(moved / bias[row]) if bias[row] else np.zeros(len(moved))


# --- the trial ------------------------------------------------------------------------------------


def inverted(subject: Subject, seen: Sequence[Seen], chance: Chance) -> Input:
    """The one patient of a question's sums. seen: its first step, of a private one the next as well.

    Raises: MisuseError: the question trains no network."""
    network = Network(network_of(subject), subject.setting)
    first = np.concatenate(read(network, seen))
    return sought(network, seen if network.mode == "exact" else seen[1:], chance, first)


def seen_alone(trial: Trial, patient: Dataset, chance: Chance) -> tuple[tuple[Subject, Carried], ...]:
    """What is seen of a patient who is alone in it, by federated averaging in clear and under the plan."""
    subject = trial.subject
    there = dict.fromkeys(subject.hubs, patient.where(np.zeros(1, dtype=np.bool_))) | {subject.hubs[0]: patient}
    clear, steps = plain(subject), 1 if subject.agreement.mode == "exact" else PRIVATE_STEPS
    return (
        (clear, unprotected(clear, there, steps=1)),
        (subject, protected(subject, there, chance, steps=steps)),
    )


def reconstruction(trial: Trial) -> Found:
    """The record of a patient who is alone in the sums; of her image the share of pixels counts."""
    subject = trial.subject
    hits: tuple[list[float], list[float]] = [], []
    for world in range(max(4, round(RECORDS * trial.effort))):
        chance = trial.chance.child(f"record {world}")
        patient = trial.patients(1, chance)
        for kept, (who, carried) in zip(hits, seen_alone(trial, patient, chance), strict=True):
            kept.append(_fields_read(who, inverted(who, carried.steps, chance), patient))
    clear, covered = (mean(np.array(kept), trial.chance.child("judged")) for kept in hits)
    guesses = [by_guess(subject.setting.variables[name]) for name in subject.fields]
    promised = [dp_success(guess, subject.epsilon, subject.agreement.delta) for guess in guesses]
    exact = subject.agreement.mode == "exact"
    return Found(clear, covered, None if exact else float(np.mean(promised)), {})


def _fields_read(subject: Subject, found: Input, patient: Dataset) -> float:
    spec, setting = network_of(subject), subject.setting
    design = network_design(spec, setting)
    x = np.concatenate([[1.0], found.x])
    values = values_of(spec, design, network_scaling(design), x, found.outcome - 0.5)
    hits = [float(hit) for hit in recovered(values, patient, setting).values()]
    if spec.image:
        hits.append(pixels_read(found.image, patient.images(spec.image)[0], setting.variables[spec.image].variable))
    return float(np.mean(hits))


def pixels_read(found: Array, truth: NDArray[np.float32], variable: Variable) -> float:
    """Share of pixels no farther from the truth than FIELD_TOLERANCE of the range. found: in [-1, 1]."""
    return float((np.abs(found - on_range(truth, variable)) <= 2 * FIELD_TOLERANCE).mean())


def on_range(image: NDArray[np.float32], variable: Variable) -> Array:
    """Pixels of an image variable in [-1, 1]."""
    return np.asarray(2 * (image.astype(np.float64) - variable.low) / (variable.high - variable.low) - 1)
