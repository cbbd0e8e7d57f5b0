"""What evidence is accepted: an appraisal policy, one section for each kind of evidence that may come at all.

A kind without a section is refused. In a section every field that is appraised is there: as reference values (digests
in lower-case hexadecimal), as a floor, or as `{"unchecked": "the reason"}`, which is repeated in every acceptance.
Enclaves that can be debugged, or moved by somebody else, are never accepted; there is no field for it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from flute.defaults.evidence import MAX_PCRS, MAX_POLICY_BYTES, MAX_REFERENCE_VALUES
from flute.errors import MisuseError

Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Hex48 = Annotated[str, Meta(pattern=r"^[0-9a-f]{96}\Z")]
HexDigest = Annotated[str, Meta(pattern=r"^([0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})\Z")]
_Some = Meta(min_length=1, max_length=MAX_REFERENCE_VALUES)
_Svn = Annotated[int, Meta(ge=0, le=255)]
_Seconds = Annotated[int, Meta(ge=1, le=10 * 366 * 86_400)]


class Unchecked(Struct, frozen=True, forbid_unknown_fields=True):
    """A field that this policy does not look at, and why not."""

    unchecked: Annotated[str, Meta(min_length=10, max_length=500)]


SomeHex32 = Annotated[tuple[Hex32, ...], _Some]
SomeHex48 = Annotated[tuple[Hex48, ...], _Some]
SomeDigests = Annotated[tuple[HexDigest, ...], _Some]
SomeWords = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], _Some]


class TcbFloor(Struct, frozen=True, forbid_unknown_fields=True):
    """Least security version of each part of AMD's firmware. `fmc`: Turin only."""

    boot_loader: _Svn
    tee: _Svn
    snp: _Svn
    microcode: _Svn
    fmc: _Svn = 0


class SnpPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """SEV-SNP.

    `minimum_tcb`: by product; one without a floor is refused. `vmpl`: privilege levels that may have asked for the
    report. `signing_keys`: the chip's own, or lent ones too. `max_crl_age_s`: of AMD's revocation list.
    `platform`: what the host must have switched on.
    """

    measurements: SomeHex48
    minimum_tcb: dict[Literal["Milan", "Genoa", "Turin"], TcbFloor]
    host_data: SomeHex32 | Unchecked
    id_keys: SomeHex48 | Unchecked
    max_crl_age_s: _Seconds | Unchecked
    platform: tuple[Literal["ecc", "tsme", "rapl-disabled", "ciphertext-hiding", "alias-check"], ...] | Unchecked
    vmpl: Annotated[tuple[Annotated[int, Meta(ge=0, le=3)], ...], _Some] = (0,)
    signing_keys: Annotated[tuple[Literal["vcek", "vlek"], ...], _Some] = ("vcek",)
    providers: SomeWords | Unchecked | None = None
    smt_allowed: bool = False


TcbStatus = Literal["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"]
"""Of Intel's words, those that a policy may take. What is out of date or revoked never passes."""


class IntelPlatform(Struct, frozen=True, forbid_unknown_fields=True):
    """What Intel must say of the platform. `advisories_allowed`: of those that still apply to it; any other refuses.
    `max_statement_age_s`: of Intel's statements. `minimum_evaluation`: number of Intel's evaluation of TCB levels."""

    max_statement_age_s: _Seconds
    statuses: Annotated[tuple[TcbStatus, ...], _Some] = ("UpToDate",)
    advisories_allowed: tuple[Annotated[str, Meta(pattern=r"^INTEL-(SA|DOC)-[0-9]{5}\Z")], ...] = ()
    minimum_evaluation: Annotated[int, Meta(ge=0, le=10_000)] = 0
    dynamic_allowed: bool = False
    cached_keys_allowed: bool = False
    smt_allowed: bool = False


class TdxPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """TDX. `mr_td`: digest of what was loaded; `rtmrs`: of what was started then, four registers."""

    mr_td: SomeHex48
    rtmrs: tuple[SomeHex48 | Unchecked, SomeHex48 | Unchecked, SomeHex48 | Unchecked, SomeHex48 | Unchecked]
    mr_config_id: SomeHex48 | Unchecked
    mr_owner: SomeHex48 | Unchecked
    platform: IntelPlatform


class SgxPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """SGX. Either the enclave itself is named, or its signer, product and least version. `config_id`: 64 bytes that
    were given at the start; zeros, where the enclave takes none."""

    mr_enclave: SomeHex32 | Unchecked
    mr_signer: SomeHex32 | Unchecked
    isv_prod_id: Annotated[int, Meta(ge=0, le=65_535)] | Unchecked
    minimum_isv_svn: Annotated[int, Meta(ge=0, le=65_535)]
    config_id: SomeDigests | Unchecked
    platform: IntelPlatform


class FirmwareComponent(Struct, frozen=True, forbid_unknown_fields=True):
    """Firmware of an Arm platform: its digest and that of the key that signed it."""

    measurement: HexDigest
    signer: HexDigest


class CcaPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Arm CCA. `platform_keys`: SHA-256 of the platforms' public keys (SubjectPublicKeyInfo, DER). `firmware`: every
    component that a token lists must be among these."""

    platform_keys: SomeHex32
    initial_measurements: SomeDigests
    extensible_measurements: tuple[
        SomeDigests | Unchecked, SomeDigests | Unchecked, SomeDigests | Unchecked, SomeDigests | Unchecked
    ]
    personalizations: SomeDigests | Unchecked
    implementations: SomeHex32 | Unchecked
    configs: SomeWords | Unchecked
    firmware: Annotated[tuple[FirmwareComponent, ...], _Some] | Unchecked


class TpmPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """TPM, development only. `keys`: names of attestation keys; `issuers`: SHA-256 of keys that certify such keys.
    `registers`: number -> values that are right; the quote must cover them all."""

    keys: tuple[Annotated[str, Meta(pattern=r"^000[b-d]([0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})\Z")], ...]
    registers: Annotated[
        dict[Annotated[str, Meta(pattern=r"^([0-9]|1[0-9]|2[0-3])\Z")], SomeDigests],
        Meta(min_length=1, max_length=MAX_PCRS),
    ]
    bank: Literal["sha256", "sha384", "sha512"] = "sha256"
    issuers: tuple[Hex32, ...] = ()


class AppraisalPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """One section for each kind that is accepted. `development`: whether TPMs, and roots that are no maker's, may
    pass; what passes under it says so."""

    snp: SnpPolicy | None = msgspec.field(default=None, name="sev-snp")
    tdx: TdxPolicy | None = None
    sgx: SgxPolicy | None = None
    cca: CcaPolicy | None = msgspec.field(default=None, name="arm-cca")
    tpm: TpmPolicy | None = None
    development: bool = False

    def __post_init__(self) -> None:
        if self.sgx and isinstance(self.sgx.mr_enclave, Unchecked):
            signer, product = self.sgx.mr_signer, self.sgx.isv_prod_id
            if isinstance(signer, Unchecked) or isinstance(product, Unchecked):
                raise ValueError("sgx names neither the enclave nor its signer and product")
        if self.snp and "vlek" in self.snp.signing_keys and self.snp.providers is None:
            raise ValueError("sev-snp takes lent keys (vlek) and does not say whose: name providers")
        if self.tpm and not self.tpm.keys and not self.tpm.issuers:
            raise ValueError("tpm knows no attestation key and nobody who certifies one")


_DECODER: Final = msgspec.json.Decoder(AppraisalPolicy)


def read_policy(raw: bytes) -> AppraisalPolicy:
    """Raises: MisuseError: no appraisal policy; the text names the place."""
    if len(raw) > MAX_POLICY_BYTES:
        raise MisuseError(f"An appraisal policy has at most {MAX_POLICY_BYTES} bytes; this one has {len(raw)}.")
    try:
        return _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_policy(error) from None


def policy_of(value: Any) -> AppraisalPolicy:
    """The same, from what a YAML reader made of it: numbers may still be words. Raises: MisuseError."""
    try:
        return msgspec.convert(value, AppraisalPolicy, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _no_policy(error) from None


def write_policy(policy: AppraisalPolicy) -> bytes:
    """JSON that `read_policy` takes."""
    return msgspec.json.encode(policy)


def _no_policy(error: Exception) -> MisuseError:
    return MisuseError(f"This is no appraisal policy: {error}. docs/how-to/evidence.md shows one for each kind.")
