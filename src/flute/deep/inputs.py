"""What a network is given of a patient: numbers on the study's public scale, and an image within [-1, 1].

Nothing here fails, or takes longer, on account of a patient's values. Every patient of the dataset has a row; who is
left out is said beside, and has weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from flute.algorithms.contract import Setting
from flute.algorithms.design import (
    Design,
    Mask,
    Scaling,
    bounds,
    design_for,
    included,
    known,
    matrix,
)
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.parameter import Shape
from flute.deep.sizes import Sized, sized
from flute.deep.spec import NeuralNetwork
from flute.defaults.models.deep import INPUT_REACH
from flute.errors import StudyFileError

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Inputs:
    """x: float32 [n, columns]. y: float32 [n], 1 where there is the outcome. included: [n]. Images are scaled as they
    are taken, since all of them at once would be a second copy of what may be large."""

    x: Floats
    y: Floats
    included: Mask
    _images: Floats | None
    _there: Mask
    _variable: Variable | None

    def __len__(self) -> int:
        return len(self.y)

    def images(self, rows: NDArray[np.int64]) -> Floats | None:
        """float32 [k, *shape] of these rows, the public range mapped to [-1, 1]; 0 throughout where there is none."""
        if self._images is None or self._variable is None:
            return None
        low, high = self._variable.low, self._variable.high
        taken = (self._images[rows] - np.float32((low + high) / 2)) / np.float32((high - low) / 2)
        np.nan_to_num(taken, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(taken, -1.0, 1.0, out=taken)
        taken *= self._there[rows].reshape(-1, *[1] * (taken.ndim - 1))
        return np.asarray(taken, dtype=np.float32)


def network_design(spec: NeuralNetwork, setting: Setting) -> Design:
    """Its first column, the intercept, is not given to the network, whose layers have their own."""
    return design_for(spec.predictors, setting)


def shapes(spec: NeuralNetwork, setting: Setting) -> tuple[int, Shape]:
    """(columns of numbers, shape of the image or ()), public. Raises: StudyFileError: the study has no such image."""
    return network_design(spec, setting).size - 1, _shape(spec, setting)


def sized_for(spec: NeuralNetwork, setting: Setting) -> Sized:
    """Raises: StudyFileError: see `sizes.sized`."""
    return sized(spec.network, *shapes(spec, setting))


def chosen(spec: NeuralNetwork, setting: Setting, data: Dataset) -> Mask:
    """[n] who is trained on: the study's rule for missing values, and, under either rule, the image is there."""
    there = included(spec.predictors, spec.outcome, setting, data)
    return there & (data.column(spec.image) == 1) if spec.image else there


def inputs(spec: NeuralNetwork, setting: Setting, data: Dataset) -> Inputs:
    """All rows of a dataset, in its order."""
    outcome = np.nan_to_num(data.column(spec.outcome)) == 1
    return replace(scored(spec, setting, data), y=outcome.astype(np.float32), included=chosen(spec, setting, data))


def scored(spec: NeuralNetwork, setting: Setting, data: Dataset) -> Inputs:
    """The same without a look at the outcome, for a model that is applied: nobody is left out."""
    everyone, nobody = np.ones(len(data), dtype=np.bool_), np.zeros(len(data), dtype=np.float32)
    x = numbers(spec, setting, data)
    if not spec.image:
        return Inputs(x, nobody, everyone, None, everyone, None)
    there, variable = data.column(spec.image) == 1, known(spec.image, setting).variable
    return Inputs(x, nobody, everyone, data.images(spec.image), there, variable)


def numbers(spec: NeuralNetwork, setting: Setting, data: Dataset) -> Floats:
    """float32 [n, columns]; a missing number stands at its centre, and nothing reaches beyond INPUT_REACH."""
    design = network_design(spec, setting)
    x: Array = matrix(design, network_scaling(design), data)[:, 1:]
    return np.clip(x, -INPUT_REACH, INPUT_REACH).astype(np.float32)


def network_scaling(design: Design) -> Scaling:
    """The study's public centre and spread, also where its scale is "pooled", which a network does not open; without
    a scale the middle and a quarter of the range, since a network needs numbers about as large as 1."""
    pairs = []
    for used in design.numbers:
        low, high = bounds(used)
        stated = used.scale != "none"
        pairs.append((used.centre, used.spread) if stated else ((low + high) / 2, (high - low) / 4))
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return Scaling(table[:, 0], table[:, 1], table[:, 0])


def _shape(spec: NeuralNetwork, setting: Setting) -> Shape:
    if not spec.image:
        return ()
    variable = known(spec.image, setting).variable
    if variable.kind != "image" or variable.shape is UNSET:
        raise StudyFileError(f"image: {spec.image!r} is no image; name one, or write it under 'predictors'.")
    return tuple(variable.shape)
