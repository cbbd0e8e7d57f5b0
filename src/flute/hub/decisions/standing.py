"""A steward's word on studies that are alike: the first is read and decided, those that follow are granted unread.

    granted for one study -> stands for alike ones, up to an epsilon in all -> until a date, or until it is ended
Everything that a data protection officer decides about is the same in all of them (`study.alike`); questions and
budget differ. Their budgets, the first one's included, add up as rho to no more than that epsilon; the hub's
ceilings hold besides. Each study is journaled as granted, by whom and on account of which; the state of this module
is the journal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flute.errors import NoConsent, NotPossible
from flute.hub.parts import Parts
from flute.hub.store import StudyEntry
from flute.ledger.lines.entries import ConsentFollowed, ConsentStands, ConsentStandsNoMore, ConsentWithdrawn, Entry
from flute.study.agreement import Agreement, read_agreement
from flute.study.alike import differences
from flute.study.protection import budget_of, study_budget

_KINDS = ("consent-stands", "consent-stands-no-more", "consent-followed", "consent-withdrawn")


@dataclass(slots=True)
class Stands:
    """One such word. `rho`: what all studies may have together. `granted`: the studies that have it so far."""

    said: ConsentStands
    rho: float
    granted: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """rho, not below 0."""
        return max(self.rho - math.fsum(self.granted.values()), 0.0)


class Standing:
    """Read from the journal when the hub starts. Its callers hold the service's lock."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._stands: dict[str, Stands] = {}
        for line in parts.journal.lines(kinds=_KINDS):
            self.take(line.entry)

    def take(self, entry: Entry) -> None:
        """A line that was journaled."""
        match entry:
            case ConsentStands():
                before = self._stands.get(entry.study)
                self._stands[entry.study] = self._read(entry)
                self._stands[entry.study].granted |= before.granted if before else {}
            case ConsentStandsNoMore() | ConsentWithdrawn():
                self._stands.pop(entry.study, None)
            case ConsentFollowed() if entry.alike in self._stands:
                agreement = read_agreement(self._p.store.study(entry.study).agreement)
                self._stands[entry.alike].granted[entry.study] = study_budget(agreement)[0]

    def _read(self, said: ConsentStands) -> Stands:
        agreement = read_agreement(self._p.store.study(said.study).agreement)
        rho, _ = budget_of(said.epsilon, agreement.delta)
        return Stands(said, rho, {said.study: study_budget(agreement)[0]})

    def require_may(self, entry: StudyEntry, epsilon: float) -> None:
        """Raises: NotPossible: the study is exact, or that budget cannot be."""
        agreement = read_agreement(entry.agreement)
        if agreement.mode == "exact":
            raise NotPossible(f"Study {entry.study} is exact; each exact study has to be read and decided.")
        most = self._p.store.policy().epsilon_all
        if not agreement.epsilon <= epsilon <= most:
            raise NotPossible(
                f"Study {entry.study} alone may spend epsilon {agreement.epsilon:g}, and this hub allows {most:g} "
                f"over a dataset in all: say an epsilon in between for all alike studies together, not {epsilon:g}."
            )

    def let_stand(self, study: str, epsilon: float, *, person: str) -> None:
        """From now on private studies alike `study` are granted unread, up to `epsilon` in all. Said anew, it counts
        from what was granted so far. Raises: NotPossible."""
        entry = self._p.store.study(study)
        self.require_may(entry, epsilon)
        self._say(ConsentStands(study, entry.digest, person, epsilon, read_agreement(entry.agreement).ends))

    def end(self, study: str, *, person: str, reason: str) -> None:
        """No further study follows; those that were granted stay so. Raises: NoConsent: no word stands."""
        if study not in self._stands:
            raise NoConsent(f"No consent stands for studies alike {study}; there is nothing to end.")
        self._say(ConsentStandsNoMore(study, person, reason))

    def _say(self, entry: ConsentStands | ConsentStandsNoMore) -> None:
        self._p.journal.append(entry, self._p.now())
        self.take(entry)

    def of(self, agreement: Agreement, now: int) -> Stands | None:
        """The word on account of which this agreement may be granted unread, if there is one."""
        rho = study_budget(agreement)[0]
        for stands in self._stands.values():
            read = read_agreement(self._p.store.study(stands.said.study).agreement)
            if now <= stands.said.until and rho <= stands.left and not differences(agreement, read):
                return stands
        return None

    def standing(self) -> tuple[Stands, ...]:
        return tuple(self._stands.values())
