"""Messages of threshold encryption (plan `threshold-he`), closed and bounded. `threshold` gives them meaning.

Once per study, the key ceremony, hub to hub through the coordinator:

    1 KeyCommitment     to all        a hash of the message 2 that is to come
    2 KeyDealing        to all        what the hub deals, in the exponent, with proof that it knows it
      KeyDealtShare     to one hub    SECRET: the receiver's share. The caller seals it to that hub
    3 KeyConfirmation   to all        which dealings this hub saw and holds right shares of; or
      KeyComplaint      to all        a share that its dealer signed and that does not fit

Then, for each vector of sums:

    1 Contribution      to all        a hub's numbers, encrypted, with proof that it made them
      RangeProof        to all        optional: that its numbers are in a range
    2 OpeningShare      to all        a hub's part of the opening of one sum, with proof

Every message is signed with the hub's roster key over all of its other fields, so that it can be forwarded and
held against its sender. Only `KeyDealtShare` is secret.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from flute.defaults import MAX_HUBS
from flute.defaults.threshold import MAX_CELLS, MAX_KEY_ATTEMPTS, MAX_PROVED_BITS, MAX_RANGE_BITS, MAX_TOTAL
from flute.messages.limits import Count, Digest, HubIndex, PartyId, Signature, StudyId

ElementBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""An element of ristretto255 (RFC 9496), or what claims to be one."""
ScalarBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""A number below the group's order, little-endian, or what claims to be one."""
Column = Annotated[bytes, Meta(min_length=32, max_length=32 * MAX_CELLS)]
"""Elements one after the other, one for each cell."""
BitColumn = Annotated[bytes, Meta(max_length=32 * MAX_PROVED_BITS)]
"""Elements or scalars, one for each proved bit."""
Hubs = Annotated[tuple[PartyId, ...], Meta(min_length=2, max_length=MAX_HUBS)]


class KeyTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """Who shares a key under which rules: in every message's context, so nothing is reusable elsewhere.

    hubs: sorted; a hub's place, from 1, is its x. threshold: hubs that must agree to open. colluding: hubs that may
    work together with the coordinator and the researcher. contributors_min: the fewest hubs that a sum which is
    opened may be over. attempt: of this study's ceremonies; nothing of an earlier one is usable.
    """

    study: StudyId
    agreement: Digest
    roster: Digest
    roster_version: Count
    hubs: Hubs
    threshold: HubIndex
    colluding: Annotated[int, Meta(ge=0, le=MAX_HUBS)]
    contributors_min: HubIndex
    attempt: Annotated[int, Meta(ge=1, le=MAX_KEY_ATTEMPTS)]


class KeyCommitment(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-key-commitment"):
    """Nobody shows what it deals before everybody has committed: so no dealing depends on another."""

    ctx: Digest
    hub: PartyId
    commitment: Digest
    signature: Signature


class Possession(Struct, frozen=True, forbid_unknown_fields=True):
    """Proof of knowledge of all the numbers behind a dealing: a challenge, a response for each."""

    challenge: ScalarBytes
    responses: Annotated[tuple[ScalarBytes, ...], Meta(max_length=MAX_HUBS)]


class KeyDealing(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-key-dealing"):
    """elements: the dealer's polynomial in the exponent, constant first, `threshold` of them. salt: of its
    commitment."""

    ctx: Digest
    hub: PartyId
    elements: Annotated[tuple[ElementBytes, ...], Meta(max_length=MAX_HUBS)]
    possession: Possession
    salt: Digest
    signature: Signature


class KeyDealtShare(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-key-dealt-share"):
    """SECRET, for `holder` alone. dealing: digest of the dealing that it belongs to."""

    ctx: Digest
    hub: PartyId
    holder: PartyId
    dealing: Digest
    share: ScalarBytes
    signature: Signature

    def __repr__(self) -> str:
        return f"<KeyDealtShare of {self.hub} for {self.holder}: secret>"


class KeyComplaint(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-key-complaint"):
    """Either the dealer or the complainer is named by it, and anybody can tell which. Ends the attempt, so that the
    share which it lays open is worth nothing."""

    ctx: Digest
    hub: PartyId
    dealing: KeyDealing
    shown: KeyDealtShare
    signature: Signature


class KeyConfirmation(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-key-confirmation"):
    """dealings: digests of everyone's commitment and dealing as this hub saw them, in the terms' order."""

    ctx: Digest
    hub: PartyId
    dealings: Annotated[tuple[Digest, ...], Meta(max_length=MAX_HUBS)]
    signature: Signature


class SumTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """One vector of sums. Every hub makes this from the question it admitted; what it says is in every proof's
    context.

    key: digest of the public key. question: digest of the admitted question. round: of the study; a hub contributes
    once per context. size: cells. bound: largest total, either sign. contributors: sorted; the sum is over exactly
    these.
    """

    key: Digest
    question: Digest
    round: Count
    size: Annotated[int, Meta(ge=1, le=MAX_CELLS)]
    bound: Annotated[int, Meta(ge=1, le=MAX_TOTAL)]
    contributors: Hubs


class Contribution(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-contribution"):
    """pads: r·G for each cell, then boxes: r·Y + m·G; 64 bytes per number. challenge, response: proof that whoever is
    named here knows every r, so that nobody passes off as its own what it made from another's."""

    ctx: Digest
    hub: PartyId
    pads: Column
    boxes: Column
    challenge: ScalarBytes
    response: ScalarBytes
    signature: Signature


class RangeProof(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-range-proof"):
    """That every number of a contribution is one of low .. low + 2^bits - 1.

    contribution: its digest. pads, boxes: encryptions of all bits but the lowest, cell by cell; the lowest one's
    follows from them and the cell. challenge: one for all bits. splits: of each bit, its part for "this is 0". zeros,
    ones: of each bit, the responses for "this is 0" and "this is 1".
    """

    ctx: Digest
    hub: PartyId
    contribution: Digest
    low: Annotated[int, Meta(ge=-MAX_TOTAL, le=MAX_TOTAL)]
    bits: Annotated[int, Meta(ge=1, le=MAX_RANGE_BITS)]
    pads: BitColumn
    boxes: BitColumn
    challenge: ScalarBytes
    splits: BitColumn
    zeros: BitColumn
    ones: BitColumn
    signature: Signature


class OpeningShare(Struct, frozen=True, forbid_unknown_fields=True, tag="threshold-opening-share"):
    """summed: digest of all contributions that the sum is over. parts: x·A for each cell's summed pad A. challenge,
    response: one proof for all of them."""

    ctx: Digest
    hub: PartyId
    summed: Digest
    parts: Column
    challenge: ScalarBytes
    response: ScalarBytes
    signature: Signature
