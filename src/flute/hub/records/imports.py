"""Imports that run: each in a thread of its own, one at a time per dataset, so that nobody waits at the door.

What a running or ended import says is kept in memory until the next one of the dataset. After a restart of the hub
the same import is asked for again and goes on from the last page that is on disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from flute.data.reader import Refused
from flute.defaults.records import REFUSALS_SHOWN
from flute.errors import FluteError, NotPossible
from flute.hub.records.curation import Taken
from flute.hub.records.plans import AttachPlan, ImportPlan
from flute.intake.take import Progress

LOG = logging.getLogger("flute.hub")
Plan = ImportPlan | AttachPlan
Run = Callable[[Plan, Callable[[Progress], None]], Taken]


class ImportState(Struct, frozen=True):
    """`state` running, done or failed. `read`, `total`: resources so far, and expected where the system says so.

    The rest is there where it is done, for the steward's own eyes. `refused` is cut off after REFUSALS_SHOWN; the
    report counts them all. `suspects`: pairs of pseudonyms that may be one person, and why.
    `code` and `text` say why it failed.
    """

    dataset: str
    state: Literal["running", "done", "failed"]
    scope: str = ""
    read: int = 0
    total: int | None = None
    report: Any = None
    refused: Any = ()
    flow: Any = None
    suspects: Any = ()
    alarms: Any = ()
    anonymity: Any = None
    images: Any = None
    attached: Any = ()
    code: str = ""
    text: str = ""


class Imports:
    """`run`: carries one out. Safe for the service's threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._states: dict[str, ImportState] = {}

    def start(self, plan: Plan) -> ImportState:
        """Raises: NotPossible: an import of this dataset is running."""
        with self._lock:
            before = self._states.get(plan.dataset)
            if before is not None and before.state == "running":
                raise NotPossible(f"Dataset {plan.dataset} is being imported already; wait for it to end.")
            state = self._states[plan.dataset] = ImportState(plan.dataset, "running")
        threading.Thread(target=self._work, args=(plan,), name=f"import {plan.dataset}", daemon=True).start()
        return state

    def state(self, dataset: str) -> ImportState:
        """Raises: NotPossible: none was asked for since the hub started."""
        with self._lock:
            if dataset not in self._states:
                raise NotPossible(
                    f"No import of dataset {dataset} is known since the hub started; ask for it again: it goes on "
                    "from where it stopped."
                )
            return self._states[dataset]

    def _work(self, plan: Plan) -> None:
        try:
            taken = self._run(plan, lambda progress: self._say(plan.dataset, progress))
            ended = done(plan.dataset, taken, read=self.state(plan.dataset).read)
        except FluteError as error:
            ended = ImportState(plan.dataset, "failed", code=error.code, text=error.text)
        except Exception:
            LOG.exception("the import of dataset %s failed", plan.dataset)
            text = "The import failed by a fault of FLUTE's own; the hub's log says more. The dataset is as it was."
            ended = ImportState(plan.dataset, "failed", code=FluteError.code, text=text)
        with self._lock:
            self._states[plan.dataset] = ended

    def _say(self, dataset: str, progress: Progress) -> None:
        read = progress.taken + progress.unchanged + progress.skipped + progress.refused
        with self._lock:
            self._states[dataset] = ImportState(dataset, "running", progress.scope, read, progress.total)


def done(dataset: str, taken: Taken, *, read: int = 0) -> ImportState:
    return ImportState(
        dataset,
        "done",
        read=read,
        report=msgspec.to_builtins(taken.report),
        refused=[refusal(r) for r in taken.refused[:REFUSALS_SHOWN]],
        flow=None if taken.flow is None else msgspec.to_builtins(taken.flow),
        suspects=taken.suspects,
        anonymity=None if taken.alike is None else msgspec.to_builtins(taken.alike),
        images=None if taken.images is None else msgspec.to_builtins(taken.images),
        attached=msgspec.to_builtins(taken.attached),
        alarms=[msgspec.to_builtins(alarm) for alarm in taken.alarms],
    )


def refusal(refused: Refused) -> dict[str, str]:
    """One refusal as the data manager sees it."""
    return {"origin": refused.origin, "resource": refused.key, **msgspec.to_builtins(refused.finding)}
