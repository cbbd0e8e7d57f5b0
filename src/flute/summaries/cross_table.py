"""Counts of two categories or 0/1 variables at once, what tests say of them, and agreement of two raters. One vector.

Row: [left out | one count per row and column]: a patient adds 1 to one coordinate, the norm is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.design import known
from flute.algorithms.linear import read_parameters
from flute.algorithms.prefix import onto_counts
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.summaries.blocks import codes, estimate, groups_of, one_hot, require_kind
from flute.summaries.tables import Table, cramers_v, fisher, independence, kappas, odds_ratio, risk_difference

_KINDS = ("binary", "category")


class CrossTable(Spec, frozen=True, tag="cross-table"):
    """Patients by levels of `by` (rows) and `outcome` (columns), and whether the two are independent.

    raters: both are ratings of the same patients on the same levels, in order; how far do they agree?"""

    outcome: Name
    by: Name
    raters: bool = False


class CrossTableAlgorithm:
    """A patient without either value is left out."""

    name: ClassVar[str] = "cross-table"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "How many patients have each pair of levels, and how many were left out; tests of independence, odds "
            "ratio, difference of risks or agreement of raters, which follow from these."
        ),
        bounded_by="A patient adds 1 to one count: the norm is 1, and nothing is clipped away.",
        leaked_otherwise="Nothing in private mode. In exact mode the same counts are opened without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: CrossTable, setting: Setting) -> None:
        """Raises: StudyFileError."""
        for element, name in (("outcome", spec.outcome), ("by", spec.by)):
            require_kind(element, name, setting, _KINDS)
        if spec.outcome == spec.by:
            raise StudyFileError(f"by: {spec.by!r} is the outcome itself; name another variable.")
        if spec.raters and groups_of(spec.by, setting) != groups_of(spec.outcome, setting):
            raise StudyFileError(f"raters: {spec.by!r} and {spec.outcome!r} need the same levels in the same order.")

    def fields(self, spec: CrossTable, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, spec.by)

    def outline(self, spec: CrossTable, setting: Setting) -> tuple[StepShape, ...]:
        return (StepShape("table", 1 + int(np.prod(_shape(spec, setting))), 1.0, 1.0, 1.0),)

    def update(self, spec: CrossTable, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        read_parameters(parameters, 0, step, 1)
        row, column = codes(spec.by, setting, data), codes(spec.outcome, setting, data)
        rows, columns = _shape(spec, setting)
        cell = np.where((row < 0) | (column < 0), 0, 1 + row * columns + column)
        return one_hot(cell, 1 + rows * columns)

    def cells(self, spec: CrossTable, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Every count of the table, and of those left out."""
        return np.asarray(self.update(spec, setting, 0, np.zeros(0), data).sum(axis=0), dtype=np.int64)

    def next(
        self, spec: CrossTable, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        opened, private = history[0], setting.mode == "private"
        raw = opened.total if private else np.round(opened.total)
        table = _table(raw[1:], _shape(spec, setting), opened.sigma)
        square, association = table.counts.shape == (2, 2), cramers_v(table)
        return Finished(
            {
                "outcome": spec.outcome,
                "by": spec.by,
                "labels": [known(n, setting).variable.label for n in (spec.by, spec.outcome)],
                "rows": list(groups_of(spec.by, setting)),
                "columns": list(groups_of(spec.outcome, setting)),
                "counts": table.counts.tolist(),
                "counts_noise_se": opened.sigma,
                "n": estimate(table.n, opened.sigma * float(np.sqrt(table.counts.size))),
                "left_out": estimate(max(float(raw[0]), 0.0), opened.sigma),
                "independence": independence(table),
                "cramers_v": association["value"],
                "cramers_v_interval": association,
                "fisher_p": fisher(table),
                "odds_ratio": odds_ratio(table) if square else None,
                "risk_difference": risk_difference(table) if square else None,
                "kappa": kappas(table) if spec.raters else None,
            }
        )


def _shape(spec: CrossTable, setting: Setting) -> tuple[int, int]:
    return len(groups_of(spec.by, setting)), len(groups_of(spec.outcome, setting))


def _table(raw: Array, shape: tuple[int, int], sigma: float) -> Table:
    return Table(onto_counts(raw).reshape(shape), raw.reshape(shape), sigma)
