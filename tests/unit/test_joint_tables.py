"""Chi-squared and Fisher's test over hubs equal the pooled tests without a table in sight."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, fisher_exact

from flute.errors import FluteError, MisuseError
from flute.joint.fisher import MAX_BITS, fisher
from flute.joint.tables import chi_squared
from support.joint_magnitudes import magnitudes, outputs
from support.mpc_parties import compute


def chi(hubs, bits=12):
    return compute(lambda party: chi_squared(party, hubs[party.me - 1], count_bits=bits))


def exact(hubs, bits):
    return compute(lambda party: fisher(party, hubs[party.me - 1], count_bits=bits))


@pytest.mark.requirement("F-HUF-2")
def test_chi_squared_equals_the_pooled_statistic_within_a_millionth():
    draw = np.random.default_rng(1)
    hubs = np.array([draw.multinomial(1000, draw.dirichlet(np.ones(12))).reshape(3, 4) for _ in range(3)])
    found = chi(hubs).sole
    pooled = chi2_contingency(hubs.sum(0), correction=False)
    assert abs(found.statistic - pooled.statistic) < 1e-6
    assert found.degrees == pooled.dof
    assert found.p_value == pytest.approx(pooled.pvalue, abs=1e-9)


def test_an_empty_row_adds_nothing_and_everything_fits_the_room():
    hubs = np.zeros((3, 3, 2), dtype=np.int64)
    hubs[:, :2] = [[4, 9], [8, 1]]
    run, sizes = magnitudes(lambda: chi(hubs, bits=7))
    pooled = chi2_contingency(hubs.sum(0)[:2], correction=False)
    assert abs(run.sole.statistic - pooled.statistic) < 1e-6
    assert all(size.fits for size in sizes)


def test_five_hubs_of_whom_two_may_lie_get_the_same_statistic():
    hubs = np.random.default_rng(2).integers(0, 40, (5, 3, 4))
    found = compute(lambda party: chi_squared(party, hubs[party.me - 1], count_bits=12), hubs=5).sole
    assert abs(found.statistic - chi2_contingency(hubs.sum(0), correction=False).statistic) < 1e-6


@pytest.mark.parametrize("trial", range(5))
def test_a_message_with_one_changed_byte_gives_no_wrong_statistic(trial):
    """Honest hubs 1 and 3 stop or have the right result, which only a change after the last opening leaves them."""
    draw = np.random.default_rng(trial)
    hubs = np.array([[[9, 2], [4, 7]], [[3, 3], [1, 8]], [[5, 0], [2, 2]]])
    pooled = chi2_contingency(hubs.sum(0), correction=False).statistic
    number, recipient = int(draw.integers(0, 70)), int(draw.choice([1, 3]))

    def rewrite(at, sender, to, raw):
        if (at, sender, to) != (number, 2, recipient) or len(raw) == 0:
            return raw
        place = int(draw.integers(0, len(raw)))
        return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]

    run = compute(lambda party: chi_squared(party, hubs[party.me - 1], count_bits=8), rewrite=rewrite)
    assert all(isinstance(run.errors[place], FluteError) for place in (1, 3))
    assert all(abs(found.statistic - pooled) < 1e-6 for found in run.results.values())


def test_only_the_statistic_opens():
    _, opened = outputs(lambda: chi(np.ones((3, 2, 2), dtype=np.int64), bits=5))
    assert [len(values) for _, values in opened] == [1, 1]


@pytest.mark.parametrize(
    "tables",
    [
        [[[3, 1], [2, 5]], [[1, 0], [0, 4]], [[2, 2], [1, 3]]],
        [[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]]],
        [[[9, 0], [0, 9]], [[5, 0], [0, 6]], [[4, 0], [0, 7]]],
        [[[0, 0], [3, 4]], [[0, 0], [1, 1]], [[0, 0], [2, 0]]],
    ],
    ids=["usual", "all-tables-tie", "far-out", "empty-row"],
)
def test_fishers_p_equals_the_pooled_one(tables):
    hubs = np.array(tables)
    found = exact(hubs, 6).sole
    assert abs(found - fisher_exact(hubs.sum(0)).pvalue) < 1e-7


def test_fishers_test_of_hundreds_of_patients_is_right_and_fits_the_room():
    hubs = np.array([[[12, 40], [3, 60]], [[11, 30], [4, 50]], [[9, 22], [6, 61]]])
    run, sizes = magnitudes(lambda: exact(hubs, 9))
    assert abs(run.sole - fisher_exact(hubs.sum(0)).pvalue) < 1e-7
    assert all(size.fits for size in sizes)


def test_fishers_p_is_all_that_opens():
    _, opened = outputs(lambda: exact(np.ones((3, 2, 2), dtype=np.int64), 5))
    assert [len(values) for _, values in opened] == [1, 1]


def test_tables_of_other_shapes_are_refused():
    assert isinstance(chi(np.ones((3, 1, 4), dtype=np.int64)).errors[1], MisuseError)
    assert isinstance(exact(np.ones((3, 2, 3), dtype=np.int64), 5).errors[1], MisuseError)
    assert isinstance(exact(np.ones((3, 2, 2), dtype=np.int64), MAX_BITS + 1).errors[1], MisuseError)
