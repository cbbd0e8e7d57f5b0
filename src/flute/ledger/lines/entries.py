"""What a journal line can say: a closed set of kinds, each a closed struct with bounded fields.

No kind can hold a record: fields are ids, digests, counts, prices and short sentences of ours. A test walks
every kind and every field to prove it. Kinds are never removed or changed, only added: a journal is read
for as long as the law keeps it.

`says` is the line as a sentence for a steward or an auditor.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from flute.defaults import MAX_JOURNAL_LINE_BYTES
from flute.errors import LedgerError, MisuseError
from flute.ledger.charge import Charge, Outcome, short
from flute.ledger.lines.budget import (
    AllotmentMoved,
    Allotted,
    ChangeConfirmed,
    ChangeDropped,
    ChangeProposed,
    JournalRecovered,
    StewardEnrolled,
    StewardRemoved,
    WitnessKept,
)
from flute.ledger.lines.data import ByHand, Imported, PersonWithdrawn, QualityAlarm, SnapshotReplaced
from flute.ledger.lines.line import Line, Short, Word
from flute.messages.envelope import MaybeDigest
from flute.messages.limits import Code, Count, Digest, Key, Name, PartyId, Seconds, StudyId, Text


class ServiceStarted(Line, frozen=True, tag="service-started"):
    version: Short
    code: Digest

    def says(self) -> str:
        return f"The hub service started, version {self.version}, algorithm code {short(self.code)}."


class StudyProposed(Line, frozen=True, tag="study-proposed"):
    study: StudyId
    agreement: Digest
    researcher: PartyId

    def says(self) -> str:
        return f"{self.researcher} proposed study {self.study}, agreement {short(self.agreement)}."


class ConsentGranted(Line, frozen=True, tag="consent-granted"):
    study: StudyId
    agreement: Digest
    snapshot: Digest
    person: PartyId

    def says(self) -> str:
        return f"{self.person} granted study {self.study}, agreement {short(self.agreement)}."


class ConsentFollowed(Line, frozen=True, tag="consent-followed"):
    """A study was granted unread. `alike`: the study on account of which; `person`: who let others follow that."""

    study: StudyId
    agreement: Digest
    snapshot: Digest
    person: PartyId
    alike: StudyId

    def says(self) -> str:
        return (
            f"Study {self.study}, agreement {short(self.agreement)}, was granted unread: {self.person} lets studies "
            f"alike {self.alike} follow it."
        )


class ConsentStands(Line, frozen=True, tag="consent-stands"):
    """`epsilon`: of all alike studies together, the first included, at its delta. `until`: Unix seconds."""

    study: StudyId
    agreement: Digest
    person: PartyId
    epsilon: Annotated[float, Meta(gt=0, le=100)]
    until: Seconds

    def says(self) -> str:
        return (
            f"{self.person} lets private studies alike {self.study} be granted unread, up to epsilon "
            f"{self.epsilon:g} in all."
        )


class ConsentStandsNoMore(Line, frozen=True, tag="consent-stands-no-more"):
    study: StudyId
    person: PartyId
    reason: Text

    def says(self) -> str:
        why = self.reason or "no reason given"
        return f"{self.person} lets no further study follow {self.study} unread: {why}"


class ConsentDenied(Line, frozen=True, tag="consent-denied"):
    study: StudyId
    agreement: Digest
    person: PartyId
    reason: Text

    def says(self) -> str:
        return f"{self.person} denied study {self.study}: {self.reason or 'no reason given'}"


class ConsentWithdrawn(Line, frozen=True, tag="consent-withdrawn"):
    study: StudyId
    agreement: Digest
    person: PartyId
    reason: Text

    def says(self) -> str:
        return f"{self.person} withdrew the consent to study {self.study}: {self.reason or 'no reason given'}"


class StudyClosed(Line, frozen=True, tag="study-closed"):
    study: StudyId
    state: Code
    reason: Text

    def says(self) -> str:
        return f"Study {self.study} was closed ({self.state}): {self.reason or 'no reason given'}"


class QuestionReceived(Line, frozen=True, tag="question-received"):
    study: StudyId
    question: Name
    step: Count
    sender: PartyId
    envelope: Digest
    bytes_received: Count

    def says(self) -> str:
        return (
            f"{self.sender} asked step {self.step} of question {self.question} of study {self.study} "
            f"({self.bytes_received} bytes, message {short(self.envelope)})."
        )


class Refused(Line, frozen=True, tag="refused"):
    """`study`, `sender` and `what` are claims of the message: it may have been forged."""

    code: Code
    text: Text
    sender: Word
    what: Word
    study: Word = ""
    envelope: MaybeDigest = b""

    def says(self) -> str:
        about = f" about study {self.study}" if self.study else ""
        sender = self.sender or "an unknown sender"
        return f"Refused {self.what or 'a message'} from {sender}{about} ({self.code}): {self.text}"


class Reserved(Line, frozen=True, tag="reserved"):
    charge: Charge

    @property
    def study(self) -> str:
        return self.charge.study

    def says(self) -> str:
        c = self.charge
        return f"Reserved {c.price} for {c.where}, asked by {c.asker}; release {short(c.release_id)}."


class Settled(Line, frozen=True, tag="settled"):
    study: StudyId
    release_id: Digest
    outcome: Outcome
    total: MaybeDigest = b""
    """Digest of the opened total as this hub was told; the same at all hubs, or somebody was told another."""

    def says(self) -> str:
        told = f" The total that was opened: {short(self.total)}." if self.total else ""
        what = f"Release {short(self.release_id)} of study {self.study} ended: {self.outcome}."
        return f"{what} Its charge stands.{told}"


class RecordSourceOpened(Line, frozen=True, tag="record-source-opened"):
    study: StudyId
    question: Name
    release_id: MaybeDigest
    """Empty where the hub looked for itself (the floor of an exact study), before anything was asked."""
    snapshot: Digest
    fields: Annotated[tuple[Name, ...], Meta(max_length=256)]

    def says(self) -> str:
        return f"Records were read for question {self.question} of study {self.study}: {', '.join(self.fields)}."


class Released(Line, frozen=True, tag="released"):
    study: StudyId
    question: Name
    step: Count
    release_id: Digest
    envelope: Digest
    bytes_sent: Count

    def says(self) -> str:
        return (
            f"An answer to step {self.step} of question {self.question} of study {self.study} left: "
            f"{self.bytes_sent} bytes, message {short(self.envelope)}, release {short(self.release_id)}."
        )


class Resent(Line, frozen=True, tag="resent"):
    study: StudyId
    release_id: MaybeDigest
    envelope: Digest
    recipient: PartyId

    def says(self) -> str:
        return f"Message {short(self.envelope)} of study {self.study} was resent, byte for byte, to {self.recipient}."


class ProtocolStep(Line, frozen=True, tag="protocol-step"):
    """A part of the aggregation protocol that must happen once: an echo signed, shares opened."""

    study: StudyId
    step: Code
    context: Digest
    envelope: MaybeDigest

    def says(self) -> str:
        return f"Protocol step {self.step} of study {self.study} in round {short(self.context)}."


class EvidenceAccepted(Line, frozen=True, tag="evidence-accepted"):
    """An enclave whose evidence this hub appraised, and which got a share of an answer. measurement: its digest."""

    study: StudyId
    aggregator: Name
    maker: Word
    measurement: Digest
    development: bool

    def says(self) -> str:
        only = ", DEVELOPMENT evidence" if self.development else ""
        return (
            f"Aggregator {self.aggregator} of study {self.study} was accepted on the word of {self.maker}{only}: "
            f"software {short(self.measurement)}."
        )


class TicketDealt(Line, frozen=True, tag="ticket-dealt"):
    study: StudyId
    ticket: Digest

    def says(self) -> str:
        return f"Ticket {short(self.ticket)} of study {self.study} was dealt."


class TicketBurnt(Line, frozen=True, tag="ticket-burnt"):
    study: StudyId
    ticket: Digest
    reason: Code

    def says(self) -> str:
        return f"Ticket {short(self.ticket)} of study {self.study} was burnt for good ({self.reason})."


class KeyMade(Line, frozen=True, tag="key-made"):
    purpose: Code
    public: Key
    study: StudyId = ""

    def says(self) -> str:
        return f"A key was made for {self.purpose}{_of(self.study)}, public part {short(self.public)}."


class KeyErased(Line, frozen=True, tag="key-erased"):
    purpose: Code
    public: Key
    study: StudyId = ""

    def says(self) -> str:
        return f"The key for {self.purpose}{_of(self.study)} was erased, public part {short(self.public)}."


class PolicySet(Line, frozen=True, tag="policy-set"):
    person: PartyId
    policy: Digest
    text: Text
    study: StudyId = ""

    def says(self) -> str:
        return f"{self.person} set this hub's policy{_of(self.study)}: {self.text}"


class RosterAccepted(Line, frozen=True, tag="roster-accepted"):
    version: Count
    roster: Digest
    expires_at: Seconds

    def says(self) -> str:
        return f"Roster version {self.version} was accepted, digest {short(self.roster)}."


class PersonAct(Line, frozen=True, tag="person-act"):
    """Anything a person did here that has no kind of its own: signed in, opened a page, exported a result."""

    person: PartyId
    act: Code
    target: Short
    study: StudyId = ""

    def says(self) -> str:
        return f"{self.person}: {self.act} {self.target}{_of(self.study)}".rstrip() + "."


Entry = (
    ServiceStarted | Imported | ByHand | PersonWithdrawn | SnapshotReplaced | QualityAlarm
    | StudyProposed | ConsentGranted | ConsentDenied | ConsentWithdrawn | StudyClosed
    | ConsentFollowed | ConsentStands | ConsentStandsNoMore
    | QuestionReceived | Refused | Reserved | Settled | RecordSourceOpened | Released | Resent | ProtocolStep
    | EvidenceAccepted
    | TicketDealt | TicketBurnt | KeyMade | KeyErased | PolicySet | RosterAccepted | PersonAct
    | Allotted | AllotmentMoved | StewardEnrolled | StewardRemoved | ChangeProposed | ChangeConfirmed | ChangeDropped
    | WitnessKept | JournalRecovered
)  # fmt: skip
"""The closed set."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Entry]] = msgspec.msgpack.Decoder(Entry)
_UNREADABLE: Final = (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError)


def write_entry(entry: Entry) -> bytes:
    """Canonical bytes: an entry has one encoding, whatever way its numbers were typed (1 or 1.0).

    Raises: MisuseError: a field is over its bound, not finite, or of another type.
    """
    try:
        raw = _ENCODER.encode(_DECODER.decode(_ENCODER.encode(entry)))
    except (*_UNREADABLE, TypeError, OverflowError) as error:
        raise MisuseError(f"A {kind_of(entry)!r} line cannot be written: a field of it is out of bounds.") from error
    if len(raw) > MAX_JOURNAL_LINE_BYTES:
        raise MisuseError(f"A {kind_of(entry)!r} line of {len(raw)} bytes is over the limit.")
    return raw


def read_entry(raw: bytes) -> Entry:
    """Raises: LedgerError: no kind this version knows (a newer one may have written it)."""
    try:
        return _DECODER.decode(raw)
    except _UNREADABLE as error:
        raise LedgerError(
            "A journal line is of a kind that this version does not know; a newer version wrote it, use that one."
        ) from error


def kind_of(entry: Entry) -> str:
    return str(entry.__struct_config__.tag)


def study_of(entry: Entry) -> str:
    """The study a line is about; empty where it is about none."""
    return str(getattr(entry, "study", ""))


def _of(study: str) -> str:
    return f" of study {study}" if study else ""
