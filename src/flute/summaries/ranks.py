"""Rank tests from histograms of groups on one public grid: Mann-Whitney and Kruskal-Wallis, ties corrected.

Values in one bin are ties. Exact counts give the tests of values moved to their bins; `grid_bound` says how far U can
be from that of the values themselves. Noised counts give the same statistics, their variances with the noise's in it:
linear in the counts, so known exactly, and linearised where two groups' counts are multiplied.

Sources: Mann and Whitney 1947; Kruskal and Wallis 1952; Lehmann 1975, appendix 1 (ties); DeLong, DeLong and
Clarke-Pearson 1988 (the variance of U where groups differ); Kerby 2014 (rank-biserial correlation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from flute.algorithms.prefix import Counts
from flute.algorithms.scores import Z_95
from flute.data.variables import Array
from flute.summaries.blocks import interval, plain


def _below(counts: Array) -> Array:
    """[bins] patients of a histogram below a patient in each bin, those in the same bin half."""
    return np.asarray(np.cumsum(counts) - counts / 2)


def _pair_noise(a: Counts, b: Counts, theta: float) -> float:
    """Deviation of the noise in U / (n_a n_b), which stands at theta."""
    n_a, n_b = a.total, b.total
    wins = (_below(b.raw) - theta * n_b) / (n_a * n_b)
    losses = ((a.raw.sum() - _below(a.raw)) - theta * n_a) / (n_a * n_b)
    return float(np.hypot(a.noise_sd(wins), b.noise_sd(losses)))


def _sampling(a: Counts, b: Counts, theta: float) -> float:
    """DeLong's error of U / (n_a n_b)."""
    x, y = a.consistent, b.consistent
    wins, losses = _below(y) / b.total, (a.total - _below(x)) / a.total
    spread_a = float(x @ (wins - theta) ** 2) / a.total / max(a.total - 1, 1)
    spread_b = float(y @ (losses - theta) ** 2) / b.total / max(b.total - 1, 1)
    return float(np.sqrt(spread_a + spread_b))


def mann_whitney(a: Counts, b: Counts, *, private: bool) -> dict[str, Any]:
    """U of the first group: how many pairs its values win, ties a half each; rank-biserial correlation.

    Exact: normal approximation with ties and continuity correction. Private: without the correction, and with the
    noise's variance added.
    """
    n_a, n_b = a.total, b.total
    pairs = n_a * n_b
    if min(n_a, n_b) < 1:
        return {"test": "Mann-Whitney", "u": None, "z": None, "p": None, "grid_bound": None, "rank_biserial": None}
    u = float(a.raw @ _below(b.raw))
    theta = float(np.clip(u / pairs, 0, 1))
    noise = _pair_noise(a, b, theta) if private else 0.0
    spread = float(np.hypot(np.sqrt(_null_variance(a, b)) / pairs, noise))
    gap = abs(u / pairs - 0.5)
    # a half to either side, as U moves in steps of one; it may turn the sign, as in scipy
    z = (gap - (0.0 if private else 0.5 / pairs)) / spread if spread > 0 else float("nan")
    biserial = interval(2 * theta - 1, 2 * _sampling(a, b, theta), 2 * noise, Z_95, low=-1.0, high=1.0)
    return {
        "test": "Mann-Whitney",
        "u": u,
        "u_noise_se": pairs * noise,
        "z": plain(np.sign(u / pairs - 0.5) * z),
        "p": plain(min(2 * float(norm.sf(z)), 1.0)),
        "grid_bound": float(a.consistent @ b.consistent) / 2,
        "rank_biserial": biserial,
    }


def _null_variance(a: Counts, b: Counts) -> float:
    """Of U where both groups are alike, ties corrected."""
    n = a.total + b.total
    tied = a.consistent + b.consistent
    ties = float(np.sum(tied**3 - tied)) / (n * (n - 1)) if n > 1 else 0.0
    return max(a.total * b.total / 12 * (n + 1 - ties), 0.0)


def kruskal_wallis(groups: Sequence[Counts], *, private: bool) -> dict[str, Any]:
    """Whether groups differ in location, over those that somebody is in.

    Groups' mean scores (rank over n) are compared, weighted by their variances: that is H where there is no noise.
    The scores come from all groups' counts; where groups are alike, noise in them moves all means alike.
    """
    there = [g for g in groups if g.total >= 1]
    degrees = max(len(there) - 1, 0)
    pooled = np.sum([g.consistent for g in there], axis=0) if there else np.zeros(1)
    n = float(pooled.sum())
    score = _below(pooled) / max(n, 1.0)
    variance = float(pooled @ (score - 0.5) ** 2) / (n - 1) if n > 1 else 0.0
    means = np.array([float(g.raw @ score) / g.total for g in there])
    noises = [g.noise_sd((score - m) / g.total) if private else 0.0 for g, m in zip(there, means, strict=True)]
    errors = np.array([variance / g.total + e**2 for g, e in zip(there, noises, strict=True)])
    statistic = float("nan")
    if degrees and variance > 0:
        weights = 1 / errors
        statistic = float(weights @ (means - weights @ means / weights.sum()) ** 2)
    return {
        "test": "Kruskal-Wallis",
        "statistic": plain(statistic),
        "degrees_of_freedom": degrees,
        "p": plain(float(chi2.sf(statistic, degrees))) if degrees else None,
    }
