"""Whether a hub can run code at the others through MPyC: it unpickles arrays that peers send, and so does its end.

    python benchmarks/mpyc_pickle.py [--quick] [--json]

Three processes of one machine open an array of four numbers. The first one sends, in place of each pickle, one that
puts a file into a folder. Each row: at how many of the other two it appeared, and so what else could have run there.
Three ways: MPyC as it comes; arrays as bytes (--mix32-64bit), ended as it comes; arrays as bytes, and no `shutdown`
or `transfer`, as `mpyc_anchor.py` has it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from joint_data import HUBS
from mpyc_anchor import ended
from peer_proxy import HERE, free_ports
from rows import Row, options, show

WAYS = {
    "as it comes": ((), "shutdown", 2),
    "arrays as bytes, its own shutdown": (("--mix32-64bit",), "shutdown", 2),
    "arrays as bytes, no shutdown": (("--mix32-64bit",), "close", 0),
}
"""Flags, how it ends, at how many of the others the file must appear: the first two are controls."""
PARTY = "--one-party"
PATIENCE_S = 30


class Leave:
    """Unpickled, it leaves a file that names the process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; open(os.path.join({self._folder!r}, str(os.getpid())), 'w').close()",)


def reached(flags: tuple[str, ...], end: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        parties = [word for port in free_ports(HUBS) for word in ("-P", f"{HERE}:{port}")]
        hubs = [
            subprocess.Popen(
                [sys.executable, __file__, PARTY, folder, end, *parties, "-I", str(place), "--no-log", *flags],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for place in range(HUBS)
        ]  # fmt: skip
        for hub in hubs:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a party whose peers broke down waits for them
                hub.wait(PATIENCE_S)
            hub.kill()
            hub.wait()
        return len({str(hub.pid) for hub in hubs[1:]} & set(os.listdir(folder)))


def party(folder: str, end: str) -> None:
    from mpyc.runtime import mpc

    if mpc.pid == 0:
        bad = pickle.dumps(Leave(folder))
        pickle.dumps = lambda *_given, **_named: bad  # type: ignore[assignment]
    mpc.run(mpc.start())
    mpc.run(mpc.output(sum(mpc.input(mpc.SecInt(32).array(np.arange(4))))))
    mpc.run(mpc.shutdown() if end == "shutdown" else ended(mpc))
    Path(folder, f"done-{mpc.pid}").touch()


def main() -> None:
    if PARTY in sys.argv:
        party(*sys.argv[sys.argv.index(PARTY) + 1 :][:2])
        return
    wanted = options("Whether a hub can run code at the others through MPyC.")
    for name, (flags, end, must) in WAYS.items():
        found = reached(flags, end)
        goal = f"{must}" + (": the control" if must else "")
        show(Row(f"MPyC, {name}", found, "of 2 others ran it", goal, "mpyc 0.11", found == must), as_json=wanted.json)


if __name__ == "__main__":
    main()
