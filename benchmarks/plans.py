"""One study under every plan, in one process: what it costs a hub and the coordinator, and what travels.

The real gate, ledger, messages and protocols over an in-process channel (no TLS, no processes): processor time of the
whole federation, bytes from hubs, messages. Three hubs of 1,000 patients; one `describe` of 5 variables, exact.
Enclaves are two ordinary processes' code with evidence under a TEST root: their cost, not their protection.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, options, show

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from flute.study.agreement import Agreement, PlanChoice  # noqa: E402
from support.inprocess import InProcessFederation  # noqa: E402
from support.studies import EXACT, study, under_plan  # noqa: E402
from unit import test_study_enclaves as enclaves  # noqa: E402

HUBS = ("north", "south", "west")
QUESTION = """\
  cohort:
    algorithm: describe
    variables: [age, pressure, sex, grade, ill]
    bins: BINS
"""
PLANS = ("secagg", "mpc", "threshold-he", "enclave", "secagg-enclave")
ERRORS = {"secagg": 1e-9, "mpc": 1e-9, "threshold-he": 1e-6, "enclave": 1e-9, "secagg-enclave": 1e-9}
"""Largest relative difference to masked sums that a plan's digits allow here."""


def agreement(plan: str, bins: int) -> Agreement:
    base = study(EXACT, QUESTION.replace("BINS", str(bins)))
    names = enclaves.NAMES if plan in enclaves.PLANS else ()
    return under_plan(base, PlanChoice(plan, aggregators=names), max_patients=1_000)


def figures(found: Any) -> list[float]:
    if isinstance(found, Mapping):
        return [v for key in sorted(found) for v in figures(found[key])]
    if isinstance(found, list):
        return [v for item in found for v in figures(item)]
    return [float(found)] if isinstance(found, int | float) and not isinstance(found, bool) else []


def federation(folder: Path, asked: Agreement, patients: int) -> InProcessFederation:
    if asked.plan.name in enclaves.PLANS:
        return enclaves.federation(folder, asked, patients=patients)
    data = {hub: enclaves.people(hub, patients) for hub in HUBS}
    return InProcessFederation(folder, data, [v.variable for v in asked.variables])


def measured(plan: str, bins: int, patients: int) -> tuple[list[float], float, float, int]:
    """Figures of the result, processor seconds from asking to the result, bytes from hubs, messages."""
    asked = agreement(plan, bins)
    with tempfile.TemporaryDirectory() as folder:
        fed = federation(Path(folder), asked, patients)
        fed.propose(asked)
        fed.consent(asked.study)
        begin = time.process_time()
        fed.runner.run(asked.study)
        fed.settle()
        spent = time.process_time() - begin
        row = fed.rounds.study(asked.study)
        assert row is not None
        assert row.state == "finished", row.why
        traffic = [t for t in fed.rounds.traffic(asked.study) if t["kind"] not in ("consent", "proposal")]
        sent = sum(t["bytes"] for t in traffic if t["sender"] != "coordinator")
        messages = sum(t["messages"] for t in traffic)
        found = figures(fed.rounds.results(asked.study))
        fed.close()
    return found, spent, sent / len(HUBS), messages


def main() -> None:
    asked = options(__doc__ or "")
    logging.disable(logging.WARNING)
    bins, patients = (16, 200) if asked.quick else (64, 1_000)
    reference: list[float] = []
    for plan in PLANS:
        found, seconds, sent, messages = measured(plan, bins, patients)
        reference = reference or found
        same = len(found) == len(reference)
        error = float(np.max(np.abs(np.array(found) - reference) / (1 + np.abs(reference)))) if same else np.inf
        anchor, most = "secagg, in the same run", ERRORS[plan]
        rows = [
            Row(f"{plan}: processor time of all parties", seconds, "s", "", anchor, None),
            Row(f"{plan}: sent by one hub", sent / 1e3, "kB", "", anchor, None),
            Row(f"{plan}: messages", messages, "", "", anchor, None),
            Row(f"{plan}: largest relative difference", error, "", f"<= {most:g}", anchor, error <= most),
        ]
        for row in rows:
            show(row, as_json=asked.json)


if __name__ == "__main__":
    main()
