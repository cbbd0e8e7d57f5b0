"""Gradient boosting of the logistic loss.

Exact: trees one after the other, each grown level by level from histograms of first and second derivatives, as
pooled boosting on the same bins would. Private: one predictor at a time (`additive`), which noise harms far less.
Source: Friedman 2001, "Greedy function approximation"; second-order gains and leaves: Chen and Guestrin 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.special import expit

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.linear import read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.models.trees import LARGEST_MARGIN, MAX_MODEL_NUMBERS
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.models.features import Cuts, Feature, Indices, cases_among, check_features, codes, cuts_for, features_for
from flute.models.trees import additive
from flute.models.trees.histograms import (
    Level,
    decide,
    importances,
    level_histograms,
    level_rows,
    nested,
    no_splits,
    nodes,
    opened_nodes,
    opened_places,
    places,
    read_splits,
    stands,
)
from flute.models.trees.tree import class_cells, class_rows, model_numbers, require_short

_LEAST_CURVATURE: Final = 1.0
"""Sum of p (1 - p) that either side of a split has at least: four patients at even odds, more elsewhere."""
_SHOWN_TREES: Final = 10
"""The first so many are said in words."""


class GradientBoosting(Spec, frozen=True, tag="gradient-boosting"):
    """`rounds` trees of at most `max_depth` questions, each added with weight `learning_rate`; `penalty`, in units of
    curvature, draws leaves towards 0. Private mode: one curve per predictor, and `cycles` visits to each instead."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    rounds: Annotated[int, Meta(ge=1, le=200)] = 50
    max_depth: Annotated[int, Meta(ge=1, le=5)] = 3
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.1
    penalty: Annotated[float, Meta(ge=0, le=1e6)] = 1.0
    bins: Annotated[int, Meta(ge=4, le=64)] = 16
    cycles: Annotated[int, Meta(ge=1, le=5)] = 2


class GradientBoostingAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "gradient-boosting"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "How many patients there are and how many have the outcome; a model: in exact mode a list of trees, in "
            "private mode, for every predictor, how much each of its bins adds to the log odds."
        ),
        bounded_by=(
            "Private: first a patient adds one entry per predictor (norm square root of their number), then, one "
            "predictor after the other, one number of at most 1 to one of its bins. Exact: every number of a "
            "patient's row is at most 1, but no norm bounds what exact sums tell. Bins come from the declared ranges."
        ),
        leaked_otherwise=(
            "Private: nothing; the number of vectors is fixed beforehand and each is charged. Exact: for every node "
            "of every tree, sums of (outcome - fitted risk) and of its variance per bin of each predictor."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: GradientBoosting, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        check_features(spec.outcome, spec.predictors, setting)
        require_short(self.outline(spec, setting))
        size = _model_size(spec, setting)
        if size > MAX_MODEL_NUMBERS:
            raise StudyFileError(
                f"This model would be {size:,} numbers; {MAX_MODEL_NUMBERS:,} is the most. Ask for fewer rounds."
            )

    def fields(self, spec: GradientBoosting, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: GradientBoosting, setting: Setting) -> tuple[StepShape, ...]:
        features = _features(spec, setting)
        if setting.mode == "private":
            return additive.outline(features, spec.cycles)
        steps, codes_of_all = spec.rounds * spec.max_depth + 1, cuts_for(features).codes
        norm = float(np.sqrt(len(features) * (1 + 1 / 16)))
        sizes = [opened_nodes(k, private=False) * codes_of_all * 2 for k in range(spec.max_depth)]
        levels = [
            StepShape(f"round-{r}-level-{k}", size, norm, 1 / steps, 1.0)
            for r in range(spec.rounds)
            for k, size in enumerate(sizes)
        ]
        return (StepShape("start", 2, 1.0, 1 / steps, 1.0), *levels)

    def update(self, spec: GradientBoosting, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. Exact: `parameters` are the log odds at the start, all finished trees, and the splits
        above this level; the first step takes none."""
        features = _features(spec, setting)
        outline = self.outline(spec, setting)
        chosen, cases = cases_among(spec.outcome, spec.predictors, setting, data)
        if setting.mode == "private":
            asked = read_parameters(parameters, additive.asked_size(features, step), step, len(outline))
            return additive.step_rows(features, step, asked, codes(features, data), chosen, cases)
        done, level = divmod(step - 1, spec.max_depth)
        size = 0 if step == 0 else 1 + done * _tree_size(spec) + 2 * nodes(level)
        asked = read_parameters(parameters, size, step, len(outline))
        if step == 0:
            return class_rows(spec.outcome, spec.predictors, setting, data)
        cuts, found = cuts_for(features), codes(features, data)
        model, partial_splits = np.split(asked, [size - 2 * nodes(level)])
        fitted = expit(margins(model, spec.max_depth, cuts, found))
        derivatives = np.column_stack([cases - fitted, fitted * (1 - fitted)]) * chosen[:, None]
        at = opened_places(places(read_splits(partial_splits, cuts), cuts, found), level, private=False)
        return level_rows(at, opened_nodes(level, private=False), found, cuts, derivatives)

    def cells(self, spec: GradientBoosting, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome in every bin of every predictor; and one, since a node that is not
        known yet may hold a single patient."""
        return class_cells(spec.outcome, spec.predictors, _features(spec, setting), setting, data)

    def next(
        self,
        spec: GradientBoosting,
        setting: Setting,
        history: Sequence[Opened],
        inputs: Mapping[str, dict[str, Any]],
    ) -> Ask | Finished:
        features, steps = _features(spec, setting), len(self.outline(spec, setting))
        if not history:
            return Ask(())
        if setting.mode == "private":
            curves = additive.reached(features, history)
            if len(history) < steps:
                return Ask(curves.flat())
            return Finished(_said(spec) | additive.result(features, curves, history))
        model = _advanced(spec, features, history)
        if len(history) < steps:
            return Ask(model)
        return Finished(_said(spec) | _exact_result(spec, features, history, model))


class BoostingScorer:
    """Risks of a boosted model. Exact: log odds at the start, then per tree 2 numbers per node and a value per leaf;
    private: log odds at the start, then a value per bin of every predictor."""

    def outcome(self, spec: Any) -> str:
        return str(spec.outcome)

    def predictors(self, spec: Any) -> tuple[str, ...]:
        return tuple(spec.predictors)

    def size(self, spec: Any, setting: Setting) -> int:
        return _model_size(spec, setting)

    def parameters(self, spec: Any, setting: Setting, result: Mapping[str, Any]) -> Sequence[float]:
        return model_numbers(result)

    def risks(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        features = _features(spec, setting)
        found = codes(features, data)
        if setting.mode == "private":
            return np.asarray(expit(additive.margins(features, parameters, found)))
        return np.asarray(expit(margins(parameters, spec.max_depth, cuts_for(features), found)))


def margins(model: Array, depth: int, cuts: Cuts, found: Indices) -> Array:
    """[n] log odds, within LARGEST_MARGIN whatever finite numbers the model holds."""
    inner = 2 * nodes(depth)
    trees = model[1:].reshape(-1, inner + 2**depth)
    splits = read_splits(trees[:, :inner].ravel(), cuts)
    shape = (len(trees), nodes(depth))
    at = stands(splits.feature.reshape(shape), splits.cut.reshape(shape), cuts, found)
    leaves = np.clip(trees[:, inner:], -LARGEST_MARGIN, LARGEST_MARGIN)
    total = np.clip(model[0], -LARGEST_MARGIN, LARGEST_MARGIN) + leaves[np.arange(len(trees)), at].sum(axis=1)
    return np.asarray(np.clip(total, -LARGEST_MARGIN, LARGEST_MARGIN))


def newton_gain(left: Array, right: Array, *, penalty: float) -> Array:
    """By how much a split lowers the loss, twice; -inf where a side has too little curvature. Channels: first and
    second derivatives."""
    enough = np.minimum(left[..., 1], right[..., 1]) >= _LEAST_CURVATURE
    gained = _score(left, penalty) + _score(right, penalty) - _score(left + right, penalty)
    return np.asarray(np.where(enough, gained, -np.inf))


def _score(sums: Array, penalty: float) -> Array:
    return np.asarray(sums[..., 0] ** 2 / np.maximum(sums[..., 1] + penalty, 1e-12))


def _features(spec: GradientBoosting, setting: Setting) -> tuple[Feature, ...]:
    return features_for(spec.predictors, spec.bins, setting)


def _tree_size(spec: GradientBoosting) -> int:
    return 2 * nodes(spec.max_depth) + (1 << spec.max_depth)


def _model_size(spec: GradientBoosting, setting: Setting) -> int:
    if setting.mode == "private":
        return additive.asked_size(_features(spec, setting), 1)
    return 1 + spec.rounds * _tree_size(spec)


def _grown(spec: GradientBoosting, features: tuple[Feature, ...], opened: Sequence[Opened]) -> list[Level]:
    """The levels of one tree, as far as its histograms were opened."""
    cuts, gain = cuts_for(features), partial(newton_gain, penalty=spec.penalty)
    found = []
    for k in range(len(opened)):
        histograms = level_histograms([one.total for one in opened[: k + 1]], cuts, 2, private=False)
        found.append(decide(histograms, cuts, features, gain, between=True))
    return found


def _advanced(spec: GradientBoosting, features: tuple[Feature, ...], history: Sequence[Opened]) -> list[float]:
    """What to ask next with, or the finished model. The trees before the one that is being grown stand in what was
    asked last, so that only one tree is worked out anew."""
    if len(history) == 1:
        return [_start(history[0])]
    level = (len(history) - 2) % spec.max_depth
    asked = history[-1].parameters
    model: list[float] = asked[: len(asked) - 2 * nodes(level)].tolist()
    levels = _grown(spec, features, history[len(history) - level - 1 :])
    splits = no_splits()
    for one in levels:
        splits = splits.joined(one.splits)
    model += splits.flat()
    if level == spec.max_depth - 1:
        model += _leaves(levels[-1].children, spec).tolist()
    return model


def _leaves(children: Array, spec: GradientBoosting) -> Array:
    """[leaves] log odds that a tree adds."""
    steps = children[:, 0] / np.maximum(children[:, 1] + spec.penalty, 1e-12)
    added = spec.learning_rate * np.where(children[:, 1] > 1e-9, steps, 0.0)
    return np.asarray(np.clip(added, -LARGEST_MARGIN, LARGEST_MARGIN))


def _start(opened: Opened) -> float:
    """Log odds of the outcome in the whole cohort; half a patient on either side, so that they are finite."""
    without, cases = np.maximum(np.round(opened.total), 0.0).tolist()
    return float(np.log((cases + 0.5) / (without + 0.5)))


def _said(spec: GradientBoosting) -> dict[str, Any]:
    return {"outcome": spec.outcome, "predictors": list(spec.predictors)}


def _exact_result(
    spec: GradientBoosting, features: tuple[Feature, ...], history: Sequence[Opened], model: Sequence[float]
) -> dict[str, Any]:
    cuts, inner = cuts_for(features), 2 * nodes(spec.max_depth)
    gained = []
    for start in range(1, len(history), spec.max_depth):
        gained += [(one.splits, one.gains) for one in _grown(spec, features, history[start : start + spec.max_depth])]
    trees = np.array(model[1:]).reshape(spec.rounds, -1)
    shown = [
        nested(read_splits(tree[:inner], cuts), features, [{"adds": float(v)} for v in tree[inner:]])
        for tree in trees[:_SHOWN_TREES]
    ]
    return {
        "n": int(np.round(history[0].total).sum()),
        "n_noise_se": 0.0,
        "start": model[0],
        "trees": shown,
        "importances": importances(features, gained),
        "parameters": list(model),
    }
