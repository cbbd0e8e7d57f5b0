"""Means that poisoned records cannot drag: median of group means, of values whose influence is bounded.

Every patient falls into one of G groups by a hash of the pseudonym, which nobody outside the hub can choose. Block of
a variable: [patients of each group | their values of each group], a value being its place on the declared range, cut
to +-influence of half the range and divided by it. What is opened are G sums over all hubs; their median is taken
afterwards, and costs no privacy.

What it resists. Fewer than G/2 poisoned patients spoil fewer than half of the groups: the result then lies between
two means of clean groups, whatever they claim. Beyond that a patient still moves a mean by at most 2 influence half
ranges over the number of patients. A hub that lies about many patients has some in every group: that is not resisted.

What it costs. A group's mean has sqrt(G) times the noise and sampling error of the whole; the median of G of them
sqrt(pi/2) = 1.25 times the error of the plain mean. Values outside the bound are pulled in, which biases means of
skewed variables. The result says all of it beside the plain mean. It is worth its cost where the declared range is
much wider than the values spread (PSA: thousands, against tens): there a few false records move a plain mean most.

Sources: Nemirovsky and Yudin 1983 (median of means); Lugosi and Mendelson 2019, section 2 (its guarantee); Hampel
1974 (bounded influence).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Ask,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    RobustMean,
    Setting,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import check_variable, known, values
from flute.algorithms.linear import read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults import MAX_VECTOR
from flute.errors import StudyFileError

MEDIAN_LOSS: Final = math.sqrt(math.pi / 2)
"""Error of a median over that of a mean, of many normal values."""
_MAD: Final = 1.482602218505602
"""Median absolute deviation to standard deviation, normal values."""
_LABEL: Final = b"flute/robust-group/v1"


class RobustMeanAlgorithm:
    """Means of numbers and shares of 0/1 variables; every patient who has a value counts for it."""

    name: ClassVar[str] = "robust-mean"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Per variable and group of patients: how many have a value, and the sum of their values; from these a "
            "mean that poisoned records cannot drag, and the plain mean."
        ),
        bounded_by=(
            "A patient adds one count and one value between -1 and 1 per variable, in one group: the norm is at most "
            "the square root of twice the number of variables, and nothing is clipped away."
        ),
        leaked_otherwise=(
            "Nothing in private mode. In exact mode the same numbers are opened without noise, over groups that are "
            "smaller than the cohort."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: RobustMean, setting: Setting) -> None:
        """Raises: StudyFileError: an unknown or repeated variable, a category, an even number of groups."""
        for name in spec.variables:
            check_variable(known(name, setting))
            if spec.variables.count(name) > 1:
                raise StudyFileError(f"variables: {name!r} stands twice; keep one.")
            if known(name, setting).variable.kind == "category":
                raise StudyFileError(f"variables: {name!r} is a category and has no mean; ask for describe.")
        if spec.groups % 2 == 0:
            raise StudyFileError(f"groups: {spec.groups} has no middle one; write an odd number.")
        if self.outline(spec, setting)[0].size > MAX_VECTOR:
            raise StudyFileError("These variables and groups make too long a vector; ask for fewer groups.")

    def fields(self, spec: RobustMean, setting: Setting) -> tuple[str, ...]:
        return spec.variables

    def outline(self, spec: RobustMean, setting: Setting) -> tuple[StepShape, ...]:
        size = 2 * spec.groups * len(spec.variables)
        return (StepShape("groups", size, math.sqrt(2 * len(spec.variables)), 1.0, 1.0),)

    def update(self, spec: RobustMean, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        read_parameters(parameters, 0, step, 1)
        groups = _groups(data, spec.groups)
        blocks = []
        for name in spec.variables:
            x = _bounded(known(name, setting).variable, data, spec.influence)
            there = ~np.isnan(x)
            block = np.zeros((len(data), 2 * spec.groups))
            rows = np.arange(len(data))
            block[rows, groups] = there
            block[rows, spec.groups + groups] = np.where(there, x, 0.0)
            blocks.append(block)
        return np.hstack(blocks)

    def cells(self, spec: RobustMean, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with a value, per variable and group."""
        sums = self.update(spec, setting, 0, np.zeros(0), data).sum(axis=0)
        counts: Array = sums.reshape(len(spec.variables), 2, spec.groups)[:, 0].ravel()
        return counts.astype(np.int64)

    def next(
        self, spec: RobustMean, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        blocks = history[0].total.reshape(len(spec.variables), 2, spec.groups)
        means = {
            name: _result(known(name, setting).variable, spec, counts, sums, history[0].sigma)
            for name, (counts, sums) in zip(spec.variables, blocks, strict=True)
        }
        resists = (spec.groups - 1) // 2
        return Finished({"variables": means, "groups": spec.groups, "resists_patients": resists})


def _groups(data: Dataset, count: int) -> NDArray[np.int64]:
    """The group of every patient, from the pseudonym alone: adding a patient moves nobody else."""
    hashed = (hashlib.sha256(_LABEL + str(p).encode()).digest()[:8] for p in data.pseudonyms)
    return np.array([int.from_bytes(h, "big") % count for h in hashed], dtype=np.int64)


def _bounded(v: Variable, data: Dataset, influence: float) -> Array:
    """Values as [-1, 1]: the place on the range, cut to +-influence of half of it; NaN where missing."""
    x = values(StudyVariable(v), data)
    low, high = (v.low, v.high) if v.kind == "number" else (0.0, 1.0)
    place = 2 * (x - low) / (high - low) - 1
    return np.asarray(np.clip(place, -influence, influence) / influence)


def _result(v: Variable, spec: RobustMean, counts: Array, sums: Array, sigma: float) -> dict[str, Any]:
    """Median of the groups' means with its error, and the plain mean with its noise."""
    low, high = (v.low, v.high) if v.kind == "number" else (0.0, 1.0)
    middle, reach = (low + high) / 2, (high - low) / 2 * spec.influence
    total = float(counts.sum())
    if total < spec.groups:
        return {"label": v.label, "unit": v.unit, "n": total, "mean": None, "standard_error": None, "plain": None}
    per_group = np.clip(sums / np.maximum(counts, 1.0), -1.0, 1.0)
    median = float(np.median(per_group))
    spread = _MAD * float(np.median(np.abs(per_group - median)))
    plain = float(np.clip(sums.sum() / total, -1.0, 1.0))
    noise = sigma * math.sqrt(spec.groups) * math.hypot(1.0, plain) / total
    return {
        "label": v.label,
        "unit": v.unit,
        "n": total,
        "mean": middle + reach * median,
        "standard_error": reach * MEDIAN_LOSS * spread / math.sqrt(spec.groups),
        "plain": {"value": middle + reach * plain, "noise_se": reach * noise},
    }
