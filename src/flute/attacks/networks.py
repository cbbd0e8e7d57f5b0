"""Attacks on networks: was this patient among those it was trained on? And which attacks of the suite fit networks.

In clear: plain federated averaging over few patients, until it knows them by heart; nothing protects them. Under the
plan: the question as it was agreed. What is seen of either are the weights (`membership` has the attacks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
from msgspec import structs
from scipy.special import logit

from flute.algorithms.contract import Ask, HubTotals, NeedsParts, Opened, Setting
from flute.attacks.chance import Chance
from flute.attacks.figures import Mask
from flute.attacks.membership import Models, found_of, play
from flute.attacks.releases import Subject, protected, subject_of
from flute.attacks.trial import Found, Trial, spread
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.inputs import sized_for
from flute.deep.scorer import NetworkScorer
from flute.deep.spec import NeuralNetwork, Training
from flute.defaults.attacks import DRY_MODELS
from flute.defaults.network_attacks import (
    HEART_EPOCHS,
    HEART_PATIENTS,
    HEART_RATE,
    HEART_ROUNDS,
    MOST_NUMBERS,
    MOST_WEIGHTS,
)
from flute.errors import MisuseError, NotPossible
from flute.questions.registry import algorithm_for

BY_HEART: Final = Training(rounds=HEART_ROUNDS, local_epochs=HEART_EPOCHS, batch=64, learning_rate=HEART_RATE)
"""Of the network that is attacked in clear."""
_ON_MODELS: Final = ("membership-model", "reconstruction")
_ON_ROWS: Final = ("membership-sums", "difference", "epsilon-audit", "attribute", "property")
_SCORER: Final = NetworkScorer()


def lacking(name: str, subject: Subject) -> str:
    """Why an attack of that name is not tried on the subject's network, or nothing."""
    spec, setting = network_of(subject), subject.setting
    if name not in (*_ON_MODELS, *_ON_ROWS):
        return "This attack is written for logistic regressions; the study's model is a neural network."
    if name in _ON_ROWS and setting.mode == "exact":
        return (
            "This attack is on sums of patients' rows. An exact network's hub sends what training on all of its "
            "patients came to, which is no such sum; see membership-model and reconstruction."
        )
    sized = sized_for(spec, setting)
    if sized.total > MOST_WEIGHTS or sized.numbers > MOST_NUMBERS:
        return (
            f"This network is too large to be trained as often as an attack takes: it has {sized.total:,} weights, "
            f"and its layers give {sized.numbers:,} numbers. The suite takes up to {MOST_WEIGHTS:,} and "
            f"{MOST_NUMBERS:,}; attack a smaller one of the same kind."
        )
    if not all(parameter.trained for parameter in sized.parameters):
        return "Networks with batch normalisation are not attacked: what they send is no function of one patient."
    try:
        cast(NeedsParts, subject.algorithm).require_parts(spec)
    except NotPossible as error:
        return error.text
    return ""


def network_of(subject: Subject) -> NeuralNetwork:
    """Raises: MisuseError: the question trains no network."""
    if not isinstance(subject.question.what, NeuralNetwork):
        raise MisuseError(f"{subject.question.id} is no neural network.")
    return subject.question.what


def plain(subject: Subject) -> Subject:
    """The same question as federated averaging takes it: exact, and so trained at the hubs."""
    agreement = structs.replace(subject.agreement, mode="exact", epsilon=0.0, delta=0.0)
    return subject_of(agreement, subject.question)


def averaged(spec: NeuralNetwork, setting: Setting, hubs: Sequence[Dataset]) -> Mapping[str, Any]:
    """The result of federated averaging in clear, every hub's update added up as it is."""
    exact, history = replace(setting, mode="exact"), list[Opened]()
    algorithm = cast(HubTotals, algorithm_for(spec))
    while isinstance(reached := algorithm.next(spec, exact, history, {}), Ask):
        totals = [algorithm.total(spec, exact, len(history), reached.parameters, data) for data in hubs]
        history.append(Opened(reached.parameters, np.sum(totals, axis=0), 0.0))
    return reached.result


def margins(spec: NeuralNetwork, setting: Setting, result: Mapping[str, Any], patients: Dataset) -> Array:
    """[n] log odds in favour of each patient's own outcome."""
    weights = _SCORER.parameters(spec, setting, result)
    with np.errstate(divide="ignore"):
        found = logit(_SCORER.risks(spec, setting, weights, patients))
    return np.asarray((2 * patients.column(spec.outcome) - 1) * found)


# --- the trial ---------------------------------------------------------------------------------------


def of_a_network(trial: Trial) -> Found:
    """Shadow models, and the loss threshold beside them."""
    pool = trial.patients(HEART_PATIENTS, trial.chance.child("pool"))
    return found_of(trial, *networks_played(trial, pool, trial.times(DRY_MODELS, 24)))


def networks_played(trial: Trial, pool: Dataset, models: int) -> tuple[Models, Models]:
    """Networks that learnt by heart in clear, and networks that the plan releases, of the same patients."""
    subject, spec = trial.subject, network_of(trial.subject)
    by_heart = structs.replace(spec, training=BY_HEART)

    def clear(inside: Mask, chance: Chance) -> Array:
        hubs = [*spread(pool, inside, subject).values()]
        return margins(by_heart, subject.setting, averaged(by_heart, subject.setting, hubs), pool)

    def covered(inside: Mask, chance: Chance) -> Array:
        released = protected(subject, spread(pool, inside, subject), chance).result
        return margins(spec, subject.setting, released, pool)

    chances = trial.chance.child("in clear"), trial.chance.child("under the plan")
    return play(clear, len(pool), models, chances[0]), play(covered, len(pool), models, chances[1])
