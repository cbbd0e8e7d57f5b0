"""Run every benchmark and write the page.

python benchmarks/all.py [--quick] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "demo", "channel", "secure_aggregation", "secure_round", "noise", "accounting", "empirical_epsilon", "ledger",
    "private_regression", "plans", "mpc", "mpc_statistics", "threshold_he", "evidence", "attacks", "algorithms",
    "private_models", "choosing", "deep_models", "private_deep", "deep_round", "preview", "sandbox", "views",
    "import",
)  # fmt: skip
HEAD = """# Benchmarks

Made by `make bench`; machines differ, so a figure is a ratio to what ran beside it, or processor time, or
stands with its goal. One benchmark: `python benchmarks/NAME.py --json`.

"""


def run(name: str, quick: bool) -> list[dict[str, object]]:
    """Rows of one benchmark. Raises: CalledProcessError: it failed."""
    command = [sys.executable, str(Path(__file__).parent / f"{name}.py"), "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def table(name: str, rows: list[dict[str, object]]) -> str:
    lines = [f"## {name}", "", "| figure | value | goal | holds | compared with |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]  # type: ignore[index]
        lines.append(
            f"| {row['name']} | {row['value']:.4g} {row['unit']} | {row['goal']} | {holds} | {row['anchor']} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path)
    wanted = parser.parse_args()
    extent = "quick" if wanted.quick else "full"
    made_on = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {extent} run."
    pages = [table(name, run(name, wanted.quick)) for name in BENCHMARKS]
    page = HEAD + made_on + "\n\n" + "\n".join(pages)
    if wanted.write:
        wanted.write.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
