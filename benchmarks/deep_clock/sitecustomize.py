"""Read by every Python process that finds this folder on its path: notes when a hub trains, for `deep_round.py`.

Where DEEP_ROUND_TIMES names a file, every training of a network's round adds a line of JSON to it: whose process,
which round, when it began and ended (seconds since 1970), and the processor seconds in between."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from typing import Any

_WATCHED = "flute.deep.training"


def note(process: int, step: int, begun: float, used: float) -> None:
    """One line, written at once: several processes write to one file."""
    line = {"process": process, "step": step, "begun": begun, "ended": time.time(), "cpu": time.process_time() - used}
    with open(os.environ["DEEP_ROUND_TIMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


class _Watch:
    """Finds the watched module as everybody does, and clocks its training once it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def loaded(module: Any) -> None:
                load(module)
                _clock(module.Hub)

            spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


def _clock(hub: Any) -> None:
    train = hub.total

    def total(self: Any, step: int, *given: Any) -> Any:
        begun, used = time.time(), time.process_time()
        found = train(self, step, *given)
        note(os.getpid(), step, begun, used)
        return found

    hub.total = total


if os.environ.get("DEEP_ROUND_TIMES"):
    sys.meta_path.insert(0, _Watch())  # type: ignore[arg-type]
