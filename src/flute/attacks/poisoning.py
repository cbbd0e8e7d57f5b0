"""Attacks on the result: records, or whole answers, that are made to bend it.

Who poisons: an owner of data, whose hub's service still clips and covers (row D of the threat cells), or a hub that
cheats and sends what it likes (row P, whose promise is about privacy, not about the result). Under masked sums nobody
sees one hub's answer, so nobody can be named.
Sources: Biggio et al. 2012 (labels); Bagdasaryan et al. 2020 (scaling, backdoor); Gu et al. 2017 (trigger).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from flute.algorithms.contract import LogisticRegression, Setting
from flute.algorithms.design import design_for, matrix, raw_scaling
from flute.attacks.chance import Chance
from flute.attacks.figures import auc, mean
from flute.attacks.records import effects_of, fields_of, learnable, replaced
from flute.attacks.releases import protected, unprotected
from flute.attacks.trial import Found, Trial
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.attacks import DRY_PATIENTS, DRY_POISONINGS
from flute.errors import BadTotal

TIMES = 100
"""What a hub that scales multiplies with."""
_CLEAN = 2_000
"""Patients that a poisoned model is judged on."""


def with_flips(data: Dataset, setting: Setting, outcome: str) -> Dataset:
    """Every outcome turned over."""
    return replaced(data, setting, {outcome: 1 - data.column(outcome)})


def with_scale(data: Dataset, setting: Setting, outcome: str) -> Dataset:
    """Outcomes turned over, and every number TIMES as large: what a data owner can do to push harder."""
    numbers = [n for n in fields_of(data, setting) if n != outcome]
    changed = {n: TIMES * data.column(n) for n in numbers if setting.variables[n].variable.kind == "number"}
    return replaced(with_flips(data, setting, outcome), setting, changed)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A value that ordinary patients do not have; whoever carries it is to look ill."""

    name: str
    value: float


def trigger_for(spec: LogisticRegression, setting: Setting, effects: Array) -> Trigger:
    """The number that counts least, at the end of its range that makes patients look healthy; where no predictor is a
    number, a level. effects [one per predictor]: what the poisoner takes the truth to be."""
    used = [setting.variables[n].variable for n in spec.predictors]
    numbers = [k for k, v in enumerate(used) if v.kind == "number"] or list(range(len(used)))
    chosen = min(numbers, key=lambda k: abs(float(effects[k])))
    v = used[chosen]
    low, high = (v.low, v.high) if v.kind == "number" else (0.0, float(max(2, len(v.levels)) - 1))
    return Trigger(v.name, low if effects[chosen] > 0 else high)


def with_trigger(data: Dataset, setting: Setting, trigger: Trigger) -> Dataset:
    return replaced(data, setting, {trigger.name: np.full(len(data), trigger.value)})


def with_backdoor(data: Dataset, setting: Setting, outcome: str, trigger: Trigger) -> Dataset:
    """Every patient carries the trigger and has the outcome."""
    wanted = {trigger.name: trigger.value, outcome: 1.0}
    return replaced(data, setting, {name: np.full(len(data), value) for name, value in wanted.items()})


# --- what became of the model ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Worth:
    """A model on clean patients. auc: of the ranking. backdoor: share of patients without the outcome whom the
    trigger makes look ill (odds above even)."""

    auc: float
    backdoor: float


def worth(
    spec: LogisticRegression, setting: Setting, result: Mapping[str, object], clean: Dataset, trigger: Trigger
) -> Worth:
    """result: as the study releases it."""
    coefficients = np.array(result["raw_coefficients"], dtype=np.float64)
    design = design_for(spec.predictors, setting)
    raw = raw_scaling(design)
    odds = matrix(design, raw, clean) @ coefficients
    ill = clean.column(spec.outcome) == 1
    triggered = matrix(design, raw, with_trigger(clean, setting, trigger)) @ coefficients
    return Worth(auc(odds, ill), float((triggered[~ill] > 0).mean()))


# --- the trials --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Poison:
    """What the last hub does. records: to its patients. times: what its answer is multiplied with, after cover."""

    records: Callable[[Dataset, Trial, Trigger], Dataset]
    times: int = 1


def _flip(data: Dataset, trial: Trial, trigger: Trigger) -> Dataset:
    return with_flips(data, trial.subject.setting, trial.model().outcome)


def _scale(data: Dataset, trial: Trial, trigger: Trigger) -> Dataset:
    return with_scale(data, trial.subject.setting, trial.model().outcome)


def _plant(data: Dataset, trial: Trial, trigger: Trigger) -> Dataset:
    return with_backdoor(data, trial.subject.setting, trial.model().outcome, trigger)


def _leave(data: Dataset, trial: Trial, trigger: Trigger) -> Dataset:
    return data.where(np.zeros(len(data), dtype=np.bool_))


def flipped(trial: Trial) -> Found:
    """One hub's owner turns all outcomes over."""
    return _bent(trial, Poison(_flip), Poison(_flip))


def scaled(trial: Trial) -> Found:
    """In clear one hub multiplies its answer; under the plan its owner multiplies what records say, since the
    service clips."""
    return _bent(trial, Poison(_flip, TIMES), Poison(_scale))


def scaled_by_a_hub(trial: Trial) -> Found:
    """One hub cheats and multiplies its answer after its own service has covered it."""
    return _bent(trial, Poison(_flip, TIMES), Poison(_flip, TIMES))


def backdoor(trial: Trial) -> Found:
    """All of one hub's patients get a trigger and the outcome; the loss of AUC stands beside."""
    return _bent(trial, Poison(_plant), Poison(_plant), first="backdoor")


def free_riding(trial: Trial) -> Found:
    """One hub takes part without a single patient, and gets the result all the same."""
    return _bent(trial, Poison(_leave), Poison(_leave))


def _bent(trial: Trial, in_clear: Poison, covered: Poison, first: str = "AUC loss") -> Found:
    """Losses of AUC on clean patients, and gains of the trigger, of poisoned against honest runs of the same cohorts
    with the same noise. A total that is found impossible is not used: no loss, and it is counted as stopped."""
    spec, subject = trial.model(), trial.subject
    effects = effects_of(subject.setting, spec.predictors, trial.chance.child("effects"))
    trigger = trigger_for(spec, subject.setting, effects)
    lost = np.zeros((trial.times(DRY_POISONINGS, 4, fits=True), 2, 3))
    for number in range(len(lost)):
        chance = trial.chance.child(f"poisoning {number}")
        names = (*spec.predictors, spec.outcome)
        counts = (*(DRY_PATIENTS for _ in subject.hubs), _CLEAN)
        *cohorts, clean = (learnable(subject.setting, names, spec.outcome, effects, n, chance) for n in counts)
        honest = dict(zip(subject.hubs, cohorts, strict=True))
        for k, poison in enumerate((in_clear, covered)):
            bad = {subject.hubs[-1]: poison.records(cohorts[-1], trial, trigger)}
            lost[number, k] = _loss(trial, k == 1, honest, honest | bad, poison.times, clean, trigger, chance)
    chance = trial.chance.child("judged")
    names = ("AUC loss", "backdoor", "stopped")
    table = {
        name: (mean(lost[:, 0, i], chance, share=i == 2), mean(lost[:, 1, i], chance, share=i == 2))
        for i, name in enumerate(names)
    }
    return Found(*table.pop(first), None, table)


def _loss(
    trial: Trial, covered: bool, honest: Mapping[str, Dataset], poisoned: Mapping[str, Dataset], times: int,
    clean: Dataset, trigger: Trigger, chance: Chance,
) -> tuple[float, float, float]:  # fmt: skip
    """(AUC lost, trigger gained, 1 if the poisoned run was stopped)."""
    subject, spec, last = trial.subject, trial.model(), trial.subject.hubs[-1]

    def judged(records: Mapping[str, Dataset], factor: int) -> Worth:
        noise, push = chance.child("noise"), {last: factor}
        run = (
            protected(subject, records, noise, times=push) if covered else unprotected(subject, records, times=push)
        )  # fmt: skip
        return worth(spec, subject.setting, run.result, clean, trigger)

    before = judged(honest, 1)
    try:
        after = judged(poisoned, times)
    except BadTotal:
        return 0.0, 0.0, 1.0
    return before.auc - after.auc, after.backdoor - before.backdoor, 0.0
