"""What SPU's ABY3 costs on the rows of `joint_data`: the anchor that stands beside our own engine.

    python benchmarks/spu_anchor.py [--quick] [--json]

Three processes with mutual TLS of SPU's own, as `spu_regression.py` says. Then, not with `--quick`, the same through
one proxy for each hub that checks names (`peer_proxy.py`), and through proxies that hold back everything by 40 ms
each way, as between hospitals far apart. SPU withstands a passive hub, ours an active one: a ratio compares prices of
different goods.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anchor_figures import TURNS, WAYS, Figures, middle, rows
from peer_identities import make_identities
from peer_proxy import proxied
from rows import options, show
from spu_environment import FOLDER, spu_python

HUBS = ("hub-1.example", "hub-2.example", "hub-3.example")
"""As `spu_regression` names them; it cannot be imported here."""


def measured(quick: bool) -> dict[str, Any] | None:
    """Figures of `spu_regression` by task: cpu_s, compile_cpu_s, wall_s, sent_mb, sends, error, right, spu_version;
    each the median of TURNS runs. quick: `series` and `median` once. Else `newton` too, and under "named" and
    "delayed" the figures through proxies, with the proxies' own proxy_cpu_s.

    None where SPU's environment cannot be made here, with the reason on stderr.
    """
    python = environment()
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        make_identities(Path(folder), HUBS)
        tasks, turns = (("series", "median"), 1) if quick else (("newton", "series", "median"), TURNS)
        runs = [_run(python, tasks, "--certificates", folder) for _ in range(turns)]
        found: dict[str, Any] = {task: middle([run[task] for run in runs]) for task in tasks}
        if not quick:
            for way, delay_s in WAYS.items():
                found[way] = _through_proxies(python, tasks, Path(folder), delay_s)
    return found


def environment() -> Path | None:
    try:
        return spu_python()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"SPU was NOT RUN: its environment {FOLDER.name} cannot be made ({error}).", file=sys.stderr)
        return None


def _through_proxies(python: Path, tasks: Sequence[str], certificates: Path, delay_s: float) -> dict[str, Figures]:
    found = {}
    for task in tasks:
        with proxied(HUBS, certificates, delay_s=delay_s) as (routes, carried):
            (figures,) = _run(python, (task,), "--routes", json.dumps(routes)).values()
        found[task] = figures | {"proxy_cpu_s": max(one.cpu_s for one in carried)}
    return found


def _run(python: Path, tasks: Sequence[str], *arguments: str) -> dict[str, Figures]:
    """Raises: CalledProcessError: SPU failed; what it said is on stderr."""
    command = [python, Path(__file__).with_name("spu_regression.py"), "--tasks", *tasks, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {told["task"]: told for told in map(json.loads, done.stdout.splitlines())}


def main() -> None:
    wanted = options("What SPU's ABY3 costs on three hubs' rows.")
    found = measured(wanted.quick)
    if found is None:
        return
    for row in rows("SPU", found, f"spu {found['median']['spu_version']}, ABY3, 1 of 3 hubs passive"):
        show(row, as_json=wanted.json)


if __name__ == "__main__":
    main()
