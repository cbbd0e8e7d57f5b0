"""The study in which an algorithm is tried, and the patients it is tried on: ordinary, extreme and hostile ones.

Patients are drawn from a seed, over the ranges that the variables declare; nothing of them is anybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from flute.algorithms.contract import Mode, Scope, Setting, Spec, StudyVariable
from flute.attacks.chance import Chance
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable

MISSING: Final = 0.05
"""Part of all values that ordinary patients lack."""
STRANGE: Final = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0, 0.5, 2.0**53, -1.0, 1e6)
"""What stands in no record that a reader has cleaned, and must do no harm all the same."""


class NotConforming(AssertionError):
    """An algorithm breaks the contract. `check`: which of `flute.testing.CHECKS` saw it."""

    def __init__(self, check: str, algorithm: str, text: str) -> None:
        super().__init__(f"{algorithm}: {check}: {text}")
        self.check, self.algorithm, self.text = check, algorithm, text


@dataclass(frozen=True)
class Example:
    """One question, in a study that could ask it.

    questions: earlier questions of the study by id; inputs: their results by reference (`evaluate` needs both).
    patients: how many are drawn. clipped_by_hub: rows may be longer than their clip norm, since the hub shortens them
    (gradients of networks); without it, a row that would be shortened is an error. tolerance: relative, by which
    results over other divisions of the same patients may differ. empty_hub: on shares, whether a hub may be without
    patients.
    """

    spec: Spec
    variables: tuple[StudyVariable, ...]
    questions: Mapping[str, tuple[Spec, Scope]] = field(default_factory=dict)
    inputs: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    modes: tuple[Mode, ...] = ("exact", "private")
    missing: Literal["drop", "indicate"] = "drop"
    patients: int = 80
    clipped_by_hub: bool = False
    tolerance: float = 1e-6
    empty_hub: bool = True

    def setting(self, mode: Mode, hubs: int = 3) -> Setting:
        names = tuple(f"hub-{k:02d}" for k in range(hubs))
        variables = {used.variable.name: used for used in self.variables}
        return Setting(
            variables, self.missing, mode, names, {**self.questions, "tried": (self.spec, "pooled")}, 1_000
        )


def patients(example: Example, count: int, chance: Chance) -> Dataset:
    """Ordinary patients: values over the whole declared range, some of them missing."""
    columns = {u.variable.name: _drawn(u.variable, count, chance) for u in example.variables}
    return table(example, columns, chance)


def _drawn(v: Variable, count: int, chance: Chance) -> Array:
    """A bell over the middle of the range; every level of a category."""
    if v.kind == "number":
        place = np.clip(0.5 + 0.18 * chance.normal(count), 0.0, 1.0)
        values = v.low + place * (v.high - v.low)
    else:
        values = chance.integers(max(len(v.levels), 2), count).astype(np.float64)
    return np.where(chance.uniform(count) < MISSING, np.nan, values)


def table(example: Example, columns: Mapping[str, Array], chance: Chance) -> Dataset:
    """These columns under pseudonyms that nobody else could have written."""
    count = len(next(iter(columns.values())))
    raw = chance.bytes(8 * count)
    names = [raw[8 * k : 8 * k + 8].hex() + f"{k:x}" for k in range(count)]
    return Dataset(np.array(names, dtype=str), columns, [u.variable for u in example.variables])


def repeated(example: Example, data: Dataset, times: int, chance: Chance) -> Dataset:
    """Every patient `times` times over, each copy a patient of its own."""
    columns = {u.variable.name: np.tile(data.column(u.variable.name), times) for u in example.variables}
    return table(example, columns, chance)


def extremes(v: Variable) -> Array:
    """Values that the declaration allows, where bounds are reached if anywhere; and none."""
    if v.kind == "number":
        inside = (v.low + v.high) / 2
        return np.array([v.low, v.high, inside, np.nextafter(v.low, v.high), np.nextafter(v.high, v.low), np.nan])
    return np.array([*range(max(len(v.levels), 2)), np.nan], dtype=np.float64)


def strange(v: Variable) -> Array:
    """`extremes`, and values that the declaration does not allow."""
    beyond = [v.low - 1, v.high + 1, np.nextafter(v.high, np.inf), float(len(v.levels)), 2.0]
    return np.concatenate([extremes(v), STRANGE, beyond])


def mixed(example: Example, count: int, chance: Chance, *, hostile: bool) -> Dataset:
    """Patients at the extremes in every combination; hostile: with values that no declaration allows."""
    columns = {}
    for used in example.variables:
        values = strange(used.variable) if hostile else extremes(used.variable)
        columns[used.variable.name] = values[chance.integers(len(values), count)]
    return table(example, columns, chance)


class Watched(Dataset):
    """A dataset that notes which columns were read."""

    __slots__ = ("read",)

    def __init__(self, data: Dataset, example: Example, read: set[str]) -> None:
        variables = [u.variable for u in example.variables]
        super().__init__(data.pseudonyms, {v.name: data.column(v.name) for v in variables}, variables)
        self.read = read

    def column(self, name: str) -> Array:
        self.read.add(name)
        return super().column(name)
