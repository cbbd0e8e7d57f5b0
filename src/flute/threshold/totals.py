"""From m·G to m: baby steps and giant steps, from 0 outwards.

A table holds s·G for s = 0 .. steps - 1, once per process. m·G is looked up in it, then m·G shifted by ∓1, ∓2, ...
times `steps`, until a shift lands in the table or the bound is passed. A total m costs about 2·|m|/steps additions of
17 us, so totals near 0, as noisy counts are, cost next to nothing. Each total is searched for by itself; how long it
takes tells how large it is, to whoever may read it anyway.
Source: Shanks 1971.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from flute.defaults.threshold import MAX_BABY_STEPS, MAX_TOTAL, MIN_BABY_STEPS
from flute.errors import BadTotal, MisuseError
from flute.threshold.group import IDENTITY, Element, add, multiply_base, subtract


def steps_for(bound: int, cells: int) -> int:
    """The power of two for which table and search together cost least when totals are spread over all of ±bound."""
    best = 1 << (2 * bound * cells).bit_length() // 2
    return min(max(best, MIN_BABY_STEPS), MAX_BABY_STEPS)


@lru_cache(maxsize=2)
def baby_steps(steps: int) -> dict[Element, int]:
    """s·G to s, for 0 <= s < steps. Takes 18 us and 140 bytes of memory each. Raises: MisuseError: over the limit."""
    if not MIN_BABY_STEPS <= steps <= MAX_BABY_STEPS:
        raise MisuseError(f"A table of totals has {MIN_BABY_STEPS} to {MAX_BABY_STEPS} points.")
    generator, at = multiply_base(1), IDENTITY
    table = {}
    for step in range(steps):
        table[at] = step
        at = add(at, generator)
    return table


def read_totals(elements: Sequence[Element], *, bound: int, steps: int | None = None) -> tuple[int, ...]:
    """The m of each m·G, |m| <= bound. steps: size of the table; by default what suits bound and number of cells.

    Raises: BadTotal: names the cell that holds no such number. MisuseError: a bound that is not in 1..MAX_TOTAL.
    """
    if not 1 <= bound <= MAX_TOTAL:
        raise MisuseError(f"Totals can be found within {MAX_TOTAL} of 0; another bound was asked for.")
    size = steps_for(bound, len(elements)) if steps is None else steps
    search = _Search(baby_steps(size), size, bound)
    return tuple(search.find(element, cell) for cell, element in enumerate(elements))


class _Search:
    """One table, many totals; a total that came before is not searched for again."""

    def __init__(self, table: dict[Element, int], steps: int, bound: int) -> None:
        self._table, self._steps, self._bound = table, steps, bound
        self._giant = multiply_base(steps)
        self._known: dict[Element, int] = {}

    def find(self, element: Element, cell: int) -> int:
        if element not in self._known:
            self._known[element] = self._search(element, cell)
        return self._known[element]

    def _search(self, element: Element, cell: int) -> int:
        """below: the element shifted towards the table from above it; above: from below it."""
        below = above = element
        for shift in range(self._bound // self._steps + 2):
            for sign, shifted in ((1, below), (-1, above)):
                step = self._table.get(shifted)
                if step is not None:
                    return self._checked(step + sign * shift * self._steps, cell)
            below, above = subtract(below, self._giant), add(above, self._giant)
        raise self._bad(cell)

    def _checked(self, found: int, cell: int) -> int:
        if abs(found) > self._bound:
            raise self._bad(cell)
        return found

    def _bad(self, cell: int) -> BadTotal:
        return BadTotal(
            f"Cell {cell} holds no total within {self._bound} of 0: a hub encrypted what it should not have. "
            "Nothing of this sum is used; the budget for it stays spent."
        )
