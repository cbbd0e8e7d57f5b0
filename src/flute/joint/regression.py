"""Logistic regression whose model is never opened: Newton's method on shares, and predictions under shares.

Rows lie on a public scale (centre and spread of each variable come with the study): every predictor in
(-ROW_LIMIT, ROW_LIMIT), on a grid of 2^-ROW_FRACTION.

A step solves H d = g with the preconditioner P, about the inverse of X'X / 4 (the Hessian at coefficients 0, never
below a later one): the eigenvalues of E = 1 - P H lie in [0, 1), so (1 + E)(1 + E^2)(1 + E^4)... P g tends to d,
without division. What the series leaves out, the next step puts right.
Sources: McCullagh and Nelder 1989, section 2.5; X'X / 4 as a bound of the Hessian, Boehning and Lindsay 1988;
the series of an inverse as a product, Ben-Israel and Greville 2003, "Generalized inverses", chapter 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.errors import Cheating, MisuseError
from flute.joint.arithmetic import clamp, reveal
from flute.joint.newton import COEFFICIENT_FRACTION, COEFFICIENT_LIMIT, ROW_BITS, ROW_FRACTION, ROW_LIMIT, Fit
from flute.joint.sigmoid import REACH, REACH_BITS, RIGHT_UP_TO, activation_bits, centred_logistic
from flute.mpc.field import SECOND_PRIME, Integers
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step
from flute.mpc.verification import coefficients

MAX_PREDICTORS: Final = REACH // (ROW_LIMIT * COEFFICIENT_LIMIT) - 1
"""7, with the intercept 8 columns: their sum stays within the reach of `sigmoid`."""
ITERATIONS: Final = 6
NOISE_BITS: Final = 50
"""Magnitude of one hub's share of noise, in units of 2^-COEFFICIENT_FRACTION: 260,000."""


@dataclass(frozen=True, slots=True)
class HiddenModel:
    """coefficients: [1 + predictors], intercept first, COEFFICIENT_FRACTION bits, shared. settled: [1], shared,
    narrow, 0 or 1: the last step was short and whole (see `newton`), no coefficient was clamped, and no row lies
    where `sigmoid` is wrong. Not settled: outcomes that predictors tell apart or that hardly occur, predictors that
    nearly depend on each other (a direction with a variance below 0.05), rows beyond FAR."""

    coefficients: Shares
    settled: Shares


@dataclass(frozen=True, slots=True)
class Coefficients:
    """values: [1 + predictors], intercept first, for one spread of each predictor. settled: see HiddenModel; None
    where noise was asked for, which an exact bit beside it would undo."""

    values: NDArray[np.float64]
    settled: bool | None


def logistic_regression(
    party: Party, predictors: NDArray[np.float64], outcome: NDArray[np.int64], *, rows: Sequence[int]
) -> Step[HiddenModel]:
    """Maximum likelihood by ITERATIONS Newton steps from 0 over all hubs' rows. Opens that outcomes are 0 or 1.

    predictors: [n, p] this hub's rows on the public scale. outcome: [n] of 0 and 1. rows: how many each hub has,
    public, in the order of places.
    Error where the model has settled: 1e-5 of a coefficient for uncorrelated predictors and 3,000 rows, growing
    with the condition of their covariance (8e-5 at a smallest variance of 0.05 and 900 rows): rounding of predictors
    (2^-13 of a spread, centred) and `sigmoid`.
    Costs: about 480 rounds: 110 to put in, to prepare and for the first step, 70 for each other step, 30 to judge;
    products for each row: (p + 1)(p + 2) / 2 once, 17 and 14 truncations an iteration.
    Raises: MisuseError: too many rows or predictors, values off the scale, or an outcome other than 0 and 1.
    Cheating: a hub put in another outcome.
    """
    _check(party, predictors, outcome, rows)
    x = yield from _shared_rows(party, predictors, rows)
    y = yield from _shared_outcomes(party, outcome, rows)
    fit = Fit(party, x, y)
    yield from fit.prepare(party)
    for _ in range(ITERATIONS - 1):
        yield from fit.step(party)
    return HiddenModel(fit.coefficients[:, 0], (yield from fit.settled(party)))


def open_coefficients(
    party: Party, model: HiddenModel, *, noise: NDArray[np.int64] | None = None
) -> Step[Coefficients]:
    """Opens the coefficients and whether the model has settled; with noise, the noisy coefficients only.

    noise: [1 + predictors] this hub's own share of noise, in units of 2^-COEFFICIENT_FRACTION; all hubs give some or
    none, and the sum of all is in what opens. How much is enough is for `dp` to say.
    """
    if noise is not None:
        drawn = yield from party.noise(noise, bound=NOISE_BITS)
        return Coefficients(_reals((yield from reveal(party, model.coefficients + drawn))), None)
    values = _reals((yield from reveal(party, model.coefficients)))
    settled = yield from reveal(party, model.settled)
    return Coefficients(values, bool(settled[0]))


def predict(
    party: Party, model: HiddenModel, predictors: NDArray[np.float64] | None, *, owner: int, rows: int
) -> Step[NDArray[np.float64] | None]:
    """Probabilities for the owner's rows; the owner learns them, nobody learns the rows or the model.

    predictors: [rows, p] at the owner, None elsewhere.
    Opens: [rows] probabilities, to the owner; beyond |x'b| = RIGHT_UP_TO that of the nearer end (4e-7 from 0 or 1).
    Error: as `centred_logistic`, besides the rounding of predictors.
    Costs: 70 rounds; for each row ROW_BITS + 1 bits an input, 2 comparisons, 17 products.
    """
    columns = model.coefficients.shape[0]
    mine = None if predictors is None else _integers(predictors)
    x = _with_intercept((yield from party.input(mine, owner=owner, shape=(rows, columns - 1), bound=ROW_BITS)))
    bits = activation_bits(party)
    unit = ROW_FRACTION + COEFFICIENT_FRACTION + REACH_BITS - bits
    reach = yield from party.dot_truncate(x, model.coefficients.reshape(columns, 1), unit)
    inside, _ = yield from clamp(party, reach[:, 0], int(RIGHT_UP_TO / REACH * 2**bits), bits + 1)
    centred = yield from centred_logistic(party, inside)
    opened = yield from party.open(centred, to=owner)
    return None if opened is None else np.clip(np.array([int(v) for v in opened]) / 2**bits + 0.5, 0.0, 1.0)


def _shared_rows(party: Party, predictors: NDArray[np.float64], rows: Sequence[int]) -> Step[Shares]:
    shapes = {place: (count, predictors.shape[1]) for place, count in enumerate(rows, start=1)}
    values = yield from party.inputs(_integers(predictors), shapes, bound=ROW_BITS)
    return _with_intercept(concatenate([values[place] for place in sorted(values)]))


def _shared_outcomes(party: Party, outcome: NDArray[np.int64], rows: Sequence[int]) -> Step[Shares]:
    """[n] of 0 and 1, and nothing else: for each owner a random combination of y (y - 1) opens to 0."""
    shapes = {place: (count,) for place, count in enumerate(rows, start=1)}
    values = yield from party.inputs(outcome, shapes, bound=1)
    y = concatenate([values[place] for place in sorted(values)])
    claims = yield from party.mul(y, y - 1)
    weights = coefficients(SECOND_PRIME, party.wire.transcript, y.size).astype(np.int64)
    ends = np.cumsum(rows)
    sums = [(claims * weights)[end - count : end].sum().reshape(1) for end, count in zip(ends, rows, strict=True)]
    liars = [place for place, total in enumerate((yield from reveal(party, concatenate(sums))), start=1) if total]
    if liars:
        names = tuple(party.circle.name(place) for place in liars)
        raise Cheating(f"{', '.join(names)} put in an outcome other than 0 and 1. Nothing was opened.", blamed=names)
    return y


def _check(party: Party, predictors: NDArray[np.float64], outcome: NDArray[np.int64], rows: Sequence[int]) -> None:
    if len(rows) != party.hubs or predictors.shape[:1] != outcome.shape or len(outcome) != rows[party.me - 1]:
        raise MisuseError("Every hub says beforehand how many rows it has, and brings as many.")
    if min(rows) < 1 or not 1 <= predictors.shape[1] <= MAX_PREDICTORS:
        raise MisuseError(f"A hidden model takes 1 to {MAX_PREDICTORS} predictors, and rows of every hub.")
    if not bool(np.isin(outcome, (0, 1)).all()):
        raise MisuseError("An outcome is 0 or 1.")


def _reals(opened: Integers) -> NDArray[np.float64]:
    return np.array([int(value) / 2**COEFFICIENT_FRACTION for value in opened], dtype=np.float64)


def _integers(predictors: NDArray[np.float64]) -> Integers:
    """On the grid. Raises: MisuseError: a predictor off the scale, or no number."""
    rounded = np.round(predictors * 2**ROW_FRACTION)
    if not bool(np.all(np.abs(rounded) < 2**ROW_BITS)):
        raise MisuseError(f"Predictors lie within {ROW_LIMIT} spreads of the public centre.")
    return rounded.astype(np.int64)


def _with_intercept(values: Shares) -> Shares:
    """[n, 1 + p]: a column of 1 before the predictors."""
    return concatenate([values[:, :1] * 0 + (1 << ROW_FRACTION), values], axis=1)
