"""Whether a genuine CCA token or TPM quote is of the right software on a platform that is known."""

from __future__ import annotations

from typing import Final

from flute.attestation.arm.cca import VerifiedCca
from flute.attestation.checks import Checks
from flute.attestation.policy import CcaPolicy, TpmPolicy, Unchecked
from flute.attestation.tcg.tpm import VerifiedTpm

NOT_APPRAISED_CCA: Final = {
    "raw": "the bytes that were parsed",
    "platform": "the signed half; its claims are fields of their own",
    "realm": "the signed half; its claims are fields of their own",
    "key_digest": "compared with the realm's key when the token is verified",
    "key_digest_hash": "as key_digest",
    "realm_key": "as key_digest",
    "instance": "one machine's name; the platform's key says which machine it is",
}
NOT_APPRAISED_TPM: Final = {
    "raw": "the bytes that were parsed",
    "attested": "the signed bytes; their parts are fields of their own",
    "signature": "checked when the quote is verified",
    "firmware": "the maker's number for the TPM's firmware, comparable only with the maker's list; development",
    "resets": "counts the machine's starts; the nonce says that the quote is fresh",
    "restarts": "as resets",
    "safe_clock": "as resets",
    "selected": "compared with the registers when the quote is verified",
    "digest": "compared with the registers when the quote is verified",
}
"""Fields that no reference value is for, and why. A test compares these lists with the structures."""


def appraise_cca(found: VerifiedCca, policy: CcaPolicy, checks: Checks) -> None:
    """Raises: RejectedEvidence: something is not as the policy wants it; `reason` says what."""
    token = found.evidence
    checks.one_of(
        "platform_key", found.platform_key, policy.platform_keys, "platform-key",
        "The platform's key is not one that the policy knows. Ask the maker whether it is, then name it.",
    )  # fmt: skip
    checks.require(
        token.secured,
        "lifecycle",
        f"The platform is not in its secured state (lifecycle 0x{token.lifecycle:04x}): it may be debugged. Use one "
        "that is in production.",
    )
    checks.one_of(
        "implementation", token.implementation.hex(), policy.implementations, "implementation",
        "The platform is of another make than the approved ones (implementation id).",
    )  # fmt: skip
    checks.one_of(
        "config", token.config.hex(), policy.configs, "configuration", "The platform is configured in another way."
    )
    _require_firmware(found, policy, checks)
    checks.one_of(
        "initial_measurement", token.initial_measurement.hex(), policy.initial_measurements, "measurement",
        "Another image was loaded than the approved ones. Start the approved image, or approve this one.",
    )  # fmt: skip
    pairs = zip(token.extensible_measurements, policy.extensible_measurements, strict=True)
    for number, (value, allowed) in enumerate(pairs):
        checks.one_of(
            f"extensible_measurement{number}", value.hex(), allowed, "measurement",
            f"Other software was started than the approved (extensible measurement {number}).",
        )  # fmt: skip
    checks.one_of(
        "personalization", token.personalization.hex(), policy.personalizations, "personalization",
        "The realm was started for another purpose (personalization value).",
    )  # fmt: skip


def _require_firmware(found: VerifiedCca, policy: CcaPolicy, checks: Checks) -> None:
    if isinstance(policy.firmware, Unchecked):
        checks.unchecked.append(("firmware", policy.firmware.unchecked))
        return
    known = {(component.measurement, component.signer) for component in policy.firmware}
    for component in found.evidence.software:
        checks.require(
            (component.measurement.hex(), component.signer.hex()) in known,
            "firmware",
            f"A piece of the platform's firmware is not approved: {component.kind[:40]!r}, digest "
            f"{component.measurement.hex()}. Update the firmware, or approve it.",
        )


def appraise_tpm(found: VerifiedTpm, policy: TpmPolicy, checks: Checks) -> None:
    """Raises: RejectedEvidence: something is not as the policy wants it; `reason` says what."""
    quote = found.evidence
    name = quote.key.name.hex()
    checks.require(
        name in policy.keys or (found.issuer != "" and found.issuer in policy.issuers),
        "platform-key",
        f"The attestation key is neither known nor certified by somebody who is. Name it in the policy once you have "
        f"activated it on its TPM: {name}.",
    )
    checks.require(
        quote.bank == policy.bank,
        "bank",
        f"The quote is over the {quote.bank} registers, the policy's values are of {policy.bank}. Quote those.",
    )
    values = dict(quote.registers)
    for number, allowed in policy.registers.items():
        value = values.get(int(number))
        checks.require(
            value is not None and value.hex() in allowed,
            "measurement",
            f"Other software was started than the approved: register {number} is "
            f"{'not in the quote' if value is None else value.hex()}.",
        )
    extra = sorted(set(values) - {int(number) for number in policy.registers})
    if extra:
        checks.unchecked.append((f"registers {extra}", "quoted, and no reference value names them"))
