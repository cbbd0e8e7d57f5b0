"""Risks of patients in a local frame by a released model: on this machine alone, with the hubs' own code."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from flute.algorithms.contract import NeedsParts, Spec, StudyVariable
from flute.algorithms.design import design_for, matrix, raw_scaling
from flute.data.dataset import Dataset, Images
from flute.data.variables import Array, Variable
from flute.errors import MisuseError, NotPossible
from flute.intake.arrays import read_array
from flute.intake.pixels import usable_image
from flute.questions.registry import REGISTRY, algorithm_for
from flute.sdk.extras import loaded
from flute.sdk.results.result import Result


def risks(result: Result, frame: Any) -> Array:
    """float64 [n] in [0, 1]; NaN where the study drops patients with a missing predictor and one is missing.

    Raises: MisuseError: no model, a column is absent, the model has no parameters to score with, or needs a package
    that is not installed here."""
    what, setting = result.spec, result.agreement.setting
    scorer = REGISTRY[type(what)].scorer
    if scorer is None:
        raise MisuseError(f"{result.algorithm} makes no model; there is nothing to predict with.")
    _require_parts(what)
    names = scorer.predictors(what)
    data = dataset(frame, [setting.variables[name] for name in names])
    parameters = np.array(scorer.parameters(what, setting, result.value), dtype=np.float64)
    if parameters.shape != (scorer.size(what, setting),) or not np.isfinite(parameters).all():
        raise MisuseError("This model has no parameters to predict with; see the result's 'ending_text'.")
    risk = np.array(scorer.risks(what, setting, parameters, data), dtype=np.float64)
    if setting.missing == "drop":
        lacking = np.any([np.isnan(data.column(name)) for name in names], axis=0)
        risk[lacking] = np.nan
    return risk


def _require_parts(what: Spec) -> None:
    """Raises: MisuseError: see `risks`."""
    algorithm = algorithm_for(what)
    if isinstance(algorithm, NeedsParts):
        try:
            algorithm.require_parts(what)
        except NotPossible as error:
            raise MisuseError(error.text) from error


def means(result: Result, frame: Any) -> Array:
    """float64 [n]: what a linear model of something else than a 0/1 outcome expects of each patient, in its unit.

    NaN where a value that the model needs is missing. Raises: MisuseError: a column is absent."""
    what, setting = result.spec, result.agreement.setting
    predictors = tuple(what.predictors)  # type: ignore[attr-defined]
    exposure = getattr(what, "exposure", "")
    needed = [*predictors, *([exposure] if exposure else [])]
    data = dataset(frame, [setting.variables[name] for name in needed])
    design = design_for(predictors, setting)
    raw = np.array([math.nan if v is None else v for v in result.value["raw_coefficients"]])
    linear = matrix(design, raw_scaling(design), data) @ raw
    if exposure:
        linear = linear + np.log(data.column(exposure))
    lacking = [
        data.column(name) for name in (needed if setting.missing == "drop" else [exposure] if exposure else [])
    ]
    expected: Array = np.where(np.any(np.isnan(lacking), axis=0), np.nan, _INVERSE[result.value["link"]](linear))
    return expected


_INVERSE: Final[dict[str, Callable[[Array], Array]]] = {"identity": lambda eta: eta, "log": np.exp}
"""Of the links of outcomes that are no 0 or 1."""


def dataset(frame: Any, variables: list[StudyVariable]) -> Dataset:
    """Columns of a pandas DataFrame (or what it can be made of) as the hubs read theirs; others are not looked at.

    Raises: MisuseError: a column is absent."""
    pandas = loaded("pandas")
    table = frame if isinstance(frame, pandas.DataFrame) else pandas.DataFrame(frame)
    absent = [v.variable.name for v in variables if v.variable.name not in table.columns]
    if absent:
        raise MisuseError(f"The frame has no column {', '.join(absent)}, which the model needs.")
    declared = [v.variable for v in variables]
    columns = {v.name: v.numbers(cells(table[v.name])) for v in declared if v.kind != "image"}
    images: dict[str, Images] = {}
    for v in declared:
        if v.kind == "image":
            columns[v.name], images[v.name] = pictures(v, table[v.name])
    rows = np.array([str(i) for i in range(len(table))])
    return Dataset(rows, columns, declared, images)


def pictures(variable: Variable, column: Any) -> tuple[Array, Images]:
    """float64 [n], 1.0 where there is an image that `variable` allows, else NaN; and the images, float32 [n, *shape].

    column: of arrays, or paths of .npy files; one with a number out of range counts as missing, as at a hub.
    Raises: MisuseError: no array, or one of another shape."""
    stack = np.zeros((len(column), *(variable.shape or ())), dtype=np.float32)
    there = np.full(len(column), np.nan)
    for row, cell in enumerate(column, start=1):
        given = read_array(Path(cell)) if isinstance(cell, str | Path) and str(cell) else np.asarray(cell)
        if given.ndim == 0:  # nothing there
            continue
        found = usable_image(variable, given)
        if not isinstance(found, str):
            stack[row - 1], there[row - 1] = found, 1.0
        elif found != "out-of-range":
            said = "no array of numbers" if found == "no-array" else f"an array of shape {given.shape}"
            raise MisuseError(f"{variable.name}, row {row}: {said}; the model needs shape {variable.shape}.")
    return there, stack


def cells(column: Any) -> np.ndarray[Any, Any]:
    """object [n]; empty text where a value is missing, which is no number and no level."""
    values = column.astype(object).to_numpy(copy=True)
    values[column.isna().to_numpy()] = ""
    return np.asarray(values, dtype=object)
