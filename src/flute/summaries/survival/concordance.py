"""How well a score tells who has the event first: Harrell's concordance, on public grids of times and of scores.

One vector. Row: [left out | events by time and score | other ends by time and score], in private mode written for
prefix sums along both sides (`algorithms.prefix`); a patient fills one of the tables, so the norm is the product of
two histograms' norms.

The score is a number of the records, on equal bins of its declared range, or what an earlier `cox` of the study
predicts: its log hazard, on bins that hold equally many of patients spread normally as that result says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.special import ndtr

from flute.algorithms.contract import (
    Ask,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    Spec,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import Mask, bounds, design_for, known, matrix, present, study_scaling, values
from flute.algorithms.expected import Asked, Expected, exact_result, expected_errors
from flute.algorithms.linear import read_parameters
from flute.algorithms.made_up import Assumed, made_up_patients
from flute.algorithms.prefix import norm_squared, rows
from flute.algorithms.private_rows import private_scaling
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.summaries import CONCORDANCE_PREVIEW_ROWS, LARGEST_SCORE
from flute.errors import MisuseError, StudyFileError
from flute.messages.limits import Name
from flute.summaries.blocks import (
    bins_of,
    codes,
    declared,
    estimate,
    onto_noise,
    placed,
    require_kind,
    require_room,
)
from flute.summaries.survival.concordant_pairs import PairTable, concordance
from flute.summaries.survival.cox import Cox, CoxAlgorithm
from flute.summaries.survival.curves import check_times


class Concordance(Spec, frozen=True, tag="concordance"):
    """Harrell's concordance of a score with the time to an event: of `score`, a number that is the higher the earlier
    the event, or of what an earlier `cox` predicts."""

    time: Name
    event: Name
    score: Annotated[str, Meta(max_length=64)] = ""
    cox: Annotated[str, Meta(max_length=64)] = ""
    bins: Annotated[int, Meta(ge=4, le=128)] = 24
    score_bins: Annotated[int, Meta(ge=4, le=128)] = 24


class PairsAlgorithm:
    """A patient without time, event or score is left out."""

    name: ClassVar[str] = "concordance"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "How often, of two patients, the one with the higher score has the event first, with its interval; how "
            "many pairs tell; how many patients were left out."
        ),
        bounded_by=(
            "A patient adds one entry to one table of times by scores. The norm of that is the same for every range "
            "and every model and is exact: nothing is clipped away."
        ),
        leaked_otherwise=(
            "Nothing in private mode. In exact mode the coordinator sees how many patients with and without the "
            "event stand at each time and score; of a model's score any of these may be a single patient."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Concordance, setting: Setting) -> None:
        """Raises: StudyFileError."""
        check_times(spec.time, spec.event, setting)
        if bool(spec.score) == bool(spec.cox):
            raise StudyFileError("score: name either a number under 'score' or an earlier question under 'cox'.")
        if spec.score:
            require_kind("score", spec.score, setting, ("number",))
            if spec.score == spec.time:
                raise StudyFileError("score: time is what is predicted; name another number.")
        else:
            _check_model(spec, setting)
        require_room(self.outline(spec, setting)[0].size)

    def fields(self, spec: Concordance, setting: Setting) -> tuple[str, ...]:
        needed = (spec.score,) if spec.score else _cox(spec, setting).predictors
        return (spec.time, spec.event, *needed)

    def outline(self, spec: Concordance, setting: Setting) -> tuple[StepShape, ...]:
        private = setting.mode == "private"
        square = norm_squared(spec.bins, private=private) * norm_squared(spec.score_bins, private=private)
        return (StepShape("pairs", 1 + 2 * spec.bins * spec.score_bins, float(np.sqrt(square)), 1.0, 1.0),)

    def update(self, spec: Concordance, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. `parameters`: of a model its coefficients, and centre and spread of its log hazard."""
        size = 0 if spec.score else design_for(_cox(spec, setting).predictors, setting).size + 1
        asked = read_parameters(parameters, size, step, 1)
        if spec.score:
            place = _declared_place(known(spec.score, setting), data)
        else:
            place = _model_place(_cox(spec, setting), setting, asked, data)
        return _rows(spec, setting, place, data, private=setting.mode == "private")

    def cells(self, spec: Concordance, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Events and other ends at every time and score. Where a model's score puts patients is not known before; any
        place may hold a single one, so that one is counted as a cell, and events and ends by time."""
        if spec.score:
            place = _declared_place(known(spec.score, setting), data)
            return np.asarray(_rows(spec, setting, place, data, private=False).sum(axis=0), dtype=np.int64)
        there = _there(_cox(spec, setting), setting, data)
        whole = _rows(spec, setting, np.where(there, 0.0, np.nan), data, private=False).sum(axis=0)
        return np.append(whole, (whole[1:] > 0).any()).astype(np.int64)

    def next(
        self, spec: Concordance, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        """Raises: MisuseError: the model that is to be scored cannot be used, among `inputs`."""
        if not history:
            return Ask(()) if spec.score else Ask(_model_parameters(spec, setting, inputs))
        opened, private = history[0], setting.mode == "private"
        total = opened.total if private else np.round(opened.total)
        tables = total[1:].reshape(2, spec.bins, spec.score_bins)
        if private:
            time, score = onto_noise(np.eye(spec.bins)), onto_noise(np.eye(spec.score_bins))
            tables = time @ tables @ score.T
        v = known(spec.time, setting).variable
        return Finished(
            {
                "time": spec.time,
                "event": spec.event,
                "score": spec.score or spec.cox,
                "left_out": estimate(max(float(total[0]), 0.0), opened.sigma),
                "n": estimate(max(float(tables.sum()), 0.0), _noise_of_all(spec, opened.sigma) * float(np.sqrt(2))),
                "events": estimate(max(float(tables[0].sum()), 0.0), _noise_of_all(spec, opened.sigma)),
                **concordance(PairTable(tables[0], tables[1], opened.sigma)),
                "grid_step": (v.high - v.low) / spec.bins,
            }
        )


class ConcordanceAlgorithm(PairsAlgorithm):
    """Previews need what a model comes to before it can be scored."""

    def expected_errors(
        self, spec: Concordance, setting: Setting, sigmas: Sequence[float], assumed: Assumed
    ) -> Sequence[Expected]:
        """As of any other question; a model is scored as made-up patients give it."""
        each = any(scope == "each" for what, scope in setting.questions.values() if what == spec)
        people, inputs = assumed.patients * (1 if each else len(setting.hubs)), {}
        if spec.cox:
            made_up = made_up_patients(setting, assumed, CONCORDANCE_PREVIEW_ROWS)
            found = exact_result(CoxAlgorithm(), _cox(spec, setting), setting, made_up, people, {})
            inputs = {spec.cox: found}
        return expected_errors(Asked(PairsAlgorithm(), spec, setting, tuple(sigmas), people, inputs), assumed)


def _check_model(spec: Concordance, setting: Setting) -> None:
    """Raises: StudyFileError: no pooled cox that stands before this question."""
    asked, scope = setting.questions.get(spec.cox, (None, ""))
    if not isinstance(asked, Cox):
        raise StudyFileError(f"cox: {spec.cox!r} is no Cox regression of this study; ask for it first.")
    if scope == "each":
        raise StudyFileError(f"cox: {spec.cox!r} is one model of each hub; name a pooled one.")
    names = list(setting.questions)
    own = [name for name in names if setting.questions[name][0] == spec]
    if own and names.index(own[0]) < names.index(spec.cox):
        raise StudyFileError(f"cox: {spec.cox!r} stands after this question; ask for it first.")


def _cox(spec: Concordance, setting: Setting) -> Cox:
    found = setting.questions[spec.cox][0]
    if not isinstance(found, Cox):
        raise MisuseError(f"Question {spec.cox} is no cox.")
    return found


def _model_parameters(spec: Concordance, setting: Setting, inputs: Mapping[str, dict[str, Any]]) -> Array:
    """[columns + 2] coefficients on the study's scale, centre and spread."""
    result, cox = inputs.get(spec.cox, {}), _cox(spec, setting)
    told = result.get("log_hazard") or {}
    found = [*(result.get("coefficients") or ()), told.get("centre"), told.get("spread")]
    read = np.array([np.nan if v is None else float(v) for v in found])
    if len(read) != design_for(cox.predictors, setting).size + 1 or not np.isfinite(read).all():
        raise MisuseError(f"Model {spec.cox} has no parameters to score with; finish its question first.")
    return read


def _declared_place(used: StudyVariable, data: Dataset) -> Array:
    """[n] within [0, 1] of the declared range (after the logarithm), NaN where there is none."""
    low, high = bounds(used)
    return np.asarray(np.clip((values(used, data) - low) / (high - low), 0.0, 1.0))


def _there(cox: Cox, setting: Setting, data: Dataset) -> Mask:
    return present(cox.predictors if setting.missing == "drop" else (), setting, data)


def _model_place(cox: Cox, setting: Setting, asked: Array, data: Dataset) -> Array:
    """[n] within [0, 1]: part of patients below, were the log hazard spread normally; NaN where there is none."""
    design = design_for(cox.predictors, setting)
    reference = private_scaling(design)
    x = matrix(design, study_scaling(design, reference.centres, reference.spreads), data)[:, 1:]
    predicted = np.clip(x @ np.clip(asked[:-2], -LARGEST_SCORE, LARGEST_SCORE), -LARGEST_SCORE, LARGEST_SCORE)
    centre, spread = np.clip(asked[-2], -LARGEST_SCORE, LARGEST_SCORE), np.clip(asked[-1], 1e-9, LARGEST_SCORE)
    return np.where(_there(cox, setting, data), ndtr((predicted - centre) / spread), np.nan)


def _rows(spec: Concordance, setting: Setting, place: Array, data: Dataset, *, private: bool) -> Array:
    """[n, 1 + 2 bins score_bins]. place: [n] of the score, NaN where there is none."""
    time, event = known(spec.time, setting).variable, codes(spec.event, setting, data)
    at_time = bins_of(time, declared(time, data), spec.bins)
    at_score = np.where(np.isnan(place), -1, np.minimum(np.nan_to_num(place) * spec.score_bins, spec.score_bins - 1))
    there = (at_time >= 0) & (event >= 0) & (at_score >= 0)
    score = np.where(there, at_score, -1).astype(np.int64)
    by_time, by_score = (
        rows(index, size, private=private)
        for index, size in ((np.where(there, at_time, -1), spec.bins), (score, spec.score_bins))
    )
    table = (by_time[:, :, None] * by_score[:, None, :]).reshape(len(data), spec.bins * spec.score_bins)
    return np.column_stack([~there, placed(table, np.where(there, 1 - event, -1), 2)])


def _noise_of_all(spec: Concordance, sigma: float) -> float:
    """Deviation of the noise in the sum of one table."""
    sides = (onto_noise(np.ones(size)) for size in (spec.bins, spec.score_bins))
    return sigma * float(np.prod([np.linalg.norm(side) for side in sides]))
