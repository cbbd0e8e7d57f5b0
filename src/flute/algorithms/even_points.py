"""Points that are evenly spread without chance: a Kronecker sequence, fractional parts of multiples of square roots
of primes. The same points whenever they are asked for, and evener than drawn ones.

Source: Niederreiter 1992, Random Number Generation and Quasi-Monte Carlo Methods, chapter 3.
"""

from __future__ import annotations

import numpy as np

from flute.data.variables import Array


def even_points(count: int, dimensions: int, *, skip: int = 0) -> Array:
    """[count, dimensions] in (0, 1). skip: others than the first so many."""
    steps = np.sqrt(np.array(_primes(dimensions), dtype=np.float64))
    return np.asarray(np.mod(0.5 + np.arange(skip + 1, skip + count + 1)[:, None] * steps, 1.0))


def _primes(count: int) -> list[int]:
    """The first so many."""
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found
