"""The Gaussian curve is right to the last digits that matter, and errs upwards only."""

from __future__ import annotations

import math
import time

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from flute.dp.gaussian import (
    composed_mu,
    delta_at,
    gaussian_epsilon,
    gaussian_epsilon_at_least,
    gaussian_odds,
    mu_at_hubs,
    mu_for,
    pure_mu,
)
from flute.errors import MisuseError


def true_delta(mu: float, epsilon: float) -> mp.mpf:
    """Balle and Wang 2018, Theorem 8, in 60 digits."""
    with mp.workdps(60):
        m, e = mp.mpf(mu), mp.mpf(epsilon)
        return mp.ncdf(m / 2 - e / m) - mp.exp(e) * mp.ncdf(-m / 2 - e / m)


@settings(max_examples=80, deadline=None)
@given(st.floats(-3, 1.6).map(lambda t: 10**t), st.floats(-13, -1.1).map(lambda t: 10**t))
def test_epsilon_is_never_below_the_truth_and_above_it_by_a_billionth_at_most(mu: float, delta: float) -> None:
    above, below = gaussian_epsilon(mu, delta), gaussian_epsilon_at_least(mu, delta)
    assert true_delta(mu, above) <= delta
    if below > 0:
        assert true_delta(mu, below) >= delta
        assert above - below <= 1e-9 * above


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 30), st.floats(0, 40))
def test_delta_is_never_below_the_truth(mu: float, epsilon: float) -> None:
    assert delta_at(mu, epsilon) >= true_delta(mu, epsilon)


@pytest.mark.parametrize("cap", [0.01, 1.0, 3.0, 20.0])
def test_a_ceiling_turned_into_mu_and_back_never_exceeds_itself(cap: float) -> None:
    mu = mu_for(cap, 1e-6)
    assert gaussian_epsilon(mu, 1e-6) <= cap
    assert gaussian_epsilon(mu * (1 + 1e-8), 1e-6) > cap


@pytest.mark.requirement("F-PIL-11")
def test_rule_add_rho_or_mu_squared_and_never_epsilon() -> None:
    """Two studies of epsilon 1 are 1.45 together; adding epsilons would say 2, and averaging squares 1.41."""
    one = mu_for(1.0, 1e-6)
    assert gaussian_epsilon(composed_mu([one, one]), 1e-6) == pytest.approx(1.4547, abs=1e-4)


@pytest.mark.requirement("F-PIL-11")
def test_rule_a_patient_at_two_hubs_counts_twice() -> None:
    one = mu_for(1.0, 1e-6)
    assert gaussian_epsilon(mu_at_hubs(one, 1), 1e-6) == pytest.approx(1.0, abs=1e-9)
    assert gaussian_epsilon(mu_at_hubs(one, 2), 1e-6) == pytest.approx(2.1229, abs=1e-4)
    with pytest.raises(MisuseError):
        mu_at_hubs(one, 0)


def test_a_thousand_distinct_gaussians_compose_exactly_within_a_second() -> None:
    mus = np.geomspace(1e-4, 0.2, 1000).tolist()
    started = time.process_time()
    found = gaussian_epsilon(composed_mu(mus), 1e-6)
    assert time.process_time() - started < 1.0
    with mp.workdps(50):
        exact = mp.sqrt(mp.fsum(mp.mpf(mu) ** 2 for mu in mus))
    assert exact <= composed_mu(mus) <= float(exact) * (1 + 1e-15)
    assert true_delta(float(exact), found) == pytest.approx(1e-6, rel=1e-9)


@pytest.mark.parametrize("epsilon", [1e-9, 1e-3, 0.5, 1.0, 4.0, 30.0])
def test_the_mu_of_a_pure_mechanism_lies_below_its_trade_off_curve_and_touches_it(epsilon: float) -> None:
    """Trade-off of epsilon-DP: max(0, 1 - e^eps a, e^-eps (1 - a)); of mu-GDP: Phi(Phi^-1(1 - a) - mu)."""
    mu = pure_mu(epsilon)
    a = np.concatenate([np.linspace(0, 1, 2001), [1 / (1 + math.exp(epsilon))]])
    pure = np.maximum.reduce([0 * a, 1 - math.exp(epsilon) * a, math.exp(-epsilon) * (1 - a)])
    gaussian = norm.cdf(norm.isf(a) - mu)
    assert (gaussian <= pure + 1e-12).all()
    assert (norm.cdf(norm.isf(a) - 0.9 * mu) > pure + 1e-13).any(), "the control: a smaller mu is not covered"


@pytest.mark.parametrize(("epsilon", "one_tail"), [(1.0, 1.1532), (3.0, 3.2887)])
def test_odds_cover_both_directions_and_lie_just_above_the_one_of_the_review(epsilon: float, one_tail: float) -> None:
    mu = mu_for(epsilon, 1e-6)
    assert mu * mu / 2 + mu * norm.isf(1e-6) == pytest.approx(one_tail, abs=1e-4)
    value = gaussian_odds(mu, 1e-6)
    assert one_tail < value < 1.03 * one_tail
    up, down = norm.sf((value - mu * mu / 2) / mu), norm.cdf((-value - mu * mu / 2) / mu)
    assert up + down <= 1e-6
    assert up + down == pytest.approx(1e-6, rel=1e-6)


def test_nothing_spent_is_no_loss_and_no_bound_stays_none() -> None:
    for call in (gaussian_epsilon, gaussian_odds):
        assert call(0.0, 1e-6) == 0.0
        assert call(math.inf, 1e-6) == math.inf
    assert pure_mu(0.0) == 0.0
    assert pure_mu(1e4) == math.inf


@pytest.mark.parametrize("mu", [-1e-9, math.nan])
def test_a_mu_that_is_none_is_refused(mu: float) -> None:
    for call in (
        lambda: gaussian_epsilon(mu, 1e-6),
        lambda: gaussian_odds(mu, 1e-6),
        lambda: composed_mu([0.1, mu]),
        lambda: delta_at(mu, 1.0),
        lambda: pure_mu(mu),
    ):
        with pytest.raises(MisuseError):
            call()


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_a_delta_outside_zero_and_one_is_refused(delta: float) -> None:
    for call in (gaussian_epsilon, gaussian_epsilon_at_least, gaussian_odds):
        with pytest.raises(MisuseError):
            call(1.0, delta)
    with pytest.raises(MisuseError):
        mu_for(1.0, delta)
