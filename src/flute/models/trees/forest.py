"""A random forest: many trees on resampled patients, each node with its own few predictors to choose from.

Exact: how often a patient counts in a tree follows from his pseudonym and a public seed (Poisson with mean 1, at most
_MOST), which predictors a node may ask follows from the seed alone; all trees grow together, one vector per level.
Private: two vectors. A histogram of every predictor, from which the seed draws cuts, the more telling a predictor the
more often; then all leaves of all trees at once, where a patient adds one entry per tree.
Sources: Breiman 2001, "Random forests"; Oza and Russell 2001 for Poisson weights in place of drawing with
replacement; Geurts, Ernst, Wehenkel 2006, "Extremely randomized trees".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import shake_256
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Operation, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.linear import read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import DISCLOSURE_FLOOR
from flute.defaults.models.trees import MAX_MODEL_NUMBERS
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.models.features import Cuts, Feature, Indices, check_features, codes, cuts_for, features_for
from flute.models.trees import private_forest
from flute.models.trees.histograms import NO_SPLIT, Splits, decide, importances, nested, nodes, read_splits, stands
from flute.models.trees.tree import class_cells, class_rows, model_numbers, purity, require_short

_MOST: Final = 4
"""Times a patient counts in one tree at most; more than four would be one patient of 270."""
_POISSON: Final = np.cumsum([np.exp(-1.0) / f for f in (1, 1, 2, 6)])
"""Chances of counting at most 0, 1, 2, 3 times."""
_BOOTSTRAP: Final = b"flute/forest/patient/v1"
_CANDIDATES: Final = b"flute/forest/node/v1"
_SHOWN_TREES: Final = 5
"""The first so many are said in words."""


class RandomForest(Spec, frozen=True, tag="random-forest"):
    """candidates: predictors that a node may ask; 0 for the root of their number, rounded up."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    trees: Annotated[int, Meta(ge=1, le=200)] = 20
    max_depth: Annotated[int, Meta(ge=1, le=8)] = 4
    min_leaf: Annotated[int, Meta(ge=DISCLOSURE_FLOOR, le=1_000_000)] = DISCLOSURE_FLOOR
    bins: Annotated[int, Meta(ge=4, le=64)] = 16
    candidates: Annotated[int, Meta(ge=0, le=64)] = 0
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0


class RandomForestAlgorithm:
    """See the module's head."""

    name: ClassVar[str] = "random-forest"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Trees of questions about the predictors, and at each of their leaves the part of patients who have the "
            "outcome; the number of patients."
        ),
        bounded_by=(
            "Private: first a patient adds one entry per predictor (norm square root of their number), then one "
            "entry per tree (norm square root of the number of trees). Exact: every number of a patient's row is at "
            "most 1, but no norm bounds what exact sums tell. Bins come from the declared ranges; nothing is clipped."
        ),
        leaked_otherwise=(
            "Private: nothing; the two vectors are fixed beforehand and charged. Exact: for every node of every "
            "tree, how many of its resampled patients with and without the outcome fall into each bin of its "
            "predictors. How often a patient counts follows from his pseudonym, which stays at his hub, and a public "
            "seed."
        ),
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: RandomForest, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        check_features(spec.outcome, spec.predictors, setting)
        if spec.candidates > len(spec.predictors):
            raise StudyFileError(f"candidates: there are only {len(spec.predictors)} predictors to choose from.")
        require_short(self.outline(spec, setting))
        if (size := spec.trees * _tree_size(spec)) > MAX_MODEL_NUMBERS:
            raise StudyFileError(
                f"This model would be {size:,} numbers; {MAX_MODEL_NUMBERS:,} is the most. Ask for fewer trees."
            )

    def fields(self, spec: RandomForest, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: RandomForest, setting: Setting) -> tuple[StepShape, ...]:
        features = _features(spec, setting)
        if setting.mode == "private":
            return private_forest.outline(features, spec.trees, spec.max_depth)
        layouts = [_layout(spec, features, level) for level in range(spec.max_depth)]
        norm = float(np.sqrt(spec.trees * layouts[0].candidates.shape[1] + 1))
        return tuple(
            StepShape(f"level-{k}", 2 * layout.codes + (k == 0), norm, 1 / spec.max_depth, 1.0)
            for k, layout in enumerate(layouts)
        )

    def update(self, spec: RandomForest, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. `parameters`: per tree, feature and cut of every node above this level; in private mode
        of all nodes, once the first step is done."""
        features, private = _features(spec, setting), setting.mode == "private"
        cuts, found = cuts_for(features), codes(features, data)
        levels = (spec.max_depth if step else 0) if private else step
        size = 2 * spec.trees * nodes(levels)
        asked = read_parameters(parameters, size, step, len(self.outline(spec, setting)))
        classes = class_rows(spec.outcome, spec.predictors, setting, data)
        if private and step == 0:
            return private_forest.histogram_rows(found, cuts, classes)
        at = stands(*_by_tree(read_splits(asked, cuts), spec.trees), cuts, found)
        if private:
            return private_forest.leaf_rows(at, spec.max_depth, classes)
        rows = _level_rows(_layout(spec, features, step), at, found, classes, _weights(spec, data))
        return np.column_stack([classes.sum(axis=1), rows]) if step == 0 else rows

    def cells(self, spec: RandomForest, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome in every bin of every predictor; and one, since a node that is not
        known yet may hold a single patient."""
        return class_cells(spec.outcome, spec.predictors, _features(spec, setting), setting, data)

    def next(
        self, spec: RandomForest, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        features = _features(spec, setting)
        if setting.mode == "private":
            splits = private_forest.drawn(features, history[0], spec.trees, spec.max_depth, spec.seed)
            if len(history) == 1:
                return Ask(splits.flat())
            expected = private_forest.expected_risks(features, history[0], splits, spec.trees, spec.max_depth)
            leaves, n, noise = private_forest.leaves(history[1], expected)
            told = private_forest.telling(features, history[0])
            return Finished(_result(spec, features, splits, leaves, n, noise) | {"importances": told})
        totals = [one.total[1:] if k == 0 else one.total for k, one in enumerate(history)]
        grown = [_grown(spec, features, k, total) for k, total in enumerate(totals)]
        splits = _joined([level.splits for level in grown], spec.trees)
        if len(history) < spec.max_depth:
            return Ask(splits.flat())
        told = importances(features, [(level.splits, level.gains) for level in grown])
        leaves = _risks(grown[-1].children).reshape(spec.trees, -1)
        n = float(history[0].total[0])
        return Finished(_result(spec, features, splits, leaves, n, 0.0) | {"importances": told})


class ForestScorer:
    """The mean of all trees' risks. Per tree 2 numbers per node and a risk per leaf: all trees' nodes first."""

    def outcome(self, spec: Any) -> str:
        return str(spec.outcome)

    def predictors(self, spec: Any) -> tuple[str, ...]:
        return tuple(spec.predictors)

    def size(self, spec: Any, setting: Setting) -> int:
        return int(spec.trees * _tree_size(spec))

    def parameters(self, spec: Any, setting: Setting, result: Mapping[str, Any]) -> Sequence[float]:
        return model_numbers(result)

    def risks(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        features = _features(spec, setting)
        cuts = cuts_for(features)
        inner, leaves = np.split(parameters, [2 * spec.trees * nodes(spec.max_depth)])
        at = stands(*_by_tree(read_splits(inner, cuts), spec.trees), cuts, codes(features, data))
        risks = np.clip(leaves, 0.0, 1.0).reshape(spec.trees, -1)
        return np.asarray(risks[np.arange(spec.trees), at].mean(axis=1))


@dataclass(frozen=True, slots=True)
class _Layout:
    """One level's vector. candidates, starts: [trees x nodes, candidates] which predictors a node may ask, and where
    each one's codes begin. codes: how many there are in all."""

    candidates: Indices
    starts: Indices
    codes: int


def _features(spec: RandomForest, setting: Setting) -> tuple[Feature, ...]:
    return features_for(spec.predictors, spec.bins, setting)


def _tree_size(spec: RandomForest) -> int:
    return 2 * nodes(spec.max_depth) + (1 << spec.max_depth)


@lru_cache(maxsize=256)
def _layout(spec: RandomForest, features: tuple[Feature, ...], level: int) -> _Layout:
    count = spec.candidates or int(np.ceil(np.sqrt(len(features))))
    drawn = [
        np.sort(np.argsort(_numbers(_CANDIDATES, spec.seed, f"{tree}/{nodes(level) + j}", len(features)))[:count])
        for tree in range(spec.trees)
        for j in range(1 << level)
    ]
    candidates = np.array(drawn)
    widths = np.array([f.codes for f in features])[candidates]
    ends = np.cumsum(widths.ravel()).reshape(widths.shape)
    return _Layout(candidates, ends - widths, int(ends[-1, -1]))


def _numbers(context: bytes, seed: int, name: str, count: int) -> NDArray[np.uint64]:
    """Public numbers that follow from the seed and a name."""
    drawn = shake_256(context + seed.to_bytes(8, "little") + name.encode()).digest(8 * count)
    return np.frombuffer(drawn, dtype="<u8").astype(np.uint64)


def _weights(spec: RandomForest, data: Dataset) -> Array:
    """[n, trees] how often each patient counts, 0 to _MOST."""
    if not len(data):
        return np.zeros((0, spec.trees))
    drawn = np.stack([_numbers(_BOOTSTRAP, spec.seed, str(p), spec.trees) for p in data.pseudonyms])
    return np.searchsorted(_POISSON, drawn.astype(np.float64) / 2.0**64, side="right").astype(np.float64)


def _level_rows(layout: _Layout, at: Indices, found: Indices, classes: Array, weights: Array) -> Array:
    """[n, 2 codes]: weight / _MOST at the code of every candidate of the node where a patient stands, per tree."""
    n, trees = at.shape
    rows = np.zeros((n, 2 * layout.codes))
    person, class_of = np.arange(n)[:, None], classes[:, [1]].astype(np.int64)
    for tree in range(trees):
        node = tree * (len(layout.candidates) // trees) + at[:, tree]
        entry = layout.starts[node] + found[person, layout.candidates[node]]
        rows[person, 2 * entry + class_of] = (weights[:, tree] * classes.sum(axis=1) / _MOST)[:, None]
    return rows


@dataclass(frozen=True, slots=True)
class _Grown:
    """One level of all trees, node by node, tree by tree. children: [trees x 2 nodes, 2]."""

    splits: Splits
    gains: Array
    children: Array


def _grown(spec: RandomForest, features: tuple[Feature, ...], level: int, total: Array) -> _Grown:
    layout, cuts = _layout(spec, features, level), cuts_for(features)
    histograms = _spread_out(layout, features, cuts, np.round(total * _MOST).reshape(-1, 2))
    decided = decide(
        histograms, cuts, features, partial(purity, criterion="gini", min_leaf=spec.min_leaf), between=True
    )
    first = layout.candidates[:, 0]
    whole = np.add.reduceat(histograms, cuts.starts[:-1], axis=1)[np.arange(len(first)), first]
    alone = np.stack([whole, np.zeros_like(whole)], axis=1).reshape(-1, 2)
    split = np.repeat(decided.splits.feature != NO_SPLIT, 2)[:, None]
    return _Grown(decided.splits, decided.gains, np.where(split, decided.children, alone))


def _spread_out(layout: _Layout, features: Sequence[Feature], cuts: Cuts, opened: Array) -> Array:
    """[trees x nodes, codes of all features, 2]; 0 for predictors that a node may not ask."""
    histograms = np.zeros((len(layout.candidates), cuts.codes, 2))
    for node, (candidates, starts) in enumerate(zip(layout.candidates, layout.starts, strict=True)):
        for k, start in zip(candidates.tolist(), starts.tolist(), strict=True):
            histograms[node, cuts.starts[k] : cuts.starts[k + 1]] = opened[start : start + features[k].codes]
    return histograms


def _by_tree(splits: Splits, trees: int) -> tuple[Indices, Indices]:
    return splits.feature.reshape(trees, -1), splits.cut.reshape(trees, -1)


def _joined(levels: Sequence[Splits], trees: int) -> Splits:
    """All levels' splits, tree by tree."""
    feature, cut = (
        np.hstack([part.reshape(trees, -1) for part in parts]).ravel()
        for parts in ([level.feature for level in levels], [level.cut for level in levels])
    )
    return Splits(feature, cut)


def _risks(counts: Array) -> Array:
    """[leaves] share of the outcome; a leaf that nobody reaches has 0, and nobody is told it."""
    return np.asarray(counts[:, 1] / np.maximum(counts.sum(axis=1), 1.0))


def _result(
    spec: RandomForest, features: Sequence[Feature], splits: Splits, leaves: Array, n: float, noise: float
) -> dict[str, Any]:
    feature, cut = _by_tree(splits, spec.trees)
    shown = [
        nested(Splits(feature[t], cut[t]), features, [{"risk": float(v)} for v in leaves[t]])
        for t in range(min(spec.trees, _SHOWN_TREES))
    ]
    return {
        "outcome": spec.outcome,
        "predictors": list(spec.predictors),
        "n": max(0, round(n)),
        "n_noise_se": noise,
        "trees": shown,
        "parameters": [*splits.flat(), *(float(v) for v in leaves.ravel())],
    }
