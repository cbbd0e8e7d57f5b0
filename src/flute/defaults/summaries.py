"""Constants of statistics, tests and survival analyses, with unit and reason."""

from __future__ import annotations

from typing import Final

CONSTANT_VARIANCE: Final = 1e-10
"""Of a variable mapped to [-1, 1]: less is rounding of exact sums (1e-12), and the variable does not vary."""
DROWNED: Final = 3.0
"""A count below so many deviations of its own noise carries no interval that divides by it."""
COX_LARGEST_EXPONENT: Final = 12.0
"""Log relative hazard, against the mean patient, above which a patient counts as no riskier: 160,000 times. It keeps
every summand at most 1 and leaves the mean patient's 6e-6, of which fixed point loses 1e-7."""
COX_MAX_STEPS: Final = 12
"""Vectors that one Cox regression may open; six are usual, and every one opens a number for each bin and column."""
RATIO_STEPS: Final = 50
"""Of the hazard ratios of groups, on counts that are opened already; five are usual."""
RATIO_TOLERANCE: Final = 1e-12
"""Change of a log hazard ratio at which they stop."""
RATIO_LARGEST_LOG: Final = 12.0
"""Log hazard ratio beyond which there is no finite one."""
SURVIVAL_SHOWN: Final = 0.5
"""Share of survivors at the median survival time."""
