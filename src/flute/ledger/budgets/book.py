"""The budget as the journal tells it: what each account was charged, what is allotted, what ended how.

A `Book` is made of journal lines and of nothing else, so whoever has an export of the journal computes the same one
as the hub (`ledger.recount`). It decides nothing: `ledger.budgets.budget` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from flute.errors import LedgerError, NotPossible
from flute.ledger.budgets.allotments import Allotments
from flute.ledger.budgets.ceilings import KEYS, Account, Ceiling, Level, Standing, round_down, round_up, units
from flute.ledger.charge import Amount, Charge, Outcome
from flute.ledger.journals.chain import Position
from flute.ledger.lines.budget import AllotmentMoved, Allotted, JournalRecovered
from flute.ledger.lines.entries import Reserved, Settled

At = tuple[Level, str]
KINDS: Final = ("reserved", "settled", "allotted", "allotment-moved", "journal-recovered")
"""Lines that a book is made of. Only the ledger writes them, but for the last, which a recovery does."""


@dataclass(slots=True)
class Charged:
    charge: Charge
    position: Position
    outcome: Outcome | None = None
    settled_at: Position | None = None
    total: bytes = b""


class Book:
    def __init__(self) -> None:
        self.charged: dict[bytes, Charged] = {}
        self.allotments = Allotments()
        self._accounts: dict[At, Account] = {}
        self._lost: dict[Level, Amount] = {}

    # --- making it ---------------------------------------------------------------------------------

    def take(self, entry: Any, position: Position) -> None:
        """One more line; those of other kinds say nothing here.

        Raises: LedgerError: it charges a release twice, settles what was never charged, moves what is not there."""
        match entry:
            case Reserved() if entry.charge.release_id not in self.charged:
                self._enter(entry.charge, position)
            case Settled() if self._is_open(entry.release_id):
                self._close(self.charged[entry.release_id], entry, position)
            case Allotted() | AllotmentMoved():
                self._allot(entry, position)
            case JournalRecovered():
                self._lose(entry)
            case Reserved() | Settled():
                raise _senseless(position)

    def _is_open(self, release_id: bytes) -> bool:
        return release_id in self.charged and self.charged[release_id].outcome is None

    def _enter(self, charge: Charge, position: Position) -> None:
        self.charged[charge.release_id] = Charged(charge, position)
        rho, delta = units(charge.rho), units(charge.delta)
        for level, key in KEYS.items():
            at = level, key(charge)
            if at not in self._accounts:
                self._accounts[at] = self.at(at)
            self._accounts[at].enter(charge, rho, delta)

    def _close(self, known: Charged, entry: Settled, position: Position) -> None:
        known.outcome, known.total, known.settled_at = entry.outcome, entry.total, position
        rho = units(known.charge.rho)
        for level, key in KEYS.items():
            self._accounts[level, key(known.charge)].settled_units += rho

    def _allot(self, entry: Allotted | AllotmentMoved, position: Position) -> None:
        try:
            self.allotments.take(entry)
        except NotPossible as error:
            raise _senseless(position) from error

    def _lose(self, entry: JournalRecovered) -> None:
        for level, amount in ((Level.STUDY, entry.per_study), (Level.PERSONS, entry.per_dataset)):
            before = self._lost.get(level, Amount())
            self._lost[level] = Amount(
                max(before.rho, amount.rho), max(before.delta, amount.delta), max(before.numbers, amount.numbers)
            )
            for (of, _), account in self._accounts.items():
                if of is level:
                    account.lose(amount)

    # --- reading it --------------------------------------------------------------------------------

    def at(self, at: At) -> Account:
        """An account; one that was never charged is empty, or what a lost journal may have charged to it."""
        found = self._accounts.get(at)
        return found if found is not None else Account.after_a_loss(self._lost.get(at[0], Amount()))

    @property
    def open_count(self) -> int:
        """Releases that were reserved and have not ended."""
        return sum(known.outcome is None for known in self.charged.values())

    def accounts(self) -> Iterator[At]:
        """Every account that was ever charged, outermost level first."""
        order = list(Level)
        return iter(sorted(self._accounts, key=lambda at: (order.index(at[0]), at[1])))

    def standing(self, level: Level, key: str, ceilings: Sequence[Ceiling]) -> Standing:
        """What is left takes the ceilings over its persons and over the hub into account, and all allotments."""
        account = self.at((level, key))
        around = {(level, key), (Level.HUB, ""), *((Level.PERSONS, p) for p in account.persons)}
        if level is Level.HUB:
            around = {(level, key)}
        over = (*ceilings, *self.allotments.all_ceilings())
        rooms = [room for at in around for room in self._rooms(at, over)]
        persons = [self.at((Level.PERSONS, p)) for p in account.persons]
        return Standing(
            level=level,
            key=key,
            reserved=round_up(account.rho - account.settled),
            settled=round_up(account.settled),
            left=min((round_down(rho) for rho, _, _ in rooms), default=math.inf),
            delta=round_up(account.delta),
            delta_left=min((round_down(delta) for _, delta, _ in rooms), default=math.inf),
            exact_numbers=account.numbers,
            numbers_left=min((numbers for _, _, numbers in rooms), default=math.inf),
            exact="exact" in account.modes,
            unbounded=account.unbounded or any("exact" in p.modes or p.unbounded for p in persons),
        )

    def _rooms(self, at: At, ceilings: Sequence[Ceiling]) -> list[tuple[Fraction, Fraction, int]]:
        account, (level, key) = self.at(at), at
        over = [c.policy for c in ceilings if c.level is level and c.over(key)]
        return [
            (
                max(Fraction(0), Fraction(p.rho) - account.rho),
                max(Fraction(0), Fraction(p.delta) - account.delta),
                max(0, p.max_numbers - account.numbers),
            )
            for p in over
        ]


def _senseless(position: Position) -> LedgerError:
    return LedgerError(
        f"Line {position.line} of the journal charges, settles or moves in a way that cannot be; the budget cannot "
        "be told from it. Nothing may be answered before it was examined."
    )
