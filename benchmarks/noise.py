"""What discrete Gaussian noise costs: a million exact draws, and the table that is built once per sigma.

    python benchmarks/noise.py [--quick] [--json]

Draws: processor time of `discrete_gaussian(sigma, 1_000_000, seed)`, seed and result included, median after a
warm-up, so that tables are there. Anchor: numpy's floating-point normal, a million numbers, run turn by turn with
ours. Tables: processor time of building what the first draw at a sigma needs, nothing kept from before.
OpenDP's exact sampler is run where it happens to be installed, on fewer draws, and told per million.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
from rows import Row, options, show

from flute.dp.noise import discrete_gaussian, layers_of
from flute.dp.tables import table_for

MILLION = 1_000_000
REPEATS, QUICK_REPEATS = 25, 5
SMALL, LARGE = (3.0, 16.0, 256.0, 1000.0, 1950.0), (5000.0, 1e5)
GOAL_MS = dict.fromkeys(SMALL, 10.0) | dict.fromkeys(LARGE, 40.0)
TABLE_GOAL_S = 0.9
OPENDP_DRAWS = 2_000
ANCHOR = "numpy default_rng().normal"


def main() -> None:
    args = options(__doc__ or "")
    repeats = QUICK_REPEATS if args.quick else REPEATS
    for sigma, goal in GOAL_MS.items():
        ours, anchor = draws(sigma, repeats)
        name = f"noise, 1e6 draws, sigma {sigma:g}"
        show(Row(name, ours, "ms CPU", f"<= {goal:g}", f"{ANCHOR} {anchor:.3g} ms", ours <= goal), as_json=args.json)
        show(Row(f"{name}, ratio", ours / anchor, "x", "", ANCHOR, None), as_json=args.json)
    for sigma in GOAL_MS:
        seconds = table(sigma, 1 if args.quick else 3)
        name, goal = f"noise, tables for sigma {sigma:g}", f"<= {TABLE_GOAL_S}, once"
        show(Row(name, seconds, "s CPU", goal, "none", seconds <= TABLE_GOAL_S), as_json=args.json)
    if importlib.util.find_spec("opendp") is not None:
        name = "noise, OpenDP's exact sampler, 1e6 draws, sigma 1000"
        show(Row(name, opendp(1000.0), "ms CPU", "", "none", None), as_json=args.json)


def draws(sigma: float, repeats: int) -> tuple[float, float]:
    """Medians in ms: ours, and the anchor's."""
    generator = np.random.default_rng()
    ours, anchor = [], []
    for i in range(repeats + 1):
        ours.append(milliseconds(lambda: discrete_gaussian(sigma, MILLION, os.urandom(32))))
        anchor.append(milliseconds(lambda: generator.normal(scale=sigma, size=MILLION)))
        if i == 0:
            ours.clear()
            anchor.clear()
    return statistics.median(ours), statistics.median(anchor)


def table(sigma: float, repeats: int) -> float:
    """Seconds."""

    def build() -> None:
        table_for.cache_clear()
        for variance in layers_of(sigma):
            table_for(variance)

    return statistics.median(milliseconds(build) for _ in range(repeats)) / 1000


def opendp(sigma: float) -> float:
    """Milliseconds per million draws of OpenDP's vector mechanism on integers."""
    prelude = importlib.import_module("opendp.prelude")
    prelude.enable_features("contrib")
    space = prelude.vector_domain(prelude.atom_domain(T=int)), prelude.l2_distance(T=float)
    mechanism = prelude.m.make_gaussian(*space, scale=sigma)
    zeros = [0] * OPENDP_DRAWS
    return milliseconds(lambda: mechanism(zeros)) * MILLION / OPENDP_DRAWS


def milliseconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    main()
