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
COX_PRIVATE_WEIGHTS: Final = (0.25, 0.12, 0.2, 0.43)
"""Parts of a private Cox regression's budget: moments and life table, then three scores."""
COX_HISTOGRAM_PART: Final = 0.6
"""Norm of a row of the life table over that of the moments."""
COX_REACH: Final = 1.3
"""Norm, over that of an ordinary patient, to which rows of moments are shrunk. Shrunk moments make errors too large:
at 1, of three columns in five by a tenth."""
COX_LARGEST_DIRECTION: Final = 1e9
"""Of one number that a private score is asked with: products of three stay finite."""
COX_LARGEST_PRIVATE_EXPONENT: Final = 30.0
"""Log relative hazard beyond which a patient counts as no riskier: 1e13 times, its square finite with all others."""
COX_SATURATION: Final = 1.0
"""Norm of A z, over that of an ordinary patient, at which a score's weight begins to fall."""
COX_FLOOR: Final = 0.75
"""Least eigenvalue of the opened moments, in deviations of their noise times the root of the columns."""
COX_PRIOR_SD: Final = 2.0
"""Log hazard per unit of z: a level that nobody has keeps a finite coefficient."""
COX_POPULATION_ERROR: Final = 0.3
"""What a made-up population may get wrong of a score's mean, per distance from where the score was asked."""
COX_PRIVATE_ITERATIONS: Final = 6
"""Steps of Gauss and Newton on sums that are opened already, from where the last score was asked; each leaves about a
fifth of the way."""
LARGEST_SCORE: Final = 1e9
"""Of a coefficient and of a log hazard that a concordance is asked with: products stay finite."""
CONCORDANCE_PREVIEW_ROWS: Final = 2_000
"""Made-up patients on whom a preview fits the model that it scores."""
