"""An Intel for tests: TDX and SGX quotes, certificates, revocation lists and statements under a root of the tests.

As in `evidence_issuer`, with the same four names: `roots`, `evidence`, `collateral`, `policy`. The layouts are
Intel's (TDX DCAP Quoting Library API 0.9, appendix 3; PCS API version 4), written down apart from the verifier's.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from flute.attestation.collateral import DcapCollateral
from flute.attestation.policy import AppraisalPolicy, IntelPlatform, SgxPolicy, TdxPolicy
from flute.attestation.roots import Roots
from support.evidence_issuer import DAY, NOW, ec_key, when

_SGX = "1.2.840.113741.1.13.1"
_QE_SIGNER = bytes(range(32))
_FMSPC = bytes.fromhex("B0C06F000000")
_SVNS = [2, 2, 2, 2, 3, 1, 0, 5, *[0] * 8]
_PCE_SVN = 11
_ROOT, _PLATFORM_CA, _TCB_SIGNER = "Test SGX Root CA", "Test SGX PCK Platform CA", "Test SGX TCB Signing"


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def _oid(text: str) -> bytes:
    first, second, *rest = (int(part) for part in text.split("."))
    body = bytes([40 * first + second])
    for number in rest:
        septets = [number & 0x7F]
        while number := number >> 7:
            septets.insert(0, number & 0x7F | 0x80)
        body += bytes(septets)
    return _der(0x06, body)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _entry(oid: str, value: bytes) -> bytes:
    return _der(0x30, _oid(f"{_SGX}.{oid}") + value)


def _pck_extension(settings: tuple[bool, bool, bool]) -> bytes:
    """What a platform's certificate says of it: firmware, model, and three settings."""
    tcb = b"".join(_entry(f"2.{i + 1}", _integer(svn)) for i, svn in enumerate(_SVNS))
    tcb += _entry("2.17", _integer(_PCE_SVN)) + _entry("2.18", _der(0x04, bytes(_SVNS)))
    configured = b"".join(
        _entry(f"7.{i + 1}", _der(0x01, b"\xff" if setting else b"\x00")) for i, setting in enumerate(settings)
    )
    return _der(
        0x30,
        _entry("1", _der(0x04, bytes(16)))
        + _entry("2", _der(0x30, tcb))
        + _entry("3", _der(0x04, bytes(2)))
        + _entry("4", _der(0x04, _FMSPC))
        + _entry("5", _der(0x0A, b"\x01"))
        + _entry("6", _der(0x04, bytes(16)))
        + _entry("7", _der(0x30, configured)),
    )


class DcapIssuer:
    """`sgx`: makes SGX quotes; else TDX quotes of version 4."""

    mr_td = hashlib.sha384(b"the approved guest").digest()
    rtmrs = tuple(hashlib.sha384(bytes([i])).digest() for i in range(4))
    mr_enclave = hashlib.sha256(b"the approved enclave").digest()
    mr_signer = hashlib.sha256(b"its signer").digest()

    def __init__(self, *, sgx: bool = False, name: str = "test") -> None:
        self.sgx = sgx
        keys = {part: ec_key(f"{part}-{name}-{sgx}", ec.SECP256R1) for part in ("root", "ca", "pck", "tcb", "quote")}
        self.root_key, self.ca_key, self.pck_key = keys["root"], keys["ca"], keys["pck"]
        self.tcb_key, self.quote_key = keys["tcb"], keys["quote"]
        root = self.certificate(_ROOT, self.root_key, _ROOT, self.root_key, authority=True)
        self.root = root
        self.roots = Roots(amd={}, intel=hashlib.sha256(root).hexdigest(), intel_der=root, development=True)

    # certificates and lists

    def certificate(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        *,
        serial: int = 1,
        authority: bool = False,
        since: int = NOW - 400 * DAY,
        until: int = NOW + 400 * DAY,
        extension: bytes | None = None,
    ) -> bytes:
        def named(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(when(since))
            .not_valid_after(when(until))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(usage, critical=True)
        )
        if extension is not None:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX), extension), critical=False
            )
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.DER)

    def crl(
        self,
        issuer: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        revoked: tuple[int, ...] = (),
        since: int = NOW - DAY,
        days: int = 30,
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .last_update(when(since))
            .next_update(when(since + days * DAY))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when(since)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    def chain(self, settings: tuple[bool, bool, bool] = (False, False, False), **pck: Any) -> list[bytes]:
        pck_key = pck.pop("key", self.pck_key)
        issuer_key = pck.pop("issuer_key", self.ca_key)
        leaf = self.certificate(
            "Test PCK", pck_key, _PLATFORM_CA, issuer_key, serial=9, extension=_pck_extension(settings), **pck
        )
        return [leaf, *self.ca_chain]

    @property
    def ca_chain(self) -> list[bytes]:
        return [self._once("ca", _PLATFORM_CA, self.ca_key, 7), self.root]

    @property
    def tcb_chain(self) -> list[bytes]:
        return [self._once("tcb", _TCB_SIGNER, self.tcb_key, 8), self.root]

    def _once(self, part: str, name: str, key: ec.EllipticCurvePrivateKey, serial: int) -> bytes:
        """An ECDSA signature is another one each time; the chains have to carry the same certificate."""
        made: dict[str, bytes] = self.__dict__.setdefault("_made", {})
        if part not in made:
            made[part] = self.certificate(name, key, _ROOT, self.root_key, serial=serial, authority=part == "ca")
        return made[part]

    # evidence

    def evidence(
        self,
        report_data: bytes,
        *,
        settings: tuple[bool, bool, bool] = (False, False, False),
        pck: dict[str, Any] | None = None,
        qe_signer: bytes = _QE_SIGNER,
        qe_attributes: int = 0x11,
        qe_svn: int = 6,
        qe_signed_by: Any = None,
        signed_by: Any = None,
        padding: int = 0,
        **fields: Any,
    ) -> bytes:
        """A signed quote. Changes: fields of the report by name; the platform's settings (dynamic, cached keys, "
        "SMT)."""
        head = (3 if self.sgx else 4).to_bytes(2, "little") + b"\x02\x00"
        head += (0 if self.sgx else 0x81).to_bytes(4, "little") + bytes(4)
        head += bytes.fromhex("939a7233f79c4ca9940a0db3957f0607") + bytes(20)
        body = self._enclave(report_data, **fields) if self.sgx else self._guest(report_data, **fields)
        signed = sign(signed_by or self.quote_key, head + body) + point(self.quote_key)
        bound = hashlib.sha256(point(self.quote_key) + bytes(range(32))).digest() + bytes(32)
        product = 1 if self.sgx else 2
        qe = self._report(qe_attributes, bytes(32), qe_signer, product, qe_svn, bound)
        qe += sign(qe_signed_by or self.pck_key, qe)
        certificates = "".join(pem(der) for der in self.chain(settings, **(pck or {}))).encode() + b"\0"
        inner = qe + (32).to_bytes(2, "little") + bytes(range(32))
        inner += (5).to_bytes(2, "little") + len(certificates).to_bytes(4, "little") + certificates
        if not self.sgx:
            inner = (6).to_bytes(2, "little") + len(inner).to_bytes(4, "little") + inner
        data = signed + inner
        return head + body + len(data).to_bytes(4, "little") + data + bytes(padding)

    def _guest(self, report_data: bytes, **changes: Any) -> bytes:
        field: dict[str, Any] = {
            "tee_tcb_svn": bytes([6, 1, 3, *[0] * 13]), "mr_seam": bytes(48), "seam_signer": bytes(48),
            "seam_attributes": bytes(8), "td_attributes": 1 << 28, "xfam": 0xE7, "mr_td": self.mr_td,
            "mr_config_id": bytes(48), "mr_owner": bytes(48), "mr_owner_config": bytes(48), "rtmrs": self.rtmrs,
        }  # fmt: skip
        assert set(changes) <= set(field), set(changes) - set(field)
        field |= changes
        return b"".join(
            [
                field["tee_tcb_svn"], field["mr_seam"], field["seam_signer"], field["seam_attributes"],
                field["td_attributes"].to_bytes(8, "little"), field["xfam"].to_bytes(8, "little"), field["mr_td"],
                field["mr_config_id"], field["mr_owner"], field["mr_owner_config"], *field["rtmrs"], report_data,
            ]
        )  # fmt: skip

    def _enclave(self, report_data: bytes, **changes: Any) -> bytes:
        field: dict[str, Any] = {
            "attributes": 0x05, "mr_enclave": self.mr_enclave, "mr_signer": self.mr_signer, "product": 7, "svn": 3,
            "config": bytes(64),
        }  # fmt: skip
        assert set(changes) <= set(field), set(changes) - set(field)
        field |= changes
        raw = self._report(
            field["attributes"], field["mr_enclave"], field["mr_signer"], field["product"], field["svn"], report_data
        )
        return raw[:192] + field["config"] + raw[256:]

    @staticmethod
    def _report(attributes: int, enclave: bytes, signer: bytes, product: int, svn: int, report_data: bytes) -> bytes:
        raw = bytearray(384)
        raw[:16] = bytes(_SVNS)
        raw[48:56] = attributes.to_bytes(8, "little")
        raw[56:64] = (0xE7).to_bytes(8, "little")
        raw[64:96] = enclave
        raw[128:160] = signer
        raw[256:258] = product.to_bytes(2, "little")
        raw[258:260] = svn.to_bytes(2, "little")
        raw[320:384] = report_data
        return bytes(raw)

    # statements

    def tcb_info(self, *, status: str = "UpToDate", advisories: tuple[str, ...] = (), **changes: Any) -> str:
        level: dict[str, Any] = {
            "tcb": {"sgxtcbcomponents": [{"svn": svn} for svn in _SVNS], "pcesvn": _PCE_SVN},
            "tcbDate": "2026-03-13T00:00:00Z",
            "tcbStatus": status,
            "advisoryIDs": list(advisories),
        }
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        more: dict[str, Any] = {}
        if not self.sgx:
            level["tcb"]["tdxtcbcomponents"] = [{"svn": svn} for svn in (5, 0, 2, *[0] * 13)]
            up = {"tcb": {"isvsvn": 4}, "tcbDate": "2026-03-13T00:00:00Z", "tcbStatus": "UpToDate"}
            more = {"tdxModule": module, "tdxModuleIdentities": [{"id": "TDX_01", **module, "tcbLevels": [up]}]}
        return self._statement(
            {
                "id": "SGX" if self.sgx else "TDX", "version": 3, "fmspc": _FMSPC.hex().upper(), "pceId": "0000",
                "tcbType": 0, **more, "tcbLevels": [level],
            },
            changes,
        )  # fmt: skip

    def qe_identity(self, *, qe_status: str = "UpToDate", **changes: Any) -> str:
        level = {"tcb": {"isvsvn": 6}, "tcbDate": "2026-03-13T00:00:00Z", "tcbStatus": qe_status}
        return self._statement(
            {
                "id": "QE" if self.sgx else "TD_QE", "version": 2, "miscselect": "00" * 4, "miscselectMask": "FF" * 4,
                "attributes": "11" + "00" * 15, "attributesMask": "FB" + "FF" * 7 + "00" * 8,
                "mrsigner": _QE_SIGNER.hex().upper(), "isvprodid": 1 if self.sgx else 2, "tcbLevels": [level],
            },
            changes,
        )  # fmt: skip

    @staticmethod
    def _statement(parts: dict[str, Any], changes: dict[str, Any]) -> str:
        since, days = changes.pop("since", NOW - 2 * DAY), changes.pop("days", 30)
        dates = {
            "issueDate": when(since).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nextUpdate": when(since + days * DAY).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tcbEvaluationDataNumber": 20,
        }
        return json.dumps({**parts, **dates, **changes}, separators=(",", ":"))

    def collateral(
        self,
        *,
        tcb_info: dict[str, Any] | None = None,
        qe_identity: dict[str, Any] | None = None,
        signed_by: Any = None,
        **changes: Any,
    ) -> DcapCollateral:
        """Changes: fields of the collateral; arguments of the two statements."""
        info, identity = self.tcb_info(**(tcb_info or {})), self.qe_identity(**(qe_identity or {}))
        key = signed_by or self.tcb_key
        parts: dict[str, Any] = {
            "pck_crl_issuer_chain": "".join(pem(der) for der in self.ca_chain),
            "root_ca_crl": self.crl(_ROOT, self.root_key).hex(),
            "pck_crl": self.crl(_PLATFORM_CA, self.ca_key).hex(),
            "tcb_info_issuer_chain": "".join(pem(der) for der in self.tcb_chain),
            "tcb_info": info,
            "tcb_info_signature": sign(key, info.encode()).hex(),
            "qe_identity_issuer_chain": "".join(pem(der) for der in self.tcb_chain),
            "qe_identity": identity,
            "qe_identity_signature": sign(key, identity.encode()).hex(),
        }
        return DcapCollateral(**(parts | changes))

    def pck_crl(self, **changes: Any) -> str:
        return self.crl(_PLATFORM_CA, changes.pop("key", self.ca_key), **changes).hex()

    def root_crl(self, **changes: Any) -> str:
        return self.crl(_ROOT, self.root_key, **changes).hex()

    # policy

    def policy(self, *, platform: dict[str, Any] | None = None, **changes: Any) -> AppraisalPolicy:
        says = IntelPlatform(**({"max_statement_age_s": 30 * DAY, "minimum_evaluation": 20} | (platform or {})))
        if self.sgx:
            enclave: dict[str, Any] = {
                "mr_enclave": (self.mr_enclave.hex(),), "mr_signer": (self.mr_signer.hex(),), "isv_prod_id": 7,
                "minimum_isv_svn": 3, "config_id": ("00" * 64,), "platform": says,
            }  # fmt: skip
            return AppraisalPolicy(sgx=SgxPolicy(**(enclave | changes)), development=True)
        zero = ("00" * 48,)
        guest: dict[str, Any] = {
            "mr_td": (self.mr_td.hex(),), "rtmrs": tuple((value.hex(),) for value in self.rtmrs),
            "mr_config_id": zero, "mr_owner": zero, "platform": says,
        }  # fmt: skip
        return AppraisalPolicy(tdx=TdxPolicy(**(guest | changes)), development=True)


def pem(der: bytes) -> str:
    """PEM as Intel writes it: lines of 64 letters."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
