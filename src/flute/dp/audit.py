"""What an attack shows: a lower bound on epsilon from the scores it gave with and without one patient.

A bound above the epsilon that is claimed says that the claim is false. A bound below it proves nothing; a test that
uses it must show that a broken build is caught.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri

from flute.dp.gaussian import gaussian_epsilon_at_least
from flute.errors import MisuseError

MIN_WORLDS: Final = 20
"""Of each kind; fewer cannot show anything at a confidence worth naming."""


CHOOSING: Final = 4
"""Every fourth world chooses the threshold."""
_QUANTILES: Final = np.arange(1, 16) / 16
"""Thresholds tried: few and away from the tails, where a lucky world would be mistaken for a good threshold."""


def gaussian_dp_lower_bound(scores_in: ArrayLike, scores_out: ArrayLike, *, delta: float, confidence: float) -> float:
    """An epsilon at `delta` that the attacked mechanism is at least, if it is mu-GDP for any mu.

    Guarantees: for a mu-GDP mechanism the result is above its epsilon at `delta` with a chance of at most
    1 - confidence, whatever the scores mean. A quarter of the worlds chooses a threshold; on the others hits and
    false alarms are bounded (Clopper and Pearson, each with half of the risk), and mu >= z(hits) - z(alarms).
    A mechanism that is no Gaussian's equal (pure epsilon, a failure with chance delta) is not bounded by this.
    Args: scores_in: float [worlds], higher where the patient seems to be in, from independent worlds with her.
        scores_out: float [worlds], from worlds without her. delta, confidence: in (0, 1).
    Raises: MisuseError: fewer than MIN_WORLDS of a kind, a score that is not a number, arguments out of range.
    Source: Nasr et al. 2023, "Tight auditing of differentially private machine learning", section 4 (f-DP).
    """
    if not (0 < delta < 1 and 0 < confidence < 1):
        raise MisuseError(f"delta and confidence must lie between 0 and 1: {delta}, {confidence}.")
    inside, outside = _scores(scores_in), _scores(scores_out)
    risk = (1 - confidence) / 2
    choosing = slice(None, None, CHOOSING)
    threshold = _best_threshold(inside[choosing], outside[choosing], risk)
    mu = _mu_shown(np.delete(inside, choosing), np.delete(outside, choosing), threshold, risk)
    return gaussian_epsilon_at_least(mu, delta)


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < MIN_WORLDS or np.isnan(values).any():
        raise MisuseError(f"Scores are a list of numbers from at least {MIN_WORLDS} independent worlds.")
    return values


def _best_threshold(inside: NDArray[np.float64], outside: NDArray[np.float64], risk: float) -> float:
    """The threshold whose bound is highest on these worlds; they are not used again."""
    thresholds = np.quantile(np.concatenate([inside, outside]), _QUANTILES, method="lower")
    hits = len(inside) - np.searchsorted(np.sort(inside), thresholds, side="right")
    alarms = len(outside) - np.searchsorted(np.sort(outside), thresholds, side="right")
    shown = ndtri(_lowest(hits, len(inside), risk)) - ndtri(_highest(alarms, len(outside), risk))
    return float(thresholds[np.argmax(shown)])


def _mu_shown(inside: NDArray[np.float64], outside: NDArray[np.float64], threshold: float, risk: float) -> float:
    hits = _lowest(np.array([(inside > threshold).sum()]), len(inside), risk)
    alarms = _highest(np.array([(outside > threshold).sum()]), len(outside), risk)
    mu = float((ndtri(hits) - ndtri(alarms))[0])
    return mu if math.isfinite(mu) and mu > 0 else 0.0


def _lowest(count: NDArray[np.int64], of: int, risk: float) -> NDArray[np.float64]:
    """A rate that the true one is below with a chance of at most `risk` (Clopper and Pearson 1934)."""
    lowest = betaincinv(np.maximum(count, 1), of - count + 1, risk)
    return np.asarray(np.where(count == 0, 0.0, lowest), dtype=np.float64)


def _highest(count: NDArray[np.int64], of: int, risk: float) -> NDArray[np.float64]:
    """A rate that the true one is above with a chance of at most `risk`."""
    return 1.0 - _lowest(of - count, of, risk)
