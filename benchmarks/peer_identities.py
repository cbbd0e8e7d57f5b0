"""Names of hubs, as certificates of one study's own authority, and TLS that asks for them."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFETIME = datetime.timedelta(days=1)
CLOCKS_DIFFER = datetime.timedelta(minutes=5)


def peer_name(writer: asyncio.StreamWriter) -> str:
    """The one DNS name in the certificate that the handshake has verified; no name where there is not just one."""
    shown = writer.get_extra_info("ssl_object").getpeercert()
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    return names[0] if len(names) == 1 else "a certificate without exactly one name"


def contexts(certificates: Path, me: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For connections inwards and outwards. TLS 1.3; both ends show certificates of the study's own authority."""
    authority, own = certificates / "authority.pem", certificates / f"{me}.pem"
    inwards = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inwards.verify_mode = ssl.CERT_REQUIRED
    outwards = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks for a certificate and for its name
    for context in (inwards, outwards):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(authority)
        context.load_cert_chain(own, own.with_suffix(".key"))
    return inwards, outwards


def make_identities(folder: Path, names: Sequence[str]) -> None:
    """An authority for a day, and under it one key and certificate for each name; the authority's key is not kept."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("study authority", authority_key, None, authority_key)
    (folder / "authority.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        shown = _certificate(name, key, authority.subject, authority_key)
        (folder / f"{name}.pem").write_bytes(shown.public_bytes(serialization.Encoding.PEM))
        kept = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(kept, "wb") as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(issuer or subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if issuer is not None:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return made.sign(signer, hashes.SHA256())
