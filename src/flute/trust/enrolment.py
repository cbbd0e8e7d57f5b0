"""How a hub joins: an invitation that a person can mail, a request that proves the keys, an answer that is signed.

    coordinator                                hub
    write_invitation   --- text, by mail --->  read_invitation
    read_join          <-- over https ------   write_join      proves possession of both signing keys
    verify_join        (this token? names and keys still free?)
    write_admission    --- over https ----->   open_admission  from the coordinator that the invitation names?

None of this makes a hub a member: members are in the roster, which hub owners sign after they have compared the
newcomer's fingerprints by phone. An invitation that was intercepted buys a request, not a membership.

The token is a secret of its invitation. The coordinator's store keeps `token_digest` alone and forgets it once it
was used; when it may be used again, and how often it was tried, is the store's business.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Collection
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from flute.defaults import MAX_JOIN_BYTES, MAX_KIT_BYTES, MAX_ROSTER_BYTES
from flute.errors import BadSignature, JoinRefused, Malformed, Stale, TooLarge, UnknownVersion
from flute.messages.limits import Digest, Key, Name, PartyId, Signature
from flute.primitives.keys import SigningKey, digest, fingerprint, verify
from flute.trust.roster import SERVER, Expiry, Hub, TlsName, day
from flute.trust.weak_keys import refuse_weak_key

S = TypeVar("S", bound=Struct)

VERSION: Final = 1
TOKEN_SIZE: Final = 20
"""160 random bits: not to be guessed, and 32 letters in base 32."""
MAX_INVITATION_BYTES: Final = 8_192
_JOIN: Final = b"flute/join/v1"
_ADMISSION: Final = b"flute/admission/v1"
_FIRST_LINE: Final = "FLUTE invitation, version 1"

Url = Annotated[str, Meta(min_length=8, max_length=200, pattern=r"^[a-z][a-z0-9+.-]{1,9}://[!-~]+\Z")]
Fingerprint = Annotated[str, Meta(max_length=39, pattern=r"^([A-Z2-7]{4} ){7}[A-Z2-7]{4}\Z")]
CaFingerprint = Annotated[str, Meta(max_length=102, pattern=r"^SHA256:([0-9A-F]{2}:){31}[0-9A-F]{2}\Z")]
"""As `nvflare cert` writes it; `nvflare package --fingerprint` takes it."""
Token = Annotated[bytes, Meta(min_length=TOKEN_SIZE, max_length=TOKEN_SIZE)]


class Invitation(Struct, frozen=True, forbid_unknown_fields=True):
    """What a hub needs in order to find its federation and to know that it is the right one."""

    federation: Name
    coordinator: PartyId
    api_url: Url
    engine_url: Url
    coordinator_fingerprint: Fingerprint
    """Of the coordinator's signing key; also to be compared by phone."""
    ca_fingerprint: CaFingerprint
    token: Token
    expires: Expiry

    def __repr__(self) -> str:  # the token is a secret: not in logs, not in tracebacks
        return f"Invitation(federation={self.federation!r}, coordinator={self.coordinator!r}, expires={self.expires})"


class JoinRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A hub's public keys and certificate request. Both signatures cover every other field."""

    version: int
    federation: Name
    hub: PartyId
    signing_key: Key
    sealing_key: Key
    owner_key: Key
    tls_common_name: TlsName
    csr_zip: Annotated[bytes, Meta(min_length=1, max_length=MAX_JOIN_BYTES // 2)]
    """What `nvflare cert request` packed; it holds no private key."""
    token: Token
    by_signing_key: Signature
    by_owner_key: Signature

    def __repr__(self) -> str:
        return f"JoinRequest(federation={self.federation!r}, hub={self.hub!r})"


class Admission(Struct, frozen=True, forbid_unknown_fields=True):
    """The coordinator's answer: the approved startup kit and the newest root, for the request of this digest."""

    version: int
    federation: Name
    hub: PartyId
    request: Digest
    kit_zip: Annotated[bytes, Meta(min_length=1, max_length=MAX_KIT_BYTES)]
    coordinator_signing_key: Key
    coordinator_sealing_key: Key
    root: Annotated[bytes, Meta(max_length=MAX_ROSTER_BYTES)]
    """Empty until there is a first roster. Trusted only by its fingerprint (`verification.first_trust`)."""
    signature: Signature


# --- invitation ------------------------------------------------------------------------------


def write_invitation(invitation: Invitation) -> str:
    """A text to mail: one fact a line. Raises: Malformed: a field is out of bounds."""
    _within_bounds(invitation)
    token = base64.b32encode(invitation.token).decode()
    return "\n".join(
        [
            _FIRST_LINE,
            "For one hub, once. Keep it to yourself; call the sender and compare the fingerprints.",
            "",
            f"federation: {invitation.federation}",
            f"coordinator: {invitation.coordinator}",
            f"api: {invitation.api_url}",
            f"engine: {invitation.engine_url}",
            f"coordinator-fingerprint: {invitation.coordinator_fingerprint}",
            f"ca-fingerprint: {invitation.ca_fingerprint}",
            f"token: {token}",
            f"expires: {invitation.expires} ({day(invitation.expires)})",
            "",
        ]
    )


def read_invitation(text: str, *, now: int) -> Invitation:
    """Read a mailed invitation; line ends, quoting marks and blank lines of mail programs do no harm.

    Raises: TooLarge. Malformed: not an invitation, or a line is missing or stands twice. Stale: expired.
    """
    if len(text.encode("utf-8", "replace")) > MAX_INVITATION_BYTES:
        raise TooLarge(f"An invitation is short; this text is longer than {MAX_INVITATION_BYTES} bytes.")
    facts = _facts(text)
    try:
        invitation = Invitation(
            facts["federation"], facts["coordinator"], facts["api"], facts["engine"],
            facts["coordinator-fingerprint"], facts["ca-fingerprint"],
            base64.b32decode(facts["token"]), int(facts["expires"].split(" ")[0][:12]),
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise Malformed(
            "The invitation is damaged or lacks a line. Ask for it to be sent again as a file."
        ) from error
    _within_bounds(invitation)
    if now >= invitation.expires:
        raise Stale(f"The invitation ended on {day(invitation.expires)}. Ask the coordinator for a new one.")
    return invitation


def _facts(text: str) -> dict[str, str]:
    """`name: value` lines after the first line."""
    lines = [re.sub(r"^[> \t]*", "", line).rstrip() for line in text.splitlines()]
    if _FIRST_LINE not in lines:
        raise Malformed("This text is not an invitation of version 1.")
    facts: dict[str, str] = {}
    for line in lines[lines.index(_FIRST_LINE) + 1 :]:
        found = re.fullmatch(r"([a-z-]{3,30}): (.{1,300})", line)
        if found is None:
            continue
        if found[1] in facts:
            raise Malformed(f"The invitation states {found[1]} twice. Ask for it to be sent again as a file.")
        facts[found[1]] = found[2]
    return facts


def token_digest(token: bytes) -> bytes:
    """What the coordinator's store keeps of an invitation's secret."""
    return digest(b"flute/invitation-token/v1", token)


# --- request ---------------------------------------------------------------------------------


def write_join(
    invitation: Invitation,
    *,
    hub: str,
    signing: SigningKey,
    sealing_key: bytes,
    owner: SigningKey,
    tls_common_name: str,
    csr_zip: bytes,
) -> bytes:
    """A hub's request, signed by its signing key and by its owner key.

    Raises: Malformed: a field is out of bounds. TooLarge.
    """
    unsigned = JoinRequest(
        VERSION, invitation.federation, hub, signing.public, sealing_key, owner.public, tls_common_name, csr_zip,
        invitation.token, bytes(64), bytes(64),
    )  # fmt: skip
    message = _join_to_sign(unsigned)
    raw = msgspec.msgpack.encode(
        msgspec.structs.replace(unsigned, by_signing_key=signing.sign(message), by_owner_key=owner.sign(message))
    )
    read_join(raw)
    return raw


def read_join(raw: bytes) -> JoinRequest:
    """Parse a request and check both signatures; whether it was invited, `verify_join` says.

    Raises: TooLarge, UnknownVersion. Malformed: form, or a key that anybody could sign for. BadSignature.
    """
    request = _decode(raw, JoinRequest, MAX_JOIN_BYTES, "a request to join")
    if request.version != VERSION:
        raise UnknownVersion(f"The request is of version {request.version}; this side speaks {VERSION}. Update it.")
    for key in (request.signing_key, request.sealing_key, request.owner_key):
        refuse_weak_key(key, request.hub)
    message = _join_to_sign(request)
    try:
        verify(request.signing_key, request.by_signing_key, message)
        verify(request.owner_key, request.by_owner_key, message)
    except BadSignature as error:
        raise BadSignature(
            f"The request in the name of {request.hub} does not prove that it holds the keys it shows."
        ) from error
    return request


def verify_join(
    request: JoinRequest,
    *,
    federation: str,
    expected_token_digest: bytes,
    expires: int,
    now: int,
    taken_ids: Collection[str],
    taken_keys: Collection[bytes],
) -> Hub:
    """The roster entry that hub owners may now sign, for a request of `read_join`.

    Args: expected_token_digest, expires: of the invitation, from the store, which offers it once.
        taken_ids, taken_keys: of the roster (revoked parties included) and of requests that wait; TLS names too.
    Raises: Stale: the invitation expired. JoinRefused: other federation, token, or a name or key that is taken.
    """
    if not hmac.compare_digest(token_digest(request.token), expected_token_digest):
        raise JoinRefused("The request does not carry the token of an open invitation. Ask for a new invitation.")
    if now >= expires:
        raise Stale(f"The invitation ended on {day(expires)}. Ask the coordinator for a new one.")
    if request.federation != federation:
        raise JoinRefused(f"The request is for {request.federation}; this is the coordinator of {federation}.")
    for name in (request.hub, request.tls_common_name):
        if name != name.strip() or name.lower() == SERVER or name in taken_ids:
            raise JoinRefused(f"The name {name!r} is taken or reserved in {federation}. Choose another one.")
    keys = (request.signing_key, request.sealing_key, request.owner_key)
    if len(set(keys)) != len(keys) or any(key in taken_keys for key in keys):
        raise JoinRefused(
            f"A key of {request.hub} is used already, by it or by another party. Make new keys, in a new folder."
        )
    return Hub(request.hub, *keys, request.tls_common_name)


def join_digest(request: JoinRequest) -> bytes:
    """What an admission answers."""
    return digest(b"flute/join-digest/v1", msgspec.msgpack.encode(request))


# --- admission -------------------------------------------------------------------------------


def write_admission(
    request: JoinRequest, *, signing: SigningKey, sealing_key: bytes, kit_zip: bytes, root: bytes
) -> bytes:
    """The coordinator's signed answer to one request. Raises: Malformed: a field is out of bounds. TooLarge."""
    unsigned = Admission(
        VERSION, request.federation, request.hub, join_digest(request), kit_zip, signing.public, sealing_key, root,
        bytes(64),
    )  # fmt: skip
    answer = msgspec.structs.replace(unsigned, signature=signing.sign(_admission_to_sign(unsigned)))
    raw = msgspec.msgpack.encode(answer)
    _read_admission(raw)
    return raw


def open_admission(raw: bytes, *, invitation: Invitation, request: JoinRequest) -> Admission:
    """The answer to `request`, from the coordinator that the invitation names. The root in it is not yet trusted.

    Raises: TooLarge, Malformed, UnknownVersion. BadSignature: another coordinator's key, or altered.
        JoinRefused: the answer to another request.
    """
    answer = _read_admission(raw)
    if fingerprint(answer.coordinator_signing_key) != invitation.coordinator_fingerprint:
        raise BadSignature(
            "The answer comes from another key than the invitation names. Do not go on; call the coordinator and "
            "compare its fingerprint."
        )
    try:
        verify(answer.coordinator_signing_key, answer.signature, _admission_to_sign(answer))
    except BadSignature as error:
        raise BadSignature("The coordinator's answer was altered on its way. Ask for it again.") from error
    same = (invitation.federation, request.hub, join_digest(request))
    if (answer.federation, answer.hub, answer.request) != same:
        raise JoinRefused(f"This is the answer to another request, not to the one of {request.hub}.")
    return answer


def _read_admission(raw: bytes) -> Admission:
    answer = _decode(raw, Admission, MAX_KIT_BYTES + MAX_ROSTER_BYTES + 4_096, "an answer to a request to join")
    if answer.version != VERSION:
        raise UnknownVersion(f"The answer is of version {answer.version}; this side speaks {VERSION}. Update it.")
    return answer


# --- parts -----------------------------------------------------------------------------------


def _join_to_sign(request: JoinRequest) -> bytes:
    blank = msgspec.structs.replace(request, by_signing_key=bytes(64), by_owner_key=bytes(64))
    return _JOIN + digest(msgspec.msgpack.encode(blank))


def _admission_to_sign(answer: Admission) -> bytes:
    return _ADMISSION + digest(msgspec.msgpack.encode(msgspec.structs.replace(answer, signature=bytes(64))))


def _decode(raw: bytes, kind: type[S], limit: int, what: str) -> S:
    if len(raw) > limit:
        raise TooLarge(f"These {len(raw)} bytes are too many for {what}; the limit is {limit}.")
    try:
        found = msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"These bytes are not {what}.") from error
    if msgspec.msgpack.encode(found) != raw:
        raise Malformed(f"These bytes are not {what} in canonical form.")
    return found


def _within_bounds(invitation: Invitation) -> None:
    values = [getattr(invitation, name) for name in invitation.__struct_fields__]
    if any(isinstance(value, str) and value != value.strip() for value in values):
        raise Malformed("A line of the invitation ends in white space.")
    try:
        msgspec.convert(msgspec.to_builtins(invitation), Invitation)
    except msgspec.ValidationError as error:
        raise Malformed(f"A line of the invitation is out of bounds: {error}.") from error
