"""What the hub's steward decides: about studies, and what is allowed at all. Each act is journaled."""

from __future__ import annotations

import threading

import msgspec
from msgspec import Struct

from flute.errors import ExactNotAllowed, NoConsent, NotPossible
from flute.hub.gate import hub_ceilings
from flute.hub.parts import COORDINATOR, Parts
from flute.hub.round import floor_holds
from flute.hub.store import HubPolicy, StudyEntry
from flute.ledger.entries import (
    ConsentDenied,
    ConsentGranted,
    ConsentWithdrawn,
    PolicySet,
    RecordSourceOpened,
)
from flute.primitives.keys import digest
from flute.study.agreement import Agreement, read_agreement


class Steward:
    """Shares the service's lock: no decision falls in the middle of a message."""

    def __init__(self, parts: Parts, lock: threading.RLock) -> None:
        self._p = parts
        self.lock = lock

    # --- studies ------------------------------------------------------------------------------------

    def decide(self, study: str, *, grant: bool, person: str, reason: str = "") -> StudyEntry:
        """The steward's decision on a proposed study; it is journaled, stored and sent.

        Raises: WrongStudy: nothing such was proposed. NotPossible: the dataset is not here or lacks fields.
        """
        with self.lock:
            now = self._p.now()
            entry = self._p.store.study(study)
            if entry.state not in ("proposed", "denied"):
                raise NoConsent(f"Study {study} is {entry.state} here; there is nothing to decide.")
            decided = self._granted(entry, person, now) if grant else self._denied(entry, person, reason, now)
            self._p.store.put_study(decided)
            self._tell(self._p.decision(decided), study, now)
            return decided

    def withdraw(self, study: str, *, person: str, reason: str = "") -> StudyEntry:
        """Take a consent back. From now on every question of the study is refused."""
        with self.lock:
            now = self._p.now()
            entry = self._p.store.study(study)
            if entry.state != "granted":
                raise NoConsent(f"Study {study} is {entry.state} here; there is no consent to withdraw.")
            self._p.journal.append(ConsentWithdrawn(study, entry.digest, person, reason), now)
            withdrawn = msgspec.structs.replace(entry, state="withdrawn", decided_at=now)
            self._p.store.put_study(withdrawn)
            self._p.store.erase_member(study)
            self._tell(self._p.decision(withdrawn), study, now)
            return withdrawn

    def _granted(self, entry: StudyEntry, person: str, now: int) -> StudyEntry:
        agreement = read_agreement(entry.agreement)
        dataset = self._p.store.dataset(agreement.dataset)
        held = {v.name for v in dataset.variables}
        lacking = sorted(set(agreement.fields()) - held)
        if lacking:
            raise NotPossible(
                f"Dataset {dataset.name} has no {', '.join(lacking)}; import it with these, or deny the study."
            )
        holds = True
        if agreement.mode == "exact" and not self._p.store.policy().exact_allowed:
            raise ExactNotAllowed(
                f"{self._p.me} does not allow exact results, so study {entry.study} cannot be granted; its owner can "
                "allow them first (flute hub policy --exact), or the study can be denied."
            )
        if agreement.mode == "exact":
            holds = self._judge_floor(entry.study, agreement, dataset.snapshot, now)
        self._p.journal.append(ConsentGranted(entry.study, entry.digest, dataset.snapshot, person), now)
        return msgspec.structs.replace(
            entry, state="granted", snapshot=dataset.snapshot, floor_holds=holds, decided_at=now
        )

    def _judge_floor(self, study: str, agreement: Agreement, snapshot: bytes, now: int) -> bool:
        """One look, one yes or no, before any answer; no question is asked again on account of it."""
        names = agreement.fields()
        self._p.journal.append(RecordSourceOpened(study, "floor", b"", snapshot, names), now)
        variables = agreement.setting.variables
        data = self._p.sources(snapshot).open([variables[n].variable for n in names])
        return floor_holds(agreement, data, self._p.store.policy().floor)

    def _denied(self, entry: StudyEntry, person: str, reason: str, now: int) -> StudyEntry:
        self._p.journal.append(ConsentDenied(entry.study, entry.digest, person, reason), now)
        return msgspec.structs.replace(entry, state="denied", decided_at=now)

    def _tell(self, body: Struct, study: str, now: int) -> None:
        self._p.channel.send(COORDINATOR, self._p.envelope(body, study, b"", now))

    # --- policy -------------------------------------------------------------------------------------

    def set_policy(self, policy: HubPolicy, *, person: str) -> HubPolicy:
        """The owner's ceilings and permissions from now on. What was charged stays charged."""
        with self.lock:
            self._p.journal.append(
                PolicySet(person, digest(msgspec.msgpack.encode(policy)), policy.sentence), self._p.now()
            )
            self._p.store.put_policy(policy)
            self._p.ledger.set_ceilings(hub_ceilings(policy))
            return policy
