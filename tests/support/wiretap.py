"""What hubs' relays sent, read back from a capture: parcels, the envelopes in them, and what those say in clear.

A capture (`LocalFederation(capture=folder)`) is the plain sequence of bodies before TLS: parcels and 16-byte
receipts, without any framing. A parcel is found by its first bytes, so a capture that a kill cut short in the
middle of one is read as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from flute.coordinator.desk import ACCEPTS as FROM_HUBS
from flute.messages.envelope import Envelope, Header, _unseal, envelope_digest, read_body
from flute.messages.question import OwnQuestion, SecureQuestion
from flute.primitives.keys import AgreementKey

Q = TypeVar("Q", SecureQuestion, OwnQuestion)
_TO_COORDINATOR = b"\x94\xabcoordinator"
"""MessagePack: an array of four whose first item is the recipient. Hubs send to nobody else."""


@dataclass(frozen=True)
class Said:
    """One envelope that left a party, in clear."""

    header: Header
    body: Struct
    clear: bytes
    digest: bytes


def captured_bodies(raw: bytes) -> Iterator[bytes]:
    """The body of every whole parcel in a capture, in order."""
    at = raw.find(_TO_COORDINATOR)
    while at >= 0:
        found = _body_at(raw, at + len(_TO_COORDINATOR))
        if found is not None:
            yield found
        at = raw.find(_TO_COORDINATOR, at + 1)


def _body_at(raw: bytes, at: int) -> bytes | None:
    """Skip sender (short text) and transfer id (16 bytes), and give the body; None where none follows."""
    if at >= len(raw) or raw[at] & 0xE0 != 0xA0:
        return None
    at += 1 + (raw[at] & 0x1F)
    if raw[at : at + 2] != b"\xc4\x10":
        return None
    at += 18
    widths = {0xC4: 1, 0xC5: 2, 0xC6: 4}
    if at >= len(raw) or raw[at] not in widths:
        return None
    width = widths[raw[at]]
    size = int.from_bytes(raw[at + 1 : at + 1 + width], "big")
    body = raw[at + 1 + width : at + 1 + width + size]
    return body if len(body) == size else None


def in_clear(body: bytes, key: AgreementKey) -> Said:
    """An envelope to the coordinator, opened with its key; its age does not matter here."""
    envelope = msgspec.msgpack.decode(body, type=Envelope)
    clear = _unseal(envelope, key)
    return Said(envelope.header, read_body(envelope.header.kind, clear, FROM_HUBS), clear, envelope_digest(body))


def asked(database: Path, kind: type[Q]) -> dict[bytes, Q]:
    """Digest to question, of every question of a kind that a coordinator stored before it sent it."""
    store = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        tag = (kind.__struct_config__.tag,)
        rows = store.execute(
            "SELECT digest, body, parameters FROM message JOIN round ON round.id = message.round "
            "WHERE outgoing = 1 AND kind = ?", tag
        )  # fmt: skip
        found = ((digest, msgspec.msgpack.decode(body, type=kind), numbers) for digest, body, numbers in rows)
        # A question is stored without its parameters: its round has them.
        return {digest: msgspec.structs.replace(one, parameters=numbers) for digest, one, numbers in found}
    finally:
        store.close()
