"""The coordinator's side of the wire: envelopes out and in, under the roster as it is now."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct

from flute.errors import NotInRoster
from flute.messages.accounts import AccountsTold
from flute.messages.answer import (
    Consent,
    EchoAnswer,
    EncryptedAnswer,
    JointBegun,
    JointTotal,
    KeyBegun,
    KeyReady,
    MaskedAnswer,
    OpeningAnswer,
    OwnTotal,
    Refused,
    SharesAnswer,
    SplitAnswer,
    TicketGiven,
)
from flute.messages.channel import Channel
from flute.messages.envelope import ID_SIZE, Opened, bodies, envelope_digest, open_envelope, write_envelope
from flute.messages.talk import Said
from flute.primitives.keys import AgreementKey, SigningKey
from flute.trust.roster import Roster

ACCEPTS = bodies(
    Consent, TicketGiven, MaskedAnswer, EchoAnswer, SharesAnswer, JointBegun, Said, JointTotal, KeyBegun, KeyReady,
    EncryptedAnswer, OpeningAnswer, SplitAnswer, OwnTotal, AccountsTold, Refused,
)  # fmt: skip
COORDINATOR = "coordinator"


class Desk:
    """Writes and opens envelopes; decides nothing."""

    def __init__(
        self,
        signing: SigningKey,
        sealing: AgreementKey,
        roster: Callable[[], Roster],
        channel: Channel,
        now: Callable[[], int],
    ) -> None:
        self._signing = signing
        self._sealing = sealing
        self._roster = roster
        self._channel = channel
        self._now = now

    @property
    def roster(self) -> Roster:
        return self._roster()

    def now(self) -> int:
        return self._now()

    def write(self, body: Struct, *, hub: str, study: str = "", round_id: int = 0) -> tuple[bytes, bytes]:
        """(digest, envelope) of a message sealed to `hub`. Raises: NotInRoster."""
        roster = self._roster()
        envelope = write_envelope(
            body,
            key=self._signing,
            sender=COORDINATOR,
            recipient=hub,
            roster_version=roster.version,
            now=self._now(),
            rand=os.urandom(ID_SIZE),
            study=study,
            round=round_id,
            seal_to=roster.sealing_key(hub),
        )
        return envelope_digest(envelope), envelope

    def send(self, hub: str, envelope: bytes) -> None:
        """Hand over to the channel; a hub that left the roster gets nothing more."""
        try:
            self._roster().signing_key(hub)
        except NotInRoster:
            return
        self._channel.send(hub, envelope)

    def open(self, raw: bytes) -> Opened:
        return open_envelope(
            raw, me=COORDINATOR, roster=self._roster(), accepts=ACCEPTS, now=self._now(), key=self._sealing
        )
