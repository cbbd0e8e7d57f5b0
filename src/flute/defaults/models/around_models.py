"""Constants of what is done around a model: cross-validation, imputation, search; with unit and reason."""

from __future__ import annotations

from typing import Final

# --- cross-validate --------------------------------------------------------------------------
CROSS_NEWTON_STEPS: Final = 12
"""Openings of a fit by Newton's method in each fold; six or seven settle it, ten where it is nearly separated. Each
opens the numbers of all folds."""
CROSS_SCORE_WEIGHT: Final = 0.3
"""Part of a private question's budget for the scores: noised fits are the dearer part, since each patient is in all
of them but one."""
LOSS_CAP: Final = 4.0
"""Nats. In private mode one patient's log-loss counts as no more: e^-4 is a risk of 2 % for what happened."""

# --- choose-model ----------------------------------------------------------------------------
CHOICE_MOST_MODELS: Final = 32
"""Compared in one question; noise in their comparison grows with the root of their number."""
CHOICE_SCORE_WEIGHT: Final = 0.3
"""Part of the question's budget for the comparison."""
CHOICE_REACH: Final = {"log-loss": 0.1, "brier": 0.2}
"""How far a patient's losses are from their mean, root mean square over the models, at most; of the largest loss.
With half of it the noise is half as large, and models that say too low risks are chosen where few have the outcome:
what a patient with it loses by them is cut (decision 22)."""
CHOICE_SIZE_PART: Final = 0.25
"""Of that length, what a patient adds to the number of patients: noise of the comparison grows by 3 %."""

# --- imputed-regression ----------------------------------------------------------------------
MAX_INCOMPLETE: Final = 16
"""Variables that are imputed; every sweep opens a vector for each."""
IMPUTE_LOGIT_STEPS: Final = 3
"""Newton steps for a 0/1 variable or a category in each sweep, from where the sweep before ended; what is left after
three is a hundredth of the deviation that the coefficients are drawn with."""
IMPUTE_FIRST_LOGIT_STEPS: Final = 6
"""In the first sweep, which starts from nothing."""
IMPUTE_FIT_STEPS: Final = 10
"""Newton steps of the logistic regression that is asked for, of all imputations at once."""
IMPUTE_RIDGE: Final = 1e-8
"""Added to the diagonal of products, part of the number of patients: a column that nobody has then gets no effect,
and no step fails."""

# --- search ----------------------------------------------------------------------------------
SEARCH_TRIALS: Final = 20
"""Of a Bayesian search, where none are said."""
SEARCH_STARTUP: Final = 6
"""Trials drawn over the whole space before a Bayesian search follows what it has seen; half of a shorter one's."""
SEARCH_MAX_TRIALS: Final = 500
"""Points of a grid; each is an agreement of its own that every hub decides about."""
