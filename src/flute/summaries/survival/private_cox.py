"""Private Cox regression where totals are opened: from noised sums to hazard ratios. No patient's row in it.

Step 0 gives second moments of z and a life table. From them follow directions A that make z uncorrelated, and a
made-up population (`algorithms.private_population`). Where hazards are proportional with ratios b, that population
under that life table has hazards L_k(b) and numbers at risk, hence the mean U(b) of every score as it is asked.
Every score opened, U_t at b_t, is compared with U(b) under its noise, and b is the best of all of them together.
At b_t = b the mean is 0 whatever the population is, so what the population gets wrong matters by how far b_t is from
b: a score counts with that error in its variance, and the last ones count most.

Errors: noise (and what the population may get wrong) from the scores' variances; sampling, of the weighted score,
from its foreseeable variation, u's variance given z, over the same population (Andersen and Gill 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flute.algorithms.contract import Opened
from flute.algorithms.design import Design
from flute.algorithms.prefix import Counts, opened_counts
from flute.algorithms.private_population import made_up_rows
from flute.algorithms.private_rows import coding, intercept, moment_factors
from flute.data.variables import Array
from flute.defaults.summaries import (
    COX_FLOOR,
    COX_LARGEST_PRIVATE_EXPONENT,
    COX_POPULATION_ERROR,
    COX_PRIOR_SD,
    COX_PRIVATE_ITERATIONS,
    COX_SATURATION,
    DROWNED,
)
from flute.summaries.survival.private_cox_rows import (
    ScoreAsked,
    Scored,
    histogram_factor,
    private_outline,
    read_score,
    scored,
)


@dataclass(frozen=True, slots=True)
class Table:
    """Step 0, opened. `moments` [p, p]: mean of z z', positive definite. `informed`: part of it that is no floor.
    `hazards` [bins]: of all patients, 0 beyond where noise lets them be told; `followed` [bins]: patients times part
    of the bin."""

    moments: Array
    informed: float
    events: Counts
    ends: Counts
    hazards: Array
    followed: Array


def opened_table(design: Design, opened: Opened, bins: int) -> Table:
    p, factor = design.size, histogram_factor(design, bins)
    products, events, ends = np.split(opened.total, np.cumsum([p * (p + 1) // 2, bins]))
    counts = [opened_counts(part / factor, opened.sigma / factor, private=True) for part in (events, ends)]
    noisy = np.zeros((p, p))
    noisy[np.triu_indices(p)] = products / moment_factors(p)
    noisy += np.triu(noisy, 1).T
    eigenvalues, vectors = np.linalg.eigh(noisy)
    floor = max(COX_FLOOR * opened.sigma / (np.sqrt(2) / 4) * np.sqrt(p), 1e-9)
    lifted = np.maximum(eigenvalues, floor)
    matrix = (vectors * lifted) @ vectors.T
    informed = float(np.mean(np.clip(eigenvalues, 0.0, None) / lifted * (eigenvalues > floor)))
    hazards, followed = _hazards(*counts)
    people = float(matrix[0, 0]) / intercept(design) ** 2
    return Table(matrix / people, informed, counts[0], counts[1], hazards, followed)


def _hazards(events: Counts, ends: Counts) -> tuple[Array, Array]:
    """Of each bin, constant over so many bins that their events stand out of the noise."""
    bins = len(events.raw)
    leaving = events.prefix + ends.prefix
    at_start = leaving[-1] - np.concatenate([[0.0], leaving[:-1]])
    noise = np.hypot(events.prefix_noise_sds()[-1], ends.prefix_noise_sds()[-1])
    followed = np.maximum(at_start - np.diff(leaving, prepend=0.0) / 2, 0.0)
    drowned = np.flatnonzero(followed <= max(DROWNED * noise, 0.5))
    reach = int(drowned[0]) if len(drowned) else bins
    hazards = np.zeros(bins)
    start = 0
    for end in range(1, reach + 1):
        weights = (np.arange(bins) >= start) & (np.arange(bins) < end)
        died = float(events.raw[weights].sum())
        if died > max(DROWNED * events.noise_sd(weights.astype(np.float64)), 0.5) or end == reach:
            hazards[start:end] = max(died, 0.0) / max(float(followed[weights].sum()), 1.0)
            start = end
    return hazards, np.where(np.arange(bins) < reach, followed, 0.0)


@dataclass(frozen=True, slots=True)
class Population:
    """Made-up rows z [rows, q] under the life table."""

    z: Array
    table: Table

    def course(self, coefficients: Array) -> Course:
        """What happens to it at these log hazard ratios, bin by bin: hazards that give the life table's."""
        reach = COX_LARGEST_PRIVATE_EXPONENT
        relative = np.exp(np.clip(self.z @ coefficients, -reach, reach))
        bins = len(self.table.hazards)
        hazards, left, passed = np.zeros(bins), np.empty((len(self.z), bins)), np.zeros(len(self.z))
        for k, told in enumerate(self.table.hazards):
            own = told * _over(np.exp(-passed), relative)
            own = told * _over(np.exp(-passed - own * relative / 2), relative)
            hazards[k] = own
            left[:, k] = np.exp(-passed - own * relative / 2)
            passed = passed + own * relative
        left *= self.table.followed / np.maximum(left.sum(axis=0), 1e-300)
        return Course(self.z, hazards, left, left * relative[:, None] * hazards)


def _over(surviving: Array, relative: Array) -> float:
    """What one's hazard is multiplied with to give that of somebody with z = 0."""
    return float(surviving.sum() / max(float(surviving @ relative), 1e-300))


@dataclass(frozen=True, slots=True)
class Course:
    """`hazards` [bins]: at z = 0. `followed`, `expected` [rows, bins]: patients times part of the bin, events."""

    z: Array
    hazards: Array
    followed: Array
    expected: Array


def asked_at(coefficients: Array, directions: Array, population: Population) -> ScoreAsked:
    """The score to ask at these coefficients; centres and weights follow from each other."""
    course = population.course(coefficients)
    moved, weight = population.z @ directions.T, np.ones(len(population.z))
    asked = ScoreAsked(coefficients, directions, course.hazards, _means(course.expected, weight, moved))
    for _ in range(2):
        weight = scored(population.z, asked).weight
        asked = ScoreAsked(coefficients, directions, course.hazards, _means(course.expected, weight, moved))
    return asked


def _means(expected: Array, weight: Array, values: Array) -> Array:
    """[bins, q] of values [rows, q] by expected events, weighted."""
    weighted = expected * weight[:, None]
    return np.asarray(weighted.T @ values / np.maximum(weighted.sum(axis=0), 1e-300)[:, None])


@dataclass(frozen=True, slots=True)
class _View:
    """One score as asked, over the population."""

    asked: ScoreAsked
    found: Scored

    def mean(self, course: Course) -> Array:
        """[q] U, where hazards are as in `course`."""
        asked, found = self.asked, self.found
        gap = course.expected * (asked.hazards > 0) - course.followed * found.relative[:, None] * asked.hazards
        gap *= found.weight[:, None]
        return np.asarray(gap.sum(axis=1) @ found.moved - gap.sum(axis=0) @ asked.centres)

    def slope(self, course: Course) -> Array:
        """[q, q] of U by the coefficients of `course`, hazards following."""
        expected = course.expected * (self.asked.hazards > 0)
        means = _means(expected, np.ones(len(course.z)), course.z)
        g = expected * self.found.weight[:, None]
        moved, z = self.found.moved, course.z
        own = moved.T @ (g.sum(axis=1)[:, None] * z) - (moved.T @ g) @ means
        across = self.asked.centres.T @ (g.T @ z - g.sum(axis=0)[:, None] * means)
        return np.asarray(own - across)

    def variation(self, course: Course) -> Array:
        """[q, q] covariance of a score's total over the patients."""
        g = course.expected * (self.asked.hazards > 0) * (self.found.weight**2)[:, None]
        moved, centres = self.found.moved, self.asked.centres
        cross = moved.T @ g @ centres
        whole = moved.T @ (g.sum(axis=1)[:, None] * moved) - cross - cross.T
        return np.asarray(whole + centres.T @ (g.sum(axis=0)[:, None] * centres))


@dataclass(frozen=True, slots=True)
class PrivateCoxFit:
    """Coefficients over x by `private_scaling`, without intercept. `noise`, `sampling` [q, q]: covariances of what
    noise, and what chance in who was a patient, leave. `hazards` [bins]: of a patient with x = 0. `centre`,
    `spread`: of the log hazard against x = 0 of those who have the event. `informed`: from 0 to 1, the part of the
    moments that is no floor, times that of the coefficients that is told better than the prior tells it."""

    coefficients: Array
    noise: Array
    sampling: Array
    hazards: Array
    centre: float
    spread: float
    informed: float
    table: Table


def next_private_cox(design: Design, history: Sequence[Opened], bins: int) -> Array | PrivateCoxFit:
    """The parameters to ask with next, or the fit after the last score. `history`: at least step 0."""
    q = design.size - 1
    table = opened_table(design, history[0], bins)
    population = Population(made_up_rows(design, table.moments)[:, 1:], table)
    asked = [read_score(opened.parameters, q, bins) for opened in history[1:]]
    views = [_View(one, scored(population.z, one)) for one in asked]
    b, spread = _estimate(population, views, history[1:])
    if len(history) < len(private_outline(design, bins)):
        return asked_at(b, _directions(table.moments), population).parameters()
    return _finished(design, population, views[-1], b, spread)


def _directions(moments: Array) -> Array:
    """A [q, q]: makes z uncorrelated, of equal variance."""
    mean = moments[0, 1:] / np.sqrt(moments[0, 0])
    values, vectors = np.linalg.eigh(moments[1:, 1:] - np.outer(mean, mean))
    values = np.maximum(values, 1e-6 * max(float(values[-1]), 1e-300))
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T / (COX_SATURATION * np.sqrt(len(mean))))


def _estimate(population: Population, views: Sequence[_View], opened: Sequence[Opened]) -> tuple[Array, Array]:
    """Coefficients over z [q], best of all scores, and their covariance but for sampling, by Gauss and Newton."""
    q = population.z.shape[1]
    b, prior = views[-1].asked.coefficients if views else np.zeros(q), np.eye(q) / COX_PRIOR_SD**2
    precision = prior
    for _ in range(COX_PRIVATE_ITERATIONS if views else 0):
        course = population.course(b)
        precision, pull = prior, -prior @ b
        for view, one in zip(views, opened, strict=True):
            slope, away = view.slope(course), view.asked.coefficients - b
            variance = one.sigma**2 + COX_POPULATION_ERROR**2 * float(np.sum((slope @ away) ** 2)) / len(b)
            precision = precision + slope.T @ slope / variance
            pull = pull + slope.T @ (one.total - view.mean(course)) / variance
        step = np.linalg.solve(precision, pull)
        b = b + step / max(1.0, float(np.linalg.norm(step)))
    return b, np.asarray(np.linalg.inv(precision))


def _finished(design: Design, population: Population, last: _View, b: Array, spread: Array) -> PrivateCoxFit:
    course, table, code = population.course(b), population.table, coding(design)
    inverse = np.linalg.pinv(last.slope(course))
    sampling = inverse @ last.variation(course) @ inverse.T
    own, shift = code[1:, 1:], float(code[0, 1:] @ b)  # x = 0 is a corner of z, not its origin
    predicted, died = population.z @ b, course.expected.sum(axis=1)
    died = died / max(float(died.sum()), 1e-300)
    centre = float(died @ predicted)
    return PrivateCoxFit(
        own @ b, own @ spread @ own.T, own @ sampling @ own.T, course.hazards * float(np.exp(min(shift, 700.0))),
        centre - shift, float(np.sqrt(died @ (predicted - centre) ** 2)),
        table.informed * float(np.mean(1 - np.minimum(np.diag(spread + sampling) / COX_PRIOR_SD**2, 1.0))), table,
    )  # fmt: skip
