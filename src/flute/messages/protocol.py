"""Messages of secure aggregation (plan `secagg`), closed and bounded. `aggregation` gives them meaning.

Once per study every hub gives a study key (S). Ahead of each round it gives a ticket (T). Then, per round:

    0 Start      coordinator to hub   the question's digest, everyone's tickets, the shares dealt to this hub
    1 Masked     hub                  its vector under masks: the only large message; a long one in MaskedBlocks
    2 Survivors  coordinator          whose vectors arrived
    3 Echo       hub                  its signature over that set
    4 Echoes     coordinator          everyone's signatures
    5 Shares     hub                  one share per participant: of its self-mask seed where its vector is in the set,
                                      of its private key where it is not, never both; and the hub's next ticket

Mode "passive" leaves out 3 and 4. Every number here is public or masked: none was computed from one
hub's records alone in a way that the others could read.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from flute.defaults import BLOCK_COORDINATES, MAX_HUBS, MAX_STREAMED_VECTOR, SEALED_SHARES_BYTES
from flute.messages.limits import Code, Count, Digest, HubIndex, Key, PartyId, Signature, StudyId, Text

COMMITMENT_SIZE: Final = 16
CHUNK_HOLDERS: Final = 8
"""Holders whose commitments are hashed together: with fewer a ticket takes more hashes, with more message 0 grows."""

Mode = Literal["echo", "passive"]
Hubs = Annotated[tuple[PartyId, ...], Meta(max_length=MAX_HUBS)]
Serial = Annotated[int, Meta(ge=1, le=2**62)]
"""A hub's own count of its tickets in a study; it only grows."""
Share = Annotated[bytes, Meta(min_length=33, max_length=33)]
"""An element of GF(2^256 + 297), big-endian."""
Path = Annotated[tuple[Digest, ...], Meta(max_length=((MAX_HUBS - 1) // CHUNK_HOLDERS).bit_length())]
"""Sibling digests from a chunk to the root."""
Chunk = Annotated[bytes, Meta(min_length=2 * COMMITMENT_SIZE, max_length=2 * COMMITMENT_SIZE * CHUNK_HOLDERS)]
"""The commitments of up to CHUNK_HOLDERS holders next to each other, two for each."""
Box = Annotated[bytes, Meta(min_length=SEALED_SHARES_BYTES, max_length=SEALED_SHARES_BYTES)]
"""AES-256-GCM of a holder's share of the seed and its share of the private key, 33 bytes each."""
Commitment = Annotated[bytes, Meta(min_length=COMMITMENT_SIZE, max_length=COMMITMENT_SIZE)]
"""Of a dealer to one share: a hash cut to 128 bits (`aggregation.commitments` says why that is enough)."""
BlockBytes = Annotated[bytes, Meta(max_length=8 * BLOCK_COORDINATES)]
Size = Annotated[int, Meta(ge=1, le=MAX_STREAMED_VECTOR)]
Width = Literal[16, 21, 32, 64]
"""Bits per coordinate."""


class GroupTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """Who aggregates under which rules: in every ticket and every context, so nothing is reusable elsewhere.

    agreement: fixes width, clip and noise of every step beforehand. hubs: sorted; a hub's place, from 1, is
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
    """Merkle root of the dealer's commitments to every share."""
    signature: Signature
    """By the dealer's roster key, over all of the above."""


class Ticket(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-ticket"):
    """T: good for one round of any kind; dealt once, resent only byte for byte.

    commitments: of the shares of seed and private key, holder by holder in the group's order. boxes: the other
    hubs' in the group's order, the dealer left out.
    """

    pub: TicketPub
    commitments: Annotated[tuple[Commitment, ...], Meta(max_length=2 * MAX_HUBS)]
    boxes: Annotated[tuple[Box, ...], Meta(max_length=MAX_HUBS)]


class SealedShares(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A dealer's box for this hub, the commitments among which this hub's are, and the path from them to the root."""

    dealer: PartyId
    box: Box
    chunk: Chunk
    path: Path


class Start(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-start"):
    """Message 0. Everything but `boxes` is the same for all hubs and enters the context.

    size: coordinates of the answer, sentinels not counted; width: bits of each. pubs: sorted by hub; the round's
    participants.
    """

    terms: GroupTerms
    round: Count
    question: Digest
    size: Size
    width: Width
    pubs: Annotated[tuple[TicketPub, ...], Meta(max_length=MAX_HUBS)]
    boxes: Annotated[tuple[SealedShares, ...], Meta(max_length=MAX_HUBS)]


class Masked(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-masked"):
    """Message 1. The signature binds context, length and SHA-256 of the vector, so that an auditor who is given
    the vector can tell whether the coordinator summed what was sent.

    vector: little-endian words, sentinels last; empty where the vector went ahead in `MaskedBlock`s.
    """

    ctx: Digest
    hub: PartyId
    length: Count
    sha256: Digest
    vector: BlockBytes
    signature: Signature


class MaskedBlock(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-masked-block"):
    """One block of a long vector, ahead of its `Masked`. It is believed once the signed hash of them all fits."""

    ctx: Digest
    hub: PartyId
    index: Count
    words: BlockBytes


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


class Shares(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-shares"):
    """Message 5. shares: one for each participant, in their order. ticket: the hub's next one, for a later round."""

    ctx: Digest
    hub: PartyId
    shares: Annotated[tuple[Share, ...], Meta(max_length=MAX_HUBS)]
    ticket: Ticket | None


class Abort(Struct, frozen=True, forbid_unknown_fields=True, tag="secagg-abort"):
    """A round is given up, by either side. blamed: hubs whose messages were bad."""

    ctx: Digest
    code: Code
    text: Text
    blamed: Hubs
