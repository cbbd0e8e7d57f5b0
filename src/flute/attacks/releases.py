"""What an attacker gets to see: a study's own question, carried out by the code that hubs run, with and without its
protection.

Protected: what every hub's records give goes through `study.contribution.covered`, only the sum over all hubs is
opened, and the next step is asked with what the algorithm makes of it. Masks are left out: they cancel bit by bit in
the sum, which tests/adversary/test_empirical_epsilon.py checks on the same road. The attacker is the worst that the
agreement permits: a coordinator with as many hubs as may collude, which subtracts their answers, noise included, from
a sum over as few hubs as may answer.
Unprotected: the same steps as plain federated learning takes them. One hub's own sum is seen, without noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Algorithm, Ask, LogisticRegression, Opened, Setting
from flute.algorithms.design import design_for
from flute.attacks.chance import Chance
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.spec import NeuralNetwork
from flute.errors import BadTotal, MisuseError
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question
from flute.study.contribution import covered, given_by
from flute.study.protection import RAND_SIZE, Price, exact_sum, hub_epsilon, prices, sharers, uncover

Asks = Array
_HUGE = 1e6
"""Of a direction that a coordinator asks with, so that every row has all the length it may have."""
_STEADY = 1e-3
"""Of a clip norm: what a private fit is told of noise where none was added, since its steps divide by it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One step as the attacker has it: what it was asked with, a sum of rows float64 [d] in the update's unit, and
    the deviation of the noise on each coordinate that the attacker cannot subtract (0: none)."""

    parameters: Asks
    total: Array
    sigma: float


@dataclass(frozen=True, slots=True)
class Carried:
    """A question carried out: what the attacker saw, and the result that everybody gets."""

    steps: tuple[Seen, ...]
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """A question under attack. `hubs`: those that answer, the attacked one first, as few as may; `honest`: as many
    of them as are certain to keep their noise to themselves, the attacked one among them."""

    agreement: Agreement
    question: Question
    steps: tuple[Price, ...]
    hubs: tuple[str, ...]
    honest: tuple[str, ...]

    @property
    def setting(self) -> Setting:
        return self.agreement.setting

    @property
    def algorithm(self) -> Algorithm:
        return algorithm_for(self.question.what)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.algorithm.fields(self.question.what, self.setting)

    @property
    def model(self) -> LogisticRegression:
        """Raises: MisuseError: the question makes no model."""
        if not isinstance(self.question.what, LogisticRegression):
            raise MisuseError(f"{self.question.id} is no logistic regression.")
        return self.question.what

    @property
    def epsilon(self) -> float:
        """What this question alone costs a patient, at the study's delta; infinite where it is exact."""
        if self.agreement.mode == "exact":
            return float("inf")
        added = sum(price.delta for price in self.steps)
        return hub_epsilon(sum(price.rho for price in self.steps), self.agreement.delta - added)

    def rows(self, step: int, parameters: Asks, data: Dataset) -> Array:
        """Per-patient rows [n, d], as the hub's own code makes them."""
        return self.algorithm.update(self.question.what, self.setting, step, parameters, data)

    def given(self, step: int, parameters: Asks, data: Dataset) -> Callable[[], Array | Iterator[Array]]:
        """What will give a hub's numbers: a table of rows, blocks of it, or a total."""
        return given_by(self.algorithm, self.question.what, self.setting, step, parameters, data)


def subject_of(agreement: Agreement, question: Question) -> Subject:
    """Raises: StudyFileError: the agreement cannot be carried out."""
    hubs = tuple(sorted(agreement.hubs))
    if question.scope == "each":
        return Subject(agreement, question, prices(agreement, question), hubs[:1], hubs[:1])
    answering = hubs[: len(hubs) - agreement.plan.dropouts]
    sure = sharers(agreement) if agreement.mode == "private" else len(answering) - max(agreement.plan.colluding, 1)
    return Subject(agreement, question, prices(agreement, question), answering, answering[:sure])


def protected(
    subject: Subject,
    records: Mapping[str, Dataset],
    chance: Chance,
    *,
    steps: int | None = None,
    asks: Sequence[Asks] = (),
    times: Mapping[str, int] | None = None,
) -> Carried:
    """The question under the plan. steps: stop after so many. asks: what a coordinator that cheats asks the first
    steps with. times: a hub that cheats multiplies its answer, after its own service has covered it.

    Raises: BadTotal: a total is beyond what so many patients can add up to."""

    def step(number: int, parameters: Asks, price: Price) -> tuple[Seen, Opened]:
        answers = {}
        for hub, data in records.items():
            given, hubs = subject.given(number, parameters, data), len(subject.agreement.hubs)
            answer = covered(given, len(data), price, hubs=hubs, rand=chance.bytes(RAND_SIZE))
            answers[hub] = answer * (times or {}).get(hub, 1)
        left = uncover(_sum(answers[hub] for hub in subject.honest), price)[0]
        opened = _sum(answers.values())
        require_possible(opened, price)
        total, sigma = uncover(opened, price)
        return Seen(parameters, left, _hidden(price, len(subject.honest))), Opened(parameters, total, sigma)

    return _carried(subject, step, steps, asks)


def unprotected(
    subject: Subject,
    records: Mapping[str, Dataset],
    *,
    steps: int | None = None,
    asks: Sequence[Asks] = (),
    times: Mapping[str, int] | None = None,
) -> Carried:
    """The same steps in clear: the attacked hub's own sums are seen, and nothing is clipped or covered."""

    def step(number: int, parameters: Asks, price: Price) -> tuple[Seen, Opened]:
        sums = {hub: in_clear(subject, number, parameters, data) for hub, data in records.items()}
        total = np.sum([(times or {}).get(hub, 1) * part for hub, part in sums.items()], axis=0)
        little = 0.0 if price.mechanism is None else _STEADY * price.mechanism.clip_norm
        return Seen(parameters, sums[subject.hubs[0]], 0.0), Opened(parameters, total, little)

    return _carried(subject, step, steps, asks)


def in_clear(subject: Subject, step: int, parameters: Asks, data: Dataset) -> Array:
    """What a hub's records come to [d], neither clipped nor covered."""
    given = subject.given(step, parameters, data)()
    rows = given if isinstance(given, np.ndarray) else np.concatenate([*given])
    return rows if rows.ndim == 1 else exact_sum(rows)


def _carried(subject: Subject, step: Any, steps: int | None, asks: Sequence[Asks]) -> Carried:
    seen: list[Seen] = []
    history: list[Opened] = []
    last = len(subject.steps) if steps is None else min(steps, len(subject.steps))
    while True:
        if steps is not None and len(history) == last:
            return Carried(tuple(seen), {})
        if len(history) < len(asks):
            reached: Any = Ask(asks[len(history)])
        else:
            reached = subject.algorithm.next(subject.question.what, subject.setting, history, {})
        if not isinstance(reached, Ask):
            return Carried(tuple(seen), reached.result)
        shown, opened = step(len(history), reached.parameters, subject.steps[len(history)])
        seen.append(shown)
        history.append(opened)


def _sum(answers: Any) -> NDArray[np.int64]:
    return np.asarray(np.sum(list(answers), axis=0))


def require_possible(total: NDArray[np.int64], price: Price) -> None:
    """What the coordinator tests of an opened total (aggregation.codec). Raises: BadTotal: nobody can be named."""
    length = float(np.linalg.norm(total.astype(np.float64)))
    if int(np.abs(total).max(initial=0)) > price.bounds.total or length > price.bounds.norm:
        raise BadTotal("An opened total is beyond what these hubs' patients can add up to. It is not used.")


def longest_asks(subject: Subject) -> tuple[Asks, ...]:
    """What a coordinator that cheats asks with, all steps fixed beforehand: coefficients of 0, where no residual is
    nothing, and directions so long that every row has all the length it may have. Nothing for questions that take no
    parameters; of networks no step, so that all are asked as the algorithm asks."""
    what = subject.question.what
    if isinstance(what, NeuralNetwork):
        return ()
    if not isinstance(what, LogisticRegression):
        return (np.zeros(0),) * len(subject.steps)
    size = design_for(what.predictors, subject.setting).size
    if subject.agreement.mode == "exact":
        return (np.zeros(size),)
    asked = np.concatenate([np.zeros(size), (_HUGE * np.eye(size)).ravel()])
    return (np.zeros(0), *(asked for _ in subject.steps[1:]))


def _hidden(price: Price, honest: int) -> float:
    """Deviation of the noise of `honest` hubs, in the update's unit."""
    if price.mechanism is None:
        return 0.0
    return price.mechanism.hub_sigma * float(np.sqrt(honest)) / price.mechanism.scale
