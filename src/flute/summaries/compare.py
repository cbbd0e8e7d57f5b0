"""A number by groups: counts, means, deviations, quantiles; tests of means and of ranks; effect sizes. One vector.

Row: [left out | per group: histogram, v, v^2] (`blocks`). A patient without the number or the group is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.design import known
from flute.algorithms.linear import read_parameters
from flute.algorithms.scores import quantiles_of
from flute.algorithms.statistics import QUANTILES
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.summaries.blocks import (
    NumberBlock,
    bins_of,
    declared,
    estimate,
    group_codes,
    groups_of,
    number_blocks,
    number_rows,
    number_size,
    number_square,
    one_hot,
    placed,
    require_kind,
    require_room,
)
from flute.summaries.ranks import kruskal_wallis, mann_whitney
from flute.summaries.samples import analysis_of_variance, cohens_d, sample_of, student, welch


class Compare(Spec, frozen=True, tag="compare"):
    """A number by groups: t, Welch and Mann-Whitney tests of two groups, analysis of variance and Kruskal-Wallis test
    of all; ranks and quantiles on `bins` equal bins over the number's range."""

    outcome: Name
    by: Name
    bins: Annotated[int, Meta(ge=4, le=1024)] = 64


class CompareAlgorithm:
    """The number as declared, without logarithm or scale."""

    name: ClassVar[str] = "compare"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Per group: how many patients, mean, standard deviation, quantiles and a histogram of the number; tests "
            "of difference and effect sizes, which follow from these; how many patients were left out."
        ),
        bounded_by=(
            "A patient adds one histogram entry, one value on the declared public range and its square, in one "
            "group, or one count of those left out. The norm of that is the same for every range and is exact."
        ),
        leaked_otherwise="Nothing in private mode. In exact mode the same numbers are opened without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Compare, setting: Setting) -> None:
        """Raises: StudyFileError."""
        require_kind("outcome", spec.outcome, setting, ("number",))
        require_kind("by", spec.by, setting, ("binary", "category"))
        if spec.outcome == spec.by:
            raise StudyFileError(f"by: {spec.by!r} is the outcome itself; name another variable.")
        require_room(self.outline(spec, setting)[0].size)

    def fields(self, spec: Compare, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, spec.by)

    def outline(self, spec: Compare, setting: Setting) -> tuple[StepShape, ...]:
        size = 1 + len(groups_of(spec.by, setting)) * number_size(spec.bins)
        bound = float(np.sqrt(number_square(spec.bins, private=setting.mode == "private")))
        return (StepShape("groups", size, bound, 1.0, 1.0),)

    def update(self, spec: Compare, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        read_parameters(parameters, 0, step, 1)
        v, group = known(spec.outcome, setting).variable, group_codes(spec.by, setting, data)
        x = np.where(group >= 0, declared(v, data), np.nan)
        block = number_rows(v, x, spec.bins, private=setting.mode == "private")
        return np.column_stack([np.isnan(x), placed(block, group, len(groups_of(spec.by, setting)))])

    def cells(self, spec: Compare, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients in every group and bin, and those left out."""
        v, group = known(spec.outcome, setting).variable, group_codes(spec.by, setting, data)
        x = np.where(group >= 0, declared(v, data), np.nan)
        table = placed(one_hot(bins_of(v, x, spec.bins), spec.bins), group, len(groups_of(spec.by, setting)))
        return np.append(table.sum(axis=0), np.isnan(x).sum()).astype(np.int64)

    def next(
        self, spec: Compare, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        opened, private = history[0], setting.mode == "private"
        v, groups = known(spec.outcome, setting).variable, groups_of(spec.by, setting)
        left = float(opened.total[0]) if private else float(np.round(opened.total[0]))
        blocks = number_blocks(v, opened.total[1:], len(groups), opened.sigma, private=private)
        return Finished(
            {
                "outcome": spec.outcome,
                "by": spec.by,
                "unit": v.unit,
                "left_out": estimate(max(left, 0.0), opened.sigma),
                "groups": {name: _shown(block) for name, block in zip(groups, blocks, strict=True)},
                "tests": _tests(blocks, private=private),
                "grid_step": (v.high - v.low) / spec.bins,
            }
        )


def _shown(block: NumberBlock) -> dict[str, Any]:
    return {
        **sample_of(block).shown(),
        "quantiles": quantiles_of(block.counts, block.edges, QUANTILES),
        "histogram": {
            "edges": block.edges.tolist(),
            "counts": block.counts.consistent.tolist(),
            "noise_se": block.counts.count_noise_sds().tolist(),
        },
    }


def _tests(blocks: Sequence[NumberBlock], *, private: bool) -> dict[str, Any]:
    """Of all groups, and of the only two where there are two (first less second)."""
    samples, counts = [sample_of(block) for block in blocks], [block.counts for block in blocks]
    found: dict[str, Any] = {
        "analysis_of_variance": analysis_of_variance(samples, private=private),
        "kruskal_wallis": kruskal_wallis(counts, private=private),
    }
    if len(blocks) == 2:
        found |= {
            "student": student(*samples),
            "welch": welch(*samples),
            "cohens_d": cohens_d(*samples),
            "mann_whitney": mann_whitney(*counts, private=private),
        }
    return found
