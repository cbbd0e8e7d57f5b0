"""Signing, agreement and sealing keys: a thin, typed skin over `cryptography`.

Sources: Ed25519 RFC 8032; X25519 RFC 7748; HPKE base mode RFC 9180
(DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flute.errors import BadSignature, Malformed

KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
_LENGTH: Final = Struct(">Q")
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key. `raw`: 32 secret bytes."""

    raw: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.raw).sign(message)


@dataclass(frozen=True)
class AgreementKey:
    """An X25519 private key. `raw`: 32 secret bytes."""

    raw: bytes = field(repr=False)

    @cached_property
    def _private(self) -> X25519PrivateKey:
        """Loaded once, for loading costs as much as an agreement."""
        return X25519PrivateKey.from_private_bytes(self.raw)

    @property
    def public(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """Shared secret with a peer's public key.

        Raises: Malformed: not a 32-byte key, or a small-order point (all-zero secret).
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise Malformed("An agreement key is not a usable X25519 point.") from error

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Undo `seal`. Raises: Malformed: not sealed to this key with this `info`."""
        try:
            return bytes(_SUITE.decrypt(sealed, self._private, info=info))
        except (InvalidTag, ValueError) as error:
            raise Malformed("A sealed body does not open with this party's key.") from error


def verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Raises: BadSignature: `signature` is not `public`'s over `message`, or the key is no key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise BadSignature("A signature does not verify with its claimed sender's key.") from error


def seal(plaintext: bytes, recipient: bytes, *, info: bytes) -> bytes:
    """HPKE base mode to an X25519 public key; `info` binds the context (AES-GCM, forward secret for the sender)."""
    try:
        return bytes(_SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(recipient), info=info))
    except ValueError as error:
        raise Malformed("The recipient's agreement key is not a usable X25519 point.") from error


def derive(secret: bytes, *, info: bytes, salt: bytes = b"", size: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    return HKDF(hashes.SHA256(), size, salt or None, info).derive(secret)


def digest(*parts: bytes) -> bytes:
    """SHA-256 over length-prefixed parts, so that no two lists of parts collide by concatenation."""
    state = hashlib.sha256()
    update = state.update
    for part in parts:
        update(_LENGTH.pack(len(part)))
        update(part)
    return state.digest()


def fingerprint(public: bytes) -> str:
    """Eight groups of four base-32 letters: 160 bits of SHA-256, to be compared aloud by phone."""
    letters = base64.b32encode(hashlib.sha256(b"flute/fingerprint/v1" + public).digest()[:20]).decode()
    return " ".join(letters[i : i + 4] for i in range(0, 32, 4))
