"""Private training of networks: few steps over all patients, every patient's gradient bounded, sums noised.

Step 0 opens where the inputs lie (`private.inputs`). Every later step is asked at weights w and opens the sum of
    (p - y) [(grad F(x) - grad F(m)) / l, BIAS_UNIT] / TYPICAL_CLIP,
F the log odds without the last bias, m the mean input, l the typical length of the first part, gradients in
coordinates in which inputs have mean 0 and spread 1 (`private.coordinates`). Rows are clipped to `clip_norm` outside.
Taking grad F(m) off is an exact change of variables: log odds are F(x) - F(m) + c, with c for the last bias; without
it what all patients have in common would use up most of a row's length.
Every patient is in every step, so nothing is claimed for sampling, and steps split the budget evenly. Independent
noise on T steps of 1/T of the budget adds up to the noise of one step with all of it, whatever T.
The rate follows from the noise: all of it together moves a typical patient's log odds by LOG_ODDS_NOISE, and a step
is no longer than LARGEST_RATE. So small budgets end early, near a linear rule, and large ones train the network.
Sources: Abadi et al. 2016 (gradients clipped per patient); De et al. 2022 (large batches); Tramer and Boneh 2021
(normalised inputs); Jacot et al. 2018 (a network near its start is linear in its weights).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any, Final

import numpy as np

from flute.algorithms.contract import Ask, Opened, Setting, StepShape
from flute.algorithms.expected import Expected
from flute.algorithms.linear import read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.inputs import inputs, shapes, sized_for
from flute.deep.layers import Dropout, Layers, Residual
from flute.deep.private.coordinates import entries
from flute.deep.private.inputs import (
    InputShape,
    Picture,
    counted,
    input_rows,
    opened_picture,
    parts_of,
    picture_of,
)
from flute.deep.private.reference import Reference
from flute.deep.sizes import Sized
from flute.deep.spec import NeuralNetwork
from flute.deep.start import start_weights
from flute.defaults.models.private_networks import (
    BIAS_UNIT,
    COUNT_PART,
    INPUT_PART,
    LARGEST_RATE,
    LOG_ODDS_NOISE,
    MOST_AT_ONCE,
)
from flute.errors import StudyFileError

_SAID: Final = "Every agreed step was taken; the length of steps followed from the noise alone."


@dataclass(frozen=True)
class _Plan:
    """What an agreement says of a private network. Asked of step 0 is nothing; of every other [weights, picture,
    typical length]."""

    spec: NeuralNetwork
    sized: Sized
    shape: InputShape

    @cached_property
    def reference(self) -> Reference:
        return Reference(self.spec.network, self.sized, self.shape)

    def asked(self, step: int) -> int:
        return self.sized.total + self.shape.described + 1 if step else 0


def _plan(spec: NeuralNetwork, setting: Setting) -> _Plan:
    return _Plan(spec, sized_for(spec, setting), InputShape(*shapes(spec, setting)))


def private_check(spec: NeuralNetwork, setting: Setting) -> None:
    """Raises: StudyFileError: layers that have no bound on what one patient does, or no meaning here."""
    if any(not parameter.trained for parameter in _plan(spec, setting).sized.parameters):
        raise StudyFileError(
            "network: batch normalisation mixes patients, so that no patient's part can be bounded; give the network "
            "another norm, such as norm: [group, {num_groups: 4}]."
        )
    if _drops(spec.network):
        raise StudyFileError("network: 'dropout' does nothing in private mode; noise does its work. Leave it out.")


def _drops(layers: Layers) -> bool:
    return any(isinstance(one, Dropout) or (isinstance(one, Residual) and _drops(one.inner)) for one in layers)


def private_outline(spec: NeuralNetwork, setting: Setting) -> tuple[StepShape, ...]:
    """Means and spreads of inputs, then one vector as long as the network for every round."""
    plan, rounds = _plan(spec, setting), spec.training.rounds
    first = StepShape("inputs", plan.shape.row, plan.shape.clip_norm, INPUT_PART, plan.shape.clip_norm)
    part = (1 - INPUT_PART) / rounds
    return (
        first,
        *(StepShape(f"step-{k}", plan.sized.total, spec.clip_norm, part, spec.clip_norm) for k in range(rounds)),
    )


def private_blocks(
    spec: NeuralNetwork, setting: Setting, step: int, parameters: Array, data: Dataset
) -> Iterator[Array]:
    """Rows of a step, float64 [k, outline[step].size] at a time.

    Raises: MisuseError: parameters of another length, or not finite."""
    plan = _plan(spec, setting)
    asked = read_parameters(parameters, plan.asked(step), step, 1 + spec.training.rounds)
    given = inputs(spec, setting, data)
    if step == 0:
        return (input_rows(plan.shape, given, rows) for rows in parts_of(len(data), MOST_AT_ONCE))
    from flute.deep.private.gradients import gradient_blocks

    weights, picture, length = np.split(asked, [plan.sized.total, -1])
    return gradient_blocks(plan.reference, weights, picture_of(plan.shape, picture), float(length[0]), given)


def private_next(
    spec: NeuralNetwork, setting: Setting, history: Sequence[Opened]
) -> Ask | tuple[Array, dict[str, Any]]:
    """What to ask next, or the weights and what else the result says. No record, and no torch, is in it."""
    plan = _plan(spec, setting)
    if not history:
        return Ask(np.zeros(0))
    start = _start(plan, history[0])
    weights, bias = start.weights.copy(), 0.0
    for opened in history[1:]:
        step = _rate(plan, start, opened) * opened.total / (start.patients * spec.clip_norm)
        bias -= BIAS_UNIT * float(step[-1])
        step[-1] = 0.0
        weights -= start.moved(plan, step)
    weights[-1] = bias - float(plan.reference.log_odds(weights, *plan.reference.middle(start.picture))[0])
    if len(history) <= spec.training.rounds:
        return Ask(np.concatenate([weights, start.picture.numbers(), [start.length]]))
    n = counted(history[0])
    said = {"losses": [], "ending": "agreed-rounds", "ending_text": _SAID}
    return weights, {"n": n.patients, "n_noise_se": n.noise_se, **said}


def private_expected(sigmas: Sequence[float]) -> tuple[Expected, ...]:
    """What a preview says: the error of the number of patients. What noise does to a network cannot be foretold from
    public facts; weights have no meaning one by one, and how well it tells who is ill depends on the patients."""
    noise = sigmas[0] / COUNT_PART
    return (Expected("n", 0.0, noise, 1.96 * noise, "patients"),) if noise > 0 else ()


@dataclass(frozen=True, slots=True)
class _Start:
    """What follows from step 0. weights: initial ones, the last bias 0. length: typical, of a gradient."""

    weights: Array
    picture: Picture
    length: float
    patients: float

    def moved(self, plan: _Plan, step: Array) -> Array:
        """A change of coordinates, in units of the typical length, as a change of weights."""
        found = step / self.length
        for entry in entries(plan.spec.network, plan.sized.parameters, self.picture):
            entry.step(found)
        return found


def _start(plan: _Plan, opened: Opened) -> _Start:
    picture = opened_picture(plan.shape, opened)
    weights = start_weights(plan.sized.parameters, plan.spec.seed)
    for entry in entries(plan.spec.network, plan.sized.parameters, picture):
        entry.start(weights)
    weights[-1] = 0.0
    return _Start(weights, picture, plan.reference.typical_length(weights, picture), counted(opened).patients)


def _rate(plan: _Plan, start: _Start, opened: Opened) -> float:
    """T steps of this rate bring noise of LOG_ODDS_NOISE, or it is LARGEST_RATE."""
    rounds, noise = plan.spec.training.rounds, opened.sigma / (plan.spec.clip_norm * start.patients)
    return min(LOG_ODDS_NOISE / (sqrt(rounds) * noise), LARGEST_RATE) if noise > 0 else LARGEST_RATE
