"""The one place where guarantees are combined: what a study costs, how an answer is covered, and which of
the nine threat cells hold.

Only this module imports `dp.noise` and the aggregation protocol (import-linter).
Everything here follows from the signed agreement; neither the coordinator nor the researcher can say what
a step costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import decode_exact, encode_exact
from flute.algorithms.contract import Mode, StepShape
from flute.algorithms.registry import algorithm_for
from flute.data.variables import Array
from flute.defaults import ROUNDING_BETA, ROUNDING_DELTA_SHARE
from flute.dp.accounting import epsilon, rho_for
from flute.dp.calibrate import Mechanism, mechanism_for
from flute.errors import MisuseError, StudyFileError
from flute.study.agreement import Agreement, Question

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


def guarantees(mode: Mode) -> tuple[Cell, ...]:
    """The nine cells of plan `secagg`. It uses no enclave, so the columns are alike."""
    return tuple(
        Cell("secagg", mode, _PARTIES[p], _ENCLAVES[e], *_SECAGG[mode, p]) for p in _PARTIES for e in _ENCLAVES
    )


@dataclass(frozen=True, slots=True)
class Price:
    """What one step of a question costs one patient at one hub. `mechanism` is None in exact mode."""

    shape: StepShape
    mechanism: Mechanism | None
    rho: float
    delta: float
    numbers: int


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
        return tuple(Price(shape, None, 0.0, 0.0, shape.size) for shape in outline)
    total = study_budget(agreement)[0] * question.share
    return tuple(_price(agreement, question, shape, total * shape.weight) for shape in outline)


def _price(agreement: Agreement, question: Question, shape: StepShape, rho: float) -> Price:
    hubs = 1 if question.scope == "each" else len(agreement.hubs)
    colluding = 0 if question.scope == "each" else agreement.plan.colluding
    try:
        mechanism = mechanism_for(
            rho=rho, clip_norm=shape.clip_norm, size=shape.size, hubs=hubs, survivors_min=hubs, colluding=colluding
        )
    except MisuseError as error:
        raise StudyFileError(
            f"{question.id}: its share of the budget cannot be covered: {error.text} Give it a larger share."
        ) from error
    return Price(shape, mechanism, mechanism.rho, ROUNDING_BETA, 0)


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
