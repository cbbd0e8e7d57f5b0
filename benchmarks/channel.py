"""What our channel costs on top of the engine: one delivery to three hubs at once, against the bare engine call.

    python benchmarks/channel.py [--quick] [--json]

Ours: the coordinator's service signs and seals a 1 kB body for each of three hubs and sends it; the clock stops
when each hub's service has opened its envelope *and* the coordinator has all three receipts. Outbox and inbox are
on disk. No ledger, no step.
Anchor: the same engine, certificates and process layout (service, Unix socket, relay, wire, relay, Unix
socket, service and back) with a 1 kB body and a 5-byte answer: no guard, disk, signature or seal. It is run in
two kinds: `cell`, the call that the engine offers to applications, and `core`, the same without its streaming
layer. All run in one process tree, turn by turn; figures are medians.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import bare_engine
from msgspec import Struct
from rows import Row, options, show

from flute.messages.envelope import ID_SIZE, bodies, open_envelope, write_envelope
from flute.primitives.keys import AgreementKey, SigningKey, derive
from flute.transport import identity
from flute.transport.relay import RelayChannel

HUBS = ("hub-a", "hub-b", "hub-c")
BODY = os.urandom(1000)
ANSWER = b"taken"
BARE = ("cell", "core")
GOAL = 1.5


class Note(Struct, frozen=True, forbid_unknown_fields=True, tag="note"):
    body: bytes


@dataclass(frozen=True)
class Book:
    """Keys of everybody, made for this run, and the roster that `open_envelope` asks."""

    signing: dict[str, SigningKey]
    sealing: dict[str, AgreementKey]
    public: dict[str, tuple[bytes, bytes]]
    version: int = 1

    @staticmethod
    def of(seed: bytes) -> Book:
        parties = ("coordinator", *HUBS)
        signing = {p: SigningKey(derive(seed, info=f"sign {p}".encode())) for p in parties}
        sealing = {p: AgreementKey(derive(seed, info=f"seal {p}".encode())) for p in parties}
        return Book(signing, sealing, {p: (signing[p].public, sealing[p].public) for p in parties})

    def signing_key(self, party: str) -> bytes:
        return self.public[party][0]

    def sealing_key(self, party: str) -> bytes:
        return self.public[party][1]


def hub_service(name: str, folder: Path, seed: bytes, report: int, bare: list[int]) -> None:
    """A hub: opens what comes and notes when; answers the bare calls from threads of its own."""
    book, accepts = Book.of(seed), bodies(Note)

    def answer(end: socket.socket) -> None:
        while True:
            bare_engine.read(end)
            bare_engine.write(end, ANSWER)

    for number in bare:
        threading.Thread(target=answer, args=(socket.socket(fileno=number),), daemon=True).start()
    with closing(RelayChannel(folder / "wire", name, identity.load_kit(folder))) as channel:
        while (delivery := channel.receive(3600.0)) is not None:
            now = int(time.time())
            open_envelope(delivery.body, me=name, roster=book, accepts=accepts, now=now, key=book.sealing[name])
            os.write(report, struct.pack("<q", time.monotonic_ns()))
            channel.done(delivery)


@contextmanager
def spawned(arguments: list[str], pass_fds: list[int], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        process = subprocess.Popen([sys.executable, *arguments], pass_fds=pass_fds, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def make_identities(folder: Path) -> identity.Authority:
    with identity.certificate_tool():
        authority = identity.make_authority(folder / "coordinator", "bench", "localhost", free_port())
        for hub in HUBS:
            asked = identity.request(folder / hub, hub, "bench")
            identity.install(folder / hub, identity.approve(authority, hub, asked), authority.fingerprint)
    return authority


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """Everything running: our channel and two bare engines, over the same certificates."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        seed = os.urandom(32)
        self.book = Book.of(seed)
        self.authority = make_identities(folder)
        self.hub_ends: dict[str, list[socket.socket]] = {hub: [] for hub in HUBS}
        self.bare = {kind: self._start_bare(stack, folder, kind) for kind in BARE}
        self.reports = [self._start_hub(stack, folder, hub, seed) for hub in HUBS]
        wire = folder / "coordinator/wire"
        self.channel = stack.enter_context(closing(RelayChannel(wire, "coordinator", self.authority.kit)))
        self.channel.admit(HUBS)
        self.channel.wait_connected(HUBS, 30.0)

    def _start_bare(self, stack: ExitStack, folder: Path, kind: str) -> list[socket.socket]:
        """Its relays; our ends of the coordinator's sockets."""
        port, pairs = free_port(), [socket.socketpair() for _ in HUBS]
        start = [str(Path(bare_engine.__file__)), kind]
        own = [str(self.authority.kit.path), f"grpc://127.0.0.1:{port}", "coordinator"]
        theirs = [end.fileno() for _, end in pairs]
        stack.enter_context(spawned([*start, *own, *map(str, theirs)], theirs, folder / f"{kind}.log"))
        for hub in HUBS:
            inside, outside = socket.socketpair()
            own = [str(identity.load_kit(folder / hub).path), f"grpc://localhost:{port}", hub]
            log = folder / f"{kind}-{hub}.log"
            stack.enter_context(spawned([*start, *own, str(inside.fileno())], [inside.fileno()], log))
            self.hub_ends[hub].append(outside)
        for (end, _), hub in zip(pairs, HUBS, strict=True):
            bare_engine.write(end, hub.encode())
        return [end for end, _ in pairs]

    def _start_hub(self, stack: ExitStack, folder: Path, hub: str, seed: bytes) -> int:
        """A hub's service; the pipe on which it says when it had opened a message."""
        reading, writing = os.pipe()
        inherited = [writing, *(end.fileno() for end in self.hub_ends[hub])]
        command = [str(Path(__file__).resolve()), "--hub", hub, str(folder / hub), seed.hex(), *map(str, inherited)]
        stack.enter_context(spawned(command, inherited, folder / f"{hub}.log"))
        return reading

    def ours(self) -> float:
        """Seconds of one delivery to all hubs."""
        start = time.monotonic_ns()
        for hub in HUBS:
            envelope = write_envelope(
                Note(BODY), key=self.book.signing["coordinator"], sender="coordinator", recipient=hub,
                roster_version=1, now=int(time.time()), rand=os.urandom(ID_SIZE), seal_to=self.book.sealing_key(hub),
            )  # fmt: skip
            self.channel.send(hub, envelope)
        self.channel.wait_delivered(10.0)
        known = time.monotonic_ns()
        opened: list[int] = [struct.unpack("<q", os.read(report, 8))[0] for report in self.reports]
        return (max(known, *opened) - start) / 1e9

    def answered(self, kind: str) -> bool:
        for end in self.bare[kind]:
            bare_engine.write(end, BODY)
        return [bare_engine.read(end) for end in self.bare[kind]] == [ANSWER] * len(HUBS)

    def bare_call(self, kind: str) -> float:
        start = time.monotonic_ns()
        for end in self.bare[kind]:
            bare_engine.write(end, BODY)
        for end in self.bare[kind]:
            bare_engine.read(end)
        return (time.monotonic_ns() - start) / 1e9


def wait_for_bare(bench: Bench, kind: str) -> None:
    """Until all hubs answer: before that a call fails at once, and the relay says so with an empty body."""
    deadline = time.monotonic() + 30.0
    while not bench.answered(kind):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the bare engine ({kind}) does not answer")
        time.sleep(0.1)


def measure(repeats: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(stack, Path(folder))
        kinds: dict[str, Callable[[], float]] = {kind: partial(bench.bare_call, kind) for kind in BARE}
        kinds["ours"] = bench.ours
        for kind in BARE:
            wait_for_bare(bench, kind)
        for _ in range(50):
            for run in kinds.values():
                run()
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(repeats):
            for kind, run in kinds.items():
                times[kind].append(run())
        return times


def rows(times: dict[str, list[float]]) -> Iterator[Row]:
    median = {kind: statistics.median(values) * 1000 for kind, values in times.items()}
    count = len(times["ours"])
    cell = f"bare engine call (Cell.send_request between Unix sockets), median {median['cell']:.2f} ms of {count}"
    core = f"the same without the engine's streaming layer (CoreCell.send_request), median {median['core']:.2f} ms"
    ratio = median["ours"] / median["cell"]
    yield Row("delivery of 1 kB, signed and sealed, to 3 hubs", median["ours"], "ms, median", "", cell, None)
    yield Row("delivery over bare engine call", ratio, "ratio", f"<= {GOAL}", cell, ratio <= GOAL)
    yield Row("delivery over barest engine call", median["ours"] / median["core"], "ratio", "", core, None)


def main() -> None:
    asked = options(__doc__ or "")
    for row in rows(measure(60 if asked.quick else 400)):
        show(row, as_json=asked.json)


if __name__ == "__main__":
    if "--hub" in sys.argv:
        name, folder, seed, report, *bare = sys.argv[2:]
        hub_service(name, Path(folder), bytes.fromhex(seed), int(report), [int(n) for n in bare])
    else:
        main()
