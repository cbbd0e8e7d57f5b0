"""zCDP adds up exactly and converts on the safe side; dp_accounting is the oracle."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.dp.accounting import delta_left, epsilon, exact_sum, remaining, require_room, rho_for, rounded_up
from flute.errors import BudgetExceeded, MisuseError

GRID = [
    (1e-6, 1e-6),
    (1e-4, 1e-9),
    (0.02435, 1e-6),
    (0.185, 1e-6),
    (0.5, 1e-6),
    (0.5, 1e-12),
    (2.0, 1e-3),
    (40.0, 1e-6),
]


def exact_epsilon(rho: float, delta: float) -> Decimal:
    """Corollary 13 of Canonne, Kamath and Steinke 2020 in 60 digits, minimised far below double precision."""

    def at(t: Decimal) -> Decimal:
        above = t.exp()
        alpha = 1 + above
        return Decimal(rho) * alpha + (-Decimal(delta).ln() - alpha.ln()) / above + (above / alpha).ln()

    low, high = Decimal(-20), Decimal(30)
    with localcontext() as context:
        context.prec = 60
        for _ in range(260):
            third = (high - low) / 3
            low, high = (low, high - third) if at(low + third) < at(high - third) else (low + third, high)
        return at(low)


def test_the_known_figure_of_half_a_rho() -> None:
    assert epsilon(0.5, 1e-6) == pytest.approx(5.2215, abs=5e-5)


@pytest.mark.parametrize(("rho", "delta"), GRID)
def test_epsilon_is_never_below_the_true_optimum_and_not_noticeably_above(rho: float, delta: float) -> None:
    exact = max(Decimal(0), exact_epsilon(rho, delta))
    ours = Decimal(epsilon(rho, delta))
    assert exact <= ours
    assert ours - exact <= Decimal("1e-12") * (1 + exact)


@pytest.mark.parametrize(("rho", "delta"), GRID)
def test_no_order_of_a_fine_search_beats_the_optimum(rho: float, delta: float) -> None:
    above = np.exp(np.linspace(-15, 30, 400_001))
    bound = rho * (1 + above) + (-math.log(delta) - np.log1p(above)) / above - np.log1p(1 / above)
    assert epsilon(rho, delta) <= max(0.0, bound.min()) * (1 + 1e-12) + 1e-12


@pytest.mark.parametrize("sigma", [0.7, 1.0, 3.0, 4.5, 20.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-6, 1e-9])
def test_zcdp_is_above_the_numerically_exact_loss_of_the_same_gaussian_and_within_a_fifth(
    sigma: float, delta: float
) -> None:
    from dp_accounting.pld import privacy_loss_distribution as pld

    optimistic = pld.from_gaussian_mechanism(sigma, pessimistic_estimate=False, value_discretization_interval=1e-4)
    exact = optimistic.get_epsilon_for_delta(delta)
    ours = epsilon(1 / (2 * sigma**2), delta)
    assert exact <= ours <= 1.2 * exact


@pytest.mark.parametrize("sigma", [0.7, 1.0, 4.5, 20.0])
def test_zcdp_agrees_with_the_oracles_own_renyi_accountant(sigma: float) -> None:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    orders = (1 + np.exp(np.linspace(-3, 8, 4000))).tolist()
    accountant = RdpAccountant(orders)
    accountant.compose(dp_accounting.GaussianDpEvent(sigma))
    assert epsilon(1 / (2 * sigma**2), 1e-6) == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-4, 50.0), st.floats(1e-12, 1e-2))
def test_a_ceiling_turned_into_rho_and_back_never_exceeds_itself(cap: float, delta: float) -> None:
    rho = rho_for(cap, delta)
    assert epsilon(rho, delta) <= cap
    assert epsilon(rho * (1 + 1e-6), delta) > cap


def test_known_ceilings() -> None:
    assert rho_for(5.221534, 1e-6) == pytest.approx(0.5, rel=1e-6)
    assert rho_for(1.0, 1e-6) == pytest.approx(0.0243560, rel=1e-5)
    assert rho_for(3.0, 1e-6) == pytest.approx(0.1850698, rel=1e-5)


def test_nothing_spent_is_no_loss_and_no_bound_stays_no_bound() -> None:
    assert epsilon(0.0, 1e-6) == 0.0
    assert epsilon(math.inf, 1e-6) == math.inf


def test_epsilon_grows_with_rho_and_falls_with_delta() -> None:
    values = [epsilon(rho, 1e-6) for rho in np.geomspace(1e-6, 100, 200)]
    assert all(b > a for a, b in pairwise(values[10:]))
    assert epsilon(0.1, 1e-7) > epsilon(0.1, 1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, math.nan, 2.0])
def test_a_delta_outside_zero_and_one_is_refused(delta: float) -> None:
    with pytest.raises(MisuseError):
        epsilon(0.1, delta)
    with pytest.raises(MisuseError):
        rho_for(1.0, delta)


@pytest.mark.parametrize("cap", [0.0, -1.0, math.nan, math.inf])
def test_a_ceiling_that_is_no_ceiling_is_refused(cap: float) -> None:
    with pytest.raises(MisuseError):
        rho_for(cap, 1e-6)


@pytest.mark.parametrize("rho", [-1e-9, math.nan])
def test_a_negative_rho_is_refused(rho: float) -> None:
    with pytest.raises(MisuseError):
        epsilon(rho, 1e-6)


def test_ten_thousand_small_costs_do_not_drift_where_floats_do() -> None:
    cost, times = 1e-17, 10_000
    drifting = 1.0
    for _ in range(times):
        drifting += cost
    assert drifting == 1.0, "the control: added as floats, the small costs vanish"
    assert exact_sum([1.0] + [cost] * times) == 1 + times * Fraction(cost)
    assert rounded_up(exact_sum([1.0, cost])) == math.nextafter(1.0, 2)


def test_the_filter_stops_at_the_cap_to_the_last_bit() -> None:
    spent = [0.1] * 9
    cap = 1.0
    left = remaining(spent, cap)
    assert require_room(spent, left, cap) <= 1
    with pytest.raises(BudgetExceeded):
        require_room(spent, math.nextafter(left, 1), cap)
    with pytest.raises(BudgetExceeded):
        require_room([0.1] * 10, 0.0, 1.0)  # ten times the double 0.1 is more than 1
    assert sum([0.1] * 10) < 1.0, "the control: a float sum would have let it pass"


def test_an_adaptive_asker_who_takes_all_that_is_left_each_time_stays_under_the_cap() -> None:
    rng = np.random.default_rng(5)
    spent: list[float] = []
    cap = 0.0243560
    for _ in range(500):
        price = remaining(spent, cap) * float(rng.uniform(0.2, 1.0))
        require_room(spent, price, cap)
        spent.append(price)
    assert exact_sum(spent) <= Fraction(cap)
    with pytest.raises(BudgetExceeded):
        require_room(spent, cap / 1000, cap)


def test_what_is_said_to_be_left_always_fits() -> None:
    rng = np.random.default_rng(6)
    for _ in range(300):
        spent = (10.0 ** rng.uniform(-20, -1, size=5)).tolist()
        left = remaining(spent, 1.0)
        require_room(spent, left, 1.0)
        with pytest.raises(BudgetExceeded):
            require_room(spent, math.nextafter(left, 2), 1.0)


def test_nothing_is_left_once_the_cap_is_passed() -> None:
    assert remaining([2.0], 1.0) == 0.0
    assert remaining([], 1.0) == 1.0


@pytest.mark.parametrize("bad", [-1e-12, math.nan, math.inf])
def test_a_cost_that_is_no_cost_cannot_enter_the_sum(bad: float) -> None:
    for call in (
        lambda: exact_sum([0.1, bad]),
        lambda: require_room([0.1], bad, 1.0),
        lambda: require_room([bad], 0.1, 1.0),
        lambda: remaining([bad], 1.0),
        lambda: require_room([0.1], 0.1, bad),
    ):
        with pytest.raises(MisuseError):
            call()


def test_what_rounding_leaves_of_delta_is_rounded_down_and_never_negative() -> None:
    left = delta_left(1e-6, Fraction(1e-7) + Fraction(1, 3) * Fraction(1e-9))
    assert Fraction(left) <= Fraction(1e-6) - Fraction(1e-7) - Fraction(1, 3) * Fraction(1e-9)
    assert left == pytest.approx(9e-7 - 1e-9 / 3, rel=1e-12)
    assert delta_left(1e-6, Fraction(1e-6)) == delta_left(1e-6, Fraction(1)) == 0.0
    with pytest.raises(MisuseError):
        delta_left(1.0, Fraction(0))
