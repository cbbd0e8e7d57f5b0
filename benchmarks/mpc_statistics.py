"""What statistics on shares cost and how exact they are, three hubs with 1,000 rows each, cheating hubs withstood.

    python benchmarks/mpc_statistics.py [--quick] [--json]

- cpu: processor seconds of one hub, the median of REPEATS runs. All hubs take turns in one process; each hub's steps
  are timed apart. Setup of keys is not in it (two rounds, milliseconds).
- error: against the plain computation on the pooled rows.
- wall: each hub a process of its own; every message is held back for DELAY_S before it is read, as a line of that
  latency would. Processors are shared by the three.
- MPyC 0.11, three processes, no TLS, passive (it withstands no cheating hub), without gmpy2: the same comparisons, as
  an array (its fastest way) and as a list of numbers; the median by bisection on counts that hubs put in. Processor
  seconds of its first party, run just before ours.
- quick: fewer rows, one run of each, no MPyC, no delay: a smoke test.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import spu_anchor
from joint_data import joint_rows
from numpy.typing import NDArray
from rows import Row, options, show
from scipy.special import expit
from scipy.stats import chi2_contingency, fisher_exact

from flute.joint.fisher import fisher
from flute.joint.overlap import also_elsewhere, hidden_lists, overlap_sizes
from flute.joint.quantiles import quantiles
from flute.joint.ranks import mann_whitney
from flute.joint.regression import logistic_regression, open_coefficients, predict
from flute.joint.survival import life_table, log_rank
from flute.joint.tables import chi_squared
from flute.mpc.party import Party
from flute.mpc.setup import Circle, setup

HUBS = (1, 2, 3)
DELAY_S = 0.040
REPEATS = 3
BINS = 20
GRID = np.arange(1_024) / 10.0
COMPARISON_BITS = 32
PREDICTORS = 7
MPYC = "--mpyc-party"

Program = Callable[[Party], Generator[Mapping[int, bytes], Mapping[int, bytes], Any]]


@dataclass(frozen=True, slots=True)
class Cost:
    """result: hub 2's (it asks for the predictions). cpu_s: of hub 1. sent_mb: by hub 1 to each other hub."""

    result: Any
    cpu_s: float
    rounds: int
    sent_mb: float


def secret(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


# --- all hubs in one process --------------------------------------------------------------------


def lock_step(generators: dict[int, Generator[Any, Any, Any]]) -> tuple[dict[int, Any], dict[int, float]]:
    results: dict[int, Any] = {}
    seconds = dict.fromkeys(generators, 0.0)
    arrived: dict[int, Mapping[int, bytes] | None] = dict.fromkeys(generators)
    while len(results) < len(generators):
        sent = {}
        for place, generator in generators.items():
            begin = time.process_time()
            try:
                sent[place] = generator.send(arrived[place])
            except StopIteration as stop:
                results[place] = stop.value
            seconds[place] += time.process_time() - begin
        arrived = {to: {place: sent[place][to] for place in sent if place != to} for to in sent}
    return results, seconds


def together(program: Program) -> Cost:
    circles = {me: Circle(me, len(HUBS), b"benchmark") for me in HUBS}
    keys, _ = lock_step({me: setup(circle, rand=secret("keys", me)) for me, circle in circles.items()})
    parties = {me: Party(circle, keys[me]) for me, circle in circles.items()}
    results, seconds = lock_step({me: program(party) for me, party in parties.items()})
    return Cost(results[2], seconds[1], parties[1].rounds, parties[1].wire.sent_bytes / 1e6)


def repeated(program: Program, repeats: int) -> Cost:
    costs = [together(program) for _ in range(repeats)]
    cpu = statistics.median(cost.cpu_s for cost in costs)
    return Cost(costs[-1].result, cpu, costs[-1].rounds, costs[-1].sent_mb)


# --- each hub a process, messages held back -----------------------------------------------------


def _deliver(outgoing: queue.SimpleQueue[tuple[float, bytes] | None], line: Connection) -> None:
    while (item := outgoing.get()) is not None:
        line.send(item)


def _hub(me: int, lines: dict[int, Connection], program: Program, answer: Connection) -> None:
    outgoing: dict[int, queue.SimpleQueue[tuple[float, bytes] | None]] = {to: queue.SimpleQueue() for to in lines}
    for to, line in lines.items():
        threading.Thread(target=_deliver, args=(outgoing[to], line), daemon=True).start()

    def over_lines(generator: Generator[Any, Any, Any]) -> Any:
        arrived = None
        while True:
            try:
                sent = generator.send(arrived)
            except StopIteration as stop:
                return stop.value
            for to, raw in sent.items():
                outgoing[to].put((time.monotonic(), raw))
            arrived = {}
            for place, line in lines.items():
                when, arrived[place] = line.recv()
                time.sleep(max(0.0, when + DELAY_S - time.monotonic()))

    circle = Circle(me, len(HUBS), b"benchmark")
    party = Party(circle, over_lines(setup(circle, rand=secret("keys", me))))
    begin = time.monotonic()
    result = over_lines(program(party))
    answer.send((time.monotonic() - begin, result))


def delayed(program: Program) -> float:
    """Wall seconds of the slowest hub."""
    fork = multiprocessing.get_context("fork")
    ends: dict[int, dict[int, Connection]] = {me: {} for me in HUBS}
    for a in HUBS:
        for b in range(a + 1, len(HUBS) + 1):
            ends[a][b], ends[b][a] = fork.Pipe()
    answers, hubs = [], []
    for me in HUBS:
        ours, theirs = fork.Pipe()
        answers.append(ours)
        hubs.append(fork.Process(target=_hub, args=(me, ends[me], program, theirs)))
        hubs[-1].start()
    walls = [answer.recv()[0] for answer in answers]
    for hub in hubs:
        hub.join()
    return max(walls)


# --- what is computed ---------------------------------------------------------------------------


def patients(rows: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The rows that the anchors fit too."""
    cohort = joint_rows(rows=rows)
    return np.concatenate([hub.predictors for hub in cohort]), np.concatenate([hub.outcome for hub in cohort])


def newton(x: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    design = np.c_[np.ones(len(x)), x]
    beta = np.zeros(design.shape[1])
    for _ in range(6):
        fitted = expit(design @ beta)
        hessian = design.T @ (design * (fitted * (1 - fitted))[:, None])
        beta = beta + np.linalg.solve(hessian, design.T @ (y - fitted))
    return beta


def regression_rows(rows: int, repeats: int, *, quick: bool) -> list[Row]:
    x, y = patients(rows)
    beta = newton(x, y)

    def fit(party: Party) -> Generator[Any, Any, Any]:
        mine = slice((party.me - 1) * rows, party.me * rows)
        model = yield from logistic_regression(party, x[mine], y[mine], rows=(rows,) * 3)
        return (yield from open_coefficients(party, model))

    def fit_and_predict(party: Party) -> Generator[Any, Any, Any]:
        mine = slice((party.me - 1) * rows, party.me * rows)
        model = yield from logistic_regression(party, x[mine], y[mine], rows=(rows,) * 3)
        return (yield from predict(party, model, x[mine] if party.me == 2 else None, owner=2, rows=rows))

    cost = repeated(fit, repeats)
    what = f"hidden-model logistic regression, 6 Newton steps, 3 x {rows} rows x {PREDICTORS}"
    beside = None if quick else spu_anchor.measured(quick)
    spu = f"SPU ABY3, passive: {beside['series']['cpu_s']:.1f} s in this run" if beside else "SPU ABY3: NOT RUN"
    within = cost.cpu_s <= 5 and (beside is None or cost.cpu_s <= 2 * beside["series"]["cpu_s"])
    error = float(np.abs(cost.result.values - beta).max())
    found = [
        Row(f"{what}: cpu of one hub", cost.cpu_s, "s", "<= 5 s; <= 2 x SPU", spu, within),
        Row(
            f"{what}: largest error of a coefficient",
            error,
            "1",
            "<= 1e-4, settled",
            "plain Newton fit",
            bool(error <= 1e-4 and cost.result.settled),
        ),
        Row(f"{what}: rounds", cost.rounds, "rounds", "<= 500", "-", cost.rounds <= 500),
        Row(f"{what}: sent by one hub to each other", cost.sent_mb, "MB", "", "SPU ABY3 48 MB elsewhere", None),
    ]
    if not quick:
        wall = delayed(fit)
        anchor = f"{cost.rounds} rounds x 40 ms = {cost.rounds * DELAY_S:.0f} s"
        found.append(Row(f"{what}: wall with 40 ms one-way delay", wall, "s", "<= 60 s", anchor, wall <= 60))
    both = together(fit_and_predict)
    wrong = float(np.abs(both.result - expit(np.c_[np.ones(rows), x[rows : 2 * rows]] @ beta)).max())
    more = both.cpu_s - cost.cpu_s
    found.append(Row(f"{rows} predictions under shares: cpu of one hub", more, "s", "", "-", None))
    found.append(
        Row(f"{rows} predictions under shares: largest error", wrong, "1", "<= 1e-4", "plain", wrong <= 1e-4)
    )
    return found


def comparison_rows(repeats: int, passive: dict[str, float]) -> list[Row]:
    a, b = comparands()

    def compare(party: Party) -> Generator[Any, Any, Any]:
        mine = {1: a, 2: b}.get(party.me)
        shared = yield from party.inputs(mine, {1: a.shape, 2: b.shape}, bound=COMPARISON_BITS - 1)
        return (yield from party.open((yield from party.less_than_zero(shared[1] - shared[2], COMPARISON_BITS))))

    cost = repeated(compare, repeats)
    right = bool(np.array_equal(cost.result, a < b))
    found = [
        Row("1,000 comparisons of 32 bits, inputs included: cpu of one hub", cost.cpu_s, "s", "<= 0.5 s, all right",
            "-", right and cost.cpu_s <= 0.5),
    ]  # fmt: skip
    for way, goal in (("list", "<= 0.3"), ("array", "<= 0.3")):
        if way in passive:
            ratio = cost.cpu_s / passive[way]
            anchor = f"MPyC as {way} {passive[way]:.2f} s"
            found.append(Row(f"1,000 comparisons: ratio to MPyC ({way})", ratio, "x", goal, anchor, ratio <= 0.3))
    return found


def median_rows(rows: int, repeats: int, passive: dict[str, float]) -> list[Row]:
    values = measurements(rows)

    def median(party: Party) -> Generator[Any, Any, Any]:
        mine = values[party.me - 1]
        return (yield from quantiles(party, mine, grid=GRID, levels=(Fraction(1, 2),), count_bits=12))

    cost = repeated(median, repeats)
    right = cost.result[0] == np.quantile(values, 0.5, method="inverted_cdf")
    anchor = f"MPyC, bisection on counts: {passive['median']:.3f} s" if "median" in passive else "-"
    name = f"median of 3 x {rows} values on 1,024 points"
    return [
        Row(f"{name}: cpu of one hub", cost.cpu_s, "s", "<= 0.5 s, exact", anchor, bool(right and cost.cpu_s <= 0.5)),
        Row(f"{name}: rounds", cost.rounds, "rounds", "", "-", None),
    ]


def table_rows(rows: int, repeats: int) -> list[Row]:
    draw = np.random.default_rng(3)
    tables = np.array([draw.multinomial(rows, draw.dirichlet(np.ones(12))).reshape(3, 4) for _ in HUBS])
    cost = repeated(lambda party: chi_squared(party, tables[party.me - 1], count_bits=12), repeats)
    error = abs(cost.result.statistic - chi2_contingency(tables.sum(0), correction=False).statistic)
    found = _pair(f"chi-squared of 3 x 4 cells, 3 x {rows} patients", cost, error)
    small = np.array([[[30, 100], [22, 150]], [[11, 80], [10, 140]], [[25, 72], [13, 130]]])
    cost = together(lambda party: fisher(party, small[party.me - 1], count_bits=10))
    error = abs(cost.result - fisher_exact(small.sum(0)).pvalue)
    return found + _pair(f"Fisher's exact p, {small.sum()} patients", cost, float(error))


def survival_rows(rows: int, repeats: int) -> list[Row]:
    draw = np.random.default_rng(4)
    group = draw.integers(0, 2, (3, rows))
    left = np.minimum(draw.geometric(0.08 + 0.03 * group), BINS) - 1
    event = draw.random((3, rows)) < 0.7
    tables = [life_table(left[k], event[k], group[k], BINS) for k in range(3)]
    cost = repeated(lambda party: log_rank(party, tables[party.me - 1], count_bits=12), repeats)
    difference, variance = pooled_log_rank(sum(tables[1:], tables[0]))
    error = max(abs(cost.result.difference - difference), abs(cost.result.variance - variance))
    return _pair(f"log-rank O - E and V, 3 x {rows} patients, {BINS} times", cost, error)


def pooled_log_rank(table: NDArray[np.int64]) -> tuple[float, float]:
    difference = variance = 0.0
    for t in range(table.shape[2]):
        risk, died = table[:, :, t:].sum((1, 2)), table[:, 0, t].sum()
        share = risk[0] / max(risk.sum(), 1)
        difference += table[0, 0, t] - died * share
        variance += died * share * (1 - share) * (risk.sum() - died) / max(risk.sum() - 1, 1)
    return difference, variance


def other_rows(rows: int) -> list[Row]:
    draw = np.random.default_rng(5)
    ranked = draw.integers(0, rows // 100 + 1, (3, 2, 100))
    cost = together(lambda party: mann_whitney(party, ranked[party.me - 1], count_bits=13))
    found = [Row("Mann-Whitney on 100 points: cpu of one hub", cost.cpu_s, "s", "", f"{cost.rounds} rounds", None)]
    lists = {k: [b"%d" % n for n in range(k * rows // 2, k * rows // 2 + rows)] for k in HUBS}

    def matched(party: Party) -> Generator[Any, Any, Any]:
        rand = secret("spare", party.me)
        hidden = yield from hidden_lists(party, lists[party.me], key=secret("key"), capacity=rows, rand=rand)
        sizes = yield from overlap_sizes(party, hidden)
        return sizes, (yield from also_elsewhere(party, hidden))

    cost = together(matched)
    sizes, mine = cost.result
    right = sizes.pairs == {(1, 2): rows // 2, (1, 3): 0, (2, 3): rows // 2} and bool(mine.all())
    name = f"overlaps of 3 x {rows} patients, sizes and each hub's own"
    found.append(Row(f"{name}: cpu of one hub", cost.cpu_s, "s", "all right", f"{cost.rounds} rounds", right))
    found.append(Row(f"{name}: sent by one hub to each other", cost.sent_mb, "MB", "", "-", None))
    return found


def _pair(name: str, cost: Cost, error: float) -> list[Row]:
    return [
        Row(f"{name}: cpu of one hub", cost.cpu_s, "s", "", f"{cost.rounds} rounds", None),
        Row(f"{name}: error", error, "1", "<= 1e-6", "pooled result", bool(error <= 1e-6)),
    ]


def comparands() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    draw = np.random.default_rng(2)
    return draw.integers(-(2**30), 2**30, 1_000), draw.integers(-(2**30), 2**30, 1_000)


def measurements(rows: int) -> NDArray[np.float64]:
    return np.round(np.random.default_rng(6).gamma(2.0, 10.0, (3, rows)), 1).clip(0, GRID[-1])


# --- MPyC beside it -----------------------------------------------------------------------------


def passive_costs() -> dict[str, float]:
    """Processor seconds of MPyC's first party, by task."""
    command = [sys.executable, __file__, MPYC, "-M3", "--no-log"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[0]))


def mpyc_party() -> None:
    """One party of three; MPyC starts the other two itself."""
    from mpyc.runtime import mpc

    async def run() -> None:
        await mpc.start()
        number = mpc.SecInt(COMPARISON_BITS)
        a, b = comparands()
        costs = {}
        begin = time.process_time()
        x, y = mpc.input(number.array(a.astype(object)), 0), mpc.input(number.array(b.astype(object)), 1)
        await mpc.output(x < y)
        costs["array"] = time.process_time() - begin
        begin = time.process_time()
        left = mpc.input([number(int(v)) for v in a], 0)
        right = mpc.input([number(int(v)) for v in b], 1)
        await mpc.output([p < q for p, q in zip(left, right, strict=True)])
        costs["list"] = time.process_time() - begin
        begin = time.process_time()
        values = measurements(1_000)
        low, high, wanted = 0, GRID.size - 1, (values.size + 1) // 2
        while low < high:
            middle = (low + high) // 2
            below = mpc.input(number(int((values[mpc.pid] <= GRID[middle]).sum())))
            if await mpc.output(mpc.sum(below) >= wanted):
                high = middle
            else:
                low = middle + 1
        costs["median"] = time.process_time() - begin
        if mpc.pid == 0:
            print(json.dumps(costs), flush=True)
        await mpc.shutdown()

    mpc.run(run())


def main() -> None:
    given = options("statistics on shares: processor time, error, rounds")
    rows, repeats = (120, 1) if given.quick else (1_000, REPEATS)
    passive = {} if given.quick else passive_costs()
    groups: tuple[Callable[[], list[Row]], ...] = (
        lambda: comparison_rows(repeats, passive),
        lambda: median_rows(rows, repeats, passive),
        lambda: table_rows(rows, repeats),
        lambda: survival_rows(rows, repeats),
        lambda: other_rows(rows),
        lambda: regression_rows(rows, repeats, quick=given.quick),
    )
    for group in groups:  # shown as they come: the last one takes minutes, and SPU has been seen to stand still
        for row in group():
            show(row, as_json=given.json)


if __name__ == "__main__":
    if MPYC in sys.argv:
        mpyc_party()
    else:
        main()
