"""Wall time of a secure round over the real wire, against a plain one in the same run; and a vector of over 2 GB.

    python benchmarks/secure_round.py [--quick] [--json]

Every hub is a process with a relay process, certificates, signed and sealed envelopes, and its state on disk (fsync)
before an answer leaves; so is the coordinator. Plain: one message asks, each hub sends its float32 vector, the
coordinator adds them. Secure: message 0, the encoded and masked vector, survivor set, signatures, shares, the sum
opened and tested; tickets ride on the round before. Both are timed from the first message to the decoded sum, turn by
turn; figures are medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import numpy as np
from channel import free_port, spawned
from msgspec import Struct
from round_parties import (
    AGREEMENT,
    CLIP,
    COORDINATOR,
    FROM_HUB,
    BlockAnswer,
    Book,
    KeyGiven,
    MemoryAsk,
    MemorySaid,
    PlainAsk,
    PlainVector,
    Post,
    agreement,
    long_bounds,
    long_part,
    peak_mib,
    question_of,
    values,
)
from rows import Row, options, show

from flute.aggregation.codec import FixedPoint, Layout, Width
from flute.coordinator.plans.vectors import VectorFiles
from flute.messages.answer import EchoAnswer, MaskedAnswer, SharesAnswer, TicketGiven
from flute.messages.protocol import Masked, Shares, Start, Survivors, Ticket
from flute.messages.question import EchoesSaid, SecureQuestion, SurvivorsSaid, TicketCall
from flute.study.plans import sides
from flute.transport import identity
from flute.transport.relay import RelayChannel

SIZE = 1_000_000
LONG = 1_080_000_000
"""Coordinates of 16 bits: 2.16 GB."""
QUICK_LONG = 30_000_000
GOAL = 1.5
MEMORY_GOAL_MIB = 600
T = TypeVar("T", bound=Struct)


class Coordinator:
    """The coordinator's side of a group of hubs that run as processes."""

    def __init__(self, stack: ExitStack, folder: Path, count: int) -> None:
        self.hubs = tuple(f"hub-{i:02}" for i in range(count))
        seed = os.urandom(32)
        self.book = Book(self.hubs, seed)
        with identity.certificate_tool():
            authority = identity.make_authority(folder / COORDINATOR, "bench", "localhost", free_port())
            for hub in self.hubs:
                asked = identity.request(folder / hub, hub, "bench")
                identity.install(folder / hub, identity.approve(authority, hub, asked), authority.fingerprint)
        self.channel = stack.enter_context(
            closing(RelayChannel(folder / COORDINATOR / "wire", COORDINATOR, authority.kit))
        )
        self.channel.admit(self.hubs)
        program = str(Path(__file__).with_name("round_parties.py"))
        for hub in self.hubs:
            command = [program, hub, str(folder / hub), seed.hex(), ",".join(self.hubs)]
            stack.enter_context(spawned(command, [], folder / f"{hub}.log"))
        self.channel.wait_connected(self.hubs, 120.0)
        self.post = Post(COORDINATOR, self.book, self.channel, FROM_HUB)
        self.keys = {hub: self.book.signing_key(hub) for hub in self.hubs}
        self.terms = sides.group_terms(agreement(self.hubs), AGREEMENT, self.book)  # type: ignore[arg-type]
        study_keys = tuple(k.key for k in self._all(KeyGiven).values())
        self._tell(lambda _: TicketCall(AGREEMENT, 0, study_keys))
        self.tickets: dict[str, Ticket] = {hub: t.ticket for hub, t in self._all(TicketGiven).items()}
        self.round = 0
        self.folder = folder

    def plain(self, size: int) -> np.ndarray:
        self._tell(lambda _: PlainAsk(size))
        total = np.zeros(size, dtype=np.float32)
        for answer in self._each(PlainVector):
            total += np.frombuffer(answer[1].vector, dtype="<f4")
        return total

    def secure(self, size: int, width: Width) -> np.ndarray:
        fixed = FixedPoint(width, len(self.hubs), CLIP)
        starts, tickets = self._start(Layout(width, size))
        start = starts[self.hubs[0]]
        masked: dict[str, Masked] = {}
        for hub, answer in self._each(MaskedAnswer):
            sides.check_masked(start, answer.masked, self.keys)
            masked[hub] = answer.masked
        told, shares = self._opening(start)
        total, bad = sides.total(start, told, masked, tickets, shares, fixed.bounds)
        assert bad == ()
        return fixed.decode(total)

    def long(self, size: int) -> bool:
        """A vector in blocks; was every coordinate of the total right?"""
        starts, tickets = self._start(Layout(16, size))
        start = starts[self.hubs[0]]
        files = VectorFiles(self.folder / "vectors", start)
        signed: dict[str, Masked] = {}
        while len(signed) < len(self.hubs) or not all(files.complete(hub) for hub in self.hubs):
            hub, body = self.post.receive()
            if isinstance(body, BlockAnswer):
                files.put(body.block)
            elif isinstance(body, MaskedAnswer):
                signed[hub] = body.masked
        for message in signed.values():
            files.check(message, self.keys)
        told, shares = self._opening(start)
        layout, right = Layout(16, size), True
        blocks = sides.total_blocks(start, told, tickets, shares, files.read, long_bounds(len(self.hubs)))
        for index, block in enumerate(blocks):
            part = layout.values_of(index)
            true = sum(long_part(hub, len(self.hubs), part).astype(np.int32) for hub in self.hubs)
            right &= bool(np.array_equal(block, true))
        return right

    def memory(self) -> tuple[float, float]:
        """Largest peak (MiB) of any service and of any relay, ours included."""
        self._tell(lambda _: MemoryAsk())
        said = list(self._all(MemorySaid).values())
        own_relay = peak_mib(self.channel.relay_pid or "self")
        return (
            max([peak_mib(), *(s.service_mib for s in said)]),
            max([own_relay, *(s.relay_mib for s in said)]),
        )

    def _start(self, layout: Layout) -> tuple[dict[str, Start], dict[str, Ticket]]:
        self.round += 1
        question, fields = question_of(self.round, layout)
        tickets = dict(self.tickets)
        starts = sides.starts(self.terms, self.round, question, layout, tickets, self.keys)
        self._tell(lambda hub: SecureQuestion(*fields, starts[hub]))  # type: ignore[arg-type]
        return starts, tickets

    def _opening(self, start: Start) -> tuple[Survivors, dict[str, Shares]]:
        told = sides.survivors(start, self.hubs)
        self._tell(lambda _: SurvivorsSaid(told))
        echoes = {hub: answer.echo for hub, answer in self._all(EchoAnswer).items()}
        valid, wrong = sides.echoes(start, told, echoes, self.keys)
        assert wrong == ()
        self._tell(lambda _: EchoesSaid(valid))
        shares = {hub: answer.shares for hub, answer in self._all(SharesAnswer).items()}
        self.tickets = {hub: s.ticket for hub, s in shares.items() if s.ticket is not None}
        return told, shares

    def _tell(self, body: Callable[[str], Struct]) -> None:
        for hub in self.hubs:
            self.post.send(hub, body(hub))

    def _each(self, kind: type[T]) -> Iterator[tuple[str, T]]:
        """One answer of that kind from every hub, as they come."""
        for _ in self.hubs:
            hub, body = self.post.receive()
            assert isinstance(body, kind), f"{hub} answered {type(body).__name__}"
            yield hub, body

    def _all(self, kind: type[T]) -> dict[str, T]:
        return dict(self._each(kind))


def compared(count: int, repeats: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        coordinator = Coordinator(stack, Path(folder), count)
        true = sum(values(hub, SIZE).astype(np.float64) for hub in coordinator.hubs)
        runs: dict[str, Callable[[], np.ndarray]] = {
            "plain": lambda: coordinator.plain(SIZE),
            "16": lambda: coordinator.secure(SIZE, 16),
            "21": lambda: coordinator.secure(SIZE, 21),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(repeats + 1):
            for name, run in runs.items():
                start = time.monotonic()
                total = run()
                if turn:  # the first one warms everything up
                    times[name].append(time.monotonic() - start)
                assert np.allclose(total, true, atol=count * CLIP * 1e-2)
    plain = statistics.median(times["plain"]) * 1000
    anchor = f"plain float32 round of the same processes, median {plain:.0f} ms of {repeats}"
    for name in ("16", "21"):
        secure = statistics.median(times[name]) * 1000
        what = f"secure round, {count} hubs x 1e6 at {name} bits"
        yield Row(what, secure, "ms, median", "", anchor, None)
        yield Row(f"{what}, over a plain one", secure / plain, "ratio", f"<= {GOAL}", anchor, secure / plain <= GOAL)


def long_vector(size: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        coordinator = Coordinator(stack, Path(folder), 3)
        start = time.monotonic()
        right = coordinator.long(size)
        seconds = time.monotonic() - start
        service, relay = coordinator.memory()
    gigabytes = 2 * size / 1e9
    anchor = f"3 hubs, {gigabytes:.2f} GB each, in blocks; every coordinate of the total compared: {right}"
    yield Row("long vector, streamed", gigabytes, "GB per hub", "the total is right", anchor, right)
    yield Row("long vector, wall time", seconds, "s", "", anchor, None)
    bounded = service < MEMORY_GOAL_MIB
    yield Row("long vector, peak memory of a service", service, "MiB", f"< {MEMORY_GOAL_MIB}", anchor, bounded)
    yield Row("long vector, peak memory of a relay", relay, "MiB", "", anchor, None)


def main() -> None:
    asked = options(__doc__ or "")
    for count in (3,) if asked.quick else (3, 10):
        for row in compared(count, 5 if asked.quick else 15):
            show(row, as_json=asked.json)
    for row in long_vector(QUICK_LONG if asked.quick else LONG):
        show(row, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
