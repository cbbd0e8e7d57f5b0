"""Odds are said with their chance, rounded so that they never understate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from flute.dp.accounting import rho_for
from flute.dp.ceiling import odds_of, rho_within
from flute.dp.odds import chance_text, exact_sentence, factor_sentence, factor_text, odds, odds_sentence
from flute.errors import MisuseError


@pytest.mark.parametrize("rho", [1e-4, 0.02435, 0.185, 0.5, 3.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_the_loss_of_a_gaussian_leaves_the_odds_in_either_direction_with_at_most_delta(
    rho: float, delta: float
) -> None:
    """Privacy loss of a Gaussian with this rho is N(rho, 2 rho): both tails, exactly."""
    factor, deviation = odds(rho, delta), math.sqrt(2 * rho)
    up = norm.sf((factor - rho) / deviation)
    down = norm.cdf((-factor - rho) / deviation)
    assert up + down <= delta
    # The control: a factor of seven tenths of it would be exceeded too often.
    assert norm.sf((0.7 * factor - rho) / deviation) > delta


@pytest.mark.parametrize("rho", [1e-4, 0.02435, 0.185, 3.0])
def test_odds_lie_between_the_bounds_for_one_tail_and_for_two_full_ones(rho: float) -> None:
    one = rho + 2 * math.sqrt(rho * math.log(1e6))
    two = rho + 2 * math.sqrt(rho * math.log(2e6))
    assert one < odds(rho, 1e-6) <= two
    assert odds(rho, 1e-6) < 1.026 * one


def test_odds_of_one_and_three_epsilon_are_near_the_exact_gaussians_of_the_review() -> None:
    assert 1.153 < odds(rho_for(1.0, 1e-6), 1e-6) < 1.2
    assert 3.289 < odds(rho_for(3.0, 1e-6), 1e-6) < 3.4


def test_odds_solve_their_own_equation_from_the_safe_side() -> None:
    for rho in (1e-6, 0.01, 1.0, 400.0):
        value = odds(rho, 1e-6)
        right = rho + 2 * math.sqrt(rho * math.log((1 + math.exp(-value)) / 1e-6))
        assert right <= value * (1 + 1e-12)
        assert value == pytest.approx(right, rel=1e-9)


def test_no_cost_changes_no_odds_and_no_bound_is_none() -> None:
    assert odds(0.0, 1e-6) == 0.0
    assert odds(math.inf, 1e-6) == math.inf


@pytest.mark.parametrize(("rho", "delta"), [(-1.0, 1e-6), (math.nan, 1e-6), (0.1, 0.0), (0.1, 1.0), (0.1, math.nan)])
def test_odds_of_nonsense_are_refused(rho: float, delta: float) -> None:
    with pytest.raises(MisuseError):
        odds(rho, delta)


@pytest.mark.parametrize(
    ("factor", "text"),
    [(1.0, "1.00"), (1.001, "1.01"), (1.05, "1.05"), (1.999, "2.00"), (2.0, "2"), (3.11, "3.2"), (3.2, "3.2"),
     (9.95, "10"), (9.81, "9.9"), (26.2, "27"), (27.0, "27"), (99.5, "100"), (101.0, "110"), (1130.0, "1,200"),
     (999_000.0, "1,000,000")],
)  # fmt: skip
def test_factors_are_written_for_people_and_rounded_up(factor: float, text: str) -> None:
    assert factor_text(factor) == text


@given(st.floats(1.0, 1e6))
def test_a_written_factor_never_understates_and_overstates_by_a_tenth_at_most(factor: float) -> None:
    written = float(factor_text(factor).replace(",", ""))
    assert factor * (1 - 1e-9) <= written <= factor * 1.1 + 0.01


@pytest.mark.parametrize("factor", [0.5, math.nan, math.inf])
def test_a_factor_below_one_or_not_finite_is_not_written(factor: float) -> None:
    with pytest.raises(MisuseError):
        factor_text(factor)


def test_chances_are_written_for_people() -> None:
    assert chance_text(1e-6) == "1 in 1,000,000"
    assert chance_text(1e-5) == "1 in 100,000"
    assert chance_text(0.3) == "1 in 3"
    with pytest.raises(MisuseError):
        chance_text(0.0)


def test_the_sentence_names_factor_and_chance_and_no_percentage_of_safety() -> None:
    sentence = odds_sentence(rho_within(1.0, 1e-6), 1e-6)
    assert sentence == (
        "Compared with not taking part, what anyone can conclude about one patient changes the odds by at most a "
        "factor of 3.3, except with a chance of at most 1 in 1,000,000."
    )
    for rho in (0.0, 0.01, 1.0, 100.0, math.inf):
        for text in (odds_sentence(rho, 1e-6), exact_sentence(rho, 1e-6)):
            assert "%" not in text
            assert "safe" not in text


def test_a_factor_beyond_a_million_is_said_to_bound_nothing() -> None:
    assert "not usefully bounded" in odds_sentence(100.0, 1e-6)
    assert "not usefully bounded" in odds_sentence(math.inf, 1e-6)


def test_exact_answers_are_said_to_have_no_bound_whatever_the_noised_ones_cost() -> None:
    for rho in (0.0, 0.0243, 100.0, math.inf):
        assert exact_sentence(rho, 1e-6).startswith("Exact answers have no bound (epsilon = infinity)")
    assert "noised answers add at most" in exact_sentence(0.0243, 1e-6)
    assert "noised" not in exact_sentence(0.0, 1e-6)


def test_a_sentence_for_odds_from_another_account_is_the_same_sentence() -> None:
    rho = rho_within(1.0, 1e-6)
    assert factor_sentence(odds_of(rho, 1e-6), 1e-6) == odds_sentence(rho, 1e-6)
    assert factor_sentence(odds_of(rho, 1e-6), 1e-6, exact=True) == exact_sentence(rho, 1e-6)
    for nonsense in (-0.1, math.nan):
        with pytest.raises(MisuseError):
            factor_sentence(nonsense, 1e-6)
