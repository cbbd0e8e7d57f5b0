"""What an attack came to, with an interval, and what differential privacy allows at most.

Intervals are at LEVEL (95 %). "exact": Clopper and Pearson 1934, over independent trials. "bootstrap": percentiles
over RESAMPLES resamples of whole worlds (Efron 1979), since scores of one world depend on each other; where all
resamples agree (an attack that always or never succeeds) every world counts as one trial and the exact interval is
given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv
from scipy.stats import rankdata

from flute.attacks.chance import Chance
from flute.data.variables import Array
from flute.defaults.attacks import CHOOSING_WORLDS, LEVEL, LOW_FALSE_ALARMS, RESAMPLES
from flute.errors import MisuseError

Mask = NDArray[np.bool_]
Method = Literal["exact", "bootstrap", "bound"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its interval at `level`. method "bound": `low` holds with that confidence, `high` is infinite."""

    value: float
    low: float
    high: float
    method: Method
    level: float = LEVEL


# --- what differential privacy allows ------------------------------------------------------------


def dp_advantage(epsilon: float, delta: float) -> float:
    """Largest hits less false alarms of any attacker on an (epsilon, delta)-private release: who is in it?

    (e^eps - 1 + 2 delta)/(e^eps + 1); 1 where epsilon is infinite.
    Source: Humphries et al. 2023, "Investigating membership inference attacks under data dependencies", Theorem 3.2;
    it is the corner of the region of Kairouz, Oh and Viswanath 2015.
    Raises: MisuseError: a negative epsilon, or delta outside [0, 1).
    """
    _require(epsilon, delta)
    if epsilon > 700:
        return 1.0
    return min(1.0, (math.expm1(epsilon) + 2 * delta) / (math.exp(epsilon) + 1))


def dp_success(guess: float, epsilon: float, delta: float) -> float:
    """How often any attacker is right about a patient, where she would be with a chance of `guess` had the patient
    not taken part: both directions of the definition, of the event and of its opposite."""
    _require(epsilon, delta)
    if epsilon > 700:
        return 1.0
    factor = math.exp(epsilon)
    return min(1.0, factor * guess + delta, 1 - (1 - guess - delta) / factor)


def _require(epsilon: float, delta: float) -> None:
    if not (epsilon >= 0 and 0 <= delta < 1):
        raise MisuseError(f"A bound needs epsilon from 0 on and delta from 0 to 1: {epsilon}, {delta}.")


# --- rates -----------------------------------------------------------------------------------------


def rate(hits: int, trials: int) -> Figure:
    """A share of independent trials. Raises: MisuseError: no trial, or more hits than trials."""
    low, high = _ends(hits, trials, 1 - LEVEL)
    return Figure(hits / trials, low, high, "exact")


def rates_apart(hits: int, members: int, alarms: int, others: int) -> Figure:
    """Hits of `members` less false alarms of `others`, all trials independent; each rate bears half of the risk."""
    low_hits, high_hits = _ends(hits, members, (1 - LEVEL) / 2)
    low_alarms, high_alarms = _ends(alarms, others, (1 - LEVEL) / 2)
    return Figure(hits / members - alarms / others, low_hits - high_alarms, high_hits - low_alarms, "exact")


def _ends(count: int, of: int, risk: float) -> tuple[float, float]:
    if not 0 <= count <= of or of < 1:
        raise MisuseError(f"A rate needs trials, and no more hits than trials: {count} of {of}.")
    low = float(betaincinv(count, of - count + 1, risk / 2)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 1 - risk / 2)) if count < of else 1.0
    return low, high


def resampled(
    statistic: Callable[[NDArray[np.int64]], float], worlds: int, chance: Chance, *, share: bool = True
) -> Figure:
    """A statistic of worlds (it is given their numbers, some repeated), by bootstrap over worlds. share: it is one,
    so that an interval of no width is replaced by the exact one."""
    value = statistic(np.arange(worlds))
    drawn = np.array([statistic(chance.integers(worlds, worlds)) for _ in range(RESAMPLES)])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low == high and share and 0 <= value <= 1:
        low, high = _ends(round(value * worlds), worlds, 1 - LEVEL)
    return Figure(value, min(float(low), value), max(float(high), value), "bootstrap")


def mean(values: Array, chance: Chance, *, share: bool = True) -> Figure:
    """The mean of independent trials' figures [worlds], by bootstrap. share: they lie between 0 and 1."""
    return resampled(lambda chosen: float(values[chosen].mean()), len(values), chance, share=share)


# --- who is in it? ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Membership:
    """How well members were told from others.

    auc: chance that a member scores above another. hits: share of members found where at most LOW_FALSE_ALARMS of the
    others are accused (none, where there are fewer than 1,000). advantage: hits less false alarms at a threshold that
    other worlds chose; never more than `dp_advantage` for an (epsilon, delta)-private release.
    """

    auc: Figure
    hits: Figure
    advantage: Figure
    members: int
    others: int


def membership(scores: Array, inside: Mask, chance: Chance) -> Membership:
    """scores float64 [worlds, patients], higher where a patient seems to be in; inside [worlds, patients]: is she?

    Worlds are independent. With one patient per world all trials are, and rates get exact intervals.
    Raises: MisuseError: fewer than 8 worlds, or nobody in or nobody out.
    """
    worlds = len(scores)
    if scores.shape != inside.shape or worlds < 2 * CHOOSING_WORLDS or inside.all() or not inside.any():
        raise MisuseError("Membership is judged on at least 8 worlds with patients in and out.")
    scores = np.nan_to_num(scores, nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    return Membership(
        auc=resampled(lambda chosen: auc(scores[chosen], inside[chosen]), worlds, chance),
        hits=_hits(scores, inside, chance),
        advantage=_advantage(scores, inside, chance),
        members=int(inside.sum()),
        others=int((~inside).sum()),
    )


def auc(scores: Array, inside: Mask) -> float:
    """Chance that a score inside is above one outside, ties counted half (Mann, Whitney); .5 where either lacks."""
    members = int(inside.sum())
    others = inside.size - members
    if not members or not others:
        return 0.5
    ranks = rankdata(scores.ravel()).reshape(inside.shape)
    return float((ranks[inside].sum() - members * (members + 1) / 2) / (members * others))


def _hits(scores: Array, inside: Mask, chance: Chance) -> Figure:
    if scores.shape[1] == 1:
        members = int(inside.sum())
        return rate(round(_hit_share(scores, inside) * members), members)
    return resampled(lambda chosen: _hit_share(scores[chosen], inside[chosen]), len(scores), chance)


def _hit_share(scores: Array, inside: Mask) -> float:
    """Of members above the score that the allowed number of others reaches."""
    others, members = scores[~inside], scores[inside]
    if not len(others) or not len(members):
        return 0.0
    allowed = int(LOW_FALSE_ALARMS * len(others))
    threshold = np.partition(others, len(others) - 1 - allowed)[len(others) - 1 - allowed]
    return float((members > threshold).mean())


def _advantage(scores: Array, inside: Mask, chance: Chance) -> Figure:
    chosen = np.zeros(len(scores), dtype=np.bool_)
    # in pairs, so that where worlds alternate between in and out both kinds take part in choosing
    chosen[(np.arange(len(scores)) // 2) % CHOOSING_WORLDS == 0] = True
    threshold = _best_threshold(scores[chosen], inside[chosen])
    accused, there = (scores > threshold)[~chosen], inside[~chosen]
    if scores.shape[1] == 1:
        return rates_apart(
            int((accused & there).sum()), int(there.sum()), int((accused & ~there).sum()), int((~there).sum())
        )
    return resampled(lambda some: _apart(accused[some], there[some]), len(there), chance)


def _apart(accused: Mask, there: Mask) -> float:
    return float(accused[there].mean() - accused[~there].mean()) if there.any() and not there.all() else 0.0


def _best_threshold(scores: Array, inside: Mask) -> float:
    """Where hits less false alarms are most, between two scores."""
    order = np.argsort(scores, axis=None)[::-1]
    there, sorted_scores = inside.ravel()[order], scores.ravel()[order]
    gain = np.cumsum(there) / max(1, there.sum()) - np.cumsum(~there) / max(1, (~there).sum())
    at = int(np.argmax(gain))
    below = sorted_scores[at + 1] if at + 1 < len(sorted_scores) else -math.inf
    return float(below if not math.isfinite(sorted_scores[at] + below) else (sorted_scores[at] + below) / 2)
