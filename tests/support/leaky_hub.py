"""A hub service with one leak, as a program: `python -m support.leaky_hub LEAK hub serve FOLDER …`.

For the tests of the search alone: what it sends must be found. Nothing in `src` can be told to behave so.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

import numpy as np

import flute.aggregation.member as member
import flute.dp.calibrate as calibrate
import flute.hub.rounds.round as hub_round
from flute.aggregation.masks import MaskStreams
from flute.cli import main
from flute.messages.answer import Receipt


def unmasked() -> None:
    """The sum goes out without its masks."""
    vars(member)["MaskStreams"] = lambda masks: MaskStreams(())


def noiseless() -> None:
    """The hub's own sum goes out without its noise."""
    vars(calibrate)["discrete_gaussian"] = lambda sigma, size, rand: np.zeros(size, dtype=np.int64)


def receipt() -> None:
    """The highest PSA of the cohort travels in a receipt's digest."""
    seen: list[float] = []
    records = hub_round.Round._records

    def spying(self: Any, *args: Any) -> Any:
        data = records(self, *args)
        if "psa" in data._columns:
            seen.append(float(np.nanmax(data.column("psa"))))
        return data

    def telling(self: Any, reservation: Any) -> Receipt:
        psa = struct.pack("<4d", *(4 * seen[-1:] or [0.0] * 4))
        return Receipt(reservation.release_id, reservation.position.line, psa)

    hub_round.Round._records = spying  # type: ignore[method-assign, assignment]
    hub_round.Round._receipt = telling  # type: ignore[method-assign]


LEAKS = {"unmasked": unmasked, "noiseless": noiseless, "receipt": receipt}

if __name__ == "__main__":
    LEAKS[sys.argv[1]]()
    sys.argv = ["flute", *sys.argv[2:]]
    main()
