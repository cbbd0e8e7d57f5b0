"""An older copy of the journal is put in place, so that what was spent since could be spent again.

Each attack is shown to work where nothing outside the copied files remembers, and to be noticed where the witness
does. A restored copy is noticed before anything is answered.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from flute.errors import BadSignature, BudgetExceeded, JournalBroken, LedgerError, Malformed, NotPossible
from flute.ledger import audit
from flute.ledger.budgets.budget import Charge, Ledger, Level
from flute.ledger.journals.chain import Head
from flute.ledger.journals.heads import parse_head, write_head_line
from flute.ledger.journals.journal import Journal
from flute.ledger.journals.witness import FileWitness
from flute.ledger.lines.entries import PersonAct
from flute.ledger.recovery import recover
from flute.primitives.keys import SigningKey
from support.ledger_faults import KEY, OVER, Promises, check, open_ledger
from support.ledger_faults import charge as priced

pytestmark = [pytest.mark.requirement("F-SRS-8"), pytest.mark.requirement("URS-10")]
PRICE = 1 / 64
"""16 of them fill a study."""
THIEF = SigningKey(b"t" * 32)
Copy = Callable[[Path, Path], None]


def charge(number: int, study: str = "s1") -> Charge:
    return priced(number, study=study, rho=PRICE)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "hub"
    place.mkdir()
    spend(place, range(4))
    return place


def spend(home: Path, numbers: range, *, witnessed: bool = True) -> None:
    journal, ledger = open_ledger(home, witnessed=witnessed)
    with journal:
        for number in numbers:
            ledger.settle(ledger.reserve(charge(number), now=number), "released", number)


def witness(home: Path) -> FileWitness:
    return FileWitness(home.parent / "hub.witness" / "head")


def whole_folder(home: Path, to: Path) -> None:
    shutil.copytree(home, to)


def database_alone(home: Path, to: Path) -> None:
    to.mkdir()
    shutil.copy(home / "journal.db", to / "journal.db")


def with_its_log(home: Path, to: Path) -> None:
    """While the hub runs: the newest lines are in the log beside the database."""
    journal, ledger = open_ledger(home)
    with journal:
        ledger.reserve(charge(90), now=9)
        database_alone(home, to)
        assert (home / "journal.db-wal").stat().st_size > 0
        shutil.copy(home / "journal.db-wal", to / "journal.db-wal")


def without_its_log(home: Path, to: Path) -> None:
    """The same, but the log was forgotten: a copy that never was a whole backup."""
    journal, ledger = open_ledger(home)
    with journal:
        ledger.reserve(charge(90), now=9)
        database_alone(home, to)


COPIES: list[Copy] = [whole_folder, database_alone, with_its_log, without_its_log]


def put_back(copy: Path, home: Path) -> None:
    shutil.rmtree(home)
    shutil.copytree(copy, home)


@pytest.mark.parametrize("copy", COPIES, ids=lambda copy: copy.__name__)
def test_a_restored_copy_is_refused_while_the_witness_is_newer(home: Path, copy: Copy) -> None:
    copy(home, home.parent / "backup")
    spend(home, range(10, 14))
    put_back(home.parent / "backup", home)
    with pytest.raises(JournalBroken, match=r"an older copy was put in its place.*flute hub recover"):
        open_ledger(home)


@pytest.mark.parametrize("copy", COPIES, ids=lambda copy: copy.__name__)
def test_without_the_witness_the_same_copy_spends_the_budget_twice(home: Path, copy: Copy) -> None:
    """The control: the copy is sound in itself."""
    copy(home, home.parent / "backup")
    spend(home, range(10, 14))
    answered = 8
    put_back(home.parent / "backup", home)
    shutil.rmtree(home.parent / "hub.witness")
    journal, ledger = open_ledger(home, witnessed=False)
    with journal:
        more = _until_refused(ledger)
    assert (answered + more) * PRICE > 0.25, "more was answered out of the study's budget than there was"


def _until_refused(ledger: Ledger) -> int:
    number = 20
    with contextlib.suppress(BudgetExceeded):
        while True:
            ledger.reserve(charge(number), now=number)
            number += 1
    return number - 20


def test_a_copy_that_was_written_on_is_refused_by_a_head_it_lacks(home: Path) -> None:
    whole_folder(home, home.parent / "backup")
    spend(home, range(10, 14))
    put_back(home.parent / "backup", home)
    spend(home, range(30, 40), witnessed=False)  # longer than the true one: only the digest tells
    with pytest.raises(JournalBroken, match="written on"):
        open_ledger(home)


def test_a_lost_journal_is_not_begun_anew(home: Path) -> None:
    shutil.rmtree(home)
    home.mkdir()
    with pytest.raises(JournalBroken, match="an older copy"):
        open_ledger(home)


def test_a_witness_that_was_taken_away_is_missed(home: Path) -> None:
    shutil.rmtree(home.parent / "hub.witness")
    with pytest.raises(LedgerError, match="is gone"):
        open_ledger(home)


def test_an_older_witness_hides_nothing_that_it_knows(home: Path) -> None:
    """An older copy of both is beyond a local witness; that is what a head kept by the coordinator is for."""
    shutil.copytree(home.parent / "hub.witness", home.parent / "older.witness")
    whole_folder(home, home.parent / "backup")
    spend(home, range(10, 14))
    with Journal.open(home / "journal.db", KEY, witness=witness(home)) as journal:
        kept_by_the_coordinator = journal.signed_head()
    put_back(home.parent / "backup", home)
    shutil.rmtree(home.parent / "hub.witness")
    (home.parent / "older.witness").rename(home.parent / "hub.witness")
    journal, ledger = open_ledger(home)  # not noticed by itself
    with journal:
        with pytest.raises(JournalBroken, match="an older copy"):
            ledger.witnessed(kept_by_the_coordinator)
        with pytest.raises(LedgerError, match="an older copy"):  # from now on nothing is paid for
            ledger.reserve(charge(50), now=50)
    with pytest.raises(JournalBroken, match="an older copy"):  # and a restart does not forget
        open_ledger(home)


def test_heads_that_are_in_the_journal_stop_nothing(home: Path) -> None:
    journal, ledger = open_ledger(home)
    with journal:
        before = journal.signed_head()
        ledger.reserve(charge(50), now=50)
        ledger.witnessed(before)
        ledger.witnessed(journal.signed_head())
        ledger.reserve(charge(51), now=51)


def test_a_head_travels_as_a_line_and_anything_else_is_no_head(home: Path) -> None:
    journal, ledger = open_ledger(home)
    with journal:
        raw = write_head_line(journal.signed_head())
        assert len(raw) < 512
        ledger.witnessed(parse_head(raw))
        for bad in (b"", b"{}", raw + b" ", raw[:-1], raw.replace(b'"head":', b'"head":-')):
            with pytest.raises(Malformed):
                parse_head(bad)


def test_nobody_else_can_make_the_hub_believe_in_lines_it_never_wrote(home: Path) -> None:
    with Journal.open(home.parent / "other.db", THIEF) as theirs:
        theirs.append_all([PersonAct("eva", "opened-page", "x")] * 50, now=1)
        forged = theirs.signed_head()
    journal, ledger = open_ledger(home)
    with journal:
        for head in (forged, Head(99, forged.digest, bytes(64))):
            with pytest.raises(BadSignature):
                ledger.witnessed(head)
        ledger.reserve(charge(50), now=50)


def test_a_torn_write_of_the_witness_leaves_the_head_before_it(home: Path) -> None:
    path = home.parent / "hub.witness" / "head"
    newest = max(witness(home).heads(KEY.public))
    raw = bytearray(path.read_bytes())
    at = raw.index(b'{"head":%d,' % newest.number)
    raw[at + 40 : at + 60] = bytes(20)
    path.write_bytes(raw)
    (before,) = witness(home).heads(KEY.public)
    assert before.number == newest.number - 1
    open_ledger(home)[0].close()


@pytest.mark.parametrize("content", [b"garbage" * 200, b'{"head":1}' + bytes(1526)])
def test_a_damaged_witness_stops_the_hub(home: Path, content: bytes) -> None:
    (home.parent / "hub.witness" / "head").write_bytes(content)
    with pytest.raises(LedgerError, match="holds no head of this hub"):
        open_ledger(home)


def test_a_copy_of_the_hub_that_runs_elsewhere_is_noticed_at_its_next_line(home: Path) -> None:
    shutil.copytree(home, home.parent / "clone" / "hub")
    here, ours = open_ledger(home)
    there = Journal.open(home.parent / "clone" / "hub" / "journal.db", KEY, witness=witness(home))
    theirs = Ledger(there, OVER)
    with here, there:
        theirs.reserve(charge(60), now=60)
        theirs.reserve(charge(61), now=61)
        with pytest.raises(LedgerError, match="a copy of this hub runs elsewhere"):
            ours.reserve(charge(62), now=62)


# --- going on, knowingly -----------------------------------------------------------------------------


def rolled_back(home: Path) -> tuple[bytes, int]:
    """An export of the true journal and its length; an older copy is in its place."""
    whole_folder(home, home.parent / "backup")
    spend(home, range(10, 14))
    file = io.BytesIO()
    with Journal.open(home / "journal.db", KEY, witness=witness(home)) as journal:
        audit.export(journal, file)
        lines = journal.last.line
    put_back(home.parent / "backup", home)
    return file.getvalue(), lines


def test_what_an_export_has_is_put_back_and_nothing_is_charged_for_it(home: Path) -> None:
    export, lines = rolled_back(home)
    path = home.parent / "export.ndjson"
    path.write_bytes(export)
    found = recover(
        home / "journal.db", KEY, witness(home), OVER, person="eva", reason="disk failed", now=99, export=path
    )
    assert (found.brought_back, found.charged, found.position.line) == (8, False, lines)
    assert len(check(home, Promises())) == 8


def test_what_stays_unknown_counts_as_spent(home: Path) -> None:
    rolled_back(home)
    found = recover(home / "journal.db", KEY, witness(home), OVER, person="eva", reason="disk failed", now=99)
    assert (found.brought_back, found.charged) == (0, True)
    journal, ledger = open_ledger(home)
    with journal:
        for study in ("s1", "s2", "never asked before"):
            assert ledger.account(Level.STUDY, study).left == 0
        assert ledger.account(Level.PERSONS, "records").left == 0
        assert ledger.account(Level.PERSONS, "another dataset").left == 0
        with pytest.raises(BudgetExceeded):
            ledger.reserve(charge(70, "s3"), now=100)
        more = [type(c)(c.level, type(c.policy)(c.policy.rho + PRICE, 1e-3)) for c in OVER]
        ledger.set_ceilings(more)  # what two people may decide
        ledger.reserve(charge(70, "s3"), now=100)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(charge(71, "s3"), now=100)
    standing = open_ledger(home)
    with standing[0]:
        account = standing[1].account(Level.STUDY, "s1")
        assert Fraction(account.reserved) + Fraction(account.settled) == Fraction(0.25)


def test_heads_of_the_lost_part_are_accounted_for_and_later_ones_are_not(home: Path) -> None:
    whole_folder(home, home.parent / "backup")
    journal, ledger = open_ledger(home)
    with journal:
        heads = []
        for number in range(10, 14):
            ledger.reserve(charge(number), now=number)
            heads.append(journal.signed_head())
    put_back(home.parent / "backup", home)
    recover(home / "journal.db", KEY, witness(home), OVER, person="eva", reason="disk failed", now=99)
    journal, ledger = open_ledger(home)
    with journal:
        for head in heads:
            ledger.witnessed(head)
        journal.append_all([PersonAct("eva", "opened-page", "x")] * 9, now=100)
    shutil.copytree(home, home.parent / "second")
    with Journal.open(home / "journal.db", KEY, witness=witness(home)) as journal:
        journal.append(PersonAct("eva", "opened-page", "y"), now=101)
    put_back(home.parent / "second", home)
    with pytest.raises(JournalBroken, match="an older copy"):
        open_ledger(home)


def test_a_sound_journal_is_not_recovered(home: Path) -> None:
    with pytest.raises(NotPossible, match="no older copy"):
        recover(home / "journal.db", KEY, witness(home), OVER, person="eva", reason="to be sure", now=99)
    assert len(check(home, Promises())) == 4


def test_an_export_of_another_journal_puts_nothing_back(home: Path) -> None:
    rolled_back(home)
    file = io.BytesIO()
    with Journal.open(home.parent / "other.db", KEY) as other:
        other.append_all([PersonAct("eva", "opened-page", "x")] * 40, now=1)
        audit.export(other, file)
    path = home.parent / "export.ndjson"
    path.write_bytes(file.getvalue())
    with pytest.raises(JournalBroken):
        recover(home / "journal.db", KEY, witness(home), OVER, person="eva", reason="x", now=99, export=path)
    with pytest.raises(JournalBroken, match="an older copy"):
        open_ledger(home)


def test_a_witness_that_is_gone_for_good_costs_what_may_have_been_spent(home: Path) -> None:
    shutil.rmtree(home.parent / "hub.witness")
    found = recover(home / "journal.db", KEY, witness(home), OVER, person="eva", reason="new machine", now=99)
    assert found.charged
    journal, ledger = open_ledger(home)
    with journal:
        assert ledger.standing("s1").left == 0
