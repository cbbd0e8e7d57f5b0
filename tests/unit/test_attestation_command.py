"""`flute evidence`: what it says for people and for programs, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tests.vectors.evidence.samples import ALWAYS, VERIFIED, load
from typer.testing import CliRunner

from flute.attestation.collateral import write_collateral
from flute.attestation.policy import write_policy
from flute.cli.evidence import APP
from support.evidence_issuer import CcaIssuer, TpmIssuer

BOUND = bytes(range(64))


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(APP, [str(word) for word in words], env={"COLUMNS": "300"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def run_json(*words: object) -> tuple[int, dict[str, Any]]:
    code, said = run(*words, "--format", "json")
    found: dict[str, Any] = json.loads(said)
    return code, found


@pytest.fixture
def quote(tmp_path: Path) -> tuple[Path, Path]:
    """A TPM's quote and a policy that takes it, in YAML."""
    issuer = TpmIssuer()
    evidence, policy = tmp_path / "quote.json", tmp_path / "policy.yaml"
    evidence.write_bytes(issuer.evidence(BOUND))
    policy.write_text(yaml.safe_dump(msgspec.json.decode(write_policy(issuer.policy()))))
    return evidence, policy


@pytest.fixture
def report(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A published SEV-SNP report of a debug guest, its chain, and a policy with its values."""
    sample = load(ALWAYS)
    return written(sample, tmp_path)


def written(sample: Any, folder: Path) -> tuple[Path, Path, Path]:
    evidence, collateral, policy = folder / "report", folder / "collateral.json", folder / "policy.json"
    evidence.write_bytes(sample.evidence)
    collateral.write_bytes(write_collateral(sample.collateral))
    policy.write_bytes(write_policy(sample.policy))
    return evidence, collateral, policy


def test_accepted_evidence_ends_with_0_and_says_what_was_measured(quote: tuple[Path, Path]) -> None:
    evidence, policy = quote
    code, found = run_json(
        "verify", evidence, "--policy", policy, "--at", 1_780_000_000, "--report-data", BOUND.hex()
    )
    assert code == 0
    assert found["accepted"]
    assert found["development"]
    assert found["appraised_at"] == "2026-05-28T20:26:40Z"
    assert found["registers"]["register11"] == TpmIssuer.registers[11].hex()
    assert found["unchecked"] == {}
    code, said = run("verify", evidence, "--policy", policy, "--report-data", BOUND.hex())
    assert code == 0
    assert "DEVELOPMENT" in said
    assert TpmIssuer.registers[11].hex() in said


def test_evidence_that_is_bound_to_nothing_is_accepted_with_a_warning(quote: tuple[Path, Path]) -> None:
    evidence, policy = quote
    code, found = run_json("verify", evidence, "--policy", policy)
    assert code == 0
    assert "tied to no key" in found["unchecked"]["report_data"]
    assert "unchecked report_data" in run("verify", evidence, "--policy", policy)[1]


def test_refused_evidence_ends_with_1_and_says_by_what_and_what_to_do(report: tuple[Path, Path, Path]) -> None:
    evidence, collateral, policy = report
    words = ("verify", evidence, "--collateral", collateral, "--policy", policy)
    code, found = run_json(*words, "--at", load(ALWAYS).at)
    assert (code, found["accepted"], found["stage"], found["reason"]) == (1, False, "appraise", "debug")
    assert "Launch it without" in found["text"]
    code, found = run_json(*words, "--at", "2020-01-01T00:00:00Z")
    assert (code, found["stage"], found["reason"]) == (1, "verify", "certificate-not-yet-valid")
    code, found = run_json("verify", evidence, "--policy", policy, "--at", load(ALWAYS).at)
    assert (code, found["stage"], found["reason"]) == (1, "verify", "collateral-missing")
    code, found = run_json("verify", policy, "--policy", policy)
    assert (code, found["stage"]) == (1, "parse")
    assert "Refused" in run(*words)[1]


@pytest.mark.parametrize("name", [name for name in VERIFIED if name != ALWAYS])
def test_a_published_sample_is_accepted_and_its_age_is_told(name: str, tmp_path: Path) -> None:
    sample = load(name)
    evidence, collateral, policy = written(sample, tmp_path)
    words = ("verify", evidence, "--collateral", collateral, "--policy", policy, "--at", sample.at)
    code, found = run_json(*words, "--report-data", sample.report_data.hex())
    assert (code, found["accepted"], found["development"]) == (0, True, False)
    told = "days old" if found["stated_at"] else "no statement of the maker"
    assert told in run(*words)[1]


@pytest.mark.parametrize(
    "words",
    [
        ("--at", "yesterday"),
        ("--report-data", "abcd"),
        ("--report-data", "not hexadecimal"),
        ("--collateral", "no-such-file"),
        ("--format", "xml"),
    ],
)
def test_misuse_ends_with_2(quote: tuple[Path, Path], words: tuple[str, str]) -> None:
    evidence, policy = quote
    assert run("verify", evidence, "--policy", policy, *words)[0] == 2


def test_a_file_that_is_no_policy_ends_with_2(quote: tuple[Path, Path], tmp_path: Path) -> None:
    evidence, _ = quote
    for text in ("- a list", "tpm: {keys: [", '{"tpm": {}}', "\x00"):
        (tmp_path / "wrong").write_text(text)
        assert run("verify", evidence, "--policy", tmp_path / "wrong")[0] == 2


def test_a_policy_in_yaml_may_leave_digits_unquoted(quote: tuple[Path, Path]) -> None:
    """A digest of zeros is a number to most YAML readers."""
    evidence, policy = quote
    text = policy.read_text().replace("'", "").replace('"', "")
    policy.write_text(text)
    assert run("verify", evidence, "--policy", policy)[0] == 0


def test_show_says_that_nothing_is_checked(report: tuple[Path, Path, Path], quote: tuple[Path, Path]) -> None:
    code, found = run_json("show", report[0])
    assert (code, found["kind"], found["maker"], found["checked"]) == (0, "sev-snp", "AMD", False)
    assert found["claims"]["measurement"] == load(ALWAYS).policy.snp.measurements[0]  # type: ignore[union-attr]
    assert "Nothing of it is checked" in run("show", report[0])[1]
    assert run_json("show", quote[0])[1]["claims"]["key"]["name"] == TpmIssuer().name
    assert run("show", report[2])[0] == 1


def test_what_evidence_says_cannot_style_the_terminal(tmp_path: Path) -> None:
    evidence = tmp_path / "token"
    issuer = CcaIssuer()
    named = {2399: [{1: "[bold]RMM", 2: issuer.firmware[0], 5: issuer.firmware[1]}]}
    evidence.write_bytes(issuer.evidence(BOUND, platform=named))
    assert "[bold]RMM" in run("show", evidence)[1]
