"""The hidden model is the pooled fit, stays hidden, and nothing that is masked outgrows its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from flute.errors import Cheating, MisuseError
from flute.joint.newton import COEFFICIENT_FRACTION, COEFFICIENT_LIMIT
from flute.joint.regression import (
    MAX_PREDICTORS,
    _shared_outcomes,
    logistic_regression,
    open_coefficients,
    predict,
)
from support.joint_cases import newton, part, patients, rows_of
from support.joint_magnitudes import magnitudes, outputs
from support.mpc_parties import compute

ROWS = 300
X, Y = patients(ROWS, 4, seed=5)
BETA = newton(X, Y)
FAR = 7.9 * np.sign(BETA[1:])
NEW = np.array([[0.5, -1.0, 0.0, 2.0], [-1.5, 0.25, 1.0, 0.0], FAR, -FAR])
NOISE = np.array([2**COEFFICIENT_FRACTION, 0, -7, 2**20, 3])


@dataclass(frozen=True)
class Seen:
    run: Any
    opened: list[tuple[int | None, list[int]]]


def fit_and_predict(party):
    model = yield from logistic_regression(party, part(X, party.me), part(Y, party.me), rows=rows_of(ROWS))
    rounds = party.rounds
    plain = yield from open_coefficients(party, model)
    noisy = yield from open_coefficients(party, model, noise=NOISE * party.me)
    told = yield from predict(party, model, NEW if party.me == 2 else None, owner=2, rows=len(NEW))
    return plain, noisy, told, rounds


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen(*outputs(lambda: compute(fit_and_predict)))


@pytest.mark.requirement("F-SRS-10")
def test_coefficients_are_those_of_the_plain_fit(seen):
    plain, _, _, rounds = seen.run.sole
    assert plain.settled
    assert np.abs(plain.values - BETA).max() < 1e-4
    assert rounds <= 500


@pytest.mark.requirement("F-SRS-10")
def test_fitting_opens_no_number_of_the_model(seen):
    """In order: no outcome other than 0 and 1; what the caller opens, plain and with noise (then without the exact
    bit of having settled); predictions, to hub 2 alone."""
    assert [(to, len(values)) for to, values in seen.opened] == [
        (None, 3), (None, 5), (None, 1), (None, 5), (2, 0),
    ]  # fmt: skip
    assert seen.opened[0][1] == [0, 0, 0]


def test_noise_of_every_hub_is_in_what_opens(seen):
    plain, noisy, _, _ = seen.run.sole
    assert np.allclose((noisy.values - plain.values) * 2**COEFFICIENT_FRACTION, 6 * NOISE, rtol=0, atol=2)


def test_predictions_reach_their_owner_only_and_are_right(seen):
    told = seen.run.results[2][2]
    assert np.abs(told[:2] - expit(np.c_[np.ones(2), NEW[:2]] @ BETA)).max() < 1e-4
    assert seen.run.results[1][2] is None
    assert seen.run.results[3][2] is None


def test_predictions_beyond_the_reach_are_those_of_its_ends(seen):
    """These rows lie where the sigmoid alone would have folded back to another value."""
    told = seen.run.results[2][2]
    eta = np.c_[np.ones(4), NEW] @ BETA
    assert np.abs(eta[2:]).min() > 20
    assert np.abs(told[2:] - expit(eta[2:])).max() < 1e-4


def separable(draw):
    x = draw.standard_normal((45, 7))
    return x, (x[:, 0] > 0).astype(np.int64)


def at_the_limits(draw):
    return 7.99 * np.sign(draw.standard_normal((45, 7))), draw.integers(0, 2, 45)


@pytest.mark.parametrize(("case", "settles"), [(separable, False), (at_the_limits, True)])
def test_no_value_outgrows_its_mask_even_where_the_fit_runs_away(case, settles):
    x, y = case(np.random.default_rng(3))

    def program(party):
        model = yield from logistic_regression(party, part(x, party.me), part(y, party.me), rows=rows_of(45))
        return (yield from open_coefficients(party, model))

    run, sizes = magnitudes(lambda: compute(program))
    assert len(sizes) > 80
    assert all(size.fits for size in sizes)
    assert run.sole.settled is settles
    assert np.abs(run.sole.values).max() <= COEFFICIENT_LIMIT


def test_a_hub_with_an_outcome_other_than_0_and_1_is_named():
    def program(party):
        outcome = np.array([1, -1 if party.me == 3 else 0])
        return (yield from _shared_outcomes(party, outcome, (2, 2, 2)))

    run = compute(program)
    assert {type(error) for error in run.errors.values()} == {Cheating}
    assert run.errors[1].blamed == ("hub 3",)


@pytest.mark.parametrize(
    ("x", "y", "rows"),
    [
        (np.zeros((3, 2)), np.zeros(3, np.int64), (3, 3)),
        (np.zeros((3, 2)), np.zeros(2, np.int64), (3, 3, 3)),
        (np.zeros((3, 2)), np.full(3, 2), (3, 3, 3)),
        (np.zeros((3, MAX_PREDICTORS + 1)), np.zeros(3, np.int64), (3, 3, 3)),
        (np.full((3, 2), 8.0), np.zeros(3, np.int64), (3, 3, 3)),
        (np.full((3, 2), np.nan), np.zeros(3, np.int64), (3, 3, 3)),
    ],
)
def test_rows_that_cannot_be_put_in_are_refused_before_anything_is_sent(x, y, rows):
    run = compute(lambda party: logistic_regression(party, x, y, rows=rows))
    assert all(isinstance(error, MisuseError) for error in run.errors.values())
    assert run.messages == []
