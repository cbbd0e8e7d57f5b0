"""What researchers are told of hubs' decisions, charges and datasets: how much, and for how long it is waited."""

from __future__ import annotations

from typing import Final

MAX_ASKED_STUDIES: Final = 256
"""Study runs in one question about accounts: more than a notebook's study has; each takes 200 bytes in the answer."""
PICO: Final = 10**12
"""rho travels in whole numbers of 1e-12, since messages hold no floats: a millionth of the smallest price."""
ACCOUNTS_WAIT_S: Final = 5.0
"""How long the coordinator waits for hubs that are connected: they answer at once, unless they work on a round."""
ACCOUNTS_KEEP_S: Final = 60.0
"""After so long an open question is forgotten; whoever asked has stopped waiting long before."""
MAX_OPEN_ACCOUNTS: Final = 64
"""Open questions at once, over all researchers; each waits for seconds."""
MAX_OPEN_PER_PERSON: Final = 4
"""Of one researcher, who could keep all others waiting else: several notebooks, each looking."""
MAX_LISTING_BYTES: Final = 512 * 1024
"""One dataset's catalogue entry, with its statistics: 64 variables take about 300 kB."""
MAX_HUB_LISTINGS: Final = 32
"""Entries of one hub that a coordinator keeps; a catalogue of so many datasets belongs on a page of its own."""
