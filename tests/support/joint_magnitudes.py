"""How large the values are that a program truncates or compares: put together from all hubs' shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

from flute.mpc import comparison, opening, truncation
from flute.mpc.field import WIDE, Prime, to_signed
from support.mpc_parties import Run


@dataclass(frozen=True)
class Magnitude:
    largest: int
    bound_bits: int

    @property
    def fits(self) -> bool:
        return self.largest < 2**self.bound_bits


def magnitudes(compute: Callable[[], Run]) -> tuple[Run, list[Magnitude]]:
    """Runs a computation of three hubs; every value that was opened under a bounded mask, in order."""
    seen: dict[int, list[tuple[Any, int]]] = {}
    real_masks, real_opened = truncation._masks, comparison._open_masked

    def masks(party, x, bits, bound):
        seen.setdefault(party.me, []).append((x.values, party.value_bits if bound is None else bound))
        return real_masks(party, x, bits, bound)

    def open_masked(party, y, bits, low):
        seen.setdefault(party.me, []).append(((y - 2**bits).values, bits))
        return (yield from real_opened(party, y, bits, low))

    with patch.object(truncation, "_masks", masks), patch.object(comparison, "_open_masked", open_masked):
        run = compute()
    rows = zip(*(seen[place] for place in sorted(seen)), strict=True)
    return run, [Magnitude(_largest([values for values, _ in row]), row[0][1]) for row in rows]


def outputs(compute: Callable[[], Run]) -> tuple[Run, list[tuple[int | None, list[int]]]]:
    """Runs a computation; each output in order: to whom (None: all), and the values that hub 1 saw, if any."""
    found: list[tuple[int | None, list[int]]] = []
    real = opening.open_output

    def open_output(party, x, to):
        opened = yield from real(party, x, to)
        if party.me == 1:
            found.append((to, [] if opened is None else [int(v) for v in np.ravel(opened)]))
        return opened

    with patch.object(opening, "open_output", open_output):
        return compute(), found


def _largest(shares: list[Any]) -> int:
    """Products lie on polynomials of degree 2, so all three shares are needed, and enough."""
    residues = []
    for k, prime in enumerate(WIDE):
        total = prime.zeros(shares[0][k].shape)
        for place, values in enumerate(shares, start=1):
            total = prime.add(total, prime.scale(values[k], _weight(prime, place)))
        residues.append(total)
    return max((abs(int(value)) for value in np.ravel(to_signed(WIDE, residues))), default=0)


def _weight(prime: Prime, place: int) -> int:
    """Lagrange's for 0 at the points 1, 2, 3."""
    return {1: 3, 2: prime.p - 3, 3: 1}[place]
