"""Plans with enclaves in a real study: the same road, gate and ledger; hubs decide whom they trust, and pay then.

`enclave` splits answers among aggregators. What `secagg-enclave` adds: `test_study_masked_enclaves`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flute.aggregator.desk import Desk
from flute.attestation.collateral import write_collateral
from flute.attestation.policy import write_policy
from flute.coordinator.plans.aggregators import Aggregators, Door
from flute.coordinator.runs import Runner
from flute.enclaves.context import policy_digest, policy_name
from flute.ledger import audit
from flute.messages.enclave import AggregatorAnswer, EnclaveTotal
from flute.study.agreement import Agreement, PlanChoice
from flute.trust.roster import ApprovedCode, Roster, arranged
from support.evidence_issuer import NOW, SnpIssuer, TpmIssuer
from support.inprocess import InProcessFederation
from support.studies import DESCRIBE, EXACT, study, under_plan

HUBS = ("north", "south", "west")
PLANS = ("enclave", "secagg-enclave")
NAMES = ("first", "second")
SNP, TPM = SnpIssuer(), TpmIssuer()
PLATFORMS: dict[str, Any] = {"first": TPM, "second": SNP}
POOLED = DESCRIBE.replace("per_hub: true", "per_hub: false")
EXACTLY = POOLED.replace("    share: 0.3\n", "")


class Platform:
    def __init__(self, issuer: Any) -> None:
        self._issuer = issuer

    def evidence(self, report_data: bytes) -> tuple[bytes, bytes]:
        return self._issuer.evidence(report_data), write_collateral(self._issuer.collateral())


def people(hub: str, n: int = 200) -> dict[str, list[object]]:
    rng = np.random.default_rng(list(hub.encode()))
    return {
        "age": [float(a) for a in rng.uniform(25, 95, n)],
        "pressure": [float(p) for p in rng.uniform(80, 200, n)],
        "sex": [int(s) for s in rng.integers(0, 2, n)],
        "grade": [str(g) for g in rng.choice(["low", "mid", "high"], n)],
        "ill": [int(i) for i in rng.integers(0, 2, n)],
    }


def planned(mode: str, plan: str = "enclave") -> Agreement:
    base = study(EXACT, EXACTLY) if mode == "exact" else study("budget: {epsilon: 3}", POOLED)
    return under_plan(base, PlanChoice(plan, aggregators=NAMES if plan in PLANS else ()), max_patients=400)


def entropy(name: str) -> Callable[[int], bytes]:
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name}/{count}".encode()).digest(size)

    return draw


def federation(
    folder: Path,
    agreement: Agreement,
    change: Callable[[str, bytes], bytes] = lambda _, raw: raw,
    patients: int = 200,
) -> InProcessFederation:
    """change: what a malicious aggregator, by name, makes of its answers."""
    variables = [v.variable for v in agreement.variables]
    fed = InProcessFederation(folder, {hub: people(hub, patients) for hub in HUBS}, variables)
    policies = {name: write_policy(PLATFORMS[name].policy()) for name in NAMES}
    codes = tuple(ApprovedCode(policy_name(name), policy_digest(raw)) for name, raw in policies.items())
    content = msgspec.structs.replace(fed.roster.content, codes=(*fed.roster.content.codes, *codes))
    fed.roster = Roster(arranged(content), threshold=2, fresh_until=NOW + 80_000)
    fed.now = NOW
    for hub in fed.hubs.values():
        hub.parts.trust.roster = fed.roster  # type: ignore[misc]
        object.__setattr__(hub.parts, "roots", SNP.roots)
        hub.service._gate._roots = SNP.roots
    desks = {name: Desk(name, Platform(PLATFORMS[name]), entropy(name)) for name in NAMES}

    def door(name: str) -> Door:
        return Door(lambda raw: change(name, desks[name].answer(raw)), policies[name])

    fed.runner = Runner(fed.rounds, fed.desk, aggregators=Aggregators({name: door(name) for name in NAMES}))
    return fed


@pytest.mark.requirement("F-SRS-4")
@pytest.mark.parametrize("split", PLANS)
@pytest.mark.parametrize("mode", ["exact", "private"])
def test_a_study_in_enclaves_opens_what_masked_sums_open(tmp_path: Path, mode: str, split: str) -> None:
    found = {}
    for plan in ("secagg", split):
        (tmp_path / plan).mkdir()
        fed = federation(tmp_path / plan, planned(mode, plan))
        found[plan] = fed.run(planned(mode, plan))["results"]["cohort"]["variables"]["age"]
        if plan == split:
            accepted = [
                line.text for line in audit.history(fed.hubs["north"].parts.journal, kinds=("evidence-accepted",))
            ]
            assert [text.split(" of study")[0] for text in accepted] == ["Aggregator first", "Aggregator second"]
            assert "DEVELOPMENT" in accepted[0]
        fed.close()
    if mode == "exact":
        assert found[split] == found["secagg"]
    else:
        assert abs(found[split]["n"]["value"] - 600) < 6 * found[split]["n"]["noise_se"]
        assert found[split]["n"]["noise_se"] == found["secagg"]["n"]["noise_se"]


def stopped(fed: InProcessFederation, agreement: Agreement) -> str:
    """Why the study did not end with a result."""
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner.run(agreement.study)
    for _ in range(4):
        fed.settle()
        fed.runner.tick_all()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert row.state == "stopped"
    assert not [r for r in fed.rounds.rounds(agreement.study) if fed.rounds.total(r.id)]
    return row.why


def charged(fed: InProcessFederation) -> int:
    return sum(
        line.kind == "reserved"
        for hub in fed.hubs.values()
        for line in audit.history(hub.parts.journal, study="heart")
    )


@pytest.mark.parametrize("plan", PLANS)
def test_software_that_the_roster_does_not_approve_gets_nothing_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    agreement = planned("exact", plan)
    fed = federation(tmp_path, agreement)
    foreign = SNP.evidence
    monkeypatch.setattr(SNP, "evidence", lambda data, **more: foreign(data, measurement=b"\x66" * 48, **more))
    why = stopped(fed, agreement)
    assert "second" in why
    assert charged(fed) == 0
    fed.close()


def test_a_policy_that_the_roster_does_not_approve_gets_nothing_and_costs_nothing(tmp_path: Path) -> None:
    agreement = planned("exact")
    fed = federation(tmp_path, agreement)
    content = fed.roster.content
    codes = tuple(c for c in content.codes if c.name != policy_name("second"))
    fed.roster = Roster(
        arranged(msgspec.structs.replace(content, codes=codes)), threshold=2, fresh_until=NOW + 80_000
    )
    for hub in fed.hubs.values():
        hub.parts.trust.roster = fed.roster  # type: ignore[misc]
    assert "code-not-approved" in stopped(fed, agreement)
    assert charged(fed) == 0
    fed.close()


def test_development_evidence_is_refused_for_records_of_real_persons(tmp_path: Path) -> None:
    agreement = msgspec.structs.replace(planned("exact"), simulated=False)
    fed = federation(tmp_path, agreement)
    why = stopped(fed, agreement)
    assert "first" in why
    assert charged(fed) == 0
    fed.close()


@pytest.mark.requirement("NF-SRS-5")
@pytest.mark.parametrize("liar", NAMES)
@pytest.mark.parametrize("plan", PLANS)
def test_a_malicious_aggregator_that_changes_its_total_is_noticed(tmp_path: Path, liar: str, plan: str) -> None:
    def change(name: str, raw: bytes) -> bytes:
        answer = msgspec.msgpack.decode(raw, type=AggregatorAnswer)
        if name != liar or not isinstance(answer, EnclaveTotal):
            return raw
        return msgspec.msgpack.encode(
            msgspec.structs.replace(answer, words=bytes([answer.words[0] ^ 1]) + answer.words[1:])
        )

    agreement = planned("exact", plan)
    fed = federation(tmp_path, agreement, change)
    why = stopped(fed, agreement)
    assert "failed 3 times" in why
    assert liar in why
    fed.close()
