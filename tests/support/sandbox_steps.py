"""Steps for the sandbox's tests: how they are run in it, and, as a control, in a plain interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flute.sandbox.limits import Limits, Offer, Span
from flute.sandbox.machine import available
from flute.sandbox.run import Inputs, Output, Step, run

MIB = 2**20
OFFER = Offer(memory_bytes=4 * 2**30, cpu_s=60, wall_s=60, threads=8)
SECRET = "the-hubs-secret"
PLAIN = """
import sys
names = {"__name__": "step"}
exec(compile(sys.stdin.read(), "<step>", "exec"), names)
sys.exit(0 if names["step"](None, {}) == [1.0] else 9)
"""


def require_sandbox() -> None:
    """Skips visibly where the machine cannot hold a step; fails in CI, where it must."""
    missing = " ".join(available().missing)
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def limits(
    *,
    memory_mib: float = 256,
    cpu_s: float = 10,
    wall_s: float = 10,
    threads: int = 4,
    constant_time: bool = False,
    units: int = 1,
) -> Limits:
    return Limits(
        Span(0, memory_mib * MIB),
        Span(0, cpu_s),
        Span(0, wall_s),
        units,
        Span(1, threads),
        constant_time=constant_time,
    )


def tried(source: str, *, rows: int = 1, outputs: int = 1, within: Limits | None = None) -> Output:
    inputs = Inputs(np.arange(3.0 * rows).reshape(rows, 3))
    within = replace(within or limits(), units=rows)
    return run(Step("source", source.encode(), outputs), inputs, within, offer=OFFER)


def plainly(source: str, folder: Path, environment: Mapping[str, str]) -> int:
    """The same text in an ordinary child process: 0 where the step says that it won."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN], input=source.encode(), cwd=folder, env=dict(environment), timeout=60,
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode
