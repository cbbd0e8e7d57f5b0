"""Gaussian differential privacy: one number mu for everything, and the exact epsilon it stands for.

mu-GDP: telling apart the answers with and without one patient is no easier than telling N(0, 1) from N(mu, 1).
A Gaussian mechanism of L2 sensitivity D and deviation sigma is D/sigma-GDP. Squares of mu add up, also over
questions chosen in view of earlier answers (`flute.dp.filters`); mu itself adds up over the hubs a patient is at.
Sources: Dong, Roth and Su 2022, "Gaussian differential privacy"; Balle and Wang 2018, "Improving the Gaussian
mechanism for differential privacy", Theorem 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Final

from scipy.special import erfinv, log_ndtr, ndtri

from flute.dp.accounting import rounded_up
from flute.errors import MisuseError

MAX_MU: Final = 100.0
"""Above, epsilon exceeds 5,000 at any delta we meet: said to be infinite, which is safe."""
_FLOAT_ERROR: Final = 2.0**-46
"""Relative error of one term of the curve per unit of its exponent; 60 times what 50 digits show."""
_TINY: Final = 2.0**-1000
"""Said instead of a chance that floats cannot hold."""
_HALVINGS: Final = 200


def delta_at(mu: float, epsilon: float) -> float:
    """The smallest delta for which mu-GDP implies (epsilon, delta)-DP, rounded up.

    Args: mu >= 0. epsilon: >= 0.
    Raises: MisuseError: outside those ranges.
    Source: Balle and Wang 2018, Theorem 8; Dong, Roth and Su 2022, Corollary 2.13.
    """
    _require_mu(mu)
    if not epsilon >= 0:
        raise MisuseError(f"epsilon must not be negative, and must be a number; it is {epsilon}.")
    if mu == 0 or math.isinf(epsilon):
        return 0.0
    if mu > MAX_MU:
        return 1.0
    return min(1.0, max(_TINY, _curve(mu, epsilon, safe=1)))


def _curve(mu: float, epsilon: float, *, safe: int) -> float:
    """Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu), plus (safe = 1) or minus (-1) what floats can be off."""
    inside = float(log_ndtr(mu / 2 - epsilon / mu))
    outside = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    first, second = math.exp(inside), math.exp(outside)
    error = _FLOAT_ERROR * (first + second) * (1 + epsilon + abs(inside))
    return max(0.0, first - second + safe * error)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at `delta` of a mu-GDP mechanism, rounded up. It is exact: no smaller one holds for a Gaussian.

    Args: mu >= 0 (infinity is allowed: no bound). delta: 0 < delta < 1.
    Raises: MisuseError: outside those ranges.
    """
    _require_mu(mu)
    _require_delta(delta)
    if mu > MAX_MU:
        return math.inf
    if mu == 0 or _curve(mu, 0.0, safe=1) <= delta:
        return 0.0
    return _first(lambda epsilon: _curve(mu, epsilon, safe=1) <= delta)


def gaussian_epsilon_at_least(mu: float, delta: float) -> float:
    """As `gaussian_epsilon`, rounded down: for a bound from below, such as an attack shows. Infinite mu: MAX_MU's."""
    _require_mu(mu)
    _require_delta(delta)
    mu = min(mu, MAX_MU)
    if mu == 0 or _curve(mu, 0.0, safe=-1) <= delta:
        return 0.0
    reached = _first(lambda epsilon: _curve(mu, epsilon, safe=-1) <= delta)
    return reached * (1 - 2.0**-50)


def mu_for(epsilon_cap: float, delta: float) -> float:
    """The largest mu whose `gaussian_epsilon` at `delta` is at most `epsilon_cap`, rounded down.

    Raises: MisuseError: a cap that is not positive and finite, or delta outside (0, 1).
    """
    if not (math.isfinite(epsilon_cap) and epsilon_cap > 0):
        raise MisuseError(f"A ceiling for epsilon must be positive and finite, not {epsilon_cap}.")
    _require_delta(delta)
    low, high = 0.0, MAX_MU
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if gaussian_epsilon(middle, delta) <= epsilon_cap:
            low = middle
        else:
            high = middle
    return low


def composed_mu(mus: Iterable[float]) -> float:
    """mu of all releases together: the root of the sum of squares, rounded up.

    Raises: MisuseError: a mu that is negative or not finite.
    Source: Dong, Roth and Su 2022, Corollary 3.3.
    """
    total = Fraction(0)
    for mu in mus:
        _require_mu(mu)
        if math.isinf(mu):
            raise MisuseError("An unbounded release has no mu; it is told apart, not summed.")
        total += Fraction(mu) ** 2
    return root_up(total)


def root_up(square: Fraction) -> float:
    """The square root, rounded up to a float."""
    root = math.sqrt(rounded_up(square))
    return root if Fraction(root) ** 2 >= square else math.nextafter(root, math.inf)


def pure_mu(epsilon: float) -> float:
    """mu such that every epsilon-DP mechanism (delta = 0) is mu-GDP, rounded up: 2 Phi^-1(e^eps / (1 + e^eps)).

    Why: the trade-off curve of epsilon-DP is two straight lines that meet where both errors are 1/(1 + e^eps);
    the Gaussian's is convex, passes through that point and through (0, 1) and (1, 0), so it lies below both.
    """
    _require_mu(epsilon)
    if epsilon < 1:  # 2 Phi^-1(p) = 2 sqrt(2) erfinv(2p - 1), which keeps its digits near p = 1/2
        mu = 2 * math.sqrt(2) * float(erfinv(math.tanh(epsilon / 2)))
    else:
        mu = -2 * float(ndtri(1 / (1 + math.exp(min(epsilon, 700.0)))))
    return mu * (1 + 2.0**-40) if epsilon <= 700 else math.inf


def gaussian_odds(mu: float, delta: float) -> float:
    """eps' such that mu-GDP answers of Gaussians move the odds by more than e^eps', up or down, with chance <= delta.

    The loss is N(mu^2/2, mu^2): its upper tail at eps' and its lower one at -eps' make delta together. The
    upper alone is mu^2/2 + mu z(delta): 1.153 for epsilon 1 at 1e-6, 3.289 for 3.
    Raises: MisuseError: mu negative, delta outside (0, 1).
    """
    _require_mu(mu)
    _require_delta(delta)
    if mu == 0:
        return 0.0
    if mu > MAX_MU:
        return math.inf

    def tails(threshold: float) -> float:
        up, down = log_ndtr(mu / 2 - threshold / mu), log_ndtr(-mu / 2 - threshold / mu)
        return (math.exp(float(up)) + math.exp(float(down))) * (1 + 2.0**-40)

    return _first(lambda threshold: tails(threshold) <= delta)


def mu_at_hubs(mu: float, hubs: int) -> float:
    """What `mu` at one hub becomes for a patient who is at `hubs` of them, each spending as much: hubs times mu.

    The patient's rows may add up in every total, so it is the sensitivity that grows, not the number of releases:
    two hubs make epsilon 1 at 1e-6 into 2.12, where two studies of one hub would make it 1.45.
    Source: Dong, Roth and Su 2022, Theorem 2.14 (group privacy).
    """
    _require_mu(mu)
    if hubs < 1:
        raise MisuseError(f"A patient is at one hub at least, not {hubs}.")
    return hubs * mu * (1 + 2.0**-50)


def _first(holds: Callable[[float], bool]) -> float:
    """The smallest number of a bisection at which `holds` is true; it stays true above."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _require_mu(mu: float) -> None:
    if math.isnan(mu) or mu < 0:
        raise MisuseError(f"mu must not be negative, and must be a number; it is {mu}.")


def _require_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise MisuseError(f"delta must lie between 0 and 1, not at {delta}.")
