"""Cross-validation: a model is fitted once for each fold on the patients of the others, and scored on the fold's
own.

All fits go side by side: a step opens one vector, the model's own step for each fold one behind the other. The last
step opens the scores of `evaluate` for every patient, by the one fit that has not seen him. `validation.folds`: whose
fold is which, and what is asked of all fits at once.

Private. A patient is in all fits but one: his row is K - 1 rows of the model, so its norm is sqrt(K - 1) times the
model's. In the scores he stands once, in one histogram for all folds together.
Source: Stone 1974. The interval of the mean over folds: LeDell, Petersen and van der Laan 2015, folds taken as
apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Algorithm,
    Ask,
    Finished,
    JointAlgorithm,
    LogisticRegression,
    Opened,
    Operation,
    PrivacyStatement,
    Scorer,
    Setting,
    Spec,
    StepShape,
)
from flute.algorithms.design import Mask, present
from flute.algorithms.linear import read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import MAX_VECTOR
from flute.defaults.models.around_models import CROSS_NEWTON_STEPS, CROSS_SCORE_WEIGHT
from flute.errors import MisuseError, StudyFileError
from flute.models.regression.glm import GeneralisedLinearModel
from flute.models.regression.penalised import PenalisedRegression
from flute.models.validation.fits import Fitted, Reached, parameters_of, reached
from flute.models.validation.folds import Indices, asked_of, folds_of, split_asked
from flute.models.validation.scores import block_norm, block_rows, block_size, told

_NEWTON: Final = (LogisticRegression, PenalisedRegression, GeneralisedLinearModel)
"""Models whose exact fit takes as many steps as it needs."""


class CrossValidate(Spec, frozen=True, tag="cross-validate"):
    """How well a model does on patients that it has not seen. model: the question that makes one, written out."""

    model: Fitted
    folds: Annotated[int, Meta(ge=2, le=10)] = 5
    bins: Annotated[int, Meta(ge=8, le=256)] = 64
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0


class CrossValidateAlgorithm:
    """See the module's head. models: kind of question to what answers it and what scores its model."""

    name: ClassVar[str] = "cross-validate"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "ROC curve and area, calibration, Brier score, log-loss and net benefit of a model on patients that it "
            "was not fitted on; in exact mode also per fold. The fits themselves are not part of the result."
        ),
        bounded_by=(
            "A patient is in all fits but one: his row is as many rows of the model, each bounded as the model says, "
            "and in the scores one histogram entry and three numbers within 1/2 of 0."
        ),
        leaked_otherwise=(
            "Private: nothing; every fold's sums are fixed beforehand and charged. Exact: all that the model opens, "
            "once per fold, to the coordinator; the difference of two folds' sums tells of the patients of a fold."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def __init__(self, models: Mapping[type[Spec], tuple[Algorithm, Scorer]]) -> None:
        self._models = models

    def check(self, spec: CrossValidate, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        algorithm, scorer = self._model(spec)
        algorithm.check(spec.model, setting)
        scorer.outcome(spec.model)
        if max(shape.size for shape in self.outline(spec, setting)) > MAX_VECTOR:
            raise StudyFileError("This model makes too long a vector in so many folds; ask for fewer folds or bins.")

    def fields(self, spec: CrossValidate, setting: Setting) -> tuple[str, ...]:
        return self._model(spec)[0].fields(spec.model, setting)

    def outline(self, spec: CrossValidate, setting: Setting) -> tuple[StepShape, ...]:
        private, fits = setting.mode == "private", spec.folds - 1
        own = self._steps(spec, setting)
        weight = (1 - CROSS_SCORE_WEIGHT) / sum(one.weight for one in own)
        steps = [
            replace(
                one, name=f"folds-{one.name}", size=spec.folds * one.size, weight=weight * one.weight,
                clip_norm=float(np.sqrt(fits)) * one.clip_norm,
            )
            for one in own
        ]  # fmt: skip
        blocks = 1 if private else spec.folds
        norm = block_norm(spec.bins, private=private)
        return (*steps, StepShape("scores", blocks * block_size(spec.bins), norm, CROSS_SCORE_WEIGHT, 1.0))

    def update(self, spec: CrossValidate, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract and the module's head."""
        algorithm, _ = self._model(spec)
        steps = self._steps(spec, setting)
        if not 0 <= step <= len(steps):
            raise MisuseError(f"This question has {len(steps) + 1} steps; there is no step {step}.")
        folds = split_asked(parameters, spec.folds, step)
        mine = folds_of(data, spec.seed, spec.folds)
        if step == len(steps):
            return self._scores(spec, setting, folds, mine, data)
        size = steps[step].size
        rows = np.zeros((len(data), spec.folds * size))
        for fold, own in enumerate(folds):
            if own is not None:
                seen = mine != fold
                rows[seen, fold * size : (fold + 1) * size] = algorithm.update(
                    spec.model, setting, step, own, data.where(seen)
                )
        return rows

    def _scores(
        self, spec: CrossValidate, setting: Setting, folds: Sequence[Array | None], mine: Indices,
        data: Dataset,
    ) -> Array:  # fmt: skip
        _, scorer = self._model(spec)
        size, private = scorer.size(spec.model, setting), setting.mode == "private"
        risk, scored = np.full(len(data), 0.5), self._chosen(spec, setting, data)
        for fold, own in enumerate(folds):
            held = mine == fold
            if own is None:
                scored &= ~held
            else:
                read = read_parameters(own, size, 0, 1)
                risk[held] = scorer.risks(spec.model, setting, read, data.where(held))
        outcome = data.column(scorer.outcome(spec.model)) == 1
        block = block_rows(risk, outcome, scored, spec.bins, private=private)
        if private:
            return block
        return np.hstack([block * (mine == fold)[:, None] for fold in range(spec.folds)])

    def _chosen(self, spec: CrossValidate, setting: Setting, data: Dataset) -> Mask:
        _, scorer = self._model(spec)
        needed = scorer.predictors(spec.model) if setting.missing == "drop" else ()
        return present((scorer.outcome(spec.model), *needed), setting, data)

    def cells(self, spec: CrossValidate, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """The model's for every fit, patients of every fold with the outcome and without; and one, since a bin of a
        risk that is not known yet may hold a single patient."""
        algorithm, scorer = self._model(spec)
        mine, chosen = folds_of(data, spec.seed, spec.folds), self._chosen(spec, setting, data)
        outcome = data.column(scorer.outcome(spec.model)) == 1
        fits = [algorithm.cells(spec.model, setting, data.where(mine != fold)) for fold in range(spec.folds)]
        held = [
            int(np.sum(chosen & (mine == k) & (outcome == side))) for k in range(spec.folds) for side in (True, False)
        ]
        return np.concatenate([*fits, np.array([*held, int(chosen.any())], dtype=np.int64)])

    def next(
        self, spec: CrossValidate, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        steps = self._steps(spec, setting)
        fits = [self._fold(spec, setting, fold, history[: len(steps)]) for fold in range(spec.folds)]
        if len(history) < len(steps):
            return asked_of([None if isinstance(one, dict) else one for one in fits])
        models = [parameters_of(self._model(spec)[1], spec.model, setting, one) for one in fits]
        if len(history) == len(steps):
            return asked_of(models)
        endings = [_ending(one, model) for one, model in zip(fits, models, strict=True)]
        scores = told(history[-1], spec.folds, spec.bins, endings, private=setting.mode == "private")
        return Finished({"model": spec.model.__struct_config__.tag, "folds_asked": spec.folds, **scores})

    def _fold(self, spec: CrossValidate, setting: Setting, fold: int, history: Sequence[Opened]) -> Reached:
        """Where one fold's fit stands after what was opened."""
        algorithm, _ = self._model(spec)
        own: list[Opened] = []
        for step, opened in enumerate(history):
            asked = split_asked(opened.parameters, spec.folds, step)[fold]
            if asked is None:
                break
            size = len(opened.total) // spec.folds
            own.append(Opened(asked, opened.total[fold * size : (fold + 1) * size], opened.sigma))
        return reached(algorithm, spec.model, setting, own)

    def _model(self, spec: CrossValidate) -> tuple[Algorithm, Scorer]:
        """Raises: StudyFileError: nothing here fits that model by sums."""
        found = self._models.get(type(spec.model))
        if found is None or isinstance(found[0], JointAlgorithm):
            raise StudyFileError("model: a model of this kind cannot be cross-validated; it is no sum over patients.")
        return found

    def _steps(self, spec: CrossValidate, setting: Setting) -> tuple[StepShape, ...]:
        """The model's own, each as long as one fold's."""
        steps = self._model(spec)[0].outline(spec.model, setting)
        newton = setting.mode == "exact" and isinstance(spec.model, _NEWTON)
        return steps[:CROSS_NEWTON_STEPS] if newton else steps


def _ending(fit: Reached, model: Array | None) -> str:
    if not isinstance(fit, dict):
        return "not-converged"
    return str(fit.get("ending") or ("fitted" if model is not None else "no-model"))
