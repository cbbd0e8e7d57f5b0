"""A patient is taken out of everything that a hub holds: datasets, running studies, what was read, later imports.

What was released stays released, and stays charged: the budget was spent on answers, not on a list of persons. A
private study goes on over what is left. An exact one ends: two exact answers, with and without one person, tell
about him.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from flute.deidentify.pseudonyms import pseudonym
from flute.hub.parts import Parts
from flute.hub.records.curation import staging_file
from flute.hub.records.holdings import Holdings
from flute.hub.records.images import forget
from flute.hub.store import StudyEntry
from flute.intake.snapshot import delete_snapshot, snapshot_path, snapshot_without, snapshots
from flute.ledger.lines.data import PersonWithdrawn, SnapshotReplaced
from flute.primitives.keys import digest
from flute.study.agreement import read_agreement

EndStudy = Callable[[StudyEntry, str, str], object]
"""Withdraw this hub's consent to a study: its entry, who does it, why."""


class Withdrawn(Struct, frozen=True):
    """`datasets`: that held him. `studies_changed`: go on without him. `studies_ended`: exact ones that held him."""

    datasets: tuple[str, ...]
    studies_changed: tuple[str, ...]
    studies_ended: tuple[str, ...]


class Withdrawal:
    """Shares the service's lock. Every step can be repeated: after a crash the same call finishes the work."""

    def __init__(
        self, parts: Parts, holdings: Holdings, lock: threading.RLock, folder: Path, key: bytes, end_study: EndStudy
    ) -> None:
        self._p = parts
        self._held = holdings
        self._lock = lock
        self._folder = folder
        self._key = key
        self._end_study = end_study

    def withdraw(self, patient: str, *, person: str, reason: str) -> Withdrawn:
        """`patient`: the hospital's own id; of one whom this hub does not hold yet, too: he will never be taken in.

        Raises: Unreachable: a snapshot or a staging file cannot be written or deleted; call again.
        """
        known_as = pseudonym(self._key, patient)
        with self._lock:
            now = self._p.now()
            datasets = self._p.store.datasets()
            holding = tuple(d.name for d in datasets if self._without(d.snapshot, known_as) != d.snapshot)
            self._p.journal.append(PersonWithdrawn(person, digest(known_as.encode()), holding, reason), now)
            self._held.withdraw(known_as, now)
            done = self._studies(known_as, person, now)
            for dataset in datasets:
                left = self._without(dataset.snapshot, known_as)
                if left != dataset.snapshot:
                    self._p.store.put_dataset(msgspec.structs.replace(dataset, snapshot=left))
                    delete_snapshot(self._folder, dataset.snapshot)
                # His raw records lie in what was read; it is read again, without him.
                staging_file(self._folder, dataset.name).unlink(missing_ok=True)
            self._forget_unused()
            forget(self._folder, self._key, known_as)
        return Withdrawn(holding, *done)

    def _studies(self, known_as: str, person: str, now: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        changed, ended, old = [], [], set()
        for study in self._p.store.studies():
            left = self._without(study.snapshot, known_as)
            if left == study.snapshot:
                continue
            old.add(study.snapshot)
            agreement = read_agreement(study.agreement)
            if study.state == "granted" and agreement.mode == "exact":
                self._end_study(
                    study, person, "A patient was withdrawn; exact answers with and without one tell about him."
                )
                ended.append(study.study)
            elif study.state == "granted":
                self._p.journal.append(SnapshotReplaced(study.study, agreement.dataset, study.snapshot, left), now)
                changed.append(study.study)
            self._p.store.put_study(msgspec.structs.replace(self._p.store.study(study.study), snapshot=left))
        in_use = {d.snapshot for d in self._p.store.datasets()}
        for snapshot in old - in_use:
            delete_snapshot(self._folder, snapshot)
        return tuple(changed), tuple(ended)

    def _forget_unused(self) -> None:
        """Snapshots of earlier imports, which nothing answers from, hold him too."""
        for snapshot in set(snapshots(self._folder)) - self._p.store.snapshots():
            delete_snapshot(self._folder, snapshot)

    def _without(self, snapshot: bytes, known_as: str) -> bytes:
        """The snapshot without him; the same one where he is not in it, or where there is none."""
        if not snapshot or not snapshot_path(self._folder, snapshot).is_file():
            return snapshot
        return snapshot_without(self._folder, snapshot, {known_as})
