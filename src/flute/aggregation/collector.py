"""The coordinator's side: pure functions over messages it has stored, so that a coordinator that was killed
goes on by calling them again. Nothing here has to be trusted by a hub.

`start` is any hub's message 0 of the round: all but its boxes is common to all hubs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from flute.aggregation.channels import roster_key
from flute.aggregation.codec import Bounds, Layout, TotalReader
from flute.aggregation.commitments import Committer, Kind, proofs
from flute.aggregation.context import context, echo_to_sign, masked_to_sign
from flute.aggregation.masks import MaskKey, MaskStreams, opposite, pair_mask, seed_commitment, self_mask
from flute.aggregation.terms import check, check_participants, check_survivors, index_of, neighbours
from flute.aggregation.tickets import check_ticket
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
    Width,
)
from flute.primitives.keys import AgreementKey, verify
from flute.primitives.ring import Integers, Ring, add_into, from_bytes
from flute.primitives.sharing import Interpolation

ReadBlock = Callable[[str, int], bytes]
"""Hub and block index to the bytes of a vector that `check_masked` accepted."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened total, signed integers [size], and the hubs whose shares did not hold (others' sufficed)."""

    total: Integers
    bad_shares: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unmasking:
    """The masks that are left in the sum of the survivors' vectors, and whose shares did not hold."""

    masks: tuple[MaskKey, ...]
    bad_shares: tuple[str, ...]


def start(
    terms: GroupTerms,
    *,
    round_number: int,
    question: bytes,
    size: int,
    width: Width,
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
    boxes = {}
    for hub in hubs:
        if tickets[hub].pub.hub != hub:
            raise BadSignature(f"The ticket kept for {hub} is a ticket of {tickets[hub].pub.hub}.")
        check_ticket(tickets[hub], terms, roster_key(keys, hub))
        boxes[hub] = _boxes(terms, tickets[hub])
    pubs = tuple(tickets[hub].pub for hub in hubs)
    return {
        hub: Start(
            terms, round_number, question, size, width, pubs,
            tuple(boxes[dealer][hub] for dealer in hubs if dealer != hub),
        )
        for hub in hubs
    }  # fmt: skip


def _boxes(terms: GroupTerms, ticket: Ticket) -> dict[str, SealedShares]:
    """Holder to its box of this ticket, with the proof that the dealer committed to what is in it."""
    dealer = ticket.pub.hub
    paths = zip(terms.hubs, proofs(ticket.commitments)[1], strict=True)
    others = ((hub, path) for hub, path in paths if hub != dealer)
    return {hub: SealedShares(dealer, box, path) for (hub, path), box in zip(others, ticket.boxes, strict=True)}


def participants(start: Start) -> tuple[str, ...]:
    return tuple(pub.hub for pub in start.pubs)


def check_masked(start: Start, ctx: bytes, message: Masked, keys: Mapping[str, bytes]) -> None:
    """Is this a participant's vector of one block for this round, as it sent it? Also an auditor's check, later.

    ctx: `context(start)`, worked out once for all vectors of a round.
    Raises: Equivocation: for another context or length. BadSignature, NotInRoster: names the hub.
    """
    whole = VectorHash(start, ctx, message.hub)
    whole.take(message.vector)
    whole.check(message, keys)


class VectorHash:
    """Checks one hub's vector while its blocks arrive in order; nothing of it counts before `check` has returned."""

    def __init__(self, start: Start, ctx: bytes, hub: str) -> None:
        self._start, self._ctx, self._hub = start, ctx, hub
        self._layout = Layout(start.width, start.size)
        self._hash = hashlib.sha256()
        self._next = 0

    def take(self, data: bytes) -> None:
        """Raises: Equivocation: a block more than there are, or of another length than this round's."""
        if self._next == self._layout.blocks or len(data) != self._bytes(self._next):
            raise Equivocation(f"The vector of {self._hub} has another length than this round's.")
        self._hash.update(data)
        self._next += 1

    def check(self, message: Masked, keys: Mapping[str, bytes]) -> None:
        """Raises: Equivocation, BadSignature, NotInRoster: it is not the vector that this message signs."""
        if message.hub != self._hub or message.ctx != self._ctx or message.hub not in participants(self._start):
            raise Equivocation(f"The vector of {self._hub} was masked for another round, question or set of hubs.")
        if self._next != self._layout.blocks or message.length != self._layout.length:
            raise Equivocation(f"The vector of {self._hub} has another length than this round's.")
        if message.sha256 != self._hash.digest():
            raise BadSignature(f"The vector that claims to come from {self._hub} is not the one that it signed.")
        _check_signed(message.hub, message.signature, masked_to_sign(message), keys, "vector")

    def _bytes(self, index: int) -> int:
        return self._layout.block_words(index) * self._layout.word_bytes


def survivors(start: Start, hubs: Sequence[str]) -> Survivors:
    """Message 2, from the hubs whose vectors were checked.

    Raises: TooFewHubs: so few answered that no hub would open. Equivocation: not hubs of this round.
    """
    arrived = tuple(sorted(hubs))
    check_survivors(start.terms, participants(start), arrived)
    return Survivors(context(start), arrived)


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
    tickets: Mapping[str, Ticket],
    shares: Mapping[str, Shares],
    *,
    bounds: Bounds,
) -> Opened:
    """The sum of the survivors' vectors, where they fit one block. masked: messages that `check_masked` accepted; it
    may read them from disk, for one at a time is held. tickets: those that the round began with.

    Raises: as `unmask` and `codec.TotalReader`.
    """
    left = unmask(start, told, tickets, shares)
    blocks = list(sum_blocks(start, told, left, lambda hub, _: masked[hub].vector, bounds=bounds))
    return Opened(blocks[0], left.bad_shares)


def unmask(start: Start, told: Survivors, tickets: Mapping[str, Ticket], shares: Mapping[str, Shares]) -> Unmasking:
    """Whatever masks the sum over `told` still holds: survivors' own, and those with hubs that dropped out.

    Every share is verified singly against its dealer's commitment; any t good ones per secret do.
    Raises: BadShare: fewer than t good shares of a secret (names the holders of bad ones), or a dealer whose own
    commitments contradict each other (names the dealer). Equivocation, TooFewHubs: `terms.check_survivors`.
    """
    hubs = participants(start)
    check_survivors(start.terms, hubs, told.hubs)
    good = _good_shares(start, told, tickets, shares)
    bad = tuple(sorted(holder for holder in shares if any(holder not in good[dealer] for dealer in hubs)))
    secrets = _secrets(start.terms, good, bad)
    for pub in start.pubs:
        _check_secret(pub, secrets[pub.hub], Kind.SEED if pub.hub in told.hubs else Kind.POINT)
    masks = [self_mask(secrets[hub], ctx=told.ctx, hub=hub) for hub in told.hubs]
    for hub in hubs:
        if hub not in told.hubs:
            masks += _masks_with(start, told, hub, AgreementKey(secrets[hub]))
    return Unmasking(tuple(masks), bad)


def sum_blocks(
    start: Start, told: Survivors, left: Unmasking, read: ReadBlock, *, bounds: Bounds
) -> Iterator[Integers]:
    """The total, block by block: one block's sum and one hub's block are in memory at a time.

    Nothing may be used before the iterator has ended: the last test (sentinels, norm) comes then.
    Raises: BadTotal. Malformed: a block of another length.
    """
    layout = Layout(start.width, start.size)
    reader = TotalReader(layout, survivors=len(told.hubs), bounds=bounds)
    streams = MaskStreams(opposite(left.masks))
    for index in range(layout.blocks):
        words = _sum_block(layout, index, told.hubs, read)
        streams.add_to(words)
        yield reader.read(words)
    reader.finish()


def _sum_block(layout: Layout, index: int, hubs: Sequence[str], read: ReadBlock) -> Ring:
    size, word_bytes = layout.block_words(index), layout.word_bytes
    first, *others = hubs
    words = from_bytes(read(first, index), size, word_bytes).copy()
    for hub in others:
        add_into(words, from_bytes(read(hub, index), size, word_bytes))
    return words


def _good_shares(
    start: Start, told: Survivors, tickets: Mapping[str, Ticket], shares: Mapping[str, Shares]
) -> dict[str, dict[str, bytes]]:
    """Dealer to holder to verified share: of the seed where the dealer's vector is in the set, else of its key."""
    terms = start.terms
    good: dict[str, dict[str, bytes]] = {dealer: {} for dealer in participants(start)}
    dealers = []
    for pub in start.pubs:
        kind = Kind.SEED if pub.hub in told.hubs else Kind.POINT
        committer = Committer(terms.study, pub.hub, pub.serial, len(terms.hubs))
        dealers.append((good[pub.hub], committer, tickets[pub.hub].commitments, kind))
    for holder, message in sorted(shares.items()):
        if message.ctx != told.ctx or message.hub != holder or holder not in good:
            continue
        first = 2 * (index_of(terms, holder) - 1)
        for (verified, committer, commitments, kind), share in zip(dealers, message.shares, strict=False):
            if committer.commit(first + kind, share) == commitments[first + kind]:
                verified[holder] = share
    return good


def _secrets(terms: GroupTerms, good: Mapping[str, Mapping[str, bytes]], bad: tuple[str, ...]) -> dict[str, bytes]:
    """Every participant's opened secret, from its first t good shares; the weights of a set of holders are kept."""
    t = terms.threshold
    places = {hub: x for x, hub in enumerate(terms.hubs, start=1)}
    weights: dict[tuple[int, ...], Interpolation] = {}
    secrets = {}
    for dealer, shares in good.items():
        if len(shares) < t:
            blame = f" {', '.join(bad)} sent shares that do not hold." if bad else ""
            raise BadShare(
                f"Only {len(shares)} of {t} good shares of the mask of {dealer} arrived.{blame} Nothing can be opened"
                "; the round must be repeated with fresh tickets and is charged again."
            )
        chosen = {places[hub]: share for hub, share in islice(shares.items(), t)}
        holders = tuple(chosen)
        if holders not in weights:
            weights[holders] = Interpolation(holders)
        try:
            secrets[dealer] = weights[holders].combine(chosen)
        except BadShare as error:
            raise BadShare(_bad_dealer(dealer)) from error
    return secrets


def _check_secret(pub: TicketPub, secret: bytes, kind: Kind) -> None:
    """Raises: BadShare: it is not what the dealer committed to; names the dealer."""
    if kind is Kind.SEED:
        fits = seed_commitment(secret, study=pub.study, dealer=pub.hub, serial=pub.serial) == pub.seed_commitment
    else:
        fits = AgreementKey(secret).public == pub.point
    if not fits:
        raise BadShare(_bad_dealer(pub.hub))


def _masks_with(start: Start, told: Survivors, dropped: str, secret: AgreementKey) -> list[MaskKey]:
    """The masks that survivors share with a hub that dropped out, as each of them added it."""
    near = neighbours(start.terms, participants(start), dropped)
    return [
        opposite([pair_mask(secret, pub.point, ctx=told.ctx, me=dropped, other=pub.hub)])[0]
        for pub in start.pubs
        if pub.hub in near and pub.hub in told.hubs
    ]


def _bad_dealer(hub: str) -> str:
    return (
        f"The shares that {hub} dealt and committed to do not give the secret it committed to: {hub} dealt a bad "
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
