"""AMD SEV-SNP: the attestation report, field by field. Whose signature it carries is `snp_chain`'s question.

Source: AMD, SEV Secure Nested Paging Firmware ABI Specification (56860) 1.58: table ATTESTATION_REPORT (report),
table TCB_VERSION (two layouts: up to Genoa, and Turin), table "guest policy"; section 7.3, signing keys.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flute.attestation.roots import Product
from flute.errors import MalformedEvidence

REPORT_BYTES: Final = 0x4A0
SIGNED_BYTES: Final = 0x2A0
"""What the signature covers: offsets 0 to 0x29F."""
VERSIONS: Final = range(2, 6)
"""Of the report: 2 (Milan, Genoa), 3 (with the processor's model), up to 5 (Turin): fields keep their offsets."""
_ECDSA_P384_SHA384: Final = 1
_NUMBER: Final = 48
"""Bytes of a P-384 number; its field in the report has 72, of which the upper ones are zero."""
_NUMBER_FIELD: Final = 72
_HEAD: Final = struct.Struct("<IIQ16s16sIIQQI4s")
"""0x00 to 0x4F: version, guest SVN, policy, family id, image id, VMPL, algorithm, TCB, platform, flags, reserved."""
_BODY: Final = struct.Struct("<64s48s32s48s48s32s32s8s3s21s64s8s8s8s")
"""0x50 to 0x1F7: report data to launch TCB."""
_BODY_AT: Final = 0x50


class SigningKey(StrEnum):
    """Which key signed: the chip's own, or one that AMD lent to a cloud provider."""

    VCEK = "vcek"
    VLEK = "vlek"


_SIGNING_KEYS: Final = {0: SigningKey.VCEK, 1: SigningKey.VLEK}


@dataclass(frozen=True, slots=True)
class SnpTcb:
    """Security version numbers of a platform's firmware; higher is newer. `fmc`: Turin only, else 0."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int = 0

    @classmethod
    def of(cls, raw: bytes, product: Product) -> SnpTcb:
        """Args: raw: TCB_VERSION as in the report, 8 bytes, lowest first."""
        if product is Product.TURIN:
            return cls(fmc=raw[0], boot_loader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7])
        return cls(boot_loader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])

    def parts(self) -> dict[str, int]:
        return {
            "boot_loader": self.boot_loader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
            "fmc": self.fmc,
        }


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """What the guest's owner allowed the host to do, as the host launched it (64 bits)."""

    raw: int

    @property
    def smt(self) -> bool:
        return bool(self.raw >> 16 & 1)

    @property
    def migration(self) -> bool:
        return bool(self.raw >> 18 & 1)

    @property
    def debug(self) -> bool:
        return bool(self.raw >> 19 & 1)

    @property
    def strange(self) -> bool:
        """Bits without a meaning in this version of the specification, devices on CXL (bit 21), or bit 17 not one.

        The others (20, 22 to 25, and the version) only demand more of the host.
        """
        return bool(self.raw >> 26) or bool(self.raw >> 21 & 1) or not self.raw >> 17 & 1


@dataclass(frozen=True, slots=True)
class SnpReport:
    """A report as it came; nothing in it is believed yet.

    `cpuid`: family and model, from version 3 on. `r`, `s`: the signature's two numbers.
    """

    raw: bytes
    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    signing_key: SigningKey
    chip_id_masked: bool
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    migration_agent: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int] | None
    chip_id: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    r: int
    s: int


def parse_snp(raw: bytes) -> SnpReport:
    """Raises: MalformedEvidence: not a report of a version and an algorithm that are known here."""
    if len(raw) != REPORT_BYTES:
        raise MalformedEvidence(
            f"A SEV-SNP report has {REPORT_BYTES} bytes; these are {len(raw)}. Send the report alone, as the "
            "firmware gave it.",
            reason="snp-length",
        )
    head = _HEAD.unpack_from(raw)
    version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current_tcb, platform_info, flags, _ = head
    if version not in VERSIONS:
        raise MalformedEvidence(
            f"This SEV-SNP report is of version {version}; versions {VERSIONS[0]} to {VERSIONS[-1]} are known. "
            "A newer firmware needs a newer FLUTE.",
            reason="snp-version",
        )
    if algorithm != _ECDSA_P384_SHA384:
        raise MalformedEvidence(
            f"This SEV-SNP report names signature algorithm {algorithm}; only ECDSA P-384 with SHA-384 (1) is known.",
            reason="snp-algorithm",
        )
    (
        report_data, measurement, host_data, id_key, author_key, report_id, migration_agent, reported, cpuid, _,
        chip_id, committed, _, launch,
    ) = _BODY.unpack_from(raw, _BODY_AT)  # fmt: skip
    r, s = _signature(raw)
    return SnpReport(
        raw=raw,
        version=version,
        guest_svn=guest_svn,
        policy=GuestPolicy(policy),
        family_id=family_id,
        image_id=image_id,
        vmpl=vmpl,
        current_tcb=current_tcb.to_bytes(8, "little"),
        platform_info=platform_info,
        signing_key=_signing_key(flags),
        chip_id_masked=bool(flags >> 1 & 1),
        report_data=report_data,
        measurement=measurement,
        host_data=host_data,
        id_key_digest=id_key,
        author_key_digest=author_key,
        report_id=report_id,
        migration_agent=migration_agent,
        reported_tcb=reported,
        cpuid=(cpuid[0], cpuid[1]) if version >= 3 else None,
        chip_id=chip_id,
        committed_tcb=committed,
        launch_tcb=launch,
        r=r,
        s=s,
    )


def _signing_key(flags: int) -> SigningKey:
    try:
        return _SIGNING_KEYS[flags >> 2 & 0b111]
    except KeyError:
        raise MalformedEvidence(
            "This SEV-SNP report says that no chip key and no lent key signed it. Ask the host to give the guest a "
            "key.",
            reason="snp-signing-key",
        ) from None


def _signature(raw: bytes) -> tuple[int, int]:
    """r and s, little-endian. Bytes that no signature covers must be zero: nobody may hide anything in them."""
    field = raw[SIGNED_BYTES:]
    r, s, rest = field[:_NUMBER_FIELD], field[_NUMBER_FIELD : 2 * _NUMBER_FIELD], field[2 * _NUMBER_FIELD :]
    if any(rest) or any(r[_NUMBER:]) or any(s[_NUMBER:]):
        raise MalformedEvidence(
            "This SEV-SNP report has something in bytes that no signature covers. It was changed on the way.",
            reason="snp-reserved",
        )
    return int.from_bytes(r, "little"), int.from_bytes(s, "little")
