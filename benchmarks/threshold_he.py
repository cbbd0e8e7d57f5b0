"""What threshold encryption costs: processor time and bytes of one hub, for 1,000 cells, 3 hubs, 2 of 3.

    python benchmarks/threshold_he.py [--quick] [--json]

One process, no wire, no disk. Seconds of processor time, medians of REPEATS after one that warms up. On a machine
that others use they swell with its load, by half and more; so beside each stands what its group operations alone
cost, the library's without a line of ours, measured turn by turn with it. Goals in seconds were set where these
operations took REFERENCE_US; they are judged at the pace at which they ran beside, and goal, pace and the limit that
comes of them are all in the row. The value shown is as measured. A library that became slower would pass for a slow
machine: the first rows show the pace of OpenSSL's X25519 too, which no part of this shares.
"""

from __future__ import annotations

import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import rbcl
from rows import Row, options, show

from flute.defaults.threshold import MAX_BABY_STEPS
from flute.messages.threshold import Contribution, KeyTerms, OpeningShare, SumTerms
from flute.primitives.keys import AgreementKey, SigningKey, digest
from flute.threshold import ceremony, encryption, opening, ranges, totals
from flute.threshold.encryption import SumState
from flute.threshold.group import Element, multiply_base
from flute.threshold.keys import KeyShare

CELLS, HUBS, THRESHOLD = 1_000, ("hub-a", "hub-b", "hub-c"), 2
BOUND, FAR = 2**20, 2**26
REPEATS, QUICK_REPEATS = 9, 3
ENCRYPT_GOAL, SHARE_GOAL, OPEN_GOAL = 0.15, 0.2, 1.0
BYTES_GOAL = 100_000
RANGE_CELLS, RANGE_BITS = 20, 10


@dataclass(frozen=True, slots=True)
class Group:
    signing: dict[str, SigningKey]
    keys: dict[str, bytes]
    held: dict[str, KeyShare]
    ceremony_s: float
    """Of one hub, all steps."""


@dataclass(frozen=True, slots=True)
class Operations:
    """How many of each of the library's operations a step cannot do without; named as in REFERENCE_US."""

    base: int = 0
    any: int = 0
    add: int = 0
    valid: int = 0

    def run(self) -> None:
        for _ in range(self.base):
            rbcl.crypto_scalarmult_ristretto255_base(SCALAR)
        for _ in range(self.any):
            rbcl.crypto_scalarmult_ristretto255(SCALAR, ELEMENT)
        for _ in range(self.add):
            rbcl.crypto_core_ristretto255_add(ELEMENT, OTHER)
        for _ in range(self.valid):
            rbcl.crypto_core_ristretto255_is_valid_point(ELEMENT)

    @property
    def reference_s(self) -> float:
        """What they took where the goals were set."""
        return sum(us * getattr(self, name) for name, us in REFERENCE_US.items()) / 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of processor seconds: ours, and the library's operations alone. pace: how many times slower these were
    than where the goals were set."""

    ours: float
    alone: float
    pace: float

    @property
    def paced(self) -> float:
        return self.ours / self.pace


REFERENCE_US = {"base": 18.0, "any": 51.0, "add": 17.0, "valid": 6.0}
"""Of one operation of the library on the machine of the goals, a core by itself."""
X25519_REFERENCE_US = 36.0
"""Of one key agreement by OpenSSL there, as in `secure_aggregation.py`."""
SCALAR = bytes(rbcl.crypto_core_ristretto255_scalar_random())
ELEMENT, OTHER = rbcl.crypto_core_ristretto255_random(), rbcl.crypto_core_ristretto255_random()


def once(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median of processor time."""
    work()
    return statistics.median(once(work) for _ in range(repeats))


def beside(work: Callable[[], Any], needed: Operations, repeats: int) -> Measured:
    """Turn by turn with the library's operations alone."""
    work()
    pairs = [(once(work), once(needed.run)) for _ in range(repeats)]
    ours, alone = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Measured(ours, alone, alone / needed.reference_s)


def made_key() -> Group:
    signing = {hub: SigningKey(os.urandom(32)) for hub in HUBS}
    keys = {hub: key.public for hub, key in signing.items()}
    terms = KeyTerms("study", digest(b"a"), digest(b"r"), 1, HUBS, THRESHOLD, 1, len(HUBS), 1)
    begun = time.process_time()
    first = {
        hub: ceremony.begin(hub, terms, rand=os.urandom(ceremony.rand_size(terms)), key=signing[hub]) for hub in HUBS
    }
    commitments = [message for _, message in first.values()]
    second = {hub: ceremony.deal(first[hub][0], commitments, keys=keys, key=signing[hub]) for hub in HUBS}
    dealings = [dealing for _, dealing, _ in second.values()]
    shares = [share for *_, dealt in second.values() for share in dealt]
    third = {
        hub: ceremony.confirm(
            second[hub][0], dealings, [s for s in shares if s.holder == hub], keys=keys, key=signing[hub]
        )
        for hub in HUBS
    }
    confirmations = [message for _, message in third.values()]
    held = {hub: ceremony.finish(third[hub][0], confirmations, keys=keys)[1] for hub in HUBS}  # type: ignore[arg-type]
    return Group(signing, keys, held, (time.process_time() - begun) / len(HUBS))


def numbers(rng: np.random.Generator) -> list[int]:
    """So that totals of three hubs are spread over all of ±BOUND."""
    return [int(v) for v in rng.integers(-BOUND // 3, BOUND // 3 + 1, CELLS)]


def encrypted(group: Group, terms: SumTerms, hub: str, mine: list[int]) -> tuple[SumState, Contribution]:
    return encryption.contribute(
        SumState(hub, terms), mine, public=group.held[hub].public, rand=os.urandom(encryption.rand_size(CELLS)),
        key=group.signing[hub],
    )  # fmt: skip


def hub_rows(group: Group, repeats: int) -> list[Row]:
    rng = np.random.default_rng()
    public = group.held[HUBS[0]].public
    terms = SumTerms(public.digest(), digest(b"q"), 1, CELLS, BOUND, HUBS)
    mine = {hub: numbers(rng) for hub in HUBS}
    encrypting = beside(
        lambda: encrypted(group, terms, HUBS[0], mine[HUBS[0]]), Operations(2 * CELLS, CELLS, CELLS), repeats
    )
    sent = {hub: encrypted(group, terms, hub, mine[hub]) for hub in HUBS}
    contributions = [message for _, message in sent.values()]

    def summed() -> opening.Summed:
        return opening.add_up(terms, contributions, public=public, keys=group.keys)

    n, ready = len(HUBS), summed()

    def shared(hub: str) -> OpeningShare:
        return opening.share(
            sent[hub][0], group.held[hub], ready, rand=os.urandom(opening.SHARE_RAND_SIZE), key=group.signing[hub]
        )[1]

    checks = Operations(any=n * CELLS, add=(n + 2 * (n - 1)) * CELLS, valid=2 * n * CELLS)
    checking = beside(summed, checks, repeats)
    sharing = beside(lambda: shared(HUBS[0]), Operations(any=2 * CELLS, add=CELLS), repeats)
    size = len(msgspec.msgpack.encode(contributions[0])) + len(msgspec.msgpack.encode(shared(HUBS[0])))
    return [
        row("encrypt 1,000 cells", encrypting, ENCRYPT_GOAL),
        row("opening share of 1,000 cells, with its proof", sharing, SHARE_GOAL),
        row("check and add up 3 hubs' contributions", checking),
        Row("bytes of one hub, contribution and share", size, "B", f"<= {BYTES_GOAL:,}", "96,000 B of elements",
            size <= BYTES_GOAL),
        *opening_rows(group, ready, [shared(hub) for hub in HUBS[:THRESHOLD]], mine, repeats),
        Row("key ceremony of 3 hubs", group.ceremony_s, "s", "", "one hub, all steps", None),
    ]  # fmt: skip


def opening_rows(
    group: Group, ready: opening.Summed, shares: list[OpeningShare], mine: dict[str, list[int]], repeats: int
) -> list[Row]:
    public, k = group.held[HUBS[0]].public, THRESHOLD

    def combined() -> opening.Opened:
        return opening.combine(public, ready, shares, keys=group.keys)

    needed = Operations(any=(3 * k - 1) * CELLS, add=(4 * k - 1) * CELLS, valid=k * CELLS)
    combining, elements = beside(combined, needed, repeats), combined().elements
    finding = seconds(lambda: totals.read_totals(elements, bound=BOUND), repeats)
    right = totals.read_totals(elements, bound=BOUND) == tuple(map(sum, zip(*mine.values(), strict=True)))
    opened = combining.ours + finding
    goal, within = judged(opened, OPEN_GOAL, combining.pace)
    return [
        row("combine 2 shares, each checked", combining),
        Row("1,000 totals within 2^20, spread evenly", finding, "s", "", f"right: {right}", None),
        Row("combination and totals", opened, "s", goal, f"{finding:.2f} s of it are totals", right and within),
    ]  # fmt: skip


def row(name: str, measured: Measured, goal: float | None = None) -> Row:
    anchor = f"the library's operations alone: {measured.alone:.3f} s; ours over their pace: {measured.paced:.3f} s"
    if goal is None:
        return Row(name, measured.ours, "s", "", anchor, None)
    words, within = judged(measured.ours, goal, measured.pace)
    return Row(name, measured.ours, "s", words, anchor, within)


def judged(value: float, goal: float, pace: float) -> tuple[str, bool]:
    """The goal in words, and whether the value keeps it at this pace."""
    limit = goal * pace
    return f"<= {goal} s, at the pace of {pace:.2f} beside it: {limit:.3f}", value <= limit


def spread(bound: int, cells: int, rng: np.random.Generator) -> list[Element]:
    return [multiply_base(int(v)) for v in rng.integers(-bound, bound + 1, cells)]


def totals_rows(quick: bool) -> list[Row]:
    rng = np.random.default_rng()
    near = [multiply_base(int(v)) for v in np.rint(rng.normal(0, 2_000, CELLS))]
    near_s = seconds(lambda: totals.read_totals(near, bound=BOUND, steps=2**16), 3)
    rows = [Row("1,000 totals within 2^20, noisy and near 0 (sigma 2,000)", near_s, "s", "", "table of 2^16", None)]
    totals.baby_steps.cache_clear()
    for steps in (2**16,) if quick else (2**16, MAX_BABY_STEPS):
        tracemalloc.start()
        table = totals.baby_steps.__wrapped__(steps)
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del table
        begun = time.process_time()
        totals.baby_steps(steps)
        made = time.process_time() - begun
        name = f"table of 2^{steps.bit_length() - 1} points"
        rows += [
            Row(f"{name}, made once per process", made, "s", "", "processor time", None),
            Row(f"{name}, memory", memory / 2**20, "MiB", "", "traced", None),
        ]
    steps, cells = (2**16, 20) if quick else (MAX_BABY_STEPS, 200)
    far = spread(FAR, cells, rng)
    begun = time.process_time()
    totals.read_totals(far, bound=FAR, steps=steps)
    each = (time.process_time() - begun) / cells
    anchor = f"table of 2^{steps.bit_length() - 1}; {cells} cells tried, scaled"
    return [*rows, Row("1,000 totals within 2^26, spread evenly", 1_000 * each, "s", "", anchor, None)]


def range_rows(repeats: int) -> list[Row]:
    """Optional proofs that inputs are within 0 .. 2^10 - 1."""
    group = made_key()
    public = group.held[HUBS[0]].public
    terms = SumTerms(public.digest(), digest(b"q"), 1, RANGE_CELLS, BOUND, HUBS)
    mine = [i % 2**RANGE_BITS for i in range(RANGE_CELLS)]
    rand = os.urandom(encryption.rand_size(RANGE_CELLS))
    key = group.signing[HUBS[0]]
    _, message = encryption.contribute(SumState(HUBS[0], terms), mine, public=public, rand=rand, key=key)
    size = ranges.rand_size(RANGE_CELLS, RANGE_BITS)

    def prove() -> Any:
        return ranges.prove(
            terms, message, mine, low=0, bits=RANGE_BITS, public=public, encryption_rand=rand, rand=os.urandom(size),
            key=key,
        )  # fmt: skip

    proof = prove()
    prove_s = seconds(prove, repeats) / RANGE_CELLS
    check_s = seconds(
        lambda: ranges.check(terms, message, proof, low=0, bits=RANGE_BITS, public=public, keys=group.keys), repeats
    )
    length = len(msgspec.msgpack.encode(proof)) / RANGE_CELLS
    return [
        Row("range proof of one cell, 10 bits: prove", 1e3 * prove_s, "ms", "", "optional; one hub", None),
        Row(
            "range proof of one cell, 10 bits: check",
            1e3 * check_s / RANGE_CELLS,
            "ms",
            "",
            "each hub, of each",
            None,
        ),
        Row("range proof of one cell, 10 bits: size", length, "B", "", "64 B for the cell itself", None),
    ]


def operation_rows(repeats: int) -> list[Row]:
    kinds = {"base": Operations(base=500), "any": Operations(any=500), "add": Operations(add=500),
             "valid": Operations(valid=500)}  # fmt: skip
    mine, theirs = AgreementKey(bytes(range(32))), AgreementKey(bytes(32)).public
    agreement_us = 1e6 * seconds(lambda: [mine.agree(theirs) for _ in range(500)], repeats) / 500
    return [
        *(operation_row(f"group operation: {name}", 1e6 * seconds(kind.run, repeats) / 500, REFERENCE_US[name],
                        "libsodium, by rbcl") for name, kind in kinds.items()),
        operation_row("X25519 agreement", agreement_us, X25519_REFERENCE_US, "OpenSSL: a pace that shares nothing"),
    ]  # fmt: skip


def operation_row(name: str, us: float, reference_us: float, by: str) -> Row:
    anchor = f"{by}; {reference_us:g} us where the goals were set: pace {us / reference_us:.2f}"
    return Row(name, us, "us", "", anchor, None)


def main() -> None:
    flags = options(__doc__ or "")
    repeats = QUICK_REPEATS if flags.quick else REPEATS
    rows = operation_rows(repeats) + hub_rows(made_key(), repeats) + totals_rows(flags.quick) + range_rows(repeats)
    for each in rows:
        show(each, as_json=flags.json)


if __name__ == "__main__":
    main()
