"""Hubs with a shared key in one process, for tests: bytes between them, and states on "disk".

Chance is a counter hashed with a seed, so that every test repeats; only tests may do that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace

from flute.messages.threshold import (
    Contribution,
    KeyCommitment,
    KeyComplaint,
    KeyConfirmation,
    KeyDealing,
    KeyDealtShare,
    KeyTerms,
    OpeningShare,
    SumTerms,
)
from flute.primitives.keys import SigningKey
from flute.threshold import ceremony, encryption, opening, totals
from flute.threshold.ceremony import Ceremony, decode_ceremony, encode_ceremony
from flute.threshold.encryption import SumState, decode_sum, encode_sum
from flute.threshold.keys import KeyShare, PublicKey, decode_key, encode_key

AGREEMENT = hashlib.sha256(b"agreement").digest()
ROSTER = hashlib.sha256(b"roster").digest()
QUESTION = hashlib.sha256(b"question").digest()
NAMES = tuple(f"hub-{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
STEPS = 2**10
"""Size of the table of totals in tests: small, so that it takes 20 ms."""


class Chance:
    """Repeatable bytes for tests."""

    def __init__(self, seed: object) -> None:
        self._seed, self._count = repr(seed).encode(), 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(size)


def key_terms(n: int = 3, threshold: int = 2, **changes: Any) -> KeyTerms:
    terms = KeyTerms(
        study="heart", agreement=AGREEMENT, roster=ROSTER, roster_version=4, hubs=NAMES[:n], threshold=threshold,
        colluding=threshold - 1 if n > threshold else max(n - 2, 0), contributors_min=n, attempt=1,
    )  # fmt: skip
    return replace(terms, **changes)


def wire(message: Any) -> Any:
    """As it arrives: encoded, and decoded as the closed struct it is."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))


def signing_keys(hubs: Sequence[str]) -> dict[str, SigningKey]:
    return {hub: SigningKey(hashlib.sha256(b"signing" + hub.encode()).digest()) for hub in hubs}


@dataclass
class KeyGroup:
    """A key ceremony, step by step. `mail` is what went out, to be spoilt by tests before the next step."""

    terms: KeyTerms
    seed: object = 0
    previous: dict[str, Ceremony] = field(default_factory=dict)
    disk: dict[str, bytes] = field(default_factory=dict)
    commitments: dict[str, KeyCommitment] = field(default_factory=dict)
    dealings: dict[str, KeyDealing] = field(default_factory=dict)
    shares: dict[tuple[str, str], KeyDealtShare] = field(default_factory=dict)
    """By dealer and holder."""
    answers: dict[str, KeyConfirmation | KeyComplaint] = field(default_factory=dict)
    held: dict[str, KeyShare] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.signing = signing_keys(self.terms.hubs)
        self.keys = {hub: key.public for hub, key in self.signing.items()}

    def state(self, hub: str) -> Ceremony:
        return decode_ceremony(self.disk[hub])

    def keep(self, state: Ceremony) -> None:
        self.disk[state.me] = encode_ceremony(state)

    def begin(self) -> None:
        for hub in self.terms.hubs:
            self.begin_one(hub)

    def begin_one(self, hub: str) -> None:
        rand = Chance((self.seed, self.terms.attempt, hub))(ceremony.rand_size(self.terms))
        state, message = ceremony.begin(
            hub, self.terms, rand=rand, key=self.signing[hub], previous=self.previous.get(hub)
        )
        self.keep(state)
        self.commitments[hub] = wire(message)

    def deal(self) -> None:
        for hub in self.terms.hubs:
            self.deal_one(hub)

    def deal_one(self, hub: str) -> None:
        state, dealing, shares = ceremony.deal(
            self.state(hub), self.commitments.values(), keys=self.keys, key=self.signing[hub]
        )
        self.keep(state)
        self.dealings[hub] = wire(dealing)
        self.shares |= {(hub, share.holder): wire(share) for share in shares}

    def confirm(self) -> None:
        for hub in self.terms.hubs:
            self.confirm_one(hub)

    def confirm_one(self, hub: str, dealings: dict[str, KeyDealing] | None = None) -> None:
        mine = [share for (_, holder), share in self.shares.items() if holder == hub]
        heard = (self.dealings if dealings is None else dealings).values()
        state, answer = ceremony.confirm(self.state(hub), heard, mine, keys=self.keys, key=self.signing[hub])
        self.keep(state)
        self.answers[hub] = wire(answer)

    def finish(self) -> None:
        for hub in self.terms.hubs:
            self.finish_one(hub)

    def finish_one(self, hub: str) -> None:
        state, held = ceremony.finish(self.state(hub), self.answers.values(), keys=self.keys)
        self.keep(state)
        self.held[hub] = decode_key(encode_key(held))

    def run(self) -> KeyGroup:
        for step in (self.begin, self.deal, self.confirm, self.finish):
            step()
        return self

    @property
    def public(self) -> PublicKey:
        return self.held[self.terms.hubs[0]].public


@cache
def keyed(n: int = 3, threshold: int = 2, colluding: int | None = None) -> KeyGroup:
    """A finished ceremony. Not to be changed."""
    changes = {} if colluding is None else {"colluding": colluding, "contributors_min": colluding + 2}
    return KeyGroup(key_terms(n, threshold, **changes)).run()


@dataclass
class Sum:
    """One vector of sums by hubs of a finished ceremony."""

    group: KeyGroup
    numbers: dict[str, list[int]]
    question: bytes = QUESTION
    bound: int = 2**20
    round: int = 1
    contributions: dict[str, Contribution] = field(default_factory=dict)
    disk: dict[str, bytes] = field(default_factory=dict)
    shares: dict[str, OpeningShare] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(next(iter(self.numbers.values())))
        self.terms = SumTerms(
            self.group.public.digest(), self.question, self.round, size, self.bound, tuple(sorted(self.numbers))
        )
        for hub in self.group.terms.hubs:
            self.keep(SumState(hub, self.terms))

    def state(self, hub: str) -> SumState:
        return decode_sum(self.disk[hub])

    def keep(self, state: SumState) -> None:
        self.disk[state.me] = encode_sum(state)

    def contribute(self) -> Sum:
        for hub in self.numbers:
            self.contribute_one(hub)
        return self

    def contribute_one(self, hub: str) -> None:
        rand = Chance(("sum", self.question, self.round, hub))(encryption.rand_size(self.terms.size))
        state, message = encryption.contribute(
            self.state(hub), self.numbers[hub], public=self.group.public, rand=rand, key=self.group.signing[hub]
        )
        self.keep(state)
        self.contributions[hub] = wire(message)

    def add_up(self, terms: SumTerms | None = None) -> opening.Summed:
        return opening.add_up(
            self.terms if terms is None else terms,
            self.contributions.values(), public=self.group.public, keys=self.group.keys,
        )  # fmt: skip

    def share(self) -> Sum:
        for hub in self.group.terms.hubs:
            self.share_one(hub)
        return self

    def share_one(self, hub: str) -> None:
        """The hub adds up for itself what it was handed."""
        rand = Chance(("share", self.round, hub))(opening.SHARE_RAND_SIZE)
        state, message = opening.share(
            self.state(hub), self.group.held[hub], self.add_up(), rand=rand, key=self.group.signing[hub]
        )
        self.keep(state)
        self.shares[hub] = wire(message)

    def combine(self, *hubs: str) -> opening.Opened:
        chosen = [self.shares[hub] for hub in hubs or self.shares]
        return opening.combine(self.group.public, self.add_up(), chosen, keys=self.group.keys)

    def totals(self, *hubs: str) -> tuple[int, ...]:
        return totals.read_totals(self.combine(*hubs).elements, bound=self.bound, steps=STEPS)
