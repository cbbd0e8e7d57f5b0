"""Carries a talk among hubs: takes one step of every hub, hands every hub what the others sealed for it.

It reads no box and keeps nothing on disk: a coordinator that was restarted has lost the talk, and its round is
repeated. What it could do wrong (change, drop, repeat, mix up) makes the hubs stop (`study.plans.talk`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from flute.errors import Equivocation
from flute.messages.talk import Heard, Said

Post = Callable[[str, Heard], tuple[bytes, bytes]]
"""Hub and message to (digest, envelope); sends it."""
AGAIN_S: Final = 5.0


@dataclass
class TalkRelay:
    """One talk of one round. `round_id`: whose."""

    round_id: int
    session: bytes
    hubs: tuple[str, ...]
    post: Post = field(repr=False)
    moved_at: float = 0.0
    step: int = 0
    _said: dict[str, Said] = field(default_factory=dict)
    _sent: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def take(self, hub: str, said: Said) -> None:
        """One hub's step; the next one begins when all are here. A repeat changes nothing.

        Raises: Equivocation: of another talk, or boxes for others than the hubs of this one.
        """
        if said.session != self.session or set(said.boxes) != set(self.hubs) - {hub}:
            raise Equivocation(f"{hub} speaks in another talk than the other hubs, or not to all of them.")
        if said.step != self.step:
            return
        self._said.setdefault(hub, said)
        if len(self._said) == len(self.hubs):
            self._hand_over()

    def asked(self, digest: bytes) -> str | None:
        """The hub that the message with this digest went to."""
        return next((hub for hub, (sent, _) in self._sent.items() if sent == digest), None)

    def silent(self) -> Sequence[str]:
        return sorted(set(self.hubs) - set(self._said))

    def overdue(self) -> dict[str, bytes]:
        """Envelopes to offer again, of hubs that owe an answer."""
        if time.monotonic() - self.moved_at < AGAIN_S:
            return {}
        self.moved_at = time.monotonic()
        return {hub: self._sent[hub][1] for hub in self.silent() if hub in self._sent}

    def _hand_over(self) -> None:
        said, self._said, step = self._said, {}, self.step
        self.step, self.moved_at = step + 1, time.monotonic()
        for hub in self.hubs:
            boxes = {other: said[other].boxes[hub] for other in self.hubs if other != hub}
            self._sent[hub] = self.post(hub, Heard(self.session, step, boxes))
