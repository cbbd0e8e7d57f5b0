"""What the coordinator's API serves: the running parts of a coordinator, as its routes know them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from flute.coordinator.desk import Desk
from flute.coordinator.federation.enrolments import Enrolments
from flute.coordinator.federation.rosterbook import RosterBook
from flute.coordinator.home import CoordinatorConfig
from flute.coordinator.listings import Listings
from flute.coordinator.rounds import Rounds
from flute.coordinator.runs import Runner


class Wire(Protocol):
    def connected(self) -> Collection[str]:
        """Hubs that are there now."""
        ...


class Served(Protocol):
    """`coordinator.process.Coordinator` is one."""

    @property
    def config(self) -> CoordinatorConfig: ...

    @property
    def desk(self) -> Desk: ...

    @property
    def book(self) -> RosterBook: ...

    @property
    def rounds(self) -> Rounds: ...

    @property
    def enrolments(self) -> Enrolments: ...

    @property
    def listings(self) -> Listings: ...

    @property
    def runner(self) -> Runner: ...

    @property
    def channel(self) -> Wire: ...

    def push_roster(self) -> None: ...
