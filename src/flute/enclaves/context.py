"""Labels, digests and contexts of plan `enclave`. Whatever is bound, sealed or signed names what it is for.

Two contexts. The *key context* stands in the evidence: terms, aggregator, round; so a key is good for one round of
one study under one roster. The *round context* `ctx` adds the question, the layout, the check key's digest and all
aggregators' keys; it is in every box and signature, so hubs that were told different things seal into different
rounds.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import msgspec

from flute.attestation.binding import report_data
from flute.defaults import MAX_HUBS, MAX_ID_CHARS, MIN_HUBS
from flute.defaults.enclaves import MIN_AGGREGATORS
from flute.errors import NotPossible
from flute.messages.enclave import (
    AggregatorKeys,
    EnclaveBegin,
    EnclaveOffer,
    EnclaveStart,
    EnclaveTerms,
    EnclaveTotal,
)
from flute.primitives.keys import derive, digest

_ROOT: Final = "flute/enclave/v1/"
_POLICY: Final = "enclave-"


def info(*words: str) -> bytes:
    """A label for HKDF, HPKE, a digest or a signature."""
    return (_ROOT + "|".join(words)).encode()


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def policy_name(aggregator: str) -> str:
    """Under which name the roster approves the aggregator's appraisal policy."""
    return _POLICY + aggregator


def policy_digest(raw: bytes) -> bytes:
    """What the roster lists: digest of the policy's canonical bytes."""
    return digest(info("policy"), raw)


def check_terms(terms: EnclaveTerms) -> None:
    """Raises: NotPossible: with a sentence that says which rule and what to change."""
    if not terms.study:
        raise NotPossible("A sum in enclaves must name its study.")
    if not MIN_HUBS <= len(terms.hubs) <= MAX_HUBS or any(a >= b for a, b in pairwise(terms.hubs)):
        raise NotPossible(
            f"A sum in enclaves is over {MIN_HUBS} to {MAX_HUBS} hubs, once each, in alphabetical order."
        )
    names = terms.aggregators
    if len(names) < MIN_AGGREGATORS or len(set(names)) != len(names):
        raise NotPossible(
            f"Plan enclave needs at least {MIN_AGGREGATORS} aggregators, each named once: a single one would see "
            "every hub's answer."
        )
    if any(len(policy_name(name)) > MAX_ID_CHARS for name in names):
        raise NotPossible(f"An aggregator's name may have {MAX_ID_CHARS - len(_POLICY)} characters.")


def terms_digest(terms: EnclaveTerms) -> bytes:
    return digest(info("terms"), msgspec.msgpack.encode(terms))


def bound_data(terms: EnclaveTerms, offered: EnclaveOffer | AggregatorKeys, round_number: int) -> bytes:
    """The 64 bytes that the evidence of this aggregator's keys of this round must hold."""
    context = digest(info("key"), terms_digest(terms), offered.aggregator.encode(), number(round_number))
    return report_data(offered.sealing_key + offered.signing_key, context)


def keys_of(offer: EnclaveOffer) -> AggregatorKeys:
    return AggregatorKeys(offer.aggregator, offer.sealing_key, offer.signing_key)


def check_digest(check_key: bytes) -> bytes:
    """Names the check key without showing it."""
    return digest(info("check-key"), check_key)


def begin_of(start: EnclaveStart) -> EnclaveBegin:
    """What aggregators are told of what hubs are told: no evidence, no check key."""
    keys = tuple(keys_of(offer) for offer in start.offers)
    return EnclaveBegin(
        start.terms, start.round, start.question, start.size, start.width, keys, check_digest(start.check_key)
    )


def round_context(begin: EnclaveBegin) -> bytes:
    """ctx; the same for hubs, aggregators and coordinator, or they do not understand each other."""
    parts = [info("ctx"), terms_digest(begin.terms), number(begin.round), begin.question, number(begin.size)]
    parts += [number(begin.width), begin.check]
    for keys in begin.keys:
        parts += [keys.aggregator.encode(), keys.sealing_key, keys.signing_key]
    return digest(*parts)


def box_info(ctx: bytes, hub: str, aggregator: str) -> bytes:
    """Binds a box to its round, its sender and its one reader."""
    return info("box", hub, aggregator) + ctx


def share_key(seed: bytes, ctx: bytes, hub: str, aggregator: str) -> bytes:
    """Key of the stream that a seed stands for, in this round, from this hub, for this aggregator."""
    return derive(seed, salt=ctx, info=info("share", hub, aggregator))


def box_digest(box: bytes) -> bytes:
    return digest(info("box"), box)


def list_digest(ctx: bytes, hub: str, digests: tuple[bytes, ...]) -> bytes:
    """Names one hub's list of boxes: what it signs, and what aggregators say that they have summed."""
    return digest(info("list"), ctx, hub.encode(), *digests)


def list_to_sign(ctx: bytes, hub: str, digests: tuple[bytes, ...]) -> bytes:
    return info("sign-list") + list_digest(ctx, hub, digests)


def total_to_sign(total: EnclaveTotal) -> bytes:
    parts = (total.ctx, total.aggregator.encode(), digest(*total.lists), total.words)
    return info("sign-total") + digest(*parts)
