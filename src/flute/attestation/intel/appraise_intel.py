"""Whether a genuine TDX or SGX quote is of the right software on a platform that is recent enough."""

from __future__ import annotations

from typing import Final

from flute.attestation.checks import Checks
from flute.attestation.intel.dcap import Platform, VerifiedSgx, VerifiedTdx
from flute.attestation.policy import IntelPlatform, SgxPolicy, TdxPolicy

NOT_APPRAISED_TDX: Final = {
    "raw": "the bytes that were parsed",
    "version": "parsing refuses versions whose layout is not known",
    "xfam": "which processor features the guest may use; part of what MRTD's software sees, no secret depends on it",
    "mr_seam": "Intel's statement on TCB levels names the module; verifying compares it",
    "mr_owner_config": "chosen by the guest's owner beside mr_owner and mr_config_id, which are compared",
}
NOT_APPRAISED_SGX: Final = {
    "raw": "the bytes that were parsed",
    "version": "parsing refuses versions whose layout is not known",
}
"""Fields that no reference value is for, and why. A test compares these lists with the structures."""
_TD_DEBUG: Final = 1 << 0
_TD_ALLOWED: Final = 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31
"""LASS, SEPT_VE_DISABLE, PKS, KL: they take nothing from the guest's protection."""
_SGX_INIT, _SGX_DEBUG, _SGX_PROVISION, _SGX_LAUNCH = 1 << 0, 1 << 1, 1 << 4, 1 << 5
_DEBUG: Final = "It was started with debugging allowed: whoever runs the machine can read it. Start it without."


def appraise_tdx(found: VerifiedTdx, policy: TdxPolicy, checks: Checks) -> None:
    """Raises: RejectedEvidence: something is not as the policy wants it; `reason` says what."""
    quote = found.evidence
    checks.require(not quote.td_attributes & _TD_DEBUG, "debug", _DEBUG)
    checks.require(
        not quote.td_attributes & ~_TD_ALLOWED,
        "attributes",
        f"The guest was started with attributes that weaken it or are not known here (0x{quote.td_attributes:016x}; "
        "performance counters for example, which leak what it computes). Start it without.",
    )
    _require_platform(found.platform, policy.platform, found.verified_at, checks)
    checks.one_of(
        "mr_td", quote.mr_td.hex(), policy.mr_td, "measurement",
        "Another image was loaded than the approved ones (MRTD). Start the approved image, or approve this one.",
    )  # fmt: skip
    for number, (value, allowed) in enumerate(zip(quote.rtmrs, policy.rtmrs, strict=True)):
        checks.one_of(
            f"rtmr{number}", value.hex(), allowed, "measurement",
            f"Other software was started than the approved (RTMR{number}). Start the approved image.",
        )  # fmt: skip
    checks.one_of(
        "mr_config_id", quote.mr_config_id.hex(), policy.mr_config_id, "configuration",
        "The guest was started with another configuration than the approved (MRCONFIGID).",
    )  # fmt: skip
    checks.one_of(
        "mr_owner", quote.mr_owner.hex(), policy.mr_owner, "owner", "The guest is another owner's (MROWNER)."
    )


def appraise_sgx(found: VerifiedSgx, policy: SgxPolicy, checks: Checks) -> None:
    """Raises: RejectedEvidence: something is not as the policy wants it; `reason` says what."""
    quote = found.evidence
    checks.require(not quote.attributes & _SGX_DEBUG, "debug", _DEBUG)
    checks.require(
        bool(quote.attributes & _SGX_INIT) and not quote.attributes & (_SGX_PROVISION | _SGX_LAUNCH),
        "attributes",
        "The enclave may use keys that only Intel's own enclaves need (provisioning, launch). Build it without.",
    )
    _require_platform(found.platform, policy.platform, found.verified_at, checks)
    checks.one_of(
        "mr_enclave", quote.mr_enclave.hex(), policy.mr_enclave, "measurement",
        "Another enclave runs than the approved ones (MRENCLAVE). Start the approved one, or approve this one.",
    )  # fmt: skip
    checks.one_of(
        "mr_signer", quote.mr_signer.hex(), policy.mr_signer, "signer",
        "The enclave was not signed by an approved signer (MRSIGNER).",
    )  # fmt: skip
    product = policy.isv_prod_id
    checks.one_of(
        "isv_prod_id", str(quote.isv_prod_id), (str(product),) if isinstance(product, int) else product, "product",
        "The enclave is another product of its signer (ISVPRODID).",
    )  # fmt: skip
    checks.one_of(
        "config_id", quote.config_id.hex(), policy.config_id, "configuration",
        "The enclave was started with another configuration than the approved (CONFIGID).",
    )  # fmt: skip
    checks.require(
        quote.isv_svn >= policy.minimum_isv_svn,
        "software-version",
        f"The enclave's security version is {quote.isv_svn}, at least {policy.minimum_isv_svn} is taken. Update the "
        "enclave.",
    )


def _require_platform(found: Platform, policy: IntelPlatform, now: int, checks: Checks) -> None:
    checks.require(
        found.status in policy.statuses,
        "tcb",
        f"Intel says of this platform: {found.status}"
        + (f" ({', '.join(found.advisories)})" if found.advisories else "")
        + f"; the policy takes {', '.join(policy.statuses)}. Update BIOS and microcode, then ask for a new quote.",
    )
    applying = [advisory for advisory in found.advisories if advisory not in policy.advisories_allowed]
    checks.require(
        not applying,
        "advisory",
        f"Security advisories that the policy does not name apply to this platform: {', '.join(applying)}. Do what "
        "they say, or allow them in the policy.",
    )
    checks.require(
        found.evaluation >= policy.minimum_evaluation,
        "evaluation",
        f"Intel's statement is of evaluation {found.evaluation}, at least {policy.minimum_evaluation} is taken. "
        "Fetch present collateral.",
    )
    checks.no_older_than(
        "Intel's statement", now - found.stated_at, policy.max_statement_age_s, "statement-old",
        "Fetch present collateral.",
    )  # fmt: skip
    # "Undefined": platforms of one processor, whose certificates do not say; that is not held against them
    settings = (
        ("dynamic", found.dynamic, policy.dynamic_allowed, "processors may be added as it runs (dynamic platform)"),
        ("cached-keys", found.cached_keys, policy.cached_keys_allowed, "Intel keeps copies of its keys"),
        ("smt", found.smt, policy.smt_allowed, "other programs may share its processor cores (SMT)"),
    )
    for reason, value, allowed, what in settings:
        checks.require(
            allowed or value != "True",
            reason,
            f"Of this platform it is said: {what}. Change it, or allow it in the policy.",
        )
