"""A channel between parties of one process: the same port and rules as the relay's, without wire or disk.

For unit tests and for a party that talks to itself. Messages wait for a party that is not there yet, and for
one that closed its channel and opens another: what it took and did not report `done` comes again.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from flute.defaults import MAX_ENVELOPE_BYTES, MAX_MAILBOX_BYTES, MAX_MAILBOX_MESSAGES
from flute.errors import ChannelError, TooLarge
from flute.messages.channel import Delivery


@dataclass(slots=True)
class _Box:
    messages: dict[int, Delivery] = field(default_factory=dict)
    """By ticket, until done."""
    pending: deque[int] = field(default_factory=deque)
    """Tickets that nobody was given yet, oldest first."""
    size: int = 0


class LocalExchange:
    """The mailboxes of all parties of a process."""

    def __init__(self) -> None:
        self._arrival = threading.Condition()
        self._boxes: dict[str, _Box] = {}
        self._tickets = 0

    def channel(self, me: str) -> LocalChannel:
        """A new channel of party `me`: it gets everything that waits, also what an earlier one left undone."""
        with self._arrival:
            box = self._box(me)
            box.pending = deque(box.messages)
        return LocalChannel(self, me)

    def put(self, recipient: str, sender: str, body: bytes) -> None:
        if len(body) > MAX_ENVELOPE_BYTES:
            raise TooLarge(f"A message of {len(body)} bytes is over the limit of {MAX_ENVELOPE_BYTES}.")
        with self._arrival:
            box = self._box(recipient)
            if len(box.messages) >= MAX_MAILBOX_MESSAGES or box.size + len(body) > MAX_MAILBOX_BYTES:
                raise ChannelError(f"The mailbox for {recipient} is full; nothing more is taken until it is emptied.")
            self._tickets += 1
            box.messages[self._tickets] = Delivery(self._tickets, sender, body)
            box.pending.append(self._tickets)
            box.size += len(body)
            self._arrival.notify_all()

    def take(self, channel: LocalChannel, timeout_s: float) -> Delivery | None:
        deadline = monotonic() + timeout_s
        with self._arrival:
            box = self._box(channel.me)
            while True:
                channel.require_open()
                if box.pending:
                    return box.messages[box.pending.popleft()]
                left = deadline - monotonic()
                if left <= 0 or not self._arrival.wait(left):
                    return None

    def forget(self, me: str, ticket: int) -> None:
        with self._arrival:
            box = self._box(me)
            delivery = box.messages.pop(ticket, None)
            if delivery is not None:
                box.size -= len(delivery.body)

    def wake(self) -> None:
        with self._arrival:
            self._arrival.notify_all()

    def _box(self, name: str) -> _Box:
        return self._boxes.setdefault(name, _Box())


class LocalChannel:
    """One party's end; made by `LocalExchange.channel`. Implements `messages.channel.Channel`."""

    def __init__(self, exchange: LocalExchange, me: str) -> None:
        self.me = me
        self._exchange = exchange
        self._closed = False

    def send(self, recipient: str, body: bytes) -> None:
        self.require_open()
        self._exchange.put(recipient, self.me, body)

    def receive(self, timeout_s: float) -> Delivery | None:
        return self._exchange.take(self, timeout_s)

    def done(self, delivery: Delivery) -> None:
        self.require_open()
        self._exchange.forget(self.me, delivery.ticket)

    def close(self) -> None:
        self._closed = True
        self._exchange.wake()

    def require_open(self) -> None:
        """Raises: ChannelError: closed."""
        if self._closed:
            raise ChannelError(f"The channel of {self.me} was closed.")
