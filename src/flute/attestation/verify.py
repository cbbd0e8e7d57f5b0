"""Evidence, stage 2 of 3: whose signatures stand behind it, at a given time. Whether it is the right software,
running safely enough, is `appraise`'s question: genuine evidence of an attacker's own enclave passes here."""

from __future__ import annotations

from flute.attestation.amd.snp import SnpReport
from flute.attestation.amd.snp_chain import VerifiedSnp, verify_snp
from flute.attestation.arm.cca import CcaToken, VerifiedCca, verify_cca
from flute.attestation.collateral import CcaCollateral, Collateral, DcapCollateral, SnpCollateral, TpmCollateral
from flute.attestation.evidence import Evidence
from flute.attestation.intel.dcap import SgxQuote, TdxQuote, VerifiedSgx, VerifiedTdx, verify_quote
from flute.attestation.roots import MAKERS, Roots
from flute.attestation.tcg.tpm import TpmQuote, VerifiedTpm, verify_tpm
from flute.errors import UntrustedEvidence

VerifiedEvidence = VerifiedSnp | VerifiedTdx | VerifiedSgx | VerifiedCca | VerifiedTpm


def verify(evidence: Evidence, *, collateral: Collateral | None, now: int, roots: Roots = MAKERS) -> VerifiedEvidence:
    """The evidence with what its signatures vouch for.

    Args: collateral: of the same technology; None only for a TPM, whose key the policy may know. now: Unix seconds.
        roots: whose word counts in the end; anything but MAKERS is for tests, and is labelled in what is accepted.
    Raises: UntrustedEvidence: no chain of valid signatures leads from the evidence to a root, or collateral of
    another
        technology came with it. RejectedEvidence: an Intel quote of a debuggable enclave (the library stops there).
    """
    match evidence, collateral:
        case SnpReport(), SnpCollateral():
            return verify_snp(evidence, collateral, now=now, roots=roots)
        case ((TdxQuote() | SgxQuote()), DcapCollateral()):
            return verify_quote(evidence, collateral, now=now, roots=roots)
        case CcaToken(), CcaCollateral():
            return verify_cca(evidence, collateral, now=now, development=roots.development)
        case TpmQuote(), (TpmCollateral() | None):
            return verify_tpm(evidence, collateral or TpmCollateral(), now=now)
    raise UntrustedEvidence(
        "The certificates and lists that belong to this evidence did not come with it, or those of another "
        "technology did. Send the collateral of this kind of evidence along (docs/how-to/evidence.md).",
        reason="collateral-missing",
    )
