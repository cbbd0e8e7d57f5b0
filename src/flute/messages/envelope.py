"""Signed envelopes: who says what to whom, in which study and round, in answer to what, until when.

Canonical bytes: an envelope that decodes but does not encode to the very same bytes is refused, so one
meaning has one digest. A sealed body is HPKE to the recipient's key with the header as its context: the
same ciphertext under another header does not open.

Checks, in `open_envelope`, in this order (nothing later is looked at before the earlier ones passed):
  1 size   2 form, version and canonical bytes   3 sender in the roster (asked for its key)
  4 signature   5 recipient   6 roster version   7 issued and expiry against the clock
  8 seal   9 body form (a closed struct of the kind that the header names)
Replay is the receiver's own memory (`message_id`), since only it can keep one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta, Struct

from flute.defaults import MAX_CLOCK_SKEW_S, MAX_ENVELOPE_BYTES, MESSAGE_LIFETIME_S
from flute.errors import BadSignature, Malformed, Stale, TooLarge, UnknownVersion, WrongRecipient
from flute.messages.limits import Code, Count, PartyId, Seconds, Signature, StudyId
from flute.primitives.keys import AgreementKey, SigningKey, digest, seal, verify

VERSION: Final = 1
_SIGNED: Final = b"flute/envelope/v1"
_SEALED: Final = b"flute/sealed/v1"
ID_SIZE: Final = 16

MessageId = Annotated[bytes, Meta(min_length=ID_SIZE, max_length=ID_SIZE)]
MaybeDigest = Annotated[bytes, Meta(max_length=32)]


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What the signature binds besides the body."""

    version: int
    kind: Code
    study: StudyId
    round: Count
    sender: PartyId
    recipient: PartyId
    roster_version: Count
    message_id: MessageId
    answers: MaybeDigest
    """Digest of the envelope that this one answers; empty where it starts an exchange."""
    issued_at: Seconds
    expires_at: Seconds
    sealed: bool


class Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    header: Header
    body: bytes
    signature: Signature


class Roster(Protocol):
    """What opening needs to know of the roster; `trust.roster` implements it."""

    @property
    def version(self) -> int: ...

    def signing_key(self, party: str) -> bytes:
        """Raises: NotInRoster: unknown or revoked."""
        ...

    def sealing_key(self, party: str) -> bytes:
        """Raises: NotInRoster: unknown or revoked."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope whose checks all passed. `digest` names it; `body` is a closed struct."""

    header: Header
    body: Struct
    digest: bytes


Bodies = Mapping[str, type[Struct]]
"""Kind to closed struct: what a receiver is willing to read (its own role's messages, no others)."""


def kind_of(body: Struct) -> str:
    tag = body.__struct_config__.tag
    if not isinstance(tag, str):
        raise Malformed("A message without a kind cannot be sent.")
    return tag


def bodies(*types: type[Struct]) -> dict[str, type[Struct]]:
    """The table for `open_envelope` from message classes."""
    return {str(t.__struct_config__.tag): t for t in types}


def write_envelope(
    body: Struct,
    *,
    key: SigningKey,
    sender: str,
    recipient: str,
    roster_version: int,
    now: int,
    rand: bytes,
    study: str = "",
    round: int = 0,
    answers: bytes = b"",
    seal_to: bytes | None = None,
    lifetime_s: int = MESSAGE_LIFETIME_S,
) -> bytes:
    """Signed canonical bytes. `rand`: ID_SIZE fresh bytes; `seal_to`: the recipient's X25519 key, or None."""
    header = Header(
        VERSION, kind_of(body), study, round, sender, recipient, roster_version, rand[:ID_SIZE], answers,
        now, now + lifetime_s, seal_to is not None,
    )  # fmt: skip
    raw = msgspec.msgpack.encode(body)
    if seal_to is not None:
        raw = seal(raw, seal_to, info=_seal_info(header))
    envelope = Envelope(header, raw, key.sign(_to_sign(header, raw)))
    encoded = msgspec.msgpack.encode(envelope)
    if len(encoded) > MAX_ENVELOPE_BYTES:
        raise TooLarge(f"A message of {len(encoded)} bytes is over the limit of {MAX_ENVELOPE_BYTES}.")
    return encoded


def open_envelope(
    raw: bytes,
    *,
    me: str,
    roster: Roster,
    accepts: Bodies,
    now: int,
    key: AgreementKey | None = None,
) -> Opened:
    """Check everything but replay, and give the body. The module's head lists the order.

    Raises: TooLarge, Malformed, UnknownVersion, NotInRoster, BadSignature, WrongRecipient, Stale.
    """
    envelope = parse_envelope(raw)
    header = envelope.header
    check_signature(envelope, roster.signing_key(header.sender))
    if header.recipient != me:
        raise WrongRecipient(f"This message is for {header.recipient}, not for {me}.")
    if header.roster_version != roster.version:
        raise Stale(
            f"This message was written under roster version {header.roster_version}; {me} holds version "
            f"{roster.version}. Both sides need the newest roster before they talk."
        )
    check_times(header, now)
    body = _unseal(envelope, key)
    return Opened(header, read_body(header.kind, body, accepts), envelope_digest(raw))


def parse_envelope(raw: bytes) -> Envelope:
    """Steps 1 and 2: size, form, version, canonical bytes. Checks no signature."""
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise TooLarge(f"A message of {len(raw)} bytes is over the limit of {MAX_ENVELOPE_BYTES}.")
    try:
        envelope = msgspec.msgpack.decode(raw, type=Envelope)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("These bytes are not an envelope of ours.") from error
    if envelope.header.version != VERSION:
        raise UnknownVersion(
            f"The message is of version {envelope.header.version}; this side speaks version {VERSION}. "
            "Update the older side."
        )
    if msgspec.msgpack.encode(envelope) != raw:
        raise Malformed("The envelope is not in canonical form.")
    return envelope


def check_signature(envelope: Envelope, public: bytes) -> None:
    try:
        verify(public, envelope.signature, _to_sign(envelope.header, envelope.body))
    except BadSignature as error:
        raise BadSignature(
            f"The message that claims to come from {envelope.header.sender} is not signed by it."
        ) from error


def check_times(header: Header, now: int) -> None:
    """Raises: Stale: expired, issued in the future, or valid for longer than we ever allow."""
    if header.issued_at > now + MAX_CLOCK_SKEW_S:
        raise Stale(f"The message from {header.sender} is dated in the future; compare both machines' clocks.")
    if header.expires_at + MAX_CLOCK_SKEW_S < now:
        raise Stale(f"The message from {header.sender} has expired; it has to be sent anew.")
    if header.expires_at - header.issued_at > MESSAGE_LIFETIME_S:
        raise Stale(f"The message from {header.sender} claims a longer life than {MESSAGE_LIFETIME_S} s.")


def read_body(kind: str, body: bytes, accepts: Bodies) -> Struct:
    """Decode a body as the closed struct its kind names; anything else is malformed."""
    expected = accepts.get(kind)
    if expected is None:
        raise Malformed(f"Messages of kind {kind!r} are not accepted here.")
    try:
        decoded: Struct = msgspec.msgpack.decode(body, type=expected)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"The body is not a well-formed {kind!r} message.") from error
    if msgspec.msgpack.encode(decoded) != body:
        raise Malformed(f"The body of the {kind!r} message is not in canonical form.")
    return decoded


def envelope_digest(raw: bytes) -> bytes:
    return digest(b"flute/envelope-digest/v1", raw)


def _to_sign(header: Header, body: bytes) -> bytes:
    return _SIGNED + digest(msgspec.msgpack.encode(header), body)


def _seal_info(header: Header) -> bytes:
    return _SEALED + digest(msgspec.msgpack.encode(header))


def _unseal(envelope: Envelope, key: AgreementKey | None) -> bytes:
    if not envelope.header.sealed:
        return envelope.body
    if key is None:
        raise Malformed("A sealed message reached a party that has no key for it.")
    return key.open(envelope.body, info=_seal_info(envelope.header))
