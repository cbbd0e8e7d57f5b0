"""Questions of real agreements with a patient who is in or out, as `canary_worlds` carries them out and attacks them.

Her record is the worst there is for the algorithm: by its own bound no patient's row is longer than hers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import numpy as np

from flute.algorithms.contract import Ask, Opened
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.dp import calibrate
from flute.dp.calibrate import Mechanism
from flute.dp.ceiling import epsilon_of
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, PlanChoice, write_agreement
from flute.study.files.check import checked_agreement
from flute.study.protection import Price
from support.studies import study
from support.sums import dataset

DESCRIBE: Final = """\
  cohort:
    algorithm: describe
    variables: [age, sex]
    bins: 4
    share: 1
"""
MODEL: Final = """\
  model:
    algorithm: logistic-regression
    outcome: ill
    predictors: [age, sex]
    share: 1
"""
THREE: Final = ("north", "south", "west")
FIVE: Final = ("east", "north", "south", "upper", "west")
HER_HUB: Final = "north"
NOBODY: Final[frozenset[str]] = frozenset()
Entropy = Callable[[int], bytes]
Parameters = Array


def agreed(questions: str, budget: float, *, hubs: tuple[str, ...] = THREE, dropouts: int = 0) -> Agreement:
    """One question that may spend the whole `budget` at delta 1e-6; one hub may collude with the coordinator."""
    base = study(f"budget: {{epsilon: {budget:g}}}", questions)
    conditions = dict.fromkeys(hubs, next(iter(base.conditions.values())))
    plan = PlanChoice("secagg", 1, dropouts)
    return msgspec.structs.replace(base, hubs=hubs, conditions=conditions, plan=plan)


def records(agreement: Agreement, hub: str, n: int) -> Dataset:
    """Fixed for each hub. Old age goes with the outcome, so that a fit knows where it does not expect one."""
    rng = np.random.default_rng(list(hub.encode()))
    age, sex = rng.uniform(25, 95, n), rng.integers(0, 2, n).astype(np.float64)
    ill = (rng.random(n) < 1 / (1 + np.exp(-(age - 60) / 8))).astype(np.float64)
    used = [v for v in agreement.variables if v.variable.name in ("age", "sex", "ill")]
    return dataset({"age": age, "sex": sex, "ill": ill}, used)


def patient(agreement: Agreement, *, age: float, sex: float = 1.0, ill: float = 0.0) -> Dataset:
    used = [v for v in agreement.variables if v.variable.name in ("age", "sex", "ill")]
    return dataset({"age": [age], "sex": [sex], "ill": [ill]}, used)


@dataclass(frozen=True, slots=True)
class Rows:
    """float64 of one step. `others`: [n, d] for each hub that answers; `hers`: [1, d]; both before they are covered.

    expected: [d] for each hub, what its rows come to on the grid. shown: [d] her row on the grid, clipped.
    """

    others: dict[str, Array]
    hers: Array
    expected: dict[str, Array]
    shown: Array


@dataclass
class Scene:
    """One question, whose records are fixed and whose patient is in or out. It has one question and all its budget.

    stretch: her row is that many times what the algorithm makes of her, as if it broke its own bound.
    asks: step to parameters that a coordinator chose that cheats; None where it asks as the algorithm says.
    prices: as agreed, or of a broken build.
    """

    agreement: Agreement
    people: int
    canary: Dataset
    away: frozenset[str] = NOBODY
    stretch: float = 1.0
    asks: Callable[[int], Parameters] | None = None
    prices: tuple[Price, ...] = ()
    _kept: dict[int, tuple[Parameters, Rows]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.question = self.agreement.questions[0]
        self.agreed_prices = checked_agreement(write_agreement(self.agreement)).prices[self.question.id]
        self.prices = self.prices or self.agreed_prices
        self.present = tuple(sorted(set(self.agreement.hubs) - self.away))
        self._records = {hub: records(self.agreement, hub, self.people) for hub in self.present}
        self._setting = self.agreement.setting

    def ask(self, history: Sequence[Opened]) -> Parameters:
        """What the next step is asked with."""
        if self.asks is not None:
            return self.asks(len(history))
        reached = algorithm_for(self.question.what).next(self.question.what, self._setting, history, {})
        assert isinstance(reached, Ask)
        return reached.parameters

    def rows(self, step: int, parameters: Parameters) -> Rows:
        """By the algorithm itself; kept while a step is asked with the same parameters, since records are fixed."""
        kept = self._kept.get(step)
        if kept is None or not np.array_equal(kept[0], parameters):
            kept = self._kept[step] = (parameters, self._computed(step, parameters))
        return kept[1]

    def _computed(self, step: int, parameters: Parameters) -> Rows:
        mechanism = self.prices[step].mechanism
        assert mechanism is not None
        others = {hub: self._update(step, parameters, data) for hub, data in self._records.items()}
        hers = self.stretch * self._update(step, parameters, self.canary)
        expected = {hub: on_grid(rows, mechanism).sum(axis=0) for hub, rows in others.items()}
        return Rows(others, hers, expected, on_grid(hers, mechanism)[0])

    def _update(self, step: int, parameters: Parameters, data: Dataset) -> Array:
        what = self.question.what
        return algorithm_for(what).update(what, self._setting, step, parameters, data)

    def epsilon_against(self, honest_shares: int) -> float:
        """What is claimed of all steps together, at delta 1e-6, where that many shares of noise are not known."""
        rho = sum(price.mechanism.rho_against(honest_shares) for price in self.agreed_prices if price.mechanism)
        return epsilon_of(rho, self.agreement.delta - sum(price.delta for price in self.agreed_prices))

    @property
    def charged(self) -> float:
        """As epsilon at delta 1e-6."""
        added = sum(price.delta for price in self.agreed_prices)
        return epsilon_of(sum(price.rho for price in self.agreed_prices), self.agreement.delta - added)


def on_grid(rows: Array, mechanism: Mechanism) -> Array:
    """What rounding leaves unchanged on average. The build's own clip is used, since an attacker knows the code."""
    return calibrate.clip(rows, mechanism.clip_norm) * mechanism.scale


def describe_scene(budget: float, **changes: object) -> Scene:
    """Her age is the lowest there is: her row then has the full clip norm, exactly."""
    agreement = agreed(DESCRIBE, budget)
    return Scene(agreement, 20, patient(agreement, age=20.0), **changes)  # type: ignore[arg-type]


def dropout_scene(budget: float, **changes: object) -> Scene:
    """Five hubs, one of which is away; four must answer and one may collude, so three shares are charged for."""
    agreement = agreed(DESCRIBE, budget, hubs=FIVE, dropouts=1)
    return Scene(agreement, 20, patient(agreement, age=20.0), frozenset({"upper"}), **changes)  # type: ignore[arg-type]


def model_scene(budget: float, **changes: object) -> Scene:
    """Four steps, each asked with what the earlier ones gave. She is as old as can be and is not ill, which the fit
    does not expect: her row has the full clip norm at every step."""
    agreement = agreed(MODEL, budget)
    return Scene(agreement, 100, patient(agreement, age=100.0), **changes)  # type: ignore[arg-type]


def cheating_asks(step: int) -> Parameters:
    """Coefficients of 0 and huge directions: every row of a gradient step then has norm 1, the most there is."""
    return np.zeros(0) if step == 0 else np.concatenate([np.zeros(3), (1e6 * np.eye(3)).ravel()])


# --- broken builds ------------------------------------------------------------------------------------


def with_noise(scene: Scene, hub_sigma: Callable[[Mechanism], float]) -> tuple[Price, ...]:
    """The scene's prices in a build whose hubs add noise of another deviation than was charged for."""
    return tuple(
        replace(price, mechanism=replace(price.mechanism, hub_sigma=hub_sigma(price.mechanism)))
        for price in scene.agreed_prices
        if price.mechanism is not None
    )


def halved(mechanism: Mechanism) -> float:
    return mechanism.hub_sigma / 2


def shared_by_all(mechanism: Mechanism) -> float:
    """m = n: what is charged for is divided by all hubs, as if none colluded and none were away."""
    return mechanism.sigma / mechanism.hubs**0.5


class Reused:
    """Bytes that repeat after `period` calls: every release of a hub then has the same noise."""

    def __init__(self, entropy: Entropy, period: int) -> None:
        self._entropy, self._period = entropy, period
        self._drawn: list[bytes] = []
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        if len(self._drawn) < self._period:
            self._drawn.append(self._entropy(size))
        self._calls += 1
        return self._drawn[(self._calls - 1) % self._period]


def repeatable(seed: str) -> Entropy:
    """Bytes for tests that give the same worlds every time."""
    calls = iter(range(2**62))

    def entropy(size: int) -> bytes:
        return hashlib.shake_256(seed.encode() + next(calls).to_bytes(8, "big")).digest(size)

    return entropy
