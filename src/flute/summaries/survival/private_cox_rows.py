"""Private Cox regression at a hub: how a patient's row is written, and why no row is longer than agreed.

z: columns as in `algorithms.private_rows`, without intercept where they stand for a hazard. A public grid of times
has `bins` parts; a patient leaves in one of them, after a part f of it, with the event or without.

Step 0 opens [upper half of z~ z~' | events by bin | other ends by bin]: z~ shrunk to its agreed norm, histograms
written for prefix sums, so that noise leaves moments of the columns and a life table.

A later step is asked at log hazard ratios b, directions A, hazards L_k of a part k (of a patient with z = 0) and
centres m_k, all worked out from what was opened before. With a = A z and e_k the part of bin k that he was followed,
    w u,   u = event (a - m_t) - sum_k e_k L_k e^(b z) (a - m_k),
    w = 1 / max(1, B(z)),   B(z) the largest |u| that any time and ending could give a patient with this z.
So no row is longer than 1, whatever was asked. w does not depend on time or event: given z, u is the integral of
something foreseeable against a martingale and 0 on average at the true hazards, weighted or not. At the weighted mean
of a over those at risk, m_k, an error in L_k moves the mean of u only to second order (it is Cox's score then).

Sources: Cox 1972; Andersen and Gill 1982 (the martingale); Holford 1980 (hazards constant in parts); Kuensch,
Stefanski and Carroll 1989 (bounding without moving); Chernozhukov et al. 2018 (orthogonal scores).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flute.algorithms.contract import StepShape
from flute.algorithms.design import Design, Mask
from flute.algorithms.prefix import norm_squared, rows
from flute.algorithms.private_rows import coding, intercept, moment_factors, row_radius
from flute.data.variables import Array
from flute.defaults.summaries import (
    COX_HISTOGRAM_PART,
    COX_LARGEST_DIRECTION,
    COX_LARGEST_PRIVATE_EXPONENT,
    COX_PRIVATE_WEIGHTS,
    COX_REACH,
)
from flute.summaries.blocks import Codes, placed


@dataclass(frozen=True, slots=True)
class Left:
    """When and how patients left. `bin`: -1 for those left out; `part` [n] of the bin, within [0, 1]; `event` [n]."""

    bin: Codes
    part: Array
    event: Mask


def _moment_norm(design: Design) -> float:
    return (intercept(design) ** 2 + _radius(design) ** 2) / 4


def _radius(design: Design) -> float:
    """Bound of the norm of z~ beside its intercept."""
    return COX_REACH * row_radius(design)


def histogram_factor(design: Design, bins: int) -> float:
    """What a histogram's row is multiplied with, so that its norm is a fixed part of that of the moments."""
    return COX_HISTOGRAM_PART * _moment_norm(design) / float(np.sqrt(norm_squared(bins, private=True)))


def private_outline(design: Design, bins: int) -> tuple[StepShape, ...]:
    """Shapes of step 0 and of the scores; norms are proved in the module's head."""
    p, norm = design.size, _moment_norm(design) * float(np.hypot(1, COX_HISTOGRAM_PART))
    first = StepShape("moments", p * (p + 1) // 2 + 2 * bins, norm, COX_PRIVATE_WEIGHTS[0], norm)
    scores = (StepShape(f"score-{k}", p - 1, 1.0, w, 1.0) for k, w in enumerate(COX_PRIVATE_WEIGHTS[1:], start=1))
    return (first, *scores)


def first_private_rows(design: Design, x: Array, left: Left, bins: int) -> Array:
    """[n, outline[0].size]; zero for those left out. x: [n, p] by `private_scaling`."""
    z, radius = x @ coding(design), _radius(design)
    norms = np.linalg.norm(z[:, 1:], axis=1)
    z[:, 1:] *= np.minimum(1.0, radius / np.maximum(norms, radius))[:, None]
    i, j = np.triu_indices(design.size)
    moments = z[:, i] * z[:, j] * moment_factors(design.size) * (left.bin >= 0)[:, None]
    histogram = histogram_factor(design, bins) * rows(left.bin, bins, private=True)
    return np.hstack([moments, placed(histogram, np.where(left.event, 0, 1), 2)])


@dataclass(frozen=True, slots=True)
class ScoreAsked:
    """`coefficients` [q] over z; `directions` [q, q]; `hazards` [bins], 0 where a bin is not looked at; `centres`
    [bins, q] of a = A z."""

    coefficients: Array
    directions: Array
    hazards: Array
    centres: Array

    def parameters(self) -> Array:
        return np.concatenate(
            [self.coefficients, self.directions.ravel(), self.hazards, self.centres.ravel()], dtype=np.float64
        )


def score_size(columns: int, bins: int) -> int:
    """How many parameters a score is asked with."""
    return columns + columns**2 + bins * (1 + columns)


def read_score(parameters: Array, columns: int, bins: int) -> ScoreAsked:
    """Any finite numbers, cut to where products stay finite."""
    ends = np.cumsum([columns, columns**2, bins])
    b, a, hazards, centres = np.split(parameters, ends)
    most = COX_LARGEST_DIRECTION
    return ScoreAsked(
        np.clip(b, -most, most),
        np.clip(a, -most, most).reshape(columns, columns),
        np.clip(hazards, 0.0, most),
        np.clip(centres, -most, most).reshape(bins, columns),
    )


@dataclass(frozen=True, slots=True)
class Scored:
    """What a score makes of columns z [n, q]. `moved` [n, q]: a; `relative` [n]: e^(b z); `weight` [n]: w."""

    moved: Array
    relative: Array
    weight: Array


def scored(z: Array, asked: ScoreAsked) -> Scored:
    reach = COX_LARGEST_PRIVATE_EXPONENT
    relative = np.exp(np.clip(z @ asked.coefficients, -reach, reach))
    moved = z @ asked.directions.T
    return Scored(moved, relative, 1 / np.maximum(1.0, _longest(moved, relative, asked)))


def _so_far(asked: ScoreAsked) -> tuple[Array, Array]:
    """Cumulated hazards [bins + 1] and hazards times centres [bins + 1, q], from 0."""
    zero = np.zeros((1, asked.centres.shape[1]))
    summed = np.vstack([zero, np.cumsum(asked.hazards[:, None] * asked.centres, axis=0)])
    return np.concatenate([[0.0], np.cumsum(asked.hazards)]), summed


def _longest(moved: Array, relative: Array, asked: ScoreAsked) -> Array:
    """[n] B(z). |u| is convex in the part of a bin, so the ends of bins are all that has to be looked at."""
    hazard, summed = _so_far(asked)
    square, e = np.sum(moved**2, axis=1)[:, None], relative[:, None]
    along, lengths = e * (moved @ summed.T), np.sum(summed**2, axis=1)
    ended = (e * hazard) ** 2 * square - 2 * (e * hazard) * along + e**2 * lengths
    longest = ended.max(axis=1)
    looked = asked.hazards > 0
    to_centre, centre = (moved @ asked.centres.T)[:, looked], np.sum(asked.centres**2, axis=1)[looked]
    for at in (slice(None, -1), slice(1, None)):  # an event at the start of a bin, at its end
        left = 1 - e * hazard[at][looked]
        across = np.sum(summed[at] * asked.centres, axis=1)[looked]
        gap = e**2 * lengths[at][looked] - 2 * e * across + centre
        event = left**2 * square + 2 * left * (along[:, at][:, looked] - to_centre) + gap
        longest = np.maximum(longest, event.max(axis=1, initial=0.0))
    return np.asarray(np.sqrt(np.maximum(longest, 0.0)))


def score_rows(design: Design, x: Array, left: Left, asked: ScoreAsked) -> Array:
    """[n, q], none longer than 1; zero for those left out. x: [n, p] by `private_scaling`."""
    z = (x @ coding(design))[:, 1:]
    found, at = scored(z, asked), np.maximum(left.bin, 0)
    hazard, summed = _so_far(asked)
    passed = hazard[at] + left.part * asked.hazards[at]
    centred = summed[at] + (left.part * asked.hazards[at])[:, None] * asked.centres[at]
    event = left.event & (asked.hazards[at] > 0)
    u = (event - found.relative * passed)[:, None] * found.moved
    u += found.relative[:, None] * centred - event[:, None] * asked.centres[at]
    u *= (found.weight * (left.bin >= 0))[:, None]
    # never active but where huge parameters cancelled to fewer digits than a bound needs
    return np.asarray(u / np.maximum(1.0, np.linalg.norm(u, axis=1))[:, None])
