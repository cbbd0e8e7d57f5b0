"""One row of a benchmark: a figure, its goal, and what was run beside it to compare with."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`goal`: what must hold, in words and figures; empty where a figure is only told. `anchor`: what was run
    beside it in the same run."""

    name: str
    value: float
    unit: str
    goal: str
    anchor: str
    holds: bool | None


def options(description: str) -> argparse.Namespace:
    """The flags that every benchmark knows: --quick (fewer repeats) and --json (one object per line)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer repeats: a smoke test, not a measurement")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    return parser.parse_args()


def show(row: Row, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(row)), flush=True)
        return
    verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[row.holds]
    print(
        f"{row.name}: {row.value:.4g} {row.unit}  goal: {row.goal or '-'}  {verdict}  (anchor: {row.anchor})",
        flush=True,
    )
