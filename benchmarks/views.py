"""Views: FHIR NDJSON to columns, how fast, in how much memory, and beside another runner of the same standard.

    python benchmarks/views.py [--quick] [--json]

Data: the simulated pilot (SIMULATED), all resources of its three hubs in one file. Views: all of the pilot's.
"To columns" is the whole way: lines of a file, decoded, every view's rows, columns in a DuckDB database on disk.
Speeds are per second of processor time, all threads counted, so they are speeds of one core; the best of the passes
is told, since other programs of the machine can only slow a pass down.
Anchors: decoding alone of the same lines in the same run; `pysof` (PyPI, the runner of Helios Software, in Rust) over
the same views and the same file, one view after the other into NDJSON files, as it works.
`pysof` lives in an environment of its own: that of $FLUTE_PYSOF_PYTHON, or one made under the user's cache folder.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable
from ctypes.util import find_library
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.conformance.check import Checker, refuses
from flute.defaults.records import VIEW_BATCH_ROWS, VIEW_STAGING_MEMORY
from flute.errors import MisuseError
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.simulate import write_pilot
from flute.pilot.views import PILOT_VIEWS
from flute.views.program import Program
from flute.views.stream import Lines, decoder
from flute.views.tables import insert, table_file
from flute.views.view import View, compile_view

PASSES, QUICK_PASSES = 5, 2
MANY, QUICK_MANY = 1_000_000, 100_000
GOAL, VALIDATED_GOAL = 40_000, 8_000
MEMORY_GOAL_MIB = 500
PYSOF = "pysof==0.2.6"
VIEWS: list[View] = [compile_view(name, declaration) for name, declaration in PILOT_VIEWS.items()]


def main() -> None:
    if sys.argv[1:2] == ["--memory-of"]:
        memory(Path(sys.argv[2]), int(sys.argv[3]))
        return
    args = options(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        file = pilot_file(Path(folder))
        passes = QUICK_PASSES if args.quick else PASSES
        many = QUICK_MANY if args.quick else MANY
        shared = sample(file) if args.quick else file
        for row in chain(speeds(file, passes), memory_rows(file, many), side_by_side(shared)):
            show(row, as_json=args.json)


def pilot_file(folder: Path) -> Path:
    write_pilot(folder / "pilot", seed=1)
    file = folder / "pilot.ndjson"
    file.write_bytes(b"".join(p.read_bytes() for p in sorted((folder / "pilot").glob("*/*.ndjson"))))
    return file


def sample(file: Path) -> Path:
    """Every fifth resource."""
    found = file.with_name("sample.ndjson")
    found.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[::5]))
    return found


# --- speed ---------------------------------------------------------------------------------------


def speeds(file: Path, passes: int) -> list[Row]:
    count = sum(1 for _ in Lines(file))
    parsing = count / best(passes, lambda: sum(1 for _ in Lines(file)))
    plain = count / best(passes, lambda: to_columns(Lines(file), file.with_suffix(".duckdb")))
    anchor = f"decoding alone, same run: {parsing:,.0f}/s; {len(VIEWS)} views, {count:,} resources, best of {passes}"
    rows = [
        Row("NDJSON to columns", plain, "resources/s", f"at least {GOAL:,} per core", anchor, plain >= GOAL),
    ]
    check = checker()
    if check is not None:
        checked = count / best(passes, lambda: to_columns(conforming(file, check), file.with_suffix(".duckdb")))
        name = "NDJSON to columns, each resource validated (base R4 and the pilot's profiles)"
        goal = f"at least {VALIDATED_GOAL:,} per core"
        rows.append(Row(name, checked, "resources/s", goal, anchor, checked >= VALIDATED_GOAL))
    return rows


def best(passes: int, run: Callable[[], Any]) -> float:
    """Seconds of processor time of the fastest pass."""
    found = []
    for _ in range(passes):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def to_columns(resources: Iterable[dict[str, Any]], database_file: Path) -> int:
    """Every view's table in a database on disk. Gives how many rows there are."""
    program, rows = Program(VIEWS), 0
    database_file.unlink(missing_ok=True)
    with duckdb.connect(database_file, config={"memory_limit": VIEW_STAGING_MEMORY}) as database:
        for view in VIEWS:
            columns = ", ".join(f'"{c.name}" {c.sql_type}' for c in view.columns)
            database.execute(f"CREATE TABLE {view.name} ({columns})")
        for found in resources:
            program.take(found)
            if program.waiting() >= VIEW_BATCH_ROWS:
                rows += flush(program, database)
        rows += flush(program, database)
    return rows


def flush(program: Program, database: Any) -> int:
    rows = program.waiting()
    for view in VIEWS:
        found = program.rows(view.name)
        if found:
            insert(database, view.name, view.columns, found)
    return rows


def checker() -> Callable[[dict[str, Any], bytes], bool] | None:
    """Whether a resource is refused; None, said on standard error, where `flute[data]` is not installed."""
    try:
        check = Checker(PILOT_MODEL).check
    except MisuseError as error:
        print(f"NOT VALIDATED: {error.text}", file=sys.stderr)
        return None
    return lambda found, line: refuses(check(found, line))


def conforming(file: Path, refused: Callable[[dict[str, Any], bytes], bool]) -> Iterable[dict[str, Any]]:
    """What of the file is taken; the simulator plants a few mistakes."""
    return (found for found, line in Lines(file).with_bytes() if not refused(found, line))


# --- memory --------------------------------------------------------------------------------------


def memory_rows(file: Path, count: int) -> list[Row]:
    """In a process of its own, so that nothing else is counted."""
    command = [sys.executable, __file__, "--memory-of", str(file), str(count)]
    early, peak = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    anchor = (
        f"resident after the first tenth: {early:.0f} MiB; {count:,} resources, DuckDB held to {VIEW_STAGING_MEMORY}"
    )
    goal = f"peak under {MEMORY_GOAL_MIB} MiB"
    return [
        Row(f"peak of resident memory, {count:,} resources", peak, "MiB", goal, anchor, peak < MEMORY_GOAL_MIB),
        Row("its growth over the last nine tenths", peak - early, "MiB", "", anchor, None),
    ]


def memory(file: Path, count: int) -> None:
    early = 0.0

    def again_and_again() -> Iterable[dict[str, Any]]:
        nonlocal early
        met = 0
        while True:
            for found in Lines(file):
                if met == count // 10:
                    early = peak_mib()
                if met == count:
                    return
                met += 1
                yield found

    to_columns(again_and_again(), file.with_suffix(".memory.duckdb"))
    print(json.dumps([early, peak_mib()]))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- beside pysof --------------------------------------------------------------------------------

LIBRARIES = [Path("/usr/lib") / name for name in ("x86_64-linux-gnu", "aarch64-linux-gnu", "../lib64", "")]
RUN_PYSOF = """
import json, sys, time, pysof
file, folder, views = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
for name, view in views.items():
    start = time.process_time()
    pysof.process_ndjson_to_file(view, file, f"{folder}/{name}.ndjson", "ndjson")
    print(json.dumps([name, time.process_time() - start]), flush=True)
"""


def try_pysof(python: Path) -> list[str]:
    """The package alone imports without its compiled part, with a warning."""
    return [str(python), "-c", "import pysof._pysof"]


def side_by_side(file: Path) -> list[Row]:
    python = pysof_python()
    if python is None:
        return []
    theirs_folder, ours_folder = file.parent / "theirs", file.parent / "ours"
    for folder in (theirs_folder, ours_folder):
        folder.mkdir()
    theirs = run_pysof(python, file, theirs_folder)
    ours = {view.name: best(1, partial(one_view, view, file, ours_folder)) for view in VIEWS}
    together = best(1, lambda: to_columns(Lines(file), file.with_suffix(".duckdb")))
    same = [v.name for v in VIEWS if table(theirs_folder, v) == table(ours_folder, v)]
    total = sum(theirs.values())
    anchor = f"{PYSOF}: {total:.1f} s; {len(same)} of {len(theirs)} views give the same rows in both"
    own = sum(ours.values())
    each = f"{len(theirs)} views, one pass each, into NDJSON: pysof's processor time over ours"
    all_at_once = f"{len(theirs)} views: pysof's {len(theirs)} passes over our one pass into DuckDB"
    return [
        Row(each, total / own, "times", "", f"{anchor}; ours {own:.1f} s", None),
        Row(all_at_once, total / together, "times", "", f"{anchor}; ours {together:.1f} s", None),
    ]


def one_view(view: View, file: Path, folder: Path) -> None:
    program = Program([view])
    with table_file(folder / f"{view.name}.ndjson", "ndjson", view.columns) as out:
        for found in Lines(file):
            program.take(found)
            if program.waiting() >= VIEW_BATCH_ROWS:
                out.add(program.rows(view.name))
        out.add(program.rows(view.name))


def table(folder: Path, view: View) -> list[str]:
    """Rows in any order. What a row does not name is null; pysof writes a decimal such as 7.0 as text."""
    decode = decoder(exact=False)
    decimals = {column.name for column in view.columns if column.kind == "decimal"}
    rows = [decode(line) for line in (folder / f"{view.name}.ndjson").read_bytes().splitlines()]
    found = [{k: float(v) if k in decimals else v for k, v in row.items() if v is not None} for row in rows]
    return sorted(json.dumps(row, sort_keys=True) for row in found)


def run_pysof(python: Path, file: Path, folder: Path) -> dict[str, float]:
    views = {
        name: {"resourceType": "ViewDefinition", "status": "active", "name": name, **declaration}
        for name, declaration in PILOT_VIEWS.items()
    }
    described = folder / "views.json"
    described.write_text(json.dumps(views))
    command = [str(python), "-c", RUN_PYSOF, str(file), str(folder), str(described)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(line) for line in done.stdout.splitlines())


def pysof_python() -> Path | None:
    """Where `pysof` can be imported, made if need be; None, said on standard error, where it cannot be had."""
    given = os.environ.get("FLUTE_PYSOF_PYTHON")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "flute" / PYSOF.replace("==", "-")
    python = Path(given) if given else folder / "bin" / "python"
    try:
        if not given and not (folder / "complete").exists():
            make_environment(folder, python)
        subprocess.run(try_pysof(python), check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"NOT COMPARED with {PYSOF}: it cannot be installed or imported ({error}).", file=sys.stderr)
        return None
    return python


def make_environment(folder: Path, python: Path) -> None:
    print(f"Making an environment for {PYSOF} (105 MB) in {folder}.", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    subprocess.run([*pip, PYSOF], check=True, stdout=sys.stderr)
    if subprocess.run(try_pysof(python), stderr=subprocess.DEVNULL).returncode:
        system_openssl(folder)
    (folder / "complete").touch()


def system_openssl(folder: Path) -> None:
    """The wheel says glibc 2.34, but the OpenSSL in it needs 2.38: the system's own takes its place."""
    for bundled in folder.glob("lib/python*/site-packages/pysof.libs/lib*.so.3"):
        own = find_library(bundled.name.removeprefix("lib").partition("-")[0])
        if own is not None and own.endswith(".so.3"):
            bundled.unlink()
            bundled.symlink_to(next(p for p in LIBRARIES if (p / own).exists()) / own)
            print(f"{bundled.name} of {PYSOF} needs a newer C library; the system's {own} is used.", file=sys.stderr)


if __name__ == "__main__":
    main()
