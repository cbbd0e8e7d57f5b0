"""Messages of a talk: hubs that compute together, step by step, through a coordinator that reads nothing.

    Hello   in step 0, in clear: a hub's X25519 key for this one talk, signed with its roster key
    Said    hub to coordinator   one sealed box for each other hub
    Heard   coordinator to hub   the boxes that the others sealed for it in the same step

Every step has one message from every hub to every other one, so that what is sent when says nothing.
`study.plans.talk` gives them meaning.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from flute.defaults import MAX_HUBS
from flute.defaults.talk import MAX_BOX_BYTES, MAX_TALK_STEPS
from flute.messages.limits import Digest, Key, PartyId, Signature

TalkBox = Annotated[bytes, Meta(max_length=MAX_BOX_BYTES)]
"""AES-256-GCM from one hub to another; in step 0 a `Hello`."""
Boxes = Annotated[dict[PartyId, TalkBox], Meta(max_length=MAX_HUBS)]
Step = Annotated[int, Meta(ge=0, le=MAX_TALK_STEPS)]


class Hello(Struct, frozen=True, forbid_unknown_fields=True):
    """Step 0. session: digest of what the talk is about, among whom, under which roster."""

    session: Digest
    hub: PartyId
    point: Key
    signature: Signature


class Said(Struct, frozen=True, forbid_unknown_fields=True, tag="talk-said"):
    """boxes: recipient to box."""

    session: Digest
    step: Step
    boxes: Boxes


class Heard(Struct, frozen=True, forbid_unknown_fields=True, tag="talk-heard"):
    """boxes: sender to box."""

    session: Digest
    step: Step
    boxes: Boxes
