"""What a sum of releases costs: zero-concentrated differential privacy (zCDP), composed and converted.

Unit: one patient added or removed at one hub. rho adds up, also over questions chosen in view of earlier
answers; epsilon does not, so it is only ever computed from a total rho, at one delta per hub.
Sources: Bun and Steinke 2016 (zCDP); Canonne, Kamath and Steinke 2020 (conversion); Whitehouse, Ramdas,
Rogers and Wu 2023 (a stopped sum of rho is a valid filter under adaptive choice).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from flute.errors import BudgetExceeded, MisuseError

_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_STEPS: Final = 120
_LOG_ORDER_RANGE: Final = 60.0
"""Orders alpha = 1 + e^t are searched for |t| up to this; outside, the bound is worse for any rho we meet."""
_FLOAT_ERROR: Final = 2.0**-48
"""Relative, per term: ten times what the few float operations of `_epsilon_at` can be off."""


def epsilon(rho: float, delta: float) -> float:
    """The epsilon at `delta` of a rho-zCDP mechanism, rounded up.

    Guarantees: rho-zCDP implies (epsilon, delta)-DP. Every order alpha gives a valid epsilon, so a search
    that misses the best one by a little is still on the safe side.
    Args: rho >= 0 (infinity is allowed: no bound). delta: 0 < delta < 1, what rounding adds (`Mechanism.delta`
        of every release) already taken off.
    Raises: MisuseError: outside those ranges.
    Source: Canonne, Kamath, Steinke 2020, Proposition 12 and Corollary 13, solved for epsilon.
    """
    _require_cost(rho, "rho")
    _require_delta(delta)
    if rho == 0:
        return 0.0
    if math.isinf(rho):
        return math.inf
    low, high = -_LOG_ORDER_RANGE, _LOG_ORDER_RANGE
    best = math.inf
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at_left, at_right = _epsilon_at(rho, delta, left), _epsilon_at(rho, delta, right)
        best = min(best, at_left, at_right)
        low, high = (low, right) if at_left <= at_right else (left, high)
    return max(0.0, best)


def _epsilon_at(rho: float, delta: float, t: float) -> float:
    """alpha rho + (ln(1/delta) - ln alpha)/(alpha-1) + ln(1 - 1/alpha), rounded up, at alpha = 1 + e^t."""
    above = math.exp(t)
    terms = (
        rho,
        above * rho,
        -math.log(delta) / above,
        -math.log1p(above) / above,
        -math.log1p(1 / above),
    )
    return math.fsum(terms) + _FLOAT_ERROR * math.fsum(abs(term) for term in terms)


def rho_for(epsilon_cap: float, delta: float) -> float:
    """The largest rho whose `epsilon` at `delta` is at most `epsilon_cap`, rounded down.

    Raises: MisuseError: a cap that is not positive and finite, or delta outside (0, 1).
    """
    if not (math.isfinite(epsilon_cap) and epsilon_cap > 0):
        raise MisuseError(f"A ceiling for epsilon must be positive and finite, not {epsilon_cap}.")
    _require_delta(delta)
    low, high = 0.0, 1.0
    while epsilon(high, delta) <= epsilon_cap:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if epsilon(middle, delta) <= epsilon_cap:
            low = middle
        else:
            high = middle
    return low


def exact_sum(costs: Iterable[float]) -> Fraction:
    """Sum of costs (rho, or delta) as an exact fraction: no number of additions lets it drift.

    Raises: MisuseError: a cost that is negative or not finite.
    """
    total = Fraction(0)
    for cost in costs:
        if not (math.isfinite(cost) and cost >= 0):
            raise MisuseError(f"A cost must be finite and not negative, not {cost}.")
        total += Fraction(cost)
    return total


def rounded_up(amount: Fraction) -> float:
    """The smallest float that is at least `amount`, for showing what was spent."""
    nearest = float(amount)
    return nearest if Fraction(nearest) >= amount else math.nextafter(nearest, math.inf)


def delta_left(delta: float, added: Fraction) -> float:
    """What is left of `delta` for noise once `added` (rounding) is taken off, rounded down; 0 when nothing is.

    Raises: MisuseError: delta outside (0, 1).
    """
    _require_delta(delta)
    left = max(Fraction(0), Fraction(delta) - added)
    nearest = float(left)
    return nearest if Fraction(nearest) <= left else math.nextafter(nearest, 0.0)


def remaining(spent: Iterable[float], cap: float) -> float:
    """What is left under `cap`, rounded down; 0 when nothing is. Costs as in `exact_sum`."""
    left = max(Fraction(0), exact_sum([cap]) - exact_sum(spent))
    nearest = float(left)
    return nearest if Fraction(nearest) <= left else math.nextafter(nearest, 0.0)


def require_room(spent: Iterable[float], price: float, cap: float) -> Fraction:
    """The exact total after `price`, if it stays within `cap`: the privacy filter.

    Guarantees: whoever asks for each release before it is drawn, and stops at the refusal, has run an
    adaptively composed mechanism that is cap-zCDP in total, however prices were chosen in view of earlier
    answers. The same rule holds for the deltas of approximate zCDP, filtered by a call of their own. Only the
    cap is guaranteed; what is spent so far is bookkeeping.
    Raises: BudgetExceeded: it does not fit, by however little. MisuseError: a cost that is no cost.
    Source: Whitehouse, Ramdas, Rogers, Wu 2023, "Fully-adaptive composition", the zCDP filter.
    """
    total = exact_sum(spent) + exact_sum([price])
    if total > exact_sum([cap]):
        raise BudgetExceeded(
            "This answer would take the patients' privacy budget at this hub past its ceiling. Nothing was read "
            "and nothing was charged; ask for less, or agree a new study with the hub's owner."
        )
    return total


def _require_cost(value: float, name: str) -> None:
    if math.isnan(value) or value < 0:
        raise MisuseError(f"{name} must not be negative, and must be a number; it is {value}.")


def _require_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise MisuseError(f"delta must lie between 0 and 1, not at {delta}.")
