"""What MPyC costs on the rows of `joint_data`: the anchor for what is compared and counted.

    python benchmarks/mpyc_anchor.py [--quick] [--json]

MPyC 0.11 (MIT), Shamir's sharing among three processes, 40 bits of statistical hiding (its default is 30), no TLS. It
withstands one passive hub. It takes gmpy2 (LGPL) where that is installed, and then needs 2 to 3 times less processor
time for arrays of numbers; each row says whether it did.

- comparisons: of 1000 pairs of two hubs' 32-bit numbers, whether the first is less, opened; on arrays.
- single comparisons: the same, number by number, as MPyC's own examples do it.
- median: bisection of the grid; in each step every hub shares how many of its values lie at or below the middle.
- chi-squared: hubs share their tables; margins stay shared, six of them are inverted, only the statistic opens.

Counted: processor time of the hub that used most, from its numbers to the opened result. Not counted: imports,
connecting. Not with `--quick`: the same through a proxy for each hub that checks names and the place that MPyC tells
in clear (`peer_proxy.py`), and through proxies that hold back everything by 40 ms each way.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anchor_figures import TURNS, WAYS, Figures, middle, rows
from joint_data import GRID_SIZE, HUBS, HubRows, joint_rows, plain_chi_squared, plain_median
from peer_identities import make_identities
from peer_proxy import free_ports, proxied
from rows import options, show

NAMES = tuple(f"hub-{place + 1}.example" for place in range(HUBS))
PLACES = tuple(place.to_bytes(2, "little").hex() for place in range(HUBS))
"""How MPyC opens a connection: it says which place it has."""
COMPARISONS, COMPARED_BITS = 1000, 32
COUNT_BITS = 16
FRACTION_BITS = 48
"""For numbers of 96 bits: MPyC divides rightly only where a number is twice as long as its fraction."""
HIDING_BITS = 40
SETTINGS = ("-K", str(HIDING_BITS), "--no-log", "--mix32-64bit")
"""The last one makes MPyC send arrays as bytes. It unpickles what peers send otherwise: see `mpyc_pickle.py`."""
PATIENCE_S = 120
ALLOWED = {"comparisons": 0.0, "single comparisons": 0.0, "median": 0.0, "chi-squared": 1e-6}
TASKS = tuple(ALLOWED)
QUICK_TASKS = tuple(task for task in TASKS if task != "single comparisons")
PARTY = "--one-party"


def measured(quick: bool) -> dict[str, Any] | None:
    """Figures by task of TASKS: cpu_s, wall_s, sent_mb, sends, error, right, mpyc_version, gmpy2 (was it there);
    each the median of TURNS runs. quick: one run, without "single comparisons". Else also through proxies, under
    "named" and "delayed", with the proxies' own proxy_cpu_s.

    None where MPyC is not installed, with a word on stderr.
    """
    if importlib.util.find_spec("mpyc") is None:
        print("MPyC was NOT RUN: it is not installed (pip install 'flute[dev]').", file=sys.stderr)
        return None
    tasks, turns = (QUICK_TASKS, 1) if quick else (TASKS, TURNS)
    found: dict[str, Any] = {task: middle([run(task, direct_routes()) for _ in range(turns)]) for task in tasks}
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            make_identities(Path(folder), NAMES)
            for way, delay_s in WAYS.items():
                found[way] = {task: _through_proxies(task, Path(folder), delay_s) for task in TASKS}
    return found


def run(task: str, routes: Sequence[Sequence[str]]) -> Figures:
    """Raises: RuntimeError: a party ended without a result."""
    parties = [
        subprocess.Popen(_command(task, place, addresses), stdout=subprocess.PIPE, text=True)
        for place, addresses in enumerate(routes)
    ]
    try:
        said = [party.communicate(timeout=PATIENCE_S)[0] for party in parties]
    finally:
        for party in parties:
            party.kill()
            party.wait()
    if any(party.returncode for party in parties):
        raise RuntimeError(f"MPyC ended without a result: {task}.")
    told = [json.loads(text.splitlines()[-1]) for text in said]
    most = {name: max(one[name] for one in told) for name in ("cpu_s", "wall_s", "sent_mb", "sends", "error")}
    described = {name: told[0][name] for name in ("mpyc_version", "gmpy2")}
    return {"task": task, **most, "right": most["error"] <= ALLOWED[task], **described}


def _command(task: str, place: int, addresses: Sequence[str]) -> list[str]:
    parties = [word for address in addresses for word in ("-P", address)]
    return [sys.executable, __file__, PARTY, task, *parties, "-I", str(place), *SETTINGS]


def _through_proxies(task: str, certificates: Path, delay_s: float) -> Figures:
    with proxied(NAMES, certificates, delay_s=delay_s, openings=PLACES) as (routes, carried):
        figures = run(task, routes)
    return figures | {"proxy_cpu_s": max(one.cpu_s for one in carried)}


def direct_routes() -> list[list[str]]:
    return [[f"127.0.0.1:{port}" for port in free_ports(HUBS)]] * HUBS


# What follows runs in one party's own process: importing mpyc reads the command line.


def party(task: str) -> Figures:
    import mpyc
    from mpyc.runtime import mpc

    programs: dict[str, Callable[[Any, HubRows], Awaitable[float]]]
    programs = {
        "comparisons": _comparisons,
        "single comparisons": _single_comparisons,
        "median": _median,
        "chi-squared": _chi_squared,
    }
    rows = joint_rows()[mpc.pid]
    sends = _counted(mpc)
    mpc.run(mpc.start())
    cpu, wall = time.process_time(), time.monotonic()
    error = mpc.run(programs[task](mpc, rows))
    told = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.monotonic() - wall,
        "sent_mb": sum(peer.protocol.nbytes_sent for peer in mpc.parties if peer.pid != mpc.pid) / 1e6,
        "sends": float(len(sends)),
        "error": error,
        "mpyc_version": mpyc.__version__,
        "gmpy2": importlib.util.find_spec("gmpy2") is not None,
    }
    mpc.run(ended(mpc))
    return told


async def ended(mpc: Any) -> None:
    """Closes connections when everybody is done. `mpc.shutdown()` would do so too, but unpickles what peers send."""
    all_closed = asyncio.get_running_loop().create_future()
    mpc.parties[mpc.pid].protocol = all_closed
    await mpc.gather(mpc.input(mpc.SecInt(COUNT_BITS)(0)))  # nobody gets past this before everybody has come to it
    for peer in mpc.parties[mpc.pid + 1 :]:
        peer.protocol.close_connection()
    await all_closed


def _counted(mpc: Any) -> list[int]:
    sends, send = [], mpc._send_message

    def counting(peer: int, message: bytes) -> None:
        sends.append(peer)
        send(peer, message)

    mpc._send_message = counting
    return sends


def _pairs() -> Any:
    return np.random.default_rng(7).integers(0, 2 ** (COMPARED_BITS - 1), (2, COMPARISONS))


async def _comparisons(mpc: Any, _rows: HubRows) -> float:
    number, pairs = mpc.SecInt(COMPARED_BITS), _pairs()
    first, second = (mpc.input(number.array(side), senders=place) for place, side in enumerate(pairs))
    opened = await mpc.output(first < second)
    return float(np.sum(np.array(opened, dtype=int) != (pairs[0] < pairs[1])))


async def _single_comparisons(mpc: Any, _rows: HubRows) -> float:
    number, pairs = mpc.SecInt(COMPARED_BITS), _pairs()
    first, second = (mpc.input([number(int(v)) for v in side], senders=place) for place, side in enumerate(pairs))
    opened = await mpc.output([a < b for a, b in zip(first, second, strict=True)])
    return float(np.sum(np.array(opened, dtype=int) != (pairs[0] < pairs[1])))


async def _median(mpc: Any, rows: HubRows) -> float:
    count = mpc.SecInt(COUNT_BITS)
    needed = (sum(len(hub.measured) for hub in joint_rows()) + 1) // 2
    low, high = 0, GRID_SIZE - 1
    while low < high:
        middle = (low + high) // 2
        below = mpc.sum(mpc.input(count(int(np.sum(rows.measured <= middle)))))
        if await mpc.output(below < needed):
            low = middle + 1
        else:
            high = middle
    return float(abs(low - plain_median(joint_rows())))


async def _chi_squared(mpc: Any, rows: HubRows) -> float:
    number = mpc.SecFxp(2 * FRACTION_BITS, FRACTION_BITS)
    table = sum(mpc.input(number.array(rows.table().astype(float))))
    inverted = 1 / mpc.np_concatenate((mpc.np_sum(table, axis=1), mpc.np_sum(table, axis=0)))
    outcomes = rows.table().shape[0]
    shared = (table * inverted[:outcomes].reshape(outcomes, 1)) * (table * inverted[outcomes:])
    opened = float(await mpc.output(mpc.np_sum(shared)))
    total = sum(len(hub.outcome) for hub in joint_rows())
    return abs(total * (opened - 1) - plain_chi_squared(joint_rows()))


def main() -> None:
    if PARTY in sys.argv:
        print(json.dumps(party(sys.argv[sys.argv.index(PARTY) + 1])), flush=True)
        return
    wanted = options("What MPyC costs on three hubs' rows.")
    found = measured(wanted.quick)
    if found is None:
        return
    gmpy2 = "with gmpy2" if found["comparisons"]["gmpy2"] else "without gmpy2"
    for row in rows("MPyC", found, f"mpyc {found['comparisons']['mpyc_version']} {gmpy2}, 1 of 3 hubs passive"):
        show(row, as_json=wanted.json)


if __name__ == "__main__":
    main()
