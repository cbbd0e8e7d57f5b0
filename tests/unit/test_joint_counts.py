"""Pooled tables: what a hub can put in, and what the checks of it open."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from flute.errors import MisuseError, ProtocolAbortedError
from flute.joint import counts
from flute.joint.arithmetic import fraction_bits, reciprocals, reveal, running
from flute.joint.counts import pooled
from support.joint_magnitudes import outputs
from support.mpc_parties import compute

BITS = 6


def test_the_sum_of_tables_is_shared_and_only_its_fitting_is_opened():
    def program(party):
        return (yield from reveal(party, (yield from pooled(party, np.array([party.me, 0, 7]), bits=BITS))))

    run, opened = outputs(lambda: compute(program))
    assert run.sole.tolist() == [6, 0, 21]
    assert opened == [(None, [1]), (None, [6, 0, 21])]


@pytest.mark.parametrize("table", [[-1, 3], [2**BITS - 1, 0], [40, 40]])
def test_a_hub_refuses_its_own_table_that_does_not_fit(table):
    run = compute(lambda party: pooled(party, np.array(table), bits=BITS))
    assert all(isinstance(error, MisuseError) for error in run.errors.values())
    assert len(run.errors) == 3
    assert run.messages == []


def test_hubs_whose_tables_are_too_large_together_stop_before_anything_opens():
    run, opened = outputs(lambda: compute(lambda party: pooled(party, np.array([30, 0]), bits=BITS)))
    assert {type(error) for error in run.errors.values()} == {ProtocolAbortedError}
    assert opened == [(None, [0])]


def test_a_hub_that_skips_its_own_check_cannot_put_in_a_negative_count():
    """Whatever digits it shows, they mean 0 to 2^BITS - 1: its -1 is refused by the input itself."""

    def program(party):
        table = np.array([-1, 1]) if party.me == 2 else np.array([1, 1])
        with patch.object(counts, "MisuseError", AssertionError):
            return (yield from pooled(party, table, bits=BITS))

    generators = compute(lambda party: program(party) if party.me != 2 else _unchecked(party))
    assert isinstance(generators.errors[2], MisuseError)
    assert generators.results == {}


def _unchecked(party):
    top = (1 << (BITS - 1)) - 1
    shapes = dict.fromkeys((1, 2, 3), (2,))
    yield from party.inputs(top - np.array([-1, 1]), shapes, bound=BITS - 1)


def test_running_sums_are_those_of_numpy():
    values = np.arange(1, 24)

    def program(party):
        return (yield from reveal(party, running(party.constant(values))))

    assert compute(program).sole.tolist() == np.cumsum(values).tolist()


def test_reciprocals_are_right_for_every_count_and_harmless_for_zero():
    values = np.arange(0, 256)

    def program(party):
        inverse = yield from reciprocals(party, party.constant(values), 8)
        return fraction_bits(party), (yield from reveal(party, inverse))

    fraction, opened = compute(program).sole
    got = np.array([int(v) for v in opened]) / 2**fraction
    assert np.abs(got[1:] - 256 / values[1:]).max() <= 4 * 2.0**-fraction + 2.0**-38 * 256
    assert 0 <= got[0] <= 2**13
