"""The one place where protections are put together: what a study costs, and how an answer is covered.

Only this module imports clipping and noise (import-linter); which threat cells hold then: `study.threats`.
Everything here follows from the signed agreement; neither the coordinator nor the researcher can say what
a step costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import ROOM, Bounds, Layout, decode_exact, encode_exact, exact_bounds, width_for
from flute.aggregation.plan import PLANS
from flute.aggregation.terms import default_threshold, noise_sharers
from flute.algorithms.contract import HubTotals, JointAlgorithm, StepShape
from flute.data.variables import Array
from flute.defaults import FIXED_POINT_BITS, JOINT_FRACTION_BITS, MIN_HUBS, ROUNDING_BETA, ROUNDING_DELTA_SHARE
from flute.defaults.joint import MAX_INPUT_BITS
from flute.defaults.rounds import NARROW_FRACTION_BITS, NARROW_FROM
from flute.defaults.threshold import MAX_CELLS, MAX_TOTAL
from flute.dp.calibrate import Mechanism, mechanism_for
from flute.dp.ceiling import epsilon_of, rho_within
from flute.dp.views import by_onlooker
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question

_LARGEST_TOTAL: Final = {"threshold-he": MAX_TOTAL, "mpc": 2**MAX_INPUT_BITS // 2}
"""Plans whose totals have less room than 64 bits: found by search, or proven in range bit by bit."""
MIN_FRACTION_BITS: Final = 4
"""Of exact sums: with fewer, rounding one hub's sum would be off by more than a thirtieth."""
RAND_SIZE: Final = 64
"""Fresh bytes that `cover` needs: 32 for rounding, 32 for noise."""


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
    fraction_bits: int = FIXED_POINT_BITS
    """Of exact sums."""


@lru_cache(maxsize=256)
def budget_of(epsilon: float, delta: float) -> tuple[float, float]:
    """What an epsilon at `delta` allows: (sum of charges rho, sum of the deltas that rounding adds).

    ROUNDING_DELTA_SHARE of delta is set aside for rounding, alike in studies and in hubs' ceilings."""
    return rho_within(epsilon, (1 - ROUNDING_DELTA_SHARE) * delta), ROUNDING_DELTA_SHARE * delta


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
        return tuple(_exact_price(agreement, question, shape) for shape in outline)
    total = study_budget(agreement)[0] * question.share
    return tuple(_price(agreement, question, shape, total * shape.weight) for shape in outline)


def _exact_price(agreement: Agreement, question: Question, shape: StepShape) -> Price:
    """Exact sums: as many digits as the plan has room for, FIXED_POINT_BITS at most; fewer of a network's many."""
    layout, n = Layout(64, shape.size), len(agreement.hubs)
    if isinstance(algorithm_for(question.what), JointAlgorithm):  # opened by the hubs themselves, not a sum
        return Price(shape, None, 0.0, 0.0, shape.size, layout, exact_bounds(1), JOINT_FRACTION_BITS)
    if agreement.plan.name not in _LARGEST_TOTAL:
        return _narrow_price(agreement, question, shape) or Price(
            shape, None, 0.0, 0.0, shape.size, layout, exact_bounds(n)
        )
    if agreement.plan.name == "threshold-he":
        _require_cells(question, shape)
    most = _LARGEST_TOTAL[agreement.plan.name]
    reach = agreement.max_patients * shape.magnitude + 1
    bits = min(math.floor(math.log2(most / (n * reach))), FIXED_POINT_BITS)
    if bits < MIN_FRACTION_BITS:
        raise StudyFileError(
            f"{question.id}: totals under plan {agreement.plan.name} go up to {most:,}, and "
            f"{agreement.max_patients:,} patients at each of {n} hubs leave no digits for fractions. Write a smaller "
            "'max_patients', ask for private results, or choose plan secagg."
        )
    part = math.ceil(reach * 2**bits)
    return Price(shape, None, 0.0, 0.0, shape.size, layout, Bounds(part, n * part, math.inf), bits)


def _narrow_price(agreement: Agreement, question: Question, shape: StepShape) -> Price | None:
    """What hubs computed over many steps in 32 bits is not known to 40 binary digits: where 32 bits leave
    NARROW_FRACTION_BITS, it travels in half the bytes. None: it is not such a sum, or they leave fewer."""
    if shape.size < NARROW_FROM or not isinstance(algorithm_for(question.what), HubTotals):
        return None
    n, reach = len(agreement.hubs), agreement.max_patients * shape.magnitude + 1
    bits = min(math.floor(math.log2(ROOM[32] / (n * reach))), FIXED_POINT_BITS)
    part = math.ceil(reach * 2**bits)
    if bits < NARROW_FRACTION_BITS or n * part > ROOM[32]:
        return None
    return Price(shape, None, 0.0, 0.0, shape.size, Layout(32, shape.size), Bounds(part, n * part), bits)


def _require_cells(question: Question, shape: StepShape) -> None:
    if shape.size > MAX_CELLS:
        raise StudyFileError(
            f"{question.id}: plan threshold-he encrypts at most {MAX_CELLS:,} numbers at a time, and this asks for "
            f"{shape.size:,}. Ask for less, or choose plan secagg or mpc."
        )


def sharers(agreement: Agreement) -> int:
    """m: hubs that are certain to be honest and in every sum that can be opened; their noise alone is charged for.

    Raises: NotPossible: no threshold of shares protects so few hubs from so many colluding ones.
    """
    n, plan = len(agreement.hubs), agreement.plan
    if plan.name != "secagg":  # such plans open totals of all hubs or none
        return n - max(plan.colluding, 1)
    return noise_sharers(
        hubs=n, colluding=plan.colluding, survivors_min=n - plan.dropouts,
        threshold=default_threshold(n, plan.colluding), echo=plan.echo,
    )  # fmt: skip


def most_dropouts(agreement: Agreement) -> int:
    """How many hubs a sum may lack at most: fewer survivors could be opened twice, or would say too much."""
    n = len(agreement.hubs)
    if not PLANS[agreement.plan.name].recovers_dropouts:
        return 0
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
    if agreement.plan.name == "threshold-he" and question.scope == "pooled":
        _require_cells(question, shape)
        if bounds.total > MAX_TOTAL:
            most = agreement.max_patients * MAX_TOTAL // (2 * bounds.total)
            raise StudyFileError(
                f"{question.id}: encrypted totals are found by search up to {MAX_TOTAL:,}, and this question's may "
                f"come to {bounds.total:,}. Say how many patients a hub has at most: 'max_patients: {max(most, 1)}' "
                "would do."
            )
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

    priced: question to the prices of its steps. What is charged agrees with this but for what rounding adds.
    """
    if agreement.mode == "exact":
        return ()
    mechanisms = [p.mechanism for steps in priced.values() for p in steps if p.mechanism is not None]
    seen = by_onlooker(mechanisms, agreement.delta)
    return tuple(Sight(onlooker.value, report.noised, report.sentence()) for onlooker, report in seen.items())


def cover(updates: Array | Iterator[Array], price: Price, *, hubs: int, rand: bytes) -> NDArray[np.int64]:
    """Per-patient rows float64 [n, d] to the int64 [d] vector that may be masked and leave.

    updates: one table; in private mode also tables of some patients each, of which one is held at a time. The answer
        is the same however patients are divided. What the iterator raises passes through, and nothing may leave.
    Private: clip, scale, round stochastically, sum as integers, add this hub's share of the noise.
    Exact: sum in 64-bit fixed point. `rand`: RAND_SIZE fresh bytes of operating-system entropy, never reused.
    Raises: MisuseError: a wrong shape, or a sum that the fixed point cannot hold.
    """
    if price.mechanism is not None:
        return price.mechanism.contribution(updates, rand=rand)
    if not isinstance(updates, np.ndarray):
        raise MisuseError("Exact sums are of one table: a correctly rounded one is not worked out in parts.")
    if updates.ndim != 2 or updates.shape[1] != price.shape.size:
        raise MisuseError("An update has another shape than its step was agreed with.")
    return encode_exact(exact_sum(updates), hubs=hubs, bits=price.fraction_bits)


def exact_sum(updates: Array) -> Array:
    """Column sums float64 [d], correctly rounded, so that the order of the rows does not matter."""
    if len(updates) < 2:
        return np.asarray(updates.sum(axis=0))
    return np.array([math.fsum(column.tolist()) for column in updates.T], dtype=np.float64)


def uncover(total: NDArray[np.int64], price: Price) -> tuple[Array, float]:
    """The opened integers as float64 [d] in the update's unit, and the deviation of the noise on each."""
    if price.mechanism is None:
        return decode_exact(total, bits=price.fraction_bits), 0.0
    mechanism = price.mechanism
    return total.astype(np.float64) / mechanism.scale, mechanism.total_sigma / mechanism.scale


def hub_epsilon(rho: float, delta: float) -> float:
    """What charges of `rho` in all mean as epsilon at `delta`."""
    return epsilon_of(rho, delta)


def epsilon_at(rho: float, delta: float) -> float:
    """The epsilon of charges of `rho` in all that were agreed at `delta`: inverse of `budget_of`, rounded up."""
    return hub_epsilon(rho, (1 - ROUNDING_DELTA_SHARE) * delta)
