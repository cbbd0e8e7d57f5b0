"""Whose budget a charge falls on, what may be spent there, and what has been.

Amounts are rho = mu^2/2 of Gaussian DP, and delta. Both add up over adaptive questions, and the check before every
step is a valid filter: Koskela, Tobaben and Honkela 2023; Smith and Thakurta 2022; docs/proofs/filter.md, step 8.
Sums of the IEEE values are exact: no rounding, so they cannot drift low.
Exact releases are outside any epsilon: they are counted in numbers opened, and make their persons' account
unbounded for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Final

from flute.errors import BudgetExceeded, ExactNotAllowed, MisuseError
from flute.ledger.charge import Amount, Charge


class Level(StrEnum):
    """Whose account: outermost first. A level more is a member here and a line in `KEYS` and `_WORDS`."""

    HUB = "hub"
    PERSONS = "persons"
    STUDY = "study"
    ASKER = "asker"
    RESEARCHER = "researcher"
    """An asker within one study."""
    QUESTION = "question"


KEYS: Final[Mapping[Level, Callable[[Charge], str]]] = {
    Level.HUB: lambda charge: "",
    Level.PERSONS: lambda charge: charge.persons,
    Level.STUDY: lambda charge: charge.study,
    Level.ASKER: lambda charge: charge.asker,
    Level.RESEARCHER: lambda charge: f"{charge.study}/{charge.asker}",
    Level.QUESTION: lambda charge: f"{charge.study}/{charge.asker}/{charge.question}",
}
_WORDS: Final[Mapping[Level, str]] = {
    Level.HUB: "all studies at this hub together",
    Level.PERSONS: "all studies over dataset {} together",
    Level.STUDY: "study {}",
    Level.ASKER: "all questions of {}",
    Level.RESEARCHER: "the questions of {} (study/researcher)",
    Level.QUESTION: "question {}",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be spent. rho: mu^2/2 of Gaussian DP; delta: added deltas; max_numbers: coordinates opened exactly.

    mixed: a study may be asked both privately and exactly, and its agreement says that epsilon then bounds
    nothing. Off unless both sides agreed to it.
    """

    rho: float
    delta: float
    max_numbers: int = 0
    exact_allowed: bool = False
    mixed: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rho) and math.isfinite(self.delta) and min(self.rho, self.delta) >= 0):
            raise MisuseError("A ceiling's rho and delta must be finite and not negative.")
        if self.max_numbers < 0:
            raise MisuseError("A ceiling cannot allow a negative number of exact numbers.")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A policy over every account of a level, each by itself, or over the one named `of`."""

    level: Level
    policy: Policy
    of: str | None = None

    def over(self, key: str) -> bool:
        return self.of is None or self.of == key


@dataclass(frozen=True, slots=True)
class Standing:
    """One account. rho and delta are rounded up, what is left is rounded down; left is infinite without a ceiling.

    exact: numbers of this account were opened exactly. unbounded: exact numbers were opened about its
    persons, in this study or another: epsilon is infinite for them, the noised answers add at most `rho`.
    """

    level: Level
    key: str
    reserved: float
    settled: float
    left: float
    delta: float
    delta_left: float
    exact_numbers: int
    numbers_left: float
    exact: bool
    unbounded: bool


_UNIT_BITS: Final = 1074
"""Every finite float is a whole multiple of 2^-1074, so sums of whole numbers of that unit are exact, and some thirty
times faster than fractions: a hub adds up its whole journal when it starts."""


def units(value: float) -> int:
    """A finite float as a multiple of 2^-1074."""
    over, under = value.as_integer_ratio()  # `under` is a power of 2
    return over << (_UNIT_BITS + 1 - under.bit_length())


def exact(of_units: int) -> Fraction:
    return Fraction(of_units, 1 << _UNIT_BITS)


@dataclass(slots=True)
class Account:
    """Sums over the charges of one account, in units of 2^-1074. `settled_units`: the part of rho whose release has
    ended."""

    rho_units: int = 0
    settled_units: int = 0
    delta_units: int = 0
    numbers: int = 0
    modes: set[str] = field(default_factory=set)
    persons: set[str] = field(default_factory=set)
    unbounded: bool = False
    """Exact numbers about its persons may have been opened of which no line tells."""

    @classmethod
    def after_a_loss(cls, lost: Amount) -> Account:
        """An account about which nothing is known but that it may have spent `lost`."""
        account = cls()
        account.lose(lost)
        return account

    def lose(self, lost: Amount) -> None:
        """From now on at least `lost` counts as spent, on releases that have ended, exact ones among them if any may
        have been."""
        rho = units(lost.rho)
        self.settled_units += max(0, rho - self.rho_units)
        self.rho_units = max(self.rho_units, rho)
        self.delta_units = max(self.delta_units, units(lost.delta))
        self.numbers = max(self.numbers, lost.numbers)
        self.unbounded = self.unbounded or lost.numbers > 0

    @property
    def rho(self) -> Fraction:
        return exact(self.rho_units)

    @property
    def settled(self) -> Fraction:
        return exact(self.settled_units)

    @property
    def delta(self) -> Fraction:
        return exact(self.delta_units)

    def enter(self, charge: Charge, rho: int, delta: int) -> None:
        """`rho`, `delta`: of the charge, in units."""
        self.rho_units += rho
        self.delta_units += delta
        self.numbers += charge.numbers
        self.modes.add(charge.mode)
        self.persons.add(charge.persons)


def require_under(charge: Charge, account: Account, ceiling: Ceiling) -> None:
    """Raises: BudgetExceeded: `account` has less room under `ceiling` than `charge` costs.
    ExactNotAllowed: the charge is exact and the ceiling allows none."""
    policy, over = ceiling.policy, _WORDS[ceiling.level].format(KEYS[ceiling.level](charge))
    if charge.mode == "exact":
        _require_numbers(charge.numbers, account, policy, over)
        return
    _require_amount("rho (mu²/2)", charge.rho, account.rho_units, policy.rho, over)
    _require_amount("added delta", charge.delta, account.delta_units, policy.delta, over)


def _require_numbers(asked: int, account: Account, policy: Policy, over: str) -> None:
    if not policy.exact_allowed:
        raise ExactNotAllowed(
            f"Exact results are not allowed for {over}. Nothing was read. Propose a private study, or ask this hub's "
            "owner to allow exact ones."
        )
    left = max(0, policy.max_numbers - account.numbers)
    if asked > left:
        raise BudgetExceeded(
            f"The question opens {asked} exact numbers, but {left} of {policy.max_numbers} are left for {over}. "
            "Nothing was read. Ask for fewer, or ask this hub's owner to raise the ceiling."
        )


def _require_amount(what: str, asked: float, spent: int, ceiling: float, over: str) -> None:
    if spent + units(asked) > units(ceiling):
        left = round_down(exact(max(0, units(ceiling) - spent)))
        raise BudgetExceeded(
            f"The question costs {asked:.4g} of {what}, but {left:.4g} of {ceiling:.4g} is left for {over}. Nothing "
            "was read. Ask less or accept more noise, or ask this hub's owner to raise the ceiling."
        )


def round_up(exact: Fraction) -> float:
    """The nearest float that is not on the wrong side."""
    near = float(exact)
    return near if Fraction(near) >= exact else math.nextafter(near, math.inf)


def round_down(exact: Fraction) -> float:
    """The nearest float that is not on the wrong side."""
    near = float(exact)
    return near if Fraction(near) <= exact else math.nextafter(near, -math.inf)
