"""From declared variables to a design matrix, whose columns are public before any record is read.

Column order: intercept; then per predictor its number, its 0/1 value or one 0/1 column per level without
the reference level; then, where the study says "indicate", a 0/1 column `NAME missing`.

Nothing here fails on account of a patient's values: what is outside its declared range, among no level or
without a logarithm is missing. Every matrix has one row per patient of the dataset, also for those who are
left out (callers make their rows zero), so that counts of rows are part of what is opened and charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults import MAX_DESIGN_COLUMNS
from flute.errors import StudyFileError

Mask = NDArray[np.bool_]
_LARGEST_BOUND: Final = 1e15
"""No measurement has a larger one; squares and sums of what is within stay exact enough."""

_NARROWEST: Final = 1e-6
"""Of a range beside its bounds, of a spread beside its range."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a design. `level`: position among the category's levels, -1 otherwise."""

    name: str
    kind: Literal["intercept", "number", "binary", "level", "missing"]
    variable: str = ""
    level: int = -1


@dataclass(frozen=True, slots=True)
class Design:
    """The columns that `predictors` make in a study."""

    predictors: tuple[StudyVariable, ...]
    columns: tuple[Column, ...]

    @property
    def size(self) -> int:
        return len(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def numbers(self) -> tuple[StudyVariable, ...]:
        """The number predictors, in order: what a `Scaling` has one entry for."""
        return tuple(p for p in self.predictors if p.variable.kind == "number")

    def position(self, variable: str, kind: str) -> int:
        """Index of a variable's column of that kind, -1 where it has none."""
        found = [i for i, c in enumerate(self.columns) if (c.variable, c.kind) == (variable, kind)]
        return found[0] if found else -1


@dataclass(frozen=True, slots=True)
class Scaling:
    """How number columns are written: (x - centre) / spread, x after the logarithm if there is one.

    Arrays float64 [numbers of the design]. `fills`: the x that stands for a missing one.
    """

    centres: Array
    spreads: Array
    fills: Array


def check_variable(used: StudyVariable) -> None:
    """Raises: StudyFileError: the variable cannot be used as the study declares it, or is an image, whose values no
    column holds."""
    v = used.variable
    if v.kind == "image":
        raise StudyFileError(f"{v.name} is an image, which only a network takes (its element 'image'); leave it out.")
    if v.kind == "number":
        if not all(abs(number) <= _LARGEST_BOUND for number in (v.low, v.high, used.centre)):
            raise StudyFileError(f"{v.name}: range or centre reach beyond {_LARGEST_BOUND:g}; use a larger unit.")
        if used.log and v.low <= 0:
            raise StudyFileError(
                f"{v.name} has 'log: true' but its range starts at {v.low:g}; write a low end above 0."
            )
        if not (np.isfinite(used.spread) and used.spread > 0):
            raise StudyFileError(f"{v.name}: the spread must be a finite number above 0.")
        _check_widths(used)
    elif used.log or used.scale != "none":
        raise StudyFileError(f"{v.name} is {v.kind}; 'log' and 'scale' are for numbers, leave them out.")
    if used.reference_level and used.reference_level not in v.levels:
        raise StudyFileError(f"{v.name}: reference {used.reference_level!r} is not one of its levels.")


def check_image(used: StudyVariable) -> None:
    """Raises: StudyFileError: the variable is no image, or one whose range or use is none."""
    v = used.variable
    if v.kind != "image":
        raise StudyFileError(f"{v.name} is no image; name a variable of kind image, which has a shape.")
    if used.log or used.scale != "none":
        raise StudyFileError(f"{v.name} is an image; 'log' and 'scale' are for numbers, leave them out.")
    farther = max(abs(v.low), abs(v.high))
    if farther > _LARGEST_BOUND or v.high - v.low < _NARROWEST * farther:
        raise StudyFileError(
            f"{v.name}: the range reaches beyond {_LARGEST_BOUND:g}, or is too narrow for its bounds."
        )


def _check_widths(used: StudyVariable) -> None:
    """A range must be wide enough for its own bounds, a spread for its range, or numbers lose their digits."""
    low, high = bounds(used)
    if high - low < _NARROWEST * max(abs(low), abs(high)):
        raise StudyFileError(f"{used.variable.name}: the range is too narrow for its bounds; subtract a constant.")
    if used.scale == "reference" and max(high - used.centre, used.centre - low) > used.spread / _NARROWEST:
        raise StudyFileError(
            f"{used.variable.name}: the spread is tiny beside the range; centre and spread are in the unit of the "
            "variable (after the logarithm, if there is one)."
        )


def check_design(predictors: Sequence[str], setting: Setting) -> None:
    """Raises: StudyFileError: these predictors make no design that can be carried out."""
    for name in predictors:
        check_variable(known(name, setting))
        if list(predictors).count(name) > 1:
            raise StudyFileError(f"predictors: {name!r} stands twice; keep one.")
    size = design_for(predictors, setting).size
    if size > MAX_DESIGN_COLUMNS:
        raise StudyFileError(
            f"These predictors make {size} columns; a model may have {MAX_DESIGN_COLUMNS}. "
            "Leave out predictors or merge levels."
        )


def known(name: str, setting: Setting) -> StudyVariable:
    """Raises: StudyFileError: the study has no such variable."""
    if name not in setting.variables:
        raise StudyFileError(f"{name!r} is not among the study's variables; declare it or correct the name.")
    return setting.variables[name]


def design_for(predictors: Sequence[str], setting: Setting) -> Design:
    """The design that a study's predictors make; a function of public facts alone."""
    used = tuple(known(name, setting) for name in predictors)
    columns = [Column("intercept", "intercept")]
    for predictor in used:
        columns += _columns(predictor, indicate=setting.missing == "indicate")
    return Design(used, tuple(columns))


def _columns(used: StudyVariable, *, indicate: bool) -> list[Column]:
    v = used.variable
    columns: list[Column] = []
    if v.kind == "number":
        columns.append(Column(f"ln {v.name}" if used.log else v.name, "number", v.name))
    elif v.kind == "binary":
        columns.append(Column(v.name, "binary", v.name))
    else:
        reference = _reference(used)
        columns += [Column(f"{v.name}={s}", "level", v.name, i) for i, s in enumerate(v.levels) if i != reference]
    if indicate:
        columns.append(Column(f"{v.name} missing", "missing", v.name))
    return columns


def _reference(used: StudyVariable) -> int:
    return used.variable.levels.index(used.reference_level) if used.reference_level else 0


def bounds(used: StudyVariable) -> tuple[float, float]:
    """Public range of a number as it enters a model: after the logarithm if there is one."""
    low, high = used.variable.low, used.variable.high
    return (float(np.log(low)), float(np.log(high))) if used.log else (low, high)


def raw_scaling(design: Design) -> Scaling:
    """Columns after the logarithm, unscaled; a missing number stands at the study's public centre.

    `raw_coefficients` and the model file are written over these columns."""
    n = len(design.numbers)
    return Scaling(np.zeros(n), np.ones(n), np.array([v.centre for v in design.numbers], dtype=np.float64))


def unit_scaling(design: Design) -> Scaling:
    """The public range of every number mapped to [-1, 1], a missing one at 0."""
    ranges = [bounds(v) for v in design.numbers]
    middles = np.array([(low + high) / 2 for low, high in ranges], dtype=np.float64)
    return Scaling(middles, np.array([(high - low) / 2 for low, high in ranges], dtype=np.float64), middles)


def study_scaling(design: Design, centres: Array, spreads: Array) -> Scaling:
    """As the study file says; `centres`, `spreads` [numbers] serve those that it scales by "pooled"."""
    pairs = [
        {"none": (0.0, 1.0), "reference": (v.centre, v.spread), "pooled": (c, s)}[v.scale]
        for v, c, s in zip(design.numbers, centres.tolist(), spreads.tolist(), strict=True)
    ]
    fills = np.array(
        [v.centre if v.scale == "none" else pair[0] for v, pair in zip(design.numbers, pairs, strict=True)],
        dtype=np.float64,
    )
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return Scaling(table[:, 0], table[:, 1], fills)


def transfer(design: Design, old: Scaling, new: Scaling) -> Array:
    """[p, p] T such that coefficients T b over `new` columns predict what b predicts over `old` ones.

    A number's part of the linear predictor is b0 + b (x - c) / s, and b0 + b (fill - c) / s + m where it is
    missing; T keeps both alike. Covariances go over as T V T'.
    """
    t = np.eye(design.size)
    for i, used in enumerate(design.numbers):
        at, flag = design.position(used.variable.name, "number"), design.position(used.variable.name, "missing")
        slope = 1 / old.spreads[i]
        t[at, at] = slope * new.spreads[i]
        t[0, at] += slope * (new.centres[i] - old.centres[i])
        if flag >= 0:
            t[flag, at] = slope * (old.fills[i] - new.fills[i])
    return t


def usable(v: Variable, raw: Array) -> Mask:
    """[n] true where a value is what its declaration allows; NaN, infinities and strange codes are not.

    Of an image `raw` says who has one; the image itself was judged when it was opened."""
    if v.kind == "number":
        return np.asarray((raw >= v.low) & (raw <= v.high))
    if v.kind == "image":
        return np.asarray(raw == 1.0)
    top = 1 if v.kind == "binary" else len(v.levels) - 1
    return np.asarray((raw >= 0) & (raw <= top) & (np.floor(raw) == raw))


def values(used: StudyVariable, data: Dataset) -> Array:
    """[n] as the variable enters a model (after the logarithm), NaN where missing or unusable."""
    raw = data.column(used.variable.name)
    clean = np.where(usable(used.variable, raw), raw, np.nan)
    if not used.log:
        return clean
    with np.errstate(divide="ignore", invalid="ignore"):
        logged = np.log(clean)
    return np.where(np.isfinite(logged), logged, np.nan)


def present(names: Sequence[str], setting: Setting, data: Dataset) -> Mask:
    """[n] true for patients who have a usable value of every named variable."""
    there = np.ones(len(data), dtype=np.bool_)
    for name in names:
        there &= np.isfinite(values(known(name, setting), data))
    return there


def included(predictors: Sequence[str], outcome: str, setting: Setting, data: Dataset) -> Mask:
    """[n] true for patients whom a model of `outcome` on `predictors` counts under the study's missing rule."""
    return present([outcome, *(predictors if setting.missing == "drop" else [])], setting, data)


def matrix(design: Design, scaling: Scaling, data: Dataset) -> Array:
    """float64 [n, p], finite whatever the data hold; a missing number is at its fill, other values at 0."""
    x = np.zeros((len(data), design.size))
    x[:, 0] = 1.0
    scales = dict(zip((v.variable.name for v in design.numbers), _rows(scaling), strict=True))
    read = {p.variable.name: values(p, data) for p in design.predictors}
    for at, column in enumerate(design.columns):
        if column.kind == "number":
            centre, spread, fill = scales[column.variable]
            value = read[column.variable]
            x[:, at] = (np.where(np.isnan(value), fill, value) - centre) / spread
        elif column.kind == "binary":
            x[:, at] = read[column.variable] == 1
        elif column.kind == "level":
            x[:, at] = read[column.variable] == column.level
        elif column.kind == "missing":
            x[:, at] = np.isnan(read[column.variable])
    return x


def _rows(scaling: Scaling) -> list[tuple[float, float, float]]:
    return list(
        zip(scaling.centres.tolist(), scaling.spreads.tolist(), scaling.fills.tolist(), strict=True)
    )  # one (centre, spread, fill) per number


def terms(design: Design) -> list[dict[str, str]]:
    """What each column is, for the model file: which variable, which level, logarithm or not."""
    by_name = {p.variable.name: p for p in design.predictors}
    found = []
    for column in design.columns:
        used = by_name.get(column.variable)
        level = used.variable.levels[column.level] if used is not None and column.kind == "level" else ""
        found.append(
            {
                "column": column.name,
                "kind": column.kind,
                "variable": column.variable,
                "level": level,
                "transform": "ln" if used is not None and column.kind == "number" and used.log else "",
            }
        )
    return found
