"""Choosing among models under noise: all are fitted and compared in one question, at one price.

Every score that is opened is charged; what is saved is what need not be opened:
    one fit for models that differ in what is made of it: under noise a penalised logistic regression is the plain
        one's sums and a penalty afterwards, so that any number of strengths costs one fit;
    no score of a model, but how far its loss is from the mean loss of all models on the same patient. Models that are
        worth comparing lose nearly alike on one patient, so that the vector of differences is short: it is shrunk to
        a public length, and noise is as large as that length.
Patients are split into folds as for `cross-validate`; a model is scored on those that its fit has not seen.

Steps: those of all fits side by side, each row divided by its own norm, so that all fits have the same part of the
noise; then [difference of loss from the mean of all, per model | a public part of that length, which adds up to n].

Sources: Papernot and Steinke 2022 for what selection costs where losers stay closed, which they do not where sums are
opened; docs/decisions/0022-choosing-a-model.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
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
from flute.algorithms.expected import Expected
from flute.algorithms.linear import read_parameters
from flute.algorithms.made_up import Assumed
from flute.algorithms.scores import Z_95
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import MAX_VECTOR
from flute.defaults.models.around_models import (
    CHOICE_MOST_MODELS,
    CHOICE_REACH,
    CHOICE_SCORE_WEIGHT,
    CHOICE_SIZE_PART,
    LOSS_CAP,
)
from flute.errors import MisuseError, StudyFileError
from flute.models.regression.glm import GeneralisedLinearModel
from flute.models.regression.penalised import PenalisedRegression
from flute.models.validation.fits import Fitted, parameters_of, reached
from flute.models.validation.folds import asked_of, folds_of, split_asked

_NOISED: Final = (PenalisedRegression, GeneralisedLinearModel)
"""Models whose private binomial fit opens what logistic-regression opens, and differs in what is made of it."""


class ChooseModel(Spec, frozen=True, tag="choose-model"):
    """Which of several models does best on patients that it has not seen; private studies only.

    models: questions that make models, written out. loss: of which the mean is compared."""

    models: Annotated[
        tuple[Fitted, ...],
        Meta(min_length=2, max_length=CHOICE_MOST_MODELS),
    ]
    loss: Literal["log-loss", "brier"] = "log-loss"
    folds: Annotated[int, Meta(ge=2, le=10)] = 2
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0


@dataclass(frozen=True, slots=True)
class _Fit:
    """What is fitted once in every fold. models: places of those that are made of it."""

    spec: Spec
    algorithm: Algorithm
    shapes: tuple[StepShape, ...]
    models: tuple[int, ...]


class ChooseModelAlgorithm:
    """See the module's head. models: kind of question to what answers it and what scores its model."""

    name: ClassVar[str] = "choose-model"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Which of several models does best on patients that it was not fitted on, by how much, and how sure that "
            "is. The fits themselves are not part of the result."
        ),
        bounded_by=(
            "A patient is in all fits of a model but one: his row is as many rows of each distinct fit, each bounded "
            "as its model says. In the scores he is a vector of differences of losses, shrunk to a public length."
        ),
        leaked_otherwise="Nothing: every sum of every fit and every model's score are fixed beforehand and charged.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def __init__(self, models: Mapping[type[Spec], tuple[Algorithm, Scorer]]) -> None:
        self._models = models

    def check(self, spec: ChooseModel, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        if setting.mode == "exact":
            raise StudyFileError(
                "choose-model is for private studies; in an exact one ask cross-validate of each model; all scores "
                "are opened anyway."
            )
        for model in spec.models:
            algorithm, scorer = self._of(model)
            algorithm.check(model, setting)
            if spec.models.count(model) > 1:
                raise StudyFileError("models: one of them stands twice; keep one.")
            if scorer.outcome(model) != self._outcome(spec):
                raise StudyFileError("models: they predict different outcomes; choose among models of one.")
        if max(shape.size for shape in self.outline(spec, setting)) > MAX_VECTOR:
            raise StudyFileError("These models make too long a vector in so many folds; ask for fewer of either.")

    def fields(self, spec: ChooseModel, setting: Setting) -> tuple[str, ...]:
        named = [name for model in spec.models for name in self._of(model)[0].fields(model, setting)]
        return tuple(dict.fromkeys(named))

    def outline(self, spec: ChooseModel, setting: Setting) -> tuple[StepShape, ...]:
        fits, steps = self._fits(spec, setting), []
        longest = max(len(fit.shapes) for fit in fits)
        for step in range(longest):
            own = [fit.shapes[step] for fit in fits if step < len(fit.shapes)]
            weight = (1 - CHOICE_SCORE_WEIGHT) * sum(one.weight for one in own) / len(fits)
            norm = float(np.sqrt((spec.folds - 1) * len(own)))
            steps.append(StepShape(f"fits-{step}", spec.folds * sum(one.size for one in own), norm, weight, 1.0))
        models = len(spec.models)
        norm = float(np.hypot(1.0, CHOICE_SIZE_PART)) * _reach(spec)
        return (*steps, StepShape("scores", models + 1, norm, CHOICE_SCORE_WEIGHT, 1.0))

    def update(self, spec: ChooseModel, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract and the module's head."""
        fits, shapes = self._fits(spec, setting), self.outline(spec, setting)
        if not 0 <= step < len(shapes):
            raise MisuseError(f"This question has {len(shapes)} steps; there is no step {step}.")
        mine = folds_of(data, spec.seed, spec.folds)
        if step == len(shapes) - 1:
            asked = split_asked(parameters, spec.folds * len(spec.models), step)
            return self._scores(spec, setting, asked, mine, data)
        asked = split_asked(parameters, spec.folds * len(fits), step)
        rows, at = np.zeros((len(data), shapes[step].size)), 0
        for place, own in enumerate(asked):
            fit, fold = fits[place // spec.folds], place % spec.folds
            if step >= len(fit.shapes):
                continue
            shape = fit.shapes[step]
            if own is not None:
                seen = mine != fold
                made = fit.algorithm.update(fit.spec, setting, step, own, data.where(seen))
                rows[seen, at : at + shape.size] = made / shape.clip_norm
            at += shape.size
        return rows

    def _scores(
        self, spec: ChooseModel, setting: Setting, asked: Sequence[Array | None], mine: NDArray[np.int64],
        data: Dataset,
    ) -> Array:  # fmt: skip
        risks = np.full((len(data), len(spec.models)), 0.5)
        for place, own in enumerate(asked):
            model, held = place // spec.folds, mine == place % spec.folds
            if own is not None:
                scorer = self._of(spec.models[model])[1]
                size = scorer.size(spec.models[model], setting)
                read = read_parameters(own, size, 0, 1)
                risks[held, model] = scorer.risks(spec.models[model], setting, read, data.where(held))
        chosen = self._chosen(spec, setting, data)
        outcome = data.column(self._outcome(spec)) == 1
        return compared(_losses(risks, outcome, spec.loss), chosen, _reach(spec))

    def _chosen(self, spec: ChooseModel, setting: Setting, data: Dataset) -> Mask:
        """Patients on whom every model can be scored."""
        needed = [n for m in spec.models for n in self._of(m)[1].predictors(m)] if setting.missing == "drop" else []
        return present((self._outcome(spec), *dict.fromkeys(needed)), setting, data)

    def cells(self, spec: ChooseModel, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """None: there is no exact form."""
        return np.zeros(0, dtype=np.int64)

    def next(
        self, spec: ChooseModel, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        fits = self._fits(spec, setting)
        longest = max(len(fit.shapes) for fit in fits)
        own = _taken_apart(spec, fits, history[:longest])
        if len(history) < longest:
            stands = [reached(fit.algorithm, fit.spec, setting, own[k, fold])
                      for k, fit in enumerate(fits) for fold in range(spec.folds)]  # fmt: skip
            return asked_of([None if isinstance(one, dict) else one for one in stands])
        if len(history) == longest:
            of = {model: k for k, fit in enumerate(fits) for model in fit.models}
            return asked_of(
                [
                    self._parameters(model, setting, own[of[place], fold])
                    for place, model in enumerate(spec.models)
                    for fold in range(spec.folds)
                ]
            )
        return Finished(_told(spec, history[-1], len(fits)))

    def expected_errors(
        self, spec: ChooseModel, setting: Setting, sigmas: Sequence[float], assumed: Assumed
    ) -> Sequence[Expected]:
        """See `algorithms.expected`: the noise in a difference depends on no record but their number."""
        apart, n = _noise(spec, sigmas[-1], assumed.patients * len(setting.hubs))
        unit = "nats" if spec.loss == "log-loss" else ""
        return (
            Expected("n", 0.0, n, Z_95 * n, "patients"),
            Expected("difference of two models", 0.0, apart, Z_95 * apart, unit),
        )

    def _parameters(self, model: Spec, setting: Setting, history: Sequence[Opened]) -> Array | None:
        algorithm, scorer = self._of(model)
        return parameters_of(scorer, model, setting, reached(algorithm, model, setting, history))

    def _outcome(self, spec: ChooseModel) -> str:
        return self._of(spec.models[0])[1].outcome(spec.models[0])

    def _of(self, model: Spec) -> tuple[Algorithm, Scorer]:
        """Raises: StudyFileError: nothing here fits that model by sums."""
        found = self._models.get(type(model))
        if found is None or isinstance(found[0], JointAlgorithm):
            raise StudyFileError("models: one of them is of a kind that is no sum over patients.")
        return found

    def _fits(self, spec: ChooseModel, setting: Setting) -> tuple[_Fit, ...]:
        """In the order of their first models."""
        places: dict[Spec, list[int]] = {}
        for place, model in enumerate(spec.models):
            places.setdefault(_opens(model), []).append(place)
        found = []
        for fitted, models in places.items():
            algorithm = self._of(fitted)[0]
            found.append(_Fit(fitted, algorithm, algorithm.outline(fitted, setting), tuple(models)))
        return tuple(found)


def _opens(model: Spec) -> Spec:
    """The question whose sums a private fit of this model opens."""
    if isinstance(model, _NOISED) and model.family == "binomial":
        return LogisticRegression(model.outcome, model.predictors)
    return model


def _taken_apart(spec: ChooseModel, fits: Sequence[_Fit], history: Sequence[Opened]) -> dict[Any, list[Opened]]:
    """(fit, fold) to what was opened of it, in its own unit, until it had ended."""
    own: dict[Any, list[Opened]] = {(k, fold): [] for k in range(len(fits)) for fold in range(spec.folds)}
    for step, opened in enumerate(history):
        asked, at = split_asked(opened.parameters, spec.folds * len(fits), step), 0
        for place, parameters in enumerate(asked):
            k, fold = divmod(place, spec.folds)
            if step >= len(fits[k].shapes):
                continue
            shape = fits[k].shapes[step]
            if parameters is not None:
                total = opened.total[at : at + shape.size] * shape.clip_norm
                own[k, fold].append(Opened(parameters, total, opened.sigma * shape.clip_norm))
            at += shape.size
    return own


def _losses(risks: Array, outcome: Mask, loss: str) -> Array:
    """[n, models] in [0, 1]: squared error, or log-loss by its cap."""
    happened = np.where(outcome[:, None], risks, 1 - risks)
    if loss == "brier":
        return np.asarray((1 - happened) ** 2)
    return np.minimum(-np.log(np.maximum(happened, np.exp(-LOSS_CAP))), LOSS_CAP) / LOSS_CAP


def _reach(spec: ChooseModel) -> float:
    """Length of a patient's vector of differences, at most."""
    return CHOICE_REACH[spec.loss] * float(np.sqrt(len(spec.models)))


def compared(losses: Array, chosen: Mask, reach: float) -> Array:
    """[n, models + 1]: each loss less the patient's mean one, shrunk to length `reach`; then his part of n."""
    apart = losses - losses.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(apart, axis=1)
    shrunk = apart * (reach / np.maximum(lengths, reach))[:, None]
    return np.column_stack([shrunk, np.full(len(losses), CHOICE_SIZE_PART * reach)]) * chosen[:, None]


def _noise(spec: ChooseModel, sigma: float, people: float) -> tuple[float, float]:
    """Deviations of the noise in the difference of two models, in the unit of their score, and in n."""
    unit = LOSS_CAP if spec.loss == "log-loss" else 1.0
    return float(np.sqrt(2)) * unit * sigma / people, sigma / (CHOICE_SIZE_PART * _reach(spec))


def _told(spec: ChooseModel, opened: Opened, fits: int) -> dict[str, Any]:
    unit = LOSS_CAP if spec.loss == "log-loss" else 1.0
    n = float(opened.total[-1]) / (CHOICE_SIZE_PART * _reach(spec))
    people = max(n, 1.0)
    apart, n_noise = _noise(spec, opened.sigma, people)
    means = unit * opened.total[:-1] / people
    order = np.argsort(means, kind="stable")
    best = int(order[0])
    return {
        "best": best,
        "best_model": msgspec.json.decode(msgspec.json.encode(spec.models[best])),
        "loss": spec.loss,
        "n": n,
        "n_noise_se": n_noise,
        "models": [
            {
                "model": str(model.__struct_config__.tag),
                "settings": _settings(model, spec.models),
                "above_best": float(mean - means[best]),
                "above_best_noise_se": apart * (k != best),
            }
            for k, (model, mean) in enumerate(zip(spec.models, means, strict=True))
        ],
        "told_apart": bool(means[order[1]] - means[best] > 2 * apart),
        "fits": fits,
    }


def _settings(model: Spec, models: Sequence[Spec]) -> dict[str, Any]:
    """In what a model differs from others of its kind."""
    alike = [other for other in models if type(other) is type(model)]
    found = {name: getattr(model, name) for name in model.__struct_fields__}
    told = {name: v for name, v in found.items() if any(getattr(other, name) != v for other in alike)}
    return dict(msgspec.to_builtins(told))
