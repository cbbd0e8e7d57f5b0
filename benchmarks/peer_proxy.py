"""Mutual TLS that checks names, around an engine of multiparty computation that does not: one proxy for each hub.

    python benchmarks/peer_proxy.py

is one hub's proxy: one line of JSON (`Wanted`) comes in, "ready" goes out; it runs until its input ends, then prints
what it carried and refused. `peer_names.py` tries it with connections that are wrong in one way each.

A hub's engine speaks plainly to its own proxy, on this machine only; proxies speak TLS 1.3 to each other. Each end
asks for the other's certificate, signed by the study's authority, and for its name:

- outwards: the engine's connection to a peer goes on only to a certificate with that peer's name;
- inwards: nothing is passed to the engine before the certificate named a peer of this study. Where an engine says in
  clear who it is (MPyC: its place, two bytes), these bytes have to be that peer's (`opening`).

What it cannot check: what an engine says later. SPU's link puts the sender's place into every message, so a named
peer could still write another's place there; a passive one does not. Anybody on this machine can reach the plain
ports: in production each engine runs in a network namespace of its own with its proxy.

`delay_s` holds back all that passes between hubs, both ways: distance, for measuring.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peer_identities import contexts, peer_name

HERE = "127.0.0.1"
CHUNK_BYTES = 2**18
QUEUED_CHUNKS = 256
"""What one direction holds back at most: 64 MiB, 40 ms at 13 Gbit/s."""
MAX_CONNECTIONS = 8
"""Of one peer at a time: engines use one or two; a crash may leave old ones for a moment."""
PATIENCE_S = 30.0
"""How long a connection waits for an engine, or a peer's proxy, that is still starting."""
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Peer:
    """local_port: where this hub's engine finds the peer. host, port: the peer's proxy. opening: hexadecimal, what
    the first bytes on a connection from it must be."""

    local_port: int
    host: str
    port: int
    opening: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """me: this hub's name. certificates: folder of `make_identities`. port: where peers' proxies come in.
    engine_port: where this hub's engine listens. peers: by name."""

    me: str
    certificates: str
    port: int
    engine_port: int
    peers: Mapping[str, Peer]
    delay_s: float = 0.0


@dataclass(slots=True)
class Carried:
    """sent_bytes: from this hub's engine to its peers, without what TLS adds. refused: connections."""

    sent_bytes: int = 0
    refused: list[str] = field(default_factory=list)
    cpu_s: float = 0.0


class PeerProxy:
    def __init__(self, wanted: Wanted) -> None:
        self._wanted, self.carried = wanted, Carried()
        self._inwards, self._outwards = contexts(Path(wanted.certificates), wanted.me)
        self._open = dict.fromkeys(wanted.peers, 0)

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        async with contextlib.AsyncExitStack() as stack:
            listening = [
                await asyncio.start_server(
                    self._settled(self._from_peer), HERE, self._wanted.port, ssl=self._inwards, limit=CHUNK_BYTES
                )
            ]
            for name, peer in self._wanted.peers.items():
                listening.append(
                    await asyncio.start_server(
                        self._settled(lambda r, w, to=name: self._to_peer(to, (r, w))), HERE, peer.local_port,
                        limit=CHUNK_BYTES,
                    )
                )  # fmt: skip
            for server in listening:
                stack.callback(server.close)
            yield self

    def _settled(self, serve: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Awaitable[None]]:
        """One connection: refused ones are noted, broken ones end, both are closed."""

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except Refused as refused:
                self.carried.refused.append(str(refused))
            except (OSError, asyncio.IncompleteReadError):
                pass  # the engine sees its connection end, and says so
            finally:
                writer.close()

        return served

    async def _from_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = peer_name(writer)
        peer = self._wanted.peers.get(name)
        if peer is None:
            raise Refused(f"{name} is no peer of {self._wanted.me} in this study")
        if self._open[name] == MAX_CONNECTIONS:
            raise Refused(f"{name} has {MAX_CONNECTIONS} connections already")
        self._open[name] += 1
        try:
            expected = bytes.fromhex(peer.opening)
            first = await asyncio.wait_for(reader.readexactly(len(expected)), PATIENCE_S)
            if first != expected:
                raise Refused(f"{name} says that it is another place")
            engine = await patiently(lambda: asyncio.open_connection(HERE, self._wanted.engine_port))
            engine[1].write(first)
            await self._carry(engine, (reader, writer), delay_s=0.0)
        finally:
            self._open[name] -= 1

    async def _to_peer(self, name: str, engine: Connection) -> None:
        peer = self._wanted.peers[name]
        try:
            remote = await patiently(
                lambda: asyncio.open_connection(
                    peer.host, peer.port, ssl=self._outwards, server_hostname=name, limit=CHUNK_BYTES
                )
            )
        except ssl.SSLError as error:
            raise Refused(f"who answers in the place of {name} did not show its certificate") from error
        await self._carry(engine, remote, delay_s=self._wanted.delay_s)

    async def _carry(self, engine: Connection, remote: Connection, *, delay_s: float) -> None:
        """Both ways until either ends. Delays stand at the end that made the connection: each way passes it once."""

        def count(size: int) -> None:
            self.carried.sent_bytes += size

        async with asyncio.TaskGroup() as ways:
            ways.create_task(forward(engine[0], remote[1], delay_s, count))
            ways.create_task(forward(remote[0], engine[1], delay_s, lambda _size: None))


class Refused(Exception):
    """A connection that is not what it should be."""


async def forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float, count: Callable[[int], None]
) -> None:
    """All that comes, each chunk `delay_s` after it came; then the end."""
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)

    async def take() -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                count(len(chunk))
                await queue.put((time.monotonic(), chunk))
        except OSError:
            pass  # a connection that broke ends as one that was closed
        await queue.put((time.monotonic(), b""))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(take())
        while True:
            came, chunk = await queue.get()
            if delay_s:
                await asyncio.sleep(came + delay_s - time.monotonic())
            if not chunk:
                break
            with contextlib.suppress(OSError):
                writer.write(chunk)
                await writer.drain()
        writer.close()


async def patiently(connect: Callable[[], Awaitable[Connection]]) -> Connection:
    """Raises: OSError: nobody listens there within PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await connect()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.05)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((HERE, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def proxied(
    names: Sequence[str], certificates: Path, *, delay_s: float = 0.0, openings: Sequence[str] | None = None
) -> Iterator[tuple[list[list[str]], list[Carried]]]:
    """A proxy process for every hub. Yields [place][peer] addresses for the engines (at its own place each engine
    listens itself) and a list that is filled at the end."""
    size = len(names)
    ports = iter(free_ports(size * (size + 2)))
    engines, proxies, *local = ([next(ports) for _ in names] for _ in range(size + 2))
    carried: list[Carried] = []
    with contextlib.ExitStack() as stack:
        running = []
        for me, name in enumerate(names):
            peers = {
                other: Peer(local[me][k], HERE, proxies[k], openings[k] if openings else "")
                for k, other in enumerate(names)
                if k != me
            }
            wanted = Wanted(name, str(certificates), proxies[me], engines[me], peers, delay_s)
            running.append(stack.enter_context(_process(wanted)))
        yield (
            [[f"{HERE}:{engines[k] if k == me else local[me][k]}" for k in range(size)] for me in range(size)],
            carried,
        )
        carried += [_ended(process) for process in running]


@contextlib.contextmanager
def _process(wanted: Wanted) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(wanted)) + "\n")
        process.stdin.flush()
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"The proxy of {wanted.me} did not start.")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _ended(process: subprocess.Popen[str]) -> Carried:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    return Carried(**json.loads(process.stdout.readline()))


async def serve(wanted: Wanted) -> Carried:
    async with PeerProxy(wanted).running() as proxy:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    proxy.carried.cpu_s = time.process_time()
    return proxy.carried


def parsed(line: str) -> Wanted:
    told = json.loads(line)
    return Wanted(**{**told, "peers": {name: Peer(**peer) for name, peer in told["peers"].items()}})


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    print(json.dumps(asdict(asyncio.run(serve(parsed(sys.stdin.readline()))))), flush=True)


if __name__ == "__main__":
    main()
