"""A real hub process and the commands that its steward types about budget, policy, export and an older copy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flute.cli.app import APP
from flute.errors import Answered, FluteError, PeerUnreachable
from flute.hub.doors.client import HubClient
from flute.hub.home import HubHome
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.store import DatasetEntry, HubStore, StudyEntry
from flute.hub.witness import open_journal
from flute.ledger.budgets.budget import Ledger
from flute.ledger.journals.journal import Journal
from flute.ledger.lines.entries import ConsentGranted
from flute.local.processes import Service
from flute.study.agreement import agreement_digest, write_agreement
from flute.trust.keyfiles import load_party_keys
from support.ledger_faults import charge
from support.studies import DESCRIBE, PRIVATE, study

AGREEMENT = study(PRIVATE, DESCRIBE)
pytestmark = [
    pytest.mark.requirement("F-SRS-7"),
    pytest.mark.requirement("F-SRS-8"),
    pytest.mark.requirement("URS-10"),
]


def typed(*words: str | Path) -> str:
    """What a command says; its refusal in the hub's own words."""
    result = CliRunner().invoke(APP, [str(word) for word in words])
    if isinstance(result.exception, FluteError):
        return result.exception.text
    assert result.exit_code == 0, result.output
    return result.output


@dataclass
class RealHub:
    folder: Path
    service: Service | None = None

    def start(self) -> None:
        self.service = Service("hub", ["hub", "serve", str(self.folder)], self.folder.parent / "hub.log")
        self.service.wait_until(self.answers, 60.0)

    def answers(self) -> bool:
        try:
            with HubClient(self.folder) as door:
                door.get("/policy")
        except (PeerUnreachable, Answered):
            return False
        return True

    def stop(self) -> None:
        if self.service is not None:
            self.service.kill()
            self.service = None

    def grant(self) -> None:
        """A granted study in the store and the journal, as if it had come through the coordinator."""
        store, raw = HubStore(self.folder), write_agreement(AGREEMENT)
        store.put_dataset(DatasetEntry(AGREEMENT.dataset, bytes(32), (), {"rows": 0}, 1, True))
        store.put_study(
            StudyEntry(AGREEMENT.study, raw, agreement_digest(raw), b"", "granted", bytes(32), True, 1, 1)
        )
        key = load_party_keys(self.folder / "keys").signing
        with Journal.open(self.folder / "journal.db", key) as journal:
            journal.append(ConsentGranted(AGREEMENT.study, bytes(32), bytes(32), "eva"), 1)
        store.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    folder = tmp_path_factory.mktemp("real") / "hub"
    typed("hub", "init", folder, "--name", "huvh")
    for person in ("eva", "berta"):
        keys = folder.parent / person
        typed("person", "init", keys, "--name", person, "--card", folder.parent / f"{person}.card")
    hub = RealHub(folder)
    hub.grant()
    hub.start()
    yield hub
    hub.stop()


def test_allotments_are_set_and_moved_by_command(hub: RealHub) -> None:
    name, asker = AGREEMENT.study, AGREEMENT.researcher
    half = str(AGREEMENT.epsilon / 2)
    set_ = typed("ledger", "allot", hub.folder, f"{name}/{asker}", "--epsilon", half, "--person", "eva")
    assert f"Allotted to researcher {name}/{asker}: rho" in set_
    question = f"{name}/{asker}/{AGREEMENT.questions[0].id}"
    typed("ledger", "allot", hub.folder, question, "--epsilon", "0.1", "--person", "eva")
    refused = typed("ledger", "allot", hub.folder, name, "--epsilon", "50", "--person", "eva")
    assert f"is the most for study {name}" in refused
    assert "is left" in typed(
        "ledger", "move", hub.folder, question, f"{name}/{asker}", "--epsilon", "0.5", "--person", "eva"
    )
    assert "asks, nobody else" in typed("ledger", "allot", hub.folder, f"{name}/joan", "--person", "eva")
    assert "was not agreed with a question" in typed(
        "ledger", "allot", hub.folder, f"{name}/{asker}/other", "--person", "eva"
    )
    assert "is no STUDY" in typed("ledger", "allot", hub.folder, "No Study", "--person", "eva")
    assert f"Allotted to question {question}" in typed("ledger", "show", hub.folder)


def test_more_takes_two_stewards_whose_keys_may_be_elsewhere(hub: RealHub) -> None:
    away = hub.folder.parent
    assert "needs two stewards" in typed("hub", "policy", hub.folder, "--person", "eva", "--epsilon", "5")
    for person in ("eva", "berta"):
        typed("hub", "steward", hub.folder, away / f"{person}.card", "--person", "eva")
    assert "berta: " in typed("hub", "steward", hub.folder, "--person", "eva")
    own = ("--person", "eva", "--keys", away / "eva")
    said = typed("hub", "policy", hub.folder, "--epsilon", "5", *own)
    change = re.findall(r"Change ([0-9a-f]{12}) waits", said)[0]
    assert "is berta's, not eva's" in typed(
        "hub", "policy", hub.folder, "--epsilon", "6", "--person", "eva", "--keys", away / "berta"
    )
    assert "another steward has to confirm" in typed("hub", "confirm", hub.folder, change, "--keys", away / "eva")
    typed("hub", "changes", hub.folder, change, "--out", away / "change.json")
    signed = away / "berta.confirmed"
    typed("hub", "sign-change", away / "change.json", "--keys", away / "berta", "--out", signed, "--yes")
    assert "took effect" in typed("hub", "confirm", hub.folder, "--signed", signed)
    assert "epsilon at most 5 a study" in typed("hub", "status", hub.folder)
    assert "before; propose it anew" in typed("hub", "confirm", hub.folder, "--signed", signed)
    dropped = re.findall(r"Change ([0-9a-f]{12})", typed("hub", "policy", hub.folder, "--epsilon", "9", *own))[0]
    typed("hub", "drop-change", hub.folder, dropped, "--person", "berta")
    assert typed("hub", "changes", hub.folder) == "Nothing waits.\n"
    typed("hub", "policy", hub.folder, "--person", "eva", "--epsilon", "2")  # less: one is enough
    told = typed("audit", "show", hub.folder)
    for words in ("eva enrolled steward berta", "eva proposed change", "berta confirmed change", "eva allotted"):
        assert words in told


def test_somebody_else_counts_the_budget_again_from_an_export(hub: RealHub, tmp_path: Path) -> None:
    out = tmp_path / "huvh.ndjson"
    said = json.loads(typed("audit", "export", hub.folder, "--out", out, "--format", "json"))
    checked = json.loads(typed("audit", "verify", out, "--key", said["key"], "--format", "json"))
    assert (checked["lines"], checked["head"]) == (said["lines"], said["head"])
    counted: dict[str, Any] = json.loads(typed("audit", "budget", out, "--key", said["key"], "--format", "json"))
    with HubClient(hub.folder) as door:
        here = door.get("/ledger")["tally"]
    assert {part: counted[part] for part in here} == here
    receipt = f"{said['lines']}:{said['head']}"
    assert "lines hold" in typed("audit", "budget", out, "--key", said["key"], "--expected", receipt)
    assert "a receipt of line" in typed(
        "audit", "verify", out, "--key", said["key"], "--expected", f"{said['lines'] + 1}:{said['head']}"
    )
    for wrong in ("zz", "00"):
        assert "64 hexadecimal letters" in typed("audit", "budget", out, "--key", wrong)
    assert "LINE:DIGEST" in typed("audit", "verify", out, "--key", said["key"], "--expected", "x")
    assert "All" in typed("audit", "verify", hub.folder)


def test_an_older_copy_is_gone_on_from_by_command_and_costs_everything(tmp_path: Path) -> None:
    """The hub's start is played: it opens its journal as `hub.process` does."""
    folder = tmp_path / "hub"
    typed("hub", "init", folder, "--name", "huvh")

    def start(*numbers: int) -> None:
        store = HubStore(folder)
        try:
            with open_journal(HubHome(folder), load_party_keys(folder / "keys").signing, store) as journal:
                ledger = Ledger(journal, hub_ceilings(store.policy()))
                for number in numbers:
                    ledger.reserve(charge(number, rho=0.01), now=1)
        finally:
            store.close()

    start(1, 2)
    assert str(tmp_path / "hub.witness") in typed("hub", "witness", folder)
    shutil.copytree(folder, tmp_path / "backup")
    start(3)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    with pytest.raises(FluteError, match="flute hub recover"):
        start(4)
    said = typed("hub", "recover", folder, "--person", "eva", "--reason", "disk failed")
    assert "counts as having spent all" in said
    with pytest.raises(FluteError, match="is left for"):
        start(4)
    assert "no older copy" in typed("hub", "recover", folder, "--person", "eva", "--reason", "again")
    assert "went on from an older copy" in typed("audit", "show", folder)


def test_what_is_no_change_is_not_signed(tmp_path: Path) -> None:
    typed("hub", "init", tmp_path / "hub", "--name", "huvh")
    assert "is no change" in typed("hub", "sign-change", tmp_path / "hub" / "hub.json", "--keys", "k", "--out", "o")
