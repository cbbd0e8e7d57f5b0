"""Evidence, verified evidence, accepted evidence: three types, and no way around one of them."""

from __future__ import annotations

import ast
import base64
import dataclasses
import hashlib
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml

import flute
from flute.attestation import appraise_others
from flute.attestation.amd import appraise_snp
from flute.attestation.amd.snp import SnpReport, SnpTcb
from flute.attestation.appraise import Accepted
from flute.attestation.arm.cca import CcaToken
from flute.attestation.binding import report_data
from flute.attestation.collateral import SnpCollateral, read_collateral
from flute.attestation.evidence import KINDS, MAKERS_OF, Evidence, Kind
from flute.attestation.intel import appraise_intel
from flute.attestation.intel.dcap import SgxQuote, TdxQuote
from flute.attestation.policy import AppraisalPolicy, policy_of, read_policy, write_policy
from flute.attestation.roots import MAKERS, Product
from flute.attestation.tcg.tpm import TpmQuote
from flute.attestation.verify import VerifiedEvidence
from flute.errors import MalformedEvidence, MisuseError
from support.evidence_issuer import CcaIssuer, SnpIssuer, TpmIssuer

SOURCES = Path(flute.__file__).parent
NOT_APPRAISED = [
    (SnpReport, appraise_snp, appraise_snp.NOT_APPRAISED),
    (TdxQuote, appraise_intel, appraise_intel.NOT_APPRAISED_TDX),
    (SgxQuote, appraise_intel, appraise_intel.NOT_APPRAISED_SGX),
    (CcaToken, appraise_others, appraise_others.NOT_APPRAISED_CCA),
    (TpmQuote, appraise_others, appraise_others.NOT_APPRAISED_TPM),
]
BOUND_FIELDS = {"report_data", "challenge", "nonce"}
"""Compared in `appraise`, the same way for all kinds."""


@pytest.mark.parametrize(("structure", "module", "reasons"), NOT_APPRAISED)
def test_every_field_of_evidence_is_appraised_or_has_a_reason(structure: Any, module: Any, reasons: Any) -> None:
    fields = {field.name for field in dataclasses.fields(structure)}
    source = inspect.getsource(module)
    alias = {"lifecycle": "token.secured", "key": "quote.key.name", "reported_tcb": "found.tcb"}
    read = {name for name in fields if alias.get(name, f".{name}") in source}
    assert set(reasons) <= fields
    assert all(len(reason) >= 5 for reason in reasons.values())
    assert fields - read - set(reasons) - BOUND_FIELDS == set()


def test_each_later_stage_is_built_in_its_own_module_alone() -> None:
    """`VerifiedX(...)` where X is verified, `Accepted(...)` in `appraise`, `Roots(...)` in `roots`: nowhere else."""
    home = {
        "VerifiedSnp": "snp_chain", "VerifiedTdx": "dcap", "VerifiedSgx": "dcap", "VerifiedCca": "cca",
        "VerifiedTpm": "tpm", "Accepted": "appraise", "Roots": "roots",
    }  # fmt: skip
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in home:
                assert path.stem == home[node.func.id], f"{node.func.id} is built in {path.name}"


def test_dcap_qvl_is_never_asked_without_a_policy() -> None:
    calls = set()
    for path in SOURCES.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dcap_qvl"
        }
    assert calls == {"Quote", "QuoteCollateralV3", "QuotePolicy", "QuoteVerifier"}


def test_every_kind_of_evidence_has_a_stage_a_maker_and_a_policy_section() -> None:
    kinds = set(get_args(Evidence))
    assert set(KINDS) == kinds
    assert set(KINDS.values()) == set(Kind) == set(MAKERS_OF)
    assert {found.__dataclass_fields__["evidence"].type for found in get_args(VerifiedEvidence)} == {
        kind.__name__ for kind in kinds
    }
    sections = {field.encode_name for field in msgspec.structs.fields(AppraisalPolicy)}
    assert sections == {*Kind, "development"}
    assert {field.name for field in dataclasses.fields(Accepted)} >= {
        "kind", "maker", "measurement", "report_data", "development", "appraised_at",
    }  # fmt: skip


def test_the_pinned_roots_are_three_products_and_one_certificate() -> None:
    assert set(MAKERS.amd.values()) == set(Product)
    assert all(len(bytes.fromhex(pin)) == 32 for pin in (*MAKERS.amd, MAKERS.intel))
    assert not MAKERS.development
    with pytest.raises(TypeError):
        MAKERS.amd["00"] = Product.MILAN  # type: ignore[index]


# --- binding ---------------------------------------------------------------------------------


def test_report_data_is_the_digest_of_label_and_counted_parts() -> None:
    key, context = b"k" * 32, b"study/round 1/aggregator"
    parts = b"".join(len(part).to_bytes(8, "big") + part for part in (key, context))
    assert report_data(key, context) == hashlib.sha512(b"flute/attestation/report-data/v1" + parts).digest()


def test_report_data_tells_keys_and_contexts_apart() -> None:
    assert len({report_data(b"ab", b"c"), report_data(b"a", b"bc"), report_data(b"abc", b"c")}) == 3


@pytest.mark.parametrize(("key", "context"), [(b"", b"context"), (b"key", b"")])
def test_report_data_that_binds_nothing_is_our_callers_mistake(key: bytes, context: bytes) -> None:
    with pytest.raises(MisuseError):
        report_data(key, context)


# --- policies and collateral -----------------------------------------------------------------


@pytest.mark.parametrize("issuer", [SnpIssuer(), SnpIssuer(lent=True), CcaIssuer(), TpmIssuer()])
def test_a_policy_comes_back_from_json_and_from_yaml(issuer: Any) -> None:
    policy = issuer.policy()
    assert read_policy(write_policy(policy)) == policy
    text = yaml.safe_dump(msgspec.json.decode(write_policy(policy)))
    assert policy_of(yaml.load(text, Loader=yaml.BaseLoader)) == policy


WRONG = {
    "a section that nobody knows": {"sev-es": {}},
    "a field left out": {"tpm": {"keys": []}},
    "a field too many": {"development": True, "debug": True},
    "a reason that says nothing": {"sev-snp": {"host_data": {"unchecked": "no"}}},
    "no reference value": {"sev-snp": {"measurements": []}},
    "a digest of another size": {"sev-snp": {"measurements": ["ab"]}},
    "a digest in capitals": {"sev-snp": {"measurements": ["AB" * 48]}},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_policy_is_refused(what: str) -> None:
    plain = msgspec.json.decode(write_policy(SnpIssuer().policy()))
    for section, value in WRONG[what].items():
        plain[section] = {**plain[section], **value} if isinstance(plain.get(section), dict) else value
    with pytest.raises(MisuseError, match=r"evidence\.md"):
        read_policy(msgspec.json.encode(plain))


def test_a_policy_that_would_take_anybodys_software_is_refused() -> None:
    alone = {"unchecked": "left alone in this test"}
    platform = {"max_statement_age_s": 86_400}
    sgx = {
        "mr_enclave": alone,
        "mr_signer": ["ab" * 32],
        "isv_prod_id": alone,
        "minimum_isv_svn": 1,
        "config_id": alone,
    }
    lent = msgspec.to_builtins(SnpIssuer(lent=True).policy())["sev-snp"] | {"providers": None}
    for section in ({"sgx": sgx | {"platform": platform}}, {"sev-snp": lent}, {"tpm": {"keys": [], "registers": {"0":
    ["ab" * 32]}}}):  # fmt: skip
        with pytest.raises(MisuseError):
            policy_of(section)
    assert policy_of({"sgx": sgx | {"isv_prod_id": 7, "platform": platform}}).sgx


def pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def test_collateral_of_amd_may_come_in_pem() -> None:
    made = SnpIssuer().collateral()
    assert made.crl is not None
    chain = "".join(pem("CERTIFICATE", part) for part in (made.leaf, made.intermediate, made.root))
    assert read_collateral(chain.encode()) == SnpCollateral(made.leaf, made.intermediate, made.root)
    assert read_collateral((chain + pem("X509 CRL", made.crl)).encode()) == made


def test_an_incomplete_chain_in_pem_is_refused() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        read_collateral(pem("CERTIFICATE", SnpIssuer().leaf()).encode())
    assert caught.value.reason == "collateral-malformed"


def test_the_two_layouts_of_a_tcb_are_read_apart() -> None:
    raw = bytes([1, 2, 3, 4, 5, 6, 7, 8])
    assert SnpTcb.of(raw, Product.GENOA) == SnpTcb(boot_loader=1, tee=2, snp=7, microcode=8)
    assert SnpTcb.of(raw, Product.TURIN) == SnpTcb(fmc=1, boot_loader=2, tee=3, snp=4, microcode=8)


# --- the page --------------------------------------------------------------------------------

PAGE = SOURCES.parent.parent / "docs" / "how-to" / "evidence.md"


def _written_out(line: str) -> str:
    """Digests are cut short on the page: `5b1d…`."""
    bytes_of = {"measurements: [5b": 48, "mr_td": 48, "rtmrs": 48, "initial_measurements": 64, "keys: [000b": 34}
    size = next((size for part, size in bytes_of.items() if part in line), 32)
    return re.sub(r"(000b|)([0-9a-f]{4})…", lambda cut: cut[1] + (cut[2] * 64)[: 2 * size - len(cut[1])], line)


def test_the_policy_on_the_page_is_a_policy() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    whole = "\n".join(_written_out(line) for line in text.splitlines())
    policy = policy_of(yaml.load(whole, Loader=yaml.BaseLoader))
    assert all((policy.snp, policy.tdx, policy.sgx, policy.cca, policy.tpm, policy.development))


def test_every_reason_of_a_refusal_by_a_policy_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    reasons = set()
    for module in (appraise_snp, appraise_intel, appraise_others):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                place = {"require": 1, "one_of": 3, "no_older_than": 3}.get(node.func.attr)
                if place is not None and isinstance(node.args[place], ast.Constant):
                    reasons.add(node.args[place].value)
    missing = {reason for reason in reasons if f"`{reason}`" not in page}
    assert missing == set()
    assert len(reasons) > 25
