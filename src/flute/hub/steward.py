"""What the hub's steward decides: about studies, and what is allowed at all. Each act is journaled."""

from __future__ import annotations

import threading

import msgspec
from msgspec import Struct

from flute.errors import ExactNotAllowed, NoConsent, NotPossible
from flute.hub.changes import Changes
from flute.hub.gate import study_ceilings
from flute.hub.parts import COORDINATOR, Parts
from flute.hub.round import floor_holds
from flute.hub.store import DatasetEntry, HubPolicy, Part, StudyEntry
from flute.ledger.charge import Amount, Place
from flute.ledger.entries import (
    ConsentDenied,
    ConsentGranted,
    ConsentWithdrawn,
    RecordSourceOpened,
)
from flute.study.agreement import Agreement, read_agreement
from flute.study.protection import budget_of


class Steward:
    """Shares the service's lock: no decision falls in the middle of a message."""

    def __init__(self, parts: Parts, lock: threading.RLock) -> None:
        self._p = parts
        self.lock = lock
        self.changes = Changes(parts, lock)

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
        self._require_no_more_patients(agreement, dataset)
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

    def _require_no_more_patients(self, agreement: Agreement, dataset: DatasetEntry) -> None:
        """The room that sums have follows from a public bound; more patients could overflow it.

        Raises: NotPossible: the frozen dataset has more. The steward sees that, before any consent."""
        found = self._p.sources(dataset.snapshot).size()
        if found > agreement.max_patients:
            raise NotPossible(
                f"Dataset {dataset.name} has {found} patients, and study {agreement.study} allows a hub "
                f"{agreement.max_patients} (max_patients). Its researcher has to propose it with a larger number."
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
        """The owner's ceilings and permissions from now on. What was charged stays charged.

        Raises: NotAllowed: it allows more than before, which needs a second person (`hub.changes`)."""
        self.changes.set_policy(policy, person=person)
        return policy

    # --- allotments ---------------------------------------------------------------------------------

    def allot(self, place: Place, wanted: Part, *, person: str, reason: str) -> None:
        """What a study, a researcher in it or a question may spend in all; journaled.

        Raises: BudgetExceeded: above what encloses it. WrongStudy, NotPossible: no such place."""
        with self.lock:
            agreement = self._agreement_of(place)
            amount = self._amount(wanted, agreement)
            self._p.ledger.allot(
                place, agreement.dataset, amount, study_ceilings(agreement), person=person, reason=reason,
                now=self._p.now(),
            )  # fmt: skip

    def move(self, source: Place, target: Place, wanted: Part, *, person: str, reason: str) -> None:
        """Move what is unspent of one allotment to another; journaled. Raises: as `allot`."""
        with self.lock:
            amount = self._amount(wanted, self._agreement_of(source))
            caps = study_ceilings(self._agreement_of(target))
            self._p.ledger.move(source, target, amount, caps, person=person, reason=reason, now=self._p.now())

    def _agreement_of(self, place: Place) -> Agreement:
        """Raises: WrongStudy, NotPossible: the agreement knows no such researcher or question."""
        agreement = read_agreement(self._p.store.study(place.study).agreement)
        if place.asker not in ("", agreement.researcher):
            raise NotPossible(f"In study {place.study} {agreement.researcher} asks, nobody else.")
        if place.question:
            agreement.question(place.question)
        return agreement

    def _amount(self, wanted: Part, agreement: Agreement) -> Amount:
        """Epsilon, at the study's own delta, as what is added up. Of the delta that is set aside for rounding the
        same proportion as of the dataset's rho, so that all allotments together fit into it as well."""
        if not wanted.epsilon:
            return Amount(numbers=wanted.numbers)
        policy = self._p.store.policy()
        rho, delta = budget_of(wanted.epsilon, agreement.delta or policy.delta)
        whole, set_aside = budget_of(policy.epsilon_all, policy.delta)
        return Amount(rho, min(delta, set_aside * min(1.0, rho / whole)), wanted.numbers)
