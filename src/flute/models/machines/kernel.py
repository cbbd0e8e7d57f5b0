"""The columns of a support vector machine: linear ones, or random features of a Gaussian kernel.

Columns stand on the study's public scale. Random features z(x) = sqrt(2 / D) cos(x W + b), W normal with variance
2 gamma, b uniform, have inner products that come near exp(-gamma |x - x'|^2); W and b follow from a public seed, so
no patient is a landmark and no support vector is ever named.
Source: Rahimi and Recht 2007, "Random features for large-scale kernel machines", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import shake_256
from typing import Final

import numpy as np
from scipy.special import ndtri

from flute.algorithms.contract import Setting
from flute.algorithms.design import Design, bounds, design_for, matrix
from flute.algorithms.private_rows import private_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array

_CONTEXT: Final = b"flute/random-features/v1"


@dataclass(frozen=True, slots=True)
class Kernel:
    """features: 0 for linear columns. gamma: 0 for one over the number of columns."""

    features: int
    gamma: float
    seed: int


def size(kernel: Kernel, design: Design) -> int:
    """Columns, the intercept included."""
    return 1 + (kernel.features or design.size - 1)


def reach(kernel: Kernel, design: Design) -> float:
    """Public bound of any |entry| of `columns`; at least 1, which the intercept is."""
    if kernel.features:
        return 1.0
    scaling = private_scaling(design)
    ends = [bounds(used) for used in design.numbers]
    numbers = [
        max(abs(low - c), abs(high - c)) / s
        for (low, high), c, s in zip(ends, scaling.centres.tolist(), scaling.spreads.tolist(), strict=True)
    ]
    return max(1.0, *numbers) if numbers else 1.0


def columns(kernel: Kernel, predictors: Sequence[str], setting: Setting, data: Dataset) -> Array:
    """[n, size], finite whatever the data hold; the first column is 1."""
    design = design_for(predictors, setting)
    x = matrix(design, private_scaling(design), data)
    if not kernel.features:
        return x
    gamma = kernel.gamma or 1 / (design.size - 1)
    directions, phases = random_features(kernel.seed, design.size - 1, kernel.features)
    angles = x[:, 1:] @ (np.sqrt(2 * gamma) * directions) + phases
    return np.column_stack([x[:, 0], np.sqrt(2 / kernel.features) * np.cos(angles)])


@lru_cache(maxsize=64)
def random_features(seed: int, width: int, count: int) -> tuple[Array, Array]:
    """W of unit variance [width, count] and b [count], the same wherever they are worked out."""
    context = _CONTEXT + b"".join(v.to_bytes(8, "little") for v in (seed, width, count))
    drawn = np.frombuffer(shake_256(context).digest(8 * (width + 1) * count), dtype="<u8")
    even = (drawn.astype(np.float64) + 0.5) / 2.0**64
    even = np.clip(even, 2.0**-54, 1 - 2.0**-54).reshape(width + 1, count)
    normal, phases = np.asarray(ndtri(even[:width])), 2 * np.pi * even[width]
    normal.setflags(write=False)
    phases.setflags(write=False)
    return normal, phases
