"""The durable mailbox: what it accepted it keeps, what it was told to forget it forgets, and it never grows."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flute import defaults
from flute.errors import ChannelError, MisuseError, TooLarge
from flute.transport import mailbox as mailboxes
from flute.transport.link import Parcel
from flute.transport.mailbox import Mailbox


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Mailbox]:
    opened = Mailbox(tmp_path / "mailbox.db")
    yield opened
    opened.close()


def parcel(number: int, recipient: str = "hub-a", sender: str = "coordinator", body: bytes = b"body") -> Parcel:
    return Parcel(recipient, sender, number.to_bytes(16, "big"), body)


def delivered(box: Mailbox, one: Parcel, hop: str = "coordinator") -> None:
    ticket = box.arrived(one, hop)
    if ticket is not None:
        box.announce(ticket)


def test_accepted_message_is_there_after_a_restart_and_gone_after_its_receipt(tmp_path: Path) -> None:
    first = Mailbox(tmp_path / "m.db")
    stored = first.put(parcel(1))
    first.close()
    second = Mailbox(tmp_path / "m.db")
    assert second.outgoing() == [stored]
    assert second.load(stored.row) == parcel(1)
    assert second.received(parcel(1).transfer, "hub-a", "coordinator") == stored.row
    second.close()
    third = Mailbox(tmp_path / "m.db")
    assert third.outgoing() == []
    third.close()


def test_delivered_message_comes_again_after_a_restart_until_it_is_done(tmp_path: Path) -> None:
    first = Mailbox(tmp_path / "m.db")
    delivered(first, parcel(1))
    assert first.receive(0.0) is not None
    assert first.receive(0.0) is None  # once per process
    first.close()
    second = Mailbox(tmp_path / "m.db")
    again = second.receive(0.0)
    assert again is not None
    second.done(again)
    second.done(again)
    second.close()
    third = Mailbox(tmp_path / "m.db")
    assert third.receive(0.0) is None
    third.close()


def test_same_transfer_of_the_same_sender_is_taken_once_even_after_done_and_restart(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "m.db")
    delivered(box, parcel(1))
    taken = box.receive(0.0)
    assert taken is not None
    box.done(taken)
    assert box.arrived(parcel(1), "coordinator") is None
    assert box.arrived(parcel(1, sender="hub-b"), "coordinator") is not None  # another sender's number 1
    box.close()
    box = Mailbox(tmp_path / "m.db")
    assert box.arrived(parcel(1), "coordinator") is None
    box.close()


def test_forwarded_message_is_stored_once_under_a_fresh_id_and_never_in_the_inbox(box: Mailbox) -> None:
    stored = box.forward(parcel(1, recipient="hub-b", sender="hub-a"), bytes(16))
    assert stored is not None
    assert box.load(stored.row) == Parcel("hub-b", "hub-a", bytes(16), b"body")
    assert box.forward(parcel(1, recipient="hub-b", sender="hub-a"), b"f" * 16) is None
    assert box.receive(0.0) is None


def test_nobody_but_the_next_hop_can_make_a_message_be_forgotten(box: Mailbox) -> None:
    stored = box.put(parcel(1, recipient="hub-a"))
    assert box.received(parcel(1).transfer, "hub-b", "coordinator") is None
    assert box.received(b"?" * 16, "hub-a", "coordinator") is None
    assert box.outgoing() == [stored]
    assert box.received(parcel(1).transfer, "hub-a", "coordinator") == stored.row


def test_message_is_not_given_out_before_it_is_announced(box: Mailbox) -> None:
    ticket = box.arrived(parcel(1), "coordinator")
    assert ticket is not None
    assert box.receive(0.0) is None
    box.announce(ticket)
    assert box.receive(0.0) is not None


def test_mailbox_refuses_when_full_and_takes_again_when_emptied(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "MAX_MAILBOX_MESSAGES", 3)
    for number in range(3):
        box.put(parcel(number))
        delivered(box, parcel(number, recipient="coordinator", sender="hub-a"), "hub-a")
    with pytest.raises(ChannelError, match="full"):
        box.put(parcel(9))
    with pytest.raises(ChannelError, match="full"):
        box.arrived(parcel(9, sender="hub-a"), "hub-a")
    box.put(parcel(10, recipient="hub-b"))  # others have their own
    assert box.arrived(parcel(11, sender="hub-b"), "hub-b") is not None
    box.received(parcel(0).transfer, "hub-a", "coordinator")
    box.put(parcel(9))
    taken = box.receive(0.0)
    assert taken is not None
    box.done(taken)
    assert box.arrived(parcel(9, sender="hub-a"), "hub-a") is not None  # and the refused one was not noted as seen


def test_quota_counts_bytes_and_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "MAX_MAILBOX_BYTES", 100)
    box = Mailbox(tmp_path / "m.db")
    box.put(parcel(1, body=bytes(60)))
    box.close()
    box = Mailbox(tmp_path / "m.db")
    with pytest.raises(ChannelError, match="full"):
        box.put(parcel(2, body=bytes(41)))
    box.put(parcel(2, body=bytes(40)))
    box.close()


def test_quota_of_the_inbox_is_the_hop_s_and_not_the_claimed_sender_s(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "MAX_MAILBOX_MESSAGES", 3)
    for number in range(3):
        box.arrived(parcel(number, sender=f"hub-{number}"), "coordinator")
    with pytest.raises(ChannelError, match="full"):
        box.arrived(parcel(9, sender="yet-another"), "coordinator")


def test_oversized_message_is_refused(box: Mailbox) -> None:
    with pytest.raises(TooLarge):
        box.put(parcel(1, body=bytes(defaults.MAX_ENVELOPE_BYTES + 1)))
    assert box.outgoing() == []


def test_second_process_is_refused(box: Mailbox, tmp_path: Path) -> None:
    box.put(parcel(1))
    with pytest.raises(MisuseError, match="another process"):
        Mailbox(tmp_path / "mailbox.db")


def test_file_is_readable_by_its_owner_alone(box: Mailbox, tmp_path: Path) -> None:
    box.put(parcel(1))
    assert {(p.name, p.stat().st_mode & 0o777) for p in tmp_path.iterdir()} == {
        ("mailbox.db", 0o600),
        ("mailbox.db-wal", 0o600),
    }


def test_receiver_sleeps_until_a_message_comes(box: Mailbox) -> None:
    threading.Timer(0.1, delivered, (box, parcel(1))).start()
    cpu, start = time.thread_time(), time.monotonic()
    assert box.receive(10.0) is not None
    assert 0.05 < time.monotonic() - start < 5.0
    assert time.thread_time() - cpu < 0.02  # no polling
    assert box.receive(0.05) is None


def test_close_wakes_a_waiting_receiver(box: Mailbox) -> None:
    threading.Timer(0.1, box.close).start()
    start = time.monotonic()
    with pytest.raises(ChannelError, match="closed"):
        box.receive(10.0)
    assert time.monotonic() - start < 5.0
    with pytest.raises(ChannelError):
        box.put(parcel(1))


def test_full_disk_accepts_nothing_and_breaks_nothing(box: Mailbox) -> None:
    box._database.execute("PRAGMA max_page_count = 20")  # SQLite's own way to run out of space
    with pytest.raises(ChannelError, match="free space"):
        box.put(parcel(1, body=bytes(60_000)))
    with pytest.raises(ChannelError, match="free space"):
        box.arrived(parcel(1, sender="hub-a", body=bytes(60_000)), "hub-a")
    box._database.execute("PRAGMA max_page_count = 100000")
    box.put(parcel(1, body=bytes(60_000)))
    assert box.arrived(parcel(1, sender="hub-a", body=bytes(60_000)), "hub-a") is not None


# --- long bodies, which lie in files --------------------------------------------------------


LONG = bytes(range(256)) * 400


def files(folder: Path) -> list[Path]:
    return sorted((folder / "mailbox.db-bodies").iterdir())


def test_long_message_is_there_after_a_restart_and_its_file_is_gone_after_its_receipt(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "mailbox.db")
    stored = box.put(parcel(1, body=LONG))
    box.close()
    box = Mailbox(tmp_path / "mailbox.db")
    assert box.outgoing() == [stored]
    assert box.load(stored.row) == parcel(1, body=LONG)
    assert [path.stat().st_mode & 0o777 for path in files(tmp_path)] == [0o600]
    box.received(parcel(1).transfer, "hub-a", "coordinator")
    box.put(parcel(2))  # the row goes with the next transaction, its file with the row
    assert files(tmp_path) == []
    box.close()


def test_long_message_of_the_inbox_is_given_out_whole_until_it_is_done(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "mailbox.db")
    delivered(box, parcel(1, body=LONG))
    assert box.arrived(parcel(1, body=LONG), "coordinator") is None
    box.close()
    box = Mailbox(tmp_path / "mailbox.db")
    taken = box.receive(0.0)
    assert taken is not None
    assert taken.body == LONG
    box.done(taken)
    assert files(tmp_path) == []
    box.close()


def test_quota_counts_the_bytes_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "MAX_MAILBOX_BYTES", len(LONG) + 10)
    box = Mailbox(tmp_path / "mailbox.db")
    box.put(parcel(1, body=LONG))
    box.close()
    box = Mailbox(tmp_path / "mailbox.db")
    with pytest.raises(ChannelError, match="full"):
        box.put(parcel(2, body=bytes(11)))
    box.put(parcel(2, body=bytes(10)))
    box.close()


def test_full_disk_leaves_no_row_and_no_file_of_a_long_message(
    box: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flute.transport.bodies.os.write", full)
        with pytest.raises(ChannelError, match="free space"):
            box.put(parcel(1, body=LONG))
        with pytest.raises(ChannelError, match="free space"):
            box.arrived(parcel(1, sender="hub-a", body=LONG), "hub-a")
    box._database.execute("PRAGMA max_page_count = 8")  # the file can be written, its row cannot
    accepted = 0
    with contextlib.suppress(ChannelError):
        for accepted in range(1000):
            box.put(parcel(accepted, body=LONG))
    assert accepted < 999
    assert len(files(tmp_path)) == len(box.outgoing()) == accepted
    box._database.execute("PRAGMA max_page_count = 100000")
    assert box.put(parcel(2000, body=LONG)) in box.outgoing()


def test_what_a_power_cut_left_of_a_long_message_is_forgotten_and_stray_files_are_deleted(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "mailbox.db")
    whole, cut = box.put(parcel(1, body=LONG)), box.put(parcel(2, body=LONG))
    delivered(box, parcel(3, sender="hub-a", body=LONG))
    (arrived,) = {path.name for path in files(tmp_path)} - {whole.file, cut.file}
    box.close()
    (tmp_path / "mailbox.db-bodies" / str(cut.file)).write_bytes(LONG[:-1])
    (tmp_path / "mailbox.db-bodies" / arrived).unlink()
    (tmp_path / "mailbox.db-bodies" / "stray").write_bytes(b"of a transaction that never ended")
    box = Mailbox(tmp_path / "mailbox.db")
    assert box.outgoing() == [whole]
    assert box.receive(0.0) is None
    assert [path.name for path in files(tmp_path)] == [whole.file]
    assert box.load(whole.row) == parcel(1, body=LONG)
    box.close()


def test_mailbox_of_before_there_were_files_goes_on_with_what_is_in_it(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mailbox.db") as old:
        old.executescript(
            """CREATE TABLE outbox (row INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL,
                   sender TEXT NOT NULL, transfer BLOB NOT NULL UNIQUE, body BLOB NOT NULL);
               CREATE TABLE inbox (ticket INTEGER PRIMARY KEY AUTOINCREMENT, hop TEXT NOT NULL,
                   peer TEXT NOT NULL, body BLOB NOT NULL);"""
        )
        old.execute("INSERT INTO outbox VALUES (7, 'hub-a', 'coordinator', ?, ?)", (bytes(16), LONG))
        old.execute("INSERT INTO inbox VALUES (5, 'hub-a', 'hub-a', ?)", (LONG,))
    old.close()
    box = Mailbox(tmp_path / "mailbox.db")
    (stored,) = box.outgoing()
    assert (stored.row, stored.size) == (7, len(LONG))
    assert box.load(7) == Parcel("hub-a", "coordinator", bytes(16), LONG)
    taken = box.receive(0.0)
    assert taken is not None
    assert (taken.ticket, taken.body) == (5, LONG)
    box.done(taken)
    assert box.put(parcel(8, body=LONG)).row == 8
    box.close()


def test_memory_of_transfers_is_bounded(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "MAX_TRANSFERS_REMEMBERED", 50)
    monkeypatch.setattr(mailboxes, "_PRUNE_EVERY", 10)
    for number in range(200):
        box.arrived(parcel(number), "coordinator")
    (kept,) = box._database.execute("SELECT count(*) FROM seen").fetchone()
    assert 50 <= kept <= 60
    assert box.arrived(parcel(199), "coordinator") is None


WRITER = """
import sys
from pathlib import Path
from flute.transport.link import Parcel
from flute.transport.mailbox import Mailbox
box = Mailbox(Path(sys.argv[1]))
for number in range(10**6):
    box.put(Parcel("hub-a", "coordinator", number.to_bytes(16, "big"), bytes(2000 if number % 2 else 70000)))
    sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
    if number % 3 == 2:
        box.received((number - 2).to_bytes(16, "big"), "hub-a", "coordinator")
"""


@pytest.mark.parametrize("moment_s", [0.05, 0.11, 0.23])
def test_kill_9_of_the_process_loses_no_accepted_message(tmp_path: Path, moment_s: float) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "m.db")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(moment_s)
    os.kill(writer.pid, signal.SIGKILL)
    accepted = writer.stdout.read().split()
    writer.wait()
    last = int(accepted[-2])  # the very last line may be cut
    box = Mailbox(tmp_path / "m.db")
    loaded = [box.load(stored.row) for stored in box.outgoing()]
    numbers = {int.from_bytes(p.transfer, "big") for p in loaded if p is not None}
    confirmed = {n for n in range(last) if n % 3 == 0 and n + 2 <= last + 1}
    assert last > 10
    assert set(range(last + 1)) - confirmed <= numbers
    assert max(numbers) <= last + 2
    assert box._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    box.close()
