"""Evidence whose protected fields are changed and SIGNED ANEW under a test root: each field's own check has to
refuse.

Breaking a signature shows that signatures are checked. Here they hold, so that what refuses is the comparison with
the policy, the certificate or the clock; each change names the one reason that may come out. The control is the
unchanged evidence, which is accepted; `test_a_check_that_is_taken_out_lets_its_change_pass` shows that the reasons
are not luck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
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

from flute.attestation.collateral import CcaCollateral, SnpCollateral
from flute.attestation.policy import TcbFloor, Unchecked
from flute.attestation.roots import Product
from support.evidence_issuer import (
    DAY,
    NOW,
    TCB,
    CcaIssuer,
    SnpIssuer,
    TpmIssuer,
    ec_key,
    rsa_key,
    spki,
    tcb_bytes,
)

# --- SEV-SNP ---------------------------------------------------------------------------------

CLEAN = 1 << 17
"""A guest policy that allows nothing."""


def lower(part: str) -> dict[str, int]:
    return {**TCB, part: TCB[part] - 1}


def older_firmware(part: str) -> Change:
    """Reported, with a certificate for it: a genuine platform that was not updated."""

    def change(issuer: SnpIssuer, case: Case, chance: Chance) -> Case:
        tcb = {**TCB, part: chance.randrange(TCB[part])}
        collateral = issuer.collateral(leaf=issuer.leaf(tcb=tcb))
        return replace(
            case, evidence=issuer.evidence(BOUND, tcb=tcb_bytes(issuer.product, tcb)), collateral=collateral
        )

    return change


def older(field: str, part: str) -> Change:
    return lambda issuer, case, chance: replace(
        case, evidence=issuer.evidence(BOUND, **{field: tcb_bytes(issuer.product, lower(part))})
    )


def claims_newer_firmware(issuer: SnpIssuer, case: Case, chance: Chance) -> Case:
    part = chance.choice(["boot_loader", "tee", "snp", "microcode"])
    tcb = tcb_bytes(issuer.product, {**TCB, part: TCB[part] + chance.randrange(1, 30)})
    return replace(case, evidence=issuer.evidence(BOUND, tcb=tcb))


def stranger(issuer: Any) -> SnpIssuer:
    return SnpIssuer(issuer.product, lent=issuer.lent, name="stranger")


def strange_chain(issuer: SnpIssuer, case: Case, chance: Chance) -> Case:
    other = stranger(issuer)
    return replace(case, evidence=other.evidence(BOUND), collateral=other.collateral())


def strange_root_under_the_same_name(issuer: SnpIssuer, case: Case, chance: Chance) -> Case:
    return replace(case, collateral=msgspec.structs.replace(case.collateral, root=stranger(issuer).root()))


def other_chip(issuer: SnpIssuer, case: Case, chance: Chance) -> Case:
    used = 8 if issuer.product is Product.TURIN else 64
    return replace(case, evidence=issuer.evidence(BOUND, chip=chance.randbytes(used) + bytes(64 - used)))


def one_bit_of_the_signed_part(issuer: SnpIssuer, case: Case, chance: Chance) -> Case:
    """From report data on, where no value has a form that parsing would refuse."""
    at = chance.randrange(8 * 0x50, 8 * 0x180)
    raw = bytearray(case.evidence)
    raw[at // 8] ^= 1 << at % 8
    return replace(case, evidence=bytes(raw))


def one_byte_behind_the_signature(issuer: SnpIssuer, case: Case, chance: Chance) -> Case:
    raw = bytearray(case.evidence)
    raw[chance.randrange(0x330, 0x4A0)] = chance.randrange(1, 256)
    return replace(case, evidence=bytes(raw))


VALIDITY: Table = [
    ("certificate-expired", under(leaf=lambda i: i.leaf(until=NOW - DAY))),
    ("certificate-not-yet-valid", under(leaf=lambda i: i.leaf(since=NOW + DAY))),
    ("certificate-expired", under(intermediate=lambda i: i.middle(until=NOW - DAY))),
    ("certificate-not-yet-valid", under(intermediate=lambda i: i.middle(since=NOW + DAY))),
    ("certificate-expired", under(root=lambda i: i.root(until=NOW - DAY))),
    ("certificate-expired", at_another_time),
    ("certificate-not-yet-valid", at_an_earlier_time),
]
REVOCATION: Table = [
    ("revoked", under(crl=lambda i: i.crl(revoked=(5, 77)))),
    ("crl-signature", under(crl=lambda i: i.crl(key=rsa_key("stranger")))),
    ("crl-expired", under(crl=lambda i: i.crl(since=NOW - 40 * DAY))),
    ("crl-expired", under(crl=lambda i: i.crl(since=NOW + DAY))),
    ("crl-malformed", under(crl=lambda i: i.crl()[:-1])),
    ("revocation-unknown", under(crl=lambda i: None)),
    ("revocation-old", asking(max_crl_age_s=DAY // 2)),
]
CHAIN: Table = [
    ("chain-signature", under(leaf=lambda i: i.leaf(issuer_key=rsa_key("stranger")))),
    ("chain-signature", under(intermediate=lambda i: i.middle(issuer_key=rsa_key("stranger")))),
    ("chain-signature", under(leaf=lambda i: i.leaf(digest=hashes.SHA256()))),
    ("chain-signature", under(leaf=lambda i: i.leaf(padded=PKCS1v15()))),
    ("chain-signature", under(leaf=lambda i: i.leaf(issuer="somebody else"))),
    ("chain-signature", under(leaf=lambda i: i.leaf(issuer_key=ec_key("not RSA")))),
    ("chain-kind", under(leaf=lambda i: i.leaf(name="SEV-OTHER"))),
    ("chain-kind", under(leaf=lambda i: i.leaf(extensions={"1.3.6.1.4.1.3704.1.2": b"\x16\x05Other"}))),
    ("certificate-malformed", under(leaf=lambda i: i.leaf()[:-1])),
    ("certificate-malformed", under(root=lambda i: i.root() + b"\0")),
    ("signature", under(leaf=lambda i: i.leaf(key=ec_key("another chip")))),
    ("signature", under(leaf=lambda i: i.leaf(key=ec_key("P-256", ec.SECP256R1)))),
    ("signature", signed(signed_by=lambda chance: ec_key("another chip"))),
    ("tcb-certificate", under(leaf=lambda i: i.leaf(tcb=lower("snp")))),
    ("tcb-certificate", under(leaf=lambda i: i.leaf(extensions={"1.3.6.1.4.1.3704.1.3.8": b"\x04\x01\xdb"}))),
    ("tcb-certificate", claims_newer_firmware),
    ("root-unknown", strange_chain),
    ("root-unknown", strange_root_under_the_same_name),
    ("root-unknown", for_makers_only),
]
FIELDS: Table = [
    ("measurement", signed(measurement=digest(48))),
    ("host-data", signed(host_data=digest(32))),
    ("id-key", signed(id_key=digest(48))),
    ("debug", signed(policy=CLEAN | 1 << 19)),
    ("debug", signed(policy=CLEAN | 1 << 19 | 1 << 16)),
    ("smt", signed(policy=CLEAN | 1 << 16)),
    ("smt", signed(platform_info=0b100101)),
    ("migration", signed(policy=CLEAN | 1 << 18)),
    ("guest-policy", signed(policy=lambda chance: CLEAN | 1 << chance.randrange(26, 64))),
    ("guest-policy", signed(policy=0)),
    ("guest-policy", signed(policy=CLEAN | 1 << 21)),
    ("vmpl", signed(vmpl=lambda chance: chance.randrange(1, 4))),
    ("platform", signed(platform_info=0b100000)),
    ("platform", signed(platform_info=0b000100)),
    ("wrong-product", signed(cpuid=b"\x17\x01\x01")),
    ("wrong-product", signed(cpuid=b"\x19\x55\x01")),
    ("snp-version", signed(version=lambda chance: chance.choice([0, 1, 6, 99, 2**31]))),
    ("snp-algorithm", signed(algorithm=lambda chance: chance.choice([0, 2, 2**20]))),
    ("snp-signing-key", signed(flags=0b11100)),
    ("product", asking(minimum_tcb={})),
    ("tcb", asking(minimum_tcb=lambda i: {str(i.product): TcbFloor(**{**TCB, "tee": 2})})),
    ("signature", one_bit_of_the_signed_part),
    ("snp-reserved", one_byte_behind_the_signature),
    *[("tcb", older_firmware(part)) for part in ("boot_loader", "tee", "snp", "microcode")],
    *[
        ("tcb", older(field, part))
        for field in ("committed", "launch")
        for part in ("boot_loader", "snp", "microcode")
    ],
]
OWN_CHIP: Table = [
    ("chip", other_chip),
    ("chip", under(leaf=lambda i: i.leaf(chip=bytes(reversed(i.chip[:8])) + bytes(56)))),
    ("chip-masked", signed(flags=0b10)),
    ("chain-kind", signed(flags=0b100)),
    ("signing-key", asking(signing_keys=("vlek",), providers=("cloud",))),
]
LENT: Table = [
    ("chain-kind", signed(flags=0)),
    ("signing-key", asking(signing_keys=("vcek",))),
    ("provider", asking(providers=("CN=another.example",))),
]
SNP: Table = [*COMMON, *VALIDITY, *REVOCATION, *CHAIN, *FIELDS]

# --- Arm CCA ---------------------------------------------------------------------------------


def platform(**claims: Any) -> Change:
    return _half("platform", {int(number[1:]): value for number, value in claims.items()})


def realm(**claims: Any) -> Change:
    return _half("realm", {int(number[1:]): value for number, value in claims.items()})


def _half(half: str, claims: dict[int, Any]) -> Change:
    def change(issuer: CcaIssuer, case: Case, chance: Chance) -> Case:
        made = {number: value(chance) if callable(value) else value for number, value in claims.items()}
        return replace(case, evidence=issuer.evidence(BOUND, **{half: made}))

    return change


def halves_of_two_tokens(issuer: CcaIssuer, case: Case, chance: Chance) -> Case:
    """The platform's half vouches for one realm's key, the other half is of another realm."""
    other = CcaIssuer("another realm")
    numbers = other.realm_key.public_key().public_numbers()
    point = b"\x04" + numbers.x.to_bytes(48, "big") + numbers.y.to_bytes(48, "big")
    vouched = hashlib.sha256(b"the first realm's key").digest()
    made = issuer.evidence(BOUND, realm={44237: point}, realm_key=other.realm_key, platform={10: vouched})
    return replace(case, evidence=made)


def register(number: int) -> Change:
    def change(issuer: CcaIssuer, case: Case, chance: Chance) -> Case:
        values = [bytes(32)] * 4
        values[number] = chance.randbytes(32)
        return replace(case, evidence=issuer.evidence(BOUND, realm={44239: values}))

    return change


def other_firmware(issuer: CcaIssuer, case: Case, chance: Chance) -> Case:
    own = {1: "RMM", 2: issuer.firmware[0], 5: issuer.firmware[1]}
    other = {1: "BL2", 2: chance.randbytes(32), 5: issuer.firmware[1]}
    listed = chance.choice([[other], [own, other], [{**own, 5: chance.randbytes(32)}]])
    return replace(case, evidence=issuer.evidence(BOUND, platform={2399: listed}))


def one_bit_of_a_token(issuer: CcaIssuer, case: Case, chance: Chance) -> Case:
    """Within the digests of the initial measurement: the token stays well-formed."""
    at = case.evidence.index(issuer.measurement) + chance.randrange(32)
    raw = bytearray(case.evidence)
    raw[at] ^= 1 << chance.randrange(8)
    return replace(case, evidence=bytes(raw))


CCA: Table = [
    *COMMON,
    ("measurement", realm(_44238=digest(32))),
    *[("measurement", register(number)) for number in range(4)],
    ("personalization", realm(_44235=digest(64))),
    ("lifecycle", platform(_2395=lambda chance: chance.choice([0, 0x1000, 0x2FFF, 0x3100, 0x4001, 0x5000, 0x6000]))),
    ("implementation", platform(_2396=digest(32))),
    ("configuration", platform(_2401=digest(4))),
    ("firmware", other_firmware),
    ("platform-key", asking(platform_keys=("ab" * 32,))),
    ("platform-key", lambda i, case, chance: replace(
        case,
        evidence=i.evidence(BOUND, platform_key=ec_key("stranger")),
        collateral=CcaCollateral(spki(ec_key("stranger").public_key())),
    )),
    ("signature", lambda i, case, chance: replace(case, evidence=i.evidence(BOUND, platform_key=ec_key("stranger")))),
    ("signature", lambda i, case, chance: replace(case, evidence=i.evidence(BOUND, realm_key=ec_key("stranger")))),
    ("signature", lambda i, case, chance: replace(
        case, collateral=CcaCollateral(spki(ec_key("P-256", ec.SECP256R1).public_key())))),
    ("signature", one_bit_of_a_token),
    ("realm-key", halves_of_two_tokens),
    ("realm-key", platform(_10=digest(32))),
    ("certificate-malformed", lambda i, case, chance: replace(case, collateral=CcaCollateral(chance.randbytes(90)))),
    ("cca-claims", platform(_265="http://arm.com/another-profile")),
    ("cca-claims", platform(_999="a claim that nobody knows")),
    ("cca-claims", platform(_2395=None)),
    ("cca-claims", platform(_2399=[])),
    ("cca-claims", realm(_44239=[bytes(32)] * 3)),
    ("cca-claims", realm(_44238=digest(31))),
    ("cca-claims", realm(_10=digest(32))),
    ("cca-claims", realm(_44240="md5")),
]  # fmt: skip

# --- TPM -------------------------------------------------------------------------------------


def registers(number: int) -> Change:
    def change(issuer: TpmIssuer, case: Case, chance: Chance) -> Case:
        return replace(
            case, evidence=issuer.evidence(BOUND, registers={**issuer.registers, number: chance.randbytes(32)})
        )

    return change


def fewer_registers(issuer: TpmIssuer, case: Case, chance: Chance) -> Case:
    return replace(case, evidence=issuer.evidence(BOUND, registers={0: issuer.registers[0]}))


def shown(values: Callable[[TpmIssuer, Chance], dict[int, bytes]]) -> Change:
    """Registers that come along and are not those that were signed."""
    return lambda i, case, chance: replace(
        case, evidence=i.evidence(BOUND, registers={0: bytes(32), 11: b"\1" * 32}, shown=values(i, chance))
    )


def strange_key(issuer: TpmIssuer, case: Case, chance: Chance) -> Case:
    return replace(case, evidence=TpmIssuer(name="stranger").evidence(BOUND))


def certified(**changes: Any) -> Change:
    """A key that the policy does not know by name, with a certificate that does not help."""

    def change(issuer: TpmIssuer, case: Case, chance: Chance) -> Case:
        made = {name: value(issuer) for name, value in changes.items()}
        return replace(
            case,
            collateral=issuer.collateral(certified=True, **made),
            policy=issuer.policy(keys=(), issuers=(issuer.issuer,)),
        )

    return change


def another_issuer(issuer: TpmIssuer, case: Case, chance: Chance) -> Case:
    policy = issuer.policy(keys=(), issuers=("ab" * 32,))
    return replace(case, collateral=issuer.collateral(certified=True), policy=policy)


def one_bit_of_the_nonce(issuer: TpmIssuer, case: Case, chance: Chance) -> Case:
    attested = bytearray(issuer.attested(BOUND, issuer.registers))
    signature = issuer.signature(bytes(attested))
    at = bytes(attested).index(BOUND) + chance.randrange(64)
    attested[at] ^= 1 << chance.randrange(8)
    return replace(case, evidence=issuer.bundle(bytes(attested), signature, issuer.registers, 0x00050072))


ATTRIBUTES = 0x00050072
TPM: Table = [
    *[row for row in COMMON if row[0] != "collateral-missing"],
    ("measurement", registers(0)),
    ("measurement", registers(11)),
    ("measurement", fewer_registers),
    ("tpm-registers", shown(lambda i, chance: i.registers)),
    ("tpm-registers", shown(lambda i, chance: {0: bytes(32)})),
    ("tpm-registers", shown(lambda i, chance: {0: bytes(32), 11: b"\1" * 32, 12: bytes(32)})),
    ("tpm-registers", signed(digest=digest(32))),
    ("tpm-attested", signed(magic=0xFF544348)),
    ("tpm-attested", signed(kind=lambda chance: chance.choice([0x8014, 0x8015, 0x8017, 0x801A]))),
    ("tpm-attested", signed(banks=2)),
    ("tpm-attested", signed(bank=0x0004)),
    ("tpm-attested", signed(behind=b"\0")),
    ("bank", asking(bank="sha384")),
    ("platform-key", asking(keys=("000b" + "ab" * 32,))),
    ("platform-key", strange_key),
    ("platform-key", another_issuer),
    ("signature", signed(signed_by=lambda chance: ec_key("stranger", ec.SECP256R1))),
    ("signature", one_bit_of_the_nonce),
    *[("tpm-key-attributes", signed(attributes=ATTRIBUTES & ~(1 << bit))) for bit in (1, 4, 5, 16, 18)],
    ("tpm-key-attributes", signed(attributes=ATTRIBUTES | 1 << 17)),
    ("chain-signature", certified(by=lambda i: ec_key("stranger"))),
    ("chain-signature", certified(key=lambda i: ec_key("another AK", ec.SECP256R1))),
    ("certificate-expired", certified(until=lambda i: NOW - DAY)),
    ("certificate-not-yet-valid", certified(since=lambda i: NOW + DAY)),
]


def _table(*parts: Table) -> Table:
    return [row for part in parts for row in part]


ISSUERS: dict[str, tuple[Callable[[], Any], Table]] = {
    "sev-snp milan": (SnpIssuer, _table(SNP, OWN_CHIP)),
    "sev-snp genoa": (lambda: SnpIssuer(Product.GENOA), _table(SNP, OWN_CHIP)),
    "sev-snp turin": (lambda: SnpIssuer(Product.TURIN), _table(SNP, OWN_CHIP)),
    "sev-snp lent key": (lambda: SnpIssuer(lent=True), _table(SNP, LENT)),
    "arm-cca": (CcaIssuer, CCA),
    "tpm ecc": (TpmIssuer, TPM),
    "tpm rsa": (lambda: TpmIssuer(rsa=True), TPM),
}
IN_CI = {"sev-snp milan", "arm-cca", "tpm ecc"}
"""These take all their mutations in every run; the others take each change once, and all in the soak run."""


@cache
def issuer_of(name: str) -> Any:
    return ISSUERS[name][0]()


@pytest.mark.parametrize("name", ISSUERS)
@pytest.mark.requirement("NF-SRS-5")
def test_500_signed_changes_are_each_refused_for_their_own_reason(name: str) -> None:
    table = ISSUERS[name][1]
    reasons = run(issuer_of(name), table, MUTATIONS if name in IN_CI else len(table), name)
    assert set(reasons) == {expected for expected, _ in table}


@pytest.mark.soak
@pytest.mark.parametrize("name", ISSUERS)
def test_5000_signed_changes_are_each_refused_for_their_own_reason(name: str) -> None:
    assert sum(run(issuer_of(name), ISSUERS[name][1], 10 * MUTATIONS, name).values()) == 10 * MUTATIONS


# --- the checks are what refuses -------------------------------------------------------------


def test_a_check_that_is_taken_out_lets_its_change_pass() -> None:
    """Each change that the policy refuses passes when the policy allows it: nothing else would have stopped it."""
    alone = Unchecked("shown in this test")
    snp, cca, tpm = issuer_of("sev-snp milan"), issuer_of("arm-cca"), issuer_of("tpm ecc")
    assert passes(signed(host_data=digest(32)), snp, host_data=alone)
    assert passes(signed(id_key=digest(48)), snp, id_keys=alone)
    assert passes(signed(policy=CLEAN | 1 << 16), snp, smt_allowed=True)
    assert passes(signed(vmpl=2), snp, vmpl=(2,))
    assert passes(signed(platform_info=0), snp, platform=alone)
    assert passes(under(crl=lambda i: None), snp, max_crl_age_s=alone)
    assert passes(older_firmware("snp"), snp, minimum_tcb={"Milan": TcbFloor(0, 0, 0, 0)})
    assert passes(signed(measurement=b"\7" * 48), snp, measurements=("07" * 48,))
    assert passes(realm(_44238=b"\7" * 32), cca, initial_measurements=("07" * 32,))
    assert passes(platform(_2396=b"\7" * 32), cca, implementations=alone)
    assert passes(other_firmware, cca, firmware=alone)
    assert passes(strange_key, tpm, keys=(TpmIssuer(name="stranger").name,))
    assert not passes(signed(policy=CLEAN | 1 << 19), snp, smt_allowed=True)  # debug: never


def test_a_certified_attestation_key_is_accepted_without_being_named() -> None:
    issuer = issuer_of("tpm rsa")
    policy = issuer.policy(keys=(), issuers=(issuer.issuer,))
    case = replace(base(issuer), collateral=issuer.collateral(certified=True), policy=policy)
    assert reason_of(case) == "accepted"


def test_what_is_not_looked_at_is_repeated_in_the_acceptance() -> None:
    issuer = issuer_of("sev-snp milan")
    reason = "the host sets nothing that we depend on"
    found = replace(base(issuer), policy=issuer.policy(host_data=Unchecked(reason))).decide()
    assert found.unchecked == (("host_data", reason),)
    assert isinstance(base(issuer).collateral, SnpCollateral)
