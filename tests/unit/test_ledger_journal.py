"""The journal: durable, append-only, one writer, any number of readers."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flute.errors import JournalBroken, LedgerError, MisuseError
from flute.ledger.journals.journal import Journal, JournalView, Position, verify
from flute.ledger.lines.entries import PersonAct, ServiceStarted, TicketDealt
from flute.primitives.keys import SigningKey

KEY = SigningKey(b"h" * 32)


def act(number: int) -> PersonAct:
    return PersonAct("jordi", "opened-page", f"page {number}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_lines_read_back_in_order_with_time_and_chain(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        positions = [journal.append(act(i), now=100 + i) for i in range(5)]
        lines = list(journal.lines())
    assert [line.position for line in lines] == positions
    assert [line.at for line in lines] == [100, 101, 102, 103, 104]
    assert [line.entry for line in lines] == [act(i) for i in range(5)]
    assert positions[-1].line == 5


def test_an_empty_journal_verifies_and_its_head_is_line_0(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        assert journal.head() == journal.last
        assert journal.head().line == 0
    assert verify(path, KEY.public).lines == 0


@pytest.mark.requirement("F-SRS-8")
def test_verify_says_how_many_lines_hold_and_from_when_to_when(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        for i in range(7):
            last = journal.append(act(i), now=1_000 + i)
        verified = verify(path, KEY.public)  # while it is open for writing
    assert (verified.lines, verified.first_at, verified.last_at) == (7, 1_000, 1_006)
    assert verified.position == last
    assert verify(path, KEY.public, expected=Position(last.line, last.digest)) == verified


def test_a_journal_is_continued_after_a_restart(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        first = journal.append(act(1), now=1)
    with Journal.open(path, KEY, expected=first, create=False) as journal:
        assert journal.last == first
        assert journal.append(act(2), now=2).line == 2
    assert verify(path, KEY.public).lines == 2


def test_several_lines_go_in_together_or_not_at_all(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        assert [p.line for p in journal.append_all([act(1), act(2), act(3)], now=5)] == [1, 2, 3]
        assert journal.append_all([], now=5) == ()
        with pytest.raises(MisuseError):
            journal.append_all([act(4), PersonAct("jordi", "opened-page", "x" * 999)], now=6)
        assert journal.head().line == 3
    assert verify(path, KEY.public).lines == 3


def test_a_failed_write_leaves_the_journal_as_it_was(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        journal.append(act(1), now=1)
        journal._connection.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]  # a full disk
        with pytest.raises(LedgerError, match="free disk space"):
            journal.append_all([act(i) for i in range(200)], now=2)
        assert journal.last.line == 1
        journal._connection.execute("PRAGMA max_page_count = 100000")  # type: ignore[union-attr]
        assert journal.append(act(2), now=3).line == 2
    assert verify(path, KEY.public).lines == 2


def test_every_commit_is_synced_to_disk(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        connection = journal._connection
        assert connection is not None
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: fsync at every commit


def test_the_journal_is_readable_by_its_owner_only(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        journal.append(act(1), now=1)
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE line SET at = 0 WHERE number = 2",
        "DELETE FROM line WHERE number = 3",
        "INSERT INTO line VALUES (9, 0, 'x', x'', x'', x'', x'')",
        "INSERT OR REPLACE INTO line VALUES (2, 0, 'x', x'', x'', x'', x'')",
        "DELETE FROM head",
        "UPDATE head SET number = 1",
    ],
)
def test_an_accident_with_a_database_tool_is_stopped_by_triggers(path: Path, statement: str) -> None:
    with Journal.open(path, KEY) as journal:
        journal.append_all([act(1), act(2), act(3)], now=1)
    tool = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        tool.execute(statement)
    tool.close()
    assert verify(path, KEY.public).lines == 3


def test_a_second_writer_is_told_who_stands_in_the_way(path: Path) -> None:
    with Journal.open(path, KEY), pytest.raises(LedgerError, match="Another process writes the journal"):
        Journal.open(path, KEY)
    Journal.open(path, KEY).close()


def test_a_second_process_cannot_open_the_journal_for_writing(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from flute.ledger.journals.journal import Journal, verify\n"
        "from flute.primitives.keys import SigningKey; from flute.errors import LedgerError\n"
        "key, path = SigningKey(b'h' * 32), Path(sys.argv[1])\n"
        "print(verify(path, key.public).lines)\n"
        "try: Journal.open(path, key)\n"
        "except LedgerError as error: print(error.text)\n"
    )
    with Journal.open(path, KEY) as journal:
        journal.append(act(1), now=1)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "1"  # reading works
    assert lines[1].startswith("Another process writes the journal")


def test_a_writer_that_got_past_the_lock_still_cannot_add_to_what_it_did_not_see(path: Path) -> None:
    first = Journal.open(path, KEY)
    first.append(act(1), now=1)
    Path(f"{path}.lock").unlink()
    second = Journal.open(path, KEY)
    first.append(act(2), now=2)
    with pytest.raises(LedgerError, match="Another process wrote to the journal after line 1"):
        second.append(act(3), now=3)
    first.append(act(4), now=4)
    first.close()
    second.close()
    assert verify(path, KEY.public).lines == 3


def test_threads_append_without_losing_a_line(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        mine: list[Position] = []

        def work(who: int) -> None:
            mine.extend(journal.append(act(who * 100 + i), now=i) for i in range(25))

        threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(p.line for p in mine) == list(range(1, 101))
    assert verify(path, KEY.public).lines == 100


def test_a_reader_sees_one_consistent_state_while_lines_are_added(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        journal.append_all([act(1), act(2)], now=1)
        with JournalView(path).snapshot() as taken:
            journal.append(act(3), now=2)
            assert taken.head is not None
            assert (taken.head.number, len(list(taken.rows()))) == (2, 2)
        assert len(list(JournalView(path).lines())) == 3


def test_lines_are_read_from_a_number_and_by_kind(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        journal.append_all([act(1), TicketDealt("s1", bytes(32)), act(2), ServiceStarted("1", bytes(32))], now=1)
        assert [line.position.line for line in journal.lines(3)] == [3, 4]
        assert [line.kind for line in journal.lines(kinds=("ticket-dealt", "service-started"))] == [
            "ticket-dealt",
            "service-started",
        ]
        with pytest.raises(LedgerError, match="no line 9"):
            journal.row(9)


def test_claimed_kinds_are_written_by_their_claimer_alone(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        append = journal.claim(["ticket-dealt"])
        with pytest.raises(MisuseError, match="ledger alone"):
            journal.append(TicketDealt("s1", bytes(32)), now=1)
        with pytest.raises(MisuseError, match="has its ledger already"):
            journal.claim(["ticket-dealt", "service-started"])
        assert append(TicketDealt("s1", bytes(32)), 1).line == 1
        assert journal.append(act(1), now=1).line == 2


def test_a_closed_journal_takes_no_lines(path: Path) -> None:
    journal = Journal.open(path, KEY)
    journal.close()
    journal.close()
    with pytest.raises(MisuseError, match="was closed"):
        journal.append(act(1), now=1)


def test_a_lost_journal_is_not_silently_replaced_by_an_empty_one(path: Path) -> None:
    with pytest.raises(LedgerError, match="Restore it from its backup"):
        Journal.open(path, KEY, create=False)
    assert not path.exists()
    with pytest.raises(LedgerError, match="no journal"):
        verify(path, KEY.public)


@pytest.mark.parametrize("content", [b"", b"not a database, just text" * 100])
def test_a_file_that_is_no_journal_is_said_to_be_none(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalBroken, match="holds no journal"):
        verify(path, KEY.public)
    with pytest.raises(LedgerError):
        Journal.open(path, KEY, create=False)
    assert content in path.read_bytes()  # nothing of it was overwritten


def test_a_journal_opens_with_its_own_key_only(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        journal.append(act(1), now=1)
    with pytest.raises(JournalBroken, match="another hub's journal"):
        Journal.open(path, SigningKey(b"x" * 32))
    Journal.open(path, KEY).close()  # the refusal left no lock behind


def test_evidence_on_read_only_media_can_be_verified(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.open(path, KEY) as journal:
        journal.append(act(1), now=1)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere, so the folder's mode tells nothing
    assert verify(path, KEY.public).lines == 1
    assert {file.name for file in path.parent.iterdir()} == {"journal.db", "journal.db.lock"}  # left untouched


@pytest.mark.requirement("URS-10")
def test_ten_thousand_lines_are_verified_in_a_fraction_of_a_second(path: Path) -> None:
    with Journal.open(path, KEY) as journal:
        for start in range(0, 10_000, 1_000):
            journal.append_all([TicketDealt("s1", i.to_bytes(32, "big")) for i in range(start, start + 1_000)], now=1)
    before = time.process_time()
    assert verify(path, KEY.public).lines == 10_000
    assert time.process_time() - before < 1.0  # CPU; 0.04 s where it was measured
