"""The one place where guarantees are combined: what a study costs, how an answer is covered, and which of
the nine threat cells hold.

Only this module imports `dp.noise` and the aggregation protocol (import-linter).
Everything here follows from the signed agreement; neither the coordinator nor the researcher can say what
a step costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import Bounds, Layout, decode_exact, encode_exact, exact_bounds, width_for
from flute.aggregation.terms import default_threshold, noise_sharers
from flute.algorithms.contract import Mode, StepShape
from flute.algorithms.registry import algorithm_for
from flute.data.variables import Array
from flute.defaults import MIN_HUBS, ROUNDING_BETA, ROUNDING_DELTA_SHARE
from flute.dp.accounting import epsilon, rho_for
from flute.dp.calibrate import Mechanism, mechanism_for
from flute.dp.views import by_onlooker
from flute.errors import MisuseError, StudyFileError
from flute.study.agreement import Agreement, PlanChoice, Question

RAND_SIZE: Final = 64
"""Fresh bytes that `cover` needs: 32 for rounding, 32 for noise."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One threat cell of one plan: does it hold, on what does that rest, which test tried to break it."""

    plan: str
    mode: Mode
    parties: str
    enclaves: str
    holds: bool
    because: str
    test: str


_PARTIES: Final = {
    "H": "all parties honest but curious",
    "P": "an honest fraction of the parties; the others, the coordinator among them, collude and cheat",
    "D": "an honest fraction of the data; the rest is poisoned",
}
_ENCLAVES: Final = {"N": "no enclave trusted", "S": "some enclaves honest", "A": "all enclaves honest"}
_SECAGG: Final[dict[tuple[Mode, str], tuple[bool, str, str]]] = {
    ("private", "H"): (
        True,
        "Every party sees only the total of all hubs, covered by the noise of all of them.",
        "tests/adversary/test_secagg_sees_only_totals.py",
    ),
    ("private", "P"): (
        True,
        "Masks open only what a threshold of hubs signed for; the noise of the honest hubs alone is what is "
        "charged. Holds up to the number of colluding hubs that the agreement names, the coordinator included.",
        "tests/adversary/test_secagg_cheats.py",
    ),
    ("private", "D"): (
        False,
        "A patient's pull is clipped by each hub's own service, but a hub that lies about its data can move the "
        "result. It learns nothing more by that.",
        "tests/adversary/test_secagg_cheats.py",
    ),
    ("exact", "H"): (
        True,
        "Every party sees only exact totals of all hubs; no epsilon bounds what they tell about a patient.",
        "tests/adversary/test_secagg_sees_only_totals.py",
    ),
    ("exact", "P"): (
        False,
        "No single hub's answer opens, but colluding hubs subtract their own from an exact total and see the sum "
        "of the rest. Only the fixed list of questions and the floor limit what that tells.",
        "tests/adversary/test_secagg_cheats.py",
    ),
    ("exact", "D"): (False, "As in private mode: a hub that lies moves the result.", ""),
}
_WITHOUT_ECHO: Final = (
    True,
    "Without the echo a coordinator that lies can open sums over fewer hubs than it says; the noise is scaled for "
    "the smallest set of honest hubs that it can reach so.",
    "tests/adversary/test_secagg_cheats.py",
)


def guarantees(mode: Mode, plan: PlanChoice) -> tuple[Cell, ...]:
    """The nine cells of plan `secagg`. It uses no enclave, so the columns are alike."""
    rows = _SECAGG if plan.echo else _SECAGG | {("private", "P"): _WITHOUT_ECHO}
    return tuple(Cell("secagg", mode, _PARTIES[p], _ENCLAVES[e], *rows[mode, p]) for p in _PARTIES for e in _ENCLAVES)


def cautions(agreement: Agreement) -> tuple[str, ...]:
    """What whoever consents should know besides the cells, in plain words."""
    n, plan = len(agreement.hubs), agreement.plan
    said = [
        "Any hub can stop a round, even after the coordinator has seen the total, and the budget of that round is "
        "spent.",
        "A condition that only one hub's patients meet shows that hub's sum.",
    ]
    if n == MIN_HUBS:
        said.insert(
            0,
            "With three hubs, one that cheats sees the sum of the other two; if two work together, only the noise "
            "protects the third." if agreement.mode == "private" else
            "With three hubs, one that subtracts its own answer sees the exact sum of the other two.",
        )  # fmt: skip
    if plan.dropouts:
        said.append(
            f"Sums may be opened without up to {plan.dropouts} of the {n} hubs; the noise is scaled for the fewest."
        )
    if not plan.echo:
        said.append("Hubs do not sign the set of answers: the coordinator is trusted to tell all of them the same.")
    return tuple(said)


@dataclass(frozen=True, slots=True)
class Price:
    """What one step of a question costs one patient at one hub, and how its sum travels.

    mechanism: None in exact mode. layout, bounds: of the vector under masks, as they follow from the agreement.
    """

    shape: StepShape
    mechanism: Mechanism | None
    rho: float
    delta: float
    numbers: int
    layout: Layout
    bounds: Bounds


@lru_cache(maxsize=256)
def budget_of(epsilon: float, delta: float) -> tuple[float, float]:
    """What an epsilon at `delta` allows: (zCDP rho, sum of the deltas that rounding adds).

    ROUNDING_DELTA_SHARE of delta is set aside for rounding, alike in studies and in hubs' ceilings."""
    return rho_for(epsilon, (1 - ROUNDING_DELTA_SHARE) * delta), ROUNDING_DELTA_SHARE * delta


def study_budget(agreement: Agreement) -> tuple[float, float]:
    """(rho, added delta) of a whole study; nothing in exact mode, which no epsilon bounds."""
    if agreement.mode == "exact":
        return 0.0, 0.0
    return budget_of(agreement.epsilon, agreement.delta)


def _outline(agreement: Agreement, question: Question) -> tuple[StepShape, ...]:
    return algorithm_for(question.what).outline(question.what, agreement.setting)


def prices(agreement: Agreement, question: Question) -> tuple[Price, ...]:
    """Price of every step that the question may take, in order.

    Raises: StudyFileError: the budget is too small for noise that can be drawn and covered soundly.
    """
    outline = _outline(agreement, question)
    if agreement.mode == "exact":
        bounds = exact_bounds(len(agreement.hubs))
        return tuple(Price(shape, None, 0.0, 0.0, shape.size, Layout(64, shape.size), bounds) for shape in outline)
    total = study_budget(agreement)[0] * question.share
    return tuple(_price(agreement, question, shape, total * shape.weight) for shape in outline)


def sharers(agreement: Agreement) -> int:
    """m: hubs that are certain to be honest and in every sum that can be opened; their noise alone is charged for.

    Raises: NotPossible: no threshold of shares protects so few hubs from so many colluding ones.
    """
    n, plan = len(agreement.hubs), agreement.plan
    return noise_sharers(
        hubs=n, colluding=plan.colluding, survivors_min=n - plan.dropouts,
        threshold=default_threshold(n, plan.colluding), echo=plan.echo,
    )  # fmt: skip


def most_dropouts(agreement: Agreement) -> int:
    """How many hubs a sum may lack at most: fewer survivors could be opened twice, or would say too much."""
    n = len(agreement.hubs)
    return n - max(default_threshold(n, agreement.plan.colluding), MIN_HUBS)


def _price(agreement: Agreement, question: Question, shape: StepShape, rho: float) -> Price:
    hubs, survivors, known = 1, 1, 0
    if question.scope == "pooled":
        hubs = len(agreement.hubs)
        survivors = hubs - agreement.plan.dropouts
        known = survivors - sharers(agreement)
    try:
        mechanism = mechanism_for(
            rho=rho, clip_norm=shape.clip_norm, size=shape.size, hubs=hubs, survivors_min=survivors, colluding=known
        )
    except MisuseError as error:
        raise StudyFileError(
            f"{question.id}: its share of the budget cannot be covered: {error.text} Give it a larger share."
        ) from error
    reach = mechanism.reach(agreement.max_patients)
    bounds = Bounds(reach.part, reach.total, reach.norm)
    layout = Layout(width_for(bounds.total), shape.size)
    return Price(shape, mechanism, mechanism.rho, ROUNDING_BETA, 0, layout, bounds)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a whole study, as agreed, is to one kind of onlooker: tight epsilon at the study's delta, and as odds."""

    who: str
    epsilon: float
    says: str


def sights(agreement: Agreement, priced: Mapping[str, Sequence[Price]]) -> tuple[Sight, ...]:
    """Against whom a private study protects how much, every question answered once; empty for an exact one.

    priced: question to the prices of its steps. What is charged is the filter's price (zCDP), a little larger.
    """
    if agreement.mode == "exact":
        return ()
    mechanisms = [p.mechanism for steps in priced.values() for p in steps if p.mechanism is not None]
    seen = by_onlooker(mechanisms, agreement.delta)
    return tuple(Sight(onlooker.value, report.noised, report.sentence()) for onlooker, report in seen.items())


def cover(updates: Array, price: Price, *, hubs: int, rand: bytes) -> NDArray[np.int64]:
    """Per-patient rows float64 [n, d] to the int64 [d] vector that may be masked and leave.

    Private: clip, scale, round stochastically, sum as integers, add this hub's share of the noise.
    Exact: sum in 64-bit fixed point. `rand`: RAND_SIZE fresh bytes of operating-system entropy, never reused.
    Raises: MisuseError: a wrong shape, or a sum that the fixed point cannot hold.
    """
    if price.mechanism is not None:
        return price.mechanism.contribution(updates, rand=rand)
    if updates.ndim != 2 or updates.shape[1] != price.shape.size:
        raise MisuseError("An update has another shape than its step was agreed with.")
    return encode_exact(exact_sum(updates), hubs=hubs)


def exact_sum(updates: Array) -> Array:
    """Column sums float64 [d], correctly rounded, so that the order of the rows does not matter."""
    return np.array([math.fsum(column) for column in updates.T], dtype=np.float64)


def uncover(total: NDArray[np.int64], price: Price) -> tuple[Array, float]:
    """The opened integers as float64 [d] in the update's unit, and the deviation of the noise on each."""
    if price.mechanism is None:
        return decode_exact(total), 0.0
    mechanism = price.mechanism
    return total.astype(np.float64) / mechanism.scale, mechanism.total_sigma / mechanism.scale


def hub_epsilon(rho: float, delta: float) -> float:
    """What a zCDP charge means as epsilon at `delta`."""
    return epsilon(rho, delta) if rho > 0 else 0.0
