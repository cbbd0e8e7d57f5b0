"""Questions of researchers to hubs that the coordinator only carries: their accounts. In memory alone, for seconds.

The coordinator forwards what a researcher signed to hubs of that researcher's studies, and hands back what each hub
signed. Whoever asked checks it (`messages.accounts`); a question that is lost is asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from flute.coordinator.desk import Desk
from flute.defaults.accounts import ACCOUNTS_KEEP_S, MAX_OPEN_ACCOUNTS, MAX_OPEN_PER_PERSON
from flute.errors import NotInRoster, NotPossible
from flute.messages.accounts import AccountsCall, AccountsTold


@dataclass(slots=True)
class _Open:
    person: str
    hubs: frozenset[str]
    began: float
    told: dict[str, AccountsTold] = field(default_factory=dict)


class Inquiries:
    """One per coordinator; may be called from any thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._open: dict[bytes, _Open] = {}

    def ask(self, call: AccountsCall, hubs: Sequence[str]) -> None:
        """Hand a question to hubs. Raises: NotPossible: too many are open, of this person or of all."""
        with self._lock:
            now = time.monotonic()
            self._open = {n: one for n, one in self._open.items() if now - one.began < ACCOUNTS_KEEP_S}
            own = sum(one.person == call.person for one in self._open.values())
            if own >= MAX_OPEN_PER_PERSON or len(self._open) >= MAX_OPEN_ACCOUNTS:
                raise NotPossible("Too many questions about accounts are open at once; ask again in a minute.")
            self._open[call.nonce] = _Open(call.person, frozenset(hubs), now)
        for hub in hubs:
            try:
                _, envelope = self._desk.write(call, hub=hub)
            except NotInRoster:
                continue
            self._desk.send(hub, envelope)

    def take(self, hub: str, told: AccountsTold) -> None:
        """What a hub said; anything that nobody waits for is dropped."""
        with self._lock:
            waiting = self._open.get(told.nonce)
            if waiting is not None and hub in waiting.hubs and told.hub == hub:
                waiting.told.setdefault(hub, told)

    def told(self, nonce: bytes) -> dict[str, AccountsTold]:
        """By hub, so far."""
        with self._lock:
            waiting = self._open.get(nonce)
            return {} if waiting is None else dict(waiting.told)

    def close(self, nonce: bytes) -> None:
        with self._lock:
            self._open.pop(nonce, None)
