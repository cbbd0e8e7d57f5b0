"""TPM 2.0 quotes: evidence for DEVELOPMENT. A TPM measures what a machine started; it does not keep the machine's
owner from reading its memory, so nothing that is accepted on a TPM's word is an enclave.

The quote travels as JSON of `TpmQuote`'s parts, since a TPM gives them one by one: what it attests, the signature,
the public part of the attestation key (AK) and the registers' values.

Source: TCG, Trusted Platform Module 2.0 Library, part 2 (1.59): TPMS_ATTEST 10.12.8, TPMS_QUOTE_INFO 10.12.1,
TPMT_SIGNATURE 11.3.4, TPMT_PUBLIC 12.2.4, TPMA_OBJECT 8.3; part 1, section 16 (names).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from msgspec import Meta, Struct

from flute.attestation.certificates import fingerprint, load_certificate, require_valid
from flute.attestation.collateral import TpmCollateral
from flute.attestation.tcg.octets import Octets
from flute.defaults.evidence import MAX_EVIDENCE_BYTES, MAX_PCRS
from flute.errors import MalformedEvidence, UntrustedEvidence

_GENERATED: Final = 0xFF544347
_QUOTE: Final = 0x8018
_SHA256, _SHA384, _SHA512 = 0x000B, 0x000C, 0x000D
_HASHES: Final[dict[int, hashes.HashAlgorithm]] = {
    _SHA256: hashes.SHA256(),
    _SHA384: hashes.SHA384(),
    _SHA512: hashes.SHA512(),
}
_NAMES: Final = {_SHA256: "sha256", _SHA384: "sha384", _SHA512: "sha512"}
_RSA, _ECC, _NULL = 0x0001, 0x0023, 0x0010
_RSASSA, _ECDSA = 0x0014, 0x0018
_CURVES: Final[dict[int, EllipticCurve]] = {0x0003: SECP256R1(), 0x0004: SECP384R1()}
_FIXED_TPM, _FIXED_PARENT, _SENSITIVE_ORIGIN = 1 << 1, 1 << 4, 1 << 5
_RESTRICTED, _DECRYPT, _SIGN = 1 << 16, 1 << 17, 1 << 18
_AK_ATTRIBUTES: Final = _FIXED_TPM | _FIXED_PARENT | _SENSITIVE_ORIGIN | _RESTRICTED | _SIGN
_DEFAULT_EXPONENT: Final = 65_537
_MIN_RSA_BITS: Final = 2_048
_Part = Annotated[bytes, Meta(min_length=1, max_length=MAX_EVIDENCE_BYTES)]
_Register = Annotated[str, Meta(pattern=r"^([0-9]|1[0-9]|2[0-3])\Z")]
_Hex = Annotated[str, Meta(pattern=r"^([0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})\Z")]


class TpmBundle(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="tpm"):
    """A quote's parts as they travel; base64 for bytes. `registers`: number -> value in hexadecimal, of one bank."""

    attested: _Part
    signature: _Part
    key: _Part
    registers: Annotated[dict[_Register, _Hex], Meta(min_length=1, max_length=MAX_PCRS)]


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """The AK. `name`: digest of its public area, led by the hash's number: how a TPM and our policy call a key."""

    public: RSAPublicKey | EllipticCurvePublicKey
    name: bytes
    attributes: int


@dataclass(frozen=True, slots=True)
class TpmSignature:
    """`numbers`: one of RSA, r and s of ECDSA; big-endian."""

    scheme: int
    digest: int
    numbers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TpmQuote:
    """A quote as it came; nothing in it is believed yet. `bank`: the registers' hash."""

    raw: bytes
    attested: bytes
    signature: TpmSignature
    key: AttestationKey
    nonce: bytes
    firmware: int
    resets: int
    restarts: int
    safe_clock: bool
    bank: str
    selected: tuple[int, ...]
    digest: bytes
    registers: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class VerifiedTpm:
    """A quote that its attestation key signed; `verify` alone makes it.

    `issuer`: SHA-256 of the key that certified the AK, hexadecimal; "": nobody did, the policy must know the AK.
    """

    evidence: TpmQuote
    issuer: str
    verified_at: int


# --- parsing ---------------------------------------------------------------------------------

_DECODER: Final = msgspec.json.Decoder(TpmBundle)


def parse_tpm(raw: bytes) -> TpmQuote:
    """Raises: MalformedEvidence: not the parts of one quote."""
    try:
        bundle = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEvidence(f"These are not the parts of a TPM quote ({error}).", reason="tpm-parts") from None
    body = Octets(bundle.attested, "what the TPM attests", "tpm-attested")
    if body.number(4) != _GENERATED or body.number(2) != _QUOTE:
        raise body.refused("it was not made by a TPM as a quote")
    body.sized(2)  # qualified name of the key: who owns the hierarchy; the key itself is compared with the policy
    nonce = body.sized(2)
    body.number(8)  # clock: milliseconds of use, no time of day
    resets, restarts, safe = body.number(4), body.number(4), body.number(1)
    firmware = body.number(8)
    bank, selected = _selection(body)
    digest = body.sized(2)
    body.require_end()
    registers = tuple(sorted((int(number), bytes.fromhex(value)) for number, value in bundle.registers.items()))
    return TpmQuote(
        raw=raw,
        attested=bundle.attested,
        signature=_signature(bundle.signature),
        key=_key(bundle.key),
        nonce=nonce,
        firmware=firmware,
        resets=resets,
        restarts=restarts,
        safe_clock=safe == 1,
        bank=bank,
        selected=selected,
        digest=digest,
        registers=registers,
    )


def _selection(body: Octets) -> tuple[str, tuple[int, ...]]:
    """One bank of registers, lowest bit first."""
    if body.number(4) != 1:
        raise body.refused("it covers another number of register banks than one")
    algorithm = body.number(2)
    if algorithm not in _NAMES:
        raise body.refused("its register bank is of a hash that is not taken (SHA-256, SHA-384, SHA-512 are)")
    bits = body.sized(1)
    if not 0 < len(bits) <= MAX_PCRS // 8:
        raise body.refused("it selects registers that no TPM has")
    selected = tuple(i for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1)
    return _NAMES[algorithm], selected


def _signature(raw: bytes) -> TpmSignature:
    area = Octets(raw, "the signature", "tpm-signature")
    scheme, digest = area.number(2), area.number(2)
    if scheme not in (_RSASSA, _ECDSA) or digest not in _HASHES:
        raise area.refused("it is of a scheme or a hash that is not taken (RSASSA and ECDSA over SHA-2 are)")
    numbers = tuple(area.sized(2) for _ in range(1 if scheme == _RSASSA else 2))
    area.require_end()
    return TpmSignature(scheme, digest, numbers)


def _key(raw: bytes) -> AttestationKey:
    """TPMT_PUBLIC of a restricted signing key."""
    area = Octets(raw, "the attestation key", "tpm-key")
    kind, name_hash, attributes = area.number(2), area.number(2), area.number(4)
    if name_hash not in _NAMES:
        raise area.refused("its name is of a hash that is not taken")
    area.sized(2)  # authorisation policy: who may use the key, not what it signs
    if area.number(2) != _NULL:
        raise area.refused("it also encrypts")
    scheme, _ = area.number(2), area.number(2)
    public = _rsa(area, scheme) if kind == _RSA else _ecc(area, scheme) if kind == _ECC else None
    if public is None:
        raise area.refused("it is neither RSA nor ECC")
    area.require_end()
    name = name_hash.to_bytes(2, "big") + hashlib.new(_NAMES[name_hash], raw).digest()
    return AttestationKey(public, name, attributes)


def _rsa(area: Octets, scheme: int) -> RSAPublicKey:
    bits, exponent, modulus = area.number(2), area.number(4), int.from_bytes(area.sized(2), "big")
    if scheme != _RSASSA or bits < _MIN_RSA_BITS or modulus.bit_length() != bits:
        raise area.refused("it is no RSA key of at least 2048 bits for RSASSA")
    try:
        return RSAPublicNumbers(exponent or _DEFAULT_EXPONENT, modulus).public_key()
    except ValueError:
        raise area.refused("it is no RSA key") from None


def _ecc(area: Octets, scheme: int) -> EllipticCurvePublicKey:
    curve = _CURVES.get(area.number(2))
    if scheme != _ECDSA or curve is None or area.number(2) != _NULL:
        raise area.refused("it is no key of P-256 or P-384 for ECDSA")
    x, y = (int.from_bytes(area.sized(2), "big") for _ in range(2))
    try:
        return EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError:
        raise area.refused("it is no point of its curve") from None


# --- verifying -------------------------------------------------------------------------------


def verify_tpm(quote: TpmQuote, collateral: TpmCollateral, *, now: int) -> VerifiedTpm:
    """Raises: UntrustedEvidence: the key signs anything but a TPM's own words, the signature, registers or a
    certificate do not hold."""
    if quote.key.attributes & _AK_ATTRIBUTES != _AK_ATTRIBUTES or quote.key.attributes & _DECRYPT:
        raise UntrustedEvidence(
            "The key of this quote is no attestation key: it may leave its TPM or sign words that are not the TPM's. "
            "Make one that is restricted, fixed and signs (tpm2_createak).",
            reason="tpm-key-attributes",
        )
    _require_signed(quote)
    _require_registers(quote)
    return VerifiedTpm(quote, _issuer(quote, collateral, now), now)


def _require_signed(quote: TpmQuote) -> None:
    signature, key = quote.signature, quote.key.public
    digest = _HASHES[signature.digest]
    try:
        if isinstance(key, RSAPublicKey) and signature.scheme == _RSASSA:
            key.verify(signature.numbers[0], quote.attested, PKCS1v15(), digest)
        elif isinstance(key, EllipticCurvePublicKey) and signature.scheme == _ECDSA:
            r, s = (int.from_bytes(number, "big") for number in signature.numbers)
            key.verify(encode_dss_signature(r, s), quote.attested, ECDSA(digest))
        else:
            raise InvalidSignature
    except InvalidSignature:
        raise UntrustedEvidence(
            "The TPM quote is not signed by the key that came with it: it was changed. Ask for a new quote.",
            reason="signature",
        ) from None


def _require_registers(quote: TpmQuote) -> None:
    """The registers' values that came along are those whose digest was signed."""
    size = hashlib.new(quote.bank).digest_size
    numbers = tuple(number for number, _ in quote.registers)
    if numbers != quote.selected or any(len(value) != size for _, value in quote.registers):
        raise UntrustedEvidence(
            "The registers that came with this TPM quote are not those that it covers. Send exactly the quoted ones.",
            reason="tpm-registers",
        )
    together = b"".join(value for _, value in quote.registers)
    if hashlib.new(_NAMES[quote.signature.digest], together).digest() != quote.digest:
        raise UntrustedEvidence(
            "The registers' values do not have the digest that the TPM signed. Read them again and quote again.",
            reason="tpm-registers",
        )


def _issuer(quote: TpmQuote, collateral: TpmCollateral, now: int) -> str:
    if collateral.ak_certificate is None or collateral.issuer is None:
        return ""
    certificate = load_certificate(collateral.ak_certificate, "the attestation key")
    issuer = load_certificate(collateral.issuer, "whoever certified the attestation key")
    try:
        certificate.verify_directly_issued_by(issuer)
        if certificate.public_key() != quote.key.public:
            raise InvalidSignature
    except (InvalidSignature, ValueError, TypeError):
        raise UntrustedEvidence(
            "The attestation key's certificate is of another key, or its issuer did not sign it.",
            reason="chain-signature",
        ) from None
    require_valid(certificate, "The attestation key's certificate", now)
    require_valid(issuer, "The certificate of whoever certified the attestation key", now)
    return fingerprint(issuer)
