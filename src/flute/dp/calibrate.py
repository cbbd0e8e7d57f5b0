"""One frozen value that says clip, scale, noise and price of a release, so that they cannot disagree.

Pseudocode of what it prices, per hub (shares m = survivors_min - colluding):
    rows   = clip(updates, C)                        each |row|_2 <= C
    sum    = rows on the grid of s, added            each rounded |row|_2 <= D but for chance beta
    answer = sum + N_Z(0, sigma^2 / m)               sigma/sqrt(m) = hub_sigma
Whoever opens the total of at least survivors_min answers and subtracts the noise of `colluding` of them
still faces m shares, variance sigma^2. That is what every hub charges, never less.
Sources: Kairouz, Liu, Steinke 2021, "The distributed discrete Gaussian mechanism" (sums, rounding); Canonne,
Kamath, Steinke 2020 (one discrete Gaussian is D^2/(2 sigma^2)-zCDP).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.defaults import (
    GRID_HUB_SIGMA,
    MAX_HUB_SIGMA,
    MAX_HUBS,
    MAX_VECTOR,
    MIN_HUB_SIGMA,
    ROUNDING_BETA,
)
from flute.dp.clip import MAX_CLIP_NORM, MIN_CLIP_NORM, Array, GridSum, clip, portions
from flute.dp.events import AddedDelta, DiscreteGaussian
from flute.dp.noise import discrete_gaussian
from flute.errors import MisuseError

MAX_SCALED_NORM: Final = 2.0**40
"""C times s: two million patients then fit an int64 sum with a guard bit, whatever their data."""
MAX_ROUNDING_COST: Final = 1.025
"""Sensitivity after rounding over before; the grid is refined while rounding costs more noise than that."""
MIN_NORM_PER_ROOT: Final = 2.26
"""C s / sqrt(d) that the finest grid must reach: from there on rounding is a minor part of the price."""
SMOOTHING: Final = 4.0
"""Of the noise's variance on the grid, not counted, since it hides the grid: what is left is as good as Gaussian, up
to 2.1e-34 in the log of a chance for each coordinate. Less than half of the smallest variance that is allowed."""
_FLOAT_MARGIN: Final = 1 + 2.0**-40
"""Covers every float operation between a clipped row and its price."""
_RARE: Final = 60 * math.log(2)
"""A chance of 2^-60, as an exponent."""
_ROUNDING_SHARE: Final = 1 - 2.0**-20
"""Part of beta that rounding gets; the rest is for the sampler's error, which is far smaller (noise.py)."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Clip norm, grid, noise and price of one opened sum. Frozen; checked when made.

    clip_norm: C, L2 per patient, unit of the update. size: d. scale: s, grid steps per unit.
    hub_sigma: deviation of one hub's noise on the grid (`sigma` follows from it).
    hubs: n, how many answer when all do. survivors_min: fewest answers a hub lets be opened (it checks).
    colluding: c, hubs whose noise the coordinator may know, at least 1 where there are others: any hub that sees the
    total subtracts its own. A release of one hub alone: n = 1, 1 survivor, c = 0.

    Raises: MisuseError: a number that is not finite or not positive; fewer than one honest share left; noise
        too small to add up to a discrete Gaussian, or too large to draw; a size or n beyond the limits.
    """

    clip_norm: float
    size: int
    scale: float
    hub_sigma: float
    hubs: int
    survivors_min: int
    colluding: int

    def __post_init__(self) -> None:
        _require_hubs(self.hubs, self.survivors_min, self.colluding)
        _require_shape(self.clip_norm, self.size)
        if not (math.isfinite(self.scale) and self.scale > 0 and self.clip_norm * self.scale <= MAX_SCALED_NORM):
            raise MisuseError(f"A scale must be positive, with clip norm times scale up to 2^40; it is {self.scale}.")
        if not MIN_HUB_SIGMA <= self.hub_sigma <= MAX_HUB_SIGMA:
            raise MisuseError(
                f"A hub's own noise must have a deviation of {MIN_HUB_SIGMA:g} to {MAX_HUB_SIGMA:g} on the grid, not "
                f"{self.hub_sigma}. Noise below that does not add up to what is charged."
            )

    @property
    def shares(self) -> int:
        """m: shares of noise that remain when the worst permitted coalition subtracts its own."""
        return self.survivors_min - self.colluding

    @property
    def sigma(self) -> float:
        """Deviation on the grid of the noise that is charged for: hub_sigma sqrt(m)."""
        return self.hub_sigma * math.sqrt(self.shares)

    @property
    def total_sigma(self) -> float:
        """Deviation on the grid of the noise in the total when all n hubs answer: what a result's reader sees."""
        return self.hub_sigma * math.sqrt(self.hubs)

    @property
    def sensitivity(self) -> float:
        """L2 norm on the grid that one patient's rounded row exceeds with a chance of at most beta."""
        return widened_sensitivity(self.clip_norm * self.scale, self.size)

    @property
    def delta(self) -> float:
        """What every release of this mechanism adds to delta: the chance beta, and the sampler's error in it."""
        return ROUNDING_BETA

    @property
    def rho(self) -> float:
        """Price for one patient added or removed at one hub, rounded up; `delta` comes with it.

        Half of mu^2 in Gaussian DP, and a price in zCDP as well."""
        return self.rho_against(self.shares)

    def rho_against(self, honest_shares: int) -> float:
        """The price if only `honest_shares` shares of noise are unknown to whoever looks; infinite for none.

        (D/s + tau sqrt(d))^2 / 2 with s^2 = shares hub_sigma^2 - SMOOTHING; tau < 3e-37 for hub_sigma >= 3, n <= 30.
        Sources: Kairouz, Liu, Steinke 2021, on sums of discrete Gaussians; docs/proofs/filter.md, steps 4 and 8.
        """
        if honest_shares < 1:
            return math.inf
        slack = sum_slack(self.hub_sigma, honest_shares) * math.sqrt(self.size)
        mu = self.sensitivity / _smoothed(self.hub_sigma, honest_shares) + slack
        return mu * mu / 2 * _FLOAT_MARGIN

    def views(self) -> Views:
        """What each kind of onlooker faces; DESIGN asks that all be shown."""
        return Views(
            outsider=self.rho_against(self._left(0)),
            one_hub=self.rho_against(self._left(1)),
            charged=self.rho,
            two_hubs=self.rho_against(self._left(2)),
        )

    def _left(self, known: int) -> int:
        """Shares left when all answered and `known` other hubs' noise is known; a patient's own hub is honest."""
        return self.hubs - min(known, self.hubs - 1)

    def events(self, honest_shares: int) -> tuple[DiscreteGaussian, AddedDelta]:
        """This release as events, for whoever does not know `honest_shares` shares of its noise."""
        sigma, slack = self.hub_sigma * math.sqrt(honest_shares), sum_slack(self.hub_sigma, honest_shares)
        return DiscreteGaussian(self.sensitivity, sigma, self.size, slack), AddedDelta(self.delta)

    def reach(self, rows: int) -> Reach:
        """What the sum can come to on the grid where no hub has more than `rows` patients; see `Reach`."""
        norm = self.clip_norm * self.scale
        root = math.sqrt(self.size)
        alike, deviation = rows * (math.floor(norm) + 1), math.sqrt(2 * (math.log(2 * self.size) + _RARE))
        length = math.sqrt(self.size + 2 * root * math.sqrt(_RARE) + 2 * _RARE)
        return Reach(
            part=alike + math.ceil(self.hub_sigma * deviation),
            total=self.hubs * alike + math.ceil(self.total_sigma * deviation),
            norm=self.hubs * rows * (norm + root) + self.total_sigma * length,
        )

    def contribution(self, updates: Array | Iterator[Array], *, rand: bytes) -> NDArray[np.int64]:
        """What leaves for the masks, int64 [d]: every patient's row clipped, rounded, added, and the noise.

        updates: one table float64 [n patients, d], or tables of some patients each, one after the other; of these one
            is held at a time, and how patients are divided does not show in the answer. No row at all gives noise
            alone: a step that failed is answered with that. What the iterator raises passes through, unanswered.
        rand: 64 bytes, fresh operating-system entropy for every release: 32 for rounding, 32 for noise.
        Raises: MisuseError: rows of another size, or `rand` of another length.
        """
        if len(rand) != 64:
            raise MisuseError("This release takes 64 fresh bytes.")
        summed = GridSum(self.size, self.scale, rand[:32])
        for table in (updates,) if isinstance(updates, np.ndarray) else updates:
            if table.ndim != 2 or table.shape[1] != self.size:
                raise MisuseError(f"This release takes rows of {self.size} numbers.")
            for rows in portions(table):
                summed.add(clip(rows, self.clip_norm))
        return summed.total + discrete_gaussian(self.hub_sigma, self.size, rand[32:])


@dataclass(frozen=True, slots=True)
class Reach:
    """Bounds that hold but for a chance of at most 2^-60 per vector, all on the integer grid.

    part: |coordinate| of one hub's answer: its patients' rows, each rounded by less than 1, and its noise's tail.
    total, norm: |coordinate| and L2 norm of the sum over all hubs. The rows' part is certain; the chance is the
    noise's, which is sub-Gaussian: P(|X| > t) <= 2 exp(-t^2 / 2 sigma^2) for each coordinate, and for the norm
    P(|X|^2 > sigma^2 (d + 2 sqrt(d x) + 2 x)) <= exp(-x).
    Source: Canonne, Kamath, Steinke 2020 (the discrete Gaussian is sub-Gaussian); Hsu, Kakade, Zhang 2012 (norms).
    """

    part: int
    total: int
    norm: float


@dataclass(frozen=True, slots=True)
class Views:
    """rho against each onlooker when all hubs answered.

    outsider: knows nobody's noise. one_hub: another hub that subtracts its own. charged: the worst coalition
    that the agreement permits, at the fewest survivors. two_hubs: the coordinator with two other hubs, beyond
    what is permitted where colluding is 1: not a promise, shown so that people know.
    """

    outsider: float
    one_hub: float
    charged: float
    two_hubs: float


def mechanism_for(
    rho: float, clip_norm: float, size: int, hubs: int, survivors_min: int, colluding: int
) -> Mechanism:
    """The mechanism of at most `rho` with the least relative noise whose hub sigma is a grid default.

    A hub's noise is GRID_HUB_SIGMA on the grid (one sampling table for all), and the scale is the largest whose
    price, rounding included, is within `rho`. The grid is refined by doubling hub sigma while rounding costs more
    than MAX_ROUNDING_COST: long vectors, small budgets.
    Guarantees: result.rho <= rho, and above rho (1 - 1e-9).
    Raises: MisuseError: rho not positive and finite; as `Mechanism`; a budget so small, or a vector so long, that
        rounding alone would use it up on the finest grid.
    """
    if not (math.isfinite(rho) and rho > 0):
        raise MisuseError(f"A price must be positive and finite, not {rho}.")
    _require_hubs(hubs, survivors_min, colluding)
    _require_shape(clip_norm, size)
    hub_sigma = GRID_HUB_SIGMA
    shares, reach = survivors_min - colluding, math.sqrt(2 * rho)
    norm = _norm_within(reach * _smoothed(hub_sigma, shares), size)
    while widened_sensitivity(norm, size) > MAX_ROUNDING_COST * norm and hub_sigma < MAX_HUB_SIGMA:
        hub_sigma *= 2
        norm = _norm_within(reach * _smoothed(hub_sigma, shares), size)
    if norm < MIN_NORM_PER_ROOT * math.sqrt(size):
        raise MisuseError(
            f"A budget of rho = {rho:.3g} is too small for a vector of {size} numbers: rounding them would use much "
            "of it. Ask for fewer numbers or fewer steps, or give the question more of the budget."
        )
    return Mechanism(
        clip_norm=clip_norm,
        size=size,
        scale=norm / clip_norm,
        hub_sigma=hub_sigma,
        hubs=hubs,
        survivors_min=survivors_min,
        colluding=colluding,
    )


def _smoothed(hub_sigma: float, shares: int) -> float:
    """Deviation of the Gaussian that `shares` hubs' noise is a random rounding of."""
    return math.sqrt(shares * hub_sigma * hub_sigma - SMOOTHING)


def _norm_within(reach: float, size: int) -> float:
    """The largest C s, up to a 1e-11 part, whose widened sensitivity is within `reach`; 0 where none is."""
    target = reach * (1 - 2.0**-37)
    low, high = 0.0, min(target, MAX_SCALED_NORM)
    for _ in range(100):
        middle = (low + high) / 2
        if widened_sensitivity(middle, size) <= target:
            low = middle
        else:
            high = middle
    return low


def widened_sensitivity(norm: float, size: int) -> float:
    """How long one patient's row can be after unbiased rounding, but for a chance of at most ROUNDING_BETA.

    `norm`: C s, its length before, on the grid. min(Cs + sqrt(d), sqrt((Cs)^2 + d/4 + sqrt(2 ln 1/beta)
    (Cs + sqrt(d)/2))): the first always holds (a coordinate moves by less than 1), the second but for beta (its
    square is at most d/4 above on average, and concentrates).
    Source: Kairouz, Liu, Steinke 2021, on randomised rounding, without conditioning: beta goes to delta instead.
    """
    root = math.sqrt(size)
    deviation = math.sqrt(-2 * math.log(ROUNDING_BETA * _ROUNDING_SHARE))
    likely = math.sqrt(norm * norm + size / 4 + deviation * (norm + root / 2))
    return min(norm + root, likely) * _FLOAT_MARGIN


def sum_slack(hub_sigma: float, shares: int) -> float:
    """tau: how far a sum of `shares` discrete Gaussians is from one, 10 sum_k exp(-2 pi^2 sigma^2 k/(k+1)).

    3e-38 at hub sigma 3 with two shares; 5e-4 at 1; 0 for a single share.
    """
    factor = -2 * math.pi**2 * hub_sigma**2
    return 10 * math.fsum(math.exp(factor * k / (k + 1)) for k in range(1, shares))


def _require_hubs(hubs: int, survivors_min: int, colluding: int) -> None:
    if not (1 <= survivors_min <= hubs <= MAX_HUBS and colluding >= 0):
        raise MisuseError(
            f"Of {hubs} hubs (1 to {MAX_HUBS}), at least {survivors_min} are to survive and {colluding} may collude: "
            "these numbers do not fit together."
        )
    if survivors_min - colluding < 1:
        raise MisuseError(
            f"With {survivors_min} surviving hubs and {colluding} colluding no honest noise is left; require more "
            "survivors or permit fewer colluders."
        )


def _require_shape(clip_norm: float, size: int) -> None:
    if not MIN_CLIP_NORM <= clip_norm <= MAX_CLIP_NORM:
        raise MisuseError(f"A clip norm must be positive and finite, not {clip_norm}.")
    if not 1 <= size <= MAX_VECTOR:
        raise MisuseError(f"A vector must have 1 to {MAX_VECTOR} coordinates, not {size}.")
