"""Constants of rounds of long vectors and of records that are asked again and again, with unit and reason."""

from __future__ import annotations

from typing import Final

LARGE_BODY_BYTES: Final = 64 * 1024
"""Of a body that lies in a file beside its database; up to here a row is the faster place."""
HELD_RECORDS_BYTES: Final = 2**30
"""Of images that a hub keeps in memory between two rounds: they are in memory anyway while it trains. What is larger
is read and checked anew each round."""
HELD_RECORDS_S: Final = 900.0
"""How long they stay unasked for: a round waits for its slowest hub, whose training may take minutes."""
NARROW_FROM: Final = 4_096
"""Parameters of a step that travel as 32-bit numbers where they are such: fewer are small whatever their form."""
NARROW_FRACTION_BITS: Final = 16
"""Of an exact sum of what networks' training came to, for it to travel in 32 bits. The mean change of a weight is off
by hubs * CHANGE_BOUND / (2^17 * patients) then, at most: 3e-7 for three hubs of 100 patients each; a weight of 1 that
travels in 32 bits is off by 6e-8. With as many patients as the study says at most it is 2e-9 * hubs."""
