"""Renyi divergences of events, order by order, and the epsilon they give.

D_alpha adds up over releases at every fixed order. Rounded up throughout.
Sources: Mironov 2017, "Renyi differential privacy"; Mironov, Talwar and Zhang 2019, "Renyi differential privacy of
the sampled Gaussian mechanism"; Canonne, Kamath and Steinke 2020 (conversion).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, assert_never

import numpy as np
from scipy.special import gammaln, logsumexp

from flute.dp.events import DiscreteGaussian, Gaussian, Laplace, Noised, PoissonSubsampled, zcdp
from flute.errors import MisuseError

MAX_ORDER: Final = 1024.0
_FLOAT_MARGIN: Final = 1 + 2.0**-34
"""gammaln and logsumexp at order 1,024 are within 2^-38; tests compare with 60 digits."""


def renyi(event: Noised, order: float) -> float:
    """D_order between the answers with and without one patient, in the worse direction, rounded up.

    Raises: MisuseError: an order outside (1, MAX_ORDER].
    """
    if not 1 < order <= MAX_ORDER:
        raise MisuseError(f"A Renyi order must lie above 1 and up to {MAX_ORDER:g}, not at {order}.")
    match event:
        case Gaussian() | DiscreteGaussian():
            return order * zcdp(event)
        case Laplace():
            return min(_laplace(event.epsilon, order), event.epsilon, order * zcdp(event))
        case PoissonSubsampled():
            return min(_sampled(event.of.mu, event.rate, order), order * zcdp(event))
        case _:
            assert_never(event)


def _laplace(epsilon: float, order: float) -> float:
    """Mironov 2017, Proposition 6."""
    up = math.log(order / (2 * order - 1)) + (order - 1) * epsilon
    down = math.log((order - 1) / (2 * order - 1)) - order * epsilon
    return (float(np.logaddexp(up, down)) + 2.0**-46 * (1 + order * epsilon)) / (order - 1)


def _sampled(mu: float, rate: float, order: float) -> float:
    """Between whole orders (order - 1) D_order is convex, 0 at order 1: the chord lies above it."""
    below, above = math.floor(order), math.ceil(order)
    share = order - below
    moment = (1 - share) * _moment(mu, rate, below) + share * _moment(mu, rate, above)
    return moment / (order - 1) * _FLOAT_MARGIN


@lru_cache(maxsize=4096)
def _moment(mu: float, rate: float, order: int) -> float:
    """(order - 1) D_order = ln E[(1 - q + q e^L)^order] at a whole order.

    The binomial weights sum to 1, so 1 is taken off every term: small rates keep their digits.
    Source: Mironov, Talwar and Zhang 2019, section 3.3; removing a patient is the worse direction (Theorem 5).
    """
    if order < 2:
        return 0.0
    if rate == 1:
        return order * (order - 1) * mu * mu / 2
    k = np.arange(2, order + 1, dtype=np.float64)
    weight = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    weight += k * math.log(rate) + (order - k) * math.log1p(-rate)
    exponent = k * (k - 1) * (mu * mu / 2)
    grown = exponent + np.log(-np.expm1(-exponent))
    return float(np.logaddexp(0.0, logsumexp(weight + grown)))


def converted(divergence: float, order: float, delta: float) -> float:
    """The epsilon at `delta` that D_order <= divergence gives. May be negative, which means 0.

    Source: Canonne, Kamath and Steinke 2020, Proposition 12.
    """
    terms = (divergence, -math.log(delta) / (order - 1), -math.log(order) / (order - 1), math.log1p(-1 / order))
    return math.fsum(terms) + 2.0**-48 * math.fsum(abs(term) for term in terms)


def allowed(epsilon: float, order: float, delta: float) -> float:
    """The largest D_order whose `converted` epsilon is at most `epsilon`, rounded down; negative: none."""
    margin = 2.0**-44 * (1 + epsilon - math.log(delta) / (order - 1))
    return epsilon - converted(0.0, order, delta) - margin
