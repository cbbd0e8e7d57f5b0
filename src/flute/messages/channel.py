"""The `Channel` port: a store-and-forward mailbox, not request and response.

Either end may start. A message that was accepted is delivered at least once, in any order, also after
either process was killed; whoever receives it takes it twice without harm (envelopes carry an id).
The channel sees bytes and two names; it opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message in the inbox. `ticket` is what `done` wants back."""

    ticket: int
    peer: str
    """Who the wire says handed it over (the coordinator for a forwarded one). Never trusted: envelopes are signed."""
    body: bytes


class Channel(Protocol):
    """How envelopes travel. Implementations: `transport.local`, `transport.relay`."""

    def send(self, recipient: str, body: bytes) -> None:
        """Accept a message for `recipient`; returns once it is stored, not once it arrived.

        Raises: TooLarge: over MAX_ENVELOPE_BYTES. ChannelError: the recipient's mailbox is full.
        """
        ...

    def receive(self, timeout_s: float) -> Delivery | None:
        """The next message, or None after `timeout_s` seconds without one. It stays until `done`."""
        ...

    def done(self, delivery: Delivery) -> None:
        """Forget a message that was dealt with; without it, a restart delivers it again."""
        ...

    def close(self) -> None: ...
