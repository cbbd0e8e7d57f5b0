"""The coordinator's side: pure functions over messages it has stored, so that a coordinator that was killed
goes on by calling them again. Nothing here has to be trusted by a hub.

`start` is any hub's message 0 of the round: all but its boxes is common to all hubs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from flute.aggregation.channels import roster_key
from flute.aggregation.codec import read_total
from flute.aggregation.commitments import Kind, check_opening
from flute.aggregation.context import context, echo_to_sign, masked_to_sign
from flute.aggregation.masks import remove_mask, seed_commitment, self_mask
from flute.aggregation.terms import check, check_participants, check_survivors, index_of
from flute.aggregation.tickets import check_ticket, place
from flute.defaults import SENTINELS
from flute.errors import BadShare, BadSignature, Equivocation, TooFewHubs
from flute.messages.protocol import (
    Echo,
    Echoes,
    GroupTerms,
    Masked,
    SealedShares,
    Shares,
    Start,
    Survivors,
    Ticket,
    TicketPub,
)
from flute.primitives.keys import verify
from flute.primitives.ring import WORD_BYTES, Integers, add_into, from_bytes
from flute.primitives.sharing import combine


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened total, int64 [size], and the hubs that sent shares which do not hold (others' sufficed)."""

    total: Integers
    bad_shares: tuple[str, ...]


def start(
    terms: GroupTerms,
    *,
    round_number: int,
    question: bytes,
    size: int,
    tickets: Mapping[str, Ticket],
    keys: Mapping[str, bytes],
) -> dict[str, Start]:
    """Message 0 for every hub that gave a ticket. The caller marks all these tickets burnt before it sends.

    Raises: NotPossible: the terms break a rule. TooFewHubs. BadSignature, Stale, Malformed, NotInRoster: a
    ticket is not usable; the text names its hub.
    """
    check(terms)
    hubs = tuple(sorted(tickets))
    check_participants(terms, hubs)
    for hub in hubs:
        if tickets[hub].pub.hub != hub:
            raise BadSignature(f"The ticket kept for {hub} is a ticket of {tickets[hub].pub.hub}.")
        check_ticket(tickets[hub], terms, roster_key(keys, hub))
    pubs = tuple(tickets[hub].pub for hub in hubs)
    boxes = {dealer: {b.hub: b.box for b in tickets[dealer].boxes} for dealer in hubs}
    return {
        hub: Start(
            terms, round_number, question, size, pubs,
            tuple(SealedShares(dealer, boxes[dealer][hub]) for dealer in hubs if dealer != hub),
        )
        for hub in hubs
    }  # fmt: skip


def participants(start: Start) -> tuple[str, ...]:
    return tuple(pub.hub for pub in start.pubs)


def check_masked(start: Start, message: Masked, keys: Mapping[str, bytes]) -> None:
    """Is this a participant's vector for this round, as it sent it? Also an auditor's check, later.

    Raises: Equivocation: for another context or length. BadSignature, NotInRoster: names the hub.
    """
    if message.ctx != context(start) or message.hub not in participants(start):
        raise Equivocation(f"The vector of {message.hub} was masked for another round, question or set of hubs.")
    if len(message.vector) != (start.size + SENTINELS) * WORD_BYTES:
        raise Equivocation(f"The vector of {message.hub} has another length than this round's.")
    signed = masked_to_sign(message, hashlib.sha256(message.vector).digest())
    _check_signed(message.hub, message.signature, signed, keys, "vector")


def survivors(start: Start, masked: Mapping[str, Masked], keys: Mapping[str, bytes]) -> Survivors:
    """Message 2, from the vectors that arrived; `masked` may read from disk, one at a time.

    Raises: TooFewHubs: someone is missing. Equivocation, BadSignature, NotInRoster: as `check_masked`.
    """
    hubs = tuple(sorted(masked))
    check_survivors(start.terms, participants(start), hubs)
    for hub in hubs:
        message = masked[hub]
        if message.hub != hub:
            raise Equivocation(f"The vector kept for {hub} is a vector of {message.hub}.")
        check_masked(start, message, keys)
    return Survivors(context(start), hubs)


def echoes(
    start: Start, told: Survivors, received: Mapping[str, Echo], keys: Mapping[str, bytes]
) -> tuple[Echoes, tuple[str, ...]]:
    """Message 4 with the valid tags, and the hubs whose tags are not.

    Raises: TooFewHubs: so few are valid that no hub would open.
    """
    valid, wrong = [], []
    for hub in sorted(received):
        try:
            _check_echo(start, told, hub, received[hub], keys)
            valid.append(received[hub])
        except BadSignature:
            wrong.append(hub)
    if len(valid) < start.terms.threshold:
        raise TooFewHubs(
            f"Only {len(valid)} hubs signed the set of this round and {start.terms.threshold} are needed. "
            "The round must be repeated with fresh tickets, and every hub that answered is charged again."
        )
    return Echoes(told.ctx, tuple(valid)), tuple(wrong)


def total(
    start: Start,
    told: Survivors,
    masked: Mapping[str, Masked],
    shares: Mapping[str, Shares],
    *,
    part_bound: int,
    norm_bound: float | None = None,
) -> Opened:
    """The sum of the survivors' vectors. masked: messages that `survivors` accepted, as stored.

    Every share is verified singly against its dealer's commitment; any t good ones per seed do.
    Raises: BadShare: fewer than t good shares of a seed (names the holders of bad ones), or a dealer whose own
    commitments contradict each other (names the dealer). BadTotal: `codec.read_total`. Malformed.
    """
    check_survivors(start.terms, participants(start), told.hubs)
    pubs = {pub.hub: pub for pub in start.pubs}
    good = _good_shares(start, told, shares, pubs)
    bad = tuple(sorted(hub for hub in shares if any(hub not in good[dealer] for dealer in told.hubs)))
    words = np.zeros(start.size + SENTINELS, dtype=np.uint64)
    for hub in told.hubs:
        add_into(words, from_bytes(masked[hub].vector, words.size))
    for hub in told.hubs:
        remove_mask(words, self_mask(_seed(start, pubs[hub], good[hub], bad), ctx=told.ctx, hub=hub))
    return Opened(read_total(words, survivors=len(told.hubs), part_bound=part_bound, norm_bound=norm_bound), bad)


def _good_shares(
    start: Start, told: Survivors, shares: Mapping[str, Shares], pubs: Mapping[str, TicketPub]
) -> dict[str, dict[str, bytes]]:
    """Dealer to holder to verified share."""
    good: dict[str, dict[str, bytes]] = {dealer: {} for dealer in told.hubs}
    for holder, message in sorted(shares.items()):
        if message.ctx != told.ctx or message.hub != holder or holder not in pubs:
            continue
        for seed in message.seeds:
            try:
                if seed.dealer in good:
                    at = place(start.terms, pubs[seed.dealer], holder, Kind.SEED)
                    check_opening(at, seed.opening, pubs[seed.dealer].shares_root)
                    good[seed.dealer][holder] = seed.opening.share
            except BadShare:
                continue  # the holder is found in `total`: it has no good share of this dealer's seed
    return good


def _seed(start: Start, pub: TicketPub, good: Mapping[str, bytes], bad: tuple[str, ...]) -> bytes:
    t = start.terms.threshold
    if len(good) < t:
        blame = f" {', '.join(bad)} sent shares that do not hold." if bad else ""
        raise BadShare(
            f"Only {len(good)} of {t} good shares of the mask of {pub.hub} arrived.{blame} Nothing can be opened; "
            "the round must be repeated with fresh tickets and is charged again."
        )
    chosen = {index_of(start.terms, hub): share for hub, share in islice(good.items(), t)}
    try:
        seed = combine(chosen, threshold=t)
    except BadShare as error:
        raise BadShare(_bad_dealer(pub.hub)) from error
    if seed_commitment(seed, study=pub.study, dealer=pub.hub, serial=pub.serial) != pub.seed_commitment:
        raise BadShare(_bad_dealer(pub.hub))
    return seed


def _bad_dealer(hub: str) -> str:
    return (
        f"The shares that {hub} dealt and committed to do not give the mask it committed to: {hub} dealt a bad "
        "ticket. The round must be repeated with fresh tickets and is charged again."
    )


def _check_echo(start: Start, told: Survivors, hub: str, tag: Echo, keys: Mapping[str, bytes]) -> None:
    if tag.ctx != told.ctx or tag.hub != hub or hub not in told.hubs:
        raise BadSignature(f"The tag kept for {hub} is for another round or from outside the set.")
    _check_signed(hub, tag.signature, echo_to_sign(start.terms, told.ctx, hub, told.hubs), keys, "tag")


def _check_signed(hub: str, signature: bytes, signed: bytes, keys: Mapping[str, bytes], what: str) -> None:
    try:
        verify(roster_key(keys, hub), signature, signed)
    except BadSignature as error:
        raise BadSignature(f"The {what} that claims to come from {hub} is not signed by it.") from error
