"""What may happen to a hub's disk, clock and processes; after each the same check (`support.ledger_faults.check`).

A killed process loses what only it knew, not what the kernel took: that commits are synced is shown on the open
connection in tests/unit/test_ledger_journal.py.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Listener
from pathlib import Path

import pytest

from flute.errors import BudgetExceeded, FluteError, LedgerError
from flute.ledger.budgets.budget import Ledger
from flute.ledger.journals.journal import Journal, JournalView, Position
from flute.ledger.lines.entries import Reserved
from support.ledger_faults import (
    DATASET,
    KEY,
    PRICE,
    STUDIES,
    STUDY,
    Promises,
    ask,
    charge,
    check,
    hasty,
    open_ledger,
    work,
)

pytestmark = [pytest.mark.requirement("F-SRS-8")]
CALLERS = 16
KILLS = 120
"""In an ordinary run; the soak kills 500 times."""
WORKING_S = 0.02
"""Longest time until a kill, of every other life, from the first thing that it said. Of the rest it runs from the
fork, to twice what opening takes here, so that opening is cut short as well."""
ROOM = int(DATASET / PRICE)


def fork(run: Callable[[int], None]) -> tuple[int, int]:
    """A child without a new interpreter: (pid, read end of its pipe)."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            run(writing)
        finally:
            os._exit(1)
    os.close(writing)
    return pid, reading


def killed_after(
    folder: Path, name: str, alive_s: float, *, spoke: bool, run: Callable[[Path, str, int], None] = work
) -> bytes:
    """What a life said until it was killed. `spoke`: its time runs from the first thing that it said."""
    pid, pipe = fork(lambda writing: run(folder, name, writing))
    said = os.read(pipe, 65_536) if spoke else b""
    until = time.monotonic() + alive_s
    while (left := until - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            chunk = os.read(pipe, 65_536)
            assert chunk, "the child ended by itself"
            said += chunk
    os.kill(pid, signal.SIGKILL)
    while chunk := os.read(pipe, 65_536):
        said += chunk
    os.close(pipe)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    return said


def time_to_speak(home: Path) -> float:
    """From its fork until a life says something, on this machine and disk: the median of five."""
    home.mkdir()
    taken = []
    for life in range(5):
        begun = time.monotonic()
        killed_after(home, f"timed {life}", 0.0, spoke=True)
        taken.append(time.monotonic() - begun)
    return sorted(taken)[2]


@pytest.mark.parametrize("kills", [KILLS, pytest.param(500, marks=pytest.mark.soak)])
def test_no_kill_at_any_random_instant_loses_a_charge_or_overspends(tmp_path: Path, kills: int) -> None:
    """A fresh hub every 10 lives; some are cut off before they said anything, some out of a budget that is spent."""
    chance, opening_s = random.Random(1), time_to_speak(tmp_path / "timed")
    promised = refused = silent = 0
    for life in range(kills):
        if life % 10 == 0:
            promises, home = Promises(), tmp_path / str(life)
            home.mkdir()
        before = len(promises.reserved), promises.refused
        spoke = life % 2 == 1
        alive_s = chance.uniform(0.0, WORKING_S if spoke else 2 * opening_s)
        said = killed_after(home, f"life {life}", alive_s, spoke=spoke)
        promises.hear(said)
        promised += len(promises.reserved) - before[0]
        refused += promises.refused - before[1]
        silent += not said
        check(home, promises, reopen=life % 10 == 9)
    assert promised > kills / 5
    assert refused > kills / 50
    assert silent > kills / 20


def test_a_hub_that_answers_before_the_charge_is_on_disk_is_caught_by_the_same_kills(tmp_path: Path) -> None:
    """The control: nearly every second of these kills falls between the answer and its charge."""
    chance = random.Random(2)

    def unpaid(life: int) -> bool:
        home, promises = tmp_path / str(life), Promises()
        home.mkdir()
        promises.hear(killed_after(home, "hasty", chance.uniform(0.0, WORKING_S), spoke=True, run=hasty))
        try:
            check(home, promises, reopen=False)
        except AssertionError as error:
            return "nobody paid for" in str(error)
        return False

    assert any(unpaid(life) for life in range(40))


def test_the_check_sees_a_lost_charge_an_unpaid_answer_and_a_budget_overspent(tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    promises = Promises()
    reading, writing = os.pipe()
    journal, ledger = open_ledger(home)
    with journal:
        for number in range(3):
            ask(ledger, charge(number), writing, 1)
    promises.hear(os.read(reading, 4096))
    check(home, promises)
    unpaid = charge(99).release_id
    for wrong, words in (
        (Promises(reserved={unpaid: Position(3, bytes(32))}), "promised line is lost"),
        (Promises(reserved={unpaid: next(iter(promises.reserved.values()))}), "charge is lost"),
        (Promises(answered={unpaid}), "nobody paid for"),
    ):
        with pytest.raises(AssertionError, match=words):
            check(home, wrong)
    with Journal.open(home / "journal.db", KEY) as raw:  # past the ledger, as a faulty one would
        raw.append_all([Reserved(charge(n, "more")) for n in range(20)], now=2)
    with pytest.raises(AssertionError, match="over its budget"):
        check(home, promises)


# --- callers at once ---------------------------------------------------------------------------------


def test_16_threads_at_once_spend_the_budget_once(tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    reading, writing = os.pipe()
    journal, ledger = open_ledger(home)
    start = threading.Barrier(CALLERS)

    def run(who: int) -> None:
        start.wait()
        for number in range(6):
            ask(ledger, charge(number, str(who), STUDIES[(who + number) % 3]), writing, 1)

    threads = [threading.Thread(target=run, args=(who,)) for who in range(CALLERS)]
    with journal:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    promises = Promises()
    promises.hear(os.read(reading, 2**16))
    assert len(check(home, promises)) == len(promises.reserved) == ROOM
    assert promises.refused == CALLERS * 6 - ROOM


def serve_one(ledger: Ledger, talk: Connection) -> None:
    """A hub's door, in small: a question in, its reservation's place or the refusal out."""
    with talk, contextlib.suppress(EOFError):
        while True:
            who, number = talk.recv()
            try:
                taken = ledger.reserve(charge(number, who, STUDIES[number % 3]), now=number)
                talk.send((taken.release_id, taken.position.line, taken.position.digest))
            except FluteError as error:
                talk.send(error.code)


def test_16_processes_at_one_door_spend_the_budget_once(tmp_path: Path) -> None:
    home, address = tmp_path / "hub", str(tmp_path / "door")
    home.mkdir()
    journal, ledger = open_ledger(home)
    script = (
        "import sys, pickle; from multiprocessing.connection import Client\n"
        "talk = Client(sys.argv[1], 'AF_UNIX'); said = []\n"
        "for number in range(6):\n    talk.send((sys.argv[2], number)); said.append(talk.recv())\n"
        "sys.stdout.buffer.write(pickle.dumps(said))"
    )
    with Listener(address, "AF_UNIX", backlog=CALLERS) as door, journal:
        callers = [
            subprocess.Popen([sys.executable, "-S", "-c", script, address, f"caller {n}"], stdout=subprocess.PIPE)
            for n in range(CALLERS)
        ]
        threads = [threading.Thread(target=serve_one, args=(ledger, door.accept())) for _ in callers]
        for thread in threads:
            thread.start()
        answers = [answer for caller in callers for answer in _pickled(caller)]
        for thread in threads:
            thread.join()
    promises = Promises({a[0]: Position(a[1], a[2]) for a in answers if not isinstance(a, str)})
    assert {a for a in answers if isinstance(a, str)} == {"budget-exceeded"}
    assert len(check(home, promises)) == len(promises.reserved) == ROOM


def _pickled(caller: subprocess.Popen[bytes]) -> list[object]:
    import pickle

    return list(pickle.loads(caller.communicate(timeout=60)[0]))


def test_of_16_processes_that_want_the_journal_one_has_it(tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    open_ledger(home)[0].close()
    gate_out, gate_in = os.pipe()

    def contend(writing: int) -> None:
        os.read(gate_out, 1)
        try:
            held = open_ledger(home)
        except LedgerError:
            os.write(writing, b"0")
            os._exit(0)
        held[1].reserve(charge(os.getpid()), now=1)
        os.write(writing, b"1")
        time.sleep(30)  # keeps it

    children = [fork(contend) for _ in range(CALLERS)]
    try:
        os.write(gate_in, b"g" * CALLERS)
        told = [os.read(pipe, 1) for _, pipe in children]
    finally:
        for pid, pipe in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pipe)
    assert sorted(told) == [b"0"] * (CALLERS - 1) + [b"1"]
    assert len(check(home, Promises())) == 1


# --- disks -------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    made = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if not made or made.returncode != 0:
        pytest.skip("a small file system takes the right to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(ballast: Path) -> None:
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(handle, bytes(512))
    os.close(handle)


def heard(pipe: int) -> Promises:
    promises = Promises()
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        promises.hear(os.read(pipe, 2**16))
    return promises


def test_a_full_disk_charges_nothing_that_it_does_not_keep_and_answers_nothing(small_disk: Path) -> None:
    home = small_disk / "hub"
    home.mkdir()
    reading, writing = os.pipe()
    journal, ledger = open_ledger(home)
    ask(ledger, charge(0), writing, 1)
    ballast = small_disk / "ballast"
    fill(ballast)
    said = _until_refused(ledger, writing)
    assert all("cannot be written" in text for text in said)
    assert len(said) == 3, "the disk never got full"
    journal.close()
    ballast.unlink()
    promises = heard(reading)
    charges = check(home, promises)
    assert {c.charge.release_id for c in charges} >= set(promises.reserved)
    journal, ledger = open_ledger(home)
    with journal:
        ask(ledger, charge(1_000), writing, 3)
    assert len(check(home, Promises())) == len(charges) + 1


def _until_refused(ledger: Ledger, writing: int) -> list[str]:
    """What was said to the first three questions for which there was no room; what SQLite's files have room for in
    them still goes in."""
    said: list[str] = []
    for number in range(1, 250):  # what is said of more would not fit into the pipe
        try:
            ask(ledger, charge(number, study=STUDIES[number % 3], rho=1e-6), writing, number)
        except LedgerError as error:
            said.append(error.text)
        if len(said) == 3:
            break
    return said


def read_only(place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)


def test_a_disk_that_becomes_read_only_stops_the_hub_and_changes_nothing(small_disk: Path) -> None:
    home = small_disk / "hub"
    home.mkdir()
    reading, writing = os.pipe()
    journal, ledger = open_ledger(home)
    ask(ledger, charge(0), writing, 1)
    journal.close()
    with contextlib.contextmanager(read_only)(small_disk):
        with pytest.raises(LedgerError):
            open_ledger(home)
        assert len(list(JournalView(home / "journal.db").lines())) == 3  # reading works
    assert len(check(home, heard(reading))) == 1


def test_a_folder_that_may_not_be_written_stops_the_hub(tmp_path: Path) -> None:
    """As root a mode stops nobody, so the lock file's place is taken by a folder."""
    home = tmp_path / "hub"
    home.mkdir()
    open_ledger(home)[0].close()
    (home / "journal.db.lock").unlink()
    (home / "journal.db.lock").mkdir()
    with pytest.raises(LedgerError, match="No lock file can be made"):
        open_ledger(home)


def test_a_witness_that_cannot_be_written_stops_the_hub_and_its_charge_stands(tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    reading, writing = os.pipe()
    journal, ledger = open_ledger(home)
    ask(ledger, charge(0), writing, 1)
    place = tmp_path / "hub.witness"
    kept = tmp_path / "kept"
    place.rename(kept)
    place.write_bytes(b"a file where the folder was")
    with pytest.raises(LedgerError, match="witness"):
        ledger.reserve(charge(1), now=2)
    with pytest.raises(LedgerError, match="witness"):  # and nothing is decided on what this process knows
        ledger.reserve(charge(2), now=2)
    journal.close()
    place.unlink()
    kept.rename(place)
    assert [c.charge for c in check(home, heard(reading))] == [charge(0), charge(1)]


# --- clocks ------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_refunds_nothing_and_reorders_nothing(tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    reading, writing = os.pipe()
    for life, now in enumerate((2_000_000_000, 5, 1_000_000, 0)):
        journal, ledger = open_ledger(home)
        with journal:
            before = ledger.standing("s1").left
            ask(ledger, charge(life), writing, now)
            assert ledger.standing("s1").left == before - PRICE
    journal, ledger = open_ledger(home)
    with journal:
        for now in (0, 5, 3_000_000_000):
            ask(ledger, charge(now + 10), writing, now)
    promises = heard(reading)
    assert (len(check(home, promises)), promises.refused) == (4, 3)
    assert [line.at for line in JournalView(home / "journal.db").lines(kinds=("reserved",))] == [
        2_000_000_000, 5, 1_000_000, 0,
    ]  # fmt: skip


def test_a_budget_is_the_sum_of_all_times(tmp_path: Path) -> None:
    """The control of the test above: a ledger that forgot lines of the past would have room for more."""
    home = tmp_path / "hub"
    home.mkdir()
    journal, ledger = open_ledger(home)
    with journal:
        for number in range(4):
            ledger.reserve(charge(number), now=2_000_000_000 - number)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(charge(4), now=5)
        late = [line for line in journal.lines(kinds=("reserved",)) if line.at > 2_000_000_000 - 2]
    assert len(late) * PRICE < STUDY
