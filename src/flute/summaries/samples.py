"""What groups' counts, means and variances say about their difference: t, Welch, analysis of variance, effect sizes.

Exact totals give the textbook tests. Noised totals give the same estimates, and tests and intervals in which the
noise's own variance, known exactly, is added to the sampling variance of every mean.

Sources: Student 1908; Welch 1947; Fisher 1925 (analysis of variance); Cohen 1988; James 1951 (means weighted by their
own errors, compared by chi-squared).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import chi2, f, t

from flute.algorithms.scores import Z_95
from flute.data.variables import Array
from flute.defaults.summaries import CONSTANT_VARIANCE
from flute.summaries.blocks import NumberBlock, estimate, interval, plain

_95: Final = 0.975


@dataclass(frozen=True, slots=True)
class Sample:
    """One group. mean, variance (divisor n - 1): NaN where too few patients; variance 0 where all are alike. The
    rest: deviations of the noise in each, and of chance in the variance."""

    n: float
    mean: float
    variance: float
    n_noise: float
    mean_noise: float
    variance_noise: float
    variance_sampling: float = float("nan")

    @property
    def sampling_se(self) -> float:
        """Of the mean."""
        return float(np.sqrt(self.variance / self.n)) if self.n >= 2 else float("nan")

    @property
    def se(self) -> float:
        """Of the mean, noise included."""
        return float(np.hypot(self.sampling_se, self.mean_noise))

    def shown(self) -> dict[str, Any]:
        deviation = float(np.sqrt(self.variance))
        return {
            "n": estimate(self.n, self.n_noise),
            "mean": interval(self.mean, self.sampling_se, self.mean_noise, half_width(self.n - 1)),
            "sd": interval(
                deviation,
                _root_noise(self.variance, self.variance_sampling),
                _root_noise(self.variance, self.variance_noise),
                Z_95,
                low=0.0,
            ),
        }


def _root_noise(variance: float, noise: float) -> float:
    """Of a square root; near 0 the noise's own root, since no derivative is there."""
    return min(noise / (2 * np.sqrt(variance)), float(np.sqrt(noise))) if variance > 0 else float(np.sqrt(noise))


def half_width(degrees: float) -> float:
    """Of a 95 % interval, in errors."""
    return float(t.ppf(_95, degrees)) if degrees > 0 else float("nan")


def sample_of(block: NumberBlock) -> Sample:
    """Mean and variance kept within what the range allows; noise by the delta method."""
    v, counts, n = block.variable, block.counts, block.counts.total
    half, middle = (v.high - v.low) / 2, (v.high + v.low) / 2
    sigma, n_noise = counts.sigma, float(counts.prefix_noise_sds()[-1])
    nan = float("nan")
    if n < 1:
        return Sample(n, nan, nan, n_noise, nan, nan)
    m, q = float(np.clip(block.total / n, -1, 1)), float(np.clip(block.squares / n, 0, 1))
    mean_noise = half * float(np.hypot(sigma, m * n_noise)) / n
    if n < 2:
        return Sample(n, middle + half * m, nan, n_noise, mean_noise, nan)
    varies = max(q - m * m, 0.0)
    varies = varies if varies > CONSTANT_VARIANCE else 0.0
    noise = float(np.hypot(sigma * np.hypot(1, 2 * m), n_noise * (q - 2 * m * m))) / n
    return Sample(
        n, middle + half * m, half**2 * varies * n / (n - 1), n_noise, mean_noise, half**2 * noise,
        half**2 * _variance_sampling(block, m, varies),
    )  # fmt: skip


def _variance_sampling(block: NumberBlock, mean: float, variance: float) -> float:
    """Deviation of chance in the variance of v: root of (fourth moment - variance^2) / n, the fourth moment from the
    middles of bins."""
    bins, counts = len(block.counts.raw), block.counts.consistent
    middles = (2 * np.arange(bins) + 1) / bins - 1
    fourth = float(counts @ (middles - mean) ** 4) / max(float(counts.sum()), 1.0)
    return float(np.sqrt(max(fourth - variance**2, 0.0) / block.counts.total)) if variance > 0 else 0.0


def student(a: Sample, b: Sample) -> dict[str, Any]:
    """Student's t with one variance for both groups; noise is added to each mean's own variance."""
    degrees = a.n + b.n - 2
    pooled = ((a.n - 1) * a.variance + (b.n - 1) * b.variance) / degrees if degrees > 0 else float("nan")
    sampling = np.sqrt(pooled * (1 / a.n + 1 / b.n)) if min(a.n, b.n) >= 1 else float("nan")
    return _difference("Student", a, b, float(sampling), degrees)


def welch(a: Sample, b: Sample) -> dict[str, Any]:
    """Welch's t. Degrees of freedom: Satterthwaite's, the noise in a mean having infinitely many."""
    parts = np.array([a.sampling_se**2, b.sampling_se**2])
    noise = a.mean_noise**2 + b.mean_noise**2
    slack = float(np.sum(parts**2 / (np.array([a.n, b.n]) - 1))) if min(a.n, b.n) > 1 else float("nan")
    degrees = float((parts.sum() + noise) ** 2 / slack) if slack > 0 else float("nan")
    return _difference("Welch", a, b, float(np.sqrt(parts.sum())), degrees)


def _difference(test: str, a: Sample, b: Sample, sampling_se: float, degrees: float) -> dict[str, Any]:
    noise, gap = float(np.hypot(a.mean_noise, b.mean_noise)), a.mean - b.mean
    total = float(np.hypot(sampling_se, noise))
    statistic = gap / total if total > 0 else float("nan")
    return {
        "test": test,
        "statistic": plain(statistic),
        "degrees_of_freedom": plain(degrees),
        "p": plain(2 * float(t.sf(abs(statistic), degrees))),
        "difference": interval(gap, sampling_se, noise, half_width(degrees)),
    }


def analysis_of_variance(samples: Sequence[Sample], *, private: bool) -> dict[str, Any]:
    """Whether all means are the same, over the groups that somebody is in.

    Exact: Fisher's F. Private: James' chi-squared, means weighted by their own variances, the noise's included.
    """
    there = [s for s in samples if s.n >= (2 if private else 1)]
    n = np.array([s.n for s in there])
    means = np.array([s.mean for s in there])
    between = len(there) - 1
    if private:
        weights = np.array([1 / s.se**2 if s.se > 0 else np.nan for s in there])
        statistic = _spread_of(weights, means)
        return _tested("James", statistic, between, None, float(chi2.sf(statistic, between)))
    squares = float(np.sum([(s.n - 1) * s.variance for s in there if s.n >= 2]))
    within = float(n.sum()) - len(there)
    error = squares / within if within > 0 else float("nan")
    statistic = _spread_of(n, means) / between / error if between > 0 and error > 0 else float("nan")
    return _tested("analysis of variance", statistic, between, within, float(f.sf(statistic, between, within)))


def _spread_of(weights: Array, means: Array) -> float:
    return float(weights @ (means - weights @ means / weights.sum()) ** 2) if len(means) > 1 else float("nan")


def _tested(test: str, statistic: float, between: int, within: float | None, p: float) -> dict[str, Any]:
    return {
        "test": test,
        "statistic": plain(statistic),
        "degrees_of_freedom": max(between, 0),
        "degrees_within": within,
        "p": plain(p),
    }


def cohens_d(a: Sample, b: Sample) -> dict[str, Any]:
    """Difference over the pooled deviation. Sampling error: Hedges and Olkin 1985, (5.14); noise: delta method."""
    degrees = a.n + b.n - 2
    pooled = ((a.n - 1) * a.variance + (b.n - 1) * b.variance) / degrees if degrees > 0 else float("nan")
    if not pooled > 0 or min(a.n, b.n) < 1:
        return interval(*[float("nan")] * 4)
    d = (a.mean - b.mean) / float(np.sqrt(pooled))
    sampling = float(np.sqrt((a.n + b.n) / (a.n * b.n) + d**2 / (2 * (a.n + b.n))))
    in_variance = float(np.hypot((a.n - 1) * a.variance_noise, (b.n - 1) * b.variance_noise)) / degrees
    noise = float(np.hypot(np.hypot(a.mean_noise, b.mean_noise) / np.sqrt(pooled), d * in_variance / (2 * pooled)))
    return interval(d, sampling, noise, half_width(np.inf))


def standardised_difference(a: Sample, b: Sample) -> tuple[float, float]:
    """|difference| over the root of the mean variance, and the deviation of its noise. Source: Austin 2009."""
    spread = (a.variance + b.variance) / 2
    if not spread > 0:
        return float("nan"), float("nan")
    found = abs(a.mean - b.mean) / float(np.sqrt(spread))
    in_spread = found * float(np.hypot(a.variance_noise, b.variance_noise)) / (4 * spread)
    return found, float(np.hypot(np.hypot(a.mean_noise, b.mean_noise) / np.sqrt(spread), in_spread))
