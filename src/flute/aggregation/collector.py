"""The coordinator's side: pure functions over messages it has stored, so that a coordinator that was killed
goes on by calling them again. Nothing here has to be trusted by a hub.

`start` is any hub's message 0 of the round: all but its boxes is common to all hubs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flute.aggregation.channels import roster_key
from flute.aggregation.codec import Bounds, Layout, TotalReader
from flute.aggregation.commitments import proofs
from flute.aggregation.context import context, echo_to_sign, masked_to_sign
from flute.aggregation.masks import MaskKey, MaskStreams, opposite, pair_mask, self_mask
from flute.aggregation.opening import open_secrets
from flute.aggregation.terms import check, check_participants, check_survivors, neighbours
from flute.aggregation.tickets import check_ticket
from flute.errors import BadSignature, Equivocation, TooFewHubs
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
    Width,
)
from flute.primitives.keys import AgreementKey, verify
from flute.primitives.ring import Integers, Ring, add_into, from_bytes

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
    boxes: dict[str, list[SealedShares]] = {hub: [] for hub in terms.hubs}
    for hub in hubs:
        if tickets[hub].pub.hub != hub:
            raise BadSignature(f"The ticket kept for {hub} is a ticket of {tickets[hub].pub.hub}.")
        check_ticket(tickets[hub], terms, roster_key(keys, hub))
        _deal_out(terms, tickets[hub], boxes)
    pubs = tuple(tickets[hub].pub for hub in hubs)
    return {hub: Start(terms, round_number, question, size, width, pubs, tuple(boxes[hub])) for hub in hubs}


def _deal_out(terms: GroupTerms, ticket: Ticket, boxes: Mapping[str, list[SealedShares]]) -> None:
    """Every other holder's box of this ticket to it, with the proof that the dealer committed to what is inside."""
    dealer, sealed = ticket.pub.hub, iter(ticket.boxes)
    for hub, (chunk, path) in zip(terms.hubs, proofs(ticket.commitments), strict=True):
        if hub != dealer:
            boxes[hub].append(SealedShares(dealer, next(sealed), chunk, path))


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

    Raises: BadShare: as `opening.open_secrets`. Equivocation, TooFewHubs: `terms.check_survivors`.
    """
    hubs = participants(start)
    check_survivors(start.terms, hubs, told.hubs)
    secrets = open_secrets(start, told, tickets, shares)
    masks = [self_mask(secrets.of[hub], ctx=told.ctx, hub=hub) for hub in told.hubs]
    for hub in hubs:
        if hub not in told.hubs:
            masks += _masks_with(start, told, hub, AgreementKey(secrets.of[hub]))
    return Unmasking(tuple(masks), secrets.bad)


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


def _masks_with(start: Start, told: Survivors, dropped: str, secret: AgreementKey) -> list[MaskKey]:
    """The masks that survivors share with a hub that dropped out, as each of them added it."""
    left = set(told.hubs).intersection(neighbours(start.terms, participants(start), dropped))
    return opposite(
        pair_mask(secret, pub.point, ctx=told.ctx, me=dropped, other=pub.hub) for pub in start.pubs if pub.hub in left
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
