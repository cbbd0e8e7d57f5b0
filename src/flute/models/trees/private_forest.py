"""Private forests: one noised histogram of every predictor, trees drawn from it, and one count of all their leaves.

Trees are drawn by a public seed from what was opened, so drawing costs nothing: a cut the more often, the more
impurity it is expected to take off the whole cohort, noise considered, and no cut twice on the way to a leaf.
A leaf's risk is drawn towards what the histogram, each predictor by itself, says of the patients it asks for; the
more, the less the leaf and those beside it are known.
All patients are in all trees. Were each in one tree only, his norm would be 1 instead of the root of their number T,
but every tree would have n / T patients: the mean of such trees has root T times the noise beside the same signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import shake_256
from typing import Final

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import Opened, StepShape
from flute.algorithms.design import Mask
from flute.data.variables import Array
from flute.models.features import Cuts, Feature, Indices, cuts_for, people_by_code
from flute.models.trees.additive import alone
from flute.models.trees.histograms import Splits, level_rows, nodes, sides

_WEIGHTS: Final = (0.35, 0.65)
"""Parts of the question's budget: histogram, leaves. At (.2, .8) AUC at epsilon .5 is .01 more on breast cancer and
diabetes, .026 less on the pilot."""
_DIFFERENCE: Final = 0.15
"""Of the outcome's shares on two sides of a cut, before anything is opened. At .3 AUC at epsilon .5 is .04 less on
the pilot, elsewhere the same to .005."""
_PRIOR_SD: Final = 0.2
"""Of a leaf's risk around what the histogram says, before anything is counted. At .1 AUC at epsilon .5 is .023 less
on diabetes and .007 less on the pilot."""
_NOBODY: Final = 1e-9
"""Patients: so that a bin which noise says is empty still has a mean."""
_DRAWN: Final = b"flute/forest/drawn/v1"


def outline(features: tuple[Feature, ...], trees: int, depth: int) -> tuple[StepShape, ...]:
    first = StepShape("counts", 2 * cuts_for(features).codes, float(np.sqrt(len(features))), _WEIGHTS[0], 1.0)
    return (first, StepShape("leaves", trees * 2 * 2**depth, float(np.sqrt(trees)), _WEIGHTS[1], 1.0))


def histogram_rows(found: Indices, cuts: Cuts, classes: Array) -> Array:
    return level_rows(np.zeros(len(found), dtype=np.int64), 1, found, cuts, classes)


def leaf_rows(at: Indices, depth: int, classes: Array) -> Array:
    """[n, trees x leaves x 2]: one entry per tree, of the leaf `at` [n, trees] and the class."""
    n, trees = at.shape
    rows = np.zeros((n, trees * 2**depth, 2))
    rows[np.arange(n)[:, None], np.arange(trees) * 2**depth + at] = classes[:, None, :]
    return rows.reshape(n, trees * 2**depth * 2)


def drawn(features: tuple[Feature, ...], opened: Opened, trees: int, depth: int, seed: int) -> Splits:
    """All trees' nodes, tree by tree."""
    cuts = cuts_for(features)
    chances, even = _chances(features, opened), _even(seed, trees * nodes(depth))
    chosen = np.concatenate([_tree(chances, depth, even) for _ in range(trees)])
    return Splits(cuts.feature[chosen], cuts.cut[chosen])


def _tree(chances: Array, depth: int, even: Iterator[float]) -> Indices:
    """[nodes] which cut each node asks, none that a node above it asks."""
    chosen = np.zeros(nodes(depth), dtype=np.int64)
    for node in range(nodes(depth)):
        left, above = chances.copy(), node
        while above:
            above = (above - 1) // 2
            left[chosen[above]] = 0.0
        rising = np.cumsum(left if left.any() else chances)
        chosen[node] = min(int(np.searchsorted(rising, next(even) * rising[-1], side="right")), len(chances) - 1)
    return chosen


def _even(seed: int, count: int) -> Iterator[float]:
    """Public numbers in [0, 1) that follow from the seed."""
    raw = np.frombuffer(shake_256(_DRAWN + seed.to_bytes(8, "little")).digest(8 * count), dtype="<u8")
    return iter((raw.astype(np.float64) / 2.0**64).tolist())


def _chances(features: tuple[Feature, ...], opened: Opened) -> Array:
    """[cuts] how often each is drawn: as the impurity that it is expected to take off the whole cohort, given what
    was opened. Before that, two sides' shares of the outcome differ by _DIFFERENCE, so cuts in the middle come
    first."""
    cuts = cuts_for(features)
    counts = opened.total.reshape(-1, 2)
    n = max(float(counts.sum()) / len(features), 1.0)
    overall = float(np.clip(counts[:, 1].sum() / max(float(counts.sum()), 1.0), 0.02, 0.98))
    off = np.column_stack([counts[:, 1] - overall * counts.sum(axis=1), _people(features, counts, n, opened.sigma)])
    left, right = sides(off[None], cuts)
    balance = np.maximum(left[0, :, 1] * right[0, :, 1] / n, 1e-9)
    noise = opened.sigma**2 * (overall**2 + (1 - overall) ** 2) * cuts.widths + overall * (1 - overall) * balance
    before = (_DIFFERENCE * balance) ** 2
    known = before / (before + noise)
    return np.asarray(((known * left[0, :, 0]) ** 2 + known * noise) / balance)


def _people(features: tuple[Feature, ...], counts: Array, n: float, sigma: float) -> Array:
    """[codes of all] patients."""
    parts = np.split(counts.sum(axis=1), cuts_for(features).starts[1:-1])
    return np.concatenate([people_by_code(f, part, n, sigma) for f, part in zip(features, parts, strict=True)])


def telling(features: tuple[Feature, ...], opened: Opened) -> dict[str, float]:
    """Per predictor the chance that a first question is about it."""
    cuts = cuts_for(features)
    chances = np.bincount(cuts.feature, _chances(features, opened), len(features))
    return {f.name: float(v) for f, v in zip(features, chances / chances.sum(), strict=True)}


def expected_risks(features: tuple[Feature, ...], opened: Opened, splits: Splits, trees: int, depth: int) -> Array:
    """[trees, leaves] risks by the histogram alone: to the log odds of the whole cohort, every predictor
    asked about on the way adds how far the bins that are left to it differ from all of its bins."""
    cuts = cuts_for(features)
    curves, people = alone(features, opened)
    feature, cut = splits.feature.reshape(trees, -1), splits.cut.reshape(trees, -1)
    odds = np.full((trees, 2**depth), curves.start)
    for tree in range(trees):
        for leaf in range(2**depth):
            for k, left in _left(feature[tree], cut[tree], leaf, depth, cuts).items():
                odds[tree, leaf] += _beyond(curves.means[k], people[k] + _NOBODY, left[: features[k].codes])
    return np.asarray(expit(odds))


def _left(feature: Indices, cut: Indices, leaf: int, depth: int, cuts: Cuts) -> dict[int, Mask]:
    """For every predictor on the way to a leaf, the codes that its questions leave."""
    found: dict[int, Mask] = {}
    for level in range(depth):
        node, right = (1 << level) - 1 + (leaf >> (depth - level)), bool(leaf >> (depth - 1 - level) & 1)
        k = int(feature[node])
        found[k] = found.get(k, np.True_) & (cuts.table[k, cut[node]] ^ right)
    return found


def _beyond(curve: Array, people: Array, left: Mask) -> float:
    """Mean of a curve over some bins less that over all; 0 where no bin is left."""
    some = float(curve[left] @ people[left] / people[left].sum()) if left.any() else 0.0
    return (some - float(curve @ people / people.sum())) * bool(left.any())


def leaves(opened: Opened, expected: Array) -> tuple[Array, float, float]:
    """Risks [trees, leaves]; patients, and the noise in that. expected: [trees, leaves] risks before."""
    trees, depth = len(expected), expected.shape[1].bit_length() - 1
    counts = opened.total.reshape(trees, 2**depth, 2)
    whole = counts.sum(axis=(0, 1)) / trees
    n = float(whole.sum())
    overall = float(np.clip(whole[1] / max(n, 1.0), 0.02, 0.98))
    alike = max(n, 1.0) / 2**depth
    trust = alike**2 / (alike**2 + 2 * opened.sigma**2)
    people = np.maximum(alike + trust * (counts.sum(axis=2) - alike), 0.0)
    noise = opened.sigma**2 * (overall**2 + (1 - overall) ** 2)
    off = counts[:, :, 1] - expected * counts.sum(axis=2)
    prior = _PRIOR_SD**2 * _shared(depth)
    moved = [_told(prior, there, sums, overall, noise) for there, sums in zip(people, off, strict=True)]
    return np.clip(expected + np.array(moved), 0.0, 1.0), n, opened.sigma * float(np.sqrt(2 * 2**depth / trees))


def _told(prior: Array, people: Array, off: Array, overall: float, noise: float) -> Array:
    """[leaves] by how much each one's risk differs: from `off`, cases beyond what the risk before would give, which
    is people times that difference, chance in who was a patient, and noise."""
    across = prior * people
    chance = overall * (1 - overall) * people + noise + 1e-6
    return np.asarray(across @ np.linalg.solve(people[:, None] * across + np.diag(chance), off))


def _shared(depth: int) -> Array:
    """[leaves, leaves] part of the questions on the way that two leaves have answered alike from the top."""
    at = np.arange(1 << depth)
    return np.asarray(np.mean([np.equal.outer(at >> k, at >> k) for k in range(depth)], axis=0), dtype=np.float64)
