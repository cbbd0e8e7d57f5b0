"""Harrell's concordance from a table of times and scores, noise included.

With D_kr events and E_kr other ends at time k and score r, a pair is usable where one has the event and the other
leaves later; ends of a bin count as later than its events, events of one bin as no pair. It is concordant where the
one with the event has the higher score, half so where scores share a bin:
    f = sum_kr D_kr (sum_{r' < r} A_kr' + A_kr / 2),  A_kr = E_kr + sum_{k' > k} D_k'r + E_k'r,
    g = sum_kr D_kr sum_r' A_kr',   C = f / g.
f and g are quadratic in the counts: f - C g is a sum of D' T D and D' T' E, T = T_time x T_score. Sampling: each
patient's derivative (projection of a U statistic). Noise: exact, its linear part and its square; the square's mean,
known too, is taken off.

Sources: Harrell et al. 1982; Hoeffding 1948; Therneau and Atkinson, "Concordance" (vignette of R's survival).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flute.algorithms.scores import Z_95
from flute.data.variables import Array
from flute.defaults.summaries import DROWNED
from flute.summaries.blocks import interval, onto_noise, plain


@dataclass(frozen=True, slots=True)
class PairTable:
    """`events`, `ends` [times, scores]: unbiased counts; `sigma`: of the noise on every opened number, which is a sum
    for prefixes along both sides."""

    events: Array
    ends: Array
    sigma: float

    @property
    def after(self) -> Array:
        """[times, scores] A."""
        later = np.cumsum((self.events + self.ends)[::-1], axis=0)[::-1]
        return np.asarray(later - self.events)


def _score_part(scores: int, value: float) -> Array:
    """[scores, scores] T_score: 1 below the diagonal, a half on it, less `value`."""
    return np.tril(np.ones((scores, scores)), -1) + np.eye(scores) / 2 - value


def _time_part(times: int, same: bool) -> Array:
    """[times, times] T_time: who leaves later than an event at k; `same`: in the same bin too."""
    return np.triu(np.ones((times, times)), 0 if same else 1)


def _pairs(table: PairTable, value: float) -> float:
    """f - value g, without what noise adds to it on average."""
    times, scores = table.events.shape
    part = _score_part(scores, value)
    found = float(np.sum(table.events * (table.after @ part.T)))
    squares = np.trace(_seen(_time_part(times, same=False))) * np.trace(_seen(part))
    return found - table.sigma**2 * float(squares)


def _seen(part: Array) -> Array:
    """From counts to the noise of opened prefix sums, on both sides."""
    return onto_noise(onto_noise(part).T).T


def _derivatives(table: PairTable, value: float) -> tuple[Array, Array]:
    """[times, scores] of f - value g by an event, by another end."""
    part = _score_part(table.events.shape[1], value)
    earlier = np.cumsum(table.events, axis=0) @ part
    first = table.after @ part.T
    return np.asarray(first + earlier - table.events @ part), np.asarray(earlier)


def _noise(table: PairTable, value: float) -> float:
    """Deviation of the noise in f - value g."""
    if table.sigma == 0:
        return 0.0
    times, scores = table.events.shape
    linear = sum(float(np.sum(onto_noise(onto_noise(d).T) ** 2)) for d in _derivatives(table, value))
    score, with_ends, alone = (
        _seen(m) for m in (_score_part(scores, value), _time_part(times, same=True), _time_part(times, same=False))
    )
    square = float(np.sum(score**2)) * float(np.sum(with_ends**2) + np.sum(alone**2))
    square += float(np.sum(score * score.T)) * float(np.sum(alone * alone.T))
    return float(np.sqrt(table.sigma**2 * linear + table.sigma**4 * max(square, 0.0)))


def concordance(table: PairTable) -> dict[str, Any]:
    """C with its interval; None where no pair is usable, or what noise leaves of their number tells nothing."""
    pairs = -(_pairs(table, 1.0) - _pairs(table, 0.0))
    noise_of_pairs = _noise_of_pairs(table)
    shown = {"usable_pairs": max(pairs, 0.0), "usable_pairs_noise_se": noise_of_pairs}
    if pairs <= max(DROWNED * noise_of_pairs, 0.5):
        return {"concordance": interval(*[float("nan")] * 4), **shown, "grid_bound": None}
    value = float(np.clip(_pairs(table, 0.0) / pairs, 0.0, 1.0))
    by_event, by_end = _derivatives(table, value)
    spread = float(np.sum(table.events * by_event**2) + np.sum(table.ends * by_end**2))
    found = interval(value, np.sqrt(max(spread, 0.0)) / pairs, _noise(table, value) / pairs, Z_95, low=0.0, high=1.0)
    return {"concordance": found, **shown, "grid_bound": _grid_bound(table, value, pairs)}


def _noise_of_pairs(table: PairTable) -> float:
    """f - value g, for a large value over itself, is -g."""
    far = 1e6
    return _noise(table, far) / far


def _grid_bound(table: PairTable, value: float, pairs: float) -> float | None:
    """By how much C of the values themselves may differ: scores that share a bin may stand either way, and pairs
    within one bin of time be usable or not."""
    alike = max(float(np.sum(table.events * table.after)), 0.0)
    died, ended = table.events.sum(axis=1), table.ends.sum(axis=1)
    unsure = max(float(np.sum(died * ended)), 0.0)
    unused = max(float(np.sum(died * (died - 1))) / 2, 0.0)
    left = pairs - unsure
    if left <= 0:
        return None
    return plain(min((alike / 2 + (unsure + unused) * max(value, 1 - value)) / left, 1.0))
