"""Constants of threshold encryption (plan `threshold-he`), with unit and reason."""

from __future__ import annotations

from typing import Final

MAX_CELLS: Final = 100_000
"""Encrypted numbers of one sum: 6.4 MB and 14 s of processor time of a hub. Longer vectors are for other plans."""
MAX_KEY_ATTEMPTS: Final = 32
"""Key ceremonies of one study. A cheater may end an attempt once it sees what key would come out, so it may choose
among as many keys: 5 bits, not more."""
MAX_TOTAL: Final = 2**26
"""Largest total that is looked for, either sign. A total is found by search: this far it takes about 5 ms each, on
average over all of them, with the largest table."""
MIN_BABY_STEPS: Final = 2**8
MAX_BABY_STEPS: Final = 2**18
"""Points of the table by which totals are found: 34 MiB of memory, and 5 s to make, once per process."""
MAX_RANGE_BITS: Final = 26
"""Of the range that one input is proved to be in: as many as totals may have."""
MAX_PROVED_BITS: Final = 100_000
"""Of all inputs of one message together: 16 MB, and 65 s or more of processor time to check."""
