"""What every attack of the suite is tried on: one question of a study, SIMULATED patients, and how often.

Cohorts are small on purpose: a model of a few patients knows them by heart, and a sum of few hides nobody. Protection
that holds there holds for more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flute.algorithms.contract import Ask, LogisticRegression
from flute.algorithms.design import design_for
from flute.attacks.chance import Chance
from flute.attacks.figures import Figure, Mask, Membership, dp_advantage
from flute.attacks.records import simulated
from flute.attacks.releases import Asks, Subject
from flute.data.dataset import Dataset
from flute.deep.spec import NeuralNetwork
from flute.defaults.attacks import SLOW_COLUMNS
from flute.defaults.network_attacks import SLOW_NUMBERS

_CANDIDATES = 200
"""Simulated patients, of whom the one with the longest row is attacked."""
_OTHERS = 8
"""Per hub, beside the attacked patient, in or out by coin."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one attack came to. bound: what the plan promises, where it promises anything. details: further figures
    by name, unprotected and protected."""

    unprotected: Figure
    protected: Figure
    bound: float | None
    details: Mapping[str, tuple[Figure, Figure]]


@dataclass(frozen=True, slots=True)
class Trial:
    """One question under attack, chance, and how many times each attack is tried, beside the usual (1)."""

    subject: Subject
    chance: Chance
    effort: float = 1.0

    def times(self, usual: int, least: int = 16, *, fits: bool = False) -> int:
        """Fewer for wide models and large networks, above all where each time is a fit; even, so that both kinds of
        worlds are equally many."""
        width = max(1.0, self.columns / SLOW_COLUMNS, math.sqrt(self.network_numbers / SLOW_NUMBERS))
        return 2 * max(least // 2, round(usual * self.effort / width ** (3 if fits else 2) / 2))

    @property
    def columns(self) -> int:
        what = self.subject.question.what
        return design_for(what.predictors, self.subject.setting).size if isinstance(what, LogisticRegression) else 1

    @property
    def network_numbers(self) -> int:
        """How many numbers all steps of a network open; of other questions none."""
        if not isinstance(self.subject.question.what, NeuralNetwork):
            return 0
        return sum(price.shape.size for price in self.subject.steps)

    @property
    def bound(self) -> float:
        return dp_advantage(self.subject.epsilon, self.subject.agreement.delta)

    def patients(self, count: int, chance: Chance) -> Dataset:
        return simulated(self.subject.setting, self.subject.fields, count, chance)

    def model(self) -> LogisticRegression:
        """Raises: MisuseError: the question makes no model."""
        return self.subject.model


def exposed(trial: Trial) -> Dataset:
    """Of many simulated patients, the one whose first row is longest."""
    many = trial.patients(_CANDIDATES, trial.chance.child("exposed"))
    lengths = np.linalg.norm(trial.subject.rows(0, first_asks(trial), many), axis=1)
    return many.where(np.arange(len(many)) == int(np.argmax(lengths)))


def others_of(trial: Trial) -> dict[str, Dataset]:
    return {hub: trial.patients(_OTHERS, trial.chance.child(f"others {hub}")) for hub in trial.subject.hubs}


def first_asks(trial: Trial) -> Asks:
    reached = trial.subject.algorithm.next(trial.subject.question.what, trial.subject.setting, (), {})
    return reached.parameters if isinstance(reached, Ask) else np.zeros(0)


def spread(pool: Dataset, inside: Mask, subject: Subject) -> dict[str, Dataset]:
    """The patients who are in, dealt to the hubs in turn."""
    owner = np.arange(len(pool)) % len(subject.hubs)
    return {hub: pool.where(inside & (owner == k)) for k, hub in enumerate(subject.hubs)}


def told_apart(
    clear: Membership, covered: Membership, bound: float, more: Mapping[str, tuple[Figure, Figure]]
) -> Found:
    return Found(
        clear.advantage, covered.advantage, bound if bound < 1 else None,
        {"AUC": (clear.auc, covered.auc), "found at 0.1 % false alarms": (clear.hits, covered.hits), **more},
    )  # fmt: skip
