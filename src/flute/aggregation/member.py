"""The hub's side: (state, message, chance) to (new state, answer). No step does I/O.

Rules of the caller, on which the guarantees rest:
 1 write the new state to disk (fsync) before the answer leaves; send nothing if that fails
 2 randomness is fresh entropy of the operating system, never stored and never reused
 3 message 1 is charged when it leaves, whether or not a total is opened; its release id contains `ctx`

Guarantees: everything is checked before the state changes. A ticket masks one vector and opens one set. The
very same message again gives the very same answer; any other message about a used ticket is refused. Of every
participant one share is shown: of its seed where its vector is in the set, of its private key where it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from msgspec.structs import replace

from flute.aggregation.admission import admit
from flute.aggregation.channels import roster_key
from flute.aggregation.codec import Bounds, Layout
from flute.aggregation.context import echo_to_sign, masked_to_sign, start_digest
from flute.aggregation.masks import MaskKey, MaskStreams, ratchet
from flute.aggregation.state import (
    Event,
    MemberState,
    Phase,
    RoundState,
    follow,
    message_digest,
    remember,
    stored_answer,
)
from flute.aggregation.terms import check_survivors
from flute.aggregation.tickets import deal as deal_ticket
from flute.defaults import MAX_TICKET_JUMP
from flute.errors import BadSignature, Equivocation, Malformed, MisuseError, OutOfOrder, TooFewHubs
from flute.messages.protocol import Echo, Echoes, Masked, MaskedBlock, Shares, Start, Survivors, Ticket
from flute.primitives.keys import SigningKey, verify
from flute.primitives.ring import Integers, to_bytes


def deal(state: MemberState, *, key: SigningKey, rand: bytes, after: int = 0) -> tuple[MemberState, Ticket]:
    """The hub's live ticket, dealt now where there is none.

    after: the highest serial of this hub's tickets that the coordinator counts as burnt; a live ticket up to
    it is given up for a new one. In the middle of a round only a call with the round's own serial or more
    is served, and ends that round: a delayed call for an earlier ticket must not.
    key: roster signing key. rand: tickets.DEAL_RAND_SIZE fresh bytes; unused where a live ticket is resent.
    Raises: OutOfOrder: a call from before the open round. Malformed: too far ahead. MisuseError: `rand`'s size.
    """
    if state.dealt is not None and state.dealt.ticket.pub.serial > after:
        return state, state.dealt.ticket
    if state.phase not in (Phase.IDLE, Phase.OPENED) and state.round is not None and after < state.round.serial:
        raise OutOfOrder(f"{state.me} is in a round; it deals its next ticket at the end of it.")
    if after >= state.serial + MAX_TICKET_JUMP:
        raise Malformed(f"A hub may skip at most {MAX_TICKET_JUMP} tickets at once.")
    phase = follow(state.phase, Event.DEAL)
    serial = max(state.serial, after + 1)
    chains = {hub: ratchet(chain, serial - state.serial) for hub, chain in state.outbound.items()}
    dealt = deal_ticket(state.terms, state.me, serial, chains=chains, key=key, rand=rand)
    outbound = {hub: ratchet(chain) for hub, chain in chains.items()}
    kept = state.round if phase is Phase.OPENED else None
    return replace(state, phase=phase, serial=serial + 1, outbound=outbound, dealt=dealt, round=kept), dealt.ticket


def begin(
    state: MemberState, start: Start, *, question: bytes, keys: Mapping[str, bytes]
) -> tuple[MemberState, Masked | None]:
    """Message 0. Burns every ticket it names, whether or not their senders answer. `mask` comes next.

    Gives None, or the message 1 that answered these very bytes before, its vector left out.
    Raises: as `admission.admit`; OutOfOrder: a round is open.
    """
    if state.round is not None and state.round.start == start_digest(start):
        return state, stored_answer(state.round, state.round.start, Masked)
    opened, inbound = admit(state, start, question=question, keys=keys)
    phase = follow(state.phase, Event.BEGIN)
    return replace(state, phase=phase, inbound=inbound, dealt=None, round=opened), None


def mask(state: MemberState, values: Integers, *, bounds: Bounds, key: SigningKey) -> tuple[MemberState, Masked]:
    """Message 1 from the hub's quantised and, in private mode, noised answer, signed integers [size].

    Once per ticket: a second call is refused, since the same mask over two vectors gives their difference. The state
    remembers the message without its vector, which the caller keeps beside it, on disk before the state is.
    Raises: OutOfOrder: not right after `begin`. MisuseError: wrong size, out of range, or a vector of many blocks.
    """
    state, masking = begin_mask(state)
    if values.shape != (masking.layout.size,) or masking.layout.blocks != 1:
        raise MisuseError(f"This round sums vectors of {masking.layout.size} numbers; another size was given.")
    vector = masking.block(values, bounds=bounds).words
    state, message = finish_mask(state, masking, key=key)
    return state, replace(message, vector=vector)


class Masking:
    """A vector on its way out, block by block. Holds the round's masks, which the state no longer has: what was not
    sent when it is lost (a crash) can never be sent, and the hub drops out of the round."""

    def __init__(self, me: str, ctx: bytes, layout: Layout, masks: tuple[MaskKey, ...]) -> None:
        self.layout = layout
        self.ctx = ctx
        self._me = me
        self._streams = MaskStreams(masks)
        self._hash = hashlib.sha256()
        self._next = 0

    def block(self, values: Integers, *, bounds: Bounds) -> MaskedBlock:
        """The next block of the answer, masked. values: `layout.values_of` of it. Raises: as `Layout.pack`."""
        words = self.layout.pack(self._next, values, bounds)
        self._streams.add_to(words)
        data = to_bytes(words)
        self._hash.update(data)
        self._next += 1
        return MaskedBlock(self.ctx, self._me, self._next - 1, data)

    def message(self, key: SigningKey) -> Masked:
        """Message 1 for the blocks that were made. Raises: MisuseError: some are missing."""
        if self._next != self.layout.blocks:
            raise MisuseError("A vector was to be signed before all of its blocks were masked.")
        unsigned = Masked(self.ctx, self._me, self.layout.length, self._hash.digest(), b"", bytes(64))
        return replace(unsigned, signature=key.sign(masked_to_sign(unsigned)))


def begin_mask(state: MemberState) -> tuple[MemberState, Masking]:
    """Take the round's masks out of the state. For a vector of many blocks the caller writes the state before the
    first block leaves, so that no crash can mask a second vector. Raises: OutOfOrder: not right after `begin`."""
    phase = follow(state.phase, Event.MASK)
    round_ = _open_round(state)
    masking = Masking(state.me, round_.ctx, round_.layout, round_.masks)
    return replace(state, phase=phase, round=replace(round_, masks=())), masking


def finish_mask(state: MemberState, masking: Masking, *, key: SigningKey) -> tuple[MemberState, Masked]:
    """Message 1 after its blocks: the signed hash of them all, remembered.

    Raises: MisuseError: the vector is another round's, was signed before, or is not complete.
    """
    round_ = _open_round(state)
    if masking.ctx != round_.ctx or round_.sent:
        raise MisuseError("This vector belongs to another round, or was signed before.")
    message = masking.message(key)
    return replace(state, round=replace(round_, sent=remember(round_, round_.start, message))), message


def echo(state: MemberState, message: Survivors, *, key: SigningKey) -> tuple[MemberState, Echo]:
    """Message 2 to message 3: sign the one set that this hub will open.

    Raises: Equivocation: another context, or a set that leaves this hub out. TooFewHubs: someone is missing.
    OutOfOrder: no vector of this round has left, another set was signed before, or the group has no echo.
    """
    round_ = _open_round(state)
    heard = message_digest(message)
    if (answer := stored_answer(round_, heard, Echo)) is not None:
        return state, answer
    if state.terms.mode != "echo":
        raise OutOfOrder("This group opens sums without an echo; its terms say so.")
    _check_set(state, round_, message)
    phase = follow(state.phase, Event.ECHO)
    signature = key.sign(echo_to_sign(state.terms, round_.ctx, state.me, message.hubs))
    answer = Echo(round_.ctx, state.me, signature)
    sent = remember(round_, heard, answer)
    return replace(state, phase=phase, round=replace(round_, survivors=message.hubs, sent=sent)), answer


def unmask(
    state: MemberState, message: Echoes, *, keys: Mapping[str, bytes], key: SigningKey, rand: bytes | None
) -> tuple[MemberState, Shares, tuple[str, ...]]:
    """Message 4 to message 5, and the hubs whose tags were wrong, for the hub's log.

    Opens only with at least t valid tags of distinct hubs of the set, this hub's own among them; a wrong tag
    counts as missing. rand: for the next ticket (tickets.DEAL_RAND_SIZE bytes), or None to give none.
    Raises: TooFewHubs: too few valid tags; nothing is opened. Equivocation: another context. OutOfOrder.
    """
    round_ = _open_round(state)
    valid, wrong = valid_tags(state, round_, message, keys)
    heard = message_digest(message)
    if (answer := stored_answer(round_, heard, Shares)) is not None:
        return state, answer, wrong
    phase = follow(state.phase, Event.OPEN)
    if message.ctx != round_.ctx:
        raise Equivocation("The forwarded signatures belong to another round than this hub's.")
    if state.me not in valid or len(valid) < state.terms.threshold:
        raise TooFewHubs(
            f"Only {len(valid)} hubs are known to have signed the set that {state.me} signed, and "
            f"{state.terms.threshold} with itself among them are needed. Nothing was opened by {state.me}; the round "
            "must be repeated with fresh tickets and is charged again."
        )
    opened, shares = _open(state, round_, phase, round_.survivors, heard, key=key, rand=rand)
    return opened, shares, wrong


def unmask_without_echo(
    state: MemberState, message: Survivors, *, key: SigningKey, rand: bytes | None
) -> tuple[MemberState, Shares]:
    """Message 2 to message 5 in passive mode: a lying coordinator may have told others another set.

    Raises: OutOfOrder: the group's terms ask for an echo; else as `echo`.
    """
    if state.terms.mode != "passive":
        raise OutOfOrder("This group opens a sum only after an echo; no message can change that.")
    round_ = _open_round(state)
    heard = message_digest(message)
    if (answer := stored_answer(round_, heard, Shares)) is not None:
        return state, answer
    _check_set(state, round_, message)
    phase = follow(state.phase, Event.OPEN_UNECHOED)
    return _open(state, round_, phase, message.hubs, heard, key=key, rand=rand)


def give_up(state: MemberState, ctx: bytes) -> MemberState:
    """Erase the open round with that context; its tickets stay burnt and its charge stays. Else no change."""
    if state.round is None or state.round.ctx != ctx or state.phase in (Phase.IDLE, Phase.OPENED):
        return state
    return replace(state, phase=follow(state.phase, Event.GIVE_UP), round=None)


def valid_tags(
    state: MemberState, round_: RoundState, message: Echoes, keys: Mapping[str, bytes]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Hubs of the set with a valid tag over it, and hubs that sent a wrong one, sorted."""
    valid, wrong = set(), set()
    for tag in message.echoes:
        try:
            if tag.ctx != round_.ctx or tag.hub not in round_.survivors:
                raise BadSignature("The tag is for another round, or from outside the set.")
            signed = echo_to_sign(state.terms, round_.ctx, tag.hub, round_.survivors)
            verify(roster_key(keys, tag.hub), tag.signature, signed)
            valid.add(tag.hub)
        except BadSignature:
            wrong.add(tag.hub)
    return frozenset(valid), tuple(sorted(wrong - valid))


def _open_round(state: MemberState) -> RoundState:
    if state.round is None:
        raise OutOfOrder(f"{state.me} has no open round; it was given up or never begun.")
    return state.round


def _check_set(state: MemberState, round_: RoundState, message: Survivors) -> None:
    if message.ctx != round_.ctx:
        raise Equivocation("The survivor set belongs to another round than this hub's.")
    if state.me not in message.hubs:
        raise Equivocation(f"The survivor set leaves out {state.me}, whose answer was given.")
    if not round_.sent:
        raise OutOfOrder(f"The survivor set counts {state.me} in, whose vector never left as a whole.")
    check_survivors(state.terms, round_.participants, message.hubs)


def _open(
    state: MemberState,
    round_: RoundState,
    phase: Phase,
    survivors: tuple[str, ...],
    heard: bytes,
    *,
    key: SigningKey,
    rand: bytes | None,
) -> tuple[MemberState, Shares]:
    """Show one share per participant: of the seed of those in `survivors`, of the private key of the others, never
    both. Every share held is dropped. All checks were made."""
    closed = replace(state, phase=phase, round=replace(round_, held={}, survivors=survivors))
    closed, ticket = (closed, None) if rand is None else deal(closed, key=key, rand=rand)
    held = ((hub, round_.held[hub]) for hub in round_.participants)
    shares = tuple(shares.seed if hub in survivors else shares.point for hub, shares in held)
    answer = Shares(round_.ctx, state.me, shares, ticket)
    done = replace(round_, held={}, survivors=survivors, sent=remember(round_, heard, answer))
    return replace(closed, round=done), answer
