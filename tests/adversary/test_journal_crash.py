"""kill -9 in the middle of a burst: the journal holds, and what was acknowledged is there.

A killed process loses what only it knew, not what the kernel took; a power cut would lose that too. That each
commit is synced to disk before it is acknowledged is shown on the open connection (synchronous = FULL) in
tests/unit/test_ledger_journal.py, and by SQLite's own documentation of that setting.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from flute.errors import JournalBroken
from flute.ledger.budgets.budget import Ceiling, Ledger, Level, Policy
from flute.ledger.journals.journal import Journal, JournalView, Position, verify
from flute.ledger.lines.entries import PersonAct
from flute.primitives.keys import SigningKey

KEY = SigningKey(b"h" * 32)
OVER = [Ceiling(Level.HUB, Policy(1e6, 1e-3)), Ceiling(Level.STUDY, Policy(1e6, 1e-3))]
BURST = """
import itertools, os, sys
from pathlib import Path
from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Policy
from flute.ledger.lines.entries import PersonAct
from flute.ledger.journals.journal import Journal
from flute.primitives.keys import SigningKey, digest
journal = Journal.open(Path(sys.argv[1]), SigningKey(b"h" * 32))
ledger = Ledger(journal, [Ceiling(level, Policy(1e6, 1e-3)) for level in (Level.HUB, Level.STUDY)])
def acknowledge(position, release=b""):
    os.write(1, f"{position.line} {position.digest.hex()} {release.hex()}\\n".encode())
for number in itertools.count():
    release = digest(sys.argv[2].encode(), number.to_bytes(8, "big"))
    price = ("private", 0.1, 1e-12, 0)
    charge = Charge(release, "s1", "q1", 0, "maria", *price, "secagg", "records", release)
    reservation = ledger.reserve(charge, now=number)
    acknowledge(reservation.position, release)
    if number % 3 == 0:
        acknowledge(ledger.settle(reservation, "released", now=number))
    if number % 5 == 0:
        for position in journal.append_all([PersonAct("jordi", "opened-page", "x")] * 4, now=number):
            acknowledge(position)
"""


def burst_until_killed(path: Path, name: str, after: int) -> list[tuple[int, bytes, bytes]]:
    """What the process acknowledged (line, digest, release) before it was killed."""
    process = subprocess.Popen([sys.executable, "-c", BURST, str(path), name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = b""
    while said.count(b"\n") < after:
        chunk = os.read(process.stdout.fileno(), 4096)
        assert chunk, "the burst ended by itself"
        said += chunk
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.read()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    whole = said[: said.rfind(b"\n")].decode().splitlines()
    parts = [line.split(" ") for line in whole]
    return [(int(line), bytes.fromhex(digest), bytes.fromhex(release)) for line, digest, release in parts]


@pytest.mark.requirement("F-SRS-8")
def test_a_killed_hub_loses_no_acknowledged_line_and_no_charge(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    releases: set[bytes] = set()
    for life, after in enumerate((1, 40, 173, 400)):
        acknowledged = burst_until_killed(path, str(life), after)
        assert len(acknowledged) >= after
        last = max(acknowledged)
        verified = verify(path, KEY.public, Position(last[0], last[1]))
        assert verified.lines >= last[0]
        rows = {line.position.line: line.position.digest for line in JournalView(path).lines()}
        assert all(rows[line] == digest for line, digest, _ in acknowledged)
        releases |= {release for _, _, release in acknowledged if release}
        with Journal.open(path, KEY) as journal:
            ledger = Ledger(journal, OVER)
            assert all(ledger.find(release) is not None for release in releases)
            standing = ledger.standing("s1")
            assert Fraction(standing.reserved) + Fraction(standing.settled) >= len(releases) * Fraction(0.1)


def test_an_acknowledged_line_that_were_lost_would_be_noticed(tmp_path: Path) -> None:
    """The test above can fail: take the log of uncheckpointed pages away and the newest lines are gone, soundly."""
    path = tmp_path / "journal.db"
    with Journal.open(path, KEY) as journal:
        journal.append_all([PersonAct("jordi", "opened-page", "x")] * 5, now=1)
    with Journal.open(path, KEY) as journal:
        last = journal.append(PersonAct("jordi", "opened-page", "late"), now=2)
        crashed = tmp_path / "crashed.db"
        shutil.copy(path, crashed)  # without its -wal
        assert verify(crashed, KEY.public).lines == 5
        with pytest.raises(JournalBroken, match="a receipt of line 6 exists"):
            verify(crashed, KEY.public, last)
