"""COSE_Sign1 with ECDSA, and CBOR read within limits: as much as an Arm CCA token needs.

Sources: RFC 9052, sections 4.2 and 4.4 (COSE_Sign1, Sig_structure); RFC 9053, section 2.1 (ECDSA); RFC 8949.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from flute.defaults.evidence import MAX_CBOR_DEPTH, MAX_CLAIMS
from flute.errors import MalformedEvidence, UntrustedEvidence

_SIGN1: Final = 18
_ALGORITHM: Final = 1
_ALGORITHMS: Final[dict[int, tuple[type, hashes.HashAlgorithm, int]]] = {
    -7: (SECP256R1, hashes.SHA256(), 32),
    -35: (SECP384R1, hashes.SHA384(), 48),
    -36: (SECP521R1, hashes.SHA512(), 66),
}
"""COSE number: curve, hash, bytes of one number of the signature."""


@dataclass(frozen=True, slots=True)
class Sign1:
    """A signed message as it came; nothing in it is believed yet."""

    protected: bytes
    payload: bytes
    signature: bytes
    algorithm: int


def read_cbor(raw: bytes, what: str) -> Any:
    """The one value that the bytes say, in the one way of saying it (deterministic encoding of lengths aside).

    Raises: MalformedEvidence: no CBOR, more behind it, too deep, too many entries.
    """
    try:
        value = cbor2.loads(raw)
        if cbor2.dumps(value) != raw:  # a key twice, or bytes behind the value, would be lost silently
            raise ValueError
        _require_small(value, MAX_CBOR_DEPTH)
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError, OverflowError, RecursionError):
        raise MalformedEvidence(f"{what} is not clean CBOR. Send the token as it was made.", reason="cbor") from None
    return value


def _require_small(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError
    if isinstance(value, cbor2.CBORTag):
        _require_small(value.value, depth - 1)
    elif isinstance(value, Mapping | list | tuple):
        if len(value) > MAX_CLAIMS:
            raise ValueError
        for inner in value.values() if isinstance(value, Mapping) else value:
            _require_small(inner, depth - 1)


def read_sign1(raw: bytes, what: str) -> Sign1:
    """Raises: MalformedEvidence: no COSE_Sign1 with an ECDSA algorithm in its protected header and nothing else."""
    value = read_cbor(raw, what)
    inner = value.value if isinstance(value, cbor2.CBORTag) and value.tag == _SIGN1 else None
    if isinstance(inner, list | tuple) and len(inner) == 4:
        protected, unprotected, payload, signature = inner
        parts = isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)
        if parts and isinstance(unprotected, Mapping) and not unprotected:
            header = read_cbor(protected, f"The header of {what}")
            if isinstance(header, Mapping) and set(header) == {_ALGORITHM} and header[_ALGORITHM] in _ALGORITHMS:
                return Sign1(protected, payload, signature, int(header[_ALGORITHM]))
    raise MalformedEvidence(
        f"{what} is no COSE_Sign1 message signed with ES256, ES384 or ES512, or its headers say more than that.",
        reason="cose",
    )


def require_signed(message: Sign1, key: object, what: str) -> None:
    """Raises: UntrustedEvidence: `key` did not sign the message, or is of another kind than its algorithm."""
    curve, digest, size = _ALGORITHMS[message.algorithm]
    try:
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, curve):
            raise InvalidSignature
        if len(message.signature) != 2 * size:
            raise InvalidSignature
        r, s = (int.from_bytes(half, "big") for half in (message.signature[:size], message.signature[size:]))
        signed = cbor2.dumps(["Signature1", message.protected, b"", message.payload])
        key.verify(encode_dss_signature(r, s), signed, ECDSA(digest))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise UntrustedEvidence(
            f"{what} is not signed by the key that should have signed it: it was changed, or is of another platform. "
            "Ask for a new token.",
            reason="signature",
        ) from None
