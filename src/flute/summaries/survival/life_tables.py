"""Kaplan-Meier curves, restricted means and the log-rank test from counts of events and ends on a public time grid.

A time counts as the upper end of its bin; events of one bin happen at once, before patients whose follow-up ends in
it leave. Exact counts give the pooled figures of times moved so. Noised counts give the same, the noise carried over
to first order through every number at risk; a curve ends where the number at risk drowns in its own noise.

With d events, c ends and Y at risk, log S = sum of log(1 - d / Y), Y_j = sum over i >= j of d_i + c_i, so
    d log S_k / d d_i = [i <= k] (-1 / (Y_i - d_i)) + sum over j <= min(i, k) of a_j,  a_j = 1/(Y_j - d_j) - 1/Y_j,
    d log S_k / d c_i = sum over j <= min(i, k) of a_j.

Sources: Kaplan and Meier 1958; Greenwood 1926; Borgan and Liestol 1990 (log-log interval); Brookmeyer and Crowley
1982 (median); Irwin 1949, Royston and Parmar 2013 (restricted mean); Mantel 1966, Peto and Peto 1972 (log-rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import chi2

from flute.algorithms.design import Mask
from flute.algorithms.linear import or_none
from flute.algorithms.prefix import Counts
from flute.algorithms.scores import Z_95
from flute.data.variables import Array
from flute.defaults.summaries import DROWNED, SURVIVAL_SHOWN
from flute.summaries.blocks import estimate, interval, onto_noise, plain


@dataclass(frozen=True, slots=True)
class Life:
    """One group. `edges` [bins + 1]: of the time grid, the first at least 0."""

    events: Counts
    ends: Counts
    edges: Array

    @property
    def at_risk(self) -> Array:
        """[bins] at the bin's time: all who leave in it or later; unbiased, so noise may make it negative."""
        leaving = self.events.prefix + self.ends.prefix
        return np.asarray(leaving[-1] - np.concatenate([[0.0], leaving[:-1]]))

    @property
    def n(self) -> float:
        return max(float(self.at_risk[0]), 0.0)

    def at_risk_noise(self) -> Array:
        """[bins] deviation of the noise in `at_risk`."""
        later = np.triu(np.ones((len(self.edges) - 1,) * 2))
        return self.noise(later, later)

    def noise(self, events: Array, ends: Array) -> Array:
        """[rows] deviations of the noise in weighted sums of raw counts; weights [rows, bins]."""
        if self.events.sigma == 0:
            return np.zeros(len(events))
        squares = np.sum(onto_noise(events) ** 2, axis=1) + np.sum(onto_noise(ends) ** 2, axis=1)
        return np.asarray(self.events.sigma * np.sqrt(squares))


@dataclass(frozen=True, slots=True)
class Curve:
    """Arrays [k] of the k bins that the curve reaches. `survival`: after the bin's time. `steps`: Greenwood's terms
    d / (Y (Y - d)). `by_events`, `by_ends` [k, bins]: derivatives of log S by raw counts."""

    life: Life
    survival: Array
    steps: Array
    by_events: Array
    by_ends: Array

    @property
    def times(self) -> Array:
        return np.asarray(self.life.edges[1 : 1 + len(self.survival)])

    def errors(self) -> tuple[Array, Array]:
        """Of log S: sampling, noise."""
        return np.sqrt(np.cumsum(self.steps)), self.life.noise(self.by_events, self.by_ends)


def curve_of(life: Life) -> Curve:
    """Up to the grid's end, or under noise to the last bin whose number at risk stands out of its noise."""
    at_risk, sigma = life.at_risk, life.events.sigma
    reached = len(at_risk)
    if sigma > 0:
        drowned = np.flatnonzero(at_risk < DROWNED * life.at_risk_noise())
        reached = int(drowned[0]) if len(drowned) else reached
    risk, died = at_risk[:reached], life.events.raw[:reached]
    there = risk > 0.5 if sigma == 0 else risk > 0
    hazard = np.clip(np.where(there, died / np.where(there, risk, 1.0), 0.0), -1.0, 1.0)
    left = np.where(there & (hazard < 1), risk - hazard * risk, np.inf)
    steps = np.where(hazard < 1, np.maximum(hazard, 0.0) / left, np.inf)
    survival = np.cumprod(1 - hazard)
    if sigma > 0:
        survival = _falling(survival)
    a = np.cumsum(1 / left - np.where(there, 1 / np.where(there, risk, 1.0), 0.0))
    bins, k = len(at_risk), np.arange(reached)
    earlier = np.minimum.outer(k, np.minimum(np.arange(bins), reached - 1))
    by_ends = a[earlier] if reached else np.zeros((0, bins))
    by_events = by_ends.copy()
    by_events[:, :reached] -= np.tril(np.ones((reached, reached))) / left
    return Curve(life, survival, steps, by_events, by_ends)


def _falling(survival: Array) -> Array:
    """The closest curve that never rises, within [0, 1]."""
    if not len(survival):
        return survival
    return np.asarray(np.clip(isotonic_regression(survival, increasing=False).x, 0.0, 1.0))


def _bounds(curve: Curve) -> tuple[Array, Array]:
    """95 % interval of S on the log(-log S) scale; (1, 1) before the first event without noise."""
    sampling, noise = curve.errors()
    with np.errstate(divide="ignore", invalid="ignore"):
        logged = np.log(curve.survival)
        half = Z_95 * np.hypot(sampling, noise) / logged
        centre = np.log(-logged)
        low, high = np.exp(-np.exp(centre - half)), np.exp(-np.exp(centre + half))
    untouched = curve.survival >= 1
    low = np.where(untouched, np.exp(-Z_95 * noise), low)
    return low, np.where(untouched, 1.0, high)


def group_shown(life: Life) -> dict[str, Any]:
    """All that is said of one group."""
    curve = curve_of(life)
    low, high = _bounds(curve)
    sampling, noise = curve.errors()
    ones = np.ones((1, len(life.edges) - 1))
    none = np.zeros_like(ones)
    return {
        "n": estimate(life.n, float(life.noise(ones, ones)[0])),
        "events": estimate(max(float(life.events.prefix[-1]), 0.0), float(life.noise(ones, none)[0])),
        "median": _median(curve, low, high),
        "restricted_mean": _restricted_mean(curve),
        "curve": {
            "times": life.edges[1:].tolist(),
            "survival": _padded(life, curve.survival),
            "low": _padded(life, low),
            "high": _padded(life, high),
            "sampling_se": _padded(life, _times(curve.survival, sampling)),
            "noise_se": _padded(life, _times(curve.survival, noise)),
            "at_risk": np.maximum(life.at_risk, 0.0).tolist(),
            "at_risk_noise_se": life.at_risk_noise().tolist(),
            "events": life.events.consistent.tolist(),
            "ends": life.ends.consistent.tolist(),
        },
    }


def _padded(life: Life, values: Array) -> list[float | None]:
    """None where the curve does not reach, or is no finite number."""
    return or_none(np.append(values, np.full(len(life.edges) - 1 - len(values), np.nan)))


def _times(survival: Array, errors: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(survival * errors)


def _median(curve: Curve, low: Array, high: Array) -> dict[str, float | None]:
    def reached(bound: Array) -> float | None:
        below = np.flatnonzero(np.nan_to_num(bound, nan=0.0) <= SURVIVAL_SHOWN)
        return float(curve.times[below[0]]) if len(below) else None

    return {"value": reached(curve.survival), "low": reached(low), "high": reached(high)}


def _restricted_mean(curve: Curve) -> dict[str, Any]:
    """Mean time up to the end of the curve, `until`, times from 0; the area below the curve."""
    edges, reached = curve.life.edges, len(curve.survival)
    if not reached or not np.isfinite(curve.steps[:-1]).all():
        until = float(edges[reached])
        area = float(edges[0] + np.diff(edges)[:reached] @ np.concatenate([[1.0], curve.survival])[:reached])
        return {**interval(area if reached else float("nan"), *[float("nan")] * 3), "until": until}
    widths = np.diff(edges)[:reached]
    before = np.concatenate([[1.0], curve.survival[:-1]])
    area = float(edges[0] + widths @ before)
    parts = widths[1:] * curve.survival[:-1]
    after = np.cumsum(parts[::-1])[::-1]
    sampling = float(np.sqrt(np.sum(after**2 * curve.steps[:-1])))
    noise = curve.life.noise((parts @ curve.by_events[:-1])[None], (parts @ curve.by_ends[:-1])[None])
    return {**interval(area, sampling, float(noise[0]), Z_95, low=0.0), "until": float(edges[reached])}


@dataclass(frozen=True, slots=True)
class RiskTable:
    """Groups that somebody is in. `risks` [groups, bins] at risk, not negative; `died` [groups, bins] events,
    unbiased; `smooth` the same, not negative; `used` [bins]: where all at risk together stand out of their noise."""

    lives: Sequence[Life]
    risks: Array
    died: Array
    smooth: Array
    used: Mask

    def shares(self, relative: Array) -> Array:
        """[groups, bins] of the hazard in each bin; relative: [groups] hazards against the first."""
        weighted = self.risks * relative[:, None]
        return np.where(self.used, weighted / np.where(self.used, weighted.sum(axis=0), 1.0), 0.0)

    def noise(self, relative: Array) -> Array:
        """[groups, groups] covariance of the noise in events less expected ones at these hazards, to first order."""
        groups, sigma = len(self.lives), self.lives[0].events.sigma
        total = np.zeros((groups, groups))
        if sigma == 0:
            return total
        share, weighted = self.shares(relative), (self.risks * relative[:, None]).sum(axis=0)
        rate = np.where(self.used, self.smooth.sum(axis=0) / np.where(self.used, weighted, 1.0), 0.0)
        for h in range(groups):
            own = np.eye(groups)[h][:, None]
            by_ends = np.cumsum(-rate * relative[h] * (own - share), axis=1)
            by_events = by_ends + (own - share) * self.used
            for weights in (by_events, by_ends):
                moved = onto_noise(weights)
                total += sigma**2 * moved @ moved.T
        return total


def risk_table(lives: Sequence[Life]) -> RiskTable:
    """Of at least one group."""
    risks = np.maximum([life.at_risk for life in lives], 0.0)
    least: Any = 0.5
    if lives[0].events.sigma > 0:
        least = DROWNED * np.sqrt(np.sum([s.at_risk_noise() ** 2 for s in lives], axis=0))
    return RiskTable(
        lives,
        risks,
        np.array([life.events.raw for life in lives]),
        np.array([life.events.consistent for life in lives]),
        np.asarray(risks.sum(axis=0) > least),
    )


def log_rank(lives: Sequence[Life]) -> dict[str, Any]:
    """Whether all groups' curves are one: observed less expected events, over their covariance, the noise's in it."""
    seen = [life for life in lives if life.n >= 1]
    degrees = max(len(seen) - 1, 0)
    if not degrees:
        return {"test": "log-rank", "statistic": None, "degrees_of_freedom": 0, "p": None, "expected": None}
    table, alike = risk_table(seen), np.ones(len(seen))
    expected = (table.shares(alike) * table.died.sum(axis=0)).sum(axis=1)
    observed = (table.died * table.used).sum(axis=1)
    covariance = _hypergeometric(table) + table.noise(alike)
    gap, middle = (observed - expected)[:-1], covariance[:-1, :-1]
    told = np.linalg.matrix_rank(middle, hermitian=True) == degrees
    statistic = float(gap @ np.linalg.solve(middle, gap)) if told else float("nan")
    return {
        "test": "log-rank",
        "statistic": plain(statistic),
        "degrees_of_freedom": degrees,
        "p": plain(float(chi2.sf(statistic, degrees))),
        "expected": expected.tolist(),
        "observed": observed.tolist(),
    }


def _hypergeometric(table: RiskTable) -> Array:
    """[groups, groups] covariance of observed less expected events, given the margins of every bin."""
    share, risk, died = table.shares(np.ones(len(table.lives))), table.risks.sum(axis=0), table.smooth.sum(axis=0)
    several = table.used & (risk > 1)
    factor = np.maximum(np.where(several, died * (risk - died) / np.where(several, risk - 1, 1.0), 0.0), 0.0)
    return np.asarray(np.diag(share @ factor) - (share * factor) @ share.T)
