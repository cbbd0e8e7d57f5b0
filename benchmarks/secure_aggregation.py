"""What secure aggregation costs, in processor time, bytes and memory, and how exact its sums are.

    python benchmarks/secure_aggregation.py [--quick] [--json]

One process, no wire, no disk: `aggregation` alone, complete graph, with echo, colluding hubs a fifth. Milliseconds
of processor time, medians of at least REPEATS rounds after one that warms up; on a machine that others use they swell
with its load, so each stands beside what its two main parts cost in the same run: the keystreams of its masks and its
X25519 agreements.

- computation: all that the protocol computes: encoding and masks, tickets, key agreement, shares and commitments,
  packing, unmasking and decoding.
- signatures and hashes: Ed25519, and SHA-256 over vectors. Shown apart, since neither the table that the goals come
  from nor Flower has them. With the computation they are all that a round costs here.
- the plain sum: float32 vectors added one by one to an accumulator, turn by turn with ours.
- Flower: SecAgg+ as `flower_secagg.py` measures it, each time before ours. Goals are judged against the server that
  rebuilds secrets from as few shares as it may, which no Flower does; Flower as it is comes beside it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from flower_environment import DONE, FOLDER, flower_python
from numpy.typing import NDArray
from rows import Row, options, show

from flute.aggregation import channels, collector, member, tickets
from flute.aggregation.codec import FixedPoint, Layout, TotalReader, Width, decode_exact, encode_exact, exact_bounds
from flute.aggregation.context import context, pub_digest
from flute.aggregation.state import MemberState
from flute.aggregation.terms import default_threshold
from flute.messages.protocol import Echo, Echoes, GroupTerms, Masked, Shares, Start, Survivors, Ticket
from flute.primitives.keys import AgreementKey, SigningKey, digest
from flute.primitives.prg import Stream, new_room

Vector = NDArray[np.float32]
CLIP = 1.0
REPEATS = 9
QUESTION, STUDY, AGREEMENT, ROSTER = (digest(word) for word in (b"question", b"study", b"agreement", b"roster"))
SMALL_BYTES, BYTES_PER_PARAMETER = 5_000, 2.7
FLOWER_TURNS = 3


@dataclass(frozen=True, slots=True)
class Case:
    hubs: int
    size: int
    width: Width
    lost: int = 0

    def __str__(self) -> str:
        lost = f", {self.lost} lost" if self.lost else ""
        return f"{self.hubs} hubs x {self.size:.0e}, {self.width} bits{lost}".replace("e+0", "e")


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of processor time."""

    computation: float
    signatures: float

    @property
    def all(self) -> float:
        return self.computation + self.signatures


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians. plain, keystream, agreement: ms of what ran beside; agreement: of one."""

    client: Cost
    server: Cost
    plain: float
    keystream: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Group:
    """Hubs with channels and a live ticket each. States are values: every repeat starts from these."""

    terms: GroupTerms
    keys: dict[str, bytes]
    signing: dict[str, SigningKey]
    states: dict[str, MemberState]
    tickets: dict[str, Ticket]


@cache
def group(hubs: int) -> Group:
    colluding = max(1, hubs // 5)
    threshold = default_threshold(hubs, colluding)
    names = tuple(f"hub-{i:03}" for i in range(hubs))
    terms = GroupTerms("study", AGREEMENT, ROSTER, 1, names, threshold, colluding, max(threshold, 3), "echo", False)
    signing = {name: SigningKey(os.urandom(32)) for name in names}
    keys = {name: key.public for name, key in signing.items()}
    enrolled = {
        name: channels.enrol(name, study=terms.study, agreement=AGREEMENT, key=key, rand=os.urandom(32))
        for name, key in signing.items()
    }
    study_keys = [study_key for _, study_key in enrolled.values()]
    states, dealt = {}, {}
    for name, (own, _) in enrolled.items():
        ready = channels.setup(own, study_keys, terms=terms, keys=keys)
        states[name], dealt[name] = member.deal(ready, key=signing[name], rand=os.urandom(32))
    return Group(terms, keys, signing, states, dealt)


# --- processor time ----------------------------------------------------------------------------


@dataclass(slots=True)
class Clock:
    """Processor time of steps, with what signatures and hashes of vectors take out of them."""

    apart: float = 0.0
    steps: list[Cost] = field(default_factory=list)

    def step(self, work: Callable[[], Any]) -> Any:
        before, begun = self.apart, time.process_time()
        result = work()
        spent, apart = time.process_time() - begun, self.apart - before
        self.steps.append(Cost(1e3 * (spent - apart), 1e3 * apart))
        return result

    def taken(self) -> Cost:
        """The sum of the steps since the last call."""
        total = Cost(sum(step.computation for step in self.steps), sum(step.signatures for step in self.steps))
        self.steps.clear()
        return total

    def timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            begun = time.process_time()
            try:
                return work(*given)
            finally:
                self.apart += time.process_time() - begun

        return timed

    def sha256(self) -> SimpleNamespace:
        state = hashlib.sha256()
        return SimpleNamespace(update=self.timed(state.update), digest=state.digest)

    def watching(self) -> ExitStack:
        """Signatures, and hashes of vectors, go to `apart` until this is closed."""
        stack = ExitStack()
        for module in (tickets, collector, member):
            stack.enter_context(patch.object(module, "verify", self.timed(module.verify)))
        for module in (collector, member):
            stack.enter_context(patch.object(module, "hashlib", self))
        sign = SigningKey.sign
        stack.enter_context(patch.object(SigningKey, "sign", lambda key, message: self.timed(sign)(key, message)))
        return stack


def milliseconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return 1e3 * (time.process_time() - begun)


def median_cost(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.computation for cost in costs), statistics.median(cost.signatures for cost in costs)
    )


# --- one round ---------------------------------------------------------------------------------


class Round:
    """All messages of one round, made once; then each side's part of it again and again."""

    def __init__(self, case: Case) -> None:
        self.case, self.group, self.clock = case, group(case.hubs), Clock()
        self.codec = FixedPoint(case.width, case.hubs, CLIP)
        chance = np.random.default_rng(case.size)
        names = self.group.terms.hubs
        # a few coordinates lie beyond the clip, so that clipping is part of what is measured
        self.vectors: dict[str, Vector] = {
            name: chance.uniform(-1.001, 1.001, case.size).astype(np.float32) for name in names
        }
        self.starts: dict[str, Start] = self._start()
        self.any = self.starts[names[0]]
        self.ctx = context(self.any)
        self.masked: dict[str, Masked] = {}
        self.echoes: dict[str, Echo] = {}
        self.shares: dict[str, Shares] = {}
        self._meet()

    def _start(self) -> dict[str, Start]:
        return collector.start(
            self.group.terms, round_number=1, question=QUESTION, size=self.case.size, width=self.case.width,
            tickets=self.group.tickets, keys=self.group.keys,
        )  # fmt: skip

    def _meet(self) -> None:
        """Every hub's messages; the lost ones begin and send nothing."""
        states = {}
        for name in self.group.terms.hubs[self.case.lost :]:
            states[name], self.masked[name] = self._mask(name)
        self.told: Survivors = collector.survivors(self.any, tuple(self.masked))
        for name in self.masked:
            states[name], self.echoes[name] = member.echo(states[name], self.told, key=self.group.signing[name])
        self.tags: Echoes = collector.echoes(self.any, self.told, self.echoes, self.group.keys)[0]
        for name in self.masked:
            self.shares[name] = self._unmask(name, states[name])

    def _mask(self, name: str) -> tuple[MemberState, Masked]:
        begin, step = self.group.states[name], self.clock.step
        keys, key = self.group.keys, self.group.signing[name]
        state, _ = step(lambda: member.begin(begin, self.starts[name], question=QUESTION, keys=keys))
        values = step(lambda: self.codec.encode(self.vectors[name], rand=os.urandom(32)))
        result: tuple[MemberState, Masked] = step(
            lambda: member.mask(state, values, bounds=self.codec.bounds, key=key)
        )
        return result

    def _unmask(self, name: str, state: MemberState) -> Shares:
        keys, key, rand = self.group.keys, self.group.signing[name], os.urandom(32)
        shares: Shares = self.clock.step(lambda: member.unmask(state, self.tags, keys=keys, key=key, rand=rand))[1]
        return shares

    def client(self) -> Cost:
        """All that one hub computes for a round, its next ticket included."""
        name = self.group.terms.hubs[-1]
        pub_digest.cache_clear()  # a round meets each ticket for the first time
        self.clock.taken()
        state, _ = self._mask(name)
        state, _ = self.clock.step(lambda: member.echo(state, self.told, key=self.group.signing[name]))
        self._unmask(name, state)
        return self.clock.taken()

    def server(self) -> Cost:
        """All that the coordinator computes, from tickets to the decoded sum."""
        pub_digest.cache_clear()
        self.clock.taken()
        self.clock.step(self._start)
        ctx = self.clock.step(lambda: context(self.any))
        self.clock.step(lambda: self._check(ctx))
        told = self.clock.step(lambda: collector.survivors(self.any, tuple(self.masked)))
        self.clock.step(lambda: collector.echoes(self.any, told, self.echoes, self.group.keys))
        self.clock.step(lambda: self.codec.decode(self.open().total))
        return self.clock.taken()

    def _check(self, ctx: bytes) -> None:
        for message in self.masked.values():
            collector.check_masked(self.any, ctx, message, self.group.keys)

    def open(self) -> collector.Opened:
        masked, bounds = self.masked, self.codec.bounds
        return collector.total(self.any, self.told, masked, self.group.tickets, self.shares, bounds=bounds)

    def plain(self, total: Vector) -> None:
        total.fill(0)
        for name in self.masked:
            np.add(total, self.vectors[name], out=total)

    def error(self) -> float:
        """Root mean square of the opened mean's error, in parts of the clip."""
        clipped = [np.clip(self.vectors[name].astype(np.float64), -CLIP, CLIP) for name in self.masked]
        off = self.codec.decode(self.open().total) - sum(clipped, np.zeros(self.case.size))
        return float(np.sqrt(np.mean(np.square(off / len(clipped))))) / CLIP

    def bytes_sent(self) -> tuple[int, int]:
        """One hub's messages of a round, and what of them is not its vector."""
        name = self.group.terms.hubs[-1]
        sent = (self.masked[name], self.echoes[name], self.shares[name])
        upload = sum(len(msgspec.msgpack.encode(message)) for message in sent)
        return upload, upload - len(self.masked[name].vector)


def measure(case: Case, repeats: int) -> Measured:
    round_ = Round(case)
    length = Layout(case.width, case.size).length
    accumulator = np.zeros(case.size, dtype=np.float32)
    secret, peer = AgreementKey(os.urandom(32)), AgreementKey(os.urandom(32)).public
    clients, servers, plain, streams, agreements = [], [], [], [], []
    with round_.clock.watching():
        for _ in range(repeats + 1):
            gc.collect()
            servers.append(round_.server())
            plain.append(milliseconds(lambda: round_.plain(accumulator)))
            clients.append(round_.client())
            streams.append(milliseconds(lambda: keystreams(case.hubs, length)))
            agreements.append(milliseconds(lambda: [secret.agree(peer) for _ in range(case.hubs)]) / case.hubs)
    return Measured(
        median_cost(clients[1:]), median_cost(servers[1:]),
        *(statistics.median(spent[1:]) for spent in (plain, streams, agreements)),
    )  # fmt: skip


def keystreams(count: int, size: int) -> None:
    """What AES alone costs for as many masks, in a buffer that stays in the cache."""
    room = new_room()
    for _ in range(count):
        for _block in Stream(os.urandom(32), room).blocks(size):
            pass


# --- rows --------------------------------------------------------------------------------------

TIME_GOALS_MS = {(3, 10**6, 0): (8, 7), (30, 10**5, 1): (6, 8), (30, 10**6, 0): (20, 40)}
PLAIN_GOALS = {(10, 10**6, 0): 2.0, (30, 10**6, 0): 2.0, (10, 10**6, 1): 3.0, (30, 10**6, 1): 3.0}
FLOWER_GOALS = {(3, 10**6, 0): 7, (10, 10**6, 0): 16, (30, 10**5, 1): 300, (30, 10**6, 0): 60}
NARROW: tuple[Width, ...] = (16, 21)


REFERENCE_MS = {"X25519": 0.036, "AES-256-GCM, 4 MB": 0.43, "addition, 4 MB": 0.30, "SHA-256, 4 MB": 2.8}
"""What the machine took on which the goals were set (one thread, medians)."""


def pace() -> float:
    """How many times slower than the machine of the goals this one is now: the median over four parts of a round.

    Machines are shared, and the same one is up to twice as slow from hour to hour; goals in milliseconds are judged
    at this pace, and both figures are shown."""
    words, room = np.ones(10**6, dtype=np.uint32), np.ones(10**6, dtype=np.uint32)
    raw, mine, theirs = bytes(4 * 10**6), AgreementKey(bytes(range(32))), AgreementKey(bytes(32)).public
    parts: dict[str, Callable[[], object]] = {
        "X25519": lambda: [mine.agree(theirs) for _ in range(100)],
        "AES-256-GCM, 4 MB": lambda: keystream_through(raw),
        "addition, 4 MB": lambda: np.add(words, room, out=room),
        "SHA-256, 4 MB": lambda: hashlib.sha256(raw).digest(),
    }
    found = []
    for name, work in parts.items():
        work()
        spent = []
        for _ in range(15):
            begin = time.process_time()
            work()
            spent.append(1e3 * (time.process_time() - begin))
        found.append(statistics.median(spent) / (100 if name == "X25519" else 1) / REFERENCE_MS[name])
    return statistics.median(found)


def keystream_through(raw: bytes) -> None:
    for _ in Stream(bytes(32)).blocks(len(raw)):
        pass


def times(case: Case, found: Measured) -> Iterable[Row]:
    beside = (
        f"keystreams of {case.hubs} masks alone {found.keystream:.1f} ms, {case.hubs - 1} X25519 agreements alone "
        f"{(case.hubs - 1) * found.agreement:.1f} ms"
    )
    goals = TIME_GOALS_MS.get((case.hubs, case.size, case.lost))
    slower = pace() if goals else 1.0
    for side, cost, at in (("client", found.client, 0), ("server", found.server, 1)):
        limit = goals[at] * slower if goals else 0.0
        goal = f"<= {goals[at]}, at this machine's pace of {slower:.2f}: {limit:.1f}" if goals else ""
        holds = cost.computation <= limit if goals else None
        yield Row(f"{side}, computation, {case}", cost.computation, "ms CPU", goal, beside, holds)
        yield Row(f"{side}, signatures and hashes, {case}", cost.signatures, "ms CPU", "", "none", None)
        yield Row(f"{side}, both, {case}", cost.all, "ms CPU", "", "none", None)


def against_plain(case: Case, found: Measured) -> Iterable[Row]:
    limit = PLAIN_GOALS[case.hubs, case.size, case.lost]
    ratio, both = found.server.computation / found.plain, found.server.all / found.plain
    beside = f"float32 sum {found.plain:.1f} ms"
    yield Row(f"server / plain sum, computation, {case}", ratio, "x", f"<= {limit:g}", beside, ratio <= limit)
    yield Row(f"server / plain sum, with signatures and hashes, {case}", both, "x", "", beside, None)


def uploads(case: Case) -> Iterable[Row]:
    limit = BYTES_PER_PARAMETER * case.size + SMALL_BYTES
    goal = f"<= {BYTES_PER_PARAMETER} B per parameter + 5 kB = {limit:.0f}"
    upload, small = Round(case).bytes_sent()
    yield Row(f"upload of a hub, {case}", upload, "bytes", goal, "none", upload <= limit)
    if case.width == 16:
        told = f"goal is for the whole; {SMALL_BYTES} of it are meant for these"
        yield Row(f"upload of a hub, all but its vector, {case}", small, "bytes", "", told, None)


def errors(hubs: int, size: int, widths: tuple[Width, ...]) -> Iterable[Row]:
    for width in widths:
        error = Round(Case(hubs, size, width)).error()
        goal, holds = ("<= 3e-6", error <= 3e-6) if width == 21 else ("", None)
        yield Row(f"RMS error of the mean / clip, {hubs} hubs, {width} bits", error, "", goal, "none", holds)


def exact(hubs: int, size: int) -> Row:
    """Sums of 64-bit fixed point, through layout and reader, against sums of fractions."""
    chance = np.random.default_rng(hubs)
    values = [chance.normal(scale=100, size=size) for _ in range(hubs)]
    layout, bounds = Layout(64, size), exact_bounds(hubs)
    words = sum(
        (layout.pack(0, encode_exact(part, hubs=hubs), bounds) for part in values[1:]),
        layout.pack(0, encode_exact(values[0], hubs=hubs), bounds),
    )
    reader = TotalReader(layout, survivors=hubs, bounds=bounds)
    total = decode_exact(reader.read(words))
    reader.finish()
    worst = max(abs(float(total[i]) - math.fsum(part[i] for part in values)) for i in range(size))
    name, anchor = f"largest error of a 64-bit sum, {hubs} hubs, values of 100", "correctly rounded sum (math.fsum)"
    return Row(name, worst, "", f"<= 2^-32 = {2**-32:.3g}", anchor, worst <= 2**-32)


# --- memory ------------------------------------------------------------------------------------


def memory(hubs: int, size: int, width: Width) -> Row:
    """Peak of what the server allocates from the first vector to the last block of the total, vectors on disk."""
    round_ = Round(Case(hubs, size, width))
    layout, start, told = Layout(width, size), round_.any, round_.told
    message = len(msgspec.msgpack.encode(next(iter(round_.masked.values()))))
    with tempfile.TemporaryDirectory() as folder:
        headers = {}
        for name, masked in round_.masked.items():
            Path(folder, name).write_bytes(masked.vector)
            headers[name] = msgspec.structs.replace(masked, vector=b"")
        del masked
        round_.masked.clear()
        gc.collect()

        def read(hub: str, _index: int) -> bytes:
            return Path(folder, hub).read_bytes()

        tracemalloc.start()
        for name, header in headers.items():
            vector = msgspec.structs.replace(header, vector=read(name, 0))
            collector.check_masked(start, round_.ctx, vector, round_.group.keys)
            del vector
        left = collector.unmask(start, told, round_.group.tickets, round_.shares)
        for _block in collector.sum_blocks(start, told, left, read, bounds=round_.codec.bounds):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    limit = 2 * layout.length + message
    name = f"peak memory at the server, {round_.case}"
    goal = f"<= 2 vectors + 1 message = {limit / 1e6:.2f}"
    return Row(name, peak / 1e6, "MB", goal, f"a vector {layout.length / 1e6:.2f} MB", peak <= limit)


# --- Flower ------------------------------------------------------------------------------------


def flower(python: Path, case: Case, repeats: int, *, fewest_shares: bool) -> float:
    """Server milliseconds of Flower's SecAgg+, arrays to bytes and back left out. Raises: CalledProcessError: it
    failed, or its sum is wrong."""
    script = Path(__file__).with_name("flower_secagg.py")
    command = [
        str(python), str(script), "--json", "--hubs", str(case.hubs), "--size", str(case.size),
        "--dropouts", str(case.lost), "--repeats", str(repeats),
    ]  # fmt: skip
    command += ["--fewest-shares"] if fewest_shares else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["server_ms"])


def against_flower(python: Path, hubs: int, size: int, lost: int, *, turns: int, repeats: int) -> Iterable[Row]:
    """Turns of Flower with the fewest shares, Flower as it is, ours at 16 and at 21 bits. One turn of Flower is
    15 hubs' worth of rounds, and at least one: with many hubs it takes long enough."""
    theirs: dict[bool, list[float]] = {True: [], False: []}
    ours: dict[Width, list[Cost]] = {width: [] for width in NARROW}
    cases = [Case(hubs, size, width, lost) for width in NARROW]
    for _ in range(turns):
        for fewest, found in theirs.items():
            found.append(flower(python, cases[0], max(1, 15 // hubs), fewest_shares=fewest))
        for case in cases:
            ours[case.width].append(measure(case, repeats).server)
    goal = FLOWER_GOALS[hubs, size, lost]
    for case in cases:
        for fewest, found in theirs.items():
            pairs = list(zip(found, ours[case.width], strict=True))
            ratio = statistics.median(their / our.computation for their, our in pairs)
            both = statistics.median(their / our.all for their, our in pairs)
            which = "Flower, fewest shares" if fewest else "Flower as it is"
            beside = f"{which} {statistics.median(found):.0f} ms"
            words, holds = (f">= {goal}", ratio >= goal) if fewest else ("", None)
            yield Row(f"{which} / our server, computation, {case}", ratio, "x", words, beside, holds)
            yield Row(f"{which} / our server, with signatures and hashes, {case}", both, "x", "", beside, None)


def flower_rows(quick: bool) -> Iterable[Row]:
    if not quick:
        for hubs, size, lost in FLOWER_GOALS:
            yield from against_flower(flower_python(), hubs, size, lost, turns=FLOWER_TURNS, repeats=5)
    elif (FOLDER / DONE).is_file():
        yield from against_flower(flower_python(), 3, 10**6, 0, turns=1, repeats=5)
    else:
        anchor = "Flower was not run: `python benchmarks/flower_environment.py` makes what it needs"
        yield Row("Flower / our server, 3 hubs x 1e6: not measured", 0.0, "x", "", anchor, None)


def time_rows(quick: bool) -> Iterable[Row]:
    wanted = TIME_GOALS_MS | PLAIN_GOALS
    for hubs, size, lost in list(TIME_GOALS_MS)[:2] if quick else wanted:
        for width in NARROW:
            case = Case(hubs, size, width, lost)
            found = measure(case, 5 if quick else REPEATS)
            yield from times(case, found)
            if width == 16 and (hubs, size, lost) in PLAIN_GOALS:
                yield from against_plain(case, found)


def other_rows(quick: bool) -> Iterable[Row]:
    for hubs in (10, 30):
        for size in (10**5,) if quick else (10**5, 10**6):
            for width in NARROW:
                yield from uploads(Case(hubs, size, width))
    for width in NARROW:
        yield memory(10, 10**6, width)
    for hubs in (3, 10, 30):
        yield from errors(hubs, 10**5, (21,) if quick else (16, 21, 32))
        yield exact(hubs, 2_000)


def main() -> None:
    args = options(__doc__ or "")
    for rows in (time_rows(args.quick), other_rows(args.quick), flower_rows(args.quick)):
        for row in rows:
            show(row, as_json=args.json)


if __name__ == "__main__":
    main()
