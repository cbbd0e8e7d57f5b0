"""Privacy filters: whether one more release fits, however it was chosen in view of earlier answers.

A filter is a value. `after(event)` is the filter with the release charged, or a refusal that changed nothing. What
is guaranteed is its ceiling; what is spent so far is bookkeeping, and no epsilon is worked out from it here. Amounts
are exact fractions: rho, mu^2, Renyi divergences, slack and delta, never epsilon.

    ZcdpFilter      sum of rho           Whitehouse, Ramdas, Rogers and Wu 2023, the filter for approximate zCDP
    GaussianFilter  sum of mu^2          Koskela, Tobaben and Honkela 2023; Smith and Thakurta 2022
    RenyiFilter     sum of D_alpha, at   Feldman and Zrnic 2021, at every order of a list that is fixed beforehand;
                    each of some orders  delta is divided among the orders
    HubBudget       hub, study, person   all three must have room, at one delta

Proofs, with the line of code of every step: docs/proofs/filter.md. A composition by privacy loss distributions is
no filter, so nothing here takes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Final, TypeAlias, final

from flute.defaults import ROUNDING_DELTA_SHARE
from flute.dp.accounting import epsilon as zcdp_epsilon
from flute.dp.accounting import rho_for
from flute.dp.events import AddedDelta, Event, Exact, Noised, Onlooker, as_seen, gdp, zcdp
from flute.dp.gaussian import gaussian_epsilon, mu_for, root_up
from flute.dp.renyi import allowed, renyi
from flute.errors import BudgetExceeded, ExactNotAllowed, MisuseError

ORDERS: Final = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
"""Renyi orders of a filter unless others are given: for epsilon 0.3 to 20 at 1e-6 one of them is near the best."""
SLACK_CAP: Final = 1e-6
"""Part of epsilon set aside, twice, for discrete Gaussians that are priced as Gaussians: enough for 10^10 numbers."""


@final
@dataclass(frozen=True, slots=True)
class Pot:
    """A ceiling and what was taken from under it, exactly."""

    what: str
    cap: Fraction
    spent: Fraction = Fraction(0)

    @property
    def left(self) -> Fraction:
        return self.cap - self.spent

    def after(self, price: Fraction, whose: str) -> Pot:
        """Raises: BudgetExceeded: it does not fit, by however little."""
        if price > self.left:
            raise BudgetExceeded(
                f"The release costs {float(price):.4g} of {self.what}, but {float(self.left):.4g} of "
                f"{float(self.cap):.4g} is left for {whose}. Nothing was read and nothing was charged. Ask less or "
                "accept more noise, or ask the hub's owner for a new ceiling."
            )
        return replace(self, spent=self.spent + price)


@final
@dataclass(frozen=True, slots=True)
class ZcdpFilter:
    """Sum of rho. Every noised event has one, so this takes them all; no amplification by sampling.

    whose: the study, person or hub, in words. delta: the hub's one delta. added: rounding's part of it.
    """

    whose: str
    delta: float
    rho: Pot
    added: Pot

    @classmethod
    def within(cls, epsilon: float, delta: float, whose: str) -> ZcdpFilter:
        """The filter that guarantees `epsilon` at `delta`. Raises: MisuseError: as `accounting.rho_for`."""
        main, added = _split(delta)
        return cls(whose, delta, Pot("rho (zCDP)", Fraction(rho_for(epsilon, main))), added)

    @property
    def guaranteed(self) -> float:
        """Epsilon at `delta` whatever is asked: of the ceiling, not of what was spent."""
        return zcdp_epsilon(float(self.rho.cap), _split(self.delta)[0])

    def after(self, event: Event) -> ZcdpFilter:
        """Raises: BudgetExceeded: no room. ExactNotAllowed: an exact release. MisuseError: an unknown event."""
        seen = _bounded(event, self.whose)
        if isinstance(seen, AddedDelta):
            return replace(self, added=self.added.after(Fraction(seen.delta), self.whose))
        return replace(self, rho=self.rho.after(Fraction(zcdp(seen)), self.whose))


@final
@dataclass(frozen=True, slots=True)
class GaussianFilter:
    """Sum of mu^2: the tightest where all noise is Gaussian. A sample is counted as if everybody were in it.

    Takes a Laplace release at the mu of any epsilon-DP mechanism, and a discrete Gaussian where its mu is proved,
    whose slack is summed beside.
    """

    whose: str
    delta: float
    mu_squared: Pot
    slack: Pot
    added: Pot

    @classmethod
    def within(cls, epsilon: float, delta: float, whose: str) -> GaussianFilter:
        """The filter that guarantees `epsilon` at `delta`. Raises: MisuseError: an epsilon not above 2 SLACK_CAP."""
        main, added = _split(delta)
        mu = mu_for(epsilon - 2 * SLACK_CAP, main * _SLACK_MARGIN)
        return cls(whose, delta, Pot("mu^2", Fraction(mu) ** 2), Pot("slack", Fraction(SLACK_CAP)), added)

    @property
    def guaranteed(self) -> float:
        """Epsilon at `delta` whatever is asked: of the ceiling, not of what was spent."""
        mu = root_up(self.mu_squared.cap)
        return gaussian_epsilon(mu, _split(self.delta)[0] * _SLACK_MARGIN) + 2 * SLACK_CAP

    def after(self, event: Event) -> GaussianFilter:
        """Raises: BudgetExceeded: no room. ExactNotAllowed: an exact release. MisuseError: an unknown event, or a
        discrete Gaussian whose mu is not proved."""
        seen = _bounded(event, self.whose)
        if isinstance(seen, AddedDelta):
            return replace(self, added=self.added.after(Fraction(seen.delta), self.whose))
        price = gdp(seen)
        if price is None:
            raise MisuseError("This event has no proved mu; charge it to a zCDP filter instead.")
        mu, slack = price
        mu_squared = self.mu_squared.after(Fraction(mu) ** 2, self.whose)
        return replace(self, mu_squared=mu_squared, slack=self.slack.after(Fraction(slack), self.whose))


@final
@dataclass(frozen=True, slots=True)
class RenyiFilter:
    """Sum of Renyi divergences at each of some fixed orders; goes on while one order has room. For secret samples.

    orders: (order, pot) of those that still have room. Which order lasts longest depends on the answers, so each is
    given its own part of delta (docs/proofs/filter.md, step 3).
    """

    whose: str
    delta: float
    orders: tuple[tuple[float, Pot], ...]
    added: Pot
    guaranteed: float
    """Epsilon at `delta` whatever is asked."""

    @classmethod
    def within(cls, epsilon: float, delta: float, whose: str, orders: Sequence[float] = ORDERS) -> RenyiFilter:
        """The filter that guarantees `epsilon` at `delta`.

        Raises: MisuseError: no orders, or none of them leaves room at this epsilon and delta."""
        if not orders or len(set(orders)) != len(orders):
            raise MisuseError("A Renyi filter needs a list of orders, each named once, before the first release.")
        main, added = _split(delta)
        caps = {order: allowed(epsilon, order, main / len(orders)) for order in orders}
        pots = tuple(
            (order, Pot(f"divergence of order {order:g}", Fraction(c))) for order, c in caps.items() if c > 0
        )
        if not pots:
            raise MisuseError(f"No order of this list leaves room within epsilon {epsilon} at delta {delta}.")
        return cls(whose, delta, pots, added, epsilon)

    def after(self, event: Event) -> RenyiFilter:
        """Raises: BudgetExceeded: no order has room. ExactNotAllowed: an exact release. MisuseError: an unknown
        event."""
        seen = _bounded(event, self.whose)
        if isinstance(seen, AddedDelta):
            return replace(self, added=self.added.after(Fraction(seen.delta), self.whose))
        prices = [(order, pot, Fraction(renyi(seen, order))) for order, pot in self.orders]
        fitting = tuple((order, pot.after(price, self.whose)) for order, pot, price in prices if price <= pot.left)
        if not fitting:
            _, pot, price = max(prices, key=lambda one: one[1].left - one[2])
            pot.after(price, self.whose)
        return replace(self, orders=fitting)


Filter: TypeAlias = ZcdpFilter | GaussianFilter | RenyiFilter
_SLACK_MARGIN: Final = math.exp(-SLACK_CAP) * (1 - 2.0**-50)


def _no_filters() -> Mapping[str, Filter]:
    return MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class HubBudget:
    """The filters of one hub: over everything, over each study, over each person's (or dataset's) account.

    per_study, per_person: what a new one starts with. A release is charged to all three or to none.
    Raises: MisuseError: filters of different deltas. One hub has one delta, for epsilons of different deltas
        cannot be compared, and each study with a delta of its own would spend them all.
    """

    hub: Filter
    per_study: Filter
    per_person: Filter
    studies: Mapping[str, Filter] = field(default_factory=_no_filters)
    persons: Mapping[str, Filter] = field(default_factory=_no_filters)

    def __post_init__(self) -> None:
        filters = (self.hub, self.per_study, self.per_person, *self.studies.values(), *self.persons.values())
        if len({each.delta for each in filters}) != 1:
            raise MisuseError("All filters of a hub are at one delta; set one for the hub and use it for all.")

    def after(self, event: Event, *, study: str, person: str) -> HubBudget:
        """Raises: BudgetExceeded, ExactNotAllowed, MisuseError: as the first filter without room; nothing changed."""
        of_study = self.studies.get(study) or replace(self.per_study, whose=f"study {study}")
        of_person = self.persons.get(person) or replace(self.per_person, whose=f"the persons of {person}")
        return replace(
            self,
            hub=self.hub.after(event),
            studies=MappingProxyType({**self.studies, study: of_study.after(event)}),
            persons=MappingProxyType({**self.persons, person: of_person.after(event)}),
        )


def _bounded(event: Event, whose: str) -> Noised | AddedDelta:
    """As the worst permitted coalition sees it. Raises: ExactNotAllowed: no epsilon bounds it."""
    seen = as_seen(event, Onlooker.CHARGED)
    if isinstance(seen, Exact):
        raise ExactNotAllowed(
            f"An exact release has no epsilon, so no ceiling of epsilon for {whose} can hold it. Nothing was read. "
            "Exact numbers are counted by themselves, where the hub's owner allows them."
        )
    return seen


def _split(delta: float) -> tuple[float, Pot]:
    """Delta for the noise, and the pot for what rounding adds outright, as `study.protection.budget_of` has it."""
    if not 0 < delta < 1:
        raise MisuseError(f"delta must lie between 0 and 1, not at {delta}.")
    return (1 - ROUNDING_DELTA_SHARE) * delta, Pot("added delta", Fraction(ROUNDING_DELTA_SHARE * delta))
