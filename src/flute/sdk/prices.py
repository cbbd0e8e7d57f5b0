"""Epsilon and rho, both ways, as studies are priced: a part of delta is set aside for rounding."""

from __future__ import annotations

import math
from typing import Final

from flute.defaults import ROUNDING_DELTA_SHARE
from flute.study.protection import hub_epsilon

_GRID: Final = 1e6
"""An epsilon that may still be asked for is said in millionths, rounded down, so that it can be."""


def epsilon_at(rho: float, delta: float) -> float:
    """The epsilon of a study with this price, rounded up as all of ours are."""
    return hub_epsilon(rho, (1 - ROUNDING_DELTA_SHARE) * delta)


def affordable(rho: float, delta: float) -> float:
    """The epsilon that a study may be agreed with where so much is left."""
    return math.floor(epsilon_at(rho, delta) * _GRID) / _GRID if rho > 0 else 0.0
