"""Real hubs and a real coordinator in one process, for tests: bytes between them, and states on "disk".

`Hub` keeps its state as bytes and reads them back before each step, as a hub does after a restart. Chance is a
counter hashed with a seed, so that every test repeats; only tests may do that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare

from flute.aggregation import channels, collector, member
from flute.aggregation.codec import largest_part
from flute.aggregation.context import context
from flute.aggregation.masks import pair_mask, remove_mask, self_mask
from flute.aggregation.state import MemberState, decode_state, encode_state
from flute.aggregation.terms import default_threshold
from flute.defaults import SENTINELS
from flute.messages.protocol import Echo, Echoes, GroupTerms, Masked, Shares, Start, StudyKey, Survivors, Ticket
from flute.primitives.keys import AgreementKey, SigningKey
from flute.primitives.ring import Integers, Ring, from_bytes, from_ring

QUESTION = hashlib.sha256(b"question").digest()
AGREEMENT = hashlib.sha256(b"agreement").digest()
NAMES = tuple(f"hub-{letter}" for letter in [*"abcdefghijklmnopqrstuvwxyz", "za", "zb", "zc", "zd"])


class Chance:
    """Repeatable bytes for tests."""

    def __init__(self, seed: object) -> None:
        self._seed, self._count = repr(seed).encode(), 0

    def __call__(self, size: int = 32) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(size)


def group(n: int = 3, c: int = 1, **changes: object) -> GroupTerms:
    t = default_threshold(n, c)
    terms = GroupTerms(
        study="heart", agreement=AGREEMENT, roster=hashlib.sha256(b"roster").digest(), roster_version=4,
        hubs=NAMES[:n], threshold=t, colluding=c, survivors_min=max(t, 3), mode="echo", exact=False,
    )  # fmt: skip
    return msgspec.structs.replace(terms, **changes)


def wire(message: msgspec.Struct) -> msgspec.Struct:
    """As it arrives: encoded, and decoded as the closed struct it is."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))


@dataclass
class Hub:
    name: str
    key: SigningKey
    chance: Chance
    disk: bytes = b""
    keys: dict[str, bytes] = field(default_factory=dict)

    @property
    def state(self) -> MemberState:
        state = decode_state(self.disk)
        assert isinstance(state, MemberState)
        return state

    def enrol(self, terms: GroupTerms) -> StudyKey:
        enrolled, study_key = channels.enrol(
            self.name, study=terms.study, agreement=terms.agreement, key=self.key, rand=self.chance()
        )
        self.disk = encode_state(enrolled)
        return study_key

    def setup(self, study_keys: list[StudyKey], terms: GroupTerms) -> None:
        self.disk = encode_state(channels.setup(decode_state(self.disk), study_keys, terms=terms, keys=self.keys))

    def deal(self, after: int = 0) -> Ticket:
        state, ticket = member.deal(self.state, key=self.key, rand=self.chance(), after=after)
        self.disk = encode_state(state)
        return wire(ticket)

    def begin(self, start: Start, question: bytes = QUESTION) -> Masked | None:
        state, masked = member.begin(self.state, wire(start), question=question, keys=self.keys)
        self.disk = encode_state(state)
        return masked

    def mask(self, values: NDArray[np.int64], part_bound: int | None = None) -> Masked:
        bound = largest_part(len(self.state.terms.hubs)) if part_bound is None else part_bound
        state, masked = member.mask(self.state, values, part_bound=bound, key=self.key)
        self.disk = encode_state(state)
        return wire(masked)

    def echo(self, told: Survivors) -> Echo:
        state, echo = member.echo(self.state, wire(told), key=self.key)
        self.disk = encode_state(state)
        return wire(echo)

    def unmask(self, tags: Echoes, *, next_ticket: bool = True) -> tuple[Shares, tuple[str, ...]]:
        rand = self.chance() if next_ticket else None
        state, shares, wrong = member.unmask(self.state, wire(tags), keys=self.keys, key=self.key, rand=rand)
        self.disk = encode_state(state)
        return wire(shares), wrong

    def unmask_without_echo(self, told: Survivors) -> Shares:
        state, shares = member.unmask_without_echo(self.state, wire(told), key=self.key, rand=self.chance())
        self.disk = encode_state(state)
        return wire(shares)


class Federation:
    """Hubs of one group with channels set up, and what an honest coordinator would do with them."""

    def __init__(self, terms: GroupTerms | None = None, seed: object = 0) -> None:
        self.terms = group() if terms is None else terms
        self.hubs = {
            name: Hub(name, SigningKey(Chance((seed, name, "key"))()), Chance((seed, name)))
            for name in self.terms.hubs
        }
        self.keys = {name: hub.key.public for name, hub in self.hubs.items()}
        study_keys = [hub.enrol(self.terms) for hub in self.hubs.values()]
        for hub in self.hubs.values():
            hub.keys = self.keys
            hub.setup(study_keys, self.terms)
        self.tickets = {name: hub.deal() for name, hub in self.hubs.items()}
        self.round = 0

    def __getitem__(self, index: int) -> Hub:
        return self.hubs[self.terms.hubs[index]]

    def starts(self, size: int, question: bytes = QUESTION, hubs: tuple[str, ...] | None = None) -> dict[str, Start]:
        self.round += 1
        tickets = {name: self.tickets[name] for name in (hubs or self.terms.hubs)}
        return collector.start(
            self.terms, round_number=self.round, question=question, size=size, tickets=tickets, keys=self.keys
        )

    def masked(self, starts: dict[str, Start], values: dict[str, NDArray[np.int64]]) -> dict[str, Masked]:
        for name, start in starts.items():
            assert self.hubs[name].begin(start) is None
        return {name: self.hubs[name].mask(values[name]) for name in starts}

    def told(self, starts: dict[str, Start], masked: dict[str, Masked]) -> Survivors:
        return collector.survivors(any_of(starts), masked, self.keys)

    def shares(self, starts: dict[str, Start], told: Survivors) -> dict[str, Shares]:
        received = {name: self.hubs[name].echo(told) for name in told.hubs}
        tags, wrong = collector.echoes(any_of(starts), told, received, self.keys)
        assert wrong == ()
        shares = {}
        for name in told.hubs:
            shares[name], wrong = self.hubs[name].unmask(tags)
            assert wrong == ()
        self.tickets |= {name: s.ticket for name, s in shares.items()}
        return shares

    def run(self, values: dict[str, NDArray[np.int64]], part_bound: int | None = None) -> collector.Opened:
        """One honest round from tickets to total."""
        starts = self.starts(len(next(iter(values.values()))), hubs=tuple(sorted(values)))
        masked = self.masked(starts, values)
        told = self.told(starts, masked)
        shares = self.shares(starts, told)
        bound = largest_part(len(self.terms.hubs)) if part_bound is None else part_bound
        return collector.total(any_of(starts), told, masked, shares, part_bound=bound)


def any_of(starts: dict[str, Start]) -> Start:
    return next(iter(starts.values()))


def answers(terms: GroupTerms, size: int = 6, seed: int = 1) -> dict[str, NDArray[np.int64]]:
    """Random answers within ±2^40; a test's stand-in for what algorithms compute."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-(2**40), 2**40, size, dtype=np.int64) for name in terms.hubs}


def words(masked: Masked) -> Ring:
    return from_bytes(masked.vector, len(masked.vector) // 8).copy()


@dataclass(frozen=True)
class Spied:
    """What nobody but the hub knows of its live ticket; tests that show an attack's success look it up."""

    seed: bytes
    point: AgreementKey


def spy(federation: Federation) -> dict[str, Spied]:
    dealt = {name: hub.state.dealt for name, hub in federation.hubs.items()}
    return {name: Spied(d.seed, AgreementKey(d.point)) for name, d in dealt.items() if d is not None}


def strip(
    masked: Masked, start: Start, spied: dict[str, Spied], *, seed: bool = True, pairs: bool = True
) -> Integers:
    """A vector without those of its masks that the given secrets undo, sentinels cut off."""
    y, ctx = words(masked), context(start)
    if seed:
        remove_mask(y, self_mask(spied[masked.hub].seed, ctx=ctx, hub=masked.hub))
    for pub in start.pubs:
        if pairs and pub.hub != masked.hub:
            key = pair_mask(spied[masked.hub].point, pub.point, ctx=ctx, me=masked.hub, other=pub.hub)
            remove_mask(y, key)
    return from_ring(y)[:-SENTINELS]


def uniform_bytes(raw: bytes, alpha: float = 1e-6) -> bool:
    """Chi-squared over the 256 byte values: false alarm with probability `alpha` on truly uniform bytes."""
    counts = np.bincount(np.frombuffer(raw, dtype=np.uint8), minlength=256)
    return bool(chisquare(counts).pvalue > alpha)
