"""Rounds in which all hubs show the same thing to everybody, and what is read off it.

A message is the digest of everything said before (32 bytes) and a body: field elements, 8 bytes each, little-endian.
Every message goes to everybody, so a hub that told two hubs two things is found out one round later, when their
digests differ. Three kinds of openings share a round:

- `sums`: each hub shows an additive share, masked by zeros of pairs: only the total is learned. Whoever lies shifts
  the total by what it likes; the verification (`mpc.verification`) finds that.
- `shares`: shares of degree t. All n have to lie on one polynomial of degree t; n - t honest ones determine it, so
  that a lie is seen at once and no wrong value is ever read.
- `own`: one hub's own words, the same for all.

Raises everywhere: Cheating, naming the sender of a body of a wrong length or with a number outside the field;
Cheating where shares do not fit, with the liars' names where n > 3t tells them; Equivocation where digests differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from itertools import combinations
from math import prod
from struct import Struct
from typing import Final

import numpy as np

from flute.defaults.joint import DIGEST_BYTES, MAX_ROUND_BYTES
from flute.errors import Cheating, Equivocation, MisuseError
from flute.mpc.chance import Chance
from flute.mpc.field import Elements, Prime
from flute.mpc.setup import Circle
from flute.mpc.steps import Place, Step

Item = tuple[Prime, Elements]
_WORD: Final = 8
_LENGTH: Final = Struct(">Q")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a round gave, in the order in which it was asked for."""

    sums: list[Elements] = field(default_factory=list)
    shares: list[Elements] = field(default_factory=list)
    own: list[Elements] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Own:
    """Words that `owner` shows; `words` is None at the others, who know the shape."""

    owner: Place
    prime: Prime
    shape: tuple[int, ...]
    words: Elements | None


class Wire:
    """Rounds of one hub. `rounds` and `sent_bytes` (to one other hub) count what was used."""

    def __init__(self, circle: Circle, chance: Chance) -> None:
        self.circle = circle
        self.rounds = 0
        self.sent_bytes = 0
        self._chance = chance
        self._stopped = False
        self._transcript = hashlib.sha256(b"flute/mpc/v1/transcript/" + circle.context).digest()

    @property
    def transcript(self) -> bytes:
        """Digest of all messages of all hubs so far."""
        return self._transcript

    def exchange(
        self, *, sums: Sequence[Item] = (), shares: Sequence[Item] = (), own: Sequence[Own] = ()
    ) -> Step[Opened]:
        """One round. sums: my share of a value of degree below n, as it stands on the polynomial.

        A computation that stopped here does not go on: whatever its caller does, no further message leaves."""
        if self._stopped:
            raise MisuseError("This computation has stopped. A new attempt needs new keys.")
        mine = [self._additive(prime, values) for prime, values in sums] + [values for _, values in shares]
        mine += [part.words for part in own if part.owner == self.circle.me and part.words is not None]
        body = self._body(mine)
        if len(body) > MAX_ROUND_BYTES:
            raise MisuseError(f"One round may carry {MAX_ROUND_BYTES} bytes; this one would need {len(body)}.")
        self._stopped = True
        arrived = yield dict.fromkeys(self.circle.others, self._transcript + body)
        self.rounds += 1
        self.sent_bytes += len(body) + DIGEST_BYTES
        bodies = self._bodies(arrived, body)
        opened = self._read(bodies, sums, shares, own)
        self._stopped = False
        return opened

    def stop(self, text: str) -> Cheating:
        """The error to raise where a check above the wire fails; nothing is sent after it."""
        self._stopped = True
        return Cheating(text)

    def _body(self, mine: Sequence[Elements]) -> bytes:
        return b"".join(values.astype("<u8", copy=False).tobytes() for values in mine)

    def _additive(self, prime: Prime, values: Elements) -> Elements:
        """Lagrange's weight times the share, hidden under zeros."""
        everybody = tuple(range(1, self.circle.hubs + 1))
        weighed = prime.scale(values.reshape(-1), weights(prime, everybody, 0)[self.circle.me - 1])
        return prime.add(weighed, self._chance.zeros(prime, values.size))

    def _bodies(self, arrived: Mapping[Place, bytes], mine: bytes) -> list[bytes | memoryview]:
        """Bodies by place, once all digests agree with ours."""
        if set(arrived) != set(self.circle.others):
            raise MisuseError("A round is over when one message of every other hub is there.")
        for place, raw in arrived.items():
            if len(raw) < DIGEST_BYTES:
                raise self._named(place, "sent a message too short for its digest")
        if any(raw[:DIGEST_BYTES] != self._transcript for raw in arrived.values()):
            raise Equivocation(
                "The hubs do not agree on what was said so far: somebody told two of them two things. "
                "The computation stops; nothing of this round is used."
            )
        state = hashlib.sha256(self._transcript)
        bodies: list[bytes | memoryview] = []
        for place in range(1, self.circle.hubs + 1):
            body = mine if place == self.circle.me else memoryview(arrived[place])[DIGEST_BYTES:]
            state.update(_LENGTH.pack(len(body)))
            state.update(body)
            bodies.append(body)
        self._transcript = state.digest()
        return bodies

    def _read(
        self, bodies: list[bytes | memoryview], sums: Sequence[Item], shares: Sequence[Item], own: Sequence[Own]
    ) -> Opened:
        common = [(prime, values.shape) for prime, values in (*sums, *shares)]
        rows = []
        for place, body in enumerate(bodies, start=1):
            parts = [*common, *((part.prime, part.shape) for part in own if part.owner == place)]
            rows.append(self._parts(place, body, parts))
        totals = [reduce(prime.add, [row[i] for row in rows]) for i, (prime, _) in enumerate(sums)]
        values = [
            self._interpolate(prime, [row[len(sums) + i] for row in rows]) for i, (prime, _) in enumerate(shares)
        ]
        queues = [iter(row[len(common) :]) for row in rows]
        return Opened(totals, values, [next(queues[part.owner - 1]) for part in own])

    def _parts(
        self, place: Place, body: bytes | memoryview, parts: Sequence[tuple[Prime, tuple[int, ...]]]
    ) -> list[Elements]:
        sizes = [int(np.prod(shape, dtype=np.int64)) for _, shape in parts]
        if len(body) != _WORD * sum(sizes):
            raise self._named(place, f"sent {len(body)} bytes where {_WORD * sum(sizes)} were due")
        words = np.frombuffer(body, dtype="<u8").astype(np.uint64, copy=False)
        read, at = [], 0
        for (prime, shape), size in zip(parts, sizes, strict=True):
            part = words[at : at + size]
            if size and int(part.max()) >= prime.p:
                raise self._named(place, "sent a number outside the field")
            read.append(part.reshape(shape))
            at += size
        return read

    def _interpolate(self, prime: Prime, rows: list[Elements]) -> Elements:
        """The value at 0 of the polynomial of degree t through all n shares."""
        if not self._fit(prime, rows, range(1, self.circle.hubs + 1)):
            liars = self._liars(prime, rows)
            named = f" That was {', '.join(liars)}." if liars else ""
            raise Cheating(
                f"The shares of an opened value do not fit together: at least one hub showed a wrong one.{named} "
                "The value is not used and the computation stops.",
                blamed=liars,
            )
        known = range(1, self.circle.corrupt + 2)
        return _at_place(prime, rows, known, 0)

    def _fit(self, prime: Prime, rows: list[Elements], places: Sequence[Place]) -> bool:
        """Whether the shares of these places lie on one polynomial of degree t."""
        known, rest = places[: self.circle.corrupt + 1], places[self.circle.corrupt + 1 :]
        return all(np.array_equal(_at_place(prime, rows, known, x), rows[x - 1]) for x in rest)

    def _liars(self, prime: Prime, rows: list[Elements]) -> tuple[str, ...]:
        """Who showed a wrong share, where n > 3t lets it be told: 2t + 1 shares that fit hold t + 1 honest ones, so
        that their polynomial is the right one and whoever is off it lied. Fewer hubs: nobody is named."""
        hubs, corrupt = self.circle.hubs, self.circle.corrupt
        if hubs <= 3 * corrupt:
            return ()
        for trusted in combinations(range(1, hubs + 1), hubs - corrupt):
            if self._fit(prime, rows, trusted):
                known = trusted[: corrupt + 1]
                return tuple(
                    self.circle.name(x)
                    for x in range(1, hubs + 1)
                    if not np.array_equal(_at_place(prime, rows, known, x), rows[x - 1])
                )
        return ()

    def _named(self, place: Place, what: str) -> Cheating:
        name = self.circle.name(place)
        return Cheating(f"{name} {what}. The computation stops.", blamed=(name,))


def _at_place(prime: Prime, rows: Sequence[Elements], known: Sequence[Place], x: Place) -> Elements:
    """The value at x of the polynomial through the shares of the known places."""
    return prime.weigh(np.stack([rows[i - 1] for i in known]), weights(prime, tuple(known), x))


@cache
def weights(prime: Prime, known: tuple[Place, ...], x: Place) -> tuple[int, ...]:
    """Lagrange's weights of these points for the value at x."""
    found = []
    for i in known:
        others = [j for j in known if j != i]
        top, bottom = prod(x - j for j in others), prod(i - j for j in others)
        found.append(top * prime.inverse(bottom) % prime.p)
    return tuple(found)
