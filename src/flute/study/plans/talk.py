"""A talk: one hub's end of a computation among hubs, carried by a coordinator that may lie.

    step 0   every hub's fresh X25519 key, signed with its roster key over the session
    step s   one box per other hub: AES-256-GCM, a key for each direction of each pair, nonce s

The session is a digest of everything the hubs must agree on (study agreement, roster, hubs, the question with its
parameters, the round); a hub that was told something else derives other keys, and its boxes do not open.
Each direction has a key of its own and each step is sealed once, so no key meets a nonce twice; what is asked for
again is given in the same bytes. The keys live in memory: a hub that was restarted does not go on, and the round is
repeated. What is said inside is a program's business (`flute.mpc`, `flute.threshold`): a generator that yields the
bytes for every other hub and is sent the bytes of every other hub.
Sources: NIST SP 800-38D section 8.2.1 (deterministic nonces), RFC 7748, RFC 5869.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flute.defaults.talk import MAX_BOX_BYTES, MAX_TALK_STEPS, TALK_OVERHEAD_BYTES
from flute.errors import BadSignature, Equivocation, Malformed, MisuseError, OutOfOrder, ProtocolAbortedError
from flute.messages.talk import Heard, Hello, Said
from flute.primitives.keys import AgreementKey, SigningKey, derive, digest, verify

HELLO_RAND_SIZE: Final = 32
"""Fresh bytes that a talk needs: its X25519 key."""
_LABEL: Final = b"flute/talk/v1/"
T = TypeVar("T")
Program = Generator[Mapping[int, bytes], Mapping[int, bytes], T]
"""Yields what to send, place of the other hub (from 1) to bytes, one entry for every other hub; is sent the same."""


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """The program's result, and how many steps it took, the first exchange of keys included."""

    result: T
    steps: int


def session_digest(agreement: bytes, roster: bytes, hubs: Sequence[str], about: bytes) -> bytes:
    """Names a talk. about: digest of what is computed, its parameters and its round included."""
    return digest(_LABEL + b"session", agreement, roster, about, *(hub.encode() for hub in hubs))


@dataclass
class Talk(Generic[T]):
    """One hub's end. hubs: sorted, this one among them; keys: their roster signing keys.

    program: made once the channels stand. `begin` gives the first message; every `hear` gives the next one, or
    what the program returned.
    Raises, from `hear`: OutOfOrder: a step that is not the next one. Equivocation: other hubs than the session's,
    or a key signed for another session. Malformed, BadSignature: a box that does not open (the coordinator's fault
    or its sender's: which of the two cannot be told). And whatever the program raises; the talk is then over.
    """

    me: str
    hubs: tuple[str, ...]
    session: bytes
    keys: Mapping[str, bytes]
    signing: SigningKey = field(repr=False)
    rand: bytes = field(repr=False)
    program: Callable[[], Program[T]] = field(repr=False)

    def __post_init__(self) -> None:
        if self.me not in self.hubs or list(self.hubs) != sorted(set(self.hubs)) or len(self.hubs) < 2:
            raise MisuseError("A talk is among hubs in alphabetical order, this one among them.")
        if len(self.rand) != HELLO_RAND_SIZE:
            raise MisuseError(f"A talk takes {HELLO_RAND_SIZE} fresh bytes.")
        self._secret = AgreementKey(self.rand)
        self._peers = tuple(hub for hub in self.hubs if hub != self.me)
        self._outbound: dict[str, AESGCM] = {}
        self._inbound: dict[str, AESGCM] = {}
        self._step = -1
        self._running: Program[T] | None = None
        self._said: Said | None = None
        self._heard = b""
        self._over = False

    def begin(self) -> Said:
        """Step 0: the same hello to everybody; called again, the same again."""
        if self._said is None:
            public = self._secret.public
            signature = self.signing.sign(_hello_to_sign(self.session, self.me, public))
            hello = msgspec.msgpack.encode(Hello(self.session, self.me, public, signature))
            self._step, self._said = 0, Said(self.session, 0, dict.fromkeys(self._peers, hello))
        if self._step != 0:
            raise OutOfOrder("This talk has begun already; it goes on with its next step.")
        return self._said

    def hear(self, heard: Heard) -> Said | Ended[T]:
        """The others' boxes of the step that was said last."""
        if self._over or self._said is None:
            raise OutOfOrder("This talk is over, or has not begun; a new round has to be asked for.")
        raw = msgspec.msgpack.encode(heard)
        if heard.step == self._step - 1 and raw == self._heard:
            return self._said  # offered again: the same bytes, and the program does not move
        if heard.session != self.session or heard.step != self._step:
            raise OutOfOrder(f"The talk is at step {self._step}; what arrived belongs to another step or talk.")
        if set(heard.boxes) != set(self._peers):
            raise Equivocation("A step of a talk has one box of every other hub of the study, and no others.")
        self._heard = raw
        try:
            return self._move(heard)
        except BaseException:
            self._over = True
            raise

    def _move(self, heard: Heard) -> Said | Ended[T]:
        if heard.step == 0:
            self._meet(heard.boxes)
            self._running = self.program()
            incoming = None
        else:
            incoming = {self._place(hub): self._unseal(hub, heard.step, box) for hub, box in heard.boxes.items()}
        assert self._running is not None
        try:
            outgoing = next(self._running) if incoming is None else self._running.send(incoming)
        except StopIteration as ended:
            self._over = True
            return Ended(ended.value, self._step + 1)
        self._step += 1
        if self._step > MAX_TALK_STEPS:
            raise ProtocolAbortedError(
                f"A computation among hubs may take {MAX_TALK_STEPS} steps; this one took more."
            )
        self._said = Said(self.session, self._step, self._sealed(outgoing))
        return self._said

    def _meet(self, boxes: Mapping[str, bytes]) -> None:
        for hub in self._peers:
            point = _checked_hello(boxes[hub], self.session, hub, self.keys)
            shared = self._secret.agree(point)
            self._outbound[hub] = AESGCM(self._direction(shared, self.me, hub))
            self._inbound[hub] = AESGCM(self._direction(shared, hub, self.me))

    def _direction(self, shared: bytes, sender: str, recipient: str) -> bytes:
        return derive(shared, salt=self.session, info=_LABEL + f"box|{sender}|{recipient}".encode())

    def _sealed(self, outgoing: Mapping[int, bytes]) -> dict[str, bytes]:
        if set(outgoing) != {self._place(hub) for hub in self._peers}:
            raise MisuseError("A step has to say something to every other hub, be it nothing.")
        boxes = {}
        for hub in self._peers:
            body = outgoing[self._place(hub)]
            if len(body) > MAX_BOX_BYTES - TALK_OVERHEAD_BYTES:
                raise MisuseError(f"A step may send {MAX_BOX_BYTES} bytes to one hub; this one has {len(body)}.")
            boxes[hub] = self._outbound[hub].encrypt(_nonce(self._step), body, None)
        return boxes

    def _unseal(self, hub: str, step: int, box: bytes) -> bytes:
        try:
            return self._inbound[hub].decrypt(_nonce(step), box, None)
        except (InvalidTag, ValueError) as error:
            raise Malformed(
                f"What claims to come from {hub} does not open: it, or the coordinator, changed it or was told of "
                "another question. The computation stops; nothing more is said in it."
            ) from error

    def _place(self, hub: str) -> int:
        return self.hubs.index(hub) + 1


def _nonce(step: int) -> bytes:
    return step.to_bytes(12, "big")


def _hello_to_sign(session: bytes, hub: str, point: bytes) -> bytes:
    return _LABEL + b"hello" + digest(session, hub.encode(), point)


def _checked_hello(raw: bytes, session: bytes, hub: str, keys: Mapping[str, bytes]) -> bytes:
    try:
        hello = msgspec.msgpack.decode(raw, type=Hello)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"What claims to be {hub}'s key for this talk is none.") from error
    if (hello.session, hello.hub) != (session, hub):
        raise Equivocation(f"{hub} was told of another question, roster or round than this hub; nothing is computed.")
    try:
        verify(keys[hub], hello.signature, _hello_to_sign(session, hub, hello.point))
    except BadSignature as error:
        raise BadSignature(f"The key for this talk that claims to come from {hub} is not signed by it.") from error
    return hello.point
