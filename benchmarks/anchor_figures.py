"""Figures of an engine that stands beside ours: the middle of several runs, and how they are told."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from rows import Row

Figures = dict[str, Any]
TURNS = 3
DELAY_S = 0.040
"""One way. A message between any two places in Europe takes less."""
WAYS = {"named": 0.0, "delayed": DELAY_S}
"""Through proxies that check names, and hold back everything so long."""
UNITS = {
    "cpu_s": "CPU s of one hub",
    "wall_s": "s wall",
    "sent_mb": "MB sent by one hub",
    "sends": "messages of one hub",
    "proxy_cpu_s": "CPU s of one hub's proxy",
}


def middle(runs: list[Figures]) -> Figures:
    """Medians of what was measured; right only if every run was."""
    first = runs[0]
    measured = (*UNITS, "compile_cpu_s", "error")
    numbers = {name: statistics.median(run[name] for run in runs) for name in measured if name in first}
    return first | numbers | {"right": all(run["right"] for run in runs)}


def rows(engine: str, found: dict[str, Any], anchor: str) -> Iterator[Row]:
    """found: figures by task, and under WAYS the same by task again."""
    direct = {task: figures for task, figures in found.items() if task not in WAYS}
    for way, by_task in {"": direct, **{way: found[way] for way in WAYS if way in found}}.items():
        for task, figures in by_task.items():
            name = f"{engine} {task}" + (f", {way}" if way else "")
            for key in filter(figures.__contains__, UNITS):
                yield Row(name, figures[key], UNITS[key], "", anchor, None)
            yield Row(name, figures["error"], "error", "", anchor, figures["right"])
