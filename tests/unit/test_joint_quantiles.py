"""Quantiles over hubs are exact on the grid, and the search shows nothing beyond them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from flute.errors import MisuseError
from flute.joint.quantiles import BRANCHES, _narrow, _probes, on_grid, quantiles
from support.joint_cases import part
from support.joint_magnitudes import outputs
from support.mpc_parties import compute

GRID = np.arange(0, 200) / 4.0


def run(values, levels=(Fraction(1, 2),), grid=GRID, bits=10):
    return compute(lambda party: quantiles(party, part(values, party.me), grid=grid, levels=levels, count_bits=bits))


@pytest.mark.requirement("F-HUF-2")
def test_quantiles_equal_those_of_the_pooled_values():
    values = np.round(np.random.default_rng(4).gamma(2.0, 6.0, 300) * 4).clip(0, 190) / 4
    levels = (Fraction(1, 4), Fraction(1, 2), Fraction(9, 10), Fraction(1, 1))
    found = run(values, levels).sole
    wanted = np.quantile(values, [float(level) for level in levels], method="inverted_cdf")
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("values", [[3.0], [1.0, 1.0, 1.0, 2.0], [0.0, 49.75], [5.0, 6.0, 7.0, 8.0]])
def test_few_values_ties_and_ends_of_the_grid_are_exact(values):
    found = run(np.array(values)).sole
    assert found.tolist() == [np.quantile(values, 0.5, method="inverted_cdf")]


def test_two_tables_with_one_median_open_the_same_things():
    one = np.concatenate([np.full(50, 3.0), np.full(1, 20.0), np.full(50, 40.0)])
    other = np.linspace(18, 22, 101).round(0)
    (first, opened), (second, opened_too) = outputs(lambda: run(one)), outputs(lambda: run(other))
    assert first.sole.tolist() == second.sole.tolist() == [20.0]
    assert opened == opened_too


def test_what_opens_differs_where_the_median_does():
    """The comparison above is one that can fail."""
    _, opened = outputs(lambda: run(np.full(9, 20.0)))
    _, moved = outputs(lambda: run(np.full(9, 20.25)))
    assert opened != moved


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 257])
def test_the_search_finds_every_place_of_a_grid(size):
    for wanted in range(size):
        low, high, steps = 0, size - 1, 0
        while low < high:
            places = _probes(low, high)
            assert 1 <= len(places) < BRANCHES
            low, high = _narrow(low, high, [(place, place < wanted) for place in places])
            steps += 1
        assert low == wanted
        assert steps <= 3


@pytest.mark.parametrize("bad", [np.array([1.0, 1.0]), np.array([2.0, 1.0]), np.zeros((2, 2)), np.zeros(0)])
def test_a_grid_that_does_not_rise_is_refused(bad):
    with pytest.raises(MisuseError, match="rising"):
        on_grid(np.array([0.5]), bad)


@pytest.mark.parametrize("value", [50.0, np.nan, np.inf])
def test_a_value_above_the_grid_or_no_number_is_refused(value):
    with pytest.raises(MisuseError, match="public grid"):
        on_grid(np.array([value]), GRID)


def test_a_level_that_is_no_share_is_refused():
    assert isinstance(run(np.array([1.0] * 3), (Fraction(0, 1),)).errors[1], MisuseError)
