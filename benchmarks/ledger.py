"""What the ledger costs: reserve and settle with everything on disk, many callers, opening a long journal.

    python benchmarks/ledger.py [--quick] [--json]

Anchor: a bare SQLite table in the same folder, WAL and synchronous=FULL, one row of the same size in one transaction,
run turn by turn with ours, so that both meet the same disk. `plain`: the journal alone; `witnessed`: with the newest
head kept in a second file, synced as well. Processor time is that of this process (time.process_time).
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rows import Row, options, show

from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Policy
from flute.ledger.journals.journal import Journal, verify
from flute.ledger.journals.witness import FileWitness
from flute.ledger.lines.entries import Reserved
from flute.primitives.keys import SigningKey, digest

KEY = SigningKey(os.urandom(32))
OVER = [Ceiling(level, Policy(1e6, 1e-3)) for level in (Level.STUDY, Level.PERSONS)]
CALLERS = 16
ROW_BYTES = 400
"""Of a reserved line: body, digests and seal."""
GOAL_PER_SECOND = 50
"""Reserves with witness; a round of a study needs one every few tenths of a second, on a slow disk too."""


def charge(number: int, who: int = 0) -> Charge:
    release = digest(who.to_bytes(4, "big"), number.to_bytes(8, "big"))
    return Charge(
        release, f"s{number % 9}", "q1", 0, "maria", "private", 0.01, 1e-12, 0, "secagg", "records", release
    )


class Bare:
    """One row a transaction, nothing else."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE line(number INTEGER PRIMARY KEY, body BLOB)")
        self.row = os.urandom(ROW_BYTES)

    def insert(self, _number: int) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("INSERT INTO line(body) VALUES (?)", (self.row,))
        self.db.execute("COMMIT")


def open_ledger(folder: Path, *, witnessed: bool) -> tuple[Journal, Ledger]:
    folder.mkdir()
    witness = FileWitness(folder.parent / f"{folder.name}.witness" / "head") if witnessed else None
    journal = Journal.open(folder / "journal.db", KEY, witness=witness)
    return journal, Ledger(journal, OVER)


def timed(act: Callable[[int], object], number: int) -> tuple[float, float]:
    """(wall, processor) seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    act(number)
    return time.perf_counter() - wall, time.process_time() - cpu


def cost_rows(folder: Path, repeats: int) -> list[Row]:
    bare = Bare(folder / "bare.db")
    plain, witnessed = open_ledger(folder / "plain", witnessed=False), open_ledger(folder / "kept", witnessed=True)
    acts: dict[str, Callable[[int], object]] = {
        "bare": bare.insert,
        "plain": lambda n: plain[1].reserve(charge(n), now=n),
        "witnessed": lambda n: witnessed[1].reserve(charge(n), now=n),
        "both": lambda n: witnessed[1].settle(witnessed[1].reserve(charge(n, 1), now=n), "released", n),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in acts}
    for number in range(repeats):
        for name, act in acts.items():
            taken[name].append(timed(act, number))
    wall = {name: statistics.median(w for w, _ in both) for name, both in taken.items()}
    cpu = {name: statistics.mean(c for _, c in both) for name, both in taken.items()}
    anchor = f"bare SQLite insert, WAL, synchronous=FULL: median {wall['bare'] * 1e3:.3g} ms of {repeats}"
    bare_cpu = f"bare insert {cpu['bare'] * 1e6:.3g} us"
    ratio, each = wall["plain"] / wall["bare"], 1 / wall["witnessed"]
    plain[0].close()
    witnessed[0].close()
    return [
        Row("reserve over bare insert", ratio, "ratio", "", anchor, None),
        Row("witnessed reserve over bare insert", wall["witnessed"] / wall["bare"], "ratio", "", anchor, None),
        Row("reserve, witnessed", each, "per second", f">= {GOAL_PER_SECOND}", anchor, each >= GOAL_PER_SECOND),
        Row("reserve + settle, witnessed", 1 / wall["both"], "per second", "", anchor, None),
        Row("processor time of a reserve", cpu["plain"] * 1e6, "us", "", bare_cpu, None),
        Row("processor time of a witnessed reserve", cpu["witnessed"] * 1e6, "us", "", "the same run", None),
    ]  # fmt: skip


def callers_row(folder: Path, each: int) -> Row:
    """As many reserves from threads at once; they take turns at the disk."""
    journal, ledger = open_ledger(folder / "callers", witnessed=True)
    start = threading.Barrier(CALLERS + 1)

    def run(who: int) -> None:
        start.wait()
        for number in range(each):
            ledger.reserve(charge(number, who), now=number)

    threads = [threading.Thread(target=run, args=(who,)) for who in range(CALLERS)]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    rate = CALLERS * each / (time.perf_counter() - begun)
    assert journal.last.line == CALLERS * each + 1
    journal.close()
    return Row(
        f"reserve, {CALLERS} callers at once", rate, "per second", "", "threads of one process, witnessed", None
    )


def opening_rows(folder: Path, lines: int) -> list[Row]:
    folder = folder / "long"
    folder.mkdir()
    path = folder / "journal.db"
    with Journal.open(path, KEY) as journal:
        for first in range(0, lines, 1_000):
            journal.append_all([Reserved(charge(n)) for n in range(first, min(first + 1_000, lines))], now=first)
    cpu = time.process_time()
    verify(path, KEY.public)
    checked = time.process_time() - cpu
    cpu = time.process_time()
    with Journal.open(path, KEY) as journal:
        Ledger(journal, OVER)
    opened = time.process_time() - cpu
    said = f"a journal of {lines} reserved lines, {path.stat().st_size / 2**20:.3g} MiB"
    return [
        Row("verification of a line", checked / lines * 1e6, "us, processor", "", said, None),
        Row("opening a journal and its budget", opened, "s, processor", "", said, None),
    ]


def main() -> None:
    wanted = options(__doc__ or "")
    repeats, each, lines = (100, 10, 10_000) if wanted.quick else (1_000, 50, 100_000)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".ledger-") as scratch:  # a real disk, not /tmp
        folder = Path(scratch)
        for row in [*cost_rows(folder, repeats), callers_row(folder, each), *opening_rows(folder, lines)]:
            show(row, as_json=wanted.json)


if __name__ == "__main__":
    main()
