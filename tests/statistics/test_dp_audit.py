"""Attack the claim: can somebody tell from the answers whether one patient took part, better than promised?

Neighbours: a hub without the patient, and with a patient whose row has the full clip norm. The onlooker is the
worst permitted coalition: it sees the opened total and subtracts the noise of one hub of three. Each of a
million independent runs is one coordinate, so that the sampler and the rounding under test do the work.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, norm

from flute.dp.accounting import epsilon, rho_for
from flute.dp.calibrate import Mechanism, mechanism_for
from flute.dp.clip import quantise
from flute.dp.noise import discrete_gaussian

ALPHA = 1e-6
DELTA = 1e-6
RUNS = 1_000_000


def seed(i: int) -> bytes:
    return i.to_bytes(32, "big")


def observed(mechanism: Mechanism, *, honest: int, patient: bool, first_seed: int) -> NDArray[np.int64]:
    """What is left of the totals of RUNS runs when only `honest` hubs' noise is unknown."""
    total = np.zeros(RUNS, dtype=np.int64)
    if patient:
        total += quantise(np.full((1, RUNS), mechanism.clip_norm), mechanism.scale, seed(first_seed))
    for hub in range(honest):
        total += discrete_gaussian(mechanism.hub_sigma, RUNS, seed(first_seed + 1 + hub))
    return total


def rates(mechanism: Mechanism, *, honest: int, cut: float) -> tuple[float, float]:
    """Lower bound of the attacker's hits and upper bound of its false alarms (Clopper-Pearson, ALPHA each)."""
    hits = int((observed(mechanism, honest=honest, patient=True, first_seed=100) > cut).sum())
    alarms = int((observed(mechanism, honest=honest, patient=False, first_seed=200) > cut).sum())
    lowest_hits = float(beta.ppf(ALPHA, hits, RUNS - hits + 1)) if hits else 0.0
    highest_alarms = float(beta.isf(ALPHA, alarms + 1, RUNS - alarms)) if alarms < RUNS else 1.0
    return lowest_hits, highest_alarms


def epsilon_shown(mechanism: Mechanism, *, honest: int, cut: float) -> float:
    """A lower bound on epsilon at DELTA that holds for any mechanism; wrong with a chance of at most 2 ALPHA."""
    hits, alarms = rates(mechanism, honest=honest, cut=cut)
    return math.log(max(hits - DELTA, 1e-300) / alarms)


def gaussian_epsilon_shown(mechanism: Mechanism, *, honest: int) -> float:
    """A sharper lower bound that reads the rates as those of a Gaussian (Nasr et al. 2023, "Tight auditing").

    Hits and false alarms at a cut in the middle give mu = z(hits) - z(alarms); mu gives epsilon (Balle, Wang
    2018, Theorem 8). Wrong with a chance of at most 2 ALPHA.
    """
    hits, alarms = rates(mechanism, honest=honest, cut=mechanism.clip_norm * mechanism.scale / 2)
    mu = float(norm.isf(alarms) - norm.isf(hits))

    def excess(eps: float) -> float:
        return float(norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu)) - DELTA

    return float(brentq(excess, 0.0, 100.0)) if mu > 0 and excess(0.0) > 0 else 0.0


def claimed(eps: float) -> Mechanism:
    return mechanism_for(rho_for(eps, DELTA - 1e-11), 1.0, 1, 3, 3, 1)


def test_the_claim_holds_against_one_hub_that_subtracts_its_own_noise() -> None:
    mechanism = claimed(1.0)
    shown = gaussian_epsilon_shown(mechanism, honest=2)
    assert shown <= epsilon(mechanism.rho, DELTA) <= 1.0
    assert shown > 0.75, "an attack that shows nothing tests nothing"


def test_a_build_that_splits_the_noise_over_all_three_hubs_is_caught() -> None:
    """m = n: each hub adds sigma^2/3, so one colluder leaves 2/3 of what is charged (exact epsilon 1.15)."""
    right = claimed(1.0)
    broken = replace(right, hub_sigma=right.sigma / math.sqrt(3))
    assert gaussian_epsilon_shown(broken, honest=2) > 1.0
    assert gaussian_epsilon_shown(broken, honest=3) <= 1.0, "without colluders nobody would notice"


def test_two_colluders_of_three_see_more_than_is_permitted_and_what_is_shown_to_users_still_holds() -> None:
    mechanism = claimed(1.0)
    shown = gaussian_epsilon_shown(mechanism, honest=1)
    assert shown > 1.0
    assert shown <= epsilon(mechanism.views().two_hubs, DELTA)


@pytest.mark.parametrize("eps", [1.0, 3.0])
def test_the_claim_holds_for_every_cut_of_an_attack_that_assumes_nothing(eps: float) -> None:
    mechanism = claimed(eps)
    for deviations in (0.0, 1.0, 2.0, 3.0, 4.0, 4.5):
        assert epsilon_shown(mechanism, honest=2, cut=deviations * mechanism.sigma) <= eps


@pytest.mark.parametrize("eps", [1.0, 3.0])
def test_noise_four_times_too_small_is_caught_by_the_same_attack(eps: float) -> None:
    right = claimed(eps)
    broken = replace(right, hub_sigma=right.hub_sigma / 4)
    assert max(epsilon_shown(broken, honest=2, cut=d * broken.sigma) for d in (2.0, 3.0, 4.0, 4.5)) > eps


def test_a_patient_whose_row_is_not_clipped_is_caught() -> None:
    right = claimed(1.0)
    unclipped = replace(right, clip_norm=right.clip_norm * 1.5)
    assert gaussian_epsilon_shown(unclipped, honest=2) > 1.0
