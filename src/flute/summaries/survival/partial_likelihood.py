"""Cox's partial likelihood by Newton's method on sums; Breslow's ties on a public time grid.

With S0_k, S1_k the sums of e^(b x) and e^(b x) x over those at risk at grid time k, and d_k events there,
    log-likelihood  b X - sum_k d_k log S0_k             X: sum of x over events
    gradient        X - sum_k d_k S1_k / S0_k
    information     sum_k d_k S2_k / S0_k - sum_k d_k S1_k S1_k' / S0_k^2.
Its first term needs no sums by time: it is the sum over patients of e^(b x) x x' W(t), W(t) the sum of
w_k = d_k / S0_k up to the patient's own time. w_k is not known before the step is opened; it is foreseen from the
step before, to first order in the change of b, and off by the square of it: so steps converge as Newton's do, and a
step opens bins (1 + p) + p (p + 1) / 2 numbers instead of bins (1 + p + p (p + 1) / 2).

e^(b x) is written as e^(b x - shift) <= 1, W over its largest value: no coordinate of a patient is beyond 1.

Vectors: "events" [events by bin | leaving by bin | x over events (p)]; each later one, asked at
[b (p) | shift | largest W | W (bins) over it]: [e^.. by bin | e^.. x by bin and column | upper half of e^.. W x x'].
Sources: Cox 1972, 1975; Breslow 1974 (ties).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flute.algorithms.contract import Opened
from flute.algorithms.design import Design
from flute.algorithms.newton import LARGEST_LOGIT, VANISHED, Fit, Sums, Walk, logits
from flute.algorithms.private_rows import private_scaling
from flute.data.variables import Array
from flute.defaults.summaries import COX_LARGEST_EXPONENT, COX_MAX_STEPS
from flute.summaries.blocks import Codes, one_hot


def first_size(columns: int, bins: int) -> int:
    return 2 * bins + columns


def step_size(columns: int, bins: int) -> int:
    return bins * (1 + columns) + columns * (columns + 1) // 2


def asked_size(columns: int, bins: int) -> int:
    return columns + 2 + bins


def first_rows(x: Array, left_in: Codes, event: Codes, bins: int) -> Array:
    """[n, first_size]; zero for those left out, whose bin is -1. x: [n, p] in [-1, 1], without intercept."""
    died = np.where(event == 1, left_in, -1)
    return np.hstack([one_hot(died, bins), one_hot(left_in, bins), x * (died >= 0)[:, None]])


def step_rows(x: Array, left_in: Codes, bins: int, asked: Array) -> Array:
    """[n, step_size] at `asked`; |coordinate| <= 1 whatever finite numbers were asked with."""
    p = x.shape[1]
    coefficients, shift, so_far = asked[:p], asked[p], np.clip(asked[p + 2 :], 0.0, 1.0)
    exponent = np.clip(logits(x, coefficients) - np.clip(shift, -LARGEST_LOGIT, LARGEST_LOGIT), -LARGEST_LOGIT, 0.0)
    hazard = np.exp(exponent) * (left_in >= 0)
    place = one_hot(left_in, bins)
    by_bin = (place[:, :, None] * (hazard[:, None] * x)[:, None, :]).reshape(len(x), bins * p)
    i, j = np.triu_indices(p)
    whole = (hazard * so_far[np.maximum(left_in, 0)])[:, None] * x[:, i] * x[:, j]
    return np.hstack([place * hazard[:, None], by_bin, whole])


@dataclass(frozen=True, slots=True)
class Events:
    """The first vector, opened: `died`, `at_risk` [bins], `total` [p] of x over events."""

    died: Array
    at_risk: Array
    total: Array

    @property
    def n(self) -> float:
        return float(self.at_risk[0])


def _still(by_bin: Array) -> Array:
    """Sums over those at risk from sums by the bin that they leave in."""
    return np.asarray(np.cumsum(by_bin[::-1], axis=0)[::-1])


def opened_events(opened: Opened, p: int) -> Events:
    bins = (len(opened.total) - p) // 2
    died, leaving = np.round(opened.total[:bins]), np.round(opened.total[bins : 2 * bins])
    return Events(died, _still(leaving), opened.total[2 * bins :])


@dataclass(frozen=True, slots=True)
class RiskSets:
    """A later vector, opened: `hazard` [bins] S0 e^-shift, `mean` [bins, p] S1 / S0, `spread` [p, p] first term of
    the information. Where no event happens nothing is divided."""

    at: Array
    shift: float
    hazard: Array
    mean: Array
    spread: Array

    def lacking(self, events: Events) -> bool:
        """Fixed point has lost a risk set in which an event happens."""
        return bool((self.hazard[events.died > 0] < VANISHED).any())


def _risk_sets(opened: Opened, events: Events, p: int) -> RiskSets:
    bins = len(events.died)
    hazard = _still(opened.total[:bins])
    sums = _still(opened.total[bins : bins * (1 + p)].reshape(bins, p))
    spread = np.zeros((p, p))
    spread[np.triu_indices(p)] = opened.total[bins * (1 + p) :] * opened.parameters[p + 1]
    spread += np.triu(spread, 1).T
    mean = np.where(events.died[:, None] > 0, sums / np.maximum(hazard, VANISHED)[:, None], 0.0)
    return RiskSets(opened.parameters[:p], float(opened.parameters[p]), hazard, mean, spread)


def _newton_sums(sets: RiskSets, events: Events) -> Sums:
    """With a column of zeros where designs have their intercept."""
    d, p = events.died, len(events.total)
    gradient, information = np.zeros(p + 1), np.zeros((p + 1, p + 1))
    gradient[1:] = events.total - d @ sets.mean
    information[1:, 1:] = sets.spread - (sets.mean * d[:, None]).T @ sets.mean
    logged = np.log(np.maximum(sets.hazard, VANISHED)) + sets.shift
    likelihood = float(sets.at @ events.total - d @ np.where(d > 0, logged, 0.0))
    return Sums(np.concatenate([[0.0], sets.at]), events.n, likelihood, gradient, information)


def first_question(events: Events) -> Array:
    """At coefficients 0, where everybody's hazard is 1."""
    weights = events.died / np.maximum(events.at_risk, 1.0)
    return _asked(np.zeros(len(events.total)), 0.0, weights)


def _asked(coefficients: Array, shift: float, weights: Array) -> Array:
    so_far = np.cumsum(weights)
    return np.concatenate([coefficients, [shift, so_far[-1]], so_far / so_far[-1]])


def _question(coefficients: Array, path: Sequence[RiskSets], events: Events) -> Array:
    """At `coefficients`, the weights foreseen from the nearest step opened."""
    near = min(path, key=lambda sets: float(np.abs(sets.at - coefficients).max()))
    change = coefficients - near.at
    centre = path[0].mean.mean(axis=0) if not events.died.any() else events.died @ path[0].mean / events.died.sum()
    # against the mean patient at risk, no patient of the public range is riskier than this
    beyond = float(np.abs(coefficients).sum() - coefficients @ centre)
    shift = float(coefficients @ centre) + min(beyond, COX_LARGEST_EXPONENT)
    foreseen = near.mean @ change + near.shift - shift
    hazard = np.maximum(near.hazard, VANISHED) * np.exp(np.clip(foreseen, -LARGEST_LOGIT, LARGEST_LOGIT))
    weights = np.where(events.died > 0, events.died / hazard, 0.0)
    return _asked(coefficients, shift, weights)


@dataclass(frozen=True, slots=True)
class CoxFit:
    """`fit`: over unit-range columns, the first coefficient, of the intercept, being 0. `hazard` [bins]: S0 of a
    patient's e^(b x) at its coefficients, for the baseline."""

    fit: Fit
    hazard: Array


def next_cox(design: Design, history: Sequence[Opened]) -> Array | CoxFit:
    """What to ask next, or the end. `history`: at least the first vector, with at least one event."""
    p = design.size - 1
    events = opened_events(history[0], p)
    if len(history) == 1:
        return first_question(events)
    sets = [_risk_sets(opened, events, p) for opened in history[1:]]
    path = [_newton_sums(s, events) for s in sets]
    active = np.diag(path[0].hessian) >= VANISHED
    walk = Walk(design, path, active, private_scaling(design), perfect=0.0)
    here = sets[walk.accepted[-1]]
    hazard = here.hazard * np.exp(min(here.shift, LARGEST_LOGIT))
    if not active.any():
        return CoxFit(walk.end("converged", "", None, np.zeros_like(path[0].hessian)), hazard)
    if sets[0].lacking(events) or here.lacking(events):
        return CoxFit(walk.end("not-converged"), hazard)
    reached = walk.next()
    if isinstance(reached, Fit):
        return CoxFit(reached, hazard)
    if len(path) >= COX_MAX_STEPS:
        return CoxFit(walk.end("not-converged"), hazard)
    return _question(reached[1:], sets, events)
