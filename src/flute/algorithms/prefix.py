"""Histograms whose cumulative counts come out with little noise.

The matrix A of prefix sums is the square of the lower-triangular Toeplitz matrix R with coefficients
f_k = (-1)^k binom(-1/2, k) = binom(2k, k) / 4^k. Private mode opens z = R h + noise for the histogram h; then
A h = R z carries noise of sigma sqrt(f_0^2 + ... + f_i^2) at bin i, which grows like the root of a logarithm
(1,024 bins: 1.82, times a patient's norm of the same size: 3.3), where summing noisy bins grows like the
square root of i. Any other function of h is read off h = R^-1 z, with the noise it then has.

Source: Fichtenberger, Henzinger, Upadhyay 2023, "Constant matters", section 3 (the factorisation and its
norms); Bennett 1977 for the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from flute.data.variables import Array

Indices = NDArray[np.int64]


def coefficients(bins: int) -> Array:
    """f_0 ... f_{bins-1} of (1 - x)^(-1/2): 1, 1/2, 3/8, 5/16, ..."""
    k = np.arange(1, bins)
    return np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])


def _inverse_coefficients(bins: int) -> Array:
    """Of (1 - x)^(1/2), the inverse: 1, -1/2, -1/8, -1/16, ..."""
    k = np.arange(1, bins)
    return np.concatenate([[1.0], np.cumprod((2 * k - 3) / (2 * k))])


def _toeplitz(first_column: Array) -> Array:
    size = len(first_column)
    lag = np.subtract.outer(np.arange(size), np.arange(size))
    return np.where(lag >= 0, first_column[np.maximum(lag, 0)], 0.0)


def norm_squared(bins: int, *, private: bool) -> float:
    """Largest squared L2 norm of one patient's histogram row; exact, reached by the first bin."""
    return float(np.sum(coefficients(bins) ** 2)) if private else 1.0


def rows(index: Indices, bins: int, *, private: bool) -> Array:
    """[n, bins]: column `index` of R (private) or of the identity (exact) per patient; index -1 is a zero row."""
    table = _toeplitz(coefficients(bins)) if private else np.eye(bins)
    table = np.vstack([table.T, np.zeros(bins)])
    return np.asarray(table[index])


@dataclass(frozen=True, slots=True)
class Counts:
    """A histogram as opened. Arrays float64 [bins].

    `raw`: unbiased counts, `prefix`: unbiased cumulative counts; with noise both may go down or below zero.
    `consistent`: counts that are not negative, from the closest cumulative counts that never fall.
    """

    raw: Array
    prefix: Array
    consistent: Array
    sigma: float

    def noise_sd(self, weights: Array) -> float:
        """Deviation of the noise in sum(weights * raw counts); exact, 0 where nothing was added."""
        if self.sigma == 0:
            return 0.0
        r_inverse = _toeplitz(_inverse_coefficients(len(self.raw)))
        return self.sigma * float(np.linalg.norm(r_inverse.T @ weights))

    def count_noise_sds(self) -> Array:
        """[bins] deviation of the noise in every raw count."""
        inverse = _inverse_coefficients(len(self.raw))
        return self.sigma * np.sqrt(np.cumsum(inverse**2))

    def prefix_noise_sds(self) -> Array:
        """[bins] deviation of the noise in every cumulative count."""
        return self.sigma * np.sqrt(np.cumsum(coefficients(len(self.raw)) ** 2))

    @property
    def total(self) -> float:
        """Estimated number of patients, not negative; the sum of `consistent`."""
        return float(self.consistent.sum())


def opened_counts(opened: Array, sigma: float, *, private: bool) -> Counts:
    """Read the histogram part [bins] of an opened total. All of it is post-processing."""
    if not private:
        counts = np.round(opened)  # the fixed point's 1e-12 is not a count
        return Counts(counts, np.cumsum(counts), np.maximum(counts, 0.0), 0.0)
    bins = len(opened)
    prefix = _toeplitz(coefficients(bins)) @ opened
    raw = _toeplitz(_inverse_coefficients(bins)) @ opened
    precision = 1 / np.cumsum(coefficients(bins) ** 2)
    # the last cumulative count is the number of patients: kept as opened, since pooling would only ever raise it
    rising = np.clip(isotonic_regression(prefix, weights=precision).x, 0.0, max(float(prefix[-1]), 0.0))
    return Counts(raw, prefix, np.diff(rising, prepend=0.0), sigma)


def onto_counts(raw: Array) -> Array:
    """The closest counts that are not negative and have the same total (zero if that is negative).

    Source: Held, Wolfe, Crowder 1974 (projection onto a simplex).
    """
    total = max(float(raw.sum()), 0.0)
    if total == 0:
        return np.zeros_like(raw)
    falling = np.sort(raw)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(raw) + 1)
    kept = int(np.flatnonzero(falling - excess > 0)[-1])
    return np.asarray(np.maximum(raw - excess[kept], 0.0))


def quantile(counts: Counts, edges: Array, q: float) -> dict[str, float | None]:
    """Interpolated in its bin; the noise is carried over through the cumulative counts, one deviation to either
    side, so that it stays honest where few patients are."""
    n = counts.total
    if n < 1:
        return {"value": None, "noise_se": 0.0}
    cumulative = np.concatenate([[0.0], np.cumsum(counts.consistent)])
    bins = len(counts.raw)
    below = min(int(np.searchsorted(cumulative[1:], q * n)), bins - 1)
    spread = counts.noise_sd(np.where(np.arange(bins) <= below, 1.0, 0.0) - q)
    low, value, high = (_reached(cumulative, edges, target) for target in (q * n - spread, q * n, q * n + spread))
    return {"value": value, "noise_se": (high - low) / 2}


def _reached(cumulative: Array, edges: Array, target: float) -> float:
    """The value below which `target` patients lie."""
    target = float(np.clip(target, 0.0, cumulative[-1]))
    right = max(int(np.searchsorted(cumulative, target)), 1)
    inside = cumulative[right] - cumulative[right - 1]
    part = (target - cumulative[right - 1]) / inside if inside > 0 else 0.0
    return float(edges[right - 1] + part * (edges[right] - edges[right - 1]))
