"""Records and pictures out of gradients, by their closed form where there is one.

One patient: the gradient of a logistic or softmax model is residual times (1, x), so x is the gradient over its
intercept's entry. Several: totals at several coefficients are more equations than unknowns, solved by least squares.
Sources: Phong et al. 2018, section 3 (one layer); Zhu, Liu, Han 2019 and Geiping et al. 2020 (by optimisation);
Fowl et al. 2022 and Boenisch et al. 2023 (rows that only one picture feeds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, linear_sum_assignment
from scipy.special import expit

from flute.algorithms.contract import Describe, LogisticRegression, Setting
from flute.algorithms.design import Design, Scaling, bounds, design_for, unit_scaling
from flute.algorithms.private_rows import coding, private_scaling
from flute.attacks.chance import Chance
from flute.attacks.figures import dp_success, mean
from flute.attacks.records import by_guess, recovered
from flute.attacks.releases import Carried, Seen, Subject, longest_asks, protected, unprotected
from flute.attacks.trial import Found, Trial
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.spec import NeuralNetwork
from flute.defaults.attacks import DRY_WORLDS
from flute.errors import MisuseError

_NEARLY_ZERO = 1e-12
_STARTS = 12
"""Random starts of the least squares over rounds; the best is kept."""
_WANDERING = 3.0
"""Deviation of a start's log odds of an outcome."""


# --- one patient of a study --------------------------------------------------------------------


def record(spec: LogisticRegression, setting: Setting, seen: list[Seen]) -> dict[str, float]:
    """Field to value of the one patient whose rows the sums are, read off the first gradient.

    Private mode: (y - 1/2) z of the first step tells the outcome, the second step's w (y - p) A z the rest, since A
    is sent in clear (`longest_asks`: coefficients of 0, where no residual is nothing). Exact mode: (y - p) x.
    Raises: MisuseError: fewer than two steps of a private question, or none of an exact one.
    """
    design = design_for(spec.predictors, setting)
    p = design.size
    if len(seen) < (2 if setting.mode == "private" else 1):
        raise MisuseError("A record is read off the first gradient; there is none yet.")
    if setting.mode == "exact":
        gradient = seen[0].total[2 : 2 + p]
        return values_of(spec, design, unit_scaling(design), over_first(gradient), gradient[0])
    halves = seen[0].total[-p:]
    turned = seen[1].parameters[p:].reshape(p, p)
    z = np.linalg.pinv(turned) @ seen[1].total
    code = coding(design)
    x = np.linalg.solve(code.T, over_first(z) * code[0, 0])
    return values_of(spec, design, private_scaling(design), x, halves[0])


def over_first(gradient: Array) -> Array:
    """(1, x) from residual times (1, x), in whatever unit; NaN where the residual is nothing."""
    if abs(gradient[0]) < _NEARLY_ZERO:
        return np.full_like(gradient, math.nan)
    return np.asarray(gradient / gradient[0])


def values_of(
    spec: LogisticRegression | NeuralNetwork, design: Design, scaling: Scaling, x: Array, residual: float
) -> dict[str, float]:
    """x [p] over the design's columns to the values that people wrote; a number after its logarithm."""
    found = {spec.outcome: float(residual > 0)}
    for used in design.predictors:
        name, kind = used.variable.name, used.variable.kind
        at = [
            i for i, c in enumerate(design.columns) if c.variable == name and c.kind in ("number", "binary", "level")
        ]
        if kind == "number":
            number = [v.variable.name for v in design.numbers].index(name)
            found[name] = float(np.clip(scaling.centres[number] + scaling.spreads[number] * x[at[0]], *bounds(used)))
        elif kind == "binary":
            found[name] = float(x[at[0]] > 0.5)
        else:
            levels = [design.columns[i].level for i in at]
            reference = next(k for k in range(len(used.variable.levels)) if k not in levels)
            best = int(np.argmax(x[at])) if np.isfinite(x[at]).all() else 0
            found[name] = float(levels[best] if x[at[best]] > 0.5 else reference)
    return found


def described(setting: Setting, names: tuple[str, ...], bins: int, total: Array) -> dict[str, float]:
    """The same from the one vector of a `describe` question: values on their range, and the fullest level."""
    found, start = {}, 0
    for name in names:
        used = setting.variables[name]
        v = used.variable
        if v.kind == "number":
            place = float(np.clip((total[start + bins] + 1) / 2, 0.0, 1.0))
            value = v.low + place * (v.high - v.low)
            found[name], start = (math.log(value) if used.log else value), start + bins + 3
        else:
            levels = max(2, len(v.levels))
            found[name], start = float(np.argmax(total[start : start + levels])), start + levels + 1
    return found


# --- several patients, several rounds ------------------------------------------------------------


def rows_from_rounds(gradients: Array, coefficients: Array, count: int, chance: Chance) -> tuple[Array, Array]:
    """Rows (1, x) [count, p] and outcomes [count] whose gradients sum to what was seen, as nearly as can be found.

    gradients, coefficients [rounds, p]: sums of (y - p) (1, x), and what each was taken at. Outcomes are let run
    between 0 and 1. There are more equations than unknowns from count rounds on, about.
    """
    size = gradients.shape[1]

    def residuals(unknown: Array) -> Array:
        x, y = _unpacked(unknown, count, size)
        fitted = expit(np.clip(x @ coefficients.T, -50, 50))
        return np.asarray((((y[:, None] - fitted).T @ x) - gradients).ravel())

    best, least = np.zeros(count * size), math.inf
    for _ in range(_STARTS):
        start = np.concatenate([chance.normal(count * (size - 1)), _WANDERING * chance.normal(count)])
        found = least_squares(residuals, start, method="trf", max_nfev=200)
        if found.cost < least:
            best, least = found.x, float(found.cost)
        if least < 1e-18:
            break
    x, y = _unpacked(best, count, size)
    return x, y


def _unpacked(unknown: Array, count: int, size: int) -> tuple[Array, Array]:
    rows = unknown[: count * (size - 1)].reshape(count, size - 1)
    return np.column_stack([np.ones(count), rows]), np.asarray(expit(unknown[count * (size - 1) :]))


def matched(found: Array, truth: Array) -> Array:
    """`found` [n, d] in the order that fits `truth` [n, d] best: nobody says which record is whose."""
    apart = ((found[:, None, :] - truth[None, :, :]) ** 2).sum(axis=2)
    _, order = linear_sum_assignment(apart.T)
    return np.asarray(found[order])


# --- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerGradient:
    """Of one linear layer under softmax: weights [classes, pixels], bias [classes], summed over a batch."""

    weights: Array
    bias: Array


def layer_gradient(weights: Array, bias: Array, pictures: Array, labels: NDArray[np.int64]) -> LayerGradient:
    """What a model of one layer sends of pictures [n, pixels]: cross entropy's gradient, summed."""
    scores = pictures @ weights.T + bias
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    residual = chances / chances.sum(axis=1, keepdims=True) - np.eye(len(bias))[labels]
    return LayerGradient(residual.T @ pictures, residual.sum(axis=0))


def picture(seen: LayerGradient) -> Array:
    """The one picture [pixels] of a batch: the row of the largest bias gradient, over it. Exact without noise."""
    row = int(np.argmax(np.abs(seen.bias)))
    if abs(seen.bias[row]) < _NEARLY_ZERO:
        return np.zeros(seen.weights.shape[1])
    return np.asarray(seen.weights[row] / seen.bias[row])


def pictures_of_batch(seen: LayerGradient, labels: NDArray[np.int64]) -> Array:
    """The pictures [n, pixels] of a batch with labels all different, some label absent, at weights of zero.

    Every chance is 1/classes there, so an absent label's row is the sum of all pictures over classes; what a present
    label's row lacks of it is that picture. A coordinator can choose such weights.
    """
    classes = len(seen.bias)
    absent = next((k for k in range(classes) if k not in labels), None)
    if absent is None or len(set(labels.tolist())) != len(labels):
        raise MisuseError("The closed form needs labels that are all different, and one that nobody has.")
    return np.asarray(seen.weights[absent] - seen.weights[labels])


def psnr(found: Array, truth: Array) -> float:
    """Peak signal to noise ratio in dB of pixels in [0, 1], what was found cut to that range; 99 at most."""
    error = float(((np.clip(np.nan_to_num(found), 0.0, 1.0) - truth) ** 2).mean())
    return 99.0 if error < 1e-10 else min(99.0, -10 * math.log10(error))


# --- the trial ---------------------------------------------------------------------------------------


def reconstruction(trial: Trial) -> Found:
    """The record of a patient who is alone in the sums, read off the first gradient or vector."""
    subject, worlds = trial.subject, trial.times(DRY_WORLDS // 4)
    asks = longest_asks(subject)[:2]
    hits: tuple[list[float], list[float]] = [], []
    for world in range(worlds):
        chance = trial.chance.child(f"record {world}")
        patient = trial.patients(1, chance)
        there = dict.fromkeys(subject.hubs, patient.where(np.zeros(1, dtype=np.bool_)))
        there[subject.hubs[0]] = patient
        carried = (
            unprotected(subject, there, asks=asks, steps=len(asks)),
            protected(subject, there, chance, asks=asks, steps=len(asks)),
        )
        for kept, seen in zip(hits, carried, strict=True):
            kept.append(_fields_read(subject, seen, patient))
    clear, covered = (mean(np.array(kept), trial.chance.child("judged")) for kept in hits)
    guesses = [by_guess(subject.setting.variables[name]) for name in subject.fields]
    promised = [dp_success(guess, subject.epsilon, subject.agreement.delta) for guess in guesses]
    exact = subject.agreement.mode == "exact"
    return Found(clear, covered, None if exact else float(np.mean(promised)), {})


def _fields_read(subject: Subject, carried: Carried, patient: Dataset) -> float:
    what, setting = subject.question.what, subject.setting
    if isinstance(what, LogisticRegression):
        found = record(what, setting, list(carried.steps))
    elif isinstance(what, Describe):
        found = described(setting, what.variables, what.bins, carried.steps[0].total)
    else:
        found = {}
    return float(np.mean(list(recovered(found, patient, setting).values())))
