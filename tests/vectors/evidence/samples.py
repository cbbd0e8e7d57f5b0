"""Published evidence for tests: where it lies, what has to come out. README.md names every origin."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from omne_attest import vectors

from flute.attestation.collateral import Collateral, SnpCollateral, read_collateral, write_collateral
from flute.attestation.policy import AppraisalPolicy

FOLDER = "FLUTE_EVIDENCE_SAMPLES"
ALWAYS = "snp-milan-debug"
"""Comes with the test dependency `omne-attest`."""
_LISTED: dict[str, Any] = {
    entry["name"]: entry for entry in json.loads(Path(__file__).with_name("samples.json").read_bytes())
}
NAMES = tuple(_LISTED)
VERIFIED = tuple(name for name, entry in _LISTED.items() if entry["expected"] in ("accepted", "debug"))


@dataclass(frozen=True)
class Sample:
    """`expected`: "accepted", or the reason of the refusal. `at`: Unix seconds."""

    name: str
    evidence: bytes
    collateral: Collateral
    policy: AppraisalPolicy
    report_data: bytes
    at: int
    expected: str


@cache
def load(name: str) -> Sample:
    """Skips the calling test where the sample's files are not here."""
    entry = _LISTED[name]
    evidence, collateral = _files(name)
    digests = hashlib.sha256(evidence).hexdigest(), hashlib.sha256(collateral).hexdigest()
    assert digests == (entry["evidence_sha256"], entry["collateral_sha256"]), f"{name} is another file"
    return Sample(
        name=name,
        evidence=evidence,
        collateral=read_collateral(collateral),
        policy=msgspec.convert(entry["policy"], AppraisalPolicy),
        report_data=bytes.fromhex(entry["report_data"]),
        at=entry["at"],
        expected=entry["expected"],
    )


def _files(name: str) -> tuple[bytes, bytes]:
    if name == ALWAYS:
        chain = SnpCollateral(leaf=vectors.vcek(), intermediate=vectors.ask(), root=vectors.ark())
        return vectors.attestation(), write_collateral(chain)
    folder = os.environ.get(FOLDER)
    if folder:
        return (Path(folder) / f"{name}.evidence").read_bytes(), (
            Path(folder) / f"{name}.collateral.json"
        ).read_bytes()
    pytest.skip(f"{name} is not here: {FOLDER} names no folder (tests/vectors/evidence/README.md)")
