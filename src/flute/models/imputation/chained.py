"""Regression where values are missing: multiple imputation by chained equations, from sums alone.

Missing values of each variable are drawn from its regression on all others, one variable after the other, in
sweeps, for several imputations side by side; each imputation is analysed, and the analyses are put together by
Rubin's rules. Right where whether a value is missing depends on what is seen. `imputation.rows`: at the hubs;
`imputation.draws`: where totals are opened. Exact studies: with noise in every sum of a chain of thirty there would
be nothing left to analyse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.design import check_design, check_variable, known, matrix, present, raw_scaling
from flute.algorithms.linear import read_parameters
from flute.algorithms.newton import Fit, next_newton
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import MAX_DESIGN_COLUMNS
from flute.defaults.models.around_models import MAX_INCOMPLETE
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.models.imputation.draws import chance, newton_draw, number_draw, one_step
from flute.models.imputation.results import moments, told
from flute.models.imputation.rows import Layout, Stage, eligible, layout_for, stage_rows


class ImputedRegression(Spec, frozen=True, tag="imputed-regression"):
    """A linear or logistic regression over multiply imputed values.

    incomplete: the variables to impute; by default all predictors. Who lacks others is left out."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)]
    family: Literal["binomial", "gaussian"] = "binomial"
    incomplete: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()
    imputations: Annotated[int, Meta(ge=2, le=20)] = 5
    sweeps: Annotated[int, Meta(ge=1, le=20)] = 5
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0


class ImputedRegressionAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "imputed-regression"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Coefficients of a regression with standard errors that count in what was missing, the number of "
            "patients, and how many of them lack each variable."
        ),
        bounded_by=(
            "Every number of a patient's row is at most 1, but no norm bounds what exact sums tell. Imputed values "
            "are made at the hub, from its pseudonyms and a public seed, and stay there."
        ),
        leaked_otherwise=(
            "Exact studies only. The coordinator sees moments of each incomplete variable, and for every sweep, "
            "variable and imputation the products of all columns; from those, counts of any two categories can be "
            "worked out."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: ImputedRegression, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        if setting.mode == "private":
            raise StudyFileError(
                "Imputation opens too many sums to be of use under noise; ask in an exact study, or write 'missing: "
                "indicate' for a private fit."
            )
        if setting.missing != "drop":
            raise StudyFileError("imputed-regression replaces missing values; write 'missing: drop' for the study.")
        kind = known(spec.outcome, setting).variable.kind
        if kind != ("binary" if spec.family == "binomial" else "number"):
            raise StudyFileError(
                f"outcome: {spec.outcome!r} is {kind}; 'family: binomial' needs a binary variable, gaussian a number."
            )
        check_variable(known(spec.outcome, setting))
        if spec.outcome in spec.predictors:
            raise StudyFileError(f"predictors: {spec.outcome!r} is the outcome itself; leave it out.")
        check_design(spec.predictors, setting)
        self._check_incomplete(spec, setting)

    def _check_incomplete(self, spec: ImputedRegression, setting: Setting) -> None:
        for name in spec.incomplete:
            if name not in (spec.outcome, *spec.predictors) or spec.incomplete.count(name) > 1:
                raise StudyFileError(f"incomplete: {name!r} has to be the outcome or a predictor, named once.")
        layout = layout_for(spec, setting)
        if len(layout.targets) > MAX_INCOMPLETE:
            raise StudyFileError(
                f"incomplete: at most {MAX_INCOMPLETE} variables can be imputed; name those that lack."
            )
        for stage in layout.stages:
            if layout.coefficients(stage) > MAX_DESIGN_COLUMNS:
                name = layout.targets[stage.target].name
                raise StudyFileError(
                    f"incomplete: the levels of {name!r} take {layout.coefficients(stage)} coefficients on all other "
                    f"columns, and {MAX_DESIGN_COLUMNS} is the most. Merge levels, or leave it out of 'incomplete'."
                )

    def fields(self, spec: ImputedRegression, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: ImputedRegression, setting: Setting) -> tuple[StepShape, ...]:
        layout = layout_for(spec, setting)
        weight = 1 / len(layout.stages)
        return tuple(
            StepShape(_name(layout, stage), layout.size(stage), float(np.sqrt(layout.size(stage))), weight, 1.0)
            for stage in layout.stages
        )

    def update(self, spec: ImputedRegression, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. Parameters: all draws so far, then the coefficients that a Newton step is asked at."""
        layout = layout_for(spec, setting)
        size = layout.asked(step) if 0 <= step < len(layout.stages) else 0
        asked = read_parameters(parameters, size, step, len(layout.stages))
        return stage_rows(layout, setting, step, asked, data)

    def cells(self, spec: ImputedRegression, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients in and out of every 0/1 column and outcome, and with and without each incomplete variable."""
        layout = layout_for(spec, setting)
        chosen = eligible(layout, setting, data)
        x = matrix(layout.design, raw_scaling(layout.design), data)[chosen]
        coded = [i for i, column in enumerate(layout.design.columns) if column.kind in ("binary", "level")]
        flags: list[NDArray[Any]] = [x[:, i] for i in coded]
        for target in layout.targets:
            seen = present((target.name,), setting, data)[chosen]
            flags.append(~seen)
            if target.kind == "category":  # its reference level, which has no column
                flags.append(seen & ~x[:, target.columns].any(axis=1))
        if spec.family == "binomial":
            flags.append(data.column(spec.outcome)[chosen] == 1)
        ones = np.array([int(np.sum(flag)) for flag in flags], dtype=np.int64)
        return np.concatenate([ones, int(chosen.sum()) - ones])

    def next(
        self,
        spec: ImputedRegression,
        setting: Setting,
        history: Sequence[Opened],
        inputs: Mapping[str, dict[str, Any]],
    ) -> Ask | Finished:
        layout = layout_for(spec, setting)
        if not history:
            return Ask(())
        step = len(history)
        draws = np.append(history[-1].parameters[: layout.draws(step - 1)], _drawn(layout, history))
        if step == len(layout.stages):
            return Finished(told(layout, setting, history, _fits(layout, history)))
        stage = layout.stages[step]
        here = _start(layout, stage, history) if layout.newton(stage) else np.zeros(0)
        return Ask(np.concatenate([draws, here]))


def _name(layout: Layout, stage: Stage) -> str:
    if stage.kind == "impute":
        return f"{layout.targets[stage.target].name}-{stage.sweep}-{stage.inner}"
    return f"{stage.kind}-{stage.inner}"


def part(layout: Layout, stage: Stage, opened: Opened, m: int) -> Opened:
    """One imputation of a step, as asked and opened."""
    count, size = layout.coefficients(stage), layout.block(stage)
    own = opened.parameters[len(opened.parameters) - layout.spec.imputations * count :]
    return Opened(own[m * count : (m + 1) * count], opened.total[m * size : (m + 1) * size], 0.0)


def _drawn(layout: Layout, history: Sequence[Opened]) -> Array:
    """The draws that the last opened step makes known, [0] where it makes none."""
    spec, stage = layout.spec, layout.stages[len(history) - 1]
    if stage.kind == "moments":
        return _first(layout, history[-1].total)
    if stage.kind != "impute" or not stage.last:
        return np.zeros(0)
    count, found = layout.coefficients(stage), []
    for m in range(spec.imputations):
        u = chance(spec.seed, stage.sweep, stage.target, m, size=count + 1)
        if layout.newton(stage):
            found.append(newton_draw(*one_step(part(layout, stage, history[-1], m), count), u[:-1]))
        else:
            found.append(number_draw(_total(layout, stage, history[-1], m), count, u))
    return np.concatenate(found)


def _total(layout: Layout, stage: Stage, opened: Opened, m: int) -> Opened:
    size = layout.block(stage)
    return Opened((), opened.total[m * size : (m + 1) * size], 0.0)


def _first(layout: Layout, total: Array) -> Array:
    """What every target is drawn from at first: mean and deviation of what is observed, or shares of levels."""
    found = []
    for target, own in zip(layout.targets, moments(layout, total), strict=True):
        mean = own[1 : 1 + len(target.columns)] / max(float(own[0]), 1.0)
        square = own[1 + len(target.columns) :] / max(float(own[0]), 1.0)
        found += [mean, np.sqrt(np.maximum(square - mean**2, 0.0)) if len(square) else square]
    return np.concatenate(found)


def _start(layout: Layout, stage: Stage, history: Sequence[Opened]) -> Array:
    """Coefficients of all imputations to ask a Newton step at, flat."""
    spec, count = layout.spec, layout.coefficients(stage)
    if stage.kind == "fit":
        return np.concatenate([_reached(layout, history, m) for m in range(spec.imputations)])
    if stage.inner == 0 and stage.sweep == 0:
        return np.zeros(spec.imputations * count)
    before = len(history) - 1
    if stage.inner == 0:  # where this variable's last sweep ended
        before = max(k for k, s in enumerate(layout.stages[: len(history)])
                     if s.kind == "impute" and (s.target, s.last) == (stage.target, True))  # fmt: skip
    opened = history[before]
    return np.concatenate([one_step(part(layout, stage, opened, m), count)[0] for m in range(spec.imputations)])


def _fit(layout: Layout, history: Sequence[Opened], m: int) -> Array | Fit:
    """Where one imputation's logistic regression stands."""
    first = next(k for k, stage in enumerate(layout.stages) if stage.kind == "fit")
    path = [part(layout, layout.stages[first], opened, m) for opened in history[first:]]
    for seen in range(1, len(path) + 1):
        reached = next_newton(layout.design, path[:seen])
        if isinstance(reached, Fit):
            return reached
    return reached if path else np.zeros(layout.columns)


def _reached(layout: Layout, history: Sequence[Opened], m: int) -> Array:
    found = _fit(layout, history, m)
    return found.coefficients if isinstance(found, Fit) else found


def _fits(layout: Layout, history: Sequence[Opened]) -> list[Fit | None]:
    """Of each imputation; None for one that the agreed steps did not settle."""
    if layout.spec.family == "gaussian":
        return [None] * layout.spec.imputations
    found = [_fit(layout, history, m) for m in range(layout.spec.imputations)]
    return [one if isinstance(one, Fit) else None for one in found]
