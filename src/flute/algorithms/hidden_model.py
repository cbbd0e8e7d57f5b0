"""A logistic regression on shares: neither the coordinator nor the researcher ever sees the model.

Each hub learns the predicted risks of its own patients, and nobody else's. What is opened is how well the model tells
who is ill: how many patients with and without the outcome fall into each bin of predicted risk, and two sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, HiddenModel, Opened, PrivacyStatement, Setting, StepShape
from flute.algorithms.design import Scaling, check_design, design_for, included, known, matrix, present
from flute.algorithms.joint_statistics import JointBase, require_exact
from flute.algorithms.prefix import opened_counts
from flute.algorithms.scores import model_scores, risk_edges
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import StudyFileError
from flute.joint.arithmetic import reveal
from flute.joint.newton import ROW_LIMIT
from flute.joint.regression import MAX_PREDICTORS, logistic_regression, predict
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.steps import Step

SUM_BITS: Final = 20
"""Fraction bits of the two opened sums: one patient counts to one in a million."""
_INSIDE: Final = ROW_LIMIT - 2.0**-10


class HiddenModelAlgorithm(JointBase):
    """See the module's head. Predictors enter as (value - centre) / spread, both public."""

    name: ClassVar[str] = "hidden-model"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "How many patients each hub's model counts; whether the fit settled; how many patients with and without "
            "the outcome fall into each bin of predicted risk; the sums of predicted risk and of squared error."
        ),
        bounded_by="Nothing: these numbers are exact. The coefficients are not opened to anybody.",
        leaked_otherwise=(
            "Each hub learns the predicted risk of its own patients; from as many of them as the model has "
            "coefficients it can work out the model. Coordinator and researcher cannot."
        ),
        event="on shares, opened without noise: no event; exact studies only",
    )

    def check(self, spec: HiddenModel, setting: Setting) -> None:
        """Raises: StudyFileError."""
        require_exact(setting, self.name)
        if known(spec.outcome, setting).variable.kind != "binary":
            raise StudyFileError(f"outcome: {spec.outcome!r} has to be a 0/1 variable.")
        if spec.outcome in spec.predictors:
            raise StudyFileError(f"predictors: {spec.outcome!r} is the outcome itself; leave it out.")
        check_design(spec.predictors, setting)
        columns = design_for(spec.predictors, setting).size - 1
        if columns > MAX_PREDICTORS:
            raise StudyFileError(
                f"predictors: these make {columns} columns, and a model on shares has at most {MAX_PREDICTORS}: a "
                "category makes one for each level but one. Leave some out, or ask for logistic-regression."
            )

    def fields(self, spec: HiddenModel, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, *spec.predictors)

    def outline(self, spec: HiddenModel, setting: Setting) -> tuple[StepShape, ...]:
        return self._outline(1 + len(setting.hubs) + 2 * spec.bins + 2)

    def program(self, spec: HiddenModel, setting: Setting, data: Dataset, party: Party) -> Step[Array]:
        x, y = self._rows(spec, setting, data)
        sizes = yield from _told(party, len(y), setting.max_patients)
        model = yield from logistic_regression(party, x, y, rows=sizes)
        settled = yield from reveal(party, model.settled)
        mine = np.zeros(0)
        for owner, rows in enumerate(sizes, start=1):
            risks = yield from predict(party, model, x if owner == party.me else None, owner=owner, rows=rows)
            mine = mine if risks is None else risks
        scores = yield from _added(party, _scores(mine, y, risk_edges(spec.bins)), setting.max_patients)
        return np.concatenate([[float(settled[0])], np.array(sizes, dtype=np.float64), scores])

    def _rows(self, spec: HiddenModel, setting: Setting, data: Dataset) -> tuple[Array, NDArray[np.int64]]:
        """[n, p] predictors on the public scale, without the intercept, and [n] outcomes of those who count."""
        design = design_for(spec.predictors, setting)
        centres = np.array([v.centre for v in design.numbers], dtype=np.float64)
        spreads = np.array([v.spread for v in design.numbers], dtype=np.float64)
        chosen = included(spec.predictors, spec.outcome, setting, data)
        x = matrix(design, Scaling(centres, spreads, centres), data)[chosen, 1:]
        return np.clip(x, -_INSIDE, _INSIDE), (data.column(spec.outcome)[chosen] == 1).astype(np.int64)

    def cells(self, spec: HiddenModel, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with and without the outcome; a bin of predicted risk may hold a single one."""
        _, y = self._rows(spec, setting, data)
        return np.array([int(present((spec.outcome,), setting, data).any()), int(y.sum()), int((1 - y).sum())])

    def next(
        self, spec: HiddenModel, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        total, hubs = history[0].total, len(setting.hubs)
        settled, sizes, scores = total[0], total[1 : 1 + hubs], total[1 + hubs :]
        cases = opened_counts(scores[: spec.bins], 0.0, private=False)
        controls = opened_counts(scores[spec.bins : 2 * spec.bins], 0.0, private=False)
        edges = risk_edges(spec.bins)
        return Finished(
            {
                "settled": bool(round(settled)),
                "patients": {hub: round(n) for hub, n in zip(sorted(setting.hubs), sizes, strict=True)},
                "scores": model_scores(cases, controls, scores[-2:], edges, 0.0),
                "risk_edges": edges.tolist(),
            }
        )


def _told(party: Party, mine: int, most: int) -> Step[tuple[int, ...]]:
    """How many patients each hub has, told to all."""
    shapes = dict.fromkeys(range(1, party.hubs + 1), (1,))
    shared = yield from party.inputs(np.array([mine]), shapes, bound=(most + 1).bit_length())
    sizes = []
    for place in sorted(shared):
        sizes.append(int((yield from reveal(party, shared[place]))[0]))
    return tuple(sizes)


def _scores(risk: Array, y: NDArray[np.int64], edges: Array) -> Integers:
    """[2 bins + 2] this hub's counts of cases and controls by bin, and its two sums, all in 2^-SUM_BITS."""
    bins = len(edges) - 1
    at = np.clip(np.searchsorted(edges, risk, side="right") - 1, 0, bins - 1)
    counts = [np.bincount(at[y == side], minlength=bins) << SUM_BITS for side in (1, 0)]
    sums = [np.sum(risk - 0.5), np.sum((y - risk) ** 2 - 0.5)]
    return np.concatenate([*counts, np.rint(np.ldexp(np.array(sums), SUM_BITS))]).astype(np.int64)


def _added(party: Party, mine: Integers, most: int) -> Step[Array]:
    """The sum of all hubs' scores, opened; float64, in patients."""
    total = yield from party.summed(mine, bound=((most + 1) << SUM_BITS).bit_length())
    opened = yield from reveal(party, total)
    return np.ldexp(opened.astype(np.float64), -SUM_BITS)
