"""Private networks, step 0: where their inputs lie, from one noised sum. No record is in what reads it.

A gradient spends a patient's norm on what tells patients apart only if its inputs are near 0 on average and spread
about 1. So first are opened, under a part of the budget: the number of patients; of every column the mean and the
mean square; of an image the same for each channel, and a coarse mean image.
A row is [1/2, all of these, each part of norm about 1] and is clipped to its length like any other.
Source: centring before private gradients, in the sense of Tramer and Boneh 2021, section 3 (data normalisation); the
shrinking of noised means is James and Stein 1961.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Opened
from flute.data.variables import Array
from flute.deep.inputs import Inputs
from flute.deep.parameter import Shape
from flute.defaults.models.private_networks import (
    CELLS,
    COUNT_PART,
    INPUT_MOST,
    INPUT_UNIT,
    LEAST_SPREAD,
    LEAST_VARIANCE,
    UNIFORM_SQUARE,
)


@dataclass(frozen=True, slots=True)
class InputShape:
    """columns: of numbers. image: [channels, sides...] or ()."""

    columns: int
    image: Shape

    @property
    def channels(self) -> int:
        return self.image[0] if self.image else 0

    @property
    def cells(self) -> Shape:
        """Of the coarse mean image, along each side."""
        sides = self.image[1:]
        return tuple(min(side, CELLS[len(sides)]) for side in sides)

    @property
    def coarse(self) -> int:
        """Numbers of the coarse mean image."""
        return self.channels * prod(self.cells) if self.image else 0

    @property
    def row(self) -> int:
        """Length of a row of step 0."""
        return 1 + 2 * self.columns + self.channels + self.coarse

    @property
    def clip_norm(self) -> float:
        return sqrt(COUNT_PART**2 + bool(self.columns) + bool(self.image))

    @property
    def described(self) -> int:
        """Length of `Picture.numbers`."""
        return 2 * self.columns + 2 * self.channels + self.coarse


@dataclass(frozen=True, slots=True)
class Picture:
    """Where inputs lie, in their own unit. means, spreads: of columns. channel_means, channel_spreads: of an image.
    coarse: [channels, cells...]."""

    shape: InputShape
    means: Array
    spreads: Array
    channel_means: Array
    channel_spreads: Array
    coarse: Array

    def numbers(self) -> Array:
        """As it is sent to hubs: float64 [shape.described]."""
        parts = (self.means, self.spreads, self.channel_means, self.channel_spreads, self.coarse.ravel())
        return np.concatenate(parts)

    def image(self, coarse: Array) -> Array:
        """[channels, sides...] out of one number for every cell, the same throughout the cell."""
        found = coarse
        for axis, (side, cells) in enumerate(zip(self.shape.image[1:], self.shape.cells, strict=True), start=1):
            found = np.take(found, np.arange(side) * cells // side, axis=axis)
        return found


def picture_of(shape: InputShape, numbers: Array) -> Picture:
    """Raises nothing: `numbers` [shape.described] may be whatever was sent; spreads are made positive."""
    c, k = shape.columns, shape.channels
    means, spreads, channel_means, channel_spreads, coarse = np.split(numbers, np.cumsum([c, c, k, k]))
    least = INPUT_UNIT * sqrt(LEAST_SPREAD * LEAST_VARIANCE) / 2
    return Picture(
        shape, means, np.maximum(spreads, least), channel_means, np.maximum(channel_spreads, least),
        coarse.reshape((k, *shape.cells)),
    )  # fmt: skip


def input_rows(shape: InputShape, data: Inputs, rows: NDArray[np.int64]) -> Array:
    """float64 [k, shape.row] of these patients; 0 for those who are left out."""
    parts = [np.full((len(rows), 1), COUNT_PART)]
    if shape.columns:
        u = np.clip(data.x[rows].astype(np.float64) / INPUT_UNIT, -INPUT_MOST, INPUT_MOST)
        parts.append(np.hstack([u, u**2 - UNIFORM_SQUARE]) / sqrt(shape.columns))
    images = data.images(rows)
    if images is not None:
        found = images.astype(np.float64)
        flat = found.reshape(len(rows), shape.channels, prod(shape.image[1:]))
        squares = ((flat**2).mean(axis=2) - UNIFORM_SQUARE) / sqrt(shape.channels)
        parts += [squares, cell_means(found, shape.cells).reshape(len(rows), shape.coarse) / sqrt(shape.coarse)]
    return np.hstack(parts) * data.included[rows, None]


def cell_means(images: Array, cells: Shape) -> Array:
    """[k, channels, cells...] of [k, channels, sides...]."""
    found = images
    for axis, count in enumerate(cells, start=2):
        starts = -(-np.arange(count) * found.shape[axis] // count)  # as `Picture.image` has it
        sums = np.add.reduceat(found, starts, axis=axis)
        widths = np.diff([*starts, found.shape[axis]])
        found = sums / widths.reshape([-1 if a == axis else 1 for a in range(found.ndim)])
    return found


@dataclass(frozen=True, slots=True)
class Counted:
    """patients: above 0. noise_se: of their number."""

    patients: float
    noise_se: float


def counted(opened: Opened) -> Counted:
    noise = opened.sigma / COUNT_PART
    return Counted(max(float(opened.total[0]) / COUNT_PART, noise, 1.0), noise)


def opened_picture(shape: InputShape, opened: Opened) -> Picture:
    """Step 0 made usable: means shrunk towards the public centre by what noise alone would give, variances towards
    their mean."""
    people = counted(opened).patients
    c, k = shape.columns, shape.channels
    u, u2, squares, coarse = np.split(opened.total[1:] / people, np.cumsum([c, c, k]))
    means, spreads, channel_means, channel_spreads = np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0)
    cells = np.zeros((k, *shape.cells))
    if c:
        noise = sqrt(c) * opened.sigma / people
        unit = _shrunk(sqrt(c) * u, noise)
        spreads = INPUT_UNIT * _spreads(sqrt(c) * u2 + UNIFORM_SQUARE - unit**2, noise)
        means = INPUT_UNIT * unit
    if k:
        noise = sqrt(shape.coarse) * opened.sigma / people
        cells = _coarse(np.clip(sqrt(shape.coarse) * coarse, -1, 1).reshape(k, -1), noise)
        channel_means = cells.mean(axis=1)
        variance = sqrt(k) * squares + UNIFORM_SQUARE - channel_means**2
        channel_spreads = _spreads(variance, sqrt(k) * opened.sigma / people)
        cells = cells.reshape(k, *shape.cells)
    return Picture(shape, means, spreads, channel_means, channel_spreads, cells)


def _shrunk(means: Array, noise: float) -> Array:
    length = max(float(means @ means), 1e-300)
    return np.asarray(means * max(0.0, 1 - noise**2 * len(means) / length))


def _coarse(cells: Array, noise: float) -> Array:
    """[channels, cells]: every cell shrunk towards its channel's mean."""
    middle = cells.mean(axis=1, keepdims=True)
    return np.asarray(middle + _shrunk((cells - middle).ravel(), noise).reshape(cells.shape))


def _spreads(variances: Array, noise: float) -> Array:
    """Roots of noised variances. `noise`: of each; the mean of squares has about as much again from the mean."""
    middle = max(float(variances.mean()), LEAST_VARIANCE)
    shrunk = middle + (variances - middle) / (1 + 2 * noise**2 / middle**2)
    return np.asarray(np.sqrt(np.maximum(shrunk, LEAST_SPREAD * middle)))


def parts_of(count: int, at_once: int) -> Iterator[NDArray[np.int64]]:
    """Rows 0 to count - 1 in order, `at_once` at a time; no rows at all where there are none."""
    for start in range(0, max(count, 1), at_once):
        yield np.arange(start, min(start + at_once, count))
