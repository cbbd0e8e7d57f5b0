"""How long the demo takes, with all three hubs at full size, and how much memory all its processes hold.

python benchmarks/demo.py [--quick] --json        (--quick: the same; the demo ends within a minute)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time

from rows import Row, options, show

_GOAL_S = 60.0
_GOAL_BYTES = 2 * 2**30
_CPUS = "two cores"


def main() -> None:
    wanted = options(__doc__ or "")
    with tempfile.TemporaryDirectory() as out:
        began = time.monotonic()
        command = [sys.executable, "-m", "flute", "demo", "--out", out, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        wall = time.monotonic() - began
    shown = json.loads(done.stdout)
    anchor = "wall clock of the command, its own start included"
    show(Row("demo.wall", wall, "s", f"< {_GOAL_S:.0f} s on {_CPUS}", anchor, wall < _GOAL_S), as_json=wanted.json)
    memory = shown["peak_memory_bytes"]
    row = Row(
        "demo.memory", memory / 2**20, "MiB", "< 2048 MiB, all processes together",
        "resident memory summed over processes, shared pages counted each time", memory < _GOAL_BYTES,
    )  # fmt: skip
    show(row, as_json=wanted.json)
    for step in shown["steps"]:
        show(Row(f"demo.step: {step['name']}", step["seconds"], "s", "", anchor, None), as_json=wanted.json)


if __name__ == "__main__":
    main()
