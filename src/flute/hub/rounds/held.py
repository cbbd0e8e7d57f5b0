"""Images that a run asks for round after round: read and checked once, and kept in memory while it goes on.

Of a thousand images every round would read and hash the files anew. A snapshot is named by the digest of what it
holds, so what was checked against its name stays what the name says: a file that is changed afterwards is not looked
at. Kept is the dataset of one snapshot and one list of variables, which nobody can write to. It goes when other
records are opened, when a study ends, when its snapshot is deleted (a patient was withdrawn), and when nobody asked
for it for some time. Records without images are quick to read, and are not kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flute.data.dataset import Dataset
from flute.data.source import RecordSource
from flute.data.variables import Variable
from flute.defaults.rounds import HELD_RECORDS_BYTES, HELD_RECORDS_S
from flute.errors import Unreachable

Sources = Callable[[bytes], RecordSource]
"""Snapshot digest to the frozen records. Raises: Unreachable: there are none of that name (any more)."""


@dataclass(slots=True)
class _Held:
    snapshot: bytes
    variables: tuple[Variable, ...]
    data: Dataset
    asked_at: float


class HeldRecords:
    """At most one dataset, of HELD_RECORDS_BYTES of images at most. clock: seconds, an argument for tests."""

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = sources
        self._clock = clock
        self._held: _Held | None = None

    def open(self, snapshot: bytes, variables: Sequence[Variable]) -> Dataset:
        """Raises: as the source; Unreachable: the snapshot is gone, whatever is in memory."""
        source, wanted = self._sources(snapshot), tuple(variables)
        held = self._held
        if held is not None and held.snapshot == snapshot and held.variables == wanted:
            held.asked_at = self._clock()
            return held.data
        self._held = None
        data = source.open(wanted)
        images = [data.images(v.name) for v in wanted if v.kind == "image"]
        if 0 < sum(stack.nbytes for stack in images) <= HELD_RECORDS_BYTES:
            for stack in images:
                stack.flags.writeable = False
            for variable in wanted:
                data.column(variable.name).flags.writeable = False
            self._held = _Held(snapshot, wanted, data, self._clock())
        return data

    def drop(self) -> None:
        self._held = None

    def tidy(self) -> None:
        """Called now and then: nothing stays that nobody asks for, or whose snapshot is gone."""
        held = self._held
        if held is None:
            return
        try:
            self._sources(held.snapshot)
        except Unreachable:
            self._held = None
        else:
            if self._clock() - held.asked_at > HELD_RECORDS_S:
                self._held = None
