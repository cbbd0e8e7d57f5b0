"""Attacks on a model: was this patient among those it was made from?

The attacker sees the model's margin for a patient (log odds in favour of her true outcome). "loss threshold": whoever
the model fits well was in it (Yeom et al. 2018). "likelihood ratio": models of the attacker's own, with and without
her, say how large her margin is in either case (LiRA; Carlini et al. 2022, Algorithm 1, online).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from flute.algorithms.design import design_for, matrix, raw_scaling
from flute.algorithms.private_rows import private_scaling
from flute.attacks.chance import Chance
from flute.attacks.figures import Mask, Membership, membership
from flute.attacks.releases import protected
from flute.attacks.trial import Found, Trial, spread, told_apart
from flute.data.variables import Array
from flute.defaults.attacks import DRY_MODELS, LOGIT_CAP, NEWTON_STEPS, RIDGE

Margins = Callable[[Mask, Chance], Array]
"""Who is in [patients], and chance, to the margin [patients] of everybody under the model that is made of them."""
_MOST_PATIENTS = 60
"""Of a model in the trial: more patients than that, in or out, make it no easier to attack."""
_SHRUNK = 8.0
"""Shadow models that the variance over all patients counts for, beside a patient's own."""


@dataclass(frozen=True, slots=True)
class Models:
    """inside, margins [models, patients]: who was in which model, and everybody's margin under it."""

    inside: Mask
    margins: Array


def play(margins: Margins, patients: int, models: int, chance: Chance) -> Models:
    """Independent models, each patient in each with a chance of half."""
    inside = chance.coins(models, patients)
    found = np.array([margins(who, chance.child(f"model {number}")) for number, who in enumerate(inside)])
    return Models(inside, np.clip(np.nan_to_num(found), -LOGIT_CAP, LOGIT_CAP))


def loss_threshold(models: Models, chance: Chance) -> Membership:
    """The loss falls as the margin grows, so the margin is the score. Judged on the second half of the models."""
    half = len(models.inside) // 2
    return membership(models.margins[half:], models.inside[half:], chance)


def likelihood_ratio(models: Models, chance: Chance) -> Membership:
    """The first half of the models are the attacker's own, the second half is attacked."""
    half = len(models.inside) // 2
    mine, attacked = models.inside[:half], models.margins[half:]
    with_her, spread_with = _fitted(models.margins[:half], mine)
    without, spread_without = _fitted(models.margins[:half], ~mine)
    scores = _log_density(attacked, with_her, spread_with) - _log_density(attacked, without, spread_without)
    return membership(scores, models.inside[half:], chance)


def _fitted(margins: Array, these: Mask) -> tuple[Array, Array]:
    """Mean and variance [patients] of the margins over the models `these` marks for each patient."""
    count = np.maximum(these.sum(axis=0), 1)
    middle = np.where(these, margins, 0.0).sum(axis=0) / count
    squares = np.where(these, (margins - middle) ** 2, 0.0).sum(axis=0)
    shared = float(squares.sum() / max(1, int(these.sum())))
    return middle, (squares + _SHRUNK * shared) / (count + _SHRUNK) + 1e-12


def _log_density(x: Array, middle: Array, variance: Array) -> Array:
    return np.asarray(-((x - middle) ** 2) / (2 * variance) - np.log(variance) / 2)


# --- an ordinary fit -----------------------------------------------------------------------------


def learnt_by_heart(x: Array, outcome: Array) -> Array:
    """Coefficients [p] of an ordinary logistic regression with next to no penalty, by Newton's method with halving.

    x [n, p], outcome [n] of 0 and 1. With p >= n it fits every patient. Nothing protects her.
    """
    beta = np.zeros(x.shape[1])
    worth = _penalised(x, outcome, beta)
    for _ in range(NEWTON_STEPS):
        p = expit(x @ beta)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(beta))
        step = np.linalg.solve(hessian, x.T @ (outcome - p) - RIDGE * beta)
        for _ in range(30):
            reached = _penalised(x, outcome, beta + step)
            if reached >= worth:
                break
            step = step / 2
        beta, worth = beta + step, max(worth, reached)
    return beta


def _penalised(x: Array, outcome: Array, beta: Array) -> float:
    eta = x @ beta
    return float((outcome * eta - np.logaddexp(0.0, eta)).sum() - RIDGE / 2 * beta @ beta)


def margins(x: Array, outcome: Array, coefficients: Array) -> Array:
    """[n] log odds in favour of each patient's own outcome."""
    return np.asarray((2 * outcome - 1) * (x @ coefficients))


# --- the trial ---------------------------------------------------------------------------------------


def of_a_model(trial: Trial) -> Found:
    """LiRA with shadow models, and the loss threshold beside it."""
    return found_of(trial, *models_played(trial))


def found_of(trial: Trial, clear: Models, covered: Models) -> Found:
    """What both attacks come to on models in clear and on those that the plan releases."""
    chance = trial.chance.child("judged")
    first, second = (likelihood_ratio(models, chance) for models in (clear, covered))
    losses = (loss_threshold(clear, chance), loss_threshold(covered, chance))
    return told_apart(first, second, trial.bound, {"advantage by loss": (losses[0].advantage, losses[1].advantage)})


def models_played(trial: Trial) -> tuple[Models, Models]:
    """Models learnt by heart in clear, and models that the plan releases, of the same patients."""
    spec, subject = trial.model(), trial.subject
    pool = trial.patients(min(max(trial.columns, 8), _MOST_PATIENTS), trial.chance.child("pool"))
    design = design_for(spec.predictors, subject.setting)
    raw, reference = raw_scaling(design), private_scaling(design)
    outcome, x, x_raw = pool.column(spec.outcome), matrix(design, reference, pool), matrix(design, raw, pool)

    def clear(inside: Mask, chance: Chance) -> Array:
        return margins(x, outcome, learnt_by_heart(x[inside], outcome[inside]))

    def covered(inside: Mask, chance: Chance) -> Array:
        released = protected(subject, spread(pool, inside, subject), chance).result
        return margins(x_raw, outcome, np.array(released["raw_coefficients"]))

    models = trial.times(DRY_MODELS, 24, fits=True)
    chances = trial.chance.child("in clear"), trial.chance.child("under the plan")
    return play(clear, len(pool), models, chances[0]), play(covered, len(pool), models, chances[1])
