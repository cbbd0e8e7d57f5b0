"""A logistic regression that a minority of hubs cannot drag: the middle of the hubs' own fits, found on shares.

Every hub fits its own patients on a public scale (the reference of the study file, or the middle and a quarter of a
range), under a weak public prior (`own_fit`), and has one vote, however many patients it has. Opened is,
coefficient by coefficient, the median of the votes (`median`): of an odd number of votes the middle one, of an even
number the mean of the middle two. No hub's vote is seen, nor whose it is that is opened.

What it resists: hubs of which fewer than half of the votes are poisoned, whether their records are false or the hub
puts in what it likes. Every coefficient then lies between the least and the largest of the honest hubs' own. What it
does not resist: a poisoned half; what a false hub may do to which honest vote is the middle one.

What it costs. A hub's own fit knows its own patients alone: the middle of m such fits has up to sqrt(pi / 2) = 1.25
times the error of one fit over all patients where hubs are alike and of one size, and more where one hub has most of
the patients; the bias that small samples give a fit does not average out. Where hubs differ, it is their middle and
no average. A hub with fewer than `least` patients with or without the outcome has no vote.
Sources: one-shot averaging and its median, Yin, Chen, Ramchandran and Bartlett 2018; `median`, `own_fit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, PrivacyStatement, Setting, Spec, StepShape
from flute.algorithms.design import (
    Design,
    check_design,
    design_for,
    included,
    known,
    matrix,
    raw_scaling,
    study_scaling,
    transfer,
)
from flute.algorithms.joint_statistics import JointBase, require_exact
from flute.algorithms.linear import model_table, or_none, wald_table
from flute.algorithms.private_rows import private_scaling
from flute.algorithms.robust import MEDIAN_LOSS
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.models.linear_models import (
    ROBUST_FRACTION_BITS,
    ROBUST_INTERCEPT_SD,
    ROBUST_LIMIT_BITS,
    ROBUST_MAX_COLUMNS,
    ROBUST_MAX_HUBS,
    ROBUST_MIN_VOTES,
    ROBUST_PRIOR_SD,
)
from flute.errors import StudyFileError
from flute.messages.limits import Name
from flute.models.robust.median import middle
from flute.models.robust.own_fit import OwnFit, own_fit
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.steps import Step

_BITS: Final = ROBUST_FRACTION_BITS + ROBUST_LIMIT_BITS
_ANY_COUNT: Final = 60
"""Bits of patients counted on shares: none are, so there is no limit to mind."""
_SAID: Final = {
    "median": (
        "Each coefficient is the median of the hubs' own fits, one vote a hub. Standard errors take the hubs to be "
        "alike and the median to lose 25 % against a mean; they do not show differences between hubs."
    ),
    "too-few-votes": (
        "Fewer than three hubs have enough patients with and without the outcome to vote, so nothing was opened."
    ),
}


class RobustModel(Spec, frozen=True, tag="robust-model"):
    """A logistic regression by the median of the hubs' own fits; poisoned hubs in a minority cannot drag it.

    least: patients with the outcome, and patients without, that a hub has to have for a vote."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)]
    least: Annotated[int, Meta(ge=1, le=10_000)] = 20


class RobustModelAlgorithm(JointBase):
    """See the module's head."""

    name: ClassVar[str] = "robust-model"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "How many hubs had a vote; per coefficient the median of the hubs' own coefficients, and of their own "
            "standard errors. Of an odd number of votes each of these numbers is some hub's own, to 2^-12."
        ),
        bounded_by=(
            "Nothing: the numbers are exact. A hub's coefficient is cut off at 32 log odds per spread, proven before "
            "it is used."
        ),
        leaked_otherwise=(
            "Not which hub's number was the middle one. A hub that puts in false numbers chooses which of the honest "
            "hubs' numbers next to the middle is opened."
        ),
        event="on shares, opened without noise: no event; exact studies only",
    )

    def check(self, spec: RobustModel, setting: Setting) -> None:
        """Raises: StudyFileError."""
        require_exact(setting, self.name, bits=_ANY_COUNT)
        if known(spec.outcome, setting).variable.kind != "binary":
            raise StudyFileError(f"outcome: {spec.outcome!r} has to be a 0/1 variable.")
        if spec.outcome in spec.predictors:
            raise StudyFileError(f"predictors: {spec.outcome!r} is the outcome itself; leave it out.")
        check_design(spec.predictors, setting)
        if len(setting.hubs) > ROBUST_MAX_HUBS:
            raise StudyFileError(f"{self.name} compares the votes of at most {ROBUST_MAX_HUBS} hubs.")
        if (size := design_for(spec.predictors, setting).size) > ROBUST_MAX_COLUMNS:
            raise StudyFileError(
                f"predictors: these make {size} columns, and {self.name} has at most {ROBUST_MAX_COLUMNS}: a "
                "category makes one for each level but one. Leave some out."
            )

    def fields(self, spec: RobustModel, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: RobustModel, setting: Setting) -> tuple[StepShape, ...]:
        return self._outline(1 + 2 * design_for(spec.predictors, setting).size)

    def program(self, spec: RobustModel, setting: Setting, data: Dataset, party: Party) -> Step[Array]:
        x, y = self._rows(spec, setting, data)
        votes = int(y.sum()) >= spec.least and int((1 - y).sum()) >= spec.least
        mine = ballot(own_fit(x, y, prior(design_for(spec.predictors, setting))))
        count, twice = yield from middle(party, mine, votes=votes, bits=_BITS, least=ROBUST_MIN_VOTES)
        opened = (
            np.zeros(len(mine)) if twice is None else np.ldexp(twice.astype(np.float64), -ROBUST_FRACTION_BITS - 1)
        )
        return np.concatenate([[float(count)], opened])

    def _rows(self, spec: RobustModel, setting: Setting, data: Dataset) -> tuple[Array, Array]:
        """[n, p] predictors on the public scale, and [n] outcomes, 0 or 1, of those who count."""
        design = design_for(spec.predictors, setting)
        chosen = included(spec.predictors, spec.outcome, setting, data)
        x = matrix(design, private_scaling(design), data)[chosen]
        return x, (data.column(spec.outcome)[chosen] == 1).astype(np.float64)

    def cells(self, spec: RobustModel, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome."""
        _, y = self._rows(spec, setting, data)
        return np.array([int(y.sum()), int((1 - y).sum())], dtype=np.int64)

    def next(
        self, spec: RobustModel, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        votes, numbers = round(float(history[0].total[0])), history[0].total[1:]
        ending = "median" if votes >= ROBUST_MIN_VOTES else "too-few-votes"
        return Finished(result(spec, design_for(spec.predictors, setting), votes, numbers, ending))


def prior(design: Design) -> Array:
    """[p] deviations of the prior over columns on the public scale."""
    deviations = np.full(design.size, ROBUST_PRIOR_SD)
    deviations[0] = ROBUST_INTERCEPT_SD
    return deviations


def ballot(fit: OwnFit) -> Integers:
    """[2 p] what a hub puts in: coefficients, then their errors, in 2^-ROBUST_FRACTION_BITS, cut off at the limit."""
    whole = np.rint(np.ldexp(np.concatenate([fit.coefficients, fit.errors]), ROBUST_FRACTION_BITS))
    most = 2**_BITS - 1
    return np.asarray(np.clip(whole, -most, most), dtype=np.int64)


def result(spec: RobustModel, design: Design, votes: int, numbers: Array, ending: str) -> dict[str, Any]:
    """numbers: [2 p] medians over the public scale. A coefficient that another scale makes of several: no error."""
    scale = private_scaling(design)
    scaling = study_scaling(design, scale.centres, scale.spreads)
    over_study, over_raw = transfer(design, scale, scaling), transfer(design, scale, raw_scaling(design))
    middle_of, error_of = np.split(numbers, 2)
    told = ending == "median"
    coefficients = over_study @ middle_of
    errors = _errors(over_study, error_of, votes) if told else None
    raw = over_raw @ middle_of if told else np.full(design.size, np.nan)
    return {
        **model_table(spec, design, scaling, coefficients, raw),
        "raw_coefficients": or_none(raw),
        **wald_table(coefficients, errors),
        "raw_standard_errors": or_none(_errors(over_raw, error_of, votes)) if told else None,
        "votes": votes,
        "resists_hubs": max(0, (votes - 1) // 2),
        "ending": ending,
        "ending_text": _SAID[ending],
        "not_estimated": [],
    }


def _errors(carry: Array, errors: Array, votes: int) -> Array:
    alone = np.count_nonzero(carry, axis=1) == 1
    carried = np.abs(np.diag(carry)) * errors * MEDIAN_LOSS / np.sqrt(max(votes, 1))
    return np.asarray(np.where(alone, carried, np.nan))
