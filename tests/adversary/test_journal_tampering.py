"""Somebody with write access to the hub's disk, but without its key, against the journal.

Triggers are dropped first, as an attacker would. Every attack is tried lazily (digests left as they were) and
diligently (every digest after the change recomputed, which needs no key), and the first line that was
touched has to be named, with what was done to it. Chance plays no part: a miss would be a broken hash or signature.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flute.errors import JournalBroken, LedgerError
from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Policy
from flute.ledger.journals.chain import Row, content_of, digest_of, genesis, make_head, make_row
from flute.ledger.journals.journal import Journal, JournalView, Position, verify
from flute.ledger.lines.entries import PersonAct, Reserved, read_entry, write_entry
from flute.primitives.keys import SigningKey

KEY = SigningKey(b"h" * 32)
THIEF = SigningKey(b"t" * 32)
LINES = 12
OVER = [Ceiling(Level.HUB, Policy(10.0, 1e-6)), Ceiling(Level.STUDY, Policy(10.0, 1e-6))]

pytestmark = [
    pytest.mark.requirement("URS-10"),
    pytest.mark.requirement("F-SRS-8"),
    pytest.mark.requirement("F-PIL-21"),
]


def charge(number: int) -> Charge:
    return Charge(
        bytes([number]) * 32, "s1", "q1", number, "maria", "private", 0.5, 0.0, 0, "secagg", "records", bytes(32)
    )


def write_journal(path: Path, lines: int = LINES) -> list[Position]:
    """Odd lines are acts of a person, even ones reservations."""
    with Journal.open(path, KEY) as journal:
        ledger = Ledger(journal, OVER)
        for number in range(1, lines + 1):
            if number % 2:
                journal.append(PersonAct("jordi", "opened-page", f"page {number}"), now=1_000 + number)
            else:
                ledger.reserve(charge(number), now=1_000 + number)
        return [line.position for line in journal.lines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_journal(tmp_path / "journal.db")
    return tmp_path / "journal.db"


class Attack:
    """Raw access to the file."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        names = [name for (name,) in self.db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            self.db.execute(f"DROP TRIGGER {name}")

    def __enter__(self) -> Attack:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def rows(self) -> list[Row]:
        return [Row._make(values) for values in self.db.execute("SELECT * FROM line ORDER BY number")]

    def store(self, rows: list[Row]) -> None:
        self.db.execute("DELETE FROM line")
        self.db.executemany("INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def store_diligently(self, rows: list[Row], key: SigningKey | None = None) -> None:
        """Number the lines anew and recompute all digests; seals stay what they were, or are made with `key`."""
        chained: list[Row] = []
        for row in rows:
            previous = chained[-1].digest if chained else genesis(KEY.public)
            content = content_of(len(chained) + 1, row.at, row.kind, row.body, previous)
            made = make_row(key, len(chained) + 1, row.at, row.kind, row.body, previous) if key else None
            seal = made.seal if made else row.seal
            chained.append(
                Row(len(chained) + 1, row.at, row.kind, row.body, previous, seal, digest_of(content, seal))
            )
        self.store(chained)

    def point_head(self, number: int, digest: bytes, signature: bytes | None = None) -> None:
        self.db.execute("UPDATE head SET number = ?, digest = ?", (number, digest))
        if signature is not None:
            self.db.execute("UPDATE head SET signature = ?", (signature,))

    def head(self) -> tuple[int, bytes, bytes]:
        found: tuple[int, bytes, bytes] = self.db.execute("SELECT number, digest, signature FROM head").fetchone()
        return found


def broken(path: Path, expected: Position | None = None) -> JournalBroken:
    with pytest.raises(JournalBroken) as found:
        verify(path, KEY.public, expected)
    with pytest.raises(JournalBroken) as refused:  # and the hub does not start from it
        Journal.open(path, KEY, expected=expected)
    assert refused.value.line == found.value.line
    return found.value


def test_the_untouched_journal_holds(path: Path) -> None:
    with Attack(path) as attack:  # missing triggers alone change no line
        attack.store(attack.rows())
    assert verify(path, KEY.public).lines == LINES


# --- changed ---------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Row], Row]] = {
    "time": lambda row: row._replace(at=row.at - 60),
    "kind": lambda row: row._replace(kind="released"),
    "body": lambda row: row._replace(body=write_entry(PersonAct("mallory", "opened-page", "page 5"))),
    "previous": lambda row: row._replace(previous=bytes(32)),
    "seal": lambda row: row._replace(seal=bytes(64)),
    "digest": lambda row: row._replace(digest=bytes(32)),
    "type": lambda row: row._replace(body="text where bytes were"),  # type: ignore[arg-type]
    "size": lambda row: row._replace(body=bytes(10**6)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("line", [1, 5, LINES])
def test_a_changed_line_is_named(path: Path, change: str, line: int) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        rows[line - 1] = CHANGES[change](rows[line - 1])
        attack.store(rows)
    error = broken(path)
    assert error.line == line
    assert f"Line {line} was changed" in error.text


@pytest.mark.parametrize("key", [None, THIEF], ids=["old seals", "a key of the thief's"])
@pytest.mark.parametrize("head", ["kept", "pointed to the new end", "signed by the thief"])
@pytest.mark.parametrize("line", [5, LINES])
def test_a_changed_line_is_named_though_every_digest_was_recomputed(
    path: Path, key: SigningKey | None, head: str, line: int
) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        own = rows[: line - 1]
        rows[line - 1] = CHANGES["body"](rows[line - 1])
        attack.store_diligently(rows, key)
        if key:  # the lines before keep the hub's seals: a thief changes no more than he must
            attack.store(own + _chained_by(key, rows[line - 1 :], own[-1]))
        last = attack.rows()[-1].digest
        if head == "pointed to the new end":
            attack.point_head(LINES, last)
        elif head == "signed by the thief":
            attack.point_head(*make_head(THIEF, LINES, last))
    error = broken(path)
    assert error.line == line
    assert f"Line {line} was changed" in error.text


def _chained_by(key: SigningKey, rows: list[Row], before: Row) -> list[Row]:
    made: list[Row] = []
    for row in rows:
        last = made[-1] if made else before
        made.append(make_row(key, last.number + 1, row.at, row.kind, row.body, last.digest))
    return made


def test_a_change_with_the_next_lines_chained_up_to_it_names_the_change_not_the_seam(path: Path) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        rows[3] = CHANGES["body"](rows[3])
        attack.store_diligently(rows[:8])
        attack.store(attack.rows() + rows[8:])  # the seam is at line 9
    assert broken(path).line == 4


@pytest.mark.parametrize("diligent", [False, True])
def test_a_cheaper_reservation_is_named(path: Path, diligent: bool) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        entry = read_entry(rows[5].body)
        assert isinstance(entry, Reserved)
        cheap = Reserved(msgspec.structs.replace(entry.charge, rho=1e-9))
        rows[5] = rows[5]._replace(body=write_entry(cheap))
        (attack.store_diligently if diligent else attack.store)(rows)
    error = broken(path)
    assert error.line == 6
    assert "Line 6 was changed" in error.text


def test_a_line_overwritten_with_a_copy_of_another_is_named(path: Path) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        rows[6] = rows[2]._replace(number=7)
        attack.store(rows)
    error = broken(path)
    assert (error.line, "copy of line 3" in error.text) == (7, True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    line=st.integers(1, LINES), column=st.sampled_from(["body", "previous", "seal", "digest", "kind"]), data=st.data()
)
def test_any_flipped_bit_is_found_in_its_line(path: Path, line: int, column: str, data: st.DataObject) -> None:
    copy = path.parent / "copy.db"
    shutil.copy(path, copy)
    with Attack(copy) as attack:
        rows = attack.rows()
        value = getattr(rows[line - 1], column)
        raw = bytearray(value.encode() if isinstance(value, str) else value)
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 6))
        changed = raw.decode() if isinstance(value, str) else bytes(raw)
        rows[line - 1] = rows[line - 1]._replace(**{column: changed})
        attack.store(rows)
    with pytest.raises(JournalBroken) as found:
        verify(copy, KEY.public)
    assert found.value.line == line


# --- dropped ---------------------------------------------------------------------------------


def test_a_dropped_line_is_named(path: Path) -> None:
    with Attack(path) as attack:
        attack.db.execute("DELETE FROM line WHERE number = 5")
    error = broken(path)
    assert (error.line, "Line 5 was dropped" in error.text) == (5, True)


def test_several_dropped_lines_are_named(path: Path) -> None:
    with Attack(path) as attack:
        attack.db.execute("DELETE FROM line WHERE number BETWEEN 5 AND 7")
    error = broken(path)
    assert (error.line, "Lines 5 to 7 were dropped" in error.text) == (5, True)


def test_the_first_line_dropped_is_named(path: Path) -> None:
    with Attack(path) as attack:
        attack.db.execute("DELETE FROM line WHERE number = 1")
    error = broken(path)
    assert (error.line, "Line 1 was dropped" in error.text) == (1, True)


@pytest.mark.parametrize("diligent", [False, True])
def test_a_dropped_line_is_named_though_the_later_ones_moved_up(path: Path, diligent: bool) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        del rows[4]
        if diligent:
            attack.store_diligently(rows)
        else:
            attack.store([row._replace(number=i) for i, row in enumerate(rows, 1)])
    error = broken(path)
    assert (error.line, "Line 5 was dropped" in error.text) == (5, True)


# --- inserted --------------------------------------------------------------------------------


def invented(path: Path) -> Row:
    body = write_entry(PersonAct("mallory", "opened-page", "never happened"))
    return Row(5, 1_004, "person-act", body, bytes(32), bytes(64), bytes(32))


@pytest.mark.parametrize("diligent", [False, True])
@pytest.mark.parametrize("what", ["invented", "a copy of line 3"])
def test_an_inserted_line_is_named(path: Path, diligent: bool, what: str) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        rows.insert(4, invented(path) if what == "invented" else rows[2])
        if diligent:
            attack.store_diligently(rows)
        else:
            attack.store([row._replace(number=i) for i, row in enumerate(rows, 1)])
    error = broken(path)
    assert (error.line, "Line 5 was inserted" in error.text) == (5, True)


@pytest.mark.parametrize("head", ["kept", "forged"])
def test_a_line_added_at_the_end_is_named(path: Path, head: str) -> None:
    with Attack(path) as attack:
        attack.store_diligently([*attack.rows(), invented(path)])
        if head == "forged":
            attack.point_head(LINES + 1, attack.rows()[-1].digest)
    error = broken(path)
    assert error.line == LINES + 1
    assert "was inserted" in error.text if head == "kept" else "was changed" in error.text


# --- reordered -------------------------------------------------------------------------------


@pytest.mark.parametrize("diligent", [False, True])
@pytest.mark.parametrize(("one", "two"), [(5, 6), (3, 9), (1, LINES)])
def test_reordered_lines_are_named(path: Path, diligent: bool, one: int, two: int) -> None:
    with Attack(path) as attack:
        rows = attack.rows()
        rows[one - 1], rows[two - 1] = rows[two - 1], rows[one - 1]
        if diligent:
            attack.store_diligently(rows)
        else:
            attack.store([row._replace(number=i) for i, row in enumerate(rows, 1)])
    error = broken(path)
    assert error.line == one
    assert f"Line {one} was reordered" in error.text
    assert f"place {two}" in error.text


# --- truncated, head forged or set back ------------------------------------------------------


def test_a_cut_tail_is_named(path: Path) -> None:
    with Attack(path) as attack:
        attack.db.execute("DELETE FROM line WHERE number > 8")
    error = broken(path)
    assert error.line == 9
    assert "truncated" in error.text
    assert f"names line {LINES}" in error.text


def test_a_journal_emptied_but_for_its_head_is_truncated(path: Path) -> None:
    with Attack(path) as attack:
        attack.db.execute("DELETE FROM line")
    error = broken(path)
    assert (error.line, "truncated" in error.text) == (1, True)


@pytest.mark.parametrize(
    "signature", ["the old head's", "the last line's seal", "the thief's", "none", "of another type"]
)
def test_a_cut_tail_with_the_head_pointed_to_the_new_end_is_seen(path: Path, signature: str) -> None:
    with Attack(path) as attack:
        attack.db.execute("DELETE FROM line WHERE number > 8")
        end = attack.rows()[-1]
        by = {
            "the old head's": attack.head()[2],
            "the last line's seal": end.seal,
            "the thief's": make_head(THIEF, 8, end.digest).signature,
            "none": b"",
            "of another type": "text",
        }[signature]
        attack.point_head(8, end.digest, by)  # type: ignore[arg-type]
    error = broken(path)
    assert error.line == 9
    assert "head was forged" in error.text or "head is missing" in error.text


def test_a_missing_head_is_seen(path: Path) -> None:
    with Attack(path) as attack:
        attack.db.execute("DELETE FROM head")
    error = broken(path)
    assert (error.line, "head is missing" in error.text) == (LINES + 1, True)


def test_a_head_set_back_to_an_older_one_of_the_hubs_own_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write_journal(path, 8)
    with Attack(path) as attack:
        old = attack.head()
    with Journal.open(path, KEY) as journal:
        journal.append_all([PersonAct("jordi", "opened-page", "late")] * 3, now=2_000)
    with Attack(path) as attack:
        attack.point_head(*old)
    error = broken(path)
    assert (error.line, "set back" in error.text) == (9, True)


# --- the whole file --------------------------------------------------------------------------


def test_a_whole_older_copy_is_seen_only_by_a_receipt_kept_elsewhere(tmp_path: Path) -> None:
    path, older = tmp_path / "journal.db", tmp_path / "older.db"
    write_journal(path, 8)
    shutil.copy(path, older)
    with Journal.open(path, KEY) as journal:
        receipt = journal.append_all([PersonAct("jordi", "opened-page", "late")] * 3, now=2_000)[-1]
    assert verify(path, KEY.public, receipt).lines == 11
    shutil.copy(older, path)
    assert verify(path, KEY.public).lines == 8  # nothing in the copy itself can show it
    error = broken(path, expected=receipt)
    assert error.line == 9
    assert "ends at line 8, but a receipt of line 11 exists" in error.text


def test_an_older_copy_that_was_written_on_differs_from_the_receipt(tmp_path: Path) -> None:
    path, older = tmp_path / "journal.db", tmp_path / "older.db"
    write_journal(path, 8)
    shutil.copy(path, older)
    with Journal.open(path, KEY) as journal:
        receipt = journal.append(PersonAct("jordi", "opened-page", "then"), now=2_000)
    shutil.copy(older, path)
    with Journal.open(path, KEY) as journal:
        journal.append_all([PersonAct("jordi", "opened-page", "now")] * 5, now=3_000)
    assert verify(path, KEY.public).lines == 13
    error = broken(path, expected=receipt)
    assert (error.line, "not the one that the receipt names" in error.text) == (9, True)


def test_two_copies_that_the_hub_wrote_on_cannot_be_mixed(tmp_path: Path) -> None:
    path, other = tmp_path / "journal.db", tmp_path / "other.db"
    write_journal(path, 8)
    shutil.copy(path, other)
    for file, word in ((path, "one"), (other, "two")):
        with Journal.open(file, KEY) as journal:
            journal.append_all([PersonAct("jordi", "opened-page", word)] * 2, now=2_000)
    with Attack(other) as attack:
        stranger = attack.rows()[9]
    with Attack(path) as attack:
        attack.store([*attack.rows()[:9], stranger])
    error = broken(path)
    assert (error.line, "two copies of this journal were mixed" in error.text) == (10, True)


def test_a_journal_written_anew_without_the_key_is_another_hubs(path: Path) -> None:
    path.unlink()
    with Journal.open(path, THIEF) as journal:
        journal.append(PersonAct("jordi", "opened-page", "clean"), now=1)
    error = broken(path)
    assert (error.line, "without the hub's key" in error.text) == (1, True)


def test_an_empty_journal_in_place_of_a_full_one_is_seen_by_a_receipt(path: Path) -> None:
    receipt = JournalView(path).head()
    path.unlink()
    with pytest.raises(LedgerError, match="Restore it from its backup"):
        Journal.open(path, KEY, create=False)
    Journal.open(path, KEY).close()
    error = broken(path, expected=receipt)
    assert (error.line, "ends at line 0" in error.text) == (1, True)


def test_a_damaged_file_is_said_to_be_damaged(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 4096):
        raw[at : at + 64] = b"\xff" * 64
    path.write_bytes(raw)
    with pytest.raises(JournalBroken, match=r"damaged|holds no journal"):
        verify(path, KEY.public)
    with pytest.raises(LedgerError):
        Journal.open(path, KEY)


# --- while the hub runs ----------------------------------------------------------------------


def test_a_file_swapped_under_the_running_hub_takes_no_more_charges(path: Path) -> None:
    older = path.parent / "older.db"
    shutil.copy(path, older)
    with Journal.open(path, KEY) as journal:
        ledger = Ledger(journal, OVER)
        ledger.reserve(charge(20), now=1)
        older.rename(path)
        with pytest.raises(LedgerError, match="was replaced while the hub ran"):
            ledger.reserve(charge(21), now=2)


def test_lines_cut_under_the_running_hub_stop_it(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        with Attack(path) as attack:
            attack.db.execute("DELETE FROM line WHERE number > 8")
        with pytest.raises(LedgerError, match="altered while the hub ran"):
            journal.append(PersonAct("jordi", "opened-page", "x"), now=1)


def test_a_foreign_trigger_keeps_the_hub_from_starting(path: Path) -> None:
    """It could swallow reservations as they are written."""
    with Attack(path) as attack:
        attack.db.execute(
            "CREATE TRIGGER quiet BEFORE INSERT ON line WHEN NEW.kind = 'reserved' BEGIN SELECT RAISE(IGNORE); END"
        )
    with pytest.raises(LedgerError, match="did not make \\(quiet\\)"):
        Journal.open(path, KEY)


@pytest.mark.parametrize(
    "trigger",
    [
        "CREATE TRIGGER t BEFORE INSERT ON line WHEN NEW.kind = 'reserved' BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER t AFTER INSERT ON line BEGIN UPDATE line SET body = x'00' WHERE number = NEW.number; END",
        "CREATE TRIGGER t BEFORE UPDATE ON head BEGIN SELECT RAISE(IGNORE); END",
    ],
)
def test_a_trigger_that_appears_while_the_hub_runs_alters_nothing_unseen(path: Path, trigger: str) -> None:
    with Journal.open(path, KEY) as journal:
        ledger = Ledger(journal, OVER)
        with Attack(path) as attack:
            attack.db.execute(trigger)
        with pytest.raises(LedgerError, match="altered while the hub ran"):
            ledger.reserve(charge(20), now=1)
        assert ledger.find(charge(20).release_id) is None


def test_dropped_triggers_are_put_back_at_the_next_start(path: Path) -> None:
    with Attack(path):
        pass
    Journal.open(path, KEY).close()
    tool = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        tool.execute("DELETE FROM line")
    tool.close()
