"""Attacks on the sums that a study opens: was this patient in them?

The attacker knows her record, so it knows the row that she would add at every step. "cosine" compares that with what
it saw and knows nothing else. "likelihood ratio" also knows the records of everybody who might be in, but not who is:
others come and go like coins. Without noise and with fewer people than numbers it then finds out with certainty,
by linear algebra. "difference" has two releases of the same cohort, the second with her.
Sources: Nasr, Shokri, Houmansadr 2019 (gradients over rounds); Homer et al. 2008 and Sankararaman et al. 2009 (a
person in sums); Dinur and Nissim 2003 (linear reconstruction).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flute.attacks.figures import Figure, membership
from flute.attacks.records import together
from flute.attacks.releases import Asks, Seen, Subject, longest_asks, protected, unprotected
from flute.attacks.trial import Found, Trial, exposed, first_asks, others_of, told_apart
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.spec import NeuralNetwork
from flute.defaults.attacks import DRY_WORLDS, EXACT_NOISE, LEVEL
from flute.dp.audit import gaussian_dp_lower_bound


def clear_steps(subject: Subject) -> int:
    """In clear the first sum is enough to be certain; of networks, whose first opens few numbers, two are."""
    return 2 if isinstance(subject.question.what, NeuralNetwork) else 1


@dataclass(frozen=True, slots=True)
class Stacked:
    """All steps as one vector, each divided by its noise: sums [d], her row [d], others' rows [n, d]."""

    total: Array
    hers: Array
    others: Array


def stacked(subject: Subject, seen: Sequence[Seen], hers: Dataset, others: Dataset) -> Stacked:
    """hers: one patient. others: everybody else who might be in."""
    totals, rows, theirs = [], [], []
    for number, step in enumerate(seen):
        hers_now = clipped(subject.rows(number, step.parameters, hers), subject, number)
        others_now = clipped(subject.rows(number, step.parameters, others), subject, number)
        noise = step.sigma or EXACT_NOISE * subject.steps[number].shape.clip_norm
        totals.append(step.total / noise)
        rows.append(hers_now[0] / noise)
        theirs.append(others_now / noise)
    return Stacked(np.concatenate(totals), np.concatenate(rows), np.hstack(theirs))


def clipped(rows: Array, subject: Subject, step: int) -> Array:
    """As the hub would cover them; in exact mode nothing is clipped."""
    price = subject.steps[step]
    if price.mechanism is None:
        return rows
    lengths = np.linalg.norm(rows, axis=1)
    return np.asarray(rows * (price.mechanism.clip_norm / np.maximum(lengths, price.mechanism.clip_norm))[:, None])


def cosine(seen: Stacked) -> float:
    """Of her row and the sum."""
    length = float(np.linalg.norm(seen.total) * np.linalg.norm(seen.hers))
    return float(seen.total @ seen.hers) / length if length > 0 else 0.0


def likelihood_ratio(seen: Stacked, others_in: float = 0.5) -> float:
    """Log of the sum's chance with her over without her; others are in with a chance of `others_in` each.

    Their part is taken as normal, with covariance R'R q (1 - q) beside the noise; the inverse by Woodbury's identity,
    since they are fewer than the numbers.
    """
    left = seen.total - others_in * seen.others.sum(axis=0)
    weighed = _against(seen.hers, seen.others, others_in)
    return float(weighed @ (left - seen.hers / 2))


def _against(direction: Array, others: Array, others_in: float) -> Array:
    """(I + q (1 - q) R'R)^-1 direction."""
    if not len(others):
        return direction
    gram = others @ others.T
    inner = np.eye(len(others)) / (others_in * (1 - others_in)) + gram
    return direction - others.T @ np.linalg.solve(inner, others @ direction)


def difference_score(before: Sequence[Seen], after: Sequence[Seen], hers: Array) -> float:
    """Is it her row [d] by which the first sums of two releases differ? Projected on it: 1 if so, 0 if not."""
    apart = after[0].total - before[0].total
    return float(apart @ hers / (hers @ hers))


# --- the trials --------------------------------------------------------------------------------------


def of_sums(trial: Trial, asks: tuple[Asks, ...] = ()) -> Found:
    """The likelihood ratio of the attacked patient's rows over all steps, and their cosine with the sums."""
    target, others = exposed(trial), others_of(trial)
    worlds = trial.times(DRY_WORLDS, fits=not asks)
    inside = (np.arange(worlds) % 2 == 1)[:, None]
    scores = np.array([_both_scores(trial, target, others, asks, world) for world in range(worlds)])
    chance = trial.chance.child("judged")
    found = [membership(scores[:, k, None], inside, chance) for k in range(4)]
    return told_apart(
        found[0], found[1], trial.bound, {"advantage by cosine": (found[2].advantage, found[3].advantage)}
    )


def _both_scores(
    trial: Trial, target: Dataset, others: Mapping[str, Dataset], asks: tuple[Asks, ...], world: int
) -> list[float]:
    """[likelihood ratio in clear, under the plan, cosine in clear, under the plan]; she is in where odd."""
    subject, chance = trial.subject, trial.chance.child(f"world {world}")
    there = {hub: data.where(chance.coins(len(data))) for hub, data in others.items()}
    if world % 2:
        there[subject.hubs[0]] = together([there[subject.hubs[0]], target], subject.setting)
    clear = unprotected(subject, there, asks=asks, steps=clear_steps(subject))
    covered = protected(subject, there, chance, asks=asks, steps=len(asks) or None)
    own = others[subject.hubs[0]]
    honest = together([others[hub] for hub in subject.honest], subject.setting)
    first = stacked(subject, clear.steps, target, own)
    second = stacked(subject, covered.steps, target, honest)
    return [f(s) for f in (likelihood_ratio, cosine) for s in (first, second)]


def cheating_coordinator(trial: Trial) -> Found:
    """The same, where the coordinator asks with directions that make every row as long as it may be, for everybody's
    noise to be worth least."""
    return of_sums(trial, longest_asks(trial.subject))


def difference(trial: Trial) -> Found:
    """Two releases of the first step, the second with one patient more."""
    target, others = exposed(trial), others_of(trial)
    subject, worlds = trial.subject, trial.times(DRY_WORLDS)
    more = dict(others) | {subject.hubs[0]: together([others[subject.hubs[0]], target], subject.setting)}
    hers = clipped(subject.rows(0, first_asks(trial), target), subject, 0)[0]
    inside = (np.arange(worlds) % 2 == 1)[:, None]
    scores = np.empty((worlds, 2))
    for world in range(worlds):
        chance, second = trial.chance.child(f"difference {world}"), more if world % 2 else others
        clear = [unprotected(subject, records, steps=1).steps for records in (others, second)]
        covered = [protected(subject, records, chance, steps=1).steps for records in (others, second)]
        scores[world] = [difference_score(before, after, hers) for before, after in (clear, covered)]
    chance = trial.chance.child("judged")
    first, second_found = (membership(scores[:, k, None], inside, chance) for k in range(2))
    return told_apart(first, second_found, trial.bound, {})


def audited(trial: Trial) -> Found:
    """An epsilon that the release is at least: everybody else's records are known and subtracted, and the coordinator
    asks so that hers weighs most."""
    target, subject = exposed(trial), trial.subject
    nobody = target.where(np.zeros(1, dtype=np.bool_))
    asks = longest_asks(subject)
    scores: dict[bool, list[list[float]]] = {True: [], False: []}
    for world in range(trial.times(DRY_WORLDS, 120)):
        there = dict.fromkeys(subject.hubs, nobody) | ({subject.hubs[0]: target} if world % 2 else {})
        chance = trial.chance.child(f"audit {world}")
        seen = (
            unprotected(subject, there, asks=asks, steps=clear_steps(subject)),
            protected(subject, there, chance, asks=asks, steps=len(asks) or None),
        )
        stacks = [stacked(subject, carried.steps, target, nobody) for carried in seen]
        scores[bool(world % 2)].append([likelihood_ratio(stack) for stack in stacks])
    inside, outside = np.array(scores[True]), np.array(scores[False])
    delta = subject.agreement.delta or 1e-6
    shown = [gaussian_dp_lower_bound(inside[:, k], outside[:, k], delta=delta, confidence=LEVEL) for k in range(2)]
    first, second = (Figure(value, value, math.inf, "bound") for value in shown)
    return Found(first, second, subject.epsilon if math.isfinite(subject.epsilon) else None, {})
