"""AMD SEV-SNP: from a report to AMD's pinned root key.

Steps, in this order:
    1 the root (ARK) is one of the pinned ones; it says which product this is, and signs itself
    2 root > intermediate (ASK, or ASVK for lent keys) > leaf (VCEK or VLEK): RSA-PSS with SHA-384, names, kinds
    3 all three are valid at the time
    4 the root's revocation list, if there is one, is genuine and current and does not name the intermediate
    5 the report is of this product's processors, and is signed by the leaf: ECDSA P-384 with SHA-384
    6 the leaf was issued for the reported TCB and, if it is the chip's own key, for the report's chip

Sources: AMD, Versioned Chip Endorsement Key Certificate and KDS Interface Specification (57230) 1.00, section 3
(extensions), and Versioned Loaded Endorsement Key (58369); RFC 5280 for names, validity and revocation lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID, ObjectIdentifier, SignatureAlgorithmOID

from flute.attestation.amd.snp import SIGNED_BYTES, SigningKey, SnpReport, SnpTcb
from flute.attestation.certificates import fingerprint, load_certificate, load_crl, require_valid
from flute.attestation.collateral import SnpCollateral
from flute.attestation.roots import Product, Roots
from flute.defaults.evidence import MAX_CLOCK_LEAD_S
from flute.errors import UntrustedEvidence

_AMD: Final = "1.3.6.1.4.1.3704.1"
_PRODUCT: Final = ObjectIdentifier(f"{_AMD}.2")
_CHIP: Final = ObjectIdentifier(f"{_AMD}.4")
_PROVIDER: Final = ObjectIdentifier(f"{_AMD}.5")
_TCB: Final = {
    "boot_loader": ObjectIdentifier(f"{_AMD}.3.1"),
    "tee": ObjectIdentifier(f"{_AMD}.3.2"),
    "snp": ObjectIdentifier(f"{_AMD}.3.3"),
    "microcode": ObjectIdentifier(f"{_AMD}.3.8"),
}
_FMC: Final = ObjectIdentifier(f"{_AMD}.3.9")
_NAMES: Final = {
    SigningKey.VCEK: ("SEV-VCEK", "SEV-{}"),
    SigningKey.VLEK: ("SEV-VLEK", "SEV-VLEK-{}"),
}
"""Common names of leaf and intermediate, by who signed."""
_INTEGER, _OCTETS, _IA5 = 0x02, 0x04, 0x16
_PADDING: Final = PSS(mgf=MGF1(hashes.SHA384()), salt_length=48)
_MODELS: Final = {
    Product.MILAN: (0x19, (range(0x00, 0x10),)),
    Product.GENOA: (0x19, (range(0x10, 0x20), range(0xA0, 0xB0))),
    Product.TURIN: (0x1A, (range(0x00, 0x12),)),
}
"""Processor family and models, as in reports from version 3 on."""


@dataclass(frozen=True, slots=True)
class VerifiedSnp:
    """A report that AMD's root vouches for; `verify` alone makes it. Times are Unix seconds.

    `tcb`: the reported one, which the leaf was issued for. `provider`: whom AMD lent the key, for a VLEK.
    `revocations_from`: date of the revocation list; None: none was shown, so nobody looked.
    """

    evidence: SnpReport
    product: Product
    tcb: SnpTcb
    provider: str
    certified_at: int
    revocations_from: int | None
    verified_at: int
    development: bool


def verify_snp(report: SnpReport, collateral: SnpCollateral, *, now: int, roots: Roots) -> VerifiedSnp:
    """Raises: UntrustedEvidence: a step of the module's list fails; `reason` names it."""
    root = load_certificate(collateral.root, "AMD's root key (ARK)")
    middle = load_certificate(collateral.intermediate, "AMD's intermediate key (ASK or ASVK)")
    leaf = load_certificate(collateral.leaf, "the signing key (VCEK or VLEK)")
    product = _pinned(root, roots)  # 1
    _require_issued(root, root, "the root key")
    _require_issued(middle, root, "the intermediate key")  # 2
    _require_issued(leaf, middle, "the signing key")
    _require_names(report.signing_key, leaf, middle, product)
    for certificate, what in ((root, "root"), (middle, "intermediate"), (leaf, "signing key")):  # 3
        require_valid(certificate, f"AMD's {what} certificate", now)
    revocations_from = (
        None if collateral.crl is None else _require_not_revoked(collateral.crl, middle, root, now)
    )  # 4
    _require_model(report, product)  # 5
    _require_signed(report, leaf)
    tcb = SnpTcb.of(report.reported_tcb, product)  # 6
    _require_tcb(leaf, tcb, product)
    if report.signing_key is SigningKey.VCEK:
        _require_chip(leaf, report, product)
    return VerifiedSnp(
        evidence=report,
        product=product,
        tcb=tcb,
        provider=_text(leaf, _PROVIDER) if report.signing_key is SigningKey.VLEK else "",
        certified_at=int(leaf.not_valid_before_utc.timestamp()),
        revocations_from=revocations_from,
        verified_at=now,
        development=roots.development,
    )


# --- 1 and 2: the chain ----------------------------------------------------------------------


def _pinned(root: x509.Certificate, roots: Roots) -> Product:
    product = roots.amd.get(fingerprint(root))
    if product is None:
        raise UntrustedEvidence(
            "The chain of this SEV-SNP report ends at a key that is none of AMD's roots (Milan, Genoa, Turin). Fetch "
            "the chain from AMD's key distribution service for this processor.",
            reason="root-unknown",
        )
    return product


def _require_issued(certificate: x509.Certificate, issuer: x509.Certificate, what: str) -> None:
    key = issuer.public_key()
    try:
        pss = certificate.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
        if not pss or not isinstance(certificate.signature_hash_algorithm, hashes.SHA384):
            raise InvalidSignature
        if not isinstance(key, RSAPublicKey):
            raise InvalidSignature
        certificate.verify_directly_issued_by(issuer)  # names, and that inner and outer algorithm agree
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, _PADDING, hashes.SHA384())
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise UntrustedEvidence(
            f"AMD's certificate of {what} was not issued by the key above it. Fetch the chain anew from AMD's key "
            "distribution service; if it stays so, this evidence is a forgery.",
            reason="chain-signature",
        ) from None


def _require_names(signer: SigningKey, leaf: x509.Certificate, middle: x509.Certificate, product: Product) -> None:
    leaf_name, middle_name = _NAMES[signer]
    named = _common_name(leaf) == leaf_name and _common_name(middle) == middle_name.format(product)
    if not named or not _text(leaf, _PRODUCT).startswith(product):
        raise UntrustedEvidence(
            f"The report says that a {signer.upper()} of {product} signed it, its certificates are of another kind. "
            "Send the chain that belongs to this report.",
            reason="chain-kind",
        )


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


# --- 4: revocation ---------------------------------------------------------------------------


def _require_not_revoked(raw: bytes, middle: x509.Certificate, root: x509.Certificate, now: int) -> int:
    """The list's date. Chips' certificates share one serial number and are not listed: AMD revokes what signs "
    "them."""
    crl = load_crl(raw, "AMD's revocation list")
    key = root.public_key()
    try:
        if crl.issuer != root.subject or not isinstance(key, RSAPublicKey):
            raise InvalidSignature
        key.verify(crl.signature, crl.tbs_certlist_bytes, _PADDING, hashes.SHA384())
    except InvalidSignature:
        raise UntrustedEvidence(
            "The revocation list is not signed by AMD's root key. Fetch it anew from AMD's key distribution service.",
            reason="crl-signature",
        ) from None
    dated = int(crl.last_update_utc.timestamp())
    until = crl.next_update_utc
    if until is None or not dated - MAX_CLOCK_LEAD_S <= now <= until.timestamp():
        raise UntrustedEvidence(
            "AMD's revocation list is not current. Fetch the present one from AMD's key distribution service.",
            reason="crl-expired",
        )
    if crl.get_revoked_certificate_by_serial_number(middle.serial_number) is not None:
        raise UntrustedEvidence(
            "AMD has revoked the key that vouches for this platform's key. The platform needs AMD's new firmware and "
            "a new certificate before anything is sent to it.",
            reason="revoked",
        )
    return dated


# --- 5 and 6: the report under the leaf ------------------------------------------------------


def _require_model(report: SnpReport, product: Product) -> None:
    if report.cpuid is None:  # before version 3 a report does not say; the leaf's product and the chip's id do
        return
    family, models = _MODELS[product]
    if report.cpuid[0] != family or not any(report.cpuid[1] in some for some in models):
        raise UntrustedEvidence(
            f"The report is of another processor than {product}, whose root vouches for it. Send the chain of this "
            "processor's generation.",
            reason="wrong-product",
        )


def _require_signed(report: SnpReport, leaf: x509.Certificate) -> None:
    key = leaf.public_key()
    try:
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
            raise InvalidSignature
        signature = encode_dss_signature(report.r, report.s)
        key.verify(signature, report.raw[:SIGNED_BYTES], ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise UntrustedEvidence(
            "The SEV-SNP report is not signed by the key whose certificate came with it: it was changed, or the "
            "certificate is of another chip or TCB. Ask for a new report and its certificate.",
            reason="signature",
        ) from None


def _require_tcb(leaf: x509.Certificate, tcb: SnpTcb, product: Product) -> None:
    wanted = tcb.parts()
    found = {part: _number(leaf, oid) for part, oid in _TCB.items()}
    found["fmc"] = _number(leaf, _FMC) if product is Product.TURIN else 0
    if found != wanted:
        raise UntrustedEvidence(
            "The signing key was certified for other firmware than the report names. Fetch the certificate for the "
            "reported TCB from AMD's key distribution service.",
            reason="tcb-certificate",
        )


def _require_chip(leaf: x509.Certificate, report: SnpReport, product: Product) -> None:
    if report.chip_id_masked:
        raise UntrustedEvidence(
            "The host hides its chip's id (MASK_CHIP_ID), so its key cannot be tied to this report. Ask the provider "
            "to switch that off, or to use a VLEK.",
            reason="chip-masked",
        )
    used = 8 if product is Product.TURIN else 64  # Turin's chips have 8 bytes, the rest of the field is zero
    extension = _extension(leaf, _CHIP)
    octets = _value(extension, _OCTETS)
    certified = extension if octets is None else octets  # 57230: the raw bytes; some issuers wrap them
    if certified != report.chip_id[:used] or any(report.chip_id[used:]):
        raise UntrustedEvidence(
            "The signing key belongs to another chip than the report names. Send the certificate of this chip.",
            reason="chip",
        )


# --- extensions (DER) ------------------------------------------------------------------------


def _extension(certificate: x509.Certificate, oid: ObjectIdentifier) -> bytes:
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return b""
    return value.value if isinstance(value, x509.UnrecognizedExtension) else b""


def _value(der: bytes, tag: int) -> bytes | None:
    """Content of one short DER value; None: another tag, another length."""
    if len(der) < 2 or der[0] != tag or der[1] > 0x7F or len(der) != 2 + der[1]:
        return None
    return der[2:]


def _number(certificate: x509.Certificate, oid: ObjectIdentifier) -> int:
    content = _value(_extension(certificate, oid), _INTEGER)
    return -1 if content is None else int.from_bytes(content, "big", signed=True)


def _text(certificate: x509.Certificate, oid: ObjectIdentifier) -> str:
    content = _value(_extension(certificate, oid), _IA5)
    return "" if content is None else content.decode("ascii", "replace")
