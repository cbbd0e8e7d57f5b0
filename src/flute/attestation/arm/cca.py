"""Arm CCA: a token of two signed halves, one of the platform, one of the realm that runs on it.

Verifying: the platform's half is signed by the platform's key (CPAK); it names the digest of the realm's key (RAK),
so the realm's half, signed by that key, was made on this platform. Arm names no common root: whose platform key it
is, the appraisal policy says.

Source: Arm, Realm Management Monitor specification (DEN0137) 1.0, section A7.2; draft-ffm-rats-cca-token, profiles
"http://arm.com/CCA-SSD/1.0.0" (platform) and Arm's realm claims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from flute.attestation.arm.cose import Sign1, read_cbor, read_sign1, require_signed
from flute.attestation.collateral import CcaCollateral
from flute.defaults.evidence import MAX_CLAIMS, REPORT_DATA_BYTES
from flute.errors import MalformedEvidence, UntrustedEvidence

TOKEN_TAG: Final = 399
_PLATFORM, _REALM = 44234, 44241
_PROFILES: Final = frozenset({"http://arm.com/CCA-SSD/1.0.0"})
_HASHES: Final = frozenset({"sha-256", "sha-384", "sha-512"})
_DIGESTS: Final = frozenset({32, 48, 64})
_EXTENSIBLE: Final = 4
_SECURED: Final = range(0x3000, 0x3100)
"""Lifecycle states: the platform is in production and not being debugged."""


@dataclass(frozen=True, slots=True)
class Component:
    """One piece of the platform's firmware: its digest and the digest of the key that signed it."""

    kind: str
    measurement: bytes
    signer: bytes


@dataclass(frozen=True, slots=True)
class CcaToken:
    """A token as it came; nothing in it is believed yet. `key_digest`: what the platform says of the realm's key."""

    raw: bytes
    platform: Sign1
    realm: Sign1
    key_digest: bytes
    key_digest_hash: str
    implementation: bytes
    instance: bytes
    lifecycle: int
    config: bytes
    software: tuple[Component, ...]
    realm_key: bytes
    challenge: bytes
    initial_measurement: bytes
    extensible_measurements: tuple[bytes, ...]
    personalization: bytes

    @property
    def secured(self) -> bool:
        return self.lifecycle in _SECURED


@dataclass(frozen=True, slots=True)
class VerifiedCca:
    """A token whose halves belong together under one platform key; `verify` alone makes it.

    `platform_key`: SHA-256 of that key (SubjectPublicKeyInfo, DER), hexadecimal; the policy says whether it is known.
    """

    evidence: CcaToken
    platform_key: str
    verified_at: int
    development: bool


class _Claims:
    """Claims of one half, each taken once, so that what nobody took is noticed."""

    def __init__(self, payload: bytes, what: str) -> None:
        self._what = what
        self._left = read_cbor(payload, what)
        if not isinstance(self._left, Mapping):
            raise self.missing("claims")
        self._left = dict(self._left)

    def missing(self, name: str) -> MalformedEvidence:
        return MalformedEvidence(
            f"{self._what} has no usable {name}. Ask for a token by Arm's profile.", reason="cca-claims"
        )

    def octets(self, key: int, name: str, sizes: frozenset[int] = frozenset()) -> bytes:
        value = self._left.pop(key, None)
        if not isinstance(value, bytes) or (sizes and len(value) not in sizes):
            raise self.missing(name)
        return value

    def text(self, key: int, name: str, known: frozenset[str] = frozenset()) -> str:
        value = self._left.pop(key, None)
        if not isinstance(value, str) or (known and value not in known):
            raise self.missing(name)
        return value

    def other(self, key: int) -> Any:
        return self._left.pop(key, None)

    def require_all_taken(self) -> None:
        if self._left:
            raise MalformedEvidence(
                f"{self._what} has claims that Arm's profile does not name. A newer profile needs a newer FLUTE.",
                reason="cca-claims",
            )


def parse_cca(raw: bytes) -> CcaToken:
    """Raises: MalformedEvidence: no CCA token by the profile that is known here."""
    token = read_cbor(raw, "The CCA token")
    inner = token.value if isinstance(token, cbor2.CBORTag) and token.tag == TOKEN_TAG else None
    if not isinstance(inner, Mapping) or set(inner) != {_PLATFORM, _REALM}:
        raise MalformedEvidence("This is no CCA token of a platform half and a realm half.", reason="cca-token")
    halves = inner[_PLATFORM], inner[_REALM]
    if not all(isinstance(half, bytes) for half in halves):
        raise MalformedEvidence("The halves of this CCA token are no byte strings.", reason="cca-token")
    platform = read_sign1(halves[0], "The platform's half")
    realm = read_sign1(halves[1], "The realm's half")
    return CcaToken(raw=raw, platform=platform, realm=realm, **_platform(platform.payload), **_realm(realm.payload))


def _platform(payload: bytes) -> dict[str, Any]:
    claims = _Claims(payload, "The platform's half")
    claims.text(265, "profile", _PROFILES)
    claims.other(2400)  # where a verification service is: a hint to others, we ask nobody
    lifecycle = claims.other(2395)
    if not isinstance(lifecycle, int):
        raise claims.missing("lifecycle")
    found = {
        "key_digest": claims.octets(10, "challenge", _DIGESTS),
        "implementation": claims.octets(2396, "implementation id", frozenset({32})),
        "instance": claims.octets(256, "instance id", frozenset({33})),
        "lifecycle": lifecycle,
        "config": claims.octets(2401, "config"),
        "software": _software(claims),
    }
    claims.text(2402, "hash algorithm", _HASHES)  # of the measurements, whose lengths say the same
    claims.require_all_taken()
    return found


def _software(claims: _Claims) -> tuple[Component, ...]:
    listed = claims.other(2399)
    if not isinstance(listed, list | tuple) or not 0 < len(listed) <= MAX_CLAIMS:
        raise claims.missing("software components")
    found = []
    for entry in listed:
        if not isinstance(entry, Mapping) or not set(entry) <= {1, 2, 4, 5, 6}:
            raise claims.missing("software components")
        kind, measurement, signer = entry.get(1, ""), entry.get(2), entry.get(5)
        if not isinstance(kind, str) or not isinstance(measurement, bytes) or not isinstance(signer, bytes):
            raise claims.missing("software components")
        found.append(Component(kind, measurement, signer))
    return tuple(found)


def _realm(payload: bytes) -> dict[str, Any]:
    claims = _Claims(payload, "The realm's half")
    claims.other(265)  # newer realms name a profile; the claims are the same
    extensible = claims.other(44239)
    digests = isinstance(extensible, list | tuple) and len(extensible) == _EXTENSIBLE
    if not digests or not all(isinstance(value, bytes) and len(value) in _DIGESTS for value in extensible):
        raise claims.missing("extensible measurements")
    found = {
        "challenge": claims.octets(10, "challenge", frozenset({REPORT_DATA_BYTES})),
        "personalization": claims.octets(44235, "personalization value", frozenset({64})),
        "realm_key": claims.octets(44237, "public key"),
        "initial_measurement": claims.octets(44238, "initial measurement", _DIGESTS),
        "extensible_measurements": tuple(extensible),
        "key_digest_hash": claims.text(44240, "hash of the public key", _HASHES),
    }
    claims.text(44236, "hash algorithm", _HASHES)  # of the measurements, whose lengths say the same
    claims.require_all_taken()
    return found


def verify_cca(token: CcaToken, collateral: CcaCollateral, *, now: int, development: bool) -> VerifiedCca:
    """Raises: UntrustedEvidence: a half is not signed by its key, or the realm's key is not the platform's."""
    try:
        platform_key = load_der_public_key(collateral.platform_key)
    except (ValueError, UnsupportedAlgorithm):
        raise UntrustedEvidence(
            "What should be the platform's public key is not one. Ask the platform's maker for it, in DER.",
            reason="certificate-malformed",
        ) from None
    require_signed(token.platform, platform_key, "The platform's half of the CCA token")
    digest = hashlib.new(token.key_digest_hash.replace("-", ""), token.realm_key).digest()
    if digest != token.key_digest:
        raise UntrustedEvidence(
            "The realm's key is not the one that the platform vouches for: halves of two tokens were put together.",
            reason="realm-key",
        )
    require_signed(token.realm, _realm_key(token.realm_key), "The realm's half of the CCA token")
    known = hashlib.sha256(collateral.platform_key).hexdigest()
    return VerifiedCca(token, known, now, development)


def _realm_key(raw: bytes) -> EllipticCurvePublicKey:
    """A point of P-384, uncompressed (Arm's profile of version 1.0)."""
    try:
        return EllipticCurvePublicKey.from_encoded_point(SECP384R1(), raw)
    except ValueError:
        raise UntrustedEvidence("The realm's public key is not a point of P-384.", reason="realm-key") from None
