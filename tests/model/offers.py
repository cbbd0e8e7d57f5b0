"""What a lying coordinator has to offer: every ticket of a world, every message 0 from them, and whose each share is.

Tickets are dealt ahead by the real `member.deal`, from the chance that the hub will use when it comes to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import product

from tests.adversary.secagg_rounds import Chance, Hub
from tests.model.facts import Round, Scope, TicketName, subsets

from flute.aggregation import member
from flute.aggregation.commitments import Kind, proofs
from flute.aggregation.context import context
from flute.aggregation.masks import ratchet
from flute.aggregation.tickets import Dealt, HeldShares, open_box
from flute.messages.protocol import SealedShares, Start, TicketPub
from flute.primitives.keys import SigningKey


def chance(*seed: object) -> bytes:
    return Chance(seed)()


class Offers:
    """Hubs as they are once channels stand, and all that can be made of their tickets."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.terms = scope, scope.terms
        self.hubs = {name: Hub(name, SigningKey(chance(name, "key")), Chance(name)) for name in self.terms.hubs}
        self.keys = {name: hub.key.public for name, hub in self.hubs.items()}
        study_keys = [hub.enrol(self.terms) for hub in self.hubs.values()]
        for hub in self.hubs.values():
            hub.keys = self.keys
            hub.setup(study_keys, self.terms)
        self.tickets = {name: self.dealt(name) for name in self._names()}
        self.rounds = tuple(self._all_rounds())
        self.starts = {round_: self.starts_of(round_) for round_ in self.rounds}
        self.ctx = {round_: context(next(iter(starts.values()))) for round_, starts in self.starts.items()}
        self.contexts = {ctx: round_ for round_, ctx in self.ctx.items()}

    def _names(self) -> Iterator[TicketName]:
        scope = self.scope
        for hub in self.terms.hubs:
            serials, variants = scope.tickets, 1
            if hub in scope.corrupt:
                serials, variants = scope.corrupt_tickets or scope.tickets, scope.variants
            for serial, variant in product(range(1, serials + 1), range(variants)):
                yield TicketName(hub, serial, variant)

    def dealt(self, name: TicketName) -> Dealt:
        """The ticket of that name with its secrets."""
        hub = self.hubs[name.hub]
        state, _ = member.deal(hub.state, key=hub.key, rand=chance(*name), after=name.serial - 1)
        assert state.dealt is not None
        return state.dealt

    def name_of(self, pub: TicketPub) -> TicketName:
        (name,) = (name for name, dealt in self.tickets.items() if dealt.ticket.pub == pub)
        return name

    def question(self, number: int) -> bytes:
        return hashlib.sha256(f"question {number}".encode()).digest()

    def _all_rounds(self) -> Iterator[Round]:
        for question in range(1, self.scope.questions + 1):
            for hubs in subsets(self.terms.hubs, least=self.scope.fewest):
                of = [[ticket for ticket in self.tickets if ticket.hub == hub] for hub in hubs]
                yield from (Round(question, tickets) for tickets in product(*of))

    def starts_of(self, round_: Round) -> dict[str, Start]:
        """Message 0 for each hub, made without the checks of an honest coordinator."""
        dealt = {name.hub: self.tickets.get(name) or self.dealt(name) for name in round_.tickets}
        boxes = {hub: self._boxes(secrets) for hub, secrets in dealt.items()}
        pubs = tuple(secrets.ticket.pub for secrets in dealt.values())
        return {
            hub: Start(
                self.terms, 1, self.question(round_.question), 1, 64, pubs,
                tuple(boxes[dealer][hub] for dealer in round_.hubs if dealer != hub),
            )
            for hub in round_.hubs
        }  # fmt: skip

    def _boxes(self, dealt: Dealt) -> dict[str, SealedShares]:
        """Holder to its box of this ticket."""
        ticket, dealer = dealt.ticket, dealt.ticket.pub.hub
        shown = dict(zip(self.terms.hubs, proofs(ticket.commitments), strict=True))
        others = [hub for hub in self.terms.hubs if hub != dealer]
        return {hub: SealedShares(dealer, box, *shown[hub]) for hub, box in zip(others, ticket.boxes, strict=True)}

    @cached_property
    def shares(self) -> dict[bytes, tuple[TicketName, str, Kind]]:
        """Every dealt share, taken out of its box as its holder does, to whose ticket, which holder's and of what."""
        found = {}
        for name, dealt in self.tickets.items():
            for holder in self.terms.hubs:
                held = dealt.own if holder == name.hub else self._unbox(name, dealt, holder)
                found[held.seed] = name, holder, Kind.SEED
                found[held.point] = name, holder, Kind.POINT
        return found

    def _unbox(self, name: TicketName, dealt: Dealt, holder: str) -> HeldShares:
        inbound = self.hubs[holder].state.inbound[name.hub]
        key = ratchet(inbound.chain, name.serial - inbound.serial)
        sealed = self._boxes(dealt)[holder]
        return open_box(self.terms, dealt.ticket.pub, sealed, me=holder, chain=key)
