"""Quantiles of all hubs' values on a public grid, by search over shared counts.

The q-quantile is the smallest grid value v with at least a share q of all values at or below v (the inverse of the
empirical distribution; the value that numpy's method "inverted_cdf" returns). The answer on the grid is exact.

A hub's histogram is fixed at the start, so what it counts cannot depend on what the search has shown. The search
opens, at each of its steps, whether the quantile lies at or below some public grid values. The result alone says
the same, so the search opens nothing but the result.
Source: search on opened comparisons, Aggarwal, Mishra and Pinkas 2010, "Secure computation of the median".
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.errors import MisuseError
from flute.joint.arithmetic import reveal, running
from flute.joint.counts import pooled
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.shares import concatenate
from flute.mpc.steps import Step

BRANCHES: Final = 16
"""Parts into which a step of the search cuts what is left: 15 comparisons, log16(grid) steps."""
MAX_GRID: Final = 2**16
"""Grid values; a hub's input takes count_bits numbers for each."""
MAX_LEVEL: Final = 10_000
"""Largest denominator of a level: 0.0001 is the finest."""
MEDIAN: Final = Fraction(1, 2)


def on_grid(values: NDArray[np.float64], grid: NDArray[np.float64]) -> Integers:
    """How many values belong to each grid value: those above the one before it, up to and with it.

    Raises: MisuseError: the grid does not rise, or a value is no number or above its last one.
    """
    if grid.ndim != 1 or not 1 <= grid.size <= MAX_GRID or not bool(np.all(np.diff(grid) > 0)):
        raise MisuseError(f"A grid is 1 to {MAX_GRID} rising values.")
    if not bool(np.all(values <= grid[-1])):
        raise MisuseError("A value lies above the public grid or is no number.")
    return np.bincount(np.searchsorted(grid, values), minlength=grid.size).astype(np.int64)


def quantiles(
    party: Party,
    values: NDArray[np.float64],
    *,
    grid: NDArray[np.float64],
    levels: Sequence[Fraction] = (MEDIAN,),
    count_bits: int,
) -> Step[NDArray[np.float64]]:
    """The levels' quantiles of all hubs' values, exact on the grid.

    values: this hub's own. grid: public, rising. count_bits: public, all hubs together have fewer than
    2^count_bits values. Values are rounded up to the grid.
    Opens: the quantiles (grid values). With no values at all, the first grid value.
    Costs: rounds: 23 of `pooled`, and log16(grid) times 15 (a comparison and an opening), 67 for 1,024 grid values;
    products: one comparison of count_bits + 15 bits for 15 grid values, level and step.
    Raises: MisuseError: a bad grid or level; Cheating: from the engine.
    """
    if any(not 0 < level <= 1 or level.denominator > MAX_LEVEL for level in levels):
        raise MisuseError(f"A level is a fraction above 0 and at most 1, with denominator at most {MAX_LEVEL}.")
    counts = yield from pooled(party, on_grid(values, grid), bits=count_bits)
    below = running(counts)
    total = below[grid.size - 1 :]
    low, high = [0] * len(levels), [grid.size - 1] * len(levels)
    while any(a < b for a, b in zip(low, high, strict=True)):
        probes = [_probes(a, b) for a, b in zip(low, high, strict=True)]
        short = concatenate(
            [
                below[np.array(places)] * level.denominator - total * level.numerator
                for places, level in zip(probes, levels, strict=True)
                if places
            ]
        )
        missed = yield from party.less_than_zero(short, count_bits + MAX_LEVEL.bit_length() + 1)
        answers = iter((yield from reveal(party, missed)))
        for k, places in enumerate(probes):
            low[k], high[k] = _narrow(low[k], high[k], [(place, bool(next(answers))) for place in places])
    return np.asarray(grid[np.array(low)], dtype=np.float64)


def _probes(low: int, high: int) -> list[int]:
    """At most BRANCHES - 1 places from low to high - 1 that cut low..high into equal parts; none where it is one."""
    width = ceil((high - low + 1) / BRANCHES)
    return list(range(low + width - 1, high, width))


def _narrow(low: int, high: int, answers: list[tuple[int, bool]]) -> tuple[int, int]:
    """answers: place, and whether the count at or below it falls short of the level."""
    for place, short in answers:
        if short:
            low = max(low, place + 1)
        else:
            high = min(high, place)
    return low, high
