"""What can be inferred about a hub's patients together, and about one known patient's missing value.

Property: do few or many of a hub's patients have it? The attacker makes hubs of its own of either kind, lets them run
the same question, and learns to tell what it then sees (Ateniese et al. 2015; Melis et al. 2019). Differential
privacy of patients does not bound this: what is common to many is what a study publishes. What protects a hub is that
only sums over several hubs open.
Attribute: everything about a patient is known but one value. Each candidate is tried: which makes what was seen most
likely? Bounded by differential privacy (Yeom et al. 2018, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from flute.algorithms.design import design_for, matrix, raw_scaling
from flute.algorithms.private_rows import private_scaling
from flute.attacks.chance import Chance
from flute.attacks.figures import Figure, Mask, dp_success, rate
from flute.attacks.membership import learnt_by_heart, margins
from flute.attacks.records import is_image, replaced, simulated, together
from flute.attacks.releases import Seen, Subject, longest_asks, protected, unprotected
from flute.attacks.trial import Found, Trial, others_of, spread
from flute.attacks.updates import clear_steps, likelihood_ratio, stacked
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.attacks import DRY_HUB, DRY_MODELS, DRY_WORLDS

Glimpse = Callable[[bool, Chance], Array]
"""Whether many patients of the hub have the property, and chance, to what the attacker sees [d]."""
_FEW, _MANY = 0.3, 0.7
"""Shares of a property that are to be told apart."""
_MOST_PATIENTS = 30
"""Of a model whose members' values are guessed: half of its columns, so that it fits all of them alike."""
_RIDGE = 0.1
"""Of the classifier, in mean diagonals of its kernel."""


def share_told(glimpse: Glimpse, trials: int, chance: Chance) -> Figure:
    """How often the attacker is right about hubs of either kind, equally many; it learns on as many others."""
    kinds = np.arange(2 * trials) % 2 == 1
    seen = np.array([glimpse(bool(kind), chance.child(f"hub {i}")) for i, kind in enumerate(kinds)])
    said = _learnt(seen[:trials], kinds[:trials], seen[trials:])
    return rate(int((said == kinds[trials:]).sum()), trials)


def _learnt(seen: Array, kinds: Mask, unknown: Array) -> Mask:
    """Kernel ridge regression on the standardised vectors: linear, for vectors longer than there are examples."""
    middle, spread = seen.mean(axis=0), seen.std(axis=0)
    spread = np.where(spread > 1e-12 * (1 + np.abs(middle)), spread, np.inf)
    x, other = (seen - middle) / spread, (unknown - middle) / spread
    kernel = x @ x.T
    kernel += _RIDGE * max(float(np.trace(kernel)) / len(x), 1e-12) * np.eye(len(x))
    answers = np.where(kinds, 1.0, -1.0)
    return np.asarray(other @ (x.T @ np.linalg.solve(kernel, answers - answers.mean())) + answers.mean() > 0)


def best_from_sum(honest: int) -> float:
    """How often one can be right about one of `honest` hubs from how many of them are of each kind, all kinds equally
    likely: E max(k, m - k)/m. No plan that publishes the sum can keep that back."""
    ways = [math.comb(honest, k) * max(k, honest - k) for k in range(honest + 1)]
    return float(sum(ways) / (honest * 2**honest))


def likeliest(subject: Subject, seen: Sequence[Seen], candidates: Sequence[Dataset], others: Dataset) -> int:
    """Which candidate record (one row each) makes the sums most likely, if that patient is in them.

    others: those who are in too or not, each with a chance of half.
    """
    scores = [likelihood_ratio(stacked(subject, seen, candidate, others)) for candidate in candidates]
    return int(np.argmax(scores))


def likeliest_margin(candidates: Sequence[float] | Array, members: Array) -> int:
    """Which candidate's margin is most like those of the attacker's own models' members [n].

    A model that learnt its patients by heart gives all of them about the same margin; a wrong value moves it.
    """
    middle, spread = float(np.median(members)), float(np.median(np.abs(members - np.median(members))))
    return int(np.argmin([abs(m - middle) / max(spread, 1e-9) for m in candidates]))


# --- the trials --------------------------------------------------------------------------------------


def attribute(trial: Trial) -> Found:
    """One value of a known patient, of two that it may be, under a coordinator that asks so that it weighs most."""
    subject, worlds, others = trial.subject, trial.times(DRY_WORLDS), others_of(trial)
    name = sensitive(trial)
    own = others[subject.hubs[0]]
    honest = together([others[hub] for hub in subject.honest], subject.setting)
    asks, right = longest_asks(subject), [0, 0]
    for world in range(worlds):
        chance = trial.chance.child(f"attribute {world}")
        patient = trial.patients(1, chance)
        candidates = [replaced(patient, subject.setting, {name: value}) for value in _two_values(trial, name)]
        there = {hub: data.where(chance.coins(len(data))) for hub, data in others.items()}
        there[subject.hubs[0]] = together([there[subject.hubs[0]], candidates[world % 2]], subject.setting)
        seen = (
            unprotected(subject, there, asks=asks, steps=clear_steps(subject)),
            protected(subject, there, chance, asks=asks, steps=len(asks) or None),
        )
        for k, (carried, known) in enumerate(zip(seen, (own, honest), strict=True)):
            right[k] += likeliest(subject, carried.steps, candidates, known) == world % 2
    promised = dp_success(0.5, subject.epsilon, subject.agreement.delta)
    return Found(rate(right[0], worlds), rate(right[1], worlds), promised if promised < 1 else None, {})


def attribute_of_a_model(trial: Trial) -> Found:
    """One value of a patient whom the model was made of, by her margin under it."""
    subject, models = trial.subject, trial.times(DRY_MODELS, 24, fits=True)
    members: tuple[list[Array], list[Array]] = [], []
    tried: tuple[list[Array], list[Array]] = [], []
    for number in range(models):
        for k, (hers, everybodys) in enumerate(_margins(trial, number % 2, trial.chance.child(f"model {number}"))):
            tried[k].append(hers)
            members[k].append(everybodys)
    half = models // 2
    right = [
        sum(likeliest_margin(tried[k][n], np.concatenate(members[k][:half])) == n % 2 for n in range(half, models))
        for k in range(2)
    ]
    promised = dp_success(0.5, subject.epsilon, subject.agreement.delta)
    first, second = (rate(count, models - half) for count in right)
    return Found(first, second, promised if promised < 1 else None, {})


def _margins(trial: Trial, truth: int, chance: Chance) -> list[tuple[Array, Array]]:
    """For a model learnt by heart and for the released one: [2] margins of the first patient with either value, of
    which `truth` is hers, and [n] of everybody."""
    subject, spec, name = trial.subject, trial.model(), sensitive(trial)
    patients = trial.patients(min(max(trial.columns // 2, 4), _MOST_PATIENTS), chance)
    first = np.arange(len(patients)) == 0
    versions = [
        replaced(patients, subject.setting, {name: np.where(first, float(value[0]), patients.column(name))})
        for value in _two_values(trial, name)
    ]
    design, outcome = design_for(spec.predictors, subject.setting), patients.column(spec.outcome)
    true = versions[truth]
    released = protected(subject, spread(true, np.ones(len(true), dtype=np.bool_), subject), chance).result
    found = []
    for scaling, coefficients in (
        (private_scaling(design), None),
        (raw_scaling(design), np.array(released["raw_coefficients"])),
    ):
        x = [matrix(design, scaling, version) for version in versions]
        beta = learnt_by_heart(x[truth], outcome) if coefficients is None else coefficients
        table = [margins(rows, outcome, beta) for rows in x]
        found.append((np.array([row[0] for row in table]), table[truth]))
    return found


def sensitive(trial: Trial) -> str:
    """The field that is guessed: the first that is neither outcome nor image; the outcome where there is no other."""
    subject = trial.subject
    outcome = getattr(subject.question.what, "outcome", "")
    others = (name for name in subject.fields if name != outcome and not is_image(subject.setting, name))
    return next(others, subject.fields[0])


def _two_values(trial: Trial, name: str) -> list[Array]:
    v = trial.subject.setting.variables[name].variable
    return [np.array([v.low + part * (v.high - v.low)]) for part in (0.25, 0.75)] if v.kind == "number" else [
        np.array([0.0]), np.array([1.0])
    ]  # fmt: skip


def property_share(trial: Trial) -> Found:
    """Do 30 % or 70 % of a hub's patients have the first field's upper value? Every other honest hub is of either
    kind, too."""
    subject = trial.subject
    name = sensitive(trial)
    low, high = _two_values(trial, name)

    def hub(many: bool, chance: Chance) -> Dataset:
        there = chance.coins(DRY_HUB, chance=_MANY if many else _FEW)
        fixed = {name: np.where(there, float(high[0]), float(low[0]))}
        return simulated(subject.setting, subject.fields, DRY_HUB, chance, fixed)

    def records(many: bool, chance: Chance) -> dict[str, Dataset]:
        kinds = [many, *chance.coins(len(subject.hubs) - 1).tolist()]
        return {name: hub(kind, chance) for name, kind in zip(subject.hubs, kinds, strict=True)}

    def clear(many: bool, chance: Chance) -> Array:
        return unprotected(subject, records(many, chance), steps=1).steps[0].total

    def covered(many: bool, chance: Chance) -> Array:
        return protected(subject, records(many, chance), chance, steps=1).steps[0].total

    trials, chance = trial.times(DRY_WORLDS // 2), trial.chance.child("property")
    found = [share_told(glimpse, trials, chance) for glimpse in (clear, covered)]
    return Found(found[0], found[1], best_from_sum(len(subject.honest)), {})
