"""What statistics on shares cost and how exact they are, three hubs with 1,000 rows each, cheating hubs withstood.

    python benchmarks/mpc_statistics.py [--quick] [--json]

- cpu: processor seconds of one hub, the median of REPEATS runs. All hubs take turns in one process: what it spent,
  over their number (asking the clock at every step of every hub cost a tenth of the shorter ones). Setup of keys is
  not in it (two rounds, milliseconds).
- error: against the plain computation on the pooled rows.
- wall: each hub a process of its own; every message is held back for DELAY_S before it is read, as a line of that
  latency would. Processors are shared by the three.
- MPyC 0.11, three processes, no TLS, passive (it withstands no cheating hub), without gmpy2: the same comparisons, as
  an array (its fastest way) and as a list of numbers; the median by bisection on counts that hubs put in. Processor
  seconds of its first party, run just before ours.
- SPU 0.9.5, ABY3, three processes, its own mutual TLS, passive: the same regression, in the environment that
  `spu_environment.py` makes. Processor seconds of the hub that used most, the median of SPU_TURNS runs.
- A counterpart that is not installed, fails, or stands still for longer than its patience is ended with all its
  processes; a row says so, nothing is judged against it, and the rest goes on.
- quick: fewer rows, one run of each, no MPyC, no SPU, no delay: a smoke test.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from joint_data import joint_rows
from numpy.typing import NDArray
from rows import Row, options, show
from scipy.special import expit
from scipy.stats import chi2_contingency, fisher_exact
from spu_environment import DONE, FOLDER

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
MPYC_PATIENCE_S, SPU_PATIENCE_S = 120.0, 180.0
"""Wall, of one run: ten times what it takes by itself. Either stands still now and then on a crowded machine."""
SPU_TURNS = 3

Program = Callable[[Party], Generator[Mapping[int, bytes], Mapping[int, bytes], Any]]


@dataclass(frozen=True, slots=True)
class Cost:
    """result: hub 2's (it asks for the predictions). cpu_s: of one hub. sent_mb: by hub 1 to each other hub."""

    result: Any
    cpu_s: float
    rounds: int
    sent_mb: float


def secret(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


# --- all hubs in one process --------------------------------------------------------------------


def lock_step(generators: dict[int, Generator[Any, Any, Any]]) -> tuple[dict[int, Any], float]:
    """Each hub's result, and processor seconds of one hub."""
    results: dict[int, Any] = {}
    arrived: dict[int, Mapping[int, bytes] | None] = dict.fromkeys(generators)
    begin = time.process_time()
    while len(results) < len(generators):
        sent = {}
        for place, generator in generators.items():
            try:
                sent[place] = generator.send(arrived[place])
            except StopIteration as stop:
                results[place] = stop.value
        arrived = {to: {place: sent[place][to] for place in sent if place != to} for to in sent}
    return results, (time.process_time() - begin) / len(generators)


def together(program: Program) -> Cost:
    circles = {me: Circle(me, len(HUBS), b"benchmark") for me in HUBS}
    keys, _ = lock_step({me: setup(circle, rand=secret("keys", me)) for me, circle in circles.items()})
    parties = {me: Party(circle, keys[me]) for me, circle in circles.items()}
    results, seconds = lock_step({me: program(party) for me, party in parties.items()})
    return Cost(results[2], seconds, parties[1].rounds, parties[1].wire.sent_bytes / 1e6)


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


def regression_rows(rows: int, repeats: int, spu: Beside, *, quick: bool) -> list[Row]:
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
    error = float(np.abs(cost.result.values - beta).max())
    found = [
        Row(f"{what}: cpu of one hub", cost.cpu_s, "s", "<= 5 s", "-", cost.cpu_s <= 5),
        ratio_row("hidden-model logistic regression", "SPU ABY3", cost, spu, "series", limit=2),
        Row(
            f"{what}: largest error of a coefficient",
            error,
            "1",
            "<= 1e-4, settled",
            "plain Newton fit",
            bool(error <= 1e-4 and cost.result.settled),
        ),
        Row(f"{what}: rounds", cost.rounds, "rounds", "<= 500", "-", cost.rounds <= 500),
        Row(
            f"{what}: sent by one hub to each other",
            cost.sent_mb,
            "MB",
            "",
            f"SPU ABY3, in all: {spu.told('sent_mb', 'MB')}",
            None,
        ),
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


def comparison_rows(repeats: int, passive: Beside) -> list[Row]:
    a, b = comparands()

    def compare(party: Party) -> Generator[Any, Any, Any]:
        mine = {1: a, 2: b}.get(party.me)
        shared = yield from party.inputs(mine, {1: a.shape, 2: b.shape}, bound=COMPARISON_BITS - 1)
        return (yield from party.open((yield from party.less_than_zero(shared[1] - shared[2], COMPARISON_BITS))))

    cost = repeated(compare, repeats)
    right = bool(np.array_equal(cost.result, a < b))
    name = "1,000 comparisons of 32 bits, inputs included: cpu of one hub"
    ways = ("list", "array")
    return [
        Row(name, cost.cpu_s, "s", "<= 0.5 s, all right", "-", right and cost.cpu_s <= 0.5),
        *(ratio_row("1,000 comparisons", f"MPyC ({way})", cost, passive, way, limit=0.3) for way in ways),
    ]


def median_rows(rows: int, repeats: int, passive: Beside) -> list[Row]:
    values = measurements(rows)

    def median(party: Party) -> Generator[Any, Any, Any]:
        mine = values[party.me - 1]
        return (yield from quantiles(party, mine, grid=GRID, levels=(Fraction(1, 2),), count_bits=12))

    cost = repeated(median, repeats)
    right = cost.result[0] == np.quantile(values, 0.5, method="inverted_cdf")
    anchor = f"MPyC, bisection on counts: {passive.told('median', 's')}"
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


# --- counterparts beside it ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beside:
    """What a counterpart spent, by task; or, where there is nothing, why."""

    figures: Mapping[str, float]
    missing: str = ""

    def told(self, task: str, unit: str) -> str:
        return f"{self.figures[task]:.3g} {unit}" if task in self.figures else f"NOT RUN: {self.missing}"


NO_COUNTERPARTS = Beside({}, "quick")


def ratio_row(what: str, name: str, ours: Cost, theirs: Beside, task: str, *, limit: float) -> Row:
    """Judged where the counterpart ran; 0 and said so where it did not."""
    ratio = ours.cpu_s / theirs.figures[task] if task in theirs.figures else None
    holds = None if ratio is None else ratio <= limit
    return Row(f"{what}: ratio to {name}", ratio or 0.0, "x", f"<= {limit:g}", theirs.told(task, "s"), holds)


def patiently(command: list[str], patience_s: float) -> list[Any]:
    """What it prints as JSON. Raises: OSError, ValueError, subprocess.SubprocessError: it failed, or was ended with
    all its processes when its time was over."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        try:
            said, _ = running.communicate(timeout=patience_s)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command[1])
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def mpyc_costs() -> Beside:
    """Processor seconds of its first party: `array`, `list`, `median`."""
    try:
        (costs,) = patiently([sys.executable, __file__, MPYC, "-M3", "--no-log"], MPYC_PATIENCE_S)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Beside({}, said(error))
    return Beside(costs)


def spu_costs() -> Beside:
    """`series`: processor seconds; `sent_mb`. Runs that fail are left out."""
    if not (FOLDER / DONE).is_file():
        return Beside({}, "`python benchmarks/spu_environment.py` makes what it needs")
    command = [sys.executable, str(Path(__file__).with_name("spu_anchor.py")), "--quick", "--json"]
    seconds, sent, failed = [], [], ""
    for _ in range(SPU_TURNS):
        try:
            rows = patiently(command, SPU_PATIENCE_S)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failed = said(error)
            continue
        by_unit = {row["unit"]: row["value"] for row in rows if row["name"] == "SPU series"}
        seconds.append(by_unit["CPU s of one hub"])
        sent.append(by_unit["MB sent by one hub"])
    if not seconds:
        return Beside({}, failed)
    return Beside({"series": statistics.median(seconds), "sent_mb": statistics.median(sent)})


def said(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it stood still for {error.timeout:.0f} s and was ended"
    return f"it failed ({type(error).__name__})"


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
    passive, spu = (NO_COUNTERPARTS,) * 2 if given.quick else (mpyc_costs(), spu_costs())
    groups: tuple[Callable[[], list[Row]], ...] = (
        lambda: comparison_rows(repeats, passive),
        lambda: median_rows(rows, repeats, passive),
        lambda: table_rows(rows, repeats),
        lambda: survival_rows(rows, repeats),
        lambda: other_rows(rows),
        lambda: regression_rows(rows, repeats, spu, quick=given.quick),
    )
    for group in groups:  # shown as they come: the last one takes a minute
        for row in group():
            show(row, as_json=given.json)


if __name__ == "__main__":
    if MPYC in sys.argv:
        mpyc_party()
    else:
        main()
