"""Rank tests over hubs equal the pooled tests, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kruskal, mannwhitneyu

from flute.errors import MisuseError
from flute.joint.ranks import RANK_COUNT_BITS, kruskal_wallis, mann_whitney
from support.joint_magnitudes import magnitudes, outputs
from support.mpc_parties import compute

POINTS = np.arange(25)


def tables(groups, seed, high=9):
    return np.random.default_rng(seed).integers(0, high, (3, groups, POINTS.size))


def spread(table):
    return [np.repeat(POINTS, row) for row in table]


@pytest.mark.requirement("F-HUF-2")
def test_kruskal_wallis_equals_the_pooled_test():
    hubs = tables(4, seed=1)
    found = compute(lambda party: kruskal_wallis(party, hubs[party.me - 1], count_bits=11)).sole
    pooled = kruskal(*spread(hubs.sum(0)))
    assert abs(found.statistic - pooled.statistic) < 1e-6
    assert abs(found.p_value - pooled.pvalue) < 1e-6
    assert found.sizes == tuple(hubs.sum((0, 2)))


def test_mann_whitney_gives_u_exactly_and_z_with_ties():
    hubs = tables(2, seed=2)
    found = compute(lambda party: mann_whitney(party, hubs[party.me - 1], count_bits=10)).sole
    first, second = spread(hubs.sum(0))
    pooled = mannwhitneyu(first, second, use_continuity=False, method="asymptotic")
    assert found.u == pooled.statistic
    assert abs(found.p_value - pooled.pvalue) < 1e-6
    assert np.sign(found.z) == np.sign(pooled.statistic - first.size * second.size / 2)


def test_nearly_everything_tied_is_still_right_and_fits_the_room():
    hubs = np.zeros((3, 2, 25), dtype=np.int64)
    hubs[:, :, 3] = 100
    hubs[0, 0, 4], hubs[1, 1, 9] = 9, 2
    run, sizes = magnitudes(lambda: compute(lambda party: kruskal_wallis(party, hubs[party.me - 1], count_bits=10)))
    assert abs(run.sole.statistic - kruskal(*spread(hubs.sum(0))).statistic) < 1e-6
    assert all(size.fits for size in sizes)


def test_group_sizes_and_the_statistic_are_all_that_opens():
    hubs = tables(3, seed=3)
    run, opened = outputs(lambda: compute(lambda party: kruskal_wallis(party, hubs[party.me - 1], count_bits=11)))
    assert [len(values) for _, values in opened] == [1, 3, 1]
    assert opened[1][1] == list(run.sole.sizes)


def test_an_empty_group_and_too_large_counts_are_refused():
    empty = np.zeros((2, 5), dtype=np.int64)
    empty[0] = 2
    assert isinstance(compute(lambda party: kruskal_wallis(party, empty, count_bits=8)).errors[1], MisuseError)
    run = compute(lambda party: kruskal_wallis(party, empty, count_bits=RANK_COUNT_BITS + 1))
    assert isinstance(run.errors[1], MisuseError)
    assert isinstance(compute(lambda party: mann_whitney(party, empty[:1], count_bits=8)).errors[1], MisuseError)
