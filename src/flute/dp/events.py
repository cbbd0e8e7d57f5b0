"""What one release costs, as a value that says its unit and how it adds up. A closed union: `Event`.

Unit: one patient's whole contribution at one hub, added or left out. An event of another unit says so and pays for
it. Nothing here computes a total; `composition` does for reports, `filters` for refusals.

    event               adds up as                                   in a filter as
    Gaussian            mu^2 (exact)                                 mu^2, mu^2/2 of rho
    DiscreteGaussian    rho; mu^2 where its slack is proved          rho; mu^2 and slack
    Laplace             its loss distribution                        epsilon^2/2 of rho
    PoissonSubsampled   its loss distribution where the sample is    its Renyi divergences where the sample is
                        secret from the onlooker, else as its base   secret from who is charged for, else as its base
    Replacement         as its base                                  as its base
    AddedDelta          delta, outright                              delta
    Exact               never: epsilon is infinite, numbers count    refused
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, TypeAlias, assert_never, final, get_args

from flute.dp.gaussian import pure_mu
from flute.errors import MisuseError

SMOOTHING_VARIANCE: Final = 2.0
"""Part of a discrete Gaussian's variance that hides the grid (docs/proofs/filter.md, step 4). More makes the slack
smaller and mu larger; at 2 a million coordinates have a slack of 6e-11, and mu grows by 1e-6 at the default grid."""
_SMOOTHING_LOSS: Final = 4.0 * math.exp(-2 * math.pi**2 * SMOOTHING_VARIANCE) * (1 + 2.0**-20)
"""ln((1 + e)/(1 - e)) with e = sum over k != 0 of exp(-2 pi^2 v k^2): how far one coordinate is from a Gaussian that
was rounded at random, as the log of a ratio of chances. 2.9e-17."""
_FLOAT_MARGIN: Final = 1 + 2.0**-40


class Unit(StrEnum):
    """Between what two sets of records an event cannot be told apart."""

    ADD_OR_REMOVE = "one patient's whole contribution at one hub, added or left out"
    REPLACE = "one patient's whole contribution at one hub, replaced by that of nobody"


class Onlooker(StrEnum):
    """Who looks at the answers. `calibrate.Views` has a price for each."""

    OUTSIDER = "somebody outside who sees what is published"
    ONE_HUB = "another hub that subtracts its own noise"
    CHARGED = "the worst coalition that the agreement permits"
    BEYOND = "the coordinator with two hubs, more than the agreement permits"


@final
@dataclass(frozen=True, slots=True)
class Gaussian:
    """A sum plus continuous Gaussian noise. mu: L2 sensitivity over deviation, above 0.

    Source: Dong, Roth and Su 2022, Theorem 2.7 and Corollary 3.3 (mu^2 adds up exactly).
    """

    mu: float
    unit: ClassVar[Unit] = Unit.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        _require_positive(self.mu, "mu")


@final
@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """An integer vector plus discrete Gaussian noise, of one hub or a sum of several hubs'.

    sensitivity: L2 norm of a patient's row on the grid. sigma: deviation of the noise on the grid, all shares that
    the onlooker does not know together. size: d. tau: how far the sum of the shares is from one discrete Gaussian,
    per coordinate (`calibrate.sum_slack`); 0 for a single share.
    Sources: Canonne, Kamath and Steinke 2020, Theorem 4; Kairouz, Liu and Steinke 2021, on sums; for mu and slack
    docs/proofs/filter.md, step 4 (after Peikert 2010, Theorem 3.1).
    """

    sensitivity: float
    sigma: float
    size: int
    tau: float = 0.0
    unit: ClassVar[Unit] = Unit.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        _require_positive(self.sensitivity, "A sensitivity")
        _require_positive(self.sigma, "A deviation")
        if self.size < 1 or not 0 <= self.tau < 1:
            raise MisuseError(f"A vector has at least 1 coordinate and tau lies in [0, 1): {self.size}, {self.tau}.")

    @property
    def rho(self) -> float:
        """zCDP price, rounded up: (sensitivity/sigma + tau sqrt(d))^2 / 2. Needs no further proof."""
        root = self.sensitivity / self.sigma + self.tau * math.sqrt(self.size)
        return root * root / 2 * _FLOAT_MARGIN

    @property
    def mu(self) -> float | None:
        """mu of the Gaussian it is within `slack` of; None where the noise is too small for that to be proved."""
        left = self.sigma * self.sigma - SMOOTHING_VARIANCE
        return self.sensitivity / math.sqrt(left) * _FLOAT_MARGIN if left > SMOOTHING_VARIANCE else None

    @property
    def slack(self) -> float:
        """Log of the largest ratio between chances of an answer here and in the mu-GDP mechanism it stands for."""
        return self.size * (self.tau + _SMOOTHING_LOSS) * _FLOAT_MARGIN


@final
@dataclass(frozen=True, slots=True)
class Laplace:
    """A sum plus Laplace noise. epsilon: L1 sensitivity over the noise's scale, above 0."""

    epsilon: float
    unit: ClassVar[Unit] = Unit.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        _require_positive(self.epsilon, "epsilon")


@final
@dataclass(frozen=True, slots=True)
class PoissonSubsampled:
    """A Gaussian over a sample into which every patient comes with a chance of `rate`, independently.

    Amplifies only against those from whom the sample stays secret, in this release and afterwards. By default that
    is nobody: the price is that of the base. `reason`: why it stays secret; needed where anybody is named.
    Raises: MisuseError: a rate outside (0, 1]; a secret without a reason.
    Source: Mironov, Talwar and Zhang 2019 (Renyi); Zhu, Dong and Wang 2022 (both directions composed apart).
    """

    of: Gaussian
    rate: float
    secret_from: frozenset[Onlooker] = frozenset()
    reason: str = ""
    unit: ClassVar[Unit] = Unit.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        if not isinstance(self.of, Gaussian):
            raise MisuseError("Amplification by a secret sample is worked out for a Gaussian, and for nothing else.")
        if not 0 < self.rate <= 1:
            raise MisuseError(f"A sampling rate must lie in (0, 1], not at {self.rate}.")
        if self.secret_from and not self.reason.strip():
            raise MisuseError(
                "Sampling lowers the price only where the sample is secret: say why the onlookers named cannot know "
                "who was in it, or claim no amplification."
            )
        if not all(isinstance(onlooker, Onlooker) for onlooker in self.secret_from):
            raise MisuseError("A sample is secret from onlookers, each named.")


Replaceable: TypeAlias = Gaussian | DiscreteGaussian | Laplace
"""Events that a mechanism proved for replacement may have."""


@final
@dataclass(frozen=True, slots=True)
class Replacement:
    """An event of a mechanism that was proved for replacing a patient's rows, not for leaving them out.

    It covers a patient who is not there only if the mechanism has a row that means "nobody" (`nobody`: which),
    and a number of rows that does not depend on the patients; otherwise that number is published, and no price here
    pays for it. Its price is that for replacement: twice the norm of a clipped row (`of_clipped_sum`).
    Raises: MisuseError: no such row named.
    """

    of: Replaceable
    nobody: str
    unit: ClassVar[Unit] = Unit.REPLACE

    def __post_init__(self) -> None:
        if not isinstance(self.of, get_args(Replaceable)):
            raise MisuseError("Replacement holds for a Gaussian, a discrete Gaussian or a Laplace release.")
        if not self.nobody.strip():
            raise MisuseError(
                "A mechanism proved for replacement must say which row stands for a patient who is not there; "
                "without one the number of patients is published, unpaid."
            )

    @classmethod
    def of_clipped_sum(cls, clip_norm: float, sigma: float, nobody: str) -> Replacement:
        """Rows of norm at most `clip_norm`: two of them differ by twice that. Four times the rho of leaving out."""
        _require_positive(clip_norm, "A clip norm")
        _require_positive(sigma, "A deviation")
        return cls(Gaussian(2 * clip_norm / sigma * _FLOAT_MARGIN), nobody)


@final
@dataclass(frozen=True, slots=True)
class AddedDelta:
    """A chance that the guarantee of another event fails altogether, such as rounding beyond its bound."""

    delta: float
    unit: ClassVar[Unit] = Unit.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        if not 0 <= self.delta < 1:
            raise MisuseError(f"An added delta must lie in [0, 1), not at {self.delta}.")


@final
@dataclass(frozen=True, slots=True)
class Exact:
    """Numbers opened without noise. No epsilon bounds them; only their count is told."""

    numbers: int
    unit: ClassVar[Unit] = Unit.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        if self.numbers < 1:
            raise MisuseError(f"An exact release opens at least one number, not {self.numbers}.")


Event: TypeAlias = Gaussian | DiscreteGaussian | Laplace | PoissonSubsampled | Replacement | AddedDelta | Exact
Noised: TypeAlias = Gaussian | DiscreteGaussian | Laplace | PoissonSubsampled
"""What is left of an event once `as_seen` took replacement and open samples off, and delta and numbers were put
aside."""


def require_known(event: object) -> None:
    """Raises: MisuseError: not one of the closed union; nothing was counted yet."""
    if type(event) not in get_args(Event):
        raise MisuseError(
            f"A {type(event).__name__} is no event that can be accounted for; it was refused before it counted."
        )


def as_seen(event: Event, onlooker: Onlooker) -> Noised | AddedDelta | Exact:
    """The event for one onlooker: without amplification where the sample is no secret from him or her.

    Raises: MisuseError: an unknown event.
    """
    require_known(event)
    match event:
        case PoissonSubsampled():
            return event if onlooker in event.secret_from and event.rate < 1 else event.of
        case Replacement():
            return event.of
        case Gaussian() | DiscreteGaussian() | Laplace() | AddedDelta() | Exact():
            return event
        case _:
            assert_never(event)


def zcdp(event: Noised) -> float:
    """rho of a noised event, rounded up. A sample is counted as if everybody were in it.

    Source: Bun and Steinke 2016, Propositions 1.6 (Gaussian) and 1.4 (pure); divergences are quasi-convex, so a
    sample costs at most what the whole costs.
    """
    match event:
        case Gaussian():
            return event.mu * event.mu / 2 * _FLOAT_MARGIN
        case DiscreteGaussian():
            return event.rho
        case Laplace():
            return event.epsilon * event.epsilon / 2 * _FLOAT_MARGIN
        case PoissonSubsampled():
            return zcdp(event.of)
        case _:
            assert_never(event)


def gdp(event: Noised) -> tuple[float, float] | None:
    """(mu, slack) of a noised event, rounded up: its answers' chances are within e^slack of a mu-GDP mechanism's.

    None where no mu is proved: a discrete Gaussian of little noise, an epsilon beyond 700. A sample is counted as if
    everybody were in it; a Laplace release as any epsilon-DP mechanism.
    """
    match event:
        case Gaussian():
            return event.mu, 0.0
        case DiscreteGaussian():
            return None if event.mu is None else (event.mu, event.slack)
        case Laplace():
            mu = pure_mu(event.epsilon)
            return None if math.isinf(mu) else (mu, 0.0)
        case PoissonSubsampled():
            return event.of.mu, 0.0
        case _:
            assert_never(event)


def _require_positive(value: float, name: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise MisuseError(f"{name} must be positive and finite, not {value}.")
