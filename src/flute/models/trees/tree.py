"""A decision tree, grown level by level on public bins.

Exact: every level's histograms of patients with and without the outcome are opened, and the split is the one that a
pooled fit on the same bins would choose. Private: the same histograms under noise, a split judged by how far its two
sides differ in units of their own error, noise included; then the leaves are counted once more, where a patient adds
one entry instead of one per predictor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.special import entr

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.linear import Z_95, read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import DISCLOSURE_FLOOR
from flute.defaults.models.trees import MAX_STEP_NUMBERS
from flute.errors import MisuseError, StudyFileError
from flute.messages.limits import Name
from flute.models.features import Cuts, Feature, cases_among, check_features, codes, cuts_for, features_for
from flute.models.trees.histograms import (
    Level,
    Splits,
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
)

_LEAF_WEIGHT: Final = 0.3
"""Part of a private question's budget that counts the leaves; the levels share the rest alike."""
_CLEAR: Final = 6.0
"""Square of the number of errors by which the two sides of a private split have to differ: under noise alone the best
of 50 cuts reaches it about every other time, a split that only costs precision; at 4 nearly always."""
_PRIOR_SD: Final = 0.2
"""Of a leaf's risk around the whole cohort's, before anything is counted: what noised leaves are drawn towards."""


class DecisionTree(Spec, frozen=True, tag="decision-tree"):
    """A tree of at most `max_depth` questions; a leaf has at least `min_leaf` patients of all hubs together."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    max_depth: Annotated[int, Meta(ge=1, le=8)] = 3
    min_leaf: Annotated[int, Meta(ge=DISCLOSURE_FLOOR, le=1_000_000)] = 20
    bins: Annotated[int, Meta(ge=4, le=64)] = 16
    criterion: Literal["gini", "entropy"] = "gini"


class DecisionTreeAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "decision-tree"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "A tree of questions about the predictors, and at each of its leaves how many patients there are and how "
            "many of them have the outcome."
        ),
        bounded_by=(
            "Per level of the tree a patient adds one entry per predictor, to the histogram of the node where he "
            "stands: norm square root of the number of predictors. At the leaves he adds one entry: norm 1. Bins "
            "come from the declared ranges. Nothing is clipped away."
        ),
        leaked_otherwise=(
            "Private: nothing; the number of levels is fixed beforehand and every opened vector is charged. Exact: "
            "for every node, how many patients with and without the outcome fall into each bin of each predictor."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: DecisionTree, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        check_features(spec.outcome, spec.predictors, setting)
        require_short(self.outline(spec, setting))

    def fields(self, spec: DecisionTree, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: DecisionTree, setting: Setting) -> tuple[StepShape, ...]:
        private, cuts = setting.mode == "private", _cuts(spec, setting)
        weight = (1 - _LEAF_WEIGHT if private else 1.0) / spec.max_depth
        norm = float(np.sqrt(len(spec.predictors)))
        levels = [
            StepShape(f"level-{k}", opened_nodes(k, private=private) * cuts.codes * 2, norm, weight, 1.0)
            for k in range(spec.max_depth)
        ]
        leaves = StepShape("leaves", 2 * 2**spec.max_depth, 1.0, _LEAF_WEIGHT, 1.0)
        return (*levels, leaves) if private else tuple(levels)

    def update(self, spec: DecisionTree, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. `parameters`: feature and cut of every node above this level."""
        private, cuts = setting.mode == "private", _cuts(spec, setting)
        asked = read_parameters(parameters, 2 * nodes(step), step, len(self.outline(spec, setting)))
        found = codes(_features(spec, setting), data)
        at = places(read_splits(asked, cuts), cuts, found)
        classes = class_rows(spec.outcome, spec.predictors, setting, data)
        if step == spec.max_depth:
            there = at[:, None] == np.arange(2**step)
            return np.asarray((classes[:, None, :] * there[:, :, None]).reshape(len(data), 2 * 2**step))
        within = opened_places(at, step, private=private)
        return level_rows(within, opened_nodes(step, private=private), found, cuts, classes)

    def cells(self, spec: DecisionTree, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome in every bin of every predictor; and, since nodes that are not known
        yet may hold a single patient, that one."""
        return class_cells(spec.outcome, spec.predictors, _features(spec, setting), setting, data)

    def next(
        self, spec: DecisionTree, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        levels = _grown(spec, setting, history)
        splits = no_splits()
        for level in levels:
            splits = splits.joined(level.splits)
        if len(history) < len(self.outline(spec, setting)):
            return Ask(splits.flat())
        private = setting.mode == "private"
        counts = history[-1].total.reshape(-1, 2) if private else np.round(levels[-1].children)
        return Finished(_result(spec, setting, levels, splits, counts, history[-1].sigma if private else 0.0))


class TreeScorer:
    """Risks of a decision tree: 2 numbers per node, then a risk per leaf."""

    def outcome(self, spec: Any) -> str:
        return str(spec.outcome)

    def predictors(self, spec: Any) -> tuple[str, ...]:
        return tuple(spec.predictors)

    def size(self, spec: Any, setting: Setting) -> int:
        return 2 * nodes(spec.max_depth) + int(2**spec.max_depth)

    def parameters(self, spec: Any, setting: Setting, result: Mapping[str, Any]) -> Sequence[float]:
        return model_numbers(result)

    def risks(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        cuts = _cuts(spec, setting)
        splits, leaves = np.split(parameters, [2 * nodes(spec.max_depth)])
        at = places(read_splits(splits, cuts), cuts, codes(_features(spec, setting), data))
        return np.asarray(np.clip(leaves, 0.0, 1.0)[at])


def model_numbers(result: Mapping[str, Any]) -> Sequence[float]:
    """Raises: MisuseError: the result holds no model."""
    found = result.get("parameters")
    if not found:
        raise MisuseError("A model to be scored has no parameters; finish its question first.")
    return [float(v) for v in found]


def require_short(outline: Sequence[StepShape]) -> None:
    """Raises: StudyFileError: a step has more numbers than a hub can hold for every patient."""
    longest = max(shape.size for shape in outline)
    if longest > MAX_STEP_NUMBERS:
        raise StudyFileError(
            f"This asks for {longest:,} numbers at once, and {MAX_STEP_NUMBERS:,} is the most: ask for fewer bins, "
            "less depth, fewer trees or fewer predictors."
        )


def class_rows(outcome: str, predictors: Sequence[str], setting: Setting, data: Dataset) -> Array:
    """[n, 2]: 1 for a patient without the outcome, 1 with it; 0, 0 for one who is left out."""
    chosen, cases = cases_among(outcome, predictors, setting, data)
    return np.column_stack([chosen & ~cases, cases]).astype(np.float64)


def class_cells(
    outcome: str, predictors: Sequence[str], features: tuple[Feature, ...], setting: Setting, data: Dataset
) -> NDArray[np.int64]:
    """Patients with and without the outcome by every code of every feature, and one if there is any."""
    classes = class_rows(outcome, predictors, setting, data)
    root = np.zeros(len(data), dtype=np.int64)
    counts = level_rows(root, 1, codes(features, data), cuts_for(features), classes).sum(axis=0)
    return np.concatenate([counts, [classes.any()]]).astype(np.int64)


def purity(left: Array, right: Array, *, criterion: str, min_leaf: int) -> Array:
    """What impurity falls by, in patients; -inf where a side has too few of them. Channels: without, with outcome."""
    gained = impurity(left + right, criterion) - impurity(left, criterion) - impurity(right, criterion)
    enough = np.minimum(left.sum(axis=-1), right.sum(axis=-1)) >= min_leaf - 0.5
    return np.asarray(np.where(enough, gained, -np.inf))


def impurity(counts: Array, criterion: str) -> Array:
    """Gini's or the entropy (nats) of [..., 2] counts, times their number."""
    n = np.maximum(counts.sum(axis=-1, keepdims=True), 1e-300)
    share = counts / n
    each = entr(share) if criterion == "entropy" else share * (1 - share)
    return np.asarray((each.sum(axis=-1, keepdims=True) * n)[..., 0])


def squared_difference(left: Array, right: Array, variance: tuple[Array, Array]) -> Array:
    """Squared difference of the two sides' shares of the outcome over its variance, chance in who was a patient and
    noise included. Channels: without, with outcome; variance: of the noise in either side's count, [cuts] each."""
    pairs = list(zip((left, right), variance, strict=True))
    sizes = [np.maximum(side.sum(axis=-1), 1.0) for side, _ in pairs]
    shares = [np.clip(side[..., 1] / n, 0.0, 1.0) for (side, _), n in zip(pairs, sizes, strict=True)]
    pooled = np.clip((left + right)[..., 1] / (sizes[0] + sizes[1]), 0.05, 0.95)
    spread = np.zeros_like(pooled)
    for (_, noise), n in zip(pairs, sizes, strict=True):
        spread += pooled * (1 - pooled) / n + noise * (pooled**2 + (1 - pooled) ** 2) / n**2
    return np.asarray((shares[0] - shares[1]) ** 2 / spread)


def clear_difference(left: Array, right: Array, *, variance: tuple[Array, Array], min_leaf: int) -> Array:
    """`squared_difference` less _CLEAR; -inf where a side may have too few patients."""
    allowed = enough(left, right, variance, min_leaf)
    return np.asarray(np.where(allowed, squared_difference(left, right, variance) - _CLEAR, -np.inf))


def enough(left: Array, right: Array, variance: tuple[Array, Array], min_leaf: int) -> NDArray[np.bool_]:
    """Whether both sides have `min_leaf` patients and an error of their counts more."""
    sizes = [side.sum(axis=-1) - np.sqrt(2 * noise) for side, noise in zip((left, right), variance, strict=True)]
    return np.asarray(np.minimum(*sizes) >= min_leaf)


def cut_variances(cuts: Cuts, sigma: float) -> tuple[Array, Array]:
    """Of the noise in a count left and right of every cut, [cuts] each."""
    left = cuts.widths.astype(np.float64)
    return sigma**2 * left, sigma**2 * (np.diff(cuts.starts)[cuts.feature] - left)


def leaf(cases: float, n: float, sigma: float) -> dict[str, float | None]:
    """A share of patients with its interval; sampling and noise kept apart."""
    if n < 1:
        return {"risk": None, "n": max(n, 0.0)} | dict.fromkeys(("se", "sampling_se", "noise_se", "low", "high"))
    p = float(np.clip(cases / n, 0.0, 1.0))
    sampling, noise = float(np.sqrt(p * (1 - p) / n)), sigma * float(np.hypot(p, 1 - p)) / n
    error = float(np.hypot(sampling, noise))
    low, high = max(p - Z_95 * error, 0.0), min(p + Z_95 * error, 1.0)
    return {"risk": p, "n": n, "se": error, "sampling_se": sampling, "noise_se": noise, "low": low, "high": high}


def _features(spec: DecisionTree, setting: Setting) -> tuple[Feature, ...]:
    return features_for(spec.predictors, spec.bins, setting)


def _cuts(spec: DecisionTree, setting: Setting) -> Cuts:
    return cuts_for(_features(spec, setting))


def _grown(spec: DecisionTree, setting: Setting, history: Sequence[Opened]) -> list[Level]:
    """All levels that the opened histograms decide."""
    private, cuts, features = setting.mode == "private", _cuts(spec, setting), _features(spec, setting)
    opened = history[: spec.max_depth]
    levels = []
    for k, one in enumerate(opened):
        total = [o.total if private else np.round(o.total) for o in opened[: k + 1]]
        histograms = level_histograms(total, cuts, 2, private=private)
        gain = (
            partial(clear_difference, variance=cut_variances(cuts, one.sigma), min_leaf=spec.min_leaf)
            if private
            else partial(purity, criterion=spec.criterion, min_leaf=spec.min_leaf)
        )
        levels.append(decide(histograms, cuts, features, gain, between=not private))
    return levels


def _result(
    spec: DecisionTree, setting: Setting, levels: Sequence[Level], splits: Splits, counts: Array, sigma: float
) -> dict[str, Any]:
    features = _features(spec, setting)
    said = [leaf(float(c[1]), float(c.sum()), sigma) for c in counts]
    whole = counts.sum(axis=0)
    return {
        "outcome": spec.outcome,
        "predictors": list(spec.predictors),
        "n": max(0, round(float(whole.sum()))),
        "n_noise_se": sigma * float(np.sqrt(counts.size)),
        "tree": nested(splits, features, said),
        "importances": importances(features, [(level.splits, level.gains) for level in levels]),
        "parameters": [*splits.flat(), *(float(v) for v in _risks(counts, whole, sigma))],
    }


def _risks(counts: Array, whole: Array, sigma: float) -> Array:
    """[leaves] in [0, 1]. Exact: the leaf's share. Noised: drawn towards the whole cohort's, the more the less the
    leaf is known. A leaf without patients has the whole cohort's."""
    overall = float(np.clip(whole[1] / max(float(whole.sum()), 1.0), 0.0, 1.0))
    n = np.maximum(counts.sum(axis=1), 0.0)
    share = np.clip(counts[:, 1] / np.maximum(n, 1.0), 0.0, 1.0)
    if sigma == 0:
        return np.where(n >= 1, share, overall)
    error = (overall * (1 - overall) * n + sigma**2) / np.maximum(n, 1.0) ** 2
    return np.asarray(overall + (share - overall) * np.where(n >= 1, _PRIOR_SD**2 / (_PRIOR_SD**2 + error), 0.0))
