"""Names of the model check: how large a world is, its tickets and rounds, and what may leave a hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from typing import NamedTuple

from flute.aggregation.commitments import Kind
from flute.errors import FluteError
from flute.messages.protocol import GroupTerms

Hubs = tuple[str, ...]


@dataclass(frozen=True)
class Scope:
    """How large a world is.

    corrupt: hubs that work for the coordinator. tickets: serials a hub may deal. questions: that hubs were asked.
    variants: tickets with one serial that a corrupt hub signs. every_step: also the steps that give the coordinator
    nothing (`docs/proofs/secagg.md`, "what was searched"): giving up, stopping between message 0 and 1, a crash in
    the middle of a vector, a ticket that rides on the shares. late_store: the mutant whose hubs send before they
    write.
    refusals: what a step may raise. fewest: hubs of a round that is tried. corrupt_tickets: serials that corrupt hubs
    deal; 0: as many as the others.
    """

    terms: GroupTerms
    corrupt: Hubs = ()
    tickets: int = 1
    questions: int = 1
    variants: int = 1
    every_step: bool = True
    late_store: bool = False
    fewest: int = 2
    corrupt_tickets: int = 0
    refusals: tuple[type[Exception], ...] = (FluteError,)

    @property
    def honest(self) -> Hubs:
        return tuple(hub for hub in self.terms.hubs if hub not in self.corrupt)


class TicketName(NamedTuple):
    hub: str
    serial: int
    variant: int

    def __str__(self) -> str:
        return f"{self.hub}#{self.serial}{'abcdef'[self.variant] if self.variant else ''}"


class Round(NamedTuple):
    """What makes a context: the question and the tickets."""

    question: int
    tickets: tuple[TicketName, ...]

    @property
    def hubs(self) -> Hubs:
        return tuple(ticket.hub for ticket in self.tickets)

    def ticket(self, hub: str) -> TicketName:
        return self.tickets[self.hubs.index(hub)]

    def __str__(self) -> str:
        return f"round(question {self.question}: {' '.join(map(str, self.tickets))})"


class TicketOut(NamedTuple):
    ticket: TicketName


class VectorOut(NamedTuple):
    """At least one block of a vector left. count: how many under this ticket before."""

    ticket: TicketName
    round: Round
    count: int


class TagOut(NamedTuple):
    hub: str
    round: Round
    hubs: Hubs


class SharesOut(NamedTuple):
    """shown: what the bytes were, found by comparing them with the dealt shares."""

    holder: str
    round: Round
    hubs: Hubs
    shown: tuple[tuple[TicketName, Kind], ...]


Fact = TicketOut | VectorOut | TagOut | SharesOut


def subsets(items: Iterable[str], least: int = 0) -> Iterator[Hubs]:
    items = tuple(items)
    return chain.from_iterable(combinations(items, size) for size in range(least, len(items) + 1))
