"""A sound little algorithm, and others that differ from it by one fault each: what the conformance suite must see."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Ask,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    Spec,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import check_variable, known, values
from flute.algorithms.linear import read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.messages.limits import Name
from flute.questions.registry import Registration
from flute.testing import Example


class Spread(Spec, frozen=True, tag="spread"):
    """Mean and variance of one number."""

    variable: Name


class SpreadAlgorithm:
    """Step 0 opens a count and a sum, step 1 squares around the mean, all on the range [-1, 1]."""

    name: ClassVar[str] = "spread"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released="Mean and variance of one number, and how many patients have it.",
        bounded_by="A patient adds one and a value within its declared range, then one square of at most 1.",
        leaked_otherwise="Nothing in private mode; in exact mode the same sums without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Spread, setting: Setting) -> None:
        check_variable(known(spec.variable, setting))

    def fields(self, spec: Spread, setting: Setting) -> tuple[str, ...]:
        return (spec.variable,)

    def outline(self, spec: Spread, setting: Setting) -> tuple[StepShape, ...]:
        return (StepShape("sum", 2, math.sqrt(2), 0.5, 1.0), StepShape("squares", 1, 1.0, 0.5, 1.0))

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        asked = read_parameters(parameters, step, step, 2)
        placed = self.place(spec, setting, data)
        there = np.isfinite(placed)
        value = np.where(there, placed, 0.0)
        if step == 0:
            return np.column_stack([there, value]).astype(np.float64)
        return (((value - np.clip(asked[0], -1, 1)) / 2) ** 2 * there)[:, None]

    def place(self, spec: Spread, setting: Setting, data: Dataset) -> Array:
        """[n] in [-1, 1]; NaN where missing."""
        v = known(spec.variable, setting).variable
        return 2 * (values(StudyVariable(v), data) - v.low) / (v.high - v.low) - 1

    def cells(self, spec: Spread, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        return np.array([int(np.isfinite(self.place(spec, setting, data)).sum())], dtype=np.int64)

    def next(
        self, spec: Spread, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        n, total = (float(x) for x in history[0].total)
        mean = float(np.clip(total / n, -1, 1)) if n >= 1 else 0.0
        if len(history) == 1:
            return Ask((mean,))
        return self.finished(n, mean, float(history[1].total[0]))

    def finished(self, n: float, mean: float, squares: float) -> Finished:
        return Finished({"n": n, "mean": mean, "variance": 4 * squares / n if n >= 1 else None})


class SensitivityTooSmall(SpreadAlgorithm):
    """The count beside the value is forgotten in the norm."""

    def outline(self, spec: Spread, setting: Setting) -> tuple[StepShape, ...]:
        first, second = super().outline(spec, setting)
        return (StepShape(first.name, 2, 1.0, 0.5, 1.0), second)


class Unbounded(SpreadAlgorithm):
    """Trusts that readers let no value outside the range through. Its magnitude would have room for any."""

    def outline(self, spec: Spread, setting: Setting) -> tuple[StepShape, ...]:
        return tuple(StepShape(s.name, s.size, s.clip_norm, s.weight, 1e30) for s in super().outline(spec, setting))

    def place(self, spec: Spread, setting: Setting, data: Dataset) -> Array:
        v = known(spec.variable, setting).variable
        raw = data.column(spec.variable)
        trusted = np.where(np.abs(raw) < 1e9, raw, np.nan)
        return 2 * (trusted - v.low) / (v.high - v.low) - 1


class MagnitudeTooSmall(Unbounded):
    """Promises at most 1 per coordinate, which a value outside the range exceeds; a norm is promised generously."""

    def outline(self, spec: Spread, setting: Setting) -> tuple[StepShape, ...]:
        return tuple(StepShape(s.name, s.size, 1e30, s.weight, 1.0) for s in super().outline(spec, setting))


class OwnNoise(SpreadAlgorithm):
    """Adds noise of its own, from a generator that is no secret."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        return np.clip(rows + 0.01 * np.random.standard_normal(rows.shape), -0.7, 0.7)


class OwnFixedNoise(SpreadAlgorithm):
    """The same with a fixed seed: the n-th row gets the n-th draw, whoever stands there."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        return np.clip(rows + 0.01 * np.random.default_rng(0).standard_normal(rows.shape), -0.7, 0.7)


class DependsOnOrder(SpreadAlgorithm):
    """Counts every second patient of the table."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        return rows * (np.arange(len(rows)) % 2)[:, None]


class CountsRowsInItsShape(SpreadAlgorithm):
    """One column per patient."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        return np.hstack([rows, np.zeros((len(rows), len(rows) % 5))])


class ReadsMore(SpreadAlgorithm):
    """Looks at a field that the question does not name."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        return rows * (data.column("spare") != 3.0)[:, None]


class BoundOfAnotherType(SpreadAlgorithm):
    """numpy's float, which compares like a float and cannot be written into a journal."""

    def outline(self, spec: Spread, setting: Setting) -> tuple[StepShape, ...]:
        first, *rest = super().outline(spec, setting)
        return (replace(first, clip_norm=np.float64(first.clip_norm)), *rest)


class OutlineFollowsData(SpreadAlgorithm):
    """Its clip norm is the longest row that it has met."""

    longest = 1e-9

    def outline(self, spec: Spread, setting: Setting) -> tuple[StepShape, ...]:
        first, second = super().outline(spec, setting)
        return (StepShape(first.name, 2, self.longest, 0.5, 1.0), second)

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        self.longest = max(self.longest, float(np.linalg.norm(rows, axis=1).max(initial=0.0)))
        return rows


class ScaledByOthers(SpreadAlgorithm):
    """Bounds rows by the hub's own largest one: its clip norm depends on data."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        return rows / max(float(np.abs(rows[:, -1]).max(initial=0.0)), 1.0 / 64) / 64


class KeepsState(SpreadAlgorithm):
    """Remembers the mean between calls instead of working it out again."""

    mean = 0.0

    def next(
        self, spec: Spread, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        said = super().next(spec, setting, history, inputs)
        if len(history) == 1 and isinstance(said, Ask):
            self.mean = float(said.parameters[0])
        if isinstance(said, Finished):
            return Finished(said.result | {"mean": self.mean})
        return said


class FailsOnAValue(SpreadAlgorithm):
    """Stops where a value is infinite."""

    def place(self, spec: Spread, setting: Setting, data: Dataset) -> Array:
        if np.isinf(data.column(spec.variable)).any():
            raise ZeroDivisionError("not a number that I can use")
        return super().place(spec, setting, data)


class CarriesPseudonyms(SpreadAlgorithm):
    """Puts whom it has met into the result."""

    def __init__(self) -> None:
        self.met: list[str] = []

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        self.met += data.pseudonyms.tolist()
        return super().update(spec, setting, step, parameters, data)

    def finished(self, n: float, mean: float, squares: float) -> Finished:
        return Finished(super().finished(n, mean, squares).result | {"of": self.met[:3]})


class TellsOfEach(SpreadAlgorithm):
    """A result with an entry per patient."""

    def finished(self, n: float, mean: float, squares: float) -> Finished:
        return Finished(super().finished(n, mean, squares).result | {"weights": [1.0] * max(0, round(n))})


class NotAdditive(SpreadAlgorithm):
    """Takes the mean of hubs' means: another number for every division of the patients."""

    def next(
        self, spec: Spread, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        said = super().next(spec, setting, history, inputs)
        if isinstance(said, Finished):
            return Finished(said.result | {"mean": said.result["mean"] / len(setting.hubs)})
        return said


class TakesItsTime(SpreadAlgorithm):
    """Waits longer the more values are at the end of their range."""

    def place(self, spec: Spread, setting: Setting, data: Dataset) -> Array:
        placed = super().place(spec, setting, data)
        time.sleep(0.001 * int((placed == 1.0).sum()))
        return placed


class NoPlainResult(SpreadAlgorithm):
    """NaN where there is nothing to say."""

    def finished(self, n: float, mean: float, squares: float) -> Finished:
        return Finished({"n": n, "mean": mean if n >= 1 else float("nan"), "variance": squares})


class HalfAStatement(SpreadAlgorithm):
    """Says nothing of what becomes known besides."""

    statement: ClassVar[PrivacyStatement] = PrivacyStatement("A mean.", "By its range.", " ")


class NeedsSomebody(SpreadAlgorithm):
    """Divides by how many patients a hub has."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        assert 1 / len(data) <= 1
        return super().update(spec, setting, step, parameters, data)


class TakesAnyParameters(SpreadAlgorithm):
    """Looks at the first of however many parameters."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        good = [p if np.isfinite(p) else 0.0 for p in parameters]
        return super().update(spec, setting, step, [*good, 0.0][:step], data)


class AsksTooOften(SpreadAlgorithm):
    """Has a step that its outline does not name."""

    def outline(self, spec: Spread, setting: Setting) -> tuple[StepShape, ...]:
        return (StepShape("sum", 2, math.sqrt(2), 1.0, 1.0),)


class CountsInFractions(SpreadAlgorithm):
    """The floor is held against whole persons."""

    def cells(self, spec: Spread, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        return super().cells(spec, setting, data) * 0.5  # type: ignore[return-value]


class InBlocks(SpreadAlgorithm):
    """Sound: gives its rows in blocks as well."""

    def blocks(
        self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset
    ) -> Iterator[Array]:
        rows = self.update(spec, setting, step, parameters, data)
        return (rows[start : start + 7] for start in range(0, len(rows), 7))


class RunsOfPatientsTwice(InBlocks):
    """Its blocks overlap by one patient, whom the clip norm then bounds twice over."""

    def blocks(
        self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset
    ) -> Iterator[Array]:
        rows = self.update(spec, setting, step, parameters, data)
        return (rows[start : start + 8] for start in range(0, len(rows), 7))


class MergesPatients(InBlocks):
    """One row for each block: the clip norm bounds seven patients together, and the sum is lost."""

    def blocks(
        self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset
    ) -> Iterator[Array]:
        blocks = super().blocks(spec, setting, step, parameters, data)
        return (block.sum(axis=0, keepdims=True) for block in blocks)


class AtOnce(SpreadAlgorithm):
    """Sound: gives a hub's total at once as well."""

    def total(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        return self.update(spec, setting, step, parameters, data).sum(axis=0)

    def counted(self, spec: Spread, setting: Setting, data: Dataset) -> Array:
        return np.isfinite(self.place(spec, setting, data))[:, None].astype(np.float64)


class TotalOfAnother(AtOnce):
    """Gives the mean in place of the sum: a hub of many patients weighs as much as one of few."""

    def total(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        return super().total(spec, setting, step, parameters, data) / max(len(data), 1)


class TotalBeyondItsPatients(AtOnce):
    """Adds a patient nobody has."""

    def total(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        return super().total(spec, setting, step, parameters, data) + 1.0


class CountsByHalves(AtOnce):
    """`counted` weighs patients."""

    def counted(self, spec: Spread, setting: Setting, data: Dataset) -> Array:
        return super().counted(spec, setting, data) / 2


class TrainsAtHubs(AtOnce):
    """Sound, and as training is: a hub gives its patients times the square of its mean, another sum for another
    division."""

    def update(self, spec: Spread, setting: Setting, step: int, parameters: Sequence[float], data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        if setting.mode == "private" or not len(rows) or step == 0:
            return rows
        return np.tile(rows.mean(axis=0, keepdims=True) ** 2, (len(rows), 1))


FAULTY: dict[str, tuple[type[SpreadAlgorithm], str]] = {
    "a sensitivity too small": (SensitivityTooSmall, "sensitivity"),
    "an output without bounds": (Unbounded, "bounds"),
    "a magnitude too small": (MagnitudeTooSmall, "magnitude"),
    "noise of its own": (OwnNoise, "determinism"),
    "noise of its own, seeded": (OwnFixedNoise, "row-order"),
    "a result that depends on the order of rows": (DependsOnOrder, "row-order"),
    "a row count in the shape": (CountsRowsInItsShape, "shape"),
    "an undeclared field": (ReadsMore, "fields"),
    "an outline that follows data": (OutlineFollowsData, "outline"),
    "a bound that is no plain float": (BoundOfAnotherType, "outline"),
    "a clip norm of the hub's own patients": (ScaledByOthers, "own-row"),
    "state between calls": (KeepsState, "replay"),
    "a failure on a value": (FailsOnAValue, "hostile"),
    "pseudonyms in the result": (CarriesPseudonyms, "result"),
    "an entry per patient": (TellsOfEach, "result"),
    "another result for another division": (NotAdditive, "splits"),
    "time that tells of values": (TakesItsTime, "duration"),
    "a result that is no JSON": (NoPlainResult, "nobody"),
    "half a statement": (HalfAStatement, "statement"),
    "a failure without patients": (NeedsSomebody, "empty-hub"),
    "any parameters": (TakesAnyParameters, "parameters"),
    "a step too many": (AsksTooOften, "ending"),
    "blocks that overlap": (RunsOfPatientsTwice, "blocks"),
    "blocks of sums": (MergesPatients, "blocks"),
    "a total that is no sum": (TotalOfAnother, "total"),
    "a total beyond its patients": (TotalBeyondItsPatients, "total"),
    "patients counted by halves": (CountsByHalves, "total"),
    "cells that are no counts": (CountsInFractions, "cells"),
}
"""What is wrong, the algorithm, and the check that has to see it."""

LEVEL = StudyVariable(Variable("level", "number", 0, 40))
SPARE = StudyVariable(Variable("spare", "number", -5, 5))
EXAMPLE = Example(Spread("level"), (LEVEL, SPARE))


def registration(algorithm: type[SpreadAlgorithm]) -> Registration:
    return Registration(Spread, algorithm())
