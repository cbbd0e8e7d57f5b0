"""Labels, contexts, signatures, and how one message of every hub is gathered.

Labels are `flute/threshold/v1/` and words parted by "|", which no id contains. A context is the digest of the terms;
every message, proof and signature holds it, so that nothing passes in another study, attempt, question or set of
hubs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from flute.errors import BadSignature, Cheating, Equivocation, Malformed, MisuseError, TooFewHubs
from flute.messages.threshold import KeyTerms, SumTerms
from flute.primitives.keys import SigningKey, digest, verify

_ROOT = "flute/threshold/v1/"


class Secret(Struct, frozen=True):
    """A struct that holds secrets: neither `repr` nor rich shows its fields."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secret>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Message(Protocol):
    """What every message of this plan has."""

    @property
    def ctx(self) -> bytes: ...
    @property
    def hub(self) -> str: ...
    @property
    def signature(self) -> bytes: ...


_M = TypeVar("_M", bound=Message)
_S = TypeVar("_S", bound=Struct)


def info(*words: str) -> bytes:
    """A label for a digest, a challenge or a signature."""
    return (_ROOT + "|".join(words)).encode()


def key_context(terms: KeyTerms) -> bytes:
    return digest(info("key-terms"), msgspec.msgpack.encode(terms))


def sum_context(terms: SumTerms) -> bytes:
    return digest(info("sum-terms"), msgspec.msgpack.encode(terms))


def message_digest(message: Message) -> bytes:
    """Names a message: all fields but the signature, kind included."""
    return digest(info("message"), msgspec.msgpack.encode(_unsigned(message)))


def signed(message: _S, key: SigningKey) -> _S:
    """The message with its sender's signature over its digest."""
    to_sign = info("sign") + digest(info("message"), msgspec.msgpack.encode(_unsigned(message)))
    return msgspec.structs.replace(message, signature=key.sign(to_sign))


def check_signature(message: Message, keys: Mapping[str, bytes]) -> None:
    """keys: roster keys by hub. Raises: BadSignature."""
    key = keys.get(message.hub)
    if key is None:
        raise BadSignature(f"The roster has no key of {message.hub}, so nothing can be taken from it.")
    try:
        verify(key, message.signature, info("sign") + message_digest(message))
    except BadSignature as error:
        raise BadSignature(f"A message that claims to be of {message.hub} is not signed by it.") from error


def gather(
    messages: Iterable[_M], *, what: str, ctx: bytes, hubs: tuple[str, ...], keys: Mapping[str, bytes]
) -> dict[str, _M]:
    """One message of every hub, in the hubs' order, each of this context and signed by its sender.

    The very same message twice counts once. what: names the messages in errors.
    Raises: Malformed: of a hub that takes no part. Equivocation: another context, or a hub said two things.
    BadSignature. TooFewHubs: names whom this still waits for.
    """
    found: dict[str, _M] = {}
    for message in messages:
        if message.hub not in hubs:
            raise Malformed(f"{message.hub} takes no part in this and sent a {what}.")
        if message.ctx != ctx:
            raise Equivocation(f"The {what} of {message.hub} belongs to another key ceremony or sum than this hub's.")
        check_signature(message, keys)
        known = found.setdefault(message.hub, message)
        if message_digest(known) != message_digest(message):
            raise Equivocation(f"{message.hub} signed two different {what}s for the same purpose.")
    require_all(what, hubs, found)
    return {hub: found[hub] for hub in hubs}


def require_all(what: str, hubs: Iterable[str], found: Iterable[str]) -> None:
    """Raises: TooFewHubs: names every hub that is not found."""
    here = set(found)
    if missing := [hub for hub in hubs if hub not in here]:
        raise TooFewHubs(
            f"The {what} of {', '.join(missing)} did not come. "
            "Nothing was made or opened; wait for it, or begin anew."
        )


@contextmanager
def blaming(hub: str) -> Iterator[None]:
    """What is malformed in a message that its sender signed is the sender's fault. Raises: Cheating: names it."""
    try:
        yield
    except Malformed as error:
        raise Cheating(f"{hub} sent nothing usable. {error}", blamed=(hub,)) from error


def decode(raw: bytes, kind: type[_S], what: str) -> _S:
    """One of this hub's own stored states. Raises: MisuseError: these bytes are none."""
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MisuseError(f"The stored {what} cannot be read by this version; it has to be made anew.") from error


def _unsigned(message: Any) -> Any:
    return msgspec.structs.replace(message, signature=bytes(64))
