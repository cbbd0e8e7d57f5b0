"""Message 0 at the hub: everything that must hold before a ticket is used.

In this order, nothing later looked at before the earlier passed:
  1 the group's terms are this hub's own       2 this hub's live ticket is named, byte for byte
  3 the question is the one this hub was asked  4 enough hubs take part
  5 every ticket: signature, terms, canonical key, never named before
  6 every box opens and holds the shares that its dealer committed to
  7 every neighbour's public key gives a shared secret
"""

from __future__ import annotations

from collections.abc import Mapping

from flute.aggregation.channels import roster_key
from flute.aggregation.codec import Layout
from flute.aggregation.context import context, start_digest
from flute.aggregation.masks import MaskKey, pair_mask, ratchet, self_mask
from flute.aggregation.state import Inbound, MemberState, RoundState
from flute.aggregation.terms import check_participants, neighbours
from flute.aggregation.tickets import Dealt, HeldShares, check_pub, open_box
from flute.defaults import MAX_TICKET_JUMP
from flute.errors import Equivocation, Malformed, OutOfOrder, Replayed, Stale
from flute.messages.protocol import Start, TicketPub
from flute.primitives.keys import AgreementKey


def admit(
    state: MemberState, start: Start, *, question: bytes, keys: Mapping[str, bytes]
) -> tuple[RoundState, dict[str, Inbound]]:
    """The round that `start` opens, and the chains after it: every ticket it names is burnt.

    question: digest of the question that this hub was asked and admitted. keys: hub to roster signing key.
    Raises: Stale, OutOfOrder, Replayed, Equivocation, TooFewHubs, NotInRoster, BadSignature, Malformed,
    BadShare; where a hub is at fault, the text names it.
    """
    _check_terms(state, start)  # 1
    dealt = _own_ticket(state, start)  # 2
    if start.question != question:  # 3
        raise Equivocation("Message 0 is for another question than the one this hub was asked.")
    hubs = tuple(pub.hub for pub in start.pubs)
    check_participants(state.terms, hubs)  # 4
    others = [pub for pub in start.pubs if pub.hub != state.me]
    _check_pubs(state, others, keys)  # 5
    held = {state.me: dealt.own, **_open_boxes(state, start, others)}  # 6
    ctx = context(start)
    near = neighbours(state.terms, hubs, state.me)
    masks = _mask_keys(state.me, dealt, [pub for pub in others if pub.hub in near], ctx)  # 7
    burnt = {pub.hub: _after(state.inbound[pub.hub], pub.serial) for pub in others}
    layout = Layout(start.width, start.size)
    opened = RoundState(start_digest(start), ctx, dealt.ticket.pub.serial, layout, hubs, masks, held)
    return opened, {**state.inbound, **burnt}


def _check_terms(state: MemberState, start: Start) -> None:
    if start.terms != state.terms:
        raise Stale(
            f"Message 0 is under other terms (roster, agreement, hubs, threshold or mode) than {state.me} holds. "
            "Both sides need the same roster and agreement before a round."
        )


def _own_ticket(state: MemberState, start: Start) -> Dealt:
    own = [pub for pub in start.pubs if pub.hub == state.me]
    if not own:
        raise Equivocation(f"Message 0 reached {state.me} but does not count it among the round's hubs.")
    if own[0].serial < state.serial and (state.dealt is None or own[0].serial != state.dealt.ticket.pub.serial):
        raise Replayed(f"Message 0 names a ticket of {state.me} that was used or given up. A round needs fresh ones.")
    if state.dealt is None:
        raise OutOfOrder(f"{state.me} has no live ticket; it must deal one before a round.")
    if own != [state.dealt.ticket.pub]:
        raise Equivocation(f"Message 0 shows another ticket for {state.me} than the one it dealt.")
    return state.dealt


def _check_pubs(state: MemberState, pubs: list[TicketPub], keys: Mapping[str, bytes]) -> None:
    for pub in pubs:
        check_pub(pub, state.terms, roster_key(keys, pub.hub))
        expected = state.inbound[pub.hub].serial
        if pub.serial < expected:
            raise Replayed(f"The ticket of {pub.hub} was named in a round before. {pub.hub} must deal a new one.")
        if pub.serial - expected > MAX_TICKET_JUMP:
            raise Malformed(f"The ticket of {pub.hub} skips more than {MAX_TICKET_JUMP} of its earlier ones.")


def _open_boxes(state: MemberState, start: Start, pubs: list[TicketPub]) -> dict[str, HeldShares]:
    if [sealed.dealer for sealed in start.boxes] != [pub.hub for pub in pubs]:
        raise Malformed("Message 0 does not hold one box of shares from each other hub of the round.")
    held = {}
    for pub, sealed in zip(pubs, start.boxes, strict=True):
        inbound = state.inbound[pub.hub]
        chain = ratchet(inbound.chain, pub.serial - inbound.serial)
        held[pub.hub] = open_box(state.terms, pub, sealed, me=state.me, chain=chain)
    return held


def _mask_keys(me: str, dealt: Dealt, pubs: list[TicketPub], ctx: bytes) -> tuple[MaskKey, ...]:
    secret = AgreementKey(dealt.point)
    masks = [self_mask(dealt.seed, ctx=ctx, hub=me)]
    for pub in pubs:
        try:
            masks.append(pair_mask(secret, pub.point, ctx=ctx, me=me, other=pub.hub))
        except Malformed as error:
            raise Malformed(f"The ticket of {pub.hub} holds a public key that gives no shared secret.") from error
    return tuple(masks)


def _after(inbound: Inbound, serial: int) -> Inbound:
    return Inbound(ratchet(inbound.chain, serial + 1 - inbound.serial), serial + 1)
