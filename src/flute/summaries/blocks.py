"""Blocks of a patient's row that questions about groups are made of, and how their totals are read again.

A number's block is [histogram on equal bins over its declared range | v | v^2], v its value mapped to [-1, 1]; the
histogram is written for prefix sums in private mode (`algorithms.prefix`). Its squared norm is at most
`number_square`, reached at an end of the range. A patient fills the block of one group; the others are zero.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular, toeplitz

from flute.algorithms.contract import Setting, StudyVariable
from flute.algorithms.design import check_variable, known, values
from flute.algorithms.prefix import Counts, coefficients, norm_squared, opened_counts, rows
from flute.algorithms.scores import Z_95
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults import MAX_VECTOR
from flute.errors import StudyFileError

Codes = NDArray[np.int64]
"""[n] position of a level, a group or a bin from 0; -1 where there is none."""

EVERYBODY: Final = "all"
"""The one group of a question that compares none."""
_ARTICLE: Final = {"number": "a number", "binary": "a 0/1 variable", "category": "a category"}


def require_kind(element: str, name: str, setting: Setting, kinds: Collection[str]) -> None:
    """Raises: StudyFileError: no such variable, one that cannot be used, or one of another kind."""
    used = known(name, setting)
    check_variable(used)
    if used.variable.kind not in kinds:
        asked = " or ".join(_ARTICLE[kind] for kind in _ARTICLE if kind in kinds)
        raise StudyFileError(f"{element}: {name!r} is {_ARTICLE[used.variable.kind]}; name {asked}.")


def require_room(size: int) -> None:
    """Raises: StudyFileError: a vector too long to be sent."""
    if size > MAX_VECTOR:
        raise StudyFileError("These variables, groups and bins make too long a vector; ask for fewer bins.")


def levels_of(v: Variable) -> tuple[str, ...]:
    return ("0", "1") if v.kind == "binary" else v.levels


def groups_of(by: str, setting: Setting) -> tuple[str, ...]:
    """Levels of the grouping variable; EVERYBODY where `by` is empty."""
    return levels_of(known(by, setting).variable) if by else (EVERYBODY,)


def codes(name: str, setting: Setting, data: Dataset) -> Codes:
    """Level of a category or 0/1 variable."""
    x = values(StudyVariable(known(name, setting).variable), data)
    return np.where(np.isnan(x), -1, x).astype(np.int64)


def group_codes(by: str, setting: Setting, data: Dataset) -> Codes:
    """Group of each patient; everybody is in group 0 where `by` is empty."""
    return codes(by, setting, data) if by else np.zeros(len(data), dtype=np.int64)


def declared(v: Variable, data: Dataset) -> Array:
    """[n] a number as declared, without logarithm; NaN where missing or outside its range."""
    return values(StudyVariable(v), data)


def bins_of(v: Variable, x: Array, bins: int) -> Codes:
    """Equal bin over the declared range, the last one closed; -1 where x is NaN."""
    share = np.where(np.isnan(x), 0.0, (x - v.low) / (v.high - v.low))
    index = np.clip(np.floor(share * bins), 0, bins - 1)
    return np.where(np.isnan(x), -1, index).astype(np.int64)


def edges_of(v: Variable, bins: int) -> Array:
    return np.linspace(v.low, v.high, bins + 1)


def number_size(bins: int) -> int:
    return bins + 2


def number_square(bins: int, *, private: bool) -> float:
    """Largest squared norm of a number's block."""
    return norm_squared(bins, private=private) + 2


def number_rows(v: Variable, x: Array, bins: int, *, private: bool) -> Array:
    """[n, number_size]; zero where x is NaN."""
    there = ~np.isnan(x)
    place = np.where(there, 2 * (x - v.low) / (v.high - v.low) - 1, 0.0)
    on_range = np.clip(place, -1.0, 1.0)
    return np.column_stack([rows(bins_of(v, x, bins), bins, private=private), on_range, on_range**2])


def one_hot(index: Codes, size: int) -> Array:
    """[n, size]; zero where the index is -1."""
    return rows(index, size, private=False)


def placed(block: Array, group: Codes, groups: int) -> Array:
    """[n, groups * width]: a patient's block at its group's place, zero elsewhere and for group -1."""
    spread = one_hot(group, groups)[:, :, None] * block[:, None, :]
    return np.asarray(spread.reshape(len(block), groups * block.shape[1]))


@dataclass(frozen=True, slots=True)
class NumberBlock:
    """A number's block as opened, of one group. `total`, `squares`: sums of v and v^2 over [-1, 1]."""

    variable: Variable
    counts: Counts
    total: float
    squares: float

    @property
    def edges(self) -> Array:
        return edges_of(self.variable, len(self.counts.raw))


def number_blocks(v: Variable, opened: Array, groups: int, sigma: float, *, private: bool) -> list[NumberBlock]:
    """Of `placed(number_rows(...))`, one per group."""
    return [
        NumberBlock(v, opened_counts(part[:-2], sigma, private=private), float(part[-2]), float(part[-1]))
        for part in opened.reshape(groups, -1)
    ]


def estimate(value: float, noise_se: float) -> dict[str, float | None]:
    """A count as results show it, None for what is no finite number. These patients are counted, none are drawn: its
    95 % interval is of the noise alone."""
    low, high = max(value - Z_95 * noise_se, 0.0), value + Z_95 * noise_se
    return {"value": plain(value), "low": plain(low), "high": plain(high), "noise_se": plain(noise_se)}


def plain(value: float) -> float | None:
    """None for what is no finite number."""
    return float(value) if np.isfinite(value) else None


def interval(
    value: float, sampling_se: float, noise_se: float, half: float, *, low: float = -np.inf, high: float = np.inf
) -> dict[str, Any]:
    """An estimate with a 95 % interval of `half` total errors to either side, kept within [low, high]."""
    total = float(np.hypot(sampling_se, noise_se))
    return {
        "value": plain(value),
        "low": plain(max(value - half * total, low)),
        "high": plain(min(value + half * total, high)),
        "se": plain(total),
        "sampling_se": plain(sampling_se),
        "noise_se": plain(noise_se),
    }


def onto_noise(weights: Array) -> Array:
    """[..., bins] what multiplies the noise of an opened prefix histogram in sum(weights * raw counts): the noise of
    two such sums over one histogram has the covariance sigma^2 times their product.

    weights: [..., bins] over raw counts."""
    return np.asarray(weights @ _noise_of_counts(weights.shape[-1]))


@lru_cache(maxsize=16)
def _noise_of_counts(bins: int) -> Array:
    """[bins, bins] from the noise of an opened prefix histogram to that of its raw counts; a public constant."""
    lower = toeplitz(coefficients(bins), np.zeros(bins))
    found = np.asarray(solve_triangular(lower, np.eye(bins), lower=True))
    found.setflags(write=False)
    return found
