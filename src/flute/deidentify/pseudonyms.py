"""Names that stand for patients, resources and DICOM objects, derived under the hub's own key.

Guarantees: the same original under the same key always has the same name, in FHIR, DICOM and tables alike; without
the key nobody can tell which original it was, nor try originals. Whoever holds the key can, so it stays at the hub.
Source: RFC 2104 (HMAC), FIPS 180-4 (SHA-256), RFC 9562 (UUID version 8), DICOM PS3.5 annex B.2 (UIDs from UUIDs).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from flute.errors import MisuseError

KEY_BYTES: Final = 32
PSEUDONYM_CHARS: Final = 32
"""128 bits: two patients of one hub never share a pseudonym."""
_PSEUDONYM: Final = b"flute/pseudonym/v1"
_RESOURCE: Final = b"flute/resource/v1"
_OBJECT: Final = b"flute/object/v1"
UID_ROOT: Final = "2.25."
"""UIDs below it are UUIDs in decimal and belong to no organisation."""


def keyed(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes. Raises: MisuseError: the key is not 32 bytes."""
    if len(key) != KEY_BYTES:
        raise MisuseError(f"The key for pseudonyms must have {KEY_BYTES} bytes.")
    return hmac.new(key, message, hashlib.sha256).digest()


def pseudonym(key: bytes, patient: str) -> str:
    """A patient's id, replaced: 32 hexadecimal characters.

    Raises: MisuseError: the key is not 32 bytes.
    """
    return keyed(key, _PSEUDONYM + patient.encode()).hex()[:PSEUDONYM_CHARS]


def resource_name(key: bytes, kind: str, name: str) -> str:
    """The id of a FHIR resource, replaced: 32 hexadecimal characters. A Patient's is his pseudonym, so that a
    resource and a row of a table name him alike.

    Raises: MisuseError: the key is not 32 bytes.
    """
    if kind == "Patient":
        return pseudonym(key, name)
    return keyed(key, _RESOURCE + f"{kind}/{name}".encode()).hex()[:PSEUDONYM_CHARS]


def object_uid(key: bytes, uid: str) -> str:
    """A DICOM UID, replaced by one below 2.25: at most 44 characters, and nothing of the old one's root in it.

    Raises: MisuseError: the key is not 32 bytes.
    """
    number = int.from_bytes(keyed(key, _OBJECT + uid.encode())[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76  # version 8: bits of one's own
    number = number & ~(0x3 << 62) | 2 << 62  # the variant of RFC 9562
    return f"{UID_ROOT}{number}"
