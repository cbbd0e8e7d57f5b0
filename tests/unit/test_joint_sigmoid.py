"""The logistic function on shares: right near 0, bounded everywhere."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import expit

from flute.joint.arithmetic import reveal
from flute.joint.sigmoid import REACH, RIGHT_UP_TO, SERIES_ERROR, activation_bits, centred_logistic
from support.joint_magnitudes import magnitudes
from support.mpc_parties import compute

BITS = 25
POINTS = np.concatenate([np.linspace(-RIGHT_UP_TO, RIGHT_UP_TO, 2_001), np.linspace(-REACH, REACH, 1_001)])
"""Where it is right, then as far as it is bounded."""


def test_the_value_is_right_where_it_says_so_and_bounded_beyond():
    run, sizes = magnitudes(lambda: compute(_program))
    bits, opened = run.sole
    assert bits == BITS
    value = opened / 2**BITS
    inner = np.abs(value[:2_001] + 0.5 - expit(POINTS[:2_001]))
    assert inner.max() < SERIES_ERROR + 3e-5
    assert np.sqrt(np.mean(inner**2)) < 1.5e-5
    assert np.abs(value).max() <= 0.5 + 2e-5
    assert all(size.fits for size in sizes)


def test_a_polynomial_that_is_not_folded_leaves_all_bounds():
    """The control: as accurate on the inner interval, but without folds; this is its far end."""
    plain = chebyshev.Chebyshev.interpolate(lambda x: expit(x) - 0.5, 51, domain=[-RIGHT_UP_TO, RIGHT_UP_TO])
    assert np.abs(plain(POINTS[:2_001]) + 0.5 - expit(POINTS[:2_001])).max() < 1e-4
    assert abs(plain(REACH)) > 2**80


def _program(party):
    bits = activation_bits(party)
    x = party.constant(np.round(POINTS / REACH * 2**bits).astype(np.int64))
    return bits, (yield from reveal(party, (yield from centred_logistic(party, x))))
