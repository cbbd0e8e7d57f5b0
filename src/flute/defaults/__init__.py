"""Every constant of ours, with unit and reason. The public requirement documents give none."""

from __future__ import annotations

from typing import Final

# --- sizes (bytes unless said) ---------------------------------------------------------------
MAX_ENVELOPE_BYTES: Final = 64 * 2**20
"""One message. Far above the largest of today (a few kB) and small enough to hold in memory at both ends."""
MAX_ID_CHARS: Final = 64
MAX_TEXT_CHARS: Final = 2_000
"""Longest human sentence a message may carry; a record would not fit in what is left of it (it is fixed text)."""
MAX_WAITING_MESSAGES: Final = 16
"""That a hub has taken from its mailbox and not dealt with; the rest waits on disk."""
MAX_VECTOR: Final = 4_000_000
"""Coordinates of one step that is computed in memory; noise and rounding are charged for up to so many."""
MAX_PARAMETERS_BYTES: Final = 2**24 + 8 * 100_000
"""Of one step's public numbers, 8 bytes each: two million weights of a network, and 100,000 more for what a model of
sums asks with. With a masked answer and an envelope's rest it stays far below MAX_ENVELOPE_BYTES."""
MAX_STREAMED_VECTOR: Final = 2**31
"""Coordinates of one masked vector that travels in blocks: 4 GB at 16 bits, 17 GB at 64; a key gives 32 GiB."""
BLOCK_COORDINATES: Final = 6_000_000
"""Coordinates of one block of a masked vector (12 MB at 16 bits, 48 MB at 64, below MAX_ENVELOPE_BYTES); what hub
and coordinator hold in memory at a time."""
MAX_HUBS: Final = 200
"""Hubs of one study."""
COMPLETE_GRAPH_HUBS: Final = 30
"""Up to here every hub shares a mask with every other; beyond, with as many as the corruption bound asks for."""
MAX_AGGREGATORS: Final = 8
"""Enclaves that add up one study's answers; two makers are enough, and each one more is one more to be down."""
MIN_NEIGHBOURS: Final = 20
"""Beyond COMPLETE_GRAPH_HUBS: masks are cheap (0.25 ms per million 16-bit numbers), a corruption bound is a guess."""
SENTINELS: Final = 4
"""Coordinates of 1 that every masked vector ends with: their sum is the number of hubs, or the total is garbage
(missed with probability 2^-256 at 64 bits a number, 2^-84 at 21, 2^-64 at 16)."""
SEALED_SHARES_BYTES: Final = 82
"""One hub's pair of ticket shares (33 bytes each) and the tag of their encryption."""
MAX_TICKET_JUMP: Final = 1_000
"""Tickets of one hub that may be skipped at once: each costs every peer one key derivation (3 us)."""
MAX_ROSTER_HUBS: Final = 4 * MAX_HUBS
"""Entries, revoked ones included: they stay listed so that their names and keys are never given out again."""
MAX_PEOPLE: Final = 1_000
"""Entries of the roster, revoked ones included; about 200 bytes each, so a full list stays under MAX_ROSTER_BYTES."""
MAX_APPROVED_CODES: Final = 200
MAX_ROSTER_BYTES: Final = 2**20
"""One file of the roster set, refused before it is parsed."""
MAX_ROSTER_STEPS: Final = 1_000
"""Versions a hub that was away may catch up with in one load; each costs a few signature checks."""
MAX_JOIN_BYTES: Final = 2**18
"""A certificate request (a few kB) with room to spare; refused before it is parsed."""
MAX_KIT_BYTES: Final = 2**20
"""An approved startup kit: certificates and configuration, tens of kB."""
MAX_NONCES_PER_PERSON: Final = 10_000
"""Signed calls remembered per person against replay: 40 a second, all the time; one person cannot fill another's."""
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
STRAGGLER_S: Final = 5.0
"""Once enough hubs have answered, the others get this much longer; a study that tolerates dropouts would otherwise
wait ROUND_TIMEOUT_S at every step for a hub that is away."""
STRAGGLER_AGAIN_S: Final = 0.5
"""The same for hubs that the study's last round did without: a hub that is back answers within this."""
ROUND_ATTEMPTS: Final = 3
"""Each attempt that a hub answered is charged, so few."""
RELAY_RESTART_S: Final = 0.2
"""Pause before a dead relay is started again; doubled up to RELAY_RESTART_MAX_S."""
RELAY_RESTART_MAX_S: Final = 5.0
DELIVERY_TIMEOUT_S: Final = 10.0
"""One engine call; then the message is offered again."""
ROSTER_LIFETIME_DAYS: Final = 365
INVITATION_LIFETIME_S: Final = 14 * 24 * 3600
"""Two weeks: a hospital's IT department needs days, and a forgotten invitation should not stay open."""
FRESHNESS_LIFETIME_S: Final = 24 * 3600
"""How long the coordinator's "this is still the newest" holds: a day bounds what a frozen coordinator can hide."""

# --- privacy ---------------------------------------------------------------------------------
DELTA: Final = 1e-6
"""Below one over the square root of any cohort's reach; the figure of DESIGN's tables."""
HUB_EPSILON: Final = 3.0
"""A hub's own ceiling per study at DELTA until its owner sets another."""
ROUNDING_BETA: Final = 1e-12
"""Chance, added to delta, that stochastic rounding widens sensitivity beyond its bound."""
ROUNDING_DELTA_SHARE: Final = 0.01
"""Part of delta that is set aside for what rounding adds: room for 10,000 charges at delta 1e-6."""
MIN_HUB_SIGMA: Final = 3.0
"""On the grid; below it a sum of discrete Gaussians is not close enough to one (tau = 3e-38 here)."""
GRID_HUB_SIGMA: Final = 1_000.0
"""Scale is chosen so that a hub's own noise has this deviation on the grid: rounding then costs < 1 %."""
MAX_HUB_SIGMA: Final = 64 * GRID_HUB_SIGMA
"""On the grid. Long vectors and small budgets need a finer grid; noise can be drawn up to 124,800 (`dp.noise`)."""
DISCLOSURE_FLOOR: Final = 10
"""No exact cell under this many persons. It limits singling out; it is not differential privacy."""
EXACT_MAX_NUMBERS: Final = 5_000
"""Numbers a hub lets be opened exactly per study, all iterations counted, until its owner sets another."""
MAX_PATIENTS: Final = 1_000_000
"""Patients of one hub's dataset, until a study says otherwise: above any cohort of one disease. It only sets how much
room sums have (32 bits here, where 1,000 patients would fit into 21)."""
COLLUDING: Final = 1
"""Hubs that may collude with the coordinator (DESIGN section 3: one of three)."""
MIN_HUBS: Final = 3
"""Two hubs can subtract: never exact, and noise alone would protect. Stage 1 refuses fewer than three."""
FIXED_POINT_BITS: Final = 40
"""Fraction bits of exact sums: 1e-12 absolute, which keeps a fit within 1e-6 of the pooled one."""

JOINT_FRACTION_BITS: Final = 32
"""Of numbers that hubs opened together: 1e-10 absolute, and magnitudes up to 2^29 fit an int64 with room."""

# --- algorithms ------------------------------------------------------------------------------
IRLS_MAX_STEPS: Final = 25
IRLS_TOLERANCE: Final = 1e-10
"""Largest change of a coefficient on standardised variables at which Newton's method stops."""
SEPARATION_LIMIT: Final = 25.0
"""A standardised coefficient beyond this means near-separation: reported, not looped on."""
HISTOGRAM_BINS: Final = 64
MAX_DESIGN_COLUMNS: Final = 150
"""Columns of one model: 11,477 sums per step, and 2,000 patients' rows take 180 MB while they are summed."""
LOG_LIKELIHOOD_CAP: Final = 64.0
"""Nats. One patient's log-likelihood counts as no lower, so that its sum has a public bound; e^-64 is no chance."""

# --- relay ------------------------------------------------------------------------------------
LOOPBACK: Final = "127.0.0.1"
EVERY_LINK: Final = "0.0.0.0"  # noqa: S104
"""Where a coordinator listens whose hubs are on other machines; whoever connects needs a certificate of the
federation."""
MAX_MAILBOX_BYTES: Final = 2**30
"""Per recipient, beside MAX_MAILBOX_MESSAGES: a peer that sends its largest messages cannot fill the disk."""
MAX_TRANSFERS_REMEMBERED: Final = 100_000
"""Deliveries an inbox recognises when they come again (about 10 MB). A sender offers at most DELIVERY_WINDOW
messages to one recipient at a time, oldest first, so a repeat is never further back than that per sender."""
DELIVERY_WINDOW: Final = 64
"""Messages under way to one recipient; the rest wait in the outbox, not in the relay's memory."""
DELIVERY_WINDOW_BYTES: Final = 2 * MAX_ENVELOPE_BYTES
DELIVERY_BYTES_PER_S: Final = 100_000
"""Slowest line we plan for: a message is offered again only after the time it would need there, so that a slow
line is not filled with repeats."""
DELIVERY_RETRY_MAX_S: Final = 60.0
"""DELIVERY_TIMEOUT_S doubles up to here while a connected peer takes nothing (its inbox is full)."""
RELAY_START_TIMEOUT_S: Final = 20.0
"""A relay is up in 0.7 s on an idle machine; a machine that needs 20 s cannot take part."""
RELAY_STOP_TIMEOUT_S: Final = 2.0
RELAY_LOG_BYTES: Final = 2**20
"""One log file; one older is kept."""
WIRE_KEEPALIVE_S: Final = 10.0
"""Idle time after which a connection is probed: a firewall may have forgotten it, and the hub is gone unnoticed."""
WIRE_KEEPALIVE_TIMEOUT_S: Final = 5.0
WIRE_RECONNECT_MAX_S: Final = 2.0
"""Longest pause of a hub between two attempts to reach the coordinator (the engine's own is 10 s)."""
CERTIFICATE_DAYS: Final = 365
"""There is no revocation list on the wire: the roster revokes at once, the certificate ends after a year."""

# --- ledger ----------------------------------------------------------------------------------
MAX_JOURNAL_LINE_BYTES: Final = 32 * 1024
"""One line's body. The largest kind lists 256 variable names (17 kB); nothing record-sized fits a field of it."""
JOURNAL_BUSY_S: Final = 5.0
"""How long a write waits for SQLite's lock (a checkpoint, a backup tool) before it gives up, nothing charged."""
JOURNAL_LOOK_AHEAD: Final = 1_000
"""Lines searched for a displaced one when a broken journal is explained: a tenth of a second of signature checks."""

# --- services -----------------------------------------------------------------------------------
DOOR_STOP_S: Final = 5
"""How long a service waits for calls in progress when it is told to stop."""
LOCAL_CALL_TIMEOUT_S: Final = 300.0
"""A call through a hub's own door; making a large dataset anew after a decision takes minutes."""
IMPORT_POLL_S: Final = 0.05
"""How often the command line asks its own hub how far an import is."""
API_CALL_TIMEOUT_S: Final = 30.0
ROSTER_PUSH_S: Final = 300.0
"""How often the coordinator hands hubs the roster anew: a hub that was away is current again this soon."""
ROSTER_RENEW_S: Final = 3_600
"""How often the coordinator renews its word that the roster is the newest (it holds for a day)."""
CLOCK_S: Final = 1.0
"""How often the coordinator looks at what time has brought (deadlines, hubs that are back)."""
