"""The budget counted again from an export, by somebody who has the hub's public key and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from flute.errors import JournalBroken, LedgerError
from flute.ledger import audit
from flute.ledger.budgets.budget import Amount, Ceiling, Ledger, Level, Place, Policy
from flute.ledger.journals.journal import Journal, Position
from flute.ledger.lines.budget import JournalRecovered
from flute.ledger.lines.entries import PersonAct, Reserved
from flute.ledger.recount import recount, tally
from flute.primitives.keys import SigningKey
from support.ledger_faults import KEY, charge

pytestmark = [pytest.mark.requirement("F-SRS-8"), pytest.mark.requirement("URS-10")]
OVER = [
    Ceiling(level, Policy(2.0, 1e-6, 100, exact_allowed=True, mixed=True)) for level in (Level.STUDY, Level.PERSONS)
]


def written(folder: Path, journal: Journal) -> Path:
    path = folder / "export.ndjson"
    with path.open("wb") as file:
        audit.export(journal, file)
    return path


def busy(journal: Journal) -> Ledger:
    """Private and exact charges, some open, allotments that were moved, and lines that are about none of it."""
    ledger = Ledger(journal, OVER)
    journal.append(PersonAct("eva", "opened-page", "x"), now=1)
    for study in ("s1", "s2"):
        ledger.allot(Place(study), "records", Amount(0.7, 1e-8, 40), person="eva", reason="", now=1)
    ledger.move(Place("s1"), Place("s2"), Amount(0.1, 1e-9, 3), person="eva", reason="", now=2)
    for number, rho in enumerate((0.1, 0.2, 1 / 3)):
        taken = ledger.reserve(charge(number, study="s1" if number else "s2", rho=rho), now=3)
        if number:
            ledger.settle(taken, "aborted", now=4)
    exact = msgspec.structs.replace(charge(9), mode="exact", rho=0.0, delta=0.0, numbers=7)
    ledger.settle(ledger.reserve(exact, now=5), "released", now=6)
    return ledger


def test_a_recount_agrees_with_the_hub_to_the_last_digit(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.db", KEY) as journal:
        ledger = busy(journal)
        found = recount(written(tmp_path, journal), KEY.public, journal.last)
        assert found.tally == tally(ledger)
        assert found.verified.position == journal.last
    by_name = {(a["level"], a["name"]): a for a in found.tally["accounts"]}
    assert by_name["study", "s1"]["rho_settled"] == pytest.approx(0.2 + 1 / 3)
    assert by_name["study", "s2"]["rho_reserved"] == 0.1
    assert by_name["persons", "records"]["unbounded"]
    assert found.tally["open"] == 1
    assert [a["name"] for a in found.tally["allotments"]] == ["s1", "s2"]


def test_what_a_lost_journal_may_have_charged_is_counted_as_well(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.db", KEY) as journal:
        journal.append(Reserved(charge(1)), now=1)
        lost = Amount(1.0, 1e-8, 0)
        journal.append(JournalRecovered("eva", 1, 8, bytes(32), lost, lost, "disk failed"), now=2)
        found = recount(written(tmp_path, journal), KEY.public)
        assert found.tally == tally(Ledger(journal, OVER))
    assert {
        a["name"]: a["rho_reserved"] + a["rho_settled"] for a in found.tally["accounts"] if a["level"] == "study"
    } == {"s1": 1.0}


def test_a_recount_of_a_changed_export_gives_no_figure(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.db", KEY) as journal:
        busy(journal)
        path = written(tmp_path, journal)
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"kind":"reserved"' in line)
    path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
    with pytest.raises(JournalBroken, match="dropped"):
        recount(path, KEY.public)
    with pytest.raises(JournalBroken, match="another hub"):
        recount(path, SigningKey(b"t" * 32).public)


def test_a_recount_of_an_older_export_is_refused_where_a_receipt_is_newer(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.db", KEY) as journal:
        ledger = busy(journal)
        path = written(tmp_path, journal)
        receipt = ledger.reserve(charge(50, rho=0.01), now=9).position
    assert recount(path, KEY.public).tally != tally(ledger)
    with pytest.raises(JournalBroken, match="an older copy"):
        recount(path, KEY.public, Position(receipt.line, receipt.digest))


def test_charges_that_make_no_sense_give_no_figure(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.db", KEY) as journal:
        journal.append_all([Reserved(charge(1)), Reserved(charge(1))], now=1)
        with pytest.raises(LedgerError, match="Line 2"):
            recount(written(tmp_path, journal), KEY.public)
