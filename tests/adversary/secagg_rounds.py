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
from flute.aggregation.codec import Bounds, Width, exact_bounds
from flute.aggregation.context import context
from flute.aggregation.masks import MaskKey, MaskStreams, opposite, pair_mask, self_mask
from flute.aggregation.state import MemberState, decode_state, encode_state
from flute.aggregation.terms import default_threshold, neighbours
from flute.defaults import SENTINELS
from flute.messages.protocol import Echo, Echoes, GroupTerms, Masked, Shares, Start, StudyKey, Survivors, Ticket
from flute.primitives.keys import AgreementKey, SigningKey
from flute.primitives.ring import Integers, Ring, from_bytes

QUESTION = hashlib.sha256(b"question").digest()
AGREEMENT = hashlib.sha256(b"agreement").digest()
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = (
    *(f"hub-{letter}" for letter in _LETTERS[:25]), "hub-z",
    *(f"hub-z{one}{two}" for one in _LETTERS for two in _LETTERS),
)  # fmt: skip


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
    vector: bytes = b""
    """The masked vector that the hub keeps beside its state, to send it again."""
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
        return masked and msgspec.structs.replace(masked, vector=self.vector)

    def mask(self, values: NDArray[np.int64], bounds: Bounds | None = None) -> Masked:
        bounds = bounds or exact_bounds(len(self.state.terms.hubs))
        state, masked = member.mask(self.state, values, bounds=bounds, key=self.key)
        self.disk, self.vector = encode_state(state), masked.vector
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

    def starts(
        self, size: int, question: bytes = QUESTION, hubs: tuple[str, ...] | None = None, width: Width = 64
    ) -> dict[str, Start]:
        self.round += 1
        self.named = {name: self.tickets[name] for name in (hubs or self.terms.hubs)}
        return collector.start(
            self.terms, round_number=self.round, question=question, size=size, width=width, tickets=self.named,
            keys=self.keys,
        )  # fmt: skip

    def masked(
        self, starts: dict[str, Start], values: dict[str, NDArray[np.int64]], bounds: Bounds | None = None
    ) -> dict[str, Masked]:
        """Vectors of the hubs of `values`; the other participants begin and stay silent."""
        for name, start in starts.items():
            assert self.hubs[name].begin(start) is None
        return {name: self.hubs[name].mask(values[name], bounds) for name in starts if name in values}

    def told(self, starts: dict[str, Start], masked: dict[str, Masked]) -> Survivors:
        for message in masked.values():
            collector.check_masked(any_of(starts), context(any_of(starts)), message, self.keys)
        return collector.survivors(any_of(starts), tuple(masked))

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

    def total(
        self,
        starts: dict[str, Start],
        told: Survivors,
        masked: dict[str, Masked],
        shares: dict[str, Shares],
        bounds: Bounds | None = None,
    ) -> collector.Opened:
        bounds = bounds or exact_bounds(len(self.terms.hubs))
        return collector.total(any_of(starts), told, masked, self.named, shares, bounds=bounds)

    def run(
        self,
        values: dict[str, NDArray[np.int64]],
        *,
        bounds: Bounds | None = None,
        width: Width = 64,
        silent: tuple[str, ...] = (),
    ) -> collector.Opened:
        """One honest round from tickets to total, in which the hubs `silent` drop out before their vector."""
        hubs = tuple(sorted({*values, *silent}))
        starts = self.starts(len(next(iter(values.values()))), hubs=hubs, width=width)
        masked = self.masked(starts, {name: x for name, x in values.items() if name not in silent}, bounds)
        told = self.told(starts, masked)
        return self.total(starts, told, masked, self.shares(starts, told), bounds)


def any_of(starts: dict[str, Start]) -> Start:
    return next(iter(starts.values()))


def answers(terms: GroupTerms, size: int = 6, seed: int = 1) -> dict[str, NDArray[np.int64]]:
    """Random answers within ±2^40; a test's stand-in for what algorithms compute."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-(2**40), 2**40, size, dtype=np.int64) for name in terms.hubs}


def words(masked: Masked) -> Ring:
    """Of a 64-bit vector."""
    return from_bytes(masked.vector, len(masked.vector) // 8, 8).copy()


def remove_mask(vector: Ring, key: MaskKey) -> None:
    MaskStreams(opposite([key])).add_to(vector)


def integers(vector: Ring) -> Integers:
    """Residues mod 2^64 as the integers nearest to zero, sentinels cut off."""
    return vector.view(np.int64)[:-SENTINELS]


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
        if pairs and pub.hub in neighbours(start.terms, [p.hub for p in start.pubs], masked.hub):
            key = pair_mask(spied[masked.hub].point, pub.point, ctx=ctx, me=masked.hub, other=pub.hub)
            remove_mask(y, key)
    return integers(y)


def uniform_bytes(raw: bytes, alpha: float = 1e-6) -> bool:
    """Chi-squared over the 256 byte values: false alarm with probability `alpha` on truly uniform bytes."""
    counts = np.bincount(np.frombuffer(raw, dtype=np.uint8), minlength=256)
    return bool(chisquare(counts).pvalue > alpha)
