"""Talks under way, of rounds and of key ceremonies: which are carried, what came of them, how long they are silent.

In memory: a coordinator that was restarted has lost them, and what they were for is asked anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import Struct

from flute.coordinator.plans.relay import TalkRelay
from flute.coordinator.rounds import RoundRow
from flute.coordinator.turns import Turns
from flute.errors import NotInRoster, ProtocolAbortedError
from flute.messages.talk import Heard, Said


class Carrier:
    """At most one talk per round."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._relays: dict[int, TalkRelay] = {}
        self._ended: dict[int, dict[str, Struct]] = {}
        self._alive: dict[int, float] = {}

    def begin(self, r: RoundRow, said: Mapping[str, Said]) -> None:
        """The first step of every hub. Raises: Equivocation: they speak in different talks."""

        def post(hub: str, heard: Heard) -> tuple[bytes, bytes]:
            return self._turns.post(hub, heard, r.study, r.id)

        hubs = tuple(sorted(said))
        relay = TalkRelay(r.id, said[hubs[0]].session, hubs, post)
        self._relays[r.id], self._ended[r.id], self._alive[r.id] = relay, {}, time.monotonic()
        for hub in hubs:
            relay.take(hub, said[hub])

    def carries(self, r: RoundRow) -> bool:
        return r.id in self._relays

    def asked_by(self, digest: bytes) -> tuple[int, str] | None:
        """(round, hub) of a message of a talk that is under way."""
        for relay in self._relays.values():
            hub = relay.asked(digest)
            if hub is not None:
                return relay.round_id, hub
        return None

    def take(self, r: RoundRow, hub: str, body: Struct, session: bytes) -> None:
        """One hub's step, or what its talk ended with. Raises: Equivocation."""
        relay = self._relays.get(r.id)
        if relay is None:
            return
        self._alive[r.id] = time.monotonic()
        if isinstance(body, Said):
            relay.take(hub, body)
        elif session == relay.session:
            self._ended[r.id].setdefault(hub, body)

    def ended(self, r: RoundRow) -> dict[str, Struct] | None:
        """What every hub's talk ended with; None while one is still talking."""
        relay, ended = self._relays[r.id], self._ended[r.id]
        return ended if set(ended) == set(relay.hubs) else None

    def wait(self, r: RoundRow) -> None:
        """Offer again what got no answer. Raises: ProtocolAbortedError: nothing has moved for a round's time."""
        relay = self._relays[r.id]
        silent = sorted(set(relay.silent()) - set(self._ended[r.id]))
        if time.monotonic() - self._alive[r.id] > self._turns.timeout_s:
            raise ProtocolAbortedError(f"no answer from {', '.join(silent)} in step {relay.step}")
        for hub, envelope in relay.overdue().items():
            if hub in silent:
                try:
                    self._turns.desk.send(hub, envelope)
                except NotInRoster:
                    continue

    def drop(self, round_id: int) -> None:
        for kept in (self._relays, self._ended, self._alive):
            kept.pop(round_id, None)
