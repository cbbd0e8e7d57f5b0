"""A hub whose whole machine was restored, its local witness too, is told by the coordinator what it has forgotten."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flute.errors import LedgerError
from flute.ledger.journals.heads import read_head_line, write_head_line
from flute.messages.answer import Refused
from flute.messages.envelope import bodies, open_envelope
from flute.messages.question import RosterFiles
from flute.trust.roster import Roster
from support.inprocess import InProcessFederation
from support.parties import Party
from support.studies import EXACT, MODEL, study

HUB = "north"


@dataclass
class SameRoster:
    """Stands where `hub.trusted.Trust` stands: every file it is handed leaves the roster as it was."""

    roster: Roster
    joined: bool = True

    def update(self, files: object, now: int) -> Roster:
        return self.roster


def people(n: int) -> dict[str, list[Any]]:
    return {
        "age": [40.0 + i % 40 for i in range(n)], "pressure": [100.0 + i % 50 for i in range(n)],
        "sex": [i % 2 for i in range(n)], "grade": [("low", "mid", "high")[i % 3] for i in range(n)],
        "ill": [int(i % 7 < 3) for i in range(n)],
    }  # fmt: skip


@pytest.fixture
def fed(tmp_path: Path) -> InProcessFederation:
    return InProcessFederation(
        tmp_path, {hub: people(90) for hub in ("north", "south", "west")}, [v.variable for v in study().variables]
    )


def handed(fed: InProcessFederation, head: bytes) -> object:
    """What the hub says when the coordinator hands it the roster with this head; None where it says nothing."""
    hub = fed.hubs[HUB]
    object.__setattr__(hub.parts, "trust", SameRoster(fed.roster))
    _, envelope = fed.desk.write(RosterFiles({"root.json": b"{}"}, head), hub=HUB)
    reply = hub.service.reply_to(envelope)
    if reply is None:
        return None
    me = Party("coordinator")
    return open_envelope(
        reply, me="coordinator", roster=fed.roster, accepts=bodies(Refused), now=fed.now, key=me.sealing
    ).body


def rolled_back(fed: InProcessFederation, tmp_path: Path) -> None:
    """A study is granted; then it runs; then the hub's journal of before is put back."""
    agreement = study(EXACT, MODEL)
    fed.propose(agreement)
    fed.consent(agreement.study)
    journal = tmp_path / HUB / "journal.db"
    fed.hubs[HUB].parts.journal.close()
    shutil.copy(journal, tmp_path / "older.db")
    fed.hubs[HUB].parts.store.close()
    fed.hubs[HUB] = fed.open_hub(HUB, fed.hubs[HUB].source.columns)
    fed.runner.run(agreement.study)
    fed.settle()
    fed.hubs[HUB].close()
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (tmp_path / HUB / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "older.db", journal)
    fed.hubs[HUB] = fed.open_hub(HUB, fed.hubs[HUB].source.columns)


def spent(fed: InProcessFederation) -> int:
    return fed.hubs[HUB].parts.ledger.standing("heart").exact_numbers


def test_every_answer_gives_the_coordinator_the_journals_newest_head(fed: InProcessFederation) -> None:
    fed.run(study(EXACT, MODEL))
    for name, hub in fed.hubs.items():
        head = read_head_line(fed.rounds.head(name))
        assert head is not None
        hub.parts.journal.require_head(head)
        assert handed(fed, fed.rounds.head(HUB)) is None


def test_an_older_journal_is_noticed_and_nothing_is_charged_to_it(fed: InProcessFederation, tmp_path: Path) -> None:
    rolled_back(fed, tmp_path)
    assert spent(fed) == 0  # the journal itself is sound, and has forgotten what was spent
    said = handed(fed, fed.rounds.head(HUB))
    assert isinstance(said, Refused)
    assert "older copy" in said.text
    with pytest.raises(LedgerError):
        fed.hubs[HUB].parts.ledger._require_running()


def test_control_without_the_coordinators_word_the_budget_would_be_given_back(
    fed: InProcessFederation, tmp_path: Path
) -> None:
    rolled_back(fed, tmp_path)
    fed.hubs[HUB].parts.ledger._require_running()
    assert spent(fed) == 0


def test_a_head_that_another_hub_signed_proves_nothing(fed: InProcessFederation) -> None:
    fed.run(study(EXACT, MODEL))
    foreign = fed.rounds.head("south")
    said = handed(fed, foreign)
    assert isinstance(said, Refused)
    fed.hubs[HUB].parts.ledger._require_running()  # and stops nothing: else a coordinator could stop every hub


@pytest.mark.parametrize("raw", [b"x", b"{}", b'{"head":-1,"digest":"","signature":""}'])
def test_what_is_no_head_is_refused_and_stops_nothing(fed: InProcessFederation, raw: bytes) -> None:
    assert isinstance(handed(fed, raw), Refused)
    fed.hubs[HUB].parts.ledger._require_running()


def test_the_coordinator_keeps_the_newest_head_whatever_order_they_come_in(fed: InProcessFederation) -> None:
    fed.run(study(EXACT, MODEL))
    newest = read_head_line(fed.rounds.head(HUB))
    assert newest is not None
    older = newest._replace(number=newest.number - 1)
    fed.rounds.keep_head(HUB, older.number, write_head_line(older))
    assert read_head_line(fed.rounds.head(HUB)) == newest
