"""Published evidence of real processors: what is genuine passes, and nothing that was changed in any way does.

The control of every test here is the sample itself, which has to come out as `samples.json` says.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import omne_attest
import pytest
from omne_attest.snp import Report, verify_chain
from tests.vectors.evidence.samples import ALWAYS, NAMES, VERIFIED, Sample, load

from flute.attestation.appraise import appraise
from flute.attestation.collateral import SnpCollateral
from flute.attestation.evidence import KINDS, Evidence, parse
from flute.attestation.policy import AppraisalPolicy, Unchecked
from flute.attestation.verify import VerifiedEvidence, verify
from flute.errors import EvidenceError, MalformedEvidence, MisuseError, RejectedEvidence, UntrustedEvidence

MUTATIONS = 500
YEARS = 40 * 366 * 86_400
SNP = tuple(name for name in VERIFIED if name.startswith("snp"))
UNBOUND = Unchecked("not part of this test")


def decide(
    sample: Sample, *, evidence: bytes | None = None, policy: AppraisalPolicy | None = None, **changes: Any
) -> str:
    """ "accepted", or the reason of the refusal."""
    collateral = changes.get("collateral", sample.collateral)
    try:
        found = verify(parse(evidence or sample.evidence), collateral=collateral, now=changes.get("now", sample.at))
        appraise(found, policy=policy or sample.policy, report_data=changes.get("report_data", sample.report_data))
    except EvidenceError as error:
        return error.reason
    return "accepted"


def genuine(sample: Sample) -> VerifiedEvidence:
    return verify(parse(sample.evidence), collateral=sample.collateral, now=sample.at)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.requirement("NF-SRS-5")
def test_a_published_sample_comes_out_as_it_should(name: str) -> None:
    sample = load(name)
    assert decide(sample) == sample.expected


@pytest.mark.parametrize("name", VERIFIED)
def test_a_published_sample_is_judged_within_ten_milliseconds(name: str) -> None:
    sample = load(name)
    decide(sample)
    times = []
    for _ in range(9):
        start = time.process_time()
        decide(sample)
        times.append(time.process_time() - start)
    assert sorted(times)[4] <= 0.010


# --- changed bits ----------------------------------------------------------------------------


def flipped(raw: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(8 * len(raw))
    changed = bytearray(raw)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def changed_evidence(sample: Sample, chance: random.Random) -> tuple[str, dict[str, Any]]:
    return "bit of evidence", {"evidence": flipped(sample.evidence, chance)}


def cut_evidence(sample: Sample, chance: random.Random) -> tuple[str, dict[str, Any]]:
    at = chance.randrange(1, len(sample.evidence))
    raw = sample.evidence
    cut = chance.choice([raw[:at], raw[at:], raw + bytes([chance.randrange(1, 256)]), raw[:at] + b"\x55" + raw[at:]])
    return "length of evidence", {"evidence": cut}


def changed_collateral(sample: Sample, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """One bit of one part; text that stays text."""
    while True:
        parts = msgspec.structs.asdict(sample.collateral)
        part = chance.choice([name for name, value in parts.items() if value])
        try:
            parts[part] = (
                flipped(parts[part], chance)
                if isinstance(parts[part], bytes)
                else flipped(parts[part].encode(), chance).decode()
            )
            return f"bit of {part}", {"collateral": msgspec.convert(parts, type(sample.collateral))}
        except (UnicodeDecodeError, msgspec.ValidationError):
            continue


def other_time(sample: Sample, chance: random.Random) -> tuple[str, dict[str, Any]]:
    if KINDS[type(parse(sample.evidence))] == "arm-cca":  # a token has no dates: what a policy asks for instead
        return other_report_data(sample, chance)
    now = chance.choice([chance.randrange(0, 1_500_000_000), sample.at + YEARS + chance.randrange(YEARS)])
    return "time", {"now": now}


def other_report_data(sample: Sample, chance: random.Random) -> tuple[str, dict[str, Any]]:
    return "report data", {"report_data": flipped(sample.report_data, chance)}


def other_policy(sample: Sample, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Another reference value, a higher floor, a setting that is not allowed."""
    what, policy = chance.choice(list(stricter(sample.policy)))
    return f"policy: {what}", {"policy": policy}


REFERENCE_VALUES = (
    "measurements", "host_data", "id_keys", "mr_td", "mr_config_id", "mr_owner", "mr_enclave", "mr_signer",
    "config_id", "platform_keys", "initial_measurements", "personalizations", "implementations", "configs",
)  # fmt: skip


def stricter(policy: AppraisalPolicy) -> Iterator[tuple[str, AppraisalPolicy]]:
    plain = msgspec.to_builtins(policy)
    (kind,) = [name for name in plain if isinstance(plain[name], dict)]
    section = plain[kind]

    def with_section(**changes: Any) -> AppraisalPolicy:
        return msgspec.convert({**plain, kind: {**section, **changes}}, AppraisalPolicy)

    yield "kind", msgspec.convert({**plain, kind: None}, AppraisalPolicy)
    for name in REFERENCE_VALUES:
        if name in section:
            yield name, with_section(**{name: [_other(section[name][0])]})
    for name in ("rtmrs", "extensible_measurements"):
        for i, values in enumerate(section.get(name, ())):
            yield name, with_section(**{name: [*section[name][:i], [_other(values[0])], *section[name][i + 1 :]]})
    for product, floor in section.get("minimum_tcb", {}).items():
        yield "product", with_section(minimum_tcb={})
        for part in ("boot_loader", "tee", "snp", "microcode"):
            yield "tcb", with_section(minimum_tcb={product: {**floor, part: floor[part] + 1}})
    if "vmpl" in section:
        yield "vmpl", with_section(vmpl=[level for level in range(4) if level not in section["vmpl"]])
        yield "revocation", with_section(max_crl_age_s=86_400)
        yield "platform", with_section(platform=["tsme", "rapl-disabled", "ciphertext-hiding"])
        other = "vcek" if "vlek" in section["signing_keys"] else "vlek"
        yield "signing key", with_section(signing_keys=[other], providers=["somebody else"])
    if "firmware" in section:
        yield "firmware", with_section(firmware=section["firmware"][1:])
    if "platform" in section and kind in ("tdx", "sgx"):
        yield from _stricter_platform(section["platform"], with_section)
    if kind == "sgx":
        yield "product", with_section(isv_prod_id=section["isv_prod_id"] + 1)
        yield "version", with_section(minimum_isv_svn=section["minimum_isv_svn"] + 1)


def _stricter_platform(platform: dict[str, Any], with_section: Any) -> Iterator[tuple[str, AppraisalPolicy]]:
    yield "status", with_section(platform={**platform, "statuses": ["ConfigurationNeeded"]})
    yield "evaluation", with_section(platform={**platform, "minimum_evaluation": platform["minimum_evaluation"] + 1})
    yield "age", with_section(platform={**platform, "max_statement_age_s": 600})
    if platform["advisories_allowed"]:
        yield (
            "advisory",
            with_section(platform={**platform, "advisories_allowed": platform["advisories_allowed"][1:]}),
        )
    for setting in ("dynamic_allowed", "cached_keys_allowed", "smt_allowed"):
        if platform[setting]:
            yield setting, with_section(platform={**platform, setting: False})


def _other(digest: str) -> str:
    return ("1" if digest[0] != "1" else "2") + digest[1:]


MUTATORS = (
    changed_evidence, changed_evidence, changed_evidence, cut_evidence, changed_collateral, changed_collateral,
    other_time, other_report_data, other_policy, other_policy,
)  # fmt: skip


@pytest.mark.parametrize("name", VERIFIED)
def test_none_of_500_changes_to_a_published_sample_is_accepted(name: str) -> None:
    """A debug guest is refused anyhow, so there the policy's own refusal does not count: verifying has to refuse, or
    the policy for another reason."""
    sample, chance = load(name), random.Random(name)
    unchanged = parse(sample.evidence)
    reasons: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    while sum(tried.values()) < MUTATIONS:
        what, change = MUTATORS[sum(tried.values()) % len(MUTATORS)](sample, chance)
        if what == "length of evidence" and _same(change["evidence"], unchanged):
            continue  # zeros behind a quote are padding: it is the same quote
        result = decide(sample, **change)
        if sample.expected == "debug" and result == "debug":
            assert what.startswith(("policy", "report data")), what  # those are looked at after debug
            result = "debug"
        assert result != "accepted", what
        reasons[result] += 1
        tried[what.split(":")[0]] += 1
    assert len(reasons) >= 8, reasons


def _same(raw: bytes, unchanged: Evidence) -> bool:
    try:
        return parse(raw) == unchanged
    except MalformedEvidence:
        return False


@pytest.mark.parametrize("name", [name for name in VERIFIED if name != ALWAYS])
def test_every_stricter_policy_refuses_a_published_sample_for_its_own_reason(name: str) -> None:
    sample = load(name)
    expected = {
        "kind": "kind", "measurements": "measurement", "host_data": "host-data", "id_keys": "id-key",
        "mr_td": "measurement", "config_id": "configuration", "mr_config_id": "configuration",
        "mr_owner": "owner", "mr_enclave": "measurement",
        "mr_signer": "signer", "platform_keys": "platform-key", "initial_measurements": "measurement",
        "personalizations": "personalization", "implementations": "implementation", "configs": "configuration",
        "rtmrs": "measurement", "extensible_measurements": "measurement", "product": "product", "tcb": "tcb",
        "vmpl": "vmpl", "revocation": "revocation-unknown", "platform": "platform", "signing key": "signing-key",
        "firmware": "firmware", "status": "tcb", "evaluation": "evaluation", "age": "statement-old",
        "advisory": "advisory", "dynamic_allowed": "dynamic", "cached_keys_allowed": "cached-keys",
        "smt_allowed": "smt", "version": "software-version",
    }  # fmt: skip
    for what, policy in stricter(sample.policy):
        assert decide(sample, policy=policy) == expected[what], what


@pytest.mark.parametrize("name", VERIFIED)
def test_a_chain_of_another_sample_is_refused(name: str) -> None:
    sample = load(name)
    for other in VERIFIED:
        if other != name and (other == ALWAYS or name != ALWAYS):
            strange = load(other).collateral
            if strange != sample.collateral:
                assert decide(sample, collateral=strange) not in ("accepted", "debug"), other
    if isinstance(sample.collateral, SnpCollateral):
        c = sample.collateral
        for leaf, intermediate, root in ((c.intermediate, c.leaf, c.root), (c.leaf, c.root, c.root), (c.root,) * 3):
            assert decide(sample, collateral=SnpCollateral(leaf, intermediate, root)) not in ("accepted", "debug")


# --- an independent verifier -----------------------------------------------------------------


def omne_accepts(evidence: bytes, collateral: SnpCollateral, measurement: bytes, report_data: bytes) -> bool:
    """omne-attest's verdict on chain, signature and binding; debug is not its question here."""
    policy = omne_attest.Policy(measurement=measurement, report_data=report_data, max_vmpl=3, reject_debug=False)
    pin = bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd")
    try:
        omne_attest.verify(evidence, collateral.leaf, collateral.intermediate, collateral.root, pin, policy)
    except (omne_attest.Fail, ValueError, TypeError):
        return False
    return True


def we_accept(evidence: bytes, collateral: SnpCollateral, at: int, measurement: bytes, report_data: bytes) -> bool:
    try:
        found = verify(parse(evidence), collateral=collateral, now=at)
    except (MalformedEvidence, UntrustedEvidence):
        return False
    return found.evidence.measurement == measurement and found.evidence.report_data == report_data


@pytest.mark.parametrize("name", [name for name in SNP if name.startswith("snp-milan") and "vlek" not in name])
def test_an_independent_verifier_agrees_on_sev_snp(name: str) -> None:
    """omne-attest (PyPI), on Milan chip keys, which are what it knows. It does not look at unsigned bytes behind the
    signature nor at dates: where we refuse for those, it need not; where it refuses, we must."""
    sample, chance = load(name), random.Random(name)
    assert isinstance(sample.collateral, SnpCollateral)
    report = Report.parse(sample.evidence)
    expected = report.measurement, report.report_data
    assert we_accept(sample.evidence, sample.collateral, sample.at, *expected)
    assert omne_accepts(sample.evidence, sample.collateral, *expected)
    agreed = 0
    for _ in range(100):
        evidence = flipped(sample.evidence[:0x330], chance) + sample.evidence[0x330:]
        ours = we_accept(evidence, sample.collateral, sample.at, *expected)
        theirs = omne_accepts(evidence, sample.collateral, *expected)
        in_upper_bytes = evidence[0x2D0:0x2E8] != bytes(24) or evidence[0x318:0x330] != bytes(24)
        assert not ours
        assert not theirs or in_upper_bytes
        agreed += ours == theirs
    assert agreed >= 80


def test_the_independent_verifier_also_checks_the_chain_that_we_pin() -> None:
    c = load(ALWAYS).collateral
    assert isinstance(c, SnpCollateral)
    pin = bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd")
    verify_chain(c.leaf, c.intermediate, c.root, pin)


def test_a_debug_guest_is_refused_by_every_policy() -> None:
    sample = load(ALWAYS)
    with pytest.raises(RejectedEvidence, match="Launch it without") as caught:
        appraise(genuine(sample), policy=sample.policy, report_data=UNBOUND)
    assert caught.value.reason == "debug"


def test_report_data_of_another_size_is_our_callers_mistake() -> None:
    sample = load(ALWAYS)
    with pytest.raises(MisuseError):
        appraise(genuine(sample), policy=sample.policy, report_data=b"short")
