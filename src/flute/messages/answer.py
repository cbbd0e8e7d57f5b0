"""What a hub may say to the coordinator: consent, sealed protocol parts, refusals. Nothing else leaves.

Import of this module is closed to all but `hub.rounds.round`, `hub.service` and the coordinator
(import-linter): records meet the wire in one file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from flute.defaults import MAX_HUBS, MAX_VECTOR
from flute.messages.enclave import EnclaveBoxes
from flute.messages.limits import Code, Count, Digest, JournalHead, Text
from flute.messages.protocol import Echo, Masked, Shares, StudyKey, Ticket
from flute.messages.talk import Said
from flute.messages.threshold import Contribution, ElementBytes, KeyTerms, OpeningShare


class Receipt(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the hub's journal says that this answer was paid for.

    head: the journal's head at that line, signed by the hub, for the coordinator to keep: an older copy that is
    restored lacks it. Empty where the hub gives none.
    """

    release: Digest
    line: Count
    digest: Digest
    head: JournalHead = b""


class Consent(Struct, frozen=True, forbid_unknown_fields=True, tag="consent"):
    """The steward's decision. `key`: with a grant under a plan with masks, the hub's signed key for this study."""

    agreement: Digest
    decision: Literal["granted", "denied", "withdrawn"]
    key: StudyKey | None
    snapshot: Digest
    """Digest of the frozen records the consent is about; all zero without a grant."""


class TicketGiven(Struct, frozen=True, forbid_unknown_fields=True, tag="ticket-given"):
    ticket: Ticket


class MaskedAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="masked-answer"):
    """Message 1."""

    masked: Masked
    receipt: Receipt


class EchoAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="echo-answer"):
    """Message 3."""

    echo: Echo


class SharesAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="shares-answer"):
    """Message 5, with the ticket for a later round."""

    shares: Shares


class JointBegun(Struct, frozen=True, forbid_unknown_fields=True, tag="joint-begun"):
    """A hub takes part in a talk: the question is charged, and this is its first step."""

    said: Said
    receipt: Receipt


class JointTotal(Struct, frozen=True, forbid_unknown_fields=True, tag="joint-total"):
    """What the hubs opened together, noise and all: int64 little-endian. The same of every hub, or it is not used."""

    session: Digest
    total: Annotated[bytes, Meta(max_length=8 * MAX_VECTOR)]


class KeyBegun(Struct, frozen=True, forbid_unknown_fields=True, tag="key-begun"):
    """A hub takes part in a key ceremony: its first step."""

    said: Said


class KeyReady(Struct, frozen=True, forbid_unknown_fields=True, tag="key-ready"):
    """The key that came out, as this hub knows it."""

    session: Digest
    terms: KeyTerms
    whole: ElementBytes
    shares: Annotated[tuple[ElementBytes, ...], Meta(max_length=MAX_HUBS)]


class EncryptedAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="encrypted-answer"):
    contribution: Contribution
    receipt: Receipt


class OpeningAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="opening-answer"):
    share: OpeningShare


class SplitAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="split-answer"):
    boxes: EnclaveBoxes
    receipt: Receipt


class OwnTotal(Struct, frozen=True, forbid_unknown_fields=True, tag="own-total"):
    """One hub's own sum under its own noise: int64 little-endian on the mechanism's grid."""

    total: Annotated[bytes, Meta(max_length=8 * MAX_VECTOR)]
    receipt: Receipt


class Refused(Struct, frozen=True, forbid_unknown_fields=True, tag="refused"):
    """The hub said no. A code and fixed text; no record, secret or trace."""

    code: Code
    text: Text
