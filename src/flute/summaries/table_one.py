"""Table one: all listed variables of a cohort, by groups or altogether, with tests and standardised differences.

One vector. Row: [without a group | per variable and group: its block and a missing count]. Block of a number:
[histogram, v, v^2] (`blocks`), of a category or 0/1 variable one count per level. A patient fills either the block or
the missing count of its group, for every variable: the squared norm is the sum of the blocks' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.design import known
from flute.algorithms.linear import read_parameters
from flute.algorithms.prefix import onto_counts
from flute.algorithms.scores import proportion, quantiles_of
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.summaries import samples, tables
from flute.summaries.blocks import (
    bins_of,
    codes,
    declared,
    estimate,
    group_codes,
    groups_of,
    levels_of,
    number_blocks,
    number_rows,
    number_size,
    number_square,
    one_hot,
    placed,
    plain,
    require_kind,
    require_room,
)
from flute.summaries.samples import analysis_of_variance, sample_of, welch
from flute.summaries.tables import Table, independence

_ALL = ("number", "binary", "category")
_QUARTILES = (25, 50, 75)


class TableOne(Spec, frozen=True, tag="table-one"):
    """The first table of a paper: every variable by the groups of `by`, or of everybody where it is empty.

    Numbers: mean, deviation, quartiles on `bins` equal bins, Welch's test or analysis of variance. Others: counts,
    shares, Pearson's test. Both: missing, the largest standardised difference between two groups."""

    variables: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    by: Annotated[str, Meta(max_length=64)] = ""
    bins: Annotated[int, Meta(ge=4, le=1024)] = 32


class TableOneAlgorithm:
    """Variables as declared; every patient of a group counts in every variable."""

    name: ClassVar[str] = "table-one"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Per variable and group: how many patients have it and how many lack it; of numbers mean, deviation and "
            "quartiles, of others counts per level; tests and differences that follow; how many have no group."
        ),
        bounded_by=(
            "For every variable a patient adds one histogram entry, one value on its declared public range and its "
            "square, or one count, in one group. The norm of that is exact: nothing is clipped away."
        ),
        leaked_otherwise="Nothing in private mode. In exact mode the same numbers are opened without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: TableOne, setting: Setting) -> None:
        """Raises: StudyFileError."""
        for name in spec.variables:
            require_kind("variables", name, setting, _ALL)
            if spec.variables.count(name) > 1:
                raise StudyFileError(f"variables: {name!r} stands twice; keep one.")
        if spec.by:
            require_kind("by", spec.by, setting, ("binary", "category"))
        if spec.by in spec.variables:
            raise StudyFileError(f"variables: {spec.by!r} makes the groups; leave it out of the list.")
        require_room(self.outline(spec, setting)[0].size)

    def fields(self, spec: TableOne, setting: Setting) -> tuple[str, ...]:
        return (*spec.variables, spec.by) if spec.by else spec.variables

    def outline(self, spec: TableOne, setting: Setting) -> tuple[StepShape, ...]:
        variables, groups = _variables(spec, setting), len(groups_of(spec.by, setting))
        size = 1 + groups * sum(_width(v, spec.bins) for v in variables)
        private = setting.mode == "private"
        squares = [number_square(spec.bins, private=private) if v.kind == "number" else 1.0 for v in variables]
        return (StepShape("table", size, float(np.sqrt(sum(squares))), 1.0, 1.0),)

    def update(self, spec: TableOne, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        read_parameters(parameters, 0, step, 1)
        group, groups = group_codes(spec.by, setting, data), len(groups_of(spec.by, setting))
        private = setting.mode == "private"
        blocks = [_rows(v, setting, data, spec.bins, private=private) for v in _variables(spec, setting)]
        return np.column_stack([group < 0, *(placed(block, group, groups) for block in blocks)])

    def cells(self, spec: TableOne, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients in every bin, level and missing count of every group, and those without a group."""
        group, groups = group_codes(spec.by, setting, data), len(groups_of(spec.by, setting))
        counted = [np.array([(group < 0).sum()])]
        for v in _variables(spec, setting):
            block = _rows(v, setting, data, spec.bins, private=False)
            if v.kind == "number":
                x = declared(v, data)
                block = np.column_stack([one_hot(bins_of(v, x, spec.bins), spec.bins), np.isnan(x)])
            counted.append(placed(block, group, groups).sum(axis=0))
        return np.concatenate(counted).astype(np.int64)

    def next(
        self, spec: TableOne, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        opened, private = history[0], setting.mode == "private"
        groups, start = groups_of(spec.by, setting), 1
        shown: dict[str, Any] = {}
        for v in _variables(spec, setting):
            width = _width(v, spec.bins)
            end = start + len(groups) * width
            part, start = opened.total[start:end].reshape(len(groups), width), end
            described = _number if v.kind == "number" else _levels
            shown[v.name] = described(v, groups, part, opened.sigma, private=private)
        left = float(opened.total[0])
        return Finished(
            {
                "by": spec.by,
                "groups": list(groups),
                "left_out": estimate(max(left if private else round(left), 0.0), opened.sigma),
                "table": shown,
                "bins": spec.bins,
            }
        )


def _variables(spec: TableOne, setting: Setting) -> list[Variable]:
    return [known(name, setting).variable for name in spec.variables]


def _width(v: Variable, bins: int) -> int:
    return 1 + (number_size(bins) if v.kind == "number" else len(levels_of(v)))


def _rows(v: Variable, setting: Setting, data: Dataset, bins: int, *, private: bool) -> Array:
    """[n, _width]: the block, and 1 in the last column where the value is missing."""
    if v.kind == "number":
        x = declared(v, data)
        return np.column_stack([number_rows(v, x, bins, private=private), np.isnan(x)])
    index = codes(v.name, setting, data)
    return one_hot(np.where(index < 0, len(levels_of(v)), index), len(levels_of(v)) + 1)


def _missing(value: float, sigma: float, *, private: bool) -> dict[str, float | None]:
    return estimate(max(value if private else float(np.round(value)), 0.0), sigma)


def _largest(differences: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Of two groups, with the deviation of its noise."""
    value, noise = max((d for d in differences if np.isfinite(d[0])), default=(float("nan"), float("nan")))
    return {"standardised_difference": plain(value), "standardised_difference_noise_se": plain(noise)}


def _number(v: Variable, groups: Sequence[str], part: Array, sigma: float, *, private: bool) -> dict[str, Any]:
    blocks = number_blocks(v, part[:, :-1].ravel(), len(groups), sigma, private=private)
    found = [sample_of(block) for block in blocks]
    test = None
    if len(groups) > 1:
        test = welch(*found) if len(groups) == 2 else analysis_of_variance(found, private=private)
    return {
        "kind": v.kind,
        "label": v.label,
        "unit": v.unit,
        "groups": {
            name: {
                **sample.shown(),
                "missing": _missing(float(row[-1]), sigma, private=private),
                "quartiles": quantiles_of(block.counts, block.edges, _QUARTILES),
            }
            for name, sample, block, row in zip(groups, found, blocks, part, strict=True)
        },
        "test": test,
        "p": test["p"] if test else None,
        **_largest([samples.standardised_difference(*p) for p in combinations(found, 2)]),
    }


def _levels(v: Variable, groups: Sequence[str], part: Array, sigma: float, *, private: bool) -> dict[str, Any]:
    raw = part[:, :-1] if private else np.round(part[:, :-1])
    counts = np.array([onto_counts(row) for row in raw])
    test = independence(Table(counts, raw, sigma)) if len(groups) > 1 else None
    return {
        "kind": v.kind,
        "label": v.label,
        "groups": {
            name: {
                "n": estimate(float(row.sum()), sigma * float(np.sqrt(len(row)))),
                "missing": _missing(float(whole[-1]), sigma, private=private),
                "levels": {
                    level: _share(float(count), row, sigma) for level, count in zip(levels_of(v), row, strict=True)
                },
            }
            for name, row, whole in zip(groups, counts, part, strict=True)
        },
        "test": test,
        "p": test["p"] if test else None,
        **_largest([tables.standardised_difference(*p, sigma) for p in combinations(counts, 2)]),
    }


def _share(count: float, row: Array, sigma: float) -> dict[str, float | None]:
    """share = c / (c + rest): the noise in c and in the other counts; its interval holds chance too."""
    n = float(row.sum())
    share = count / n if n >= 1 else float("nan")
    noise = sigma * float(np.hypot(1 - share, np.sqrt(len(row) - 1) * share)) / n if n >= 1 else float("nan")
    told = proportion(count, n, noise)
    return {
        "count": count,
        "noise_se": sigma,
        "share": plain(share),
        "share_low": told["low"],
        "share_high": told["high"],
        "share_noise_se": plain(noise),
    }
