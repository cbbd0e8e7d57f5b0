"""Clip, noise and price come from one value; the price follows DESIGN's corrections."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from flute.defaults import GRID_HUB_SIGMA, MAX_HUB_SIGMA, MAX_HUBS, MIN_HUB_SIGMA, ROUNDING_BETA
from flute.dp.accounting import epsilon, rho_for
from flute.dp.calibrate import (
    MAX_ROUNDING_COST,
    SMOOTHING,
    Mechanism,
    mechanism_for,
    sum_slack,
    widened_sensitivity,
)
from flute.errors import MisuseError

PILOT = {"hubs": 3, "survivors_min": 3, "colluding": 1}
ALONE = {"hubs": 1, "survivors_min": 1, "colluding": 0}
GOOD = Mechanism(
    clip_norm=2.0, size=35, scale=150.0, hub_sigma=1000.0, hubs=3, survivors_min=3, colluding=1
)  # fmt: skip


def gaussian_delta(mu: float, eps: float) -> float:
    """Balle and Wang 2018, Theorem 8, for sensitivity over sigma = mu."""
    return float(norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu))


def gaussian_epsilon(mu: float, delta: float) -> float:
    return float(brentq(lambda eps: gaussian_delta(mu, eps) - delta, 0.0, 100.0, xtol=1e-12))


def gaussian_mu(eps: float, delta: float) -> float:
    return float(brentq(lambda mu: gaussian_delta(mu, eps) - delta, 1e-3, 20.0, xtol=1e-14))


def test_the_pilots_three_views_are_those_of_the_review_by_exact_gaussian_privacy() -> None:
    mechanism = mechanism_for(0.02, 1.0, 35, **PILOT)
    views = mechanism.views()
    mu = gaussian_mu(1.0, 1e-6)
    seen = {
        name: gaussian_epsilon(mu * math.sqrt(rho / mechanism.rho), 1e-6)
        for name, rho in dataclasses.asdict(views).items()
    }
    assert round(seen["outsider"], 2) == 0.80
    assert round(seen["one_hub"], 2) == 1.00
    assert round(seen["charged"], 2) == 1.00
    assert round(seen["two_hubs"], 2) == 1.45


def test_the_pilots_three_views_in_zcdp() -> None:
    views = mechanism_for(rho_for(1.0, 1e-6), 1.0, 35, **PILOT).views()
    assert epsilon(views.outsider, 1e-6) == pytest.approx(0.805, abs=0.001)
    assert epsilon(views.charged, 1e-6) == pytest.approx(1.0, abs=1e-6)
    assert epsilon(views.charged, 1e-6) <= 1.0
    assert epsilon(views.two_hubs, 1e-6) == pytest.approx(1.451, abs=0.001)


def test_a_hub_alone_adds_all_of_the_noise_and_all_onlookers_face_it() -> None:
    mechanism = mechanism_for(0.1, 1.0, 8, **ALONE)
    assert mechanism.hub_sigma == mechanism.sigma == mechanism.total_sigma
    assert set(dataclasses.astuple(mechanism.views())) == {mechanism.rho}


def test_hub_noise_is_the_charged_variance_over_the_honest_shares() -> None:
    for hubs, survivors, colluding in ((3, 3, 1), (3, 3, 2), (10, 8, 3), (30, 24, 6)):
        mechanism = mechanism_for(0.1, 1.0, 35, hubs, survivors, colluding)
        shares = survivors - colluding
        assert mechanism.shares == shares
        assert mechanism.hub_sigma**2 * shares == pytest.approx(mechanism.sigma**2)
        assert mechanism.total_sigma**2 == pytest.approx(mechanism.hub_sigma**2 * hubs)
        assert mechanism.rho == pytest.approx(mechanism.sensitivity**2 / (2 * (mechanism.sigma**2 - SMOOTHING)))


def test_dropouts_and_colluders_are_paid_for_and_not_wished_away() -> None:
    prices = [Mechanism(1.0, 35, 300.0, 1000.0, 10, survivors, c).rho for survivors, c in ((10, 0), (8, 0), (8, 2))]
    assert prices[0] * 10 == pytest.approx(prices[1] * 8) == pytest.approx(prices[2] * 6)


def test_knowing_all_shares_leaves_no_bound() -> None:
    assert GOOD.rho_against(0) == math.inf
    assert GOOD.rho_against(1) > GOOD.rho_against(2) == GOOD.rho > GOOD.rho_against(3)


@pytest.mark.parametrize("rho", [1e-5, 1e-3, 0.02435, 0.185, 0.5, 3.0, 50.0])
@pytest.mark.parametrize("size", [1, 35, 1000, 100_000])
@pytest.mark.parametrize("clip_norm", [1e-6, 1.0, 12345.6])
def test_the_solved_mechanism_costs_what_was_asked_and_not_more(rho: float, size: int, clip_norm: float) -> None:
    try:
        mechanism = mechanism_for(rho, clip_norm, size, **PILOT)
    except MisuseError:
        assert rho <= 1e-5
        assert size == 100_000
        return
    assert rho * (1 - 1e-9) <= mechanism.rho <= rho
    assert mechanism.clip_norm == clip_norm
    assert mechanism.hub_sigma in {GRID_HUB_SIGMA * 2**k for k in range(7)}


def test_the_grid_is_the_default_one_for_ordinary_questions_and_finer_where_rounding_costs() -> None:
    ordinary = mechanism_for(rho_for(1.0, 1e-6), 1.0, 35, **PILOT)
    assert ordinary.hub_sigma == GRID_HUB_SIGMA
    for rho, size in ((1e-4, 35), (0.02, 100_000)):
        finer = mechanism_for(rho, 1.0, size, **PILOT)
        assert finer.hub_sigma > GRID_HUB_SIGMA
        assert finer.sensitivity <= MAX_ROUNDING_COST * finer.clip_norm * finer.scale
        assert finer.hub_sigma / finer.scale == pytest.approx(1 / math.sqrt(4 * rho), rel=0.03), (
            "refining the grid must not change the noise in the update's unit"
        )


def test_a_budget_that_rounding_alone_would_use_up_is_refused_in_words() -> None:
    with pytest.raises(MisuseError, match="too small for a vector of 4000000 numbers"):
        mechanism_for(1e-7, 1.0, 4_000_000, **PILOT)


def test_rounding_widens_by_the_formula_of_the_review() -> None:
    for length, size in ((10.0, 1), (10.0, 4), (10.0, 35), (300.0, 35), (1e4, 10**6), (1.0, 10**6)):
        always = length + math.sqrt(size)
        chance = math.sqrt(2 * math.log(1 / ROUNDING_BETA))
        likely = math.sqrt(length**2 + size / 4 + chance * (length + math.sqrt(size) / 2))
        widened = widened_sensitivity(length, size)
        assert widened == pytest.approx(min(always, likely), rel=1e-7)
        assert widened >= min(always, likely)


def test_a_row_of_one_patient_is_widened_and_the_price_shows_it() -> None:
    naive = (GOOD.clip_norm * GOOD.scale) ** 2 / (2 * GOOD.sigma**2)
    assert GOOD.rho > naive * 1.02
    assert GOOD.delta == ROUNDING_BETA


def test_the_slack_of_added_noises_is_that_of_the_review() -> None:
    assert sum_slack(1.0, 2) == pytest.approx(5e-4, rel=0.05)
    assert sum_slack(MIN_HUB_SIGMA, 2) == pytest.approx(2.65e-38, rel=0.01)
    assert sum_slack(3.0, 1) == 0.0
    assert sum_slack(3.0, 30) < 3e-37


@pytest.mark.parametrize(
    "change",
    [
        {"survivors_min": 1},
        {"colluding": 3},
        {"colluding": -1},
        {"survivors_min": 4},
        {"survivors_min": 0},
        {"hubs": 0},
        {"hubs": MAX_HUBS + 1, "survivors_min": MAX_HUBS + 1},
        {"hub_sigma": MIN_HUB_SIGMA * 0.999},
        {"hub_sigma": 0.5},
        {"hub_sigma": MAX_HUB_SIGMA * 1.01},
        {"hub_sigma": math.nan},
        {"hub_sigma": math.inf},
        {"clip_norm": 0.0},
        {"clip_norm": math.nan},
        {"clip_norm": math.inf},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": math.nan},
        {"scale": math.inf},
        {"scale": 2.0**40},
        {"size": 0},
        {"size": 4_000_001},
    ],
)
def test_numbers_that_protect_nobody_make_no_mechanism(change: dict[str, float]) -> None:
    with pytest.raises(MisuseError):
        dataclasses.replace(GOOD, **change)


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_no_price_is_refused(rho: float) -> None:
    with pytest.raises(MisuseError):
        mechanism_for(rho, 1.0, 35, **PILOT)


@pytest.mark.parametrize(("survivors", "colluding"), [(3, 3), (4, 1), (2, 2)])
def test_hubs_that_leave_no_honest_share_are_refused_before_anything_is_solved(
    survivors: int, colluding: int
) -> None:
    with pytest.raises(MisuseError):
        mechanism_for(0.1, 1.0, 35, 3, survivors, colluding)


def test_a_mechanism_cannot_be_changed_after_it_was_priced() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOOD.hub_sigma = 3.0  # type: ignore[misc]


def test_a_contribution_is_the_clipped_rounded_sum_and_noise_of_the_mechanisms_own_size() -> None:
    rows = np.full((50, 35), 1e6)
    rows[7, 3] = math.nan
    answer = GOOD.contribution(rows, rand=bytes(64))
    noise = GOOD.contribution(np.empty((0, 35)), rand=bytes(64))
    assert answer.dtype == np.int64
    each = GOOD.clip_norm * GOOD.scale / math.sqrt(35)
    np.testing.assert_allclose(answer - noise, 49 * each, atol=49)
    assert noise.std() > GOOD.hub_sigma / 2


@pytest.mark.parametrize("borders", [[], [0], [50], [1, 2, 3], [20, 20, 49]])
def test_tables_one_after_the_other_give_the_bytes_of_one_table(borders: list[int]) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 35))
    rows[3] *= 1e9
    rows[4, 4] = math.inf
    answer = GOOD.contribution(iter(np.split(rows, borders)), rand=bytes(64))
    assert answer.tobytes() == GOOD.contribution(rows, rand=bytes(64)).tobytes()


def test_no_table_at_all_gives_noise_alone() -> None:
    nobody = GOOD.contribution(np.empty((0, 35)), rand=bytes(64))
    assert GOOD.contribution(iter(()), rand=bytes(64)).tobytes() == nobody.tobytes()


def test_what_stops_between_two_tables_is_not_answered() -> None:
    def tables() -> Iterator[np.ndarray]:
        yield np.ones((2, 35))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        GOOD.contribution(tables(), rand=bytes(64))
    for wrong in (np.ones((2, 34)), np.ones(35), np.ones((2, 35), dtype=np.float32)):
        with pytest.raises(MisuseError):
            GOOD.contribution(iter((np.ones((2, 35)), wrong)), rand=bytes(64))


def test_one_table_is_held_at_a_time() -> None:
    tracemalloc.start()
    GOOD.contribution((np.ones((10_000, 35)) for _ in range(20)), rand=bytes(64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 10_000 * 35 * 8, "all twenty would be 56 MB"


def test_rows_or_entropy_of_another_size_are_refused() -> None:
    for rows, rand in ((np.zeros((2, 34)), bytes(64)), (np.zeros((2, 35)), bytes(32)), (np.zeros(35), bytes(64))):
        with pytest.raises(MisuseError):
            GOOD.contribution(rows, rand=rand)
