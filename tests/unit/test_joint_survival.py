"""The log-rank test over hubs equals the pooled one on the grid."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.survfunc import survdiff

from flute.errors import MisuseError
from flute.joint.survival import SHOWN, life_table, log_rank
from support.joint_cases import log_rank as pooled_log_rank
from support.joint_cases import part
from support.joint_magnitudes import magnitudes, outputs
from support.mpc_parties import compute

BINS = 20


def people(total, seed):
    draw = np.random.default_rng(seed)
    group = draw.integers(0, 2, total)
    left = np.minimum(draw.geometric(0.08 + 0.03 * group), BINS) - 1
    return left, draw.random(total) < 0.7, group


def run(left, event, group, noise=None, bits=11):
    return compute(
        lambda party: log_rank(
            party,
            life_table(*(part(a, party.me) for a in (left, event, group)), BINS),
            count_bits=bits,
            noise=None if noise is None else noise[party.me - 1],
        )
    )


@pytest.mark.requirement("F-HUF-2")
def test_the_test_equals_the_pooled_one_within_a_millionth():
    left, event, group = people(900, seed=1)
    found = run(left, event, group).sole
    difference, variance = pooled_log_rank(life_table(left, event, group, BINS))
    assert abs(found.difference - difference) < 1e-6
    assert abs(found.variance - variance) < 1e-6
    statistic, p = survdiff(left + 1.0, event.astype(float), group)
    assert abs(found.chi_squared - statistic) < 1e-6
    assert abs(found.p_value - p) < 1e-6


def test_times_at_which_nobody_or_one_patient_is_left_are_right_and_fit_the_room():
    left, event, group = np.array([0, 1, 1, 5]), np.array([True] * 4), np.array([0, 1, 0, 1])
    found, sizes = magnitudes(lambda: run(left, event, group, bits=4))
    difference, variance = pooled_log_rank(life_table(left, event, group, BINS))
    assert abs(found.sole.difference - difference) < 1e-6
    assert abs(found.sole.variance - variance) < 1e-6
    assert all(size.fits for size in sizes)


def test_two_numbers_and_the_fitting_of_the_total_are_all_that_opens():
    _, opened = outputs(lambda: run(*people(60, seed=2)))
    assert [len(values) for _, values in opened] == [1, 2]


def test_noise_of_every_hub_is_in_what_opens():
    data = people(90, seed=3)
    plain = run(*data).sole
    noise = [(2**SHOWN, -1), (2 * 2**SHOWN, 5), (4 * 2**SHOWN, 0)]
    noisy = run(*data, noise=noise).sole
    assert abs(noisy.difference - plain.difference - 7) < 1e-6
    assert abs(noisy.variance - plain.variance) < 1e-6


def test_a_time_or_group_outside_is_refused():
    for left, group in ((BINS, 0), (-1, 0), (0, 2)):
        with pytest.raises(MisuseError):
            life_table(np.array([left]), np.array([True]), np.array([group]), BINS)
