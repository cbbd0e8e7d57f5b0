"""Rounding on the way to a fitted probability has no bias: sums over thousands of rows rest on it."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from flute.joint.arithmetic import reveal
from flute.joint.sigmoid import FOLDS, REACH, _series, activation_bits, centred_logistic
from support.mpc_parties import compute

COPIES = 6_000
X = 3.0
"""3 / 256 is exact in fixed point."""


def unbiased(errors: NDArray[np.float64]) -> bool:
    """The mean is within 4.9 standard errors of 0: false alarm 1e-6."""
    return bool(abs(errors.mean()) < 4.9 * errors.std() / np.sqrt(errors.size))


def test_fitted_probabilities_are_rounded_without_bias():
    def program(party):
        bits = activation_bits(party)
        x = party.constant(np.full(COPIES, round(X / REACH * 2**bits)))
        return bits, (yield from reveal(party, (yield from centred_logistic(party, x))))

    bits, opened = compute(program).sole
    exact = chebyshev.chebval(np.sin(3**FOLDS * np.arcsin(X / REACH)), _series())
    errors = opened / 2**bits - exact
    assert errors.std() < 1e-5
    assert unbiased(errors)
    assert not unbiased(errors + 2.0 ** -(bits - 2))  # four units of the last place are seen
