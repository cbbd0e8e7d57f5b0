"""Counts, histograms, means, deviations and quantiles, in one vector that is opened once.

Block of a number: [histogram (square-root Toeplitz in private mode) | v | v^2 | missing] with v the value on
its public range mapped to [-1, 1]. Block of a category: [one count per level | missing]; of a 0/1 variable: the
same with levels 0 and 1. One patient fills either the missing count or the rest of a block, so a block's
norm is known beforehand: number sqrt(f_0^2 + ... + f_{B-1}^2 + 2) in private mode, category 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Ask,
    Describe,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import check_variable, known, values
from flute.algorithms.linear import read_parameters
from flute.algorithms.prefix import Counts, norm_squared, onto_counts, opened_counts, rows
from flute.algorithms.scores import Z_95, proportion, quantiles_of
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults import MAX_VECTOR
from flute.errors import StudyFileError

QUANTILES: Final = (5, 25, 50, 75, 95)
"""Percent."""


class DescribeAlgorithm:
    """Describes variables as declared, without logarithm or scale; every patient counts in every variable."""

    name: ClassVar[str] = "describe"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Per variable: how many patients have it and how many lack it, a histogram or counts per level, and "
            "for numbers mean, standard deviation and quantiles."
        ),
        bounded_by=(
            "A patient adds one histogram entry, one value on its declared public range and its square, or one "
            "missing count, per variable. The norm of that is the same for every range and is exact: nothing is "
            "clipped away."
        ),
        leaked_otherwise="Nothing in private mode. In exact mode the same numbers are opened without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Describe, setting: Setting) -> None:
        """Raises: StudyFileError: an unknown or repeated variable, or a vector too long to be sent."""
        for name in spec.variables:
            check_variable(known(name, setting))
            if spec.variables.count(name) > 1:
                raise StudyFileError(f"variables: {name!r} stands twice; keep one.")
        if self.outline(spec, setting)[0].size > MAX_VECTOR:
            raise StudyFileError("These variables and bins make too long a vector; ask for fewer bins.")

    def fields(self, spec: Describe, setting: Setting) -> tuple[str, ...]:
        return spec.variables

    def outline(self, spec: Describe, setting: Setting) -> tuple[StepShape, ...]:
        variables = [known(name, setting).variable for name in spec.variables]
        size = sum(_block_size(v, spec.bins) for v in variables)
        private = setting.mode == "private"
        squares = [norm_squared(spec.bins, private=private) + 2 if v.kind == "number" else 1.0 for v in variables]
        return (StepShape("counts", size, float(np.sqrt(sum(squares))), 1.0, 1.0),)

    def update(self, spec: Describe, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        read_parameters(parameters, 0, step, 1)
        return np.hstack(
            [
                _rows(known(name, setting).variable, data, spec.bins, private=setting.mode == "private")
                for name in spec.variables
            ]
        )

    def cells(self, spec: Describe, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients in every bin, level and missing count."""
        counted: list[Array] = []
        for name in spec.variables:
            variable = known(name, setting).variable
            block = _rows(variable, data, spec.bins, private=False).sum(axis=0)
            counted.append(np.delete(block, [spec.bins, spec.bins + 1]) if variable.kind == "number" else block)
        return np.concatenate(counted).astype(np.int64)

    def next(
        self, spec: Describe, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        described: dict[str, Any] = {}
        opened, start, private = history[0], 0, setting.mode == "private"
        for name in spec.variables:
            variable = known(name, setting).variable
            end = start + _block_size(variable, spec.bins)
            block, start = opened.total[start:end], end
            kind = _number_result if variable.kind == "number" else _category_result
            described[name] = kind(variable, block, opened.sigma, private=private)
        return Finished({"variables": described, "bins": spec.bins})


def _levels(v: Variable) -> tuple[str, ...]:
    return ("0", "1") if v.kind == "binary" else v.levels


def _block_size(v: Variable, bins: int) -> int:
    return bins + 3 if v.kind == "number" else len(_levels(v)) + 1


def _rows(v: Variable, data: Dataset, bins: int, *, private: bool) -> Array:
    """Per-patient block rows [n, block size]."""
    x = values(StudyVariable(v), data)
    missing = np.isnan(x)
    if v.kind != "number":
        index = np.where(missing, len(_levels(v)), x).astype(np.int64)
        return rows(index, len(_levels(v)) + 1, private=False)
    share = np.where(missing, 0.0, (x - v.low) / (v.high - v.low))
    index = np.where(missing, -1, np.clip(np.floor(share * bins), 0, bins - 1)).astype(np.int64)
    on_range = np.where(missing, 0.0, np.clip(2 * share - 1, -1.0, 1.0))
    histogram = rows(index, bins, private=private)
    return np.column_stack([histogram, on_range, on_range**2, missing])


def _estimate(value: float | None, noise_se: float, chance_se: float = 0.0) -> dict[str, float | None]:
    """With a 95 % interval of the noise and of chance, of which a count of these patients has none."""
    half = Z_95 * float(np.hypot(noise_se, chance_se))
    low, high = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high, "noise_se": noise_se}


def _count(value: float, noise_se: float) -> dict[str, float | None]:
    """A count is not below 0, nor is its interval."""
    found = _estimate(value, noise_se)
    return found | {"low": max(found["low"] or 0.0, 0.0)}


def _category_result(v: Variable, block: Array, sigma: float, *, private: bool) -> dict[str, Any]:
    raw = block if private else np.round(block)
    counts, missing = onto_counts(raw[:-1]), max(float(raw[-1]), 0.0)
    n, k = float(counts.sum()), len(counts)
    levels = {}
    for level, count in zip(_levels(v), counts.tolist(), strict=True):
        share = count / n if n >= 1 else None
        # share = c / (c + rest): the noise in c and in the other k - 1 counts
        noise = None if share is None else sigma * float(np.sqrt((1 - share) ** 2 + (k - 1) * share**2)) / n
        told = proportion(count, n, noise or 0.0)
        levels[level] = {
            "count": count,
            "noise_se": sigma,
            "share": share,
            "share_low": told["low"],
            "share_high": told["high"],
            "share_noise_se": noise,
        }
    return {
        "kind": v.kind,
        "label": v.label,
        "n": _count(n, sigma * float(np.sqrt(k))),
        "missing": _count(missing, sigma),
        "levels": levels,
    }


def _number_result(v: Variable, block: Array, sigma: float, *, private: bool) -> dict[str, Any]:
    counts = opened_counts(block[:-3], sigma if private else 0.0, private=private)
    missing = max(float(block[-1] if private else np.round(block[-1])), 0.0)
    edges = np.linspace(v.low, v.high, len(counts.raw) + 1)
    mean, deviation = _moments(v, counts, float(block[-3]), float(block[-2]))
    return {
        "kind": v.kind,
        "label": v.label,
        "unit": v.unit,
        "n": _count(counts.total, float(counts.prefix_noise_sds()[-1])),
        "missing": _count(missing, sigma),
        "mean": mean,
        "sd": deviation,
        "quantiles": quantiles_of(counts, edges, QUANTILES),
        "histogram": {
            "edges": edges.tolist(),
            "counts": counts.consistent.tolist(),
            "noise_se": counts.count_noise_sds().tolist(),
        },
    }


def _moments(v: Variable, counts: Counts, total: float, squares: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean and standard deviation (n - 1), kept within what the range allows, with delta-method noise."""
    n, half, middle = counts.total, (v.high - v.low) / 2, (v.high + v.low) / 2
    if n < 1:
        return _estimate(None, 0.0), _estimate(None, 0.0)
    m, q = float(np.clip(total / n, -1, 1)), float(np.clip(squares / n, 0, 1))
    sigma, n_noise = counts.sigma, float(counts.prefix_noise_sds()[-1])
    mean_noise = half * float(np.hypot(sigma, m * n_noise)) / n
    if n < 2:
        return _estimate(middle + half * m, mean_noise), _estimate(None, 0.0)
    variance = float(np.clip(q - m * m, 0, 1)) * n / (n - 1)
    deviation = float(np.sqrt(variance))
    # variance = q - m^2 with noise sigma in both sums and n_noise in n
    noise = float(np.hypot(sigma * np.hypot(1, 2 * m), n_noise * (q - 2 * m * m))) / n
    shown = min(noise / (2 * deviation), float(np.sqrt(noise))) if deviation > 0 else float(np.sqrt(noise))
    mean = _estimate(middle + half * m, mean_noise, half * deviation / float(np.sqrt(n)))
    found = _estimate(half * deviation, half * shown, half * _deviation_chance(counts, m, deviation))
    return mean, found | {"low": max(found["low"] or 0.0, 0.0)}


def _deviation_chance(counts: Counts, mean: float, deviation: float) -> float:
    """Of a deviation over [-1, 1], by that of the variance; the fourth moment from the middles of bins."""
    middles = (2 * np.arange(len(counts.raw)) + 1) / len(counts.raw) - 1
    fourth = float(counts.consistent @ (middles - mean) ** 4) / counts.total
    in_variance = float(np.sqrt(max(fourth - deviation**4, 0.0) / counts.total))
    return in_variance / (2 * deviation) if deviation > 0 else 0.0
