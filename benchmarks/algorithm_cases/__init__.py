"""What `algorithms.py` compares: every module here has `cases(quick)`, which gives rows.

`compared` makes them from a list of `Case`: one algorithm against a known implementation on the pooled rows, on 3 and
on 10 hubs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from rows import Row

HUBS = (3, 10)


@dataclass(frozen=True, slots=True)
class Case:
    """name: the algorithm. anchor: what it is compared with. differences: from the number of hubs and whether it has
    to be quick, relative differences by figure. goal: the largest that is allowed."""

    name: str
    anchor: str
    differences: Callable[[int, bool], Mapping[str, float]]
    goal: float = 1e-6


def compared(cases: Iterable[Case], quick: bool) -> Iterator[Row]:
    """Per case and number of hubs the largest relative difference over all its figures, and the processor time."""
    for case in cases:
        for hubs in HUBS:
            begin = time.process_time()
            found = case.differences(hubs, quick)
            spent = time.process_time() - begin
            worst = max(found, key=lambda figure: found[figure])
            name = f"{case.name}, {hubs} hubs"
            yield Row(
                f"{name}: largest relative difference ({worst})", found[worst], "", f"at most {case.goal:g}",
                case.anchor, found[worst] <= case.goal,
            )  # fmt: skip
            yield Row(f"{name}: processor time, both sides", spent, "s", "", case.anchor, None)


def relative(found: ArrayLike, pooled: ArrayLike) -> float:
    """Largest difference, relative to the pooled figure (to 1e-9 where that is smaller)."""
    ours, theirs = np.asarray(found, dtype=np.float64), np.asarray(pooled, dtype=np.float64)
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    return float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-9), initial=0.0))
