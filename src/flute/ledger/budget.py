"""The privacy budget: a view of the journal, and the only maker of reservations.

Reserve, then read, then settle. A reservation is on disk before `reserve` returns, and it stays charged
whatever happens next: once a row may have been read there is no way back. Settling is bookkeeping.

Levels nest. A charge falls on one account of every level at once (`ceilings.KEYS`) and must fit under every ceiling
that is set over any of them. What is guaranteed is the ceiling; what is "spent" is bookkeeping.
`ledger.ceilings` says how amounts add up.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, NoReturn, final

from flute.errors import ExactNotAllowed, LedgerError, MisuseError
from flute.ledger.ceilings import (
    KEYS,
    Account,
    Ceiling,
    Level,
    Policy,
    Standing,
    require_under,
    round_down,
    round_up,
)
from flute.ledger.charge import Charge, Outcome
from flute.ledger.entries import Reserved, Settled, read_entry, write_entry
from flute.ledger.journal import Journal, Position

__all__ = ["Ceiling", "Charge", "Ledger", "Level", "Outcome", "Policy", "Reservation", "Standing"]

_ISSUED_HERE: Final = object()
_OURS: Final = ("reserved", "settled")


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


@dataclass(slots=True)
class _Charged:
    charge: Charge
    position: Position
    outcome: Outcome | None = None
    settled_at: Position | None = None


class Ledger:
    """The budget of one hub. All methods may be called from any thread; a second process is kept out by the
    journal. `ceilings`: the hub owner's; at least one over the hub or its persons."""

    def __init__(self, journal: Journal, ceilings: Sequence[Ceiling]) -> None:
        """Reads the journal. Raises: LedgerError: it charges one release twice, or settles what it never charged.
        MisuseError: the journal has a ledger already."""
        self._append = journal.claim(_OURS)
        self._ceilings = tuple(ceilings)
        self._turn = threading.RLock()
        self._charged: dict[bytes, _Charged] = {}
        self._accounts: dict[tuple[Level, str], Account] = {}
        for line in journal.lines(kinds=_OURS):
            self._replay(line.entry, line.position)

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
            known = self._charged.get(charge.release_id)
            if known is not None:
                return _again(known, charge)
            self._require_room(charge, (*self._ceilings, *caps))
            position = self._append(Reserved(charge), now)
            self._enter(charge, position)
            return Reservation(_ISSUED_HERE, charge, position, fresh=True)

    def settle(self, reservation: Reservation, outcome: Outcome, now: int) -> Position:
        """Note how a release ended; its charge stands. The same outcome again changes nothing.

        Raises: MisuseError: another outcome was noted before, or the reservation is another ledger's.
        """
        with self._turn:
            known = self._charged.get(reservation.release_id)
            if known is None or known.position != reservation.position:
                raise MisuseError("This reservation is not of this ledger.")
            if known.outcome is not None and known.settled_at is not None:
                if known.outcome != outcome:
                    raise MisuseError(f"This release was settled as {known.outcome}; it cannot become {outcome}.")
                return known.settled_at
            entry = Settled(known.charge.study, known.charge.release_id, outcome)
            position = self._append(entry, now)
            self._close(known, outcome, position)
            return position

    def open(self) -> tuple[Reservation, ...]:
        """Reservations that were never settled (a crash leaves them so). They are charged; none is fresh."""
        with self._turn:
            waiting = [c for c in self._charged.values() if c.outcome is None]
        return tuple(Reservation(_ISSUED_HERE, c.charge, c.position, fresh=False) for c in waiting)

    def find(self, release_id: bytes) -> Reservation | None:
        """The reservation of a release that was charged before, never fresh."""
        with self._turn:
            known = self._charged.get(release_id)
        return None if known is None else Reservation(_ISSUED_HERE, known.charge, known.position, fresh=False)

    def outcome(self, release_id: bytes) -> Outcome | None:
        """How a release ended; None while it is open. Raises: MisuseError: it was never reserved."""
        with self._turn:
            if release_id not in self._charged:
                raise MisuseError("This release was never reserved here.")
            return self._charged[release_id].outcome

    def standing(self, study: str | None = None, caps: Sequence[Ceiling] = ()) -> Standing:
        """Of a study, or of the whole hub; see `account`."""
        return self.account(Level.HUB, "", caps) if study is None else self.account(Level.STUDY, study, caps)

    def account(self, level: Level, key: str, caps: Sequence[Ceiling] = ()) -> Standing:
        """One account. What is left takes the ceilings over its persons and over the hub into account."""
        with self._turn:
            account = self._accounts.get((level, key), Account())
            around = {(level, key), (Level.HUB, ""), *((Level.PERSONS, p) for p in account.persons)}
            if level is Level.HUB:
                around = {(level, key)}
            rooms = [room for at in around for room in self._rooms(at, (*self._ceilings, *caps))]
            unbounded = any("exact" in self._at((Level.PERSONS, p)).modes for p in account.persons)
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
                unbounded=unbounded,
            )

    def _at(self, at: tuple[Level, str]) -> Account:
        return self._accounts.get(at, Account())

    def _rooms(self, at: tuple[Level, str], ceilings: Sequence[Ceiling]) -> list[tuple[Fraction, Fraction, int]]:
        account, (level, key) = self._at(at), at
        over = [c.policy for c in ceilings if c.level is level and c.over(key)]
        return [
            (
                max(Fraction(0), Fraction(p.rho) - account.rho),
                max(Fraction(0), Fraction(p.delta) - account.delta),
                max(0, p.max_numbers - account.numbers),
            )
            for p in over
        ]

    def _require_room(self, charge: Charge, ceilings: Sequence[Ceiling]) -> None:
        over = [c for c in ceilings if c.over(KEYS[c.level](charge))]
        levels = {c.level for c in over}
        if Level.STUDY not in levels or not levels & {Level.HUB, Level.PERSONS}:
            raise MisuseError("A charge needs a ceiling over its study and one over its persons or the whole hub.")
        self._require_one_mode(charge, over)
        for level in Level:
            for ceiling in over:
                if ceiling.level is level:
                    require_under(charge, self._at((level, KEYS[level](charge))), ceiling)

    def _require_one_mode(self, charge: Charge, over: Sequence[Ceiling]) -> None:
        others = self._at((Level.STUDY, charge.study)).modes - {charge.mode}
        if others and not all(c.policy.mixed for c in over if c.level is Level.STUDY):
            raise ExactNotAllowed(
                f"Study {charge.study} has been asked in {others.pop()} mode; a study is private or exact, not both, "
                "unless its agreement says so. Propose another study."
            )

    def _enter(self, charge: Charge, position: Position) -> None:
        self._charged[charge.release_id] = _Charged(charge, position)
        for level, key in KEYS.items():
            self._accounts.setdefault((level, key(charge)), Account()).enter(charge)

    def _close(self, known: _Charged, outcome: Outcome, position: Position) -> None:
        known.outcome, known.settled_at = outcome, position
        for level, key in KEYS.items():
            self._accounts[level, key(known.charge)].settled += Fraction(known.charge.rho)

    def _replay(self, entry: Any, position: Position) -> None:
        if isinstance(entry, Reserved) and entry.charge.release_id not in self._charged:
            self._enter(entry.charge, position)
            return
        known = self._charged.get(entry.release_id) if isinstance(entry, Settled) else None
        if known is None or known.outcome is not None:
            raise LedgerError(
                f"Line {position.line} of the journal charges or settles a release in a way that cannot be; the "
                "budget cannot be told from it. Nothing may be answered before it was examined."
            )
        self._close(known, entry.outcome, position)


def _checked(charge: Charge) -> Charge:
    """The charge as it will be read from the journal. Raises: MisuseError: its price does not fit its mode."""
    entry = read_entry(write_entry(Reserved(charge)))
    assert isinstance(entry, Reserved)
    charge = entry.charge
    private = charge.rho > 0 and charge.numbers == 0
    exact = charge.rho == 0 and charge.delta == 0 and charge.numbers > 0
    if not (private if charge.mode == "private" else exact):
        raise MisuseError(
            f"A charge of study {charge.study} does not fit its mode: a private one has a rho above 0 and no exact "
            "numbers, an exact one has at least one number and neither rho nor delta."
        )
    return charge


def _again(known: _Charged, charge: Charge) -> Reservation:
    if known.charge != charge:
        raise MisuseError(
            f"Release {charge.release_id.hex()[:12]} was reserved before at another price or for another question "
            f"(line {known.position.line}); a release id names one question in one context."
        )
    return Reservation(_ISSUED_HERE, known.charge, known.position, fresh=False)
