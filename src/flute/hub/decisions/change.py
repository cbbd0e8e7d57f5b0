"""A change that two stewards have to agree on, as it is signed and travels. `hub.decisions.changes` says what it
takes."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from flute.defaults import MAX_CLOCK_SKEW_S
from flute.hub.store import HubPolicy
from flute.ledger.charge import short
from flute.messages.limits import Digest, Key, PartyId, Seconds, Signature
from flute.primitives.keys import SigningKey, digest

CHANGE_LIFETIME_S: Final = 48 * 3_600
"""A second person is asked on a working day and may be away for one; longer, and nobody remembers what it was for."""
PROPOSE: Final = b"flute/hub-change/propose/v1"
CONFIRM: Final = b"flute/hub-change/confirm/v1"
_ID: Final = b"flute/hub-change/v1"


class PolicyChange(Struct, frozen=True, forbid_unknown_fields=True, tag="policy"):
    policy: HubPolicy


class StewardIn(Struct, frozen=True, forbid_unknown_fields=True, tag="steward-in"):
    steward: PartyId
    key: Key


class StewardOut(Struct, frozen=True, forbid_unknown_fields=True, tag="steward-out"):
    steward: PartyId


Wanted = PolicyChange | StewardIn | StewardOut


class Change(Struct, frozen=True, forbid_unknown_fields=True):
    """All that is signed. `hub`: its public key, so that an approval for one hub serves at no other."""

    hub: Key
    wanted: Wanted
    proposer: PartyId
    proposed_at: Seconds

    @property
    def id(self) -> bytes:
        whole = msgspec.convert(msgspec.to_builtins(self), Change)  # 3 and 3.0 are one change
        return digest(_ID, msgspec.msgpack.encode(whole))

    @property
    def ends(self) -> int:
        return self.proposed_at + CHANGE_LIFETIME_S

    def is_alive(self, now: int) -> bool:
        """A clock that was set back makes no old change young again."""
        return self.proposed_at - MAX_CLOCK_SKEW_S <= now <= self.ends

    @property
    def what(self) -> str:
        return str(self.wanted.__struct_config__.tag)

    @property
    def words(self) -> str:
        match self.wanted:
            case PolicyChange(policy):
                return f"allow this: {policy.sentence}"
            case StewardIn(steward, key):
                return f"enrol steward {steward}, key {short(key)}."
            case StewardOut(steward):
                return f"remove steward {steward}."

    def proposed_by(self, key: SigningKey) -> bytes:
        return key.sign(PROPOSE + self.id)

    def confirmed_by(self, key: SigningKey) -> bytes:
        return key.sign(CONFIRM + self.id)


class Proposed(Struct, frozen=True, forbid_unknown_fields=True):
    change: Change
    signature: Signature


class Confirmation(Struct, frozen=True, forbid_unknown_fields=True):
    """What a second steward signs, wherever his key is, and what may travel by mail."""

    change: Digest
    person: PartyId
    signature: Signature
