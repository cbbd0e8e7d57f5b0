"""Journal lines about a hub's own records: imported, decided about by hand, withdrawn, read. No line holds one.

A patient is named by the digest of his pseudonym at this hub: whoever has the pseudonym can find the line, and
nobody else learns anything from it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from flute.ledger.charge import short
from flute.ledger.lines.line import Line, Short
from flute.messages.limits import Code, Count, Digest, Name, PartyId, StudyId, Text


class Imported(Line, frozen=True, tag="imported"):
    dataset: Name
    recipe: Name
    snapshot: Digest
    patients: Count
    excluded: Count
    resources: Count
    simulated: bool

    def says(self) -> str:
        what = "SIMULATED " if self.simulated else ""
        return (
            f"Imported {what}dataset {self.dataset} by recipe {self.recipe}: {self.patients} patients, "
            f"{self.excluded} excluded, from {self.resources} resources; snapshot {short(self.snapshot)}."
        )


class ByHand(Line, frozen=True, tag="decided-by-hand"):
    """`decision`: keep-in, leave-out, same-person, declare or take-back. `patients`: whom it is about, if anybody."""

    dataset: Name
    person: PartyId
    decision: Code
    patients: Annotated[tuple[Digest, ...], Meta(max_length=16)]
    what: Short
    reason: Text

    def says(self) -> str:
        whom = f" about {', '.join(map(short, self.patients))}" if self.patients else ""
        return f"{self.person} decided {self.decision}{whom} in dataset {self.dataset} ({self.what}): {self.reason}"


class PersonWithdrawn(Line, frozen=True, tag="person-withdrawn"):
    """`datasets`: those that held him. What was released stays released and charged."""

    person: PartyId
    patient: Digest
    datasets: Annotated[tuple[Name, ...], Meta(max_length=64)]
    reason: Text

    def says(self) -> str:
        where = ", ".join(self.datasets) or "no dataset"
        return f"{self.person} withdrew patient {short(self.patient)}, who was in {where}: {self.reason}"


class SnapshotReplaced(Line, frozen=True, tag="snapshot-replaced"):
    """A running private study goes on over other rows than it began with."""

    study: StudyId
    dataset: Name
    old: Digest
    new: Digest

    def says(self) -> str:
        return f"Study {self.study} goes on over snapshot {short(self.new)} in place of {short(self.old)}."


class QualityAlarm(Line, frozen=True, tag="quality-alarm"):
    """`alarms`: what about an import differs from the last one, by fixed words."""

    dataset: Name
    alarms: Annotated[tuple[Code, ...], Meta(max_length=64)]

    def says(self) -> str:
        return f"The import of dataset {self.dataset} differs from the last one: {', '.join(self.alarms)}."
