"""How numbers are spread, in a few steps that can be kept, and how likely a change is when nothing changed.

Every chance here is an upper bound: the probability, if both samples come from one distribution, of a change at
least as large. Ties and the steps in between make the bounds larger, never smaller.
Source: Fisher 1935 (exact test); Kolmogorov 1933, Smirnov 1939; Wei and Dudley 2012 (two-sample bounds).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray
from scipy.special import gammaln, kolmogorov
from scipy.stats import binomtest, fisher_exact

from flute.data.variables import Array
from flute.defaults.records import PROFILE_BINS
from flute.messages.limits import Count

_MOST = 2 * PROFILE_BINS


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """A sample's distribution function in at most PROFILE_BINS + 1 steps.

    `edges`: values of the sample, rising, from its smallest to its largest. `upto`: how many of its values are at
    most the edge. Edges are values of single patients: a spread stays with the hub's own steward.
    """

    edges: Annotated[tuple[float, ...], Meta(max_length=_MOST)] = ()
    upto: Annotated[tuple[Count, ...], Meta(max_length=_MOST)] = ()

    @property
    def n(self) -> int:
        return self.upto[-1] if self.upto else 0

    def quantile(self, share: float) -> float:
        """The first edge that so large a share of the values does not exceed; NaN of an empty sample."""
        if not self.n:
            return float("nan")
        return self.edges[int(np.searchsorted(np.array(self.upto), share * self.n))]

    def until(self, value: float) -> Spread:
        """The part of the sample that is at most `value`, as far as the steps tell."""
        kept = sum(edge <= value for edge in self.edges)
        return Spread(self.edges[:kept], self.upto[:kept])

    def below(self, value: float) -> int:
        """How many values are certainly smaller."""
        return max((count for edge, count in zip(self.edges, self.upto, strict=True) if edge < value), default=0)

    def above(self, value: float) -> int:
        """How many values are certainly larger; exact where `value` is beyond an end or an edge."""
        at_most = [count for edge, count in zip(self.edges, self.upto, strict=True) if edge >= value]
        return self.n - at_most[0] if at_most else 0


def spread_of(values: Array) -> Spread:
    """`values` [n], finite, in any order."""
    if not len(values):
        return Spread()
    edges, counts = np.unique(values, return_counts=True)
    upto = np.cumsum(counts)
    if len(edges) > PROFILE_BINS:
        ranks = np.arange(1, PROFILE_BINS + 1) * len(values) / PROFILE_BINS
        kept = np.unique(np.concatenate([[0], np.searchsorted(upto, ranks)]))
        edges, upto = edges[kept], upto[kept]
    return Spread(tuple(edges.tolist()), tuple(upto.tolist()))


def distance(one: Spread, other: Spread) -> float:
    """Kolmogorov-Smirnov: the largest distance of the distribution functions, as far as the steps prove it."""
    if not one.n or not other.n:
        return 0.0
    at = np.union1d(one.edges, other.edges)
    low, high = _between(one, at)
    other_low, other_high = _between(other, at)
    return float(max(np.max(low - other_high), np.max(other_low - high), 0.0))


def _between(spread: Spread, at: Array) -> tuple[Array, Array]:
    """Bounds of the distribution function at `at`: exact at an edge, else less than the next edge's."""
    edges, upto = np.array(spread.edges), np.array(spread.upto, dtype=np.float64)
    place: NDArray[np.intp] = np.searchsorted(edges, at, side="right")
    low = np.concatenate([[0.0], upto])[place]
    on_edge = np.isin(at, edges)
    # Strictly between two edges at least one value, the next edge itself, is still missing.
    following = np.concatenate([upto - 1, [upto[-1]]])[np.minimum(place, len(edges))]
    high = np.where(on_edge, low, np.maximum(low, np.where(place == 0, 0.0, following)))
    return low / spread.n, high / spread.n


def chance_of_distance(d: float, n: int, m: int) -> float:
    """Of a distance of at least `d` between samples of `n` and `m` values."""
    return float(kolmogorov(d * np.sqrt(n * m / (n + m)))) if n and m else 1.0


def chance_beyond(k: int, m: int, n: int) -> float:
    """That `k` or more of `m` values lie beyond all of `n` others at one end."""
    if k <= 0 or n <= 0:
        return 1.0
    log = gammaln(n + m - k + 1) - gammaln(m - k + 1) - gammaln(n + m + 1) + gammaln(m + 1)
    return min(float(np.exp(log)), 1.0)


def chance_of_shares(a: int, n: int, b: int, m: int) -> float:
    """That shares a/n and b/m lie at least so far apart (two-sided)."""
    if not n or not m:
        return 1.0
    return float(fisher_exact([[a, n - a], [b, m - b]])[1])


def chance_of_counts(a: int, b: int) -> float:
    """That two counts of the same rate lie at least so far apart (two-sided; counts vary as Poisson does)."""
    return float(binomtest(b, a + b, 0.5).pvalue) if a + b else 1.0
