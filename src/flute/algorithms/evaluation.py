"""Discrimination, calibration and usefulness of models, from histograms of the risk they predict.

Per model one block: [histogram of the risk among patients with the outcome | the same without it (square-root
Toeplitz in private mode) | risk - 1/2 | (outcome - risk)^2 - 1/2]. A patient is in one of the two histograms
only, so a block's norm is sqrt(f_0^2 + ... + f_{B-1}^2 + 1/4 + 1/4), exactly. If risk by level is asked for:
[per level: with outcome, without | per model and level: risk - 1/2], norm sqrt(1 + models / 4).
Subtracting 1/2 halves what a patient can add; the number of patients puts it back.

All models are judged on the same patients: under "drop" those who have every predictor of every model, the
outcomes and the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from flute.algorithms.contract import (
    Ask,
    Evaluate,
    Finished,
    LogisticRegression,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    StepShape,
    model_references,
)
from flute.algorithms.design import (
    Design,
    Mask,
    check_design,
    check_variable,
    design_for,
    known,
    matrix,
    present,
    raw_scaling,
    values,
)
from flute.algorithms.linear import read_parameters
from flute.algorithms.newton import logits
from flute.algorithms.prefix import norm_squared, opened_counts, rows
from flute.algorithms.scores import level_scores, model_scores, risk_edges
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import MAX_VECTOR
from flute.errors import MisuseError, StudyFileError


@dataclass(frozen=True, slots=True)
class _Model:
    """One model reference: what it predicts and from what."""

    reference: str
    spec: LogisticRegression
    design: Design


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in the vector. `levels` is empty without `by`."""

    models: tuple[_Model, ...]
    levels: tuple[str, ...]
    bins: int

    @property
    def block(self) -> int:
        return 2 * self.bins + 2

    @property
    def size(self) -> int:
        return len(self.models) * self.block + len(self.levels) * (2 + len(self.models))


class EvaluateAlgorithm:
    """One step: all models are scored at every hub, with the coefficients that the question carries."""

    name: ClassVar[str] = "evaluate"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released=(
            "Per model: ROC curve and area, calibration, Brier score and net benefit, all from how many patients "
            "with and without the outcome fall into each bin of predicted risk; where asked, counts, outcomes and "
            "mean predicted risk per level of one variable."
        ),
        bounded_by=(
            "Per model a patient adds one histogram entry and two numbers within 1/2 of 0; per level one count "
            "and one number within 1/2 of 0 for each model. The norm of that is exact, whatever the coefficients: "
            "nothing is clipped away."
        ),
        leaked_otherwise="Nothing in private mode. In exact mode the same numbers are opened without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Evaluate, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        for model in spec.models:
            asked = _asked(model, setting)
            if spec.models.count(model) > 1:
                raise StudyFileError(f"models: {model!r} stands twice; keep one.")
            check_design(asked.predictors, setting)
        if spec.by:
            check_variable(known(spec.by, setting))
            if known(spec.by, setting).variable.kind == "number":
                raise StudyFileError(f"by: {spec.by!r} is a number; name a category or a binary variable.")
        if self.outline(spec, setting)[0].size > MAX_VECTOR:
            raise StudyFileError("These models and bins make too long a vector; ask for fewer bins.")

    def fields(self, spec: Evaluate, setting: Setting) -> tuple[str, ...]:
        named = [f for m in _layout(spec, setting).models for f in (m.spec.outcome, *m.spec.predictors)]
        return tuple(dict.fromkeys([*named, *([spec.by] if spec.by else [])]))

    def outline(self, spec: Evaluate, setting: Setting) -> tuple[StepShape, ...]:
        layout = _layout(spec, setting)
        models = len(layout.models)
        squared = models * (norm_squared(spec.bins, private=setting.mode == "private") + 0.5)
        squared += 1 + models / 4 if layout.levels else 0.0
        return (StepShape("scores", layout.size, float(np.sqrt(squared)), 1.0, 1.0),)

    def update(
        self, spec: Evaluate, setting: Setting, step: int, parameters: Sequence[float], data: Dataset
    ) -> Array:
        """See the contract. `parameters`: the raw coefficients of all model references, one after the other."""
        layout = _layout(spec, setting)
        coefficients = read_parameters(parameters, sum(m.design.size for m in layout.models), step, 1)
        ends = np.cumsum([m.design.size for m in layout.models])
        chosen = self._chosen(spec, setting, data)
        edges, private = risk_edges(spec.bins), setting.mode == "private"
        blocks, risks = [], []
        for model, own in zip(layout.models, np.split(coefficients, ends[:-1]), strict=True):
            x = matrix(model.design, raw_scaling(model.design), data)
            risks.append(expit(logits(x, own)))
            with_outcome = data.column(model.spec.outcome) == 1
            blocks.append(_model_rows(risks[-1], with_outcome, chosen, edges, private=private))
        if layout.levels:
            with_outcome = data.column(layout.models[0].spec.outcome) == 1
            level = values(known(spec.by, setting), data)
            blocks.append(_level_rows(level, len(layout.levels), with_outcome, risks, chosen))
        return np.hstack(blocks)

    def _chosen(self, spec: Evaluate, setting: Setting, data: Dataset) -> Mask:
        layout = _layout(spec, setting)
        if setting.missing == "drop":
            return present(self.fields(spec, setting), setting, data)
        return present([m.spec.outcome for m in layout.models], setting, data)

    def cells(self, spec: Evaluate, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with the outcome, without it, and per level with and without it.

        Which bins the patients fall into depends on coefficients that are not known before the question is
        answered; any bin may hold a single patient, so that one is counted as a cell too.
        """
        layout = _layout(spec, setting)
        chosen = self._chosen(spec, setting, data)
        counts: list[int] = [int(chosen.any())]
        for model in layout.models:
            y = data.column(model.spec.outcome)[chosen] == 1
            counts += [int(y.sum()), int((~y).sum())]
        if layout.levels:
            level = values(known(spec.by, setting), data)[chosen]
            y = data.column(layout.models[0].spec.outcome)[chosen] == 1
            counts += [int(((level == k) & (y == side)).sum()) for k in range(len(layout.levels)) for side in (0, 1)]
        return np.array(counts, dtype=np.int64)

    def next(
        self, spec: Evaluate, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        """Raises: MisuseError: a model that is to be scored has no usable coefficients among `inputs`."""
        layout = _layout(spec, setting)
        if not history:
            return Ask(tuple(v for model in layout.models for v in _coefficients(model, inputs)))
        opened, private = history[0], setting.mode == "private"
        edges = risk_edges(spec.bins)
        scored: dict[str, Any] = {}
        for k, model in enumerate(layout.models):
            block = opened.total[k * layout.block : (k + 1) * layout.block]
            cases = opened_counts(block[: spec.bins], opened.sigma, private=private)
            controls = opened_counts(block[spec.bins : 2 * spec.bins], opened.sigma, private=private)
            scored[model.reference] = model_scores(cases, controls, block[-2:], edges, opened.sigma)
        result: dict[str, Any] = {"models": scored, "risk_edges": edges.tolist()}
        if layout.levels:
            rest = opened.total[len(layout.models) * layout.block :]
            references = [m.reference for m in layout.models]
            by = level_scores(rest, layout.levels, references, opened.sigma, private=private)
            result["by"] = {"variable": spec.by, "outcome": layout.models[0].spec.outcome, "levels": by}
        return Finished(result)


def _asked(model: str, setting: Setting) -> LogisticRegression:
    """Raises: StudyFileError: the study has no logistic regression of that id."""
    what = setting.questions.get(model, (None, ""))[0]
    if not isinstance(what, LogisticRegression):
        raise StudyFileError(f"models: {model!r} is no logistic regression of this study; ask for it first.")
    return what


def _layout(spec: Evaluate, setting: Setting) -> _Layout:
    models = []
    for name in spec.models:
        what = _asked(name, setting)
        design = design_for(what.predictors, setting)
        models += [_Model(reference, what, design) for reference in model_references((name,), setting)]
    levels: tuple[str, ...] = ()
    if spec.by:
        variable = known(spec.by, setting).variable
        levels = variable.levels if variable.kind == "category" else ("0", "1")
    return _Layout(tuple(models), levels, spec.bins)


def _coefficients(model: _Model, inputs: Mapping[str, dict[str, Any]]) -> list[float]:
    found = inputs.get(model.reference, {}).get("raw_coefficients")
    if found is None or len(found) != model.design.size or not np.isfinite(found).all():
        raise MisuseError(f"Model {model.reference} has no coefficients to score; finish its question first.")
    return [float(v) for v in found]


def _model_rows(risk: Array, with_outcome: Mask, chosen: Mask, edges: Array, *, private: bool) -> Array:
    """[n, 2 bins + 2], zero where not chosen."""
    bins = len(edges) - 1
    at = np.clip(np.searchsorted(edges, risk, side="right") - 1, 0, bins - 1)
    cases = rows(np.where(chosen & with_outcome, at, -1).astype(np.int64), bins, private=private)
    controls = rows(np.where(chosen & ~with_outcome, at, -1).astype(np.int64), bins, private=private)
    brier = (with_outcome - risk) ** 2 - 0.5
    return np.column_stack([cases, controls, (risk - 0.5) * chosen, brier * chosen])


def _level_rows(level: Array, levels: int, with_outcome: Mask, risks: Sequence[Array], chosen: Mask) -> Array:
    """[n, levels (2 + models)]: with outcome per level, without per level, then risk - 1/2 per model and level."""
    member = (level[:, None] == np.arange(levels)) & chosen[:, None]
    parts = [member & with_outcome[:, None], member & ~with_outcome[:, None]]
    return np.hstack([*parts, *(member * (risk - 0.5)[:, None] for risk in risks)]).astype(np.float64)
