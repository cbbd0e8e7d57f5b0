"""A hub's datasets: imported and frozen; a withdrawn patient is out of everything, and the journal says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flute.cohort.overrides import LeaveOut
from flute.data.variables import Variable
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import NoConsent, NotPossible
from flute.hub.store import HubPolicy
from flute.intake.snapshot import SnapshotSource, snapshot_path
from flute.ledger.audit import history
from flute.ledger.journals.journal import verify
from support.holding_hubs import KEY, HoldingFederation
from support.studies import DESCRIBE, EXACT, PRIVATE, private_model, study

VARIABLES = (
    Variable("age", "number", 20, 100, unit="a"),
    Variable("pressure", "number", 60, 260),
    Variable("sex", "binary"),
    Variable("grade", "category", levels=("low", "mid", "high")),
    Variable("ill", "binary"),
)
HUBS = ("north", "south", "west")
MEN = 120


def table(hub: str, seed: int) -> str:
    chance = np.random.default_rng(seed)
    lines = ["id,age,pressure,sex,grade,ill"]
    for i in range(MEN):
        age, pressure = chance.integers(30, 90), chance.integers(90, 180)
        grade = ("low", "mid", "high")[int(chance.integers(3))]
        lines.append(f"{hub}{i},{age},{pressure},{int(chance.random() < 0.5)},{grade},{int(chance.random() < 0.4)}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[HoldingFederation]:
    policy = HubPolicy(exact_allowed=True, floor=1, max_numbers=100_000)
    made = HoldingFederation(tmp_path, {h: table(h, i) for i, h in enumerate(HUBS)}, VARIABLES, policy)
    yield made
    made.close()


def kinds(federation: HoldingFederation, hub: str) -> list[str]:
    return [line.kind for line in history(federation.hubs[hub].parts.journal)]


def patients(federation: HoldingFederation, hub: str) -> set[str]:
    """Who stands in the hub's dataset now."""
    folder = federation.hubs[hub].folder
    snapshot = federation.hubs[hub].parts.store.dataset("records").snapshot
    return set(SnapshotSource(folder, snapshot).open(VARIABLES[:1]).pseudonyms.tolist())


@pytest.mark.requirement("NF-PIL-11")
def test_a_withdrawn_patient_is_out_of_dataset_private_study_and_later_imports(federation: HoldingFederation) -> None:
    agreement = study(PRIVATE, private_model() + DESCRIBE)
    federation.propose(agreement)
    federation.consent("heart")
    hub, data = federation.hubs["north"], federation.data["north"]
    old = hub.parts.store.study("heart").snapshot
    done = data.withdrawal.withdraw("north7", person="eva", reason="The patient asked for it.")
    assert (done.datasets, done.studies_changed, done.studies_ended) == (("records",), ("heart",), ())
    assert pseudonym(KEY, "north7") not in patients(federation, "north")
    assert len(patients(federation, "north")) == MEN - 1
    assert not snapshot_path(hub.folder, old).exists()
    assert hub.parts.store.study("heart").snapshot == hub.parts.store.dataset("records").snapshot != old
    federation.runner.run("heart")
    federation.settle()
    row = federation.rounds.study("heart")
    assert row is not None
    assert row.state == "finished", row.why
    federation.import_text("north", table("north", 0))
    assert len(patients(federation, "north")) == MEN - 1
    lines = kinds(federation, "north")
    assert lines.index("person-withdrawn") < lines.index("snapshot-replaced") < lines.index("reserved")
    verify(hub.parts.journal.path, hub.parts.signing.public)


def test_an_exact_study_ends_when_one_of_its_patients_is_withdrawn(federation: HoldingFederation) -> None:
    federation.propose(study(EXACT))
    federation.consent("heart")
    done = federation.data["south"].withdrawal.withdraw("south3", person="eva", reason="The patient asked for it.")
    assert done.studies_ended == ("heart",)
    assert federation.hubs["south"].parts.store.study("heart").state == "withdrawn"
    federation.settle()
    row = federation.rounds.study("heart")
    assert row is not None
    assert row.state == "stopped"


def test_what_was_spent_stays_spent_when_a_patient_is_withdrawn(federation: HoldingFederation) -> None:
    federation.run(study(PRIVATE, private_model() + DESCRIBE))
    ledger = federation.hubs["west"].parts.ledger
    from flute.ledger.budgets.budget import Level

    before = ledger.account(Level.STUDY, "heart")
    federation.data["west"].withdrawal.withdraw("west1", person="eva", reason="The patient asked for it.")
    assert ledger.account(Level.STUDY, "heart") == before
    assert before.settled > 0


def test_withdrawing_again_or_a_stranger_changes_nothing_but_is_remembered(federation: HoldingFederation) -> None:
    withdrawal = federation.data["north"].withdrawal
    withdrawal.withdraw("north7", person="eva", reason="The patient asked for it.")
    snapshot = federation.hubs["north"].parts.store.dataset("records").snapshot
    assert withdrawal.withdraw("north7", person="eva", reason="Once more.").datasets == ()
    assert withdrawal.withdraw("newcomer", person="eva", reason="Said so before he came.").datasets == ()
    assert federation.hubs["north"].parts.store.dataset("records").snapshot == snapshot
    federation.import_text("north", table("north", 0) + "newcomer,50,120,1,low,0\n")
    assert len(patients(federation, "north")) == MEN - 1


def test_the_journal_names_no_patient(federation: HoldingFederation) -> None:
    federation.data["north"].withdrawal.withdraw("north7", person="eva", reason="The patient asked for it.")
    raw = federation.hubs["north"].parts.journal.path.read_bytes()
    assert b"north7" not in raw
    assert pseudonym(KEY, "north7").encode() not in raw


def test_an_import_that_shrank_raises_an_alarm_in_the_journal(federation: HoldingFederation) -> None:
    half = "\n".join(table("north", 0).splitlines()[: 1 + MEN // 3]) + "\n"
    federation.import_text("north", half)
    assert "quality-alarm" in kinds(federation, "north")
    federation.import_text("south", table("south", 1))
    assert "quality-alarm" not in kinds(federation, "south")


def test_a_dataset_without_rules_takes_no_decision_by_hand(federation: HoldingFederation) -> None:
    with pytest.raises(NotPossible, match="not made by rules"):
        federation.data["north"].curator.decide("records", LeaveOut("eva", "Looks odd.", pseudonym(KEY, "north7")))


def test_a_study_of_a_patient_withdrawn_before_the_grant_never_held_him(federation: HoldingFederation) -> None:
    federation.propose(study(EXACT))
    federation.data["north"].withdrawal.withdraw("north7", person="eva", reason="The patient asked for it.")
    federation.consent("heart")
    assert federation.hubs["north"].parts.store.study("heart").state == "granted"
    with pytest.raises(NoConsent):
        federation.hubs["north"].steward.decide("heart", grant=True, person="eva")


def test_a_decision_waits_for_no_running_import_but_says_so(federation: HoldingFederation) -> None:
    curator = federation.data["north"].curator
    with curator._alone("records"), pytest.raises(NotPossible, match="is being imported"):
        federation.import_text("north", table("north", 0))
    federation.import_text("north", table("north", 0))
