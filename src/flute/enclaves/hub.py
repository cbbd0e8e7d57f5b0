"""A hub's side of plan `enclave`: it decides whether to trust the aggregators, then splits its answer among them.

The answer's words x, sentinels and check numbers behind them, become k shares whose sum is x modulo 2^16, 2^32 or
2^64: k - 1 streams of fresh keys, and x less all of them. Any k - 1 shares are uniform, whatever x is. Each share is
sealed to one aggregator's attested key; the list of all boxes is signed, so nobody can give aggregators boxes of two
lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import Bounds, Layout
from flute.attestation.appraise import Accepted
from flute.attestation.roots import MAKERS, Roots
from flute.defaults import MAX_VECTOR
from flute.enclaves.checks import with_checks
from flute.enclaves.context import (
    begin_of,
    box_digest,
    box_info,
    check_terms,
    list_to_sign,
    round_context,
    share_key,
)
from flute.enclaves.offers import Approved, accept_offers
from flute.errors import Equivocation, MisuseError, NotPossible
from flute.messages.enclave import EnclaveBoxes, EnclaveStart, EnclaveTerms
from flute.primitives.keys import SigningKey, seal
from flute.primitives.prg import PRG_KEY_SIZE, Stream
from flute.primitives.ring import Ring, to_bytes


@dataclass(frozen=True, slots=True)
class Admitted:
    """A start whose aggregators this hub has accepted; `admit` alone makes it. Nothing else can be split for.

    accepted: one for each aggregator, in the order of the terms; for the journal and for whoever asks.
    """

    start: EnclaveStart
    ctx: bytes
    layout: Layout
    accepted: tuple[Accepted, ...]


def rand_size(terms: EnclaveTerms) -> int:
    """Fresh random bytes that one split takes."""
    return PRG_KEY_SIZE * (len(terms.aggregators) - 1)


def admit(
    start: EnclaveStart, *, terms: EnclaveTerms, layout: Layout, question: bytes, approved: Approved, now: int,
    roots: Roots = MAKERS,
) -> Admitted:  # fmt: skip
    """Check message 2. Pure: no record is read, nothing is charged yet.

    Args: terms, layout, question: as this hub derives them from the signed agreement, the roster and what it was
    asked. approved: `Roster.approved`.
    Raises: NotPossible: the terms break a rule, or the vector is too long. Equivocation: the coordinator named other
    terms, another question, layout or policy. CodeNotApproved, EvidenceError: as `offers.accept_offers`.
    """
    check_terms(terms)
    if layout.size > MAX_VECTOR or layout.blocks != 1:
        raise NotPossible(f"Plan enclave adds up vectors of {MAX_VECTOR} numbers; this step has {layout.size}.")
    if start.terms != terms:
        raise Equivocation(
            "The coordinator names other hubs, aggregators, another agreement or roster than this hub knows. Nothing "
            "is sealed; compare roster versions."
        )
    if (start.question, start.size, start.width) != (question, layout.size, layout.width):
        raise Equivocation("The aggregators were told of another question or vector than this hub was asked for.")
    accepted = accept_offers(start, approved=approved, now=now, roots=roots)
    return Admitted(start, round_context(begin_of(start)), layout, accepted)


def split(
    admitted: Admitted, vector: NDArray[np.int64], *, me: str, bounds: Bounds, key: SigningKey, rand: bytes
) -> EnclaveBoxes:
    """Message 3, once per admitted round; the caller keeps it, and resends these very bytes when asked again.

    vector: int64 [size], noise and all. rand: `rand_size` fresh bytes, never reused.
    Raises: MisuseError: another size, a number beyond the bounds, or `rand` of another length.
    """
    return split_words(admitted, admitted.layout.pack(0, vector, bounds), me=me, key=key, rand=rand)


def split_words(admitted: Admitted, words: Ring, *, me: str, key: SigningKey, rand: bytes) -> EnclaveBoxes:
    """The same for words that were packed, and perhaps masked, already. Raises: MisuseError."""
    start, terms = admitted.start, admitted.start.terms
    if me not in terms.hubs:
        raise MisuseError(f"{me} is not a hub of study {terms.study}.")
    if len(rand) != rand_size(terms):
        raise MisuseError(f"A split among {len(terms.aggregators)} aggregators takes {rand_size(terms)} fresh bytes.")
    if words.shape != (admitted.layout.block_words(0),) or words.itemsize != admitted.layout.word_bytes:
        raise MisuseError("An answer has another length than the round it is split for.")
    rest = with_checks(words, start.check_key)
    shares: list[bytes] = []
    for place, name in enumerate(terms.aggregators[:-1]):
        seed = rand[PRG_KEY_SIZE * place : PRG_KEY_SIZE * (place + 1)]
        Stream(share_key(seed, admitted.ctx, me, name)).add_to(rest, negative=True)
        shares.append(seed)
    shares.append(to_bytes(rest))
    boxes = tuple(
        seal(share, offer.sealing_key, info=box_info(admitted.ctx, me, offer.aggregator))
        for share, offer in zip(shares, start.offers, strict=True)
    )
    digests = tuple(box_digest(box) for box in boxes)
    return EnclaveBoxes(admitted.ctx, me, boxes, key.sign(list_to_sign(admitted.ctx, me, digests)))
