"""Every constant of ours, with unit and reason. The public requirement documents give none."""

from __future__ import annotations

from typing import Final

# --- sizes (bytes unless said) ---------------------------------------------------------------
MAX_ENVELOPE_BYTES: Final = 64 * 2**20
"""One message. Far above the largest of today (a few kB) and small enough to hold in memory at both ends."""
MAX_ID_CHARS: Final = 64
MAX_TEXT_CHARS: Final = 2_000
"""Longest human sentence a message may carry; a record would not fit in what is left of it (it is fixed text)."""
MAX_VECTOR: Final = 4_000_000
"""Coordinates of one masked vector: 32 MB of 64-bit words, half of MAX_ENVELOPE_BYTES."""
MAX_HUBS: Final = 30
"""Complete graph up to here (SECAGG: k-regular beyond)."""
MAX_MAILBOX_MESSAGES: Final = 10_000
"""Per recipient; a mailbox that nobody empties refuses, it does not grow."""

# --- times (seconds) -------------------------------------------------------------------------
MESSAGE_LIFETIME_S: Final = 600
"""An envelope is void after this; long enough for a hub that restarts, short enough for the replay table."""
MAX_CLOCK_SKEW_S: Final = 120
"""Hospital clocks drift; two minutes is what Kerberos-era operations call broken."""
REPLAY_MEMORY_S: Final = MESSAGE_LIFETIME_S + 2 * MAX_CLOCK_SKEW_S
ROUND_TIMEOUT_S: Final = 60.0
"""A round in which a hub stays silent this long is given up and repeated with fresh tickets."""
ROUND_ATTEMPTS: Final = 3
"""Each attempt that a hub answered is charged, so few."""
RELAY_RESTART_S: Final = 0.2
"""Pause before a dead relay is started again; doubled up to RELAY_RESTART_MAX_S."""
RELAY_RESTART_MAX_S: Final = 5.0
DELIVERY_TIMEOUT_S: Final = 10.0
"""One engine call; then the message is offered again."""
ROSTER_LIFETIME_DAYS: Final = 365
FRESHNESS_LIFETIME_S: Final = 24 * 3600
"""How long the coordinator's "this is still the newest" holds: a day bounds what a frozen coordinator can hide."""

# --- privacy ---------------------------------------------------------------------------------
DELTA: Final = 1e-6
"""Below one over the square root of any cohort's reach; the figure of DESIGN's tables."""
HUB_EPSILON: Final = 3.0
"""A hub's own ceiling per study at DELTA until its owner sets another."""
ROUNDING_BETA: Final = 1e-12
"""Chance, added to delta, that stochastic rounding widens sensitivity beyond its bound."""
MIN_HUB_SIGMA: Final = 3.0
"""On the grid; below it a sum of discrete Gaussians is not close enough to one (tau = 3e-38 here)."""
GRID_HUB_SIGMA: Final = 1_000.0
"""Scale is chosen so that a hub's own noise has this deviation on the grid: rounding then costs < 1 %."""
DISCLOSURE_FLOOR: Final = 10
"""No exact cell under this many persons. It limits singling out; it is not differential privacy."""
EXACT_MAX_NUMBERS: Final = 5_000
"""Numbers a hub lets be opened exactly per study, all iterations counted, until its owner sets another."""
COLLUDING: Final = 1
"""Hubs that may collude with the coordinator (DESIGN section 3: one of three)."""
MIN_HUBS: Final = 3
"""Two hubs can subtract: never exact, and noise alone would protect. Stage 1 refuses fewer than three."""
FIXED_POINT_BITS: Final = 40
"""Fraction bits of exact sums: 1e-12 absolute, which keeps a fit within 1e-6 of the pooled one."""

# --- algorithms ------------------------------------------------------------------------------
IRLS_MAX_STEPS: Final = 25
IRLS_TOLERANCE: Final = 1e-10
"""Largest change of a coefficient on standardised variables at which Newton's method stops."""
SEPARATION_LIMIT: Final = 25.0
"""A standardised coefficient beyond this means near-separation: reported, not looped on."""
HISTOGRAM_BINS: Final = 64

# --- relay ------------------------------------------------------------------------------------
LOOPBACK: Final = "127.0.0.1"
