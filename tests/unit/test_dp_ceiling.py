"""What the ledger's sums mean: exact for Gaussians, rounded to the safe side, and valid for charges of before."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.dp.accounting import rho_for
from flute.dp.calibrate import Mechanism, mechanism_for
from flute.dp.ceiling import SLACK, epsilon_of, odds_of, rho_within
from flute.dp.gaussian import gaussian_epsilon, gaussian_odds
from flute.errors import MisuseError

DELTA = 1e-6


@settings(deadline=None)
@given(st.floats(0.01, 50), st.sampled_from([1e-3, 1e-6, 1e-9]))
def test_a_ceiling_and_its_epsilon_are_inverse_and_never_over(cap: float, delta: float) -> None:
    rho = rho_within(cap, delta)
    assert cap * (1 - 1e-3) < epsilon_of(rho, delta) <= cap


@pytest.mark.parametrize("cap", [0.5, 1.0, 3.0, 10.0])
def test_the_epsilon_is_that_of_the_gaussian_itself_and_allows_more_than_zcdp(cap: float) -> None:
    rho = rho_within(cap, DELTA)
    exact = gaussian_epsilon(math.sqrt(2 * rho), DELTA)
    assert exact < epsilon_of(rho, DELTA) < exact * (1 + 1e-4)
    assert 1.1 < rho / rho_for(cap, DELTA) < 1.17
    assert epsilon_of(1.02 * rho, DELTA) > cap, "the control: two per cent more is seen"


def test_odds_are_those_of_the_gaussian() -> None:
    for cap, said in ((1.0, 1.153), (3.0, 3.289)):
        rho = rho_within(cap, DELTA)
        assert odds_of(rho, DELTA) == pytest.approx(gaussian_odds(math.sqrt(2 * rho), DELTA), rel=1e-5)
        assert odds_of(rho, DELTA) == pytest.approx(said, rel=0.015)


@pytest.mark.parametrize(("hub_sigma", "shares"), [(3.0, 2), (1_000.0, 2), (64_000.0, 30)])
@pytest.mark.parametrize("size", [1, 4_000_000])
def test_the_slack_of_the_most_releases_that_could_be_made_is_within_what_is_set_aside(
    hub_sigma: float, shares: int, size: int
) -> None:
    """t = ln((1 + e)/(1 - e)), e = sum over k != 0 of exp(-2 pi^2 4 k^2), a coordinate, and tau."""
    e = 2 * math.exp(-8 * math.pi**2) * (1 + 1e-20)
    tau = 10 * sum(math.exp(-2 * math.pi**2 * hub_sigma**2 * k / (k + 1)) for k in range(1, shares))
    assert 1e18 * size * (2.1 * e + tau) <= SLACK


def test_a_charge_made_before_is_worth_no_more_than_it_is_counted() -> None:
    """Then D^2/(2 sigma^2) was charged; it may add up under a ceiling of now all the same."""
    made = mechanism_for(0.02, 1.0, 35, 3, 3, 1)
    before = made.sensitivity**2 / (2 * made.sigma**2)
    assert before < made.rho < before * (1 + 5e-6)
    mu = math.sqrt(2 * made.rho)
    assert gaussian_epsilon(mu, DELTA) <= epsilon_of(before, DELTA)


def test_the_smallest_noise_that_is_allowed_has_a_price() -> None:
    """On a coarse grid what hides the grid is a large part of the noise, and is paid for."""
    coarse = Mechanism(1.0, 1, 1.0, 3.0, 1, 1, 0)
    assert coarse.rho == pytest.approx(coarse.sensitivity**2 / (2 * (9 - 4)), rel=1e-9)


def test_nonsense_is_refused_and_nothing_costs_nothing() -> None:
    assert epsilon_of(0.0, DELTA) == odds_of(0.0, DELTA) == 0.0
    assert epsilon_of(math.inf, DELTA) == math.inf
    for rho in (-1e-9, math.nan):
        with pytest.raises(MisuseError):
            epsilon_of(rho, DELTA)
    with pytest.raises(MisuseError):
        rho_within(0.0, DELTA)
