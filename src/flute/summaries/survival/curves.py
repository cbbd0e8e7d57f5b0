"""Survival by groups on a public time grid: curves, medians, restricted means, the log-rank test, hazard ratios.

One vector. Row: [left out | per group: events by bin | ends of follow-up by bin], histograms for prefix sums in
private mode (`algorithms.prefix`). A patient fills one of them, so the norm is that of one histogram.
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
from flute.algorithms.prefix import norm_squared, opened_counts, rows
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.summaries.blocks import (
    bins_of,
    codes,
    declared,
    edges_of,
    estimate,
    group_codes,
    groups_of,
    placed,
    require_kind,
    require_room,
)
from flute.summaries.survival.hazard_ratios import hazard_ratios
from flute.summaries.survival.life_tables import Life, group_shown, log_rank


class Survival(Spec, frozen=True, tag="survival"):
    """Kaplan-Meier curves by groups (all in one where `by` is empty), log-rank test, hazard ratios, on `bins` times.

    time: a number of at least 0; event: 0/1, 0 where the patient was only followed so long."""

    time: Name
    event: Name
    by: Annotated[str, Meta(max_length=64)] = ""
    bins: Annotated[int, Meta(ge=4, le=256)] = 32


def check_times(time: str, event: str, setting: Setting) -> None:
    """Raises: StudyFileError: time is no number from 0 up, or event is not 0/1."""
    require_kind("time", time, setting, ("number",))
    require_kind("event", event, setting, ("binary",))
    if known(time, setting).variable.low < 0:
        raise StudyFileError(f"time: the range of {time!r} starts below 0; times count from the start of follow-up.")


class SurvivalAlgorithm:
    """A patient without time, event or group is left out."""

    name: ClassVar[str] = "survival"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Per group and bin of time: how many patients had the event and how many were followed so long; survival "
            "curves, medians, restricted means, the log-rank test and hazard ratios, which follow; how many patients "
            "were left out."
        ),
        bounded_by=(
            "A patient adds one entry to one histogram of times. The norm of that is the same for every range and is "
            "exact: nothing is clipped away."
        ),
        leaked_otherwise="Nothing in private mode. In exact mode the same counts are opened without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Survival, setting: Setting) -> None:
        """Raises: StudyFileError."""
        check_times(spec.time, spec.event, setting)
        if spec.by:
            require_kind("by", spec.by, setting, ("binary", "category"))
        if spec.by == spec.event:
            raise StudyFileError("by: time, event and by have to be three different variables.")
        require_room(self.outline(spec, setting)[0].size)

    def fields(self, spec: Survival, setting: Setting) -> tuple[str, ...]:
        return tuple(name for name in (spec.time, spec.event, spec.by) if name)

    def outline(self, spec: Survival, setting: Setting) -> tuple[StepShape, ...]:
        size = 1 + 2 * len(groups_of(spec.by, setting)) * spec.bins
        bound = float(np.sqrt(norm_squared(spec.bins, private=setting.mode == "private")))
        return (StepShape("life-table", size, bound, 1.0, 1.0),)

    def update(self, spec: Survival, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        read_parameters(parameters, 0, step, 1)
        return self._rows(spec, setting, data, private=setting.mode == "private")

    def _rows(self, spec: Survival, setting: Setting, data: Dataset, *, private: bool) -> Array:
        v, groups = known(spec.time, setting).variable, len(groups_of(spec.by, setting))
        event, group = codes(spec.event, setting, data), group_codes(spec.by, setting, data)
        bin_ = bins_of(v, declared(v, data), spec.bins)
        there = (bin_ >= 0) & (event >= 0) & (group >= 0)
        block = rows(np.where(there, bin_, -1), spec.bins, private=private)
        place = np.where(there, 2 * group + 1 - event, -1)  # events before ends, group by group
        return np.column_stack([~there, placed(block, place, 2 * groups)])

    def cells(self, spec: Survival, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Events and ends in every group and bin, and those left out."""
        return np.asarray(self._rows(spec, setting, data, private=False).sum(axis=0), dtype=np.int64)

    def next(
        self, spec: Survival, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        opened, private = history[0], setting.mode == "private"
        v, groups = known(spec.time, setting).variable, groups_of(spec.by, setting)
        tables = opened.total[1:].reshape(len(groups), 2, spec.bins)
        counts = [[opened_counts(part, opened.sigma, private=private) for part in table] for table in tables]
        lives = [Life(events, ends, edges_of(v, spec.bins)) for events, ends in counts]
        left = float(opened.total[0])
        return Finished(
            {
                "time": spec.time,
                "event": spec.event,
                "by": spec.by,
                "unit": v.unit,
                "left_out": estimate(max(left if private else round(left), 0.0), opened.sigma),
                "groups": {name: group_shown(life) for name, life in zip(groups, lives, strict=True)},
                "log_rank": log_rank(lives) if len(groups) > 1 else None,
                "hazard_ratios": hazard_ratios(dict(zip(groups, lives, strict=True))) if len(groups) > 1 else None,
                "grid_step": (v.high - v.low) / spec.bins,
            }
        )
