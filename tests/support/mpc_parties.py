"""All hubs of a computation in one process, with a place for an adversary that rewrites any message.

A program is a function of a Party that gives a generator. Rounds are lock-step; a hub that raises falls silent, and
the others stop when its message does not come, as behind a real channel.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from flute.errors import FluteError, TooFewHubs
from flute.mpc.party import Party
from flute.mpc.setup import Circle, Keys, setup

Program = Callable[[Party], Generator[Mapping[int, bytes], Mapping[int, bytes], Any]]
Rewrite = Callable[[int, int, int, bytes], bytes | None]
"""(round, sender, recipient, message) -> what arrives; None: nothing does."""


@dataclass
class Run:
    """What each hub returned or raised, by place; every message; processor seconds of each hub."""

    results: dict[int, Any] = field(default_factory=dict)
    errors: dict[int, FluteError] = field(default_factory=dict)
    messages: list[dict[tuple[int, int], bytes]] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)
    parties: dict[int, Party] = field(default_factory=dict)

    @property
    def sole(self) -> Any:
        """Hub 1's result; raises its error."""
        if 1 in self.errors:
            raise self.errors[1]
        return self.results[1]


def seed(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def circles(hubs: int, *, context: bytes = b"test", corrupt: int = 0) -> dict[int, Circle]:
    return {me: Circle(me, hubs, context, corrupt) for me in range(1, hubs + 1)}


def drive(generators: Mapping[int, Generator[Any, Any, Any]], rewrite: Rewrite | None = None) -> Run:
    """Run generators by place in lock-step rounds until each has returned or raised."""
    run = Run(seconds=dict.fromkeys(generators, 0.0))
    outgoing: dict[int, Mapping[int, bytes]] = {}
    for place in generators:
        _step(run, generators, outgoing, place, None)
    while outgoing:
        sent = {(a, b): raw for a, out in outgoing.items() for b, raw in out.items()}
        number = len(run.messages)
        run.messages.append(sent)
        if rewrite is not None:
            sent = {
                way: new for way, raw in sent.items() if (new := rewrite(number, way[0], way[1], raw)) is not None
            }
        waiting, outgoing = list(outgoing), {}
        for place in waiting:
            arrived = {a: raw for (a, b), raw in sent.items() if b == place}
            _step(run, generators, outgoing, place, arrived)
    return run


def _step(
    run: Run,
    generators: Mapping[int, Generator[Any, Any, Any]],
    outgoing: dict[int, Mapping[int, bytes]],
    place: int,
    arrived: Mapping[int, bytes] | None,
) -> None:
    generator = generators[place]
    begin = time.process_time()
    try:
        if arrived is None:
            outgoing[place] = next(generator)
        elif len(arrived) < len(generators) - 1:
            outgoing[place] = generator.throw(
                TooFewHubs("A hub of this computation fell silent; nothing was opened.")
            )
        else:
            outgoing[place] = generator.send(arrived)
    except StopIteration as stop:
        run.results[place] = stop.value
    except FluteError as error:
        run.errors[place] = error
    finally:
        run.seconds[place] += time.process_time() - begin


@cache
def agreed_keys(hubs: int, *, context: bytes = b"test", corrupt: int = 0) -> dict[int, Keys]:
    """The same at every call: dealt once per test run."""
    ours = circles(hubs, context=context, corrupt=corrupt)
    return drive({me: setup(ours[me], rand=seed(context, me)) for me in ours}).results


def parties(hubs: int, *, context: bytes = b"test", corrupt: int = 0) -> dict[int, Party]:
    keys = agreed_keys(hubs, context=context, corrupt=corrupt)
    return {me: Party(circle, keys[me]) for me, circle in circles(hubs, context=context, corrupt=corrupt).items()}


def compute(
    program: Program,
    hubs: int = 3,
    *,
    context: bytes = b"test",
    corrupt: int = 0,
    rewrite: Rewrite | None = None,
    liar: Callable[[dict[int, Party]], Rewrite | None] | None = None,
) -> Run:
    """One computation with fresh parties. rewrite: sees the rounds of the program, not those of the setup. liar: may
    change the parties first, and give a rewrite that knows them."""
    members = parties(hubs, context=context, corrupt=corrupt)
    if liar is not None:
        rewrite = liar(members)
    run = drive({me: program(party) for me, party in members.items()}, rewrite)
    run.parties = members
    return run
