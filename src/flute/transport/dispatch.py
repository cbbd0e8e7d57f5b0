"""What the threads of a channel share: who is connected, what may go out now, and whom to wake for what."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from time import monotonic
from typing import Final

from flute.defaults import DELIVERY_TIMEOUT_S
from flute.errors import ChannelError, PeerUnreachable
from flute.transport.lanes import Lanes
from flute.transport.mailbox import Stored

COORDINATOR: Final = "coordinator"
_AT_ONCE_BYTES: Final = 32 * 1024
"""Under way at most, for a message to be shipped by its sender's own thread; a sixth of a socket's buffer."""


class Dispatch:
    """Lanes, peers and the relay's state of party `me`, behind one lock."""

    def __init__(self, me: str, stored: Iterable[Stored]) -> None:
        self.me = me
        self.is_coordinator = me == COORDINATOR
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        """The shipping thread waits on it."""
        self._changed = threading.Condition(lock)
        """Callers of `wait_…` wait on it."""
        self._lanes = Lanes()
        self._ready = False
        self._failure = ""
        self._closed = False
        self._connected: frozenset[str] = frozenset()
        self._admitted: frozenset[str] = frozenset() if self.is_coordinator else frozenset({COORDINATOR})
        for message in stored:
            self._lanes.add(message.recipient, message.row, message.size)

    def hop(self, recipient: str) -> str:
        """The peer through which `recipient` is reached."""
        return recipient if self.is_coordinator else COORDINATOR

    # --- messages ------------------------------------------------------------------------------

    def enqueue(self, stored: Stored) -> list[int]:
        """Put it in its lane. Returns it where the caller is to ship it: that spares a small message the way
        through another thread, and cannot block, since all that is under way fits the link's buffer.
        Otherwise the shipping thread does it in its turn.
        """
        with self._work:
            self._lanes.add(stored.recipient, stored.row, stored.size)
            small = self._lanes.bytes_under_way + stored.size <= _AT_ONCE_BYTES
            alone = self._lanes.waiting(stored.recipient) == 1
            if small and alone and self.hop(stored.recipient) in self._connected:
                return self._lanes.take(stored.recipient, monotonic())
            self._work.notify_all()
            return []

    def next_rows(self) -> list[int]:
        """Rows that may go now; sleeps until there are some, something changed, or one is overdue."""
        with self._work:
            now = monotonic()
            self._lanes.overdue(now)
            reachable = [name for name in self._lanes.recipients() if self.hop(name) in self._connected]
            rows = [row for name in reachable for row in self._lanes.take(name, now)]
            if not rows and not self._closed:
                due = self._lanes.next_due()  # what others ship meanwhile is never due sooner than the time-out
                self._work.wait(DELIVERY_TIMEOUT_S if due is None else max(0.0, due - now))
            return rows

    def delivered(self, row: int) -> None:
        """Wake only whom it concerns: a thread woken for nothing costs a delivery 0.1 ms."""
        with self._work:
            self._lanes.delivered(row)
            if self._lanes.recipients():
                self._work.notify_all()
            if not len(self._lanes):
                self._changed.notify_all()

    def again(self, peer: str) -> None:
        """`peer` asks for everything that is under way through it."""
        with self._work:
            self._lanes.again(peer if self.is_coordinator else None)
            self._work.notify_all()

    def undelivered(self) -> int:
        with self._work:
            return len(self._lanes)

    # --- peers and relay -----------------------------------------------------------------------

    @property
    def admitted(self) -> frozenset[str]:
        return self._admitted

    def admit(self, hubs: Iterable[str]) -> None:
        with self._work:
            self._admitted = frozenset(hubs) - {COORDINATOR}
            self._connected &= self._admitted

    def connected(self) -> set[str]:
        with self._work:
            return set(self._connected)

    def peers(self, names: Iterable[str]) -> None:
        """The relay's report. What was under way to a peer that is back goes again."""
        with self._work:
            now = frozenset(names) & self._admitted
            for peer in now - self._connected:
                self._lanes.again(peer if self.is_coordinator else None)
            self._connected = now
            self._work.notify_all()
            self._changed.notify_all()

    def relay_ready(self) -> None:
        with self._work:
            self._ready, self._failure = True, ""
            self._changed.notify_all()

    def relay_failed(self, text: str) -> None:
        with self._work:
            self._failure = text
            self._changed.notify_all()

    def relay_ended(self) -> None:
        with self._work:
            self._ready, self._connected = False, frozenset()
            self._lanes.again()

    def close(self) -> None:
        with self._work:
            self._closed = True
            self._work.notify_all()

    # --- waiting -------------------------------------------------------------------------------

    def wait_ready(self, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready or self._failure, timeout_s):
                raise ChannelError(f"The relay of {self.me} did not start within {timeout_s:.0f} s; see relay.log.")
            if not self._ready:
                raise ChannelError(self._failure)

    def wait_connected(self, peers: Iterable[str], timeout_s: float) -> None:
        wanted = frozenset(peers)
        with self._changed:
            if not self._changed.wait_for(lambda: wanted <= self._connected, timeout_s):
                missing = ", ".join(sorted(wanted - self._connected))
                raise PeerUnreachable(f"Not connected to {self.me} after {timeout_s:.0f} s: {missing}.")

    def wait_delivered(self, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._lanes) == 0, timeout_s):
                raise PeerUnreachable(
                    f"{len(self._lanes)} messages of {self.me} are not confirmed after {timeout_s:.0f} s; "
                    "they stay in the outbox and are sent when their recipients are back."
                )
