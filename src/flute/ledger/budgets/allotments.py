"""How the steward divides a budget: hub > study > researcher > question.

An allotment is what a place may spend in all. It is a ceiling besides all others, and never a way over one:
the allotments directly under a place together fit into what that place is allotted, those of a study without one
into the ceilings over the study, and those of all studies over a dataset into the ceilings over the dataset. What has
no allotment stays under the ceilings around it, and may spend what is left there.

Amounts are added and compared as exact fractions; where the difference of two floats is no float it is rounded
down, so moving an allotment to and fro can lose a last digit and never makes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from flute.errors import BudgetExceeded, NotPossible
from flute.ledger.budgets.ceilings import Account, Ceiling, Level, Policy, round_down
from flute.ledger.charge import Amount, Charge, Place
from flute.ledger.lines.budget import AllotmentMoved, Allotted


@dataclass(frozen=True, slots=True)
class Allotment:
    """`persons`: the dataset whose budget it is part of."""

    place: Place
    persons: str
    amount: Amount


class Allotments:
    """All allotments of a hub, as the journal gives them."""

    def __init__(self) -> None:
        self._held: dict[Place, Allotment] = {}

    def __iter__(self) -> Iterator[Allotment]:
        return iter(sorted(self._held.values(), key=lambda held: held.place))

    def ceilings(self, charge: Charge) -> tuple[Ceiling, ...]:
        """Those that a charge falls under."""
        return tuple(_ceiling(self._held[p]) for p in (charge.place, *charge.place.around) if p in self._held)

    def all_ceilings(self) -> tuple[Ceiling, ...]:
        return tuple(_ceiling(held) for held in self._held.values())

    # --- what the journal says -------------------------------------------------------------------------

    def take(self, entry: Allotted | AllotmentMoved) -> None:
        """Raises: NotPossible: it moves what is not there."""
        self._held = self._after(entry)

    def _after(self, entry: Allotted | AllotmentMoved) -> dict[Place, Allotment]:
        if isinstance(entry, Allotted):
            return self._held | {entry.place: Allotment(entry.place, entry.persons, entry.amount)}
        source, target = self._find(entry.source), self._find(entry.target)
        return self._held | {
            source.place: Allotment(source.place, source.persons, _less(source, entry.amount)),
            target.place: Allotment(target.place, target.persons, _more(target, entry.amount)),
        }

    def _find(self, place: Place) -> Allotment:
        if place not in self._held:
            raise NotPossible(f"Nothing is allotted to {place.words} yet; 'flute ledger allot' does.")
        return self._held[place]

    # --- what may be said ------------------------------------------------------------------------------

    def require_fits(self, entry: Allotted, ceilings: Sequence[Ceiling]) -> None:
        """Raises: BudgetExceeded: it is above what encloses it, or under what it encloses. NotPossible: malformed."""
        if entry.place.question and not entry.place.asker:
            raise NotPossible("A question's allotment names its researcher as well: STUDY/RESEARCHER/QUESTION.")
        before = self._held.get(entry.place)
        if before is not None and before.persons != entry.persons:
            raise NotPossible(f"The allotment of {entry.place.words} is part of dataset {before.persons}.")
        after = self._after(entry)
        _require_inner(after, entry.place)
        if before is None or not _within(entry.amount, before.amount):
            _require_outer(after, after[entry.place], ceilings)

    def require_moves(
        self, entry: AllotmentMoved, ceilings: Sequence[Ceiling], spent: Mapping[Level, Account]
    ) -> None:
        """`spent`: the source's account, by its level. Raises: as `require_fits`; NotPossible: it is not there."""
        source, target = self._find(entry.source), self._find(entry.target)
        if source.place == target.place or entry.amount == Amount():
            raise NotPossible("Name two places, and an amount above 0.")
        _require_unspent(source, entry.amount, spent[level_of(source.place)])
        after = self._after(entry)
        _require_inner(after, source.place)
        _require_outer(after, after[target.place], ceilings)


def level_of(place: Place) -> Level:
    return Level.QUESTION if place.question else Level.RESEARCHER if place.asker else Level.STUDY


def _ceiling(held: Allotment) -> Ceiling:
    """Says nothing about exact or private: that is for the ceilings of the owner and the agreement."""
    a = held.amount
    policy = Policy(a.rho, a.delta, a.numbers, exact_allowed=True, mixed=True)
    return Ceiling(level_of(held.place), policy, of=held.place.key)


_PARTS: Final = (("rho (mu²/2)", "rho"), ("added delta", "delta"), ("exact numbers", "numbers"))


def _within(one: Amount, other: Amount) -> bool:
    return all(getattr(one, name) <= getattr(other, name) for _, name in _PARTS)


def _total(held: Iterable[Allotment], name: str) -> Fraction:
    return sum((Fraction(getattr(a.amount, name)) for a in held), Fraction(0))


def _require_inner(book: Mapping[Place, Allotment], place: Place) -> None:
    """What is allotted under `place` fits into it."""
    inner = [a for a in book.values() if _parent(book, a.place) == place]
    _require_sum(inner, book[place].amount, place.words, "lower those first")


def _require_outer(book: Mapping[Place, Allotment], changed: Allotment, ceilings: Sequence[Ceiling]) -> None:
    """`changed` and its neighbours fit into what encloses them."""
    parent = _parent(book, changed.place)
    if parent is not None:
        _require_inner(book, parent)
        return
    top = [a for a in book.values() if _parent(book, a.place) is None]
    study = [a for a in top if a.place.study == changed.place.study]
    dataset = [a for a in top if a.persons == changed.persons]
    enclosed = {Level.STUDY: study, Level.PERSONS: dataset, Level.HUB: top}
    keys = {Level.STUDY: changed.place.study, Level.PERSONS: changed.persons, Level.HUB: ""}
    words = {
        Level.STUDY: f"study {changed.place.study}",
        Level.PERSONS: f"all studies over dataset {changed.persons} together",
        Level.HUB: "all studies at this hub together",
    }
    for ceiling in ceilings:
        if ceiling.level in enclosed and ceiling.over(keys[ceiling.level]):
            p = ceiling.policy
            limit = Amount(p.rho, p.delta, p.max_numbers if p.exact_allowed else 0)
            _require_sum(enclosed[ceiling.level], limit, words[ceiling.level], "take it from another first")


def _parent(book: Mapping[Place, Allotment], place: Place) -> Place | None:
    return next((p for p in place.around if p in book), None)


def _require_sum(held: Sequence[Allotment], limit: Amount, over: str, mend: str) -> None:
    for what, name in _PARTS:
        total, most = _total(held, name), getattr(limit, name)
        if held and total > Fraction(most):
            raise BudgetExceeded(
                f"{', '.join(a.place.words for a in held[:4])}{' and more' if len(held) > 4 else ''}: together "
                f"{float(total):.4g} of {what} would be allotted, and {most:.4g} is the most for {over}. Nothing was "
                f"changed; allot less, or {mend}."
            )


def _require_unspent(source: Allotment, amount: Amount, account: Account) -> None:
    for what, name in _PARTS:
        left = max(Fraction(0), Fraction(getattr(source.amount, name)) - Fraction(getattr(account, name)))
        if Fraction(getattr(amount, name)) > left:
            raise BudgetExceeded(
                f"Of what is allotted to {source.place.words}, {float(left):.4g} of {what} is left; "
                f"{getattr(amount, name):.4g} cannot be moved. What was spent stays where it was."
            )


def _less(held: Allotment, amount: Amount) -> Amount:
    a = held.amount
    rho, delta = Fraction(a.rho) - Fraction(amount.rho), Fraction(a.delta) - Fraction(amount.delta)
    if rho < 0 or delta < 0 or a.numbers < amount.numbers:
        raise NotPossible(f"More would be moved than is allotted to {held.place.words}.")
    return Amount(round_down(rho), round_down(delta), a.numbers - amount.numbers)


def _more(held: Allotment, amount: Amount) -> Amount:
    a = held.amount
    rho, delta = Fraction(a.rho) + Fraction(amount.rho), Fraction(a.delta) + Fraction(amount.delta)
    return Amount(round_down(rho), round_down(delta), a.numbers + amount.numbers)
