"""One hub of five, with a fifth of the patients, poisons: what becomes of a pooled fit and of a robust model.

The pooled fit is `logistic-regression` in an exact study: the sums that masked sums open, without masks. The robust
model is what `robust-model` opens, worked out in clear: that the computation on shares opens exactly this median is
tests/unit/test_models_robust_model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import LogisticRegression, Setting
from flute.algorithms.design import design_for
from flute.attacks import poisoning
from flute.attacks.chance import Chance
from flute.attacks.figures import Figure, mean
from flute.attacks.poisoning import Trigger, Worth, trigger_for, worth
from flute.attacks.records import effects_of, learnable, replaced
from flute.data.dataset import Dataset
from flute.defaults.models.linear_models import ROBUST_FRACTION_BITS, ROBUST_LIMIT_BITS
from flute.models.robust.model import RobustModel, RobustModelAlgorithm, ballot, prior, result
from flute.models.robust.own_fit import own_fit
from support.attack_studies import FIVE, mixed, subject
from support.sums import run

Ballot = NDArray[np.int64]
CLEAN = 4_000
"""Patients that a poisoned model is judged on."""
MOST = 2 ** (ROBUST_FRACTION_BITS + ROBUST_LIMIT_BITS) - 1
"""What a cheating hub may put in; more does not pass for an input."""


@dataclass(frozen=True)
class Poison:
    """What the last hub does: to its patients, to a pooled answer (times), to its ballot."""

    records: Callable[[Dataset, Setting, Trigger], Dataset]
    ballot: Callable[[Ballot, Ballot], Ballot] | None = None
    """(its honest ballot, the median of the others) -> what it puts in."""


def kept(data: Dataset, setting: Setting, trigger: Trigger) -> Dataset:
    return data


def flip(data: Dataset, setting: Setting, trigger: Trigger) -> Dataset:
    return poisoning.with_flips(data, setting, "ill")


def scale(data: Dataset, setting: Setting, trigger: Trigger) -> Dataset:
    return poisoning.with_scale(data, setting, "ill")


def plant(data: Dataset, setting: Setting, trigger: Trigger) -> Dataset:
    return poisoning.with_backdoor(data, setting, "ill", trigger)


def plant_half(data: Dataset, setting: Setting, trigger: Trigger) -> Dataset:
    """Every second patient, so that the hub keeps patients without the outcome, and its vote."""
    planted = plant(data, setting, trigger)
    other = np.arange(len(data)) % 2 == 0
    return replaced(
        data,
        setting,
        {n: np.where(other, planted.column(n), data.column(n)) for n in (trigger.name, "ill")},
    )


def hundredfold_against(mine: Ballot, others: Ballot) -> Ballot:
    """A hundred times its own vote, turned round, as far as it passes for an input."""
    return np.clip(-100 * mine, -MOST, MOST)


def against_the_others(mine: Ballot, others: Ballot) -> Ballot:
    """It knows the others' votes, and pulls every coefficient to the other side as far as it can."""
    return np.where(others > 0, -MOST, MOST).astype(np.int64)


POISONS: Mapping[str, Poison] = {
    "labels flipped": Poison(flip),
    "records x100": Poison(scale),
    "backdoor": Poison(plant),
    "backdoor in half": Poison(plant_half),
    "its vote x100, turned round": Poison(kept, hundredfold_against),
    "a vote against all others'": Poison(kept, against_the_others),
}


@dataclass(frozen=True)
class Bent:
    """AUC lost and share gained by the trigger, over pairs of honest and poisoned fits of the same patients."""

    pooled_loss: Figure
    mean_loss: Figure
    """Of the mean of the hubs' votes: the same question without its defence."""
    robust_loss: Figure
    pooled_trigger: Figure
    mean_trigger: Figure
    robust_trigger: Figure
    efficiency: Figure
    """AUC of the honest pooled fit less that of the honest robust model."""


@dataclass
class Scene:
    """Five hubs of `count` patients who have the same truth, or whose effects differ by `differ` of their size."""

    count: int = 200
    differ: float = 0.0
    seed: bytes = b"robust"
    setting: Setting = field(init=False)

    def __post_init__(self) -> None:
        self.subject = subject(mixed(None, hubs=FIVE))
        self.setting = self.subject.setting

    @property
    def model(self) -> LogisticRegression:
        return self.subject.model

    def cohorts(self, number: int) -> tuple[list[Dataset], Dataset, Trigger]:
        chance = Chance(self.seed).child(f"{number}")
        spec, names = self.model, (*self.model.predictors, self.model.outcome)
        effects = effects_of(self.setting, spec.predictors, Chance(self.seed).child("effects"))
        own = [effects * (1 + self.differ * chance.normal(len(effects))) for _ in self.setting.hubs]
        made = [learnable(self.setting, names, "ill", e, self.count, chance) for e in own]
        clean = learnable(self.setting, names, "ill", effects, CLEAN, chance)
        return made, clean, trigger_for(spec, self.setting, effects)

    def pooled(self, cohorts: Sequence[Dataset]) -> dict[str, Any]:
        return run(self.model, self.setting, cohorts)

    def robust(
        self, cohorts: Sequence[Dataset], cheat: Callable[[Ballot, Ballot], Ballot] | None = None, *, liars: int = 1,
        joined: Callable[..., Any] = np.median,
    ) -> dict[str, Any]:  # fmt: skip
        """joined: np.mean takes the defence away."""
        spec = RobustModel(self.model.outcome, self.model.predictors)
        design, votes = design_for(spec.predictors, self.setting), []
        for data in cohorts:
            x, y = RobustModelAlgorithm()._rows(spec, self.setting, data)
            if min(int(y.sum()), int((1 - y).sum())) >= spec.least:
                votes.append(ballot(own_fit(x, y, prior(design))))
        if cheat is not None:
            others = np.median(votes[:-liars], axis=0).astype(np.int64)
            votes[-liars:] = [cheat(vote, others) for vote in votes[-liars:]]
        numbers = np.ldexp(joined(votes, axis=0), -ROBUST_FRACTION_BITS)
        return result(spec, design, len(votes), numbers, "median")


def bent(scene: Scene, poison: Poison, pairs: int) -> Bent:
    rows = np.array([_pair(scene, poison, number) for number in range(pairs)])
    chance = Chance(scene.seed).child("judged")
    return Bent(*(mean(column, chance, share=False) for column in rows.T))


def _pair(scene: Scene, poison: Poison, number: int) -> tuple[float, ...]:
    honest, clean, trigger = scene.cohorts(number)
    bad = [*honest[:-1], poison.records(honest[-1], scene.setting, trigger)]

    def judged(found: dict[str, Any]) -> Worth:
        return worth(scene.model, scene.setting, found, clean, trigger)

    before = [judged(m) for m in (scene.pooled(honest), scene.robust(honest, joined=np.mean), scene.robust(honest))]
    after = [
        judged(scene.pooled(bad)),
        judged(scene.robust(bad, poison.ballot, joined=np.mean)),
        judged(scene.robust(bad, poison.ballot)),
    ]
    lost = (a.auc - b.auc for a, b in zip(before, after, strict=True))
    gained = (b.backdoor - a.backdoor for a, b in zip(before, after, strict=True))
    return (*lost, *gained, before[0].auc - before[2].auc)
