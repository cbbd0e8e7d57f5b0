"""What comes beside evidence: certificates, revocation lists, the maker's word on what is up to date.

It may come from anywhere, the enclave included: nothing in it is believed before its signature is checked.
A file is JSON of one of the closed structures below, or what the makers' own tools write: certificates in PEM (leaf,
intermediate, root, then perhaps the root's revocation list), or Intel's collateral, version 3, as `dcap-qvl` saves
it.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from flute.defaults.evidence import MAX_CERTIFICATE_BYTES, MAX_COLLATERAL_BYTES, MAX_CRL_BYTES
from flute.errors import MalformedEvidence

Der = Annotated[bytes, Meta(min_length=1, max_length=MAX_CERTIFICATE_BYTES)]
"""One certificate or key in DER; base64 in JSON."""
_Text = Annotated[str, Meta(max_length=MAX_COLLATERAL_BYTES)]
_Hex = Annotated[str, Meta(max_length=MAX_COLLATERAL_BYTES, pattern=r"^([0-9a-f]{2})*\Z")]
_PEM: Final = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END \1-----")
_CHAIN: Final = 3


class SnpCollateral(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sev-snp"):
    """AMD's chain. `leaf`: VCEK or VLEK; `intermediate`: ASK or ASVK; `root`: ARK; `crl`: the ARK's list."""

    leaf: Der
    intermediate: Der
    root: Der
    crl: Annotated[bytes, Meta(max_length=MAX_CRL_BYTES)] | None = None


class DcapCollateral(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="dcap"):
    """Intel's statements for TDX and SGX: chains in PEM, lists and signatures in lower-case hexadecimal, statements
    in JSON.

    Source: Intel, Provisioning Certification Service API version 4, in the field names of Intel's quote library.
    """

    pck_crl_issuer_chain: _Text
    root_ca_crl: _Hex
    pck_crl: _Hex
    tcb_info_issuer_chain: _Text
    tcb_info: _Text
    tcb_info_signature: _Hex
    qe_identity_issuer_chain: _Text
    qe_identity: _Text
    qe_identity_signature: _Hex


class CcaCollateral(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="arm-cca"):
    """`platform_key`: the public key of the platform's attestation key (CPAK), SubjectPublicKeyInfo in DER."""

    platform_key: Der


class TpmCollateral(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="tpm"):
    """`ak_certificate` and its issuer, where somebody certified the attestation key; else both None, and the
    appraisal policy has to know the key itself."""

    ak_certificate: Der | None = None
    issuer: Der | None = None


Collateral = SnpCollateral | DcapCollateral | CcaCollateral | TpmCollateral
_DECODER: Final[msgspec.json.Decoder[Collateral]] = msgspec.json.Decoder(Collateral)
_UNTAGGED: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_collateral(raw: bytes) -> Collateral:
    """Raises: MalformedEvidence: none of the forms that the module lists."""
    if len(raw) > MAX_COLLATERAL_BYTES:
        raise MalformedEvidence(
            f"Collateral has at most {MAX_COLLATERAL_BYTES} bytes; these are {len(raw)}.", reason="collateral-size"
        )
    if b"-----BEGIN" in raw[:4096] and not raw.lstrip().startswith(b"{"):
        return _from_pem(raw)
    try:
        if "kind" not in _UNTAGGED.decode(raw):
            return msgspec.json.decode(b'{"kind":"dcap",' + raw.lstrip()[1:], type=DcapCollateral)
        return _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEvidence(
            f"This is no collateral that FLUTE knows ({error}). docs/how-to/evidence.md shows how to fetch it.",
            reason="collateral-malformed",
        ) from None


def _from_pem(raw: bytes) -> SnpCollateral:
    found = _PEM.findall(raw)
    try:
        certificates = [b64decode(body) for label, body in found if label == b"CERTIFICATE"]
        lists = [b64decode(body) for label, body in found if label == b"X509 CRL"]
    except binascii.Error:
        certificates, lists = [], []
    if len(certificates) != _CHAIN or len(lists) > 1:
        raise MalformedEvidence(
            "Collateral in PEM is AMD's: the signing key's certificate, the intermediate, the root, and at most one "
            "revocation list, in that order.",
            reason="collateral-malformed",
        )
    leaf, intermediate, root = certificates
    return SnpCollateral(leaf, intermediate, root, lists[0] if lists else None)


def write_collateral(collateral: Collateral) -> bytes:
    """JSON that `read_collateral` takes."""
    return msgspec.json.encode(collateral)
