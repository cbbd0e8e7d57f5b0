"""What may still be asked for, said as an epsilon that a study can be agreed with."""

from __future__ import annotations

import math
from typing import Final

from flute.study.protection import epsilon_at

_GRID: Final = 1e6
"""An epsilon that may still be asked for is said in millionths, rounded down, so that it can be."""


def affordable(rho: float, delta: float) -> float:
    """The epsilon that a study may be agreed with where so much is left."""
    return math.floor(epsilon_at(rho, delta) * _GRID) / _GRID if rho > 0 else 0.0
