"""What the multiparty engine costs: processor time of one hub, rounds and bytes, for products and comparisons.

    python benchmarks/mpc.py [--quick] [--json]

All hubs run in one process, in lock-step, without a wire; each hub's processor time is taken around its own steps.
Messages are built and checked as they are between hubs; sealing and sending are not counted (`mpc_statistics` runs
hubs as processes, with a delay). Medians of REPEATS runs after one that warms up. On a machine that others use
processor time swells with the load, so the plain arithmetic of the field is timed in the same run.

- products: batches of independent products modulo both primes (119 bits), with their verification; per second of
  three hubs that share two cores, as the anchor's figures are.
- comparisons: x < 0 for 32-bit numbers, random bits, products and verification included.
- anchor: MP-SPDZ with malicious security, three parties on two shared cores: the figures that the goals were set by,
  379,000 verified products/s and 3,200 32-bit comparisons/s. It is no Python package and is not run here.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rows import Row, options, show

from flute.mpc.field import WIDE
from flute.mpc.party import Party
from flute.mpc.setup import Circle, setup

Steps = Generator[Mapping[int, bytes], Mapping[int, bytes], Any]
CORES, HUBS = 2, 3
REPEATS, QUICK_REPEATS = 7, 3
BATCH, LAYERS = 100_000, 3
SMALL = 1_000
COMPARED = 10_000
PRODUCTS_GOAL, COMPARISONS_GOAL, THOUSAND_GOAL_S = 300_000, 2_500, 0.5
ANCHOR = "MP-SPDZ, malicious, 3 parties on two shared cores: {}; not run here"


@dataclass(frozen=True, slots=True)
class Cost:
    """hub_s: processor seconds of the hub that used most; all_s: of all hubs; sent_mb: from one hub to another."""

    hub_s: float
    all_s: float
    rounds: int
    sent_mb: float


def parties(hubs: int, corrupt: int = 0) -> dict[int, Party]:
    circles = {me: Circle(me, hubs, b"benchmark", corrupt) for me in range(1, hubs + 1)}
    made = {me: setup(c, rand=hashlib.sha256(bytes([me])).digest()) for me, c in circles.items()}
    keys, _ = drive(made)
    return {me: Party(c, keys[me]) for me, c in circles.items()}


def drive(steps: Mapping[int, Steps]) -> tuple[dict[int, Any], dict[int, float]]:
    """Results and processor seconds by hub."""
    results: dict[int, Any] = {}
    seconds = dict.fromkeys(steps, 0.0)
    incoming: dict[int, Mapping[int, bytes] | None] = dict.fromkeys(steps)
    while len(results) < len(steps):
        sent: dict[int, Mapping[int, bytes]] = {}
        for me, step in steps.items():
            arrived, begin = incoming[me], time.process_time()
            try:
                sent[me] = next(step) if arrived is None else step.send(arrived)
            except StopIteration as stop:
                results[me] = stop.value
            seconds[me] += time.process_time() - begin
        incoming = {me: {other: out[me] for other, out in sent.items() if other != me} for me in steps}
    return results, seconds


def cost(program: Callable[[Party], Steps], hubs: int = HUBS, corrupt: int = 0) -> Cost:
    members = parties(hubs, corrupt)
    _, seconds = drive({me: program(party) for me, party in members.items()})
    one = members[1]
    return Cost(max(seconds.values()), sum(seconds.values()), one.rounds, one.wire.sent_bytes / 1e6)


def middle(program: Callable[[Party], Steps], repeats: int, hubs: int = HUBS, corrupt: int = 0) -> Cost:
    cost(program, hubs, corrupt)
    return sorted((cost(program, hubs, corrupt) for _ in range(repeats)), key=lambda c: c.all_s)[repeats // 2]


def products(size: int, layers: int, *, narrow: bool = False) -> Callable[[Party], Steps]:
    def program(party: Party) -> Steps:
        x = party.constant(np.arange(size))
        x = x.narrow() if narrow else x
        for _ in range(layers):
            yield from party.mul(x, x)
        yield from party.verify()

    return program


def roundings(size: int) -> Callable[[Party], Steps]:
    def program(party: Party) -> Steps:
        x = party.constant(np.arange(size))
        yield from party.mul_truncate(x, x, 8)
        yield from party.verify()

    return program


def comparisons(size: int) -> Callable[[Party], Steps]:
    def program(party: Party) -> Steps:
        x = party.constant(np.arange(size) - size // 2)
        yield from party.less_than_zero(x, 32)
        yield from party.verify()

    return program


def inputs(size: int) -> Callable[[Party], Steps]:
    def program(party: Party) -> Steps:
        yield from party.inputs(np.arange(size), dict.fromkeys(range(1, HUBS + 1), (size,)), bound=32)

    return program


def field_product_ns(repeats: int) -> float:
    """One product modulo each prime, in numpy alone."""
    values = [np.full(BATCH, prime.p - 2, np.uint64) for prime in WIDE]
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        for prime, a in zip(WIDE, values, strict=True):
            prime.mul(a, a)
        taken.append((time.process_time() - begin) / BATCH * 1e9)
    return statistics.median(taken)


def per_second(count: int, spent: Cost) -> float:
    return count * CORES / spent.all_s


def goals(repeats: int) -> list[Row]:
    batch = middle(products(BATCH, LAYERS), repeats)
    compared = middle(comparisons(COMPARED), repeats)
    thousand = middle(comparisons(1_000), repeats)
    rate, compare_rate = per_second(BATCH * LAYERS, batch), per_second(COMPARED, compared)
    plain = f"two field products take {field_product_ns(repeats):.0f} ns in this run"
    return [
        Row(
            "verified products, 119 bits, 3 hubs on 2 cores", rate, "/s", f">= {PRODUCTS_GOAL:,}/s",
            ANCHOR.format("379,000/s"), rate >= PRODUCTS_GOAL,
        ),
        Row("one verified product, one hub", batch.hub_s / (BATCH * LAYERS) * 1e9, "ns", "", plain, None),
        Row(
            "verified 32-bit comparisons, 3 hubs on 2 cores", compare_rate, "/s", f">= {COMPARISONS_GOAL:,}/s",
            ANCHOR.format("3,200/s"), compare_rate >= COMPARISONS_GOAL,
        ),
        Row(
            "1,000 comparisons, one hub", thousand.hub_s, "s", f"<= {THOUSAND_GOAL_S} s", plain,
            thousand.hub_s <= THOUSAND_GOAL_S,
        ),
        Row("1,000 comparisons, rounds", thousand.rounds, "rounds", "", "-", None),
        Row("1,000 comparisons, to each other hub", thousand.sent_mb, "MB", "", "-", None),
    ]  # fmt: skip


def told(repeats: int) -> list[Row]:
    """Without a goal: what other operations cost, and more hubs."""
    narrow = middle(products(BATCH, LAYERS, narrow=True), repeats)
    small = middle(products(SMALL, LAYERS), repeats)
    rounded, entered = middle(roundings(BATCH), repeats), middle(inputs(SMALL), repeats)
    rows = [
        Row("verified products, 61 bits, 3 hubs on 2 cores", per_second(BATCH * LAYERS, narrow), "/s", "", "-", None),
        Row("the same in batches of 1,000, 119 bits", per_second(SMALL * LAYERS, small), "/s", "", "-", None),
        Row("verified rounded products, 3 hubs on 2 cores", per_second(BATCH, rounded), "/s", "", "-", None),
        Row("one input of 32 bits, proven, of each hub", entered.hub_s / SMALL * 1e6, "us", "", "-", None),
    ]
    for hubs, corrupt in ((5, 2), (10, 4), (10, 1)):
        spent = middle(products(SMALL, LAYERS), repeats, hubs, corrupt)
        name = f"one verified product, one of {hubs} hubs, {corrupt} corrupt"
        rows.append(Row(name, spent.hub_s / (SMALL * LAYERS) * 1e6, "us", "", "batches of 1,000", None))
    return rows


def main() -> None:
    chosen = options("Cost of the multiparty engine.")
    repeats = QUICK_REPEATS if chosen.quick else REPEATS
    for row in (*goals(repeats), *told(repeats)):
        show(row, as_json=chosen.json)


if __name__ == "__main__":
    main()
