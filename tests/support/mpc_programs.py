"""Small programs that between them send every kind of message, and ways to falsify one."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flute.mpc.field import Prime
from flute.mpc.party import Party
from support.mpc_parties import Rewrite, Run, compute

Steps = Generator[Any, Any, Any]
DIGEST, WORD = 32, 8
MINE = {1: np.array([5, -3]), 2: np.array([-2, 7]), 3: np.array([6, 1])}


@dataclass
class Openings:
    """What a hub learned, and in which rounds (counted from 0) outputs were shown."""

    values: list[Any]
    rounds: list[int]


def opened(party: Party, outputs: list[Any], to: int | None = None) -> Steps:
    done = Openings([], [])
    for output in outputs:
        value = yield from party.open(output, to=to)
        done.values.append(value)
        done.rounds.append(party.rounds - 1)
    return done


def inputs(party: Party) -> Steps:
    return (yield from party.inputs(MINE.get(party.me), dict.fromkeys(MINE, (2,)), bound=4))


def arithmetic(party: Party) -> Steps:
    x = yield from inputs(party)
    product = yield from party.mul(x[1], x[2])
    total = yield from party.dot(product.reshape(1, 2), x[3].reshape(2, 1))
    small = yield from party.mul_truncate(product, x[3] * 64, 6)
    halved = yield from party.truncate(small * 32, 5)
    return (yield from opened(party, [total.reshape(1) + halved]))


def comparisons(party: Party) -> Steps:
    x = yield from inputs(party)
    less = yield from party.less_than_zero(x[1] - x[2], 6)
    same = yield from party.is_zero(x[2] - x[3], 6)
    digits = yield from party.bits(x[1] + 16, 5)
    wide = yield from party.widen(less, 1)
    return (yield from opened(party, [less + same + digits.sum(axis=-1), wide]))


def noise_for_one(party: Party) -> Steps:
    noise = yield from party.noise(np.array([party.me]), bound=3)
    squared = yield from party.mul(noise, noise)
    return (yield from opened(party, [squared], to=2))


PROGRAMS: dict[str, Callable[[Party], Steps]] = {
    "arithmetic": arithmetic, "comparisons": comparisons, "noise for one": noise_for_one,
}  # fmt: skip


def honest(program: Callable[[Party], Steps], hubs: int) -> Run:
    """A run that nobody disturbs; the same every time, for keys and inputs are."""
    run = compute(program, hubs)
    assert not run.errors
    return run


KINDS = ("shift a word", "flip a bit", "other word", "number too large", "cut", "longer", "zeros", "earlier body",
         "digest")  # fmt: skip


def falsified(kind: str, body: bytes, earlier: list[bytes], rng: random.Random) -> bytes:
    """Another body than this one: of the kind named where it allows that."""
    if body and kind in ("shift a word", "flip a bit", "other word", "number too large"):
        at = WORD * rng.randrange(len(body) // WORD)
        word = int.from_bytes(body[at : at + WORD], "little")
        new = {
            "shift a word": (word + rng.choice([1, 2**20, 2**40])) % (2**58 - 27),
            "flip a bit": word ^ 1 << rng.randrange(58),
            "other word": rng.randrange(2**58 - 27),
            "number too large": 2**61 - 1 + rng.randrange(3 * 2**61),
        }[kind]
        return body[:at] + new.to_bytes(WORD, "little") + body[at + WORD :]
    if body and kind == "cut":
        return body[: -rng.randrange(1, min(len(body), 17))]
    if any(body) and kind == "zeros":
        return bytes(len(body))
    others = [old for old in earlier if old != body]
    if kind == "earlier body" and others:
        return rng.choice([old for old in others if len(old) == len(body)] or others)
    return body + bytes(rng.choice([1, 8, 64]))


@dataclass
class Cheat:
    """One hub falsifies one message, to everybody alike (victim None) or to one hub alone, and is clever about it:

    it computes on with what it said, and shows every hub the digest that this hub expects."""

    hub: int
    round: int
    kind: str
    victim: int | None
    seed: int

    def __call__(self, parties: dict[int, Party]) -> Rewrite:
        wire = parties[self.hub].wire
        plain, said = wire._body, []

        def body(mine: Any) -> bytes:
            said.append(plain(mine))
            return self._false(said) if self._now(wire.rounds) and self.victim is None else said[-1]

        wire._body = body  # type: ignore[method-assign]

        def change(number: int, sender: int, recipient: int, raw: bytes) -> bytes:
            if recipient == self.hub:
                return wire.transcript + raw[DIGEST:]
            if sender != self.hub:
                return raw
            if number == self.round and self.kind == "digest" and self.victim in (None, recipient):
                return bytes([raw[0] ^ 1]) + raw[1:]
            false = self._now(number) and self.victim == recipient
            return parties[recipient].wire.transcript + (self._false(said) if false else raw[DIGEST:])

        return change

    def _now(self, number: int) -> bool:
        return number == self.round and self.kind != "digest"

    def _false(self, said: list[bytes]) -> bytes:
        return falsified(self.kind, said[-1], said[:-1], random.Random(self.seed))


def shifting(hub: int, at: dict[int, tuple[Prime, int]], *, number: int = 0, victim: int | None = None) -> Cheat:
    """A cheat that adds to words of one message: word -> (field, what)."""

    class Shift(Cheat):
        def _false(self, said: list[bytes]) -> bytes:
            words = bytearray(said[-1])
            for word, (prime, what) in at.items():
                place = slice(WORD * word, WORD * (word + 1))
                words[place] = ((int.from_bytes(words[place], "little") + what) % prime.p).to_bytes(WORD, "little")
            return bytes(words)

    return Shift(hub, number, "shift", victim, 0)
