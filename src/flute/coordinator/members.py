"""Who takes part in a study, as the coordinator keeps it: the hubs' decisions, and who was left out since.

asked -> granted | denied                     while hubs decide
asked -> absent                               the day by which they were to decide is over
granted -> withdrawn | refused | away         later; the study goes on without them where `study.plans.quorum` lets it
No hub joins once it is settled who takes part.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from flute.coordinator.plans.exchange import Exchange
from flute.coordinator.rounds import Rounds, StudyRow
from flute.messages.question import StudyClosed
from flute.study.agreement import Agreement
from flute.study.files.check import checked_agreement
from flute.study.plans.quorum import GRANTED, LEFT, UNDECIDED, among, goes_on, settled


class Members:
    """Reads and writes decisions, and tells hubs that are left out. The runner deals with rounds under way."""

    def __init__(self, rounds: Rounds, exchange: Exchange) -> None:
        self._rounds = rounds
        self._exchange = exchange

    def decisions(self, study: str) -> dict[str, str]:
        return {hub: str(c["decision"]) for hub, c in self._rounds.consents(study).items()}

    def carried_out(self, row: StudyRow) -> Agreement:
        """The agreement, as the hubs that take part carry it out. Raises: TooFewHubs."""
        taking_part = [hub for hub, decision in self.decisions(row.study).items() if decision == GRANTED]
        return among(checked_agreement(row.agreement).agreement, taking_part)

    def settle(self, row: StudyRow, now: int) -> bool:
        """Fix who takes part, once that can be told; hubs that have not decided by then learn that they do not."""
        decisions = self.decisions(row.study)
        if not settled(checked_agreement(row.agreement).agreement, decisions, now):
            return False
        for hub, decision in decisions.items():
            if decision == UNDECIDED:
                self._rounds.set_consent(row.study, hub, "absent", None, b"", now)
                self.say_closed(row, hub, "left-out", "The day by which hubs were to decide is over.")
        return True

    def goes_on(self, row: StudyRow) -> bool:
        """After a hub said that it takes no part: is the study carried out all the same?"""
        agreement = checked_agreement(row.agreement).agreement
        return goes_on(agreement, self.decisions(row.study), began=row.state == "running")

    def leave_out(self, row: StudyRow, hubs: Sequence[str], decision: str, now: int) -> bool:
        """Go on without hubs that do not answer, or refused, where the agreement allows; else nothing changes."""
        agreement = checked_agreement(row.agreement).agreement
        then = self.decisions(row.study) | dict.fromkeys(hubs, decision)
        if agreement.hubs_min is UNSET or not goes_on(agreement, then, began=True):
            return False
        for hub in hubs:
            self._rounds.set_consent(row.study, hub, decision, None, b"", now)
            self.say_closed(row, hub, "left-out", f"The study goes on without {hub}, which {LEFT[decision]}.")
        return True

    def too_late(self, row: StudyRow, hub: str) -> None:
        self.say_closed(row, hub, "left-out", "It was settled before who takes part.")

    def say_closed(self, row: StudyRow, hub: str, state: str, why: str) -> None:
        self._exchange.send(hub, StudyClosed(row.digest, row.study, state, why[:2000]), row.study)
