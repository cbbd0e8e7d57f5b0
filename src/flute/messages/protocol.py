"""Messages of secure aggregation (plan `secagg`), closed and bounded. `aggregation` gives them meaning.

Once per study every hub gives a study key (S). Ahead of each round it gives a ticket (T). Then, per round:

    0 Start      coordinator to hub   the question's digest, everyone's tickets, the shares dealt to this hub
    1 Masked     hub                  its vector under masks: the only large message
    2 Survivors  coordinator          whose vectors arrived
    3 Echo       hub                  its signature over that set
    4 Echoes     coordinator          everyone's signatures
    5 Shares     hub                  its shares of the survivors' self-mask seeds, and its next ticket

Mode "passive" leaves out 3 and 4. Every number here is public or masked: none was computed from one
hub's records alone in a way that the others could read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from flute.defaults import MAX_HUBS, MAX_SEALED_SHARES_BYTES, MAX_VECTOR, SENTINELS
from flute.messages.limits import Code, Count, Digest, HubIndex, Key, PartyId, Signature, StudyId, Text

Mode = Literal["echo", "passive"]
Hubs = Annotated[tuple[PartyId, ...], Meta(max_length=MAX_HUBS)]
Serial = Annotated[int, Meta(ge=1, le=2**62)]
"""A hub's own count of its tickets in a study; it only grows."""
Share = Annotated[bytes, Meta(min_length=33, max_length=33)]
"""An element of GF(2^256 + 297), big-endian."""
Salt = Annotated[bytes, Meta(min_length=32, max_length=32)]
Path = Annotated[tuple[Digest, ...], Meta(max_length=(2 * MAX_HUBS - 1).bit_length())]
"""Sibling digests from a leaf to the root, over two leaves per hub."""
Box = Annotated[bytes, Meta(min_length=16, max_length=MAX_SEALED_SHARES_BYTES)]
"""AES-256-GCM of a `DealtShares`."""
MaskedWords = Annotated[bytes, Meta(min_length=8 * (1 + SENTINELS), max_length=8 * (MAX_VECTOR + SENTINELS))]
Size = Annotated[int, Meta(ge=1, le=MAX_VECTOR)]


class GroupTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """Who aggregates under which rules: in every ticket and every context, so nothing is reusable elsewhere.

    agreement: fixes codec, clip and noise of every step beforehand. hubs: sorted; a hub's place, from 1, is
    its x among share holders. threshold: shares that open a seed. colluding: hubs that may work together
    with the coordinator; a hub run by the coordinator's operator counts as one. survivors_min: the smallest
    set that may be summed. exact: no noise covers the sum. `aggregation.terms.check` holds the rules.
    """

    study: StudyId
    agreement: Digest
    roster: Digest
    roster_version: Count
    hubs: Hubs
    threshold: HubIndex
    colluding: Annotated[int, Meta(ge=0, le=MAX_HUBS)]
    survivors_min: HubIndex
    mode: Mode
    exact: bool


class StudyKey(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-study-key"):
    """S: a hub's X25519 key for this study alone, signed with its roster key, so that it can be forwarded."""

    study: StudyId
    agreement: Digest
    hub: PartyId
    public: Key
    signature: Signature


class Opening(Struct, frozen=True, forbid_unknown_fields=True):
    """A share with what shows that its dealer committed to it."""

    share: Share
    salt: Salt
    path: Path


class DealtShares(Struct, frozen=True, forbid_unknown_fields=True):
    """What a box holds: one holder's shares of a ticket's seed b and of its private key e."""

    seed: Opening
    point: Opening


class TicketPub(Struct, frozen=True, forbid_unknown_fields=True):
    """The public part of a ticket. terms: digest of the group terms under which it was dealt."""

    study: StudyId
    hub: PartyId
    serial: Serial
    terms: Digest
    point: Key
    """X25519 public key e·G of one round's pairwise masks."""
    seed_commitment: Digest
    """Salted SHA-256 of the self-mask seed b."""
    shares_root: Digest
    """Merkle root of commitments to every share."""
    signature: Signature
    """By the dealer's roster key, over all of the above."""


class SealedShares(Struct, frozen=True, forbid_unknown_fields=True):
    """`hub`: the other end — the holder in a `Ticket`, the dealer in a `Start`."""

    hub: PartyId
    box: Box


Boxes = Annotated[tuple[SealedShares, ...], Meta(max_length=MAX_HUBS)]


class Ticket(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-ticket"):
    """T: good for one round of any kind; dealt once, resent only byte for byte."""

    pub: TicketPub
    boxes: Boxes


class Start(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-start"):
    """Message 0. Everything but `boxes` is the same for all hubs and enters the context.

    size: coordinates of the answer, sentinels not counted. pubs: sorted by hub; the round's participants.
    """

    terms: GroupTerms
    round: Count
    question: Digest
    size: Size
    pubs: Annotated[tuple[TicketPub, ...], Meta(max_length=MAX_HUBS)]
    boxes: Boxes


class Masked(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-masked"):
    """Message 1. vector: little-endian 64-bit words, sentinels last. The signature binds context, length and
    SHA-256 of the vector, so that an auditor can tell later whether the coordinator summed what was sent."""

    ctx: Digest
    hub: PartyId
    vector: MaskedWords
    signature: Signature


class Survivors(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-survivors"):
    """Message 2."""

    ctx: Digest
    hubs: Hubs


class Echo(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-echo"):
    """Message 3. The signature is over the context and the set that this hub was told."""

    ctx: Digest
    hub: PartyId
    signature: Signature


class Echoes(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-echoes"):
    """Message 4."""

    ctx: Digest
    echoes: Annotated[tuple[Echo, ...], Meta(max_length=MAX_HUBS)]


class SeedShare(Struct, frozen=True, forbid_unknown_fields=True):
    """The sender's share of `dealer`'s self-mask seed."""

    dealer: PartyId
    opening: Opening


class Shares(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-shares"):
    """Message 5. ticket: the hub's next one, for a later round."""

    ctx: Digest
    hub: PartyId
    seeds: Annotated[tuple[SeedShare, ...], Meta(max_length=MAX_HUBS)]
    ticket: Ticket | None


class Abort(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-abort"):
    """A round is given up, by either side. blamed: hubs whose messages were bad."""

    ctx: Digest
    code: Code
    text: Text
    blamed: Hubs
