"""Labels, digests and the round's context. Whatever is derived or signed names what it is for.

Labels are `flute/secagg/v1/` and words parted by "|", which no id contains. Digests are over
length-prefixed parts. The context `ctx` is the salt of every mask key: hubs that were told different things
have masks that do not cancel.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from flute.defaults import MAX_HUBS
from flute.messages.protocol import GroupTerms, Masked, Start, StudyKey, TicketPub
from flute.primitives.keys import digest

_ROOT = "flute/secagg/v1/"


def info(*words: str) -> bytes:
    """A label for HKDF, a digest or a signature."""
    return (_ROOT + "|".join(words)).encode()


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def terms_digest(terms: GroupTerms) -> bytes:
    return digest(info("terms"), msgspec.msgpack.encode(terms))


def start_digest(start: Start) -> bytes:
    """Names the very bytes of a message 0, this hub's boxes included."""
    return digest(info("start"), msgspec.msgpack.encode(start))


@lru_cache(maxsize=2 * MAX_HUBS)
def pub_digest(pub: TicketPub) -> bytes:
    """Names a ticket; its signature is over this. Kept, since signature, box and context ask for it in turn."""
    return digest(
        info("ticket-pub"), pub.study.encode(), pub.hub.encode(), number(pub.serial), pub.terms, pub.point,
        pub.seed_commitment, pub.shares_root,
    )  # fmt: skip


def context(start: Start) -> bytes:
    """ctx: group terms, round, question, layout and every participant's ticket."""
    layout = [number(start.size), number(start.width)]
    parts = [info("ctx"), terms_digest(start.terms), number(start.round), start.question, *layout]
    for pub in start.pubs:
        parts += [pub.hub.encode(), pub_digest(pub)]
    return digest(*parts)


def study_key_to_sign(key: StudyKey) -> bytes:
    return info("study-key") + digest(key.study.encode(), key.agreement, key.hub.encode(), key.public)


def ticket_to_sign(pub: TicketPub) -> bytes:
    return info("ticket") + pub_digest(pub)


def masked_to_sign(message: Masked) -> bytes:
    return info("masked") + digest(message.ctx, message.hub.encode(), number(message.length), message.sha256)


def echo_to_sign(terms: GroupTerms, ctx: bytes, hub: str, survivors: tuple[str, ...]) -> bytes:
    """The hub's own name keeps its tag from passing as another's."""
    return info("echo", terms.study) + digest(ctx, hub.encode(), _set_digest(survivors))


@lru_cache(maxsize=4)
def _set_digest(hubs: tuple[str, ...]) -> bytes:
    """Length-prefixed name by name. Kept, since every hub signs the same set."""
    return digest(info("set"), *(hub.encode() for hub in hubs))
