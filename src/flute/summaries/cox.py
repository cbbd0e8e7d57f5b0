"""Cox's proportional hazards regression, exact, on a public time grid (`partial_likelihood`).

There is no private mode: its sums by time are many, each step opens all of them again, and risk sets that get smaller
with time drown first. A private study may ask for `survival`, whose hazard ratios of groups are Cox's with that one
predictor, or for a logistic regression of the event by a fixed time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.design import (
    Design,
    check_design,
    design_for,
    known,
    matrix,
    present,
    study_scaling,
    transfer,
    unit_scaling,
)
from flute.algorithms.linear import plain_numbers, read_parameters, wald_table
from flute.algorithms.private_rows import private_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.summaries import COX_MAX_STEPS
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.summaries.blocks import Codes, bins_of, codes, declared, edges_of
from flute.summaries.partial_likelihood import (
    CoxFit,
    Events,
    asked_size,
    first_rows,
    first_size,
    next_cox,
    opened_events,
    step_rows,
    step_size,
)
from flute.summaries.survival import check_times

_SAID: Final = {
    "converged": "The fit converged.",
    "collinear": "Column {column} is a combination of earlier columns (or never varies); leave it out.",
    "separation-suspected": (
        "Who has the event first is (almost) decided by {column}: the partial likelihood has no finite maximum "
        "there. Merge levels or leave the predictor out; the coefficients shown are where the steps were stopped."
    ),
    "not-converged": "The steps that were agreed did not suffice; do not use these coefficients.",
    "no-events": "No patient who has the values that this model needs had the event.",
}


class Cox(Spec, frozen=True, tag="cox"):
    """Hazard ratios of predictors for the time to an event; ties by Breslow on `bins` parts of the times' range."""

    time: Name
    event: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)]
    bins: Annotated[int, Meta(ge=4, le=256)] = 24


class CoxAlgorithm:
    """Partial maximum likelihood, without penalty."""

    name: ClassVar[str] = "cox"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Hazard ratios with standard errors, the baseline hazard on a grid of times, the log partial likelihood, "
            "how many patients and events are behind them."
        ),
        bounded_by="Every number of a patient's row is at most 1, but no norm bounds what exact sums tell.",
        leaked_otherwise=(
            "At every step the coordinator sees, for each time of the grid, sums of the predictors over patients who "
            "leave at it, weighted by their hazard at the coefficients so far; at the first step that is how many "
            "have each value of a category. The floor is held against events and ends by time, and against single "
            "categories."
        ),
        event="sums opened without noise: no event; exact studies only",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Cox, setting: Setting) -> None:
        """Raises: StudyFileError."""
        if setting.mode == "private":
            raise StudyFileError(
                "cox has no private mode: its risk sets would drown in noise. Write 'exact:' instead of 'budget:', "
                "or ask for survival, which gives hazard ratios of groups, or for a logistic-regression of the event "
                "by a fixed time."
            )
        check_times(spec.time, spec.event, setting)
        if {spec.time, spec.event} & set(spec.predictors) or spec.time == spec.event:
            raise StudyFileError("predictors: time and event are what is predicted; leave them out.")
        check_design(spec.predictors, setting)
        pooled = [n for n in spec.predictors if known(n, setting).scale == "pooled"]
        if pooled:
            raise StudyFileError(
                f"{pooled[0]} has 'scale: pooled', which cox does not open sums for; write 'scale: reference' with a "
                "public centre and spread."
            )

    def fields(self, spec: Cox, setting: Setting) -> tuple[str, ...]:
        return (spec.time, spec.event, *spec.predictors)

    def outline(self, spec: Cox, setting: Setting) -> tuple[StepShape, ...]:
        p = design_for(spec.predictors, setting).size - 1
        weight = 1 / (COX_MAX_STEPS + 1)
        first = StepShape("events", first_size(p, spec.bins), float(np.sqrt(2 + p)), weight, 1.0)
        bound = float(np.sqrt(1 + p + p * (p + 1) / 2))
        return (
            first,
            *(StepShape(f"newton-{k}", step_size(p, spec.bins), bound, weight, 1.0) for k in range(COX_MAX_STEPS)),
        )

    def update(self, spec: Cox, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        design = design_for(spec.predictors, setting)
        size = asked_size(design.size - 1, spec.bins) if step else 0
        asked = read_parameters(parameters, size, step, COX_MAX_STEPS + 1)
        left_in = self._left_in(spec, setting, data)
        x = np.clip(matrix(design, unit_scaling(design), data)[:, 1:], -1.0, 1.0) * (left_in >= 0)[:, None]
        if step == 0:
            return first_rows(x, left_in, codes(spec.event, setting, data), spec.bins)
        return step_rows(x, left_in, spec.bins, asked)

    def _left_in(self, spec: Cox, setting: Setting, data: Dataset) -> Codes:
        """Bin of each patient's time; -1 for those whom the model leaves out."""
        needed = [spec.event, *(spec.predictors if setting.missing == "drop" else [])]
        v = known(spec.time, setting).variable
        return np.where(present(needed, setting, data), bins_of(v, declared(v, data), spec.bins), -1)

    def cells(self, spec: Cox, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Events and ends at every time, and patients in and out of every 0/1 column."""
        left_in, event = self._left_in(spec, setting, data), codes(spec.event, setting, data)
        chosen = left_in >= 0
        died = np.bincount(left_in[chosen & (event == 1)], minlength=spec.bins)
        ended = np.bincount(left_in[chosen & (event == 0)], minlength=spec.bins)
        design = design_for(spec.predictors, setting)
        x = matrix(design, unit_scaling(design), data)[chosen]
        flags = [i for i, c in enumerate(design.columns) if c.kind in ("binary", "level", "missing")]
        ones = np.array([int((x[:, i] == 1).sum()) for i in flags], dtype=np.int64)
        return np.concatenate([died, ended, ones, int(chosen.sum()) - ones]).astype(np.int64)

    def next(
        self, spec: Cox, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        design = design_for(spec.predictors, setting)
        events = opened_events(history[0], design.size - 1)
        if not events.died.any():
            return Finished(_without_events(spec, design, events))
        reached = next_cox(design, history)
        if isinstance(reached, CoxFit):
            return Finished(_result(spec, setting, design, events, reached))
        return Ask(reached)


def _head(spec: Cox, design: Design, events: Events) -> dict[str, Any]:
    return {
        "time": spec.time,
        "event": spec.event,
        "predictors": list(spec.predictors),
        "columns": list(design.names[1:]),
        "family": "proportional hazards",
        "n": int(events.n),
        "events": int(events.died.sum()),
    }


def _without_events(spec: Cox, design: Design, events: Events) -> dict[str, Any]:
    table = _ratios(wald_table(np.full(design.size - 1, np.nan), None))
    return {
        **_head(spec, design, events),
        "coefficients": [None] * (design.size - 1),
        **table,
        "baseline": None,
        "log_likelihood": None,
        "iterations": 0,
        "ending": "no-events",
        "ending_text": _SAID["no-events"],
        "not_estimated": [],
    }


def _ratios(table: dict[str, Any]) -> dict[str, Any]:
    """Wald's table, its odds ratios being hazard ratios here."""
    return {("hazard_ratios" if key == "odds_ratios" else key): value for key, value in table.items()}


def _result(spec: Cox, setting: Setting, design: Design, events: Events, found: CoxFit) -> dict[str, Any]:
    fit, reference = found.fit, private_scaling(design)
    scaling = study_scaling(design, reference.centres, reference.spreads)
    carry = transfer(design, unit_scaling(design), scaling)
    there = np.array([name not in fit.absent for name in design.names[1:]])
    moved = carry @ fit.coefficients
    errors = None
    if fit.covariance is not None:
        errors = np.where(there, np.sqrt(np.maximum(np.diag(carry @ fit.covariance @ carry.T), 0.0))[1:], np.nan)
    # hazards of a patient whose every column is 0 on the study's scale
    steps = np.where(events.died > 0, events.died / np.maximum(found.hazard, 1e-300), 0.0)
    return {
        **_head(spec, design, events),
        "coefficients": plain_numbers(np.where(there, moved[1:], 0.0)),
        **_ratios(wald_table(np.where(there, moved[1:], 0.0), errors)),
        "baseline": {
            "times": edges_of(known(spec.time, setting).variable, spec.bins)[1:].tolist(),
            "cumulative_hazard": plain_numbers(np.cumsum(steps) * np.exp(min(float(moved[0]), 700.0))),
        },
        "log_likelihood": fit.log_likelihood,
        "iterations": fit.iterations,
        "ending": fit.ending,
        "ending_text": _SAID[fit.ending].format(column=fit.column),
        "not_estimated": [name for name in fit.absent if name != design.names[0]],
    }
