"""Constants of the linear models beyond plain logistic regression, with unit and reason."""

from __future__ import annotations

from typing import Final

# --- robust-model ----------------------------------------------------------------------------
ROBUST_FRACTION_BITS: Final = 12
"""Of a coefficient that hubs vote with: 2.4e-4 in log odds, a hundredth of the error that a thousand patients leave;
finer would say more about one hub's patients than about the disease."""
ROBUST_LIMIT_BITS: Final = 5
"""A vote is within +-32 log odds per spread; the prior keeps honest ones within a tenth of that."""
ROBUST_PRIOR_SD: Final = 2.5
"""Deviation of the normal prior on every coefficient but the intercept, in log odds per spread of a number or per 0/1
step: Gelman, Jakulin, Pittau and Su 2008 call it weakly informative. It keeps a hub's own fit finite."""
ROBUST_INTERCEPT_SD: Final = 10.0
"""Of the intercept, as there."""
ROBUST_NEWTON_STEPS: Final = 20
"""Of a hub's own fit, always all of them; it stands still after ten."""
ROBUST_HALVINGS: Final = 8
"""Lengths that each step of it is tried with, from 1 down to 2^-7; the best is taken."""
ROBUST_MIN_VOTES: Final = 3
"""Fewer votes have no middle that one liar cannot choose; then nothing is opened."""
ROBUST_MAX_HUBS: Final = 16
"""Every two votes are compared: 120 comparisons for each coefficient."""
ROBUST_MAX_COLUMNS: Final = 64
"""Columns of one model, the intercept among them."""

# --- glm -------------------------------------------------------------------------------------
MEAN_CAP: Final = 4.0
"""A patient's fitted count is no more than this times the top of the outcome's declared range: so its part of a sum
has a public bound. A fit in which somebody is cut off says so."""
RATIO_CAP: Final = 100.0
"""An outcome counts as at most this times its fitted mean, where a ratio is summed; as MEAN_CAP."""
LOWEST_LOG: Final = 30.0
"""A fitted count is no lower than the top of the range times e^-30, so that its logarithm is bounded."""
EXACT_DIGITS: Final = 1e-9
"""Part of an outcome's sum of squares that is left below which an exact linear fit has left nothing: fixed point
shows 1e-12 of each patient."""

# --- penalised-regression --------------------------------------------------------------------
PENALTY_SWEEPS: Final = 5_000
"""Rounds over all columns of a coordinate descent; no record is in it. An exact solution is tried every ten."""
PENALTY_STEPS: Final = 8
"""Openings for each strength of penalty after the first, which may take IRLS_MAX_STEPS: a fit begins where the last
one ended, and takes four or five."""
MAX_PENALTIES: Final = 32
"""Strengths of one question."""
