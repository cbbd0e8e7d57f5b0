"""The privacy budget: a view of the journal, and the only maker of reservations.

Reserve, then read, then settle. A reservation is on disk before `reserve` returns, and it stays charged
whatever happens next: once a row may have been read there is no way back. Settling is bookkeeping.

Levels nest. A charge falls on one account of every level at once (`ceilings.KEYS`) and must fit under every ceiling
that is set over any of them, and under every allotment around it (`ledger.budgets.allotments`). What is guaranteed is
the ceiling; what is "spent" is bookkeeping. `ledger.budgets.ceilings` says how amounts add up, `ledger.budgets.book`
what lines say.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, NoReturn, TypeVar, final

from flute.errors import ExactNotAllowed, JournalBroken, LedgerError, MisuseError
from flute.ledger.budgets.allotments import Allotment, level_of
from flute.ledger.budgets.book import KINDS, Book, Charged
from flute.ledger.budgets.ceilings import KEYS, Ceiling, Level, Policy, Standing, require_under
from flute.ledger.charge import Amount, Charge, Outcome, Place
from flute.ledger.journals.chain import Head
from flute.ledger.journals.journal import Journal, Position
from flute.ledger.lines.budget import AllotmentMoved, Allotted
from flute.ledger.lines.entries import Entry, Reserved, Settled, read_entry, write_entry

__all__ = [
    "Allotment", "Amount", "Ceiling", "Charge", "Ledger", "Level", "Outcome", "Place", "Policy", "Reservation",
    "Standing",
]  # fmt: skip

E = TypeVar("E", Reserved, Allotted, AllotmentMoved)
_ISSUED_HERE: Final = object()


@final
class Reservation:
    """Proof that a charge is on disk. Only `Ledger` makes one; it cannot be copied, altered or sent.

    fresh: it was charged just now, and pays for one answer. Where it is not fresh, the same release was
    reserved before: only the very bytes that were made then may be sent again, nothing may be computed.
    """

    __slots__ = ("_charge", "_fresh", "_position")
    _charge: Charge
    _fresh: bool
    _position: Position

    def __init__(self, issuer: object, charge: Charge, position: Position, *, fresh: bool) -> None:
        if issuer is not _ISSUED_HERE:
            raise MisuseError("A reservation comes from the ledger alone: reserve the charge there.")
        for name, value in (("_charge", charge), ("_position", position), ("_fresh", fresh)):
            object.__setattr__(self, name, value)

    @property
    def charge(self) -> Charge:
        return self._charge

    @property
    def release_id(self) -> bytes:
        return self._charge.release_id

    @property
    def position(self) -> Position:
        """Its line in the journal."""
        return self._position

    @property
    def fresh(self) -> bool:
        return self._fresh

    def require_fresh(self) -> None:
        """Before an answer is computed. Raises: MisuseError: this release was reserved before."""
        if not self._fresh:
            raise MisuseError(
                f"This release was reserved before, in line {self._position.line} of the journal. Only the answer "
                "made then may be sent again; a new answer needs a new question, and is charged."
            )

    def __repr__(self) -> str:
        return f"<Reservation of line {self._position.line}, {'fresh' if self._fresh else 'known'}>"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise MisuseError("A reservation cannot be altered.")

    def __delattr__(self, name: str) -> NoReturn:
        raise MisuseError("A reservation cannot be altered.")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise MisuseError("A reservation cannot be copied or sent; its line in the journal can be named.")


class Ledger:
    """The budget of one hub. All methods may be called from any thread; a second process is kept out by the
    journal. `ceilings`: the hub owner's; at least one over the hub or its persons."""

    def __init__(self, journal: Journal, ceilings: Sequence[Ceiling]) -> None:
        """Reads the journal. Raises: LedgerError: it charges one release twice, or settles what it never charged.
        MisuseError: the journal has a ledger already."""
        self._append = journal.claim(KINDS)
        self._journal = journal
        self._ceilings = tuple(ceilings)
        self._turn = threading.RLock()
        self._book = Book()
        self._halted = ""
        for line in journal.lines(kinds=KINDS):
            self._book.take(line.entry, line.position)

    def set_ceilings(self, ceilings: Sequence[Ceiling]) -> None:
        """The owner's new ceilings. What is charged stays; under a lower one there may be nothing left."""
        with self._turn:
            self._ceilings = tuple(ceilings)

    def reserve(self, charge: Charge, caps: Sequence[Ceiling] = (), *, now: int) -> Reservation:
        """Charge a release. On disk when this returns; until then nothing may be read.

        `caps`: the ceilings of the study agreement, which hold besides the hub's own. The same release again
        gives the same reservation, not fresh and not charged. Nothing is charged when this raises, but for
        a failed write, which a restart clears up (it then counts as charged if it reached the disk).

        Raises: BudgetExceeded, ExactNotAllowed: a ceiling. MisuseError: another charge under a known release
          id, a charge out of its bounds, no ceiling over study or persons. LedgerError: it cannot be written.
        """
        charge = _checked(charge)
        with self._turn:
            self._require_running()
            known = self._book.charged.get(charge.release_id)
            if known is not None:
                return _again(known, charge)
            self._require_room(charge, (*self._ceilings, *caps, *self._book.allotments.ceilings(charge)))
            position = self._write(Reserved(charge), now)
            return Reservation(_ISSUED_HERE, charge, position, fresh=True)

    def settle(self, reservation: Reservation, outcome: Outcome, now: int, *, total: bytes = b"") -> Position:
        """Note how a release ended; its charge stands. The same outcome again changes nothing.

        total: digest of the opened total, where there is one. Raises: MisuseError: another outcome or total was noted
        before, or the reservation is another ledger's.
        """
        with self._turn:
            known = self._book.charged.get(reservation.release_id)
            if known is None or known.position != reservation.position:
                raise MisuseError("This reservation is not of this ledger.")
            if known.outcome is not None and known.settled_at is not None:
                if (known.outcome, known.total) != (outcome, total):
                    raise MisuseError(
                        f"This release was settled as {known.outcome}; it cannot become {outcome}, nor have another "
                        "total."
                    )
                return known.settled_at
            return self._write(Settled(known.charge.study, known.charge.release_id, outcome, total), now)

    def open(self) -> tuple[Reservation, ...]:
        """Reservations that were never settled (a crash leaves them so). They are charged; none is fresh."""
        with self._turn:
            waiting = [c for c in self._book.charged.values() if c.outcome is None]
        return tuple(Reservation(_ISSUED_HERE, c.charge, c.position, fresh=False) for c in waiting)

    def find(self, release_id: bytes) -> Reservation | None:
        """The reservation of a release that was charged before, never fresh."""
        with self._turn:
            known = self._book.charged.get(release_id)
        return None if known is None else Reservation(_ISSUED_HERE, known.charge, known.position, fresh=False)

    def outcome(self, release_id: bytes) -> Outcome | None:
        """How a release ended; None while it is open. Raises: MisuseError: it was never reserved."""
        with self._turn:
            if release_id not in self._book.charged:
                raise MisuseError("This release was never reserved here.")
            return self._book.charged[release_id].outcome

    def total(self, release_id: bytes) -> bytes:
        """Digest of the total that was opened, as this hub was told; empty where none was. Raises: as `outcome`."""
        with self._turn:
            if release_id not in self._book.charged:
                raise MisuseError("This release was never reserved here.")
            return self._book.charged[release_id].total

    def standing(self, study: str | None = None, caps: Sequence[Ceiling] = ()) -> Standing:
        """Of a study, or of the whole hub; see `account`."""
        return self.account(Level.HUB, "", caps) if study is None else self.account(Level.STUDY, study, caps)

    def account(self, level: Level, key: str, caps: Sequence[Ceiling] = ()) -> Standing:
        """One account. What is left takes the ceilings over its persons and over the hub into account."""
        with self._turn:
            return self._book.standing(level, key, (*self._ceilings, *caps))

    def accounts(self) -> tuple[Standing, ...]:
        """Every account that was ever charged, outermost level first."""
        with self._turn:
            return tuple(self._book.standing(level, key, self._ceilings) for level, key in self._book.accounts())

    # --- dividing it -------------------------------------------------------------------------------

    def allotments(self) -> tuple[Allotment, ...]:
        with self._turn:
            return tuple(self._book.allotments)

    def allot(
        self, place: Place, persons: str, amount: Amount, caps: Sequence[Ceiling] = (), *, person: str, reason: str,
        now: int,
    ) -> Position:  # fmt: skip
        """What `place` may spend in all, from now on; journaled. `caps`: as in `reserve`.

        Raises: BudgetExceeded: it is above a ceiling that encloses it, or under what it encloses; nothing changed.
          NotPossible: no such place.
        """
        with self._turn:
            entry = _whole(Allotted(person, place, persons, amount, reason))
            self._book.allotments.require_fits(entry, (*self._ceilings, *caps))
            return self._write(entry, now)

    def move(
        self, source: Place, target: Place, amount: Amount, caps: Sequence[Ceiling] = (), *, person: str, reason: str,
        now: int,
    ) -> Position:  # fmt: skip
        """Move what is unspent of one allotment to another; journaled. `caps`: over the target.

        Raises: as `allot`."""
        with self._turn:
            entry = _whole(AllotmentMoved(person, source, target, amount, reason))
            level = level_of(entry.source)
            spent = {level: self._book.at((level, entry.source.key))}
            self._book.allotments.require_moves(entry, (*self._ceilings, *caps), spent)
            return self._write(entry, now)

    # --- an older copy -----------------------------------------------------------------------------

    def witnessed(self, head: Head) -> None:
        """What somebody else was given as this journal's head, at any time. Nothing happens where it is in it.

        Raises: BadSignature: not this hub's head. JournalBroken: this journal is an older copy, or another one; from
          then on nothing is reserved, in this process and after a restart, until a recovery.
        """
        try:
            self._journal.require_head(head)
        except JournalBroken as error:
            with self._turn:
                self._halted = error.text
            raise

    def _require_running(self) -> None:
        if self._halted:
            raise LedgerError(self._halted)

    def _write(self, entry: Entry, now: int) -> Position:
        position = self._append(entry, now)
        self._book.take(entry, position)
        return position

    def _require_room(self, charge: Charge, ceilings: Sequence[Ceiling]) -> None:
        over = [c for c in ceilings if c.over(KEYS[c.level](charge))]
        levels = {c.level for c in over}
        if Level.STUDY not in levels or not levels & {Level.HUB, Level.PERSONS}:
            raise MisuseError("A charge needs a ceiling over its study and one over its persons or the whole hub.")
        self._require_one_mode(charge, over)
        for level in Level:
            for ceiling in over:
                if ceiling.level is level:
                    require_under(charge, self._book.at((level, KEYS[level](charge))), ceiling)

    def _require_one_mode(self, charge: Charge, over: Sequence[Ceiling]) -> None:
        others = self._book.at((Level.STUDY, charge.study)).modes - {charge.mode}
        if others and not all(c.policy.mixed for c in over if c.level is Level.STUDY):
            raise ExactNotAllowed(
                f"Study {charge.study} has been asked in {others.pop()} mode; a study is private or exact, not both, "
                "unless its agreement says so. Propose another study."
            )


def _whole(entry: E) -> E:
    """The entry as it will be read from the journal. Raises: MisuseError: a field is out of its bounds."""
    found = read_entry(write_entry(entry))
    assert isinstance(found, type(entry))
    return found


def _checked(charge: Charge) -> Charge:
    """The charge as it will be read from the journal. Raises: MisuseError: its price does not fit its mode."""
    charge = _whole(Reserved(charge)).charge
    private = charge.rho > 0 and charge.numbers == 0
    exact = charge.rho == 0 and charge.delta == 0 and charge.numbers > 0
    if not (private if charge.mode == "private" else exact):
        raise MisuseError(
            f"A charge of study {charge.study} does not fit its mode: a private one has a rho above 0 and no exact "
            "numbers, an exact one has at least one number and neither rho nor delta."
        )
    return charge


def _again(known: Charged, charge: Charge) -> Reservation:
    if known.charge != charge:
        raise MisuseError(
            f"Release {charge.release_id.hex()[:12]} was reserved before at another price or for another question "
            f"(line {known.position.line}); a release id names one question in one context."
        )
    return Reservation(_ISSUED_HERE, known.charge, known.position, fresh=False)
