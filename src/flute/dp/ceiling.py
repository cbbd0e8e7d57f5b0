"""What a ceiling for epsilon allows the ledger to add up, and what a sum of charges means: Gaussian DP, said as rho.

A charge is rho = mu^2/2 of a mu-GDP release (`calibrate.Mechanism.rho`): it adds up as mu^2 does, also over questions
chosen in view of earlier answers (docs/proofs/filter.md, steps 2, 4 and 8), and is a zCDP price as well. For Gaussian
noise the epsilon of a sum is exact: no smaller one holds.
Sources: Dong, Roth and Su 2022; Koskela, Tobaben and Honkela 2023; Balle and Wang 2018.
"""

from __future__ import annotations

import math
from typing import Final

from flute.dp.gaussian import gaussian_epsilon, gaussian_odds, mu_for
from flute.errors import MisuseError

SLACK: Final = 1e-9
"""Of epsilon, twice, for all releases together that are discrete: 10^18 vectors of the largest size have less."""
_SLACK_MARGIN: Final = math.exp(-SLACK) * (1 - 2.0**-50)
_BEFORE: Final = 1 + 1e-5
"""Charges made when rho was zCDP's alone were smaller than mu^2/2 by a part in 250,000: hub noise was 1,000 and more
on the grid, its square less 4."""
_FLOAT_MARGIN: Final = 1 + 2.0**-40


def rho_within(epsilon_cap: float, delta: float) -> float:
    """The largest sum of charges that means at most `epsilon_cap` at `delta`, rounded down.

    Raises: MisuseError: a cap that is not positive and finite, or delta outside (0, 1).
    """
    mu = mu_for(max(epsilon_cap - 2 * SLACK, epsilon_cap / 2), delta * _SLACK_MARGIN)
    return mu * mu / 2 / _BEFORE / _FLOAT_MARGIN**4  # so that `epsilon_of`, rounded up, is not above the cap


def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon at `delta` of charges that add up to `rho`, rounded up; 0 for none.

    Raises: MisuseError: rho negative, or delta outside (0, 1).
    """
    mu = _mu(rho)
    return gaussian_epsilon(mu, delta * _SLACK_MARGIN) + 2 * SLACK if mu > 0 else 0.0


def odds_of(rho: float, delta: float) -> float:
    """eps' such that answers charged `rho` in all move the odds by more than a factor e^eps', up or down, with a
    chance of at most `delta`. Raises: MisuseError: as `epsilon_of`."""
    mu = _mu(rho)
    return gaussian_odds(mu, delta * _SLACK_MARGIN) + 2 * SLACK if mu > 0 else 0.0


def _mu(rho: float) -> float:
    if math.isnan(rho) or rho < 0:
        raise MisuseError(f"A sum of charges must not be negative, and must be a number; it is {rho}.")
    return math.sqrt(2 * rho * _BEFORE) * _FLOAT_MARGIN
