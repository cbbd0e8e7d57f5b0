"""Breadth-first search of everything that a lying coordinator can bring about in a world: all orders of all messages.

A state is one node per honest hub. The coordinator remembers everything and may use any of it or none, so what it
knows is what has left the hubs, and a message that is lost on the way is one that it does not use.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.model.knowledge import Knowledge
from tests.model.world import World

_BITS = 16
"""Of a state per hub: nodes of a world are fewer."""


@dataclass
class Found:
    """What a search saw. broken: property to the shortest list of messages that breaks it."""

    states: int = 0
    transitions: int = 0
    known: set[int] = field(default_factory=set)
    broken: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Search:
    world: World
    stop_at: frozenset[str] = frozenset()
    """Ends early once all of these are broken; empty: never."""

    def run(self) -> Found:
        start = self.world.start()
        self._before: dict[int, int] = {_pack(start): -1}
        self._judged: set[int] = set()
        self.found = Found()
        queue = deque([start])
        while queue:
            nodes = queue.popleft()
            self._visit(nodes, queue)
            if self.stop_at and self.stop_at <= self.found.broken.keys():
                break
        self.found.states = len(self._before)
        return self.found

    def _visit(self, nodes: tuple[int, ...], queue: deque[tuple[int, ...]]) -> None:
        world, before = self.world, self._before
        state, known = _pack(nodes), 0
        for node in nodes:
            known |= world.leaves[node]
        self.found.known.add(known)
        opened = known & ~world.tag_bits  # tags are public: they make messages, and open no mask
        if opened not in self._judged:
            self._judged.add(opened)
            self._judge(opened, state)
        for place, node in enumerate(nodes):
            base = state - (node << (_BITS * place))
            for moves in (world.moves(node), world.openings(node, known)):
                for needs, target, _ in moves:
                    if needs & ~known:
                        continue
                    self.found.transitions += 1
                    reached = base + (target << (_BITS * place))
                    if reached not in before:
                        before[reached] = state
                        queue.append((*nodes[:place], target, *nodes[place + 1 :]))

    def _judge(self, known: int, state: int) -> None:
        for name in Knowledge(self.world.scope, self.world.facts_of(known)).broken():
            if name not in self.found.broken:
                self.found.broken[name] = self._trace(state)

    def _trace(self, state: int) -> list[str]:
        steps: list[str] = []
        while (before := self._before[state]) >= 0:
            steps.append(self._label(before, state))
            state = before
        return [f"{number}. {step}" for number, step in enumerate(reversed(steps), 1)]

    def _label(self, before: int, after: int) -> str:
        hubs = len(self.world.scope.honest)
        one, other = _unpack(before, hubs), _unpack(after, hubs)
        known = 0
        for node in one:
            known |= self.world.leaves[node]
        (place,) = [place for place in range(hubs) if one[place] != other[place]]
        moves = [*self.world.moves(one[place]), *self.world.openings(one[place], known)]
        return next(label for needs, target, label in moves if target == other[place] and not needs & ~known)


def _pack(nodes: tuple[int, ...]) -> int:
    state = 0
    for place, node in enumerate(nodes):
        if node >> _BITS:
            raise OverflowError("More nodes than the packed state has room for.")
        state |= node << (_BITS * place)
    return state


def _unpack(state: int, hubs: int) -> tuple[int, ...]:
    return tuple(state >> (_BITS * place) & (1 << _BITS) - 1 for place in range(hubs))
