"""Evidence, stage 3 of 3: whether genuine evidence is what the policy asks for, bound to what the caller expects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from flute.attestation.amd.appraise_snp import appraise_snp
from flute.attestation.amd.snp_chain import VerifiedSnp
from flute.attestation.appraise_others import appraise_cca, appraise_tpm
from flute.attestation.arm.cca import VerifiedCca
from flute.attestation.checks import Checks
from flute.attestation.evidence import KINDS, MAKERS_OF, Kind
from flute.attestation.intel.appraise_intel import appraise_sgx, appraise_tdx
from flute.attestation.intel.dcap import VerifiedSgx, VerifiedTdx
from flute.attestation.policy import AppraisalPolicy, Unchecked
from flute.attestation.tcg.tpm import VerifiedTpm
from flute.attestation.verify import VerifiedEvidence
from flute.defaults.evidence import REPORT_DATA_BYTES
from flute.errors import MisuseError, RejectedEvidence

Section = TypeVar("Section")
_DEVELOPMENT: Final = (
    "This is DEVELOPMENT evidence: a TPM, or a root that is no maker's, does not keep whoever runs the machine from "
    "reading it. Use an enclave, or a policy that says `development: true`."
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Evidence that was parsed, verified and appraised; `appraise` alone makes it.

    Args: kind, maker: the technology and whose it is. measurement: digest of what was loaded (SNP launch measurement,
        MRTD, MRENCLAVE, a realm's initial measurement, a TPM's digest of registers). registers: all that was
        measured, by name. report_data: what the evidence binds. development: no enclave stands behind it.
        appraised_at: Unix seconds. stated_at: date of what the maker says about revocations and TCB; None: the maker
        says nothing. unchecked: (field, reason) of each field that the policy left alone.
    """

    kind: Kind
    maker: str
    measurement: bytes
    report_data: bytes
    development: bool
    appraised_at: int
    stated_at: int | None
    registers: tuple[tuple[str, bytes], ...]
    unchecked: tuple[tuple[str, str], ...]


def appraise(verified: VerifiedEvidence, *, policy: AppraisalPolicy, report_data: bytes | Unchecked) -> Accepted:
    """The acceptance of evidence.

    Args: report_data: what it must bind (`binding.report_data`), 64 bytes; or why nobody looks.
    Raises: RejectedEvidence: genuine, but of a kind, a measurement, a TCB, a setting or a binding that is not asked
        for; `reason` says which. MisuseError: `report_data` of another size.
    """
    if isinstance(report_data, bytes) and len(report_data) != REPORT_DATA_BYTES:
        raise MisuseError(f"Report data has {REPORT_DATA_BYTES} bytes, see flute.attestation.binding.")
    kind = KINDS[type(verified.evidence)]
    checks = Checks()
    development = isinstance(verified, VerifiedTpm) or verified.development
    found = _appraised(verified, kind, policy, checks)
    checks.require(policy.development or not development, "development", _DEVELOPMENT)
    checks.report_data(found.report_data, report_data)
    return Accepted(
        kind=kind,
        maker=MAKERS_OF[kind],
        measurement=found.registers[0][1],
        report_data=found.report_data,
        development=development,
        appraised_at=verified.verified_at,
        stated_at=found.stated_at,
        registers=found.registers,
        unchecked=tuple(checks.unchecked),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    report_data: bytes
    stated_at: int | None
    registers: tuple[tuple[str, bytes], ...]


def _appraised(verified: VerifiedEvidence, kind: Kind, policy: AppraisalPolicy, checks: Checks) -> _Found:
    match verified:
        case VerifiedSnp(evidence=report):
            appraise_snp(verified, _section(policy.snp, kind), checks)
            return _Found(report.report_data, verified.revocations_from, (("measurement", report.measurement),))
        case VerifiedTdx(evidence=td):
            appraise_tdx(verified, _section(policy.tdx, kind), checks)
            rtmrs = tuple((f"rtmr{number}", value) for number, value in enumerate(td.rtmrs))
            return _Found(td.report_data, verified.platform.stated_at, (("mr_td", td.mr_td), *rtmrs))
        case VerifiedSgx(evidence=enclave):
            appraise_sgx(verified, _section(policy.sgx, kind), checks)
            measured = (("mr_enclave", enclave.mr_enclave), ("mr_signer", enclave.mr_signer))
            return _Found(enclave.report_data, verified.platform.stated_at, measured)
        case VerifiedCca(evidence=token):
            appraise_cca(verified, _section(policy.cca, kind), checks)
            more = ((f"extensible{number}", value) for number, value in enumerate(token.extensible_measurements))
            return _Found(token.challenge, None, (("initial", token.initial_measurement), *more))
        case VerifiedTpm(evidence=quote):
            appraise_tpm(verified, _section(policy.tpm, kind), checks)
            values = ((f"register{number}", value) for number, value in quote.registers)
            return _Found(quote.nonce, None, (("digest", quote.digest), *values))


def _section(section: Section | None, kind: Kind) -> Section:
    if section is None:
        raise RejectedEvidence(
            f"The policy takes no {kind} evidence. Ask for evidence of a technology that it names.", reason="kind"
        )
    return section
