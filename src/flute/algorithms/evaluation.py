"""Discrimination, calibration and usefulness of models, from histograms of the risk they predict.

Per model one block: [histogram of the risk among patients with the outcome | the same without it (square-root
Toeplitz in private mode) | risk - 1/2 | (outcome - risk)^2 - 1/2]. A patient is in one of the two histograms
only, so a block's norm is sqrt(f_0^2 + ... + f_{B-1}^2 + 1/4 + 1/4), exactly. If risk by level is asked for:
[per level: with outcome, without | per model and level: risk - 1/2], norm sqrt(1 + models / 4). If models are to be
scored in every group: [per level and model: a block of those in it], of which a patient is in one level's.
Subtracting 1/2 halves what a patient can add; the number of patients puts it back.

All models are judged on the same patients: under "drop" those who have every predictor of every model, the
outcomes and the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Ask,
    Evaluate,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    Scorer,
    Setting,
    Spec,
    StepShape,
)
from flute.algorithms.design import Mask, check_variable, known, present, usable, values
from flute.algorithms.linear import read_parameters
from flute.algorithms.prefix import norm_squared, opened_counts, rows
from flute.algorithms.scores import level_scores, model_scores, risk_edges
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults import MAX_VECTOR
from flute.errors import MisuseError, StudyFileError
from flute.messages.numbers import read_only


@dataclass(frozen=True, slots=True)
class _Model:
    """One model reference: what it predicts, from what, and how many numbers it is."""

    reference: str
    spec: Spec
    scorer: Scorer
    size: int

    @property
    def outcome(self) -> str:
        return self.scorer.outcome(self.spec)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in the vector. `levels` is empty without `by`."""

    models: tuple[_Model, ...]
    levels: tuple[str, ...]
    bins: int
    fair: bool

    @property
    def block(self) -> int:
        return 2 * self.bins + 2

    @property
    def size(self) -> int:
        return len(self.models) * self.block + len(self.levels) * self.per_level

    @property
    def per_level(self) -> int:
        return 2 + len(self.models) * (1 + self.fair * self.block)


class EvaluateAlgorithm:
    """One step: all models are scored at every hub, with the parameters that the question carries.

    scorers: kind of question to what scores the model it makes."""

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

    def __init__(self, scorers: Mapping[type[Spec], Scorer]) -> None:
        self._scorers = scorers

    def check(self, spec: Evaluate, setting: Setting) -> None:
        """Raises: StudyFileError: see the sentences."""
        for model in spec.models:
            self._asked(model, setting)
            if spec.models.count(model) > 1:
                raise StudyFileError(f"models: {model!r} stands twice; keep one.")
        if spec.by:
            check_variable(known(spec.by, setting))
        _check_groups(spec, setting)
        if self.outline(spec, setting)[0].size > MAX_VECTOR:
            raise StudyFileError("These models and bins make too long a vector; ask for fewer bins.")

    def fields(self, spec: Evaluate, setting: Setting) -> tuple[str, ...]:
        named = [f for m in self._layout(spec, setting).models for f in (m.outcome, *m.scorer.predictors(m.spec))]
        return tuple(dict.fromkeys([*named, *([spec.by] if spec.by else [])]))

    def outline(self, spec: Evaluate, setting: Setting) -> tuple[StepShape, ...]:
        layout = self._layout(spec, setting)
        models = len(layout.models)
        squared = models * (norm_squared(spec.bins, private=setting.mode == "private") + 0.5)
        squared *= 1 + (layout.fair and bool(layout.levels))
        squared += 1 + models / 4 if layout.levels else 0.0
        return (StepShape("scores", layout.size, float(np.sqrt(squared)), 1.0, 1.0),)

    def update(self, spec: Evaluate, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """See the contract. `parameters`: those of all model references, one after the other."""
        layout = self._layout(spec, setting)
        read = read_parameters(parameters, sum(m.size for m in layout.models), step, 1)
        ends = np.cumsum([m.size for m in layout.models])
        chosen = self._chosen(spec, setting, data)
        edges, private = risk_edges(spec.bins), setting.mode == "private"
        blocks, risks = [], []
        for model, own in zip(layout.models, np.split(read, ends[:-1]), strict=True):
            risks.append(model.scorer.risks(model.spec, setting, own, data))
            with_outcome = data.column(model.outcome) == 1
            blocks.append(_model_rows(risks[-1], with_outcome, chosen, edges, private=private))
        if layout.levels:
            with_outcome = data.column(layout.models[0].outcome) == 1
            level = _level(spec, setting, data)
            whole = blocks.copy()
            blocks.append(_level_rows(level, len(layout.levels), with_outcome, risks, chosen))
            if layout.fair:
                blocks += [rows * (level == k)[:, None] for k in range(len(layout.levels)) for rows in whole]
        return np.hstack(blocks)

    def _chosen(self, spec: Evaluate, setting: Setting, data: Dataset) -> Mask:
        layout = self._layout(spec, setting)
        if setting.missing == "drop":
            return present(self.fields(spec, setting), setting, data)
        return present([m.outcome for m in layout.models], setting, data)

    def cells(self, spec: Evaluate, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with the outcome, without it, and per level with and without it.

        Which bins the patients fall into depends on coefficients that are not known before the question is
        answered; any bin may hold a single patient, so that one is counted as a cell too.
        """
        layout = self._layout(spec, setting)
        chosen = self._chosen(spec, setting, data)
        counts: list[int] = [int(chosen.any())]
        for model in layout.models:
            y = data.column(model.outcome)[chosen] == 1
            counts += [int(y.sum()), int((~y).sum())]
        if layout.levels:
            level = _level(spec, setting, data)[chosen]
            y = data.column(layout.models[0].outcome)[chosen] == 1
            counts += [int(((level == k) & (y == side)).sum()) for k in range(len(layout.levels)) for side in (0, 1)]
        return np.array(counts, dtype=np.int64)

    def next(
        self, spec: Evaluate, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        """Raises: MisuseError: a model that is to be scored cannot be used, among `inputs`."""
        layout = self._layout(spec, setting)
        if not history:
            return Ask(np.concatenate([_parameters(model, setting, inputs) for model in layout.models]))
        opened, private = history[0], setting.mode == "private"
        edges = risk_edges(spec.bins)
        scored: dict[str, Any] = {}
        for k, model in enumerate(layout.models):
            block = opened.total[k * layout.block : (k + 1) * layout.block]
            scored[model.reference] = _scored(block, edges, opened.sigma, private=private)
        result: dict[str, Any] = {"models": scored, "risk_edges": edges.tolist()}
        if layout.levels:
            rest = opened.total[len(layout.models) * layout.block :]
            references = [m.reference for m in layout.models]
            table, fair = np.split(rest, [len(layout.levels) * (2 + len(references))])
            by = level_scores(table, layout.levels, references, opened.sigma, private=private)
            if layout.fair:
                blocks = fair.reshape(len(layout.levels), len(references), layout.block)
                by = [row | {"scores": _group(own, references, edges, opened.sigma, private=private)}
                      for row, own in zip(by, blocks, strict=True)]  # fmt: skip
            result["by"] = {"variable": spec.by, "outcome": layout.models[0].outcome, "levels": by}
        return Finished(result)

    def _asked(self, model: str, setting: Setting) -> tuple[Spec, Scorer]:
        """Raises: StudyFileError: no question of that id makes a model."""
        what = setting.questions.get(model, (None, ""))[0]
        scorer = self._scorers.get(type(what)) if what is not None else None
        if what is None or scorer is None:
            raise StudyFileError(f"models: {model!r} is no model of this study; ask for it first.")
        return what, scorer

    def _layout(self, spec: Evaluate, setting: Setting) -> _Layout:
        models = []
        for name in spec.models:
            what, scorer = self._asked(name, setting)
            size = scorer.size(what, setting)
            models += [_Model(reference, what, scorer, size) for reference in model_references((name,), setting)]
        levels: tuple[str, ...] = ()
        if spec.by:
            variable = known(spec.by, setting).variable
            levels = variable.levels if variable.kind == "category" else ("0", "1")
            levels = _bands(spec.cuts or ()) if variable.kind == "number" else levels
        return _Layout(tuple(models), levels, spec.bins, bool(spec.fairness))


def _check_groups(spec: Evaluate, setting: Setting) -> None:
    """Raises: StudyFileError: groups that cannot be made."""
    if spec.fairness and not spec.by:
        raise StudyFileError("fairness: say of which groups; name a variable under 'by'.")
    variable = known(spec.by, setting).variable if spec.by else None
    cuts = spec.cuts or ()
    if variable is None or variable.kind != "number":
        if cuts:
            raise StudyFileError("cuts: they divide a number; name one under 'by', or leave them out.")
        return
    if not cuts:
        raise StudyFileError(
            f"by: {spec.by!r} is a number; write where its groups begin, for example 'cuts: [50, 70]', or name a "
            "category or a binary variable."
        )
    within = all(variable.low < cut <= variable.high for cut in cuts)
    if not within or any(a >= b for a, b in pairwise(cuts)):
        raise StudyFileError(
            f"cuts: write rising numbers within the range of {spec.by}, {variable.low:g} to {variable.high:g}."
        )


def _bands(cuts: Sequence[float]) -> tuple[str, ...]:
    """Names of the groups of a number."""
    between = [f"{a:g} to below {b:g}" for a, b in pairwise(cuts)]
    return (f"below {cuts[0]:g}", *between, f"{cuts[-1]:g} and above")


def _level(spec: Evaluate, setting: Setting, data: Dataset) -> Array:
    """[n] place of a patient's group, NaN or -1 where he is in none."""
    used = known(spec.by, setting)
    if used.variable.kind != "number":
        return values(used, data)
    raw = data.column(spec.by)
    place = np.searchsorted(np.array(spec.cuts or ()), raw, side="right")
    return np.where(usable(used.variable, raw), place, -1).astype(np.float64)


def _scored(block: Array, edges: Array, sigma: float, *, private: bool) -> dict[str, Any]:
    bins = len(edges) - 1
    cases = opened_counts(block[:bins], sigma, private=private)
    controls = opened_counts(block[bins : 2 * bins], sigma, private=private)
    return model_scores(cases, controls, block[-2:], edges, sigma)


def _group(
    blocks: Array, references: Sequence[str], edges: Array, sigma: float, *, private: bool
) -> dict[str, dict[str, Any]]:
    """Per model: how it does in one group."""
    shown = {}
    for reference, block in zip(references, blocks, strict=True):
        found = _scored(block, edges, sigma, private=private)
        within = found["calibration"] or {}
        shown[reference] = {
            **{name: found[name] for name in ("n", "events", "auc", "brier")},
            "in_the_large": within.get("in_the_large"),
            "slope": within.get("slope"),
        }
    return shown


def _parameters(model: _Model, setting: Setting, inputs: Mapping[str, dict[str, Any]]) -> Array:
    found = read_only(model.scorer.parameters(model.spec, setting, inputs.get(model.reference, {})))
    if len(found) != model.size or not np.isfinite(found).all():
        raise MisuseError(f"Model {model.reference} has no parameters to score with; finish its question first.")
    return found


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


def model_references(models: Sequence[str], setting: Setting) -> tuple[str, ...]:
    """Question ids, those of scope "each" expanded to one reference per hub: `own@huvh`."""
    expanded: list[str] = []
    for model in models:
        _, scope = setting.questions[model]
        expanded += [f"{model}@{hub}" for hub in setting.hubs] if scope == "each" else [model]
    return tuple(expanded)
