"""People: the card with which somebody is enrolled, and calls to the coordinator that are signed by one key.

Until there is a login, a person is an enrolled key: an owner puts the card's id and key into the roster, and every
call to the coordinator's API carries a signature of that key.

The signature is RFC 9421 (HTTP message signatures) in one fixed profile: Ed25519 over `@method`, `@path`, `@query`
and `content-digest` (RFC 9530, SHA-256, always present), with `created`, `nonce`, `keyid` (the person), `alg` and
`tag` (the federation, so that a call to one cannot be shown to another, whatever host name proxies use).
`Signature-Input` must be written exactly as `sign_request` writes it, so there is no structured-field parser to
feed. The PyPI package `http-message-signatures` 3.0 reads the clock by itself, takes any set of components and
turns every exception into a bad signature; it is the oracle of the tests instead.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from flute.defaults import MAX_CLOCK_SKEW_S, MAX_NONCES_PER_PERSON
from flute.errors import BadSignature, Malformed, MisuseError, Replayed, Stale
from flute.primitives.keys import SigningKey, digest, verify
from flute.trust.roster import Person, Roster
from flute.trust.weak_keys import refuse_weak_key

NONCE_SIZE: Final = 16
MAX_TARGET_CHARS: Final = 4_096
"""Path and query; what servers and proxies commonly take."""
CONTENT_DIGEST: Final = "content-digest"
SIGNATURE_INPUT: Final = "signature-input"
SIGNATURE: Final = "signature"
_COVERED: Final = ("@method", "@path", "@query", CONTENT_DIGEST)
_ID: Final = re.compile(r"[a-z][a-z0-9-]{1,31}")
_FEDERATION: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_METHOD: Final = re.compile(r"[A-Z]{3,10}")
_TARGET: Final = re.compile(r"/[!\"$-~]*")  # printable ASCII from the root, without a fragment
_INPUT: Final = re.compile(
    r'flute=(?P<params>\("@method" "@path" "@query" "content-digest"\);created=(?P<created>[1-9][0-9]{0,11});'
    r'keyid="(?P<keyid>[a-z][a-z0-9-]{1,31})";alg="ed25519";nonce="(?P<nonce>[0-9a-f]{32})";'
    r'tag="flute:(?P<tag>[A-Za-z][A-Za-z0-9_.-]{0,63})")'
)
_SIGNATURE: Final = re.compile(
    r"flute=:(?P<signature>[A-Za-z0-9+/]{85}[AQgw]==):"
)  # one writing: spare bits are zero
_CARD: Final = re.compile(
    r"flute-person v1 (?P<id>[a-z][a-z0-9-]{1,31}) (?P<key>[0-9a-f]{64}) (?P<signature>[0-9a-f]{128})"
)


# --- the card --------------------------------------------------------------------------------


def write_card(person: str, key: SigningKey) -> str:
    """One line that tells a hub owner a person's id and public key, and proves that the person holds the key."""
    if _ID.fullmatch(person) is None:
        raise MisuseError(
            f"{person!r} is no person's id: 2 to 32 lower-case letters, digits, hyphens; a letter first."
        )
    return f"flute-person v1 {person} {key.public.hex()} {key.sign(_card_to_sign(person, key.public)).hex()}\n"


def read_card(text: str) -> tuple[str, bytes]:
    """(id, public key) of a card. The fingerprint is still to be compared with the person.

    Raises: Malformed: not a card, or a key that anybody could sign for. BadSignature: it does not prove its key.
    """
    found = _CARD.fullmatch(text.strip()) if len(text) < 1_000 else None
    if found is None:
        raise Malformed("This is not a person's card. Ask for the line that `flute person` prints.")
    key = bytes.fromhex(found["key"])
    refuse_weak_key(key, found["id"])
    try:
        verify(key, bytes.fromhex(found["signature"]), _card_to_sign(found["id"], key))
    except BadSignature as error:
        raise BadSignature(f"The card of {found['id']} does not prove that its holder has the key.") from error
    return found["id"], key


def _card_to_sign(person: str, key: bytes) -> bytes:
    return b"flute/person-card/v1" + digest(person.encode(), key)


# --- what was seen ---------------------------------------------------------------------------


class Nonces(Protocol):
    """Memory against replay. One that forgets at a restart lets calls of the last two skews be replayed then."""

    def remember(self, person: str, nonce: str, *, until: int, now: int) -> None:
        """Keep (person, nonce) until the second `until`. Raises: Replayed: it is kept already."""
        ...


@dataclass(slots=True)
class NonceMemory:
    """`Nonces` in memory: for tests and for one process; bounded per person, so nobody fills another's."""

    _seen: dict[str, dict[str, int]] = field(default_factory=dict)

    def remember(self, person: str, nonce: str, *, until: int, now: int) -> None:
        """Raises: Replayed: seen before. Stale: this person makes more calls than can be remembered."""
        seen = self._seen.setdefault(person, {})
        if nonce in seen:
            raise Replayed(f"This call of {person} was made before. A repeated call has to be signed anew.")
        if len(seen) >= MAX_NONCES_PER_PERSON:
            seen = self._seen[person] = {old: end for old, end in seen.items() if end >= now}
        if len(seen) >= MAX_NONCES_PER_PERSON:
            raise Stale(f"{person} makes too many calls at once. Wait {MAX_CLOCK_SKEW_S} seconds and go on slower.")
        seen[nonce] = until


# --- signing and checking --------------------------------------------------------------------


def sign_request(
    key: SigningKey, *, person: str, federation: str, method: str, target: str, body: bytes, now: int, rand: bytes
) -> dict[str, str]:
    """The three headers that sign one HTTP call.

    Args: target: path and query as sent on the wire, percent-encoded (`httpx`: `request.url.raw_path.decode()`).
        now: Unix seconds. rand: NONCE_SIZE fresh bytes.
    Raises: MisuseError: a part that cannot be signed.
    """
    if len(rand) != NONCE_SIZE or _ID.fullmatch(person) is None or _FEDERATION.fullmatch(federation) is None:
        raise MisuseError(f"Signing a call needs {NONCE_SIZE} random bytes, a person's id and a federation's name.")
    params = (
        f'("@method" "@path" "@query" "content-digest");created={now};keyid="{person}";alg="ed25519";'
        f'nonce="{rand.hex()}";tag="flute:{federation}"'
    )
    try:
        base = _request_base(method, target, body, params)
    except Malformed as error:
        raise MisuseError(error.text) from error
    return {
        CONTENT_DIGEST: content_digest_header(body),
        SIGNATURE_INPUT: f"flute={params}",
        SIGNATURE: f"flute=:{base64.b64encode(key.sign(base)).decode()}:",
    }


def verify_request(
    *, roster: Roster, method: str, target: str, headers: Mapping[str, str], body: bytes, now: int, nonces: Nonces
) -> Person:
    """The enrolled person who made this call, now, for this federation, for the first time.

    Checks, in this order: 1 form 2 the person is in the roster 3 the body's digest 4 signature 5 federation
    6 time, at most MAX_CLOCK_SKEW_S either way 7 not seen before.
    Args: headers: with lower-case names, or a mapping that ignores case. target: as received, not decoded.
    Raises: Malformed, NotInRoster, BadSignature, Stale, Replayed.
    """
    found = _INPUT.fullmatch(headers.get(SIGNATURE_INPUT, ""))
    signed = _SIGNATURE.fullmatch(headers.get(SIGNATURE, ""))
    if found is None or signed is None:
        raise Malformed("The call is not signed in the way that this coordinator reads. Use the `flute` client.")
    person = roster.person(found["keyid"])
    base = _request_base(method, target, body, found["params"])
    if headers.get(CONTENT_DIGEST, "") != content_digest_header(body):
        raise BadSignature(f"The body of this call is not the one that {person.id} signed.")
    try:
        verify(person.signing_key, base64.b64decode(signed["signature"]), base)
    except BadSignature as error:
        raise BadSignature(f"The call in the name of {person.id} is not signed by it, or was altered.") from error
    if found["tag"] != roster.content.federation:
        raise BadSignature(f"The call was signed for {found['tag']}, and this is {roster.content.federation}.")
    created = int(found["created"])
    if abs(now - created) > MAX_CLOCK_SKEW_S:
        raise Stale(
            f"The call of {person.id} is dated {abs(now - created)} s away from this side's clock; at most "
            f"{MAX_CLOCK_SKEW_S} s are allowed. Compare the clocks and sign anew."
        )
    nonces.remember(person.id, found["nonce"], until=created + MAX_CLOCK_SKEW_S, now=now)
    return person


def signature_base(components: Sequence[tuple[str, str]], params: str) -> bytes:
    """RFC 9421 section 2.5: what is signed. Raises: Malformed: a value that could pass for another line."""
    lines = [f'"{name}": {value}' for name, value in components]
    lines.append(f'"@signature-params": {params}')
    if any(not line.isascii() or not line.isprintable() for line in lines):
        raise Malformed("A part of the call holds characters that cannot be signed.")
    return "\n".join(lines).encode("ascii")


def content_digest_header(body: bytes) -> str:
    """RFC 9530 section 2, SHA-256."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def asgi_target(scope: Mapping[str, Any]) -> str:
    """Path and query of an ASGI (starlette, FastAPI) request as they were on the wire. Raises: Malformed."""
    raw = bytes(scope["raw_path"])
    if query := bytes(scope.get("query_string", b"")):
        raw += b"?" + query
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("The address of the call is not ASCII.") from error


def _request_base(method: str, target: str, body: bytes, params: str) -> bytes:
    """RFC 9421 sections 2.2.1, 2.2.6 and 2.2.7, 2.1."""
    if _METHOD.fullmatch(method) is None:
        raise Malformed("The method of the call is not an upper-case word.")
    if len(target) > MAX_TARGET_CHARS or _TARGET.fullmatch(target) is None:
        raise Malformed("The address of the call is not an absolute path in plain ASCII of a sensible length.")
    path, _, query = target.partition("?")
    values = (method, path, f"?{query}", content_digest_header(body))
    return signature_base(list(zip(_COVERED, values, strict=True)), params)
