"""Tests of fit for discrete Gaussian draws. Each is a verdict on one sample, with its false alarm and its power.

Expected values are sums over the exact probabilities, no continuous approximation. Where a statistic is a mean of
n terms it is compared with Z deviations; at n = 1e6 its skewness changes the tail beyond Z by under a tenth.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ncx2, norm, poisson

ALPHA = 1e-6
Z = float(norm.isf(ALPHA / 2))
BINS = 50
Draws = NDArray[np.int64]


def seed(i: int) -> bytes:
    return i.to_bytes(32, "big")


@lru_cache(maxsize=16)
def pmf(sigma: float) -> NDArray[np.float64]:
    """The discrete Gaussian's probabilities at -reach..reach, reach = ceil(9 sigma) + 4: all but 1e-18."""
    reach = math.ceil(9 * sigma) + 4
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


@lru_cache(maxsize=1024)
def moment(sigma: float, order: int) -> float:
    reach = len(pmf(sigma)) // 2
    return float((pmf(sigma) * np.arange(-reach, reach + 1, dtype=np.float64) ** order).sum())


@lru_cache(maxsize=16)
def below(sigma: float) -> NDArray[np.float64]:
    """P(X < x) for x = -reach..reach+1."""
    return np.concatenate([[0.0], np.cumsum(pmf(sigma))])


def scale_fits(draws: Draws, sigma: float) -> bool:
    """The mean square is the variance of N_Z(0, sigma^2); two-sided, false alarm ALPHA."""
    return abs(scale_shift(float(np.square(draws, dtype=np.float64).mean()), sigma, draws.size)) < Z


def scale_shift(mean_square: float, sigma: float, size: int) -> float:
    """In deviations of the mean of `size` squares."""
    m2, m4 = moment(sigma, 2), moment(sigma, 4)
    return (mean_square - m2) / math.sqrt((m4 - m2**2) / size)


def scale_power(actual: float, sigma: float, size: int) -> float:
    """Chance that `scale_fits(draws, sigma)` rejects `size` draws of N_Z(0, actual^2)."""
    wide = math.sqrt((moment(actual, 4) - moment(actual, 2) ** 2) / (moment(sigma, 4) - moment(sigma, 2) ** 2))
    return float(norm.cdf((abs(scale_shift(moment(actual, 2), sigma, size)) - Z) / wide))


def centred(draws: Draws, sigma: float) -> bool:
    """The means of x and of x^3 are 0; two-sided, false alarm ALPHA together."""
    limit = float(norm.isf(ALPHA / 4)) / math.sqrt(draws.size)
    values = draws.astype(np.float64)
    mean, skew = float(values.mean()), float((values**2 * values).mean())
    return abs(mean) < limit * math.sqrt(moment(sigma, 2)) and abs(skew) < limit * math.sqrt(moment(sigma, 6))


def kurtosis_fits(draws: Draws, sigma: float) -> bool:
    """Fourth moment over the squared second, both of the draws, so that scale drops out; two-sided, ALPHA."""
    squares = np.square(draws, dtype=np.float64)
    found = float(np.square(squares).mean() / squares.mean() ** 2)
    m2, m4, m6, m8 = (moment(sigma, order) for order in (2, 4, 6, 8))
    a, b = 1 / m2**2, -2 * m4 / m2**3
    spread = a**2 * (m8 - m4**2) + 2 * a * b * (m6 - m2 * m4) + b**2 * (m4 - m2**2)
    return abs(found - m4 / m2**2) < Z * math.sqrt(spread / draws.size)


@lru_cache(maxsize=64)
def bin_edges(sigma: float) -> NDArray[np.int64]:
    """First values of bins 2, 3, ...: about BINS of equal chance, and beyond 3 and 3.7 sigma bins of their own."""
    reach = len(pmf(sigma)) // 2
    inner = np.searchsorted(below(sigma)[1:], np.arange(1, BINS) / BINS) - reach
    outer = np.ceil(np.array([-3.7, -3.0, 3.0, 3.7]) * sigma).astype(np.int64)
    return np.unique(np.concatenate([inner, outer]))


def bin_chances(sigma: float, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    reach = len(pmf(sigma)) // 2
    return np.diff(np.concatenate([[0.0], below(sigma)[np.clip(edges + reach, 0, 2 * reach + 1)], [1.0]]))


def shape_fits(draws: Draws, sigma: float) -> bool:
    """Chi-squared over `bin_edges`; false alarm ALPHA. For so many draws that every bin expects at least 5."""
    edges = bin_edges(sigma)
    expected = bin_chances(sigma, edges) * draws.size
    if expected.min() < 5:
        raise ValueError("too few draws for the chi-squared law")
    seen = np.bincount(np.searchsorted(edges, draws, side="right"), minlength=len(expected))
    return float(((seen - expected) ** 2 / expected).sum()) < chi2.isf(ALPHA, len(edges))


def shape_power(actual: float, sigma: float, size: int) -> float:
    """Chance that `shape_fits(draws, sigma)` rejects `size` draws of N_Z(0, actual^2), by noncentral chi-squared."""
    edges = bin_edges(sigma)
    expected = bin_chances(sigma, edges)
    shift = float(((bin_chances(actual, edges) - expected) ** 2 / expected).sum()) * size
    return float(ncx2.sf(chi2.isf(ALPHA, len(edges)), len(edges), shift))


def frequencies_fit(draws: Draws, sigma: float) -> bool:
    """Chi-squared with every value a cell, those that expect under 10 pooled; false alarm ALPHA."""
    reach = len(pmf(sigma)) // 2
    expected = pmf(sigma) * draws.size
    seen = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    thin = expected < 10
    cells = np.append(expected[~thin], expected[thin].sum())
    counts = np.append(seen[~thin], seen[thin].sum())
    return float(((counts - cells) ** 2 / cells).sum()) < chi2.isf(ALPHA, cells.size - 1)


def tail_chance(sigma: float, cut: float) -> float:
    """P(|X| >= cut)."""
    reach = len(pmf(sigma)) // 2
    return 2 * float(pmf(sigma)[reach + math.ceil(cut) :].sum())


def tail_limits(sigma: float, cut: float, size: int) -> tuple[float, float]:
    """How many of `size` draws may be at least `cut` in size: Poisson, false alarm ALPHA."""
    expected = tail_chance(sigma, cut) * size
    return float(poisson.ppf(ALPHA / 2, expected)), float(poisson.isf(ALPHA / 2, expected))


def tail_fits(draws: Draws, sigma: float, cut: float) -> bool:
    low, high = tail_limits(sigma, cut, draws.size)
    return bool(low <= np.count_nonzero(np.abs(draws) >= cut) <= high)


def tail_power(actual: float, sigma: float, cut: float, size: int) -> float:
    """Chance that `tail_fits(draws, sigma, cut)` rejects `size` draws of N_Z(0, actual^2)."""
    low, high = tail_limits(sigma, cut, size)
    expected = tail_chance(actual, cut) * size
    return float(poisson.cdf(low - 1, expected) + poisson.sf(high, expected))


def uncorrelated(a: Draws, b: Draws) -> bool:
    """Pearson's correlation is 0; two-sided, false alarm ALPHA."""
    return bool(abs(np.corrcoef(a, b)[0, 1]) < Z / math.sqrt(a.size))


def residues_fit(draws: Draws, modulus: int) -> bool:
    """Chi-squared of x mod `modulus` against equal chances; false alarm ALPHA. Exact for sigma >> modulus / 2."""
    counts = np.bincount(draws % modulus, minlength=modulus)
    expected = draws.size / modulus
    return float(((counts - expected) ** 2 / expected).sum()) < chi2.isf(ALPHA, modulus - 1)
