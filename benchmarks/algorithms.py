"""Every exact algorithm against a known implementation on the pooled rows, on 3 and on 10 hubs.

Rows are divided among hubs, one of them empty and one with a single patient, and summed in fixed point as plans sum
them. Each module of benchmarks/algorithm_cases brings its algorithms; ranks, quantiles and times are compared on the
stated grid.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from rows import Row, options, show

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import algorithm_cases  # noqa: E402


def cases(quick: bool) -> Iterator[Row]:
    for module in sorted(pkgutil.iter_modules(algorithm_cases.__path__), key=lambda m: m.name):
        yield from importlib.import_module(f"algorithm_cases.{module.name}").cases(quick)


def main() -> None:
    asked = options(__doc__ or "")
    warnings.filterwarnings("ignore", module="lifelines")
    for row in cases(asked.quick):
        show(row, as_json=asked.json)


if __name__ == "__main__":
    main()
