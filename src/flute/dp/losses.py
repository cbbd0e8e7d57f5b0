"""Privacy loss distributions of a mix, rounded up: the slow but tight way, for `composition` alone.

The loss of each release is put on a grid by connecting the dots of its curve delta(epsilon), known in closed form;
dp_accounting convolves. Removing and adding a patient are composed apart, and the worse is told.
Sources: Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022, "Connect the dots", Algorithm 1; Zhu, Dong and Wang
2022, "Optimal accounting of differential privacy via characteristic function" (dominating pairs of a sample).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

Array: TypeAlias = NDArray[np.float64]
Losses: TypeAlias = Any
"""dp_accounting's PrivacyLossDistribution, which has no types."""
Sample: TypeAlias = tuple[float, float]
"""(mu of the base, rate)."""

_FINENESS: Final = 0.04
"""Bin of the loss over its deviation per release; rounding then adds a 2,000th part to the deviation of the total."""
_MANY: Final = 1_600
"""Fewer releases get the bins of so many: a sum of few has edges (Laplace's largest loss) that bins must resolve."""
_MAX_BINS: Final = 2.0**20
_REACH: Final = 10.0
"""Deviations of a Gaussian beyond which its loss is not resolved: above it counts as infinite, chance 8e-24."""
_PATIENCE: Final = 1e-15
"""Mass that may be moved to an infinite loss when tails are cut, once per convolution."""


def float_mass(releases: int) -> float:
    """Chance that the Fourier transforms of so many convolutions may misplace: 20 times what was measured on
    Gaussians, whose sum is known (3e-13 for 10^4, 5e-11 for 10^6)."""
    return 1e-13 + 1e-15 * releases


def least_delta(releases: int) -> float:
    """The smallest delta beside which `float_mass` is small: 500 times as much, a 10,000th part of epsilon."""
    return 500 * float_mass(releases)


@final
@dataclass(frozen=True, slots=True)
class Mix:
    """The loss of all releases together. Guarantees: `epsilon_at` is never below the truth."""

    together: Losses
    releases: int

    def epsilon_at(self, delta: float) -> float:
        """Rounded up; infinite where `float_mass` takes up all of delta."""
        left = delta - float_mass(self.releases)
        return max(0.0, float(self.together.get_epsilon_for_delta(left))) if left > 0 else math.inf


def mix(mu: float, laplace: Mapping[float, int], samples: Mapping[Sample, int], finer: float = 1.0) -> Mix:
    """One Gaussian of `mu`, Laplace releases (epsilon: count) and samples ((mu, rate): count), fixed beforehand.

    finer: bins so many times narrower than they need be, for checking that they are narrow enough.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld  # a second of start-up, for who needs it

    width = bin_width(mu, laplace, samples) / finer
    # A Gaussian's and a Laplace's loss is the same for removing and adding: one distribution serves both.
    parts = [pld.PrivacyLossDistribution(*_sampled(mu, 1.0, width))] if mu else []
    parts += [
        pld.PrivacyLossDistribution(_laplace(epsilon, width)).self_compose(count, _PATIENCE)
        for epsilon, count in laplace.items()
    ]
    parts += [
        pld.PrivacyLossDistribution(*_sampled(base, rate, width)).self_compose(count, _PATIENCE)
        for (base, rate), count in samples.items()
    ]
    together = reduce(lambda left, right: left.compose(right, _PATIENCE), parts)
    return Mix(together, count_releases(mu, laplace, samples))


def count_releases(mu: float, laplace: Mapping[float, int], samples: Mapping[Sample, int]) -> int:
    """All Gaussians count as one."""
    return (mu > 0) + sum(laplace.values()) + sum(samples.values())


def bin_width(mu: float, laplace: Mapping[float, int], samples: Mapping[Sample, int]) -> float:
    """Rounding a loss to bins adds up to a quarter of a bin's square to its variance, once per release."""
    variance = mu * mu
    variance += math.fsum(count * min(epsilon, 1.0) ** 2 for epsilon, count in laplace.items())
    variance += math.fsum(count * rate**2 * math.expm1(min(m * m, 1.0)) for (m, rate), count in samples.items())
    releases = max(_MANY, count_releases(mu, laplace, samples))
    widest = max([mu, *laplace, *(m for m, _ in samples)])
    span = widest * widest + 2 * _REACH * widest
    return max(_FINENESS * math.sqrt(variance / releases), span / _MAX_BINS)


def _laplace(epsilon: float, width: float) -> Any:
    """delta(e) = 1 - exp((e - epsilon)/2) between -epsilon and epsilon; the same for removing and adding."""

    def curve(at: Array) -> Array:
        inside: Array = -np.expm1(np.minimum(at - epsilon, 0.0) / 2)
        return np.where(at < -epsilon, -np.expm1(np.minimum(at, 0.0)), inside)

    return _connected(curve, -epsilon, epsilon, width)


def _sampled(mu: float, rate: float, width: float) -> tuple[Any, ...]:
    """Removing and adding a patient, who is in the sample with a chance of `rate`. At rate 1: one for both."""
    grown = mu * _REACH + mu * mu / 2
    low, high = math.log1p(rate * math.expm1(-grown)) if rate < 1 else -grown, _log_mixed(rate, grown)
    removing = _connected(lambda at: removing_curve(mu, rate, at), low, high, width)
    if rate == 1:
        return (removing,)
    return removing, _connected(lambda at: adding_curve(mu, rate, at), -high, -low, width)


def _log_mixed(rate: float, grown: float) -> float:
    """ln(1 - rate + rate e^grown), also where e^grown is no float."""
    return float(np.logaddexp(math.log1p(-rate) if rate < 1 else -math.inf, math.log(rate) + grown))


def removing_curve(mu: float, rate: float, at: Array) -> Array:
    """delta(epsilon) of (1 - q) N(0, 1) + q N(mu, 1) against N(0, 1).

    It is q times the Gaussian's at ln(1 + (e^eps - 1)/q). Below epsilon = ln(1 - q) the ratio is never
    smaller, and delta = 1 - e^epsilon.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shifted = np.where(at < 1, np.log1p(np.expm1(at) / rate), _log_far(at, rate))
        inside = rate * _gaussian_curve(mu, shifted)
    return np.where(np.isfinite(shifted), inside, -np.expm1(np.minimum(at, 0.0)))


def _log_far(at: Array, rate: float) -> Array:
    """ln((e^eps - 1 + q)/q) for eps >= 1, without overflow."""
    return at - math.log(rate) + np.log1p(-(1 - rate) * np.exp(-at))


def adding_curve(mu: float, rate: float, at: Array) -> Array:
    """delta(epsilon) of N(0, 1) against the mixture: c times the Gaussian's at ln(q e^eps / c), c = 1 - (1-q) e^eps.

    From epsilon = -ln(1 - q) on the ratio is never larger, and delta = 0.
    """
    kept = -np.expm1(np.minimum(at + math.log1p(-rate), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        shifted = at + math.log(rate) - np.log(kept)
        inside = kept * _gaussian_curve(mu, shifted)
    return np.where(kept > 0, inside, 0.0)


def _gaussian_curve(mu: float, at: Array) -> Array:
    """Balle and Wang 2018, Theorem 8, for an epsilon of either sign."""
    inside = np.exp(log_ndtr(mu / 2 - at / mu))
    outside = np.exp(at + log_ndtr(-mu / 2 - at / mu))
    return np.asarray(inside - outside, dtype=np.float64)


def _connected(curve: Callable[[Array], Array], low: float, high: float, width: float) -> Any:
    """The loss on whole bins whose curve connects the dots of `curve`: never below it, for curves are convex in
    e^epsilon. What lies above `high` counts as an infinite loss, what lies below `low` as one of `low`."""
    from dp_accounting.pld import pld_pmf

    first, last = math.floor(low / width), math.ceil(high / width)
    grid = np.arange(first, last + 1, dtype=np.float64) * width
    deltas = np.minimum.accumulate(np.clip(curve(grid), 0.0, 1.0))
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(width, first, last, deltas)
