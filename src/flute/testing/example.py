"""The study in which an algorithm is tried, and the patients it is tried on: ordinary, extreme and hostile ones.

Patients are drawn from a seed, over the ranges that the variables declare; nothing of them is anybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Mode, Scope, Setting, Spec, StudyVariable
from flute.attacks.chance import Chance
from flute.data.dataset import Dataset, Images
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
    results over other divisions of the same patients may differ. rounding: relative to the largest number, by which
    a row may differ where others are left out: 32-bit sums are added up otherwise for another number of patients, and
    a total then moves by that part of the clip norm for each of them. empty_hub: on shares, whether a hub may be
    without patients.
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
    rounding: float = 1e-9
    empty_hub: bool = True

    def setting(self, mode: Mode, hubs: int = 3) -> Setting:
        names = tuple(f"hub-{k:02d}" for k in range(hubs))
        variables = {used.variable.name: used for used in self.variables}
        return Setting(
            variables, self.missing, mode, names, {**self.questions, "tried": (self.spec, "pooled")}, 1_000
        )


def patients(example: Example, count: int, chance: Chance) -> Dataset:
    """Ordinary patients: values over the whole declared range, some of them missing; every image another one."""
    columns = {u.variable.name: _drawn(u.variable, count, chance) for u in example.variables}
    images = {v.name: _drawn_images(v, columns[v.name], chance) for v in _images(example)}
    return _dataset(example, columns, images, chance)


def _drawn(v: Variable, count: int, chance: Chance) -> Array:
    """A bell over the middle of the range; every level of a category; of an image, that there is one."""
    if v.kind == "number":
        place = np.clip(0.5 + 0.18 * chance.normal(count), 0.0, 1.0)
        values = v.low + place * (v.high - v.low)
    elif v.kind == "image":
        values = np.ones(count)
    else:
        values = chance.integers(max(len(v.levels), 2), count).astype(np.float64)
    return np.where(chance.uniform(count) < MISSING, np.nan, values)


def _drawn_images(v: Variable, there: Array, chance: Chance) -> Images:
    """Each point with a bell over the middle of the range; zeros where there is no image."""
    shape = shape_of(v)
    place = np.clip(0.5 + 0.18 * chance.normal(len(there) * prod(shape)), 0.0, 1.0).reshape(len(there), *shape)
    return np.where(there.reshape(-1, *[1] * len(shape)) == 1, v.low + place * (v.high - v.low), 0).astype(np.float32)


def _images(example: Example) -> list[Variable]:
    return [u.variable for u in example.variables if u.variable.kind == "image"]


def table(example: Example, columns: Mapping[str, Array], chance: Chance) -> Dataset:
    """These columns under pseudonyms that nobody else could have written; in a column of images stand places among
    the variable's `pictures`."""
    plain, images = dict(columns), dict[str, Images]()
    for v in _images(example):
        given = pictures(v)
        places = np.nan_to_num(columns[v.name]).astype(np.int64)
        plain[v.name] = np.array([there for there, _ in given])[places]
        images[v.name] = np.stack([image for _, image in given])[places]
    return _dataset(example, plain, images, chance)


def _dataset(example: Example, columns: Mapping[str, Array], images: Mapping[str, Images], chance: Chance) -> Dataset:
    count = len(next(iter(columns.values())))
    raw = chance.bytes(8 * count)
    names = [raw[8 * k : 8 * k + 8].hex() + f"{k:x}" for k in range(count)]
    return Dataset(np.array(names, dtype=str), columns, [u.variable for u in example.variables], images)


def taken(example: Example, data: Dataset, places: NDArray[np.int64], chance: Chance | None = None) -> Dataset:
    """The patients at these places. chance: for pseudonyms of their own, where one is taken more than once."""
    columns = {u.variable.name: data.column(u.variable.name)[places] for u in example.variables}
    images = {v.name: data.images(v.name)[places] for v in _images(example)}
    if chance is not None:
        return _dataset(example, columns, images, chance)
    return Dataset(data.pseudonyms[places], columns, [u.variable for u in example.variables], images)


def repeated(example: Example, data: Dataset, times: int, chance: Chance) -> Dataset:
    """Every patient `times` times over, each copy a patient of its own."""
    return taken(example, data, np.tile(np.arange(len(data)), times), chance)


def joined(example: Example, data: Dataset, other: Dataset, at: int) -> Dataset:
    """`data` with the patients of `other` before place `at`; all keep their pseudonyms."""
    columns = {
        u.variable.name: np.insert(data.column(u.variable.name), at, other.column(u.variable.name))
        for u in example.variables
    }
    images = {v.name: np.insert(data.images(v.name), at, other.images(v.name), axis=0) for v in _images(example)}
    pseudonyms = np.insert(data.pseudonyms, at, other.pseudonyms)
    return Dataset(pseudonyms, columns, [u.variable for u in example.variables], images)


# --- values that nobody has --------------------------------------------------------------------------


def extremes(v: Variable) -> Array:
    """Values that the declaration allows, where bounds are reached if anywhere; and none."""
    if v.kind == "image":
        return np.arange(_ALLOWED, dtype=np.float64)
    if v.kind == "number":
        inside = (v.low + v.high) / 2
        return np.array([v.low, v.high, inside, np.nextafter(v.low, v.high), np.nextafter(v.high, v.low), np.nan])
    return np.array([*range(max(len(v.levels), 2)), np.nan], dtype=np.float64)


def strange(v: Variable) -> Array:
    """`extremes`, and values that the declaration does not allow."""
    if v.kind == "image":
        return np.arange(len(pictures(v)), dtype=np.float64)
    beyond = [v.low - 1, v.high + 1, np.nextafter(v.high, np.inf), float(len(v.levels)), 2.0]
    return np.concatenate([extremes(v), STRANGE, beyond])


_ALLOWED: Final = 6
"""The first so many of `pictures` are as a variable declares them."""


def pictures(v: Variable) -> list[tuple[float, Images]]:
    """(what its column says, image): first those that the declaration allows, one that is missing among them."""
    low, high, shape = v.low, v.high, shape_of(v)
    board = np.indices(shape).sum(axis=0) % 2
    corner = np.full(shape, low)
    corner[(0,) * len(shape)] = high
    allowed = [np.zeros(shape), *(np.full(shape, one) for one in (low, high, (low + high) / 2))]
    allowed += [np.where(board, high, low), corner]
    beyond = [np.full(shape, one) for one in (np.nan, np.inf, -np.inf, 1e38, low - 1, high + 1)]
    full = np.full(shape, high)
    odd = [(np.nan, full), (0.5, full), (np.inf, full), (0.0, full)]  # an image that its column knows nothing of
    told = [np.nan, *[1.0] * (len(allowed) + len(beyond) - 1)]
    pairs = [*zip(told, [*allowed, *beyond], strict=True), *odd]
    return [(there, image.astype(np.float32)) for there, image in pairs]


def shape_of(v: Variable) -> tuple[int, ...]:
    return tuple(v.shape or ())


def mixed(example: Example, count: int, chance: Chance, *, hostile: bool) -> Dataset:
    """Patients at the extremes in every combination; hostile: with values that no declaration allows."""
    return table(example, mixed_columns(example, count, chance, hostile=hostile), chance)


def mixed_columns(example: Example, count: int, chance: Chance, *, hostile: bool) -> dict[str, Array]:
    """The same as `table` takes them."""
    columns = {}
    for used in example.variables:
        values = strange(used.variable) if hostile else extremes(used.variable)
        columns[used.variable.name] = values[chance.integers(len(values), count)]
    return columns


class Watched(Dataset):
    """A dataset that notes which columns and images were read."""

    __slots__ = ("read",)

    def __init__(self, data: Dataset, example: Example, read: set[str]) -> None:
        variables = [u.variable for u in example.variables]
        images = {v.name: data.images(v.name) for v in _images(example)}
        super().__init__(data.pseudonyms, {v.name: data.column(v.name) for v in variables}, variables, images)
        self.read = read

    def column(self, name: str) -> Array:
        self.read.add(name)
        return super().column(name)

    def images(self, name: str) -> Images:
        self.read.add(name)
        return super().images(name)
