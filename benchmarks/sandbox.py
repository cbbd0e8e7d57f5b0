"""The sandbox for a researcher's own step: what starting it costs, what a unit costs, how soon it stops a step.

    python benchmarks/sandbox.py [--quick] [--json]

Start: a whole run of a step of one unit that does nothing, over a plain interpreter that imports numpy, turn by turn;
medians. By the clock and by processor time (all processes of it), for a busy machine swells the first. Needs
bubblewrap; ends with a message where it is missing.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, options, show

from flute.defaults.sandbox import HANDOVER_S
from flute.sandbox import run as room
from flute.sandbox.limits import Limits, Offer, Span
from flute.sandbox.machine import available
from flute.sandbox.run import Inputs, Step, run

REPEATS, QUICK_REPEATS = 25, 15
UNITS, QUICK_UNITS = 2_000, 200
START_GOAL_MS, STOP_GOAL_S = 150.0, 2.0
NOTHING = b"import numpy as np\ndef step(rows, parameters):\n    return rows[0]\n"
GRADIENT = b"""import numpy as np
def step(rows, parameters):
    x = rows[0, 1:]
    return x * (1 / (1 + np.exp(-x @ parameters["w"])) - rows[0, 0])
"""
OFFER = Offer(memory_bytes=2 * 2**30, threads=4)
PLAIN = [sys.executable, "-I", "-c", "import numpy"]
BARE = [
    sys.executable,
    "-I",
    "-S",
    "-c",
    f"import sys; sys.path.append({str(Path(np.__file__).parents[1])!r}); import numpy",
]
"""With the sandbox's own options: no site packages but numpy, one thread of linear algebra."""


def main() -> None:
    args = options(__doc__ or "")
    available().require()
    for row in measured(QUICK_REPEATS if args.quick else REPEATS, QUICK_UNITS if args.quick else UNITS):
        show(row, as_json=args.json)


def measured(repeats: int, units: int) -> Iterator[Row]:
    yield from start(repeats)
    yield unit_cost(units)
    yield from stopping()
    yield handover()


def start(repeats: int) -> Iterator[Row]:
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "bare": [], "sandbox": []}
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    for _ in range(repeats + 1):
        taken["bare"].append(spent(lambda: subprocess.run(BARE, check=True, env=alone)))
        taken["plain"].append(spent(lambda: subprocess.run(PLAIN, check=True)))
        taken["sandbox"].append(spent(lambda: one_unit(NOTHING, limits())))
    for which, name in enumerate(("by the clock", "processor time")):
        plain, bare, sandbox = (1e3 * statistics.median(t[which] for t in runs[1:]) for runs in taken.values())
        more, anchor = sandbox - plain, f"plain interpreter with numpy {plain:.0f} ms; ratio {sandbox / plain:.2f}"
        yield Row(f"start over plain, {name}", more, "ms", f"< {START_GOAL_MS:g}", anchor, more < START_GOAL_MS)
        more = sandbox - bare
        anchor = f"the same without site packages and with one thread {bare:.0f} ms; ratio {sandbox / bare:.2f}"
        yield Row(f"start over the barest, {name}", more, "ms", f"< {START_GOAL_MS:g}", anchor, more < START_GOAL_MS)


def unit_cost(units: int) -> Row:
    rows, parameters = np.ones((units, 5)), {"w": np.ones(4)}
    step, within = Step("source", GRADIENT, 4), limits(wall_s=600, units=units)
    _, base = spent(lambda: run(step, Inputs(rows[:1], parameters), within, offer=OFFER))
    _, taken = spent(lambda: run(step, Inputs(rows, parameters), within, offer=OFFER))
    anchor = f"{units:,} rows, each in a process of its own; the same without a sandbox takes 4 us"
    return Row("one more row", 1e3 * (taken - base) / (units - 1), "ms of processor time", "", anchor, None)


def stopping() -> Iterator[Row]:
    endless = b"def step(rows, parameters):\n    while True: pass\n"
    greedy = b"def step(rows, parameters):\n    held = []\n    while True: held.append(bytearray(2**20))\n"
    nothing = [
        statistics.median(t)
        for t in zip(*(spent(lambda: one_unit(NOTHING, limits())) for _ in range(5)), strict=True)
    ]
    for name, code, within, used_up in (
        ("wall", endless, limits(wall_s=1), 1.0),
        ("cpu", endless, limits(cpu_s=1, wall_s=30), 1.0),
        ("memory", greedy, limits(memory_mib=256), 0.0),
    ):
        which = int(name == "cpu")
        late = spent(lambda c=code, w=within: one_unit(c, w))[which] - nothing[which] - used_up  # type: ignore[misc]
        anchor = "time beyond the maximum; cpu: processor time; memory: time from the start"
        yield Row(f"stopped over its maximum: {name}", late, "s", f"< {STOP_GOAL_S:g}", anchor, late < STOP_GOAL_S)


def handover() -> Row:
    """Seconds from when the sandbox was ready to when its result was there, which the room tells nobody else."""
    within = limits(wall_s=1, constant_time=True)
    slow = NOTHING.replace(b"import numpy as np", b"import time").replace(
        b"    return", b"    time.sleep(0.5)\n    return"
    )
    quick_s, slow_s = (statistics.median(since_ready(code, within) for _ in range(3)) for code in (NOTHING, slow))
    apart = 1e3 * abs(slow_s - quick_s)
    anchor = f"steps of 0 and 0.5 s; both are handed over {1 + HANDOVER_S:g} s after the sandbox was ready"
    return Row("handed over apart", apart, "ms", "< 100", anchor, apart < 100)


def since_ready(code: bytes, within: Limits) -> float:
    ready: list[float] = []
    serve = room.serve

    def recorded(*given: Any) -> Any:
        reply = serve(*given)
        ready.append(reply.ready_at)
        return reply

    room.serve = recorded
    try:
        one_unit(code, within)
    finally:
        room.serve = serve
    return time.monotonic() - ready[0]


def limits(
    *, memory_mib: int = 256, cpu_s: float = 600, wall_s: float = 20, units: int = 1, constant_time: bool = False
) -> Limits:
    return Limits(Span(0, memory_mib * 2**20), Span(0, cpu_s), Span(0, wall_s), units, constant_time=constant_time)


def one_unit(code: bytes, within: Limits) -> object:
    return run(Step("source", code, 3), Inputs(np.ones((1, 3))), within, offer=OFFER)


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time, of this process and of those it waited for."""
    began, used = time.perf_counter(), _processor_s()
    work()
    return time.perf_counter() - began, _processor_s() - used


def _processor_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


if __name__ == "__main__":
    main()
