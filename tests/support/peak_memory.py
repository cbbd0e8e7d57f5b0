"""Runs `flute data …` and says the process's own peak of memory, in KiB, in a file.

python -m support.peak_memory FILE ARGUMENT…

Not `ru_maxrss`: Linux counts there what the test's own process held when it made this one.
"""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

from flute.cli.records.data import APP


def peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    where = Path(sys.argv.pop(1))
    atexit.register(lambda: where.write_text(str(peak_kib())))
    APP()
