"""What the coordinator and the corrupt hubs know, from what left the honest ones, and what they must never know.

A corrupt holder knows both its shares of every ticket that is out. Masks are taken as ideal: a sum of vectors says
nothing as long as one mask in it is unknown (`docs/proofs/secagg.md` reduces the real ones to that).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from tests.model.facts import Fact, Hubs, Round, Scope, SharesOut, TicketName, TicketOut, VectorOut

from flute.aggregation.commitments import Kind
from flute.aggregation.terms import neighbours
from flute.defaults import MIN_HUBS
from flute.messages.protocol import GroupTerms

NEVER_BOTH = "never both: seed and private key of one ticket"
ONE_SET = "one set: a context or a ticket opened for two survivor sets"
ENOUGH = "enough hubs: a set too small, or without the hub that opened it"
ONCE = "once: a ticket masked two vectors, or a holder showed its shares twice"
ONLY_SUMS = "only sums: something else than one sum over all honest hubs of a signed set"
PROPERTIES = (NEVER_BOTH, ONE_SET, ENOUGH, ONCE, ONLY_SUMS)


@dataclass(frozen=True)
class Knowledge:
    scope: Scope
    facts: Sequence[Fact]

    def broken(self) -> frozenset[str]:
        """Properties that do not hold."""
        checks = (self._both, self._two_sets, self._too_few, self._twice, self._more_than_sums)
        return frozenset(name for name, check in zip(PROPERTIES, checks, strict=True) if any(check()))

    @property
    def shares(self) -> list[SharesOut]:
        return [fact for fact in self.facts if isinstance(fact, SharesOut)]

    @property
    def vectors(self) -> list[VectorOut]:
        return [fact for fact in self.facts if isinstance(fact, VectorOut)]

    def opened(self, kind: Kind) -> set[TicketName]:
        """Honest hubs' tickets of which this secret is known: t holders' shares are."""
        corrupt, threshold = set(self.scope.corrupt), self.scope.terms.threshold
        known = {fact.ticket: set(corrupt) for fact in self.facts if isinstance(fact, TicketOut)}
        for shares in self.shares:
            for ticket, shown in shares.shown:
                if shown is kind and ticket.hub not in corrupt:
                    known[ticket].add(shares.holder)
        return {ticket for ticket, holders in known.items() if len(holders) >= threshold}

    def sums(self) -> list[frozenset[VectorOut]]:
        """The smallest sets of honest hubs' vectors whose sum has no unknown mask: what can be read."""
        seeds, points = self.opened(Kind.SEED), self.opened(Kind.POINT)
        vectors = {(v.ticket, v.round): v for v in self.vectors}
        joined, hidden = defaultdict(set), set()
        for vector in vectors.values():
            if vector.ticket not in seeds:
                hidden.add(vector)
            for other in self._unknown_pairs(vector, points):
                if (other, vector.round) in vectors:
                    joined[vector].add(vectors[other, vector.round])
                else:
                    hidden.add(vector)
        return [part for part in _components(vectors.values(), joined) if not part & hidden]

    def _unknown_pairs(self, vector: VectorOut, points: set[TicketName]) -> Iterator[TicketName]:
        """Tickets with which this vector has a mask that neither private key gave away."""
        round_ = vector.round
        if vector.ticket in points:
            return
        near = neighbours(self.scope.terms, round_.hubs, vector.ticket.hub)
        honest = (t for t in round_.tickets if t.hub in near and t.hub in self.scope.honest)
        yield from (ticket for ticket in honest if ticket not in points)

    def _both(self) -> Iterator[object]:
        yield from self.opened(Kind.SEED) & self.opened(Kind.POINT)

    def _two_sets(self) -> Iterator[object]:
        for one, other in combinations(self.shares, 2):
            joint = one.round == other.round or set(one.round.tickets) & set(other.round.tickets)
            if joint and (one.round, one.hubs) != (other.round, other.hubs):
                yield one, other

    def _too_few(self) -> Iterator[object]:
        yield from (s for s in self.shares if s.holder not in s.hubs or not fits(self.scope.terms, s.round, s.hubs))

    def _twice(self) -> Iterator[object]:
        yield from (vector for vector in self.vectors if vector.count)
        masked = Counter(vector.ticket for vector in self.vectors)
        yield from (ticket for ticket, count in masked.items() if count > 1)
        shown = Counter((shares.holder, ticket) for shares in self.shares for ticket, _ in shares.shown)
        yield from (place for place, count in shown.items() if count > 1)

    def _more_than_sums(self) -> Iterator[object]:
        read: dict[Round, int] = Counter()
        for part in self.sums():
            round_ = next(iter(part)).round
            hubs = frozenset(vector.ticket.hub for vector in part)
            read[round_] += 1
            if read[round_] > 1 or not self._is_of_a_signed_set(round_, hubs):
                yield part

    def _is_of_a_signed_set(self, round_: Round, hubs: frozenset[str]) -> bool:
        return any(
            shares.round == round_ and hubs == set(shares.hubs) & set(self.scope.honest)
            for shares in self.shares
            if fits(self.scope.terms, round_, shares.hubs)
        )


def fits(terms: GroupTerms, round_: Round, hubs: Hubs) -> bool:
    """Written here again on purpose: what a set must be, whatever the code's own rule says."""
    enough = len(hubs) >= max(terms.threshold, terms.survivors_min, MIN_HUBS)
    return enough and set(hubs) <= set(round_.hubs) and (not terms.exact or hubs == terms.hubs)


def _components(
    vectors: Iterable[VectorOut], joined: dict[VectorOut, set[VectorOut]]
) -> Iterator[frozenset[VectorOut]]:
    left = set(vectors)
    while left:
        part, more = set(), {left.pop()}
        while more:
            part |= more
            more = {other for one in more for other in joined[one]} - part
        left -= part
        yield frozenset(part)
