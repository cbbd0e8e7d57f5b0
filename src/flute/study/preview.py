"""What a private study will be able to say: the error of each number, what is left, the cheapest epsilon.

All of it follows from the agreement and from what is assumed of the patients (`Assumed`); no hub is asked. The noise
is the one that `study.protection` prices, as a reader of results meets it when every hub answers. Errors are against
the exact result of the same patients: chance in who became a patient comes on top.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from flute.algorithms.contract import Evaluate, JointAlgorithm, Setting
from flute.algorithms.evaluation import model_references
from flute.algorithms.expected import DRAWS, Asked, Expected, exact_result, expected_errors
from flute.algorithms.made_up import Assumed, made_up_patients
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question
from flute.study.protection import Price, budget_of, hub_epsilon, prices, study_budget
from flute.study.stand_ins import without_networks

_SEARCH_DRAWS: Final = 120
_LEAST_EPSILON, _MOST_EPSILON = 0.01, 100.0
_PRECISION: Final = 1.005
"""Of a found epsilon, as a ratio; the errors it rests on are known to some 5 %."""
_MODEL_ROWS: Final = 2_000
TRYING: Final = "Trying the questions on made-up patients; no hub is asked …"
"""What to say to people meanwhile: questions of many steps take some seconds."""
_ACCURACY: Final = re.compile(
    r"^\s*(?:±|\+/-)?\s*(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?P<percent>%)?\s*(?P<of>of\s+(?:the\s+)?patients)?\s*$"
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How near numbers should come: 95 of 100 errors at most `within`.

    of_patients: `within` is a part of the assumed patients, and only counts are looked at. Otherwise it is in each
    number's own unit. what: which numbers, a pattern over their names (`age.*`, `*.mean`).
    """

    within: float
    of_patients: bool = False
    what: str = "*"


def read_accuracy(text: str, what: str = "*") -> Accuracy:
    """`2 % of patients`, `±0.5`, `10 patients` without the word. Raises: MisuseError: it says something else."""
    found = _ACCURACY.match(text)
    if found is None or (found["percent"] and not found["of"]) or not float(found["number"]) > 0:
        raise MisuseError(
            f"{text!r} says no accuracy; write for example '2 % of patients' for counts, or '0.5' for numbers in "
            "their own unit."
        )
    return Accuracy(float(found["number"]) / (100 if found["percent"] else 1), bool(found["of"]), what)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One question. people: assumed patients behind each of its numbers. rho: its price."""

    question: str
    people: int
    share: float
    rho: float
    numbers: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """left_share, left_rho: of the study's budget once every question was answered once. left_epsilon: what that
    would be to a study of its own; epsilons of parts do not add up to the whole one."""

    assumed: Assumed
    epsilon: float
    delta: float
    questions: tuple[Foreseen, ...]
    left_share: float
    left_rho: float
    left_epsilon: float


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The least that an accuracy costs. epsilon: of the whole study, its shares as they are. share: of the study's
    epsilon as it is; above 1 where it does not suffice. rho: of the question."""

    epsilon: float
    share: float
    rho: float


def preview(agreement: Agreement, assumed: Assumed = Assumed(), *, only: str = "", draws: int = DRAWS) -> Preview:
    """Every question of a checked study, or `only` one.

    Raises: MisuseError: impossible assumptions, or an exact study. StudyFileError: the budget is too small for sound
    noise. WrongStudy: there is no such question."""
    _require_private(agreement)
    _require_possible(assumed)
    chosen = (agreement.question(only),) if only else agreement.questions
    seen = tuple(foreseen(agreement, q, assumed, draws=draws) for q in chosen)
    rho, _ = study_budget(agreement)
    left = max(0.0, 1.0 - math.fsum(q.share for q in agreement.questions))
    left_epsilon = hub_epsilon(rho * left, agreement.delta) if left > 1e-9 else 0.0
    return Preview(assumed, agreement.epsilon, agreement.delta, seen, left, rho * left, left_epsilon)


def foreseen(agreement: Agreement, question: Question, assumed: Assumed, *, draws: int = DRAWS) -> Foreseen:
    """One question. Raises: as `preview`."""
    priced = prices(agreement, question)
    people = assumed.patients * (1 if question.scope == "each" else len(agreement.hubs))
    algorithm = algorithm_for(question.what)
    if isinstance(algorithm, JointAlgorithm):
        raise MisuseError(f"{question.id}: what hubs compute on shares is opened without noise; nothing to foresee.")
    setting = without_networks(agreement.setting) if isinstance(question.what, Evaluate) else agreement.setting
    sigmas = tuple(_sigma(price) for price in priced)
    asked = Asked(algorithm, question.what, setting, sigmas, people, _inputs(question, setting, assumed))
    rho = math.fsum(price.rho for price in priced)
    return Foreseen(question.id, people, question.share, rho, expected_errors(asked, assumed, draws))


def cheapest(
    agreement: Agreement,
    question_id: str,
    wanted: Accuracy,
    assumed: Assumed = Assumed(),
    *,
    draws: int = _SEARCH_DRAWS,
) -> Cheapest:
    """The smallest epsilon at which the question is as accurate as wanted, by bisection over its prices.

    Raises: MisuseError: no number of the question is meant, or no epsilon up to 100 makes them so accurate.
    """
    _require_private(agreement)
    _require_possible(assumed)
    question = agreement.question(question_id)

    def met(epsilon: float) -> bool:
        try:
            changed = msgspec.structs.replace(agreement, epsilon=epsilon)
            return _worst(foreseen(changed, question, assumed, draws=draws), wanted) <= 1.0
        except StudyFileError:  # too little for sound noise
            return False

    low, high = _LEAST_EPSILON, _MOST_EPSILON
    if not met(high):
        raise MisuseError(
            f"{question_id}: no epsilon up to {high:g} makes it that accurate with {assumed.patients} patients at "
            "each hub. Ask for less accuracy, or for fewer numbers."
        )
    while high > low * _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if met(middle) else (middle, high)
    rho = budget_of(high, agreement.delta)[0] * question.share
    return Cheapest(high, rho / study_budget(agreement)[0], rho)


def _worst(seen: Foreseen, wanted: Accuracy) -> float:
    """The largest error of the numbers that are meant, in the error that is wanted at most."""
    meant = [
        number.within
        for number in seen.numbers
        if fnmatchcase(number.what, wanted.what) and (number.unit == "patients" or not wanted.of_patients)
    ]
    if not meant:
        there = ", ".join(number.what for number in seen.numbers[:6])
        raise MisuseError(f"{seen.question} has no number {wanted.what!r} to be accurate; it has {there} …")
    return max(meant) / (wanted.within * (seen.people if wanted.of_patients else 1))


def _sigma(price: Price) -> float:
    """Deviation of the noise on an opened coordinate when all hubs answer, in the update's unit."""
    if price.mechanism is None:
        return 0.0
    return price.mechanism.total_sigma / price.mechanism.scale


def _inputs(question: Question, setting: Setting, assumed: Assumed) -> Mapping[str, dict[str, Any]]:
    """What an evaluation scores: its models as made-up patients give them, without noise."""
    if not isinstance(question.what, Evaluate):
        return {}
    data = made_up_patients(setting, assumed, _MODEL_ROWS)
    found: dict[str, dict[str, Any]] = {}
    for name in question.what.models:
        what, _ = setting.questions[name]
        result = exact_result(algorithm_for(what), what, setting, data, assumed.patients, {})
        found |= dict.fromkeys(model_references((name,), setting), result)
    return found


def _require_private(agreement: Agreement) -> None:
    if agreement.mode != "private":
        raise MisuseError(
            "An exact study adds no noise, so there is no error to foresee; 'budget:' makes it private."
        )


def _require_possible(assumed: Assumed) -> None:
    if not (1 <= assumed.patients <= 10**9 and 0 < assumed.rate < 1 and 0.5 <= assumed.auc < 0.99):
        raise MisuseError(
            "A preview assumes 1 to 1,000,000,000 patients at each hub, a rate between 0 and 1, and an area under "
            "the ROC curve from 0.5 to below 0.99."
        )
