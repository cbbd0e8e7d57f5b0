"""What both ends of `secure_round.py` share, and its hub: a process with a relay, a store and one study.

As a program: python benchmarks/round_parties.py NAME FOLDER SEED HUBS
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from flute.aggregation.codec import Bounds, FixedPoint, Layout, Width
from flute.algorithms.contract import Describe
from flute.defaults import MAX_ENVELOPE_BYTES
from flute.hub.store import HubStore
from flute.messages.answer import EchoAnswer, MaskedAnswer, Receipt, SharesAnswer, TicketGiven
from flute.messages.envelope import ID_SIZE, bodies, open_envelope, write_envelope
from flute.messages.protocol import Echo, Masked, MaskedBlock, StudyKey
from flute.messages.question import EchoesSaid, SecureQuestion, SurvivorsSaid, TicketCall
from flute.primitives.keys import AgreementKey, SigningKey, derive, digest
from flute.study.agreement import VERSION, Agreement, PlanChoice, Question
from flute.study.plans.sides import HubSide, step_digest
from flute.transport import identity
from flute.transport.relay import RelayChannel

COORDINATOR = "coordinator"
STUDY = "bench"
AGREEMENT = digest(b"bench agreement")
WINDOW = 4
"""Blocks of a long vector under way at a time."""
CLIP = 1.0
LONG_PART = 24_576
"""Largest |coordinate| of all hubs together in the long vector: what 16 bits hold."""


class KeyGiven(Struct, frozen=True, forbid_unknown_fields=True, tag="key-given"):
    key: StudyKey


class PlainAsk(Struct, frozen=True, forbid_unknown_fields=True, tag="plain-ask"):
    size: int


class PlainVector(Struct, frozen=True, forbid_unknown_fields=True, tag="plain-vector"):
    vector: Annotated[bytes, Meta(max_length=MAX_ENVELOPE_BYTES)]


class BlockAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag="block-answer"):
    block: MaskedBlock


class MemoryAsk(Struct, frozen=True, forbid_unknown_fields=True, tag="memory-ask"):
    """How much memory a hub's processes had at most."""


class MemorySaid(Struct, frozen=True, forbid_unknown_fields=True, tag="memory-said"):
    service_mib: float
    relay_mib: float


TO_HUB = bodies(TicketCall, SecureQuestion, SurvivorsSaid, EchoesSaid, PlainAsk, MemoryAsk)
FROM_HUB = bodies(KeyGiven, TicketGiven, MaskedAnswer, BlockAnswer, EchoAnswer, SharesAnswer, PlainVector, MemorySaid)


@dataclass(frozen=True)
class Book:
    """Keys of everybody, made for this run; the roster that envelopes and the protocol ask."""

    hubs: tuple[str, ...]
    seed: bytes
    version: int = 1
    digest: bytes = digest(b"bench roster")
    _keys: dict[str, tuple[SigningKey, AgreementKey]] = field(default_factory=dict)

    def signing(self, party: str) -> SigningKey:
        return self._of(party)[0]

    def sealing(self, party: str) -> AgreementKey:
        return self._of(party)[1]

    def signing_key(self, party: str) -> bytes:
        return self.signing(party).public

    def sealing_key(self, party: str) -> bytes:
        return self.sealing(party).public

    def _of(self, party: str) -> tuple[SigningKey, AgreementKey]:
        if party not in self._keys:
            signing = SigningKey(derive(self.seed, info=f"sign {party}".encode()))
            self._keys[party] = signing, AgreementKey(derive(self.seed, info=f"seal {party}".encode()))
        return self._keys[party]


def agreement(hubs: tuple[str, ...]) -> Agreement:
    return Agreement(
        version=VERSION, study=STUDY, title="Bench", purpose="", researcher="bench", hubs=hubs, conditions={},
        starts=0, ends=0, dataset="records", missing="drop", variables=(), plan=PlanChoice("secagg", 1),
        mode="private", epsilon=1.0, delta=1e-6, max_numbers=0,
        questions=(Question("q", Describe(("x",)), "pooled", 1.0),),
        code=bytes(32), guarantees=bytes(32),
    )  # fmt: skip


def values(hub: str, size: int) -> np.ndarray:
    """A hub's real vector, float32, the same in every process."""
    return np.random.default_rng(list(hub.encode())).uniform(-CLIP, CLIP, size).astype(np.float32)


def long_part(hub: str, hubs: int, part: slice) -> np.ndarray:
    """A stretch of a hub's long vector, int16."""
    most = LONG_PART // hubs
    start = (part.start // 1_000_003) * 7 + sum(hub.encode())
    return ((np.arange(part.start, part.stop, dtype=np.int64) + start) % (2 * most) - most).astype(np.int16)


def long_bounds(hubs: int) -> Bounds:
    most = LONG_PART // hubs
    return Bounds(most, hubs * most)


def peak_mib(pid: int | str = "self") -> float:
    """VmHWM: the process's own peak of resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


class Post:
    """Envelopes of one party over its channel."""

    def __init__(self, me: str, book: Book, channel: RelayChannel, accepts: dict[str, type[Struct]]) -> None:
        self.me, self.book, self.channel, self._accepts = me, book, channel, accepts

    def send(self, recipient: str, body: Struct) -> None:
        envelope = write_envelope(
            body, key=self.book.signing(self.me), sender=self.me, recipient=recipient, roster_version=1,
            now=int(time.time()), rand=os.urandom(ID_SIZE), study=STUDY, seal_to=self.book.sealing_key(recipient),
        )  # fmt: skip
        self.channel.send(recipient, envelope)

    def receive(self, timeout_s: float = 300.0) -> tuple[str, Struct]:
        delivery = self.channel.receive(timeout_s)
        if delivery is None:
            raise RuntimeError(f"{self.me} waited {timeout_s:g} s for nothing")
        opened = open_envelope(
            delivery.body, me=self.me, roster=self.book, accepts=self._accepts, now=int(time.time()),
            key=self.book.sealing(self.me),
        )  # fmt: skip
        self.channel.done(delivery)
        return opened.header.sender, opened.body


class Hub:
    """Answers as a hub's service does: state and vector on disk (fsync) before an answer leaves."""

    def __init__(self, name: str, hubs: tuple[str, ...], post: Post, store: HubStore) -> None:
        self._name, self._hubs, self._post = name, hubs, post
        self._side = HubSide(
            name, agreement(hubs), AGREEMENT, post.book,  # type: ignore[arg-type]
            load=lambda: store.member(STUDY), save=lambda state, vector: store.put_member(STUDY, state, vector),
            vector=lambda: store.vector(STUDY), key=post.book.signing(name), entropy=os.urandom,
        )  # fmt: skip
        self._kept: dict[int, np.ndarray] = {}
        post.send(COORDINATOR, KeyGiven(self._side.study_key()))

    def answer(self, body: Struct) -> None:
        match body:
            case TicketCall():
                self._say(TicketGiven(self._side.ticket(body.keys, body.after)[0]))
            case SecureQuestion():
                self._mask(body)
            case SurvivorsSaid():
                told = self._side.told(body.survivors)
                assert isinstance(told, Echo)
                self._say(EchoAnswer(told))
            case EchoesSaid():
                self._say(SharesAnswer(self._side.unmask(body.echoes)[0]))
            case PlainAsk():
                self._say(PlainVector(self._vector(body.size).tobytes()))
            case MemoryAsk():
                self._say(MemorySaid(peak_mib(), peak_mib(self._post.channel.relay_pid or "self")))

    def _mask(self, asked: SecureQuestion) -> None:
        start = asked.start
        layout = Layout(start.width, start.size)
        question = step_digest(AGREEMENT, asked.question, asked.step, asked.attempt, asked.parameters)
        self._side.begin(start, question, layout)
        if layout.blocks == 1:
            fixed = FixedPoint(layout.width, len(self._hubs), CLIP)
            encoded = fixed.encode(self._vector(layout.size), rand=os.urandom(32))
            self._say(MaskedAnswer(self._side.mask(encoded, fixed.bounds), NO_RECEIPT))
            return
        for part in self._side.mask_blocks(self._stretch, long_bounds(len(self._hubs))):
            while self._post.channel.undelivered() >= WINDOW:
                time.sleep(0.005)
            self._say(MaskedAnswer(part, NO_RECEIPT) if isinstance(part, Masked) else BlockAnswer(part))

    def _stretch(self, part: slice) -> np.ndarray:
        return long_part(self._name, len(self._hubs), part)

    def _vector(self, size: int) -> np.ndarray:
        if size not in self._kept:
            self._kept[size] = values(self._name, size)
        return self._kept[size]

    def _say(self, body: Struct) -> None:
        self._post.send(COORDINATOR, body)


NO_RECEIPT = Receipt(bytes(32), 0, bytes(32))


def question_of(step: int, layout: Layout) -> tuple[bytes, tuple[object, ...]]:
    """(digest, fields of the question before its Start) of one round."""
    fields = (AGREEMENT, "q", step, 0, b"")
    return step_digest(*fields), fields  # type: ignore[arg-type]


def hub_process(name: str, folder: Path, seed: bytes, hubs: tuple[str, ...]) -> None:
    book = Book(hubs, seed)
    with (
        closing(RelayChannel(folder / "wire", name, identity.load_kit(folder))) as channel,
        closing(HubStore(folder)) as store,
    ):
        hub = Hub(name, hubs, Post(name, book, channel, TO_HUB), store)
        while True:
            hub.answer(hub._post.receive(3600.0)[1])


__all__ = ["COORDINATOR", "Book", "Post", "Width", "agreement", "msgspec"]

if __name__ == "__main__":
    name, folder, seed, hubs = sys.argv[1:]
    hub_process(name, Path(folder), bytes.fromhex(seed), tuple(hubs.split(",")))
