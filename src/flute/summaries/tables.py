"""What a table of counts says: tests of independence, measures of association, agreement of two raters.

Without noise these are the textbook figures. With noise of deviation sigma on every count:
  - independence: the interaction A C B' of the noised table C (A, B take margins away) is compared with its whole
    covariance, sampling and noise; that is Pearson's statistic where sigma is 0, chi-squared with the same degrees of
    freedom either way (a generalised minimum chi-squared statistic).
  - measures: a smooth function g of the counts; its noise is sigma |g'|, its sampling variance that of multinomial
    counts; g' by complex steps, exact to the last digit.

Sources: Pearson 1900; Yates 1934; Fisher 1935; Cramer 1946; Gaboardi, Lim, Rogers, Vadhan 2016 and Kifer, Rogers 2017
(independence under noise); Cohen 1960, 1968; Fleiss, Cohen, Everitt 1969 (errors of kappa); Woolf 1955 (odds ratio);
Squire, Trapp 1998 (complex steps).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, fisher_exact, hypergeom, norm

from flute.algorithms.scores import Z_95
from flute.data.variables import Array
from flute.defaults.summaries import DROWNED
from flute.summaries.blocks import interval, plain

Complex = NDArray[np.complex128]
Measure = Callable[[Complex], Any]
"""Of a table [rows, columns] of counts; a ratio of sums and products, logarithms at most."""
_STEP: Final = 1e-30
"""Imaginary step; nothing is subtracted, so it can be as small as this."""


@dataclass(frozen=True, slots=True)
class Table:
    """`counts` [rows, columns] not negative; `raw`: as opened, unbiased; both alike without noise."""

    counts: Array
    raw: Array
    sigma: float

    @property
    def n(self) -> float:
        return float(self.counts.sum())

    @property
    def whole(self) -> bool:
        """No count is 0 or drowned in noise: what divides by counts has an interval."""
        return bool((self.counts > DROWNED * self.sigma).all())


def independence(table: Table) -> dict[str, Any]:
    """Pearson's test; rows and columns that nobody is in are left out (under noise none is known to be)."""
    counts, raw = _occupied(table)
    rows, columns = counts.shape
    degrees = (rows - 1) * (columns - 1)
    if degrees < 1 or table.n < 1:
        return {"test": "chi-squared", "statistic": None, "degrees_of_freedom": max(degrees, 0), "p": None}
    statistic = _noised_statistic(counts, raw, table.sigma) if table.sigma else _pearson(counts, 0.0)
    found: dict[str, Any] = {
        "test": "chi-squared",
        "statistic": statistic,
        "degrees_of_freedom": degrees,
        "p": float(chi2.sf(statistic, degrees)),
    }
    if degrees == 1 and not table.sigma:
        corrected = _pearson(counts, 0.5)
        found["corrected"] = {"statistic": corrected, "p": float(chi2.sf(corrected, 1))}
    return found


def _occupied(table: Table) -> tuple[Array, Array]:
    rows, columns = table.counts.sum(axis=1) > 0, table.counts.sum(axis=0) > 0
    if table.sigma:  # noise may have hidden them; a small share keeps expected counts above 0
        return np.maximum(table.counts, table.n * 1e-9), table.raw
    return table.counts[np.ix_(rows, columns)], table.raw[np.ix_(rows, columns)]


def _expected(counts: Array) -> Array:
    return np.asarray(np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum())


def _pearson(counts: Array, correction: float) -> float:
    expected = _expected(counts)
    gap = np.abs(counts - expected)
    return float(np.sum((gap - np.minimum(correction, gap)) ** 2 / expected))


def _noised_statistic(counts: Array, raw: Array, sigma: float) -> float:
    """x' V^+ x, x the interaction of `raw` in contrasts of rows and columns, V its covariance where none is."""
    n = counts.sum()
    across, down = counts.sum(axis=1) / n, counts.sum(axis=0) / n
    a, b = _contrasts(across), _contrasts(down)
    x = (a @ raw @ b.T).ravel()
    covariance = n * np.kron(_spread(a, across), _spread(b, down)) + sigma**2 * np.kron(a @ a.T, b @ b.T)
    return float(x @ np.linalg.solve(covariance, x))


def _contrasts(share: Array) -> Array:
    """[k - 1, k]: takes the margin away, the last row of I - share 1' being the others' negative sum."""
    return (np.eye(len(share)) - np.outer(share, np.ones(len(share))))[:-1]


def _spread(contrasts: Array, share: Array) -> Array:
    return np.asarray(contrasts @ (np.diag(share) - np.outer(share, share)) @ contrasts.T)


def cramers_v(table: Table) -> dict[str, float | None]:
    """Root of chi-squared over n (k - 1), k the smaller side; of the counts as they are shown. No interval at 0."""
    rows, columns = table.counts.sum(axis=1) > 0, table.counts.sum(axis=0) > 0
    seen = replace(table, counts=table.counts[np.ix_(rows, columns)])
    if min(seen.counts.shape, default=0) < 2:
        return interval(*[float("nan")] * 4)
    side = min(seen.counts.shape) - 1

    def squared(c: Complex) -> Any:
        n = c.sum()
        expected = np.outer(c.sum(axis=1), c.sum(axis=0)) / n
        return ((c - expected) ** 2 / expected).sum() / (n * side)

    square, sampling, noise = _carried(squared, seen)
    value = float(np.sqrt(max(square, 0.0)))
    errors = (sampling / (2 * value), noise / (2 * value)) if value > 0 else (float("nan"),) * 2
    return interval(value, *errors, Z_95, low=0.0, high=1.0)


def fisher(table: Table) -> float | None:
    """Two-sided p of a 2 x 2 table, given its margins.

    Exact: Fisher's test. Noised: margins as counted, the first cell's excess over what they make it is compared with
    the sum of a hypergeometric count and the noise that this excess has; p is twice the smaller tail."""
    if table.counts.shape != (2, 2):
        return None
    if not table.sigma:
        return float(fisher_exact(table.counts.astype(np.int64)).pvalue)
    n, row, column = (round(float(part)) for part in (table.n, table.counts[0].sum(), table.counts[:, 0].sum()))
    if n < 1:
        return None
    a, b = _contrasts(table.counts.sum(axis=1) / table.n), _contrasts(table.counts.sum(axis=0) / table.n)
    excess, noise = float((a @ table.raw @ b.T)[0, 0]), table.sigma * float(np.linalg.norm(a) * np.linalg.norm(b))
    cells = np.arange(max(0, row + column - n), min(row, column) + 1)
    chance, away = hypergeom.pmf(cells, n, row, column), (cells - row * column / n - excess) / noise
    upper, lower = float(chance @ norm.cdf(away)), float(chance @ norm.sf(away))
    return min(1.0, 2 * min(upper, lower))


def _carried(measure: Measure, table: Table) -> tuple[float, float, float]:
    """Value, sampling error and noise error of a measure."""
    at = table.counts.astype(np.complex128)
    slope = np.empty(at.shape)
    for cell in np.ndindex(at.shape):
        moved = at.copy()
        moved[cell] += 1j * _STEP
        slope[cell] = float(np.imag(measure(moved))) / _STEP
    mean = float((table.counts * slope).sum()) / table.n
    sampling = float(np.sqrt(max(float((table.counts * (slope - mean) ** 2).sum()), 0.0)))
    return float(np.real(measure(at))), sampling, table.sigma * float(np.linalg.norm(slope))


def odds_ratio(table: Table) -> dict[str, Any]:
    """Of the second column, second row against first; interval on its logarithm."""
    if not table.whole:
        return _unknown()
    value, sampling, noise = _carried(
        lambda c: np.log(c[1, 1]) + np.log(c[0, 0]) - np.log(c[0, 1]) - np.log(c[1, 0]), table
    )
    logged = interval(value, sampling, noise, Z_95)
    ends = {key: float(np.exp(logged[key])) for key in ("value", "low", "high")}
    return {**ends, "log_se": logged["se"], "log_sampling_se": sampling, "log_noise_se": noise}


def _unknown() -> dict[str, None]:
    return dict.fromkeys(("value", "low", "high", "log_se", "log_sampling_se", "log_noise_se"))


def risk_difference(table: Table) -> dict[str, Any]:
    """Share of the second column in the second row less that in the first (Wald's interval)."""
    if (table.counts.sum(axis=1) <= DROWNED * np.sqrt(2) * table.sigma).any():
        return interval(*[float("nan")] * 4)
    found = _carried(lambda c: c[1, 1] / c[1].sum() - c[0, 1] / c[0].sum(), table)
    return interval(*found, Z_95, low=-1.0, high=1.0)


def _kappa_weights(size: int, kind: str) -> Array:
    """What two ratings so far apart count as agreeing, 1 to 0."""
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) / (size - 1)
    return np.asarray({"unweighted": apart == 0, "linear": 1 - apart, "quadratic": 1 - apart**2}[kind], dtype=float)


def kappas(table: Table) -> dict[str, Any]:
    """Cohen's kappa: agreement beyond what both raters' shares of levels would bring about by chance."""
    return {kind: _kappa(table, kind) for kind in ("unweighted", "linear", "quadratic")}


def _kappa(table: Table, kind: str) -> dict[str, Any]:
    weights = _kappa_weights(len(table.counts), kind)

    def measure(c: Complex) -> Any:
        n = c.sum()
        by_chance = (weights * np.outer(c.sum(axis=1), c.sum(axis=0))).sum() / n**2
        return ((weights * c).sum() / n - by_chance) / (1 - by_chance)

    shares = [table.counts.sum(axis=k) / max(table.n, 1e-300) for k in (0, 1)]
    if table.n < 1 or 1 - float(shares[1] @ weights @ shares[0]) < 1e-12:  # both raters know one level alone
        return interval(*[float("nan")] * 4) | {"p": None}
    value, sampling, noise = _carried(measure, table)
    total = float(np.hypot(sampling, noise))
    p = 2 * float(norm.sf(abs(value) / total)) if total > 0 else float("nan")
    return interval(value, sampling, noise, Z_95, low=-1.0, high=1.0) | {"p": plain(p)}


def standardised_difference(first: Array, second: Array, sigma: float) -> tuple[float, float]:
    """Of two groups' counts of levels [levels], and the deviation of its noise, to first order.

    Source: Yang and Dalton 2012."""
    found = _distance(first, second)
    if not sigma or not np.isfinite(found):
        return found, 0.0
    counts, moved = np.stack([first, second]), []
    for place in np.ndindex(counts.shape):
        ahead = counts.copy()
        ahead[place] += sigma  # one deviation: what is 0 has no derivative
        moved.append(_distance(*ahead) - found)
    return found, float(np.linalg.norm(moved))


def _distance(first: Array, second: Array) -> float:
    """Mahalanobis' of two groups' shares, the first level left out."""
    if min(first.sum(), second.sum()) < 1:
        return float("nan")
    a, b = first / first.sum(), second / second.sum()
    seen = np.flatnonzero(a + b > 0)[1:]
    a, b = a[seen], b[seen]
    covariance = (np.diag(a) - np.outer(a, a) + np.diag(b) - np.outer(b, b)) / 2
    gap = a - b
    if not len(seen) or np.linalg.cond(covariance) > 1e12:
        return float("nan") if gap.any() else 0.0
    return float(np.sqrt(gap @ np.linalg.solve(covariance, gap)))
