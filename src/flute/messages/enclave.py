"""Messages of plans with enclaves, closed and bounded. `enclaves` gives them meaning.

Per round, with k aggregators, each in an enclave of its own:

    0 Duty     coordinator to each aggregator   agreement and roster, word for word, and the round's number
    1 Offer    aggregator                       its two keys of this round, and evidence that binds them
    2 Start    coordinator to hub               the question's digest, all offers, the approved policies
      Begin    coordinator to each aggregator   the same without evidence, and without the secret check key
    3 Boxes    hub                              one sealed share for each aggregator, signed as one list
    4 Box      coordinator to one aggregator    its box of one hub, and the digests of that hub's other boxes
      Taken    aggregator                       whose boxes it has
    5 Finish   coordinator to each aggregator   nothing more comes
      Total    aggregator                       the sum of its shares, signed, and whose lists it was over

Shares are uniform to whoever lacks one of them; what is not sealed is public.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from flute.defaults import MAX_AGGREGATORS, MAX_HUBS, MAX_ROSTER_BYTES, MAX_VECTOR
from flute.defaults.enclaves import MAX_SHARE_BYTES, MIN_AGGREGATORS, SEAL_BYTES
from flute.defaults.evidence import MAX_COLLATERAL_BYTES, MAX_EVIDENCE_BYTES, MAX_POLICY_BYTES
from flute.messages.limits import Code, Count, Digest, Key, Name, PartyId, Signature, StudyId, Text
from flute.messages.protocol import Width

Hubs = Annotated[tuple[PartyId, ...], Meta(max_length=MAX_HUBS)]
_Each = Meta(min_length=MIN_AGGREGATORS, max_length=MAX_AGGREGATORS)
"""One entry for each aggregator, in the agreement's order."""
SealedShare = Annotated[bytes, Meta(min_length=SEAL_BYTES, max_length=MAX_SHARE_BYTES + SEAL_BYTES)]
"""HPKE of a 32-byte seed, or, for the last aggregator, of the share's words."""
PolicyBytes = Annotated[bytes, Meta(min_length=2, max_length=MAX_POLICY_BYTES)]
"""An appraisal policy in canonical JSON; the roster approves its digest."""
Size = Annotated[int, Meta(ge=1, le=MAX_VECTOR)]


class EnclaveTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """Who adds up for whom: in every context and in the evidence, so nothing is reusable elsewhere.

    hubs: sorted; a sum is over all of them. aggregators: in the agreement's order; the last one's share is the long
    one. simulated: no record is real, so DEVELOPMENT evidence may do.
    """

    study: StudyId
    agreement: Digest
    roster: Digest
    roster_version: Count
    hubs: Hubs
    aggregators: Annotated[tuple[Name, ...], _Each]
    simulated: bool


class EnclaveDuty(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-duty"):
    """Message 0. What an aggregator needs to know whom it may add up for; it believes none of it: the digests of
    these very bytes are in its evidence, and no hub seals to a key under other ones."""

    agreement: Annotated[bytes, Meta(max_length=256 * 1024)]
    signature: Signature
    roster: Annotated[bytes, Meta(max_length=MAX_ROSTER_BYTES)]
    aggregator: Name
    round: Count


class EnclaveOffer(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-offer"):
    """Message 1. `terms`: their digest. Keys: X25519 and Ed25519, made inside, of this round alone."""

    terms: Digest
    aggregator: Name
    round: Count
    sealing_key: Key
    signing_key: Key
    evidence: Annotated[bytes, Meta(max_length=MAX_EVIDENCE_BYTES)]
    collateral: Annotated[bytes, Meta(max_length=MAX_COLLATERAL_BYTES)]
    """Empty where the evidence needs none."""


class EnclaveStart(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-start"):
    """Message 2 to hubs. SECRET from aggregators: `check_key`, by which a changed total is noticed."""

    terms: EnclaveTerms
    round: Count
    question: Digest
    size: Size
    width: Width
    offers: Annotated[tuple[EnclaveOffer, ...], _Each]
    policies: Annotated[tuple[PolicyBytes, ...], _Each]
    check_key: Key

    def __repr__(self) -> str:
        return f"<EnclaveStart: study {self.terms.study}, round {self.round}>"


class AggregatorKeys(Struct, frozen=True, forbid_unknown_fields=True):
    aggregator: Name
    sealing_key: Key
    signing_key: Key


class EnclaveBegin(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-begin"):
    """Message 2 to aggregators. check: digest of the check key."""

    terms: EnclaveTerms
    round: Count
    question: Digest
    size: Size
    width: Width
    keys: Annotated[tuple[AggregatorKeys, ...], _Each]
    check: Digest


class EnclaveBoxes(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-boxes"):
    """Message 3. The signature is over the context, the hub and the digests of all boxes."""

    ctx: Digest
    hub: PartyId
    boxes: Annotated[tuple[SealedShare, ...], _Each]
    signature: Signature


class EnclaveBox(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-box"):
    """Message 4: one box of a hub's list, and its signature over all of them."""

    ctx: Digest
    hub: PartyId
    digests: Annotated[tuple[Digest, ...], _Each]
    box: SealedShare
    signature: Signature


class EnclaveTaken(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-taken"):
    """Whose boxes this aggregator has; after `Begin` nobody's."""

    ctx: Digest
    hubs: Hubs


class EnclaveFinish(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-finish"):
    """Message 5."""

    ctx: Digest


class EnclaveTotal(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-total"):
    """An aggregator's part of the total. lists: digest of each hub's signed list, in the order of the terms' hubs.
    words: little-endian; sentinels and check numbers last."""

    ctx: Digest
    aggregator: Name
    lists: Annotated[tuple[Digest, ...], Meta(max_length=MAX_HUBS)]
    words: Annotated[bytes, Meta(min_length=2, max_length=MAX_SHARE_BYTES)]
    signature: Signature


class EnclaveGivenUp(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-given-up"):
    """The coordinator to an aggregator: this round ends here; its keys and sums are forgotten. Also its answer."""

    ctx: Digest


class EnclaveRefused(Struct, frozen=True, forbid_unknown_fields=True, tag="enclave-refused"):
    """An aggregator says no. blamed: hubs whose boxes were bad."""

    code: Code
    text: Text
    blamed: Hubs = ()


AggregatorCall = EnclaveDuty | EnclaveBegin | EnclaveBox | EnclaveFinish | EnclaveGivenUp
AggregatorAnswer = EnclaveOffer | EnclaveTaken | EnclaveTotal | EnclaveGivenUp | EnclaveRefused
