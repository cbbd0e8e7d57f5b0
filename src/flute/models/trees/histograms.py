"""Trees that grow level by level, from sums per node, feature and code.

A tree is complete: node i has children 2 i + 1 and 2 i + 2. A node that is not split sends everybody left. A patient
adds to one entry per feature: those of the node that he stands at. So one level is one vector, and what is opened
tells nothing of how two features go together except within a node.

In exact mode only left children are opened: a right child is what its parent has beside them.
Source: breadth-first growing from histograms, Ke et al. 2017, "LightGBM", section 2; sibling subtraction: the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flute.data.variables import Array
from flute.defaults.models.trees import LEAST_GAIN
from flute.models.features import Cuts, Feature, Indices, rule

NO_SPLIT: Final = -1

Gain = Callable[[Array, Array], Array]
"""(left, right), each [nodes, cuts, channels], to what a split is worth, [nodes, cuts]; -inf where it may not be."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Nodes of a tree from the top, `feature` and `cut` [2^levels - 1]; feature NO_SPLIT where there is none."""

    feature: Indices
    cut: Indices

    @property
    def levels(self) -> int:
        return (len(self.feature) + 1).bit_length() - 1

    def flat(self) -> list[float]:
        return [float(v) for v in np.column_stack([self.feature, self.cut]).ravel()]

    def joined(self, more: Splits) -> Splits:
        """With one more level below."""
        return Splits(np.concatenate([self.feature, more.feature]), np.concatenate([self.cut, more.cut]))


def no_splits() -> Splits:
    return Splits(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def nodes(levels: int) -> int:
    """Of a tree with so many levels of questions."""
    return (1 << levels) - 1


def read_splits(flat: Array, cuts: Cuts) -> Splits:
    """Out of 2 numbers per node, whatever finite numbers they are: a node that is sent wrongly asks another question,
    no question fails."""
    pairs = flat.reshape(-1, 2)
    last = np.array(cuts.table.shape[:2]) - 1
    feature = np.clip(np.rint(pairs[:, 0]), NO_SPLIT, last[0]).astype(np.int64)
    return Splits(feature, np.clip(np.rint(pairs[:, 1]), 0, last[1]).astype(np.int64))


def places(splits: Splits, cuts: Cuts, codes: Indices) -> Indices:
    """[n] where every patient stands below the last level of `splits`: 0 to 2^levels - 1, left to right."""
    return np.asarray(stands(splits.feature[None], splits.cut[None], cuts, codes)[:, 0])


def stands(feature: Indices, cut: Indices, cuts: Cuts, codes: Indices) -> Indices:
    """[n, trees], as `places`, of many trees of as many levels; `feature`, `cut` [trees, nodes]."""
    trees, rows = np.arange(len(feature)), np.arange(len(codes))[:, None]
    at = np.zeros((len(codes), len(feature)), dtype=np.int64)
    for level in range((feature.shape[1] + 1).bit_length() - 1):
        node = nodes(level) + at
        asked = feature[trees, node]
        left = (asked == NO_SPLIT) | cuts.table[asked, cut[trees, node], codes[rows, asked]]
        at = 2 * at + ~left
    return at


def level_rows(at: Indices, opened: int, codes: Indices, cuts: Cuts, channels: Array) -> Array:
    """[n, opened x codes x channels]: `channels` [n, c] at every feature's code of the node `at` [n]; nothing where
    `at` is below 0."""
    n, width = len(codes), channels.shape[1]
    entry = np.maximum(at, 0)[:, None] * cuts.codes + cuts.starts[:-1] + codes
    rows = np.zeros((n, opened * cuts.codes, width))
    rows[np.arange(n)[:, None], entry] = (channels * (at >= 0)[:, None])[:, None, :]
    return rows.reshape(n, opened * cuts.codes * width)


def opened_nodes(level: int, *, private: bool) -> int:
    """Nodes of a level whose histograms are opened."""
    return 1 << (level if private or level == 0 else level - 1)


def opened_places(at: Indices, level: int, *, private: bool) -> Indices:
    """`at` among the opened nodes; -1 where a right child is left to be worked out."""
    return at if private or level == 0 else np.where(at % 2 == 0, at // 2, -1)


def level_histograms(totals: Sequence[Array], cuts: Cuts, channels: int, *, private: bool) -> Array:
    """[2^level, codes, channels] of the last of these levels, from all of them as opened."""
    known: Array = np.zeros(0)
    for level, total in enumerate(totals):
        found = total.reshape(-1, cuts.codes, channels)
        if private or level == 0:
            known = found
        else:
            known = np.stack([found, known - found], axis=1).reshape(-1, cuts.codes, channels)
    return known


def sides(histograms: Array, cuts: Cuts) -> tuple[Array, Array]:
    """What each cut sends left and right, each [nodes, cuts, channels]."""
    before = np.cumsum(histograms, axis=1)
    at, start = cuts.starts[cuts.feature] + cuts.cut, cuts.starts[cuts.feature]
    below = np.where(start[:, None] > 0, before[:, np.maximum(start - 1, 0)], 0.0)
    left = np.where(cuts.ordered[:, None], before[:, at] - below, histograms[:, at])
    blocks = np.add.reduceat(histograms, cuts.starts[:-1], axis=1)
    return left, blocks[:, cuts.feature] - left


@dataclass(frozen=True, slots=True)
class Level:
    """One level as decided. `gains` [nodes], 0 where not split; `children` [2 nodes, channels]."""

    splits: Splits
    gains: Array
    children: Array


def decide(histograms: Array, cuts: Cuts, features: Sequence[Feature], gain: Gain, *, between: bool) -> Level:
    """The best cut of every node: the first of several as good, by the order of the predictors, then of the cuts.

    between: of cuts of an ordered feature that separate the very same sums, the middle one is taken.
    """
    left, right = sides(histograms, cuts)
    worth = gain(left, right)
    best = np.argmax(worth > worth.max(axis=1, keepdims=True) - LEAST_GAIN, axis=1)
    reached = worth[np.arange(len(best)), best]
    if between:
        best = np.array([_middle(int(b), cuts, features, left[i]) for i, b in enumerate(best)], dtype=np.int64)
    split = reached > LEAST_GAIN
    feature = np.where(split, cuts.feature[best], NO_SPLIT)
    at = np.arange(len(best))
    whole = left[at, best] + right[at, best]
    children = np.stack(
        [np.where(split[:, None], left[at, best], whole), np.where(split[:, None], right[at, best], 0.0)], axis=1
    )
    return Level(
        Splits(feature, np.where(split, cuts.cut[best], 0)),
        np.where(split, reached, 0.0),
        children.reshape(-1, histograms.shape[2]),
    )


def _middle(best: int, cuts: Cuts, features: Sequence[Feature], left: Array) -> int:
    """Of the cuts that follow `best` and separate the same sums, the middle one; as scikit-learn's threshold half-way
    between the values that occur."""
    k = int(cuts.feature[best])
    if not features[k].ordered:
        return best
    same = (cuts.feature[best:] == k) & (np.abs(left[best:] - left[best]) < LEAST_GAIN).all(axis=1)
    run = int(np.argmin(same)) if not same.all() else len(same)
    return best + run // 2


def importances(features: Sequence[Feature], found: Sequence[tuple[Splits, Array]]) -> dict[str, float]:
    """Per predictor, what its splits gained, as a part of all that was gained; all 0 where nothing was."""
    gained = np.zeros(len(features))
    for splits, gains in found:
        chosen = splits.feature != NO_SPLIT
        np.add.at(gained, splits.feature[chosen], gains[chosen])
    whole = float(gained.sum())
    return {f.name: float(g) / whole if whole > 0 else 0.0 for f, g in zip(features, gained, strict=True)}


def nested(
    splits: Splits, features: Sequence[Feature], leaves: Sequence[dict[str, Any]], node: int = 0
) -> dict[str, Any]:
    """The tree as people read it: {"rule", "yes", "no"} down to `leaves`, which stand left to right. A node that is
    not split is what stands at its leftmost end."""
    if node >= len(splits.feature):
        return leaves[node - len(splits.feature)]
    left = nested(splits, features, leaves, 2 * node + 1)
    if splits.feature[node] == NO_SPLIT:
        return left
    feature = features[splits.feature[node]]
    return {
        "rule": rule(feature, int(splits.cut[node])),
        "variable": feature.name,
        "yes": left,
        "no": nested(splits, features, leaves, 2 * node + 2),
    }
