"""X.509 in DER, read strictly: one certificate or list, no bytes behind it, errors of ours."""

from __future__ import annotations

import hashlib
import warnings
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from flute.defaults.evidence import MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES
from flute.errors import UntrustedEvidence

# AMD numbers its chips' certificates 0, which RFC 5280 does not allow and `cryptography` warns of at each one
warnings.filterwarnings("ignore", message="Parsed a serial number", category=CryptographyDeprecationWarning)
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def _read_all(*parts: object) -> None:
    """`cryptography` reads a part when it is first asked for; asked for here, what is wrong shows here."""


def load_certificate(der: bytes, what: str) -> x509.Certificate:
    """Raises: UntrustedEvidence: not one certificate."""
    try:
        if len(der) > MAX_CERTIFICATE_BYTES:
            raise ValueError
        certificate = x509.load_der_x509_certificate(der)
        _read_all(certificate.subject, certificate.issuer, certificate.not_valid_before_utc)
        _read_all(certificate.not_valid_after_utc, certificate.public_key(), *certificate.extensions)
        return certificate
    except _UNREADABLE:
        raise UntrustedEvidence(
            f"What should be the certificate of {what} is not one. Fetch it anew, in DER.",
            reason="certificate-malformed",
        ) from None


def load_crl(der: bytes, what: str) -> x509.CertificateRevocationList:
    """Raises: UntrustedEvidence: not one revocation list."""
    try:
        if len(der) > MAX_CRL_BYTES:
            raise ValueError
        crl = x509.load_der_x509_crl(der)
        _read_all(crl.issuer, crl.last_update_utc, crl.next_update_utc, *crl.extensions, *crl)
        return crl
    except _UNREADABLE:
        raise UntrustedEvidence(f"{what} is not one. Fetch it anew, in DER.", reason="crl-malformed") from None


def require_valid(certificate: x509.Certificate, what: str, now: int) -> None:
    """Raises: UntrustedEvidence: `now` (Unix seconds) lies outside the certificate's validity."""
    if now < certificate.not_valid_before_utc.timestamp():
        raise UntrustedEvidence(
            f"{what} is not valid yet. Check this machine's clock.", reason="certificate-not-yet-valid"
        )
    if now > certificate.not_valid_after_utc.timestamp():
        raise UntrustedEvidence(
            f"{what} has expired. Ask for evidence under a present certificate.", reason="certificate-expired"
        )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's public key (SubjectPublicKeyInfo, DER), in hexadecimal."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
