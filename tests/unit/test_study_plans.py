"""One study under every plan: the same road, gate and ledger; what opens is the same but for the plan's error."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flute.coordinator import turns
from flute.coordinator.plans import relay
from flute.coordinator.plans.relay import TalkRelay
from flute.errors import StudyFileError
from flute.hub.doors.status import study_view
from flute.hub.service import HubService
from flute.ledger import audit
from flute.messages.answer import Refused
from flute.messages.question import EncryptedQuestion, JointQuestion, OpeningCall
from flute.messages.talk import Heard
from flute.study.agreement import Agreement, PlanChoice
from flute.study.files.check import check_study
from support.inprocess import InProcessFederation
from support.studies import DESCRIBE, EXACT, study, under_plan

HUBS = ("north", "south", "west")
POOLED = DESCRIBE.replace("per_hub: true", "per_hub: false")
EXACTLY = POOLED.replace("    share: 0.3\n", "")
PLANS = ("secagg", "mpc", "threshold-he")


def people(hub: str, n: int) -> dict[str, list[object]]:
    rng = np.random.default_rng(list(hub.encode()))
    return {
        "age": [float(a) for a in rng.uniform(25, 95, n)],
        "pressure": [float(p) for p in rng.uniform(80, 200, n)],
        "sex": [int(s) for s in rng.integers(0, 2, n)],
        "grade": [str(g) for g in rng.choice(["low", "mid", "high"], n)],
        "ill": [int(i) for i in rng.integers(0, 2, n)],
    }


def planned(plan: str, mode: str = "exact", **choice: Any) -> Agreement:
    base = study(EXACT, EXACTLY) if mode == "exact" else study("budget: {epsilon: 3}", POOLED)
    return under_plan(base, PlanChoice(plan, **choice), max_patients=400)


def federation(folder: Path, agreement: Agreement) -> InProcessFederation:
    variables = [v.variable for v in agreement.variables]
    return InProcessFederation(folder, {hub: people(hub, 300) for hub in HUBS}, variables)


def figures(found: Any) -> list[float]:
    """Every number of a result, in order."""
    if isinstance(found, dict):
        return [v for key in sorted(found) for v in figures(found[key])]
    if isinstance(found, list):
        return [v for item in found for v in figures(item)]
    return [float(found)] if isinstance(found, int | float) and not isinstance(found, bool) else []


@pytest.mark.requirement("F-SRS-4")
@pytest.mark.requirement("NF-PIL-5")
@pytest.mark.parametrize("plan", PLANS[1:])
def test_exact_results_are_those_of_masked_sums_within_the_plans_error(tmp_path: Path, plan: str) -> None:
    results = {}
    for name in ("secagg", plan):
        folder = tmp_path / name
        folder.mkdir()
        fed = federation(folder, planned(name))
        results[name] = figures(fed.run(planned(name))["results"])
        fed.close()
    within = 1e-9 if plan == "mpc" else 1e-5  # encrypted sums have fewer digits: 2^-15 of a unit per hub and sum
    assert len(results[plan]) == len(results["secagg"]) > 50
    assert np.allclose(results[plan], results["secagg"], rtol=within, atol=within)


@pytest.mark.parametrize("plan", PLANS)
def test_private_results_are_charged_and_noised_alike_under_every_plan(tmp_path: Path, plan: str) -> None:
    agreement = planned(plan, "private")
    fed = federation(tmp_path, agreement)
    release = fed.run(agreement)
    count = release["results"]["cohort"]["variables"]["age"]["n"]
    assert abs(count["value"] - 900) < 6 * count["noise_se"]
    assert count["value"] != 900
    receipt = release["receipts"][0]
    assert receipt["rho"] == check_study(agreement).prices["cohort"][0].rho > 0
    assert sorted(j["hub"] for j in receipt["journal"]) == sorted(HUBS)
    for hub in fed.hubs.values():
        kinds = [line.kind for line in audit.history(hub.parts.journal, study="heart")]
        assert (kinds.count("reserved"), kinds.count("released"), kinds.count("settled")) == (1, 1, 1)
    fed.close()


def asked(plan: str, agreement: Agreement, fed: InProcessFederation) -> Any:
    """A question under `plan`, as a coordinator would put it."""
    row = fed.rounds.study(agreement.study)
    assert row is not None
    if plan == "mpc":
        return JointQuestion(row.digest, "cohort", 0, 0, b"", 1)
    return EncryptedQuestion(row.digest, "cohort", 0, 0, b"", 1, bytes(32))


@pytest.mark.parametrize(("agreed", "used"), [("secagg", "mpc"), ("secagg", "threshold-he"), ("mpc", "threshold-he")])
def test_a_coordinator_cannot_ask_under_another_plan_than_was_agreed(tmp_path: Path, agreed: str, used: str) -> None:
    agreement = planned(agreed)
    fed = federation(tmp_path, agreement)
    fed.propose(agreement)
    fed.consent(agreement.study)
    before = list(fed.hubs["north"].source.opened)
    _, envelope = fed.desk.write(asked(used, agreement, fed), hub="north", study=agreement.study)
    reply = fed.hubs["north"].service.reply_to(envelope)
    assert reply is not None
    refused = fed.desk.open(reply).body
    assert isinstance(refused, Refused)
    assert refused.code == "wrong-study"
    assert fed.hubs["north"].source.opened == before
    fed.close()


@pytest.mark.parametrize("mode", ["private", "exact"])
def test_the_key_of_a_study_is_the_same_at_every_hub_and_can_be_compared_by_phone(tmp_path: Path, mode: str) -> None:
    agreement = planned("threshold-he", mode)
    fed = federation(tmp_path, agreement)
    fed.propose(agreement)
    assert study_view(fed.hubs["north"].parts, "heart")["key"] == {"openers": 2, "hubs": list(HUBS), "made": False}
    fed.consent(agreement.study)
    seen: set[str] = set()
    fed.runner.run(agreement.study)
    while not seen and fed_step(fed):
        keys = [study_view(hub.parts, "heart")["key"] for hub in fed.hubs.values()]
        if all(key["made"] for key in keys):
            seen = {key["fingerprint"] for key in keys}
    assert len(seen) == 1
    fed.close()


def fed_step(fed: InProcessFederation) -> bool:
    """One message to every hub, one to the coordinator."""
    moved = False
    for hub in fed.hubs.values():
        if (delivery := hub.parts.channel.receive(0)) is not None:
            hub.service.deal(delivery)
            moved = True
    while (delivery := fed.channel.receive(0)) is not None:
        fed.runner.receive(delivery.body)
        fed.channel.done(delivery)
        moved = True
    return moved


@pytest.mark.parametrize(
    ("plan", "choice", "says"),
    [
        ("mpc", {"colluding": 2}, "at most"),
        ("threshold-he", {"openers": 1}, "openers: 2"),
        ("threshold-he", {"dropouts": 1}, "dropouts: 0"),
        ("enclave", {"aggregators": ("snp",)}, "at least two"),
        ("enclave", {"aggregators": ("snp", "snp")}, "at least two"),
        ("secagg", {"openers": 2}, "belongs to plan threshold-he"),
        ("mpc", {"aggregators": ("snp", "tdx")}, "belongs to plan enclave"),
        ("mpc", {"echo": False}, "belongs to plan secagg"),
    ],
)
def test_what_a_plan_cannot_do_is_refused_with_what_to_write(plan: str, choice: dict[str, Any], says: str) -> None:
    with pytest.raises(StudyFileError, match=says):
        check_study(planned(plan, "private", **choice))


def test_an_agreement_that_promises_something_else_is_refused() -> None:
    told = planned("mpc")
    with pytest.raises(StudyFileError, match="promises something else"):
        check_study(msgspec.structs.replace(told, guarantees=planned("secagg").guarantees))


def test_encrypted_totals_that_could_not_be_found_are_refused_with_how_many_patients_would_do() -> None:
    wide = msgspec.structs.replace(planned("threshold-he", "private"), max_patients=1_000_000)
    with pytest.raises(StudyFileError, match="max_patients: ") as refused:
        check_study(wide)
    most = int(refused.value.text.split("'max_patients: ")[1].split("'")[0])
    assert most > 1_000
    check_study(msgspec.structs.replace(wide, max_patients=most))


# --- what goes wrong on the way -------------------------------------------------------------------------


def lost(fed: InProcessFederation, hub: str, kind: type, after: int = 0) -> None:
    """`hub` dies when its message of this kind, number `after`, arrives: it is restarted, and the message is lost."""
    tag, count = str(kind.__struct_config__.tag), 0

    def dealing(delivery: Any) -> None:
        nonlocal count
        is_it = tag.encode() in delivery.body[:400]
        count += is_it
        if is_it and count == after + 1:
            fed.hubs[hub].parts.channel.done(delivery)
            fed.restart_hub(hub)
        else:
            HubService.deal(fed.hubs[hub].service, delivery)

    fed.hubs[hub].service.deal = dealing  # type: ignore[method-assign]


def finished(fed: InProcessFederation, agreement: Agreement) -> Any:
    for _ in range(400):
        fed.settle()
        row = fed.rounds.study(agreement.study)
        assert row is not None
        if row.state in ("finished", "stopped"):
            return row
        time.sleep(0.02)
        fed.runner.tick_all()
    raise AssertionError(f"the study is still {row.state}")


@pytest.mark.parametrize(
    ("plan", "kind", "after"),
    [
        *[("mpc", Heard, step) for step in (0, 1, 3, 6)],
        *[("threshold-he", Heard, step) for step in (0, 1, 2)],
        ("threshold-he", OpeningCall, 0),
    ],
)
def test_a_hub_that_dies_at_any_step_costs_a_round_and_not_the_study(
    tmp_path: Path, plan: str, kind: type, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ASK_AGAIN_S", 0.2)
    monkeypatch.setattr(relay, "AGAIN_S", 0.2)
    monkeypatch.setattr(turns, "STRAGGLER_S", 0.2)
    agreement = planned(plan)
    fed = federation(tmp_path, agreement)
    fed.propose(agreement)
    fed.consent(agreement.study)
    lost(fed, "south", kind, after)
    fed.runner.run(agreement.study)
    row = finished(fed, agreement)
    assert row.state == "finished", row.why
    states = [r.state for r in fed.rounds.rounds(agreement.study)]
    assert states.count("opened") == 1
    fed.close()


@pytest.mark.parametrize("plan", ["mpc", "threshold-he"])
def test_a_coordinator_that_dies_while_hubs_talk_asks_anew(tmp_path: Path, plan: str) -> None:
    agreement = planned(plan)
    fed = federation(tmp_path, agreement)
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner.run(agreement.study)
    for _ in range(3):
        fed_step(fed)
    fed.open_coordinator()
    row = finished(fed, agreement)
    assert row.state == "finished", row.why
    fed.close()


@pytest.mark.requirement("NF-SRS-5")
def test_a_coordinator_that_changes_what_hubs_say_to_each_other_gets_no_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreement = planned("mpc")
    fed = federation(tmp_path, agreement)
    fed.propose(agreement)
    fed.consent(agreement.study)
    hand_over = TalkRelay._hand_over

    def changed(self: TalkRelay) -> None:
        if self.step == 4:
            said = self._said["north"]
            box = said.boxes["south"]
            self._said["north"] = msgspec.structs.replace(
                said, boxes=said.boxes | {"south": bytes([box[0] ^ 1]) + box[1:]}
            )
        hand_over(self)

    monkeypatch.setattr(TalkRelay, "_hand_over", changed)
    fed.runner.run(agreement.study)
    row = finished(fed, agreement)
    assert row.state == "stopped"
    assert "does not open" in row.why
    assert not [r for r in fed.rounds.rounds(agreement.study) if fed.rounds.total(r.id)]
    fed.close()
