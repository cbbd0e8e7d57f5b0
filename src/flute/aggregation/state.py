"""What a hub remembers of secure aggregation in one study, and the one table of what may follow what.

The hub writes `encode_state(state)` to disk (fsync) after every step and before anything of that step
leaves. The bytes hold secrets and belong in no backup: a restored copy could mask or open a second time.
After a restore the hub enrols again, which voids all its tickets, shares and channels. Whatever a step no
longer needs is absent from the next state; overwriting the stored one is what erases it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from flute.aggregation.codec import Layout
from flute.aggregation.context import info
from flute.aggregation.masks import MaskKey, Secret
from flute.aggregation.tickets import Dealt, HeldShares
from flute.errors import MisuseError, OutOfOrder
from flute.messages.protocol import GroupTerms
from flute.primitives.keys import digest


class Phase(StrEnum):
    IDLE = "idle"
    STARTED = "started"
    MASKED = "masked"
    ECHOED = "echoed"
    OPENED = "opened"


class Event(StrEnum):
    DEAL = "deal a ticket"
    BEGIN = "begin a round"
    MASK = "mask an answer"
    ECHO = "sign a survivor set"
    OPEN = "show shares of an echoed set"
    OPEN_UNECHOED = "show shares without an echo"
    GIVE_UP = "give the round up"


TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.IDLE, Event.DEAL): Phase.IDLE,
    (Phase.STARTED, Event.DEAL): Phase.IDLE,  # a fresh ticket ends the round of the last one
    (Phase.MASKED, Event.DEAL): Phase.IDLE,
    (Phase.ECHOED, Event.DEAL): Phase.IDLE,
    (Phase.OPENED, Event.DEAL): Phase.OPENED,
    (Phase.IDLE, Event.BEGIN): Phase.STARTED,
    (Phase.OPENED, Event.BEGIN): Phase.STARTED,
    (Phase.STARTED, Event.MASK): Phase.MASKED,
    (Phase.MASKED, Event.ECHO): Phase.ECHOED,
    (Phase.ECHOED, Event.OPEN): Phase.OPENED,
    (Phase.MASKED, Event.OPEN_UNECHOED): Phase.OPENED,  # passive mode only: `unmask_without_echo`
    (Phase.STARTED, Event.GIVE_UP): Phase.IDLE,
    (Phase.MASKED, Event.GIVE_UP): Phase.IDLE,
    (Phase.ECHOED, Event.GIVE_UP): Phase.IDLE,
}
"""Nothing leads back from MASKED to STARTED or from OPENED to ECHOED: a ticket masks once and opens once."""


def follow(phase: Phase, event: Event) -> Phase:
    """Raises: OutOfOrder: the table has no such step."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise OutOfOrder(f"This hub cannot {event.value} now; its round is {phase.value}.") from None


class Enrolled(Secret, frozen=True, tag="enrolled"):
    """A hub that has given its study key and waits for the others'. `secret`: the X25519 private key."""

    me: str
    study: str
    agreement: bytes
    secret: bytes


class Inbound(Secret, frozen=True):
    """A peer's chain towards this hub. serial: the lowest ticket of the peer that no message 0 has named."""

    chain: bytes
    serial: int


class Sent(Struct, frozen=True):
    """What left in answer to a message: resent byte for byte when the very same message comes again.

    A masked vector is not in it (it is megabytes, and the state is written at every step): the hub keeps it beside
    the state, and its SHA-256 is here.
    """

    to: bytes
    body: bytes

    def __repr__(self) -> str:
        return f"<Sent: {len(self.body)} bytes>"


class RoundState(Secret, frozen=True):
    """One round. `masks` is empty once used, `held` once opened; `survivors` is set by the echo."""

    start: bytes
    ctx: bytes
    serial: int
    layout: Layout
    participants: tuple[str, ...]
    masks: tuple[MaskKey, ...]
    held: dict[str, HeldShares]
    survivors: tuple[str, ...] = ()
    sent: tuple[Sent, ...] = ()


class MemberState(Secret, frozen=True, tag="member"):
    """A hub with channels to all others. serial: its next ticket's; outbound: holder to chain key at `serial`.

    The two serial counts are the whole once-only memory: every ticket is bound to its serial by its dealer's
    signature, a hub accepts each dealer's serials in growing order only, and a chain key that has passed a
    serial cannot open its boxes. So it neither grows nor needs pruning.
    """

    me: str
    terms: GroupTerms
    phase: Phase
    serial: int
    outbound: dict[str, bytes]
    inbound: dict[str, Inbound]
    dealt: Dealt | None = None
    round: RoundState | None = None


State = Enrolled | MemberState


def encode_state(state: State) -> bytes:
    """Bytes for the hub's secret store; one record per study, overwritten each time."""
    return msgspec.msgpack.encode(state)


def decode_state(raw: bytes) -> State:
    """Raises: MisuseError: these bytes are not a state of this version."""
    try:
        state: State = msgspec.msgpack.decode(raw, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MisuseError(
            "The stored state of secure aggregation cannot be read. The hub must enrol again in this study; "
            "its earlier tickets are void."
        ) from error
    return state


def message_digest(message: Struct) -> bytes:
    return digest(info("message"), msgspec.msgpack.encode(message))


_M = TypeVar("_M", bound=Struct)


def stored_answer(state: RoundState, message: bytes, kind: type[_M]) -> _M | None:
    """What this round answered to the message with that digest, or None."""
    for sent in state.sent:
        if sent.to == message:
            return msgspec.msgpack.decode(sent.body, type=kind)
    return None


def remember(state: RoundState, message: bytes, answer: Struct) -> tuple[Sent, ...]:
    return (*state.sent, Sent(message, msgspec.msgpack.encode(answer)))
