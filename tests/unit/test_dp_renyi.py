"""Renyi divergences agree with 25-digit integrals, are never below them, and convert on the safe side."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

from flute.dp.accounting import epsilon
from flute.dp.events import DiscreteGaussian, Gaussian, Laplace, Onlooker, PoissonSubsampled
from flute.dp.renyi import MAX_ORDER, allowed, converted, renyi
from flute.errors import MisuseError


def sampled(mu: float, rate: float) -> PoissonSubsampled:
    return PoissonSubsampled(Gaussian(mu), rate, frozenset(Onlooker), "every onlooker is outside in this test")


def true_sampled(mu: float, rate: float, order: float, *, removing: bool) -> mp.mpf:
    """ln E[ratio^order] / (order - 1), by integration; either direction."""
    with mp.workdps(25):
        m, q, a = mp.mpf(mu), mp.mpf(rate), mp.mpf(order)

        def density(x: mp.mpf) -> mp.mpf:
            ratio = 1 - q + q * mp.exp(m * x - m * m / 2)
            return mp.npdf(x) * ratio ** (a if removing else 1 - a)

        return mp.log(mp.quad(density, mp.linspace(-12 - m * a, 12 + m * a, 25))) / (a - 1)


@pytest.mark.parametrize(("mu", "rate"), [(0.9, 0.0043), (1.0, 0.01), (0.25, 0.01), (2.0, 0.2), (0.5, 1e-4)])
@pytest.mark.parametrize("order", [2.0, 5.0, 16.0])
def test_a_sampled_gaussian_at_whole_orders_is_exact_and_rounded_up(mu: float, rate: float, order: float) -> None:
    true, found = true_sampled(mu, rate, order, removing=True), renyi(sampled(mu, rate), order)
    assert true <= found <= float(true) * (1 + 1e-9)
    assert true_sampled(mu, rate, order, removing=False) <= found, "adding a patient is the better direction"


@pytest.mark.parametrize(("order", "factor"), [(1.25, 1.8), (1.5, 1.5), (2.5, 1.2), (7.3, 1.2)])
def test_between_whole_orders_the_bound_lies_above_by_little(order: float, factor: float) -> None:
    true, found = true_sampled(1.0, 0.05, order, removing=True), renyi(sampled(1.0, 0.05), order)
    assert true <= found <= factor * float(true)


def test_a_sample_never_costs_more_than_the_whole() -> None:
    for order in (1.1, 2.0, 64.0, MAX_ORDER):
        assert renyi(sampled(3.0, 0.9), order) <= renyi(Gaussian(3.0), order)


@pytest.mark.parametrize("scale_epsilon", [1e-3, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("order", [1.5, 2.0, 20.0])
def test_a_laplace_release_agrees_with_an_integral(scale_epsilon: float, order: float) -> None:
    with mp.workdps(25):
        e, a = mp.mpf(scale_epsilon), mp.mpf(order)

        def density(y: mp.mpf) -> mp.mpf:
            return e / 2 * mp.exp(-a * e * abs(y) - (1 - a) * e * abs(y - 1))

        true = mp.log(mp.quad(density, [-mp.inf, 0, 1, mp.inf])) / (a - 1)
    found = renyi(Laplace(scale_epsilon), order)
    assert true <= found <= float(true) * (1 + 1e-6) + 1e-13


def test_gaussians_cost_order_times_rho() -> None:
    assert renyi(Gaussian(0.5), 8.0) == pytest.approx(1.0, rel=1e-9)
    assert renyi(DiscreteGaussian(1.0, 2.0, 1), 8.0) == pytest.approx(1.0, rel=1e-9)


def test_the_best_order_gives_what_zcdp_gives() -> None:
    orders = 1 + np.exp(np.linspace(-3, 6, 4000))
    best = min(converted(0.02435 * order, order, 1e-6) for order in orders)
    assert best == pytest.approx(epsilon(0.02435, 1e-6), rel=1e-6)
    assert best >= epsilon(0.02435, 1e-6)


@pytest.mark.parametrize("order", [1.5, 2.0, 16.0, 64.0])
def test_what_is_allowed_within_an_epsilon_converts_back_to_no_more(order: float) -> None:
    room = allowed(40.0, order, 1e-6)
    assert room > 0
    assert converted(room, order, 1e-6) <= 40.0
    assert converted(room + 1e-9, order, 1e-6) > 40.0


@pytest.mark.parametrize("order", [1.0, 0.5, math.nan, MAX_ORDER + 1])
def test_an_order_out_of_range_is_refused(order: float) -> None:
    with pytest.raises(MisuseError):
        renyi(Gaussian(1.0), order)
