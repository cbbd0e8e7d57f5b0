"""What judging evidence costs: from bytes to a decision, processor time, for each kind.

    python benchmarks/evidence.py [--quick] [--json]

Evidence is made under test roots (2048-bit keys for AMD's, which have 4096 bits) and, where FLUTE_EVIDENCE_SAMPLES
names a folder of published samples (tests/vectors/evidence/README.md), published evidence as well; one published
SEV-SNP report comes with omne-attest. Anchors, run beside ours on the same bytes: omne-attest for SEV-SNP (no dates,
no revocation), dcap-qvl's own verification for TDX and SGX. Another row counts changes, signed anew, that were
accepted.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import Row, options, show

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import dcap_qvl  # noqa: E402
import omne_attest  # noqa: E402
from tests.adversary import test_attestation_signed_changes as changes  # noqa: E402
from tests.adversary import test_attestation_signed_quotes as quotes  # noqa: E402
from tests.adversary.attestation_cases import BOUND, base, run  # noqa: E402
from tests.vectors.evidence.samples import ALWAYS, FOLDER, VERIFIED, Sample, load  # noqa: E402

from flute.attestation.appraise import appraise  # noqa: E402
from flute.attestation.collateral import DcapCollateral, SnpCollateral  # noqa: E402
from flute.attestation.evidence import parse  # noqa: E402
from flute.attestation.intel.dcap import in_library  # noqa: E402
from flute.attestation.verify import verify  # noqa: E402
from flute.errors import EvidenceError  # noqa: E402

GOAL_MS = 10.0
GOAL = f"<= {GOAL_MS:g} ms"
ISSUERS = {**changes.ISSUERS, **quotes.ISSUERS}


def milliseconds(act: Callable[[], object], repeats: int) -> float:
    """Median processor time of one call."""
    act()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        act()
        times.append(time.process_time() - start)
    return 1_000 * statistics.median(times)


def made_here(name: str, repeats: int) -> Row:
    case = base(ISSUERS[name][0]())
    spent = milliseconds(case.decide, repeats)
    return Row(f"{name}, under a test root", spent, "ms CPU", GOAL, "-", spent <= GOAL_MS)


def published(name: str, repeats: int) -> Row:
    sample = load(name)

    def decide() -> None:
        try:
            found = verify(parse(sample.evidence), collateral=sample.collateral, now=sample.at)
            appraise(found, policy=sample.policy, report_data=sample.report_data)
        except EvidenceError as error:
            if error.reason != sample.expected:
                raise

    spent = milliseconds(decide, repeats)
    return Row(f"{name}, published", spent, "ms CPU", GOAL, anchor(sample, repeats), spent <= GOAL_MS)


def anchor(sample: Sample, repeats: int) -> str:
    c = sample.collateral
    if isinstance(c, SnpCollateral) and "milan" in sample.name and "vlek" not in sample.name:
        pin, policy = hashlib.sha256(c.root).digest(), omne_attest.Policy(max_vmpl=3, reject_debug=False)
        spent = milliseconds(
            lambda: omne_attest.verify(sample.evidence, c.leaf, c.intermediate, c.root, pin, policy), repeats
        )
        return f"omne-attest {spent:.2f} ms"
    if isinstance(c, DcapCollateral):
        spent = milliseconds(lambda: _library(sample, c), repeats)
        return f"dcap-qvl alone {spent:.2f} ms"
    return "-"


def _library(sample: Sample, c: DcapCollateral) -> Any:
    policy = dcap_qvl.QuotePolicy.claims_only(sample.at)
    return dcap_qvl.QuoteVerifier().verify_with_policy(sample.evidence, in_library(c), sample.at, policy)


def changed(name: str, mutations: int) -> Row:
    """Raises: AssertionError: a change came out as anything but its own reason."""
    issuer, table = ISSUERS[name][0](), ISSUERS[name][1]
    reasons = run(issuer, table, mutations, name)
    text = f"{mutations} changes signed anew, {len(reasons)} reasons"
    return Row(f"{name}: changes accepted", reasons["accepted"], "of all", "0", text, reasons["accepted"] == 0)


def main() -> None:
    wanted = options(__doc__ or "")
    warnings.simplefilter("ignore")  # AMD numbers its chips' certificates 0; omne-attest lets the warning through
    repeats = 9 if wanted.quick else 51
    assert len(BOUND) == 64
    for name in ISSUERS:
        show(made_here(name, repeats), as_json=wanted.json)
    for name in VERIFIED if os.environ.get(FOLDER) else (ALWAYS,):
        show(published(name, repeats), as_json=wanted.json)
    for name in ISSUERS:
        show(changed(name, 150 if wanted.quick else 5_000), as_json=wanted.json)


if __name__ == "__main__":
    main()
