"""Makers of evidence for tests: an AMD, an Arm platform and a TPM whose keys exist only here.

What a signature protects cannot be changed in a published sample without breaking the signature. Here every field can
be changed and signed anew, so that it is the field's own check that has to refuse. The layouts are written down a
second time, apart from the parsers, so that one wrong offset cannot hide in both.

Each issuer has `roots`, `evidence(report_data, **changes)`, `collateral(**changes)` and `policy(**changes)`.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Any, ClassVar

import cbor2
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from flute.attestation.collateral import CcaCollateral, SnpCollateral, TpmCollateral
from flute.attestation.policy import (
    AppraisalPolicy,
    CcaPolicy,
    FirmwareComponent,
    SnpPolicy,
    TcbFloor,
    TpmPolicy,
    Unchecked,
)
from flute.attestation.roots import MAKERS, Product, Roots

NOW = 1_780_000_000
"""The tests' present, Unix seconds (May 2026)."""
DAY = 86_400
LEFT_ALONE = Unchecked("not part of this test")


def when(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def spki(key: Any) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """One key for each name. 2048 bits: AMD's have 4096, making one takes seconds."""
    return rsa.generate_private_key(65_537, 2_048)


@cache
def ec_key(name: str, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


# --- AMD -------------------------------------------------------------------------------------

TCB = {"boot_loader": 4, "tee": 1, "snp": 24, "microcode": 219, "fmc": 0}
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_AMD = "1.3.6.1.4.1.3704.1"
_CPUID = {Product.MILAN: (0x19, 0x01), Product.GENOA: (0x19, 0x11), Product.TURIN: (0x1A, 0x02)}


def tcb_bytes(product: Product, tcb: dict[str, int]) -> bytes:
    if product is Product.TURIN:
        return bytes([tcb["fmc"], tcb["boot_loader"], tcb["tee"], tcb["snp"], 0, 0, 0, tcb["microcode"]])
    return bytes([tcb["boot_loader"], tcb["tee"], 0, 0, 0, 0, tcb["snp"], tcb["microcode"]])


def certificate(
    name: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    *,
    serial: int = 1,
    since: int = NOW - 400 * DAY,
    until: int = NOW + 400 * DAY,
    extensions: dict[str, bytes] | None = None,
    padded: Any = _PSS,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(when(since))
        .not_valid_after(when(until))
    )
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    padded = padded if isinstance(issuer_key, rsa.RSAPrivateKey) else None
    signed = builder.sign(issuer_key, digest or hashes.SHA384(), rsa_padding=padded)
    return signed.public_bytes(Encoding.DER)


def der_integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([0x02, len(body)]) + body


def der_text(value: str) -> bytes:
    return bytes([0x16, len(value)]) + value.encode()


class SnpIssuer:
    """An AMD of the tests: root, intermediate, chip key, revocation list."""

    measurement = hashlib.sha384(b"the approved image").digest()
    provider = "CN=cloud.example"

    def __init__(self, product: Product = Product.MILAN, *, lent: bool = False, name: str = "test") -> None:
        self.product = product
        self.lent = lent
        self.root_key = rsa_key(f"ark-{product}-{name}")
        self.middle_key = rsa_key(f"ask-{product}-{lent}-{name}")
        self.leaf_key = ec_key(f"vcek-{product}-{lent}-{name}")
        self.chip = hashlib.sha512(name.encode()).digest()
        if product is Product.TURIN:
            self.chip = self.chip[:8] + bytes(56)
        fingerprint = hashlib.sha256(spki(self.root_key.public_key())).hexdigest()
        self.roots = Roots(amd={fingerprint: product}, intel=MAKERS.intel, development=True)

    def evidence(self, report_data: bytes, *, signed_by: Any = None, **changes: Any) -> bytes:
        """A signed report. Changes: any field by the name below; `flags` as a number."""
        family, model = _CPUID[self.product]
        field: dict[str, Any] = {
            "version": 3,
            "guest_svn": 0,
            "policy": 1 << 17,
            "vmpl": 0,
            "algorithm": 1,
            "platform_info": 0b100100,
            "flags": 0b100 if self.lent else 0,
            "measurement": self.measurement,
            "host_data": bytes(32),
            "id_key": bytes(48),
            "tcb": tcb_bytes(self.product, TCB),
            "committed": None,
            "launch": None,
            "cpuid": bytes([family, model, 1]),
            "chip": bytes(64) if self.lent else self.chip,
        }
        assert set(changes) <= set(field), set(changes) - set(field)
        field |= changes
        raw = bytearray(0x2A0)

        def put(at: int, value: bytes) -> None:
            raw[at : at + len(value)] = value

        for at, name, size in ((0, "version", 4), (4, "guest_svn", 4), (8, "policy", 8), (0x30, "vmpl", 4)):
            put(at, field[name].to_bytes(size, "little"))
        put(0x34, field["algorithm"].to_bytes(4, "little"))
        put(0x38, field["tcb"])
        put(0x40, field["platform_info"].to_bytes(8, "little"))
        put(0x48, field["flags"].to_bytes(4, "little"))
        put(0x50, report_data)
        put(0x90, field["measurement"])
        put(0xC0, field["host_data"])
        put(0xE0, field["id_key"])
        put(0x180, field["tcb"])
        put(0x188, field["cpuid"])
        put(0x1A0, field["chip"])
        put(0x1E0, field["committed"] or field["tcb"])
        put(0x1F0, field["launch"] or field["tcb"])
        return bytes(raw) + self.signature(bytes(raw), signed_by or self.leaf_key)

    def signature(self, signed: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)

    def leaf(self, *, tcb: dict[str, int] | None = None, chip: bytes | None = None, **changes: Any) -> bytes:
        tcb = tcb or TCB
        extensions = {
            f"{_AMD}.2": der_text(str(self.product)),
            f"{_AMD}.3.1": der_integer(tcb["boot_loader"]),
            f"{_AMD}.3.2": der_integer(tcb["tee"]),
            f"{_AMD}.3.3": der_integer(tcb["snp"]),
            f"{_AMD}.3.8": der_integer(tcb["microcode"]),
        }
        if self.product is Product.TURIN:
            extensions[f"{_AMD}.3.9"] = der_integer(tcb["fmc"])
        if self.lent:
            extensions[f"{_AMD}.5"] = der_text(self.provider)
        else:
            extensions[f"{_AMD}.4"] = (chip or self.chip)[: 8 if self.product is Product.TURIN else 64]
        extensions |= changes.pop("extensions", {})
        name = changes.pop("name", "SEV-VLEK" if self.lent else "SEV-VCEK")
        issuer = changes.pop("issuer", self.middle_name)
        key = changes.pop("issuer_key", self.middle_key)
        return certificate(name, changes.pop("key", self.leaf_key), issuer, key, extensions=extensions, **changes)

    @property
    def middle_name(self) -> str:
        return f"SEV-VLEK-{self.product}" if self.lent else f"SEV-{self.product}"

    def middle(self, **changes: Any) -> bytes:
        name = changes.pop("name", self.middle_name)
        key = changes.pop("issuer_key", self.root_key)
        return certificate(name, self.middle_key, f"ARK-{self.product}", key, serial=77, **changes)

    def root(self, **changes: Any) -> bytes:
        return certificate(f"ARK-{self.product}", self.root_key, f"ARK-{self.product}", self.root_key, **changes)

    def crl(self, *, revoked: tuple[int, ...] = (), key: Any = None, since: int = NOW - DAY, days: int = 30) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ARK-{self.product}")]))
            .last_update(when(since))
            .next_update(when(since + days * DAY))
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when(since)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key or self.root_key, hashes.SHA384(), rsa_padding=_PSS).public_bytes(Encoding.DER)

    def collateral(self, **changes: Any) -> SnpCollateral:
        parts: dict[str, Any] = {"leaf": None, "intermediate": None, "root": None, "crl": None} | changes
        return SnpCollateral(
            leaf=parts["leaf"] or self.leaf(),
            intermediate=parts["intermediate"] or self.middle(),
            root=parts["root"] or self.root(),
            crl=self.crl() if "crl" not in changes else changes["crl"],
        )

    def section(self, **changes: Any) -> SnpPolicy:
        fields: dict[str, Any] = {
            "measurements": (self.measurement.hex(),),
            "minimum_tcb": {str(self.product): TcbFloor(**TCB)},
            "host_data": ("00" * 32,),
            "id_keys": ("00" * 48,),
            "max_crl_age_s": 30 * DAY,
            "platform": ("ecc", "alias-check"),
            "signing_keys": ("vlek",) if self.lent else ("vcek",),
            "providers": (self.provider,) if self.lent else None,
        }
        return SnpPolicy(**(fields | changes))

    def policy(self, **changes: Any) -> AppraisalPolicy:
        return AppraisalPolicy(snp=self.section(**changes), development=True)


# --- Arm -------------------------------------------------------------------------------------


class CcaIssuer:
    """A platform of the tests: its key signs the platform's half, a realm's key the other."""

    measurement = hashlib.sha256(b"the approved realm").digest()
    firmware = (b"\x01" * 32, b"\x02" * 32)

    def __init__(self, name: str = "test") -> None:
        self.platform_key = ec_key(f"cpak-{name}")
        self.realm_key = ec_key(f"rak-{name}")
        self.roots = Roots(amd={}, intel=MAKERS.intel, development=True)

    def sign1(self, key: ec.EllipticCurvePrivateKey, claims: dict[int, Any], *, algorithm: int = -35) -> bytes:
        protected, payload = cbor2.dumps({1: algorithm}), cbor2.dumps(claims)
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, signature]))

    def evidence(
        self,
        report_data: bytes,
        *,
        platform: dict[int, Any] | None = None,
        realm: dict[int, Any] | None = None,
        platform_key: Any = None,
        realm_key: Any = None,
    ) -> bytes:
        """A signed token. Changes: claims of a half by their number; None leaves the claim out."""
        point = self.realm_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        platform_claims = {
            265: "http://arm.com/CCA-SSD/1.0.0",
            10: hashlib.sha256(point).digest(),
            2396: b"\x03" * 32,
            256: b"\x01" + b"\x04" * 32,
            2401: b"\xcf" * 4,
            2395: 0x3003,
            2402: "sha-256",
            2400: "https://verifier.example/",
            2399: [{1: "RMM", 2: self.firmware[0], 5: self.firmware[1], 6: "sha-256"}],
        } | (platform or {})
        realm_claims = {
            10: report_data,
            44235: bytes(64),
            44237: point,
            44236: "sha-256",
            44240: "sha-256",
            44238: self.measurement,
            44239: [bytes(32)] * 4,
        } | (realm or {})
        halves = (
            self.sign1(platform_key or self.platform_key, _given(platform_claims)),
            self.sign1(realm_key or self.realm_key, _given(realm_claims)),
        )
        return cbor2.dumps(cbor2.CBORTag(399, {44234: halves[0], 44241: halves[1]}))

    def collateral(self, **changes: Any) -> CcaCollateral:
        return CcaCollateral(**({"platform_key": spki(self.platform_key.public_key())} | changes))

    def section(self, **changes: Any) -> CcaPolicy:
        zero = ("00" * 32,)
        fields: dict[str, Any] = {
            "platform_keys": (hashlib.sha256(spki(self.platform_key.public_key())).hexdigest(),),
            "initial_measurements": (self.measurement.hex(),),
            "extensible_measurements": (zero, zero, zero, zero),
            "personalizations": ("00" * 64,),
            "implementations": ("03" * 32,),
            "configs": ("cfcfcfcf",),
            "firmware": (FirmwareComponent(*(part.hex() for part in self.firmware)),),
        }
        return CcaPolicy(**(fields | changes))

    def policy(self, **changes: Any) -> AppraisalPolicy:
        return AppraisalPolicy(cca=self.section(**changes), development=True)


def _given(claims: dict[int, Any]) -> dict[int, Any]:
    return {key: value for key, value in claims.items() if value is not None}


# --- TPM -------------------------------------------------------------------------------------

SHA256, SHA384 = 0x000B, 0x000C
AK_ATTRIBUTES = 0x00050072
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign."""


def sized(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


class TpmIssuer:
    """A TPM of the tests, without a TPM: an attestation key that signs what it is given."""

    registers: ClassVar = {
        0: hashlib.sha256(b"firmware").digest(),
        11: hashlib.sha256(b"the approved image").digest(),
    }

    def __init__(self, *, rsa: bool = False, name: str = "test") -> None:
        self.key = rsa_key(f"ak-{name}") if rsa else ec_key(f"ak-{name}", ec.SECP256R1)
        self.ca_key = ec_key(f"tpm-ca-{name}")
        self.roots = MAKERS

    def public_area(self, *, attributes: int = AK_ATTRIBUTES) -> bytes:
        head = (SHA256).to_bytes(2, "big") + attributes.to_bytes(4, "big") + sized(b"") + (0x0010).to_bytes(2, "big")
        numbers = self.key.public_key().public_numbers()
        if isinstance(self.key, rsa.RSAPrivateKey):
            modulus = numbers.n.to_bytes(256, "big")
            scheme = b"\x00\x14" + SHA256.to_bytes(2, "big")
            return b"\x00\x01" + head + scheme + (2048).to_bytes(2, "big") + bytes(4) + sized(modulus)
        scheme = b"\x00\x18" + SHA256.to_bytes(2, "big") + b"\x00\x03" + b"\x00\x10"
        point = sized(numbers.x.to_bytes(32, "big")) + sized(numbers.y.to_bytes(32, "big"))
        return b"\x00\x23" + head + scheme + point

    @property
    def name(self) -> str:
        return "000b" + hashlib.sha256(self.public_area()).hexdigest()

    def attested(
        self,
        nonce: bytes,
        registers: dict[int, bytes],
        *,
        magic: int = 0xFF544347,
        kind: int = 0x8018,
        banks: int = 1,
        bank: int = SHA256,
        digest: bytes | None = None,
        behind: bytes = b"",
    ) -> bytes:
        bits = bytearray(3)
        for number in registers:
            bits[number // 8] |= 1 << number % 8
        together = b"".join(registers[number] for number in sorted(registers))
        return (
            magic.to_bytes(4, "big") + kind.to_bytes(2, "big") + sized(b"\x00\x0b" + bytes(32)) + sized(nonce)
            + (123_456).to_bytes(8, "big") + (5).to_bytes(4, "big") + (0).to_bytes(4, "big") + b"\x01"
            + (0x20_2109_1900_0000).to_bytes(8, "big")
            + banks.to_bytes(4, "big") + bank.to_bytes(2, "big") + b"\x03" + bytes(bits)
            + sized(hashlib.sha256(together).digest() if digest is None else digest) + behind
        )  # fmt: skip

    def evidence(
        self,
        report_data: bytes,
        *,
        registers: dict[int, bytes] | None = None,
        shown: dict[int, bytes] | None = None,
        attributes: int = AK_ATTRIBUTES,
        signed_by: Any = None,
        **changes: Any,
    ) -> bytes:
        """A signed quote. `shown`: registers that come along, if others than those that were signed."""
        registers = self.registers if registers is None else registers
        attested = self.attested(report_data, registers, **changes)
        return self.bundle(attested, self.signature(attested, signed_by), shown or registers, attributes)

    def bundle(self, attested: bytes, signature: bytes, registers: dict[int, bytes], attributes: int) -> bytes:
        parts = {
            "kind": "tpm",
            "attested": base64.b64encode(attested).decode(),
            "signature": base64.b64encode(signature).decode(),
            "key": base64.b64encode(self.public_area(attributes=attributes)).decode(),
            "registers": {str(number): value.hex() for number, value in registers.items()},
        }
        return msgspec.json.encode(parts)

    def signature(self, attested: bytes, key: Any = None) -> bytes:
        key = key or self.key
        if isinstance(key, rsa.RSAPrivateKey):
            made = key.sign(attested, padding.PKCS1v15(), hashes.SHA256())
            return b"\x00\x14" + SHA256.to_bytes(2, "big") + sized(made)
        r, s = decode_dss_signature(key.sign(attested, ec.ECDSA(hashes.SHA256())))
        return b"\x00\x18" + SHA256.to_bytes(2, "big") + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))

    def collateral(self, *, certified: bool = False, **changes: Any) -> TpmCollateral:
        if not certified:
            return TpmCollateral()
        ca = certificate("TPM CA", self.ca_key, "TPM CA", self.ca_key)
        ak = certificate("AK", changes.pop("key", self.key), "TPM CA", changes.pop("by", self.ca_key), **changes)
        return TpmCollateral(ak_certificate=ak, issuer=ca)

    @property
    def issuer(self) -> str:
        return hashlib.sha256(spki(self.ca_key.public_key())).hexdigest()

    def section(self, **changes: Any) -> TpmPolicy:
        values = {str(number): (value.hex(),) for number, value in self.registers.items()}
        return TpmPolicy(**({"keys": (self.name,), "registers": values} | changes))

    def policy(self, **changes: Any) -> AppraisalPolicy:
        return AppraisalPolicy(tpm=self.section(**changes), development=True)
