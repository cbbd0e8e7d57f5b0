"""A small world for the model check: real hubs, and every message that a lying coordinator can make for them.

Nothing of the protocol is written again here: each step decodes a hub's stored bytes, calls `member.*` with real
keys and real shares, and encodes what comes back. Steps are pure (chance is an argument), so each is run once per
stored state and message and then remembered.

A hub's place in the search is its stored state and what has left it so far (facts). Two stored states count as one
if they differ only in `Sent`: which bytes were answered, and with which. That decides between the stored answer and
a refusal; whether the stored answer comes again is tried at every step (`not_repeated`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from tests.model.facts import Fact, Hubs, Round, Scope, SharesOut, TagOut, TicketName, TicketOut, VectorOut, subsets
from tests.model.offers import Offers, chance

from flute.aggregation import member
from flute.aggregation.codec import exact_bounds
from flute.aggregation.commitments import Kind
from flute.aggregation.state import MemberState, Phase, Sent, decode_state, encode_state
from flute.messages.protocol import Echo, Echoes, Shares, Survivors

Step = Callable[[MemberState], "tuple[MemberState, Iterable[Fact]]"]


class Node(NamedTuple):
    """One hub: its index among its nodes, and what left it."""

    hub: str
    disk: bytes
    facts: frozenset[Fact]


class Move(NamedTuple):
    """A message to one hub. needs: facts (bits) that the coordinator makes it from."""

    needs: int
    target: int
    label: str


@dataclass
class World:
    scope: Scope
    nodes: list[Node] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    """Node index to the bits of its facts."""
    facts: list[Fact] = field(default_factory=list)
    tag_bits: int = 0
    calls: int = 0
    """Of the real state machine."""
    refusals: int = 0
    not_repeated: set[str] = field(default_factory=set)
    """Messages that came a second time and were not answered as the first time."""

    def __post_init__(self) -> None:
        self.terms = self.scope.terms
        self.offers = Offers(self.scope)
        self.hubs, self.keys = self.offers.hubs, self.offers.keys
        self._index: dict[tuple[str, bytes, frozenset[Fact]], int] = {}
        self._bits: dict[Fact, int] = {}
        self._moves: dict[int, list[Move]] = {}
        self._openings: dict[tuple[int, int], list[Move]] = {}
        self._signed_by: dict[int, tuple[Round, Hubs] | None] = {}
        self._tags_by: dict[Round | Hubs, int] = {}
        self._tags: dict[TagOut, Echo] = {}

    def start(self) -> tuple[int, ...]:
        """Node of each honest hub: channels stand, nothing has left."""
        return tuple(self._node(hub, self.hubs[hub].state, frozenset()) for hub in self.scope.honest)

    # --- one hub's steps -----------------------------------------------------------------------

    def moves(self, node: int) -> list[Move]:
        """All that the coordinator can make this hub do without others' tags."""
        if node not in self._moves:
            self._moves[node] = list(self._all_moves(self.nodes[node]))
        return self._moves[node]

    def _all_moves(self, node: Node) -> Iterator[Move]:
        yield from self._deal_moves(node)
        for round_ in self.offers.rounds:
            if node.hub in round_.hubs:
                yield from self._begin_moves(node, round_)
        state = _state(node)
        if state.round is None:
            return
        if self.scope.every_step:
            yield from self._mask_moves(node)
        for round_ in self._near(self.offers.contexts[state.round.ctx]):
            for hubs in subsets(self.terms.hubs):
                yield from self._told_moves(node, round_, hubs)
        if self.scope.every_step:
            yield from self._run(node, "give up", lambda s: (member.give_up(s, s.round.ctx), ()))

    def _near(self, round_: Round) -> tuple[Round, ...]:
        """The hub's own round, and one other: what it does with a message for another does not depend on which."""
        return (round_, *[other for other in self.offers.rounds if other != round_][:1])

    def _deal_moves(self, node: Node) -> Iterator[Move]:
        state = _state(node)
        for after in range(self.scope.tickets):
            serial = max(state.serial, after + 1)
            if serial > self.scope.tickets and (state.dealt is None or state.dealt.ticket.pub.serial <= after):
                continue  # beyond this world's bound
            name = self._next_ticket(node, serial)
            if name in self.offers.tickets:
                yield from self._run(node, f"call for a ticket after {after}", self._dealing(node.hub, name, after))

    def _next_ticket(self, node: Node, serial: int) -> TicketName:
        """A fresh name where a ticket with this serial left before: fresh chance, as the hub would use."""
        variants = [fact for fact in node.facts if isinstance(fact, TicketOut) and fact.ticket.serial == serial]
        return TicketName(node.hub, serial, len(variants))

    def _dealing(self, me: str, name: TicketName, after: int) -> Step:
        def deal(state: MemberState) -> tuple[MemberState, Iterable[Fact]]:
            state, ticket = member.deal(state, key=self.hubs[me].key, rand=chance(*name), after=after)
            return state, [TicketOut(self.offers.name_of(ticket.pub))]

        return deal

    def _begin_moves(self, node: Node, round_: Round) -> Iterator[Move]:
        start = self.offers.starts[round_][node.hub]
        needs = self._bits_of(TicketOut(t) for t in round_.tickets if t.hub in self.scope.honest)
        for asked in range(1, self.scope.questions + 1):

            def begin(state: MemberState, asked: int = asked) -> tuple[MemberState, Iterable[Fact]]:
                question = self.offers.question(asked)
                state, _ = member.begin(state, start, question=question, keys=self.keys)
                if not self.scope.every_step and state.phase is Phase.STARTED:
                    return self._mask(state, node)
                return state, ()

            yield from self._run(node, f"message 0, {round_}, asked question {asked}", begin, needs)

    def _mask(self, state: MemberState, node: Node) -> tuple[MemberState, Iterable[Fact]]:
        state_before, key = state, self.hubs[node.hub].key
        out = self._vector_out(state, node)
        values = np.array([out.count], dtype=np.int64)
        state, message = member.mask(state, values, bounds=exact_bounds(len(self.terms.hubs)), key=key)
        assert state_before.round is not None
        start = self.offers.starts[out.round][node.hub]
        again, stored = member.begin(state, start, question=start.question, keys=self.keys)
        self._note("message 0", (again, stored) == (state, replace(message, vector=b"")))
        return state, [out]

    def _vector_out(self, state: MemberState, node: Node) -> VectorOut:
        round_ = self.offers.contexts[member._open_round(state).ctx]
        ticket = round_.ticket(node.hub)
        count = sum(isinstance(fact, VectorOut) and fact.ticket == ticket for fact in node.facts)
        return VectorOut(ticket, round_, count)

    def _mask_moves(self, node: Node) -> Iterator[Move]:
        yield from self._run(node, "mask the vector", lambda state: self._mask(state, node))

        def first_block(state: MemberState) -> tuple[MemberState, Iterable[Fact]]:
            state, masking = member.begin_mask(state)
            masking.block(np.array([7], dtype=np.int64), bounds=exact_bounds(len(self.terms.hubs)))
            return state, [self._vector_out(state, node)]

        yield from self._run(node, "mask a first block, then crash", first_block)

    def _told_moves(self, node: Node, round_: Round, hubs: Hubs) -> Iterator[Move]:
        told, key = Survivors(self.offers.ctx[round_], hubs), self.hubs[node.hub].key
        names = " ".join(hubs)

        def echo(state: MemberState) -> tuple[MemberState, Iterable[Fact]]:
            state, answer = member.echo(state, told, key=key)
            self._note("message 2", member.echo(state, told, key=key) == (state, answer))
            out = TagOut(node.hub, round_, hubs)
            assert self._tags.setdefault(out, answer) == answer
            return state, [out]

        def unmask(state: MemberState) -> tuple[MemberState, Iterable[Fact]]:
            state, answer = member.unmask_without_echo(state, told, key=key, rand=None)
            return state, [self._shares_out(node.hub, round_, answer)]

        yield from self._run(node, f"message 2, set {names}", echo if self.terms.mode == "echo" else unmask)

    # --- opening -------------------------------------------------------------------------------

    def openings(self, node: int, known: int) -> list[Move]:
        """Every message 4 that the coordinator can make from the tags it knows, for a hub in a round.

        Tags for another round and another set at once are left out; those for either are in every message.
        """
        signed = self._signed(node)
        if signed is None:
            return []
        round_, hubs = signed
        relevant = known & (self._tags_by.get(round_, 0) | self._tags_by.get(hubs, 0))
        if (node, relevant) not in self._openings:
            self._openings[node, relevant] = list(self._all_openings(self.nodes[node], round_, hubs, relevant))
        return self._openings[node, relevant]

    def _signed(self, node: int) -> tuple[Round, Hubs] | None:
        if node not in self._signed_by:
            round_ = _state(self.nodes[node]).round
            told = round_ is not None and round_.survivors and self.terms.mode == "echo"
            self._signed_by[node] = (self.offers.contexts[round_.ctx], round_.survivors) if round_ and told else None
        return self._signed_by[node]

    def _all_openings(self, node: Node, round_: Round, hubs: Hubs, relevant: int) -> Iterator[Move]:
        ctx = self.offers.ctx[round_]
        tags = [fact for fact in self.facts if isinstance(fact, TagOut) and relevant & self._bits[fact]]
        right = {tag.hub: self._tags[tag].signature for tag in tags if (tag.round, tag.hubs) == (round_, hubs)}
        for hub in self.scope.corrupt:
            right[hub] = self.hubs[hub].key.sign(member.echo_to_sign(self.terms, ctx, hub, hubs))
        wrong = [
            Echo(ctx, tag.hub, self._tags[tag].signature) for tag in tags if (tag.round, tag.hubs) != (round_, hubs)
        ]
        in_turn = _state(node).phase is Phase.ECHOED
        for names in subsets(right) if in_turn else [tuple(right)]:
            message = Echoes(ctx, (*(Echo(ctx, name, right[name]) for name in names), *wrong))
            needs = self._bits_of(tag for tag in tags if tag.hub in names or (tag.round, tag.hubs) != (round_, hubs))
            yield from self._open_moves(node, round_, message, needs)

    def _open_moves(self, node: Node, round_: Round, message: Echoes, needs: int) -> Iterator[Move]:
        key = self.hubs[node.hub].key
        label = f"message 4, tags of {' '.join(sorted({tag.hub for tag in message.echoes}))}"

        def opening(rand: bytes | None) -> Step:
            def unmask(state: MemberState) -> tuple[MemberState, Iterable[Fact]]:
                after, shares, _ = member.unmask(state, message, keys=self.keys, key=key, rand=rand)
                again = member.unmask(after, message, keys=self.keys, key=key, rand=chance("other"))
                self._note("message 4", again[:2] == (after, shares))
                out: list[Fact] = [self._shares_out(node.hub, round_, shares)]
                if shares.ticket is not None:
                    out.append(TicketOut(self.offers.name_of(shares.ticket.pub)))
                return after, out

            return unmask

        yield from self._run(node, label, opening(None), needs)
        state = _state(node)
        name = self._next_ticket(node, state.serial)
        if self.scope.every_step and state.dealt is None and name in self.offers.tickets:
            yield from self._run(node, f"{label}, next ticket", opening(chance(*name)), needs)

    def _shares_out(self, holder: str, round_: Round, answer: Shares) -> SharesOut:
        """What was shown, and for which set, is read off the bytes."""
        shown = []
        for ticket, share in zip(round_.tickets, answer.shares, strict=True):
            name, owner, kind = self.offers.shares[share]
            assert (name, owner) == (ticket, holder), "a share of another ticket or holder left"
            shown.append((name, kind))
        hubs = tuple(name.hub for name, kind in shown if kind is Kind.SEED)
        return SharesOut(holder, round_, hubs, tuple(shown))

    def _note(self, message: str, repeated: bool) -> None:
        if not repeated:
            self.not_repeated.add(message)

    # --- running a step ------------------------------------------------------------------------

    def _run(self, node: Node, label: str, step: Step, needs: int = 0) -> Iterator[Move]:
        """From the stored bytes to the stored bytes, so that a crash between two steps is in every path."""
        self.calls += 1
        try:
            state, facts = step(_state(node))
        except self.scope.refusals:
            self.refusals += 1
            return
        left = node.facts | set(facts)
        yield self._move(needs, node.hub, state, left, label)
        if self.scope.late_store and left != node.facts:
            yield self._move(needs, node.hub, _state(node), left, f"{label}, then crash before storing")

    def _move(self, needs: int, hub: str, state: MemberState, facts: frozenset[Fact], label: str) -> Move:
        return Move(needs, self._node(hub, state, facts), f"{hub}: {label}")

    def _node(self, hub: str, state: MemberState, facts: frozenset[Fact]) -> int:
        key = (hub, encode_state(_without_answers(state)), facts)
        if key not in self._index:
            self._index[key] = len(self.nodes)
            self.nodes.append(Node(hub, encode_state(state), facts))
            self.leaves.append(self._bits_of(facts))
        return self._index[key]

    def _bits_of(self, facts: Iterable[Fact]) -> int:
        bits = 0
        for fact in facts:
            bits |= self._bit(fact)
        return bits

    def _bit(self, fact: Fact) -> int:
        if fact not in self._bits:
            self._bits[fact] = 1 << len(self.facts)
            self.facts.append(fact)
            if isinstance(fact, TagOut):
                self.tag_bits |= self._bits[fact]
                for by in (fact.round, fact.hubs):
                    self._tags_by[by] = self._tags_by.get(by, 0) | self._bits[fact]
        return self._bits[fact]

    def facts_of(self, known: int) -> list[Fact]:
        return [fact for fact in self.facts if known & self._bits[fact]]


def _state(node: Node) -> MemberState:
    state = decode_state(node.disk)
    assert isinstance(state, MemberState)
    return state


def _without_answers(state: MemberState) -> MemberState:
    """Of `Sent` only which kinds of message were answered."""
    if state.round is None:
        return state
    kinds = tuple(Sent(b"", msgspec.msgpack.decode(sent.body)["type"].encode()) for sent in state.round.sent)
    return replace(state, round=replace(state.round, sent=kinds))
