"""Means, covariances, Pearson correlations and principal components of numbers, in one vector.

Complete cases: a patient who lacks one of the variables is left out. With x = [1, v_1 ... v_p], v_j the number mapped
from its public range to [-1, 1] (a 0/1 variable to -1 and 1), a patient's row is the upper triangle of x x', its
diagonal divided by sqrt 2, and a count of those left out: a norm of |x|^2 / sqrt 2 <= (1 + p) / sqrt 2.

All estimates are smooth functions of M = sum of x x'. Each has, at the estimate, an influence x' Q x of one patient;
noise of deviation sigma on every coordinate then moves it by sigma sqrt 2 |Q|_F over n (delta method).
Noised, M is moved to the nearest matrix that some patients could have (no negative eigenvalue).

Sources: Fisher 1921 (interval by z); Dwork, Talwar, Thakurta, Zhang 2014, "Analyze Gauss" (a noised second-moment
matrix and its components); Hampel 1974 (influence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.stats import norm, t

from flute.algorithms.contract import (
    Ask,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    Spec,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import bounds, known, present, values
from flute.algorithms.linear import or_none, read_parameters
from flute.algorithms.scores import Z_95
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.summaries import CONSTANT_VARIANCE
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.summaries.blocks import estimate, interval, require_kind


class Correlation(Spec, frozen=True, tag="correlation"):
    """Covariances, correlations and principal components of numbers and 0/1 variables; logarithms where the study
    says so."""

    variables: Annotated[tuple[Name, ...], Meta(min_length=2, max_length=32)]


class CorrelationAlgorithm:
    """Numbers as they enter a model: after the logarithm, without scale."""

    name: ClassVar[str] = "correlation"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "How many patients have all the variables and how many were left out; means, variances, covariances, "
            "correlations and principal components, which follow from sums of products of two variables."
        ),
        bounded_by=(
            "Every number is mapped from its public range to [-1, 1]; the products of one patient then have a norm "
            "that follows from the number of variables alone, and nothing is clipped away."
        ),
        leaked_otherwise="Nothing in private mode. In exact mode the same sums are opened without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Correlation, setting: Setting) -> None:
        """Raises: StudyFileError."""
        for name in spec.variables:
            require_kind("variables", name, setting, ("number", "binary"))
            if spec.variables.count(name) > 1:
                raise StudyFileError(f"variables: {name!r} stands twice; keep one.")

    def fields(self, spec: Correlation, setting: Setting) -> tuple[str, ...]:
        return spec.variables

    def outline(self, spec: Correlation, setting: Setting) -> tuple[StepShape, ...]:
        p = len(spec.variables) + 1
        return (StepShape("products", p * (p + 1) // 2 + 1, float(p / np.sqrt(2)), 1.0, 1.0),)

    def update(self, spec: Correlation, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        read_parameters(parameters, 0, step, 1)
        there = present(spec.variables, setting, data)
        x = np.column_stack([np.ones(len(data)), *(_unit(known(n, setting), data) for n in spec.variables)])
        x = np.where(there[:, None], x, 0.0)
        i, j = np.triu_indices(x.shape[1])
        return np.column_stack([x[:, i] * x[:, j] * _weights(x.shape[1]), ~there])

    def cells(self, spec: Correlation, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Complete cases, those left out, and both values of every 0/1 variable."""
        there = present(spec.variables, setting, data)
        counted = [there.sum(), (~there).sum()]
        for name in spec.variables:
            if known(name, setting).variable.kind == "binary":
                ones = int((values(known(name, setting), data)[there] == 1).sum())
                counted += [ones, there.sum() - ones]
        return np.array(counted, dtype=np.int64)

    def next(
        self, spec: Correlation, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        private = setting.mode == "private"
        moments = _moments(spec, setting, history[0], private=private)
        left = float(history[0].total[-1])
        return Finished(
            {
                "names": list(spec.variables),
                "left_out": estimate(max(left if private else round(left), 0.0), moments.sigma),
                **_result(spec, moments),
            }
        )


def _reach(used: StudyVariable) -> tuple[float, float]:
    return (0.0, 1.0) if used.variable.kind == "binary" else bounds(used)


def _unit(used: StudyVariable, data: Dataset) -> Array:
    """[n] in [-1, 1], NaN where missing."""
    low, high = _reach(used)
    return np.clip(2 * (values(used, data) - low) / (high - low) - 1, -1.0, 1.0)


def _weights(p: int) -> Array:
    i, j = np.triu_indices(p)
    return np.where(i == j, 1 / np.sqrt(2), 1.0)


@dataclass(frozen=True, slots=True)
class _Moments:
    """`matrix` [p + 1, p + 1]: mean of x x'. `n`, not below 0. `middles`, `halves` [p]: of the public ranges."""

    n: float
    matrix: Array
    middles: Array
    halves: Array
    sigma: float

    @property
    def mean(self) -> Array:
        return np.asarray(self.matrix[0, 1:])

    @property
    def covariance(self) -> Array:
        """[p, p] over [-1, 1], divisor n; what is rounding beside the range is 0."""
        found = self.matrix[1:, 1:] - np.outer(self.mean, self.mean)
        varies = np.diag(found) > CONSTANT_VARIANCE
        return np.where(np.outer(varies, varies), found, 0.0)

    def noise(self, influence: Array) -> float:
        """Deviation of the noise in an estimate with the influence x' Q x, Q symmetric."""
        return float(self.sigma * np.sqrt(2) * np.linalg.norm(influence) / self.n) if self.n > 0 else float("nan")


def _moments(spec: Correlation, setting: Setting, opened: Opened, *, private: bool) -> _Moments:
    p = len(spec.variables) + 1
    matrix = np.zeros((p, p))
    matrix[np.triu_indices(p)] = opened.total[:-1] / _weights(p)
    matrix += np.triu(matrix, 1).T
    if private:
        eigenvalues, vectors = np.linalg.eigh(matrix)
        matrix = (vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T
    n = float(matrix[0, 0]) if private else float(np.round(matrix[0, 0]))
    ends = np.array([_reach(known(name, setting)) for name in spec.variables])
    halves = (ends[:, 1] - ends[:, 0]) / 2
    return _Moments(n, matrix / max(n, 1e-300), ends.mean(axis=1), halves, opened.sigma)


def _symmetric(a: Array, b: Array) -> Array:
    return np.asarray((np.outer(a, b) + np.outer(b, a)) / 2)


def _result(spec: Correlation, m: _Moments) -> dict[str, Any]:
    p = len(spec.variables)
    constant = np.eye(p + 1)[0]
    shown: dict[str, Any] = {"n": estimate(m.n, m.sigma * np.sqrt(2))}
    if m.n < 2:
        return shown | dict.fromkeys(("means", "sds", "covariance", "correlation", "components"))
    centred = np.hstack([-m.mean[:, None], np.eye(p)])  # rows: x -> v_j - mean_j
    factor, covariance = m.n / (m.n - 1), m.covariance
    ones = np.outer(constant, constant)
    products = [[_symmetric(a, b) - c * ones for b, c in zip(centred, row, strict=True)]
                for a, row in zip(centred, covariance, strict=True)]  # fmt: skip
    deviations = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    shown["means"], shown["sds"] = {}, {}
    for j, name in enumerate(spec.variables):
        half, sd = m.halves[j], deviations[j] * np.sqrt(factor)
        noise = half * m.noise(_symmetric(constant, centred[j]))
        mean = m.middles[j] + half * m.mean[j]
        shown["means"][name] = interval(mean, half * sd / np.sqrt(m.n), noise, float(t.ppf(0.975, m.n - 1)))
        sd_noise = m.noise(products[j][j]) / (2 * deviations[j]) if deviations[j] > 0 else float("nan")
        sampling = half * sd / np.sqrt(2 * (m.n - 1))
        shown["sds"][name] = interval(half * sd, sampling, half * sd_noise if m.sigma else 0.0, Z_95, low=0.0)
    scale = np.outer(m.halves, m.halves) * factor
    told = covariance * scale
    noises = np.array([[float(scale[i, j]) * m.noise(products[i][j]) for j in range(p)] for i in range(p)])
    shown["covariance"] = _covariances(told, noises, m.n)
    return shown | _standardised(m, centred, covariance, deviations, scale, products)


def _covariances(told: Array, noises: Array, n: float) -> dict[str, Any]:
    """Chance as it moves covariances of normal values. Source: Anderson 2003, theorem 3.4.4."""
    variances = np.diag(told)
    sampling = np.sqrt((np.outer(variances, variances) + told**2) / (n - 1))
    half = Z_95 * np.hypot(sampling, noises)
    shown = {"values": told, "low": told - half, "high": told + half, "sampling_se": sampling, "noise_se": noises}
    return {name: part.tolist() for name, part in shown.items()}


def _standardised(
    m: _Moments, centred: Array, covariance: Array, deviations: Array, scale: Array, products: list[list[Array]]
) -> dict[str, Any]:
    """Correlations and both kinds of principal components."""
    varies = deviations > 0
    z = centred / np.where(varies, deviations, np.inf)[:, None]
    divisors = np.where(varies, deviations, np.inf)
    r = np.clip(covariance / np.outer(divisors, divisors), -1.0, 1.0)
    r[np.diag_indices_from(r)] = 1.0
    squares = [np.outer(row, row) for row in z]
    influences = [
        [_symmetric(a, b) - r[i, j] / 2 * (squares[i] + squares[j]) for j, b in enumerate(z)] for i, a in enumerate(z)
    ]
    pairs = [
        [
            _correlation(m, float(r[i, j]), influences[i][j], _symmetric(a, b))
            if i != j and varies[i] and varies[j]
            else None
            for j, b in enumerate(z)
        ]
        for i, a in enumerate(z)
    ]
    of_covariance = [[s * q for s, q in zip(a, b, strict=True)] for a, b in zip(scale, products, strict=True)]
    return {
        "correlation": pairs,
        "components": {
            "covariance": _components(m, covariance * scale, of_covariance),
            "correlation": _components(m, r, influences) if varies.all() else None,
        },
    }


def _correlation(m: _Moments, r: float, influence: Array, null: Array) -> dict[str, Any]:
    """Interval by Fisher's z with the noise's variance added. null: influence where the true correlation is 0.

    p: Student's t where there is no noise; else normal, of r with the noise it has where the true one is 0."""
    noise, room, degrees = m.noise(influence), 1 - r * r, m.n - 2
    shown: dict[str, Any] = {"value": r, "low": None, "high": None, "p": None, "se": None, "sampling_se": None}
    shown["noise_se"] = noise
    if degrees < 2:
        return shown
    if m.sigma:
        shown["p"] = float(2 * norm.sf(abs(r) / np.hypot(1 / np.sqrt(m.n - 1), m.noise(null))))
    elif room >= CONSTANT_VARIANCE:
        shown["p"] = float(2 * t.sf(abs(r) * np.sqrt(degrees / room), degrees))
    if room < CONSTANT_VARIANCE:  # noise has taken it to its bound: it says nothing about how far it is from there
        return shown | ({"low": -1.0, "high": 1.0} if m.sigma else {})
    sampling = float(1 / np.sqrt(m.n - 3))
    total, centre = float(np.hypot(sampling, noise / room)), float(np.arctanh(r))
    return shown | {
        "low": float(np.tanh(centre - Z_95 * total)),
        "high": float(np.tanh(centre + Z_95 * total)),
        "se": room * total,
        "sampling_se": room * sampling,
    }


def _components(m: _Moments, matrix: Array, influences: list[list[Array]]) -> dict[str, Any]:
    """Eigenvalues, largest first, and loadings [component][variable], the largest entry positive, with first-order
    errors. Chance as it moves eigenvalues of normal values' covariances. Source: Anderson 1963; Magnus 1985."""
    values_, vectors = np.linalg.eigh(matrix)
    values_, vectors = np.maximum(values_[::-1], 0.0), vectors[:, ::-1]
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(len(matrix))]
    vectors = vectors * np.where(largest < 0, -1.0, 1.0)
    half = np.einsum("ia,ijkl->ajkl", vectors, np.array(influences))
    turned = np.einsum("jb,ajkl->abkl", vectors, half)  # influences of the matrix in its own directions
    noises = [m.noise(turned[k, k]) for k in range(len(values_))]
    total = float(values_.sum())
    whole = np.einsum("aakl->kl", turned)
    chance = np.sqrt(2 / (m.n - 1))
    return {
        "eigenvalues": [
            interval(v, v * chance, e, Z_95, low=0.0) for v, e in zip(values_.tolist(), noises, strict=True)
        ],
        "shares": (values_ / total).tolist() if total > 0 else None,
        "shares_noise_se": [m.noise(turned[k, k] - v / total * whole) / total for k, v in enumerate(values_.tolist())]
        if total > 0
        else None,
        "loadings": vectors.T.tolist(),
        "loadings_noise_se": [_loading_noises(m, turned[:, k], values_, vectors, k) for k in range(len(values_))],
    }


def _loading_noises(m: _Moments, turned: Array, eigenvalues: Array, vectors: Array, k: int) -> list[float | None]:
    """Of one component: the others mix in by what the noise turns, over how far their eigenvalues are. None where
    two eigenvalues are the same."""
    gaps = eigenvalues[k] - eigenvalues
    gaps[k] = np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = np.einsum("ij,jkl->ikl", vectors / gaps, turned)
        return or_none(np.array([m.noise(one) for one in mixed]))
