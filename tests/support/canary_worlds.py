"""A question of a real agreement, carried out many times with one patient and many times without her, under attack.

One world: rows of every hub by the real algorithm, `study.protection.cover` with fresh bytes, the sum (under real
masks where asked for), `uncover`, and the next step asked with what the algorithm makes of the totals so far.
The attacker knows all but whether she is in: every record, hers too, the code, and the answers of its own hubs, which
it subtracts. What is left is Gaussian around nothing or around her row, so the sum over steps of
    (x v - x x / 2) / s^2    (x her row on the grid, v what is left, s^2 the variance of the noise it does not know)
is the log-likelihood ratio, the best score there is; x depends on the parameters that were really asked with.

What a score does not see: that other patients' rows are rounded (variance below 1/4 for each, beside 10^6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adversary.secagg_rounds import Federation, group
from flute.algorithms.contract import Opened
from flute.data.variables import Array
from flute.study.agreement import agreement_digest, write_agreement
from flute.study.protection import RAND_SIZE, Price, cover, uncover
from support.canary_scenes import HER_HUB, Entropy, Reused, Rows, Scene

Answers = dict[str, NDArray[np.int64]]
Total = Callable[[Answers, Price], NDArray[np.int64]]


def in_clear(answers: Answers, price: Price) -> NDArray[np.int64]:
    """The sum that masks would give, without them."""
    return np.sum(list(answers.values()), axis=0)


class Masks:
    """The sum through the real protocol: tickets, masks, echo, shares, collector; hubs of `away` send no vector."""

    def __init__(self, scene: Scene, seed: object = 0) -> None:
        hubs, plan = tuple(sorted(scene.agreement.hubs)), scene.agreement.plan
        terms = group(
            len(hubs), plan.colluding, hubs=hubs, survivors_min=len(hubs) - plan.dropouts,
            study=scene.agreement.study, agreement=agreement_digest(write_agreement(scene.agreement)),
        )  # fmt: skip
        self._away = tuple(scene.away)
        self._federation = Federation(terms, seed=seed)

    def __call__(self, answers: Answers, price: Price) -> NDArray[np.int64]:
        opened = self._federation.run(
            answers, bounds=price.bounds, width=price.layout.width, silent=self._away
        )  # fmt: skip
        for hub in self._away:  # its ticket was named, so it is void
            burnt = self._federation.tickets[hub].pub.serial
            self._federation.tickets[hub] = self._federation.hubs[hub].deal(after=burnt)
        return opened.total.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Step:
    """One opened step, float64 [d] on the grid.

    left: the total less what all rows but hers come to. own: for each hub but hers, its answer less what its rows
    come to, which is what it can subtract from `left`. hers: her row, clipped. hub_sigma: of one share of the noise.
    """

    left: Array
    own: dict[str, Array]
    hers: Array
    hub_sigma: float


def world(scene: Scene, *, inside: bool, entropy: Entropy, total: Total = in_clear) -> tuple[Step, ...]:
    """One world from the first step's rows to the last step's total."""
    history: list[Opened] = []
    steps = []
    for price in scene.prices:
        parameters = scene.ask(history)
        rows = scene.rows(len(history), parameters)
        answers = _answers(rows, price, inside, len(scene.agreement.hubs), entropy)
        opened = total(answers, price)
        steps.append(_seen(rows, price, answers, opened))
        values, sigma = uncover(opened, price)
        history.append(Opened(parameters, values, sigma))
    return tuple(steps)


def _answers(rows: Rows, price: Price, inside: bool, hubs: int, entropy: Entropy) -> Answers:
    """Every hub's covered sum, as `hub.rounds.round` makes it."""
    answers = {}
    for hub, others in rows.others.items():
        all_rows = np.vstack([others, rows.hers]) if inside and hub == HER_HUB else others
        answers[hub] = cover(all_rows, price, hubs=hubs, rand=entropy(RAND_SIZE))
    return answers


def _seen(rows: Rows, price: Price, answers: Answers, opened: NDArray[np.int64]) -> Step:
    assert price.mechanism is not None
    return Step(
        left=opened - np.sum(list(rows.expected.values()), axis=0),
        own={hub: answer - rows.expected[hub] for hub, answer in answers.items() if hub != HER_HUB},
        hers=rows.shown,
        hub_sigma=price.mechanism.hub_sigma,
    )


# --- scores -------------------------------------------------------------------------------------------


def likelihood_ratio(steps: Sequence[Step], known: int) -> float:
    """The best score of whoever subtracts `known` hubs' answers, none of them hers; all steps together."""
    score = 0.0
    for step in steps:
        left = _without(step, known)
        variance = step.hub_sigma**2 * (len(step.own) + 1 - known)
        score += float(step.hers @ left - step.hers @ step.hers / 2) / variance
    return score


def difference(steps: Sequence[Step], known: int) -> float:
    """The score of whoever hopes that the last step and the one before bear the same noise."""
    before, last = steps[-2], steps[-1]
    apart = last.hers - before.hers
    return float(apart @ (_without(last, known) - _without(before, known)) / (apart @ apart))


def _without(step: Step, known: int) -> Array:
    colluding = sorted(step.own)[:known]
    return step.left - np.sum([step.own[hub] for hub in colluding], axis=0) if colluding else step.left


Score = Callable[[Sequence[Step], int], float]


@dataclass(frozen=True, slots=True)
class Scores:
    """float64 [worlds] with her and without her, for each number of colluding hubs."""

    inside: dict[int, Array]
    outside: dict[int, Array]


def attack(
    scene: Scene, worlds: int, *, entropy: Entropy, known: Sequence[int] = (0, 1, 2), score: Score = likelihood_ratio,
    masks: Total | None = None, masked_every: int = 1, reuse: bool = False,
) -> Scores:  # fmt: skip
    """Scores of `worlds` worlds of each kind, turn by turn.

    masks: the sum of every `masked_every`-th world of each kind, which is checked to be the sum in clear, bit by bit.
    reuse: in a build that draws its noise once per hub.
    """
    found: Mapping[bool, dict[int, list[float]]] = {side: {k: [] for k in known} for side in (True, False)}
    for number in range(worlds):
        total = in_clear if masks is None or number % masked_every else _checked(masks)
        for inside in (True, False):
            fresh = Reused(entropy, len(scene.present)) if reuse else entropy
            steps = world(scene, inside=inside, entropy=fresh, total=total)
            for k in known:
                found[inside][k].append(score(steps, k))
    sides = [{k: np.array(values) for k, values in found[side].items()} for side in (True, False)]
    return Scores(*sides)


def _checked(masks: Total) -> Total:
    def total(answers: Answers, price: Price) -> NDArray[np.int64]:
        opened = masks(answers, price)
        assert np.array_equal(opened, in_clear(answers, price)), "masks are not exact"
        return opened

    return total
