"""The tight epsilon of releases that were made: for reports and never for a refusal (`filters` refuse).

Gaussians are composed exactly (sum of mu^2). A mix of others goes through privacy loss distributions: every one
rounded so that the total is never below the truth. Those are for sequences fixed beforehand: a rule that stops a
study by what is computed here would not be valid, so nothing in `filters` takes a `Report`.
Sources: Dong, Roth and Su 2022; Koskela, Jalko and Honkela 2020; Doroshenko, Ghazi, Kamath, Kumar and Manurangsi
2022, "Connect the dots" (the rounding); Zhu, Dong and Wang 2022 (removing and adding composed apart).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Final, assert_never, final

from flute.dp.accounting import delta_left, rounded_up
from flute.dp.accounting import epsilon as plain_epsilon
from flute.dp.events import (
    AddedDelta,
    DiscreteGaussian,
    Event,
    Exact,
    Gaussian,
    Laplace,
    Noised,
    Onlooker,
    PoissonSubsampled,
    as_seen,
    zcdp,
)
from flute.dp.gaussian import gaussian_epsilon, gaussian_odds, root_up
from flute.dp.losses import Sample, count_releases, least_delta, mix
from flute.dp.odds import factor_sentence
from flute.dp.renyi import converted, renyi

MAX_GROUPS: Final = 64
"""Kinds of samples, and of Laplace releases, that are composed each by itself; more are first rounded together."""
_ORDERS: Final = tuple(1 + 2.0 ** (k / 8) for k in range(-24, 72))
_SHARES: Final = (0.003, 0.01, 0.03, 0.1, 0.2)
"""Parts of delta tried for the odds of a mix; any is valid, the best is told."""


class Method(StrEnum):
    """How a report's epsilon was worked out."""

    GAUSSIAN = "exact composition of Gaussians"
    LOSSES = "privacy loss distributions, rounded up"
    RENYI = "Renyi divergences, an upper bound"


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What was given away, for people. Not an event, and no filter takes it.

    noised: epsilon at `delta` of the noised releases. odds: eps', which the odds exceed with a chance of at most
    `delta`, up or down. numbers: opened exactly. step: relative width of the cells in which similar samples were
    rounded together, 0 where none were; `slack` says what that cost.
    """

    noised: float
    odds: float
    delta: float
    numbers: int
    method: Method
    step: float

    @property
    def epsilon(self) -> float:
        """Infinite as soon as one number was opened exactly."""
        return math.inf if self.numbers else self.noised

    def sentence(self) -> str:
        """The guarantee as odds with their chance; never as a percentage."""
        return factor_sentence(self.odds, self.delta, exact=self.numbers > 0)


@dataclass(slots=True)
class _Tally:
    """Events sorted by how they add up. `plain`: zCDP alone, where no mu is proved."""

    added: Fraction = Fraction(0)
    numbers: int = 0
    mu_squared: Fraction = Fraction(0)
    slack: Fraction = Fraction(0)
    laplace: Counter[float] = field(default_factory=Counter)
    samples: Counter[Sample] = field(default_factory=Counter)
    plain: Fraction = Fraction(0)

    def enter(self, event: Noised | AddedDelta | Exact) -> None:
        match event:
            case Gaussian():
                self.mu_squared += Fraction(event.mu) ** 2
            case DiscreteGaussian():
                self._enter_discrete(event)
            case Laplace():
                self.laplace[event.epsilon] += 1
            case PoissonSubsampled():
                self.samples[event.of.mu, event.rate] += 1
            case AddedDelta():
                self.added += Fraction(event.delta)
            case Exact():
                self.numbers += event.numbers
            case _:
                assert_never(event)

    def _enter_discrete(self, event: DiscreteGaussian) -> None:
        if event.mu is None:
            self.plain += Fraction(event.rho)
        else:
            self.mu_squared += Fraction(event.mu) ** 2
            self.slack += Fraction(event.slack)

    @property
    def mu(self) -> float:
        return root_up(self.mu_squared)

    def together(self, *, cautious: bool) -> tuple[float, Counter[float], Counter[Sample]]:
        """(step, Laplace releases, samples), each of at most MAX_GROUPS kinds."""
        whole = Counter({(epsilon, 1.0): count for epsilon, count in self.laplace.items()})
        coarse, laplace = _merged(whole, cautious=cautious)
        step, samples = _merged(self.samples, cautious=cautious)
        return max(coarse, step), Counter({epsilon: count for (epsilon, _), count in laplace.items()}), samples


def report(events: Iterable[Event], delta: float, onlooker: Onlooker = Onlooker.CHARGED) -> Report:
    """The epsilon of all `events` together at `delta`, never below the truth.

    Within 1 % of the tight one unless a discrete Gaussian without proved mu is among them, or more than MAX_GROUPS
    different samples had to be rounded (`slack`). One delta for all releases of a hub.
    Args: events of one hub, of any order. delta: 0 < delta < 1. onlooker: samples are secret from some only.
    Raises: MisuseError: an unknown event; delta outside (0, 1).
    """
    return _report(_tallied(events, onlooker), delta, cautious=True)


def slack(events: Iterable[Event], delta: float, onlooker: Onlooker = Onlooker.CHARGED) -> float:
    """How much of the reported epsilon may be due to rounding samples together: reported over least possible, >= 1.

    The least: every cell's samples rounded the other way, rate down and noise up.
    """
    tally = _tallied(events, onlooker)
    least = _report(tally, delta, cautious=False).noised
    most = _report(tally, delta, cautious=True).noised
    return most / least if least > 0 else math.inf


def zcdp_epsilon(events: Iterable[Event], delta: float) -> float:
    """The epsilon that the same events have as zCDP, without any amplification: above `report`'s, always.

    What the ledger's ceilings stand on. Infinite where a number was opened exactly.
    """
    rho, added = Fraction(0), Fraction(0)
    for event in events:
        seen = as_seen(event, Onlooker.CHARGED)
        match seen:
            case Exact():
                return math.inf
            case AddedDelta():
                added += Fraction(seen.delta)
            case _:
                rho += Fraction(zcdp(seen))
    left = delta_left(delta, added)
    return plain_epsilon(rounded_up(rho), left) if left > 0 else math.inf


def _tallied(events: Iterable[Event], onlooker: Onlooker) -> _Tally:
    tally = _Tally()
    for event in events:
        tally.enter(as_seen(event, onlooker))
    return tally


def _report(tally: _Tally, delta: float, *, cautious: bool) -> Report:
    apart = rounded_up(tally.slack)
    left = delta_left(delta, tally.added) * math.exp(-apart) * (1 - 2.0**-50)
    if left <= 0:
        return Report(math.inf, math.inf, delta, tally.numbers, Method.RENYI, 0.0)
    noised, odds, method, step = _composed(tally, left, cautious=cautious)
    # Chances here and in what was composed differ by e^slack either way (docs/proofs/filter.md, step 5).
    return Report(noised + 2 * apart, odds + 2 * apart, delta, tally.numbers, method, step)


def _composed(tally: _Tally, delta: float, *, cautious: bool) -> tuple[float, float, Method, float]:
    """(epsilon, odds, method, step) of the noised part."""
    mixed = bool(tally.laplace or tally.samples)
    if not mixed and not tally.plain:
        return gaussian_epsilon(tally.mu, delta), gaussian_odds(tally.mu, delta), Method.GAUSSIAN, 0.0
    step, laplace, samples = tally.together(cautious=cautious)
    least = least_delta(count_releases(tally.mu, laplace, samples))
    if tally.plain or delta < 2 * least / max(_SHARES):
        curve = _renyi_curve(tally)
        return curve(delta), _odds_of(curve, delta, 0.0), Method.RENYI, 0.0
    losses = mix(tally.mu, laplace, samples)
    return losses.epsilon_at(delta), _odds_of(losses.epsilon_at, delta, least), Method.LOSSES, step


def _odds_of(curve: Callable[[float], float], delta: float, least: float) -> float:
    """A loss that is exceeded in either direction with a chance of at most `delta`, given epsilon at every delta.

    A loss above x has a chance of at most d/(1 - e^(eps(d) - x)); with d = share delta/2 and x = eps(d) -
    ln(1 - share) that is delta/2. The curve covers both directions, so both together stay within delta. `least`: the
    smallest delta at which the curve is worth asking.
    """
    shares = [share for share in _SHARES if share * delta / 2 >= least]
    return min(curve(share * delta / 2) - math.log1p(-share) for share in shares)


def _renyi_curve(tally: _Tally) -> Callable[[float], float]:
    """Every order gives a valid epsilon, and so does zCDP; the least is taken."""
    groups: list[tuple[Noised, int]] = [(Laplace(epsilon), count) for epsilon, count in tally.laplace.items()]
    groups += [(PoissonSubsampled(Gaussian(mu), rate), count) for (mu, rate), count in tally.samples.items()]
    plain = rounded_up(tally.plain + tally.mu_squared / 2)
    divergences = [
        order * plain + math.fsum(count * renyi(event, order) for event, count in groups) for order in _ORDERS
    ]
    rho = plain + math.fsum(count * zcdp(event) for event, count in groups)
    margin = 1 + 2.0**-40

    def curve(delta: float) -> float:
        best = min(converted(d * margin, order, delta) for d, order in zip(divergences, _ORDERS, strict=True))
        return max(0.0, min(best, plain_epsilon(rho, delta)))

    return curve


def _merged(samples: Counter[Sample], *, cautious: bool) -> tuple[float, Counter[Sample]]:
    """Samples that fall into one cell of a relative grid become one: the largest mu and rate of the cell (the
    smallest where not cautious). The grid is the finest power of two that leaves at most MAX_GROUPS."""
    if len(samples) <= MAX_GROUPS:
        return 0.0, samples
    step, cells = 2.0**-12, _cells(samples, 2.0**-12)
    while len(cells) > MAX_GROUPS:
        step *= 2
        cells = _cells(samples, step)
    extreme = max if cautious else min
    merged: Counter[Sample] = Counter()
    for members in cells.values():
        mu, rate = extreme(m for m, _ in members), extreme(r for _, r in members)
        merged[mu, rate] += sum(samples[member] for member in members)
    return step, merged


def _cells(samples: Iterable[Sample], step: float) -> dict[tuple[int, int], list[Sample]]:
    width = math.log1p(step)
    cells: dict[tuple[int, int], list[Sample]] = {}
    for mu, rate in samples:
        cells.setdefault((math.floor(math.log(mu) / width), math.floor(math.log(rate) / width)), []).append(
            (mu, rate)
        )
    return cells
