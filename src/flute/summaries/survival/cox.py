"""Cox's proportional hazards regression, on a public time grid.

Exact: the partial likelihood, ties by Breslow, by Newton's method (`partial_likelihood`). Private: a noised life
table and moments, then three noised scores, each patient's bounded without moving a hazard ratio (`private_cox_rows`
at the hubs, `private_cox` where totals are opened); times count as they are, hazards being constant within a part of
the grid.
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
from flute.algorithms.linear import LEAST_INFORMED, deviations, or_none, plain_numbers, read_parameters, wald_table
from flute.algorithms.private_rows import private_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.summaries import COX_MAX_STEPS
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.summaries.blocks import Codes, bins_of, codes, declared, edges_of, require_room
from flute.summaries.survival.curves import check_times
from flute.summaries.survival.partial_likelihood import (
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
from flute.summaries.survival.private_cox import PrivateCoxFit, next_private_cox
from flute.summaries.survival.private_cox_rows import (
    Left,
    first_private_rows,
    private_outline,
    read_score,
    score_rows,
    score_size,
)

_SAID: Final = {
    "converged": "The fit converged.",
    "collinear": "Column {column} is a combination of earlier columns (or never varies); leave it out.",
    "separation-suspected": (
        "Who has the event first is (almost) decided by {column}: the partial likelihood has no finite maximum "
        "there. Merge levels or leave the predictor out; the coefficients shown are where the steps were stopped."
    ),
    "not-converged": "The steps that were agreed did not suffice; do not use these coefficients.",
    "no-events": "No patient who has the values that this model needs had the event.",
    "fixed-steps": "The agreed noised steps were taken; errors, intervals and tests hold the noise and chance.",
    "noise-dominated": (
        "The noise outweighs what these patients tell; do not use these coefficients. Give the question a larger "
        "share of the budget, fewer predictors or more hubs."
    ),
}


class Cox(Spec, frozen=True, tag="cox"):
    """Hazard ratios of predictors for the time to an event, on `bins` parts of the times' range.

    Exact: ties by Breslow. Private: a noised life table and three noised scores."""

    time: Name
    event: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)]
    bins: Annotated[int, Meta(ge=4, le=256)] = 24


class CoxAlgorithm:
    """Exact: partial maximum likelihood, without penalty. Private: Cox's score, bounded and noised."""

    name: ClassVar[str] = "cox"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Hazard ratios with standard errors, the baseline hazard on a grid of times, how many patients and "
            "events are behind them; in exact mode also the log partial likelihood."
        ),
        bounded_by=(
            "Private: a patient's row is shrunk to a norm that follows from the predictors' kinds alone, and adds "
            "one entry to a histogram of times; rows of scores are weighted down to norm 1. Exact: every number of "
            "a patient's row is at most 1, but no norm bounds what exact sums tell."
        ),
        leaked_otherwise=(
            "Private: nothing; the number of steps is fixed beforehand and every opened vector is charged. Exact: at "
            "every step the coordinator sees, for each time of the grid, sums of the predictors over patients who "
            "leave at it, weighted by their hazard at the coefficients so far; at the first step that is how many "
            "have each value of a category. The floor is held against events and ends by time, and against single "
            "categories."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Cox, setting: Setting) -> None:
        """Raises: StudyFileError."""
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
        require_room(max(step.size for step in self.outline(spec, setting)))

    def fields(self, spec: Cox, setting: Setting) -> tuple[str, ...]:
        return (spec.time, spec.event, *spec.predictors)

    def outline(self, spec: Cox, setting: Setting) -> tuple[StepShape, ...]:
        design = design_for(spec.predictors, setting)
        if setting.mode == "private":
            return private_outline(design, spec.bins)
        p = design.size - 1
        weight = 1 / (COX_MAX_STEPS + 1)
        first = StepShape("events", first_size(p, spec.bins), float(np.sqrt(2 + p)), weight, 1.0)
        bound = float(np.sqrt(1 + p + p * (p + 1) / 2))
        return (
            first,
            *(StepShape(f"newton-{k}", step_size(p, spec.bins), bound, weight, 1.0) for k in range(COX_MAX_STEPS)),
        )

    def update(self, spec: Cox, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        if setting.mode == "private":
            return self._private_rows(spec, setting, step, parameters, data)
        design = design_for(spec.predictors, setting)
        size = asked_size(design.size - 1, spec.bins) if step else 0
        asked = read_parameters(parameters, size, step, COX_MAX_STEPS + 1)
        left_in = self._left_in(spec, setting, data)
        x = np.clip(matrix(design, unit_scaling(design), data)[:, 1:], -1.0, 1.0) * (left_in >= 0)[:, None]
        if step == 0:
            return first_rows(x, left_in, codes(spec.event, setting, data), spec.bins)
        return step_rows(x, left_in, spec.bins, asked)

    def _private_rows(self, spec: Cox, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        design = design_for(spec.predictors, setting)
        size = score_size(design.size - 1, spec.bins) if step else 0
        asked = read_parameters(parameters, size, step, len(private_outline(design, spec.bins)))
        v, left_in = known(spec.time, setting).variable, self._left_in(spec, setting, data)
        place = np.where(left_in >= 0, (declared(v, data) - v.low) / (v.high - v.low) * spec.bins, 0.0)
        left = Left(left_in, np.clip(place - left_in, 0.0, 1.0), codes(spec.event, setting, data) == 1)
        x = matrix(design, private_scaling(design), data)
        if step == 0:
            return first_private_rows(design, x, left, spec.bins)
        return score_rows(design, x, left, read_score(asked, design.size - 1, spec.bins))

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
        if setting.mode == "private":
            fitted = next_private_cox(design, history, spec.bins)
            if isinstance(fitted, PrivateCoxFit):
                return Finished(_private_result(spec, setting, design, fitted, len(history)))
            return Ask(fitted)
        events = opened_events(history[0], design.size - 1)
        if not events.died.any():
            return Finished(_without_events(spec, design, events))
        reached = next_cox(design, history)
        if isinstance(reached, CoxFit):
            return Finished(_result(spec, setting, design, events, reached))
        return Ask(reached)


def _head(spec: Cox, design: Design, counted: Mapping[str, float]) -> dict[str, Any]:
    """counted: "n", "events" and the noise in each."""
    return {
        "time": spec.time,
        "event": spec.event,
        "predictors": list(spec.predictors),
        "columns": list(design.names[1:]),
        "family": "proportional hazards",
        **counted,
    }


def _counted(events: Events) -> dict[str, float]:
    return {"n": int(events.n), "n_noise_se": 0.0, "events": int(events.died.sum()), "events_noise_se": 0.0}


def _without_events(spec: Cox, design: Design, events: Events) -> dict[str, Any]:
    table = _ratios(wald_table(np.full(design.size - 1, np.nan), None))
    return {
        **_head(spec, design, _counted(events)),
        "coefficients": [None] * (design.size - 1),
        **table,
        "noise_standard_errors": None,
        "baseline": None,
        "log_hazard": None,
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
        **_head(spec, design, _counted(events)),
        "coefficients": plain_numbers(np.where(there, moved[1:], 0.0)),
        **_ratios(wald_table(np.where(there, moved[1:], 0.0), errors)),
        "noise_standard_errors": None,
        "baseline": {
            "times": edges_of(known(spec.time, setting).variable, spec.bins)[1:].tolist(),
            "cumulative_hazard": plain_numbers(np.cumsum(steps) * np.exp(min(float(moved[0]), 700.0))),
        },
        "log_hazard": _log_hazard(found, events, float(moved[0])),
        "log_likelihood": fit.log_likelihood,
        "iterations": fit.iterations,
        "ending": fit.ending,
        "ending_text": _SAID[fit.ending].format(column=fit.column),
        "not_estimated": [name for name in fit.absent if name != design.names[0]],
    }


def _log_hazard(found: CoxFit, events: Events, shift: float) -> dict[str, float] | None:
    """What the fit predicts for those who have the event, over the study's scale: mean and deviation."""
    fit, died = found.fit, float(events.died.sum())
    if fit.covariance is None:
        return None
    b = fit.coefficients
    spread = float(np.sqrt(max(float(b @ np.linalg.pinv(fit.covariance) @ b), 0.0) / died))
    return {"centre": float(b[1:] @ events.total) / died - shift, "spread": spread}


def _private_result(spec: Cox, setting: Setting, design: Design, fit: PrivateCoxFit, steps: int) -> dict[str, Any]:
    private = private_scaling(design)
    carry = transfer(design, private, study_scaling(design, private.centres, private.spreads))
    moved, over = carry @ np.append(0.0, fit.coefficients), carry[1:, 1:]
    told = fit.informed >= LEAST_INFORMED
    noise, sampling = deviations(over, fit.noise), deviations(over, fit.sampling)
    hazards = fit.hazards * np.exp(min(float(moved[0]), 700.0))
    ending = "fixed-steps" if told else "noise-dominated"
    events, ends = fit.table.events, fit.table.ends
    counted = {
        "n": max(0, round(events.prefix[-1] + ends.prefix[-1])),
        "n_noise_se": float(np.hypot(events.prefix_noise_sds()[-1], ends.prefix_noise_sds()[-1])),
        "events": max(0, round(events.prefix[-1])),
        "events_noise_se": float(events.prefix_noise_sds()[-1]),
    }
    return {
        **_head(spec, design, counted),
        "coefficients": plain_numbers(moved[1:]),
        **_ratios(wald_table(moved[1:], np.hypot(noise, sampling) if told else None)),
        "noise_standard_errors": or_none(noise),
        "sampling_standard_errors": or_none(sampling),
        "baseline": {
            "times": edges_of(known(spec.time, setting).variable, spec.bins)[1:].tolist(),
            "cumulative_hazard": plain_numbers(np.cumsum(hazards)),
        },
        "log_hazard": {"centre": fit.centre - float(moved[0]), "spread": fit.spread},
        "log_likelihood": None,
        "iterations": steps,
        "informed": fit.informed,
        "ending": ending,
        "ending_text": _SAID[ending],
        "not_estimated": [],
    }
