"""The log-rank test over all hubs' patients on a public time grid; numbers at risk and events stay shared.

On the grid, patients who leave at a time are at risk until then, events of one time share one risk set, and the
variance is the hypergeometric one: exactly the pooled log-rank test of times rounded to the grid.
Sources: Mantel 1966; Peto and Peto 1972; the variance with ties, Collett 2015, section 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from flute.errors import MisuseError
from flute.joint.arithmetic import fraction_bits, reciprocals, reveal, running
from flute.joint.counts import pooled
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step

SHOWN: Final = 26
"""Fraction bits of what is opened: 1.5e-8, below what a rank statistic means and above what rounding leaves."""


NOISE_BITS: Final = 50
"""Magnitude of one hub's share of noise, in units of 2^-SHOWN: 16 million events."""


@dataclass(frozen=True, slots=True)
class LogRank:
    """difference: events of group 1 observed less expected (O - E). variance: of that difference."""

    difference: float
    variance: float

    @property
    def chi_squared(self) -> float:
        """One degree of freedom; 0 where no event tells the groups apart."""
        return self.difference**2 / self.variance if self.variance > 0 else 0.0

    @property
    def p_value(self) -> float:
        return float(chi2.sf(self.chi_squared, 1))


def life_table(
    times_left: NDArray[np.int64], event: NDArray[np.bool_], group: NDArray[np.int64], bins: int
) -> Integers:
    """[2, 2, bins]: group, (left by event | left without), grid time. times_left: index of the grid time, from 0.

    Raises: MisuseError: a time outside the grid or a group other than 0 and 1.
    """
    if not (bool(np.all((times_left >= 0) & (times_left < bins))) and bool(np.isin(group, (0, 1)).all())):
        raise MisuseError("A time lies outside the public grid, or a group is neither 0 nor 1.")
    table = np.zeros((2, 2, bins), dtype=np.int64)
    np.add.at(table, (group, np.where(event, 0, 1), times_left), 1)
    return table


def log_rank(
    party: Party, table: Integers, *, count_bits: int, noise: tuple[int, int] | None = None
) -> Step[LogRank]:
    """O - E and its variance for group 0 against group 1, over all hubs.

    table: this hub's `life_table`. count_bits: public, all hubs together have fewer than 2^count_bits patients.
    noise: this hub's own shares of noise for the two numbers, in units of 2^-SHOWN; all hubs give some or none.
    Opens: O - E and V (plus the sum of all noise), rounded to 2^-SHOWN.
    Error (three hubs): at most 16 events 2^-37 and 2^-SHOWN: 5e-7 for 4,095 events, of which chance leaves 1e-8.
    Costs: 103 rounds for 12 count_bits: 3 for each of count_bits + 8 layers, those of `pooled`, one zero test, one
    opening; products for each grid time: 2 `reciprocals`, one zero test of count_bits, 6 besides.
    """
    counts = yield from pooled(party, table, bits=count_bits)
    leaving = counts[:, 0] + counts[:, 1]
    staying = running(leaving)
    at_risk = leaving - staying + staying[:, -1:]
    died = counts[0, 0] + counts[1, 0]
    all_risk = at_risk[0] + at_risk[1]
    nobody = yield from party.widen((yield from party.is_zero(all_risk, count_bits)), 1)
    inverse = yield from reciprocals(party, concatenate([all_risk, all_risk - 1 + nobody]), count_bits)
    size = died.shape[0]
    ratios = yield from party.mul_truncate(concatenate([at_risk[0], all_risk - died]), inverse, count_bits)
    share, left = ratios[:size], ratios[size:]
    fraction = fraction_bits(party)
    mixed = yield from party.mul_truncate(share, (1 << fraction) - share, fraction)
    spread = yield from party.mul_truncate(left, mixed, fraction)
    sums = yield from party.dot(
        died.reshape(1, size), concatenate([share.reshape(size, 1), spread.reshape(size, 1)], axis=1)
    )
    observed = counts[0, 0].sum(0)
    result = yield from party.truncate(_pair(observed * (1 << fraction) - sums[0, 0], sums[0, 1]), fraction - SHOWN)
    if noise is not None:
        result = result + (yield from party.noise(np.array(noise), bound=NOISE_BITS))
    shown = yield from reveal(party, result)
    return LogRank(int(shown[0]) / 2**SHOWN, int(shown[1]) / 2**SHOWN)


def _pair(first: Shares, second: Shares) -> Shares:
    return concatenate([first.reshape(1), second.reshape(1)])
