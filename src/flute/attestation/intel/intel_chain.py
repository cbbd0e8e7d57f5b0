"""Intel's certificates and revocation lists: current, and not revoked.

`dcap-qvl` checks the same and more, and says "certificate chain" whatever it was. A hub has to be told whether to
fetch a list anew, to wait or to leave a platform alone, so these checks come first and name their reasons.

Source: Intel, SGX PCK Certificate and Certificate Revocation List Profile Specification 1.5; RFC 5280, section 5.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from flute.attestation.certificates import load_certificate, load_crl, require_valid
from flute.defaults.evidence import MAX_CLOCK_LEAD_S
from flute.errors import UntrustedEvidence

_PLATFORM_CHAIN: Final = 3
_SIGNER_CHAIN: Final = 2
"""Certificates of a chain, root included."""


def require_current(
    platform: list[bytes], signers: list[list[bytes]], *, root_crl: bytes, platform_crl: bytes, now: int
) -> None:
    """Nothing in the chains has expired or is revoked at `now` (Unix seconds).

    Args: platform: platform key, who certified it, root; in DER. signers: chains of who signs Intel's statements.
        root_crl, platform_crl: the two lists in DER.
    Raises: UntrustedEvidence: something has expired, is not valid yet, is revoked, or is no certificate or list.
    """
    if len(platform) != _PLATFORM_CHAIN or any(len(chain) != _SIGNER_CHAIN for chain in signers):
        raise UntrustedEvidence(
            "A chain of Intel's has another length than Intel's chains have. Fetch the collateral anew.",
            reason="chain-malformed",
        )
    once = dict.fromkeys([*platform, *(der for chain in signers for der in chain)])
    loaded = [load_certificate(der, "Intel's chain") for der in once]
    for certificate in loaded:
        require_valid(certificate, "A certificate of Intel's chain", now)
    leaf, middle, root = loaded[:_PLATFORM_CHAIN]
    _require_not_listed([middle, *loaded[_PLATFORM_CHAIN:]], root_crl, root, now)
    _require_not_listed([leaf], platform_crl, middle, now)


def _require_not_listed(certificates: list[x509.Certificate], raw: bytes, issuer: x509.Certificate, now: int) -> None:
    crl = load_crl(raw, "A revocation list of Intel's")
    key = issuer.public_key()
    if crl.issuer != issuer.subject or not isinstance(key, EllipticCurvePublicKey) or not crl.is_signature_valid(key):
        raise UntrustedEvidence(
            "A revocation list is not signed by whoever should have signed it. Fetch it anew from Intel.",
            reason="crl-signature",
        )
    until = crl.next_update_utc
    if until is None or not crl.last_update_utc.timestamp() - MAX_CLOCK_LEAD_S <= now <= until.timestamp():
        raise UntrustedEvidence(
            "A revocation list is not current. Fetch the present one from Intel.", reason="crl-expired"
        )
    if any(crl.get_revoked_certificate_by_serial_number(one.serial_number) is not None for one in certificates):
        raise UntrustedEvidence(
            "Intel has revoked a certificate of this platform. Send nothing to it; use another platform.",
            reason="revoked",
        )
