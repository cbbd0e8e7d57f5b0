"""One algorithm in one study: its sums opened step by step, as a plan would open them, until it has a result."""

from __future__ import annotations

import copy
import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from flute.algorithms.contract import Algorithm, Ask, Finished, HubTotals, Mode, Opened, Setting, StepShape
from flute.attacks.chance import Chance
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import FIXED_POINT_BITS
from flute.errors import SandboxRefusal
from flute.messages.numbers import read_only
from flute.questions.registry import Registration
from flute.sandbox.formats import weights
from flute.testing.example import Example, NotConforming, patients, taken

RHO: Final = 0.5
"""rho of the whole question where noise is added: moderate, so that private results mean something."""
ROWS: Final = 400
"""Patients at a time in searches over many."""


@dataclass(frozen=True)
class Course:
    """asked: parameters of every step taken. history: what was opened. result: None where it did not get there."""

    asked: tuple[Array, ...]
    history: tuple[Opened, ...]
    result: dict[str, Any]


@dataclass
class Trial:
    """What every check looks at. `pristine`: the algorithm as it came, never called. `stopped`: why the first course
    did not end. `steps`: (step, parameters) of its first, second and last step."""

    registration: Registration
    example: Example
    mode: Mode
    seed: bytes
    pristine: Any = None
    data: Dataset = field(init=False)
    course: Course | None = None
    stopped: Exception | None = None
    steps: list[tuple[int, Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pristine = copy.deepcopy(self.algorithm)
        self.data = patients(self.example, self.example.patients, self.chance("patients"))

    @property
    def algorithm(self) -> Algorithm:
        return self.registration.algorithm

    @property
    def name(self) -> str:
        return f"{getattr(self.algorithm, 'name', '?')} ({self.mode})"

    @property
    def setting(self) -> Setting:
        return self.example.setting(self.mode)

    @property
    def at_once(self) -> bool:
        """Its rows are equal parts of a hub's total, which depends on who is at that hub together."""
        return self.mode == "exact" and isinstance(self.algorithm, HubTotals)

    def chance(self, what: str) -> Chance:
        return Chance(self.seed + self.mode.encode()).child(what)

    def fail(self, check: str, text: str) -> NotConforming:
        return NotConforming(check, self.name, text)

    def outline(self, setting: Setting | None = None) -> tuple[StepShape, ...]:
        return self.algorithm.outline(self.example.spec, setting or self.setting)

    def rows(self, step: int, parameters: Sequence[float] | Array, data: Dataset) -> Array:
        return self.algorithm.update(self.example.spec, self.setting, step, read_only(parameters), data)

    def begin(self) -> None:
        """The first course, over all patients; where it stops, `stopped` says why."""
        reached: list[Array] = []
        try:
            self.course = carried(self, [self.data], reached=reached)
        except Exception as error:  # noqa: BLE001 - whatever it is, a later check tells it
            self.stopped = error
        picked = sorted({0, 1, len(reached) - 1} & set(range(len(reached))))
        self.steps = [(k, reached[k]) for k in picked]


def carried(
    trial: Trial,
    hubs: Sequence[Dataset],
    *,
    setting: Setting | None = None,
    loud: float = 1.0,
    reached: list[Array] | None = None,
) -> Course:
    """A course over these hubs. loud: the noise, in its usual deviation. reached: filled with what is asked.

    Raises: NotConforming: more steps than the outline has, or something else than an `Ask` or a `Finished`."""
    agreed = setting or trial.setting
    outline, history = trial.outline(agreed), list[Opened]()
    chance = trial.chance("noise")
    spec = trial.example.spec
    while True:
        answer = trial.algorithm.next(spec, agreed, tuple(history), trial.example.inputs)
        if isinstance(answer, Finished):
            return Course(tuple(o.parameters for o in history), tuple(history), answer.result)
        if not isinstance(answer, Ask):
            raise trial.fail("ending", f"next gave a {type(answer).__name__}; it has to give Ask or Finished.")
        if len(history) == len(outline):
            raise trial.fail("ending", f"next asks for more than the {len(outline)} steps of its outline.")
        if reached is not None:
            reached.append(answer.parameters)
        step, shape = len(history), outline[len(history)]
        rows = [trial.algorithm.update(spec, agreed, step, answer.parameters, data) for data in hubs]
        total, sigma = _opened(trial.mode, rows, shape)
        noise = loud * sigma * chance.normal(shape.size) if sigma else 0.0
        history.append(Opened(answer.parameters, total + noise, loud * sigma))


def _opened(mode: Mode, rows: Sequence[Array], shape: StepShape) -> tuple[Array, float]:
    """The total of all hubs, and the deviation of the noise that a plan would have added."""
    if mode == "private":
        parts = [clipped(part, shape.clip_norm).sum(axis=0) for part in rows]
        return np.sum(parts, axis=0), shape.clip_norm / float(np.sqrt(2 * RHO * shape.weight))
    grid = 2.0**FIXED_POINT_BITS
    return np.sum([np.round(part.sum(axis=0) * grid) for part in rows], axis=0) / grid, 0.0


def clipped(rows: Array, norm: float) -> Array:
    """Rows as a hub adds them up: none longer than `norm`, one that is not finite as zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
    kept = np.isfinite(lengths)[:, None]
    return np.where(kept, rows, 0.0) * (norm / np.maximum(np.where(kept[:, 0], lengths, norm), norm))[:, None]


def divided(data: Dataset, hubs: int, chance: Chance) -> list[Dataset]:
    """The same patients at several hubs: one of them empty, one with a single patient, the rest by chance."""
    owner = chance.integers(max(hubs - 2, 1), len(data))
    owner[int(chance.integers(len(data), 1)[0])] = hubs - 2 if hubs > 2 else 0
    return [data.where(owner == hub) for hub in range(hubs)]


def turned(data: Dataset, example: Example) -> Dataset:
    """The same patients, the last first."""
    return taken(example, data, np.arange(len(data))[::-1])


def written(trial: Trial, check: str, result: object) -> str:
    """The result as JSON. Raises: NotConforming: it holds something that JSON has no word for, NaN among them."""
    try:
        msgspec.json.encode(result)  # as releases are written: takes no numpy number, which json does
        return json.dumps(result, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise trial.fail(check, f"the result is not plain JSON: {error}.") from error


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, text and None of a result, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{at}[{index}]")
    else:
        yield at, value


def first_difference(one: Any, other: Any, tolerance: float) -> str:
    """Where two results differ by more than `tolerance` (relative; absolute below 1), in words; empty if nowhere."""
    left, right = dict(leaves(one)), dict(leaves(other))
    for at in left.keys() ^ right.keys():
        return f"{at} stands in one result only"
    for at, value in left.items():
        found = right[at]
        numbers = isinstance(value, int | float) and isinstance(found, int | float)
        if numbers and abs(value - found) <= tolerance * max(1.0, abs(value), abs(found)):
            continue
        if value != found and not _alike_files(value, found, tolerance):
            return f"{at} is {value!r} in one result, {found!r} in the other"
    return ""


def _alike_files(one: Any, other: Any, tolerance: float) -> bool:
    """Of weights, which results carry as safetensors in base64: the same arrays but for rounding."""
    try:
        first, second = (weights(b64decode(value, validate=True)) for value in (one, other))
    except (SandboxRefusal, TypeError, ValueError):
        return False
    return first.keys() == second.keys() and all(
        np.allclose(array, second[name], rtol=tolerance, atol=tolerance) for name, array in first.items()
    )
