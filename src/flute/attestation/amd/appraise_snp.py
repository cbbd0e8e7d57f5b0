"""Whether a genuine SEV-SNP report is of the right guest on a platform that is recent enough."""

from __future__ import annotations

from typing import Final

from flute.attestation.amd.snp import SigningKey, SnpTcb
from flute.attestation.amd.snp_chain import VerifiedSnp
from flute.attestation.checks import Checks
from flute.attestation.policy import SnpPolicy, TcbFloor, Unchecked

NOT_APPRAISED: Final = {
    "raw": "the bytes that were parsed",
    "version": "parsing refuses versions whose layout is not known",
    "guest_svn": "chosen by the guest's owner; the measurement says more",
    "family_id": "chosen by the guest's owner; the measurement says more",
    "image_id": "chosen by the guest's owner; the measurement says more",
    "current_tcb": "what runs now is at least what was committed, and that has to reach the floor",
    "author_key_digest": "vouches for the key behind id_key_digest, which is compared itself",
    "report_id": "a random number of the guest's",
    "migration_agent": "there is none: guests that may be moved are refused",
    "cpuid": "compared with the product when the chain is verified",
    "chip_id": "compared with the key's certificate when the chain is verified",
    "chip_id_masked": "as chip_id",
    "r": "the signature",
    "s": "the signature",
}
"""Fields of a report that no reference value is for, and why. A test compares this list with the structure."""
_PLATFORM_BITS: Final = {"tsme": 1, "ecc": 2, "rapl-disabled": 3, "ciphertext-hiding": 4, "alias-check": 5}
_SMT_BIT: Final = 0


def appraise_snp(found: VerifiedSnp, policy: SnpPolicy, checks: Checks) -> None:
    """Raises: RejectedEvidence: something is not as the policy wants it; `reason` says what."""
    report = found.evidence
    checks.require(
        not report.policy.debug,
        "debug",
        "The guest was launched with debugging allowed: whoever runs the machine can read it. Launch it without "
        "(bit 19 of the guest policy).",
    )
    checks.require(
        not report.policy.strange,
        "guest-policy",
        "The guest policy allows devices on CXL, or has bits that this version of FLUTE does not know. Launch the "
        "guest without them.",
    )
    _require_signer(found, policy, checks)
    _require_tcb(found, policy, checks)
    checks.require(
        not report.policy.migration,
        "migration",
        "The guest may be moved to another machine by a migration agent. Launch it without (bit 18).",
    )
    smt = report.policy.smt or bool(report.platform_info >> _SMT_BIT & 1)
    checks.require(
        policy.smt_allowed or not smt,
        "smt",
        "Other programs may share the guest's processor cores (SMT). Switch SMT off and launch the guest without it "
        "(bit 16), or allow it in the policy.",
    )
    checks.require(
        report.vmpl in policy.vmpl,
        "vmpl",
        f"The report was asked for at privilege level {report.vmpl}, levels {list(policy.vmpl)} are taken. Ask for "
        "it from the software that the policy means.",
    )
    _require_platform(report.platform_info, policy, checks)
    checks.one_of(
        "measurement", report.measurement.hex(), policy.measurements, "measurement",
        "Another image was launched than the approved ones. Launch the approved image, or approve this one.",
    )  # fmt: skip
    checks.one_of(
        "host_data", report.host_data.hex(), policy.host_data, "host-data",
        "The host launched the guest with other settings (host data) than the approved ones.",
    )  # fmt: skip
    checks.one_of(
        "id_key", report.id_key_digest.hex(), policy.id_keys, "id-key",
        "The image was not signed by an approved key (id key).",
    )  # fmt: skip


def _require_signer(found: VerifiedSnp, policy: SnpPolicy, checks: Checks) -> None:
    signer = found.evidence.signing_key
    checks.require(
        signer.value in policy.signing_keys,
        "signing-key",
        f"The report was signed by a {signer.upper()}, the policy takes {', '.join(policy.signing_keys)}.",
    )
    if signer is SigningKey.VLEK and policy.providers is not None:
        checks.one_of(
            "provider", found.provider, policy.providers, "provider",
            "AMD lent the signing key to another provider than the approved ones.",
        )  # fmt: skip
    if isinstance(policy.max_crl_age_s, Unchecked):
        checks.unchecked.append(("revocation", policy.max_crl_age_s.unchecked))
        return
    checks.require(
        found.revocations_from is not None,
        "revocation-unknown",
        "No revocation list of AMD's came with this evidence, so a revoked key would pass. Send the list along.",
    )
    if found.revocations_from is not None:
        checks.no_older_than(
            "AMD's revocation list", found.verified_at - found.revocations_from, policy.max_crl_age_s,
            "revocation-old", "Fetch the present revocation list.",
        )  # fmt: skip


def _require_tcb(found: VerifiedSnp, policy: SnpPolicy, checks: Checks) -> None:
    """What the key was issued for, what the host cannot go back behind, and what ran at launch: all at the floor."""
    floor = policy.minimum_tcb.get(found.product.value)
    if floor is None:
        checks.require(False, "product", f"The policy has no floor for {found.product}; it takes no such processors.")
        return
    levels = (
        ("reported", found.tcb),
        ("committed", SnpTcb.of(found.evidence.committed_tcb, found.product)),
        ("launch", SnpTcb.of(found.evidence.launch_tcb, found.product)),
    )
    for name, tcb in levels:
        below = _below(tcb, floor)
        checks.require(
            not below,
            "tcb",
            f"The platform's firmware is older than the policy takes ({name}: {'; '.join(below)}). Update the "
            "platform's firmware and microcode and commit the update, then ask for a new report.",
        )


def _below(tcb: SnpTcb, floor: TcbFloor) -> list[str]:
    least = {part: getattr(floor, part) for part in tcb.parts()}
    return [f"{part} {have}, at least {least[part]}" for part, have in tcb.parts().items() if have < least[part]]


def _require_platform(info: int, policy: SnpPolicy, checks: Checks) -> None:
    if isinstance(policy.platform, Unchecked):
        checks.unchecked.append(("platform", policy.platform.unchecked))
        return
    missing = [name for name in policy.platform if not info >> _PLATFORM_BITS[name] & 1]
    checks.require(
        not missing,
        "platform",
        f"The host has not switched on what the policy asks for: {', '.join(missing)}. Switch it on and start anew.",
    )
