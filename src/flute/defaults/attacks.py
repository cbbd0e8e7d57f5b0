"""Sizes of the attack suite: how often an attack is tried, what counts as a hit, how figures are stated."""

from __future__ import annotations

from typing import Final

LEVEL: Final = 0.95
"""Confidence of every interval."""
LOW_FALSE_ALARMS: Final = 0.001
"""Share of outsiders who may be called members where hits are counted: an attack that accuses one in a thousand
wrongly is of use, one that accuses every second one is not (Carlini et al. 2022)."""
RESAMPLES: Final = 400
"""Of a bootstrap: the ends of a 95 % interval then rest on ten values each."""
CHOOSING_WORLDS: Final = 4
"""Every fourth world chooses a threshold and is not measured with it."""
FIELD_TOLERANCE: Final = 0.05
"""Of a number's declared range: a guess that is no farther from the truth counts as recovered. A tenth of all
uniform guesses are."""
LOGIT_CAP: Final = 60.0
"""Of a margin: e^-60 is no chance, and sums of squares stay finite."""
RIDGE: Final = 0.01
"""Penalty of the ordinary fit that is attacked, in patients: small enough to learn the records by heart."""
NEWTON_STEPS: Final = 20
"""Of the ordinary fit; it stands still long before."""
EXACT_NOISE: Final = 1e-7
"""Deviation that an attack assumes where there is no noise, of the length of the longest row: fixed point and sums
of floats show no less."""

# --- a hospital's own dry run ---------------------------------------------------------------
DRY_WORLDS: Final = 200
"""Releases per attack on sums: an advantage is known to about ten points."""
DRY_MODELS: Final = 160
"""Models per attack on models, half of them to learn from."""
DRY_POISONINGS: Final = 12
"""Pairs of honest and poisoned fits."""
DRY_PATIENTS: Final = 200
"""Per hub where a model has to be of use (poisoning)."""
DRY_HUB: Final = 40
"""Patients of a hub whose make-up is inferred."""
SLOW_COLUMNS: Final = 40
"""From so many columns on, fewer worlds and models are played: one private fit of 65 takes 30 times as long as one
of ten."""
DEFAULT_SEED: Final = 1
"""Of the dry run: everybody gets the same figures from the same study file."""
