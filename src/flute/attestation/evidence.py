"""Evidence, stage 1 of 3: bytes to one of five closed kinds. Nothing in the result is believed yet.

    parse(bytes) -> Evidence                         here       MalformedEvidence
    verify(Evidence, collateral, now) -> Verified…   `verify`   UntrustedEvidence
    appraise(Verified…, policy, report_data)         `appraise` RejectedEvidence

Makers' own formats are taken as they are: an SNP report (1,184 bytes), a TDX or SGX quote, a CCA token (CBOR, tag
399). A TPM gives its quote in parts, so they come as JSON (`tpm.TpmBundle`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from flute.attestation.amd.snp import REPORT_BYTES, SnpReport, parse_snp
from flute.attestation.arm.cca import CcaToken, parse_cca
from flute.attestation.intel.dcap import SgxQuote, TdxQuote, looks_like_quote, parse_quote
from flute.attestation.tcg.tpm import TpmQuote, parse_tpm
from flute.defaults.evidence import MAX_EVIDENCE_BYTES
from flute.errors import MalformedEvidence

Evidence = SnpReport | TdxQuote | SgxQuote | CcaToken | TpmQuote
_CCA_TAG: Final = b"\xd9\x01\x8f"


class Kind(StrEnum):
    """The five kinds, by the names in policies and answers."""

    SEV_SNP = "sev-snp"
    TDX = "tdx"
    SGX = "sgx"
    ARM_CCA = "arm-cca"
    TPM = "tpm"


KINDS: Final[dict[type, Kind]] = {
    SnpReport: Kind.SEV_SNP,
    TdxQuote: Kind.TDX,
    SgxQuote: Kind.SGX,
    CcaToken: Kind.ARM_CCA,
    TpmQuote: Kind.TPM,
}
MAKERS_OF: Final = {
    Kind.SEV_SNP: "AMD",
    Kind.TDX: "Intel",
    Kind.SGX: "Intel",
    Kind.ARM_CCA: "Arm",
    Kind.TPM: "TPM",
}
"""Whose technology it is. Two aggregators are of two makers when these words differ: TDX and SGX are not."""


def parse(raw: bytes) -> Evidence:
    """The evidence that the bytes hold.

    Raises: MalformedEvidence: of no kind that is known, or not well-formed; `reason` says which check refused it.
    """
    if len(raw) > MAX_EVIDENCE_BYTES:
        raise MalformedEvidence(
            f"Evidence has at most {MAX_EVIDENCE_BYTES} bytes; these are {len(raw)}.", reason="evidence-size"
        )
    if raw.startswith(_CCA_TAG):
        return parse_cca(raw)
    if raw.lstrip()[:1] == b"{":
        return parse_tpm(raw)
    if looks_like_quote(raw):
        return parse_quote(raw)
    if len(raw) == REPORT_BYTES:
        return parse_snp(raw)
    raise MalformedEvidence(
        "These bytes are no evidence that FLUTE knows: an SEV-SNP report (1184 bytes), a TDX or SGX quote, an Arm "
        "CCA token, or the parts of a TPM quote in JSON. Send it as the platform gave it, not in hexadecimal.",
        reason="kind-unknown",
    )
