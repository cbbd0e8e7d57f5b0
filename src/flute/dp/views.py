"""Who can learn how much: a hub's releases as each onlooker faces them, and a patient who is at several hubs.

Every figure is an epsilon at a delta and says itself as odds. What is charged is `Onlooker.CHARGED`; the others are
told so that people know.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, final

from flute.dp.accounting import delta_left, epsilon, rounded_up
from flute.dp.calibrate import Mechanism
from flute.dp.composition import Method, Report, report
from flute.dp.events import AddedDelta, DiscreteGaussian, Event, Exact, Onlooker, as_seen, gdp, zcdp
from flute.dp.gaussian import gaussian_epsilon, gaussian_odds, root_up
from flute.dp.odds import odds
from flute.errors import MisuseError

_FLOAT_MARGIN: Final = 1 + 2.0**-40


def events_of(mechanism: Mechanism, onlooker: Onlooker) -> tuple[DiscreteGaussian, AddedDelta]:
    """What one release of `mechanism` is to one onlooker, all hubs having answered but for CHARGED (the fewest)."""
    return mechanism.events(_shares(mechanism, onlooker))


def _shares(mechanism: Mechanism, onlooker: Onlooker) -> int:
    """Shares of noise that the onlooker does not know; a patient's own hub is honest."""
    match onlooker:
        case Onlooker.OUTSIDER:
            return mechanism.hubs
        case Onlooker.ONE_HUB:
            return max(1, mechanism.hubs - 1)
        case Onlooker.CHARGED:
            return mechanism.shares
        case Onlooker.BEYOND:
            return max(1, mechanism.hubs - 2)


def by_onlooker(mechanisms: Sequence[Mechanism], delta: float) -> Mapping[Onlooker, Report]:
    """One hub's view: what all releases together are to each onlooker, at the hub's delta.

    Raises: MisuseError: delta outside (0, 1).
    """
    return {
        onlooker: report((e for m in mechanisms for e in events_of(m, onlooker)), delta, onlooker)
        for onlooker in Onlooker
    }


def patient_at(hubs: Sequence[Iterable[Event]], delta: float, onlooker: Onlooker = Onlooker.CHARGED) -> Report:
    """One patient's view: the events of every hub he or she is at, together.

    Her rows may add up in every total, so mu adds up over hubs (and the root of rho), while squares add up within a
    hub. k hubs that spend alike: k mu, k^2 rho; epsilon 1 at 1e-6 becomes 2.12 at two. No amplification is counted.
    The added deltas are chances that a row was rounded beyond its bound, one row a hub, so they add up, too.
    Raises: MisuseError: no hub; delta outside (0, 1); an unknown event.
    Sources: Dong, Roth and Su 2022, Theorem 2.14; Bun and Steinke 2016, Proposition 1.9, for unequal rho by the
    same inequality of Hoelder (docs/proofs/filter.md, step 6).
    """
    if not hubs:
        raise MisuseError("A patient is at one hub at least.")
    totals = [_Total.of(events, onlooker) for events in hubs]
    left = delta_left(delta, sum((total.added for total in totals), Fraction(0)))
    numbers = sum(total.numbers for total in totals)
    slack = math.fsum(total.slack for total in totals) * _FLOAT_MARGIN
    left *= math.exp(-slack) * (1 - 2.0**-50)
    if left <= 0:
        return Report(math.inf, math.inf, delta, numbers, Method.RENYI, 0.0)
    if all(total.proved for total in totals):
        mu = math.fsum(root_up(total.mu_squared) for total in totals) * _FLOAT_MARGIN
        said = (gaussian_epsilon(mu, left) + 2 * slack, gaussian_odds(mu, left) + 2 * slack)
        return Report(*said, delta, numbers, Method.GAUSSIAN, 0.0)
    rho = math.fsum(root_up(total.rho) for total in totals) ** 2 * _FLOAT_MARGIN
    return Report(epsilon(rho, left), odds(rho, left), delta, numbers, Method.RENYI, 0.0)


@final
@dataclass(frozen=True, slots=True)
class _Total:
    """One hub's events, both ways. proved: all of them have a mu."""

    rho: Fraction
    mu_squared: Fraction
    slack: float
    added: Fraction
    numbers: int
    proved: bool

    @classmethod
    def of(cls, events: Iterable[Event], onlooker: Onlooker) -> _Total:
        rho = mu_squared = slack = added = Fraction(0)
        numbers, proved = 0, True
        for seen in (as_seen(event, onlooker) for event in events):
            if isinstance(seen, AddedDelta):
                added += Fraction(seen.delta)
            elif isinstance(seen, Exact):
                numbers += seen.numbers
            else:
                mu, extra = gdp(seen) or (math.inf, 0.0)
                proved = proved and mu < math.inf
                rho += Fraction(zcdp(seen))
                mu_squared += Fraction(mu) ** 2 if proved else 0
                slack += Fraction(extra)
        return cls(rho, mu_squared, rounded_up(slack), added, numbers, proved)
