"""What the hub's steward decides: about studies, and what is allowed at all. Each act is journaled."""

from __future__ import annotations

import threading

import msgspec
from msgspec import Struct

from flute.errors import NoConsent, NotPossible
from flute.hub.decisions.changes import Changes
from flute.hub.decisions.consents import Consents
from flute.hub.parts import COORDINATOR, Parts
from flute.hub.rounds.gate import study_ceilings
from flute.hub.store import HubPolicy, Part, StudyEntry
from flute.ledger.charge import Amount, Place
from flute.ledger.lines.entries import ConsentDenied, ConsentWithdrawn
from flute.study.agreement import Agreement, read_agreement
from flute.study.protection import budget_of


class Steward:
    """Shares the service's lock: no decision falls in the middle of a message."""

    def __init__(self, parts: Parts, lock: threading.RLock, consents: Consents) -> None:
        self._p = parts
        self.lock = lock
        self._consents = consents
        self.changes = Changes(parts, lock)

    # --- studies ------------------------------------------------------------------------------------

    def decide(self, study: str, *, grant: bool, person: str, reason: str = "", alike: float = 0.0) -> StudyEntry:
        """The steward's decision on a proposed study; it is journaled, stored and sent.

        alike: above 0: private studies alike this one are granted unread from now on, up to that epsilon in all
        (`hub.decisions.standing`); can be said of a granted study as well.
        Raises: WrongStudy: nothing such was proposed. NotPossible: the dataset is not here or lacks fields.
        """
        with self.lock:
            now = self._p.now()
            entry = self._p.store.study(study)
            if grant and alike:
                self._consents.standing.require_may(entry, alike)
            if grant and alike and entry.state == "granted":
                self._consents.standing.let_stand(study, alike, person=person)
                return entry
            if entry.state not in ("proposed", "denied"):
                raise NoConsent(f"Study {study} is {entry.state} here; there is nothing to decide.")
            decided = (
                self._consents.granted(entry, person, now) if grant else self._denied(entry, person, reason, now)
            )
            self._p.store.put_study(decided)
            if grant and alike:
                self._consents.standing.let_stand(study, alike, person=person)
            self._tell(self._p.decision(decided), study, now)
            return decided

    def withdraw(self, study: str, *, person: str, reason: str = "") -> StudyEntry:
        """Take a consent back. From now on every question of the study is refused."""
        with self.lock:
            now = self._p.now()
            entry = self._p.store.study(study)
            if entry.state != "granted":
                raise NoConsent(f"Study {study} is {entry.state} here; there is no consent to withdraw.")
            line = ConsentWithdrawn(study, entry.digest, person, reason)
            self._p.journal.append(line, now)
            self._consents.standing.take(line)
            withdrawn = msgspec.structs.replace(entry, state="withdrawn", decided_at=now)
            self._p.store.put_study(withdrawn)
            self._p.store.erase_member(study)
            self._tell(self._p.decision(withdrawn), study, now)
            return withdrawn

    def end_following(self, study: str, *, person: str, reason: str = "") -> StudyEntry:
        """Raises: NoConsent: nothing follows that study."""
        with self.lock:
            self._consents.standing.end(study, person=person, reason=reason)
            return self._p.store.study(study)

    def _denied(self, entry: StudyEntry, person: str, reason: str, now: int) -> StudyEntry:
        self._p.journal.append(ConsentDenied(entry.study, entry.digest, person, reason), now)
        return msgspec.structs.replace(entry, state="denied", decided_at=now)

    def _tell(self, body: Struct, study: str, now: int) -> None:
        self._p.channel.send(COORDINATOR, self._p.envelope(body, study, b"", now))

    # --- policy -------------------------------------------------------------------------------------

    def set_policy(self, policy: HubPolicy, *, person: str) -> HubPolicy:
        """The owner's ceilings and permissions from now on. What was charged stays charged.

        Raises: NotAllowed: it allows more than before, which needs a second person (`hub.decisions.changes`)."""
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
