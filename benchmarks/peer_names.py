"""Whether a hub that shows another's name gets in: SPU's own mutual TLS beside the proxy that checks names.

    python benchmarks/peer_names.py [--quick] [--json]

Each row is 1 where the connection, or the job, went through and 0 where it did not. The control is SPU as it comes:
three hubs, of which the second shows the third one's certificate, and the job ends as if nothing were wrong.
`--quick` leaves SPU out.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from peer_identities import contexts, make_identities
from peer_proxy import CHUNK_BYTES, HERE, Peer, PeerProxy, Wanted, free_ports
from rows import Row, options, show
from spu_environment import spu_python

A, B, C, STRANGER = "hub-1.example", "hub-2.example", "hub-3.example", "another-study.example"
INWARDS = (
    ("its own certificate", "study", B, "01", True),
    ("another hub's certificate", "study", C, "01", False),
    ("a certificate for another study", "study", STRANGER, "01", False),
    ("its own certificate, another's place", "study", B, "02", False),
    ("its name under a foreign authority", "foreign", B, "01", False),
)
"""What the caller has: folder and name of the certificate it shows, the place that it tells; whether that is right.
The second and the fourth case are the same lie seen from both sides."""
OUTWARDS = (
    ("its own certificate", "study", B, True),
    ("another hub's certificate", "study", C, False),
    ("its name under a foreign authority", "foreign", B, False),
)
"""Who answers where A expects B."""
PLACES = {A: "00", B: "01", C: "02"}


async def check(folder: Path) -> list[Row]:
    """Of what is right a byte arrives at the other engine; of what is wrong none does, either way."""
    study = folder / "study"
    make_identities(study, (A, B, C, STRANGER))
    make_identities(folder / "foreign", (A, B))
    came = [
        (f"inwards: {case}", await _reaches_engine(study, folder / shown, name, place), right)
        for case, shown, name, place, right in INWARDS
    ]
    went = [
        (f"outwards: {case}", await _reaches_peer(study, folder / shown, name), right)
        for case, shown, name, right in OUTWARDS
    ]
    return [_row(case, through, right=right) for case, through, right in came + went]


def spu_alone(folder: Path) -> list[Row]:
    """The control, and what SPU's TLS does refuse."""
    make_identities(folder / "spu", (A, B, C))
    make_identities(folder / "foreign", (B,))
    rows = [_row("SPU's TLS: own certificates", _spu_ends(folder / "spu"), right=True)]
    for suffix in ("pem", "key"):
        shutil.copy(folder / "spu" / f"{C}.{suffix}", folder / "spu" / f"{B}.{suffix}")
    through = _spu_ends(folder / "spu")
    control = "control: SPU's TLS, another hub's certificate"
    rows.append(Row(control, float(through), "went through", "1: it does not check names", "", through))
    for suffix in ("pem", "key"):
        shutil.copy(folder / "foreign" / f"{B}.{suffix}", folder / "spu" / f"{B}.{suffix}")
    rows.append(_row("SPU's TLS: a foreign authority", _spu_ends(folder / "spu"), right=False))
    return rows


def _spu_ends(certificates: Path) -> bool:
    regression = Path(__file__).with_name("spu_regression.py")
    command = [spu_python(), regression, "--tasks", "median", "--certificates", certificates]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _row(case: str, through: bool, *, right: bool) -> Row:
    return Row(case, float(through), "went through", str(int(right)), "", through == right)


async def _reaches_engine(ours: Path, theirs: Path, shown: str, place: str) -> bool:
    """Whether a caller's bytes arrive at A's engine."""
    port, engine_port, local_b, nowhere, local_c = free_ports(5)
    peers = {B: Peer(local_b, HERE, nowhere, PLACES[B]), C: Peer(local_c, HERE, nowhere, PLACES[C])}
    _, outwards = contexts(theirs, shown)
    if ours != theirs:
        outwards.load_verify_locations(ours / "authority.pem")
    async with _listening(engine_port) as heard, PeerProxy(Wanted(A, str(ours), port, engine_port, peers)).running():
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HERE, port, ssl=outwards, server_hostname=A)
            writer.write(bytes.fromhex(place) + b"a share")
            await _told(heard, writer)
        return bool(heard)


async def _reaches_peer(ours: Path, theirs: Path, shown: str) -> bool:
    """Whether A's engine, calling B, is heard by who answers there."""
    port, engine_port, local_b, port_b = free_ports(4)
    inwards, _ = contexts(theirs, shown)
    if ours != theirs:
        inwards.load_verify_locations(ours / "authority.pem")
    wanted = Wanted(A, str(ours), port, engine_port, {B: Peer(local_b, HERE, port_b)})
    async with _listening(port_b, inwards) as heard, PeerProxy(wanted).running():
        _, writer = await asyncio.open_connection(HERE, local_b)
        writer.write(b"a share")
        await _told(heard, writer)
        return bool(heard)


@contextlib.asynccontextmanager
async def _listening(port: int, context: ssl.SSLContext | None = None) -> Any:
    heard = bytearray()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            heard.extend(await reader.read(CHUNK_BYTES))
        writer.close()

    async with await asyncio.start_server(hear, HERE, port, ssl=context):
        yield heard


async def _told(heard: bytearray, writer: asyncio.StreamWriter) -> None:
    """Waits until something was heard, at most a second."""
    with contextlib.suppress(OSError):
        await writer.drain()
    for _ in range(20):
        if heard:
            break
        await asyncio.sleep(0.05)
    writer.close()


def main() -> None:
    wanted = options("Whether a hub that shows another's name gets in.")
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(check(Path(folder)))
        if not wanted.quick:
            rows += spu_alone(Path(folder))
    for row in rows:
        show(row, as_json=wanted.json)
    sys.exit(0 if all(row.holds for row in rows) else 1)


if __name__ == "__main__":
    main()
