"""Imports: from a hospital's export to a frozen dataset, the whole way, how fast, again, and in how much memory.

    python benchmarks/import.py [--quick] [--json]

Data: the simulated pilot (SIMULATED). "The whole way" is what a hub does: files read and checked strictly, FHIR R4
and the common model's rules, views, staging on disk in transactions, cohort, pseudonyms, snapshot. Speeds are per
second of processor time, all threads counted, imports of Python modules left out; every import runs in a process of
its own, so that memory is its own.
Anchor: decoding alone of the same lines, in the same run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.connectors.files import FilesReader
from flute.intake.freeze import Freezing, freeze
from flute.intake.snapshot import write_snapshot
from flute.intake.staging import Staging
from flute.intake.take import Design, take
from flute.pilot.recipe import PILOT_RECIPE
from flute.pilot.simulate import write_pilot

MEN, QUICK_MEN = 90_000, 1_963
"""Of one hub: 90,000 men have more than a million resources."""
SPEED_GOAL = 4_000
MEMORY_GOAL_MIB = 500


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    args = options(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        for row in measured(Path(folder), QUICK_MEN if args.quick else MEN):
            show(row, as_json=args.json)


def measured(folder: Path, men: int) -> Iterator[Row]:
    write_pilot(folder / "pilot", 1, {"huvh": men})
    export, hub = folder / "pilot" / "huvh", folder / "hub"
    decoding = decoding_speed(export)
    first = in_a_process(export, hub)
    resources, speed = first["resources"], first["resources"] / first["cpu_s"]
    anchor = f"decoding alone {decoding:,.0f}/s; {resources:,} resources"
    yield Row("first import", speed, "resources/s", f">= {SPEED_GOAL:,}", anchor, speed >= SPEED_GOAL)
    peak = first["reading_mib"]
    yield Row("peak memory while reading", peak, "MiB", f"< {MEMORY_GOAL_MIB:,}", anchor, peak < MEMORY_GOAL_MIB)
    frozen = f"{first['patients']:,} patients are frozen at once"
    yield Row("peak memory with the freezing", first["peak_mib"], "MiB", "", frozen, None)
    again = in_a_process(export, hub)
    share = again["read_s"] / first["read_s"]
    same = again["snapshot"] == first["snapshot"]
    said = f"reading time over the first import's; the same snapshot: {same}"
    yield Row("nothing changed", share, "ratio", "<= 0.05", said, same and share <= 0.05)
    changed = change_one_in_a_hundred(export / "FamilyMemberHistory.ndjson")
    third = in_a_process(export, hub)
    share = third["read_s"] / first["read_s"]
    said = f"{changed} of {resources:,} resources changed in one of five files; reading time over the first import's"
    yield Row("a little changed", share, "ratio", "<= 0.5", said, share <= 0.5)


def decoding_speed(export: Path) -> float:
    lines = [line for file in sorted(export.glob("*.ndjson")) for line in file.read_bytes().splitlines()][:200_000]
    decode = msgspec.json.Decoder().decode
    began = time.process_time()
    for line in lines:
        decode(line)
    return len(lines) / (time.process_time() - began)


def change_one_in_a_hundred(file: Path) -> int:
    lines = file.read_bytes().splitlines(keepends=True)
    changed = [line.replace(b'"FTH"', b'"BRO"') if n % 100 == 0 else line for n, line in enumerate(lines)]
    file.write_bytes(b"".join(changed))
    return sum(a != b for a, b in zip(lines, changed, strict=True))


def in_a_process(export: Path, hub: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(export), str(hub)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def one(export: Path, hub: Path) -> None:
    """One import; prints what it took."""
    key = b"k" * 32
    design = Design(PILOT_RECIPE)
    began = time.process_time()
    with Staging(hub / "intake" / "pilot.duckdb", design.views, design.digest) as staging:
        take(FilesReader(export), staging, design.judge(key))
        read, reading_mib = time.process_time() - began, peak_mib()
        frozen = freeze(staging, PILOT_RECIPE, Freezing(key, simulated=True))
        snapshot = write_snapshot(frozen.rows, hub)
    said = {
        "resources": frozen.report.resources, "cpu_s": time.process_time() - began, "read_s": read,
        "reading_mib": reading_mib, "peak_mib": peak_mib(), "patients": frozen.report.patients,
        "snapshot": snapshot.hex(),
    }  # fmt: skip
    print(json.dumps(said))


def peak_mib() -> float:
    """Of this process alone. Not `ru_maxrss` on Linux: it counts what the process held that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return (
            int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


if __name__ == "__main__":
    main()
