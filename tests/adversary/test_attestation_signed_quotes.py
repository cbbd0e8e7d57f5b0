"""TDX and SGX quotes, and Intel's statements about their platforms, changed and signed anew under a test root.

The signatures and chains are `dcap-qvl`'s to check, what is acceptable is ours; both have to refuse each change for
the reason that its row names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import dcap_qvl
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.adversary.attestation_cases import (
    BOUND,
    COMMON,
    MUTATIONS,
    Case,
    Chance,
    Change,
    Table,
    asking,
    at_an_earlier_time,
    at_another_time,
    base,
    digest,
    for_makers_only,
    passes,
    reason_of,
    run,
    signed,
    under,
)
from tests.vectors.evidence.samples import VERIFIED, load

from flute.attestation.collateral import DcapCollateral
from flute.attestation.evidence import parse
from flute.attestation.intel.dcap import in_library
from flute.attestation.policy import Unchecked
from support.dcap_issuer import DcapIssuer, sign
from support.evidence_issuer import DAY, NOW, ec_key

SEPT_VE_DISABLE = 1 << 28
STRANGE_BITS = [bit for bit in range(1, 64) if bit not in (27, 28, 29, 30, 31)]
"""Of a guest's attributes: known to nobody, or known to weaken it."""


def stating(**arguments: Any) -> Change:
    """Intel says something else, and signs it."""
    return lambda issuer, case, chance: replace(case, collateral=issuer.collateral(**arguments))


def key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec_key(name, ec.SECP256R1)


def register(number: int) -> Change:
    def change(issuer: DcapIssuer, case: Case, chance: Chance) -> Case:
        values = list(issuer.rtmrs)
        values[number] = chance.randbytes(48)
        return replace(case, evidence=issuer.evidence(BOUND, rtmrs=tuple(values)))

    return change


def strange_chain(issuer: DcapIssuer, case: Case, chance: Chance) -> Case:
    other = DcapIssuer(sgx=issuer.sgx, name="stranger")
    return replace(case, evidence=other.evidence(BOUND), collateral=other.collateral())


def statement_of_the_other_technology(issuer: DcapIssuer, case: Case, chance: Chance) -> Case:
    other = DcapIssuer(sgx=not issuer.sgx)
    info = other.tcb_info()
    signature = sign(issuer.tcb_key, info.encode()).hex()
    return replace(
        case, collateral=msgspec.structs.replace(case.collateral, tcb_info=info, tcb_info_signature=signature)
    )


def higher_levels_only(issuer: DcapIssuer, case: Case, chance: Chance) -> Case:
    level = json.loads(issuer.tcb_info())["tcbLevels"]
    level[0]["tcb"]["pcesvn"] = 12 + chance.randrange(100)
    return replace(case, collateral=issuer.collateral(tcb_info={"tcbLevels": level}))


def one_bit_of_the_report(issuer: DcapIssuer, case: Case, chance: Chance) -> Case:
    """Of the measurement: nothing that the library gives a meaning of its own."""
    measured = issuer.mr_enclave if issuer.sgx else issuer.mr_td
    raw = bytearray(case.evidence)
    raw[case.evidence.index(measured) + chance.randrange(len(measured))] ^= 1 << chance.randrange(8)
    return replace(case, evidence=bytes(raw))


def something_behind_the_quote(issuer: DcapIssuer, case: Case, chance: Chance) -> Case:
    return replace(case, evidence=case.evidence + bytes(chance.randrange(60)) + b"\1")


def bits_set_in_the_chain(issuer: DcapIssuer, case: Case, chance: Chance) -> Case:
    """A letter of the root's copy in the quote."""
    end = case.evidence.rindex(b"-----END") - 20
    at = chance.choice([at for at in range(end - 200, end) if case.evidence[at : at + 1] != b"\n"])
    raw = bytearray(case.evidence)
    raw[at] = ord("A") if raw[at] != ord("A") else ord("B")
    return replace(case, evidence=bytes(raw))


WEAK_STATUSES = ("SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
BAD_STATUSES = (*WEAK_STATUSES, "OutOfDate", "OutOfDateConfigurationNeeded")
INTEL: Table = [
    *COMMON,
    *[("tcb", stating(tcb_info={"status": status})) for status in BAD_STATUSES],
    ("tcb", stating(qe_identity={"qe_status": "OutOfDate"})),
    ("revoked", stating(tcb_info={"status": "Revoked"})),
    ("advisory", stating(tcb_info={"advisories": ("INTEL-SA-00615",)})),
    ("evaluation", stating(tcb_info={"tcbEvaluationDataNumber": 19}, qe_identity={"tcbEvaluationDataNumber": 19})),
    ("statement-old", asking(platform={"max_statement_age_s": DAY})),
    ("collateral-expired", stating(tcb_info={"since": NOW - 40 * DAY})),
    ("collateral-expired", stating(qe_identity={"since": NOW - 40 * DAY})),
    ("collateral-not-yet-valid", stating(tcb_info={"since": NOW + DAY})),
    ("collateral-not-yet-valid", stating(qe_identity={"since": NOW + DAY})),
    ("collateral-signature", stating(signed_by=key("stranger"))),
    ("collateral-signature", under(tcb_info=lambda i: i.tcb_info(tcbEvaluationDataNumber=99))),
    ("collateral-signature", under(qe_identity=lambda i: i.qe_identity(tcbEvaluationDataNumber=99))),
    ("collateral-malformed", stating(tcb_info={"issueDate": "yesterday"})),
    ("wrong-platform", stating(tcb_info={"fmspc": "00A067110000"})),
    ("wrong-platform", statement_of_the_other_technology),
    ("tcb-unknown", higher_levels_only),
    ("revoked", under(pck_crl=lambda i: i.pck_crl(revoked=(9,)))),
    ("revoked", under(root_ca_crl=lambda i: i.root_crl(revoked=(7,)))),
    ("revoked", under(root_ca_crl=lambda i: i.root_crl(revoked=(8,)))),
    ("crl-expired", under(pck_crl=lambda i: i.pck_crl(since=NOW - 40 * DAY))),
    ("crl-expired", under(root_ca_crl=lambda i: i.root_crl(since=NOW - 40 * DAY))),
    ("crl-signature", under(pck_crl=lambda i: i.pck_crl(key=key("stranger")))),
    ("crl-malformed", under(pck_crl=lambda i: "00")),
    ("crl-issuer", under(pck_crl_issuer_chain=lambda i: i.collateral().tcb_info_issuer_chain)),
    ("chain-malformed", under(tcb_info_issuer_chain=lambda i: i.collateral().tcb_info_issuer_chain + "x")),
    ("chain-malformed", under(qe_identity_issuer_chain=lambda i: "")),
    ("root-unknown", strange_chain),
    ("root-unknown", for_makers_only),
    ("root-unknown", bits_set_in_the_chain),
    ("certificate-expired", at_another_time),
    ("certificate-not-yet-valid", at_an_earlier_time),
    ("certificate-expired", signed(pck={"until": NOW - DAY})),
    ("certificate-not-yet-valid", signed(pck={"since": NOW + DAY})),
    ("chain-signature", signed(pck={"issuer_key": key("stranger")})),
    ("quoting-enclave", signed(pck={"key": key("another platform")})),
    ("quoting-enclave", signed(qe_signed_by=key("stranger"))),
    ("quoting-enclave", signed(qe_signer=digest(32))),
    ("quoting-enclave", signed(qe_attributes=0x01)),
    ("tcb-unknown", signed(qe_svn=1)),
    ("signature", signed(signed_by=key("stranger"))),
    ("signature", one_bit_of_the_report),
    ("quote-trailing", something_behind_the_quote),
    ("dynamic", signed(settings=(True, False, False))),
    ("cached-keys", signed(settings=(False, True, False))),
    ("smt", signed(settings=(False, False, True))),
]
TDX: Table = [
    *INTEL,
    ("measurement", signed(mr_td=digest(48))),
    *[("measurement", register(number)) for number in range(4)],
    ("configuration", signed(mr_config_id=digest(48))),
    ("owner", signed(mr_owner=digest(48))),
    ("debug", signed(td_attributes=SEPT_VE_DISABLE | 1)),
    ("attributes", signed(td_attributes=SEPT_VE_DISABLE | 1 << 63)),
    ("attributes", signed(td_attributes=0)),
    ("attributes", signed(td_attributes=lambda chance: SEPT_VE_DISABLE | 1 << chance.choice(STRANGE_BITS))),
    ("migration", signed(td_attributes=SEPT_VE_DISABLE | 1 << 29)),
    ("tcb-unknown", signed(tee_tcb_svn=bytes([6, 9, *[0] * 14]))),
    ("module", signed(seam_signer=digest(48))),
]
SGX: Table = [
    *INTEL,
    ("measurement", signed(mr_enclave=digest(32))),
    ("signer", signed(mr_signer=digest(32))),
    ("product", signed(product=8)),
    ("configuration", signed(config=digest(64))),
    ("software-version", signed(svn=2)),
    ("debug", signed(attributes=0x07)),
    ("attributes", signed(attributes=0x04)),
    ("attributes", signed(attributes=0x15)),
    ("attributes", signed(attributes=0x25)),
]
ISSUERS: dict[str, tuple[Callable[[], DcapIssuer], Table]] = {
    "tdx": (DcapIssuer, TDX),
    "sgx": (lambda: DcapIssuer(sgx=True), SGX),
}


@cache
def issuer_of(name: str) -> DcapIssuer:
    return ISSUERS[name][0]()


@pytest.mark.parametrize("name", ISSUERS)
@pytest.mark.requirement("NF-SRS-5")
def test_500_signed_changes_are_each_refused_for_their_own_reason(name: str) -> None:
    table = ISSUERS[name][1]
    assert set(run(issuer_of(name), table, MUTATIONS, name)) == {expected for expected, _ in table}


@pytest.mark.soak
@pytest.mark.parametrize("name", ISSUERS)
def test_5000_signed_changes_are_each_refused_for_their_own_reason(name: str) -> None:
    assert sum(run(issuer_of(name), ISSUERS[name][1], 10 * MUTATIONS, name).values()) == 10 * MUTATIONS


def test_a_check_that_is_taken_out_lets_its_change_pass() -> None:
    alone, tdx, sgx = Unchecked("shown in this test"), issuer_of("tdx"), issuer_of("sgx")
    rtmrs = tuple((value.hex(),) for value in tdx.rtmrs)
    assert passes(register(3), tdx, rtmrs=(*rtmrs[:3], alone))
    assert passes(signed(mr_config_id=digest(48)), tdx, mr_config_id=alone)
    assert passes(signed(mr_owner=digest(48)), tdx, mr_owner=alone)
    assert passes(signed(mr_td=b"\7" * 48), tdx, mr_td=("07" * 48,))
    assert passes(signed(mr_enclave=b"\7" * 32), sgx, mr_enclave=alone)
    assert passes(signed(svn=2), sgx, minimum_isv_svn=2)
    for status in WEAK_STATUSES:
        assert passes(stating(tcb_info={"status": status}), tdx, platform={"statuses": (status,)})
    advisory = ("INTEL-SA-00615",)
    assert passes(stating(tcb_info={"advisories": advisory}), sgx, platform={"advisories_allowed": advisory})
    for i, setting in enumerate(("dynamic_allowed", "cached_keys_allowed", "smt_allowed")):
        settings = tuple(i == j for j in range(3))
        assert passes(signed(settings=settings), tdx, platform={setting: True})
    assert not passes(signed(td_attributes=SEPT_VE_DISABLE | 1), tdx)
    assert not passes(stating(tcb_info={"status": "Revoked"}), tdx, platform={"statuses": WEAK_STATUSES})


def test_padding_behind_a_quote_is_the_same_quote() -> None:
    case = base(issuer_of("tdx"))
    padded = replace(case, evidence=case.evidence + bytes(70))
    assert reason_of(padded) == "accepted"
    assert parse(padded.evidence) == parse(case.evidence)


# --- the library's own policy as a second opinion --------------------------------------------


def library_accepts(case: Case, allowed: tuple[str, ...]) -> bool:
    """dcap-qvl's `QuotePolicy`, which looks at status, settings and advisories by itself."""
    policy = dcap_qvl.QuotePolicy.strict(case.now)
    for status in allowed:
        policy = policy.allow_status(status)
    section = case.policy.sgx or case.policy.tdx
    assert section is not None
    assert isinstance(case.collateral, DcapCollateral)
    platform, collateral = section.platform, in_library(case.collateral)
    policy = policy.min_tcb_eval_data_number(platform.minimum_evaluation)
    policy = policy.allow_dynamic_platform(platform.dynamic_allowed).allow_smt(platform.smt_allowed)
    policy = policy.allow_cached_keys(platform.cached_keys_allowed)
    try:
        verifier = dcap_qvl.QuoteVerifier(case.roots.intel_der)
        verifier.verify_with_policy(parse(case.evidence).raw, collateral, case.now, policy)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", ISSUERS)
def test_the_librarys_own_policy_agrees_on_status_and_settings(name: str) -> None:
    issuer = issuer_of(name)
    for status in ("UpToDate", *BAD_STATUSES):
        for allowed in (("UpToDate",), ("UpToDate", "SWHardeningNeeded"), ("UpToDate", *WEAK_STATUSES)):
            policy = issuer.policy(platform={"statuses": allowed})
            case = replace(base(issuer), collateral=issuer.collateral(tcb_info={"status": status}), policy=policy)
            assert (reason_of(case) == "accepted") == library_accepts(case, allowed), (status, allowed)
    for settings in ((True, False, False), (False, True, False), (False, False, True), (True, True, True)):
        case = replace(base(issuer), evidence=issuer.evidence(BOUND, settings=settings))
        assert reason_of(case) != "accepted"
        assert not library_accepts(case, ("UpToDate",))


@pytest.mark.parametrize("name", [name for name in VERIFIED if name.startswith(("tdx", "sgx"))])
def test_the_librarys_own_policy_agrees_on_published_samples(name: str) -> None:
    sample = load(name)
    roots = replace(base(issuer_of("tdx")).roots, intel_der=None)
    case = Case(sample.evidence, sample.collateral, sample.policy, roots, sample.at, sample.report_data)
    section = sample.policy.sgx or sample.policy.tdx
    assert section is not None
    assert library_accepts(case, section.platform.statuses)
