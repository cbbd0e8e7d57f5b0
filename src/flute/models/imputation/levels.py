"""Levels of a category in multiple imputation: multinomial regression by Newton's method, and levels drawn from it.

Coefficients b [levels - 1, q], one row for every level but the reference: the chance of level k is exp(x b_k) over
the sum of all, of the reference exp(0). Rows have the form of `newton.newton_rows` over the (levels - 1) q
coefficients, level by level, so that one Newton step and one draw serve 0/1 variables and categories alike.
Source: McCullagh and Nelder 1989, section 5.2; what mice calls "polyreg", van Buuren and Groothuis-Oudshoorn 2011.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.design import Mask
from flute.algorithms.newton import logits, vector_size
from flute.data.variables import Array
from flute.defaults import LOG_LIKELIHOOD_CAP

Places = NDArray[np.int64]


def level_shares(x: Array, coefficients: Array) -> Array:
    """[n, levels] chance of the reference, then of every other level; finite whatever finite coefficients were sent.

    x: [n, q]. coefficients: [(levels - 1) q]."""
    others = coefficients.reshape(-1, x.shape[1])
    lines = np.column_stack([np.zeros(len(x)), *(logits(x, own) for own in others)])
    odds = np.exp(lines - lines.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def level_rows(x: Array, flags: Array, included: Mask, coefficients: Array) -> Array:
    """[n, vector_size((levels - 1) q)]; zero where not included. flags: [n, levels - 1] of 0 and 1, all 0 at the
    reference. |x| <= 1, so |coordinate| <= 1."""
    shares = level_shares(x, coefficients)
    others, (n, q) = shares[:, 1:], x.shape
    whole = np.column_stack([1 - flags.sum(axis=1), flags])
    happened = np.maximum(np.sum(whole * shares, axis=1), np.exp(-LOG_LIKELIHOOD_CAP))
    gradient = ((flags - others)[:, :, None] * x[:, None, :]).reshape(n, len(coefficients))
    i, j = np.triu_indices(gradient.shape[1])
    (level_i, at_i), (level_j, at_j) = np.divmod(i, q), np.divmod(j, q)
    spread = others[:, level_i] * ((level_i == level_j) - others[:, level_j])
    rows = np.empty((n, vector_size(gradient.shape[1])))
    rows[:, 0] = 1.0
    rows[:, 1] = np.log(happened) / LOG_LIKELIHOOD_CAP
    rows[:, 2 : 2 + gradient.shape[1]] = gradient
    rows[:, 2 + gradient.shape[1] :] = spread * x[:, at_i] * x[:, at_j]
    return rows * included[:, None]


def drawn_flags(shares: Array, u: Array) -> Array:
    """[n, levels - 1] of 0 and 1: the level into whose part of (0, 1) u falls. shares: [n, levels]."""
    place = np.sum(u[:, None] > np.cumsum(shares[:, :-1], axis=1), axis=1)
    return np.asarray(place[:, None] == np.arange(1, shares.shape[1]), dtype=np.float64)
