"""Tests on a contingency table of all hubs' patients that stays shared: chi-squared, and Fisher's exact test.

Sources: Pearson 1900; Fisher 1935, two-sided by the sum of the tables that are no likelier than the one seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import chi2

from flute.errors import MisuseError
from flute.joint.arithmetic import fraction_bits, reciprocals, reveal
from flute.joint.counts import pooled
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.shares import concatenate
from flute.mpc.steps import Step

SHOWN: Final = 24
"""Fraction bits of what is opened (6e-8)."""


@dataclass(frozen=True, slots=True)
class TableTest:
    statistic: float
    degrees: int

    @property
    def p_value(self) -> float:
        return float(chi2.sf(self.statistic, self.degrees))


def chi_squared(party: Party, table: Integers, *, count_bits: int) -> Step[TableTest]:
    """Pearson's statistic of all hubs' table, without continuity correction.

    table: [rows, columns] this hub's counts. count_bits: public, all hubs together have fewer than 2^count_bits
    patients. A row or column that is empty adds nothing, and still counts in the degrees of freedom.
    Opens: the statistic, rounded to 2^-SHOWN.
    Error (three hubs): at most 6 N rows columns 2^-37, N patients, and 2^-SHOWN: 2e-6 for 4,095 patients in 3 x 4
    cells, of which chance leaves 1e-7.
    Costs: 86 rounds for 12 count_bits: 3 for each of count_bits + 7 layers, those of `pooled`, one opening; products:
    those of one of `reciprocals` for each margin, 3 for each cell.
    """
    if table.ndim != 2 or min(table.shape) < 2:
        raise MisuseError("A contingency table has at least two rows and two columns.")
    rows, columns = table.shape
    counts = yield from pooled(party, table, bits=count_bits)
    inverse = yield from reciprocals(party, concatenate([counts.sum(1), counts.sum(0)]), count_bits)
    cells = counts.reshape(-1)
    place = np.arange(rows * columns)
    across, down = inverse[place // columns], inverse[rows + place % columns]
    fraction = fraction_bits(party)
    shares = yield from party.mul_truncate(concatenate([cells, cells]), concatenate([across, down]), count_bits)
    parts = yield from party.mul_truncate(shares[: cells.size], shares[cells.size :], fraction)
    excess = parts.sum(0).reshape(1) - (1 << fraction)
    statistic = yield from party.mul_truncate(excess, cells.sum(0).reshape(1), fraction - SHOWN)
    shown = yield from reveal(party, statistic)
    return TableTest(int(shown[0]) / 2**SHOWN, (rows - 1) * (columns - 1))
