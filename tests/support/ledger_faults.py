"""A ledger that is tormented, what it promised, and the one check that must hold whatever was done to it.

`check` trusts nothing of `flute.ledger` but the chain: it adds the journal's lines up by itself.
"""

from __future__ import annotations

import os
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from flute.errors import BudgetExceeded
from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Policy, Reservation
from flute.ledger.journals.journal import Journal, JournalView, Position, verify
from flute.ledger.journals.witness import FileWitness
from flute.ledger.lines.entries import Reserved, Settled
from flute.primitives.keys import SigningKey, digest

KEY = SigningKey(b"h" * 32)
STUDIES = ("s1", "s2", "s3")
PRICE = 1 / 16
STUDY, DATASET = 0.25, 0.5
"""Four charges fill a study, eight the dataset: the three studies cannot all be filled."""
OVER = (Ceiling(Level.STUDY, Policy(STUDY, 1e-6)), Ceiling(Level.PERSONS, Policy(DATASET, 1e-6)))
_SAID = struct.Struct(">cq32s32s")
_EMPTY = bytes(32)


def charge(number: int, who: str = "", study: str = "s1", rho: float = PRICE) -> Charge:
    release = digest(b"release", who.encode(), number.to_bytes(8, "big"))
    return Charge(release, study, "q1", 0, "maria", "private", rho, 1e-12, 0, "secagg", "records", _EMPTY)


@dataclass
class Promises:
    """What somebody was told: reservations and outcomes that are on disk, answers that left."""

    reserved: dict[bytes, Position] = field(default_factory=dict)
    settled: dict[bytes, Position] = field(default_factory=dict)
    answered: set[bytes] = field(default_factory=set)
    refused: int = 0

    def hear(self, said: bytes) -> None:
        """Bytes from a pipe; a message that a kill cut short was never said."""
        for at in range(0, len(said) - _SAID.size + 1, _SAID.size):
            kind, line, line_digest, release = _SAID.unpack_from(said, at)
            position = Position(line, line_digest)
            match kind:
                case b"R":
                    self.reserved[release] = position
                case b"A":
                    self.answered.add(release)
                case b"S":
                    self.settled[release] = position
                case b"N":
                    self.refused += 1


def say(pipe: int, kind: bytes, release: bytes, position: Position | None = None) -> None:
    os.write(
        pipe, _SAID.pack(kind, position.line if position else 0, position.digest if position else _EMPTY, release)
    )


def open_ledger(folder: Path, *, witnessed: bool = True) -> tuple[Journal, Ledger]:
    witness = FileWitness(folder.parent / f"{folder.name}.witness" / "head") if witnessed else None
    journal = Journal.open(folder / "journal.db", KEY, witness=witness)
    return journal, Ledger(journal, OVER)


def ask(ledger: Ledger, asked: Charge, pipe: int, now: int) -> Reservation | None:
    """One question as the hub deals with it: reserve, answer, settle; every promise is said when it holds."""
    try:
        reservation = ledger.reserve(asked, now=now)
    except BudgetExceeded:
        say(pipe, b"N", asked.release_id)
        return None
    say(pipe, b"R", asked.release_id, reservation.position)
    say(pipe, b"A", asked.release_id)
    say(pipe, b"S", asked.release_id, ledger.settle(reservation, "released", now=now))
    return reservation


def work(folder: Path, name: str, pipe: int) -> None:
    """Ask without end, until killed."""
    _, ledger = open_ledger(folder)
    number = 0
    while True:
        number += 1
        ask(ledger, charge(number, name, STUDIES[number % 3]), pipe, int(time.time()))


def hasty(folder: Path, name: str, pipe: int) -> None:
    """A hub that is wrong: it answers, and charges afterwards."""
    _, ledger = open_ledger(folder)
    number = 0
    while True:
        number += 1
        asked = charge(number, name, STUDIES[number % 3], rho=1e-6)
        say(pipe, b"A", asked.release_id)
        ledger.reserve(asked, now=int(time.time()))


def check(folder: Path, promises: Promises, *, reopen: bool = True) -> Sequence[Reserved]:
    """The invariants, read from the journal's lines alone. Gives the charges.

    1 the chain holds 2 every promised line is there, at its place 3 no release is charged twice, nothing is settled
    that was not charged before 4 every answer has its charge 5 no account is over its ceiling, in exact fractions
    6 `reopen`: a ledger opened on it counts no less than the lines say, and knows every promised release
    """
    path = folder / "journal.db"
    if not path.exists():
        assert promises == Promises(), "the journal is gone"
        return []
    verified = verify(path, KEY.public)
    lines = list(JournalView(path).lines())
    assert [line.position.line for line in lines] == list(range(1, verified.lines + 1))
    places = {line.position.line: line.position.digest for line in lines}
    for promised in (promises.reserved, promises.settled):
        assert all(places.get(p.line) == p.digest for p in promised.values()), "a promised line is lost"
    charges = _charged_once(line.entry for line in lines)
    charged = {c.charge.release_id: c for c in charges}
    assert set(promises.reserved) <= set(charged), "a charge is lost"
    assert promises.answered <= set(charged), "an answer left that nobody paid for"
    spent = _spent(charges)
    for study in STUDIES:
        assert spent[study] <= Fraction(STUDY), f"{study} is over its budget"
    assert spent[""] <= Fraction(DATASET), "the dataset is over its budget"
    if reopen:
        _require_counted(folder, spent, promises)
    return charges


def _charged_once(entries: Iterable[object]) -> list[Reserved]:
    charged: dict[bytes, Reserved] = {}
    ended: set[bytes] = set()
    for entry in entries:
        if isinstance(entry, Reserved):
            assert entry.charge.release_id not in charged, "a release was charged twice"
            charged[entry.charge.release_id] = entry
        if isinstance(entry, Settled):
            assert entry.release_id in charged, "something was settled that was never charged"
            assert entry.release_id not in ended, "a release ended twice"
            ended.add(entry.release_id)
    return list(charged.values())


def _spent(charges: Iterable[Reserved]) -> dict[str, Fraction]:
    spent: dict[str, Fraction] = defaultdict(Fraction)
    for entry in charges:
        for account in (entry.charge.study, ""):
            spent[account] += Fraction(entry.charge.rho)
    return spent


def _require_counted(folder: Path, spent: dict[str, Fraction], promises: Promises) -> None:
    journal, ledger = open_ledger(folder)
    with journal:
        for study in STUDIES:
            standing = ledger.standing(study)
            assert Fraction(standing.reserved) + Fraction(standing.settled) >= spent[study]
            assert Fraction(standing.left) <= Fraction(STUDY) - spent[study]
        assert all(ledger.find(release) is not None for release in promises.reserved)
