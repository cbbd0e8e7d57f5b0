"""Journal lines about the budget itself: allotments, changes of the hub's policy and who agreed, lost journals."""

from __future__ import annotations

from flute.ledger.charge import Amount, Place, short
from flute.ledger.lines.line import Line
from flute.messages.limits import Code, Count, Digest, Key, Name, PartyId, Seconds, Signature, Text


class Allotted(Line, frozen=True, tag="allotted"):
    """From now on `place` may spend `amount` in all, what it spent before included."""

    person: PartyId
    place: Place
    persons: Name
    """Dataset whose budget it is part of."""
    amount: Amount
    reason: Text

    @property
    def study(self) -> str:
        return self.place.study

    def says(self) -> str:
        return f"{self.person} allotted {self.amount.words} to {self.place.words}: {self.reason or 'no reason given'}"


class AllotmentMoved(Line, frozen=True, tag="allotment-moved"):
    person: PartyId
    source: Place
    target: Place
    amount: Amount
    reason: Text

    @property
    def study(self) -> str:
        return self.source.study

    def says(self) -> str:
        return (
            f"{self.person} moved {self.amount.words} from {self.source.words} to {self.target.words}: "
            f"{self.reason or 'no reason given'}"
        )


class StewardEnrolled(Line, frozen=True, tag="steward-enrolled"):
    """Somebody whose key counts when this hub's policy is to allow more. `person`: who enrolled him."""

    person: PartyId
    steward: PartyId
    public: Key

    def says(self) -> str:
        return f"{self.person} enrolled steward {self.steward}, key {short(self.public)}."


class StewardRemoved(Line, frozen=True, tag="steward-removed"):
    person: PartyId
    steward: PartyId

    def says(self) -> str:
        return f"{self.person} removed steward {self.steward}, whose key counts no more."


class ChangeProposed(Line, frozen=True, tag="change-proposed"):
    """Something that needs a second person. `signature`: the proposer's, over the change."""

    person: PartyId
    change: Digest
    what: Code
    ends: Seconds
    signature: Signature
    text: Text

    def says(self) -> str:
        return f"{self.person} proposed change {short(self.change)} ({self.what}): {self.text}"


class ChangeConfirmed(Line, frozen=True, tag="change-confirmed"):
    """By a second person. `signature`: that person's, over the change."""

    person: PartyId
    change: Digest
    what: Code
    signature: Signature

    def says(self) -> str:
        return f"{self.person} confirmed change {short(self.change)} ({self.what}), which took effect."


class ChangeDropped(Line, frozen=True, tag="change-dropped"):
    person: PartyId
    change: Digest
    reason: Text

    def says(self) -> str:
        return f"{self.person} dropped change {short(self.change)}: {self.reason or 'no reason given'}"


class WitnessKept(Line, frozen=True, tag="witness-kept"):
    """A missing witness is a reason not to start, once there was one. Where it is says no export: it is a path."""

    def says(self) -> str:
        return "From here on the newest head is also kept outside this folder."


class JournalRecovered(Line, frozen=True, tag="journal-recovered"):
    """An older copy was taken over for good. What it lacks is unknown, so every account counts as having spent at
    least what its ceiling allowed: `per_study` and `per_dataset`."""

    person: PartyId
    found: Count
    """The last line of the copy."""
    lost: Count
    """A line that had been written: its number and digest."""
    lost_digest: Digest
    per_study: Amount
    per_dataset: Amount
    reason: Text

    def says(self) -> str:
        return (
            f"{self.person} went on from an older copy of this journal that ends at line {self.found}; line "
            f"{self.lost} had been written. Every study counts as having spent {self.per_study.words}, every dataset "
            f"{self.per_dataset.words}: {self.reason or 'no reason given'}"
        )
